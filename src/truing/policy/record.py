"""What a tuning run has told of itself so far: read from its newest checkpoint while it runs, from its policy afterwards. Without torch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.artifacts import load_artifact
from truing.errors import UserError
from truing.policy.diagnosis import Finding
from truing.store.project import Project
from truing.store.tables import Prompt, Run

STATE = "state.json"  # of a checkpoint; a record is a part of it
LOOKS = 5  # a checkpoint that goes away while it is read has made room for a newer one


class Record(NamedTuple):
    """A tuning run in numbers and answers.

    Attributes:
        settings: the algorithm's, as `TuneSettings.model_dump` gives them; empty where nothing tells.
        updates: how many there are to be; None where nothing tells.
        rows: what each update logged, in their order; of a run on another machine only those points that the store has.
        shown: sampled answers: update (from 1), prompt_id, text, finished, score (the reward model's, before any penalty).
        findings: named failures, in the order in which they showed.
    """

    settings: Mapping[str, Any]
    updates: int | None
    rows: Sequence[Mapping[str, float]]
    shown: Sequence[Mapping[str, Any]]
    findings: Sequence[Finding]

    @property
    def done(self) -> int:
        """How many updates there were."""
        return int(self.rows[-1]["update"]) if self.rows else 0

    def newest(self) -> list[Mapping[str, Any]]:
        """The sampled answers of the last update that has any."""
        return self.of_update(max((one["update"] for one in self.shown), default=0))

    def of_update(self, update: int) -> list[Mapping[str, Any]]:
        """The sampled answers of an update (from 1)."""
        return [one for one in self.shown if one["update"] == update]


def run_folder(project: Project, key: str) -> Path:
    """Where the run with this key keeps its checkpoints until it is finished."""
    return project.root / "runs" / key[:16]


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints in a run's folder, oldest first."""
    return sorted(folder.glob("update-*")) if folder.is_dir() else []


def record_of(project: Project, run: Run) -> Record:
    """What a tuning run has told, finished or not; an empty record before its first update.

    Raises:
        UserError: the policy that it made is gone or damaged.
    """
    if "policy" in run.result:
        return of_policy(project.artifacts, run.result["policy"])
    return _of_checkpoint(run_folder(project, run.key)) or _of_progress(run.progress)


def prompt_texts(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """Prompt id → its last turn, for those that the store knows."""
    rows = session.execute(select(Prompt.id, Prompt.turns).where(Prompt.id.in_(set(ids))))
    return {prompt_id: str(turns[-1]["content"]) for prompt_id, turns in rows}


def _of_checkpoint(folder: Path) -> Record | None:
    for _ in range(LOOKS):
        for place in reversed(checkpoints(folder)):
            try:
                return _of_state(place / STATE, (place / STATE).stat().st_mtime_ns)
            except (FileNotFoundError, ValueError):  # gone, or damaged: the one before serves
                continue
    return None


@lru_cache(maxsize=4)
def _of_state(place: Path, written_ns: int) -> Record:
    """A checkpoint's; it never changes, but a run that is done over has others in the same places."""
    state = json.loads(place.read_text(encoding="utf-8"))
    return Record(state["settings"], state["updates"], state["rows"], state["shown"], [Finding(*found) for found in state["findings"]])


@lru_cache(maxsize=4)
def of_policy(artifacts: Path, policy_id: str) -> Record:
    """What a finished run told.

    Raises:
        UserError: the policy is gone or damaged.
    """
    artifact = load_artifact(artifacts, policy_id)
    rows, shown = (_lines(artifact.path / name) for name in ("metrics.jsonl", "samples.jsonl"))
    findings = json.loads((artifact.path / "diagnosis.json").read_text(encoding="utf-8"))
    return Record(artifact.manifest["settings"]["settings"], len(rows), rows, shown, [Finding(**found) for found in findings])


def _of_progress(progress: Mapping[str, Any]) -> Record:
    """The curves that the store has, whose points are evenly spread and end with the newest update, and the newest row."""
    curves, done = progress.get("curves", {}), int(progress.get("done", 0))
    points = max(map(len, curves.values()), default=0)
    step = -(-done // points) if points else 1
    rows = [{"update": float(done - step * (points - 1 - place)), **{name: values[place] for name, values in curves.items()}} for place in range(points)]
    if rows:
        rows[-1] |= {name: value for name, value in progress.items() if "/" in name}
    return Record({}, progress.get("total"), rows, [], [])


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing", fix="restore the folder from a copy, or make it again with --force")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]  # an answer may hold what else splits lines
