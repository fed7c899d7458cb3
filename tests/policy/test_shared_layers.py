"""Where only upper layers learn, the layers below are run once for all that go on from them, and what is learned stays the same to the bit."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from truing.models.plain_layers import layer_forward
from truing.models.trunk import Trunk
from truing.policy import rollout
from truing.policy.algorithms.dpo import DPOSettings
from truing.policy.examples import Example
from truing.policy.learner import Learner
from truing.policy.offline import OfflineLearner
from truing.policy.replay import ReplayLearner
from truing.policy.rollout import ROLE
from tuning import PLACELESS, PROMPTS, TEMPERATURE, settings_for, share_of_third_tokens

PAIRS = [Example("p", (5, 6), ((7, 8), (9,))), Example("q", (10,), ((11, 12, 13), (7,)), target=0.2), Example("r", (8, 4, 3), ((9, 2), (14, 15)), weight=0.5)]


def dpo(trunk: Trunk) -> Learner:
    settings = DPOSettings(algorithm="dpo", layers="top-half", epochs=2, batch=2, rank=2, lr=3e-3)
    return OfflineLearner(trunk, settings, PAIRS, seed=0)


def q_learning(trunk: Trunk) -> Learner:
    settings: Any = settings_for("q-learning", layers="top-half", updates=3, copy_every=2)
    return ReplayLearner(trunk, settings, PROMPTS, share_of_third_tokens, temperature=TEMPERATURE, max_new_tokens=6, seed=0)


def learned(trunk: Trunk, made: Callable[[Trunk], Learner], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], list[Any], list[int]]:
    """Weights and rows of a whole run, and how often each layer was run."""
    runs: Counter[int] = Counter()
    place = {layer: number for number, layer in enumerate(trunk._body.layers)}

    def counted(layer: nn.Module, *arguments: Any) -> Tensor:
        runs[place[layer]] += arguments[-1] is None  # else it is for answers to be drawn, which are the policy's alone
        return layer_forward(layer, *arguments)

    learner = made(trunk)
    with monkeypatch.context() as patch:
        patch.setattr("truing.models.trunk.layer_forward", counted)
        learner.start(PLACELESS, "base")
        while learner.done < learner.updates:
            learner.update()
    weights = {name: value.clone() for name, value in trunk.adapter_state(ROLE).items()}
    learner.close()
    return weights, learner.rows, [runs[number] for number in sorted(runs)]


@pytest.mark.parametrize("made", [dpo, q_learning])
def test_lower_layers_are_run_once(trunk: Trunk, made: Callable[[Trunk], Learner], monkeypatch: pytest.MonkeyPatch) -> None:
    weights, rows, (below, above) = learned(trunk, made, monkeypatch)
    monkeypatch.setattr(rollout, "border", lambda trunk, settings: None)
    other_weights, other_rows, (other_below, other_above) = learned(trunk, made, monkeypatch)
    assert above == other_above == other_below
    assert above == 2 * below
    assert rows == other_rows
    assert weights.keys() == other_weights.keys()
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
