"""A run is told alike by who runs it, by its checkpoint, by the store and by the policy that it ends as, and its numbers are drawn with what is normal."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from truing.models.trunk import Trunk
from truing.policy.diagnosis import CHECKS, Finding
from truing.policy.figures import MOST_POINTS, figures
from truing.policy.record import Record, _lines, checkpoints, record_of, run_folder
from truing.store.clock import now
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Run, RunState
from tuning import settings_for, share_of_third_tokens, tune

ROW = {
    "update": 1.0, "objective/scores": 0.5, "objective/kl": 1.0, "objective/beta": 0.05, "objective/entropy": 1.5, "response/length": 30.0,
    "response/eos_rate": 0.75, "response/distinct2": 0.6, "policy/clipfrac": 0.1, "policy/grad_norm": 0.8,
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A new one."""
    opened = open_project(create_project(tmp_path / "project"))
    yield opened
    opened.database.close()


def a_run(key: str = "a" * 64, **told: Any) -> Run:
    """A tuning run as the store has it."""
    at = now()
    whole = {"state": RunState.RUNNING, "progress": {}, "result": {}, "error": None} | told
    return Run(
        id="run", stage="tune", key=key, round_id=None, started_at=at, heartbeat_at=at, finished_at=None, seconds=1.0, peak_gb=1.0, **whole
    )  # fmt: skip


def told(settings: dict[str, Any], *rows: dict[str, float]) -> Record:
    """A record of these rows."""
    return Record(settings, len(rows), rows, [], [])


def keep(folder: Path, update: int, **state: Any) -> None:
    """What of a checkpoint a record needs."""
    place = folder / f"update-{update:06d}"
    place.mkdir(parents=True)
    (place / "state.json").write_text(json.dumps({"update": update, "settings": {}, "updates": 9, "rows": [], "shown": [], "findings": []} | state))


@pytest.mark.slow
def test_a_run_is_told_alike_while_it_goes_on_and_when_it_is_over(project: Project, trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHECKS, "oddity", lambda rows: ("it is the second update", "wait") if len(rows) == 2 else None)
    seen: list[Record] = []

    def score(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        with project.database.read() as session:
            seen.append(record_of(project, session.scalars(select(Run)).one()))
        return share_of_third_tokens(prompts, responses)

    tune(project, trunk, settings_for("rloo", updates=4, lr=0.3), score=score)
    with project.database.read() as session:
        over = record_of(project, session.scalars(select(Run)).one())
    assert [one.done for one in seen] == [0, 1, 2, 3]
    assert over.done == over.updates == seen[-1].updates == 4
    assert seen[-1].settings == over.settings
    assert over.settings["algorithm"] == "rloo"
    assert seen[-1].rows == over.rows[:3]
    assert seen[-1].shown == [one for one in over.shown if one["update"] < 4]
    assert [Finding("oddity", "it is the second update", "wait", 2) in one.findings for one in (*seen, over)] == [False, False, True, True, True]
    assert len(over.newest()) == 5
    assert over.newest()[0]["update"] == 4


def test_failures_so_far_are_in_the_checkpoint(project: Project) -> None:
    finding = Finding("stale ratios", "the ratio is off", "report it", 3)
    keep(run_folder(project, "a" * 64), 3, rows=[ROW | {"update": 3.0}], findings=[finding])
    assert record_of(project, a_run()).findings == [finding]


def test_a_checkpoint_that_goes_away_while_it_is_read_is_no_trouble(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, looks = run_folder(project, "a" * 64), 0

    def listed(place: Path) -> list[Path]:
        nonlocal looks
        looks += 1
        return [folder / "update-000001"] if looks == 1 else checkpoints(place)

    keep(folder, 2, rows=[ROW | {"update": 2.0}])
    monkeypatch.setattr("truing.policy.record.checkpoints", listed)
    assert record_of(project, a_run()).done == 2


def test_where_the_newest_checkpoint_is_damaged_the_one_before_is_read(project: Project) -> None:
    folder = run_folder(project, "a" * 64)
    keep(folder, 1, rows=[ROW])
    keep(folder, 2, rows=[ROW, ROW | {"update": 2.0}])
    (folder / "update-000002" / "state.json").write_text('{"upd')
    assert record_of(project, a_run()).done == 1


def test_a_run_done_over_in_the_same_place_is_read_afresh(project: Project) -> None:
    folder = run_folder(project, "a" * 64)
    keep(folder, 1, rows=[ROW])
    assert record_of(project, a_run()).rows[0]["objective/kl"] == 1.0
    (folder / "update-000001" / "state.json").unlink()
    (folder / "update-000001").rmdir()
    keep(folder, 1, rows=[ROW | {"objective/kl": 2.0}])
    assert record_of(project, a_run()).rows[0]["objective/kl"] == 2.0


def test_of_a_run_elsewhere_there_is_what_the_store_has(project: Project) -> None:
    """7 updates drawn as 4 points: the newest and every second one before it."""
    progress = {"done": 7, "total": 20, "curves": {"objective/scores": [0.1, 0.2, 0.3, 0.4]}, "objective/kl": 2.5}
    found = record_of(project, a_run(progress=progress))
    assert [row["update"] for row in found.rows] == [1, 3, 5, 7]
    assert found.rows[-1] == {"update": 7.0, "objective/scores": 0.4, "objective/kl": 2.5}
    assert found.updates == 20
    assert record_of(project, a_run()).rows == []


def test_an_answer_may_hold_any_character(project: Project) -> None:
    """What Unicode counts as the end of a line stands unescaped in samples.jsonl."""
    path = project.root / "samples.jsonl"
    path.write_text(json.dumps({"text": "one\u2028two\x85three"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert _lines(path) == [{"text": "one\u2028two\x85three"}]


# ---- figures ----


def test_what_a_run_logs_is_what_is_drawn() -> None:
    keys = [figure.key for figure in figures(told({"algorithm": "ppo"}, ROW | {"value/explained_variance": 0.1, "objective/scores/warm": 0.2}))]
    assert keys[:3] == ["objective/scores", "objective/scores/warm", "objective/kl"]
    assert "value/explained_variance" in keys
    assert "value/explained_variance" not in [figure.key for figure in figures(told({"algorithm": "rloo"}, ROW))]
    q_learning = [figure.key for figure in figures(told({"algorithm": "q-learning"}, ROW | {"policy/loss": 0.3}))]
    assert "policy/loss" in q_learning
    assert "policy/clipfrac" not in q_learning
    dpo = {"update": 1.0, "policy/loss": 0.69, "policy/accuracy": 0.5, "policy/margin": 0.0, "policy/grad_norm": 1.0}
    assert [figure.key for figure in figures(told({"algorithm": "dpo"}, dpo))] == ["policy/loss", "policy/accuracy", "policy/margin", "policy/grad_norm"]
    sft = {"update": 1.0, "policy/loss": 2.0, "policy/grad_norm": 1.0}
    assert [figure.unit for figure in figures(told({"algorithm": "sft"}, sft))] == ["nats per token", ""]
    assert figures(told({})) == []


def test_every_figure_says_what_it_means_and_what_is_normal() -> None:
    everything = ROW | {"value/explained_variance": 0.1, "policy/loss": 0.3}
    for algorithm in ("ppo", "q-learning", "rloo"):
        for figure in figures(told({"algorithm": algorithm, "beta": 0.05, "grad_clip": 1.0}, everything)):
            assert figure.means.endswith("."), figure
            assert figure.normal.endswith("."), figure
            assert figure.value, figure


def test_kl_is_read_against_its_target_or_its_price() -> None:
    steered = figures(told({"algorithm": "ppo"}, ROW | {"objective/kl_target": 6.0, "objective/beta": 0.123}))[1]
    assert steered.target == 6.0
    assert "target of 6: beta follows, 0.123 now." in steered.normal
    fixed = figures(told({"algorithm": "ppo"}, ROW | {"response/length": 100.0}))[1]
    assert fixed.target is None
    assert "A nat costs 0.05" in fixed.normal
    assert "Over 30 is a blow-up" in fixed.normal  # three times a tenth of a nat for each of 100 tokens


def test_the_ensembles_lower_bound_is_drawn_beside_the_score() -> None:
    score = figures(told({}, ROW | {"objective/scores_lower": 0.25}))[0]
    assert score.beside == ("the ensemble's lower bound", [(1.0, 0.25)])
    assert score.value == "+0.50"
    assert {figure.key: figure.value for figure in figures(told({}, ROW))}["response/eos_rate"] == "75 %"


def test_a_long_run_is_drawn_as_means_and_its_newest_value_stays_as_it_is() -> None:
    rows = [ROW | {"update": float(update), "objective/scores": float(update)} for update in range(1, 2 * MOST_POINTS + 1)]
    score = figures(told({}, *rows))[0]
    assert len(score.points) == MOST_POINTS
    assert score.points[0] == (2.0, 1.5)
    assert score.points[-1] == (400.0, 399.5)
    assert score.now == 400.0


def test_records_and_figures_need_no_torch() -> None:
    code = "import sys, truing.policy.record, truing.policy.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
