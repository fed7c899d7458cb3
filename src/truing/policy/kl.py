"""KL divergence between the policy and its reference: estimated per token, charged in the reward, steered by beta.

Shapes: B responses, T response tokens, right-padded; `mask` is (B, T) bool. All KL is in nats. Mind the unit's other
half, per token or per response: the same number means a different thing by a factor of the response's length. The
controllers here count nats **per response**.

Both log probabilities must come from the temperature the tokens were sampled at; else the estimates are of another
divergence, and k1's mean may be negative.
"""

import math

import torch
from torch import Tensor

from truing.policy.losses import require_same_shape

MAX_ERROR = 0.2  # Ziegler et al. 2019: one update moves beta by at most a fifth of episodes / horizon


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log p - log q: unbiased for KL(p || q), of high variance, often negative: (B, T), (B, T) -> (B, T).

    p is the policy that sampled the tokens, q the reference. J. Schulman, "Approximating KL Divergence", 2020,
    http://joschu.net/blog/kl-approx.html, which writes q for the sampler and p for the other; the names k1, k2, k3
    are its. In all three the reference is a constant, detached here.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    return logprobs - ref_logprobs.detach()


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(log p - log q)^2 / 2: biased, of low variance, >= 0: (B, T), (B, T) -> (B, T).

    Its gradient is unbiased for that of KL(p || q), so of the three it is the one to differentiate. Source and errors:
    see `k1`.
    """
    return k1(logprobs, ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased for KL(p || q), of low variance, >= 0: (B, T), (B, T) -> (B, T).

    A value to log: its gradient is not the KL's. Source and errors: see `k1`.
    """
    log_ratio = -k1(logprobs, ref_logprobs)
    return log_ratio.expm1() - log_ratio  # exp(x) - 1 - x would cancel to a negative KL near x = 0


def per_response(kl: Tensor, mask: Tensor) -> Tensor:
    """Sum of the per-token estimates of each response: (B, T), (B, T) -> (B,) nats per response.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(kl=kl, mask=mask)
    return kl.masked_fill(~mask, 0).sum(dim=1)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, beta: float) -> Tensor:
    """What each token earns: -beta kl_t, plus the response's score on its last real token: (B, T), 0 on padding.

    Ziegler et al. 2019, eq. 2, arXiv:1909.08593. The last real token is the end-of-text token where the response has
    one, never the padding after it. The result is a constant.

    Args:
        scores: (B,) from the reward model.
        kl:     (B, T) nats per token, as a rule from `k1`.
        mask:   (B, T) bool.
        beta:   price of a nat, in the reward's unit, >= 0.

    Raises:
        ValueError: the shapes do not fit, or a response has no token.
    """
    require_same_shape(kl=kl, mask=mask)
    has_token = mask.any(dim=1)
    require_same_shape(scores=scores, responses=has_token)
    if not has_token.all():
        empty = (~has_token).nonzero().flatten().tolist()
        raise ValueError(f"every response needs a token to carry its score, found none in response {empty}")
    positions = torch.arange(mask.shape[1], device=mask.device)
    is_last = positions == (positions * mask).amax(dim=1, keepdim=True)  # (B, T), one True in each row
    penalty = (-beta * kl.detach()).masked_fill(~mask, 0)
    return torch.where(is_last, penalty + scores.detach().to(kl.dtype).unsqueeze(1), penalty)


class FixedKL:
    """A price of KL that stays as it is.

    Raises:
        ValueError: beta is negative or not finite.
    """

    def __init__(self, beta: float) -> None:
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta must be at least 0 and finite, found {beta}")
        self.beta = beta

    def update(self, kl_nats: float, episodes: int) -> None:
        """Take note of a batch as `AdaptiveKL.update` does; nothing moves."""

    def state(self) -> dict[str, float]:
        """What a resumed run needs; JSON keeps it to the bit."""
        return {"beta": self.beta}

    def load(self, state: dict[str, float]) -> None:
        """Continue from `state()`."""
        self.beta = state["beta"]


class AdaptiveKL(FixedKL):
    """A price of KL that steers the policy to a distance from its reference (Ziegler et al. 2019, section 2.2,
    arXiv:1909.08593).

        beta <- beta (1 + e episodes / horizon),    e = clamp(kl / target - 1, -0.2, 0.2)

    Args:
        beta:    where to start, in the reward's unit per nat, > 0.
        target:  nats **per response**, > 0.
        horizon: episodes (responses), > 0: the longer, the slower. The paper's K_beta is batch / horizon.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, beta: float, *, target: float, horizon: float) -> None:
        super().__init__(beta)
        for name, number in {"beta": beta, "target": target, "horizon": horizon}.items():
            if not 0 < number < math.inf:
                raise ValueError(f"{name} must be positive and finite, found {number}")
        self.target = target
        self.horizon = horizon

    def update(self, kl_nats: float, episodes: int) -> None:
        """Move beta after a batch.

        Args:
            kl_nats:  mean KL per response of the batch, in nats (`per_response(...).mean()`).
            episodes: responses in the batch, >= 0 and less than 5 horizons.

        Raises:
            ValueError: kl_nats is not finite (beta would be lost for good), or the batch is so large beside the
                horizon that one update could bring beta to 0 or below, from where it never returns.
        """
        if not math.isfinite(kl_nats):
            raise ValueError(f"kl_nats must be finite, found {kl_nats}")
        step = episodes / self.horizon
        if not 0 <= step * MAX_ERROR < 1:
            raise ValueError(f"episodes must be from 0 to under 5 x horizon {self.horizon}, found {episodes}")
        error = min(max(kl_nats / self.target - 1, -MAX_ERROR), MAX_ERROR)
        self.beta *= 1 + error * step
