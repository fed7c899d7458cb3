"""Python functions as rewards: asked a conversation at a time, checked, and left to fail with a traceback of their own."""

import sys
import traceback
from pathlib import Path

import pytest

from truing.errors import UserError
from truing.reward.outside.function import FunctionScorer, open_function
from truing.reward.score import Answer

SONG, POEM = [{"role": "user", "content": "a song?"}], [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a poem?"}]


def written(folder: Path, body: str, *, name: str = "rewards.py") -> Path:
    file = folder / name
    file.write_text(body, encoding="utf-8")
    return file


def scorer(folder: Path, body: str) -> FunctionScorer:
    """A file with one function, `reward`, of this body."""
    return open_function(written(folder, f"def reward(prompt, responses):\n    {body}\n"), "reward")


def test_a_conversation_is_asked_about_once_and_scores_come_in_order(tmp_path: Path) -> None:
    body = "    calls.append((prompt, responses))\n    return [len(r) + 100 * len(prompt) for r in responses]\n"
    ask = open_function(written(tmp_path, f"calls = []\ndef reward(prompt, responses):\n{body}"), "reward")
    assert ask([Answer(SONG, "abc"), Answer(POEM, "a"), Answer(SONG, "ab", finished=False)]) == [103.0, 201.0, 102.0]
    calls = ask._function.__globals__["calls"]
    assert calls == [(SONG, ["abc", "ab"]), (POEM, ["a"])]
    assert ask([]) == []


def test_what_the_function_does_to_its_arguments_stays_there(tmp_path: Path) -> None:
    ask = scorer(tmp_path, "prompt.clear(); responses.append('more'); return [1.0] * (len(responses) - 1)")
    answers = [Answer(SONG, "abc")]
    assert ask(answers) == ask(answers) == [1.0]
    assert SONG == [{"role": "user", "content": "a song?"}]


def test_numbers_of_other_libraries_are_numbers(tmp_path: Path) -> None:
    body = "import numpy, torch; return [numpy.float32(0.5), torch.tensor(2.0), True][: len(responses)]"
    assert scorer(tmp_path, body)([Answer(SONG, text) for text in "abc"]) == [0.5, 2.0, 1.0]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return [1.0]", r"rewards.py:reward gave 1 scores for 2 responses"),
        ("return [1.0, 2.0, 3.0]", r"gave 3 scores for 2 responses"),
        ("return [1.0, float('nan')]", r"gave nan as a score, for the response 'long'"),
        ("return [float('inf'), 1.0]", r"gave inf as a score, for the response 'a'"),
        ("return None", r"gave None, where 2 numbers were wanted"),
        ("return 1.0", r"gave 1.0, where 2 numbers were wanted"),
        ("return ['good', 'bad']", r"gave \['good', 'bad'\], where 2 numbers"),
    ],
)
def test_what_is_no_score_is_the_functions_mistake(tmp_path: Path, body: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        scorer(tmp_path, body)([Answer(SONG, "a"), Answer(SONG, "long")])
    assert "one finite number for each response" in caught.value.fix


def test_its_own_error_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        scorer(tmp_path, "return [1 / 0]")([Answer(SONG, "a")])
    told = "".join(traceback.format_exception(caught.value))
    assert "return [1 / 0]" in told
    assert "raised by the reward function rewards.py:reward" in told


def test_a_function_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    file = written(tmp_path, "from math import sqrt\nLIMIT = 3\ndef brief(prompt, responses): ...\ndef kind(prompt, responses): ...")
    with pytest.raises(UserError, match=r"rewards.py has no function 'LIMIT'\n  fix: name one that it has: brief, kind"):
        open_function(file, "LIMIT")
    with pytest.raises(UserError, match=r"docs/reward-outside\.md"):
        open_function(written(tmp_path, "", name="empty.py"), "reward")


def test_a_function_of_other_arguments_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't be called with a conversation and its responses"):
        open_function(written(tmp_path, "def reward(text): return 1.0"), "reward")


def test_a_file_may_hold_what_modules_hold(tmp_path: Path) -> None:
    """A dataclass looks up the module that it was made in."""
    file = written(
        tmp_path,
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass Taste:\n    weight: float\n"
        "def reward(prompt: list[dict], responses: list[str]) -> list[float]:\n    return [Taste(2.0).weight for _ in responses]\n",
    )  # fmt: skip
    assert open_function(file, "reward")([Answer(SONG, "a")]) == [2.0]


def test_opening_leaves_nothing_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = written(tmp_path, "def reward(prompt, responses): return [1.0] * len(responses)")
    open_function(file, "reward")
    assert list(tmp_path.iterdir()) == [file]


def test_the_function_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reward-outside.md").read_text(encoding="utf-8")
    ask = open_function(written(tmp_path, page.split("```python\n")[1].split("```")[0]), "brevity")
    many = [{"role": "user", "content": "list some songs"}]
    short, long, listed = ask([Answer(SONG, "a" * 100), Answer(SONG, "a" * 300), Answer(many, "a" * 300)])
    assert [short, long, listed] == pytest.approx([-0.1, -1.3, -0.3])


def test_a_file_that_fails_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError):
        open_function(written(tmp_path, "def reward(:"), "reward")
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        open_function(written(tmp_path, "import not_there"), "reward")
