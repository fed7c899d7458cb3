"""Is the tuned policy preferred, on prompts it never saw? Two policies' samples, response by response.

A sample of the policy meets the opponent's sample of the same prompt and position. Who wins is the gold score's to say; without one it is the
reward model's, and then the verdict never claims a win. Every interval is drawn over prompts.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy import select

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import Settings
from truing.errors import UserError
from truing.evaluation.contest import Answer, Answers, Match, Spread, compare, describe, pair_up
from truing.evaluation.verdict import BASE, Limits, find_warnings
from truing.store.ids import content_id
from truing.store.project import Project, record_artifact
from truing.store.runs import stage_run
from truing.store.tables import Prompt, Sample, Split

Gold = Callable[[str, Sample], float]  # (the prompt's text, a response) → gold points
Score = Callable[[list[Sample]], list[float]]  # responses → the reward model's scores
Found = Sequence[tuple[Prompt, Sample]]


class EvaluationSettings(Settings):
    """How a policy is compared with others on held-out prompts."""

    per_prompt: int = Field(1, ge=1, description="responses of each policy to each held-out prompt; more make the interval narrower")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of every interval")
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap resamples of the prompts behind an interval")
    tie_margin: float = Field(0.0, ge=0, description="gold points within which two responses are called equally good")
    side_by_side: int = Field(6, ge=0, le=50, description="random pairs of responses that the report shows")
    min_distinct2_ratio: float = Field(0.7, ge=0, description="warn when the variety of word pairs falls under this share of base's")
    max_logprob_drop: float = Field(0.3, ge=0, description="warn when a token is this many nats less likely under base than base's own")
    min_length_ratio: float = Field(0.25, ge=0, description="warn when responses fall under this share of the opponent's words")
    max_kl_nats: float = Field(20.0, gt=0, description="warn above this KL from base, in nats per response")

    def limits(self) -> Limits:
        """Where to start warning."""
        return Limits(self.min_distinct2_ratio, self.max_logprob_drop, self.min_length_ratio, self.max_kl_nats)


def evaluate_policy(
    project: Project,
    settings: EvaluationSettings,
    *,
    policy_id: str,
    against: Sequence[str],
    batches: Mapping[str, str],
    gold: Gold | None,
    score: Score | None,
    kl_nats: Mapping[str, float] | None = None,
    seed: int,
    judge: str = "the gold score",
    parents: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
    round_id: int | None = None,
) -> Artifact:
    """Compare a policy's samples of held-out prompts with those of each opponent.

    Args:
        policy_id: the policy under test.
        against:   opponents, the most important first (usually "base", then the previous round's policy).
        batches:   policy id → its sampling batch, for `policy_id`, every opponent and, for fluency and variety, "base".
        gold:      the judge who decides; None where there is none.
        score:     the reward model that the policy was tuned to please.
        kl_nats:   sample id → log-probability of the response under the policy minus under base, summed over its tokens.
        seed:      of the resampling and of the pairs shown.
        judge:     who `gold` is, in words; part of the inputs, so that another judge makes another evaluation.
        parents:   ids of further artifacts it rests on, such as the reward model's.
        names:     opponent → what to call it in a sentence; its id where it has no name, "the base model" for base.
        round_id:  the round it belongs to.

    Returns:
        An artifact of kind "evaluation": evaluation.json, pairs.jsonl (every pair, for reading), facts.

    Raises:
        UserError: there is no judge at all, or an opponent has no held-out prompt in common with the policy.
    """
    if gold is None and score is None:
        raise UserError("an evaluation needs a judge: neither a gold score nor a reward model was given", fix="name a reward model, or ask people")
    samples = {policy: _held_out(project, policy, batches[policy]) for policy in sorted(batches)}
    inputs = {
        "policy": policy_id,
        "against": list(against),
        "samples": {policy: _fingerprint(found, kl_nats or {}) for policy, found in samples.items()},
        "judge": judge if gold else None,
        "scored": score is not None,
        "parents": sorted(parents),
        "settings": settings.model_dump(),
        "seed": seed,
    }
    with stage_run(project, "evaluate", inputs, round_id=round_id) as run:
        if run.answered:
            return load_artifact(project.artifacts, run.result["artifact"])
        answers = _judge(samples, gold, score)
        prompts = {prompt.id: prompt for found in samples.values() for prompt, _ in found}
        matches = {other: _meet(prompts, answers, policy_id, other, settings.tie_margin if gold else 0.0) for other in against}
        document = _measure(settings, policy_id, answers, matches, kl_nats or {}, seed, names or {}, independent=gold is not None)
        document |= {"judge": judge if gold else "the reward model", "independent": gold is not None, "batches": dict(batches)}
        artifact = _write(project, settings, document, matches, seed, [*parents, *(p for p in (policy_id, *against) if p != BASE)])
        run.result = {"artifact": artifact.id}
    return artifact


def _held_out(project: Project, policy: str, batch: str) -> Found:
    query = (
        select(Prompt, Sample)
        .join(Sample, Sample.prompt_id == Prompt.id)
        .where(Sample.batch == batch, Sample.policy_id == policy, Prompt.split == Split.HELD_OUT)
        .order_by(Prompt.id, Sample.position)
    )
    with project.database.read() as session:
        found = [(prompt, sample) for prompt, sample in session.execute(query)]
    if not found:
        raise UserError(f"{policy} has no samples of held-out prompts in batch {batch!r}", fix="draw some with `truing sample`, or import more prompts")
    return found


def _fingerprint(found: Found, kl_nats: Mapping[str, float]) -> str:
    """A hash of everything that is read of these samples."""
    return content_id(
        [
            [prompt.id, prompt.facts.get("topic"), sample.id, sample.text, sample.token_ids, sample.finished, sample.base_logprob, kl_nats.get(sample.id)]
            for prompt, sample in found
        ]
    )


def _judge(samples: Mapping[str, Found], gold: Gold | None, score: Score | None) -> dict[str, Answers]:
    """Every policy's answers with their gold points and scores."""
    flat = [pair for found in samples.values() for pair in found]
    scores: Sequence[float | None] = score([sample for _, sample in flat]) if score else [None] * len(flat)
    judged = {}
    for (prompt, sample), given in zip(flat, scores, strict=True):
        points = gold(prompt.text, sample) if gold else None
        decides = points if points is not None else given
        if decides is None:
            raise ValueError(f"nobody judged sample {sample.id}")
        judged[sample.id] = Answer(sample, points, given, decides)
    return {policy: {(prompt.id, sample.position): judged[sample.id] for prompt, sample in found} for policy, found in samples.items()}


def _meet(prompts: Mapping[str, Prompt], answers: Mapping[str, Answers], policy_id: str, other: str, margin: float) -> list[Match]:
    matches = pair_up(prompts, answers[policy_id], answers[other], margin)
    if not matches:
        raise UserError(f"{policy_id} and {other} have no held-out prompt in common", fix="draw both batches from the same prompts")
    return matches


def _measure(
    settings: EvaluationSettings,
    policy_id: str,
    answers: Mapping[str, Answers],
    matches: Mapping[str, Sequence[Match]],
    kl_nats: Mapping[str, float],
    seed: int,
    names: Mapping[str, str],
    *,
    independent: bool,
) -> dict[str, Any]:
    spread = Spread(settings.confidence, settings.resamples, seed)
    policies = {policy: describe(spread, found, answers.get(BASE), kl_nats) for policy, found in answers.items()}
    known = {BASE: "the base model", **names}
    opponents = [
        compare(spread, other, known.get(other, other), pairs, independent=independent, shown=settings.side_by_side) for other, pairs in matches.items()
    ]
    return {
        "policy": policy_id,
        "confidence": settings.confidence,
        "resamples": settings.resamples,
        "policies": policies,
        "opponents": opponents,
        "warnings": find_warnings(policies[policy_id], opponents, settings.limits()),
    }


def _write(
    project: Project,
    settings: EvaluationSettings,
    document: Mapping[str, Any],
    matches: Mapping[str, Sequence[Match]],
    seed: int,
    parents: Sequence[str],
) -> Artifact:
    def fill(folder: Path) -> None:
        text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        (folder / "evaluation.json").write_text(text, encoding="utf-8")
        rows = [{"against": other, **match.as_json()} for other, pairs in matches.items() for match in pairs]
        lines = [json.dumps(row, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
        (folder / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")

    artifact = write_artifact(
        project.artifacts, "evaluation", fill, parents=sorted(set(parents)), settings=settings.model_dump(), seed=seed, facts=_facts(document)
    )
    record_artifact(project, artifact.id, artifact.manifest)
    return artifact


def _facts(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth reading without opening a file: the verdict against the first opponent, a sentence for each, and the policy's own measures."""
    first, ours = document["opponents"][0], document["policies"][document["policy"]]
    return {
        "policy": document["policy"],
        "judge": document["judge"],
        "verdict": first["verdict"],
        "sentences": [row["sentence"] for row in document["opponents"]],
        "win_rate": first["win_rate"],
        "against": {row["policy"]: {"verdict": row["verdict"], "win_rate": row["win_rate"]} for row in document["opponents"]},
        "warnings": [warning["failure"] for warning in document["warnings"]],
        **{name: ours[name] for name in ("gold", "score", "tokens", "eos_rate", "distinct2", "distinct2_ratio", "logprob_gap", "kl_nats")},
    }
