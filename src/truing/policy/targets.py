"""What an algorithm hands to the loop."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from truing.policy.losses import PolicyLoss, clipped_surrogate
from truing.policy.rollout import Forward
from truing.policy.settings import OnlineSettings

Row = Mapping[str, float]  # what an update logged


class Targets(NamedTuple):
    """What a rollout's tokens are worth; all constants.

    Attributes:
        advantages: (B, T).
        returns: (B, T) what the value head should have said, or None without one.
        ref_logprobs: (B, T) nats, where KL from the reference is a part of the loss; else None.
    """

    advantages: Tensor
    returns: Tensor | None = None
    ref_logprobs: Tensor | None = None

    def part(self, rows: list[int], longest: int) -> "Targets":
        """Those of some answers, up to their longest."""
        returns, reference = (None if values is None else values[rows, :longest] for values in (self.returns, self.ref_logprobs))
        return Targets(self.advantages[rows, :longest], returns, reference)


class Losses(NamedTuple):
    """What is minimised.

    Attributes:
        policy: its loss with its statistics.
        value: () already weighted, or None.
        value_clip_fraction: () or None.
        kl: () already weighted, where it is a part of the loss, or None.
    """

    policy: PolicyLoss
    value: Tensor | None = None
    value_clip_fraction: Tensor | None = None
    kl: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """()."""
        return self.policy.loss + sum(part for part in (self.value, self.kl) if part is not None)


def surrogate(new: Forward, old: Forward, targets: Targets, mask: Tensor, settings: OnlineSettings, denominator: Tensor) -> PolicyLoss:
    """PPO's clipped objective by the settings."""
    return clipped_surrogate(
        new.logprobs, old.logprobs, targets.advantages, mask, clip=settings.clip, clip_high=settings.clip_high, denominator=denominator
    )  # fmt: skip
