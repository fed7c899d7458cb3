"""A reward model's card: how often it is right on people's held-out judgements, how sure it may be, what leans it, and what its scores look like.

Here is what is measured as soon as a model is fitted; what takes longer is in card_stage.py. docs/card.md says what each number means.

Scores here are normalised: mean 0 and standard deviation 1 on reference samples. Times `std`, a difference is in log-odds.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from truing.artifacts import load_artifact
from truing.reward.card.accuracy import beside_rules, human_agreement, majority_accuracy, strata
from truing.reward.card.calibration import calibration, chances
from truing.reward.card.fitness import fitness
from truing.reward.card.scores import best_of_n, distribution
from truing.reward.card.slopes import slopes
from truing.reward.features import Item
from truing.reward.train_pairs import Row
from truing.stats import auc, binary_log_loss, expected_calibration_error, finite, plain, reliability_curve, spearman, takes_side
from truing.store.ids import seed_from
from truing.store.project import Project

HISTOGRAM_BINS = 24


def measure(
    train: Sequence[Row],
    held_out: Sequence[Row],
    scores: Tensor,
    reference: Tensor,
    items: Sequence[Item],
    *,
    std: float,
    mean: float = 0.0,
    members: int = 1,
    kinds: Mapping[str, str] | None = None,
    sides: Mapping[str, float] | None = None,
    seed: int,
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """All that a card says of a model that was just fitted.

    Args:
        train, held_out: lines of pairs.jsonl.
        scores: (N, 2) normalised scores of a and b of the held-out rows.
        reference: (R,) normalised scores of the reference samples.
        items: prompt and response tokens of each of these.
        std: what turns a difference of scores into log-odds.
        mean: of the scores of the reference samples before they were normalised, in nats.
        members: of the ensemble.
        kinds: question id → kind of question (`question_kinds`).
        sides: question id → where a stood on the screen (`sides_shown`).
        seed: of the bootstraps.

    Returns:
        facts for the manifest, the verdict among them; the card; the lines of held_out.jsonl.
    """
    pairs = [(float(a), float(b)) for a, b in scores.tolist()]
    margins = [(a - b) * std for a, b in pairs]
    predicted = chances(margins)
    targets, prompts = [float(row["target"]) for row in held_out], [row["prompt_id"] for row in held_out]
    decided = [place for place, target in enumerate(targets) if takes_side(target)]
    accuracy = majority_accuracy(held_out, pairs, seed=seed)
    lengths, given, groups = [len(response) for _, response in items], reference.tolist(), [prompt for prompt, _ in items]
    facts = {
        "accuracy": {**plain(accuracy), "n": len(decided)},
        "n_test": len(decided),
        "n_test_prompts": accuracy.n,
        "n_held_out": len(held_out),
        "log_loss": finite(binary_log_loss(predicted, targets)),
        "ece": finite(expected_calibration_error(predicted, targets)),
        "auc": finite(auc(predicted[decided], [targets[place] > 0.5 for place in decided])),
        "length_correlation": finite(spearman(given, lengths)),
    }
    card = {
        **facts,
        "members": members,
        "ceiling": plain(human_agreement([*train, *held_out], seed=seed)),
        "rules": beside_rules(held_out, pairs, seed=seed),
        "strata": strata(train, held_out, pairs, kinds or {}, seed=seed),
        "calibration": calibration(margins, targets, prompts, seed=seed),
        "slopes": slopes(held_out, margins, sides or {}, seed=seed),
        "length_slope": _slope(lengths, given),
        "n_reference": len(reference),
        "distribution": distribution(given, groups, mean=mean, std=std),
        "best_of_n": best_of_n(given, groups, seed=seed_from(seed, "best")),
        "reliability": [row._asdict() for row in reliability_curve(predicted, targets)],
        "histogram": _histogram(given),
    }
    facts["fitness"] = card["fitness"] = fitness(card)
    rows = [
        {"question_id": row["question_id"], "prompt_id": row["prompt_id"], "score_a": a, "score_b": b} for row, (a, b) in zip(held_out, pairs, strict=True)
    ]  # fmt: skip
    return facts, card, rows


def held_out_scores(project: Project, artifact_id: str) -> tuple[list[Row], list[tuple[float, float]]]:
    """The held-out rows that a reward model was measured on, and its scores of a and b of each."""
    artifact = load_artifact(project.artifacts, artifact_id)
    dataset = next(load_artifact(project.artifacts, parent) for parent in artifact.parents if parent.startswith("dataset-"))
    scored = [json.loads(line) for line in (artifact.path / "held_out.jsonl").read_text(encoding="utf-8").splitlines()]
    with (dataset.path / "pairs.jsonl").open(encoding="utf-8") as file:
        rows = {row["question_id"]: row for row in map(json.loads, file)}
    return [rows[row["question_id"]] for row in scored], [(row["score_a"], row["score_b"]) for row in scored]


def reward_card(project: Project, artifact_id: str) -> dict[str, Any]:
    """The card of a reward model, as it was measured when the model was made.

    Raises:
        UserError: there is no such artifact.
    """
    artifact = load_artifact(project.artifacts, artifact_id)
    card: dict[str, Any] = json.loads((artifact.path / "card.json").read_text(encoding="utf-8"))
    return {"reward": artifact.id, **artifact.facts, **card}


def _slope(lengths: Sequence[int], scores: Sequence[float]) -> float | None:
    """Score per token: the line of least squares."""
    x, y = np.asarray(lengths, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    spread = float(((x - x.mean()) ** 2).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else None


def _histogram(scores: Sequence[float]) -> dict[str, list[float] | list[int]]:
    counts, edges = np.histogram(np.asarray(scores, dtype=np.float64), bins=HISTOGRAM_BINS)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
