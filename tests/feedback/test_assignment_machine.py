"""The door under every order of events: hypothesis opens it, pauses, sets clocks forward and changes minds, on both databases."""

import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select, text

from asked import add_people, add_question_to, add_set
from door import give
from stored import NOON, new_database
from truing.feedback import next_question
from truing.feedback.assignment import Claim, Receipt, claim, release, supersede
from truing.feedback.people import set_active
from truing.feedback.sets import EVERYBODY, set_state
from truing.store.judgements import current_judgements
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Assignment, Base, Judgement, Question

pytestmark = pytest.mark.slow

PEOPLE = ("ann", "bob", "cy", "dee")
SETS = ("One", "Two")
ANSWERS: list[dict[str, Any]] = [{"strength": 2}, {"strength": 0}, {"both_bad": True}, {"skip": "?"}]


class Given:
    """An answer that was acknowledged, and all that is needed to send it again."""

    def __init__(self, lent: Claim, answer: dict[str, Any], receipt: Receipt, at: Any, key: str, instead_of: str | None) -> None:
        self.lent, self.answer, self.receipt, self.at, self.key, self.instead_of = lent, answer, receipt, at, key, instead_of

    def again(self, project: Project) -> Receipt:
        """Send it once more."""
        if self.instead_of is None:
            return give(project, self.lent, self.answer, key=self.key, at=self.at)
        return change(project, self.instead_of, self.lent.annotator_id, self.answer, self.key, self.at)


def change(project: Project, judgement: str, who: str, answer: dict[str, Any], key: str, at: Any) -> Receipt:
    work: dict[str, Any] = {"started_at": NOON, "at": at, "active_ms": 1, "idempotency_key": key, "guideline_version": 1}
    return supersede(project, judgement, answer, annotator_id=who, random_bits=random.Random(key).getrandbits, **work)


class Door(RuleBasedStateMachine):
    """People come and go, leases run out, minds change, sets and people rest."""

    project: Project  # one for all examples, emptied before each

    @initialize(
        overlaps=st.lists(st.sampled_from([1, 1, 2, 3]), min_size=3, max_size=5),
        checks=st.integers(0, 2),
        order=st.sampled_from(["listed", "fewest"]),
        draw=st.integers(0, 99),
    )
    def open_up(self, overlaps: list[int], checks: int, order: str, draw: int) -> None:
        empty(self.project)
        self.set_of: dict[str, str] = {}
        rules: dict[str, Any] = {"gold": "scheduled", "gold_first": 0.3, "gold_first_n": 10, "repeat_rate": 0.5, "order": order}
        for name, some in zip(SETS, (overlaps[1:], overlaps[:1]), strict=True):
            self.set_of |= dict.fromkeys(add_set(self.project, some, name=name, **rules), name)
        with self.project.database.write() as session:
            for i in range(checks):
                add_question_to(session, "One", 90 + i, EVERYBODY, "pair", 2, gold={"better": 0})
        add_people(self.project, *(name.title() for name in PEOPLE))
        self.at, self.sent, self.draw = NOON, 0, random.Random(draw)
        self.resting: set[str] = set()  # people and sets
        self.held: dict[str, dict[str, Claim]] = defaultdict(dict)  # person → claim id → claim, those that ran out included: the page is still open
        self.orders: dict[tuple[str, str], tuple[int, ...]] = {}
        self.said: dict[tuple[str, str], Given] = {}
        self.log: list[Given] = []

    @rule(who=st.sampled_from(PEOPLE), minutes=st.sampled_from([0, 0, 1, 20]), beside=st.booleans())
    def ask(self, who: str, minutes: int, beside: bool) -> None:
        self.at += timedelta(minutes=minutes)
        if who in self.resting:
            return
        on_screen = list(self.held[who]) if beside else []
        lent = claim(self.project, who, at=self.at, besides=on_screen, random_bits=self.draw.getrandbits)
        if lent is None:
            assert not self.free_for(who, on_screen)
            return
        assert lent.id not in on_screen
        assert lent.set_id not in self.resting
        assert (lent.question_id, who) not in self.said, "nobody is asked twice"
        assert self.question(lent.question_id).only_for in (None, who)
        assert sorted(lent.order_shown) == [0, 1]
        assert self.orders.setdefault((lent.question_id, who), lent.order_shown) == lent.order_shown, "an order that was shown stays"
        if lent != self.held[who].get(lent.id):  # newly lent; one they hold stays theirs, even if a late answer has filled the quota
            assert self.answers(lent.question_id) + self.leases(lent.question_id, who) < self.overlap(lent.question_id)
        self.held[who][lent.id] = lent

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), answer=st.sampled_from(ANSWERS))
    def answer(self, data: st.DataObject, answer: dict[str, Any]) -> None:
        who = data.draw(st.sampled_from(sorted(who for who, claims in self.held.items() if claims)))
        self.send(who, data.draw(st.sampled_from(sorted(self.held[who]))), answer)

    def send(self, who: str, claim_id: str, answer: dict[str, Any]) -> None:
        """Answer one of their claims."""
        lent = self.held[who].pop(claim_id)
        before = self.answers(lent.question_id)
        self.sent += 1
        receipt = give(self.project, lent, answer, key=f"{self.sent}", at=self.at)
        assert not receipt.replay
        assert receipt.extra == ("skip" not in answer and before >= self.overlap(lent.question_id))
        self.note(Given(lent, answer, receipt, self.at, f"{self.sent}", None))

    @rule(who=st.sampled_from(PEOPLE), other=st.sampled_from(PEOPLE))
    def fall_asleep(self, who: str, other: str) -> None:
        """Someone's lease runs out over their open page; another works on; then the first wakes and sends what they had."""
        self.ask(who, 0, False)
        self.time_passes()
        self.ask(other, 0, False)
        for person in (other, who):
            for claim_id in sorted(self.held[person])[:1]:
                self.send(person, claim_id, {"strength": 3})

    @precondition(lambda self: self.said)
    @rule(data=st.data(), answer=st.sampled_from(ANSWERS))
    def change(self, data: st.DataObject, answer: dict[str, Any]) -> None:
        old = self.said[data.draw(st.sampled_from(sorted(self.said)))]
        self.sent += 1
        receipt = change(self.project, old.receipt.judgement_id, old.lent.annotator_id, answer, f"{self.sent}", self.at)
        self.note(Given(old.lent, answer, receipt, self.at, f"{self.sent}", old.receipt.judgement_id))

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        given = data.draw(st.sampled_from(self.log))
        assert given.again(self.project) == given.receipt._replace(replay=True)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(sorted(who for who, claims in self.held.items() if claims)))
        release(self.project, data.draw(st.sampled_from(sorted(self.held[who]))), annotator_id=who, at=self.at)

    @rule(who=st.sampled_from(PEOPLE))
    def rest(self, who: str) -> None:
        set_active(self.project, who, who in self.resting)
        self.resting ^= {who}

    @rule(name=st.sampled_from(SETS))
    def pause(self, name: str) -> None:
        set_state(self.project, name, "open" if name in self.resting else "paused")
        self.resting ^= {name}

    @rule()
    def time_passes(self) -> None:
        self.at += timedelta(minutes=31)

    @invariant()
    def the_log_is_what_was_acknowledged(self) -> None:
        with self.project.database.read() as session:
            rows = {row.id: row.answer for row in session.scalars(select(Judgement))}
            standing = {(row.question_id, row.annotator_id): row.id for row in current_judgements(session, {question for question, _ in self.said})}
        assert rows == {given.receipt.judgement_id: given.answer for given in self.log}
        assert standing == {place: given.receipt.judgement_id for place, given in self.said.items()}

    @invariant()
    def the_counts_are_what_the_log_says(self) -> None:
        for row in self.questions():
            assert row.answers == self.answers(row.id)
            assert row.answers <= row.overlap, "the quota is kept by answers that count"
            assert row.open == (row.answers < row.overlap)

    def teardown(self) -> None:
        """Everybody works till nothing is left: no question starves."""
        if not hasattr(self, "at"):
            return
        self.at += timedelta(hours=1)
        for place in sorted(self.resting):
            if place in SETS:
                set_state(self.project, place, "open")
            else:
                set_active(self.project, place, True)
        self.resting = set()
        for who in PEOPLE:
            while (lent := claim(self.project, who, at=self.at, random_bits=self.draw.getrandbits)) is not None:
                self.sent += 1
                self.note(Given(lent, {"strength": 1}, give(self.project, lent, key=f"{self.sent}", at=self.at), self.at, f"{self.sent}", None))
        self.the_log_is_what_was_acknowledged()
        self.the_counts_are_what_the_log_says()
        for row in self.questions():
            if row.open and row.gold is None:
                asked = PEOPLE if row.only_for is None else (row.only_for,)
                assert all((row.id, who) in self.said for who in asked), "an open question has nobody left to answer it"

    # what the world looks like, from the acknowledgements alone

    def note(self, given: Given) -> None:
        """Remember an acknowledgement."""
        self.log.append(given)
        self.said[given.lent.question_id, given.lent.annotator_id] = given

    def questions(self) -> list[Question]:
        """As they stand."""
        with self.project.database.read() as session:
            return list(session.scalars(select(Question).order_by(Question.position, Question.id)))

    def question(self, question_id: str) -> Question:
        """One of them."""
        return next(row for row in self.questions() if row.id == question_id)

    def overlap(self, question_id: str) -> int:
        """How many answers it wants."""
        return self.question(question_id).overlap

    def answers(self, question_id: str) -> int:
        """How many answers count."""
        return sum(question == question_id and "skip" not in given.answer and not given.receipt.extra for (question, _), given in self.said.items())

    def leases(self, question_id: str, besides: str) -> int:
        """How many others hold it."""
        with self.project.database.read() as session:
            running = session.scalars(select(Assignment).where(Assignment.question_id == question_id, Assignment.expires_at > self.at))
            return sum((question_id, row.annotator_id) not in self.said and row.annotator_id != besides for row in running)

    def free_for(self, who: str, on_screen: list[str]) -> list[str]:
        """Plain questions that they could be lent."""
        mine = {lent.question_id for lent in self.held[who].values() if lent.id in on_screen}
        return [
            row.id
            for row in self.questions()
            if row.gold is None and row.set_id not in self.resting and row.only_for in (None, who) and (row.id, who) not in self.said
            if row.id not in mine and self.answers(row.id) + self.leases(row.id, who) < row.overlap
        ]  # fmt: skip


def empty(project: Project) -> None:
    """Take all rows away. The log defends itself, so its triggers are put aside for that moment."""
    names = [table.name for table in reversed(Base.metadata.sorted_tables)]
    with project.database.write() as session:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text("DELETE FROM judgement"))
            for name in names:
                session.execute(text(f'DELETE FROM "{name}"'))
        else:
            refusals = session.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
            session.execute(text("PRAGMA defer_foreign_keys = ON"))
            for name, _ in refusals:
                session.execute(text(f"DROP TRIGGER {name}"))
            for name in names:
                session.execute(text(f'DELETE FROM "{name}"'))
            for _, words in refusals:
                session.execute(text(words))


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project on either database, in memory where the system has a folder for that."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, Path(folder)))
        opened = open_project(create_project(Path(folder) / "project", settings=""))
        yield opened
        opened.database.close()


def test_the_door(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_question, "REPEAT_GAP", 0)  # so that a short day has repeats
    Door.project = project
    settled = settings(max_examples=30, stateful_step_count=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Door, settings=settled)


def test_eight_at_once_keep_the_quota_and_lose_nothing(project: Project) -> None:
    """Each of eight threads claims, prefetches, sends its answers twice, and changes one in four."""
    questions = add_set(project, [2] * 15 + [3] * 5)
    people = [f"p{i}" for i in range(8)]
    add_people(project, *(name.title() for name in people))
    acknowledged: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)

    def work(who: str) -> None:
        while (lent := claim(project, who, at=NOON)) is not None:
            following = claim(project, who, at=NOON, besides=[lent.id])
            for one in filter(None, (lent, following)):
                receipt = give(project, one)
                assert give(project, one) == receipt._replace(replay=True)
                acknowledged[who].append((receipt.judgement_id, one.question_id, receipt.extra))
                if len(acknowledged[who]) % 4 == 0:
                    changed = change(project, receipt.judgement_id, who, {"strength": -3}, f"{who} changes {one.question_id}", NOON)
                    acknowledged[who].append((changed.judgement_id, one.question_id, changed.extra))

    with ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(work, people))
    with project.database.read() as session:
        stored = {(row.annotator_id, row.id, row.question_id, row.extra) for row in session.scalars(select(Judgement))}
        standing = current_judgements(session, questions)
        asked = {row.id: row for row in session.scalars(select(Question))}
    assert stored == {(who, *one) for who, given in acknowledged.items() for one in given}
    assert not any(row.extra for row in standing)
    by_question = {question: [row.annotator_id for row in standing if row.question_id == question] for question in questions}
    assert {question: len(who) for question, who in by_question.items()} == {question: asked[question].overlap for question in questions}
    assert all(len(set(who)) == len(who) for who in by_question.values())
    assert all((row.answers, row.open) == (row.overlap, False) for row in asked.values())
