"""Policy and value losses: functions of tensors, no model, no settings, no logging.

Shapes: B responses in the batch, T response tokens, padded. `mask` is (B, T) bool, True on generated tokens; what
stands elsewhere is never read, so padding may hold anything, NaN included, without reaching a value or a gradient.

Conventions: a loss is minimised. Log probabilities are in nats. Every mean is over the mask. Only the first argument
carries a gradient: the others are constants and are detached here, so a caller who forgets cannot train them.

`denominator`: a mean is the sum over the mask divided by this number, by default the number of tokens in the mask, or
by a number for each response, (B, 1); see `denominators`. A microbatch passes those of its whole minibatch; then losses
and gradients of the microbatches *add up* to those of the minibatch, whatever its split. Averaging the microbatches' own
means would give the tokens of a microbatch of short responses more weight. What is only looked at (`clip_fraction`,
`kl_old`) is always a mean over the tokens of the call, whatever a loss is divided by: its unit is a token's.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Average = Literal["tokens", "responses", "constant"]

LOG_RATIO_LIMIT = 20.0  # nats; exp(20) = 4.9e8 still squares without overflow in float32, exp(89) is already infinite


class PolicyLoss(NamedTuple):
    """What `clipped_surrogate` returns; only `loss` carries a gradient."""

    loss: Tensor  # ()
    clip_fraction: Tensor  # () share of tokens where the clip is active, in [0, 1]
    kl_old: Tensor  # () nats per token, >= 0: KL(old || new), k3 estimator
    max_ratio: Tensor  # () largest new/old probability ratio of a token; 0 when the mask is empty


class ValueLoss(NamedTuple):
    """What `clipped_value_loss` returns; only `loss` carries a gradient."""

    loss: Tensor  # ()
    clip_fraction: Tensor  # () share of tokens where the clip is active, in [0, 1]


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ValueError unless all tensors have one shape: a (B, 1) or (T,) would broadcast into a wrong number."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"tensors must have the same shape, found {found}")


def masked_mean(x: Tensor, mask: Tensor, denominator: Tensor | float | None = None) -> Tensor:
    """Mean of `x` over `mask`: (B, T), (B, T) -> ().

    Args:
        x:           (B, T) any unit.
        mask:        (B, T) bool.
        denominator: what the sum is divided by, or (B, 1) what each response's is; None is `mask.sum()`, and then an empty mask gives nan.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(x=x, mask=mask)
    if isinstance(denominator, Tensor) and denominator.dim():
        require_same_shape(denominator=denominator, responses=mask[:, :1])
        return (_real(x, mask) / denominator).sum()
    return _real(x, mask).sum() / (mask.sum() if denominator is None else denominator)


def denominators(lengths: Tensor, average: Average, *, limit: int) -> Tensor:
    """What the tokens of each response are divided by, so that the sum over a minibatch is a mean of the kind asked for: (B,) -> (B, 1).

        tokens      their number in the minibatch: every token weighs alike, a long response more than a short one
        responses   B times the response's own: every response weighs alike (Shao et al. 2024, arXiv:2402.03300, eq. 3)
        constant    B times the limit: as tokens, but a token's weight doesn't depend on how long the others are
                    (Liu et al. 2025, "Dr. GRPO", arXiv:2503.20783)

    Args:
        lengths: (B,) tokens of each response of the minibatch, > 0.
        limit:   most tokens that a response can have.

    Raises:
        ValueError: a response has no token, or more than the limit.
    """
    if len(lengths) == 0 or not ((lengths > 0) & (lengths <= limit)).all():
        raise ValueError(f"responses must have 1 to {limit} tokens, found {lengths.tolist()}")
    found = {"tokens": lengths.sum().expand(len(lengths)), "responses": len(lengths) * lengths, "constant": torch.full_like(lengths, len(lengths) * limit)}
    return found[average][:, None].float()


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
    denominator: Tensor | float | None = None,
) -> PolicyLoss:
    """PPO's clipped objective, negated (Schulman et al. 2017, eq. 7, arXiv:1707.06347).

        L = -mean_t min(r_t A_t, clamp(r_t, 1 - c, 1 + c_high) A_t),    r_t = exp(logprob_t - old_logprob_t)

    An upper bound further away than the lower lets unlikely tokens become likely, which an even one forbids them: a ratio is
    much for a token of little probability (Yu et al. 2025, "DAPO", arXiv:2503.14476, section 3.1).

    The log ratio is clamped to +-20 nats before exp; a token beyond that has no gradient.

    Args:
        logprobs:     (B, T) of the sampled tokens under the policy being trained; carries the gradient.
        old_logprobs: (B, T) of the same tokens when they were sampled.
        advantages:   (B, T); whitening is the caller's choice.
        mask:         (B, T) bool.
        clip:         c, half-width of the trusted ratio, dimensionless, > 0.
        clip_high:    c_high, the same above 1, > 0; None is c.
        denominator:  see the module.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages, mask=mask)
    advantages = _real(advantages.detach(), mask)
    log_ratio = _real(logprobs - old_logprobs.detach(), mask).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    free = ratio * advantages
    held = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high)) * advantages
    loss = -masked_mean(torch.minimum(free, held), mask, denominator)
    with torch.no_grad():
        clip_fraction = masked_mean((held < free).to(ratio.dtype), mask)
        # expm1(x) - x and not exp(x) - 1 - x: near x = 0, where training lives, the latter cancels to a negative KL
        kl_old = masked_mean(log_ratio.expm1() - log_ratio, mask)
        max_ratio = _real(ratio, mask).amax()
    return PolicyLoss(loss, clip_fraction, kl_old, max_ratio)


def reinforce(logprobs: Tensor, advantages: Tensor, mask: Tensor, *, denominator: Tensor | float | None = None) -> Tensor:
    """The score-function loss, L = -mean_t logprob_t A_t, whose gradient is the policy gradient's negative -> ().

    Williams 1992, "Simple statistical gradient-following algorithms", doi:10.1007/BF00992696. Its value means
    nothing by itself: only the gradient does.

    Args:
        logprobs:    (B, T) of the sampled tokens under the policy being trained; carries the gradient.
        advantages:  (B, T).
        mask:        (B, T) bool.
        denominator: see the module.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(logprobs=logprobs, advantages=advantages, mask=mask)
    return -masked_mean(_real(logprobs, mask) * _real(advantages.detach(), mask), mask, denominator)


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip: float,
    denominator: Tensor | float | None = None,
) -> ValueLoss:
    """Half the squared error, the worse of the value and of the value held near the old one.

        L = 1/2 mean_t max((v_t - R_t)^2, (v_old_t + clamp(v_t - v_old_t, -c, c) - R_t)^2)

    As in openai/lm-human-preferences (Ziegler et al. 2019, arXiv:1909.08593), from OpenAI baselines' ppo2.

    Args:
        values:      (B, T) predicted now; carries the gradient.
        old_values:  (B, T) predicted when the responses were sampled.
        returns:     (B, T) the targets, in the reward's unit, from `advantages.gae`.
        mask:        (B, T) bool.
        clip:        c, in the reward's unit, > 0.
        denominator: see the module.

    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(values=values, old_values=old_values, returns=returns, mask=mask)
    values, old_values, returns = (_real(x, mask) for x in (values, old_values.detach(), returns.detach()))
    free = (values - returns).square()
    held = (old_values + (values - old_values).clamp(-clip, clip) - returns).square()
    loss = masked_mean(torch.maximum(free, held), mask, denominator) / 2
    clip_fraction = masked_mean((held > free).to(values.dtype), mask)
    return ValueLoss(loss, clip_fraction)


def _real(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with 0 outside `mask`. Multiplying by the mask instead would turn a NaN on padding into a NaN everywhere."""
    return x.masked_fill(~mask, 0)
