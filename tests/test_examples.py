"""PPO in one file gives the package's numbers."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM

from truing.models.registry import ModelSettings
from truing.models.trunk import open_trunk
from truing.policy.rollout import ROLE
from truing.store.ids import seed_from
from tuning import PROMPTS, TEMPERATURE, learner_for, settings_for, share_of_third_tokens

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")]  # PEFT asks for it
UPDATES, ANSWERS, TOKENS = 4, 8, 6


@pytest.fixture
def example() -> ModuleType:
    file = Path(__file__).parents[1] / "examples/ppo_in_one_file.py"
    spec = importlib.util.spec_from_file_location("ppo_in_one_file", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_one_file_is_held_to_the_package(example: ModuleType, tiny_model: Path) -> None:
    """Four updates from the same adapter: the same answers, losses, KL and weights."""
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    trunk.eos_ids = frozenset(range(0, 259, 8))  # answers end at all lengths
    changes = {"updates": UPDATES, "samples": ANSWERS, "epochs": 3, "truncation": "set", "beta": 0.1}
    learner = learner_for(trunk, settings_for("ppo", **changes), max_new_tokens=TOKENS)
    settings = example.Settings(updates=UPDATES, answers=ANSWERS, epochs=3, lr=3e-3, rank=2, max_new_tokens=TOKENS, temperature=TEMPERATURE, beta=0.1)
    model, head = example.policy_of(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), rank=2)
    theirs = {name.replace(f".{ROLE}.", ".default."): value for name, value in trunk.adapter_state(ROLE).items()}
    own = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    pairs = [(next(value for key, value in own.items() if key.endswith(name)), goal) for name, goal in theirs.items()]
    assert len(pairs) == len(own)
    for parameter, goal in pairs:
        parameter.copy_(goal)
    optimizer = example.optimizer_of(model, head, settings)
    asked = list(PROMPTS.values())
    for done in range(UPDATES):
        prompts = [asked[place] for place in learner.chosen_prompts(done)]
        seeds = [seed_from(learner.seed, "answer", done, place) for place in range(ANSWERS)]
        found, answers = example.update(model, head, optimizer, prompts, seeds, share_of_third_tokens, set(trunk.eos_ids), settings, done=done)
        learner.update()
        row = learner.rows[-1]
        assert found["length"] == row["response/length"], "the same answers"
        assert [shown["text"] for shown in learner.shown[-5:]] == [trunk.text(answers[place * ANSWERS // 5]) for place in range(5)]
        assert found["kl"] == pytest.approx(row["objective/kl"], abs=1e-4)
        assert found["policy loss"] == pytest.approx(row["policy/loss"], abs=1e-4)
        assert found["value loss"] * settings.value_weight == pytest.approx(row["value/loss"], abs=1e-4)
    for parameter, goal in pairs:
        assert (parameter - goal).abs().max() < 1e-4
    assert max(float(goal.abs().max()) for name, goal in theirs.items() if "lora_B" in name) > 1e-3, "something was learned"
    learner.close()
