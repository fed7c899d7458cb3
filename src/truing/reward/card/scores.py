"""What the scores look like on reference samples, and what picking the best of n would gain.

Scores are normalised: mean 0 and standard deviation 1 on the reference samples.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truing.stats import Interval, bootstrap, bootstrap_mean, plain, wilson

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FAR = 3.0  # standard deviations; 0.13 % of a normal distribution lie beyond on each side
FEWEST = 10  # prompts with several samples, without which nothing is said of the best of one prompt's
RESAMPLES = 200


def distribution(scores: Sequence[float], groups: Sequence[Hashable], *, mean: float, std: float) -> dict[str, Any]:
    """Of the reference samples.

    Args:
        scores: (R,) normalised.
        groups: (R,) the prompt of each.
        mean, std: in nats, before the scores were normalised.

    Returns:
        the two, quantiles, the least and the most, and the shares beyond 3 standard deviations in all and above: intervals over prompts, n samples.
    """
    score = np.asarray(scores, dtype=np.float64)
    return {
        "mean_before": mean,
        "std_before": std,
        "quantiles": [{"share": share, "score": float(value)} for share, value in zip(QUANTILES, np.quantile(score, QUANTILES), strict=True)],
        "least": float(score.min()),
        "most": float(score.max()),
        "beyond": plain(_share(np.abs(score) > FAR, groups)),
        "above": plain(_share(score > FAR, groups)),
        "n": len(score),
        "n_prompts": len(set(groups)),
    }


def _share(far: NDArray[np.bool_], groups: Sequence[Hashable]) -> Interval:
    """Of samples, an interval over prompts, for the samples of one prompt stand or fall together; where none or all are far, which a bootstrap is sure of,
    Wilson's over the prompts."""
    found = bootstrap_mean(far.astype(np.float64), groups=groups)
    return (wilson(found.value * found.n, found.n) if found.value in (0, 1) else found)._replace(n=len(far))


def best_of(scores: Sequence[float] | NDArray[np.float64], n: int, *, of: Sequence[float] | NDArray[np.float64] | None = None) -> float:
    """Expected highest of n scores drawn without replacement: unbiased for the highest of n fresh ones.

        sum_i C(i - 1, n - 1) / C(N, n) x_(i),   x_(1) <= ... <= x_(N)

    Args:
        scores: (N,).
        of: (N,) what is expected of the response with the highest score, in place of the score: e.g. another judge's score of it. Where scores are equal, any
            of them may be the highest.

    Raises:
        ValueError: n isn't in 1 to N, or `of` isn't as long as the scores.
    """
    score = np.asarray(scores, dtype=np.float64)
    order = np.argsort(score, kind="stable")
    ordered = score[order] if of is None else _shared(score[order], np.asarray(of, dtype=np.float64), order)
    size = len(ordered)
    if not 1 <= n <= size:
        raise ValueError(f"the best of {n} among {size}")
    place = np.arange(size, n, -1)  # i of the highest down to the one above the n-th
    chance = np.cumprod(np.concatenate([[n / size], (place - n) / (place - 1)]))  # C(N - 1, n - 1) / C(N, n) is the highest's; each lower one's follows
    return float(chance @ ordered[: n - 2 if n > 1 else None : -1][: len(chance)])


def _shared(ordered: NDArray[np.float64], of: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.float64]:
    """`of` in the order of the scores, the mean of those whose scores are equal in the place of each."""
    if len(of) != len(ordered):
        raise ValueError(f"{len(of)} values of {len(ordered)} responses")
    _, place = np.unique(ordered, return_inverse=True)
    found: NDArray[np.float64] = (np.bincount(place, of[order]) / np.bincount(place))[place]
    return found


def best_of_n(scores: Sequence[float], groups: Sequence[Hashable], *, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Expected score of the best of n reference samples, n = 1, 2, 4 ...

    Args:
        scores: (R,) normalised.
        groups: (R,) the prompt of each.

    Returns:
        within: of one prompt's samples, in the mean over prompts that have n; empty where too few have several. pooled: of all samples as if of one
        prompt, up to a quarter of them. Rows of n, kl_nats (`kl_of_best`) and score, an interval over prompts, n prompts.
    """
    score = np.asarray(scores, dtype=np.float64)
    by_prompt: dict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(scores, groups, strict=True):
        by_prompt[group].append(value)
    within, pooled = [], []
    n = 1
    while 4 * n <= len(score):
        found = bootstrap(lambda rows, n=n: best_of(score[rows], n) if len(rows) >= n else math.nan, groups, seed=seed, resamples=RESAMPLES)  # type: ignore[misc]
        pooled.append({"n": n, "kl_nats": kl_of_best(n), "score": plain(found)})
        n *= 2
    several = {group: values for group, values in by_prompt.items() if len(values) > 1}
    for n in range(1, max(map(len, several.values()), default=0) + 1):
        best = [best_of(values, n) for values in several.values() if len(values) >= n]
        if n & (n - 1) == 0 and len(best) >= FEWEST:
            within.append({"n": n, "kl_nats": kl_of_best(n), "score": plain(bootstrap_mean(best, seed=seed))})
    return {"within": within if len(within) > 1 else [], "pooled": pooled}


def kl_of_best(n: int) -> float:
    """Nats from the base to the best of n of its samples: at most log n - (n - 1) / n (Beirami et al. 2024, arXiv:2401.01879)."""
    return math.log(n) - (n - 1) / n
