"""Golden values a reader can redo in the head, and what must hold for any data."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.evaluation.metrics import (
    Tally,
    distinct2,
    diversity_ratio,
    equal_length_win_rate,
    outcome,
    share_of_groups,
    tally,
    word_pairs,
    words,
)


@pytest.mark.parametrize(
    ("ours", "theirs", "same_text", "margin", "expected"),
    [
        (2.0, 1.0, False, 0.0, 1.0),
        (1.0, 2.0, False, 0.0, 0.0),
        (1.0, 1.0, False, 0.0, 0.5),
        (1.5, 1.0, False, 0.5, 0.5),  # at the margin is still a tie
        (1.5, 1.0, False, 0.4, 1.0),
        (9.0, 1.0, True, 0.0, 0.5),  # the same words can't beat themselves
    ],
)
def test_outcome(ours: float, theirs: float, same_text: bool, margin: float, expected: float) -> None:
    assert outcome(ours, theirs, same_text=same_text, margin=margin) == expected


def test_tally_counts_each_end() -> None:
    assert tally([1.0, 0.5, 0.0, 1.0]) == Tally(wins=2, ties=1, losses=1)


def test_words_are_case_folded_and_bare() -> None:
    assert words("It's 5 o'clock, IT’S late!") == ["it's", "5", "o'clock", "it’s", "late"]
    assert words(" … ") == []


def test_a_share_is_over_groups() -> None:
    share = share_of_groups([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"], 0.95)
    assert (share.value, share.n) == (0.5, 2)


def test_distinct2_by_hand() -> None:
    counts = word_pairs(["a b a b c"])  # ab twice, ba, bc
    assert counts == Counter({("a", "b"): 2, ("b", "a"): 1, ("b", "c"): 1})
    assert distinct2(counts) == pytest.approx(3 / 4, abs=1e-12)
    # two of the four: both are ab in one of six draws, so 2 - 1/6 different ones on average
    assert distinct2(counts, at=2) == pytest.approx((2 - 1 / 6) / 2, abs=1e-12)
    assert distinct2(counts, at=1) == pytest.approx(1.0, abs=1e-12)
    assert math.isnan(distinct2(Counter()))


def test_diversity_is_compared_at_equal_size() -> None:
    ratio = diversity_ratio({"p": ["x y z"]}, {"p": ["a b a b c"]}, seed=0)
    assert ratio.value == pytest.approx(12 / 11, abs=1e-12)  # 1 over 11/12, both at two pairs
    assert ratio.n == 1
    assert math.isnan(ratio.low)


def test_diversity_ratio_of_a_policy_to_itself_is_one() -> None:
    texts = {str(number): [f"word {number} and then {number % 3} more"] for number in range(12)}
    assert diversity_ratio(texts, texts, seed=3) == (1.0, 1.0, 1.0, 12)


def test_diversity_ratio_sees_repetition() -> None:
    alike = {str(number): ["thank you so much for asking me"] for number in range(20)}
    varied = {str(number): [f"case {number} needs its own {number + 100} words {number + 200}"] for number in range(20)}
    ratio = diversity_ratio(alike, varied, seed=0)
    assert ratio.high < 0.2


def test_equal_length_win_rate_by_hand() -> None:
    # no difference in length: three wins and a loss, with the added half win and half loss
    rate = equal_length_win_rate([1, 1, 1, 0], [0, 0, 0, 0], groups=[1, 2, 3, 4], seed=0)
    assert rate.value == pytest.approx(3.5 / 5, abs=1e-9)
    assert rate.n == 4
    sweep = equal_length_win_rate([1, 1, 1, 1], [0, 0, 0, 0], groups=[1, 2, 3, 4], seed=0)
    assert sweep.value == pytest.approx(4.5 / 5, abs=1e-9)


def test_a_win_that_is_all_length_vanishes_at_equal_length() -> None:
    # nine in ten of the longer answers win, whosever they are; three in four times the longer one is ours
    differences = [10] * 30 + [-10] * 10
    ends = [1.0] * 27 + [0.0] * 3 + [1.0] + [0.0] * 9
    rate = equal_length_win_rate(ends, differences, groups=range(40), seed=0)
    assert sum(ends) / len(ends) == 0.7
    assert rate.value == pytest.approx(0.5, abs=0.01)
    assert rate.low < 0.5 < rate.high


ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(-30, 30)), min_size=2, max_size=12)


@settings(max_examples=40)
@given(ROWS)
def test_swapping_the_sides_mirrors_the_rate(rows: list[tuple[float, int]]) -> None:
    groups = range(len(rows))
    there = equal_length_win_rate([end for end, _ in rows], [d for _, d in rows], groups=groups, seed=0, resamples=10)
    back = equal_length_win_rate([1 - end for end, _ in rows], [-d for _, d in rows], groups=groups, seed=0, resamples=10)
    assert there.value + back.value == pytest.approx(1, abs=1e-6)
    assert 0 < there.low <= there.high < 1


def test_nothing_to_compare_is_nan() -> None:
    assert math.isnan(equal_length_win_rate([], [], groups=[], seed=0).value)
    assert math.isnan(diversity_ratio({}, {}, seed=0).value)
    assert math.isnan(equal_length_win_rate([1.0], [3], groups=["p"], seed=0).low)
