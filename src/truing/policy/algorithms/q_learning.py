"""Q-learning of language: every token is an action, and learned from again and again, by whichever policy it was drawn.

What is learned is Q with the price of KL in it, whose best policy is the base bent by it (Guo et al. 2021, arXiv:2106.07704): Q = V + beta log(policy / base).
The policy itself is the part of Q that a token decides, V is a head on its trunk, and what comes out is a policy like any other. As in DQN (Mnih et al. 2015,
doi:10.1038/nature14236) answers of earlier updates are kept and learned from in any order, and the goal is set by a slower copy. ILQL (Snell et al. 2022,
arXiv:2206.11871) learns Q beside a policy that stays as it is; it must hold Q down where there are no data, which KL does here.
"""

from typing import ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from truing.policy.losses import masked_mean
from truing.policy.rollout import Forward
from truing.policy.settings import OnlineSettings

NAME = "q-learning"
NEEDS_VALUES = True


class QLearningSettings(OnlineSettings):
    """Tuning the policy by Q-learning."""

    UNUSED: ClassVar[tuple[str, ...]] = ("clip", "clip_high", "entropy_weight", "max_kl_old")  # it has no ratio of policies

    gamma: float = Field(1.0, gt=0, le=1, description="discount of later rewards (q-learning)")
    trace: float = Field(1.0, ge=0, le=1, description="lambda: 0 goes by the copy's next value, 1 by all rewards that came (q-learning)")
    replay: int = Field(512, ge=1, description="answers that are kept to be learned from again, the newest (q-learning)")
    copy_every: int = Field(1, ge=1, description="updates after which the copy that sets the goal is made anew (q-learning)")

    @model_validator(mode="after")
    def _priced(self) -> "QLearningSettings":
        if self.beta == 0 or self.kl_target_nats is not None:
            raise ValueError("q-learning needs a fixed beta > 0: the policy is its Q in units of beta")
        if self.at_least:
            raise ValueError("q-learning can't learn the price of a constraint (at_least): answers that are kept have the price of their day in their score")
        if self.replay < self.samples:
            raise ValueError(f"replay = {self.replay} is less than samples = {self.samples}: an update learns from at least its own answers")
        return self


Settings = QLearningSettings


def loss(new: Forward, ref_logprobs: Tensor, goal: Tensor, mask: Tensor, settings: QLearningSettings, denominator: Tensor) -> Tensor:
    """Half the squared distance of Q from its goal.

    Args:
        ref_logprobs: (B, T) nats, of the base.
        goal: (B, T) from `soft_q_targets`.
    """
    assert new.values is not None
    q = new.values + settings.beta * (new.logprobs - ref_logprobs)
    return masked_mean((q - goal).square(), mask, denominator) / 2
