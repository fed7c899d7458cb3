"""A critic that starts as the reward model: at every token it says what the reward would be if the answer ended there."""

from pathlib import Path

import pytest
import torch

from reward.letters import letter_rows, write_dataset
from truing.errors import SettingError, UserError
from truing.models.sequences import collate
from truing.models.trunk import Trunk
from truing.policy.online import OnlineLearner
from truing.policy.rollout import draw_rollout
from truing.policy.train import tune_settings
from truing.reward.outside.source import Function
from truing.reward.outside.stage import use_reward_model
from truing.reward.score import AnyRewardModel, load_reward_model
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project, open_project
from tuning import PROMPTS, learner_for, settings_for, tune

pytestmark = pytest.mark.slow

READS_THE_LAST = RewardSettings(readings=("last@1.0",), members=3, l2=0.1)


def reward_of(project: Project, trunk: Trunk, settings: RewardSettings = READS_THE_LAST) -> AnyRewardModel:
    return load_reward_model(project, train_reward_model(project, settings, write_dataset(project, letter_rows(60)).id, trunk, seed=1).id, trunk)


def test_the_value_of_the_last_token_is_the_score(project: Project, trunk: Trunk) -> None:
    reward = reward_of(project, trunk)
    learner = learner_for(trunk, settings_for("ppo", value_start="reward"), score=reward)
    assert learner.head is not None
    prompts, responses = list(PROMPTS.values()), [[7, 8, 9], [2], [30, 31], [40] * 6]
    batch = collate(prompts, responses, trunk.pad_id)
    with torch.no_grad(), trunk.using("policy"):
        values = batch.rectangle(learner.head(batch.reading(trunk.hidden(batch)))[:, 0])
    last = values[torch.arange(4), batch.response_lengths - 1]
    assert last.tolist() == pytest.approx(reward.score(prompts, responses), abs=1e-4)
    assert last.max() - last.min() > 0.05


@pytest.mark.parametrize("layers", ["all", "top-half"])
def test_every_value_is_the_score_of_the_answer_so_far(project: Project, trunk: Trunk, layers: str) -> None:
    reward = reward_of(project, trunk)
    settings = settings_for("ppo", value_start="reward", layers=layers, microbatch=3)
    learner = learner_for(trunk, settings, score=reward)
    prompts = [list(ids) for ids in PROMPTS.values()]
    rollout = draw_rollout(trunk, learner.head, prompts, [1, 2, 3, 4], reward, settings, beta=0.1, temperature=1.0, max_new_tokens=5)
    assert rollout.values is not None
    for row, response in enumerate(rollout.responses):
        so_far = [response.token_ids[:place] for place in range(len(response.token_ids))]
        assert rollout.values[row, : len(so_far)].tolist() == pytest.approx(reward.score([prompts[row]] * len(so_far), so_far), abs=1e-4)
    assert not rollout.values[~rollout.mask].any()


def test_by_default_a_critic_promises_nothing(project: Project, trunk: Trunk) -> None:
    learner = learner_for(trunk, settings_for("ppo"), score=reward_of(project, trunk))
    assert learner.head is not None
    assert not learner.head.weight.any()
    assert not learner.head.bias.any()


@pytest.mark.parametrize(
    "settings",
    [
        RewardSettings(members=2, l2=0.1),  # the default's four readings
        RewardSettings(readings=("last@0.5",), members=2, l2=0.1),
        RewardSettings(readings=("mean@1.0",), members=2, l2=0.1),
        RewardSettings(head="mlp", readings=("last@1.0",), members=2, units=4, epochs=4),
        RewardSettings(head="adapter", members=2, trunk_epochs=1, batch_pairs=8),
    ],
    ids=["default", "lower layer", "mean", "mlp", "adapter"],
)
def test_what_no_value_head_can_say_is_refused(project: Project, trunk: Trunk, settings: RewardSettings) -> None:
    with pytest.raises(UserError, match=r"no value head can start from it\n  fix: train with reward.head=linear and reward.readings=\['last@1.0'\]"):
        learner_for(trunk, settings_for("ppo", value_start="reward"), score=reward_of(project, trunk, settings))


def test_a_reward_from_outside_and_one_without_a_head_are_refused(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    file = tmp_path / "brief.py"
    file.write_text("def brief(prompt, responses): return [-float(len(r)) for r in responses]\n")
    made = use_reward_model(project, Function(file, "brief"), trunk, dataset_id=write_dataset(project, letter_rows(60)).id, seed=1)
    with pytest.raises(UserError, match="no value head can start from it"):
        learner_for(trunk, settings_for("ppo", value_start="reward"), score=load_reward_model(project, made.id, trunk))
    with pytest.raises(SettingError, match=r"no head that a value head could start from\n  fix: set tune.value_start=zero"):
        learner_for(trunk, settings_for("ppo", value_start="reward"))


def test_a_critic_that_has_learned_goes_on_from_where_it_was(project: Project, trunk: Trunk) -> None:
    reward, settings = reward_of(project, trunk), settings_for("ppo", value_start="reward", updates=1)
    parent = tune(project, trunk, settings, score=reward)
    fresh = learner_for(trunk, settings, score=reward)
    trunk.drop_adapter("policy")
    learner = OnlineLearner(trunk, settings, PROMPTS, reward, temperature=0.9, max_new_tokens=6, seed=0)
    learner.start(project.artifacts, parent.id)
    assert learner.head is not None
    assert fresh.head is not None
    assert not torch.equal(learner.head.weight, fresh.head.weight)
    trunk.drop_adapter("policy")


def test_an_algorithm_without_a_critic_has_no_such_setting(project: Project) -> None:
    with pytest.raises(SettingError, match=r"no setting tune\.value_start"):
        tune_settings(open_project(project.root, ["tune.value_start=reward"]), "rloo")
