"""A bandit whose best policy is known: under a price b of KL from the base it is the base times exp(r / b), and worth b log E exp(r / b).

Answers are one token long, so that everything can be worked out from the logits.
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from truing.models.sequences import collate
from truing.models.trunk import Trunk
from truing.policy.algorithms import ONLINE, REPLAY
from truing.policy.online import OnlineLearner
from truing.policy.replay import ReplayLearner
from tuning import PLACELESS, share_of_third_tokens

pytestmark = pytest.mark.slow

PROMPT, BETA, TEMPERATURE = [5, 6, 7], 0.5, 0.9
BY = {
    "ppo": {"lr": 1e-2, "epochs": 2},
    "reinforce": {"lr": 1e-2},
    "rloo": {"lr": 1e-2, "epochs": 2},
    "grpo": {"lr": 1e-2, "epochs": 2, "kl_in": "reward", "scale": False},
    "q-learning": {"lr": 1e-2, "epochs": 4},
}


class Worth(NamedTuple):
    """Expectations under a policy: reward, nats from the base."""

    reward: float
    kl: float

    @property
    def net(self) -> float:
        """What the policy is worth."""
        return self.reward - BETA * self.kl


def distribution(trunk: Trunk, role: str | None) -> Tensor:
    """(V,) of the answer's one token."""
    with torch.no_grad(), trunk.using(role):
        hidden = trunk.hidden(collate([PROMPT], [[0]], trunk.pad_id))
        return torch.softmax(trunk.logits(hidden[:, len(PROMPT) - 1]).double()[0] / TEMPERATURE, 0)


def worth(policy: Tensor, base: Tensor, rewards: Tensor) -> Worth:
    return Worth(float(policy @ rewards), float((policy * (policy / base).log()).nansum()))


@pytest.mark.parametrize("name", BY)
def test_it_comes_to_the_optimum_that_theory_names(trunk: Trunk, name: str) -> None:
    kind = (ONLINE | REPLAY)[name].Settings
    settings = kind.model_validate(
        {"algorithm": name, "updates": 150, "samples": 64, "group_size": 8, "microbatch": 64, "rank": 4, "truncation": "keep", "beta": BETA} | BY[name]
    )
    base = distribution(trunk, None)
    rewards = torch.tensor([share_of_third_tokens([[]], [[token]])[0] for token in range(len(base))], dtype=torch.float64)
    best = base * (rewards / BETA).exp()
    theory = worth(best / best.sum(), base, rewards)
    assert theory.net == pytest.approx(BETA * math.log(float(best.sum())), abs=1e-9)
    learner = (ReplayLearner if name == "q-learning" else OnlineLearner)(
        trunk, settings, {"one": PROMPT}, share_of_third_tokens, temperature=TEMPERATURE, max_new_tokens=1, seed=0
    )  # fmt: skip
    learner.start(PLACELESS, "base")
    for _ in range(settings.updates):
        learner.update()
    found = worth(distribution(trunk, "policy"), base, rewards)
    start = float(base @ rewards)
    assert found.net <= theory.net + 1e-9
    assert (found.net - start) / (theory.net - start) > 0.95
    assert found.reward == pytest.approx(theory.reward, rel=0.02)
    seen = learner.rows[-20:]
    assert sum(row["objective/kl"] for row in seen) / len(seen) == pytest.approx(found.kl, abs=0.05), "what is logged is what is so"
    learner.close()
