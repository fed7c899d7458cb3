"""The one door: who is lent which question, what becomes of their answer."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from asked import add_people, add_question_to, add_set
from door import EXPIRED, LATER, give, question, rows, take
from stored import NOON, add_question, new_database
from truing.errors import UserError
from truing.feedback.assignment import (
    answers_given,
    claim,
    claim_in,
    current_judgements,
    edit_sample_id,
    last_answers,
    progress,
    question_shown,
    release,
    save_draft,
    still_wanted,
    submit,
    supersede,
)
from truing.feedback.next_question import block_of
from truing.feedback.people import set_active
from truing.feedback.sets import EVERYBODY, Aspect, Rules, new_guideline, set_state
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Assignment, Judgement, Prompt, Question, QuestionSample, Sample


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project on either database."""
    monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, tmp_path))
    opened = open_project(create_project(tmp_path / "project", settings=""))
    yield opened
    opened.database.close()


def change(project: Project, judgement: str, answer: dict[str, Any], key: str, *, at: Any = LATER, who: str = "ann") -> Any:
    return supersede(
        project, judgement, answer, annotator_id=who, started_at=LATER, at=at, active_ms=5, idempotency_key=key, guideline_version=1
    )  # fmt: skip


# ---- claiming ----


def test_questions_are_lent_in_order_and_not_beyond_their_overlap(project: Project) -> None:
    first, second = add_set(project, [2, 1])
    add_people(project, "Ann", "Bob", "Cy", "Dee")
    assert [take(project, who).question_id for who in ("ann", "bob", "cy")] == [first, first, second]
    assert claim(project, "dee", at=NOON) is None


def test_an_open_lease_is_given_again_as_it_was(project: Project) -> None:
    add_set(project, [1, 1])
    add_people(project, "Ann")
    first = take(project, "ann")
    assert take(project, "ann", LATER) == first


def test_another_is_lent_beside_those_on_the_screen(project: Project) -> None:
    ids = add_set(project, [1, 1, 1])
    add_people(project, "Ann")
    first = take(project, "ann")
    second = take(project, "ann", besides=[first.id])
    assert [first.question_id, second.question_id] == ids[:2]
    assert take(project, "ann", besides=[first.id]) == second  # asked twice, it is still the same one
    assert take(project, "ann", besides=[first.id, second.id]).question_id == ids[2]
    with pytest.raises(UserError, match="you hold 11 questions already"):
        claim(project, "ann", at=NOON, besides=[first.id] * 11)


def test_nobody_is_asked_twice(project: Project) -> None:
    only, = add_set(project, [3])  # fmt: skip
    add_people(project, "Ann")
    lent = take(project, "ann")
    assert lent.question_id == only
    give(project, lent)
    assert claim(project, "ann", at=LATER) is None


def test_a_lease_that_ran_out_frees_the_question(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    late = take(project, "ann")
    assert claim(project, "bob", at=late.expires_at - timedelta(seconds=1)) is None
    assert take(project, "bob", late.expires_at).question_id == only


def test_the_lease_is_as_long_as_the_rules_say(project: Project) -> None:
    add_set(project, [2], lease_minutes=5)
    add_people(project, "Ann", "Bob")
    assert take(project, "ann").expires_at == NOON + timedelta(minutes=5)
    assert take(project, "bob", lease_minutes=7).expires_at == NOON + timedelta(minutes=7)


def test_a_question_that_comes_back_keeps_its_order(project: Project) -> None:
    add_set(project, [1], n_samples=9, kind="ranking")
    add_people(project, "Ann")
    first, again = take(project, "ann"), take(project, "ann", EXPIRED)
    assert (again.id, again.order_shown) == (first.id, first.order_shown)
    assert again.expires_at == EXPIRED + timedelta(minutes=30)


def test_a_question_given_back_goes_to_the_next_who_asks(project: Project) -> None:
    first, second = add_set(project, [1, 1])
    add_people(project, "Ann", "Bob")
    lent = take(project, "ann")
    release(project, lent.id, annotator_id="ann", at=NOON)
    assert take(project, "bob").question_id == first
    assert take(project, "ann").question_id == second
    assert give(project, lent).extra is False  # they had finished it after all, before Bob


def test_a_skip_leaves_the_question_open_for_others(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    give(project, take(project, "ann"), {"skip": "I can't read it"})
    assert (question(project, only).answers, question(project, only).open) == (0, True)
    assert claim(project, "ann", at=LATER) is None
    assert take(project, "bob", LATER).question_id == only


def test_a_set_a_round_and_a_kind_can_be_asked_for(project: Project) -> None:
    first, = add_set(project, [1])  # fmt: skip
    ranking, = add_set(project, [1], n_samples=3, kind="ranking", name="Ranks")  # fmt: skip
    add_people(project, "Ann", "Bob", "Cy")
    assert claim(project, "ann", at=NOON, round_id=7) is None
    assert claim(project, "ann", at=NOON, set_id="Other") is None
    found = take(project, "ann", kind="ranking")
    assert (found.question_id, found.set_id, found.kind, sorted(found.order_shown)) == (ranking, "Ranks", "ranking", [0, 1, 2])
    assert take(project, "bob", set_id="A set").question_id == first
    assert claim(project, "cy", at=NOON, kind="pair") is None


def test_a_question_of_no_set_is_asked_of_nobody(project: Project) -> None:
    with project.database.write() as session:
        add_question(session)
    assert claim(project, "ann", at=NOON) is None


def test_only_those_are_asked_who_should_be(project: Project) -> None:
    add_set(project, [9], who=["ann"])
    add_people(project, "Ann", "Bob")
    assert claim(project, "bob", at=NOON) is None
    assert take(project, "ann").set_id == "A set"
    add_set(project, [1], name="For nobody", who=[])
    assert claim(project, "bob", at=NOON) is None


def test_sets_are_asked_in_their_order(project: Project) -> None:
    first, = add_set(project, [1], name="One")  # fmt: skip
    second, = add_set(project, [1], name="Two", kind="thumbs", n_samples=1)  # fmt: skip
    add_people(project, "Ann")
    lent = take(project, "ann")
    assert lent.question_id == first
    give(project, lent)
    assert take(project, "ann", LATER).question_id == second


def test_those_with_the_fewest_answers_come_first_if_the_rules_say_so(project: Project) -> None:
    ids = add_set(project, [2, 2, 2], order="fewest")
    add_people(project, "Ann", "Bob")
    for _ in ids:
        give(project, take(project, "ann"))
    with project.database.write() as session:
        late = add_question_to(session, "A set", 3, 2, "pair", 2)
    assert [give(project, lent) and lent.question_id for lent in (take(project, "bob") for _ in range(4))] == [late, *ids]


@pytest.mark.slow
def test_every_order_is_as_likely(project: Project) -> None:
    add_set(project, [600], n_samples=3, kind="ranking")
    draw = random.Random(0)
    with project.database.write() as session:
        session.add_all(Annotator(id=f"{i}", name=f"{i}", kind="human", role="annotator", active=True, facts={}, created_at=NOON) for i in range(600))
    with project.database.write() as session:
        orders = Counter(found.order_shown for i in range(600) if (found := claim_in(session, f"{i}", at=NOON, random_bits=draw.getrandbits)))
    assert len(orders) == 6
    assert all(60 <= n <= 140 for n in orders.values())  # 100 each; four standard deviations are 37


def test_a_stranger_and_one_who_was_let_go_are_refused(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    set_active(project, "ann", False)
    for who in ("ann", "nobody"):
        with pytest.raises(UserError, match="no active annotator"):
            claim(project, who, at=NOON)


@pytest.mark.parametrize("state", ["paused", "archived"])
def test_a_set_that_rests_lends_nothing_and_takes_what_was_lent(project: Project, state: str) -> None:
    add_set(project, [2, 2])
    add_people(project, "Ann", "Bob")
    lent = take(project, "ann")
    set_state(project, "A set", state)
    assert claim(project, "ann", at=NOON) is None
    assert claim(project, "bob", at=NOON) is None
    save_draft(project, lent.id, {"strength": 1}, annotator_id="ann", at=NOON)
    assert not give(project, lent).extra
    set_state(project, "A set", "open")
    assert take(project, "bob").question_id == lent.question_id


def test_who_rests_may_finish_what_they_hold(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    set_active(project, "ann", False)
    assert not give(project, lent).extra


def test_a_claim_tells_nothing_of_whose_samples_they_are(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    assert take(project, "ann")._fields == ("id", "question_id", "annotator_id", "order_shown", "claimed_at", "expires_at", "set_id", "kind", "draft")


def test_what_is_still_wanted(project: Project) -> None:
    first, _ = add_set(project, [2, 1])
    add_people(project, "Ann", "Bob")
    with project.database.read() as session:
        assert still_wanted(session, None) == 3
    give(project, take(project, "ann"))
    give(project, take(project, "bob"), {"skip": "no idea"})
    with project.database.write() as session:
        assert still_wanted(session, None) == 2
        session.get_one(Question, first).gold = {"better": 0}
    with project.database.read() as session:
        assert still_wanted(session, None) == 1  # nothing waits for a check question


# ---- check questions and repeats ----


def with_checks(project: Project, n: int, n_gold: int, **rules: Any) -> tuple[set[str], set[str]]:
    """Plain questions and check questions of a set, for all who come."""
    plain = add_set(project, [50] * n, gold="scheduled", **rules)
    with project.database.write() as session:
        gold = [add_question_to(session, "A set", -1 - i, EVERYBODY, "pair", 2, gold={"better": 0}) for i in range(n_gold)]
    return set(plain), set(gold)


def answer_all(project: Project, who: str, seed: int = 0) -> list[str]:
    """Let someone answer till nothing is left; the questions they had, in their order."""
    draw, asked = random.Random(seed), []
    with project.database.write() as session:
        while (lent := claim_in(session, who, at=NOON, random_bits=draw.getrandbits)) is not None:
            asked.append(lent.question_id)
            _answer_in(session, lent, draw)
    return asked


def _answer_in(session: Any, lent: Any, draw: random.Random) -> None:
    from truing.feedback.assignment import Work, submit_in

    work = Work(NOON, NOON, 1, f"{lent.annotator_id} {lent.question_id}", 1)
    submit_in(session, lent.id, {"strength": 1}, work, annotator_id=lent.annotator_id, random_bits=draw.getrandbits)


@pytest.mark.slow
def test_check_questions_come_at_their_rate(project: Project) -> None:
    """4 of the first 50, then 3 in each hundred, hidden among the others: at other places for each."""
    plain, gold = with_checks(project, 237, 30)
    add_people(project, "Ann", "Bob")
    by_person = [answer_all(project, who, seed=i) for i, who in enumerate(("ann", "bob"))]
    for asked in by_person:
        checks = [question in gold for question in asked]
        assert [sum(checks[:50]), sum(checks[50:150]), sum(checks[150:250])] == [4, 3, 3]
        assert set(asked) >= plain
        assert max(Counter(asked).values()) == 1
    places = [[i for i, question in enumerate(asked) if question in gold] for asked in by_person]
    assert places[0] != places[1]
    with project.database.read() as session:
        assert {session.get_one(Question, question).open for question in gold} == {True}


def test_where_check_questions_run_out_the_others_go_on(project: Project) -> None:
    plain, gold = with_checks(project, 80, 2)
    add_people(project, "Ann")
    asked = answer_all(project, "ann")
    assert set(asked) == plain | gold
    assert len(asked) == 82


def test_check_questions_alone_are_not_asked(project: Project) -> None:
    with_checks(project, 0, 5)
    add_people(project, "Ann")
    assert claim(project, "ann", at=NOON) is None


def test_interleaved_check_questions_come_in_the_order_of_the_set(project: Project) -> None:
    plain = add_set(project, [1, 1])
    with project.database.write() as session:
        gold = add_question_to(session, "A set", -1, 1, "pair", 2, gold={"better": 0})
    add_people(project, "Ann")
    assert answer_all(project, "ann") == [gold, *plain]


def test_blocks_of_turns() -> None:
    rules = Rules(gold_first=0.1, gold_first_n=50, gold_later=0.02)
    assert [block_of(rules, taken) for taken in (0, 49, 50, 149, 150)] == [(0, 50, 0.1), (0, 50, 0.1), (50, 100, 0.02), (50, 100, 0.02), (150, 100, 0.02)]


@pytest.mark.slow
def test_a_repeat_comes_a_while_after_as_a_question_of_its_own(project: Project) -> None:
    plain = add_set(project, [1] * 200, gold="scheduled", repeat_rate=0.2)
    add_people(project, "Ann", "Bob")
    asked = answer_all(project, "ann")
    assert claim(project, "bob", at=NOON) is None  # repeats are for Ann alone
    with project.database.read() as session:
        repeats = {row.id: (row, row.repeat_of or "") for row in session.scalars(select(Question).where(Question.repeat_of.is_not(None)))}
        samples = {(row.question_id, row.position): row.sample_id for row in session.scalars(select(QuestionSample))}
        orders = {row.question_id: row.order_shown for row in session.scalars(select(Assignment))}
        assert still_wanted(session, None) == 0
    assert [question for question in asked if question not in repeats] == plain
    assert 15 <= len(repeats) <= 65  # 50 of 250 are expected, less the start
    assert len({original for _, original in repeats.values()}) == len(repeats)
    assert {orders[repeat] == orders[original] for repeat, (_, original) in repeats.items()} == {True, False}  # the order is drawn anew
    for repeat, (row, original) in repeats.items():
        assert asked.index(repeat) - asked.index(original) > 10
        assert (row.only_for, row.overlap, row.answers, row.open, row.gold, row.facts) == ("ann", 1, 1, False, None, {"why": "repeat"})
        assert [samples[repeat, i] for i in (0, 1)] == [samples[original, i] for i in (0, 1)]


def test_a_repeat_that_was_left_waits_for_its_annotator(project: Project) -> None:
    plain, = add_set(project, [2])  # fmt: skip
    add_people(project, "Ann", "Bob")
    give(project, take(project, "ann"))
    with project.database.write() as session:
        repeat = add_question_to(session, "A set", 9, 1, "pair", 2, repeat_of=plain, only_for="ann")
    give(project, take(project, "bob"))
    assert claim(project, "bob", at=LATER) is None
    assert take(project, "ann", LATER).question_id == repeat


def test_what_was_skipped_is_not_repeated(project: Project) -> None:
    add_set(project, [2] * 60, gold="scheduled", repeat_rate=0.5)
    add_people(project, "Ann")
    draw = random.Random(0)
    for number in range(60):
        lent = claim(project, "ann", at=NOON, random_bits=draw.getrandbits)
        assert lent is not None
        give(project, lent, {"skip": "no idea"}, key=f"{number}")
    with project.database.read() as session:
        assert session.scalars(select(Question).where(Question.repeat_of.is_not(None))).all() == []


# ---- answering ----


def test_an_answer_is_stored_with_the_order_it_was_seen_in(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann")
    lent = take(project, "ann")
    given = give(project, lent, {"strength": -2})
    stored, = rows(project)  # fmt: skip
    assert given == (stored.id, False, False)
    assert (stored.answer, tuple(stored.order_shown)) == ({"strength": -2}, lent.order_shown)
    assert (stored.started_at, stored.submitted_at, stored.active_ms, stored.guideline_version, stored.supersedes) == (NOON, LATER, 9000, 1, None)
    assert (question(project, only).answers, question(project, only).open) == (1, False)


def test_sending_an_answer_again_adds_nothing(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    assert give(project, lent)._replace(replay=True) == give(project, lent, at=EXPIRED)
    assert len(rows(project)) == 1


def test_a_key_is_for_one_answer(project: Project) -> None:
    add_set(project, [1, 1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    give(project, lent, key="k")
    other = take(project, "ann", LATER)
    for claimed, answer in ((lent, {"strength": 3}), (other, {"strength": 1})):
        with pytest.raises(UserError, match="used for another answer"):
            give(project, claimed, answer, key="k")
    for key in ("k" * 81, "a\0b"):
        with pytest.raises(UserError, match="key of 1 to 80"):
            give(project, other, key=key)


def test_a_second_answer_supersedes_the_first(project: Project) -> None:
    """Two tabs: one answer stands."""
    only, = add_set(project, [2])  # fmt: skip
    add_people(project, "Ann")
    lent = take(project, "ann")
    first, second = give(project, lent, key="tab 1"), give(project, lent, {"strength": -1}, key="tab 2")
    with project.database.read() as session:
        assert [(row.id, row.supersedes) for row in current_judgements(session, [only])] == [(second.judgement_id, first.judgement_id)]
    assert question(project, only).answers == 1


def test_a_finished_answer_is_never_refused_because_its_lease_ran_out(project: Project) -> None:
    """It is kept as an extra if the question has enough answers by now."""
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    late, other = take(project, "ann"), take(project, "bob", EXPIRED)
    give(project, other, at=EXPIRED)
    assert give(project, late, at=EXPIRED + timedelta(hours=1)).extra
    assert [(row.question_id, row.annotator_id, row.extra) for row in rows(project)] == [(only, "bob", False), (only, "ann", True)]
    assert question(project, only).answers == 1


def test_a_late_answer_counts_where_one_is_still_wanted(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    late, other = take(project, "ann"), take(project, "bob", EXPIRED)
    assert not give(project, late, at=EXPIRED).extra
    assert give(project, other, at=EXPIRED).extra  # kept too, but the quota holds
    assert (question(project, only).answers, question(project, only).open) == (1, False)


def test_an_answer_to_another_kind_of_question_is_refused_and_leaves_nothing(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    with pytest.raises(UserError, match="this is no answer to a pair question"):
        give(project, take(project, "ann"), {"up": True})
    assert rows(project) == []


def test_a_claim_is_its_annotators_alone(project: Project) -> None:
    add_set(project, [2])
    add_people(project, "Ann", "Bob")
    lent = take(project, "ann")
    for act in (
        lambda: give(project, lent, annotator_id="bob"),
        lambda: save_draft(project, lent.id, {}, annotator_id="bob", at=NOON),
        lambda: release(project, lent.id, annotator_id="bob", at=NOON),
        lambda: submit(project, "x", {"up": True}, annotator_id="ann", started_at=NOON, at=NOON, active_ms=1, idempotency_key="k", guideline_version=1),
    ):
        with pytest.raises(UserError, match=r"there is no claim \S+ of yours"):
            act()
    given = give(project, lent)
    with pytest.raises(UserError, match=r"there is no judgement \S+ of yours"):
        change(project, given.judgement_id, {"strength": 2}, "k2", who="bob")
    assert len(rows(project)) == 1


def test_a_clock_that_goes_wrong_loses_no_answer(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    give(project, take(project, "ann"), started_at=EXPIRED)
    assert rows(project)[0].started_at == LATER


@pytest.mark.parametrize("spent", [-1, 2**31])
def test_an_impossible_time_is_refused(project: Project, spent: int) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    with pytest.raises(UserError, match="an answer can't take"):
        give(project, take(project, "ann"), active_ms=spent)


def test_the_version_of_the_guideline_is_remembered_and_must_exist(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    assert new_guideline(project, "A set", "Be kind.", LATER) == 2
    for version in (0, 3):
        with pytest.raises(UserError, match=f"no version {version} of this guideline"):
            give(project, lent, guideline_version=version)
    give(project, lent, guideline_version=1)  # the page was open before the change
    assert rows(project)[0].guideline_version == 1


def test_a_rating_keeps_to_the_rules(project: Project) -> None:
    add_set(project, [1], kind="rating", n_samples=1, aspects=[Aspect(name="warmth"), Aspect(name="truth")], scale=5)
    add_people(project, "Ann")
    lent = take(project, "ann")
    with pytest.raises(UserError, match="this rating is of warmth"):
        give(project, lent, {"aspects": {"warmth": 3}})
    with pytest.raises(UserError, match="goes up to 6"):
        give(project, lent, {"aspects": {"warmth": 6, "truth": 1}})
    give(project, lent, {"aspects": {"warmth": 5, "truth": 1}})


def test_flags_are_those_of_the_set(project: Project) -> None:
    add_set(project, [2], flags=["rude"])
    add_people(project, "Ann")
    lent = take(project, "ann")
    with pytest.raises(UserError, match="no flag 'unsafe' here") as caught:
        give(project, lent, {"strength": 1, "flags": ["unsafe"]})
    assert caught.value.fix == "raise one of rude"
    give(project, lent, {"strength": 1, "flags": ["rude"], "comment": "so there"})


def test_an_edit_is_a_demonstration(project: Project) -> None:
    only, = add_set(project, [2], kind="edit", n_samples=1)  # fmt: skip
    add_people(project, "Ann", "Bob")
    lent = take(project, "ann")
    with pytest.raises(UserError, match="the edited text is the original"):
        give(project, lent, {"text": " answer 0\n"})
    given = give(project, lent, {"text": "A better answer."})
    give(project, take(project, "bob"), {"unchanged": True})
    with project.database.read() as session:
        made, = session.scalars(select(Sample).where(Sample.author.is_not(None)))  # fmt: skip
    assert (made.id, made.text, made.author, made.finished) == (edit_sample_id(given.judgement_id), "A better answer.", "ann", True)
    assert (made.prompt_id, made.policy_id, made.token_ids) == (question(project, only).prompt_id, None, None)


# ---- changing one's mind ----


def test_undo_is_a_new_row(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann")
    first = give(project, take(project, "ann")).judgement_id
    second = change(project, first, {"strength": -3}, "undo")
    assert change(project, first, {"strength": -3}, "undo") == second._replace(replay=True)
    assert [row.answer["strength"] for row in rows(project) if row.id == first] == [1]
    with project.database.read() as session:
        assert [row.id for row in current_judgements(session, [only])] == [second.judgement_id]
    with pytest.raises(UserError, match="changed already"):
        change(project, first, {"strength": 2}, "again")
    with pytest.raises(UserError, match="no judgement"):
        change(project, "made up", {"strength": 2}, "more")
    assert question(project, only).answers == 1


def test_the_newer_answer_stands_even_if_a_clock_went_back(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann")
    first = give(project, take(project, "ann"), at=EXPIRED)
    second = change(project, first.judgement_id, {"strength": -3}, "undo", at=LATER)
    with project.database.read() as session:
        assert [row.id for row in current_judgements(session, [only])] == [second.judgement_id]


def test_a_withdrawn_answer_opens_the_question_again(project: Project) -> None:
    """An answer that becomes a skip counts no longer; one that comes back when others have filled the quota is an extra."""
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    first = give(project, take(project, "ann"))
    assert claim(project, "bob", at=LATER) is None
    skipped = change(project, first.judgement_id, {"skip": "I misread"}, "undo")
    assert (question(project, only).answers, question(project, only).open) == (0, True)
    give(project, take(project, "bob", LATER))
    assert change(project, skipped.judgement_id, {"strength": 1}, "back").extra
    assert question(project, only).answers == 1


# ---- drafts, and what the page shows ----


def test_a_draft_comes_back_with_the_question_and_keeps_the_lease(project: Project) -> None:
    add_set(project, [1])
    add_people(project, "Ann", "Bob")
    lent = take(project, "ann")
    assert lent.draft is None
    save_draft(project, lent.id, {"strength": 2, "comment": "half a tho"}, annotator_id="ann", at=LATER)
    again = take(project, "ann", EXPIRED - timedelta(seconds=30))  # without the draft, the lease would have run out at 12:30
    assert (again.id, again.draft, again.expires_at) == (lent.id, {"strength": 2, "comment": "half a tho"}, EXPIRED)
    assert claim(project, "bob", at=EXPIRED - timedelta(seconds=1)) is None
    save_draft(project, lent.id, {"strength": 3}, annotator_id="ann", at=EXPIRED + timedelta(hours=1))  # too late to keep it, not to be kept
    taken = take(project, "bob", EXPIRED + timedelta(hours=1))
    assert taken.draft is None
    release(project, taken.id, annotator_id="bob", at=EXPIRED + timedelta(hours=1))
    assert take(project, "ann", EXPIRED + timedelta(hours=2)).draft == {"strength": 3}
    give(project, lent, at=EXPIRED + timedelta(hours=2))
    save_draft(project, lent.id, {"strength": 1}, annotator_id="ann", at=EXPIRED)
    with project.database.read() as session:
        assert session.get_one(Assignment, lent.id).draft is None


@pytest.mark.parametrize("draft", [{"text": "x" * 400_001}, {"strength": float("nan")}])
def test_a_draft_has_its_bounds(project: Project, draft: dict[str, Any]) -> None:
    add_set(project, [1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    with pytest.raises(UserError, match="this draft"):
        save_draft(project, lent.id, draft, annotator_id="ann", at=NOON)


def test_the_last_answers_are_those_that_stand_newest_first(project: Project) -> None:
    ids = add_set(project, [1] * 4)
    add_people(project, "Ann")
    given = [give(project, take(project, "ann"), at=NOON + timedelta(seconds=i)) for i in range(4)]
    newest = change(project, given[1].judgement_id, {"strength": -2}, "undo", at=NOON + timedelta(seconds=9))
    with project.database.read() as session:
        found = last_answers(session, "ann", 3)
        assert [one.question_id for one in found] == [ids[1], ids[3], ids[2]]
        assert (found[0].judgement_id, found[0].answer, found[0].set_id, found[0].kind) == (newest.judgement_id, {"strength": -2}, "A set", "pair")
        assert last_answers(session, "bob") == []


def test_a_question_is_shown_in_its_order_and_tells_nothing_more(project: Project) -> None:
    only, = add_set(project, [1], n_samples=3, kind="ranking")  # fmt: skip
    new_guideline(project, "A set", "Be kind.", LATER)
    with project.database.read() as session:
        shown = question_shown(session, only, [2, 0, 1])
        turns = session.scalars(select(Prompt.turns)).one()
        with pytest.raises(UserError, match="is no order of them"):
            question_shown(session, only, [0, 1])
        with pytest.raises(UserError, match="no question"):
            question_shown(session, "made up", [0, 1])
    assert shown.texts == ["answer 2", "answer 0", "answer 1"]
    assert (shown.turns, shown.kind, shown.set_name) == (turns, "ranking", "A set")
    assert (shown.guideline, shown.guideline_version) == ("Be kind.", 2)
    assert (shown.scale, shown.flags[0], shown.aspects[0].name) == (5, "unsafe", "overall")


def test_progress(project: Project) -> None:
    ids = add_set(project, [2] * 5)
    add_people(project, "Ann", "Bob")
    with project.database.read() as session:
        assert progress(session, "ann", NOON) == (0, None, 5)
    for day, spent in ((0, 1000), (1, 3000), (1, 8000)):
        at = NOON + timedelta(days=day)
        given = give(project, take(project, "ann", at), at=at, active_ms=spent)
    give(project, take(project, "bob", NOON + timedelta(days=1)))
    change(project, given.judgement_id, {"strength": -3}, "undo", at=NOON + timedelta(days=1))  # a change is no further question
    with project.database.read() as session:
        assert progress(session, "ann", NOON + timedelta(days=1)) == (2, 2.0, 2)  # the middle of 5 ms and 1, 3, 8 seconds
        assert progress(session, "bob", NOON + timedelta(days=1)).left == 4
        assert answers_given(session, "ann") == 3
    assert question(project, ids[0]).answers == 2


def test_check_questions_are_not_among_what_is_left(project: Project) -> None:
    with_checks(project, 3, 5)
    add_people(project, "Ann")
    with project.database.read() as session:
        assert progress(session, "ann", NOON).left == 3


# ---- it finds its rows by an index ----


def test_no_query_of_a_claim_reads_the_whole_log(tmp_path: Path) -> None:
    """SQLite says of each statement how it will run it: none scans a table of the log, the next question is found by its index."""
    project = open_project(create_project(tmp_path / "project", settings=""))
    add_set(project, [2] * 3, gold="scheduled")
    add_people(project, "Ann")
    said: list[tuple[str, Any]] = []
    from sqlalchemy import event

    event.listen(project.database.engine, "before_cursor_execute", lambda *args: said.append((args[2], args[3])))
    give(project, take(project, "ann"))
    with project.database.engine.connect() as connection:
        statements = [(words, values) for words, values in said if words.lstrip().startswith(("SELECT", "UPDATE"))]
        plans = {words: [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)] for words, values in statements}
    scans = [
        (step, words)
        for words, plan in plans.items()
        for step in plan
        if re.match("SCAN (?:judgement|assignment|question|sample)", step) and step != "SCAN question_set"
    ]
    assert scans == []
    assert any("question_next" in step for plan in plans.values() for step in plan)
    project.database.close()


def test_the_log_is_untouched_by_counting(project: Project) -> None:
    only, = add_set(project, [1])  # fmt: skip
    add_people(project, "Ann")
    give(project, take(project, "ann"))
    with project.database.read() as session:
        assert session.get_one(Question, only).answers == len(session.scalars(select(Judgement)).all()) == 1
