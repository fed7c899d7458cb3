"""An answer that was acknowledged is never lost, doubled or changed: short forms of the trials in benchmarks/studio/load.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stored import small_disk
from studio.crowd import audit, fill
from studio.trials import disk_full, killed, read_only, saturated, steady, wrong_clock
from truing.store.project import Project

pytestmark = pytest.mark.slow


def nothing_lost(found: Mapping[str, Any]) -> bool:
    """Whether every acknowledged answer is there once, the quotas are kept and the database is whole."""
    return (found["lost"], found["doubled"], found["over_quota"], found["integrity"]) == (0, 0, 0, "ok")


def test_a_crowd_at_work(tmp_path: Path) -> None:
    found = steady(tmp_path, people=30, think_s=1.0, seconds=6.0, questions=400, at_least=61)
    assert nothing_lost(found)
    assert found["acknowledged"] == found["stored"] > 60
    assert found["untidy"] == []
    assert found["statuses"].keys() == {"200"}
    assert found["peak_mb"] < 300


def test_more_than_it_can_take(tmp_path: Path) -> None:
    """Far more people at once than the studio lets in: some are told to come again, and nothing else happens."""
    found = saturated(tmp_path, people=320, seconds=5.0, questions=2000, at_least=51)
    assert nothing_lost(found)
    assert found["untidy"] == []
    assert found["statuses"].keys() <= {"200", "429", "503"}
    assert found["statuses"]["503"] > 0
    assert found["acknowledged"] > 50


def test_power_cuts(tmp_path: Path) -> None:
    found = killed(tmp_path, kills=3, people=12, between_s=(0.3, 1.0), questions=2000, at_least=51)
    assert nothing_lost(found)
    assert found["integrity_ok_after_kills"] == 3
    assert found["broken_connections"] > 0
    assert found["acknowledged"] > 50


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as folder:
        found = disk_full(folder, people=6, seconds=2.5, questions=300)
    assert nothing_lost(found)
    assert found["untidy"] == []
    assert found["statuses"]["507"] > 0
    assert min(found["before"], found["after"]) > 5


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "6m") as folder:
        found = read_only(folder, questions=100)
    assert found["exit_code"] == 2
    assert "can't be written" in found["words"]
    assert "fix: check the folder's owner and permissions" in found["words"]
    assert nothing_lost(found)
    assert found["acknowledged"] > 0


def test_a_wrong_clock(tmp_path: Path) -> None:
    found = wrong_clock(tmp_path, people=6, seconds=1.0, questions=1000, at_least=1)
    assert nothing_lost(found)
    assert found["untidy"] == []
    assert min(found["answers_with_each_clock"]) > 0


def test_the_audit_misses_nothing(project: Project) -> None:
    fill(project, 3)
    found = audit(project, [("no-such-judgement", "key")])
    assert (found.acknowledged, found.lost, found.stored, found.integrity) == (1, 1, 0, "ok")
    project.database.close()
