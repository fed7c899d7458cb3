"""Dawid-Skene, MACE and alpha of crowd-kit beside our own numbers, and NumPy's global generator as it was."""

import random
from typing import Any

import numpy as np
import pytest

from truing.feedback.said import Vote
from truing.feedback.second_opinion import numpy_left_alone, second_opinion
from truing.stats import krippendorff_alpha

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

PEOPLE = {"ann": 0.95, "bob": 0.9, "cy": 0.85, "coin": 0.5}


def numpys_state() -> tuple[Any, ...]:
    """The state of NumPy's global generator."""
    return tuple(np.random.get_state(legacy=True))


def votes(n: int = 60) -> list[Vote]:
    """Everyone on every question, right with their own probability."""
    draw = random.Random(0)
    found = []
    for i in range(n):
        truth = draw.choice((1, -1))
        found += [Vote(f"q{i:03d}", who, truth if draw.random() < skill else -truth) for who, skill in PEOPLE.items()]
    return found


@pytest.fixture(scope="module")
def opinion() -> dict[str, Any]:
    """One opinion for all tests, for it takes its time; NumPy's generator is watched meanwhile."""
    np.random.seed(7)
    before = numpys_state()
    found = second_opinion(votes(), sorted(PEOPLE), dict.fromkeys(PEOPLE, 1.0))
    after = numpys_state()
    return found | {"left alone": before[0] == after[0] and np.array_equal(before[1], after[1]) and before[2:] == after[2:]}


def test_it_knows_the_coin(opinion: dict[str, Any]) -> None:
    rows = {row["id"]: row for row in opinion["annotators"]}
    for method in ("dawid_skene", "mace", "agrees_dawid_skene", "agrees_mace"):
        assert min(rows, key=lambda who: rows[who][method]) == "coin"
        assert all(0 <= row[method] <= 1 for row in rows.values())
    assert abs(rows["ann"]["dawid_skene"] - 0.95) < 0.06
    assert rows["coin"]["mace"] < 0.3 < 0.7 < rows["ann"]["mace"]
    assert opinion["consensus_dawid_skene"] > 0.9
    assert opinion["consensus_mace"] > 0.9


def test_alpha_is_ours(opinion: dict[str, Any]) -> None:
    assert opinion["alpha"] == pytest.approx(krippendorff_alpha([(vote.unit, vote.annotator, vote.choice) for vote in votes()]))


def test_the_global_generator_is_left_as_it_was(opinion: dict[str, Any]) -> None:
    assert opinion["left alone"]


def reseed_and_fail() -> None:
    """What a library may do."""
    with numpy_left_alone():
        np.random.seed(0)
        raise ZeroDivisionError


def test_it_is_put_back_even_after_a_failure() -> None:
    np.random.seed(7)
    wanted = numpys_state()[1].copy()
    with pytest.raises(ZeroDivisionError):
        reseed_and_fail()
    assert np.array_equal(numpys_state()[1], wanted)


def test_without_votes_there_is_no_opinion() -> None:
    found = second_opinion([], ["ann"], {"ann": 0.5})
    assert found["annotators"] == [{"id": "ann", "dawid_skene": None, "mace": None, "agrees_dawid_skene": None, "agrees_mace": None}]
    assert found["alpha"] is None


def test_one_vote_each_has_no_alpha() -> None:
    found = second_opinion([Vote("q1", "ann", 1), Vote("q2", "ann", -1)], ["ann", "bob"], {"ann": 0.5, "bob": 0.5})
    assert found["alpha"] is None
    assert found["annotators"][1]["mace"] is None
