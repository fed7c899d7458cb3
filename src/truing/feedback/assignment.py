"""The one door of feedback: a question is lent to an annotator, and an answer comes back. People, judge models and simulated
annotators all pass through it.

Each function exists twice: `claim` and its like open a transaction of their own; `claim_in` and its like work inside a caller's.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from truing.errors import UserError
from truing.feedback.questions import check_answer
from truing.store.database import hold
from truing.store.ids import uuid7
from truing.store.judgements import current_judgements as current_judgements
from truing.store.project import Project
from truing.store.tables import Annotator, Assignment, Judgement, Question, QuestionSample

RandomBits = Callable[[int], int]


class Claim(NamedTuple):
    """A question lent to an annotator. Nothing in it tells who wrote what."""

    id: str
    question_id: str
    annotator_id: str
    order_shown: tuple[int, ...]  # positions of the question's samples from left to right
    claimed_at: datetime
    expires_at: datetime


class Work(NamedTuple):
    """What came with an answer.

    Attributes:
        started_at:        when the question was first seen; taken as `at` if it claims to be later (a browser's clock may be wrong).
        at:                when the answer arrived.
        active_ms:         milliseconds the annotator was at it, >= 0.
        idempotency_key:   the same for every attempt to send the same answer.
        guideline_version: the version of the guideline it was made under.
    """

    started_at: datetime
    at: datetime
    active_ms: int
    idempotency_key: str
    guideline_version: int = 1


# ---- borrowing a question ----


def claim(
    project: Project,
    annotator_id: str,
    *,
    at: datetime,
    random_bits: RandomBits = secrets.randbits,
    lease_minutes: float = 30.0,
    round_id: int | None = None,
    kind: str | None = None,
) -> Claim | None:
    """Lend the annotator a question; None when nothing is left for them. See `claim_in`."""
    with project.database.write() as session:
        return claim_in(session, annotator_id, at=at, random_bits=random_bits, lease_minutes=lease_minutes, round_id=round_id, kind=kind)


def claim_in(
    session: Session,
    annotator_id: str,
    *,
    at: datetime,
    random_bits: RandomBits = secrets.randbits,
    lease_minutes: float = 30.0,
    round_id: int | None = None,
    kind: str | None = None,
) -> Claim | None:
    """Lend a question: the one they hold already, else the first in order that still needs an answer and isn't theirs already.

    A question needs an answer while fewer people than its overlap have answered it (a skip is no answer) or hold it. Nobody
    is asked the same question twice. A question that comes back after its lease keeps the order it was shown in.

    Args:
        session:       a write transaction; claims and answers take turns.
        at:            the present moment.
        random_bits:   gives that many random bits: for the order shown and the id.
        lease_minutes: for how long the question is theirs.
        round_id:      only questions of this round; None: any.
        kind:          only questions of this kind; None: any.

    Raises:
        UserError: there is no such annotator, or they are no longer active.
    """
    hold(session, Assignment)
    annotator = session.get(Annotator, annotator_id)
    if annotator is None or not annotator.active:
        raise UserError(f"there is no active annotator {annotator_id}", fix="sign in again, or ask a manager to let you in")
    about = (round_id is not None, kind is not None)
    values = {"annotator": annotator_id, "at": at, "round": round_id, "kind": kind}
    held = session.scalars(_held(*about), values).first()
    if held is not None:
        return _as_claim(held)
    found = session.execute(_next(*about), values).first()
    if found is None:
        return None
    question, n_samples = found
    until = at + timedelta(minutes=lease_minutes)
    lent = session.scalars(select(Assignment).where(Assignment.question_id == question, Assignment.annotator_id == annotator_id)).first()
    if lent is not None:
        lent.claimed_at, lent.expires_at = at, until
    else:
        lent = Assignment(
            id=uuid7(at, random_bits), question_id=question, annotator_id=annotator_id, order_shown=_shuffled(n_samples, random_bits),
            claimed_at=at, expires_at=until,
        )  # fmt: skip
        session.add(lent)
    session.flush()
    return _as_claim(lent)


@cache
def _held(by_round: bool, by_kind: bool) -> "Select[Assignment]":
    """The oldest open lease of `annotator` at `at` on a question they haven't answered. Built once: building takes longer than running."""
    query = select(Assignment).join(Question, Question.id == Assignment.question_id)
    mine = (Assignment.annotator_id == bindparam("annotator"), Assignment.expires_at > bindparam("at"))
    query = query.where(*mine, ~_answered_by(Question.id, bindparam("annotator")), *_asked(by_round, by_kind))
    return query.order_by(Assignment.claimed_at, Assignment.id).limit(1)


def still_wanted(session: Session, round_id: int | None) -> int:
    """How many answers the questions of a round (None: of all) still want; check questions, which nothing waits for, not counted."""
    answers = _answers().where(Judgement.question_id == Question.id).scalar_subquery()
    query = select(Question.overlap, answers).where(Question.gold.is_(None))
    rows = session.execute(query if round_id is None else query.where(Question.round_id == round_id))
    return sum(max(0, overlap - given) for overlap, given in rows)


def _answers() -> "Select[int]":
    """How many people have answered, a skip or a withdrawn answer not counted."""
    newer = aliased(Judgement)
    superseded = select(newer.id).where(newer.supersedes == Judgement.id).exists()
    return select(func.count(Judgement.annotator_id.distinct())).where(Judgement.answer["skip"].as_string().is_(None), ~superseded)


@cache
def _next(by_round: bool, by_kind: bool) -> "Select[str, int]":
    """The first question in order that needs an answer at `at` and that `annotator` hasn't answered; and its number of samples."""
    answers = _answers().where(Judgement.question_id == Question.id)
    leases = select(func.count(Assignment.id)).where(
        Assignment.question_id == Question.id,
        Assignment.annotator_id != bindparam("annotator"),
        Assignment.expires_at > bindparam("at"),
        ~_answered_by(Assignment.question_id, Assignment.annotator_id),
    )
    samples = select(func.count()).select_from(QuestionSample).where(QuestionSample.question_id == Question.id)
    query = select(Question.id, samples.scalar_subquery()).where(
        ~_answered_by(Question.id, bindparam("annotator")),
        *_asked(by_round, by_kind),
        answers.scalar_subquery() + leases.scalar_subquery() < Question.overlap,
    )
    return query.order_by(Question.position, Question.id).limit(1)


def _asked(by_round: bool, by_kind: bool) -> list[ColumnElement[bool]]:
    """Only the questions of `round`, only those of `kind`."""
    conditions = [Question.round_id == bindparam("round"), Question.kind == bindparam("kind")]
    return [condition for condition, wanted in zip(conditions, (by_round, by_kind), strict=True) if wanted]


def _answered_by(question_id: Any, annotator_id: Any) -> ColumnElement[bool]:
    """Whether the annotator has answered the question in any way, a skip included."""
    given = aliased(Judgement)
    return select(given.id).where(given.question_id == question_id, given.annotator_id == annotator_id).exists()


def _shuffled(n: int, random_bits: RandomBits) -> list[int]:
    """0 to n - 1 in an order drawn evenly (Fisher and Yates)."""
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = i + 1
        while j > i:  # an even draw from 0..i: bits that overshoot are thrown away
            j = random_bits(i.bit_length())
        order[i], order[j] = order[j], order[i]
    return order


def _as_claim(row: Assignment) -> Claim:
    return Claim(row.id, row.question_id, row.annotator_id, tuple(row.order_shown), row.claimed_at, row.expires_at)


# ---- giving an answer ----


def submit(
    project: Project,
    claim_id: str,
    answer: Mapping[str, Any],
    *,
    started_at: datetime,
    at: datetime,
    active_ms: int,
    idempotency_key: str,
    random_bits: RandomBits = secrets.randbits,
    guideline_version: int = 1,
) -> str:
    """Take in an answer and return the judgement's id. See `submit_in`."""
    work = Work(started_at, at, active_ms, idempotency_key, guideline_version)
    with project.database.write() as session:
        return submit_in(session, claim_id, answer, work, random_bits=random_bits)


def submit_in(session: Session, claim_id: str, answer: Mapping[str, Any], work: Work, *, random_bits: RandomBits = secrets.randbits) -> str:
    """Take in an answer to a claimed question and return the judgement's id.

    The same key again gives the same judgement and adds nothing. Work that was finished after its lease ran out is kept all the
    same, as one answer more than was asked for. A second answer to the question by the same annotator supersedes their first.

    Raises:
        UserError: no such claim, an answer of the wrong form, or a key that was used for something else.
    """
    hold(session, Assignment)
    lent = session.get(Assignment, claim_id)
    if lent is None:
        raise UserError(f"there is no claim {claim_id}", fix="ask for a question first")
    earlier = _sent_before(session, work.idempotency_key, lent.question_id, lent.annotator_id, answer)
    if earlier is not None:
        return earlier
    standing = [row for row in current_judgements(session, [lent.question_id]) if row.annotator_id == lent.annotator_id]
    return _store(session, lent.question_id, lent.annotator_id, lent.order_shown, answer, work, standing[0].id if standing else None, random_bits)


def supersede(
    project: Project,
    judgement_id: str,
    answer: Mapping[str, Any],
    *,
    started_at: datetime,
    at: datetime,
    active_ms: int,
    idempotency_key: str,
    random_bits: RandomBits = secrets.randbits,
    guideline_version: int = 1,
) -> str:
    """Change one's mind: a new judgement in the place of an old one, which stays in the log. Returns the new one's id.

    Raises:
        UserError: no such judgement, it was changed already, an answer of the wrong form, or a key used for something else.
    """
    work = Work(started_at, at, active_ms, idempotency_key, guideline_version)
    with project.database.write() as session:
        hold(session, Assignment)
        old = session.get(Judgement, judgement_id)
        if old is None:
            raise UserError(f"there is no judgement {judgement_id}", fix="reload the page: the list of your last answers is newer there")
        earlier = _sent_before(session, idempotency_key, old.question_id, old.annotator_id, answer)
        if earlier is not None:
            return earlier
        if session.scalars(select(Judgement.id).where(Judgement.supersedes == old.id)).first() is not None:
            raise UserError(f"judgement {judgement_id} was changed already", fix="change the newer one")
        return _store(session, old.question_id, old.annotator_id, old.order_shown, answer, work, old.id, random_bits)


def _sent_before(session: Session, key: str, question_id: str, annotator_id: str, answer: Mapping[str, Any]) -> str | None:
    """The judgement that this key brought before; None if it is new."""
    row = session.scalars(select(Judgement).where(Judgement.idempotency_key == key)).first()
    if row is None:
        return None
    if (row.question_id, row.annotator_id, row.answer) != (question_id, annotator_id, dict(answer)):
        raise UserError(f"the key {key!r} was used for another answer", fix="send each answer with a key of its own")
    return row.id


def _store(
    session: Session,
    question_id: str,
    annotator_id: str,
    order_shown: Sequence[int],
    answer: Mapping[str, Any],
    work: Work,
    supersedes: str | None,
    random_bits: RandomBits,
) -> str:
    question = session.get_one(Question, question_id)
    if work.active_ms < 0:
        raise UserError(f"an answer can't take {work.active_ms} ms", fix="send the milliseconds spent on it, 0 or more")
    row = Judgement(
        id=uuid7(work.at, random_bits), question_id=question_id, annotator_id=annotator_id,
        answer=check_answer(question.kind, answer, len(order_shown)), order_shown=list(order_shown),
        started_at=min(work.started_at, work.at), submitted_at=work.at, active_ms=work.active_ms,
        guideline_version=work.guideline_version, idempotency_key=work.idempotency_key, supersedes=supersedes,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row.id
