"""Scores beside people's ratings: rank correlations on held-out prompts, where the dataset has ratings."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from truing.artifacts import Artifact
from truing.reward.judged import OVERALL
from truing.stats import bootstrap, kendall, plain, spearman
from truing.store.ids import seed_from
from truing.store.tables import Kind, Split

FEWEST = 10  # rated responses
RESAMPLES = 500


class Rated(NamedTuple):
    """A held-out response with the mean of its ratings; `row` is its line of said.jsonl."""

    row: dict[str, Any]
    points: float
    people: int


def rated_responses(dataset: Artifact) -> list[Rated]:
    """The rated responses of held-out prompts, each once: the mean over people of the aspect "overall", or of the mean of all aspects where there is none."""
    rows: dict[str, dict[str, Any]] = {}
    points: dict[str, list[float]] = defaultdict(list)
    with (dataset.path / "said.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["kind"] == Kind.RATING and row["split"] == Split.HELD_OUT:
                sample = row["responses"][0]["sample_id"]
                rows[sample] = row
                points[sample] += [_points(said["answer"]["aspects"]) for said in row["said"]]
    return [Rated(rows[sample], float(np.mean(points[sample])), len(points[sample])) for sample in sorted(rows) if points[sample]]


def _points(aspects: Mapping[str, int]) -> float:
    return float(aspects[OVERALL]) if OVERALL in aspects else float(np.mean(list(aspects.values())))


def against_ratings(rated: Sequence[Rated], scores: Sequence[float], *, seed: int) -> dict[str, Any] | None:
    """Rank correlations of score and mean rating over all responses at once, whatever their prompt.

    Args:
        scores: of each.

    Returns:
        spearman, kendall (tau-b): intervals over prompts, n responses; ratings: how many there are. None where too few responses are rated.
    """
    if len(rated) < FEWEST:
        return None
    score, points = np.asarray(scores, dtype=np.float64), np.array([one.points for one in rated])
    prompts = [one.row["prompt_id"] for one in rated]
    draw = seed_from(seed, "ratings")
    found = {
        name: plain(bootstrap(lambda rows, of=of: of(score[rows], points[rows]), prompts, seed=draw, resamples=RESAMPLES)._replace(n=len(rated)))  # type: ignore[misc]
        for name, of in (("spearman", spearman), ("kendall", kendall))
    }
    return found | {"ratings": sum(one.people for one in rated), "prompts": len(set(prompts))}
