"""KL: the estimators against an exact sum, the charge per token, and the controller that sets its price."""

import json
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import backward

from truing.policy.kl import AdaptiveKL, FixedKL, k1, k2, k3, per_response, token_rewards

NAN = math.nan
Estimate = Callable[[Tensor, Tensor], Tensor]


def rows(*numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


# ---- estimators ----


def test_estimators_by_hand() -> None:
    # the policy gives a token 1/2 where the reference gave 1/4, and another 1/4 where it gave 1/2
    policy, reference = rows([1 / 2, 1 / 4]).log(), rows([1 / 4, 1 / 2]).log()
    ln2 = math.log(2)
    assert k1(policy, reference).tolist() == [[near(ln2), near(-ln2)]]
    assert k2(policy, reference).tolist() == [[near(ln2**2 / 2)] * 2]
    assert k3(policy, reference).tolist() == [[near(ln2 - 1 / 2), near(1 - ln2)]]


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4): KL(p || q) = ln 2 / 2 + ln(2/3) / 2 = ln(4/3) / 2
    p, q = rows([1 / 2, 1 / 2]), rows([1 / 4, 3 / 4])
    exact = math.log(4 / 3) / 2
    mean1, mean2, mean3 = ((p * estimate(p.log(), q.log())).sum().item() for estimate in (k1, k2, k3))
    assert (mean1, mean3) == (near(exact), near(exact))
    assert mean2 != near(exact)


def test_k2_is_the_one_to_differentiate() -> None:
    logits, q = rows([0.3, -0.2, 0.9]), rows([0.2, 0.5, 0.3])

    def slope(of_tokens: bool, estimate: Estimate = k1) -> Tensor:
        x = logits.clone().requires_grad_()
        p = x.softmax(1)
        weight = p.detach() if of_tokens else p  # sampled tokens: their number doesn't depend on the parameters
        backward((weight * estimate(p.log(), q.log())).sum())
        assert x.grad is not None
        return x.grad

    exact = slope(of_tokens=False)
    torch.testing.assert_close(slope(of_tokens=True, estimate=k2), exact, rtol=0, atol=1e-12)
    assert (slope(of_tokens=True, estimate=k1).abs() < 1e-12).all()
    assert (slope(of_tokens=True, estimate=k3) - exact).abs().max() > 1e-2


@settings(deadline=None)
@given(st.lists(st.floats(-(2**-7), 2**-7, width=32), min_size=1, max_size=6))
def test_k2_and_k3_are_never_negative_in_float32(log_ratios: list[float]) -> None:
    logprobs = torch.tensor([log_ratios])
    assert (k2(logprobs, 0 * logprobs) >= 0).all()
    assert (k3(logprobs, 0 * logprobs) >= 0).all()


@pytest.mark.parametrize("estimate", [k1, k2, k3])
def test_the_reference_is_never_trained(estimate: Estimate) -> None:
    policy, reference = rows([-1, -2]).requires_grad_(), rows([-2, -1]).requires_grad_()
    backward(estimate(policy, reference).square().sum())
    assert policy.grad is not None
    assert policy.grad.any()
    assert reference.grad is None


@pytest.mark.parametrize("estimate", [k1, k2, k3])
def test_estimators_refuse_shapes_that_differ(estimate: Estimate) -> None:
    with pytest.raises(ValueError, match=r"ref_logprobs \(2, 1\)"):
        estimate(torch.zeros(2, 3), torch.zeros(2, 1))


# ---- responses and rewards ----

KL = rows([0.5, 0.25, 1], [2, NAN, NAN])
MASK = torch.tensor([[True, True, True], [True, False, False]])


def test_per_response_adds_up_real_tokens() -> None:
    assert per_response(KL, MASK).tolist() == [1.75, 2]
    with pytest.raises(ValueError, match="same shape"):
        per_response(KL, MASK[:, :1])


def test_token_rewards_by_hand() -> None:
    kl, mask = rows([0.5, 0.25, 1, NAN], [2, NAN, NAN, NAN]), torch.arange(4) < torch.tensor([[3], [1]])
    got = token_rewards(torch.tensor([10.0, -3.0], dtype=torch.float64), kl, mask, beta=0.5)
    assert got.tolist() == [[-0.25, -0.125, 10 - 0.5, 0], [-3 - 1, 0, 0, 0]]


def test_a_free_nat_leaves_the_score_alone_on_the_last_token() -> None:
    got = token_rewards(torch.tensor([1.0, 2.0]), KL, MASK, beta=0)  # scores in float32, KL in float64
    assert got.tolist() == [[0, 0, 1], [2, 0, 0]]
    assert got.dtype == torch.float64


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.floats(-5, 5, width=32)), min_size=1, max_size=4), st.floats(0, 2))
def test_a_response_earns_its_score_less_its_kl(responses: list[tuple[int, float]], beta: float) -> None:
    mask = torch.arange(6) < torch.tensor([[length] for length, _ in responses])
    scores = torch.tensor([score for _, score in responses], dtype=torch.float64)
    kl = torch.linspace(-1, 1, mask.numel(), dtype=torch.float64).view(mask.shape)
    earned = token_rewards(scores, kl, mask, beta=beta)
    torch.testing.assert_close(earned.sum(1), scores - beta * per_response(kl, mask), rtol=0, atol=1e-12)
    assert not earned[~mask].any()


def test_token_rewards_are_constants() -> None:
    scores, kl = torch.zeros(2, dtype=torch.float64, requires_grad=True), KL.clone().requires_grad_()
    assert not token_rewards(scores, kl, MASK, beta=0.1).requires_grad


def test_token_rewards_refuses_what_does_not_fit() -> None:
    empty = torch.tensor([[True, True, True], [False, False, False]])
    with pytest.raises(ValueError, match=r"found none in response \[1\]"):
        token_rewards(torch.zeros(2), KL, empty, beta=0.1)
    with pytest.raises(ValueError, match=r"scores \(2, 1\), responses \(2,\)"):
        token_rewards(torch.zeros(2, 1), KL, MASK, beta=0.1)
    with pytest.raises(ValueError, match="same shape"):
        token_rewards(torch.zeros(2), KL[:, :2], MASK, beta=0.1)


# ---- the price of a nat ----


@pytest.mark.parametrize(
    ("kl_nats", "beta"),
    [
        (4.0, 2.0),  # on target: stays
        (4.4, 2.1),  # a tenth above: half a horizon of episodes moves it by a twentieth
        (3.6, 1.9),
        (100.0, 2.2),  # far above: the error counts as a fifth
        (0.0, 1.8),
        (-3.0, 1.8),  # a noisy k1 may be negative
    ],
)
def test_adaptive_kl_by_hand(kl_nats: float, beta: float) -> None:
    controller = AdaptiveKL(2.0, target=4.0, horizon=10)
    controller.update(kl_nats, episodes=5)
    assert controller.beta == near(beta)


def test_adaptive_kl_finds_its_target() -> None:
    controller = AdaptiveKL(0.01, target=6, horizon=100)
    for _ in range(400):
        controller.update(1 / controller.beta, episodes=20)  # a policy that goes less far the dearer a nat is
    assert 1 / controller.beta == pytest.approx(6, abs=1e-6)


def test_fixed_kl_stays() -> None:
    controller = FixedKL(0.05)
    controller.update(100.0, episodes=512)
    assert controller.beta == 0.05
    assert FixedKL(0.0).beta == 0  # free is a price


def test_a_resumed_controller_goes_on_to_the_same_bits() -> None:
    def start() -> AdaptiveKL:
        return AdaptiveKL(0.15, target=6, horizon=10_000)

    unbroken, first, resumed = start(), start(), start()
    for kl_nats in (1.1, 7.3):
        unbroken.update(kl_nats, 512)
        first.update(kl_nats, 512)
    resumed.load(json.loads(json.dumps(first.state())))
    for controller in (unbroken, resumed):
        controller.update(6.5, 512)
    assert resumed.beta == unbroken.beta != start().beta
    fixed = FixedKL(0.1)
    fixed.load(FixedKL(0.3).state())
    assert fixed.beta == 0.3


@pytest.mark.parametrize("beta", [-0.1, math.inf, NAN])
def test_a_price_is_a_number(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be"):
        FixedKL(beta)


@pytest.mark.parametrize(("beta", "target", "horizon"), [(0, 6, 10), (0.1, 0, 10), (0.1, 6, 0), (0.1, NAN, 10)])
def test_a_controller_needs_room_to_move(beta: float, target: float, horizon: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        AdaptiveKL(beta, target=target, horizon=horizon)


@pytest.mark.parametrize(
    ("kl_nats", "episodes", "message"),
    [(NAN, 1, "kl_nats"), (math.inf, 1, "kl_nats"), (1.0, 50, "5 x horizon"), (1.0, -1, "5 x horizon")],
)
def test_what_would_ruin_beta_is_refused(kl_nats: float, episodes: int, message: str) -> None:
    controller = AdaptiveKL(0.1, target=6, horizon=10)
    with pytest.raises(ValueError, match=message):
        controller.update(kl_nats, episodes)
    assert controller.beta == 0.1
