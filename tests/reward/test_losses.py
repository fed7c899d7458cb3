"""The reward model's loss: by hand, by its symmetries, and what it refuses."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import backward

from truing.reward.losses import bradley_terry

LN3 = math.log(3)


def row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


def test_by_hand() -> None:
    # a lead of ln 3 means odds 3:1, p = 3/4, loss = ln(4/3); the other way round p = 1/4, loss = ln 4
    assert bradley_terry(row(LN3), row(0)).item() == near(math.log(4 / 3))
    assert bradley_terry(row(0), row(LN3)).item() == near(math.log(4))
    assert bradley_terry(row(7), row(7)).item() == near(math.log(2))
    assert bradley_terry(row(LN3, 0), row(0, LN3)).item() == near(math.log(16 / 3) / 2)


def test_soft_labels_by_hand() -> None:
    # odds 3:1 and three of four people agree: the loss is the entropy of 3/4, and nothing is left to learn
    chosen = row(LN3).requires_grad_()
    loss = bradley_terry(chosen, row(0), target=row(3 / 4))
    backward(loss)
    assert loss.item() == near(3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4))
    assert chosen.grad is not None
    assert chosen.grad.item() == near(0)
    assert bradley_terry(row(LN3), row(0), target=row(0)).item() == near(math.log(4))


def test_weights_by_hand() -> None:
    loss = bradley_terry(row(LN3, 0), row(0, LN3), weight=row(3, 1))
    assert loss.item() == near(3 / 4 * math.log(4 / 3) + 1 / 4 * math.log(4))


def test_margin_by_hand() -> None:
    # a lead of 2 ln 3 with ln 3 asked for is as surprising as one of ln 3 without; the other way round one of 3 ln 3
    assert bradley_terry(row(2 * LN3), row(0), margin=row(LN3)).item() == near(math.log(4 / 3))
    assert bradley_terry(row(0), row(2 * LN3), margin=row(LN3)).item() == near(math.log(28))
    assert bradley_terry(row(0), row(2 * LN3), target=row(0), margin=row(LN3)).item() == near(math.log(4 / 3))
    leads, even, targets = row(-3, 0.5, 2), row(0, 0, 0), row(1, 0.3, 0.6)
    assert bradley_terry(leads, even, target=targets, margin=even).item() == near(bradley_terry(leads, even, target=targets).item())


def test_centre_by_hand() -> None:
    chosen, rejected = row(2, 1), row(1, -1)  # sums 3 and 0: mean square 9/2
    free = bradley_terry(chosen, rejected, weight=row(1, 3))
    assert (bradley_terry(chosen, rejected, weight=row(1, 3), centre=0.5) - free).item() == near(9 / 4)


def test_which_way_scores_move() -> None:
    chosen, rejected = row(0, 0).requires_grad_(), row(0, 0).requires_grad_()
    backward(bradley_terry(chosen, rejected, target=row(1, 1 / 2)))
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.tolist() == [-1 / 4, 0]  # descent raises the chosen; a tie of equal scores stays
    assert rejected.grad.tolist() == [1 / 4, 0]


def test_centre_pulls_the_sum_to_0() -> None:
    chosen = row(5).requires_grad_()
    backward(bradley_terry(chosen, row(5), target=row(1 / 2), centre=0.01))
    assert chosen.grad is not None
    assert chosen.grad.item() == near(0.01 * 2 * 10)


def test_certain_scores_stay_finite() -> None:
    loss = bradley_terry(row(1000, -1000), row(0, 0))
    assert loss.item() == 500
    assert bradley_terry(row(30), row(0)).item() == pytest.approx(math.exp(-30), abs=1e-24)


score = st.floats(-20, 20)
pairs = st.lists(st.tuples(score, score, st.floats(0, 1), st.floats(0.1, 10)), min_size=1, max_size=8)
Pairs = list[tuple[float, float, float, float]]


def columns(pairs: Pairs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chosen, rejected, target, weight = torch.tensor(pairs, dtype=torch.float64).T
    return chosen, rejected, target, weight


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@settings(deadline=None)
@given(pairs, st.floats(-50, 50))
def test_only_the_difference_counts(pairs: Pairs, shift: float) -> None:
    chosen, rejected, target, weight = columns(pairs)
    expected = bradley_terry(chosen, rejected, target=target, weight=weight)
    same(bradley_terry(chosen + shift, rejected + shift, target=target, weight=weight), expected)


@settings(deadline=None)
@given(pairs)
def test_symmetries(pairs: Pairs) -> None:
    chosen, rejected, target, weight = columns(pairs)
    expected = bradley_terry(chosen, rejected, target=target, weight=weight)
    same(bradley_terry(rejected, chosen, target=1 - target, weight=weight), expected)  # a pair has no first
    same(bradley_terry(chosen, rejected, target=target, weight=8 * weight), expected)  # trust has no unit
    order = torch.arange(len(pairs)).flip(0)
    same(bradley_terry(chosen[order], rejected[order], target=target[order], weight=weight[order]), expected)
    same(bradley_terry(chosen, rejected) - bradley_terry(rejected, chosen), (rejected - chosen).mean())
    same(bradley_terry(chosen, rejected, target=torch.ones_like(target)), bradley_terry(chosen, rejected))
    same(bradley_terry(chosen, rejected, weight=torch.ones_like(weight)), bradley_terry(chosen, rejected))


@settings(deadline=None)
@given(pairs, st.tuples(score, score, st.floats(0, 1)))
def test_a_distrusted_pair_is_no_pair(pairs: Pairs, extra: tuple[float, float, float]) -> None:
    without, padded = columns(pairs), columns([*pairs, (*extra, 0.0)])
    same(
        bradley_terry(*padded[:2], target=padded[2], weight=padded[3]),
        bradley_terry(*without[:2], target=without[2], weight=without[3]),
    )


def test_labels_are_constants() -> None:
    chosen, target, weight = (row(0.5, 0.2).requires_grad_() for _ in range(3))
    backward(bradley_terry(chosen, row(1, 2), target=target, weight=weight))
    assert chosen.grad is not None
    assert (target.grad, weight.grad) == (None, None)


def test_labels_may_come_in_another_precision() -> None:
    labels = torch.tensor([1.0], dtype=torch.float32)
    assert bradley_terry(row(LN3), row(0), target=labels, weight=labels).dtype == torch.float64


@pytest.mark.parametrize(
    ("chosen", "rejected", "extra", "message"),
    [
        (row(1, 2), row(1), {}, "of one shape"),
        (row(), row(), {}, "at least one judgement"),
        (row(1).view(1, 1), row(1).view(1, 1), {}, "of one shape"),
        (row(1, 2), row(1, 2), {"target": row(1)}, "of one shape"),
        (row(1, 2), row(1, 2), {"weight": row(1)}, "of one shape"),
        (row(1), row(2), {"target": row(1.1)}, r"target must lie in \[0, 1\]"),
        (row(1), row(2), {"target": row(-0.1)}, r"target must lie in \[0, 1\]"),
        (row(1), row(2), {"target": row(math.nan)}, r"target must lie in \[0, 1\]"),
        (row(1, 1), row(2, 2), {"weight": row(1, -1)}, "not negative"),
        (row(1), row(2), {"weight": row(math.inf)}, "finite"),
        (row(1), row(2), {"weight": row(math.nan)}, "finite"),
        (row(1, 1), row(2, 2), {"weight": row(0, 0)}, "0 for every judgement"),
        (row(1), row(2), {"margin": row(-1)}, "margin must be finite and not negative"),
    ],
)
def test_refuses(chosen: Tensor, rejected: Tensor, extra: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bradley_terry(chosen, rejected, target=extra.get("target"), weight=extra.get("weight"), margin=extra.get("margin"))
