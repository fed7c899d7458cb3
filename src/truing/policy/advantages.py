"""How much better than expected a token or a response was: from rewards to advantages.

Shapes: B responses, T response tokens, right-padded; P prompts with G responses each (a group). Rewards, values,
advantages and returns share the reward's unit until they are whitened or divided by a group's deviation. All results
are constants: nothing here carries a gradient.
"""

import torch
from torch import Tensor

from truing.policy.losses import masked_mean, require_same_shape


@torch.no_grad()
def gae(rewards: Tensor, values: Tensor, *, mask: Tensor | None = None, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2015, eq. 16, arXiv:1506.02438).

        delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lambda A_{t+1},    R_t = A_t + V_t

    A response ends with its last real token: there V_{t+1} = A_{t+1} = 0, also when it was cut off at the length limit.

    Args:
        rewards: (B, T), the KL penalty and the score included (`kl.token_rewards`).
        values:  (B, T) expected return before each token is chosen.
        mask:    (B, T) bool, right-padded; None: every position is real. Padding is never read.
        gamma:   discount per token, in [0, 1]; 1 for responses.
        lam:     lambda, in [0, 1]: 0 trusts the values (bias), 1 the sampled rewards (variance).

    Returns:
        advantages (B, T) and returns (B, T), the value function's targets; 0 on padding.

    Raises:
        ValueError: the shapes differ, or the mask is not right-padded.
    """
    mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    require_same_shape(rewards=rewards, values=values, mask=mask)
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("mask must be right-padded: a response has a real token after a padded one")
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    advantages = torch.zeros_like(rewards)
    next_value = next_advantage = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):  # padding is all zeros, so it hands zeros to the last real token
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = next_advantage = delta + gamma * lam * next_advantage
        next_value = values[:, t]
    return advantages, advantages + values


@torch.no_grad()
def soft_q_targets(rewards: Tensor, advantages: Tensor, values: Tensor, *, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """What Q of each token should be, by a slower copy of the policy and its values: (B, T), (B, T), (B, T) -> (B, T), 0 on padding.

    Under a price b of KL from the reference q the best policy p has b log(p / q) = Q - V at every token, and then on any path, whoever walked it,

        V_t + b log(p_t / q_t) = r_t + gamma V_{t+1}

    (Nachum et al. 2017, arXiv:1702.08892; for language Guo et al. 2021, arXiv:2106.07704). What Q_t = V_t + b log(p_t / q_t) should be, then, is one step's
    reward and the copy's value beyond, or, lambda at a time, more steps' rewards less what the copy's policy pays on them.

    Args:
        rewards:    (B, T) without any price of KL.
        advantages: (B, T) b log(p / q) of each token under the copy.
        values:     (B, T) of the copy, before each token is chosen.
        mask:       (B, T) bool, right-padded.
        gamma:      discount per token, in [0, 1].
        lam:        in [0, 1]: 0 goes by the next value, 1 by all that comes.

    Raises:
        ValueError: the shapes differ, or the mask is not right-padded.
    """
    require_same_shape(rewards=rewards, advantages=advantages, values=values)
    _, returns = gae(rewards - advantages, values, mask=mask, gamma=gamma, lam=lam)
    return (returns + advantages).masked_fill(~mask, 0)


@torch.no_grad()
def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Scale `x` to variance 1 over the mask, and shift it to mean 0: (B, T) -> (B, T), 0 on padding.

    As openai/lm-human-preferences (Ziegler et al. 2019, arXiv:1909.08593), which whitens advantages with the shift
    and rewards without. One token, or tokens all alike, give 0 (or the mean).

    Args:
        x:          (B, T).
        mask:       (B, T) bool. The variance is the population's: divided by the number of tokens, not one less.
        shift_mean: False keeps the mean of `x` and changes only the spread around it.
        eps:        added to the variance, in the square of the unit of `x`.

    Raises:
        ValueError: the shapes differ.
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean).square(), mask)
    scaled = (x - mean) * (variance + eps).rsqrt()
    return (scaled if shift_mean else scaled + mean).masked_fill(~mask, 0)


@torch.no_grad()
def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO: each response's reward minus the mean reward of its siblings: (P, G) -> (P, G).

    Ahmadian et al. 2024, arXiv:2402.14740; the baseline of Kool et al. 2019. The baseline leaves the response itself
    out, so it is unbiased; it equals the mean-centred reward times G / (G - 1).

    Raises:
        ValueError: `rewards` is not (P, G) with G >= 2.
    """
    _require_groups(rewards)
    baseline = (rewards.sum(dim=1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - baseline


@torch.no_grad()
def group_relative(rewards: Tensor, *, scale: bool, eps: float = 1e-4) -> Tensor:
    """GRPO: each response's reward minus its group's mean, over its group's standard deviation: (P, G) -> (P, G).

    Shao et al. 2024, arXiv:2402.03300. The deviation is the population's, as in `whiten`; libraries that take the
    sample's get advantages smaller by sqrt((G - 1) / G).

    Args:
        rewards: (P, G).
        scale:   False skips the division, which favours prompts whose responses differ little (Liu et al. 2025,
                 "Dr. GRPO", arXiv:2503.20783).
        eps:     added to the standard deviation, in the reward's unit. Large enough that a group of equal rewards,
                 whose deviation is rounding error, gives about 0 and not about 1.

    Raises:
        ValueError: `rewards` is not (P, G) with G >= 2.
    """
    _require_groups(rewards)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not scale:
        return centred
    return centred / (centred.square().mean(dim=1, keepdim=True).sqrt() + eps)


def _require_groups(rewards: Tensor) -> None:
    if rewards.dim() != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be (prompts, group) with a group of at least 2, found {tuple(rewards.shape)}")
