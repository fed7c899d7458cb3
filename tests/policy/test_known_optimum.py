"""A bandit whose best policy is known: under a price b of KL from the base it is the base times exp(r / b), and worth b log E exp(r / b).

Answers are one token long, so that everything can be worked out from the logits. A model this small can't give every token the probability that it likes: the
reward is such that the best answer to one prompt is what the base says to another. What each came to stands in the report of `pytest --junitxml FILE`.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from torch import Tensor

from policy.bandit import BETA, OTHER, PROMPT, TEMPERATURE, distribution
from truing.models.trunk import Trunk
from truing.policy.algorithms import ONLINE, REPLAY
from truing.policy.settings import OnlineSettings
from truing.policy.train import online_learner
from tuning import PLACELESS

pytestmark = pytest.mark.slow

BY: dict[str, dict[str, object]] = {
    "ppo": {"lr": 1e-2, "epochs": 2},
    "reinforce": {"lr": 1e-2},
    "rloo": {"lr": 1e-2, "epochs": 2},
    "grpo": {"lr": 1e-2, "epochs": 2, "kl_in": "reward", "scale": False},
    "q-learning": {"lr": 1e-2, "epochs": 2},
    "ppo, every weight": {"weights": "full", "lr": 3e-3, "epochs": 2},
    "q-learning, every weight": {"weights": "full", "lr": 3e-3, "epochs": 2},
}


class Worth(NamedTuple):
    """Expectations under a policy: reward, nats from the base."""

    reward: float
    kl: float

    @property
    def net(self) -> float:
        """What the policy is worth."""
        return self.reward - BETA * self.kl


def worth(policy: Tensor, base: Tensor, rewards: Tensor) -> Worth:
    return Worth(float(policy @ rewards), float((policy * (policy / base).log()).nansum()))


@pytest.mark.parametrize("name", BY)
def test_it_comes_to_the_optimum_that_theory_names(trunk: Trunk, name: str, record_property: Callable[[str, object], None]) -> None:
    algorithm = name.partition(",")[0]
    kind: type[OnlineSettings] = (ONLINE | REPLAY)[algorithm].Settings
    settings = kind.model_validate(
        {"algorithm": algorithm, "updates": 100, "samples": 64, "group_size": 8, "microbatch": 64, "rank": 4, "truncation": "keep", "beta": BETA} | BY[name]
    )
    base = distribution(trunk, None)
    rewards = 1 + BETA * (distribution(trunk, None, OTHER) / base).log()

    def score(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return [float(rewards[response[0]]) for response in responses]

    best = base * (rewards / BETA).exp()
    theory = worth(best / best.sum(), base, rewards)
    assert theory.net == pytest.approx(BETA * math.log(float(best.sum())), abs=1e-9)
    learner = online_learner(trunk, settings, {"one": PROMPT}, score, temperature=TEMPERATURE, max_new_tokens=1, seed=0)
    learner.start(PLACELESS, "base")
    for _ in range(settings.updates):
        learner.update()
    found = worth(distribution(trunk, "policy"), base, rewards)
    start = float(base @ rewards)
    record_property("share of the optimum", (found.net - start) / (theory.net - start))
    record_property("reward and KL, of theory's", (found.reward / theory.reward, found.kl / theory.kl))
    assert found.net <= theory.net + 1e-9
    assert (found.net - start) / (theory.net - start) > 0.95
    assert abs(found.reward / theory.reward - 1) < 0.02
    assert abs(found.kl / theory.kl - 1) < 0.02
    policy, seen = distribution(trunk, "policy"), learner.rows[-20:]
    for logged, each, exact in (("objective/kl", (policy / base).log(), found.kl), ("objective/scores", rewards, found.reward)):
        error = math.sqrt(float(policy @ (each - exact).square()) / (len(seen) * settings.samples))
        assert sum(row[logged] for row in seen) / len(seen) == pytest.approx(exact, abs=error * 4), "what is logged is what is so"
    learner.close()
