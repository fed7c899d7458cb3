"""Fit of the linear head to what people said, as they said it: pairs with ties, rankings, ratings, thumbs and edits in one likelihood (judged.py).

Shapes: S responses, D features (standardised on the training responses), R of their axes, K members.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from truing.console import track
from truing.reward.heads import LinearHead
from truing.reward.judged import Judged, Scales, surprise, surprises
from truing.reward.lessons import SaidLesson
from truing.reward.losses import mean_zero
from truing.reward.train_frozen import L2_GRID, Fit, past_the_best
from truing.reward.train_pairs import bootstrap_weights, folds_by_prompt
from truing.store.tables import Kind

if TYPE_CHECKING:
    from truing.reward.train import RewardSettings

FAR = 10.0  # from 0, in nats: further no scale, tie or cut is looked for
BEND = 0.25  # of a judgement's surprise where all scores are alike: the p (1 - p) of a coin


class Axes(NamedTuple):
    """Features turned onto their principal axes. Axes differ in spread by orders of magnitude; a search that knows how far each reaches takes fewer steps.

    Attributes:
        x: (S, R) fp64 features along the axes; R is D, or S where that is less.
        turn: (D, R) fp64 with orthonormal columns; no weight that L2 holds small leaves the space that they span.
        spread: (R,) mean squares along the axes.
    """

    x: Tensor
    turn: Tensor
    spread: Tensor


class JudgedFit(NamedTuple):
    """A head that is still to be normalised, and each member's scales."""

    fit: Fit
    scales: list[Scales]


def fit_judged(told: SaidLesson, features: Tensor, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> JudgedFit:
    """Choose the strength of L2 by cross-validation over prompts, then fit each member with its own weights.

    Args:
        features: (S, D) of the responses, as the trunk gave them.
        beat: called often with how far the fit is.
    """
    head = LinearHead(features.shape[1], settings.members)
    head.standardise_on(features)
    axes = axes_of(head.standardised(features).double())
    curve = [] if settings.l2 is not None else _l2_path(told, axes, settings, seed, beat)
    l2 = settings.l2 if settings.l2 is not None else min(curve, key=lambda row: (row["log_loss"], -row["l2"]))["l2"]
    prompts = sorted(set(told.prompts))
    heeds = bootstrap_weights(prompts, settings.members, seed)
    scales = []
    for member in track(range(settings.members), "reward fit", settings.members):
        beat(step="fit", done=member, total=settings.members)
        weight, own = solve(axes, told.tensors(dict(zip(prompts, heeds[member].tolist(), strict=True))), l2, settings.centre)
        with torch.no_grad():
            head.weight[member] = (axes.turn @ weight).to(head.weight.dtype)
        scales.append(own)
    return JudgedFit(Fit(head, curve, {"l2": l2, "scales": _in_words(scales)}), scales)


def axes_of(x: Tensor) -> Axes:
    """The principal axes of (S, D) fp64 features about 0."""
    turn, _ = torch.linalg.qr(x.T)
    inside = x @ turn
    spread, within = torch.linalg.eigh(inside.T @ inside / len(x))
    return Axes(inside @ within, turn @ within, spread.clamp(min=0))


def solve(axes: Axes, said: Judged, l2: float, centre: float, *, start: Tensor | None = None) -> tuple[Tensor, Scales]:
    """(R,) fp64 weights along the axes, and scales, that make surprise + l2 / 2 |w|^2 + centre (mean score)^2 + the scales' price least.

    Args:
        start: (R,) where to begin.
    """
    step = (l2 + BEND * axes.spread) ** -0.5  # (R,): in this unit of a weight the price bends alike along every axis, and about as it does for the scales
    x, bend = axes.x * step, l2 * step**2
    scales = Scales(said.forms)
    beside, width = list(scales.parameters()), x.shape[1]
    first = torch.zeros(width, dtype=torch.float64) if start is None else start / step

    def price(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        free = torch.from_numpy(at).requires_grad_()
        vector_to_parameters(free.detach()[width:], beside)
        with torch.enable_grad():
            scores = x @ free[:width]
            value = surprise(scores, said, scales) + bend @ free[:width].square() / 2 + centre * mean_zero(scores) + scales.price() / said.weight
            gradient, *others = torch.autograd.grad(value, [free, *beside], allow_unused=True)
        rest = [torch.zeros_like(own) if one is None else one for own, one in zip(beside, others, strict=True)]
        gradient[width:] = parameters_to_vector(rest)
        return value.item(), gradient.numpy()

    begin = torch.cat([first, parameters_to_vector(beside).detach()]).numpy()
    bounds = [(None, None)] * width + [(-FAR, FAR)] * (len(begin) - width)  # a search that looks further meets infinities
    best = minimize(price, begin, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "gtol": 1e-6, "ftol": 1e-10}).x
    vector_to_parameters(torch.from_numpy(best[width:]), beside)
    return torch.from_numpy(best[:width]) * step, scales


def held_out_surprise(told: SaidLesson, raw: Tensor, scales: Sequence[Scales], ignorant: Scales) -> dict[str, dict[str, float]]:
    """Of each kind that was held out: nats of a judgement in the mean, by the mean over members of its likelihood's log; nats of it for somebody to whom all
    responses are alike, so that what is less was learned; and how many there are.

    Args:
        raw: (S, K) each member's scores of the responses.
        ignorant: the scales of that somebody, fitted to the train judgements.
    """
    said = told.tensors()
    found: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        each = [surprises(raw[:, member].double(), said, own) for member, own in enumerate(scales)]
        alike = surprises(torch.zeros(len(raw), dtype=torch.float64), said, ignorant)
    counts = {kind: sum(one.kind == kind or (kind == Kind.PAIR and one.kind == Kind.EDIT) for one in told.said) for kind in each[0]}
    for kind in each[0]:
        found[str(kind)] = {"nats": float(sum(one[kind][0].item() for one in each) / len(each)), "alike": alike[kind][0].item(), "n": counts[kind]}
    return found


def _l2_path(told: SaidLesson, axes: Axes, settings: "RewardSettings", seed: int, beat: Callable[..., None]) -> list[dict[str, Any]]:
    """A row for each strength down to where it gets worse: mean surprise on the prompts left out."""
    prompts = sorted(set(told.prompts))
    folds = min(settings.folds, len(prompts))
    fold = folds_by_prompt(prompts, folds, seed).tolist()
    parts = []
    for left_out in range(folds):
        train, test = ({prompt: 1.0 for prompt, place in zip(prompts, fold, strict=True) if (place == left_out) is out} for out in (False, True))
        parts.append((told.tensors(train), told.tensors(test)))
    mass = sum(unseen.weight for _, unseen in parts)
    weights: list[Tensor | None] = [None] * folds
    path: list[dict[str, Any]] = []
    for l2 in track(L2_GRID, "reward cross-validation", len(L2_GRID)):
        beat(step="cross-validation", done=len(path), total=len(L2_GRID))
        loss = 0.0
        for place, (seen, unseen) in enumerate(parts):
            weight, scales = solve(axes, seen, l2, settings.centre, start=weights[place])
            weights[place] = weight
            with torch.no_grad():
                loss += unseen.weight * surprise(axes.x @ weight, unseen, scales).item()
        path.append({"l2": l2, "log_loss": loss / mass})
        if past_the_best(path):
            break
    return path


def _in_words(scales: Sequence[Scales]) -> dict[str, float]:
    """The members' mean scales, for the manifest."""
    names = {"pair": Kind.PAIR, "ranking": Kind.RANKING, "rating": Kind.RATING, "thumbs": Kind.THUMBS}
    found = {f"scale_{name}": sum(own.scale(kind).item() for own in scales) / len(scales) for name, kind in names.items()}
    return found | {"log_tie": sum(own.log_tie.item() for own in scales) / len(scales)}
