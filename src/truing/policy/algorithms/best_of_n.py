"""Best-of-n, distilled: draw n answers to each prompt, learn to give the best of them at once.

What an update learns from is the best answer of each group by cross-entropy, as in RAFT (Dong et al. 2023, arXiv:2304.06767); n is `group_size`. The policy
that answers with the best of n of the base lies ln n - (n - 1) / n nats from it at most (Beirami et al. 2024, arXiv:2401.01879); learning from its answers,
update after update, goes on from there. Nothing is learned from the others, so that a gradient costs n times the answers that it has.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import model_validator
from torch import Tensor

from truing.policy.losses import PolicyLoss, clipped_surrogate, reinforce
from truing.policy.rollout import Forward, Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Losses, Row, Targets

NAME = "best-of-n"
NEEDS_VALUES = False


class BestOfNSettings(OnlineSettings):
    """Tuning the policy towards the best of n of its own answers."""

    UNUSED: ClassVar[tuple[str, ...]] = ("clip_high",)  # clip is only counted by

    @model_validator(mode="after")
    def _several(self) -> "BestOfNSettings":
        if self.group_size < 2:
            raise ValueError("best-of-n needs group_size >= 2: n answers to each prompt")
        return self


Settings = BestOfNSettings


def targets(rollout: Rollout, settings: BestOfNSettings, rows: Sequence[Row]) -> Targets:
    """(B, T): n on the best answer of each group, shared where several are, 0 on the others: their mean is 1."""
    scores = rollout.rewards.sum(1).view(-1, settings.group_size)  # (P, G)
    best = (scores == scores.amax(1, keepdim=True)).to(scores.dtype)
    share = settings.group_size * best / best.sum(1, keepdim=True)
    return Targets(share.reshape(-1, 1).expand_as(rollout.mask))


def loss(new: Forward, old: Forward, targets: Targets, mask: Tensor, settings: BestOfNSettings, denominator: Tensor) -> Losses:
    """Cross-entropy of the best answers."""
    with torch.no_grad():
        seen = clipped_surrogate(new.logprobs, old.logprobs, targets.advantages, mask, clip=settings.clip, denominator=denominator)
    own = reinforce(new.logprobs, targets.advantages, mask, denominator=denominator)
    return Losses(PolicyLoss(own, seen.clip_fraction, seen.kl_old, seen.max_ratio))
