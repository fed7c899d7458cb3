"""Runs: the same inputs are worked on once, what was stopped is taken up again, and every end is written down."""

import errno
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from truing.errors import UserError
from truing.store.project import Project
from truing.store.runs import StageRun, stage_run
from truing.store.tables import Run, RunState

INPUTS = {"dataset": "dataset-1", "seed": 1}


def do(project: Project, inputs: dict[str, Any] = INPUTS, result: int = 1) -> tuple[bool, dict[str, Any]]:
    with stage_run(project, "reward", inputs) as run:
        if not run.answered:
            run.result = {"made": result}
    return run.answered, run.result


def rows(project: Project) -> list[Run]:
    with project.database.read() as session:
        return list(session.scalars(select(Run).order_by(Run.id)))


def test_a_finished_run_answers(project: Project) -> None:
    assert do(project, result=1) == (False, {"made": 1})
    assert do(project, result=2) == (True, {"made": 1})
    (row,) = rows(project)
    assert (row.stage, row.state, row.result, row.error) == ("reward", RunState.DONE, {"made": 1}, None)
    assert row.finished_at is not None
    assert row.seconds >= 0
    assert 0.01 < row.peak_gb < 100


def test_other_inputs_are_another_run(project: Project) -> None:
    do(project)
    assert do(project, {**INPUTS, "seed": 2}, 2) == (False, {"made": 2})
    assert do(project, dict(reversed(INPUTS.items())), 3) == (True, {"made": 1})  # the order of the keys says nothing
    with stage_run(project, "policy", INPUTS) as run:
        assert not run.answered


def test_force_redoes_a_finished_run_and_answers_from_then_on(project: Project) -> None:
    do(project, result=1)
    project.force = True
    assert do(project, result=2) == (False, {"made": 2})
    project.force = False
    assert do(project, result=3) == (True, {"made": 2})
    assert [row.result for row in rows(project)] == [{"made": 1}, {"made": 2}]


def test_force_takes_up_an_interrupted_run_rather_than_starting_another(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt), stage_run(project, "reward", INPUTS):
        raise KeyboardInterrupt
    project.force = True
    do(project)
    assert len(rows(project)) == 1


def test_an_interrupted_run_is_taken_up_again_with_its_time(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 10))  # every look at the clock is ten seconds after the last
    monkeypatch.setattr("truing.store.runs.time.monotonic", lambda: float(next(clock)))
    with pytest.raises(KeyboardInterrupt), stage_run(project, "reward", INPUTS):
        raise KeyboardInterrupt
    (row,) = rows(project)
    assert row.state == RunState.INTERRUPTED
    assert row.finished_at is None
    assert row.seconds == 10
    with stage_run(project, "reward", INPUTS) as run:
        assert not run.answered
        assert rows(project)[0].state == RunState.RUNNING
        assert run.seconds == 10 + 10
    assert rows(project)[0].state == RunState.DONE
    assert rows(project)[0].seconds > 20


def test_sigterm_interrupts_a_run_as_ctrl_c_does(project: Project) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stage_run(project, "reward", INPUTS):
        os.kill(os.getpid(), signal.SIGTERM)
    assert rows(project)[0].state == RunState.INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_failure_is_written_down_and_goes_on_up(project: Project) -> None:
    with pytest.raises(ZeroDivisionError), stage_run(project, "reward", INPUTS):
        raise ZeroDivisionError("by zero")
    (row,) = rows(project)
    assert (row.state, row.error) == (RunState.FAILED, "ZeroDivisionError: by zero")
    assert do(project) == (False, {"made": 1})
    assert rows(project)[0].error is None


def test_the_first_error_is_the_one_to_show(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store is what failed, noting the failure fails as well."""

    def broken(run: StageRun, **changes: Any) -> None:
        raise OperationalError("UPDATE run", {}, Exception("gone"))

    monkeypatch.setattr(StageRun, "_update", broken)
    with pytest.raises(ZeroDivisionError) as caught, stage_run(project, "reward", INPUTS):
        raise ZeroDivisionError
    assert "could not note it" in caught.value.__notes__[0]


def test_progress_is_written_at_most_every_two_seconds(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage_run(project, "reward", INPUTS) as run:
        moment = 100.0
        monkeypatch.setattr("truing.store.runs.time.monotonic", lambda: moment)
        run.progress(step=1)
        run.progress(step=2)
        assert rows(project)[0].progress == {"step": 1}
        moment = 102.5
        run.progress(step=3)
        assert rows(project)[0].progress == {"step": 3}


def test_progress_tells_the_time_that_is_left(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the pace of this run: what an earlier one did, and what was done before it began to count, took none of its time."""
    with stage_run(project, "reward", INPUTS) as run:
        moment = 100.0
        monkeypatch.setattr("truing.store.runs.time.monotonic", lambda: moment)
        run.progress(done=40, total=100)
        assert rows(project)[0].progress == {"done": 40, "total": 100}
        moment = 110.0
        run.progress(done=60, total=100, score=0.5)
        assert rows(project)[0].progress == {"done": 60, "total": 100, "score": 0.5, "left_s": 20.0}  # 20 in 10 s, 40 to go
        moment = 120.0
        run.progress(done=10, total=100)  # another step of the stage counts from its own beginning
        assert rows(project)[0].progress == {"done": 10, "total": 100}
        moment = 130.0
        run.progress(step="write")
        assert rows(project)[0].progress == {"step": "write"}


def test_a_run_works_in_a_thread(project: Project) -> None:
    """Only the main thread may take signals; the others run without."""
    done: list[tuple[bool, dict[str, Any]]] = []
    thread = threading.Thread(target=lambda: done.append(do(project)))
    thread.start()
    thread.join()
    assert done == [(False, {"made": 1})]


def test_two_processes_do_not_work_on_the_same_run(project: Project) -> None:
    """The second one says so at once, whichever way the first one ends; what that did is taken up then."""
    with suppress(ZeroDivisionError), stage_run(project, "reward", INPUTS):
        assert in_a_process(project, "print(do(project))").stderr.splitlines()[-2] == "truing.errors.UserError: another process is at work on the same reward"
        assert in_a_process(project, "print(do(project, {'dataset': 'dataset-1', 'seed': 2}))").stdout == "(False, {'made': 1})\n"
        assert [row.state for row in rows(project)] == [RunState.RUNNING, RunState.DONE]
        raise ZeroDivisionError
    assert in_a_process(project, "print(do(project))").stdout == "(False, {'made': 1})\n"
    assert in_a_process(project, "print(do(project))").stdout == "(True, {'made': 1})\n"
    assert not list((project.root / "runs").iterdir())


def test_a_killed_process_does_not_keep_others_off(project: Project) -> None:
    killed = in_a_process(project, "import os, signal\nwith stage_run(project, 'reward', INPUTS):\n    os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.returncode == -signal.SIGKILL
    assert rows(project)[0].state == RunState.RUNNING
    assert do(project) == (False, {"made": 1})


def test_a_full_disk_is_said_before_anything_is_begun(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(lock: FileLock) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FileLock, "acquire", full)
    with pytest.raises(UserError, match="the disk is full: reward was not begun"):
        do(project)
    assert not rows(project)


def in_a_process(project: Project, code: str) -> subprocess.CompletedProcess[str]:
    """Run lines on the project in another process."""
    lines = ["from pathlib import Path", "from store.test_runs import *", f"project = Project(Path({str(project.root)!r}))", code]
    return subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    )
