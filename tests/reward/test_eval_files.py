"""A reward model on files of preferences: shares by hand, ties, several rejected, the trivial rival, and the command from file to table."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import commands
from reward.letters import letter_rows, said_of, write_dataset
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import open_trunk
from truing.reward.eval_files import COLUMNS, credit, evaluate_pairs, not_learned_from, surprise, table
from truing.reward.train import RewardSettings, train_reward_model
from truing.store.conversations import Turn, turns_of
from truing.store.project import create_project, open_project


class Row(NamedTuple):
    turns: list[Turn]
    chosen: str
    rejected: tuple[str, ...]
    subset: str = "all"
    strength: float = 2


def row(prompt: str, chosen: str, *rejected: str, subset: str = "all", strength: float = 2) -> Row:
    return Row(turns_of(prompt), chosen, rejected, subset, strength)


class Number:
    """Scores a response by the number that it begins with, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def score_texts(self, prompts: Sequence[Sequence[Mapping[str, str]]], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        self.asked += responses
        return [float(response.split()[0]) for response in responses], [0.0] * len(responses)


@pytest.mark.parametrize(
    ("scores", "share"), [((2, 1), 1), ((1, 2), 0), ((1, 1), 1 / 2), ((3, 1, 2, 2), 1), ((2, 2, 2, 1), 1 / 3), ((1, 2, 2), 0), ((0, 0, 0, 0), 1 / 4)]
)
def test_credit_by_hand(scores: tuple[float, ...], share: float) -> None:
    assert credit(np.array(scores, dtype=float)) == pytest.approx(share)


def test_surprise_by_hand() -> None:
    # a lead of ln 3 means odds of 3:1; a lead of ln 3 over each of three means 3 of 6
    assert surprise(np.array([math.log(3), 0.0])) == pytest.approx(math.log(4 / 3))
    assert surprise(np.array([math.log(3), 0.0, 0.0, 0.0])) == pytest.approx(math.log(2))
    assert surprise(np.array([0.0, 1000.0])) == pytest.approx(1000)


ROWS = [
    row("p1", "2 is right", "1 is wrong and long", subset="one"),
    row("p1", "1 too low, but long", "3 no", subset="one"),
    row("p2", "1 same", "1 also", subset="one"),
    row("p3", "5 right", "1 no", "2 no", "3 no, no", subset="two"),
]


def test_shares_by_hand() -> None:
    found = evaluate_pairs(Number(), ROWS, seed=1, nats=math.log(3))
    one, two = found["subsets"]
    assert (one["subset"], one["pairs"], one["prompts"], one["ties"], one["chance"]) == ("one", 3, 2, 1, 0.5)
    assert one["accuracy"]["value"] == pytest.approx(1.5 / 3)
    assert one["longer_wins"]["value"] == pytest.approx(1.5 / 3)
    assert one["margin"]["value"] == pytest.approx((1 - 2 + 0) / 3)
    assert one["log_loss"]["value"] == pytest.approx((math.log(4 / 3) + math.log(10) + math.log(2)) / 3)  # odds of 3:1, 1:9 and 1:1
    assert (two["accuracy"]["value"], two["chance"], two["margin"]["value"]) == (1, 1 / 4, 2)
    assert found["micro"]["accuracy"]["value"] == pytest.approx(2.5 / 4)
    assert found["micro"]["accuracy"]["n"] == 4
    assert found["macro"]["accuracy"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert found["macro"]["accuracy"]["n"] == 2
    assert found["grades"] == []
    assert "Right on 62.5%" in found["sentence"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_without_a_calibrated_score_nothing_is_said_of_log_loss() -> None:
    assert evaluate_pairs(Number(), ROWS, seed=1)["micro"]["log_loss"] is None


def test_one_prompt_has_no_interval_and_all_right_is_not_certain() -> None:
    found = evaluate_pairs(Number(), [row("p", "2", "1"), row("p", "1", "2")], seed=1)
    assert found["micro"]["accuracy"] == {"value": 0.5, "low": None, "high": None, "n": 2}
    found = evaluate_pairs(Number(), [row(f"p{i}", "2", "1") for i in range(10)], seed=1)
    assert found["micro"]["accuracy"]["low"] == pytest.approx(10 / (10 + 1.959964**2))  # Wilson's, of 10 of 10
    assert found["macro"]["accuracy"]["low"] == found["micro"]["accuracy"]["low"]


def test_prompts_and_not_pairs_are_drawn() -> None:
    """Forty copies of a prompt's pair tell no more than one."""
    few = evaluate_pairs(Number(), [row(f"p{i}", str(2 - i % 2), str(1 + i % 2)) for i in range(10)], seed=1)["micro"]["accuracy"]
    many = evaluate_pairs(Number(), [row(f"p{i}", str(2 - i % 2), str(1 + i % 2)) for i in range(10) for _ in range(40)], seed=1)["micro"]["accuracy"]
    assert (few["low"], few["high"]) == (many["low"], many["high"])


def test_a_text_is_scored_once() -> None:
    scorer = Number()
    evaluate_pairs(scorer, [row("p", "2", "1"), row("p", "2", "3"), row("q", "2", "1")], seed=1)
    assert sorted(scorer.asked) == ["1", "1", "2", "2", "3"]


def test_grades_are_told_apart_where_rows_differ_in_them() -> None:
    found = evaluate_pairs(Number(), [row("p", "2", "1", strength=3), row("q", "1", "2", strength=1), row("r", "2", "1", strength=2.6)], seed=1)
    assert [(line["grade"], line["pairs"], line["accuracy"]["value"]) for line in found["grades"]] == [("clearly", 2, 1), ("slightly", 1, 0)]


def test_the_table_has_every_subset_the_mean_and_all() -> None:
    lines = list(table(evaluate_pairs(Number(), ROWS, seed=1)))
    assert [line[0] for line in lines] == ["one", "two", "mean of 2", "all"]
    assert {len(line) for line in lines} == {len(COLUMNS)}
    assert lines[1][1:4] == ("100.0 [20.7, 100.0]", "0.0 [0.0, 79.3]", "25")  # Wilson's, of 1 of 1: 1 / (1 + 1.96^2)


def test_no_row_is_an_error() -> None:
    with pytest.raises(UserError, match="no preference"):
        evaluate_pairs(Number(), [], seed=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, str]:
    """A project with a reward model that likes the letter z, and its id."""
    folder = tmp_path_factory.mktemp("eval") / "p"
    project = open_project(create_project(folder, settings=f'[model]\nname = "{tiny_model}"\ndtype = "fp32"\n'))
    settings = RewardSettings(readings=("mean@0.5", "max@1.0"), members=2, max_tokens=64)
    made = train_reward_model(project, settings, write_dataset(project, letter_rows(80)).id, open_trunk(project.settings(ModelSettings)), seed=1)
    project.database.close()
    return folder, made.id


def told(letters: Sequence[Mapping[str, Any]], **more: str) -> list[dict[str, Any]]:
    """Lines of pairs.jsonl as a benchmark has them."""
    pairs = [(one["a"]["text"], one["b"]["text"]) if one["target"] > 0.5 else (one["b"]["text"], one["a"]["text"]) for one in letters]
    return [{"prompt": one["turns"][0]["content"], "chosen": good, "rejected": bad, **more} for one, (good, bad) in zip(letters, pairs, strict=True)]


@pytest.mark.slow
def test_from_files_to_a_table(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, reward = trained
    rows = [*told(letter_rows(30, seed=5), subset="z"), *told(letter_rows(20, seed=6, letter="w"), subset="none")]
    rows += [{"prompt": "p", "chosen": "same", "rejected": "same"}]
    (tmp_path / "bench.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    ended = commands.run("reward", "eval", str(tmp_path / "bench.jsonl"), "--project", str(folder), "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    by_subset = {line["subset"]: line for line in found["subsets"]}
    assert found["reward"] == reward
    assert found["files"] == [{"file": "bench.jsonl", "format": "trl", "pairs": 50, "left_out": {}, "refused": 1}]
    assert by_subset["z"]["accuracy"]["value"] > 0.9
    assert by_subset["none"]["accuracy"]["value"] <= 0.6  # both end alike, www: nothing that it learned to like
    assert by_subset["z"]["log_loss"]["value"] < math.log(2)
    assert found["macro"]["accuracy"]["n"] == 2
    assert "bench.jsonl, line 51: the two responses are the same text" in ended.stderr
    shown = commands.run("reward", "eval", str(tmp_path / "bench.jsonl"), "--project", str(folder))
    assert "longer, %" in shown.stdout
    assert "mean of 2" in shown.stdout


@pytest.mark.slow
def test_what_was_learned_from_is_left_out(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, reward = trained
    learned, unseen = [one for one in letter_rows(80) if one["split"] == "train"], letter_rows(10, seed=9)
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told([*learned[:6], *unseen])), encoding="utf-8")
    ended = commands.run("reward", "eval", str(tmp_path / "mixed.jsonl"), "--project", str(folder), "--json")
    found = json.loads(ended.stdout.splitlines()[-1])
    assert (found["learned_from"], found["micro"]["pairs"]) == (6, 10)
    assert "6 preferences are about prompts that" in ended.stderr
    project = open_project(folder)
    same = [Row([{"role": "system", "content": "Sing."}, *one["turns"]], "x", ("y",)) for one in learned[:3]]  # a prompt goes by how it opens
    with pytest.raises(UserError, match="all 3 preferences are about prompts"):
        not_learned_from(project, reward, same)
    project.database.close()


@pytest.mark.slow
def test_prompts_that_were_learned_from_without_a_pair_are_left_out(tmp_path: Path, tiny_model: Path) -> None:
    """Thumbs about one answer to each prompt: pairs.jsonl has nothing, and the model knows the prompts all the same."""
    project = open_project(create_project(tmp_path / "p", settings=f'[model]\nname = "{tiny_model}"\ndtype = "fp32"\n'))
    letters = letter_rows(60)
    thumbs = [line for place, line in enumerate(said_of(letters, "thumbs")) if place % 4 in (0, 3)]
    settings = RewardSettings(readings=("mean@0.5",), members=2, max_tokens=64, l2=0.1, learn_from="judgements")
    made = train_reward_model(project, settings, write_dataset(project, [], thumbs).id, open_trunk(project.settings(ModelSettings)), seed=1)
    asked = [Row(one["turns"], "x", ("y",)) for one in letters]
    assert not_learned_from(project, made.id, asked) == asked[:18]  # those that were held out
    project.database.close()


@pytest.mark.slow
def test_a_file_that_isn_t_there_ends_with_a_remedy(trained: tuple[Path, str]) -> None:
    ended = commands.run("reward", "eval", "nowhere.jsonl", "--project", str(trained[0]))
    assert ended.returncode == 2
    assert "fix:" in ended.stderr
