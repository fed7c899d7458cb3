"""DPO: the policy is its own reward model. Rafailov et al. 2023, arXiv:2305.18290; with loss = "ipo" Azar et al. 2023, arXiv:2310.12036.

Learns from preferences at once, without a reward model, without sampling. A label is as sure as people were (`target`), and counts as much as they are trusted
(`weight`). What it can't do is say anything about answers that nobody judged.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from truing.policy.examples import Example
from truing.policy.preference_losses import PreferenceKind, preference_loss
from truing.policy.settings import OfflineSettings

NAME = "dpo"
NEEDS_REFERENCE = True


class DPOSettings(OfflineSettings):
    """Tuning the policy by DPO or IPO."""

    lr: float = Field(5e-5, gt=0, description="learning rate at the start; falls linearly to 0 (dpo)")
    beta: float = Field(0.1, gt=0, description="price of a nat that the policy moves from the base, in log-odds of a preference (dpo)")
    loss: PreferenceKind = Field("sigmoid", description="sigmoid is DPO's; ipo stops pulling once a preference is 1/2 beyond the base (dpo)")


Settings = DPOSettings


def mass(examples: Sequence[Example]) -> float:
    """What a step's losses are divided by."""
    return sum(one.weight for one in examples)


def loss(
    new: Sequence[Sequence[Tensor]], reference: Sequence[Sequence[Tensor]], examples: Sequence[Example], settings: DPOSettings, denominator: float
) -> tuple[Tensor, dict[str, float]]:
    """Its part of the step's loss, and of the means that are logged.

    Args:
        new, reference: of each example, of each of its two responses, (T,) log-probabilities.
    """
    chosen, rejected = (torch.stack([own[side].sum() for own in new]) for side in (0, 1))
    ref_chosen, ref_rejected = (torch.stack([own[side].sum() for own in reference]) for side in (0, 1))
    target, weight = (torch.tensor([getattr(one, name) for one in examples]) for name in ("target", "weight"))
    found = preference_loss(
        chosen, rejected, ref_chosen, ref_rejected, beta=settings.beta, kind=settings.loss, target=target, weight=weight, denominator=denominator
    )  # fmt: skip

    def mean(values: Tensor) -> float:
        return float((weight * values.detach()).sum()) / denominator

    side = (target >= 0.5).to(chosen.dtype)  # how far the response that was preferred moved, and how far the other one
    ups, downs = settings.beta * (chosen - ref_chosen), settings.beta * (rejected - ref_rejected)
    return found.loss, {
        "policy/accuracy": mean(found.right),
        "policy/margin": mean(found.margin * (2 * side - 1)),
        "policy/chosen_reward": mean(side * ups + (1 - side) * downs),
        "policy/rejected_reward": mean(side * downs + (1 - side) * ups),
    }
