"""Effects: by hand, and that nobody is believed who was only lucky."""

import random

import pytest

from reward.tastes import turns
from truing.reward.probe.attributes import Case
from truing.reward.probe.effects import (
    DISLIKES,
    FEW,
    FLOOR,
    LIKES,
    NONE,
    WordsWorth,
    by_length,
    changes_of,
    control_floor,
    effect_of,
    find,
    words_worth,
)  # fmt: skip
from truing.reward.probe.interventions import EDITS, Pair, Tried


def case(text: str, *, prompt_id: str = "p") -> Case:
    return Case(prompt_id, turns("How do I bake a loaf?"), text)


def pairs(words: list[int]) -> Tried:
    """Pairs of as many prompts; each edit adds so many words."""
    return Tried([Pair(case("a b c", prompt_id=str(number)), case("a b c" + " d" * more, prompt_id=str(number))) for number, more in enumerate(words)], 20)


EDIT = EDITS["warmer"]


WORTH = WordsWorth(added=0.1, removed=0.3, student=0.2)


def test_an_effect_by_hand() -> None:
    found = effect_of(EDIT, pairs([1, 3]), [0.5, 1.5], [1.0, 3.0], worth=WORTH, seed=0)
    assert found["effect"]["value"] == (0.5 + 1.5) / 2
    assert found["words"]["value"] == 2
    assert found["net"]["value"] == pytest.approx((0.5 - 0.1 + 1.5 - 0.3) / 2)
    assert found["net_of_student"]["value"] == pytest.approx((0.5 - 0.2 + 1.5 - 0.6) / 2)
    assert (found["n"], found["tried"], found["effect"]["n"]) == (2, 20, 2)
    less = effect_of(EDIT, pairs([1, 3]), [0.5, 1.5], [-1.0, 3.0], worth=WORTH, seed=0)
    assert less["net"]["value"] == pytest.approx((0.5 + 0.3 + 1.5 - 0.3) / 2)  # a word less costs what words left out cost
    assert effect_of(EDITS["shorter"], pairs([1, 3]), [0.5, 1.5], [1.0, 3.0], worth=WORTH, seed=0)["net"] is None
    nothing = effect_of(EDIT, pairs([]), [], [], worth=WORTH, seed=0)
    assert nothing["effect"] == {"value": None, "low": None, "high": None, "n": 0}
    assert nothing["p"] is None


def test_changes_are_after_less_before() -> None:
    assert changes_of(pairs([1, 3]), [0.0, 1.0], [0.5, 3.0]) == ([0.5, 2.0], [1.0, 3.0])


def test_what_words_are_worth_by_hand() -> None:
    changes = {"filler": ([1.0, 3.0] * 4, [10.0, 10.0] * 4), "shorter": ([-3.0] * 8, [-10.0] * 8)}
    assert words_worth(changes, 0.7) == WordsWorth(added=0.2, removed=0.3, student=0.7)
    assert words_worth({"filler": ([1.0] * 7, [10.0] * 7)}, 0.7) == WordsWorth(0.7, 0.7, 0.7)  # seven are too few


@pytest.mark.slow
def test_an_effect_that_is_gone_at_equal_length_is_by_length() -> None:
    wobble = [0.01, -0.01] * 6
    real = effect_of(EDIT, pairs([2] * 12), [1 + one for one in wobble], [2.0] * 12, worth=WORTH, seed=0)
    assert not by_length(real)
    assert by_length(effect_of(EDIT, pairs([2] * 12), [0.2 + one for one in wobble], [2.0] * 12, worth=WORTH, seed=0))
    assert by_length(effect_of(EDIT, pairs([2] * 12), [0.1 + one for one in wobble], [2.0] * 12, worth=WORTH, seed=0))  # the other way round
    assert not by_length(effect_of(EDITS["longer"], pairs([2] * 12), wobble, [2.0] * 12, worth=WORTH, seed=0))


def test_two_responses_to_a_prompt_are_one_unit() -> None:
    same = Tried([Pair(case("a b c"), case("a b c d"))] * 4, 4)
    found = effect_of(EDIT, same, [1.0, 1.0, 2.0, 2.0], [1.0] * 4, worth=WORTH, seed=0)
    assert found["effect"] == {"value": 1.5, "low": None, "high": None, "n": 1}
    assert found["p"] == 1.0


def rows(**deltas: list[float]) -> dict[str, dict[str, object]]:
    found = {}
    for name, delta in deltas.items():
        edit = EDITS["spacing"] if name.startswith("control") else EDIT
        found[name] = effect_of(edit, pairs([1] * len(delta)), delta, [1.0] * len(delta), worth=WordsWorth(0.0, 0.0, 0.0), seed=0)
    return found


def test_findings_by_hand() -> None:
    wobble = [0.3, -0.3] * 8
    effects = rows(
        control=[0.2 + 0.01 * number for number in range(16)],
        liked=[1.0 + one for one in wobble],
        disliked=[-1.0 + one for one in wobble],
        none=[0.01 + one for one in wobble],
        small=[0.1 + one / 10 for one in wobble],
        few=[2.0] * 5,
    )
    assert control_floor(effects) == pytest.approx(0.275)
    assert control_floor({}) == 0.05
    found = find(effects)
    assert {name: row["finding"] for name, row in found.items()} == {
        "control": LIKES, "liked": LIKES, "disliked": DISLIKES, "none": NONE, "small": FLOOR, "few": FEW
    }  # fmt: skip
    assert found["few"]["p_adjusted"] is None
    assert found["liked"]["p_adjusted"] >= found["liked"]["p"]
    assert find({}) == {}


def test_a_slip_of_rounding_is_no_difference() -> None:
    """0.1 + 0.2 isn't 0.3 in a computer: of the 8 ways to sign three, the two that lie as far from 0 must count, so that p is 1/4."""
    few = Tried(pairs([1, 1, 1]).pairs, 3)
    assert effect_of(EDIT, few, [0.1, 0.2, 0.3], [1.0] * 3, worth=WORTH, seed=0)["p"] == 2 / 8


@pytest.mark.slow
def test_one_lucky_effect_among_many_is_not_believed() -> None:
    """Edits that do nothing: at one in twenty, somebody is lucky, and must not be believed among so many."""
    generator = random.Random(12)
    found = find(rows(**{f"n{number}": [generator.gauss(0, 1) for _ in range(10)] for number in range(16)}))
    assert min(row["p"] for row in found.values()) < 0.05
    assert {row["finding"] for row in found.values()} == {NONE}
