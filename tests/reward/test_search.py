"""The search for exploits: best of n by hand and by brute force, a climb that finds what there is to find, and its budget."""

from collections.abc import Sequence

import pytest

from reward.tastes import Taste, made_up
from truing.reward.probe.attributes import Case, number_of_words
from truing.reward.probe.search import WIDTH, Climb, Score, best_of_n, exploits, joined, pieces_of
from truing.reward.scoring import ScoreBook, asks


def quiet(**facts: object) -> None:
    pass


def scoring(taste: Taste) -> Score:
    """Cases → scores, each asked for once."""
    book = ScoreBook(asks(taste))
    return lambda cases: book([case.answer for case in cases])


def test_best_of_n_goes_as_far_as_two_prompts_have_samples() -> None:
    rows = best_of_n([0.0, 2.0, 1.0, 3.0, 9.0], ["p", "p", "q", "q", "q"], seed=0)
    assert [(row["n"], row["score"]["value"], row["score"]["n"]) for row in rows[:1]] == [(1, pytest.approx((1 + 13 / 3) / 2), 2)]
    assert [row["n"] for row in rows] == [1, 2]  # three samples has q alone
    assert rows[1]["score"]["value"] == pytest.approx((2 + (3 + 9 + 9) / 3) / 2)


def test_a_climb_finds_the_word_that_counts_within_its_budget() -> None:
    asked = []

    def value(many: Sequence[list[str]]) -> list[float]:
        asked.append(len(many))
        return [float(pieces.count("z")) for pieces in many]

    climb = Climb(["a", "b", "c"], value, ["x", "y", "z"], candidates=200, longest=6, seed=1)
    for _ in range(climb.steps):
        climb.step()
    assert climb.start == 0
    assert climb.value == climb.pieces.count("z") == 6
    assert sum(asked) == 201
    assert max(asked[1:]) == WIDTH


def test_a_climb_never_goes_down() -> None:
    climb = Climb(["a"], lambda many: [-float(len(pieces)) for pieces in many], ["x"], candidates=40, longest=6, seed=1)
    for _ in range(climb.steps):
        climb.step()
    assert climb.pieces in (["a"], ["x"])


def shouting(case: Case) -> float:
    """A hole: a point for each "zonk"."""
    return 0.02 * min(number_of_words(case), 40) + case.text.count("zonk")


def test_a_hole_is_found_and_measured_against_ordinary_samples() -> None:
    cases, taste = made_up(20), Taste(shouting)
    score = scoring(taste)
    scores = score(cases)
    found = exploits(cases, scores, score, ["zonk", "honk"], evaluations=3600, seed=1, beat=quiet)
    by_kind = {row["kind"]: row for row in found["finds"]}
    assert set(by_kind) == {"swaps", "suffix", "string"}
    for row in found["finds"]:
        assert row["score"] > row["start"]
        assert "zonk" in row["text"]
        assert row["above_best"] == pytest.approx((row["score"] - max(scores)) / found["ordinary"]["sd"])
    assert by_kind["suffix"]["fresh"]["lift"]["value"] >= by_kind["suffix"]["text"].count("zonk")
    assert by_kind["suffix"]["fresh"]["lift"]["low"] > 0
    assert by_kind["suffix"]["fresh"]["lift"]["n"] == 16  # 20 prompts, 4 of them to seek on
    assert found["finds"] == sorted(found["finds"], key=lambda row: -row["score"])
    assert found["ordinary"]["best"] == max(scores)
    assert taste.asked <= len(cases) + 3600 + 3 + 2 * 4 + 2 * 2 * 16  # the search, its starts, and the finds on fresh prompts


def test_nothing_is_called_absurd_where_scores_do_not_vary() -> None:
    cases = made_up(8)
    score = scoring(Taste(lambda case: 1.0))
    found = exploits(cases, score(cases), score, [], evaluations=60, seed=1, beat=quiet)
    assert all(row["above_best"] is None for row in found["finds"])


def test_pieces_and_texts_go_both_ways() -> None:
    text = "Take these:\n- flour, and\n- salt!"
    assert joined(pieces_of(text)) == text
