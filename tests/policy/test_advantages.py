"""Advantages: by hand, by the identities they obey, and deaf to padding."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from truing.policy.advantages import gae, group_relative, leave_one_out, soft_q_targets, whiten


def rows(*numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def exactly(got: Tensor, *expected: list[float]) -> None:
    torch.testing.assert_close(got, rows(*expected), rtol=0, atol=1e-12)


numbers = st.floats(-10, 10, width=32)
steps = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=7)  # (reward, value) of each token
shares = st.floats(0, 1)

# ---- GAE ----


def test_gae_by_hand() -> None:
    # gamma = 1, lambda = 1/2, rewards 0 0 1, values 1/2 each, nothing after the end
    # deltas: 0, 0, 1/2   advantages from the right: 1/2, 0 + 1/4, 0 + 1/8
    advantages, returns = gae(rows([0, 0, 1]), rows([0.5, 0.5, 0.5]), gamma=1.0, lam=0.5)
    assert advantages.tolist() == [[1 / 8, 1 / 4, 1 / 2]]
    assert returns.tolist() == [[5 / 8, 3 / 4, 1.0]]


def test_gae_by_hand_with_a_discount() -> None:
    # gamma = 1/2, lambda = 1/2, rewards 1 2 4, values 2 4 8
    # deltas: 1 + 2 - 2 = 1, 2 + 4 - 4 = 2, 4 - 8 = -4   advantages: -4, 2 - 4/4 = 1, 1 + 1/4
    advantages, returns = gae(rows([1, 2, 4]), rows([2, 4, 8]), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[5 / 4, 1.0, -4.0]]
    assert returns.tolist() == [[13 / 4, 5.0, 4.0]]


@settings(deadline=None)
@given(steps, shares)
def test_lambda_1_returns_the_rewards_to_come(steps: list[tuple[float, float]], gamma: float) -> None:
    rewards, values = rows(*map(list, zip(*steps, strict=True))).unsqueeze(1)
    advantages, returns = gae(rewards, values, gamma=gamma, lam=1.0)
    to_come = [sum(gamma**i * reward for i, (reward, _) in enumerate(steps[t:])) for t in range(len(steps))]
    same(returns, rows(to_come))  # whatever the values are: they telescope
    same(advantages, returns - values)


@settings(deadline=None)
@given(steps, shares)
def test_lambda_0_looks_one_step_ahead(steps: list[tuple[float, float]], gamma: float) -> None:
    rewards, values = rows(*map(list, zip(*steps, strict=True))).unsqueeze(1)
    _, returns = gae(rewards, values, gamma=gamma, lam=0.0)
    same(returns - rewards, gamma * rows([*values[0, 1:].tolist(), 0.0]))


@settings(deadline=None)
@given(st.lists(steps, min_size=1, max_size=4), shares, shares)
def test_padding_neither_gets_nor_gives(responses: list[list[tuple[float, float]]], gamma: float, lam: float) -> None:
    width = max(map(len, responses)) + 1
    mask = torch.arange(width) < torch.tensor([[len(response)] for response in responses])
    rewards, values = torch.full((2, len(responses), width), math.nan, dtype=torch.float64)
    for b, response in enumerate(responses):
        rewards[b, : len(response)], values[b, : len(response)] = rows(*map(list, zip(*response, strict=True)))
    advantages, returns = gae(rewards, values, mask=mask, gamma=gamma, lam=lam)
    assert not advantages[~mask].any()
    assert not returns[~mask].any()
    for b, response in enumerate(responses):
        alone = rows(*map(list, zip(*response, strict=True))).unsqueeze(1)
        for got, expected in zip((advantages, returns), gae(*alone, gamma=gamma, lam=lam), strict=True):
            same(got[b : b + 1, : len(response)], expected)


def test_gae_is_a_constant() -> None:
    advantages, returns = gae(rows([1, 2]), rows([1, 2]).requires_grad_(), gamma=1.0, lam=0.95)
    assert not advantages.requires_grad
    assert not returns.requires_grad


@pytest.mark.parametrize("mask", [[False, True, True], [True, False, True]])
def test_gae_refuses_padding_before_a_token(mask: list[bool]) -> None:
    with pytest.raises(ValueError, match="right-padded"):
        gae(rows([1, 2, 3]), rows([1, 2, 3]), mask=torch.tensor([mask]), gamma=1.0, lam=1.0)


def test_gae_refuses_shapes_that_differ() -> None:
    with pytest.raises(ValueError, match=r"values \(1, 1\)"):
        gae(rows([1, 2, 3]), rows([1]), gamma=1.0, lam=1.0)


# ---- whitening ----

REAL = torch.tensor([[True, True], [True, False]])


def test_whiten_by_hand() -> None:
    x = rows([1, 3], [2, math.nan])  # mean 2, variance 2/3
    root = math.sqrt(3 / 2)
    exactly(whiten(x, REAL, eps=0), [-root, root], [0, 0])
    exactly(whiten(x, REAL, shift_mean=False, eps=0), [2 - root, 2 + root], [2, 0])
    exactly(whiten(x, REAL, eps=10 / 3), [-1 / 2, 1 / 2], [0, 0])  # 2/3 + 10/3 = 2^2: eps stands under the root


@settings(deadline=None)
@given(st.lists(numbers, min_size=2, max_size=9), st.booleans(), numbers)
def test_whitened_has_variance_1_and_the_mean_asked_for(x: list[float], shift_mean: bool, junk: float) -> None:
    assume(max(x) - min(x) > 0.1)
    padded = rows([*x, junk, junk])
    mask = torch.tensor([[True] * len(x) + [False] * 2])
    white = whiten(padded, mask, shift_mean=shift_mean)
    kept = white[mask]
    assert kept.var(correction=0).item() == pytest.approx(1, abs=1e-4)
    assert kept.mean().item() == pytest.approx(0 if shift_mean else sum(x) / len(x), abs=1e-9)
    assert not white[~mask].any()
    assert (kept[rows(x)[0].argsort()].diff() >= 0).all()  # nobody overtakes


def test_whiten_of_tokens_all_alike() -> None:
    exactly(whiten(rows([5, 5], [5, 9]), REAL), [0, 0], [0, 0])
    exactly(whiten(rows([5, 5], [5, 9]), REAL, shift_mean=False), [5, 5], [5, 0])


def test_whiten_is_a_constant() -> None:
    assert not whiten(rows([1, 2], [3, 4]).requires_grad_(), REAL).requires_grad


# ---- groups ----

groups = st.integers(2, 5).flatmap(lambda g: st.lists(st.lists(numbers, min_size=g, max_size=g), min_size=1, max_size=3))


def test_leave_one_out_by_hand() -> None:
    # siblings' means: (2 + 6) / 2 = 4, (1 + 6) / 2 = 3.5, (1 + 2) / 2 = 1.5
    exactly(leave_one_out(rows([1, 2, 6], [5, 5, 5])), [-3, -1.5, 4.5], [0, 0, 0])


def test_group_relative_by_hand() -> None:
    rewards = rows([0, 0, 1, 1], [3, 3, 3, 7])  # means 1/2 and 4, deviations 1/2 and sqrt(3)
    root = math.sqrt(3)
    exactly(group_relative(rewards, scale=False), [-1 / 2, -1 / 2, 1 / 2, 1 / 2], [-1, -1, -1, 3])
    exactly(group_relative(rewards, scale=True, eps=0), [-1, -1, 1, 1], [-1 / root, -1 / root, -1 / root, root])
    exactly(group_relative(rows([0, 2]), scale=True, eps=1), [-1 / 2, 1 / 2])  # 1 + 1: eps stands beside the root


def test_a_group_of_equal_rewards_teaches_nothing() -> None:
    assert group_relative(torch.full((1, 3), 0.1), scale=True).abs().max().item() < 1e-3  # float32: 0.1 is not exact


@settings(deadline=None)
@given(groups)
def test_what_groups_agree_on(rewards: list[list[float]]) -> None:
    x = rows(*rewards)
    size = x.shape[1]
    rloo, grpo = leave_one_out(x), group_relative(x, scale=False)
    same(rloo * (size - 1) / size, grpo)
    same(rloo.sum(dim=1), x.sum(dim=1) * 0)
    same(leave_one_out(x + 7), rloo)
    same(leave_one_out(x.flip(1)), rloo.flip(1))


@pytest.mark.parametrize("wrong", [torch.zeros(4), torch.zeros(4, 1), torch.zeros(2, 2, 2)])
def test_a_group_has_at_least_two(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match="group of at least 2"):
        leave_one_out(wrong)
    with pytest.raises(ValueError, match="group of at least 2"):
        group_relative(wrong, scale=False)


def test_group_advantages_are_constants() -> None:
    rewards = rows([1, 2]).requires_grad_()
    assert not leave_one_out(rewards).requires_grad
    assert not group_relative(rewards, scale=True).requires_grad


# ---- soft Q-learning's goals ----


@pytest.mark.parametrize(("lam", "goals"), [(0.0, [1 / 2, 1 / 2, 1]), (0.5, [7 / 16, 5 / 8, 1]), (1.0, [1 / 2, 3 / 4, 1])])
def test_soft_q_targets_by_hand(lam: float, goals: list[float]) -> None:
    """Rewards 0 0 1, values 1/2 each, 1/4 paid on each token. With lambda 1 a goal is what comes less what is paid later: 1 - 1/2, 1 - 1/4, 1."""
    rewards, paid, values = (torch.tensor([row], dtype=torch.float64) for row in ([0.0, 0.0, 1.0], [0.25] * 3, [0.5] * 3))
    found = soft_q_targets(rewards, paid, values, mask=torch.ones(1, 3, dtype=torch.bool), gamma=1.0, lam=lam)
    assert found.tolist() == [goals]


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=1, max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_where_values_and_policy_agree_nothing_is_to_be_learned(steps: list[tuple[float, float]], gamma: float, lam: float) -> None:
    """On a path on which V_t + A_t = r_t + gamma V_{t+1} the goal of Q is Q, whatever lambda."""
    rewards, values = (torch.tensor([row], dtype=torch.float64) for row in zip(*steps, strict=True))
    after = torch.cat([values[:, 1:], torch.zeros(1, 1, dtype=torch.float64)], 1)
    advantages = rewards + gamma * after - values
    found = soft_q_targets(rewards, advantages, values, mask=torch.ones(1, len(steps), dtype=torch.bool), gamma=gamma, lam=lam)
    assert torch.allclose(found, values + advantages, atol=1e-9)
