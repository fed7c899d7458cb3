"""The loop of Q-learning: draw answers, keep them, learn from those that are kept towards a goal that a slower copy sets."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from truing.models.sequences import collate
from truing.models.trunk import Trunk
from truing.policy.advantages import soft_q_targets
from truing.policy.algorithms import q_learning
from truing.policy.kl import token_rewards
from truing.policy.losses import denominators
from truing.policy.online import OnlineLearner
from truing.policy.rollout import ROLE, Forward, Rollout, Score, deal, forward
from truing.policy.targets import Targets
from truing.store.ids import seed_from

COPY = "policy-copy"


class Kept(NamedTuple):
    """An answer to be learned from again: its prompt's and its own tokens, their log-probabilities under the base, its score."""

    prompt: list[int]
    response: list[int]
    ref_logprobs: list[float]
    score: float


class QLearner(OnlineLearner):
    """A policy that is its own Q."""

    def __init__(
        self, trunk: Trunk, settings: q_learning.QLearningSettings, prompts: Mapping[str, Sequence[int]], score: Score, *, temperature: float,
        max_new_tokens: int, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(trunk, settings, prompts, score, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        self.settings: q_learning.QLearningSettings = settings
        self.kept: list[Kept] = []
        self.copied: dict[str, Tensor] = {}  # the copy's adapter and head
