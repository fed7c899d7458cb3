"""Judgements → preferences: graded, weighted, frozen in a dataset artifact.

A dataset is a pure function of the log, the settings and the trust of the annotators. In what order judgements came
plays no part; one that was superseded, or sent twice, counts once; skips and "both bad" never become a preference;
check questions never enter.

One judgement of strength s says that A is preferred with probability 1 / (1 + exp(-k s)): the Bradley-Terry probability
of a lead of k s nats. With k = ln 3, each step of strength triples the odds: 3 : 1, 9 : 1, 27 : 1, a tie 1 : 1. A
question's target is the trust-weighted mean of what its judgements say and of a pseudo-vote for "even": disagreement
softens the target, and so does having only distrusted people.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import Settings
from truing.errors import UserError
from truing.store.clock import now
from truing.store.ids import canonical, content_id
from truing.store.judgements import batches, current_judgements
from truing.store.project import Project, record_artifact
from truing.store.runs import stage_run
from truing.store.tables import Dataset, Judgement, Kind, Prompt, Question, QuestionSample, Sample, Split

PAIRS, QUALITY = "pairs.jsonl", "quality.json"


class PreferenceSettings(Settings):
    """How judgements become training targets."""

    nats_a_step: float = Field(1.0986, gt=0, description="log-odds that one step of strength stands for; ln 3 triples the odds")
    smoothing: float = Field(0.1, ge=0, description="weight of a pseudo-vote for even, in units of a fully trusted judgement")


@dataclass
class Asked:
    """A pair question with what stands of its judgements."""

    id: str
    prompt: Prompt
    a: Sample
    b: Sample
    judgements: list[Judgement] = field(default_factory=list)  # those that prefer or tie


def build_preferences(
    project: Project, settings: PreferenceSettings, quality: Mapping[str, Any], *, round_ids: Sequence[int] | None, seed: int, round_id: int | None = None
) -> Artifact:
    """Freeze what the judgements of some rounds say, and record it as the next version of the dataset.

    Args:
        quality:   plain data with "annotators": a list of {"id", "trust", ...}, trust in (0, 1]; kept in the artifact.
        round_ids: of these rounds; None: of all, imported judgements included.
        seed:      goes into the manifest; nothing here is drawn.
        round_id:  the round that asks for it.

    Raises:
        UserError: no judgement prefers anything, or `quality` says nothing of someone who judged.
    """
    with project.database.read() as session:
        asked, passed_over = _read(session, round_ids)
    rows = to_rows(asked, {one["id"]: float(one["trust"]) for one in quality["annotators"]}, settings)
    if not rows:
        raise UserError(
            "no judgement prefers one response to another yet",
            fix="collect some with `truing annotate --simulated 12`, or bring some with `truing import FILE`",
        )
    facts = _facts(rows) | passed_over
    inputs = {
        "rounds": None if round_ids is None else list(round_ids),
        "seed": seed,
        "settings": settings.model_dump(),
        "quality": dict(quality),
        "rows": content_id(rows),
        "facts": facts,
    }
    with stage_run(project, "preferences", inputs, round_id=round_id) as run:
        if not run.answered:
            shaped_by = {"preferences": settings.model_dump()}
            artifact = write_artifact(project.artifacts, "dataset", lambda folder: _fill(folder, rows, quality), settings=shaped_by, seed=seed, facts=facts)
            record_artifact(project, artifact.id, artifact.manifest)
            _number(project, artifact.id, max(round_ids) if round_id is None and round_ids else round_id)
            run.result = {"dataset": artifact.id} | facts
    return load_artifact(project.artifacts, run.result["dataset"])


def to_rows(asked: Sequence[Asked], trust: Mapping[str, float], settings: PreferenceSettings) -> list[dict[str, Any]]:
    """One preference for each question that has one, sorted by question id; `weight` has mean 1."""
    rows = [_row(question, trust, settings) for question in sorted(asked, key=lambda question: question.id) if question.judgements]
    mean = math.fsum(row["weight"] for row in rows) / len(rows) if rows else 1.0
    return [row | {"weight": row["weight"] / mean} for row in rows]


def soft_vote(strength: float, settings: PreferenceSettings) -> float:
    """Probability that A is preferred, by one judgement of this strength, in (0, 1); a tie is 1/2."""
    return 1 / (1 + math.exp(-settings.nats_a_step * strength))


def _row(question: Asked, trust: Mapping[str, float], settings: PreferenceSettings) -> dict[str, Any]:
    said = sorted((row.annotator_id, row.id, int(row.answer["strength"])) for row in question.judgements)
    unknown = sorted({who for who, *_ in said} - trust.keys())
    if unknown:
        raise UserError(f"quality control says nothing of annotator {unknown[0]}, who judged", fix="measure again with `truing quality`")
    weights = [trust[who] for who, *_ in said]
    total = math.fsum(weights)
    for_a = math.fsum(weight * soft_vote(strength, settings) for weight, (*_, strength) in zip(weights, said, strict=True))
    mean_strength = math.fsum(weight * strength for weight, (*_, strength) in zip(weights, said, strict=True)) / total
    signs = [(strength > 0) - (strength < 0) for *_, strength in said]
    return {
        "question_id": question.id,
        "prompt_id": question.prompt.id,
        "split": question.prompt.split,
        "turns": question.prompt.turns,
        "a": _response(question.a),
        "b": _response(question.b),
        "target": (for_a + settings.smoothing / 2) / (total + settings.smoothing),
        "weight": total,
        "strength": max(-3.0, min(3.0, mean_strength)),  # a rounding may overshoot
        "agreement": max(signs.count(sign) for sign in (-1, 0, 1)) / len(signs),
        "n_annotators": len(said),
        "judgements": [{"id": judgement, "annotator_id": who, "strength": strength} for who, judgement, strength in said],
    }


def _response(sample: Sample) -> dict[str, Any]:
    return {"sample_id": sample.id, "text": sample.text, "token_ids": sample.token_ids, "finished": sample.finished}


def _facts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": len(rows),
        "train": sum(row["split"] == Split.TRAIN for row in rows),
        "held_out": sum(row["split"] == Split.HELD_OUT for row in rows),
        "ties": sum(all(said["strength"] == 0 for said in row["judgements"]) for row in rows),
        "judgements": sum(len(row["judgements"]) for row in rows),
        "annotators": len({said["annotator_id"] for row in rows for said in row["judgements"]}),
    }


def _fill(folder: Path, rows: Sequence[Mapping[str, Any]], quality: Mapping[str, Any]) -> None:
    (folder / PAIRS).write_bytes(b"".join(canonical(row) + b"\n" for row in rows))
    text = json.dumps(quality, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / QUALITY).write_text(text, encoding="utf-8")


def _number(project: Project, artifact_id: str, round_id: int | None) -> None:
    """Record the dataset as the next version, unless it is one already."""
    with project.database.write() as session:
        if session.get(Dataset, artifact_id) is None:
            newest = session.scalar(select(func.max(Dataset.version))) or 0
            session.add(Dataset(artifact_id=artifact_id, round_id=round_id, version=newest + 1, created_at=now()))


def _read(session: Session, round_ids: Sequence[int] | None) -> tuple[list[Asked], dict[str, int]]:
    """The pair questions that are no checks, each with the judgements that stand; and how many of them prefer nothing."""
    query = select(Question.id, Question.gold, Prompt).join(Prompt).where(Question.kind == Kind.PAIR).order_by(Question.id)
    found = session.execute(query if round_ids is None else query.where(Question.round_id.in_(round_ids))).all()
    prompts = {question: prompt for question, gold, prompt in found if gold is None}
    samples: dict[str, dict[int, Sample]] = defaultdict(dict)
    for ids in batches(list(prompts)):
        members = select(QuestionSample.question_id, QuestionSample.position, Sample).join(Sample).where(QuestionSample.question_id.in_(ids))
        for question, position, sample in session.execute(members):
            samples[question][position] = sample
    asked = {question: Asked(question, prompt, samples[question][0], samples[question][1]) for question, prompt in prompts.items()}
    passed_over = {"skipped": 0, "both_bad": 0}
    for row in current_judgements(session, asked):
        if "strength" in row.answer:
            asked[row.question_id].judgements.append(row)
        else:
            passed_over["skipped" if "skip" in row.answer else "both_bad"] += 1
    return list(asked.values()), passed_over
