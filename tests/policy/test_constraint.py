"""Constraints whose price is learned: by hand, and on a bandit whose best feasible policy is known."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from policy.bandit import BETA, OTHER, PROMPT, TEMPERATURE, distribution
from truing.errors import SettingError
from truing.models.trunk import Trunk
from truing.policy.algorithms import ONLINE
from truing.policy.constraint import Constraint
from truing.policy.settings import OnlineSettings
from truing.policy.train import online_learner
from tuning import PLACELESS, learner_for, settings_for

THIRD = [30]  # another prompt of the bandit


def test_by_hand() -> None:
    """Prices 1 and 1/2, thresholds 0 and 2: (3 + 1 (4 - 0) + 1/2 (1 - 2)) / 5/2 = 13/5."""
    constraint = Constraint({"brief": 0.0, "safe": 2.0}, lr=0.5, start=1.0)
    constraint.load({"brief": 1.0, "safe": 0.5})
    objectives = {"brief": torch.tensor([4.0]), "safe": torch.tensor([1.0]), "other": torch.tensor([9.0])}
    assert constraint.share == pytest.approx(0.4)
    assert constraint.blended(torch.tensor([3.0]), objectives).tolist() == pytest.approx([2.6])
    constraint.update(objectives)
    assert constraint.state() == {"brief": 0.0, "safe": 1.0}, "kept, it falls and never below 0; 1 short, it rises by the rate"


@pytest.mark.parametrize(("least", "lr", "start"), [(float("nan"), 0.1, 1.0), (0.0, 0.0, 1.0), (0.0, 0.1, -1.0)])
def test_what_is_no_constraint_is_refused(least: float, lr: float, start: float) -> None:
    with pytest.raises(ValueError, match="constraint"):
        Constraint({"brief": least}, lr=lr, start=start)


class Two:
    """A reward with an objective beside it, each a number for every token."""

    def __init__(self, rewards: Tensor, other: Tensor) -> None:
        self.rewards, self.other = rewards, other
        self.parts = {"main": None, "other": None}

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        return self.score_objectives(prompts, responses)[0]

    def score_objectives(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float], dict[str, list[float]]]:
        main, other = ([float(values[response[0]]) for response in responses] for values in (self.rewards, self.other))
        return main, [0.0] * len(main), {"main": main, "other": other}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ppo", "rloo"])
def test_it_comes_to_the_best_that_is_feasible(trunk: Trunk, name: str) -> None:
    """Without the constraint the best policy would answer as the base answers OTHER. The objective beside it is such that with a price of 3/2 the best is what
    the base says to THIRD, and the threshold is its mean there: so that this is the best feasible policy, and 3/2 the price."""
    base, free, feasible = (distribution(trunk, None, prompt) for prompt in (PROMPT, OTHER, THIRD))
    price = 1.5
    rewards = BETA * (free / base).log()
    other = BETA / price * (feasible / free).log()
    least = float(feasible @ other)
    assert float(free @ other) < least - 0.2, "without a price it isn't kept"
    kind: type[OnlineSettings] = ONLINE[name].Settings
    settings = kind.model_validate(
        {"algorithm": name, "updates": 130, "samples": 64, "group_size": 8, "microbatch": 64, "rank": 4, "truncation": "keep", "beta": BETA, "lr": 1e-2,
         "at_least": {"other": least}, "at_least_price": 0.5}
    )  # fmt: skip
    learner = online_learner(trunk, settings, {"one": PROMPT}, Two(rewards, other), temperature=TEMPERATURE, max_new_tokens=1, seed=0)
    learner.start(PLACELESS, "base")
    for _ in range(settings.updates):
        learner.update()
    policy = distribution(trunk, "policy")
    prices = [row["objective/price/other"] for row in learner.rows]

    def worth(one: Tensor) -> float:
        return float(one @ rewards) - BETA * float((one * (one / base).log()).nansum())

    assert abs(float(policy @ other) - least) < 0.05, "the constraint is kept, and no more than it must be"
    assert abs(worth(policy) - worth(feasible)) < 0.05
    assert abs(prices[-1] - price) < 0.2
    learner.close()


def test_a_resumed_run_goes_on_at_its_prices(trunk: Trunk) -> None:
    changes: dict[str, Any] = {"at_least": {"other": 0.0}, "at_least_price": 0.5}
    learner = learner_for(trunk, settings_for("rloo", **changes), score=Two(torch.zeros(259), -torch.ones(259)), max_new_tokens=1)
    learner.update()
    assert learner.rows[-1]["objective/price/other"] == 0.5, "what the update went by"
    assert learner.state()["constraint"] == {"other": pytest.approx(0.6)}, "a unit short, at a rate of 1/10"
    learner.load_state(learner.state() | {"constraint": {"other": 7.0}})
    learner.update()
    assert learner.rows[-1]["objective/price/other"] == 7.0
    learner.close()


def test_an_objective_that_isnt_there_is_refused_in_words(trunk: Trunk) -> None:
    changes: dict[str, Any] = {"at_least": {"brief": 0.0}}
    with pytest.raises(SettingError, match=r"brief.*made of main, other"):
        learner_for(trunk, settings_for("rloo", **changes), score=Two(torch.zeros(259), torch.zeros(259)))
    with pytest.raises(SettingError, match="not made of several"):
        learner_for(trunk, settings_for("rloo", **changes))
    with pytest.raises(ValueError, match="kl_in"):
        settings_for("grpo", **changes)
