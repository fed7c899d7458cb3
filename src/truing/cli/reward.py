"""Commands about reward models: fit one, bring one in, combine several, measure them."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truing.cli.options import HERE, Force, Json, Seed, Set, Where, between, newest_turn, opened_project
from truing.console import complain, result, say, show_table
from truing.errors import UserError

if TYPE_CHECKING:
    from truing.artifacts import Artifact
    from truing.feedback.chosen import Chosen, FileRead
    from truing.store.project import Project

app = typer.Typer()
reward_app = typer.Typer(help="Reward models.", no_args_is_help=True)
app.add_typer(reward_app, name="reward")


class DType(StrEnum):
    """Types of a model's weights."""

    FP32 = "fp32"
    BF16 = "bf16"


@reward_app.command("train")
def reward_train(
    dataset: Annotated[str | None, typer.Option(help="Dataset to learn from (default: the round's, made now if there is none).")] = None,
    seed: Seed = None, project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Fit a reward model to people's preferences."""
    from truing.artifacts import load_artifact
    from truing.rounds import train_reward_model

    with newest_turn(project, set_, json, force, seed) as turn:
        if dataset is not None:
            turn.note(dataset=load_artifact(turn.project.artifacts, dataset, "dataset").id)
        model = train_reward_model(turn)
        accuracy, measured = model.facts["accuracy"], model.facts["n_held_out"]
        right = f"held-out accuracy {between(accuracy)} on {accuracy['n']} pairs" if measured else "no held-out pair takes a side, so that it has no accuracy"
        say(f"{model.id}: {right}")
        for kind, found in model.facts.get("held_out_surprise", {}).items():
            say(f"held-out judgements of kind {kind}: {found['nats']:.3f} nats each, {found['alike']:.3f} if all answers were alike, n = {found['n']:,}")
        _tell_fitness(model.facts["fitness"])
        say("", then="truing reward card" if measured else "truing tune --set tune.unfit=true    (or judge pairs: truing studio)")
        bounds = {"accuracy": accuracy["value"], "accuracy_low": accuracy["low"], "accuracy_high": accuracy["high"]}
        result({"reward": model.id, **bounds, "n_test": accuracy["n"], "verdict": model.facts["fitness"]["verdict"]})


@reward_app.command("use")
def reward_use(
    source: Annotated[str, typer.Argument(help="hub:OWNER/NAME or hub:FOLDER, a sequence-classification model; or FILE.py:FUNCTION, a Python function.")],
    label: Annotated[str | None, typer.Option("--label", help="The label whose log-odds are the score, where the model has several.")] = None,
    template: Annotated[Path | None, typer.Option("--template", help="A file with a chat template in Jinja, for a model without one.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", min=2, help="Tokens it reads at most, the last ones (default: what it can).")] = None,
    dtype: Annotated[DType, typer.Option("--dtype", help="Of its weights: bf16 takes half the memory, and scores differ by its rounding.")] = DType.FP32,
    dataset: Annotated[str | None, typer.Option(help="Dataset that it is measured on (default: the round's, or the newest).")] = None,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Bring in a reward model: one of the Hub's, a folder, or a Python function.

    A model is opened from safetensors alone, without pickles and without code of its own. A Python function is your code: it runs here, now and whenever this
    reward scores, with all the rights that you have, and nothing fences it in. Read what you didn't write.
    """
    from truing.reward.outside.classifier import Reading
    from truing.rounds import use_reward_model

    own = None if template is None else _text_of(template)
    with newest_turn(project, set_, json, force, new=True) as turn:
        model = use_reward_model(turn, source, Reading(label, own, max_tokens, dtype.value), dataset)
        _tell_brought(model, model.facts["name"])


@reward_app.command("combine")
def reward_combine(
    objectives: Annotated[list[str], typer.Argument(metavar="NAME=ARTIFACT[:WEIGHT]", help="Reward models with a name and a weight (default 1) each.")],
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", metavar="NAME:THRESHOLD:PRICE", help="What an objective falls short of THRESHOLD costs PRICE a standard deviation."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset that it is measured on (default: the round's, or the newest).")] = None,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Make one reward model of several: a weighted sum, some of them held to a threshold.

    All scores are normalised, 0 and 1 being mean and standard deviation over ordinary answers: a threshold of -0.5 is a little below an ordinary answer.
    """
    from truing.rounds import combine_reward_models

    with newest_turn(project, set_, json, force, new=True) as turn:
        model = combine_reward_models(turn, objectives, at_least or [], dataset)
        _tell_brought(model, ", ".join(objectives))


@reward_app.command("eval")
def reward_eval(
    files: Annotated[list[Path], typer.Argument(help="Files of preferences, such as a RewardBench set; formats as for `truing import`, or parquet.")],
    model: Annotated[str | None, typer.Option("--model", help="A reward model (default: the newest).")] = None,
    format: Annotated[str, typer.Option("--format", help="One of docs/formats.md; guessed by default.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the intervals.")] = 1,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """How often a reward model is right on preferences in files, subset by subset."""
    from truing.feedback.chosen import read_chosen

    with opened_project(project, set_, json) as opened:
        read = [read_chosen(file, format) for file in files]
        told = [_tell_read(one) for one in read]
        result({**_evaluated(opened, model, [row for one in read for row in one.chosen], seed), "files": told})


@reward_app.command("card")
def card(
    model: Annotated[str | None, typer.Argument(help="A reward model (default: the newest).")] = None,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """How far a reward model can be trusted, and whether it is fit to tune against."""
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.reward.card.page import write_page
    from truing.reward.card.stage import make_card, read_card
    from truing.reward.card.table import card_rows
    from truing.store.project import newest_artifact

    with opened_project(project, set_, json, force) as opened:
        made = make_card(opened, model or newest_artifact(opened, "reward"), open_trunk(opened.settings(ModelSettings)))
        found, page = read_card(made), write_page(opened, made.id)
        show_table(("question", "value", "n"), card_rows(found))
        _tell_fitness(found["fitness"])
        say(f"the card is at {page}", then="truing tune")
        result({"card": made.id, "report": str(page), **found})


@reward_app.command("probe")
def probe(
    model: Annotated[str | None, typer.Argument(help="A reward model (default: the newest).")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything it draws.")] = 1,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """What a reward model has learned to like, and what fools it."""
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.reward.probe.findings import effect_rows
    from truing.reward.probe.page import write_page
    from truing.reward.probe.stage import ProbeSettings, probe_reward_model, read_probe
    from truing.store.project import newest_artifact

    with opened_project(project, set_, json, force) as opened:
        reward = model or newest_artifact(opened, "reward")
        found = probe_reward_model(opened, opened.settings(ProbeSettings), reward, open_trunk(opened.settings(ModelSettings)), seed=seed)
        page, (facts, _) = write_page(opened, found), read_probe(found)
        show_table(("what the answer has", "finding", "effect", "words", "prompts"), effect_rows(facts["effects"]))
        for sentence in facts["verdict"]["sentences"]:
            say(sentence)
        say(f"the probe is at {page}", then="truing tune")
        result({"probe": found.id, "report": str(page), **facts})


@reward_app.command("export")
def reward_export(
    folder: Annotated[Path, typer.Argument(help="Where to; a folder that isn't there yet.")],
    model: Annotated[str | None, typer.Option("--model", help="A reward model (default: the newest).")] = None,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """A reward model as transformers, TRL and others load it (AutoModelForSequenceClassification)."""
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.reward.export import OFFSET, export_classifier
    from truing.reward.score import load_trained_model
    from truing.store.project import newest_artifact

    with opened_project(project, set_, json) as opened:
        chosen = model or newest_artifact(opened, "reward")
        offset = export_classifier(load_trained_model(opened, chosen, open_trunk(opened.settings(ModelSettings))), folder)
        say(f"{folder} gives the scores of {chosen} less {offset:.4f} ({OFFSET} in its config.json)")
        result({"reward": chosen, "folder": str(folder), OFFSET: offset})


def _tell_brought(model: "Artifact", what: str) -> None:
    """A reward model that was not fitted here, and how far it can be trusted."""
    accuracy, measured = model.facts["accuracy"], model.facts.get("n_held_out")
    right = f"held-out accuracy {between(accuracy)} on {accuracy['n']} pairs" if measured else "not measured, for want of held-out judgements"
    say(f"{model.id}: {what}; {right}")
    _tell_fitness(model.facts["fitness"])
    say("", then="truing reward card" if measured else "truing tune --set tune.unfit=true    (or: truing preferences, and then this again)")
    result({"reward": model.id, "accuracy": accuracy["value"], "n_test": accuracy["n"], "verdict": model.facts["fitness"]["verdict"]})


def _text_of(file: Path) -> str:
    """What a file of the user's says."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} can't be read: {error}", fix="name a text file in UTF-8") from error


def _tell_fitness(fitness: dict[str, Any]) -> None:
    """The verdict on a reward model, why, and what would help."""
    say(fitness["sentence"])
    for reason in fitness["reasons"]:
        say(f"  {reason['text']}\n    fix: {reason['remedy']}")


def _tell_read(read: "FileRead") -> dict[str, Any]:
    """What a file of preferences holds, and what of it can't be used."""
    for row in read.refused[:10]:
        complain(str(row))
    refused = len(read.refused) + read.more_refused
    aside = {**read.left_out, **({"refused": refused} if refused else {})}
    say(f"{read.name} ({read.format}): {len(read.chosen)} preferences" + "".join(f"; {why}: {n}" for why, n in aside.items()))
    return {"file": read.name, "format": read.format, "pairs": len(read.chosen), "left_out": read.left_out, "refused": refused}


def _evaluated(opened: "Project", model: str | None, rows: "list[Chosen]", seed: int) -> dict[str, Any]:
    """A reward model's accuracy on preferences, told as a table."""
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.reward.eval_files import COLUMNS, evaluate_pairs, not_learned_from, table
    from truing.reward.score import load_reward_model
    from truing.store.project import newest_artifact

    name = model or newest_artifact(opened, "reward")
    unseen = not_learned_from(opened, name, rows)
    if len(unseen) < len(rows):
        say(f"{len(rows) - len(unseen)} preferences are about prompts that {name} learned from, and are left out")
    scorer = load_reward_model(opened, name, open_trunk(opened.settings(ModelSettings)))
    found = evaluate_pairs(scorer, unseen, seed=seed, nats=scorer.nats, file=opened.root / "cache" / "scores" / f"eval-{name}.json")
    show_table(COLUMNS, table(found))
    say(found["sentence"], then="truing reward card")
    return {"reward": name, "learned_from": len(rows) - len(unseen), **found}
