"""What is believed of the rewards of responses, given who judged them: a Gaussian for every group of responses that answers link.

Only differences and single rewards are ever judged, so each answer sees one number x = r_first - r_second (or r_first alone). In the Gaussian, an answer is
a *site*: exp(pull x - sharpness x^2 / 2).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.feedback.blocks import Blocks

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

NODES = 5  # points of Gauss and Hermite's rule at which an answer's slope is averaged over its belief
LONGEST_STEP = 2.0  # prior standard deviations by which a reward may move in one step, about
TURNED = 0.25  # a step that goes back by more than this share of the one before shows that the one before went too far
STILL = 1e-3  # prior standard deviations of a step too small to tell which way it goes
NO_ONE = -1  # in `second`: the first is judged alone; in `annotator`: what nobody said, but is known

Slopes = Callable[[Floats], tuple[Floats, Floats]]  # x (N, K) → first and second derivatives of the answers' log-likelihood by x, (N, K)


class Belief(NamedTuple):
    """Of what each answer sees, (N,)."""

    mean: Floats
    variance: Floats

    def at(self, points: Floats) -> Floats:
        """(N, K) so many standard deviations from the mean."""
        return np.asarray(self.mean[:, None] + np.sqrt(self.variance)[:, None] * points)


def gauss_hermite(nodes: int) -> tuple[Floats, Floats]:
    """Points z and weights w with sum w f(z) = E f(Z) for a standard normal Z and f a polynomial of degree < 2 nodes."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    return points.astype(np.float64), (weights / weights.sum()).astype(np.float64)


class Seen:
    """Which items the rows of answers see, among items in groups: from items to rows and back."""

    def __init__(self, blocks: Blocks, first: Ints, second: Ints) -> None:
        self.blocks, self.first, self.paired = blocks, first, second != NO_ONE
        self.second = np.where(self.paired, second, first)
        self._at = [blocks.at(i, j) for i, j in ((first, first), (self.second, self.second), (first, self.second), (self.second, first))]

    def difference(self, r: Floats) -> Floats:
        """(N,) what is seen of values r of the items."""
        return np.asarray(r[self.first] - self.paired * r[self.second])

    def gather(self, rows: Floats, n: int) -> Floats:
        """(n,) of each item, the sum of what rows (N,) give it: derivatives, or pulls."""
        return np.asarray(np.bincount(self.first, rows, n) - np.bincount(self.second, rows * self.paired, n), dtype=np.float64)

    def matrix(self, rows: Floats) -> Floats:
        """The sum of the rows' squares of what is seen, as blocks, each weighed by `rows` (N,)."""
        both, size = rows * self.paired, self.blocks.size
        first, second, cross, other = (np.bincount(at, w, size) for at, w in zip(self._at, (rows, both, both, both), strict=True))
        return np.asarray(first + second - cross - other, dtype=np.float64)

    def variance(self, covariance: Floats) -> Floats:
        """(N,) of what is seen."""
        first, second, cross, _ = (covariance[at] for at in self._at)
        return np.asarray(np.maximum(first + self.paired * (second - 2 * cross), 0.0))


class Rewards:
    """Beliefs about S rewards, of which N answers each see a first and, most of them, a second.

    Args:
        annotator: (N,) who gave each answer.

    Attributes:
        mean: (S,) of each reward.
    """

    def __init__(self, first: Ints, second: Ints, annotator: Ints, *, prior_mean: Floats, prior_sd: float) -> None:
        n = len(prior_mean)
        paired = second != NO_ONE
        self._group = _linked(n, first[paired], second[paired])
        self._seen = Seen(Blocks(self._group), first, second)
        self._precision, self._prior_mean, self.mean = 1 / prior_sd**2, prior_mean, prior_mean.copy()
        self._covariance = np.zeros(self._seen.blocks.size)
        self._covariance[self._seen.blocks.diagonal] = prior_sd**2
        self._sharpness = self._pull = np.zeros(len(first))
        self._share, self._moved = np.ones(n), np.zeros(n)  # of a step that is taken, alike in a group; and the last step
        self._lay_out_annotators(annotator)

    def _lay_out_annotators(self, annotator: Ints) -> None:
        """Items (annotator, response) for all that each one has seen, in groups of one annotator and linked responses."""
        seen, n = self._seen, max(len(self.mean), 1)
        mine = np.flatnonzero(annotator != NO_ONE)
        first, second = (annotator[mine] * n + items[mine] for items in (seen.first, seen.second))
        items, place = np.unique(np.concatenate([first, second]), return_inverse=True)
        self._item_sample = items % n
        group = np.unique(items // n * n + self._group[self._item_sample], return_inverse=True)[1]
        firsts, seconds = place[: len(mine)], np.where(seen.paired[mine], place[len(mine) :], NO_ONE)
        self._mine, self._own = mine, Seen(Blocks(group), firsts, seconds)

    def belief(self) -> Belief:
        """What is believed of what each answer sees, by all answers."""
        return Belief(self._seen.difference(self.mean), self._seen.variance(self._covariance))

    def of_others(self) -> Belief:
        """The same by everyone's answers but those of whoever gave the answer: nobody vouches for themselves.

        Taking all of one annotator's sites from the belief about what they have seen leaves that of the others, exactly.
        """
        own, sample = self._own, self._item_sample
        i, j = own.blocks.pairs()
        everyone = own.blocks.inverse(self._covariance[self._seen.blocks.at(sample[i], sample[j])])
        pull = own.blocks.times(everyone, self.mean[sample]) - own.gather(self._pull[self._mine], len(sample))
        covariance = own.blocks.inverse(everyone - own.matrix(self._sharpness[self._mine]))
        mean, variance = (found.copy() for found in self.belief())
        mean[self._mine] = own.difference(own.blocks.times(covariance, pull))
        variance[self._mine] = own.variance(covariance)
        return Belief(mean, variance)

    def without(self, look: Ints) -> Belief:
        """Of what the first answers see, by all answers but those of the same look (len(look),), which must all see the same."""
        n = len(look)
        mean, variance = (found[:n] for found in self.belief())
        sharpness, pull = (np.bincount(look, found[:n])[look] for found in (self._sharpness, self._pull))
        left = 1 / (1 / variance - sharpness)
        return Belief(left * (mean / variance - pull), left)

    def step(self, slopes: Slopes, nodes: int = NODES) -> float:
        """One step of Newton's towards the Gaussian nearest to the posterior (Opper & Archambeau 2009, doi:10.1162/neco.2008.08-07-592).

        Args:
            slopes: see `Slopes`.
            nodes:  1 looks at the mean alone: then the steps lead to the mode.

        Returns:
            the largest move of a mean, in prior standard deviations.
        """
        points, weights = gauss_hermite(nodes)
        belief, seen = self.belief(), self._seen
        first, second = slopes(belief.at(points))
        # averaged over the belief, Stein's identity: E f'' = E f' z / sd. Between few nodes a skilful answer's f'' is a spike that each may miss; f' isn't
        by_x, curve = first @ weights, (first * points) @ weights / np.sqrt(belief.variance) if nodes > 1 else second[:, 0]
        gradient = seen.gather(by_x, len(self.mean)) - self._precision * (self.mean - self._prior_mean)
        found = (-curve, by_x - curve * belief.mean)
        whole = seen.blocks.times(self._covariance_of(found[0]), gradient)
        share = self._careful(whole)
        rows = share[seen.first]
        self._sharpness, self._pull = (old + rows * (new - old) for old, new in zip((self._sharpness, self._pull), found, strict=True))
        self._covariance = self._covariance_of(self._sharpness)
        self._moved = seen.blocks.times(self._covariance, share * gradient)
        self.mean = self.mean + self._moved
        return float(np.abs(whole).max(initial=0.0) * self._precision**0.5)

    def _covariance_of(self, sharpness: Floats) -> Floats:
        """What is left of the prior's width by sites that are so sharp."""
        precision = self._seen.matrix(sharpness)
        precision[self._seen.blocks.diagonal] += self._precision
        return self._seen.blocks.inverse(precision)

    def _careful(self, whole: Floats) -> Floats:
        """(S,) the share to take of Newton's step (S,), alike in every group.

        Where answers are foretold with certainty the curvature is next to nothing, and Newton's step leads far away, from where the next leads back. So a group
        whose step turns back takes half as much from then on, and none goes further than LONGEST_STEP. A share of a step is that share of the change of its
        sites (Khan & Lin 2017, arXiv:1703.04265): the Gaussian stays the product of the prior and of its sites.
        """
        n = len(whole)
        back, before = (np.bincount(self._group, step * self._moved, n) * self._precision for step in (-whole, self._moved))
        turned = back > TURNED * before + STILL**2
        self._share = np.where(turned[self._group], self._share / 2, np.minimum(1.0, self._share * 1.5))
        furthest = np.zeros(n)
        np.maximum.at(furthest, self._group, np.abs(whole) * self._precision**0.5)
        return np.asarray(self._share * np.minimum(1.0, LONGEST_STEP / np.maximum(furthest, LONGEST_STEP))[self._group])

    def pairs(self, first: Ints, second: Ints) -> Belief:
        """Of the differences of pairs of rewards, (P,)."""
        together = self._group[first] == self._group[second]
        variance = self.variances()
        shared = np.zeros(len(first))
        shared[together] = self._covariance[self._seen.blocks.at(first[together], second[together])]
        return Belief(self.mean[first] - self.mean[second], np.maximum(variance[first] + variance[second] - 2 * shared, 0.0))

    def variances(self) -> Floats:
        """(S,) of each reward."""
        return np.asarray(self._covariance[self._seen.blocks.diagonal])


def _linked(n: int, first: Ints, second: Ints) -> Ints:
    """(n,) the group of each response: those linked by a chain of pairs share one."""
    from scipy.sparse import coo_array  # here, for its import takes long
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(first)), (first, second)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp) if n else np.zeros(0, np.intp)
