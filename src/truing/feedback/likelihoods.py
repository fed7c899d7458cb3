"""What an answer's probability is, given how far apart two responses are: functions of arrays, with their derivatives.

`lead` is how far the first response is ahead in the eyes of whoever answers, in nats: their skill times the difference of rewards, and their side
bias. Log-likelihoods are in nats; every argument is broadcast against the others.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class ChoiceTerms(NamedTuple):
    """Of one choice between two responses."""

    log_p: Floats
    by_lead: Floats  # first derivative
    by_lead_twice: Floats  # second derivative, <= 0
    by_tie: Floats  # first derivative by the log width of ties


class LevelTerms(NamedTuple):
    """Of one answer on a scale."""

    log_p: Floats
    by_lead: Floats
    by_lead_twice: Floats  # <= 0
    by_low: Floats  # first derivative by the cut-point below the answer; 0 where there is none
    by_high: Floats


def davidson(lead: Floats, tie: Floats, choice: Ints) -> ChoiceTerms:
    """A choice between two responses, or a tie (Davidson 1970, doi:10.1080/01621459.1970.10481082).

        P(first) : P(tie) : P(second) = exp(lead / 2) : exp(tie) : exp(-lead / 2)

    Leaving ties aside the odds are exp(lead): Bradley and Terry's model, exactly.

    Args:
        lead:   nats.
        tie:    log width of ties; 0 makes all three alike at lead 0, -inf makes ties impossible.
        choice: 1 first, 0 tie, -1 second.
    """
    fall, width, total = _weights(lead, tie)
    ahead, behind, even = 1 / total, fall**2 / total, width * fall / total
    first, second = np.where(lead >= 0, ahead, behind), np.where(lead >= 0, behind, ahead)
    log_p = _log_p(lead, tie, choice, total)
    return ChoiceTerms(log_p, (choice - first + second) / 2, ((first - second) ** 2 - first - second) / 4, (choice == 0) - even)


def davidson_log_p(lead: Floats, tie: Floats, choice: Ints) -> Floats:
    """`davidson`'s log_p alone."""
    return _log_p(lead, tie, choice, _weights(lead, tie)[2])


def _weights(lead: Floats, tie: Floats) -> tuple[Floats, Floats, Floats]:
    """exp(-|lead| / 2), exp(tie), and the sum of the three weights over exp(|lead| / 2)."""
    fall, width = np.exp(-np.abs(lead) / 2), np.exp(tie)
    return fall, width, 1 + fall * (fall + width)


def _log_p(lead: Floats, tie: Floats, choice: Ints, total: Floats) -> Floats:
    found: Floats = np.where(choice == 0, tie, choice * lead / 2) - np.abs(lead) / 2 - np.log(total)
    return found


def cumulative_logit(lead: Floats, low: Floats, high: Floats) -> LevelTerms:
    """An answer on an ordered scale: the lead, blurred by a logistic, falls between two cut-points (McCullagh 1980, J. R. Stat. Soc. B 42:109).

        P(answer) = s(high - lead) - s(low - lead) = s(high - lead) s(lead - low) (1 - exp(low - high)),  s the logistic function

    Args:
        lead: nats.
        low:  cut-point below the answer, -inf for the lowest.
        high: cut-point above it, > low; inf for the highest.
    """
    gap = high - low
    up, down = high - lead, lead - low
    fall, drop = np.exp(-np.abs(up)), np.exp(-np.abs(down))
    not_high, not_low = np.where(up >= 0, fall, 1.0) / (1 + fall), np.where(down >= 0, drop, 1.0) / (1 + drop)  # s(lead - high) and s(low - lead)
    crowded = np.where(np.isinf(gap), 0.0, 1 / np.expm1(np.minimum(gap, 700.0)))
    log_p = cumulative_logit_log_p(lead, low, high)
    curve = not_high * (not_high - 1) + not_low * (not_low - 1)
    return LevelTerms(log_p, not_low - not_high, curve, -not_low - crowded, not_high + crowded)


def cumulative_logit_log_p(lead: Floats, low: Floats, high: Floats) -> Floats:
    """`cumulative_logit`'s log_p alone."""
    up, down = high - lead, lead - low
    both = (1 + np.exp(-np.abs(up))) * (1 + np.exp(-np.abs(down)))
    found: Floats = np.minimum(up, 0.0) + np.minimum(down, 0.0) - np.log(both) + np.log1p(-np.exp(low - high))
    return found


def pairs_of_ranking(ranks: Sequence[int]) -> Iterator[tuple[int, int, int, float]]:
    """A ranking as comparisons of two that weigh as much as its choices: n - 1 for n responses, however it is tied.

    Plackett and Luce's model chooses the best, then the best of the rest, ...; each choice is split evenly into comparisons of the chosen one with those it was
    chosen from (rank breaking: Khetan & Oh 2016, arXiv:1601.05495). Under that model each comparison alone is Bradley and Terry's. Those tied are chosen in
    any order, and the weights are the mean over the orders.

    Args:
        ranks: one for each response, 1 is best; equal ranks are ties.

    Yields:
        (i, j, choice, weight): i ranks above j (choice 1) or beside it (choice 0, i < j).
    """
    for rank in sorted(set(ranks)):
        group = [i for i, found in enumerate(ranks) if found == rank]
        worse = [i for i, found in enumerate(ranks) if found > rank]
        k, m = len(group), len(worse)
        # the p-th of the group to be chosen is compared with the k - 1 - p left of it and the m below
        left = [(k - 1 - p, 1 / (k - 1 - p + m)) for p in range(k) if k - 1 - p + m]
        across = sum(share for _, share in left) / k
        within = sum(others * share for others, share in left) / (k * (k - 1) / 2) if k > 1 else 0.0
        yield from ((i, j, 1, across) for i in group for j in worse)
        yield from ((i, j, 0, within) for a, i in enumerate(group) for j in group[a + 1 :])
