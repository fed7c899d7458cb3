"""Tuning runs that take a second: settings, rewards and prompts for the tiny model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from truing.artifacts import Artifact
from truing.models.trunk import Trunk
from truing.policy.algorithms import ONLINE, REPLAY
from truing.policy.online import OnlineLearner
from truing.policy.rewards import Score
from truing.policy.settings import OnlineSettings
from truing.policy.train import train_policy
from truing.store.project import Project

PLACELESS = Path("no-artifacts-are-read-when-the-parent-is-the-base")
PROMPTS = {"one": [5, 6, 7], "two": [9, 10], "three": [11, 12, 13, 14, 15], "four": [16]}
TEMPERATURE = 0.9


def settings_for(name: str, **changes: Any) -> OnlineSettings:
    """Small settings of an algorithm."""
    kind: type[OnlineSettings] = (ONLINE | REPLAY)[name].Settings
    return kind.model_validate(
        {"algorithm": name, "updates": 4, "samples": 8, "group_size": 2, "microbatch": 4, "rank": 2, "lr": 3e-3, "truncation": "keep"} | changes
    )


def share_of_third_tokens(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    """A reward with a known best: the share of an answer's tokens whose id leaves 2 when divided by 3. The worst is 0, the best 1, chance about a third."""
    return [sum(token % 3 == 2 for token in response) / len(response) for response in responses]


def learner_for(trunk: Trunk, settings: OnlineSettings, *, score: Score = share_of_third_tokens, seed: int = 0, max_new_tokens: int = 6) -> OnlineLearner:
    """A learner whose adapter is on the trunk, before its first update."""
    learner = OnlineLearner(trunk, settings, PROMPTS, score, temperature=TEMPERATURE, max_new_tokens=max_new_tokens, seed=seed)
    learner.start(PLACELESS, "base")
    return learner


def tune(
    project: Project,
    trunk: Trunk,
    settings: OnlineSettings,
    *,
    score: Score = share_of_third_tokens,
    parent: str = "base",
    seed: int = 0,
    max_new_tokens: int = 6,
) -> Artifact:
    """A whole run of the stage."""
    return train_policy(
        project, settings, trunk=trunk, prompts=PROMPTS, score=score, reward_id="reward-0123456789abcdef", parent=parent, temperature=TEMPERATURE,
        max_new_tokens=max_new_tokens, seed=seed,
    )  # fmt: skip
