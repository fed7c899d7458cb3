"""What a report is made from: one round's row, the artifacts it names, its annotators and its runs. Reads; computes nothing."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from truing.artifacts import Artifact, ancestors, load_artifact
from truing.evaluation.verdict import BASE
from truing.store.project import Project, round_by_number
from truing.store.tables import Annotator, Prompt, Round, Run

Json = dict[str, Any]

LONG = 8  # a list with more entries than this is shown as their number
STAGES = ("dataset", "reward", "policy", "evaluation")  # what a round makes as artifacts, in order


@dataclass(frozen=True)
class Sources:
    """A round and everything it points to. A stage that hasn't run is absent from `made` and `artifacts`."""

    project: Project
    round: Round
    parent: Round | None
    rounds: dict[str, int]  # policy id → number of the round that made it
    artifacts: dict[str, Artifact]  # stage → what it made
    annotators: dict[str, Annotator]
    runs: list[Run]

    @property
    def made(self) -> Json:
        """Stage → what it made, as the round recorded it."""
        return self.round.made

    def file(self, stage: str, name: str) -> Any:
        """A JSON file of a stage's artifact; None if the stage or the file isn't there."""
        place = self.artifacts[stage].path / name if stage in self.artifacts else None
        return json.loads(place.read_text(encoding="utf-8")) if place and place.exists() else None

    def rows(self, stage: str, name: str) -> list[Json]:
        """The rows of a JSON-lines file of a stage's artifact; none if it isn't there."""
        place = self.artifacts[stage].path / name if stage in self.artifacts else None
        if place is None or not place.exists():
            return []
        return [json.loads(line) for line in place.read_text(encoding="utf-8").split("\n") if line.strip()]

    def prompt_texts(self, ids: Iterable[str]) -> dict[str, str]:
        """The texts of prompts by id."""
        with self.project.database.read() as session:
            return {row.id: row.text for row in session.scalars(select(Prompt).where(Prompt.id.in_(sorted(set(ids)))))}

    def name(self, policy_id: str | None) -> str:
        """What to call a policy in a sentence."""
        if policy_id is None or policy_id == BASE:
            return "the base model"
        number = self.rounds.get(policy_id)
        if number == self.round.number and self.parent is None:
            return "the tuned model"
        return f"round {number}’s model" if number else policy_id

    def lineage(self) -> list[tuple[int, Artifact]]:
        """The newest artifact of the round and all it came from, each with its depth."""
        newest = next((self.artifacts[stage] for stage in reversed(STAGES) if stage in self.artifacts), None)
        return list(ancestors(self.project.artifacts, newest.id)) if newest else []


def read_sources(project: Project, round_number: int) -> Sources:
    """Everything a report shows of a round.

    Raises:
        UserError: there is no such round, or it names an artifact that isn't there.
        DamagedArtifact: an artifact is not what it was.
    """
    this = round_by_number(project, round_number)
    with project.database.read() as session:
        rounds = list(session.scalars(select(Round).order_by(Round.number)))
        annotators = {row.id: row for row in session.scalars(select(Annotator).order_by(Annotator.id))}
        runs = list(session.scalars(select(Run).where(Run.round_id == this.id).order_by(Run.started_at, Run.id)))
    return Sources(
        project=project,
        round=this,
        parent=next((row for row in rounds if row.id == this.parent_id), None),
        rounds={row.made["policy"]: row.number for row in rounds if row.made.get("policy")},
        artifacts={stage: load_artifact(project.artifacts, this.made[stage]) for stage in STAGES if this.made.get(stage)},
        annotators=annotators,
        runs=runs,
    )


def shown_settings(artifact: Artifact) -> Mapping[str, Any]:
    """The settings that shaped an artifact, nested ones as dotted names, long lists as their length."""
    flat: Json = {}

    def walk(prefix: str, values: Mapping[str, Any]) -> None:
        for key, value in sorted(values.items()):
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            elif isinstance(value, list) and len(value) > LONG:
                flat[f"{prefix}{key}"] = f"{len(value)} entries"
            else:
                flat[f"{prefix}{key}"] = value

    walk("", artifact.manifest["settings"])
    return flat
