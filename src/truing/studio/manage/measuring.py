"""Quality control at the size of a crowd takes longer than a page may: it runs beside the server, and pages show its newest result."""

import atexit
import logging
import subprocess
import threading
from datetime import datetime
from typing import NamedTuple

from fastapi import FastAPI
from sqlalchemy.orm import Session

from truing.store.overview import loop
from truing.store.project import Project
from truing.store.tables import Judgement, Run, RunState
from truing.studio.manage.home import Doing, doing
from truing.studio.measure import command

log = logging.getLogger("truing.studio")

STAGES = ("disputes", "quality")
WORDS_KEPT = 600  # characters of what went wrong


class Measuring:
    """The one measurement that a studio has under way, or had last. It ends with the studio, and is taken up where it was by the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[str] | None = None
        self.problem: str | None = None  # why the last one came to nothing
        atexit.register(self.stop)

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
            self._child = subprocess.Popen(command(project, second_opinion=second_opinion), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            self._thread = threading.Thread(target=self._watch, args=(self._child,), name="measuring", daemon=True)
            self._thread.start()
            return True

    def wait(self, seconds: float) -> None:
        """Until it is over, or so many seconds have passed."""
        if self._thread is not None:
            self._thread.join(seconds)

    def stop(self) -> None:
        """End it, if one is under way."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def _watch(self, child: "subprocess.Popen[str]") -> None:
        _, words = child.communicate()
        if child.returncode:
            self.problem = words.strip()[-WORDS_KEPT:] or f"it ended with exit code {child.returncode}"
            log.error("measuring quality: %s", words)


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
    return Age(run.finished_at, max(0, loop.total(session, Judgement) - run.result["log"]))


def under_way(session: Session, at: datetime) -> Doing | None:
    """The stage of a measurement that runs at present, whoever started it."""
    runs: list[Run] = [run for stage, run in loop.latest_runs(session).items() if stage in STAGES and run.state == RunState.RUNNING]
    found = [doing(run, at) for run in sorted(runs, key=lambda run: run.started_at)]
    return next((one for one in reversed(found) if one.alive), None)
