"""How often each annotator names the better response, inferred from check questions and from what the others say.

Each annotator is a coin that names the better response with probability p: Dawid & Skene 1979 (doi:10.2307/2346806) with one parameter for each
annotator. The answers of check questions are known; those of the others are inferred from everyone *else's* votes, so that nobody vouches for
themselves. p has a Beta prior, which those with few answers keep. A tie is half right and half wrong, as far as the others are sure of the
answer, and wrong on a check question: always tying is worth no more than tossing a coin.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS_OF_INFERENCE = 200
SETTLED = 1e-6  # change of every p at which inference stops
GRID: Floats = (np.arange(400) + 0.5) / 400  # values of p on which its posterior is computed


class Vote(NamedTuple):
    """A judgement as quality control sees it."""

    question: str
    annotator: str
    choice: int  # 1: A, -1: B, 0: tie
    left: bool | None = None  # the one preferred stood on the left; None for a tie
    active_s: float = math.nan
    reading_s: float = math.nan  # what reading it takes at 238 words a minute


class Posterior(NamedTuple):
    """What is believed of an annotator's p: how often they name the better response."""

    mean: float
    low: float  # 95 % credible bounds
    high: float


def infer_accuracy(
    votes: Sequence[Vote], gold: Mapping[str, int], annotators: Sequence[str], *, prior_accuracy: float, prior_strength: float
) -> dict[str, Posterior]:
    """Each annotator's posterior of p, given the answers of the others.

    Everyone's p is set to its posterior mean given the others' p, over and over until nothing moves. For a vote on a question where the others make A
    the better one with probability a, the likelihood is  a p + (1 - a)(1 - p)  for A,  (1 - a) p + a (1 - p)  for B, and
    (p (1 - p))^(|2a - 1| / 2)  for a tie.

    Args:
        votes:          at most one for each annotator and question.
        gold:           check question → its right choice, 1 (A) or -1 (B).
        annotators:     whose posteriors are wanted; all who vote.
        prior_accuracy: mean of the Beta prior of p, in (0, 1).
        prior_strength: how many answers the prior weighs, > 0.
    """
    by_question: dict[str, list[Vote]] = defaultdict(list)
    by_annotator: dict[str, list[Vote]] = {who: [] for who in annotators}
    for vote in votes:
        by_question[vote.question].append(vote)
        by_annotator[vote.annotator].append(vote)
    a, b = prior_accuracy * prior_strength, (1 - prior_accuracy) * prior_strength
    prior = (a - 1) * np.log(GRID) + (b - 1) * np.log1p(-GRID)
    p = dict.fromkeys(annotators, prior_accuracy)
    for _ in range(ROUNDS_OF_INFERENCE):
        densities = {who: _density(prior + _log_likelihood(by_annotator[who], by_question, gold, p)) for who in annotators}
        new = {who: float(densities[who] @ GRID) for who in annotators}
        moved = max((abs(new[who] - p[who]) for who in annotators), default=0.0)
        p = new
        if moved < SETTLED:
            break
    return {who: _summary(densities[who]) for who in annotators}


def _log_likelihood(mine: Sequence[Vote], by_question: Mapping[str, Sequence[Vote]], gold: Mapping[str, int], p: Mapping[str, float]) -> Floats:
    """Of each value of p on the grid, given my votes and what the others say, (400,)."""
    total = np.zeros_like(GRID)
    for vote in mine:
        if vote.question in gold:
            total += np.log(GRID if vote.choice == gold[vote.question] else 1 - GRID)
            continue
        for_a = (1 + math.tanh(_others_say(vote, by_question[vote.question], p) / 2)) / 2
        if vote.choice == 0:
            total += abs(2 * for_a - 1) / 2 * np.log(GRID * (1 - GRID))
        else:
            right = for_a if vote.choice > 0 else 1 - for_a
            total += np.log(right * GRID + (1 - right) * (1 - GRID))
    return total


def _others_say(mine: Vote, votes: Sequence[Vote], p: Mapping[str, float]) -> float:
    """Log-odds that A is the better one by everyone's votes but mine; nobody is taken for worse than a coin."""
    return math.fsum(vote.choice * _log_odds(max(p[vote.annotator], 0.5)) for vote in votes if vote.annotator != mine.annotator)


def _log_odds(p: float) -> float:
    p = min(p, 1 - 1e-6)
    return math.log(p / (1 - p))


def _density(log_density: Floats) -> Floats:
    weights: Floats = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    return weights


def _summary(density: Floats) -> Posterior:
    below = density.cumsum()
    low, high = (float(GRID[min(int(np.searchsorted(below, bound)), len(GRID) - 1)]) for bound in (0.025, 0.975))
    return Posterior(float(density @ GRID), low, high)
