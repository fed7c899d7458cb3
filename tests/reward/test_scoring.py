"""Scores that are kept: each answer is asked about once, and what was interrupted goes on from what it has, to the same bits."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from reward.tastes import Taste, turns
from truing.errors import UserError
from truing.reward.probe.attributes import number_of_words
from truing.reward.score import Answer
from truing.reward.scoring import CHUNK, ScoreBook, asks, score_all

ANSWERS = [Answer(turns(f"prompt {n % 7}"), "word " * n) for n in range(3 * CHUNK)]


class Counted:
    """Words, and a little of whatever stands beside: as a model's kernels would have it. Raises at a call."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.calls = last, list[int]()

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        if len(self.calls) == self.last:
            raise KeyboardInterrupt
        self.calls.append(len(answers))
        beside = 1e-9 * sum(len(one.text) for one in answers)
        return [len(one.text) + beside for one in answers]


def test_an_answer_is_asked_about_once() -> None:
    taste = Taste(lambda case: float(number_of_words(case)))
    book = ScoreBook(asks(taste))
    assert book([*ANSWERS, *ANSWERS]) == [float(n) for n in range(3 * CHUNK)] * 2
    assert book(ANSWERS[:3]) == [0.0, 1.0, 2.0]
    assert taste.asked == 3 * CHUNK
    assert score_all(taste, [turns("a"), turns("b")], ["one two", "three"], "scores") == [2.0, 1.0]


def test_the_same_text_that_ended_and_that_was_cut_off_are_two() -> None:
    found = ScoreBook(lambda answers: [float(one.finished) for one in answers])([Answer(turns("a"), "b", finished=finished) for finished in (True, False)])
    assert found == [1.0, 0.0]


def test_what_was_interrupted_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "scores.json"
    unbroken = ScoreBook(Counted())(ANSWERS)
    with pytest.raises(KeyboardInterrupt):
        ScoreBook(Counted(last=2), file)(ANSWERS)
    assert len(json.loads(file.read_text())) == 2 * CHUNK
    rest = Counted()
    book = ScoreBook(rest, file)
    assert book(ANSWERS) == unbroken
    assert rest.calls == [CHUNK]
    book.done()
    assert not file.exists()


def test_a_torn_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(UserError, match="can't be read"):
        ScoreBook(Counted(), tmp_path / "scores.json")


def test_how_far_it_is_is_told_where_it_has_a_name() -> None:
    told: list[dict[str, object]] = []
    book = ScoreBook(Counted(), beat=lambda **facts: told.append(facts))
    book(ANSWERS[:10])
    assert told == []
    book(ANSWERS, "scores")
    assert [one["done"] for one in told] == [CHUNK, 2 * CHUNK, 3 * CHUNK - 10]
    assert {(one["step"], one["total"]) for one in told} == {("scores", 3 * CHUNK - 10)}
