"""The fit of the linear head to judgements: that its answer is the least of what it says it makes small, in features that lean on one another."""

import pytest
import torch
from torch import Tensor

from truing.reward.judged import Judged, Said, judged, surprise
from truing.reward.losses import mean_zero
from truing.reward.train_judged import axes_of, solve
from truing.store.tables import Kind

CENTRE = 0.01


def features(responses: int, width: int) -> Tensor:
    """(S, D) fp64 of a thousandfold spread, most of it along few directions."""
    draw = torch.Generator().manual_seed(responses)
    spread = torch.logspace(1, -2, width, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64))
    found: Tensor = (torch.randn(responses, width, generator=draw, dtype=torch.float64) * spread) @ turn
    return found


def mixture(responses: int) -> Judged:
    """Pairs with ties, rankings and thumbs, of no taste in particular."""
    said = [Said(Kind.PAIR, (i, i + 1), {"strength": i % 3 - 1}, 1.0) for i in range(responses - 1)]
    said += [Said(Kind.RANKING, (i, i + 1, i + 2), {"ranks": [1, 2, 2] if i % 2 else [3, 1, 2]}, 0.5) for i in range(responses - 2)]
    return judged([*said, *(Said(Kind.THUMBS, (i,), {"up": i % 4 == 0}, 2.0) for i in range(responses))], 1.0)


@pytest.mark.parametrize(("responses", "width"), [(30, 8), (12, 20)])
def test_axes_turn_features_and_lose_nothing(responses: int, width: int) -> None:
    x = features(responses, width)
    axes = axes_of(x)
    few = min(responses, width)
    assert axes.x.shape == (responses, few)
    torch.testing.assert_close(axes.x @ axes.turn.T, x)
    torch.testing.assert_close(axes.turn.T @ axes.turn, torch.eye(few, dtype=torch.float64))
    torch.testing.assert_close(axes.x.T @ axes.x / responses, torch.diag(axes.spread), atol=1e-9, rtol=0)


@pytest.mark.parametrize("l2", [10.0, 0.1, 0.001])
@pytest.mark.parametrize(("responses", "width"), [(30, 8), (12, 20)])
def test_the_fit_is_where_nothing_pulls(responses: int, width: int, l2: float) -> None:
    """The price by its definition, on the features as they were, has no slope there in any weight or scale."""
    x, said = features(responses, width), mixture(responses)
    axes = axes_of(x)
    along, scales = solve(axes, said, l2, CENTRE)
    weight = (axes.turn @ along).requires_grad_()
    scores = x @ weight
    price = surprise(scores, said, scales) + l2 / 2 * weight.square().sum() + CENTRE * mean_zero(scores) + scales.price() / said.weight
    slopes = torch.autograd.grad(price, [weight, *scales.parameters()], allow_unused=True)
    assert max(slope.abs().max().item() for slope in slopes if slope is not None and slope.numel()) < 1e-4


def test_a_kind_given_up_doesn_t_undo_l2() -> None:
    """Pairs that no score explains beside rankings that any would: under strong L2 scores say little, whatever the scales do."""
    said = [Said(Kind.RANKING, (2 * i, 2 * i + 1), {"ranks": [1, 2]}, 1.0) for i in range(400)]
    said += [Said(Kind.PAIR, (2 * i, 2 * i + 1), {"strength": 9 * (-1) ** i}, 1.0) for i in range(400)]
    axes = axes_of(torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(400, 1))
    along, scales = solve(axes, judged(said, 1.0), 10.0, 0.0)
    lead = 2 * abs((axes.turn @ along).item()) * scales.scale(Kind.RANKING).item()
    assert 0.15 < lead < 0.25  # about 2 w s, where w = s / 2 / 10 and s is at most the root of 2
