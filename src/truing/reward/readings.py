"""Which layers to read, and how: readings are added one at a time, as long as pairs that weren't learned from are foretold better.

What is compared is ridge regression on the label of a pair (Rifkin, Yeo & Poggio 2003, "Regularized least-squares classification"), which is solved at once
where a logistic fit walks: of readings their sum of kernels is enough. The head itself is fitted afterwards, to what was chosen.

Shapes: N pairs, R readings, H numbers of each.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from truing.console import say, track
from truing.reward.train_pairs import folds_by_prompt

CANDIDATES = tuple(f"{how}@{share}" for share in (0.2, 0.4, 0.6, 0.8, 1.0) for how in ("last", "mean", "max"))
MOST = 4  # readings
PAIRS = 2000  # what a choice is made on at most: it takes their square in memory and their cube in time
PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of the squared weights, against the kernel's mean diagonal


class Choice(NamedTuple):
    """Places of the readings in the order in which they were chosen, and a row for each: its place, the error and the accuracy with it and those before."""

    places: list[int]
    path: list[dict[str, Any]]


@torch.no_grad()
def choose_readings(a: Tensor, b: Tensor, target: Tensor, weight: Tensor, prompts: Sequence[str], *, folds: int, seed: int) -> Choice:
    """Choose by cross-validation over prompts.

    Another reading must lower the mean squared error on pairs left out by more than the standard error of the change.

    Args:
        a, b: (N, R, H) what each reading says of the two responses of a pair.
        target: (N,) in [0, 1], how surely the first is preferred.
        weight: (N,) of each pair.
        prompts: the prompt's id of each.
    """
    if len(prompts) > PAIRS:
        say(f"the readings are chosen on {PAIRS:,} of {len(prompts):,} pairs")
        some = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed % (1 << 63)))[:PAIRS].sort().values
        a, b, target, weight, prompts = a[some], b[some], target[some], weight[some], [prompts[place] for place in some.tolist()]
    kernels, labels, heed = _kernels(a, b), 2 * target.double() - 1, weight.double()
    fold = folds_by_prompt(prompts, min(folds, len(set(prompts))), seed)
    choice, least, kernel = Choice([], []), labels.square(), torch.zeros(len(prompts), len(prompts), dtype=torch.float64)
    for _ in track(range(MOST), "reward readings", MOST):
        tried = {}
        for place in (other for other in range(len(kernels)) if other not in choice.places):
            tried[place] = _foretold(kernel + kernels[place], labels, heed, fold)
        best = min(tried, key=lambda place: (_mean((labels - tried[place]).square(), heed), place))
        error = (labels - tried[best]).square()
        gain = least - error
        if choice.places and _mean(gain, heed) <= _standard_error(gain, heed, prompts):
            break
        right = (1 + tried[best].sign() * labels.sign()) / 2
        choice.places.append(best)
        choice.path.append({"reading": best, "error": _mean(error, heed), "accuracy": _mean(right, heed)})
        least, kernel = error, kernel + kernels[best]
    return choice


def _kernels(a: Tensor, b: Tensor) -> list[Tensor]:
    """R of (N, N) fp64: products of the pairs' standardised differences."""
    found = []
    for place in range(a.shape[1]):
        first, second = a[:, place].double(), b[:, place].double()
        spread = torch.cat([first, second]).std(0)
        steps = (first - second) / torch.where(spread > 0, spread, torch.ones_like(spread))
        found.append(steps @ steps.T / steps.shape[1])
    return found


def _foretold(kernel: Tensor, labels: Tensor, weight: Tensor, fold: Tensor) -> Tensor:
    """(N,) labels of each fold by a fit to the others, with the penalty that foretells best."""
    heeded = weight > 0
    found = torch.zeros(len(PENALTIES), len(labels), dtype=torch.float64)
    for left_out in fold.unique().tolist():
        train, test = (fold != left_out) & heeded, fold == left_out
        own = kernel[train][:, train]
        noise = own.diagonal().mean().clamp_min(1e-12) / weight[train]
        for row, penalty in enumerate(PENALTIES):
            found[row, test] = kernel[test][:, train] @ torch.linalg.solve(own + torch.diag(penalty * noise), labels[train])
    best: Tensor = min(found, key=lambda row: _mean((labels - row).square(), weight))
    return best


def _standard_error(values: Tensor, weight: Tensor, prompts: Sequence[str]) -> float:
    """Of a weighted mean. Pairs of a prompt are not independent, so that their deviations are summed before they are squared."""
    place = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    unit = torch.tensor([place[prompt] for prompt in prompts])
    off = torch.zeros(len(place), dtype=torch.float64).index_add_(0, unit, weight * (values - _mean(values, weight)))
    return float(off.square().sum().item() ** 0.5 / weight.sum().item())


def _mean(values: Tensor, weight: Tensor) -> float:
    return ((values * weight).sum() / weight.sum()).item()
