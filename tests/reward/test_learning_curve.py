"""The learning curve: its parts are nested, its fit finds a known curve, and it doesn't promise what it can't."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.letters import letter_rows, row
from truing.reward.card.learning_curve import Curve, curve_through, fit_curve, in_words, judgements_of, learning_curve, parts_of

SIZES = (0.125, 0.25, 0.5, 1.0)


@given(st.floats(0.5, 1), st.floats(-2, 5))
def test_a_known_curve_is_found_by_two_sizes_and_more(end: float, start: float) -> None:
    known = Curve(end, start)
    for counts in ([100, 800], [100, 200, 400, 800]):
        found = fit_curve(counts, [known.at(n) for n in counts])
        assert found.end == pytest.approx(end, abs=1e-9)
        assert found.start == pytest.approx(start, abs=1e-6)


def test_needed_by_hand() -> None:
    curve = Curve(0.8, 2.0)  # 0.8 - 2 / sqrt(n)
    assert curve.at(400) == pytest.approx(0.7)
    assert curve.needed(0.7) == pytest.approx(400)
    assert curve.needed(0.75) == pytest.approx(1600)
    assert curve.needed(0.8) == math.inf
    assert Curve(0.8, -1.0).needed(0.7) == 0  # falling towards 0.8: it was above from the start
    assert Curve(0.6, -1.0).needed(0.7) == math.inf


def test_parts_are_nested_and_the_whole_is_fitted_once() -> None:
    rows = letter_rows(160, held_out=0)
    parts = parts_of(rows, seed=1)
    assert [part.fraction for part in parts] == [0.125] * 4 + [0.25] * 4 + [0.5] * 4 + [1.0]
    assert [len(part.prompts) for part in parts if part.draw == 0] == [20, 40, 80, 160]
    for draw in range(4):
        smaller = [part.prompts for part in parts if part.draw == draw and part.fraction < 1]
        assert smaller[0] < smaller[1] < smaller[2]
    assert len({part.prompts for part in parts}) == len(parts)
    assert [part.fraction for part in parts_of(rows[:30], seed=1)] == [0.5] * 4 + [1.0]  # 3 or 7 pairs are too few to fit


def test_judgements_are_counted_once() -> None:
    rows = [row("p", "a", "b", 1.0, strengths={"ann": 1, "bob": 2}), row("q", "a", "b", 1.0)]
    rows[1]["judgements"] = [{"id": "one+two", "annotator_id": "ann", "strength": 1}, {"id": "two+three", "annotator_id": "ann", "strength": 1}]
    assert judgements_of(rows, {rows[0]["prompt_id"]}) == 2
    assert judgements_of(rows, {one["prompt_id"] for one in rows}) == 5


def hits(accuracies: Sequence[float], n: int = 400, draws: int = 4) -> list[tuple[float, float, Any]]:
    """Fits of 100, 200, 400 and 800 judgements that are right with these chances."""
    generator = np.random.default_rng(0)
    return [
        (share, 800 * share, (generator.random((draws if share < 1 else 1, n)) < chance).astype(float)) for share, chance in zip(SIZES, accuracies, strict=True)
    ]


def test_a_curve_that_rises_says_what_doubling_buys_and_what_is_out_of_reach() -> None:
    known = Curve(0.78, 2.0)
    found = curve_through(hits([known.at(800 * share) for share in SIZES], n=4000), [f"p{place}" for place in range(4000)], seed=0)
    assert found["doubling"]["low"] < known.at(1600) - known.at(800) < found["doubling"]["high"]
    assert found["end"]["low"] < 0.78 < found["end"]["high"]
    by_target = {one["accuracy"]: one for one in found["needed"]}
    assert by_target[0.70]["low"] < known.needed(0.70) < by_target[0.70]["high"]
    assert by_target[0.80]["reached"] < 0.6
    assert [point["judgements"] for point in found["points"]] == [100, 200, 400, 800]
    assert [point["fits"] for point in found["points"]] == [4, 4, 4, 1]
    assert found["points"][0]["accuracy"]["n"] == 4000


def test_a_flat_curve_reaches_nothing() -> None:
    found = curve_through(hits([0.55] * 4), [f"p{place}" for place in range(400)], seed=0)
    assert found["doubling"]["low"] < 0 < found["doubling"]["high"]
    assert found["needed"][2]["value"] is None
    assert in_words(found["needed"][2], 100).startswith("not in reach by this curve")


def test_one_size_gives_no_curve() -> None:
    found = curve_through(hits([0.5, 0.5, 0.5, 0.7])[3:], [f"p{place}" for place in range(400)], seed=0)
    assert (found["doubling"], found["needed"]) == (None, [])
    assert len(found["points"]) == 1


def test_refits_see_their_part_alone_and_are_measured_on_held_out_pairs() -> None:
    rows = letter_rows(160, held_out=0.5)
    train, held_out = ([one for one in rows if one["split"] == split] for split in ("train", "held-out"))
    asked: list[Collection[str]] = []

    def refit(prompts: Collection[str], seed: int) -> list[tuple[float, float]]:
        """Right on the first half of the pairs, and on all once it has seen most prompts."""
        asked.append(prompts)
        sure = len(held_out) if len(prompts) > 60 else len(held_out) // 2
        return [(float(one["target"]) if place < sure else 1 - float(one["target"]), 0.5) for place, one in enumerate(held_out)]

    parts = parts_of(train, 0)
    found = learning_curve(train, held_out, refit, parts, seed=0)
    assert asked == [part.prompts for part in parts]
    assert [point["accuracy"]["value"] for point in found["points"]] == [0.5, 0.5, 0.5, 1.0]
    assert found["judgements"] == len(train)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"value": 1234.0, "low": 800.0, "high": None, "reached": 0.9}, "about 1,200 judgements (800 to not in reach)"),
        ({"value": 50.0, "low": 3.0, "high": 456.0, "reached": 1.0}, "under 100 judgements (up to 460)"),
        ({"value": None, "low": 800.0, "high": None, "reached": 0.25}, "not in reach by this curve; 25 % of resamples reach it"),
    ],
)
def test_needs_in_words(row: dict[str, Any], words: str) -> None:
    assert in_words(row, 100) == words
