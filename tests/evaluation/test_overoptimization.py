"""Where gold peaks, what is lost beyond, and who loses less: by hand, and where nothing is to be found."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.evaluation.overoptimization import Course, agreement, fall, in_words, lead, mean, peak, resampled, stations, summary, verdict


def test_stations_by_hand() -> None:
    kl, values = np.array([0.0, 1.0, 4.0, 3.0, 6.0]), np.array([[0.0], [10.0], [40.0], [-99.0], [60.0]])
    # a third of the way from 1 to 4 nats, at 4 itself, and half way from 4 to 5... but it fell back to 3 before it came to 6: two thirds of the way from there
    assert stations(kl, values, np.array([0.0, 2.0, 4.0, 5.0]))[:, 0].tolist() == pytest.approx([0, 20, 40, -99 / 3 + 60 * 2 / 3])
    with pytest.raises(ValueError, match="7 nats, and the policy came to 6"):
        stations(kl, values, np.array([7.0]))


@given(st.lists(st.floats(0, 30), min_size=1, max_size=8))
def test_a_straight_line_stays_one(steps: list[float]) -> None:
    kl = np.concatenate([[0.0], steps])
    goals = np.linspace(0, kl.max(), 5)
    assert stations(kl, 3 * kl[:, None] + 1, goals)[:, 0] == pytest.approx(3 * goals + 1)


def test_the_mean_over_draws_and_prompts() -> None:
    values = np.array([[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]])
    found = mean(values, seed=0)
    assert (found.value, found.n) == (5, 3)
    assert 0 <= found.low < 5 < found.high <= 10
    assert math.isnan(mean(values[:, :1], seed=0).low)  # one prompt: nobody knows how much prompts differ


def test_an_interval_knows_of_prompts_and_of_draws() -> None:
    generator = np.random.default_rng(0)
    alone = generator.normal(size=(1, 400))
    width = (lambda found: found.high - found.low)(mean(alone, seed=0))
    assert width == pytest.approx(2 * 1.96 / 20, abs=0.01)  # of 400 prompts
    by_draw = np.repeat(generator.normal(size=(100, 1)), 400, axis=1)
    assert (lambda found: found.high - found.low)(mean(by_draw, seed=0)) > 0.3  # of 100 draws, however many the prompts: 2 * 1.96 / 10


def test_any_statistic_is_asked_about_all_first() -> None:
    assert resampled(lambda draws, prompts: float(len(set(draws.tolist())) * 10 + len(set(prompts.tolist()))), (3, 4), seed=0).value == 34


def test_the_peak_and_the_fall_by_hand() -> None:
    # prompts 0 and 2 rise to station 1 and fall by 3 and 1; prompts 1 and 3 rise to station 2, where they stay
    gold = np.array([[[0.0, 0.0, 0.0, 0.0], [5.0, 1.0, 3.0, 1.0], [2.0, 4.0, 2.0, 2.0]]])
    assert peak(gold) == 1  # means 0, 2.5, 2.5: the first
    # the even prompts go by the odd ones' peak, which is the end: no fall. The odd ones by the even ones', station 1, where they had 3 and 1 less
    assert fall(gold).tolist() == [[0, -3, 0, -1]]
    with pytest.raises(ValueError, match="1 prompt"):
        fall(gold[:, :, :1])


def test_no_fall_is_found_where_nothing_falls() -> None:
    runs = np.random.default_rng(0).normal(size=(200, 1, 30, 50))  # thirty stations alike but for noise, two hundred times
    by_luck = np.mean([gold.mean((0, 2)).max() - gold[0, -1].mean() for gold in runs])
    assert by_luck > 0.25  # the highest mean of thirty stands above the last
    assert abs(np.mean([fall(gold).mean() for gold in runs])) < 0.06  # four standard errors: sqrt(2 / 50 / 200) each


def test_a_summary_by_hand() -> None:
    gold = np.array([[[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]]])
    found = summary(Course(np.array([0.0, 1.0, 3.0]), gold * 2, gold), seed=0)
    assert found["peak"] == {"kl_nats": {"value": 1, "low": 1, "high": 1, "n": 2}, "gold": {"value": 2, "low": 2, "high": 2, "n": 2}}
    assert found["fall"] == {"value": 1, "low": 1, "high": 1, "n": 2}
    assert [row["proxy"]["value"] for row in found["points"]] == [0, 4, 2]
    assert found["end"] == found["points"][-1]


def test_a_lead_is_of_the_last_station_and_of_the_same_prompts() -> None:
    steady, kl = np.array([[[0.0, 100.0], [1.0, 101.0]]]), np.array([0.0, 1.0])
    found = lead(Course(kl, steady, steady + 0.5), Course(kl, steady, steady), seed=0)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)  # however far prompts are apart


def test_agreement_by_hand() -> None:
    # pairs (1, 2) and (3, 3): the first as gold has it, the second a tie; then both the other way round
    assert agreement(np.array([[1.0, 2.0, 3.0, 3.0], [2.0, 1.0, 5.0, 6.0]]), np.array([[0.0, 9.0, 1.0, 2.0], [0.0, 9.0, 2.0, 1.0]])).tolist() == [0.75, 0]
    with pytest.raises(ValueError, match="3 responses"):
        agreement(np.zeros((1, 3)), np.zeros((1, 3)))


def number(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("drop", "ahead", "said"),
    [
        (number(0.5, 0.1, 0.9), number(0.3, 0.1, 0.5), ["A single model is over-optimised", "keeps more gold", "0.30 [0.10, 0.50]"]),
        (number(0.5, -0.1, 0.9), number(-0.3, -0.5, -0.1), ["isn't seen to be over-optimised", "keeps less gold"]),
        (number(-0.5, -0.9, -0.1), number(0.0, -0.5, 0.5), ["isn't seen to be over-optimised", "isn't seen to help or to harm"]),
        (number(0.5, None, None), number(0.3, None, None), ["isn't seen to be over-optimised", "isn't seen to help or to harm", "by 0.30 at"]),
    ],
)
def test_the_verdict_follows_from_the_intervals(drop: dict[str, float], ahead: dict[str, float], said: list[str]) -> None:
    single = {"fall": drop, "peak": {"kl_nats": number(3, 2, 4)}, "end": {"kl_nats": 20.0}}
    found = verdict(single, ahead)
    assert all(words in found for words in said)
    assert "at 20.0 nats" in found
    assert "gold is at its highest" in verdict(single | {"end": {"kl_nats": 3.0}}, None)
    assert verdict(None, None) == ""
    assert in_words(number(1, None, None)) == "1.00"
