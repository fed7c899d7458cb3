"""Scores: the same alone and in company, from hidden states and from tokens, and refused on other weights."""

from pathlib import Path

import pytest
import torch

from reward.letters import letter_rows, write_dataset
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.sequences import collate
from truing.models.trunk import Trunk, open_trunk
from truing.reward.score import RewardModel, load_trained_model
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project, create_project, open_project

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

HEADS = {
    "linear": RewardSettings(readings=("mean@0.5", "max@1.0", "last@1.0"), members=3, max_tokens=64),
    "mlp": RewardSettings(head="mlp", readings=("last@1.0", "mean@1.0"), members=3, units=4, epochs=20, max_tokens=64),
    "adapter": RewardSettings(head="adapter", members=2, trunk_epochs=1, batch_pairs=8, adapter_learning_rate=1e-2, max_tokens=64),
    "full": RewardSettings(head="full", members=2, trunk_epochs=1, batch_pairs=8, trunk_reading="last@0.5", full_learning_rate=1e-3, max_tokens=64),
}


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return open_project(create_project(tmp_path_factory.mktemp("score") / "p", settings=""))


@pytest.fixture(scope="module", params=sorted(HEADS))
def model(request: pytest.FixtureRequest, shared: Project, trunk: Trunk) -> RewardModel:
    dataset = write_dataset(shared, letter_rows(60))
    made = train_reward_model(shared, HEADS[request.param], dataset.id, trunk, seed=1)
    return load_trained_model(shared, made.id, trunk)


def tokens(trunk: Trunk, *texts: str) -> tuple[list[list[int]], list[list[int]]]:
    return [trunk.prompt_ids([{"role": "user", "content": "a song?"}]) for _ in texts], [trunk.response_ids(text) for text in texts]


def test_the_letter_scores_higher(model: RewardModel, trunk: Trunk) -> None:
    if model.frozen:  # the adapter's one epoch is too short to be sure of
        good, bad = model.score(*tokens(trunk, "bird zzz", "bird www"))
        assert good > bad


def test_a_score_is_the_same_alone_in_company_and_in_any_order(model: RewardModel, trunk: Trunk) -> None:
    prompts, responses = tokens(trunk, "bird zzz", "a", "moon moon moon moon moon", "tree www and a wind that is long", "")
    together = model.score(prompts, responses)
    alone = [model.score([prompt], [response])[0] for prompt, response in zip(prompts, responses, strict=True)]
    backwards = model.score(prompts[::-1], responses[::-1])[::-1]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together == pytest.approx(backwards, abs=1e-5)
    assert model.score([], []) == []


def test_members_disagree_a_little(model: RewardModel, trunk: Trunk) -> None:
    means, stds = model.score_with_std(*tokens(trunk, "bird zzz", "tree www"))
    assert means == model.score(*tokens(trunk, "bird zzz", "tree www"))
    assert all(std > 0 for std in stds)


def test_an_ensemble_can_be_asked_for_its_lower_bound(model: RewardModel, shared: Project, trunk: Trunk) -> None:
    asked = tokens(trunk, "bird zzz", "tree www")
    means, stds = model.score_with_std(*asked)
    lower, still = load_trained_model(shared, model.id, trunk, by="lower").score_with_std(*asked)
    assert lower == pytest.approx([mean - std for mean, std in zip(means, stds, strict=True)], abs=1e-6)
    assert still == stds


def test_only_the_last_tokens_are_read(model: RewardModel, trunk: Trunk) -> None:
    prompt, response = trunk.prompt_ids([{"role": "user", "content": "x" * 200}]), trunk.response_ids("bird zzz")
    tail = [*prompt, *response][-64:]
    assert model.score([prompt], [response]) == pytest.approx(model.score([tail[: -len(response)]], [response]), abs=1e-4)


def test_hidden_states_that_are_there_give_the_same_scores(model: RewardModel, trunk: Trunk) -> None:
    prompts, responses = tokens(trunk, "bird zzz", "a", "moon tree")
    batch = collate(prompts, responses, trunk.pad_id)
    with torch.no_grad(), trunk.using(None):
        hidden = trunk.hidden_layers(batch, model.feature_layers or (trunk.layers,))
    if not model.frozen:
        with pytest.raises(ValueError, match="trunk has learned"):
            model.score_hidden(hidden, batch)
        return
    assert model.score_hidden(hidden, batch)[0] == pytest.approx(model.score(prompts, responses), abs=1e-4)
    long = collate([[5] * 60], [[6] * 10], trunk.pad_id)
    with pytest.raises(ValueError, match="reads the last 64"):
        model.score_hidden(hidden, long)


def test_scoring_leaves_the_trunk_as_it_was(model: RewardModel, trunk: Trunk) -> None:
    batch = collate(*tokens(trunk, "bird zzz"), trunk.pad_id)
    with torch.no_grad():
        before = trunk.hidden(batch)
        model.score(*tokens(trunk, "bird zzz"))
        assert torch.equal(trunk.hidden(batch), before)


def test_other_weights_are_refused(model: RewardModel, shared: Project, tmp_path: Path) -> None:
    from tiny import make_tiny_model

    other = open_trunk(ModelSettings(name=str(make_tiny_model(tmp_path / "other", seed=1)), dtype="fp32"))
    with pytest.raises(UserError, match="was trained on"):
        load_trained_model(shared, model.id, other)


def test_close_takes_the_adapter_away(shared: Project, tiny_model: Path) -> None:
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    made = train_reward_model(shared, HEADS["adapter"], write_dataset(shared, letter_rows(60)).id, trunk, seed=1)
    opened = load_trained_model(shared, made.id, trunk)
    assert trunk.has_adapter(made.id)
    opened.close()
    opened.close()
    assert not trunk.has_adapter(made.id)
