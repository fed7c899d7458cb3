"""Disputes: how large they are, whose votes are the same, and what the log says of them."""

import json
import math
import random
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from asked import add_people, add_samples
from stored import NOON, judgement
from truing.feedback.assignment import submit
from truing.feedback.disputes import Said, bits, disagreement, lend_disputed, measure_disputes, settled_by, summary, vote_of
from truing.feedback.exchange import import_judgements
from truing.feedback.sets import Rules, create_set
from truing.store.project import Project
from truing.store.tables import Assignment, Judgement, Question

votes = st.dictionaries(st.sampled_from("ABCDE"), st.integers(1, 9), min_size=1)


@pytest.mark.parametrize(
    ("counted", "size"),
    [
        ({"A": 2, "B": 2}, 4.0),  # one bit each
        ({"A": 5, "B": 5}, 10.0),
        ({"A": 1, "B": 1, "tie": 1}, 3 * math.log2(3)),
        ({"A": 3}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_dispute_is_as_large_as_it_is_split_and_many(counted: dict[str, int], size: float) -> None:
    assert bits(counted) == pytest.approx(size, abs=1e-12)


def test_disagreement_by_hand() -> None:
    assert disagreement({"A": 2, "B": 1}) == pytest.approx(2 / 3)  # of three pairs of people, two differ
    assert disagreement({"A": 4}) == 0
    assert math.isnan(disagreement({"A": 1}))


@given(votes)
def test_nobody_differs_if_and_only_if_there_is_no_dispute(counted: dict[str, int]) -> None:
    assert bits(counted) >= 0
    assert (bits(counted) > 1e-9) == (len(counted) > 1)
    if sum(counted.values()) > 1:
        assert 0 <= disagreement(counted) <= 1
        assert (disagreement(counted) > 0) == (len(counted) > 1)


@pytest.mark.parametrize(
    ("kind", "answer", "vote"),
    [
        ("pair", {"strength": 3}, "A"),
        ("pair", {"strength": -1, "comment": "so"}, "B"),
        ("pair", {"strength": 0}, "tie"),
        ("pair", {"both_bad": True}, "both bad"),
        ("pair", {"skip": "no idea"}, None),
        ("thumbs", {"up": False}, "down"),
        ("ranking", {"ranks": [2, 1, 1]}, "B = C"),
        ("rating", {"aspects": {"a": 4, "b": 5, "c": 5}}, "5"),
        ("edit", {"text": "other words"}, None),
    ],
)
def test_a_vote_is_an_answer_in_a_word(kind: str, answer: dict[str, object], vote: str | None) -> None:
    assert vote_of(kind, answer) == vote


def said(question: str, annotator: str, vote: str | None, *, left: bool | None = None, seconds: float = 3.0) -> Said:
    """A judgement of a pair."""
    return Said(question, annotator, f"prompt of {question}", "s", "pair", vote, left, seconds)


def test_a_summary_by_hand() -> None:
    log = [
        said("q1", "a", "A", left=True), said("q1", "b", "B", left=False), said("q1", "c", "A", left=True),
        said("q2", "a", "tie"), said("q2", "b", "tie", seconds=70.0), said("q3", "a", None), said("q3", "b", "A", left=True, seconds=5.0),
    ]  # fmt: skip
    found = summary(log, {"s": "the set"})
    assert [row["question"] for row in found["disputes"]] == ["q1"]
    assert found["disputes"][0]["votes"] == {"A": 2, "B": 1}
    assert found["prompts"] == [{"prompt": "prompt of q1", "bits": 2.755, "questions": 1, "votes": 3, "disagreement": pytest.approx(2 / 3)}]
    assert (found["side"]["value"], found["side"]["n"]) == (3 / 4, 4)
    assert (found["ties"]["value"], found["ties"]["n"]) == (2 / 7, 7)
    assert found["skips"]["value"] == 1 / 7
    assert (found["agreement"]["value"], found["agreement"]["n"]) == (pytest.approx(2 / 4), 2)  # 1 of 3 pairs of people on q1, 1 of 1 on q2
    assert found["time"]["median"] == 3.0
    assert found["time"]["counts"][:2] == [5, 1]
    assert found["time"]["counts"][-1] == 1  # what took longer than the last edge
    (row,) = found["sets"]
    assert (row["name"], row["judgements"], row["questions"]) == ("the set", 7, 3)


@pytest.mark.slow
@settings(deadline=None, max_examples=20)  # each draws its bootstraps
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_log_changes_nothing(dice: random.Random) -> None:
    log = [said(f"q{number % 5}", f"a{number % 4}", "AB"[number % 3 == 0], left=number % 2 == 0, seconds=float(number)) for number in range(20)]
    shuffled = dice.sample(log, len(log))
    assert summary(shuffled, {})["disputes"] == summary(log, {})["disputes"]
    assert summary(shuffled, {})["prompts"] == summary(log, {})["prompts"]


@pytest.fixture
def asked(project: Project) -> Project:
    """A set of pairs, and three people."""
    add_samples(project, prompts=4, per_prompt=2)
    add_people(project, "Ann", "Ben", "Mona")
    create_set(project, name="pairs", kind="pair", guideline="The kinder one.", rules=Rules(overlap=2), batch="batch", seed=1, at=NOON)
    return project


def questions(project: Project) -> list[str]:
    """The questions' ids in order."""
    with project.database.read() as session:
        return list(session.scalars(select(Question.id).order_by(Question.position)))


def test_the_log_is_read_as_it_stands(asked: Project) -> None:
    """A changed answer counts once, as it is now; a check question not at all; the left side is where the preferred one stood."""
    first, second, third, *_ = questions(asked)
    with asked.database.write() as session:
        session.get_one(Question, third).gold = {"better": 0}
        session.add(judgement(first, "k1", answer={"strength": 2}, order_shown=[1, 0]))
        session.add(judgement(first, "k2", annotator_id="ben", answer={"strength": 1}, order_shown=[0, 1]))
        session.flush()
        session.add(judgement(first, "k3", answer={"strength": -2}, order_shown=[1, 0], supersedes="k1", submitted_at=NOON + timedelta(seconds=1)))
        session.add(judgement(second, "k4", answer={"skip": "no"}))
        session.add(judgement(third, "k5", answer={"strength": 1}))
    found = measure_disputes(asked)
    assert found["judgements"] == 3
    assert found["log"] == 5
    assert found["disputes"] == [{"question": first, "bits": 2.0, "votes": {"A": 1, "B": 1}}]
    assert (found["side"]["value"], found["side"]["n"]) == (1.0, 2)  # B stood on Ann's left, A on Ben's
    assert found["self"]["n"] == 0


def test_an_order_that_nobody_knows_has_no_sides(asked: Project, tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{n}?", "chosen": "Yes.", "rejected": "No."}) + "\n" for n in range(40)))
    import_judgements(asked, file, "trl")
    assert measure_disputes(asked)["side"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    with asked.database.write() as session:
        session.add(judgement(questions(asked)[0], "k1", answer={"strength": 2}, order_shown=[0, 1]))
    found = measure_disputes(asked)
    assert (found["judgements"], found["side"]["value"], found["side"]["n"]) == (41, 1.0, 1)


def test_who_is_asked_again_and_says_the_same(asked: Project) -> None:
    first, second, *_ = questions(asked)
    with asked.database.write() as session:
        session.get_one(Question, second).repeat_of = first
        session.add(judgement(first, "k1", answer={"strength": 3}))
        session.add(judgement(second, "k2", answer={"strength": 1}))
        session.add(judgement(first, "k3", annotator_id="ben", answer={"strength": 3}))
        session.add(judgement(second, "k4", annotator_id="ben", answer={"strength": -1}))
    found = measure_disputes(asked)
    assert (found["self"]["value"], found["self"]["n"]) == (0.5, 2)
    assert found["judgements"] == 2  # a repeat is no vote more


def test_a_dispute_is_settled_through_the_door_and_keeps_nobody_out(asked: Project) -> None:
    question = questions(asked)[0]
    claim_id = lend_disputed(asked, question, "mona", at=NOON)
    assert lend_disputed(asked, question, "mona", at=NOON + timedelta(hours=1)) == claim_id  # the order isn't drawn again
    with asked.database.read() as session:
        lent = session.get_one(Assignment, claim_id)
        assert sorted(lent.order_shown) == [0, 1]
        assert lent.expires_at <= NOON
        assert settled_by(session, [question], ["mona"]) == {}
    receipt = submit(
        asked, claim_id, {"strength": 1}, annotator_id="mona", started_at=NOON, at=NOON, active_ms=10, idempotency_key="settled-1", guideline_version=1
    )
    with asked.database.read() as session:
        assert session.get_one(Judgement, receipt.judgement_id).annotator_id == "mona"
        assert settled_by(session, [question], ["mona", "ann"]) == {question: "mona"}
