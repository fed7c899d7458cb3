"""The distribution of scores, and the best of n by hand and by trying all choices."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.reward.card.fitness import HEAVY
from truing.reward.card.scores import best_of, best_of_n, distribution, kl_of_best


def test_best_of_two_by_hand() -> None:
    # of 0, 1, 5 the pairs have highest 1, 5, 5
    assert best_of([5.0, 0.0, 1.0], 2) == pytest.approx(11 / 3)
    assert best_of([5.0, 0.0, 1.0], 1) == pytest.approx(2)
    assert best_of([5.0, 0.0, 1.0], 3) == pytest.approx(5)
    with pytest.raises(ValueError, match="best of 4 among 3"):
        best_of([5.0, 0.0, 1.0], 4)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.data())
def test_best_of_n_is_the_mean_over_all_choices(scores: list[float], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    assert best_of(scores, n) == pytest.approx(float(np.mean([max(some) for some in combinations(scores, n)])), abs=1e-9)


def test_what_another_judge_says_of_the_best_by_hand() -> None:
    # of scores 0, 1, 5 the pairs have highest 1, 5, 5, whose responses the other judge gives 7, -2, -2
    assert best_of([5.0, 0.0, 1.0], 2, of=[-2.0, 100.0, 7.0]) == pytest.approx(1)
    assert best_of([5.0, 0.0, 1.0], 1, of=[-2.0, 100.0, 7.0]) == pytest.approx(35)
    # where 1 and 1 are the highest, either may be taken: 4 of the one, 6 of the other
    assert best_of([1.0, 0.0, 1.0], 3, of=[4.0, 100.0, 6.0]) == pytest.approx(5)
    with pytest.raises(ValueError, match="2 values of 3 responses"):
        best_of([1.0, 2.0, 3.0], 2, of=[1.0, 2.0])


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7), st.data())
def test_another_judge_is_asked_about_the_best_of_every_choice(scores: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    of = data.draw(st.lists(st.floats(-5, 5), min_size=len(scores), max_size=len(scores)))
    places = [[of[place] for place in some if scores[place] == max(scores[other] for other in some)] for some in combinations(range(len(scores)), n)]
    assert best_of([float(score) for score in scores], n, of=of) == pytest.approx(float(np.mean([np.mean(found) for found in places])), abs=1e-9)


def test_the_best_of_normal_scores_is_where_it_is_known_to_be() -> None:
    scores = np.random.default_rng(0).normal(size=4000)
    assert abs(best_of(scores, 2) - 1 / math.sqrt(math.pi)) < 0.04  # four standard errors


def test_within_a_prompt_and_pooled() -> None:
    scores = [0.0, 2.0] * 20
    groups = [place // 2 for place in range(40)]
    found = best_of_n(scores, groups, seed=0)
    assert [(row["n"], row["score"]["value"], row["score"]["n"]) for row in found["within"]] == [(1, 1.0, 20), (2, 2.0, 20)]
    assert [row["n"] for row in found["pooled"]] == [1, 2, 4, 8]
    assert found["pooled"][0]["score"]["value"] == pytest.approx(1.0)
    assert found["pooled"][1]["score"]["value"] == pytest.approx(2 * (1 - (20 / 40) * (19 / 39)))  # 0 only where both are
    assert best_of_n([1.0, 2.0, 3.0], [1, 2, 3], seed=0)["within"] == []
    assert [kl_of_best(n) for n in (1, 2)] == [0.0, pytest.approx(math.log(2) - 0.5)]


def test_one_prompt_s_outliers_are_no_heavy_tail() -> None:
    """Eight of 256 samples far above, all of one prompt of 32: another draw of prompts may have none. One each of eight prompts isn't chance."""
    groups = [place // 8 for place in range(256)]
    one = distribution([4.0 * (group == 5) for group in groups], groups, mean=0.0, std=1.0)["above"]
    assert (one["value"], one["low"], one["n"]) == (8 / 256, 0, 256)
    eight = distribution([4.0 * (place % 8 == 0 and group < 8) for place, group in enumerate(groups)], groups, mean=0.0, std=1.0)["above"]
    assert eight["low"] > HEAVY
    none = distribution([0.0] * 256, groups, mean=0.0, std=1.0)["above"]
    assert none["high"] == pytest.approx(1.959964**2 / (32 + 1.959964**2))  # Wilson's, of 0 of 32 prompts


def test_distribution_by_hand() -> None:
    scores = [-4.0, *[0.0] * 96, 3.0, 3.5, 4.0]
    found = distribution(scores, list(range(50)) * 2, mean=0.2, std=1.5)
    assert (found["beyond"]["value"], found["above"]["value"]) == (0.03, 0.02)  # 3 itself isn't beyond
    assert (found["least"], found["most"], found["n"], found["n_prompts"]) == (-4.0, 4.0, 100, 50)
    assert {row["share"]: row["score"] for row in found["quantiles"]}[0.5] == 0
    assert (found["mean_before"], found["std_before"]) == (0.2, 1.5)
