"""What commands share: their options, the project or round they work on, and numbers in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from truing.console import complain, speak_json

if TYPE_CHECKING:
    from truing.rounds import Turn
    from truing.store.project import Project

Where = Annotated[Path, typer.Option("--project", help="The project's folder.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting for this run, e.g. samples.temperature=0.8.")]
Json = Annotated[bool, typer.Option("--json", help="Messages to stderr; the last line of stdout is one JSON object.")]
Force = Annotated[bool, typer.Option("--force", help="Do it again even if the same inputs were done before.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of a new round (default 1, or the parent round's).")]
HERE = Path()


@contextmanager
def opened_project(folder: Path, overrides: list[str] | None, json: bool, force: bool = False) -> Iterator["Project"]:
    from truing.store.project import open_project

    speak_json(json)
    opened = open_project(folder, overrides or [], force=force)
    try:
        with interruptible(force):
            yield opened
    finally:
        opened.database.close()


@contextmanager
def interruptible(force: bool = False) -> Iterator[None]:
    """Ctrl-C ends with a word about going on, and exit code 130. What was begun with --force would begin anew with it."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"stopped; type the same command again{', without --force,' if force else ''} to go on from here")
        raise typer.Exit(130) from None


@contextmanager
def newest_turn(folder: Path, overrides: list[str] | None, json: bool, force: bool, seed: int | None = None, *, new: bool = False) -> Iterator["Turn"]:
    """The newest round of a project, at work."""
    from truing.rounds import Turn

    with opened_project(folder, overrides, json, force) as opened:
        yield Turn(opened, seed=seed, new=new)


def between(number: dict[str, Any], digits: int = 3) -> str:
    value, low, high = (share(number[part], digits) for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def share(value: Any, digits: int = 2) -> str:
    number = value.get("value") if isinstance(value, dict) else value
    return "-" if number is None else f"{number:.{digits}f}"


def in_words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if isinstance(value, (int, float, str)))
