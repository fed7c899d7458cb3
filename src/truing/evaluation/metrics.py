"""How two sets of responses compare: pure functions of numbers and texts.

One notation throughout: *ours* is the policy under test, *theirs* its opponent; a row is one pair of responses to the
same prompt; a group is the prompt, the unit that intervals are drawn over. An outcome is 1 (ours won), 0 (theirs did)
or 1/2 (a tie). What the data cannot define is nan, as in `truing.stats`.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.stats import Interval, wilson

Floats = NDArray[np.float64]

HALVES = 200  # half-samples behind the interval of a diversity ratio
NEWTON_STEPS = 40
SLOPE_RIDGE = 0.01  # keeps the slope on length finite when length and outcome never part

_WORD = re.compile(r"\w+(?:['’]\w+)*")


class Tally(NamedTuple):
    """How the rows of a comparison ended."""

    wins: int
    ties: int
    losses: int


def outcome(ours: float, theirs: float, *, same_text: bool = False, margin: float = 0.0) -> float:
    """1 if ours is judged better, 0 if theirs, 1/2 if the texts are the same or the judge holds them `margin` or less apart.

    Args:
        ours, theirs: what the judge gave each response; finite.
        same_text:    the two responses are word for word the same.
        margin:       >= 0, in the judge's own points.
    """
    if same_text or abs(ours - theirs) <= margin:
        return 0.5
    return 1.0 if ours > theirs else 0.0


def tally(outcomes: Iterable[float]) -> Tally:
    """Wins, ties and losses among outcomes."""
    counts = Counter(outcomes)
    return Tally(counts[1.0], counts[0.5], counts[0.0])


def words(text: str) -> list[str]:
    """The words of a text, case folded, punctuation left out: `It's 5 o'clock!` has three."""
    return _WORD.findall(text.casefold())


def group_means(values: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """The mean of each group, in order of first appearance."""
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        members.setdefault(group, []).append(value)
    return {group: sum(rows) / len(rows) for group, rows in members.items()}


def share_of_groups(values: Sequence[float], groups: Sequence[Hashable], confidence: float) -> Interval:
    """A share with Wilson's interval over groups, for shares near 0 or 1 or over few groups, where a bootstrap boasts.

    Args:
        values: (n,) in [0, 1].
        groups: (n,) the unit of each row.
    """
    means = group_means(values, groups)
    return wilson(min(sum(means.values()), len(means)), len(means), confidence)


# ---- diversity ----


def word_pairs(texts: Iterable[str]) -> Counter[tuple[str, str]]:
    """How often each pair of neighbouring words stands in the texts."""
    return Counter(pair for text in texts for pair in pairwise(words(text)))


def distinct2(counts: Mapping[tuple[str, str], int], at: int | None = None) -> float:
    """The share of different word pairs among `at` pairs drawn without replacement: its expectation, exactly.

    With `at` equal to all pairs this is plain distinct-2 (Li et al. 2016, arXiv:1510.03055). That falls as texts grow, so two sets
    of texts are compared at the smaller one's size (rarefaction: Hurlbert 1971, doi:10.2307/1934145).

    Args:
        counts: how often each pair occurs.
        at:     in [1, all]; None means all.

    Returns:
        In (0, 1]; nan without any pair.
    """
    total = sum(counts.values())
    size = total if at is None else at
    if not 1 <= size <= total:
        return math.nan
    kinds = Counter(counts.values())  # how many pairs occur once, twice, ...
    seen = sum(number * (1 - _missed(total, times, size)) for times, number in sorted(kinds.items()))
    return seen / size


def _missed(total: int, times: int, size: int) -> float:
    """P(none of `times` marked items is among `size` drawn of `total`) = C(total - times, size) / C(total, size)."""
    if total - times < size:
        return 0.0
    log = math.lgamma(total - times + 1) - math.lgamma(total - times - size + 1) - math.lgamma(total + 1) + math.lgamma(total - size + 1)
    return math.exp(log)


def diversity_ratio(
    ours: Mapping[str, Sequence[str]], theirs: Mapping[str, Sequence[str]], *, seed: int, confidence: float = 0.95, halves: int = HALVES
) -> Interval:
    """Our distinct-2 over theirs, both at the same number of word pairs, so that being shorter is no advantage.

    The interval comes from random halves of the prompts, whose spread equals that of the whole (McCarthy 1969, doi:10.2307/1402116): a
    bootstrap would draw prompts twice and so count repetition that isn't there.

    Args:
        ours, theirs: texts by prompt; only prompts that both have count.
        seed:         of the halves.
        halves:       >= 1.

    Returns:
        The interval, with n the number of prompts; nan where there is nothing to compare.
    """
    prompts = sorted(ours.keys() & theirs.keys())
    value = _ratio_at_equal_size(prompts, ours, theirs)
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(halves if len(prompts) >= 4 else 0):
        half = [prompts[row] for row in generator.permutation(len(prompts))[: len(prompts) // 2]]
        draws.append(_ratio_at_equal_size(half, ours, theirs))
    defined = [draw for draw in draws if not math.isnan(draw)]
    if not defined:
        return Interval(value, math.nan, math.nan, len(prompts))
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2]) - np.mean(defined)
    return Interval(value, max(value + float(low), 0.0), value + float(high), len(prompts))


def _ratio_at_equal_size(prompts: Sequence[str], ours: Mapping[str, Sequence[str]], theirs: Mapping[str, Sequence[str]]) -> float:
    a, b = (word_pairs(text for prompt in prompts for text in side[prompt]) for side in (ours, theirs))
    size = min(a.total(), b.total())
    return distinct2(a, size) / distinct2(b, size) if size else math.nan


# ---- the same contest at equal length ----


def equal_length_win_rate(
    outcomes: Sequence[float],
    length_differences: Sequence[float],
    *,
    groups: Sequence[Hashable],
    seed: int,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """What the win rate would be if both responses were equally long: a second opinion on a win that may be a matter of length.

        P(ours wins) = sigmoid(a + b tanh(d / s)),   d our length minus theirs, s its root mean square

    and the value is sigmoid(a), after Dubois et al. 2024 (arXiv:2404.04475). Half a win and half a loss at d = 0 are added so that a clean sweep
    stays finite, and a ridge of 0.01 b^2 / 2 so that b does. Where ours is nearly always the shorter (or longer), this extrapolates, and
    the interval shows it. If people really prefer a length, it takes that away too.

    Args:
        outcomes:           (n,) in {0, 1/2, 1}.
        length_differences: (n,) in words.
        groups:             (n,) the prompt of each row; the bootstrap draws prompts.

    Returns:
        In (0, 1), n the number of groups. nan without rows.
    """
    names = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    count = len(names)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    unit = np.array([names[group] for group in groups])
    y, d = np.asarray(outcomes, dtype=np.float64), np.asarray(length_differences, dtype=np.float64)
    spread = math.sqrt(float(np.mean(d * d)))  # about zero, not about the mean: equal length is what counts
    x = np.tanh(d / spread) if spread > 0 else np.zeros_like(d)
    value = _intercepts(np.ones((1, len(y))), x, y)[0]
    if count == 1:
        return Interval(float(value), math.nan, math.nan, 1)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)  # (R, groups)
    low, high = np.quantile(_intercepts(draws[:, unit].astype(np.float64), x, y), [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(low), float(high), count)


def _intercepts(weights: Floats, x: Floats, y: Floats) -> Floats:
    """sigmoid(a) of the penalised logistic fit, one for each row of weights (R, n), by damped Newton steps."""
    a, b = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(a[:, None] + b[:, None] * x)  # (R, n)
        middle = _sigmoid(a)
        slope_a = (weights * (y - p)).sum(axis=1) + 0.5 - middle
        slope_b = (weights * (y - p) * x).sum(axis=1) - SLOPE_RIDGE * b
        curve = weights * p * (1 - p)
        aa = curve.sum(axis=1) + middle * (1 - middle)
        ab = (curve * x).sum(axis=1)
        bb = (curve * x * x).sum(axis=1) + SLOPE_RIDGE
        determinant = aa * bb - ab * ab
        a = a + ((bb * slope_a - ab * slope_b) / determinant).clip(-1, 1)
        b = b + ((aa * slope_b - ab * slope_a) / determinant).clip(-1, 1)
    return _sigmoid(a)


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-x))
    return result
