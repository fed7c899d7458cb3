"""Policy and value losses: numbers worked out by hand, which way they push, and what must not change them."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import backward

from truing.policy.losses import Average, clipped_surrogate, clipped_value_loss, denominators, masked_mean, reinforce

NAN = math.nan


def rows(*numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def leaf(*numbers: list[float]) -> Tensor:
    return rows(*numbers).requires_grad_()


def real(x: Tensor) -> Tensor:
    return torch.ones_like(x, dtype=torch.bool)


def gradient(x: Tensor) -> list[list[float]]:
    assert x.grad is not None
    grad: list[list[float]] = x.grad.tolist()
    return grad


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


# ---- the mean that all of them share ----

MASK = torch.tensor([[True, True, True, True], [True, False, False, False]])


def test_masked_mean_counts_tokens_not_responses() -> None:
    x = rows([1, 2, 3, 4], [10, NAN, NAN, NAN])
    assert masked_mean(x, MASK).item() == 4  # 20 over 5 tokens; a mean of the responses' means would be 6.25
    assert masked_mean(x, MASK, 8).item() == 2.5
    assert masked_mean(x, MASK, torch.tensor(8)).item() == 2.5


@pytest.mark.parametrize(("average", "mean"), [("tokens", 4.0), ("responses", 6.25), ("constant", 2.5)])
def test_a_mean_may_be_of_tokens_of_responses_or_over_a_constant(average: Average, mean: float) -> None:
    """1 2 3 4 and 10: 20 over 5 tokens; (2.5 + 10) / 2; 20 over two responses of at most 4."""
    x = rows([1, 2, 3, 4], [10, NAN, NAN, NAN])
    assert masked_mean(x, MASK, denominators(torch.tensor([4, 1]), average, limit=4)).item() == mean


def test_a_response_without_tokens_or_beyond_the_limit_has_no_mean() -> None:
    for lengths in ([4, 0], [4, 5], []):
        with pytest.raises(ValueError, match="1 to 4 tokens"):
            denominators(torch.tensor(lengths), "tokens", limit=4)


def test_masked_mean_of_nothing_is_unknown_and_adds_nothing() -> None:
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    assert math.isnan(masked_mean(rows([1, 2]), nothing).item())
    assert masked_mean(rows([1, 2]), nothing, 8).item() == 0


@pytest.mark.parametrize("shape", [(2, 1), (4,), (1, 4)])
def test_what_would_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    x, wrong = torch.zeros(2, 4), torch.zeros(shape)
    for call in (
        lambda: masked_mean(wrong, MASK),
        lambda: clipped_surrogate(x, wrong, x, MASK, clip=0.2),
        lambda: clipped_surrogate(x, x, wrong, MASK, clip=0.2),
        lambda: reinforce(x, wrong, MASK),
        lambda: clipped_value_loss(x, x, wrong, MASK, clip=0.2),
        lambda: clipped_value_loss(x, wrong, x, MASK, clip=0.2),
    ):
        with pytest.raises(ValueError, match=r"same shape, found .*mask \(2, 4\)"):
            call()


# ---- PPO's clipped objective ----


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "moves"),
    [
        (1.5, +1.0, -1.2, 0),  # good and already likelier: held at 1 + c, no gradient
        (0.5, +1.0, -0.5, +1),  # good but less likely: free, pulled up
        (1.5, -1.0, +1.5, -1),  # bad but likelier: free, pushed down
        (0.5, -1.0, +0.8, 0),  # bad and already less likely: held at 1 - c, no gradient
    ],
)
def test_clipped_surrogate_has_four_corners(ratio: float, advantage: float, loss: float, moves: int) -> None:
    logprobs = leaf([math.log(ratio)])
    got = clipped_surrogate(logprobs, rows([0]), rows([advantage]), real(logprobs), clip=0.2)
    backward(got.loss)
    assert got.loss.item() == near(loss)
    assert gradient(logprobs) == [[near(-ratio * moves)]]  # descent moves against it: up for a good token
    assert got.clip_fraction.item() == (0 if moves else 1)
    assert got.max_ratio.item() == near(ratio)


@pytest.mark.parametrize(("ratio", "advantage", "loss", "moves"), [(1.5, +1.0, -1.5, True), (1.7, +1.0, -1.6, False), (0.5, -1.0, +0.8, False)])
def test_a_higher_upper_bound_holds_good_tokens_later_and_bad_ones_as_before(ratio: float, advantage: float, loss: float, moves: bool) -> None:
    logprobs = leaf([math.log(ratio)])
    got = clipped_surrogate(logprobs, rows([0]), rows([advantage]), real(logprobs), clip=0.2, clip_high=0.6)
    backward(got.loss)
    assert got.loss.item() == near(loss)
    assert (gradient(logprobs) != [[0.0]]) is moves


def test_clipped_surrogate_by_hand() -> None:
    # ratios 2, 1/4 | 1; advantages 3, -2 | 6; clip 1/4
    # min(6, 15/4), min(-1/2, -3/2), min(6, 6): 15/4 - 3/2 + 6 = 33/4, over 3
    logprobs = rows([math.log(2), math.log(1 / 4)], [0, NAN])
    mask = torch.tensor([[True, True], [True, False]])
    got = clipped_surrogate(logprobs, rows([0, 0], [0, NAN]), rows([3, -2], [6, NAN]), mask, clip=1 / 4)
    assert got.loss.item() == near(-11 / 4)
    assert got.clip_fraction.item() == near(2 / 3)
    assert got.kl_old.item() == near((1 / 4 + math.log(2)) / 3)  # (2 - 1 - ln 2) + (1/4 - 1 + 2 ln 2) + 0, over 3
    assert got.max_ratio.item() == near(2)


@pytest.mark.parametrize("average", get_args(Average))
def test_what_is_only_looked_at_is_a_mean_over_tokens_whatever_the_loss_is(average: Average) -> None:
    """A limit on KL in nats per token would mean another thing for each average, and under "constant" next to nothing."""
    logprobs, old, advantages = rows([-1, -2, -3, -1], [-1, 0, 0, 0]), rows([-2, -2, -1, -1.5], [-1.25, 0, 0, 0]), rows([1, -2, 3, 0.5], [4, 0, 0, 0])
    denominator = denominators(MASK.sum(1), average, limit=100)
    one, other = (clipped_surrogate(logprobs, old, advantages, MASK, clip=0.2, denominator=by) for by in (None, denominator))
    assert (one.clip_fraction, one.kl_old) == (other.clip_fraction, other.kl_old)
    assert clipped_value_loss(logprobs, old, advantages, MASK, clip=0.2, denominator=denominator).clip_fraction == 3 / 5


def test_first_epoch_is_the_plain_policy_gradient() -> None:
    advantages = rows([1, -2, 3, 0.5], [4, NAN, NAN, NAN])
    ppo, plain = (leaf([-1, -2, -3, -0.5], [-0.1, 0, 0, 0]) for _ in range(2))
    got = clipped_surrogate(ppo, ppo, advantages, MASK, clip=0.2)  # the policy that sampled: every ratio is 1
    backward(got.loss)
    backward(reinforce(plain, advantages, MASK))
    assert got.loss.item() == near(-1.3)
    assert (got.clip_fraction.item(), got.kl_old.item(), got.max_ratio.item()) == (0, 0, 1)
    assert gradient(ppo) == gradient(plain)


@pytest.mark.parametrize(("log_ratio", "advantage"), [(50.0, -1.0), (-50.0, 1.0)])
def test_a_wild_ratio_stays_finite_and_pushes_no_further(log_ratio: float, advantage: float) -> None:
    logprobs = leaf([log_ratio])
    got = clipped_surrogate(logprobs, rows([0]), rows([advantage]), real(logprobs), clip=0.2)
    backward(got.loss)
    assert math.log(abs(got.loss.item())) == near(math.copysign(20, log_ratio))
    assert gradient(logprobs) == [[0]]


def test_largest_ratio_is_of_a_real_token() -> None:
    logprobs = rows([math.log(0.25), 5], [math.log(0.5), 5])
    mask = torch.tensor([[True, False], [True, False]])
    nothing = torch.zeros_like(mask)
    assert clipped_surrogate(logprobs, 0 * logprobs, logprobs, mask, clip=0.2).max_ratio.item() == near(0.5)
    assert clipped_surrogate(logprobs, 0 * logprobs, logprobs, nothing, clip=0.2, denominator=4).max_ratio.item() == 0


numbers = st.floats(-3, 3, width=32)
batches = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6)


@settings(deadline=None)
@given(batches)
def test_the_clip_only_ever_makes_the_loss_worse(batch: list[tuple[float, float, float]]) -> None:
    new, old, advantages = rows(*map(list, zip(*batch, strict=True))).unsqueeze(1)
    tight, loose = (clipped_surrogate(new, old, advantages, real(new), clip=c) for c in (0.2, 1e9))
    assert tight.loss >= loose.loss - 1e-9
    assert loose.clip_fraction.item() == 0


@settings(deadline=None)
@given(st.lists(st.floats(-(2**-10), 2**-10, width=32), min_size=1, max_size=6))
def test_kl_to_the_old_policy_is_never_negative_in_float32(log_ratios: list[float]) -> None:
    logprobs = torch.tensor([log_ratios])
    assert clipped_surrogate(logprobs, 0 * logprobs, logprobs, real(logprobs), clip=0.2).kl_old.item() >= 0


# ---- REINFORCE ----


def test_reinforce_by_hand() -> None:
    logprobs = leaf([-1, -2, -3, -4], [-5, 0, 0, 0])
    loss = reinforce(logprobs, rows([1, 1, -1, -1], [2, NAN, NAN, NAN]), MASK)
    backward(loss)
    assert loss.item() == near(6 / 5)  # -(-1 - 2 + 3 + 4 - 10) / 5
    assert gradient(logprobs) == [[near(g) for g in (-1 / 5, -1 / 5, 1 / 5, 1 / 5)], [near(-2 / 5), 0, 0, 0]]


# ---- the value function ----


@pytest.mark.parametrize("old", [0.0, 2.0])  # everything is counted from the old value
@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (0.5, 1.0, 0.32, 0.0),  # towards the target but past the clip: judged at 0.2, waits
        (0.5, 0.0, 0.125, 0.5),  # away from the target: free to come back
        (-0.5, 1.0, 1.125, -1.5),  # away on the other side
        (0.1, 1.0, 0.405, -0.9),  # within the clip: the plain squared error
    ],
)
def test_clipped_value_loss_by_hand(value: float, target: float, loss: float, slope: float, old: float) -> None:
    values = leaf([old + value])
    got = clipped_value_loss(values, rows([old]), rows([old + target]), real(values), clip=0.2)
    backward(got.loss)
    assert got.loss.item() == near(loss)
    assert gradient(values) == [[near(slope)]]
    assert got.clip_fraction.item() == (0 if slope else 1)


def test_clipped_value_loss_is_a_mean_over_tokens() -> None:
    values = rows([1, 2, 3, 4], [5, NAN, NAN, NAN])
    got = clipped_value_loss(values, values, 0 * values, MASK, clip=0.2)
    assert got.loss.item() == 5.5  # half of (1 + 4 + 9 + 16 + 25) / 5


# ---- what holds for all three ----

Loss = Callable[..., tuple[Tensor, ...]]  # logprobs or values, two constants, mask -> loss and diagnostic means

LOSSES: dict[str, Loss] = {
    "ppo": lambda x, a, b, mask, **kw: clipped_surrogate(x, a, b, mask, clip=0.2, **kw)[:3],
    "reinforce": lambda x, a, b, mask, **kw: (reinforce(x, b, mask, **kw),),
    "value": lambda x, a, b, mask, **kw: clipped_value_loss(x, a, b, mask, clip=0.2, **kw),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def batch_of_8() -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, a, b = torch.randn(3, 8, 5, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([1, 5, 2, 5, 3, 4, 1, 2]).unsqueeze(1)
    return [x, a, b], torch.arange(5) < lengths


@every_loss
@pytest.mark.parametrize("size", [1, 3, 8])
def test_microbatches_add_up_to_the_minibatch(loss: Loss, size: int) -> None:
    (x, a, b), mask = batch_of_8()
    whole, parts = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = loss(whole, a, b, mask)
    backward(expected[0])
    got = [loss(*split, denominator=mask.sum()) for split in zip(*(torch.split(tensor, size) for tensor in (parts, a, b, mask)), strict=True)]
    backward([part[0] for part in got])
    torch.testing.assert_close(sum(part[0] for part in got), expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=0, atol=1e-12)


@every_loss
@pytest.mark.parametrize("junk", [0.0, 7.0, math.inf, NAN])
def test_padding_changes_nothing(loss: Loss, junk: float) -> None:
    tensors, mask = batch_of_8()
    x = tensors[0].clone().requires_grad_()
    expected = loss(x, *tensors[1:], mask)
    backward(expected[0])
    wide_mask = torch.nn.functional.pad(mask, (0, 3), value=False)
    wide = [torch.nn.functional.pad(t, (0, 3)).masked_fill(~wide_mask, junk) for t in tensors]
    wide[0].requires_grad_()
    got = loss(*wide, wide_mask)
    backward(got[0])
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)
    assert wide[0].grad is not None
    torch.testing.assert_close(wide[0].grad[:, :5], x.grad, rtol=0, atol=1e-12)
    assert not wide[0].grad[~wide_mask].any()


@every_loss
def test_only_the_first_argument_is_trained(loss: Loss) -> None:
    tensors, mask = batch_of_8()
    x, *constants = (tensor.requires_grad_() for tensor in tensors)
    value, *diagnostics = loss(x, *constants, mask)
    backward(value)
    assert x.grad is not None
    assert [constant.grad for constant in constants] == [None, None]
    assert not any(number.requires_grad for number in diagnostics)
