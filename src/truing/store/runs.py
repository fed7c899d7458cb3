"""Runs: one execution of a stage. A finished run with the same inputs answers in its place; an interrupted one is taken up again."""

import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from truing.config import full_disk_said
from truing.errors import UserError
from truing.store.clock import now
from truing.store.ids import content_id, uuid7
from truing.store.project import Project
from truing.store.tables import Run, RunState

BEAT_SECONDS = 2.0
PATIENCE = 1.0  # seconds, with another process on the same run that may be just ending


class StageRun:
    """A run under way, or a finished one that answers for it.

    Attributes:
        key: hash of the stage, its inputs, settings and seed.
        answered: whether an earlier run with this key finished; then `result` is what it gave.
        result: what the stage gives; set it before the block ends.
        seconds: time spent so far on this key, interrupted runs included.
    """

    def __init__(self, project: Project, key: str, run_id: str, *, answered: bool, result: dict[str, Any], spent: float) -> None:
        self.project, self.key, self.id, self.answered, self.result = project, key, run_id, answered, result
        self._spent, self._start, self._beat = spent, time.monotonic(), 0.0
        self._first: tuple[float, float] | None = None  # how much was done when this run began to count, and when that was

    @property
    def seconds(self) -> float:
        """Seconds spent on this key, earlier interrupted runs included."""
        return self._spent if self.answered else self._spent + time.monotonic() - self._start

    def progress(self, **facts: Any) -> None:
        """Tell the store how far the run is; written at most every two seconds.

        With `done` and `total` among the facts, the seconds that are left at this run's pace are written too, as `left_s`.
        """
        moment = time.monotonic()
        if self._first is None and "done" in facts:
            self._first = float(facts["done"]), moment
        if moment - self._beat < BEAT_SECONDS:
            return
        self._beat = moment
        self._update(progress=facts | self._left(facts, moment))

    def _left(self, facts: Mapping[str, Any], moment: float) -> dict[str, float]:
        if self._first is None or "total" not in facts or facts["done"] <= self._first[0]:
            return {}
        each = (moment - self._first[1]) / (facts["done"] - self._first[0])
        return {"left_s": round(each * max(0.0, facts["total"] - facts["done"]), 1)}

    def _update(self, **changes: Any) -> None:
        with self.project.database.write() as session:
            run = session.get_one(Run, self.id)
            run.heartbeat_at, run.seconds, run.peak_gb = now(), self.seconds, max(run.peak_gb, peak_gb())
            for name, value in changes.items():
                setattr(run, name, value)


@contextmanager
def stage_run(project: Project, stage: str, inputs: Mapping[str, Any], *, round_id: int | None = None) -> Iterator[StageRun]:
    """Run a stage once for these inputs.

        with stage_run(project, "reward", {"dataset": id, "settings": ..., "seed": 1}) as run:
            if not run.answered:
                run.result = {...}
        return run.result

    Ctrl-C and an exception mark the run and go on up; the next call with the same inputs takes the work up again.

    Raises:
        UserError: another process is at work on the same run, or the disk is full.
    """
    key = content_id(stage, dict(inputs), length=64)
    with _alone(project, stage, key):
        run = _start(project, stage, key, round_id)
        if run.answered:
            yield run
            return
        try:
            with _terminate_like_interrupt():
                yield run
        except KeyboardInterrupt:
            run._update(state=RunState.INTERRUPTED)
            raise
        except Exception as error:
            _note_failure(run, error)
            raise
        run._update(state=RunState.DONE, finished_at=now(), result=run.result, error=None)


def peak_gb() -> float:
    """The most memory this process has held, in GB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e9 if sys.platform == "darwin" else 1e6)


@contextmanager
def _alone(project: Project, stage: str, key: str) -> Iterator[None]:
    """Keep other processes off a run, in the same folder: two would write the same checkpoints. The system lets go of the lock however a process ends."""
    place = project.root / "runs" / f"{key[:16]}.lock"
    lock = FileLock(place, timeout=PATIENCE, fallback_to_soft=False)
    try:
        with full_disk_said(f"the disk is full: {stage} was not begun", fix=f"free some space on the disk of {project.root} and type the same command again"):
            place.parent.mkdir(exist_ok=True)
            lock.acquire()
    except Timeout:
        raise UserError(
            f"another process is at work on the same {stage}", fix="wait for it, or stop it (`pgrep -af truing` lists it); what it did is taken up then"
        ) from None
    try:
        yield
    finally:
        place.unlink(missing_ok=True)  # held to the end: who waits for a file that is gone tries anew
        lock.release()


def _start(project: Project, stage: str, key: str, round_id: int | None) -> StageRun:
    with project.database.write() as session:
        earlier = session.scalars(select(Run).where(Run.key == key).order_by(Run.id.desc())).first()
        if earlier is not None and not (earlier.state == RunState.DONE and project.force):
            done = earlier.state == RunState.DONE
            if not done:
                earlier.state, earlier.heartbeat_at = RunState.RUNNING, now()
            return StageRun(project, key, earlier.id, answered=done, result=dict(earlier.result), spent=earlier.seconds)
        moment: datetime = now()
        run = Run(
            id=uuid7(moment), stage=stage, key=key, round_id=round_id, state=RunState.RUNNING, started_at=moment, heartbeat_at=moment,
            finished_at=None, seconds=0.0, peak_gb=0.0, progress={}, result={}, error=None,
        )  # fmt: skip
        session.add(run)
        return StageRun(project, key, run.id, answered=False, result={}, spent=0.0)


def _note_failure(run: StageRun, error: Exception) -> None:
    """Write the failure down, unless the store is what failed: the first error is the one to show."""
    try:
        run._update(state=RunState.FAILED, error=f"{type(error).__name__}: {error}")
    except (UserError, SQLAlchemyError) as second:
        error.add_note(f"and the store could not note it: {second}")


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM end a stage as Ctrl-C does, so that the run is marked interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the one that is takes the signal
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
