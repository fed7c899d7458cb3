"""Commands from an empty folder to a dataset: prompts, samples, judgements, and how far people agree."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truing.cli.options import HERE, Force, Json, Seed, Set, Where, between, in_words, newest_turn, opened_project, share
from truing.console import complain, result, say, show_table, speak_json
from truing.errors import UserError

if TYPE_CHECKING:
    from truing.store.project import Project

app = typer.Typer()
prompts_app = typer.Typer(help="The prompts of a project.", no_args_is_help=True)
studio_app = typer.Typer(help="The web studio, where people judge.", invoke_without_command=True)
app.add_typer(prompts_app, name="prompts")
app.add_typer(studio_app, name="studio")


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
    with opened_project(project, set_, json) as opened:
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

    with newest_turn(project, set_, json, force, seed) as turn:
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

    with opened_project(project, set_, False) as opened:
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

    with opened_project(project, None, False) as opened:
        secret = generated() if password == "-" else password or typer.prompt("password", hide_input=True, confirmation_prompt=True)
        new = add_owner(opened, Passwords(), name, secret, at=now())
        shown = f" with the password {secret}" if password == "-" else ""
        say(f"{name} {'owns this project now and may sign in' if new else 'has a new password'}{shown}", then="truing studio")


@app.command()
def annotate(
    simulated: Annotated[bool, typer.Option("--simulated", help="A crowd of simulated people; the section crowd of truing.toml says of what kind.")] = False,
    seed: Seed = None, project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Ask which samples are better, and have simulated people answer."""
    from truing.rounds import ask_for_feedback

    if not simulated:
        raise UserError("who is to answer?", fix="truing annotate --simulated")
    with newest_turn(project, set_, json, False, seed) as turn:
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

    with opened_project(project, set_, json) as opened:
        found = measure_quality(opened, opened.settings(QualitySettings), round_ids=None, second_opinion=second).as_dict()
        if not found["n_judgements"]:
            raise UserError(
                "this project has no judgements yet",
                fix="collect some with `truing studio` or `truing annotate --simulated`, or bring some with `truing import FILE`",
            )
        say(f"Krippendorff's alpha {between(found['alpha'])} on {found['alpha']['n']} questions")
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

    with newest_turn(project, set_, json, force) as turn:
        dataset = weigh_feedback(turn)
        say(f"{dataset.id}: {in_words(dataset.facts)}", then="truing reward train")
        result({"dataset": dataset.id, **dataset.facts})


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file of judgements, or a folder of them; may be packed as .gz or .zip.")],
    format: Annotated[str, typer.Option("--format", help="One of docs/formats.md, such as hh-rlhf, trl, table or native; guessed by default.")] = "auto",
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Bring in judgements that were made elsewhere."""
    from truing.feedback.exchange import import_judgements

    with opened_project(project, set_, json) as opened:
        done = import_judgements(opened, file, format)
        for row in done.refused[:10]:
            complain(str(row))
        facts = {key: len(value) if isinstance(value, list) else value for key, value in done._asdict().items()}
        say(in_words(facts), then="truing quality")
        result(facts)


@app.command()
def export(
    format: Annotated[str, typer.Argument(help="native, trl, table … (docs/formats.md lists them all).")],
    file: Annotated[Path, typer.Argument(help="Where to.")],
    project: Where = HERE, set_: Set = None, json: Json = False,
) -> None:  # fmt: skip
    """Write the judgements to a file."""
    from truing.feedback.exchange import export_judgements

    with opened_project(project, set_, json) as opened:
        done = export_judgements(opened, format, file)
        say(f"{done.written} judgements written to {file}" + "".join(f"; {n} left out: {why}" for why, n in done.dropped.items()))
        result({"file": str(file), "written": done.written, "dropped": done.dropped})


def _tell_second_opinion(found: dict[str, Any]) -> None:
    """What Dawid-Skene, MACE and crowd-kit's alpha make of the same choices."""
    other, names = found["second_opinion"], {row["id"]: row["name"] for row in found["annotators"]}
    say(f"crowd-kit: alpha {share(other['alpha'], 3)}; its labels are ours on {share(other['consensus_dawid_skene'])} (Dawid-Skene) and "
        f"{share(other['consensus_mace'])} (MACE) of the questions")  # fmt: skip
    columns = ("annotator", "Dawid-Skene: right", "MACE: looks")
    show_table(columns, [(names[row["id"]], share(row["dawid_skene"]), share(row["mace"])) for row in other["annotators"]])


def _bring(opened: "Project", files: list[str], *, everyday: bool = True) -> dict[str, int]:
    from truing.prompts import PromptSettings, everyday_prompts, import_prompts

    done = import_prompts(opened, opened.settings(PromptSettings), [*files, *([everyday_prompts()] if everyday else [])])
    for row in done.refused[:10]:
        complain(str(row))
    return {"added": done.added, "duplicates": done.duplicates, "refused": len(done.refused) + done.more_refused, "held_out": done.held_out}


def _annotator_row(row: dict[str, Any]) -> list[str]:
    gold = f"{row['gold_right']}/{row['gold_n']}"
    return [
        row["name"],
        str(row["n"]),
        f"{row['trust']:.2f}",
        share(row["agreement"]),
        gold,
        share(row["side_bias"]),
        share(row["tie_rate"]),
        share(row["median_active_s"], 1),
    ]
