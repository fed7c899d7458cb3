"""The one door: who is lent which question, what becomes of their answer."""

import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from asked import add_people
from stored import NOON, new_database, prompt
from truing.errors import UserError
from truing.feedback.assignment import Claim, claim, claim_in, current_judgements, still_wanted, submit, supersede
from truing.store.ids import content_id
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Assignment, Judgement, Question, QuestionSample, Sample

LATER = NOON + timedelta(minutes=1)
EXPIRED = NOON + timedelta(minutes=31)


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project on either database."""
    monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, tmp_path))
    opened = open_project(create_project(tmp_path / "project", settings=""))
    yield opened
    opened.database.close()


def add_questions(project: Project, overlaps: list[int], *, n_samples: int = 2, kind: str = "pair") -> list[str]:
    """Questions in the order asked, each about one prompt of its own; gives their ids."""
    ids = []
    with project.database.write() as session:
        for position, overlap in enumerate(overlaps):
            asked = prompt(f"Question {position} about {n_samples}?")
            session.add(asked)
            session.flush()
            question = Question(
                id=content_id(kind, asked.id), kind=kind, prompt_id=asked.id, gold=None, overlap=overlap, position=position, facts={}, created_at=NOON
            )
            session.add(question)
            for place in range(n_samples):
                sample_id = content_id("sample", asked.id, "b", place)
                session.add(Sample(id=sample_id, prompt_id=asked.id, batch="b", position=place, text=f"answer {place}", finished=True, created_at=NOON))
                session.flush()
                session.add(QuestionSample(question_id=question.id, position=place, sample_id=sample_id))
            ids.append(question.id)
    return ids


def take(project: Project, who: str, at: datetime = NOON) -> Claim:
    found = claim(project, who, at=at)
    assert found is not None
    return found


def give(project: Project, lent: Claim, answer: dict[str, Any] | None = None, *, key: str | None = None, at: datetime = LATER) -> str:
    key = key or f"{lent.annotator_id} on {lent.question_id}"
    return submit(project, lent.id, answer or {"strength": 1}, started_at=NOON, at=at, active_ms=9000, idempotency_key=key)


def rows(project: Project) -> list[Judgement]:
    with project.database.read() as session:
        return list(session.scalars(select(Judgement).order_by(Judgement.submitted_at, Judgement.id)))


# ---- claiming ----


def test_questions_are_lent_in_order_and_not_beyond_their_overlap(project: Project) -> None:
    first, second = add_questions(project, [2, 1])
    add_people(project, "Ann", "Bob", "Cy", "Dee")
    assert [take(project, who).question_id for who in ("ann", "bob", "cy")] == [first, first, second]
    assert claim(project, "dee", at=NOON) is None


def test_an_open_lease_is_given_again_as_it_was(project: Project) -> None:
    add_questions(project, [1, 1])
    add_people(project, "Ann")
    first = take(project, "ann")
    assert take(project, "ann", LATER) == first


def test_nobody_is_asked_twice(project: Project) -> None:
    only, = add_questions(project, [3])  # fmt: skip
    add_people(project, "Ann")
    lent = take(project, "ann")
    assert lent.question_id == only
    give(project, lent)
    assert claim(project, "ann", at=LATER) is None


def test_a_lease_that_ran_out_frees_the_question(project: Project) -> None:
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    late = take(project, "ann")
    assert claim(project, "bob", at=late.expires_at - timedelta(seconds=1)) is None
    assert take(project, "bob", late.expires_at).question_id == only


def test_a_question_that_comes_back_keeps_its_order(project: Project) -> None:
    add_questions(project, [1], n_samples=9, kind="ranking")
    add_people(project, "Ann")
    first, again = take(project, "ann"), take(project, "ann", EXPIRED)
    assert (again.id, again.order_shown) == (first.id, first.order_shown)
    assert again.expires_at == EXPIRED + timedelta(minutes=30)


def test_a_finished_answer_is_never_refused_because_its_lease_ran_out(project: Project) -> None:
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    late, other = take(project, "ann"), take(project, "bob", EXPIRED)
    give(project, other, at=EXPIRED)
    give(project, late, at=EXPIRED + timedelta(hours=1))
    assert [(row.question_id, row.annotator_id) for row in rows(project)] == [(only, "bob"), (only, "ann")]


def test_a_skip_leaves_the_question_open_for_others(project: Project) -> None:
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    give(project, take(project, "ann"), {"skip": "I can't read it"})
    assert claim(project, "ann", at=LATER) is None
    assert take(project, "bob", LATER).question_id == only


def test_a_round_and_a_kind_can_be_asked_for(project: Project) -> None:
    add_questions(project, [1])
    ranking, = add_questions(project, [1], n_samples=3, kind="ranking")  # fmt: skip
    add_people(project, "Ann", "Bob")
    assert claim(project, "ann", at=NOON, round_id=7) is None
    found = claim(project, "ann", at=NOON, kind="ranking")
    assert found is not None
    assert (found.question_id, sorted(found.order_shown)) == (ranking, [0, 1, 2])


def test_every_order_is_as_likely(project: Project) -> None:
    add_questions(project, [600], n_samples=3, kind="ranking")
    draw = random.Random(0)
    with project.database.write() as session:
        session.add_all(Annotator(id=f"{i}", name=f"{i}", kind="human", role="annotator", active=True, facts={}, created_at=NOON) for i in range(600))
    with project.database.write() as session:
        orders = Counter(found.order_shown for i in range(600) if (found := claim_in(session, f"{i}", at=NOON, random_bits=draw.getrandbits)))
    assert len(orders) == 6
    assert all(60 <= n <= 140 for n in orders.values())  # 100 each; four standard deviations are 37


def test_a_stranger_and_one_who_was_let_go_are_refused(project: Project) -> None:
    add_questions(project, [1])
    add_people(project, "Ann")
    with project.database.write() as session:
        session.get_one(Annotator, "ann").active = False
    for who in ("ann", "nobody"):
        with pytest.raises(UserError, match="no active annotator"):
            claim(project, who, at=NOON)


def test_what_is_still_wanted(project: Project) -> None:
    first, _ = add_questions(project, [2, 1])
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


# ---- answering ----


def test_an_answer_is_stored_with_the_order_it_was_seen_in(project: Project) -> None:
    add_questions(project, [1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    given = give(project, lent, {"strength": -2})
    stored, = rows(project)  # fmt: skip
    assert stored.id == given
    assert (stored.answer, tuple(stored.order_shown)) == ({"strength": -2}, lent.order_shown)
    assert (stored.started_at, stored.submitted_at, stored.active_ms, stored.guideline_version, stored.supersedes) == (NOON, LATER, 9000, 1, None)


def test_sending_an_answer_again_adds_nothing(project: Project) -> None:
    add_questions(project, [1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    assert give(project, lent) == give(project, lent, at=EXPIRED)
    assert len(rows(project)) == 1


def test_a_key_is_for_one_answer(project: Project) -> None:
    add_questions(project, [1, 1])
    add_people(project, "Ann")
    lent = take(project, "ann")
    give(project, lent, key="k")
    other = take(project, "ann", LATER)
    for claimed, answer in ((lent, {"strength": 3}), (other, {"strength": 1})):
        with pytest.raises(UserError, match="used for another answer"):
            give(project, claimed, answer, key="k")


def test_a_second_answer_supersedes_the_first(project: Project) -> None:
    """Two tabs: one answer stands."""
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann")
    lent = take(project, "ann")
    first, second = give(project, lent, key="tab 1"), give(project, lent, {"strength": -1}, key="tab 2")
    with project.database.read() as session:
        assert [(row.id, row.supersedes) for row in current_judgements(session, [only])] == [(second, first)]


def test_an_answer_to_another_kind_of_question_is_refused_and_leaves_nothing(project: Project) -> None:
    add_questions(project, [1])
    add_people(project, "Ann")
    with pytest.raises(UserError, match="this is no answer to a pair question"):
        give(project, take(project, "ann"), {"up": True})
    assert rows(project) == []


def test_an_answer_without_a_claim_is_refused(project: Project) -> None:
    with pytest.raises(UserError, match="there is no claim"):
        submit(project, "made up", {"strength": 1}, started_at=NOON, at=NOON, active_ms=1, idempotency_key="k")


def test_a_clock_that_goes_wrong_loses_no_answer(project: Project) -> None:
    add_questions(project, [1])
    add_people(project, "Ann")
    submit(project, take(project, "ann").id, {"strength": 1}, started_at=EXPIRED, at=LATER, active_ms=1, idempotency_key="k")
    assert rows(project)[0].started_at == LATER


# ---- changing one's mind ----


def test_undo_is_a_new_row(project: Project) -> None:
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann")
    first = give(project, take(project, "ann"))
    change = {"started_at": LATER, "at": LATER, "active_ms": 5}
    second = supersede(project, first, {"strength": -3}, idempotency_key="undo", **change)  # type: ignore[arg-type]
    assert supersede(project, first, {"strength": -3}, idempotency_key="undo", **change) == second  # type: ignore[arg-type]
    assert [row.answer["strength"] for row in rows(project) if row.id == first] == [1]
    with project.database.read() as session:
        assert [row.id for row in current_judgements(session, [only])] == [second]
    with pytest.raises(UserError, match="changed already"):
        supersede(project, first, {"strength": 2}, idempotency_key="again", **change)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no judgement"):
        supersede(project, "made up", {"strength": 2}, idempotency_key="more", **change)  # type: ignore[arg-type]


def test_the_newer_answer_stands_even_if_a_clock_went_back(project: Project) -> None:
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann")
    first = give(project, take(project, "ann"), at=EXPIRED)
    second = supersede(project, first, {"strength": -3}, started_at=NOON, at=LATER, active_ms=5, idempotency_key="undo")
    with project.database.read() as session:
        assert [row.id for row in current_judgements(session, [only])] == [second]


def test_a_withdrawn_answer_opens_the_question_again(project: Project) -> None:
    """An answer that becomes a skip counts no longer."""
    only, = add_questions(project, [1])  # fmt: skip
    add_people(project, "Ann", "Bob")
    first = give(project, take(project, "ann"))
    assert claim(project, "bob", at=LATER) is None
    supersede(project, first, {"skip": "I misread"}, started_at=LATER, at=LATER, active_ms=5, idempotency_key="undo")
    assert take(project, "bob", LATER).question_id == only


# ---- together ----


def test_many_at_once_keep_the_quota(project: Project) -> None:
    ids = add_questions(project, [2] * 6)
    names = ["Ann", "Bob", "Cy", "Dee", "Eve", "Flo"]
    add_people(project, *names)

    def work(who: str) -> None:
        while (lent := claim(project, who, at=NOON)) is not None:
            give(project, lent)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, [name.lower() for name in names]))
    answered = Counter((row.question_id, row.annotator_id) for row in rows(project))
    assert Counter(question for question, _ in answered) == dict.fromkeys(ids, 2)
    assert set(answered.values()) == {1}


PEOPLE = ("ann", "bob", "cy", "dee")


class Door(RuleBasedStateMachine):
    """People come and go, leases run out, minds change: quotas hold, nobody is asked twice, an acknowledged answer stands."""

    folder: Path

    @initialize(overlaps=st.lists(st.integers(1, 3), min_size=1, max_size=4))
    def open_up(self, overlaps: list[int]) -> None:
        self.project = open_project(create_project(Path(tempfile.mkdtemp(dir=self.folder)) / "project", settings=""))
        self.questions = dict(zip(add_questions(self.project, overlaps), overlaps, strict=True))
        add_people(self.project, *(name.title() for name in PEOPLE))
        self.at, self.sent = NOON, 0
        self.held: dict[str, Claim] = {}  # also of leases that ran out: the page is still open
        self.said: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}  # what was acknowledged last
        self.rows = 0

    @rule(who=st.sampled_from(PEOPLE), minutes=st.integers(0, 20))
    def ask(self, who: str, minutes: int) -> None:
        self.at += timedelta(minutes=minutes)
        lent = claim(self.project, who, at=self.at)
        if lent is None:
            free = [q for q, overlap in self.questions.items() if (q, who) not in self.said and self._taken(q, who) < overlap]
            assert free == []
            return
        assert (lent.question_id, who) not in self.said
        if lent != self.held.get(who):  # newly lent; one they hold stays theirs, even if a late answer has filled the quota
            assert self._taken(lent.question_id, who) < self.questions[lent.question_id]
        self.held[who] = lent

    def _taken(self, question: str, besides: str) -> int:
        answered = {who for (q, who), (_, answer) in self.said.items() if q == question and "skip" not in answer}
        with self.project.database.read() as session:
            leases = session.scalars(select(Assignment).where(Assignment.question_id == question, Assignment.expires_at > self.at))
            return len(answered) + sum((question, row.annotator_id) not in self.said and row.annotator_id != besides for row in leases)

    @rule(who=st.sampled_from(PEOPLE), answer=st.sampled_from([{"strength": 2}, {"strength": 0}, {"both_bad": True}, {"skip": "?"}]), again=st.booleans())
    def answer(self, who: str, answer: dict[str, Any], again: bool) -> None:
        if who not in self.held:
            return
        lent = self.held.pop(who)
        if (lent.question_id, who) in self.said:
            return
        self.sent += 1
        given = give(self.project, lent, answer, key=f"{self.sent}", at=self.at)
        if again:
            assert give(self.project, lent, answer, key=f"{self.sent}", at=self.at) == given
        self.said[lent.question_id, who] = given, answer
        self.rows += 1

    @precondition(lambda self: self.said)
    @rule(data=st.data(), answer=st.sampled_from([{"strength": -2}, {"skip": "?"}]))
    def change(self, data: st.DataObject, answer: dict[str, Any]) -> None:
        place = data.draw(st.sampled_from(sorted(self.said)))
        self.sent += 1
        changed = supersede(self.project, self.said[place][0], answer, started_at=self.at, at=self.at, active_ms=1, idempotency_key=f"{self.sent}")
        self.said[place] = changed, answer
        self.rows += 1

    @invariant()
    def what_was_acknowledged_stands(self) -> None:
        with self.project.database.read() as session:
            standing = {(row.question_id, row.annotator_id): (row.id, row.answer) for row in current_judgements(session, self.questions)}
        assert standing == self.said
        assert len(rows(self.project)) == self.rows


def test_the_door(tmp_path: Path) -> None:
    Door.folder = tmp_path
    settled = settings(max_examples=12, stateful_step_count=25, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Door, settings=settled)
