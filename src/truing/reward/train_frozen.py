"""Fits of the heads that read frozen features: linear and mlp.

Shapes: N pairs, D features (standardised on the training responses), K members.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from truing.console import track
from truing.reward.heads import Head, LinearHead, MLPHead
from truing.reward.losses import bradley_terry
from truing.reward.train_pairs import bootstrap_weights, folds_by_prompt
from truing.store.ids import seed_from

if TYPE_CHECKING:
    from truing.reward.train import RewardSettings

L2_GRID = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)  # strongest first: each fit starts from the one before


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


def fit_frozen(data: Frozen, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> Fit:
    """Fit the head that the settings name.

    Args:
        beat: called often with how far the fit is.
    """
    width = data.a.shape[1]
    head = LinearHead(width, settings.members) if settings.head == "linear" else MLPHead(width, settings.members, settings.units, seed=seed_from(seed, "head"))
    head.standardise_on(torch.cat([data.a, data.b]))
    inputs = data._replace(a=head.standardised(data.a), b=head.standardised(data.b))
    if isinstance(head, LinearHead):
        return _fit_linear(head, inputs, settings, seed, beat)
    return _fit_mlp(head, inputs, settings, seed, beat)


# ---- linear ----


def _fit_linear(head: LinearHead, data: Frozen, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> Fit:
    """Choose the strength of L2 by cross-validation over prompts, then fit each member with its own weights."""
    curve = [] if settings.l2 is not None else _l2_path(data, settings, seed, beat)
    l2 = settings.l2 if settings.l2 is not None else min(curve, key=lambda row: (row["log_loss"], -row["l2"]))["l2"]
    heeds = bootstrap_weights(data.prompts, settings.members, seed)
    with torch.no_grad():
        for member in track(range(settings.members), "reward fit", settings.members):
            beat(step="fit", done=member, total=settings.members)
            head.weight[member] = solve_linear(data._replace(weight=data.weight * heeds[member]), l2, settings.centre).to(head.weight.dtype)
    return Fit(head, curve, {"l2": l2})


def _l2_path(data: Frozen, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> list[dict[str, Any]]:
    """A row for each strength: mean log loss and accuracy on the prompts left out."""
    folds = min(settings.folds, len(set(data.prompts)))
    fold = folds_by_prompt(data.prompts, folds, seed)
    losses, right, mass = torch.zeros(len(L2_GRID)), torch.zeros(len(L2_GRID)), torch.zeros(())
    for left_out in track(range(folds), "reward cross-validation", folds):
        beat(step="cross-validation", done=left_out, total=folds)
        train, test = _rows(data, fold != left_out), _rows(data, fold == left_out)
        weight: Tensor | None = None
        mass += test.weight.sum()
        for place, l2 in enumerate(L2_GRID):
            weight = solve_linear(train, l2, settings.centre, start=weight)
            margin = ((test.a.double() - test.b.double()) @ weight).float()
            losses[place] += test.weight.sum() * bradley_terry(margin, torch.zeros_like(margin), target=test.target, weight=test.weight)
            right[place] += (test.weight * agreement(margin, test.target)).sum()
    return [
        {"l2": l2, "log_loss": (losses[place] / mass).item(), "accuracy": (right[place] / mass).item()} for place, l2 in enumerate(L2_GRID)
    ]  # fmt: skip


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


# ---- mlp ----


def _fit_mlp(head: MLPHead, data: Frozen, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> Fit:
    """Full-batch AdamW, all members at once. Each stops at its own best step on the prompts of a fold of its own, which it doesn't learn from."""
    folds = min(settings.folds, len(set(data.prompts)))
    fold = folds_by_prompt(data.prompts, folds, seed)
    left_out = torch.stack([fold == member % folds for member in range(settings.members)]).float()  # (K, N)
    learn = bootstrap_weights(data.prompts, settings.members, seed) * data.weight * (1 - left_out)
    check = left_out * data.weight
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    best = BestOf(head)
    curve: list[dict[str, Any]] = []
    for epoch in track(range(settings.epochs), "reward fit", settings.epochs, stats=lambda: f"validation loss {curve[-1]['validation_loss']:.4f}"):
        beat(step="fit", done=epoch, total=settings.epochs)
        optimizer.zero_grad()
        a, b = head.raw(data.a), head.raw(data.b)  # (N, K)
        losses = [bradley_terry(a[:, k], b[:, k], target=data.target, weight=learn[k], centre=settings.centre) for k in range(settings.members)]
        with torch.no_grad():
            checks = torch.stack([bradley_terry(a[:, k], b[:, k], target=data.target, weight=check[k]) for k in range(settings.members)])
        curve.append({"epoch": epoch, "train_loss": torch.stack(losses).mean().item(), "validation_loss": checks.mean().item()})
        best.see(checks)
        if best.waited >= settings.patience:
            break
        torch.stack(losses).sum().backward()
        optimizer.step()
    best.restore()
    return Fit(head, curve, {"best_epochs": best.steps.tolist()})


class BestOf:
    """Remembers each member's parameters, (K, ...), where its validation loss was least.

    Attributes:
        steps: (K,) when that was.
        waited: calls of `see` since any member got better.
    """

    def __init__(self, head: MLPHead) -> None:
        self._head = head
        self._kept = [parameter.detach().clone() for parameter in head.parameters()]
        self._least = torch.full((len(head.member_mean),), torch.inf)
        self.steps = torch.zeros(len(head.member_mean), dtype=torch.long)
        self.waited = -1
        self._calls = 0

    @torch.no_grad()
    def see(self, losses: Tensor) -> None:
        """Take in the validation loss of each member, (K,), with the parameters the head has now."""
        better = losses < self._least
        self._least = torch.where(better, losses, self._least)
        self.steps[better] = self._calls
        for kept, parameter in zip(self._kept, self._head.parameters(), strict=True):
            kept[better] = parameter[better]
        self._calls += 1
        self.waited = 0 if bool(better.any()) else self.waited + 1

    @torch.no_grad()
    def restore(self) -> None:
        """Give the head its best parameters back."""
        for kept, parameter in zip(self._kept, self._head.parameters(), strict=True):
            parameter.copy_(kept)


def agreement(margin: Tensor, target: Tensor) -> Tensor:
    """(N,) 1 where score and label prefer the same response, 0 where not, 1/2 where either sees a tie."""
    return (1 + margin.sign() * (target - 0.5).sign()) / 2


def _rows(data: Frozen, mask: Tensor) -> Frozen:
    chosen = mask.nonzero()[:, 0].tolist()
    return Frozen(data.a[mask], data.b[mask], data.target[mask], data.weight[mask], [data.prompts[i] for i in chosen])
