"""What people said inside an application: kept as if the question had been lent to them in the studio, under a name that tells nobody who they are."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.errors import Conflict, Unknown, UserError
from truing.feedback.assignment import Receipt, Work, submit_in
from truing.feedback.next_question import turns_taken
from truing.feedback.posted import ask
from truing.feedback.sets import newest_guideline
from truing.store.database import hold
from truing.store.ids import uuid7
from truing.store.tables import Annotator, AnnotatorKind, Assignment, Judgement, Kind, Question, QuestionSample, Role

USER = "user-"  # how the names of an application's users begin here
LONGEST_AGO = timedelta(days=30)  # a start that claims to lie further back is taken as this long ago


class Told(NamedTuple):
    """An answer as it was sent, by someone who uses the application."""

    answer: Mapping[str, Any]
    order_shown: Sequence[int]
    key: str  # <= 80 characters, the same for every attempt
    started_at: datetime | None  # None: unknown
    active_ms: int
    guideline_version: int | None = None  # None: the newest


def known_user(session: Session, salt: bytes, user: str, at: datetime) -> str:
    """The annotator that stands for somebody who uses the application; made when they first say something.

    Args:
        salt: the project's: the name kept is a hash under it, so that nobody outside can look the person up.
        user: the application's own id of the person.

    Raises:
        Conflict: a manager paused them.
    """
    name = USER + hmac.new(salt, f"user:{user}".encode(), hashlib.sha256).hexdigest()[:16]
    if session.scalars(select(Annotator.id).where(Annotator.name == name)).first() is None:
        hold(session, Annotator)
    row = session.scalars(select(Annotator).where(Annotator.name == name)).first()
    if row is None:
        row = Annotator(
            id=uuid7(at), name=name, kind=AnnotatorKind.HUMAN, role=Role.ANNOTATOR, password_hash=None, active=True, facts={"from": "api"}, created_at=at
        )  # fmt: skip
        session.add(row)
        session.flush()
    if not row.active:
        raise Conflict("this person was paused in the studio", fix="send no more of their answers, or let them go on in the studio")
    return row.id


def answer(session: Session, question_id: str, annotator_id: str, told: Told, *, at: datetime) -> Receipt:
    """Keep an answer that was given in the application, as if the question had been lent to the person there.

    Raises:
        Unknown: there is no such question.
        Conflict: the key came with something else before.
        UserError: this is no answer to that question, or the order is none of its samples.
    """
    hold(session, Assignment)
    question = session.get(Question, question_id)
    if question is None:
        raise Unknown(f"there is no question {question_id}", fix="ask for a comparison first and use the id that comes back")
    if question.only_for not in (None, annotator_id):
        raise Conflict("this question is somebody else's alone: it asks them again", fix="answer another question")
    n = session.scalar(select(func.count()).where(QuestionSample.question_id == question_id)) or 0
    if sorted(told.order_shown) != list(range(n)):
        raise UserError(f"order_shown is {list(told.order_shown)}, no order of {n} samples", fix=f"send each number from 0 to {n - 1} once")
    _require_same(session, question_id, annotator_id, told)
    version = told.guideline_version
    if version is None:
        newest = newest_guideline(session, question.set_id)
        version = newest.version if newest else 1
    started = max(at - LONGEST_AGO, min(told.started_at or at, at))
    lent = _lent(session, question, annotator_id, told.order_shown, started, at)
    return submit_in(session, lent.id, told.answer, Work(started, at, told.active_ms, told.key, version), annotator_id=annotator_id)


def thumb(session: Session, sample_id: str, annotator_id: str, told: Told, *, set_name: str, at: datetime) -> tuple[str, Receipt]:
    """Keep a thumbs-up or -down on a sample; gives the question's id, which is made if there is none yet.

    Nobody was asked, so nobody is one too many: however many people say something, each of them counts.

    Raises:
        Unknown: there is no such sample.
        Conflict: the set asks something else, or the key came with something else before.
    """
    question_id = ask(session, set_name, Kind.THUMBS, [sample_id], overlap=None, guideline=None, at=at).id
    spoken = select(Judgement.id).where(Judgement.question_id == question_id, Judgement.annotator_id == annotator_id).limit(1)
    if session.scalars(spoken).first() is None:
        question = session.get_one(Question, question_id)
        question.overlap = max(question.overlap, question.answers + 1)
    return question_id, answer(session, question_id, annotator_id, told, at=at)


def _require_same(session: Session, question_id: str, annotator_id: str, told: Told) -> None:
    row = session.scalars(select(Judgement).where(Judgement.idempotency_key == told.key)).first()
    if row is not None and (row.question_id, row.annotator_id, row.answer) != (question_id, annotator_id, dict(told.answer)):
        raise Conflict("this idempotency key came with another answer before", fix="send each answer with a key of its own")


def _lent(session: Session, question: Question, annotator_id: str, order: Sequence[int], started: datetime, at: datetime) -> Assignment:
    """The assignment that the answer belongs to, in the order that the person saw."""
    row = session.scalars(select(Assignment).where(Assignment.question_id == question.id, Assignment.annotator_id == annotator_id)).first()
    if row is None:
        number = turns_taken(session, annotator_id, question.set_id) + 1 if question.set_id else 0
        row = Assignment(
            id=uuid7(at), question_id=question.id, annotator_id=annotator_id, set_id=question.set_id, number=number, claimed_at=started, draft=None
        )
        session.add(row)
    row.order_shown, row.expires_at = list(order), at
    session.flush()
    return row
