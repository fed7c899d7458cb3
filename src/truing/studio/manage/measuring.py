"""Quality control at the size of a crowd takes longer than a page may: it runs in a thread of the server, and pages show its newest result."""

import logging
import threading
from datetime import datetime
from typing import NamedTuple

from fastapi import FastAPI
from sqlalchemy.orm import Session

from truing.errors import UserError
from truing.feedback.disputes import measure_disputes
from truing.feedback.quality import QualitySettings, measure_quality
from truing.store.overview import loop
from truing.store.project import Project
from truing.store.tables import Run, RunState
from truing.studio.manage.home import Doing, doing

log = logging.getLogger("truing.studio")

STAGES = ("disputes", "quality")


class Measuring:
    """The one measurement that a studio has under way, or had last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None  # why the last one came to nothing

    @property
    def alive(self) -> bool:
        """Whether one is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, project: Project, *, second_opinion: bool = False) -> bool:
        """Begin one, unless one is under way; says which it was.

        Args:
            second_opinion: ask Dawid-Skene and MACE, too: minutes rather than seconds.
        """
        with self._lock:
            if self.alive:
                return False
            self.problem = None
            self._thread = threading.Thread(target=self._measure, args=(project, second_opinion), name="measuring", daemon=True)
            self._thread.start()
            return True

    def wait(self, seconds: float) -> None:
        """Until it is over, or so many seconds have passed."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _measure(self, project: Project, second_opinion: bool) -> None:
        try:
            measure_disputes(project)
            measure_quality(project, project.settings(QualitySettings), round_ids=None, second_opinion=second_opinion)
        except UserError as problem:
            self.problem = str(problem)
        except Exception as error:  # the end of a thread: the run keeps the error, the log the traceback, the page says so
            self.problem = f"{type(error).__name__}: {error}"
            log.exception("measuring quality")


_making = threading.Lock()


def measuring_of(app: FastAPI) -> Measuring:
    """The measurement of a studio; the same one for all its pages."""
    with _making:
        found = getattr(app.state, "measuring", None)
        if found is None:
            found = app.state.measuring = Measuring()
    assert isinstance(found, Measuring)
    return found


class Age(NamedTuple):
    """How old the newest measurement is."""

    at: datetime
    since: int  # judgements that came after it


def age(session: Session) -> Age | None:
    """How old the newest measurement is; None before the first."""
    run = loop.newest_result(session, "disputes")
    if run is None or run.finished_at is None:
        return None
    return Age(run.finished_at, max(0, loop.judgements(session) - run.result["log"]))


def under_way(session: Session, at: datetime) -> Doing | None:
    """The stage of a measurement that runs at present, whoever started it."""
    runs: list[Run] = [run for stage, run in loop.latest_runs(session).items() if stage in STAGES and run.state == RunState.RUNNING]
    found = [doing(run, at) for run in sorted(runs, key=lambda run: run.started_at)]
    return next((one for one in reversed(found) if one.alive), None)
