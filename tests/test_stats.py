"""Statistics: worked examples, published numbers, other libraries as witnesses, and what repetition must not buy."""

import math
import random
from collections.abc import Callable, Hashable

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn.metrics
from crowdkit.metrics.data import alpha_krippendorff
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nltk.metrics.distance import interval_distance  # type: ignore[import-untyped]

from truing import stats
from truing.stats import (
    Level,
    alpha_interval,
    auc,
    binary_log_loss,
    bootstrap,
    bootstrap_mean,
    distinct_n,
    expected_calibration_error,
    kendall,
    krippendorff_alpha,
    reliability_curve,
    spearman,
    temperature,
    wilson,
)

NAN = math.nan
ONE_SIGMA = math.erf(1 / math.sqrt(2))  # the confidence at which z = 1


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


# ---- Wilson ----


def test_wilson_by_hand() -> None:
    # z = 1: (p + 1/2n +- sqrt(p q / n + 1/4n^2)) / (1 + 1/n)
    assert wilson(0, 1, ONE_SIGMA) == (0, 0, near(1 / 2), 1)
    assert wilson(1, 1, ONE_SIGMA) == (1, near(1 / 2), 1, 1)
    assert wilson(1, 2, ONE_SIGMA) == (1 / 2, near(1 / 2 - 1 / math.sqrt(12)), near(1 / 2 + 1 / math.sqrt(12)), 2)
    assert wilson(2.5, 10).value == 0.25  # a tie counts half
    assert all(wilson(0, n).low == 0 and wilson(n, n).high == 1 for n in range(1, 50))  # to the bit
    none = wilson(0, 0)
    assert math.isnan(none.value)
    assert none[1:] == (0, 1, 0)


@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, data: st.DataObject, confidence: float) -> None:
    successes = data.draw(st.integers(0, n))
    witness = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    got = wilson(successes, n, confidence)
    assert (got.low, got.high) == (near(witness.low), near(witness.high))
    assert 0 <= got.low <= got.value <= got.high <= 1


@pytest.mark.parametrize("arguments", [(-1, 5), (6, 5), (1, -1), (NAN, 5), (1, 5, 0), (1, 5, 1), (1, 5, NAN)])
def test_wilson_refuses(arguments: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="found"):
        wilson(*arguments)


# ---- bootstrap ----

WINS = [0.0, 1.0, 1.0, 0.5, 1.0, 0.0, 1.0, 1.0]


def test_bootstrap_by_hand() -> None:
    # two units: the mean of a resample is 0, 1/2, 1 with odds 1:2:1, so the middle 40 % is 1/2 and the middle 95 % all
    assert bootstrap_mean([0, 1]) == (0.5, 0, 1, 2)
    assert bootstrap_mean([0, 1], confidence=0.4) == (0.5, 0.5, 0.5, 2)
    assert bootstrap_mean([3, 3, 3]) == (3, 3, 3, 3)
    assert bootstrap_mean([1, 2, 6], weights=[1, 2, 1]).value == near(11 / 4)


def test_bootstrap_is_as_wide_as_theory_says() -> None:
    got = bootstrap_mean([-1.0, 1.0] * 200)
    theory = 1.96 / math.sqrt(400)
    assert 0.9 * theory < -got.low < 1.1 * theory
    assert 0.9 * theory < got.high < 1.1 * theory


def test_repeating_rows_of_a_group_buys_no_certainty() -> None:
    once = bootstrap_mean(WINS, seed=1)
    groups = [f"prompt {i}" for i in range(len(WINS))]
    assert bootstrap_mean(WINS * 9, groups=groups * 9, seed=1) == tuple(map(near, once))
    assert bootstrap_mean(WINS * 9, seed=1).low > once.low  # what it would claim without


def test_a_weight_is_a_number_of_rows() -> None:
    weights = [1, 3, 2, 1, 1, 2, 1, 1]
    rows = [i for i, weight in enumerate(weights) for _ in range(weight)]
    repeated = bootstrap_mean([WINS[i] for i in rows], groups=rows)
    assert bootstrap_mean(WINS, weights=weights) == tuple(map(near, repeated))
    assert bootstrap_mean([*WINS, 9], weights=[1.0] * 8 + [0]) == bootstrap_mean(WINS)  # in n neither


def test_too_few_units_have_no_bounds() -> None:
    assert repr(bootstrap_mean([])) == "Interval(value=nan, low=nan, high=nan, n=0)"
    assert repr(bootstrap_mean([2.0])) == "Interval(value=2.0, low=nan, high=nan, n=1)"
    assert repr(bootstrap_mean([1, 3], groups=["a", "a"])) == "Interval(value=2.0, low=nan, high=nan, n=1)"


def test_bootstrap_has_randomness_of_its_own() -> None:
    np.random.seed(0)
    undisturbed = np.random.random()
    np.random.seed(0)
    first = bootstrap_mean(WINS, seed=3)
    assert np.random.random() == undisturbed
    assert bootstrap_mean(WINS, seed=3) == first
    fine = [math.sin(i) for i in range(30)]
    assert bootstrap_mean(fine, seed=3) != bootstrap_mean(fine, seed=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([[1, 2]]), "one dimension"),
        (lambda: bootstrap_mean([1, NAN]), "values must be finite"),
        (lambda: bootstrap_mean([1, 2], weights=[1]), "lengths differ"),
        (lambda: bootstrap_mean([1, 2], weights=[1, -1]), "weights must lie in"),
        (lambda: bootstrap_mean([1, 2], groups=["a"]), "lengths differ: values 2, groups 1"),
        (lambda: bootstrap_mean([1, 2], resamples=0), "resamples"),
        (lambda: bootstrap_mean([1, 2], confidence=1), "confidence"),
        (lambda: auc([1, 2], [0, 0.5]), "labels must be 0 or 1"),
        (lambda: auc([1, 2], [1]), "lengths differ: scores 2, labels 1"),
        (lambda: auc([1, NAN], [0, 1]), "scores must be finite"),
        (lambda: reliability_curve([1.1], [1]), "probabilities must lie in"),
        (lambda: reliability_curve([1], [-0.1]), "outcomes must lie in"),
        (lambda: reliability_curve([1], [1], bins=0), "bins"),
        (lambda: expected_calibration_error([1], [1], weights=[1, 2]), "lengths differ"),
        (lambda: binary_log_loss([0.5], [2]), "y must lie in"),
        (lambda: spearman([1, 2], [1]), "lengths differ"),
        (lambda: distinct_n([["a"]], 0), "n must be at least 1"),
    ],
)
def test_refuses(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- Krippendorff's alpha ----

# Krippendorff 2011, section D: four observers, twelve units, missing data. He gives alpha to three places.
OBSERVERS = {
    "A": "1 2 3 3 2 1 4 1 2 . . .",
    "B": "1 2 3 3 2 2 4 1 2 5 . 3",
    "C": ". 3 3 3 2 3 4 2 2 5 1 .",
    "D": "1 2 3 3 2 4 4 1 2 5 1 .",
}
PUBLISHED = [(unit, observer, int(value)) for observer, line in OBSERVERS.items() for unit, value in enumerate(line.split()) if value != "."]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_is_krippendorffs_own(level: Level, alpha: float) -> None:
    assert round(krippendorff_alpha(PUBLISHED, level=level), 3) == alpha


def test_alpha_by_hand() -> None:
    # 40 pairable values, 1 to 5 given 9, 13, 10, 5, 3 times; matches on the diagonal 7, 10, 8, 4, 3
    # (39 x 32 - 344) / (40 x 39 - 344), with 344 = 9 x 8 + 13 x 12 + 10 x 9 + 5 x 4 + 3 x 2
    assert krippendorff_alpha(PUBLISHED) == near(904 / 1216)
    # two questions, two annotators, one agreement: observed 1/2; expected 1 - 1/2 of pairs: 3 to 1 gives 6/12
    assert krippendorff_alpha([(1, "x", "A"), (1, "y", "A"), (2, "x", "A"), (2, "y", "B")]) == near(0)


answers = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 4)),
    max_size=24,
    unique_by=lambda rating: rating[:2],
)
Ratings = list[tuple[int, int, int]]


def crowd_kit(ratings: Ratings, **distance: object) -> float:
    return float(alpha_krippendorff(pd.DataFrame(ratings, columns=["task", "worker", "label"]), **distance))


@pytest.mark.slow
@settings(deadline=None)
@given(answers)
def test_alpha_is_crowd_kits(ratings: Ratings) -> None:
    mine = krippendorff_alpha(ratings)
    assume(not math.isnan(mine))  # crowd-kit says 1, or raises, where nothing can be said
    assert mine == pytest.approx(crowd_kit(ratings), abs=1e-9)
    graded = krippendorff_alpha(ratings, level="interval")
    assert graded == pytest.approx(crowd_kit(ratings, distance=interval_distance), abs=1e-9)


@pytest.mark.slow
@settings(deadline=None)
@given(answers, st.randoms())
def test_alpha_does_not_depend_on_names_or_order(ratings: Ratings, shuffle: random.Random) -> None:
    shuffled = shuffle.sample(ratings, len(ratings))

    def same(other: list[tuple[Hashable, Hashable, Hashable]], level: Level) -> bool:
        a, b = krippendorff_alpha(ratings, level=level), krippendorff_alpha(other, level=level)
        return (math.isnan(a) and math.isnan(b)) or abs(a - b) < 1e-9

    assert same([(f"q{q}", a, "zebra"[r]) for q, a, r in shuffled], "nominal")
    assert same([(q, -a, r**3) for q, a, r in shuffled], "ordinal")  # only the order of the grades counts
    assert same([(q, a, 10 - 3 * r) for q, a, r in shuffled], "interval")  # nor do origin and unit
    alone = (99, 0, 2)  # a question with one answer has nobody to agree with
    assert same([*ratings, alone], "nominal")


def test_alpha_where_nothing_can_be_said() -> None:
    assert math.isnan(krippendorff_alpha([]))
    assert math.isnan(krippendorff_alpha([(1, "x", "A"), (2, "y", "B")]))
    assert math.isnan(krippendorff_alpha([(1, "x", "A"), (1, "y", "A")]))  # no variation
    assert krippendorff_alpha([(1, "x", "A"), (1, "y", "A"), (2, "x", "B"), (2, "y", "B")]) == 1


def test_a_second_answer_to_the_same_question_is_refused() -> None:
    twice = [(1, "x", "A"), (1, "y", "A"), (1, "x", "B")]
    with pytest.raises(ValueError, match="'x' answered question 1 more than once"):
        krippendorff_alpha(twice)
    with pytest.raises(ValueError, match="more than once"):
        alpha_interval(twice, seed=0)


def test_alpha_refuses_an_unknown_level() -> None:
    with pytest.raises(ValueError, match="level must be nominal, ordinal or interval"):
        krippendorff_alpha(PUBLISHED, level="ratio")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="could not convert"):
        krippendorff_alpha([(1, "x", "A"), (1, "y", "B")], level="ordinal")


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_interval_holds_alpha(level: Level) -> None:
    got = alpha_interval(PUBLISHED, level=level, seed=0)
    assert got.value == krippendorff_alpha(PUBLISHED, level=level)
    assert got.low < got.value < got.high <= 1
    assert got.n == 11  # the twelfth unit has one value
    assert alpha_interval(PUBLISHED, level=level, seed=0) == got != alpha_interval(PUBLISHED, level=level, seed=1)


def test_alpha_interval_draws_questions() -> None:
    # 400 questions, two annotators who agree on three in four, answers even: alpha 1/2, and the sampling error of an
    # agreement rate: 2 x 1.96 sqrt(3/16 / 400)
    ratings = [(f"{q}", annotator, (q // 4 + (q % 4 == 0 and annotator == "y")) % 2) for q in range(400) for annotator in "xy"]
    got = alpha_interval(ratings, seed=0, resamples=1000)
    half = 2 * 1.96 * math.sqrt(3 / 16 / 400)
    assert got.value == pytest.approx(0.5, abs=1e-2)
    assert 0.85 * half < got.value - got.low < 1.15 * half
    assert 0.85 * half < got.high - got.value < 1.15 * half


def test_alpha_interval_where_nothing_can_be_said() -> None:
    assert repr(alpha_interval([], seed=0)) == "Interval(value=nan, low=nan, high=nan, n=0)"
    one = [(1, "x", "A"), (1, "y", "B")]
    assert repr(alpha_interval(one, seed=0)) == "Interval(value=0.0, low=nan, high=nan, n=1)"
    perfect = [(q, annotator, q % 2) for q in range(2) for annotator in "xy"]
    assert alpha_interval(perfect, seed=0) == (1, 1, 1, 2)  # half the resamples show one answer only: left out


# ---- discrimination and calibration ----


def test_auc_by_hand() -> None:
    assert auc([1, 2, 3, 4], [0, 0, 1, 1]) == 1
    assert auc([1, 2, 3, 4], [1, 1, 0, 0]) == 0
    assert auc([1, 2, 2, 3], [0, 0, 1, 1]) == near(7 / 8)  # four pairs: three right, one tied
    assert auc([5, 5, 5], [True, False, True]) == 1 / 2
    assert math.isnan(auc([1, 2], [1, 1]))
    assert math.isnan(auc([], []))


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*rows, strict=True)
    assume(len(set(labels)) == 2)
    assert auc(scores, labels) == near(sklearn.metrics.roc_auc_score(labels, scores))
    assert auc([-score for score in scores], labels) == near(1 - auc(scores, labels))


def test_reliability_curve_by_hand() -> None:
    got = reliability_curve([0, 0.25, 0.5, 0.75, 1], [0, 1, 0.5, 1, 1], bins=2)
    assert got == [(0.125, 0.5, 2), (0.75, near(2.5 / 3), 3)]
    assert reliability_curve([0.95, 1], [1, 0]) == [(0.975, 0.5, 2)]  # eight bins are empty, and 1 opens no eleventh
    assert reliability_curve([], []) == []


def test_calibration_error_by_hand() -> None:
    probabilities, outcomes = [0, 0.25, 0.5, 0.75, 1], [0, 1, 0.5, 1, 1]
    # gaps 3/8 and 1/12 of two and three rows in five
    assert expected_calibration_error(probabilities, outcomes, bins=2) == near(2 / 5 * 3 / 8 + 3 / 5 * 1 / 12)
    # with weights: (0 x 1 + 1/4 x 3 - 3) / 4 = -9/16 in the first bin, 0 in the second
    assert expected_calibration_error([0, 0.25, 0.75], [0, 1, 0.75], bins=2, weights=[1, 3, 4]) == near(9 / 32)
    assert math.isnan(expected_calibration_error([], []))


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=20), st.integers(1, 12))
def test_calibration_error_is_the_curves(rows: list[tuple[float, float]], bins: int) -> None:
    predicted, observed = zip(*rows, strict=True)
    curve = reliability_curve(predicted, observed, bins=bins)
    assert sum(row.n for row in curve) == len(rows)
    from_curve = sum(row.n * abs(row.predicted - row.observed) for row in curve) / len(rows)
    assert expected_calibration_error(predicted, observed, bins=bins) == near(from_curve)
    doubled = expected_calibration_error(predicted * 2, observed * 2, bins=bins)
    assert expected_calibration_error(predicted, observed, bins=bins, weights=[2] * len(rows)) == near(doubled)


def test_log_loss_by_hand() -> None:
    assert binary_log_loss([0.5, 0.5], [0, 1]) == near(math.log(2))
    assert binary_log_loss([3 / 4], [1]) == near(math.log(4 / 3))
    assert binary_log_loss([3 / 4], [0]) == near(math.log(4))
    assert binary_log_loss([3 / 4], [3 / 4]) == near(3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4))
    assert binary_log_loss([3 / 4, 3 / 4], [1, 0], [3, 1]) == near(3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4))
    assert binary_log_loss([1, 0], [1, 0]) == near(0)
    assert binary_log_loss([1.0], [0]) == near(52 * math.log(2))  # a wrong certainty is dear, not infinite
    assert math.isnan(binary_log_loss([], []))


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans(), st.floats(0.1, 5)), min_size=1, max_size=20))
def test_log_loss_is_scikit_learns(rows: list[tuple[float, bool, float]]) -> None:
    p, y, weights = zip(*rows, strict=True)
    witness = sklearn.metrics.log_loss(y, p, sample_weight=weights, labels=[False, True])
    assert binary_log_loss(p, y, weights) == pytest.approx(witness, abs=1e-9)


# ---- correlation and diversity ----


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 100, 1000]) == near(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == near(-1)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == near(4 / 5)  # 1 - 6 x 2 / (4 x 15)
    assert math.isnan(spearman([1, 2, 3], [5, 5, 5]))
    assert math.isnan(spearman([1], [1]))
    assert math.isnan(spearman([], []))


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=25))
def test_spearman_is_scipys(rows: list[tuple[int, int]]) -> None:
    x, y = zip(*rows, strict=True)
    assume(len(set(x)) > 1)
    assume(len(set(y)) > 1)
    assert spearman(x, y) == near(scipy.stats.spearmanr(x, y).statistic)


def test_distinct_n_by_hand() -> None:
    texts = [["a", "b", "a", "b"], ["a", "b"], ["c"], []]
    assert distinct_n(texts, 1) == 3 / 7
    assert distinct_n(texts, 2) == 2 / 4  # ab ba ab | ab: no pair spans two texts
    assert distinct_n([[1, 2, 3]], 3) == 1
    assert math.isnan(distinct_n(texts, 5))


# ---- a bootstrap of anything ----


def test_the_bootstrap_of_a_mean_is_bootstrap_mean() -> None:
    values = np.random.default_rng(0).normal(size=40)
    groups = [place // 2 for place in range(40)]
    ours = bootstrap(lambda rows: float(values[rows].mean()), groups, seed=3, resamples=500)
    assert ours == pytest.approx(bootstrap_mean(values, groups=groups, seed=3, resamples=500))
    assert ours.n == 20


def test_a_bootstrap_bears_what_is_not_defined_or_infinite() -> None:
    assert math.isnan(bootstrap(lambda rows: 1.0, []).value)
    one = bootstrap(lambda rows: 5.0, ["only"])
    assert (one.value, one.n) == (5.0, 1)
    assert math.isnan(one.low)
    endless = bootstrap(lambda rows: math.inf if 0 in rows else 1.0, range(10), seed=0, resamples=200)
    assert (endless.value, endless.low, endless.high) == (math.inf, 1.0, math.inf)


# ---- temperature ----


def test_temperature_by_hand() -> None:
    # said 9 : 1, came true 3 : 1
    assert temperature([math.log(9)] * 4, [1, 1, 1, 0]) == pytest.approx(2, abs=1e-9)
    assert temperature([math.log(3)] * 4, [1, 1, 1, 0]) == pytest.approx(1, abs=1e-9)
    assert temperature([1.0, -1.0], [0.0, 1.0]) == math.inf  # wrong every time
    assert temperature([1.0, 1.0], [0.5, 0.5]) == math.inf
    assert temperature([1.0, -1.0], [1.0, 0.0]) == 0  # right every time
    assert math.isnan(temperature([0.0, 0.0], [1.0, 0.0]))
    assert math.isnan(temperature([], []))


@pytest.mark.slow
@given(st.lists(st.tuples(st.floats(-4, 4), st.floats(0.05, 0.95)), min_size=3, max_size=20), st.floats(0.2, 5))
def test_temperature_scales_with_the_margins_and_is_the_best(rows: list[tuple[float, float]], scale: float) -> None:
    margins, outcomes = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = temperature(margins, outcomes)
    assume(0.05 < found < 50)
    assert temperature(scale * margins, outcomes) == pytest.approx(scale * found, rel=1e-5)

    def loss(divisor: float) -> float:
        return binary_log_loss(1 / (1 + np.exp(-margins / divisor)), outcomes)

    assert loss(found) <= min(loss(found * 1.1), loss(found / 1.1)) + 1e-12


# ---- Kendall ----


def test_kendall_by_hand() -> None:
    assert kendall([1, 2, 3], [1, 3, 2]) == near(1 / 3)  # two pairs in order, one not
    assert kendall([1, 1, 2], [1, 2, 3]) == near(2 / math.sqrt(2 * 3))  # one pair tied in x
    assert math.isnan(kendall([1, 1], [1, 2]))
    assert math.isnan(kendall([1], [1]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=12))
def test_kendall_counts_pairs(rows: list[tuple[int, int]]) -> None:
    x, y = [row[0] for row in rows], [row[1] for row in rows]
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(len(x)) for j in range(i)]
    expected = sum(a * b for a, b in signs) / math.sqrt(sum(a != 0 for a, _ in signs) * sum(b != 0 for _, b in signs))
    assert kendall(x, y) == pytest.approx(expected)


def test_how_many_rows_are_drawn_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values, groups = np.random.default_rng(1).normal(size=60), [number // 2 for number in range(60)]

    def intervals() -> list[stats.Interval]:
        found = [stats.bootstrap_mean(values, seed=3, resamples=50), stats.bootstrap_mean(values, groups=groups, seed=3, resamples=50)]
        return [*found, stats.bootstrap(lambda rows: float(values[rows].max()), groups, seed=3, resamples=50)]

    at_once = intervals()
    for rows in (1, 130):  # a sample at a time, and a few with a remainder
        monkeypatch.setattr(stats, "DRAWN_AT_ONCE", rows)
        assert intervals() == at_once
