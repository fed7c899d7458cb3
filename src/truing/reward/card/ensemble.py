"""Does the ensemble know where it is wrong? Its spread about a pair, against its errors.

Shapes: N held-out pairs with a preference, K members.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truing.reward.card.accuracy import right
from truing.stats import auc, bootstrap, bootstrap_mean, plain
from truing.store.ids import seed_from

PARTS = ("surest third", "middle third", "least sure third")
RESAMPLES = 500


def spread_against_error(margins: NDArray[np.float64], targets: Sequence[float], prompts: Sequence[str], *, seed: int) -> dict[str, Any] | None:
    """How far the members differ about a pair, and whether they do so where they are wrong.

    A small lead of one response over the other is a sign of error as well, and a single model has it: it stands beside the spread, which must do better to
    be worth its members.

    Args:
        margins: (N, K) each member's log-odds that a is preferred.
        targets: (N,) none of them 1/2.
        prompts: (N,)

    Returns:
        thirds: of the pairs by spread: name, spread (its mean, in log-odds) and accuracy; auc: chance that a pair it gets wrong has more spread than one it
        gets right; auc_of_lead: the same of a small lead. Intervals over prompts, n prompts. None with a single member.
    """
    if margins.shape[1] < 2:
        return None
    mean, spread = margins.mean(1), margins.std(1)
    hits = np.array([right(margin, target - 0.5) for margin, target in zip(mean, targets, strict=True)])
    wrong = hits < 0.5
    order = np.argsort(spread, kind="stable")
    draw = seed_from(seed, "spread")
    thirds = []
    for name, rows in zip(PARTS, np.array_split(order, len(PARTS)), strict=True):
        accuracy = bootstrap_mean(hits[rows], groups=[prompts[row] for row in rows], seed=draw)
        thirds.append({"part": name, "spread": float(spread[rows].mean()) if len(rows) else None, "accuracy": plain(accuracy._replace(n=len(rows)))})
    return {
        "thirds": thirds,
        "auc": plain(bootstrap(lambda rows: auc(spread[rows], wrong[rows]), prompts, seed=draw, resamples=RESAMPLES)),
        "auc_of_lead": plain(bootstrap(lambda rows: auc(-np.abs(mean[rows]), wrong[rows]), prompts, seed=draw, resamples=RESAMPLES)),
        "n": len(hits),
    }
