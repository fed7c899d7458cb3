"""Classifiers from outside: the score is what transformers gives for the text alone, whatever it is computed beside; and no pickle or code of theirs is run."""

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from reward.classifiers import FAMILIES, TEMPLATE, change_config, make_classifier
from reward.letters import letter_rows, write_dataset
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import open_trunk
from truing.reward.export import OFFSET, export_classifier
from truing.reward.outside.classifier import Classifier, Reading, open_classifier
from truing.reward.outside.source import local
from truing.reward.score import Answer, load_trained_model
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.project import Project

pytestmark = pytest.mark.slow

ASKED = [{"role": "user", "content": "a song?"}]
ANSWERS = [Answer(ASKED, text) for text in ("bird", "", "a wind that is long and goes on", "moon moon", "<eos>", "tree " * 30)]


def opened(folder: Path, **reading: Any) -> Classifier:
    return open_classifier(str(folder), local(folder).path, Reading(**reading))


def alone(folder: Path, answer: Answer) -> Any:
    """(C,) what transformers gives for one conversation without any padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    text = tokenizer.apply_chat_template([*answer.turns, {"role": "assistant", "content": answer.text}], tokenize=False)
    ids = tokenizer(text, add_special_tokens=tokenizer.cls_token is not None)["input_ids"]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pad", ["none", "pad", "eos"])
def test_a_score_is_what_transformers_gives_for_the_text_alone(tmp_path: Path, family: str, pad: str) -> None:
    """Whatever pads, and on whatever side its tokenizer would: where eos pads, transformers reads the token before it."""
    folder = make_classifier(tmp_path / "m", family)
    if family != "bert":  # an encoder reads its first token, and always knows its pad
        change_config(folder, pad_token_id={"none": None, "pad": 0, "eos": 1}[pad])
    ours = opened(folder)
    together = ours(ANSWERS)
    assert together == pytest.approx([float(alone(folder, answer)) for answer in ANSWERS], abs=1e-6)
    assert max(together) - min(together) > 0.1
    assert ours(ANSWERS[::-1])[::-1] == together
    assert [ours([answer])[0] for answer in ANSWERS] == together
    assert ours([]) == []


# ---- what is read ----


EXPORTED = {
    "linear": RewardSettings(readings=("last@1.0",), members=2, max_tokens=96),
    "adapter": RewardSettings(head="adapter", members=2, trunk_epochs=1, batch_pairs=8, adapter_learning_rate=1e-2, max_tokens=96),
}


@pytest.mark.parametrize("head", EXPORTED)
def test_what_truing_exports_gives_the_same_scores_here(project: Project, tiny_model: Path, tmp_path: Path, head: str) -> None:
    """Also of answers that were cut off, and of those too long to be read whole."""
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    made = train_reward_model(project, EXPORTED[head], write_dataset(project, letter_rows(60)).id, trunk, seed=1)
    model = load_trained_model(project, made.id, trunk)
    offset = export_classifier(model, tmp_path / "out")
    asked = [*ANSWERS, Answer(ASKED, "bird zzz", finished=False), Answer(ASKED, "tree zzz " * 30)]
    ours, exported = model.score_answers(asked)[0], opened(tmp_path / "out")
    assert exported(asked) == pytest.approx(ours, abs=1e-4)
    assert abs(ours[0] - ours[-2]) > 1e-3
    change_config(tmp_path / "out", **{OFFSET: 0.0})
    assert opened(tmp_path / "out")(asked) == pytest.approx([score - offset for score in ours], abs=1e-4)


def test_the_token_that_ends_an_answer_never_pads_in_an_export(project: Project, tiny_model: Path, tmp_path: Path) -> None:
    """Transformers would skip it, and read the token before it."""
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    trunk.pad_id = trunk.tokenizer.eos_token_id
    made = train_reward_model(project, EXPORTED["linear"], write_dataset(project, letter_rows(60)).id, trunk, seed=1)
    model = load_trained_model(project, made.id, trunk)
    offset = export_classifier(model, tmp_path / "out")
    asked = trunk.tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True) + "bird" + trunk.tokenizer.eos_token
    tokenizer, theirs = AutoTokenizer.from_pretrained(tmp_path / "out"), AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert tokenizer.pad_token_id == theirs.config.pad_token_id != tokenizer.eos_token_id
    with torch.no_grad():
        found = theirs(**tokenizer([asked, asked + asked], add_special_tokens=False, padding=True, return_tensors="pt")).logits[0].item()
    assert found + offset == pytest.approx(model.score_answers([ANSWERS[0]])[0][0], abs=1e-4)


def test_the_last_tokens_are_read_and_the_first(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m", "bert")
    short = opened(folder, max_tokens=17)  # <cls>, and the 16 that all end with
    first, *rest = (Answer(ASKED, f"{start} and so it ends") for start in ("one", "two", "three" * 9))
    assert short([first, *rest]) == pytest.approx([short([first])[0]] * 3, abs=1e-5)
    whole = opened(folder)([first, *rest])
    assert whole[0] != pytest.approx(whole[1], abs=1e-3)
    assert len(opened(folder)([Answer(ASKED, "x" * 5000)])) == 1  # no more than the model has positions for


def test_a_model_without_a_chat_template_wants_one(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m", template=None)
    with pytest.raises(UserError, match=r"has no chat template.*\n.*--template FILE"):
        opened(folder)
    with_own = opened(make_classifier(tmp_path / "n"))
    assert opened(folder, template=TEMPLATE)(ANSWERS) == with_own(ANSWERS)


def test_a_template_that_refuses_a_conversation_is_told(tmp_path: Path) -> None:
    picky = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}{{ messages[-1]['content'] }}"
    ours = opened(make_classifier(tmp_path / "m", template=picky))
    assert len(ours(ANSWERS[:1])) == 1
    with pytest.raises(UserError, match="writes nothing of a conversation"):
        ours([Answer(ASKED, "")])
    with pytest.raises(UserError, match=r"can't write a conversation of system, user, assistant: no system turns"):
        ours([Answer([{"role": "system", "content": "be kind"}, *ASKED], "bird")])


# ---- labels ----


def test_of_several_labels_one_is_named(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m", labels=("bad", "so-so", "good"))
    with pytest.raises(UserError, match=r"has the labels bad, so-so, good\n  fix: .*--label bad"):
        opened(folder)
    with pytest.raises(UserError, match=r"has no label great, but bad, so-so, good"):
        opened(folder, label="great")
    chances = torch.softmax(alone(folder, ANSWERS[0]).double(), 0)
    assert opened(folder, label="so-so")([ANSWERS[0]])[0] == pytest.approx(math.log(chances[1] / (1 - chances[1])), abs=1e-4)  # log-odds by hand


def test_labels_that_exclude_nothing_are_odds_of_their_own(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m", labels=("rude", "long"), problem_type="multi_label_classification")
    assert opened(folder, label="long")([ANSWERS[0]])[0] == pytest.approx(float(alone(folder, ANSWERS[0])[1]), abs=1e-5)


def test_a_single_label_needs_no_name(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m")
    assert opened(folder, label="good")(ANSWERS) == opened(folder)(ANSWERS)
    with pytest.raises(UserError, match=r"leave --label away"):
        opened(folder, label="bad")


# ---- what is not opened ----


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.file, "sprung")


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(UserError, match="no safetensors"):
        local(folder)
    with pytest.raises(UserError, match="can't be opened"):  # nor by who comes by another way
        open_classifier("m", folder, Reading())
    assert not (tmp_path / "sprung").exists()


def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m")
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').write('sprung')\nclass M: pass\nclass C: pass\n")
    auto = {"AutoConfig": "modeling.C", "AutoModelForSequenceClassification": "modeling.M"}
    change_config(folder, model_type="never-heard-of", auto_map=auto)
    with pytest.raises(UserError, match=r"can't be opened.*\n.*no code of its own"):
        opened(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_language_model_is_no_classifier(tiny_model: Path) -> None:
    """Transformers would give it a random head without an error."""
    with pytest.raises(UserError, match=r"never trained to classify: it has no score.weight"):
        opened(tiny_model)


def test_an_adapter_alone_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="merge the two"):
        local(tmp_path)


def test_a_file_that_is_damaged_is_told(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="can't be opened"):
        opened(folder)


def test_half_precision_is_near(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "m")
    half = opened(folder, dtype="bf16")(ANSWERS)
    assert half != opened(folder)(ANSWERS)
    assert torch.corrcoef(torch.tensor([half, opened(folder)(ANSWERS)]))[0, 1] > 0.9
