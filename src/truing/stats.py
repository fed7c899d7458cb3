"""Intervals, agreement, calibration, correlation: what a report may say, and how surely.

All in float64. A statistic that the data cannot define (no data, one class, no variation) is nan, never an exception
and never a number that looks measured; a wrong argument raises ValueError. Random numbers come from a generator of
the function's own, seeded by an argument: the same data in the same order and seed give the same interval, and no
one else's randomness moves.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import chain, product
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Level = Literal["nominal", "ordinal", "interval"]
Rating = tuple[Hashable, Hashable, Hashable]  # question, annotator, answer
EXACT = 14  # units up to which a test by signs tries every choice of them
FLIPS = 20_000  # choices of signs beyond that
DRAWN_AT_ONCE = 1 << 18  # row numbers of bootstrap samples in memory


class Interval(NamedTuple):
    """An estimate, the bounds of its confidence interval, and the number of independent units it rests on."""

    value: float
    low: float
    high: float
    n: int


class ReliabilityRow(NamedTuple):
    """One bin of a reliability curve."""

    predicted: float  # mean predicted probability
    observed: float  # mean outcome
    n: int


# ---- intervals ----


def plain(interval: Interval) -> dict[str, Any]:
    """An interval as JSON holds it: value, low, high and n."""
    return {name: finite(value) for name, value in interval._asdict().items()}


def finite(value: float) -> float | None:
    """None for nan and infinity: JSON has no word for them."""
    return value if math.isfinite(value) else None


EVEN = 1e-9  # from 1/2: as far as rounding takes a target that is even


def takes_side(target: float) -> bool:
    """Whether what judgements come to prefers a response. As many for one as for the other, equally trusted, prefer none, whatever the last digit says."""
    return abs(target - 0.5) > EVEN


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """A proportion with Wilson's score interval, in [0, 1] (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Honest where the textbook's p +- z sqrt(p q / n) is not: near 0 and 1 and for small n.

    Args:
        successes:  in [0, n]; may be fractional, as when a tie counts half.
        n:          independent trials, >= 0. None at all gives nan between 0 and 1.
        confidence: in (0, 1).

    Raises:
        ValueError: an argument is out of its range.
    """
    _require_confidence(confidence)
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n = {n}, found {successes}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    rate, z = successes / n, NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # in exact arithmetic 0 <= low <= rate <= high <= 1; rounding must not say otherwise
    return Interval(rate, max(0.0, min(centre - half, rate)), min(1.0, max(centre + half, rate)), n)


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """A (weighted) mean with its percentile bootstrap interval (Efron 1979, doi:10.1214/aos/1176344552).

    Rows that share a cause, such as several responses to one prompt, are not independent: name it in `groups`, and
    whole groups are drawn, not rows. Below about 20 units the interval is somewhat too narrow.

    Args:
        values:     (n,).
        groups:     (n,) the unit of each row; None: every row is its own.
        weights:    (n,) >= 0; rows of weight 0 count for nothing, in n neither. None is 1.
        seed:       of the resampling.
        resamples:  >= 1.
        confidence: in (0, 1).

    Returns:
        The interval, with n the number of groups (or rows). No row gives nan; one unit gives a value without bounds.

    Raises:
        ValueError: lengths differ, a value is not finite, a weight is negative, another argument out of its range.
    """
    _require_confidence(confidence)
    (value,) = _columns(values=values)
    weight = _weights(weights, len(value))
    unit = np.arange(len(value)) if groups is None else _codes(groups)[0]
    _require_equal_lengths(values=len(value), groups=len(unit))
    mass = np.bincount(unit, weight)  # (U,) total weight of each unit
    total = np.bincount(unit, weight * value)[mass > 0]
    mass = mass[mass > 0]
    draws = [draw for rows in _resample(len(mass), resamples, seed) for draw in total[rows].sum(1) / mass[rows].sum(1)]
    return _percentile_interval(_ratio(total.sum(), mass.sum()), draws, len(mass), confidence)


def bootstrap(statistic: Callable[[Ints], float], groups: Sequence[Hashable], *, seed: int = 0, resamples: int = 1000, confidence: float = 0.95) -> Interval:
    """Any statistic with its percentile bootstrap interval, whole groups being drawn.

    Args:
        statistic: of some rows, given by their places in `groups`; nan where they don't define it. It may be infinite.
        groups:    (n,) the unit of each row.

    Returns:
        The interval, with n the number of groups. No row gives nan; one group gives a value without bounds.

    Raises:
        ValueError: an argument is out of its range.
    """
    _require_confidence(confidence)
    unit, names = _codes(groups)
    if not len(unit):
        return Interval(math.nan, math.nan, math.nan, 0)
    members = np.split(np.argsort(unit, kind="stable"), np.bincount(unit).cumsum()[:-1])
    draws = [statistic(np.concatenate([members[place] for place in rows])) for rows in chain.from_iterable(_resample(len(names), resamples, seed))]
    return _percentile_interval(statistic(np.arange(len(unit))), draws, len(names), confidence)


def sign_flip_p(differences: Floats, *, seed: int) -> Floats:
    """How often differences with random signs add up to as much as they do: the paired permutation test, two-sided (Fisher 1935).

    Every choice of signs is tried for up to 14 units; beyond that 20,000 are drawn, and the one that was seen counts among them.

    Args:
        differences: (T, G) of independent units.

    Returns:
        (G,) in (0, 1].
    """
    n = len(differences)
    exact = n <= EXACT
    signs = np.array(list(product((-1.0, 1.0), repeat=n))) if exact else np.random.default_rng(seed).choice((-1.0, 1.0), size=(FLIPS, n))
    slack = 1e-9 * np.abs(differences).sum(0)  # rounding must not tell a sum from itself
    as_far = (np.abs(signs @ differences) >= np.abs(differences.sum(0)) - slack).sum(0)
    found: Floats = as_far / len(signs) if exact else (as_far + 1) / (FLIPS + 1)
    return found


# ---- agreement ----


def krippendorff_alpha(ratings: Sequence[Rating], *, level: Level = "nominal") -> float:
    """Agreement beyond chance: 1 is perfect, 0 is chance, below 0 is systematic disagreement.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. Any number of annotators, any of them may have
    skipped any question; a question with fewer than two answers says nothing and is left out. nan when no question
    remains, or when all answers are alike: without variation nobody knows whether annotators can tell things apart
    (crowd-kit returns 1 there).

    Args:
        ratings: (question, annotator, answer), one for each annotator and question; leave skipped ones out.
        level:   how far apart two answers are. nominal: same or not (any hashable answers); ordinal: by the number of
                 answers ranked between them; interval: by their difference squared (both need numbers).

    Raises:
        ValueError: an annotator answered a question twice (pass only judgements that still stand), unknown level.
    """
    return _alpha(*_answer_counts(ratings, level), level)


def alpha_interval(
    ratings: Sequence[Rating],
    *,
    level: Level = "nominal",
    seed: int,
    resamples: int = 500,
    confidence: float = 0.95,
) -> Interval:
    """`krippendorff_alpha` with a percentile bootstrap over questions; n is the number of questions with >= 2 answers.

    Resamples in which alpha is undefined (all answers alike) are left out. The other arguments are those of
    `krippendorff_alpha` and `bootstrap_mean`.
    """
    _require_confidence(confidence)
    counts, positions = _answer_counts(ratings, level)
    draws = [_alpha(counts[rows], positions, level) for rows in chain.from_iterable(_resample(len(counts), resamples, seed))]
    return _percentile_interval(_alpha(counts, positions, level), draws, len(counts), confidence)


def _answer_counts(ratings: Sequence[Rating], level: Level) -> tuple[Floats, Floats]:
    """How often each answer was given to each question that has at least two, (Q, C), and where answers lie, (C,)."""
    if level not in ("nominal", "ordinal", "interval"):
        raise ValueError(f"level must be nominal, ordinal or interval, found {level!r}")
    seen: set[tuple[Hashable, Hashable]] = set()
    for question, annotator, _ in ratings:
        if (question, annotator) in seen:
            raise ValueError(f"annotator {annotator!r} answered question {question!r} more than once")
        seen.add((question, annotator))
    rows, questions = _codes(question for question, _, _ in ratings)
    numbers = level != "nominal"
    columns, answers = _codes(float(cast(float, answer)) if numbers else answer for _, _, answer in ratings)
    counts = np.zeros((len(questions), len(answers)))
    np.add.at(counts, (rows, columns), 1)
    # a nominal answer lies nowhere; the others are put in order, which the ordinal distance relies on
    positions = np.array(answers if numbers else [0.0] * len(answers), dtype=np.float64)
    order = np.argsort(positions, kind="stable")
    return counts[counts.sum(axis=1) >= 2][:, order], positions[order]


def _alpha(counts: Floats, positions: Floats, level: Level) -> float:
    """1 - observed / expected disagreement, from answer counts (Q, C); every question has at least two answers."""
    totals = counts.sum(axis=0)  # (C,)
    if level == "ordinal":
        positions = totals.cumsum() - totals / 2  # mid-ranks: differ by the answers between, ends counted half
    apart = np.subtract.outer(positions, positions) ** 2 if level != "nominal" else 1 - np.eye(len(totals))  # (C, C)
    # coincidences (C, C): each question's pairs of answers, in both orders, weighing as much as its answers. Pairs of
    # an answer with itself land on the diagonal, where nothing is apart, so they need no taking out.
    coincidences = counts.T @ (counts / (counts.sum(axis=1, keepdims=True) - 1))
    observed = (totals.sum() - 1) * (coincidences * apart).sum()
    return 1 - _ratio(float(observed), float(totals @ apart @ totals))


# ---- calibration and discrimination ----


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counting half, in [0, 1]; nan with one class only.

    Args:
        scores: (n,) any scale.
        labels: (n,) 0 or 1 (or bool).

    Raises:
        ValueError: lengths differ, a score is not finite, a label is neither 0 nor 1.
    """
    score, label = _columns(scores=scores, labels=labels)
    if not np.isin(label, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    positives = label.sum()
    above = _ranks(score)[label == 1].sum() - positives * (positives + 1) / 2  # Mann and Whitney's U
    return _ratio(above, positives * (len(label) - positives))


def reliability_curve(probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 10) -> list[ReliabilityRow]:
    """Predicted against observed, in bins of equal width over [0, 1]; empty bins are left out.

    Args:
        probabilities: (n,) in [0, 1]; 1 falls into the last bin, another bin edge into the bin above it.
        outcomes:      (n,) in [0, 1]; fractional where people disagreed or tied.
        bins:          >= 1.

    Raises:
        ValueError: lengths differ, an argument is out of its range.
    """
    predicted, observed = _probabilities(probabilities=probabilities, outcomes=outcomes)
    which = _bins(predicted, bins)
    return [ReliabilityRow(float(predicted[rows].mean()), float(observed[rows].mean()), int(rows.sum())) for rows in (which == i for i in np.unique(which))]


def expected_calibration_error(probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 10, weights: ArrayLike | None = None) -> float:
    """Mean distance of predicted from observed over the bins of `reliability_curve`, in [0, 1] (Naeini et al. 2015).

    Biased upwards for few rows a bin: even a perfect model has about sqrt(p q / rows in a bin) of it.

    Args:
        weights: (n,) >= 0; None is 1. The rest: see `reliability_curve`. nan when there is no weight at all.
    """
    predicted, observed = _probabilities(probabilities=probabilities, outcomes=outcomes)
    weight = _weights(weights, len(predicted))
    gaps = np.bincount(_bins(predicted, bins), weight * (predicted - observed))  # (bins,) weighted
    return _ratio(np.abs(gaps).sum(), weight.sum())


def binary_log_loss(p: ArrayLike, y: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean cross-entropy of predictions `p` for outcomes `y`, in nats, >= 0; ln 2 is a coin's.

    Args:
        p:       (n,) in [0, 1]; held 2.2e-16 away from both ends, so a wrong certainty costs 36 nats and not infinity.
        y:       (n,) in [0, 1], may be fractional.
        weights: (n,) >= 0; None is 1. nan when there is no weight at all.

    Raises:
        ValueError: lengths differ, an argument is out of its range.
    """
    predicted, observed = _probabilities(p=p, y=y)
    weight = _weights(weights, len(predicted))
    tiny = np.finfo(np.float64).eps
    predicted = predicted.clip(tiny, 1 - tiny)
    losses = -observed * np.log(predicted) - (1 - observed) * np.log1p(-predicted)
    return _ratio((weight * losses).sum(), weight.sum())


def temperature(margins: ArrayLike, outcomes: ArrayLike) -> float:
    """What to divide log-odds by so that the log loss is least (Guo et al. 2017, arXiv:1706.04599), in [0, inf].

    Above 1 the predictions were too sure of themselves, below 1 too modest. Infinite where the margins tell nothing, or the contrary of what happened; 0 where
    they separate the outcomes perfectly, so that no certainty is too much; nan without a margin other than 0.

    Args:
        margins:  (n,) predicted log-odds.
        outcomes: (n,) in [0, 1], may be fractional.

    Raises:
        ValueError: lengths differ, an argument is out of its range.
    """
    margin, outcome = _columns(margins=margins, outcomes=outcomes)
    _require_range("outcomes", outcome, 0, 1)
    if not margin.any():
        return math.nan

    def slope(inverse: float) -> float:  # of the log loss, over 1 / T; it rises
        return float(margin @ (1 / (1 + np.exp(-np.clip(inverse * margin, -500, 500))) - outcome))

    if slope(0.0) >= 0:
        return math.inf
    high = 1.0
    while slope(high) < 0:
        high *= 2
        if high > 2**20:
            return 0.0
    low = 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


# ---- correlation and diversity ----


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation, in [-1, 1], ties at their mean rank; nan when either does not vary.

    Raises:
        ValueError: lengths differ, a value is not finite.
    """
    a, b = (_ranks(column) - (len(column) + 1) / 2 for column in _columns(x=x, y=y))
    return _ratio(float(a @ b), math.sqrt(float(a @ a) * float(b @ b)))


def kendall(x: ArrayLike, y: ArrayLike) -> float:
    """Kendall's tau-b (Kendall 1945, doi:10.1093/biomet/33.3.239), in [-1, 1]: of the pairs that neither ties, concordant less discordant, scaled by
    what ties leave possible; nan when either does not vary.

    Raises:
        ValueError: lengths differ, a value is not finite.
    """
    a, b = _columns(x=x, y=y)
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return math.nan
    from scipy.stats import kendalltau  # here, for its import takes a second

    return float(kendalltau(a, b).statistic)


def distinct_n(texts: Iterable[Sequence[Hashable]], n: int) -> float:
    """Share of different n-grams among all n-grams of all texts, in (0, 1]; nan when no text has n tokens.

    Li et al. 2016, arXiv:1510.03055. It falls as texts grow in number and length: compare like with like.

    Args:
        texts: token lists (words or token ids).
        n:     >= 1.

    Raises:
        ValueError: n is less than 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, found {n}")
    grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return _ratio(len(set(grams)), len(grams))


# ---- shared by the above ----


def _ratio(over: float, under: float) -> float:
    """Their quotient, nan where there is nothing to divide by."""
    return float(over / under) if under > 0 else math.nan


def _ranks(x: Floats) -> Floats:
    """Ranks from 1, ties at their mean (scipy.stats.rankdata, without the second that its import takes)."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    mid_ranks: Floats = counts.cumsum() - (counts - 1) / 2
    return mid_ranks[inverse]


def _codes(items: Iterable[Hashable]) -> tuple[Ints, list[Hashable]]:
    """The items as numbers from 0 in order of appearance, and the different items in that order."""
    numbers: dict[Hashable, int] = {}
    codes = [numbers.setdefault(item, len(numbers)) for item in items]
    return np.array(codes, dtype=np.intp), list(numbers)


def _resample(n: int, resamples: int, seed: int) -> Iterator[Ints]:
    """(K, n) row numbers of bootstrap samples of n units, some at a time: all at once would need resamples x n memory."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, found {resamples}")
    generator = np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // max(n, 1))
    return (generator.integers(0, n, (min(at_once, resamples - start), n)) for start in range(0, resamples if n > 1 else 0, at_once))


def _percentile_interval(value: float, draws: Sequence[float], n: int, confidence: float) -> Interval:
    defined = [draw for draw in draws if not math.isnan(draw)]
    if not defined:
        return Interval(value, math.nan, math.nan, n)
    infinite = not np.isfinite(defined).all()  # between a number and infinity lies no quantile: then one of the draws is taken
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest" if infinite else "linear")
    return Interval(value, float(low), float(high), n)


def _bins(probabilities: Floats, bins: int) -> Ints:
    if bins < 1:
        raise ValueError(f"bins must be at least 1, found {bins}")
    return np.minimum((probabilities * bins).astype(np.intp), bins - 1)


def _columns(**columns: ArrayLike) -> list[Floats]:
    """The arguments as float64 vectors of one length, all finite."""
    arrays = {name: np.asarray(column, dtype=np.float64) for name, column in columns.items()}
    for name, array in arrays.items():
        if array.ndim != 1:
            raise ValueError(f"{name} must have one dimension, found shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite")
    _require_equal_lengths(**{name: len(array) for name, array in arrays.items()})
    return list(arrays.values())


def _probabilities(**columns: ArrayLike) -> list[Floats]:
    arrays = _columns(**columns)
    for name, array in zip(columns, arrays, strict=True):
        _require_range(name, array, 0, 1)
    return arrays


def _weights(weights: ArrayLike | None, n: int) -> Floats:
    if weights is None:
        return np.ones(n)
    (weight,) = _columns(weights=weights)
    _require_range("weights", weight, 0, math.inf)
    _require_equal_lengths(rows=n, weights=len(weight))
    return weight


def _require_range(name: str, array: Floats, low: float, high: float) -> None:
    if not ((array >= low) & (array <= high)).all():
        raise ValueError(f"{name} must lie in [{low}, {high}], found {array.min()} to {array.max()}")


def _require_equal_lengths(**lengths: int) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths differ: {', '.join(f'{name} {length}' for name, length in lengths.items())}")


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, found {confidence}")
