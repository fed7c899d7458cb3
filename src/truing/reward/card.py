"""A reward model's card: how often it is right on people's held-out judgements, how sure it may be, and what its scores look like.

Scores here are normalised: mean 0 and standard deviation 1 on reference samples. Times `std`, a difference is in log-odds.
"""

import json
import math
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from truing.artifacts import load_artifact
from truing.reward.train_pairs import Row
from truing.stats import Interval, auc, binary_log_loss, bootstrap_mean, expected_calibration_error, reliability_curve, spearman
from truing.store.ids import seed_from
from truing.store.project import Project

HISTOGRAM_BINS = 24


def measure(
    train: Sequence[Row], held_out: Sequence[Row], scores: Tensor, reference: Tensor, reference_lengths: Sequence[int], *, std: float, seed: int
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """All that a card says.

    Args:
        train, held_out: lines of pairs.jsonl.
        scores: (N, 2) normalised scores of a and b of the held-out rows.
        reference: (R,) normalised scores of the reference samples.
        reference_lengths: tokens of each of these.
        std: what turns a difference of scores into log-odds.
        seed: of the bootstraps.

    Returns:
        facts for the manifest; the card; the lines of held_out.jsonl.
    """
    pairs = [(float(a), float(b)) for a, b in scores.tolist()]
    chances = [1 / (1 + math.exp(-max(min((a - b) * std, 500.0), -500.0))) for a, b in pairs]
    targets = [float(row["target"]) for row in held_out]
    decided = [place for place, target in enumerate(targets) if target != 0.5]
    accuracy = majority_accuracy(held_out, pairs, seed=seed)
    facts = {
        "accuracy": {**_interval(accuracy), "n": len(decided)},
        "n_test": len(decided),
        "n_test_prompts": accuracy.n,
        "n_held_out": len(held_out),
        "log_loss": _finite(binary_log_loss(chances, targets)),
        "ece": _finite(expected_calibration_error(chances, targets)),
        "auc": _finite(auc([chances[place] for place in decided], [targets[place] > 0.5 for place in decided])),
        "length_correlation": _finite(spearman(reference.tolist(), reference_lengths)),
    }
    card = {
        **facts,
        "ceiling": _interval(human_agreement([*train, *held_out], seed=seed)),
        "longer_wins": _interval(_longer_wins(held_out, seed)),
        "length_slope": _slope(reference_lengths, reference.tolist()),
        "n_reference": len(reference),
        "reliability": [row._asdict() for row in reliability_curve(chances, targets)],
        "histogram": _histogram(reference.tolist()),
    }
    rows = [
        {"question_id": row["question_id"], "prompt_id": row["prompt_id"], "score_a": a, "score_b": b} for row, (a, b) in zip(held_out, pairs, strict=True)
    ]  # fmt: skip
    return facts, card, rows


def majority_accuracy(rows: Sequence[Row], scores: Sequence[tuple[float, float]], *, seed: int = 0) -> Interval:
    """Share of rows where the response that the judgements prefer scores higher; rows without a preference are left out, equal scores count half.

    Args:
        rows: lines of pairs.jsonl.
        scores: of a and b of each.

    Returns:
        an interval drawn over prompts; n is the number of prompts.
    """
    trials = [(_right(a - b, row["target"] - 0.5), row["prompt_id"]) for row, (a, b) in zip(rows, scores, strict=True) if row["target"] != 0.5]
    return _mean_by_prompt(trials, seed)


def judged_accuracy(rows: Sequence[Row], scores: Sequence[tuple[float, float]], annotators: Collection[str] | None = None, *, seed: int = 0) -> Interval:
    """Share of single judgements with which the scores agree; ties of a person are left out, equal scores count half.

    Args:
        rows: lines of pairs.jsonl.
        scores: of a and b of each.
        annotators: ids of those whose judgements count; None: everyone's.

    Returns:
        an interval drawn over prompts; n is the number of judgements.
    """
    trials = [
        (_right(a - b, judgement["strength"]), row["prompt_id"])
        for row, (a, b) in zip(rows, scores, strict=True)
        for judgement in row["judgements"]
        if judgement["strength"] != 0 and (annotators is None or judgement["annotator_id"] in annotators)
    ]
    return _mean_by_prompt(trials, seed)._replace(n=len(trials))


def human_agreement(rows: Sequence[Row], *, seed: int = 0) -> Interval:
    """How often two people who both preferred a response of the same pair preferred the same one: what a reward model can hope for.

    Returns:
        an interval drawn over prompts; n is the number of couples of judgements. nan without overlap.
    """
    trials = [
        (_right(one["strength"], other["strength"]), row["prompt_id"])
        for row in rows
        for one, other in combinations([judgement for judgement in row["judgements"] if judgement["strength"] != 0], 2)
        if one["annotator_id"] != other["annotator_id"]
    ]
    return _mean_by_prompt(trials, seed)._replace(n=len(trials))


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


def card_rows(card: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The card for the terminal: question, value, n."""
    yield "right on held-out pairs", _share(card["accuracy"]), f"{card['n_test']} pairs, {card['n_test_prompts']} prompts"
    yield "two people agree with each other", _share(card["ceiling"]), f"{card['ceiling']['n']} couples of judgements"
    yield "the longer answer was preferred", _share(card["longer_wins"]), f"{card['longer_wins']['n']} pairs"
    yield "log loss (a coin's is 0.693)", _number(card["log_loss"]), f"{card['n_held_out']} pairs"
    for kind, found in sorted(card.get("held_out_surprise", {}).items()):
        yield f"surprise at a held-out {kind}, nats", _number(found["nats"]), f"{found['n']} judgements"
    yield "calibration error (0 is perfect)", _number(card["ece"]), f"{card['n_held_out']} pairs"
    yield "score against length, rank correlation", _number(card["length_correlation"]), f"{card['n_reference']} samples"
    yield "score per 10 tokens more", _number(card["length_slope"] and 10 * card["length_slope"]), f"{card['n_reference']} samples"
    yield "scores of reference samples", _span(card["histogram"]), f"{card['n_reference']} samples"
    reads = ", ".join(f"{how} of layer {layer}" for how, layer in card["readings"])
    yield "head", f"{card['head']}, {card['members']} members, reads {reads}", f"{card['n_train']} train pairs"


def _right(margin: float, label: float) -> float:
    """1 where both have one sign, 0 where not, 1/2 where the margin is 0."""
    return (1 + float(np.sign(margin) * np.sign(label))) / 2


def _mean_by_prompt(trials: Sequence[tuple[float, str]], seed: int) -> Interval:
    return bootstrap_mean([value for value, _ in trials], groups=[prompt for _, prompt in trials], seed=seed_from(seed, "card"))


def _longer_wins(rows: Sequence[Row], seed: int) -> Interval:
    """How far "the longer answer is better", in characters, would get on the same pairs."""
    pairs = [(float(len(row["a"]["text"])), float(len(row["b"]["text"]))) for row in rows]
    differ = [place for place, (a, b) in enumerate(pairs) if a != b and rows[place]["target"] != 0.5]
    return majority_accuracy([rows[place] for place in differ], [pairs[place] for place in differ], seed=seed)._replace(n=len(differ))


def _slope(lengths: Sequence[int], scores: Sequence[float]) -> float | None:
    """Score per token: the line of least squares."""
    x, y = np.asarray(lengths, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    spread = float(((x - x.mean()) ** 2).sum())
    return float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else None


def _histogram(scores: Sequence[float]) -> dict[str, list[float] | list[int]]:
    counts, edges = np.histogram(np.asarray(scores, dtype=np.float64), bins=HISTOGRAM_BINS)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _interval(interval: Interval) -> dict[str, Any]:
    return {name: _finite(value) for name, value in interval._asdict().items()}


def _finite(value: float) -> float | None:
    """None for nan: JSON has no word for it."""
    return value if math.isfinite(value) else None


def _share(interval: dict[str, Any]) -> str:
    if interval["value"] is None:
        return "not known: no overlap" if not interval["n"] else "not known"
    bounds = f" [{interval['low']:.1%}, {interval['high']:.1%}]" if interval["low"] is not None else ""
    return f"{interval['value']:.1%}{bounds}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _span(histogram: dict[str, Any]) -> str:
    return f"{histogram['edges'][0]:.2f} to {histogram['edges'][-1]:.2f}"
