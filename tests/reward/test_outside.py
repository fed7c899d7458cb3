"""Reward models from outside as reward models of a project: normalised, measured, kept with where they come from, and used like those that are trained here."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from reward.classifiers import TEMPLATE, make_classifier
from reward.letters import letter_rows, row, said_of, write_dataset
from truing.artifacts import Artifact, load_artifact
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.card.fitness import Verdict, require_fit
from truing.reward.card.measure import reward_card
from truing.reward.card.page import write_page
from truing.reward.card.stage import make_card, read_card
from truing.reward.card.table import card_rows
from truing.reward.eval_files import evaluate_pairs, not_learned_from
from truing.reward.outside.classifier import Reading
from truing.reward.outside.source import Folder, Function, parse
from truing.reward.outside.stage import use_reward_model
from truing.reward.probe.attributes import Case
from truing.reward.score import Answer, load_reward_model, load_trained_model
from truing.reward.scoring import CHUNK, ScoreBook, asks
from truing.reward.train import RewardSettings, train_reward_model
from truing.reward.yardstick import answer_of
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.project import Project
from truing.store.tables import Policy, Prompt, Sample, Split

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

KNOWS = "def knows(prompt, responses): return [10.0 * r.endswith('zzz') + 0.001 * len(r) for r in responses]\n"
LENGTH = "def length(prompt, responses): return [float(len(r)) for r in responses]\n"
TEXTS = ["sun", "moon and tree", "a bird", "a long song of the wind zzz", "door zzz", ""]


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.mark.parametrize(("token_ids", "finished", "as_read"), [([5, 6], False, False), ([5, 6], True, True), (None, False, True)])
def test_a_sample_that_was_cut_off_is_read_as_cut_off(token_ids: list[int] | None, finished: bool, as_read: bool) -> None:
    """As models that are trained here read it: by its own tokens, the last of which is no end. What came as text has an end token there."""
    side = {"text": "a bird", "token_ids": token_ids, "finished": finished}
    assert answer_of({"turns": [{"role": "user", "content": "?"}], "a": side}, "a").finished is as_read


def function(folder: Path, body: str = KNOWS) -> Function:
    file = folder / "rewards.py"
    file.write_text(body, encoding="utf-8")
    return Function(file, body.split("(")[0].removeprefix("def "))


def fill(project: Project, trunk: Trunk, texts: Sequence[str] = TEXTS) -> None:
    """Samples of the base for a train prompt, and one for a held-out prompt that must not count."""
    with project.database.write() as session:
        session.add(Policy(id="base", model="tiny", artifact_id=None, parent_id=None, created_at=now()))
        for name, split in (("a song?", Split.TRAIN), ("a poem?", Split.HELD_OUT)):
            turns = [{"role": "user", "content": name}]
            session.add(Prompt(id=name, turns=turns, text=name, split=split, source="", facts={}, position=0, created_at=now()))
        session.flush()
        for place, (prompt, text) in enumerate([*(("a song?", text) for text in texts), ("a poem?", "a text that is far longer than all of the others are")]):
            session.add(
                Sample(
                    id=content_id(place), prompt_id=prompt, policy_id="base", author=None, batch="b", position=place, text=text,
                    token_ids=trunk.response_ids(text), logprobs=None, finished=True, temperature=1.0, seed=1, base_logprob=None, created_at=now(),
                )
            )  # fmt: skip


def used(project: Project, trunk: Trunk, source: Function | Folder, **given: Any) -> Artifact:
    return use_reward_model(project, source, trunk, seed=1, **given)


# ---- what becomes of it ----


def test_scores_have_mean_0_and_deviation_1_on_samples_of_the_base(project: Project, trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(project, trunk)
    made = used(project, trunk, function(tmp_path, LENGTH))
    assert "normalised on 6 samples of the base" in capsys.readouterr().out
    lengths = [len(text) for text in TEXTS]
    mean = sum(lengths) / 6
    std = (sum((length - mean) ** 2 for length in lengths) / 6) ** 0.5
    assert (made.facts["mean"], made.facts["std"]) == pytest.approx((mean, std))
    found, doubts = load_reward_model(project, made.id, trunk).score_texts([[{"role": "user", "content": "anything"}]] * 6, TEXTS)
    assert found == pytest.approx([(length - mean) / std for length in lengths])
    assert doubts == [0.0] * 6


def test_tokens_are_read_as_the_text_and_conversation_that_they_are(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    seen = "seen = []\ndef seeing(prompt, responses):\n    seen.append((prompt, responses)); return [float(len(r)) for r in responses]\n"
    (tmp_path / "rewards.py").write_text(seen)
    model = load_reward_model(project, used(project, trunk, Function(tmp_path / "rewards.py", "seeing")).id, trunk)
    asked = [{"role": "user", "content": "a poem?"}]
    ids, responses = trunk.prompt_ids(asked), [trunk.response_ids("two words"), trunk.response_ids("cut")[:-1]]
    assert model.score([ids, ids], responses) == model(([ids, ids]), responses) == model.score_texts([asked, asked], ["two words", "cut"])[0]
    assert model.score_with_std([ids], responses[:1])[1] == [0.0]
    calls = model._raw._function.__globals__["seen"]  # type: ignore[attr-defined]
    assert calls[0] == (asked, ["two words", "cut"])
    with pytest.raises(ValueError, match="not the tokens of a prompt of the project"):
        model.score([[1, 2, 3]], responses[:1])


def test_without_samples_the_responses_of_the_preferences_serve(project: Project, trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = letter_rows(40)
    made = used(project, trunk, function(tmp_path, LENGTH), dataset_id=write_dataset(project, rows).id)
    assert "normalised on 56 responses of the preferences" in capsys.readouterr().out
    texts = {one[side]["sample_id"]: one[side]["text"] for one in rows if one["split"] == "train" for side in ("a", "b")}
    assert made.facts["mean"] == pytest.approx(sum(map(len, texts.values())) / len(texts))


def test_without_anything_scores_stay_as_they_are_and_that_is_said(project: Project, trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = used(project, trunk, function(tmp_path, LENGTH))
    assert "scores stay in the model's own unit" in capsys.readouterr().out
    assert load_reward_model(project, made.id, trunk).score_texts([[{"role": "user", "content": "?"}]], ["four"])[0] == [4.0]
    assert made.facts["fitness"]["verdict"] == Verdict.NOT_FIT
    with pytest.raises(UserError, match=r"tune\.unfit=true"):
        require_fit(made, unfit=False)
    with pytest.raises(UserError, match=r"was measured on none\n  fix: let people compare"):
        make_card(project, made.id, trunk)


def test_a_dataset_without_held_out_preferences_measures_nothing(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    made = used(project, trunk, function(tmp_path), dataset_id=write_dataset(project, letter_rows(40, held_out=0.0)).id)
    assert made.facts["accuracy"]["value"] is None
    assert made.facts["fitness"]["verdict"] == Verdict.NOT_FIT
    assert made.facts["nats"] is None  # the scores separate all the preferences that there are
    with pytest.raises(UserError, match="was measured on none"):
        make_card(project, made.id, trunk)


def test_a_reward_that_tells_nothing_apart_is_refused(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    with pytest.raises(UserError, match=r"all 6 ordinary answers get the same score, 0\.3"):
        used(project, trunk, function(tmp_path, "def same(prompt, responses): return [0.3] * len(responses)\n"))


# ---- what is measured ----


def test_it_is_measured_on_held_out_preferences_by_the_same_rules(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    rows = letter_rows(120, held_out=0.5)
    dataset = write_dataset(project, rows)
    made = used(project, trunk, function(tmp_path), dataset_id=dataset.id)
    assert made.parents == [dataset.id]
    assert (made.facts["accuracy"]["value"], made.facts["n_test"]) == (1.0, 60)
    backwards = used(project, trunk, function(tmp_path, KNOWS.replace("10.0", "-10.0")), dataset_id=dataset.id)
    assert backwards.facts["accuracy"]["value"] == 0.0
    assert backwards.facts["nats"] is None  # no unit makes chances of it
    assert backwards.facts["fitness"]["verdict"] == Verdict.NOT_FIT
    card = reward_card(project, made.id)
    assert card["rules"][0]["rule"] == "the longer answer"
    assert len(card["histogram"]["counts"]) > 0


def test_its_unit_is_fitted_to_train_preferences(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    """Three of four train pairs prefer the longer answer, which is longer by one always: odds of 3, whatever the unit of the function."""
    rows = [row(f"{place}?", "aa", "a", float(place % 4 != 0), split="train") for place in range(40)]
    rows += [row(f"held {place}?", "aa", "a", 1.0, split="held-out") for place in range(4)]
    dataset = write_dataset(project, rows)
    one = used(project, trunk, function(tmp_path, LENGTH), dataset_id=dataset.id)
    in_hundreds = used(project, trunk, function(tmp_path, LENGTH.replace("float(", "100.0 * float(")), dataset_id=dataset.id)
    assert one.facts["std"] == pytest.approx(0.5)  # of lengths 1 and 2: a difference of one is two deviations
    assert one.facts["nats"] == pytest.approx(1.0986 / 2, abs=1e-3)
    assert in_hundreds.facts["nats"] == pytest.approx(one.facts["nats"])
    assert load_reward_model(project, one.id, trunk).nats == one.facts["nats"]


def test_the_same_inputs_answer_and_others_do_not(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    source = function(tmp_path, LENGTH)
    made = used(project, trunk, source)
    assert used(project, trunk, source).id == made.id
    assert used(project, trunk, function(tmp_path, LENGTH + "\n# changed\n")).id != made.id


# ---- where it comes from ----


def test_a_function_is_kept_with_its_hash_and_goes_on_as_it_was(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    source = function(tmp_path, LENGTH)
    sha256 = hashlib.sha256(source.file.read_bytes()).hexdigest()
    made = used(project, trunk, source)
    assert (made.path / "rewards.py").read_text() == LENGTH
    assert made.facts["sha256"] == made.manifest["files"]["rewards.py"] == sha256
    source.file.unlink()
    asked = [[{"role": "user", "content": "?"}]]
    first = load_reward_model(project, made.id, trunk).score_texts(asked, ["four"])
    assert load_reward_model(project, made.id, trunk).score_texts(asked, ["four"]) == first
    load_artifact(project.artifacts, made.id)  # opening it has left nothing in its folder


def test_what_lies_beside_a_function_is_missed_at_once(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    (tmp_path / "words.txt").write_text("sun")
    body = (
        "from pathlib import Path\ndef reward(prompt, responses): return [float(r in (Path(__file__).parent / 'words.txt').read_text()) for r in responses]\n"
    )
    (tmp_path / "rewards.py").write_text(body)
    with pytest.raises(FileNotFoundError, match=r"words\.txt"):
        used(project, trunk, Function(tmp_path / "rewards.py", "reward"))


def test_a_model_is_held_to_what_it_was(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    folder = make_classifier(tmp_path / "m")
    made = used(project, trunk, parse(f"hub:{folder}"))
    model = load_reward_model(project, made.id, trunk)
    assert sum(model.score_texts([[{"role": "user", "content": "a song?"}]] * 6, TEXTS)[0]) == pytest.approx(0, abs=1e-4)
    assert set(made.facts["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    make_classifier(folder, seed=1)
    with pytest.raises(UserError, match=r"isn't what it was: model\.safetensors"):
        load_reward_model(project, made.id, trunk)
    assert used(project, trunk, parse(str(folder))).id != made.id
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="isn't there any more"):
        load_reward_model(project, made.id, trunk)


def test_how_a_model_is_read_is_kept(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    folder = make_classifier(tmp_path / "m", labels=("bad", "good"), template=None)
    reading = Reading("good", TEMPLATE, 64, "bf16")
    made = used(project, trunk, parse(str(folder)), reading=reading)
    other = used(project, trunk, parse(str(folder)), reading=reading._replace(label="bad"))
    asked = [[{"role": "user", "content": "a song?"}]] * 6
    good, bad = (load_reward_model(project, one.id, trunk).score_texts(asked, TEXTS)[0] for one in (made, other))
    assert good == pytest.approx([-score for score in bad], abs=1e-4)  # log-odds of two labels
    assert (made.path / "template.jinja").read_text() == TEMPLATE
    assert used(project, trunk, parse(str(folder)), reading=reading._replace(template="{{ messages[-1]['content'] }}<eos>")).id != made.id


def test_a_model_of_the_hub_is_found_on_this_disk(project: Project, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub's cache holds a snapshot by its commit."""
    commit, cache = "c" * 40, tmp_path / "hub"
    folder = cache / "models--someone--taste"
    make_classifier(folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fill(project, trunk)
    source = parse("hub:someone/taste")
    assert isinstance(source, Folder)
    assert (source.name, source.revision) == ("someone/taste", commit)
    made = used(project, trunk, source)
    (folder / "refs" / "main").write_text("d" * 40)  # the name moves on, the artifact stays
    asked: list[bool] = []
    fetch = huggingface_hub.snapshot_download

    def seen(*names: Any, **how: Any) -> str:
        asked.append(how["local_files_only"])
        return str(fetch(*names, **how))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", seen)
    assert load_reward_model(project, made.id, trunk).score_texts([[{"role": "user", "content": "?"}]], ["sun"])[0]
    assert asked == [True]  # of this disk alone
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(UserError, match="the model someone/other can't be had"):
        parse("hub:someone/other")


@pytest.mark.parametrize("words", ["nothing", "hub:nothing", "a/b", "hub:a/b/c", "rewards.py", "hub:./nowhere", "/nowhere"])
def test_what_names_nothing_is_refused_without_asking_anyone(words: str) -> None:
    with pytest.raises(UserError, match=r"names no reward model\n  fix: name hub:OWNER/NAME"):
        parse(words)


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"there is no file nowhere\.py"):
        parse("nowhere.py:reward")


# ---- where it is used ----


@pytest.mark.usefixtures("short_audits")
def test_its_card_has_every_look_that_can_be_taken(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    rows = letter_rows(40)
    made = used(project, trunk, function(tmp_path), dataset_id=write_dataset(project, rows, [*said_of(rows), *said_of(rows, "rating")]).id)
    card = make_card(project, made.id, trunk)
    found = read_card(card)
    assert card.parents == [made.id]
    assert found["accuracy"]["value"] == 1.0
    assert [found["ensemble"], found["learning_curve"]] == [None, None]
    assert set(found["omitted"]) == {"ensemble", "learning_curve"}
    assert found["ratings"]["spearman"]["value"] > 0.8
    assert [line["largest"] for line in found["invariance"]["rows"][:3]] == [0.0, 0.0, 0.0]
    page = write_page(project, card.id).read_text(encoding="utf-8")
    assert "What more judgements would buy was not measured: it was not fitted to these judgements" in page
    assert "Not measured: it comes from outside" in page
    assert ("what more judgements would buy", "not measured: it was not fitted to these judgements", "") in list(card_rows(found))


def test_preferences_about_prompts_that_it_was_only_measured_on_count(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    rows = letter_rows(40)
    dataset = write_dataset(project, rows)
    outside = used(project, trunk, function(tmp_path), dataset_id=dataset.id)
    trained = train_reward_model(project, RewardSettings(readings=("last@1.0",), members=2, l2=1.0), dataset.id, trunk, seed=1)
    asked = [Preference(one["turns"], one["a"]["text"], (one["b"]["text"],)) for one in rows]
    assert len(not_learned_from(project, outside.id, asked)) == 40
    assert len(not_learned_from(project, trained.id, asked)) == 12
    model = load_reward_model(project, outside.id, trunk)
    assert evaluate_pairs(model, asked, seed=1, nats=model.nats)["micro"]["accuracy"]["value"] == sum(one["target"] for one in rows) / 40
    with pytest.raises(UserError, match=r"was not trained here\n  fix: .*truing reward train"):
        load_trained_model(project, outside.id, trunk)


def test_what_is_no_reward_model_is_not_opened_as_one(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    dataset = write_dataset(project, letter_rows(40))
    with pytest.raises(UserError, match="is no reward model"):
        load_reward_model(project, dataset.id, trunk)
    made = used(project, trunk, function(tmp_path), dataset_id=dataset.id)
    with pytest.raises(UserError, match="is no dataset"):
        used(project, trunk, function(tmp_path), dataset_id=made.id)


ASKED = """
import os
def asked(prompt, responses):
    with open(os.environ["ASKED"], "a") as file:
        file.write("." * len(responses))
    if os.path.getsize(os.environ["ASKED"]) > int(os.environ["MOST"]):
        raise KeyboardInterrupt
    return [float(len(response)) for response in responses]
"""


def test_bringing_in_what_was_stopped_goes_on_to_the_same_artifact(project: Project, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write_dataset(project, letter_rows(80))
    (tmp_path / "rewards.py").write_text(ASKED)
    source, log = Function(tmp_path / "rewards.py", "asked"), tmp_path / "log"
    monkeypatch.setenv("ASKED", str(log))
    monkeypatch.setenv("MOST", "100")
    with pytest.raises(KeyboardInterrupt):
        used(project, trunk, source, dataset_id=dataset.id)
    log.unlink()
    monkeypatch.setenv("MOST", "1000")
    resumed, after = used(project, trunk, source, dataset_id=dataset.id), log.stat().st_size
    assert not list((project.root / "cache" / "scores").iterdir())
    log.unlink()
    project.force = True
    assert used(project, trunk, source, dataset_id=dataset.id).id == resumed.id
    assert log.stat().st_size == after + CHUNK


def test_a_probe_asks_it_for_texts_whether_or_not_they_ended(project: Project, trunk: Trunk, tmp_path: Path) -> None:
    fill(project, trunk)
    model = load_reward_model(project, used(project, trunk, function(tmp_path, LENGTH)).id, trunk)
    ended, cut = ScoreBook(asks(model))([Case("p", [{"role": "user", "content": "a song?"}], "bird", finished).answer for finished in (True, False)])
    assert ended == cut == model.score_answers([Answer([{"role": "user", "content": "other"}], "bird")])[0][0]


class Preference:
    """As `feedback.chosen` reads it from a file."""

    def __init__(self, turns: list[Any], chosen: str, rejected: tuple[str, ...]) -> None:
        self.turns, self.chosen, self.rejected, self.subset, self.strength = turns, chosen, rejected, "", 1.0
