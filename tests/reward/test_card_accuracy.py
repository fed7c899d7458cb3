"""How often scores side with people, by hand: in all, by stratum, beside people and beside rules that read nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.letters import row, said_of, write_dataset
from stored import judgement, prompt
from truing.artifacts import write_artifact
from truing.errors import UserError
from truing.preferences import Asked, PreferenceSettings, to_rows
from truing.reward.card.accuracy import beside_rules, human_agreement, judged_accuracy, kind_of, majority_accuracy, question_kinds, step, strata
from truing.reward.train_pairs import require_rows
from truing.store.project import Project
from truing.store.tables import Sample


def test_majority_accuracy_by_hand() -> None:
    rows = [row("p", "a", "b", 1.0), row("q", "a", "b", 0.2), row("r", "a", "b", 0.5), row("s", "a", "b", 0.9)]
    # right, wrong, a tie of the people's that isn't asked, a tie of the model's that counts half
    found = majority_accuracy(rows, [(2.0, 1.0), (1.0, 0.0), (0.0, 1.0), (3.0, 3.0)])
    assert found.value == 1.5 / 3
    assert found.n == 3
    assert 0 <= found.low < found.value < found.high <= 1


def test_judged_accuracy_counts_single_judgements_of_the_chosen() -> None:
    rows = [
        row("p", "a", "b", 0.7, strengths={"ann": 2, "bob": 1, "eve": -3}),
        row("q", "a", "b", 0.3, strengths={"ann": -1, "bob": 0, "eve": 3}),
    ]
    scores = [(1.0, 0.0), (1.0, 0.0)]  # a both times
    everyone = judged_accuracy(rows, scores)
    assert (everyone.value, everyone.n) == (3 / 5, 5)  # ann right, bob right, eve wrong; ann wrong, bob tied, eve right
    honest = judged_accuracy(rows, scores, {"ann", "bob"})
    assert (honest.value, honest.n) == (2 / 3, 3)
    assert judged_accuracy(rows, scores, {"nobody"}).n == 0


def test_human_agreement_is_over_couples_who_both_took_a_side() -> None:
    rows = [
        row("p", "a", "b", 0.7, strengths={"ann": 2, "bob": 1, "eve": -3}),  # ann-bob agree; ann-eve, bob-eve don't
        row("q", "a", "b", 0.3, strengths={"ann": -1, "bob": 0}),  # a tie is no side
        row("r", "a", "b", 0.3, strengths={"ann": -1, "eve": -2}),  # agree
    ]
    found = human_agreement(rows)
    assert (found.value, found.n) == (2 / 4, 4)


PEOPLE = {"ann": 0.9, "bob": 0.9}


def preferences(kind: str, *answers: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the dataset makes them, of a pair, or of a question about each of two responses; each answer is given by annotator."""
    samples = [Sample(id=side, text=side, token_ids=None, finished=True) for side in "ab"]
    about = [samples] if kind == "pair" else [[sample] for sample in samples]
    asked = [
        Asked(f"q{place}", prompt("Why?"), some, [judgement(f"q{place}", f"{who}-{place}", annotator_id=who, answer=said) for who, said in given.items()], kind)
        for place, (some, given) in enumerate(zip(about, answers, strict=True))
    ]
    return to_rows(asked, PEOPLE, PreferenceSettings())


def test_a_thumb_is_no_judgement_of_two_responses() -> None:
    """Ann's and Bob's thumbs up for a and Bob's down for b: nobody disagrees with anybody about the pair, or agrees."""
    rows = preferences("thumbs", {"ann": {"up": True}, "bob": {"up": True}}, {"ann": {"up": True}, "bob": {"up": False}})
    assert len(rows) == 1
    assert human_agreement(rows).n == 0
    assert judged_accuracy(rows, [(1.0, 0.0)]).n == 0
    assert majority_accuracy(rows, [(1.0, 0.0)]).value == 1
    found = strata([], rows, [(1.0, 0.0)], {"q0": "thumbs", "q1": "thumbs"})["kind"]
    assert [(one["stratum"], one["accuracy"]["n"], one["judged"]["n"], one["ceiling"]["n"]) for one in found] == [("thumbs", 1, 0, 0)]


def test_ratings_of_two_responses_by_two_people_are_compared() -> None:
    rated = [{who: {"aspects": {"overall": points}} for who in PEOPLE} for points in (4, 2)]
    rows = preferences("rating", *rated)
    assert (human_agreement(rows).value, human_agreement(rows).n) == (1, 1)


def test_as_many_for_one_as_for_the_other_prefer_none_whatever_the_last_digit_says() -> None:
    row, = rows = preferences("pair", {"ann": {"strength": 2}, "bob": {"strength": -2}})  # fmt: skip
    assert row["target"] != 0.5  # a rounding off
    assert majority_accuracy(rows, [(1.0, 0.0)]).n == 0
    assert beside_rules(rows, [(1.0, 0.0)])[0]["accuracy"]["n"] == 0
    with pytest.raises(UserError, match="1 of them ties"):
        require_rows(rows, rows, 1)


def test_the_longer_and_the_shorter_answer_as_rivals() -> None:
    rows = [row("p", "aaaa", "b", 1.0), row("q", "a", "bbb", 0.9), row("r", "a", "b", 0.0), row("s", "aa", "b", 0.5)]
    longer, shorter = beside_rules(rows, [(1.0, 0.0), (1.0, 0.0), (1.0, 0.0), (1.0, 0.0)])
    # scores: right, right, wrong; longer: right, wrong, alike; the tie of the people's isn't asked
    assert (longer["rule"], longer["accuracy"]["value"], longer["accuracy"]["n"]) == ("the longer answer", (1 + 0 + 0.5) / 3, 3)
    assert longer["lead"]["value"] == pytest.approx((0 + 1 - 0.5) / 3)
    assert shorter["accuracy"]["value"] == (0 + 1 + 0.5) / 3
    assert longer["lead"]["value"] + longer["accuracy"]["value"] == pytest.approx(majority_accuracy(rows, [(1.0, 0.0)] * 4).value)


def test_strata_by_hand() -> None:
    rows = [
        row("p", "a", "b", 0.9, strengths={"ann": 3, "bob": 1}),  # two people, mean strength 2.4 by its target
        row("q", "a", "b", 0.2, strengths={"ann": -1, "bob": 2, "eve": -3}),  # three people, 1.8
        row("r", "a", "b", 0.6, strengths={"ann": 1}),  # one, 0.6
    ]
    found = strata([], rows, [(1.0, 0.0)] * 3, {})
    by_people = {one["stratum"]: one for one in found["annotators"]}
    assert [(name, one["accuracy"]["value"], one["accuracy"]["n"]) for name, one in by_people.items()] == [
        ("one person", 1, 1), ("two people", 1, 1), ("three or more", 0, 1),
    ]  # fmt: skip
    assert (by_people["three or more"]["judged"]["value"], by_people["three or more"]["judged"]["n"]) == (1 / 3, 3)
    assert (by_people["three or more"]["ceiling"]["value"], by_people["three or more"]["ceiling"]["n"]) == (
        2 / 6,
        6,
    )  # ann and eve, both ways
    assert by_people["one person"]["ceiling"] == {"value": None, "low": None, "high": None, "n": 0}
    by_strength = {one["stratum"]: one for one in found["strength"]}
    weak, strong = by_strength["one step or less"], by_strength["over two steps"]
    assert (weak["judged"]["value"], weak["judged"]["n"]) == (2 / 3, 3)  # bob of p, ann of q, ann of r
    assert (strong["judged"]["value"], strong["judged"]["n"]) == (1 / 2, 2)  # ann of p, eve of q
    assert (weak["ceiling"]["value"], weak["ceiling"]["n"]) == ((1 + 0 + 1) / 3, 3)  # ann foresees bob of p; of ann's in q bob doesn't, eve does
    assert found["kind"] == []


def test_strata_add_up_to_the_whole() -> None:
    rows = [
        row(f"p{number}", "a", "b", [0.9, 0.1, 0.7][number % 3], strengths=dict(zip("xyz", [2, -1, 1][: 1 + number % 3], strict=False))) for number in range(12)
    ]
    scores = [(float(number % 5), 2.0) for number in range(12)]
    whole, split = majority_accuracy(rows, scores), strata([], rows, scores, {})["annotators"]
    assert sum(one["accuracy"]["n"] for one in split) == 12
    assert sum(one["accuracy"]["value"] * one["accuracy"]["n"] for one in split) / 12 == pytest.approx(whole.value)


@pytest.mark.parametrize(
    ("strength", "words"), [(0.0, "one step or less"), (-1.0, "one step or less"), (1.01, "over one step, up to two"), (-3, "over two steps")]
)
def test_steps(strength: float, words: str) -> None:
    assert step(strength) == words


@given(st.floats(-3, 3))
def test_a_strength_has_no_side(strength: float) -> None:
    assert step(strength) == step(-strength)


@pytest.mark.parametrize(
    ("question", "kind"),
    [("q1", "pair"), ("q2/0/2", "ranking"), ("q3+q4", "rating"), ("q5/judgement-9", "edit"), ("q6+q7", "thumbs"), ("q8", None)],
)
def test_the_kind_of_question_that_a_pair_came_from(question: str, kind: str | None) -> None:
    kinds = {"q1": "pair", "q2": "ranking", "q3": "rating", "q4": "rating", "q5/judgement-9": "edit", "q6": "thumbs", "q7": "thumbs"}
    assert kind_of({"question_id": question}, kinds) == kind


def test_kinds_are_read_from_what_was_said(project: Project) -> None:
    rows = [row("p", "a", "b", 1.0)]
    kinds = question_kinds(write_dataset(project, rows, said_of(rows, "ranking")))
    assert set(kinds.values()) == {"ranking"}
    old = write_artifact(project.artifacts, "dataset", lambda folder: None)
    assert question_kinds(old) == {}
