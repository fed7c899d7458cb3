"""Where a tuning run can be watched from outside: TensorBoard, Weights & Biases, Trackio, through one small door.

A tracker is told what the learner has on disk, update by update, and knows how far it was told. So a run that was killed goes on in the same place, with no
update missing and none twice. Which tracker is told is no input of the policy: it has the same id under any of them, and under none.
"""

import importlib
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from truing.errors import UserError
from truing.policy.diagnosis import Finding, diagnose
from truing.policy.record import prompt_texts
from truing.policy.settings import TuneSettings
from truing.store.project import Project

ANSWERS = ("prompt", "response", "finished", "score")  # columns of the sampled answers
FINDINGS = ("failure", "sign", "say")  # columns of what went wrong
Row = Mapping[str, float]  # of metrics.jsonl
Table = list[list[Any]]
Hear = Callable[[Sequence[Row], Sequence[Mapping[str, Any]]], None]  # rows and sampled answers of every update so far


class Place(NamedTuple):
    """Where a run is to be found in a tracker.

    Attributes:
        folder: for files of the project's own.
        project: the project's name.
        run: the run's name, which follows from its inputs: the same run has the same one.
        config: its inputs.
    """

    folder: Path
    project: str
    run: str
    config: Mapping[str, Any]


class Tracker(ABC):
    """A run of somebody else's book-keeping.

    Attributes:
        told: the last update that it was told of; 0: none.
    """

    told: int

    @abstractmethod
    def tell(self, update: int, row: Row, answers: Table, findings: Table) -> None:
        """Tell it of an update, `told + 1`: its metrics, its sampled answers (`ANSWERS`) and what was first seen to go wrong then (`FINDINGS`)."""

    @abstractmethod
    def close(self, *, whole: bool) -> None:
        """Let go of it once all that it was told is kept; `whole`: the run ended, it wasn't stopped."""


@contextmanager
def told(project: Project, settings: TuneSettings, key: str, inputs: Mapping[str, Any]) -> Iterator[Hear]:
    """The tracker that the settings name, as a function to call with all that there is after each update; with no tracker it does nothing.

    Args:
        key: of the run.
        inputs: all that shaped it.

    Raises:
        UserError: its library isn't installed, or it can't be reached.
    """
    if settings.tracker is None:
        yield lambda rows, shown: None
        return
    name = re.sub(r"[^\w.-]+", "-", project.root.absolute().name)
    config = {**inputs, "prompts": len(inputs["prompts"])} if "prompts" in inputs else dict(inputs)
    place = Place(project.root / "trackers", name, f"{settings.algorithm}-{key[:16]}", config)
    with redirect_stdout(sys.stderr):  # what a library has to say is for a person
        tracker = TRACKERS[settings.tracker](place)
    whole = False
    try:
        yield lambda rows, shown: catch_up(project, tracker, rows, shown)
        whole = True
    finally:
        with redirect_stdout(sys.stderr):
            tracker.close(whole=whole)


def catch_up(project: Project, tracker: Tracker, rows: Sequence[Row], shown: Sequence[Mapping[str, Any]]) -> None:
    """Tell a tracker of every update that it doesn't know yet."""
    if len(rows) <= tracker.told:
        return
    findings = diagnose(rows)
    with project.database.read() as session:
        texts = prompt_texts(session, [one["prompt_id"] for one in shown if one["update"] > tracker.told])
    for row in rows[tracker.told :]:
        update = int(row["update"])
        answers = [[texts.get(one["prompt_id"], one["prompt_id"]), one["text"], one["finished"], one["score"]] for one in shown if one["update"] == update]
        tracker.tell(update, row, answers, [_in_columns(finding) for finding in findings if finding.update == update])
        tracker.told = update


class TensorBoard(Tracker):
    """Event files in a folder of the run's own, written anew whenever the run is taken up: they hold what the learner has on disk and nothing else. A
    TensorBoard that has read earlier ones forgets them (`purge_step`)."""

    def __init__(self, place: Place) -> None:
        _library("tensorboard")
        folder = place.folder / "tensorboard" / place.run
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.told = 0
        self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder), purge_step=0)
        self._writer.add_text("settings", "\n".join(f"    {line}" for line in _lines(place.config)), 0)

    def tell(self, update: int, row: Row, answers: Table, findings: Table) -> None:
        """As every tracker; texts stand indented, so that Markdown leaves them as they are."""
        for name, value in row.items():
            if name != "update":
                self._writer.add_scalar(name, value, update)
        for name, columns, table in _filled(answers, findings):
            self._writer.add_text(name, "\n\n---\n\n".join(_record(columns, cells) for cells in table), update)
        self._writer.flush()

    def close(self, *, whole: bool) -> None:
        """As every tracker."""
        self._writer.close()


class WeightsAndBiases(Tracker):
    """A run of wandb. Its service says how far it got. Offline nobody does, and what was killed loses the newest 32 KiB: so the run's folder is written anew
    whenever it is taken up."""

    def __init__(self, place: Place) -> None:
        wandb = self._wandb = _library("wandb")
        place.folder.mkdir(exist_ok=True)
        try:
            self._run = wandb.init(
                project=place.project, id=place.run, name=place.run, config=dict(place.config), dir=str(place.folder), resume="allow",
                settings=wandb.Settings(console="off"),
            )  # fmt: skip
        except wandb.errors.Error as error:
            raise UserError(f"Weights & Biases can't be reached: {error}", fix="`wandb login`, or WANDB_MODE=offline, or --set tune.tracker=none") from error
        self.told = max(self._run.starting_step - 1, 0)
        if self._run.offline:
            own = Path(self._run.dir).parent
            for old in own.parent.glob(f"offline-run-*-{place.run}"):
                if old != own:
                    shutil.rmtree(old)

    def tell(self, update: int, row: Row, answers: Table, findings: Table) -> None:
        """As every tracker."""
        tables = {name: self._wandb.Table(list(columns), table) for name, columns, table in _filled(answers, findings)}
        self._run.log({**row, **tables}, step=update)

    def close(self, *, whole: bool) -> None:
        """As every tracker; a run that was stopped is marked so."""
        self._run.finish(exit_code=0 if whole else 1)


class Trackio(Tracker):
    """A run of Trackio, whose own store says how far it got."""

    def __init__(self, place: Place) -> None:
        self._trackio = _library("trackio")
        self._run = self._trackio.init(place.project, place.run, config=dict(place.config), resume="allow")
        self.told = max(self._run._next_step - 1, 0)  # nothing public says it

    def tell(self, update: int, row: Row, answers: Table, findings: Table) -> None:
        """As every tracker."""
        tables = {name: self._trackio.Table(list(columns), table) for name, columns, table in _filled(answers, findings)}
        self._run.log({**row, **tables}, step=update)

    def close(self, *, whole: bool) -> None:
        """As every tracker."""
        self._trackio.finish()


TRACKERS: dict[str, Callable[[Place], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"tune.tracker is {name}, and {name} is not installed", fix=f"pip install {name}, or --set tune.tracker=none") from error


def _in_columns(finding: Finding) -> list[str]:
    return [finding.failure, finding.sign, finding.say]


def _filled(answers: Table, findings: Table) -> list[tuple[str, tuple[str, ...], Table]]:
    """The tables that have a row, with their names and columns."""
    return [one for one in (("answers", ANSWERS, answers), ("diagnosis", FINDINGS, findings)) if one[2]]


def _record(columns: Sequence[str], cells: Sequence[Any]) -> str:
    """A row of a table as Markdown that shows every cell as it is, however many lines it has."""
    return "\n\n".join(f"**{column}**\n\n" + "\n".join(f"    {line}" for line in str(cell).split("\n")) for column, cell in zip(columns, cells, strict=True))


def _lines(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """`tune.lr = 0.0003`, a line each."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _lines(value, f"{before}{name}.")
        else:
            yield f"{before}{name} = {value}"
