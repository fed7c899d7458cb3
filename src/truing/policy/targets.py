"""What an algorithm hands to the loop."""

from typing import NamedTuple

from torch import Tensor

from truing.policy.losses import PolicyLoss


class Targets(NamedTuple):
    """advantages: (B, T). returns: (B, T) what the value head should have said, or None without one. Both constants."""

    advantages: Tensor
    returns: Tensor | None


class Losses(NamedTuple):
    """policy: its loss with its statistics. value: () already weighted, or None. value_clip_fraction: () or None."""

    policy: PolicyLoss
    value: Tensor | None
    value_clip_fraction: Tensor | None

    @property
    def total(self) -> Tensor:
        """() what is minimised."""
        return self.policy.loss if self.value is None else self.policy.loss + self.value
