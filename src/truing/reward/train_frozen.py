"""Fit of the linear head, which reads frozen features, to pairs. The problem is convex, so that it is solved and not walked towards.

Shapes: N pairs, D features (standardised on the training responses), K members.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from truing.console import track
from truing.reward.heads import Head, LinearHead
from truing.reward.losses import bradley_terry
from truing.reward.train_pairs import bootstrap_weights, folds_by_prompt

if TYPE_CHECKING:
    from truing.reward.train import RewardSettings

L2_GRID = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)  # strongest first: each fit starts from the one before


class Fit(NamedTuple):
    """A trained head that is still to be normalised, a row for each step of its training, and what was chosen on the way."""

    head: Head
    curve: list[dict[str, Any]]
    facts: dict[str, Any]


class Frozen(NamedTuple):
    """Features of both responses of each pair, with its label. a, b: (N, D). target, weight: (N,). prompts: the prompt's id of each."""

    a: Tensor
    b: Tensor
    target: Tensor
    weight: Tensor
    prompts: Sequence[str]


def fit_linear(data: Frozen, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> Fit:
    """Choose the strength of L2 by cross-validation over prompts, then fit each member with its own weights.

    Args:
        beat: called often with how far the fit is.
    """
    head = LinearHead(data.a.shape[1], settings.members)
    head.standardise_on(torch.cat([data.a, data.b]))
    data = data._replace(a=head.standardised(data.a), b=head.standardised(data.b))
    curve = [] if settings.l2 is not None else _l2_path(data, settings, seed, beat)
    l2 = settings.l2 if settings.l2 is not None else min(curve, key=lambda row: (row["log_loss"], -row["l2"]))["l2"]
    heeds = bootstrap_weights(data.prompts, settings.members, seed)
    with torch.no_grad():
        for member in track(range(settings.members), "reward fit", settings.members):
            beat(step="fit", done=member, total=settings.members)
            head.weight[member] = solve_linear(data._replace(weight=data.weight * heeds[member]), l2, settings.centre).to(head.weight.dtype)
    return Fit(head, curve, {"l2": l2})


def _l2_path(data: Frozen, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> list[dict[str, Any]]:
    """A row for each strength down to where it gets worse: mean log loss and accuracy on the prompts left out."""
    folds = min(settings.folds, len(set(data.prompts)))
    fold = folds_by_prompt(data.prompts, folds, seed)
    weights: list[Tensor | None] = [None] * folds
    path: list[dict[str, Any]] = []
    for l2 in track(L2_GRID, "reward cross-validation", len(L2_GRID)):
        beat(step="cross-validation", done=len(path), total=len(L2_GRID))
        loss, right = 0.0, 0.0
        for left_out in range(folds):  # a fold's copy of the features at a time: all of them would be as many times the features
            found = weights[left_out] = solve_linear(_rows(data, fold != left_out), l2, settings.centre, start=weights[left_out])
            test = _rows(data, fold == left_out)
            margin = ((test.a.double() - test.b.double()) @ found).float()
            loss += (test.weight.sum() * bradley_terry(margin, torch.zeros_like(margin), target=test.target, weight=test.weight)).item()
            right += (test.weight * agreement(margin, test.target)).sum().item()
        mass = data.weight.sum().item()
        path.append({"l2": l2, "log_loss": loss / mass, "accuracy": right / mass})
        if past_the_best(path):
            break
    return path


def past_the_best(path: Sequence[dict[str, Any]]) -> bool:
    """Whether the last two strengths of L2 were worse than the best: weaker ones take longest to solve, and fit noise."""
    return len(path) > 2 and min(row["log_loss"] for row in path[-2:]) > min(row["log_loss"] for row in path)


def solve_linear(data: Frozen, l2: float, centre: float, *, start: Tensor | None = None) -> Tensor:
    """(D,) fp64: the weights that minimise bradley_terry + l2 / 2 |w|^2. The problem is convex: the answer doesn't depend on `start`, its cost does."""
    a, b = data.a.double(), data.b.double()
    target, pair_weight = data.target.double(), data.weight.double()
    weight = (torch.zeros(a.shape[1], dtype=torch.float64) if start is None else start.clone()).requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=200, tolerance_grad=1e-6, tolerance_change=1e-10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            value = bradley_terry(a @ weight, b @ weight, target=target, weight=pair_weight, centre=centre) + l2 / 2 * weight.square().sum()
            value.backward()
        return value

    optimizer.step(loss)
    return weight.detach()


def agreement(margin: Tensor, target: Tensor) -> Tensor:
    """(N,) 1 where score and label prefer the same response, 0 where not, 1/2 where either sees a tie."""
    return (1 + margin.sign() * (target - 0.5).sign()) / 2


def _rows(data: Frozen, mask: Tensor) -> Frozen:
    chosen = mask.nonzero()[:, 0].tolist()
    return Frozen(data.a[mask], data.b[mask], data.target[mask], data.weight[mask], [data.prompts[i] for i in chosen])
