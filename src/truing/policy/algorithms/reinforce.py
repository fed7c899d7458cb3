"""REINFORCE: make likelier what earned more than a baseline. Williams 1992, doi:10.1007/BF00992696.

An answer's tokens are credited with what was earned from them on: the score at the end, and the price of KL on the tokens that came after. What is
taken from it changes the noise of the gradient and not its mean, so long as it doesn't know the answer: "running" doesn't; "mean", of this update's
answers, knows each a little, which shrinks the gradient by 1 / B.

The plain product has no trust region: every answer is learned from once, in one step, unless `epochs` or `minibatches` ask for more.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from truing.policy.losses import PolicyLoss, clipped_surrogate, reinforce
from truing.policy.rollout import Forward, Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Losses, Row, Targets

NAME = "reinforce"
NEEDS_VALUES = False
MEMORY = 0.9  # of the running mean, from one update to the next


class REINFORCESettings(OnlineSettings):
    """Tuning the policy by REINFORCE."""

    UNUSED: ClassVar[tuple[str, ...]] = ("clip_high",)  # clip is only counted by

    epochs: int = Field(1, ge=1, description="passes over an update's answers; a second one learns from answers of another policy, uncorrected (reinforce)")
    baseline: Literal["mean", "running", "zero"] = Field(
        "mean", description="taken from each answer's reward: the mean of this update's, a running mean of those before, or nothing (reinforce)"
    )


Settings = REINFORCESettings


def targets(rollout: Rollout, settings: REINFORCESettings, rows: Sequence[Row]) -> Targets:
    """(B, T): the rewards from each token on, less the baseline."""
    from_here = rollout.rewards.flip(1).cumsum(1).flip(1)
    return Targets(from_here - baseline(rollout.rewards.sum(1), settings, rows))


def baseline(rewards: Tensor, settings: REINFORCESettings, rows: Sequence[Row]) -> float:
    """What an answer is expected to earn.

    Args:
        rewards: (B,) of this update's answers.
        rows: what the updates before logged; a running mean that hasn't begun is 0.
    """
    if settings.baseline == "zero":
        return 0.0
    if settings.baseline == "mean":
        return float(rewards.mean())
    mean, weight = 0.0, 0.0
    for row in rows:
        mean, weight = MEMORY * mean + (1 - MEMORY) * row["objective/reward"], MEMORY * weight + 1 - MEMORY
    return mean / weight if weight else 0.0


def loss(new: Forward, old: Forward, targets: Targets, mask: Tensor, settings: REINFORCESettings, denominator: Tensor) -> Losses:
    """The score-function loss; its statistics are the surrogate's."""
    with torch.no_grad():
        seen = clipped_surrogate(new.logprobs, old.logprobs, targets.advantages, mask, clip=settings.clip, denominator=denominator)
    own = reinforce(new.logprobs, targets.advantages, mask, denominator=denominator)
    return Losses(PolicyLoss(own, seen.clip_fraction, seen.kl_old, seen.max_ratio))
