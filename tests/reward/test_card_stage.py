"""The whole card of a tiny reward model: every look is taken once, an interrupted card goes on, and the page says what was found."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reward.letters import letter_rows, row, said_of, write_dataset
from truing.artifacts import artifact_ids
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.card import stage
from truing.reward.card.invariance import invariance
from truing.reward.card.page import write_page
from truing.reward.card.refit import refitting
from truing.reward.card.stage import make_card, read_card
from truing.reward.card.table import card_rows
from truing.reward.score import load_trained_model
from truing.reward.train import RewardSettings, fit_frozen, lessons, train_reward_model
from truing.reward.train_pairs import read_rows, tokenised
from truing.reward.yardstick import answer_of
from truing.store.project import Project, create_project, open_project

pytestmark = pytest.mark.slow

SETTINGS = {
    "linear": RewardSettings(readings=("last@1.0", "mean@1.0"), members=2, max_tokens=64, l2=0.1),
    "mlp": RewardSettings(head="mlp", readings=("last@1.0", "mean@1.0"), members=2, units=4, epochs=20, max_tokens=64),
    "judgements": RewardSettings(readings=("last@1.0", "mean@1.0"), members=2, max_tokens=64, l2=0.1, learn_from="judgements"),
    "adapter": RewardSettings(head="adapter", members=2, trunk_epochs=1, batch_pairs=8, max_tokens=64),
}


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return open_project(create_project(tmp_path_factory.mktemp("card") / "p", settings=""))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Eighty pairs; the prompt of one of them would be markup if it weren't escaped."""
    found = letter_rows(80)
    hostile = row("<script>alert(1)</script>", "bird zzz", "bird <b>www</b>", 1.0, split="held-out")
    return [*found, hostile]


@pytest.mark.slow
@pytest.mark.usefixtures("short_audits")
def test_every_look_is_taken_and_the_page_shows_them(shared: Project, trunk: Trunk, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    said = [*said_of(rows), *said_of(rows, "rating")]
    reward = train_reward_model(shared, SETTINGS["linear"], write_dataset(shared, rows, said).id, trunk, seed=1)

    def broken(*given: object, **settings: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "learning_curve", broken)
        with pytest.raises(KeyboardInterrupt):
            make_card(shared, reward.id, trunk)
    assert artifact_ids(shared.artifacts, "card") == []
    with monkeypatch.context() as patch:
        patch.setattr(stage, "invariance", broken)  # taken already: it must not be asked again
        made = make_card(shared, reward.id, trunk)
    assert made.parents == [reward.id]
    assert made.facts["fitness"] == reward.facts["fitness"]
    assert make_card(shared, reward.id, trunk).id == made.id
    card = read_card(made)
    assert card["accuracy"] == reward.facts["accuracy"]
    assert all(line["largest"] < 1e-4 for line in card["invariance"]["rows"][:3])
    assert card["invariance"]["rows"][3]["why"] == "the model is in fp32 as it is"
    assert card["ratings"]["spearman"]["n"] == 50
    assert card["ratings"]["spearman"]["value"] > 0.5
    assert card["ensemble"]["n"] == 25
    assert [point["judgements"] for point in card["learning_curve"]["points"]] == [14, 28, 56]
    assert card["learning_curve"]["points"][-1]["accuracy"]["value"] == card["accuracy"]["value"]  # the whole, refitted, is the model
    page = write_page(shared, made.id).read_text(encoding="utf-8")
    assert "Not fit to tune against" in page  # 25 held-out prompts are too few
    assert "Only 25 held-out prompts have a preference" in page
    assert "<script" not in page
    assert page.count("<figure>") == 4
    assert len(list(card_rows(card))) > len(list(card_rows(reward.facts | card | {"learning_curve": None})))
    json.dumps(card, allow_nan=False)


@pytest.mark.usefixtures("short_audits")
def test_the_learning_curve_of_judgements_knows_prompts_without_a_pair(shared: Project, trunk: Trunk, rows: list[dict[str, Any]]) -> None:
    """Half of the train prompts have a comparison, the others a thumb about one answer."""
    train = [one for one in rows if one["split"] == "train"]
    compared = [one for one in rows if one not in train[::2]]
    said = [*said_of(compared), *said_of(train[::2], "thumbs")[::2]]
    made = train_reward_model(shared, SETTINGS["judgements"], write_dataset(shared, compared, said).id, trunk, seed=1)
    points = read_card(make_card(shared, made.id, trunk))["learning_curve"]["points"]
    assert points[-1]["judgements"] == len(train) == 56


@pytest.mark.parametrize("head", ["linear", "mlp", "judgements"])
def test_the_whole_refitted_is_the_model_itself(head: str, shared: Project, trunk: Trunk, rows: list[dict[str, Any]]) -> None:
    dataset = write_dataset(shared, rows)
    reward = train_reward_model(shared, SETTINGS[head], dataset.id, trunk, seed=1)
    model = load_trained_model(shared, reward.id, trunk)
    refit = refitting(shared, reward, dataset, model, lambda **progress: None)
    train, held_out = read_rows(dataset)
    everyone = {one["prompt_id"] for one in train}
    margins = [a - b for a, b in refit(everyone, 1)]
    pairs = tokenised(held_out, trunk)
    a, b = (model.score([prompt for prompt, _ in side], [response for _, response in side]) for side in (pairs.a, pairs.b))
    scored = [one - other for one, other in zip(a, b, strict=True)]
    assert [margin / model.head.std.item() for margin in margins] == pytest.approx(scored, abs=1e-4)
    fewer = [a - b for a, b in refit(set(sorted(everyone)[:12]), 1)]
    assert fewer != margins


def test_half_the_pairs_are_held_back_twice_as_much(shared: Project, trunk: Trunk, rows: list[dict[str, Any]]) -> None:
    """0.1 beside the mean loss of 56 pairs is the prior that 0.2 is beside that of 28."""
    dataset = write_dataset(shared, rows)
    reward = train_reward_model(shared, SETTINGS["linear"], dataset.id, trunk, seed=1)
    model, (train, held_out) = load_trained_model(shared, reward.id, trunk), read_rows(dataset)
    half = sorted({one["prompt_id"] for one in train})[:28]
    found = refitting(shared, reward, dataset, model, lambda **progress: None)(half, 5)
    part, tests = lessons(dataset, train, trunk, SETTINGS["linear"])[0].only(half), tokenised(held_out, trunk)
    held_back = SETTINGS["linear"].model_copy(update={"l2": 0.2})
    head = fit_frozen(part, model.states(part.responses), held_back, 5, lambda **progress: None)[0].head
    with torch.no_grad():
        expected = head(model.states(tests.a)).mean(1).tolist()
    assert [a for a, _ in found] == pytest.approx(expected, abs=1e-4)


@pytest.mark.usefixtures("short_audits")
def test_an_adapter_is_not_refitted_and_leaves_the_trunk_as_it_was(shared: Project, trunk: Trunk, rows: list[dict[str, Any]]) -> None:
    reward = train_reward_model(shared, SETTINGS["adapter"], write_dataset(shared, rows).id, trunk, seed=1)
    found = read_card(make_card(shared, reward.id, trunk))
    assert found["learning_curve"] is None
    assert found["ensemble"]["n"] == 25
    assert not trunk.has_adapter(reward.id)
    page = write_page(shared, make_card(shared, reward.id, trunk).id).read_text(encoding="utf-8")
    assert "What more judgements would buy was not measured: its trunk learned, too" in page
    assert ("what more judgements would buy", "not measured: its trunk learned, too: each point would be a training of its own", "") in list(card_rows(found))


def test_a_model_in_bf16_is_scored_in_fp32_as_well(shared: Project, tiny_model: Path, rows: list[dict[str, Any]]) -> None:
    half = open_trunk(ModelSettings(name=str(tiny_model), dtype="bf16"))
    reward = train_reward_model(shared, SETTINGS["linear"], write_dataset(shared, rows).id, half, seed=1)
    answers = [answer_of(one, "a") for one in read_rows(write_dataset(shared, rows))[1]]
    found = invariance(shared, load_trained_model(shared, reward.id, half), answers)
    last = found["rows"][-1]
    assert last["what"] == "in fp32"
    assert 0 < last["largest"] < 1
    assert last["n"] == 25
    assert half.dtype == torch.bfloat16


def test_a_model_without_a_card_from_its_training_is_refused(shared: Project, trunk: Trunk, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(UserError, match=r"has no card from its training\n  fix: train it again"):
        make_card(shared, write_dataset(shared, rows).id, trunk)
