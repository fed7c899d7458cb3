"""What leans the choice: people and rewards of known leanings, and what swapping a pair must not change."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.letters import row
from truing.reward.card.calibration import chances
from truing.reward.card.slopes import logistic_slopes, slopes

N = 240


def pairs(seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray[Any, Any]]:
    """Rows of answers of one to eight words, the same word over and over, and the difference in doublings of 1 + words."""
    generator = np.random.default_rng(seed)
    words = generator.integers(1, 9, (N, 2))
    rows = [row(f"p{number}", " ".join(["stone"] * a), " ".join(["stone"] * b), 0.5) for number, (a, b) in enumerate(words.tolist())]
    return rows, np.log2(1 + words[:, 0]) - np.log2(1 + words[:, 1])


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in found}


def test_a_slope_by_hand() -> None:
    # three in four prefer the one that has it: log-odds ln 3, a little less by the wide prior
    x, y = np.array([[1.0], [-1.0], [1.0], [-1.0]] * 100), np.array([1.0, 0.0, 1.0, 1.0] * 100)
    assert logistic_slopes(x, y)[0] == pytest.approx(math.log(3), abs=1e-3)


def test_nobody_leans_more_than_the_prior_lets_them() -> None:
    assert 5 < logistic_slopes(np.ones((50, 1)), np.ones(50))[0] < 20  # without the prior it would be infinite


@given(st.integers(0, 100))
def test_swapping_the_two_responses_changes_nothing(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(30, 2)), generator.random(30)
    turned = np.where(generator.random(30) < 0.5, -1.0, 1.0)
    assert logistic_slopes(x * turned[:, None], np.where(turned < 0, 1 - y, y)) == pytest.approx(logistic_slopes(x, y), abs=1e-6)


def test_leanings_that_are_known_are_found_and_told_apart_from_peoples() -> None:
    """People like length by 0.5 a doubling and the left by 0.8; the reward likes length by 1.5 and knows no sides."""
    rows, doublings = pairs()
    generator = np.random.default_rng(1)
    side = np.where(generator.random(N) < 0.5, 1.0, -1.0)
    said = chances(0.5 * doublings + 0.8 * side)
    for one, target in zip(rows, said.tolist(), strict=True):
        one["target"] = target
    sides = {one["question_id"]: float(stood) for one, stood in zip(rows, side, strict=True)}
    found = by_name(slopes(rows, (1.5 * doublings).tolist(), sides, seed=3))
    assert found["length"]["people"]["value"] == pytest.approx(0.5, abs=0.01)
    assert found["length"]["reward"]["value"] == pytest.approx(1.5, abs=0.01)
    assert found["length"]["difference"]["low"] > 0.9
    assert found["position"]["people"]["value"] == pytest.approx(0.8, abs=0.01)
    assert found["position"]["reward"]["value"] == pytest.approx(0, abs=0.01)
    assert found["length"]["n"] == int((doublings != 0).sum())


def test_an_attribute_in_which_too_few_pairs_differ_is_not_spoken_of() -> None:
    rows, doublings = pairs()
    rows[0]["a"]["text"] = "I can't help with that."
    found = by_name(slopes(rows, doublings.tolist(), {}, seed=0))
    assert (found["refusal"]["n"], found["refusal"]["reward"]) == (1, None)
    assert (found["position"]["n"], found["position"]["people"]) == (0, None)
    assert all(one["difference"] is None for one in slopes(rows[:1], [0.0], {}, seed=0))
