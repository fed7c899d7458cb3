"""GRPO: an answer is as good as it lies above its siblings, in their standard deviations. Shao et al. 2024, arXiv:2402.03300.

Differs from RLOO: the baseline is the mean of the whole group, and the difference is divided by the group's deviation. As published,
KL from the reference is a part of the loss and every answer weighs alike, however long it is. Settings give the variants:

    scale = false, average = "constant"     Dr. GRPO, whose gradient is unbiased (Liu et al. 2025, arXiv:2503.20783)
    clip_high = 0.28, average = "tokens"    DAPO's clip-higher and token mean (Yu et al. 2025, arXiv:2503.14476)
    kl_in = "reward"                        the price of KL on the answer's reward, as in RLOO and PPO

Where KL is in the loss, it is the k2 estimator: its gradient is that of the KL. GRPO's own k3 is a good value and a wrong gradient.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from truing.policy.advantages import group_relative
from truing.policy.kl import k2
from truing.policy.losses import Average, masked_mean
from truing.policy.rollout import Forward, Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Losses, Row, Targets, surrogate

NAME = "grpo"
NEEDS_VALUES = False


class GRPOSettings(OnlineSettings):
    """Tuning the policy by GRPO."""

    average: Average = Field("responses", description="as in the paper; tokens (DAPO) and constant (Dr. GRPO) are its variants (grpo)")
    scale: bool = Field(True, description="divide by the standard deviation of the group's rewards (grpo)")
    kl_in: Literal["loss", "reward"] = Field("loss", description="where the price of KL stands: beside the surrogate, or on the answer's reward (grpo)")

    @model_validator(mode="after")
    def _siblings(self) -> "GRPOSettings":
        if self.group_size < 2:
            raise ValueError("grpo needs group_size >= 2: an answer is measured by its siblings")
        if self.kl_in == "loss" and self.kl_target_nats is not None:
            raise ValueError('an adaptive beta (kl_target_nats) steers the price on the reward: grpo needs kl_in = "reward" for it')
        if self.kl_in == "loss" and self.at_least:
            raise ValueError('a constraint (at_least) shares its price with KL on the reward: grpo needs kl_in = "reward" for it')
        return self


Settings = GRPOSettings


def targets(rollout: Rollout, settings: GRPOSettings, rows: Sequence[Row]) -> Targets:
    """(B, T): an answer's reward by its group's mean and deviation, the same on every token."""
    rewards = rollout.scores if settings.kl_in == "loss" else rollout.rewards.sum(1)
    advantages = group_relative(rewards.view(-1, settings.group_size), scale=settings.scale).reshape(-1, 1).expand_as(rollout.mask)
    return Targets(advantages, ref_logprobs=rollout.ref_logprobs if settings.kl_in == "loss" else None)


def loss(new: Forward, old: Forward, targets: Targets, mask: Tensor, settings: GRPOSettings, denominator: Tensor) -> Losses:
    """The clipped surrogate, and beside it beta times the KL from the reference."""
    policy = surrogate(new, old, targets, mask, settings, denominator)
    if targets.ref_logprobs is None:
        return Losses(policy)
    return Losses(policy, kl=settings.beta * masked_mean(k2(new.logprobs, targets.ref_logprobs), mask, denominator))
