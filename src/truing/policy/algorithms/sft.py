"""SFT: imitate what people wrote, demonstrations and edits, token by token (Ouyang et al. 2022, arXiv:2203.02155, section 3.5)."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from truing.policy.examples import Example
from truing.policy.settings import OfflineSettings

NAME = "sft"
NEEDS_REFERENCE = False


class SFTSettings(OfflineSettings):
    """Tuning the policy by imitation."""

    lr: float = Field(1e-4, gt=0, description="learning rate at the start; falls linearly to 0 (sft)")
    epochs: int = Field(3, ge=1, description="passes over the examples (sft)")


Settings = SFTSettings


def mass(examples: Sequence[Example]) -> float:
    """What a step's losses are divided by: its response tokens."""
    return sum(one.weight * len(one.responses[0]) for one in examples)


def loss(
    new: Sequence[Sequence[Tensor]], reference: Sequence[Sequence[Tensor]], examples: Sequence[Example], settings: SFTSettings, denominator: float
) -> tuple[Tensor, dict[str, float]]:
    """Its part of the step's loss: nats of a token."""
    total = torch.stack([one.weight * own[0].sum() for own, one in zip(new, examples, strict=True)]).sum()
    return -total / denominator, {}
