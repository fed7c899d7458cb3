"""Whether the scores are as sure as they may be: reliability, calibration error, log loss, and the one number that would mend them.

Shapes: N held-out pairs.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truing.reward.train_pairs import folds_by_prompt
from truing.stats import Interval, binary_log_loss, bootstrap, expected_calibration_error, finite, plain, temperature
from truing.store.ids import seed_from

FOLDS = 5
BINS = 10
SIGNS = 2000
RESAMPLES = 400


def chances(margins: Sequence[float] | NDArray[np.float64], divisor: float = 1.0) -> NDArray[np.float64]:
    """(N,) probability that a is preferred, from (N,) log-odds; a divisor of infinity makes all of them a half."""
    found: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(np.asarray(margins, dtype=np.float64) / max(divisor, 1e-9), -500, 500)))
    return found


def calibration(margins: Sequence[float], targets: Sequence[float], prompts: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Calibration on held-out pairs, as it is and after the temperature.

    The temperature that is shown is fitted on all of them. What it would make of the errors is measured by cross-fitting: each pair is read with the
    temperature of the folds that its prompt is not in.

    Args:
        margins: (N,) predicted log-odds that a is preferred.
        targets: (N,) in [0, 1].
        prompts: (N,) the prompt's id of each.

    Returns:
        ece, log_loss, temperature, ece_after, log_loss_after: intervals over prompts, n prompts. Both calibration errors are what is left of them beyond chance
        (`beyond_chance`); ece_plain is the first as it is usually given. A bound of None is infinite.
    """
    margin, target = np.asarray(margins, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    before, after = chances(margin), cross_fitted(margin, target, prompts, seed)
    draw = seed_from(seed, "calibration")
    fitted = bootstrap(lambda rows: temperature(margin[rows], target[rows]), prompts, seed=draw, resamples=RESAMPLES)
    return {
        "temperature": plain(fitted),
        "ece": plain(beyond_chance(before, target, prompts, seed=draw)),
        "ece_after": plain(beyond_chance(after, target, prompts, seed=draw)),
        "ece_plain": finite(expected_calibration_error(before, target)),
        "log_loss": plain(_log_loss(before, target, prompts, draw)),
        "log_loss_after": plain(_log_loss(after, target, prompts, draw)),
        "n_pairs": len(target),
        "folds": min(FOLDS, len(set(prompts))),
    }


def cross_fitted(margin: NDArray[np.float64], target: NDArray[np.float64], prompts: Sequence[str], seed: int) -> NDArray[np.float64]:
    """(N,) probability that a is preferred, each by the temperature of the folds that its prompt is not in."""
    folds = min(FOLDS, len(set(prompts)))
    fold = folds_by_prompt(prompts, folds, seed_from(seed, "temperature")).numpy()
    found = chances(margin)
    for left_out in range(folds if folds > 1 else 0):
        fitted = temperature(margin[fold != left_out], target[fold != left_out])
        if not np.isnan(fitted):
            found[fold == left_out] = chances(margin[fold == left_out], fitted)
    return found


def beyond_chance(predicted: NDArray[np.float64], target: NDArray[np.float64], prompts: Sequence[str], *, seed: int) -> Interval:
    """The expected calibration error less what a perfectly calibrated model would show on as many pairs, in [0, 1].

    With few pairs a bin the plain error is far from 0 even where there is none (see `expected_calibration_error`). What chance alone gives is found by turning
    the errors of all of a prompt's pairs over at random (a wild bootstrap: Liu 1988, doi:10.1214/aos/1176351062): it needs no model of the noise, so that
    graded targets and pairs that hang together by their prompt are allowed for. The lower end is above 0 where the error is beyond what chance
    gives in 97.5 % of cases. Where there is an error, it is understated: chance adds less to it then.
    """
    names = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    if len(names) < 2:
        return Interval(math.nan, math.nan, math.nan, len(names))
    gaps = np.zeros((len(names), BINS))  # of each prompt in each bin
    np.add.at(gaps, ([names[prompt] for prompt in prompts], np.minimum((predicted * BINS).astype(int), BINS - 1)), predicted - target)
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(SIGNS, len(names)))
    chance = np.abs(signs @ gaps).sum(1) / len(target)
    error = float(np.abs(gaps.sum(0)).sum() / len(target))
    low, high = np.quantile(chance, [0.975, 0.025])
    return Interval(max(0.0, error - float(chance.mean())), max(0.0, error - float(low)), max(0.0, error - float(high)), len(names))


def _log_loss(predicted: NDArray[np.float64], target: NDArray[np.float64], prompts: Sequence[str], seed: int) -> Interval:
    return bootstrap(lambda rows: binary_log_loss(predicted[rows], target[rows]), prompts, seed=seed, resamples=RESAMPLES)
