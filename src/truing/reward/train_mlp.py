"""Fit of the mlp head, which reads frozen features, to any lesson: full-batch AdamW, all members at once.

Shapes: S responses, D features, K members.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from truing.console import track
from truing.reward.heads import MLPHead
from truing.reward.lessons import Asked, Lesson
from truing.reward.train_frozen import Fit
from truing.reward.train_pairs import bootstrap_weights, folds_by_prompt
from truing.store.ids import seed_from

if TYPE_CHECKING:
    from truing.reward.train import RewardSettings


class MLPFit(nn.Module):
    """A head, and what each member learns beside its scores."""

    def __init__(self, head: MLPHead, beside: list[nn.Module]) -> None:
        super().__init__()
        self.head, self.beside = head, nn.ModuleList(beside)

    def losses(self, x: Tensor, asked: list[Asked]) -> Tensor:
        """(K,) each member's mean loss, from (S, D) standardised features."""
        raw = self.head.raw(x)
        return torch.stack([one.loss(raw[:, member], self.beside[member]) / max(one.mass, 1e-12) for member, one in enumerate(asked)])


def fit_mlp(lesson: Lesson, features: Tensor, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> tuple[Fit, list[nn.Module]]:
    """Fit the members. Each stops at its own best step on the prompts of a fold of its own, which it doesn't learn from.

    Args:
        features: (S, D) of the lesson's responses, as the trunk gave them.
        beat: called often with how far the fit is.

    Returns:
        the head, and what each member learned beside its scores.
    """
    head = MLPHead(features.shape[1], settings.members, settings.units, seed=seed_from(seed, "head"))
    head.standardise_on(features)
    x, fit = head.standardised(features), MLPFit(head, [lesson.beside() for _ in range(settings.members)])
    learn, check = _parts(lesson, settings, seed)
    optimizer = torch.optim.AdamW(fit.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    best = BestOf(fit, settings.members)
    curve: list[dict[str, Any]] = []
    for epoch in track(range(settings.epochs), "reward fit", settings.epochs, stats=lambda: f"validation loss {curve[-1]['validation_loss']:.4f}"):
        beat(step="fit", done=epoch, total=settings.epochs)
        optimizer.zero_grad()
        losses = fit.losses(x, learn)
        with torch.no_grad():
            checks = fit.losses(x, check)
        curve.append({"epoch": epoch, "train_loss": losses.mean().item(), "validation_loss": checks.mean().item()})
        best.see(checks)
        if best.waited >= settings.patience:
            break
        losses.sum().backward()
        optimizer.step()
    best.restore()
    return Fit(head, curve, {"best_epochs": best.steps.tolist()}), list(fit.beside)


def _parts(lesson: Lesson, settings: "RewardSettings", seed: int) -> tuple[list[Asked], list[Asked]]:
    """What each member learns from, and what it is checked on."""
    prompts = sorted(set(lesson.prompts))
    folds = min(settings.folds, len(prompts))
    fold = folds_by_prompt(prompts, folds, seed).tolist()
    heeds = bootstrap_weights(prompts, settings.members, seed).tolist()
    learn, check = [], []
    for member, heed in enumerate(heeds):
        own = member % folds
        learn.append(lesson.asked({prompt: much for prompt, much, place in zip(prompts, heed, fold, strict=True) if place != own}))
        check.append(lesson.asked({prompt: 1.0 for prompt, place in zip(prompts, fold, strict=True) if place == own}))
    return learn, check


class BestOf:
    """Remembers each member's parameters where its validation loss was least.

    Attributes:
        steps: (K,) when that was.
        waited: calls of `see` since any member got better.
    """

    def __init__(self, fit: MLPFit, members: int) -> None:
        self._shared = list(fit.head.parameters())  # (K, ...) each
        self._own = [list(beside.parameters()) for beside in fit.beside]
        self._kept = [parameter.detach().clone() for parameter in self._shared]
        self._kept_own = [[parameter.detach().clone() for parameter in own] for own in self._own]
        self._least = torch.full((members,), torch.inf, dtype=torch.float64)
        self.steps = torch.zeros(members, dtype=torch.long)
        self.waited = -1
        self._calls = 0

    @torch.no_grad()
    def see(self, losses: Tensor) -> None:
        """Take in the validation loss of each member, (K,), with the parameters that it has now."""
        better = losses < self._least
        self._least = torch.where(better, losses.double(), self._least)
        self.steps[better] = self._calls
        for kept, parameter in zip(self._kept, self._shared, strict=True):
            kept[better] = parameter[better]
        for member in better.nonzero()[:, 0].tolist():
            self._kept_own[member] = [parameter.detach().clone() for parameter in self._own[member]]
        self._calls += 1
        self.waited = 0 if bool(better.any()) else self.waited + 1

    @torch.no_grad()
    def restore(self) -> None:
        """Give all the best parameters back."""
        for parameter, kept in zip(self._shared, self._kept, strict=True):
            parameter.copy_(kept)
        for own, kept_own in zip(self._own, self._kept_own, strict=True):
            for parameter, kept in zip(own, kept_own, strict=True):
                parameter.copy_(kept)
