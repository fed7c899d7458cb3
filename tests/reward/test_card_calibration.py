"""Calibration on crowds of known sureness: a model that is sure enough, one that says too much, one that says nothing."""

import math

import numpy as np
import pytest

from truing.reward.card.calibration import beyond_chance, calibration, chances, cross_fitted
from truing.stats import binary_log_loss

N = 600


def crowd(scale: float, seed: int = 0) -> tuple[list[float], list[float], list[str]]:
    """Margins that are `scale` times the log-odds behind the outcomes, two pairs a prompt."""
    generator = np.random.default_rng(seed)
    true = generator.normal(0, 1.5, N)
    outcome = (generator.random(N) < chances(true)).astype(float)
    return (scale * true).tolist(), outcome.tolist(), [f"p{number // 2}" for number in range(N)]


def test_chances_by_hand() -> None:
    assert chances([math.log(3), 0.0, -math.log(3)]).tolist() == pytest.approx([3 / 4, 1 / 2, 1 / 4])
    assert chances([2 * math.log(3)], 2.0).tolist() == pytest.approx([3 / 4])
    assert chances([5.0, -1e6], math.inf).tolist() == [0.5, 0.5]


def test_a_model_that_is_as_sure_as_it_may_be_has_no_error_beyond_chance() -> None:
    found = calibration(*crowd(1.0), seed=1)
    assert found["temperature"]["low"] < 1 < found["temperature"]["high"]
    assert found["ece"]["low"] == 0
    assert found["ece_plain"] > found["ece"]["value"]
    assert found["ece"]["n"] == found["temperature"]["n"] == N / 2
    assert found["n_pairs"] == N


@pytest.mark.slow
def test_one_that_is_three_times_too_sure_is_caught_and_would_be_mended() -> None:
    found = calibration(*crowd(3.0), seed=1)
    assert found["temperature"]["low"] > 2
    assert found["temperature"]["value"] == pytest.approx(3 * calibration(*crowd(1.0), seed=1)["temperature"]["value"])  # margins and T scale alike
    assert found["ece"]["low"] > 0.05
    assert found["ece_after"]["value"] < found["ece"]["low"] / 2
    assert found["log_loss_after"]["high"] < found["log_loss"]["low"]


def test_margins_that_tell_nothing_want_an_infinite_temperature() -> None:
    margins, outcomes, prompts = crowd(1.0)
    found = calibration([-margin for margin in margins], outcomes, prompts, seed=1)
    assert found["temperature"]["value"] is None
    assert found["log_loss_after"]["value"] == pytest.approx(math.log(2))


def test_a_temperature_does_not_flatter_itself() -> None:
    """Of margins that tell nothing, a temperature fitted to the very pairs makes a loss under a coin's; fitted to others, never in the mean."""
    losses = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        margin, outcome = generator.normal(0, 1.5, 20), generator.integers(0, 2, 20).astype(float)
        losses.append(binary_log_loss(cross_fitted(margin, outcome, [f"p{place}" for place in range(20)], seed), outcome))
    assert np.mean(losses) > math.log(2)


def test_one_prompt_gives_values_without_bounds() -> None:
    found = calibration([1.0, -1.0, 0.5], [1.0, 0.0, 1.0], ["p", "p", "p"], seed=0)
    assert found["folds"] == 1
    assert found["ece"]["low"] is None
    assert (found["ece"]["value"], found["ece_after"]["value"]) == (None, None)


def test_an_error_beyond_chance_is_hardly_ever_found_where_there_is_none() -> None:
    """On a hundred crowds of a perfect model, three pairs a prompt with one label: the plain error is large, the lower end above 0 in few."""
    plain, found = [], []
    for seed in range(100):
        generator = np.random.default_rng(seed)
        p = generator.random(30).repeat(3)
        y = (generator.random(30) < p[::3]).astype(float).repeat(3)
        found.append(beyond_chance(p, y, [f"p{place // 3}" for place in range(90)], seed=seed))
        plain.append(float(np.abs(np.bincount((p * 10).astype(int), p - y)).sum() / 90))
    assert np.mean(plain) > 0.15
    assert abs(np.mean([one.value for one in found])) < np.mean(plain) / 3
    assert sum(one.low > 0 for one in found) <= 8


def test_an_error_by_hand() -> None:
    # all in one bin, said 0.95, came true in 19 of 20: none; in 5 of 20: 0.7, of which chance explains little
    p, prompts = np.full(20, 0.95), [f"p{place}" for place in range(20)]
    assert beyond_chance(p, np.array([1.0] * 19 + [0.0]), prompts, seed=0).low == 0
    off = beyond_chance(p, np.array([1.0] * 5 + [0.0] * 15), prompts, seed=0)
    assert 0.2 < off.low < off.value < 0.7
    assert off.n == 20
