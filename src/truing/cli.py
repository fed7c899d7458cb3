"""The commands, in the order of the data. Each parses, calls one function and prints; torch loads inside the commands
that need it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truing.console import complain, result, say, show_table, speak_json
from truing.errors import UserError

if TYPE_CHECKING:
    from truing.artifacts import Artifact
    from truing.feedback.chosen import Chosen, FileRead
    from truing.rounds import Turn
    from truing.store.project import Project

app = typer.Typer(
    help="Close the RLHF loop: people judge, a reward model learns, PPO tunes, evaluation decides.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
prompts_app = typer.Typer(help="The prompts of a project.", no_args_is_help=True)
studio_app = typer.Typer(help="The web studio, where people judge.", invoke_without_command=True)
reward_app = typer.Typer(help="Reward models.", no_args_is_help=True)
round_app = typer.Typer(help="Whole turns of the loop.", no_args_is_help=True)

Where = Annotated[Path, typer.Option("--project", help="The project's folder.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting for this run, e.g. samples.temperature=0.8.")]
Json = Annotated[bool, typer.Option("--json", help="Messages to stderr; the last line of stdout is one JSON object.")]
Force = Annotated[bool, typer.Option("--force", help="Do it again even if the same inputs were done before.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of a new round (default 1, or the parent round's).")]
HERE = Path()


class DType(StrEnum):
    """Types of a model's weights."""

    FP32 = "fp32"
    BF16 = "bf16"


def main() -> None:
    """The entry point: a user's mistake ends with `what / fix` and exit code 2."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        complain(f"error: {error}")
        sys.exit(2)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; made if absent.")],
    everyday: Annotated[bool, typer.Option("--everyday", help="Bring in the everyday prompts that come with Truing.")] = False,
    simulated: Annotated[bool, typer.Option("--simulated", help="Let a simulated crowd judge in place of people.")] = False,
    json: Json = False,
) -> None:
    """Make a project: a folder with settings, a store and room for what will be made."""
    from truing.config import commented_toml
    from truing.store.project import create_project, open_project

    speak_json(json)
    create_project(folder, settings=commented_toml({"round": {"feedback": "simulated"}} if simulated else None))
    added = 0
    if everyday:
        added = _bring(open_project(folder), [])["added"]
    say(f"{folder} is a project now", then=f"cd {folder} && truing {'round run' if everyday and simulated else 'prompts import FILE'}")
    result({"project": str(folder), "prompts": added})


@prompts_app.command("import")
def prompts_import(
    files: Annotated[list[str] | None, typer.Argument(help="jsonl, csv, txt or parquet files, or hub:owner/name.")] = None,
    everyday: Annotated[bool, typer.Option("--everyday", help="The everyday prompts that come with Truing.")] = False,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Bring prompts in: duplicates are counted, rows that can't be used are refused with their line."""
    with _project(project, set_, json) as opened:
        if not files and not everyday:
            raise UserError("no file was named", fix="truing prompts import FILE, or --everyday")
        done = _bring(opened, files or [], everyday=everyday)
        say(
            f"{done['added']} prompts came in ({done['held_out']} held out), {done['duplicates']} were there already, {done['refused']} refused",
            then="truing sample",
        )
        result(done)


@app.command()
def sample(seed: Seed = None, project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Draw responses to all prompts from the policy that the round starts with."""
    from truing.rounds import choose_prompts
    from truing.rounds import sample as draw

    with _turn(project, set_, json, force, seed) as turn:
        choose_prompts(turn)
        batch = draw(turn)
        say(f"{turn.made['samples']['n']} samples from {turn.parent_policy}", then="truing studio    (or: truing annotate --simulated)")
        result({"batch": batch, "n": turn.made["samples"]["n"]})


@studio_app.callback()
def studio(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Where it listens. Beyond this machine it needs an owner first.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    name: Annotated[list[str] | None, typer.Option("--name", help="A further host name that people reach it by, e.g. studio.example.org.")] = None,
    https: Annotated[bool, typer.Option("--https", help="People reach it by https, through a proxy that speaks it.")] = False,
    browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    project: Where = HERE, set_: Set = None,
) -> None:  # fmt: skip
    """The web studio, where people judge: one process on this machine until you say otherwise."""
    if context.invoked_subcommand is not None:
        return
    from truing.studio.app import serve

    with _project(project, set_, False) as opened:
        serve(opened, host=host, port=port, https=https, names=name or (), open_browser=browser)


@studio_app.command("add-owner")
def studio_add_owner(
    name: Annotated[str, typer.Argument(help="Whom to let in as an owner; who is there already gets a new password.")],
    password: Annotated[str | None, typer.Option(help="Typed at a prompt if it isn't given here; `-` makes one up.")] = None,
    project: Where = HERE,
) -> None:  # fmt: skip
    """Make someone an owner of the studio, or give an owner a new password."""
    from truing.store.clock import now
    from truing.studio.invitations import add_owner
    from truing.studio.passwords import Passwords, generated

    with _project(project, None, False) as opened:
        secret = generated() if password == "-" else password or typer.prompt("password", hide_input=True, confirmation_prompt=True)
        new = add_owner(opened, Passwords(), name, secret, at=now())
        shown = f" with the password {secret}" if password == "-" else ""
        say(f"{name} {'owns this project now and may sign in' if new else 'has a new password'}{shown}", then="truing studio")


@app.command()
def annotate(
    simulated: Annotated[bool, typer.Option("--simulated", help="A crowd of simulated people; section [crowd] says of what kind.")] = False,
    seed: Seed = None, project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Ask which samples are better, and have simulated people answer."""
    from truing.rounds import ask_for_feedback

    if not simulated:
        raise UserError("who is to answer?", fix="truing annotate --simulated")
    with _turn(project, set_, json, False, seed) as turn:
        ask_for_feedback(turn, simulated=True)
        made = turn.made
        say(f"{made['judgements']['n']} judgements on {made['questions']['n']} questions", then="truing quality")
        result({"questions": made["questions"], "judgements": made["judgements"]["n"]})


@app.command()
def quality(
    second: Annotated[bool, typer.Option("--second-opinion", help="Ask Dawid-Skene and MACE, too; takes some seconds.")] = False,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """How far people agree, and whom to trust."""
    from truing.feedback.quality import QualitySettings, measure_quality

    with _project(project, set_, json) as opened:
        found = measure_quality(opened, opened.settings(QualitySettings), round_ids=None, second_opinion=second).as_dict()
        if not found["n_judgements"]:
            raise UserError(
                "this project has no judgements yet",
                fix="collect some with `truing studio` or `truing annotate --simulated`, or bring some with `truing import FILE`",
            )
        say(f"Krippendorff's alpha {_between(found['alpha'])} on {found['alpha']['n']} questions")
        columns = ("annotator", "n", "trust", "agreement", "gold", "left", "ties", "seconds")
        show_table(columns, [_annotator_row(row) for row in sorted(found["annotators"], key=lambda row: (-row["trust"], row["name"]))])
        if found["second_opinion"]:
            _tell_second_opinion(found)
        say("", then="truing preferences")
        result(found)


@app.command()
def preferences(project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Freeze what the judgements say, weighed by trust, as a dataset."""
    from truing.rounds import weigh_feedback

    with _turn(project, set_, json, force) as turn:
        dataset = weigh_feedback(turn)
        say(f"{dataset.id}: {_facts(dataset.facts)}", then="truing reward train")
        result({"dataset": dataset.id, **dataset.facts})


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file of judgements, or a folder of them; may be packed as .gz or .zip.")],
    format: Annotated[str, typer.Option("--format", help="One of docs/formats.md, such as hh-rlhf, trl, table or native; guessed by default.")] = "auto",
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Bring in judgements that were made elsewhere."""
    from truing.feedback.exchange import import_judgements

    with _project(project, set_, json) as opened:
        done = import_judgements(opened, file, format)
        for row in done.refused[:10]:
            complain(str(row))
        facts = {key: len(value) if isinstance(value, list) else value for key, value in done._asdict().items()}
        say(_facts(facts), then="truing quality")
        result(facts)


@app.command()
def export(
    format: Annotated[str, typer.Argument(help="native, trl, table … (docs/formats.md lists them all).")],
    file: Annotated[Path, typer.Argument(help="Where to.")],
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Write the judgements to a file."""
    from truing.feedback.exchange import export_judgements

    with _project(project, set_, json) as opened:
        done = export_judgements(opened, format, file)
        say(f"{done.written} judgements written to {file}" + "".join(f"; {n} left out: {why}" for why, n in done.dropped.items()))
        result({"file": str(file), "written": done.written, "dropped": done.dropped})


@reward_app.command("train")
def reward_train(
    dataset: Annotated[str | None, typer.Option(help="Dataset to learn from (default: the round's, made now if there is none).")] = None,
    seed: Seed = None, project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Fit a reward model to people's preferences."""
    from truing.rounds import train_reward_model

    with _turn(project, set_, json, force, seed) as turn:
        if dataset is not None:
            turn.note(dataset=dataset)
        model = train_reward_model(turn)
        accuracy = model.facts["accuracy"]
        say(f"{model.id}: held-out accuracy {_between(accuracy)} on {accuracy['n']} pairs")
        _tell_fitness(model.facts["fitness"])
        say("", then="truing reward card")
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
    with _turn(project, set_, json, force, new=True) as turn:
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

    with _turn(project, set_, json, force, new=True) as turn:
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

    with _project(project, set_, json) as opened:
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

    with _project(project, set_, json, force) as opened:
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

    with _project(project, set_, json, force) as opened:
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

    with _project(project, set_, json) as opened:
        chosen = model or newest_artifact(opened, "reward")
        offset = export_classifier(load_trained_model(opened, chosen, open_trunk(opened.settings(ModelSettings))), folder)
        say(f"{folder} gives the scores of {chosen} less {offset:.4f} ({OFFSET} in its config.json)")
        result({"reward": chosen, "folder": str(folder), OFFSET: offset})


@app.command()
def tune(
    algorithm: Annotated[str | None, typer.Option(help="ppo or rloo.")] = None,
    project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False,
) -> None:  # fmt: skip
    """Tune the policy against the round's reward model."""
    from truing.rounds import tune_policy

    with _turn(project, set_, json, force) as turn:
        policy = tune_policy(turn, algorithm)
        facts = policy.facts
        say(
            f"{policy.id}: score {facts['objective/scores']:+.2f}, KL {facts['objective/kl']:.1f} nats after {facts['updates']} updates", then="truing evaluate"
        )
        result({"policy": policy.id, **facts})


@app.command()
def evaluate(project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Compare the tuned policy with the base on held-out prompts."""
    from truing.rounds import evaluate as compare

    with _turn(project, set_, json, force) as turn:
        found = compare(turn)
        _tell_verdicts(found)
        say("", then="truing report")
        result({"evaluation": found.id, **found.facts})


@app.command()
def report(
    number: Annotated[int | None, typer.Argument(help="Which round (default: the newest).")] = None,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Write a round's page: one HTML file, readable anywhere."""
    from truing.rounds import Turn
    from truing.rounds import report as write

    with _project(project, set_, json) as opened:
        path = write(Turn(opened, number))
        say(f"the report is at {path}")
        result({"report": str(path)})


@round_app.command("run")
def round_run(seed: Seed = None, project: Where = HERE, set_: Set = None, force: Force = False, json: Json = False) -> None:
    """Run the newest round from where it stands to its report."""
    with _turn(project, set_, json, force, seed) as turn:
        result(_whole_round(turn))


@round_app.command("next")
def round_next(seed: Seed = None, project: Where = HERE, set_: Set = None, json: Json = False) -> None:
    """Start a child of the newest round, weakest prompts first, and run it."""
    with _turn(project, set_, json, False, seed, new=True) as turn:
        result(_whole_round(turn))


@round_app.command("status")
def round_status(project: Where = HERE, set_: Set = None, json: Json = False) -> None:
    """Where each round stands."""
    from truing.store.project import rounds_of

    with _project(project, set_, json) as opened:
        rounds = rounds_of(opened)
        if not rounds:
            say("no round has been started", then="truing round run")
        for row in rounds:
            state = "sealed" if row.sealed_at else f"made so far: {', '.join(row.made) or 'nothing'}"
            say(f"round {row.number} (seed {row.seed}): {state}")
        result({"rounds": [{"number": row.number, "seed": row.seed, "sealed": row.sealed_at is not None, "made": row.made} for row in rounds]})


@app.command()
def lineage(
    id: Annotated[str | None, typer.Argument(help="An artifact (default: list them all).")] = None,
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """What something came from, down to the judgements."""
    from truing.artifacts import ancestors, artifact_ids

    with _project(project, set_, json) as opened:
        if id is None:
            found = artifact_ids(opened.artifacts)
            for name in found:
                say(name)
            result({"artifacts": found})
            return
        rows = list(ancestors(opened.artifacts, id))
        for depth, artifact in rows:
            seen = artifact.facts.get("judgements")
            say(f"{'  ' * depth}{artifact.id}  seed {artifact.manifest['seed']}" + (f"  {seen} judgements" if seen else ""))
        result({"id": id, "ancestors": [{"id": artifact.id, "depth": depth, "parents": artifact.parents} for depth, artifact in rows]})


@app.command()
def chat(
    policy: Annotated[str | None, typer.Argument(help="base, or a policy (default: the newest).")] = None,
    project: Where = HERE, set_: Set = None,
) -> None:  # fmt: skip
    """Talk to a policy, to feel the difference. An empty line ends it."""
    from truing.chat import talk

    with _turn(project, set_, False, False) as turn:
        talk(turn, policy)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="The project it makes, or goes on with.")] = Path("truing-demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 1,
    set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """The whole loop on the default model with simulated people, in minutes."""
    from truing.demo import run_demo

    speak_json(json)
    with _interruptible():
        result(run_demo(folder, seed, set_ or []))


app.add_typer(prompts_app, name="prompts")
app.add_typer(studio_app, name="studio")
app.add_typer(reward_app, name="reward")
app.add_typer(round_app, name="round")


@contextmanager
def _project(folder: Path, overrides: list[str] | None, json: bool, force: bool = False) -> Iterator["Project"]:
    from truing.store.project import open_project

    speak_json(json)
    opened = open_project(folder, overrides or [], force=force)
    try:
        with _interruptible():
            yield opened
    finally:
        opened.database.close()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends with a word about going on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        complain("stopped; type the same command again to go on from here")
        raise typer.Exit(130) from None


@contextmanager
def _turn(folder: Path, overrides: list[str] | None, json: bool, force: bool, seed: int | None = None, *, new: bool = False) -> Iterator["Turn"]:
    """The newest round of a project, at work."""
    from truing.rounds import Turn

    with _project(folder, overrides, json, force) as opened:
        yield Turn(opened, seed=seed, new=new)


def _whole_round(turn: "Turn") -> dict[str, Any]:
    from truing.artifacts import load_artifact
    from truing.rounds import report as write
    from truing.rounds import run_round

    made = run_round(turn)
    path = write(turn)
    evaluation = load_artifact(turn.project.artifacts, made["evaluation"])
    _tell_verdicts(evaluation)
    say(f"the report is at {path}", then="truing round next")
    verdicts = {name: evaluation.facts[name] for name in ("against", "sentences", "warnings")}
    return {"round": turn.number, "report": str(path), **verdicts, **{stage: made[stage] for stage in ("dataset", "reward", "policy", "evaluation")}}


def _tell_verdicts(evaluation: "Artifact") -> None:
    """The verdict against each opponent, and what to doubt it for."""
    for sentence in evaluation.facts["sentences"]:
        say(sentence)
    if evaluation.facts["warnings"]:
        say(f"warnings: {', '.join(evaluation.facts['warnings'])}")


def _tell_brought(model: "Artifact", what: str) -> None:
    """A reward model that was not fitted here, and how far it can be trusted."""
    accuracy, measured = model.facts["accuracy"], model.facts.get("n_held_out")
    right = f"held-out accuracy {_between(accuracy)} on {accuracy['n']} pairs" if measured else "not measured, for want of held-out judgements"
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
    found = evaluate_pairs(scorer, unseen, seed=seed, nats=scorer.nats)
    show_table(COLUMNS, table(found))
    say(found["sentence"], then="truing reward card")
    return {"reward": name, "learned_from": len(rows) - len(unseen), **found}


def _tell_second_opinion(found: dict[str, Any]) -> None:
    """What Dawid-Skene, MACE and crowd-kit's alpha make of the same choices."""
    other, names = found["second_opinion"], {row["id"]: row["name"] for row in found["annotators"]}
    say(f"crowd-kit: alpha {_share(other['alpha'], 3)}; its labels are ours on {_share(other['consensus_dawid_skene'])} (Dawid-Skene) and "
        f"{_share(other['consensus_mace'])} (MACE) of the questions")  # fmt: skip
    columns = ("annotator", "Dawid-Skene: right", "MACE: looks")
    show_table(columns, [(names[row["id"]], _share(row["dawid_skene"]), _share(row["mace"])) for row in other["annotators"]])


def _bring(opened: "Project", files: list[str], *, everyday: bool = True) -> dict[str, int]:
    from truing.prompts import PromptSettings, everyday_prompts, import_prompts

    done = import_prompts(opened, opened.settings(PromptSettings), [*files, *([everyday_prompts()] if everyday else [])])
    for row in done.refused[:10]:
        complain(str(row))
    return {"added": done.added, "duplicates": done.duplicates, "refused": len(done.refused) + done.more_refused, "held_out": done.held_out}


def _between(number: dict[str, Any]) -> str:
    value, low, high = (_share(number[part], 3) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _annotator_row(row: dict[str, Any]) -> list[str]:
    gold = f"{row['gold_right']}/{row['gold_n']}"
    return [
        row["name"],
        str(row["n"]),
        f"{row['trust']:.2f}",
        _share(row["agreement"]),
        gold,
        _share(row["side_bias"]),
        _share(row["tie_rate"]),
        _share(row["median_active_s"], 1),
    ]


def _share(value: Any, digits: int = 2) -> str:
    number = value.get("value") if isinstance(value, dict) else value
    return "-" if number is None else f"{number:.{digits}f}"


def _facts(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if isinstance(value, (int, float, str)))
