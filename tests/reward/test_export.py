"""A reward model that others load gives the scores that it gives here."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from reward.letters import letter_rows, write_dataset
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.export import OFFSET, export_classifier
from truing.reward.score import RewardModel, load_trained_model
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project

pytestmark = pytest.mark.slow

ADAPTER = RewardSettings(head="adapter", members=3, trunk_epochs=1, batch_pairs=8, adapter_learning_rate=1e-2)
KINDS = {
    "adapter": ADAPTER,
    "adapter below the top": ADAPTER.model_copy(update={"trunk_reading": "last@0.5"}),
    "full": ADAPTER.model_copy(update={"head": "full", "full_learning_rate": 1e-3}),
    "linear": RewardSettings(readings=("last@1.0",), members=2),
}
TEXTS = ["bird zzz", "a wind that is long www", "", "moon"]


@pytest.fixture
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


def made(project: Project, trunk: Trunk, settings: RewardSettings) -> RewardModel:
    artifact = train_reward_model(project, settings, write_dataset(project, letter_rows(60)).id, trunk, seed=1)
    return load_trained_model(project, artifact.id, trunk)


@pytest.mark.parametrize("settings", KINDS.values(), ids=list(KINDS))
def test_transformers_gives_the_same_scores(project: Project, trunk: Trunk, tmp_path: Path, settings: RewardSettings) -> None:
    model = made(project, trunk, settings)
    offset = export_classifier(model, tmp_path / "out")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert getattr(classifier.config, OFFSET) == offset
    turns = [{"role": "user", "content": "a song?"}]
    theirs = []
    with torch.no_grad():
        for text in TEXTS:
            asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            ids = [*tokenizer(asked, add_special_tokens=False)["input_ids"], *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            theirs.append(classifier(torch.tensor([ids])).logits.item() + offset)
    ours, _ = model.score_texts([turns] * len(TEXTS), TEXTS)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert max(ours) - min(ours) > 1e-2  # it tells them apart at all


def test_a_model_that_lists_the_kinds_of_its_layers_is_cut_with_them(project: Project, tiny_model: Path, tmp_path: Path) -> None:
    """Qwen 2's configuration has a kind for each layer, and is refused where these aren't as many as the layers."""
    folder = shutil.copytree(tiny_model, tmp_path / "qwen2")
    sizes = {name: getattr(AutoConfig.from_pretrained(tiny_model), name) for name in ("vocab_size", "hidden_size", "num_attention_heads", "eos_token_id")}
    own = Qwen2Config(**sizes, intermediate_size=64, num_hidden_layers=2, num_key_value_heads=2, initializer_range=0.3, tie_word_embeddings=True)
    Qwen2ForCausalLM(own).save_pretrained(folder)
    model = made(project, open_trunk(ModelSettings(name=str(folder), dtype="fp32")), KINDS["adapter below the top"])
    offset = export_classifier(model, tmp_path / "out")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert (classifier.config.num_hidden_layers, classifier.config.layer_types) == (1, ["full_attention"])
    turns = [{"role": "user", "content": "a song?"}]
    ids = [*model.trunk.prompt_ids(turns), *model.trunk.response_ids("bird zzz")]
    with torch.no_grad():
        theirs = classifier(torch.tensor([ids])).logits.item() + offset
    assert model.score_texts([turns], ["bird zzz"])[0] == pytest.approx([theirs], abs=1e-4)


def test_what_one_linear_head_cannot_say_is_refused(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    model = made(project, trunk, RewardSettings(readings=("mean@0.5", "last@1.0"), members=2))
    with pytest.raises(UserError, match="mean of layer 1, last of layer 2"):
        export_classifier(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_there_is_left_alone(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    model = made(project, trunk, KINDS["linear"])
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="is there already"):
        export_classifier(model, tmp_path / "out")
