"""PPO with a learned value head on the policy's trunk. Schulman et al. 2017, arXiv:1707.06347; for language Ziegler et
al. 2019, arXiv:1909.08593.

Every default is justified in docs/tune.md. The value of a token is what the state before it promises; advantages by
GAE, whitened over the whole batch. The value head may start as the reward model's (Ouyang et al. 2022, arXiv:2203.02155,
section 3.5).
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from truing.policy.advantages import gae, whiten
from truing.policy.losses import clipped_value_loss
from truing.policy.rollout import Forward, Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Losses, Row, Targets, surrogate

NAME = "ppo"
NEEDS_VALUES = True


class PPOSettings(OnlineSettings):
    """Tuning the policy: these are PPO's settings; what other algorithms have of their own stands on their pages, docs/algorithms."""

    whiten_rewards: bool = Field(False, description="scale the rewards of an update to variance 1, their mean kept, before the advantages are taken (ppo)")
    gamma: float = Field(1.0, gt=0, le=1, description="discount of later rewards (ppo)")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="bias-variance trade of the advantage (ppo)")
    value_weight: float = Field(0.1, ge=0, description="weight of the value loss in the total (ppo)")
    value_clip: float = Field(0.2, gt=0, description="how far a value may move in an update before its gradient stops (ppo)")
    value_start: Literal["zero", "reward"] = Field(
        "zero", description="what a new value head starts as: zero, or the reward model's own head where that reads the last state of the base alone (ppo)"
    )
    critic_warmup: int = Field(0, ge=0, description="first updates in which only the value head learns (ppo)")


Settings = PPOSettings


def targets(rollout: Rollout, settings: PPOSettings, rows: Sequence[Row]) -> Targets:
    """Advantages by GAE, whitened over all real tokens of the batch; returns before whitening."""
    assert rollout.values is not None
    rewards = whiten(rollout.rewards, rollout.mask, shift_mean=False) if settings.whiten_rewards else rollout.rewards
    advantages, returns = gae(rewards, rollout.values, mask=rollout.mask, gamma=settings.gamma, lam=settings.gae_lambda)
    return Targets(whiten(advantages, rollout.mask), returns)


def loss(new: Forward, old: Forward, targets: Targets, mask: Tensor, settings: PPOSettings, denominator: Tensor) -> Losses:
    """The clipped surrogate plus the clipped value loss."""
    assert new.values is not None
    assert old.values is not None
    assert targets.returns is not None
    policy = surrogate(new, old, targets, mask, settings, denominator)
    value = clipped_value_loss(new.values, old.values, targets.returns, mask, clip=settings.value_clip, denominator=denominator)
    return Losses(policy, settings.value_weight * value.loss, value.clip_fraction)
