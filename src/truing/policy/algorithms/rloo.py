"""RLOO: REINFORCE with the mean of the sibling answers as baseline. Ahmadian et al. 2024, arXiv:2402.14740.

Differs from PPO: no value head; an answer is one action, its reward the score less beta times its KL. Differs from
GRPO: the baseline leaves the answer itself out, and nothing is divided by a standard deviation. The clipped surrogate
stands in for REINFORCE's plain product, whose gradient it has on the first step, so that a second epoch over the same
answers stays within the trust region.
"""

from collections.abc import Sequence

from pydantic import model_validator
from torch import Tensor

from truing.policy.advantages import leave_one_out
from truing.policy.rollout import Forward, Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Losses, Row, Targets, surrogate

NAME = "rloo"
NEEDS_VALUES = False


class RLOOSettings(OnlineSettings):
    """Tuning the policy by RLOO."""

    @model_validator(mode="after")
    def _siblings(self) -> "RLOOSettings":
        if self.group_size < 2:
            raise ValueError("rloo needs group_size >= 2: the baseline is the mean of the siblings")
        return self


Settings = RLOOSettings


def targets(rollout: Rollout, settings: RLOOSettings, rows: Sequence[Row]) -> Targets:
    """(B, T): an answer's reward minus the mean reward of its siblings, the same on every token."""
    rewards = rollout.rewards.sum(1).view(-1, settings.group_size)  # (P, G)
    return Targets(leave_one_out(rewards).reshape(-1, 1).expand_as(rollout.mask))


def loss(new: Forward, old: Forward, targets: Targets, mask: Tensor, settings: RLOOSettings, denominator: Tensor) -> Losses:
    """The clipped surrogate."""
    return Losses(surrogate(new, old, targets, mask, settings, denominator))
