"""DPO and IPO: numbers worked out by hand, which way they push, and what must not change them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from truing.policy.preference_losses import PreferenceKind, preference_loss

KINDS: tuple[PreferenceKind, ...] = ("sigmoid", "ipo")
nats = st.floats(-20, 20)
some = st.lists(nats, min_size=3, max_size=3)


def row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


def test_dpo_by_hand() -> None:
    # the chosen up by ln 9, the rejected by nothing; beta 1/2: a margin of ln 3, odds 3 : 1
    got = preference_loss(row(math.log(9) - 5), row(-7), row(-5), row(-7), beta=0.5)
    assert got.loss.item() == near(math.log(4 / 3))
    assert got.margin.tolist() == [near(math.log(3))]
    assert got.right.tolist() == [1]


def test_a_graded_label_is_the_expectation_over_labels() -> None:
    # a margin of ln 3; the label is right with chance 3/4: 3/4 ln(4/3) + 1/4 ln 4
    got = preference_loss(row(math.log(3)), row(0), row(0), row(0), beta=1.0, target=row(0.75))
    assert got.loss.item() == near(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    tie = preference_loss(row(math.log(3)), row(0), row(0), row(0), beta=1.0, target=row(0.5))
    assert tie.right.tolist() == [0.5]


def test_ipo_by_hand() -> None:
    # beta 1/4 wants a difference of 2 nats; it is 5: (5 - 2)^2. The other way round: (5 + 2)^2
    assert preference_loss(row(6), row(1), row(0), row(0), beta=0.25, kind="ipo").loss.item() == near(9)
    assert preference_loss(row(6), row(1), row(0), row(0), beta=0.25, kind="ipo", target=row(0)).loss.item() == near(49)
    assert preference_loss(row(6), row(1), row(0), row(0), beta=0.25, kind="ipo", target=row(0.75)).loss.item() == near(0.75 * 9 + 0.25 * 49)


@pytest.mark.parametrize("kind", KINDS)
def test_the_chosen_is_pulled_up_and_the_rejected_pushed_down(kind: PreferenceKind) -> None:
    chosen, rejected = row(0, 0).requires_grad_(), row(0, 0).requires_grad_()
    reference = row(0, 0).requires_grad_()
    loss = preference_loss(chosen, rejected, reference, reference, beta=0.1, kind=kind, target=row(1, 0)).loss
    up, down = torch.autograd.grad(loss, (chosen, rejected), retain_graph=True)
    assert up[0] < 0 < up[1]
    assert down.tolist() == (-up).tolist()
    (still,) = torch.autograd.grad(loss, reference, allow_unused=True)
    assert still is None


@given(some, some, some, some, st.sampled_from(KINDS))
def test_swapping_a_pair_and_its_label_changes_nothing(a: list[float], b: list[float], c: list[float], d: list[float], kind: PreferenceKind) -> None:
    chosen, rejected, ref_chosen, ref_rejected, target = row(*a), row(*b), row(*c), row(*d), row(0.9, 0.5, 0.1)
    one = preference_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.3, kind=kind, target=target)
    other = preference_loss(rejected, chosen, ref_rejected, ref_chosen, beta=0.3, kind=kind, target=1 - target)
    assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-9)
    assert one.margin.tolist() == (-other.margin).tolist()
    assert one.right.tolist() == other.right.tolist()


@given(some, some, st.floats(-50, 50))
def test_what_both_responses_gain_alike_counts_for_nothing(a: list[float], b: list[float], shift: float) -> None:
    zeros = row(0, 0, 0)
    one, other = (preference_loss(row(*a) + by, row(*b) + by, zeros, zeros, beta=0.3).loss.item() for by in (0.0, shift))
    assert one == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_parts_add_up_to_the_minibatchs(kind: PreferenceKind) -> None:
    chosen, rejected, target, weight = row(1, 2, -3), row(0, 4, 1), row(1, 0.7, 0.2), row(2, 0, 0.5)
    zeros = row(0, 0, 0)
    whole = preference_loss(chosen, rejected, zeros, zeros, beta=0.3, kind=kind, target=target, weight=weight).loss.item()
    parts = [
        preference_loss(chosen[at], rejected[at], zeros[at], zeros[at], beta=0.3, kind=kind, target=target[at], weight=weight[at], denominator=2.5).loss.item()
        for at in (slice(0, 1), slice(1, 3))
    ]
    assert sum(parts) == near(whole)


def test_a_weight_counts_a_pair_as_often() -> None:
    once = preference_loss(row(1, 1, -2), row(0, 0, 0), row(0, 0, 0), row(0, 0, 0), beta=1.0).loss.item()
    assert preference_loss(row(1, -2), row(0, 0), row(0, 0), row(0, 0), beta=1.0, weight=row(2, 1)).loss.item() == near(once)


def test_what_would_broadcast_or_is_no_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        preference_loss(row(1, 2), row(1), row(1, 2), row(1, 2), beta=1.0)
    with pytest.raises(ValueError, match=r"target must lie in \[0, 1\]"):
        preference_loss(row(1), row(1), row(1), row(1), beta=1.0, target=row(1.5))


def test_a_wild_margin_stays_finite() -> None:
    chosen = row(1e4).requires_grad_()
    loss = preference_loss(chosen, row(0), row(0), row(0), beta=1.0, target=row(0)).loss
    assert loss.item() == near(1e4)
    assert torch.autograd.grad(loss, chosen)[0].item() == near(1)
