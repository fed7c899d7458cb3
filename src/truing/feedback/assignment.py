"""The one door of feedback: a question is lent to an annotator, and an answer comes back. People, judge models and simulated
annotators all pass through it.

Each function exists twice: `claim` and its like open a transaction of their own; `claim_in` and its like work inside a caller's.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, func, insert, or_, select, update
from sqlalchemy.orm import Session

from truing.errors import UserError
from truing.feedback.answers import check_answer
from truing.feedback.desk import Given as Given
from truing.feedback.desk import Progress as Progress
from truing.feedback.desk import Shown as Shown
from truing.feedback.desk import answers_given as answers_given
from truing.feedback.desk import last_answers as last_answers
from truing.feedback.desk import progress as progress
from truing.feedback.desk import question_shown as question_shown
from truing.feedback.next_question import Asking, OpenSet, RandomBits, below, held_claim, next_question, open_sets, turns_taken
from truing.feedback.next_question import Claim as Claim
from truing.feedback.sets import Rules, rules_of
from truing.store.database import brief, hold
from truing.store.ids import content_id, uuid7
from truing.store.judgements import count_answers
from truing.store.judgements import current_judgements as current_judgements
from truing.store.project import Project
from truing.store.tables import Annotator, Assignment, Guideline, Judgement, Question, QuestionSample, QuestionSet, Sample

MOST_BESIDES = 10  # claims that may be on a screen while another is asked for
LONGEST_DRAFT = 400_000  # characters of JSON
LONGEST_KEY = 80
LONGEST_MS = 2**31 - 1


class Work(NamedTuple):
    """What came with an answer.

    Attributes:
        started_at:        when the question was first seen; taken as `at` if it claims to be later (a browser's clock may be wrong).
        at:                when the answer arrived.
        active_ms:         milliseconds the annotator was at it, >= 0.
        idempotency_key:   the same for every attempt to send the same answer; 1 to 80 characters.
        guideline_version: the version of the guideline it was made under.
    """

    started_at: datetime
    at: datetime
    active_ms: int
    idempotency_key: str
    guideline_version: int


class Receipt(NamedTuple):
    """What became of an answer: it is in the log."""

    judgement_id: str
    extra: bool  # kept, but the question had enough answers already
    replay: bool  # it had come before


class Borrowed(NamedTuple):
    """A question that somebody holds or held, as far as an answer to it needs it."""

    claim_id: str
    question_id: str
    annotator_id: str
    order_shown: list[int]
    kind: str
    set_id: str | None
    prompt_id: str
    answers: int  # that count, of all people
    overlap: int
    rules: dict[str, Any] | None  # of its set; None without one
    newest: int | None  # version of the set's guideline


# ---- borrowing a question ----


def claim(
    project: Project,
    annotator_id: str,
    *,
    at: datetime,
    random_bits: RandomBits = secrets.randbits,
    lease_minutes: float | None = None,
    set_id: str | None = None,
    round_id: int | None = None,
    kind: str | None = None,
    besides: Sequence[str] = (),
) -> Claim | None:
    """Lend the annotator a question; None when nothing is left for them. See `claim_in`."""
    with project.database.write_together() as session:
        return claim_in(
            session, annotator_id, at=at, random_bits=random_bits, lease_minutes=lease_minutes, set_id=set_id, round_id=round_id, kind=kind, besides=besides
        )


def claim_in(
    session: Session,
    annotator_id: str,
    *,
    at: datetime,
    random_bits: RandomBits = secrets.randbits,
    lease_minutes: float | None = None,
    set_id: str | None = None,
    round_id: int | None = None,
    kind: str | None = None,
    besides: Sequence[str] = (),
) -> Claim | None:
    """Lend a question: the one they hold already, else the next of the first open set that has one for them.

    A question needs an answer while fewer people than its overlap have answered it (a skip is no answer) or hold it. Nobody
    is asked the same question twice. A question that comes back after its lease keeps the order it was shown in, and the draft.

    Args:
        session:       a write transaction; claims and answers take turns.
        at:            the present moment.
        random_bits:   gives that many random bits: for the order shown, the id, and when checks and repeats come.
        lease_minutes: for how long the question is theirs; None: as the set's rules say.
        set_id:        only questions of this set; None: any.
        round_id:      only questions of this round; None: any.
        kind:          only questions of this kind; None: any.
        besides:       claims that are on their screen already: another question is lent beside those.

    Raises:
        UserError: there is no such annotator, or they are no longer active.
    """
    hold(session, Assignment)
    if not brief(session, _ACTIVE, {"annotator": annotator_id}).scalar():
        raise UserError(f"there is no active annotator {annotator_id}", fix="sign in again, or ask a manager to let you in")
    if len(besides) > MOST_BESIDES:
        raise UserError(f"you hold {len(besides)} questions already", fix="answer some of them first")
    asking = Asking(annotator_id, at, set_id, round_id, kind, tuple(besides))
    held = held_claim(session, asking)
    if held is not None:
        return held
    for one in open_sets(session, asking):
        taken = turns_taken(session, annotator_id, one.id)
        question = next_question(session, one, asking, taken, random_bits)
        if question is not None:
            until = at + timedelta(minutes=one.rules.lease_minutes if lease_minutes is None else lease_minutes)
            return _lend(session, question, one, asking, taken + 1, until, random_bits)
    return None


def _lend(session: Session, question_id: str, among: OpenSet, asking: Asking, number: int, until: datetime, random_bits: RandomBits) -> Claim:
    had = brief(session, _HAD, {"question": question_id, "annotator": asking.annotator}).one()
    lease = {"claimed_at": asking.at, "expires_at": until, "set_id": among.id, "number": number}
    if had.id is not None:
        claim_id, order, draft = had.id, had.order_shown, had.draft
        brief(session, _LEND_AGAIN, {"claim": claim_id} | {f"new_{name}": value for name, value in lease.items()})
    else:
        claim_id, order, draft = uuid7(asking.at, random_bits), _shuffled(had.n, random_bits), None
        who = {"id": claim_id, "question_id": question_id, "annotator_id": asking.annotator, "order_shown": order, "draft": None, "answered": False}
        brief(session, _LEND, who | lease)
    return Claim(claim_id, question_id, asking.annotator, tuple(order), asking.at, until, among.id, among.kind, draft)


def _shuffled(n: int, random_bits: RandomBits) -> list[int]:
    """0 to n - 1 in an order drawn evenly (Fisher and Yates)."""
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = below(i + 1, random_bits)
        order[i], order[j] = order[j], order[i]
    return order


# ---- while they are at it ----


def save_draft(project: Project, claim_id: str, draft: Mapping[str, Any] | None, *, annotator_id: str, at: datetime) -> None:
    """Keep what the annotator has entered so far. See `save_draft_in`."""
    with project.database.write_together() as session:
        save_draft_in(session, claim_id, draft, annotator_id=annotator_id, at=at)


def save_draft_in(session: Session, claim_id: str, draft: Mapping[str, Any] | None, *, annotator_id: str, at: datetime) -> None:
    """Keep what the annotator has entered so far, as the page wants it back. A lease that still runs is renewed: they are at it.

    A draft of a question that they have answered since is let go.

    Raises:
        UserError: no such claim of theirs, or a draft that is too long.
    """
    hold(session, Assignment)
    lent = _claim_of(session, claim_id, annotator_id)
    if draft is not None:
        _check_draft(draft)
    if _given(session, lent.question_id, annotator_id, key=None):
        return
    lent.draft = None if draft is None else dict(draft)
    row = None if lent.set_id is None else session.get(QuestionSet, lent.set_id)
    if row is not None and lent.expires_at > at:
        lent.expires_at = max(lent.expires_at, at + timedelta(minutes=rules_of(row).lease_minutes))


def _check_draft(draft: Mapping[str, Any]) -> None:
    try:
        length = len(json.dumps(dict(draft), allow_nan=False))
    except ValueError as error:
        raise UserError(f"this draft can't be kept: {error}", fix="send plain JSON") from error
    if length > LONGEST_DRAFT:
        raise UserError("this draft is too long", fix=f"keep it under {LONGEST_DRAFT} characters")


def release(project: Project, claim_id: str, *, annotator_id: str, at: datetime) -> None:
    """Give a question back unanswered. See `release_in`."""
    with project.database.write_together() as session:
        release_in(session, claim_id, annotator_id=annotator_id, at=at)


def release_in(session: Session, claim_id: str, *, annotator_id: str, at: datetime) -> None:
    """Give a question back unanswered: its lease ends now. It may come back to them, with the draft; an answer that comes late is still taken.

    Raises:
        UserError: no such claim of theirs.
    """
    hold(session, Assignment)
    lent = _claim_of(session, claim_id, annotator_id)
    lent.expires_at = min(lent.expires_at, at)


# ---- giving an answer ----


def submit(
    project: Project,
    claim_id: str,
    answer: Mapping[str, Any],
    *,
    annotator_id: str,
    started_at: datetime,
    at: datetime,
    active_ms: int,
    idempotency_key: str,
    guideline_version: int,
    random_bits: RandomBits = secrets.randbits,
) -> Receipt:
    """Take in an answer to a claimed question. See `submit_in`."""
    work = Work(started_at, at, active_ms, idempotency_key, guideline_version)
    with project.database.write_together() as session:
        return submit_in(session, claim_id, answer, work, annotator_id=annotator_id, random_bits=random_bits)


def submit_in(
    session: Session, claim_id: str, answer: Mapping[str, Any], work: Work, *, annotator_id: str, random_bits: RandomBits = secrets.randbits
) -> Receipt:
    """Take in an answer to a claimed question.

    The same key again gives the same judgement and adds nothing. Work that was finished after its lease ran out is kept all the
    same: it counts if the question still wants an answer, and is an extra if it doesn't. A second answer to the question by the
    same annotator supersedes their first.

    Raises:
        UserError: no such claim of theirs, an answer of the wrong form, or a key that was used for something else.
    """
    lent = borrowed(session, claim_id, annotator_id)
    if lent is None:
        raise _no_such_claim(claim_id)
    return answer_to(session, lent, answer, work, random_bits)


def borrowed(session: Session, claim_id: str, annotator_id: str) -> Borrowed | None:
    """The question that a claim of theirs is about; None if they have no such claim. Until the transaction ends it stays as it is."""
    hold(session, Assignment)
    row = brief(session, _BORROWED, {"claim": claim_id, "annotator": annotator_id}).first()
    return None if row is None else Borrowed._make(row)


def answer_to(session: Session, lent: Borrowed, answer: Mapping[str, Any], work: Work, random_bits: RandomBits = secrets.randbits) -> Receipt:
    """Take in an answer to what was borrowed in this transaction. See `submit_in`."""
    given = _given(session, lent.question_id, lent.annotator_id, work.idempotency_key)
    earlier = _sent_before(given, lent.question_id, lent.annotator_id, answer, work.idempotency_key)
    if earlier is not None:
        return earlier
    brief(session, _ANSWERED, {"claim": lent.claim_id})
    return _store(session, lent, answer, work, _standing(given, lent.question_id, lent.annotator_id), random_bits)


def supersede(
    project: Project,
    judgement_id: str,
    answer: Mapping[str, Any],
    *,
    annotator_id: str,
    started_at: datetime,
    at: datetime,
    active_ms: int,
    idempotency_key: str,
    guideline_version: int,
    random_bits: RandomBits = secrets.randbits,
) -> Receipt:
    """Change one's mind. See `supersede_in`."""
    work = Work(started_at, at, active_ms, idempotency_key, guideline_version)
    with project.database.write_together() as session:
        return supersede_in(session, judgement_id, answer, work, annotator_id=annotator_id, random_bits=random_bits)


def supersede_in(
    session: Session, judgement_id: str, answer: Mapping[str, Any], work: Work, *, annotator_id: str, random_bits: RandomBits = secrets.randbits
) -> Receipt:
    """Change one's mind: a new judgement in the place of an old one, which stays in the log.

    Raises:
        UserError: no such judgement of theirs, it was changed already, an answer of the wrong form, or a key used for something else.
    """
    hold(session, Assignment)
    old = session.get(Judgement, judgement_id)
    if old is None or old.annotator_id != annotator_id:
        raise UserError(f"there is no judgement {judgement_id} of yours", fix="reload the page: the list of your last answers is newer there")
    given = _given(session, old.question_id, annotator_id, work.idempotency_key)
    earlier = _sent_before(given, old.question_id, annotator_id, answer, work.idempotency_key)
    if earlier is not None:
        return earlier
    if any(row.supersedes == old.id for row in given):
        raise UserError(f"judgement {judgement_id} was changed already", fix="change the newer one")
    asked = Borrowed._make(("", old.question_id, annotator_id, old.order_shown, *brief(session, _ASKED, {"question": old.question_id}).one()))
    return _store(session, asked, answer, work, next(row for row in given if row.id == old.id), random_bits)


def _claim_of(session: Session, claim_id: str, annotator_id: str) -> Assignment:
    lent = session.get(Assignment, claim_id)
    if lent is None or lent.annotator_id != annotator_id:
        raise _no_such_claim(claim_id)
    return lent


def _no_such_claim(claim_id: str) -> UserError:
    return UserError(f"there is no claim {claim_id} of yours", fix="ask for a question first")


class Earlier(NamedTuple):
    """A judgement that is there already."""

    id: str
    question_id: str
    annotator_id: str
    answer: dict[str, Any]
    extra: bool
    submitted_at: datetime
    idempotency_key: str
    supersedes: str | None

    def counts(self) -> bool:
        """Whether it is one of the answers that its question has, if it stands."""
        return "skip" not in self.answer and not self.extra


def _given(session: Session, question_id: str, annotator_id: str, key: str | None) -> list[Earlier]:
    """All that the annotator has said to the question, and what anybody sent with this key, if there is one."""
    if key is not None and (not 0 < len(key) <= LONGEST_KEY or "\0" in key):
        raise UserError(f"an answer needs a key of 1 to {LONGEST_KEY} characters", fix="send each answer with a key of its own")
    return list(map(Earlier._make, brief(session, _GIVEN, {"question": question_id, "annotator": annotator_id, "key": key})))


def _sent_before(given: Sequence[Earlier], question_id: str, annotator_id: str, answer: Mapping[str, Any], key: str) -> Receipt | None:
    """What became of the answer that this key brought before; None if it is new."""
    row = next((row for row in given if row.idempotency_key == key), None)
    if row is None:
        return None
    if (row.question_id, row.annotator_id, row.answer) != (question_id, annotator_id, dict(answer)):
        raise UserError(f"the key {key!r} was used for another answer", fix="send each answer with a key of its own")
    return Receipt(row.id, row.extra, replay=True)


def _standing(given: Sequence[Earlier], question_id: str, annotator_id: str) -> Earlier | None:
    """The annotator's answer to the question that stands."""
    superseded = {row.supersedes for row in given}
    rows = (row for row in given if (row.question_id, row.annotator_id) == (question_id, annotator_id) and row.id not in superseded)
    return max(rows, key=lambda row: (row.submitted_at, row.id), default=None)


def _store(session: Session, asked: Borrowed, answer: Mapping[str, Any], work: Work, standing: Earlier | None, random_bits: RandomBits) -> Receipt:
    _check_work(work, asked.newest)
    checked = _checked(session, asked, answer)
    by_others = asked.answers - (standing is not None and standing.counts())
    row: dict[str, Any] = {
        "id": uuid7(work.at, random_bits), "question_id": asked.question_id, "annotator_id": asked.annotator_id, "answer": checked,
        "order_shown": list(asked.order_shown), "started_at": min(work.started_at, work.at), "submitted_at": work.at, "active_ms": work.active_ms,
        "guideline_version": work.guideline_version, "idempotency_key": work.idempotency_key, "supersedes": standing.id if standing else None,
        "extra": "skip" not in checked and by_others >= asked.overlap,
    }  # fmt: skip
    brief(session, _KEEP, row)
    if "text" in checked:
        _keep_edit(session, asked, row)
    count_answers(session, [asked.question_id])
    return Receipt(row["id"], row["extra"], replay=False)


def _check_work(work: Work, newest: int | None) -> None:
    """`newest` is the newest version of the guideline; None: there is none."""
    if not 0 <= work.active_ms <= LONGEST_MS:
        raise UserError(f"an answer can't take {work.active_ms} ms", fix="send the milliseconds spent on it, 0 or more")
    if newest is not None and not 1 <= work.guideline_version <= newest:
        raise UserError(f"there is no version {work.guideline_version} of this guideline", fix=f"reload the page: the newest is {newest}")


def _checked(session: Session, asked: Borrowed, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, if it is one to this question."""
    n, original = len(asked.order_shown), None
    if "text" in answer:
        original = session.scalars(select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == asked.question_id)).first()
    if asked.rules is None:
        return check_answer(asked.kind, answer, n, original=original)
    return Rules.model_validate(asked.rules).check(asked.kind, answer, n, original=original)


EDITS = "edits:"  # how the names of their batches begin


def _keep_edit(session: Session, asked: Borrowed, row: Mapping[str, Any]) -> None:
    """An edit is a demonstration: a sample by the annotator."""
    session.add(
        Sample(
            id=edit_sample_id(row["id"]), prompt_id=asked.prompt_id, policy_id=None, author=asked.annotator_id, batch=f"{EDITS}{asked.set_id}", position=0,
            text=row["answer"]["text"], token_ids=None, logprobs=None, finished=True, temperature=None, seed=None, base_logprob=None,
            created_at=row["submitted_at"],
        )
    )  # fmt: skip


def edit_sample_id(judgement_id: str) -> str:
    """The id of the sample that an edit made."""
    return content_id("edit", judgement_id)


# Built once: to build a query takes longer than to run it.
_ACTIVE = select(Annotator.active).where(Annotator.id == bindparam("annotator"))
_n_samples = select(func.count()).select_from(QuestionSample).where(QuestionSample.question_id == Question.id).scalar_subquery()
_HAD = (
    select(_n_samples.label("n"), Assignment.id, Assignment.order_shown, Assignment.draft)
    .select_from(Question)
    .outerjoin(Assignment, (Assignment.question_id == Question.id) & (Assignment.annotator_id == bindparam("annotator")))
    .where(Question.id == bindparam("question"))
)
_LEND = insert(Assignment)
_LEND_AGAIN = (
    update(Assignment)
    .where(Assignment.id == bindparam("claim"))
    .values({name: bindparam(f"new_{name}") for name in ("claimed_at", "expires_at", "set_id", "number")})
)
_ANSWERED = update(Assignment).where(Assignment.id == bindparam("claim")).values(draft=None, answered=True)
_KEEP = insert(Judgement)
_newest = select(func.max(Guideline.version)).where(Guideline.set_id == Question.set_id).scalar_subquery()
_asked = (Question.kind, Question.set_id, Question.prompt_id, Question.answers, Question.overlap, QuestionSet.rules, _newest)  # as in Borrowed
_ASKED = select(*_asked).select_from(Question).outerjoin(QuestionSet, QuestionSet.id == Question.set_id).where(Question.id == bindparam("question"))
_BORROWED = (
    select(Assignment.id, Assignment.question_id, Assignment.annotator_id, Assignment.order_shown, *_asked)
    .join(Question, Question.id == Assignment.question_id)
    .outerjoin(QuestionSet, QuestionSet.id == Question.set_id)
    .where(Assignment.id == bindparam("claim"), Assignment.annotator_id == bindparam("annotator"))
)
_GIVEN = select(
    Judgement.id, Judgement.question_id, Judgement.annotator_id, Judgement.answer, Judgement.extra, Judgement.submitted_at, Judgement.idempotency_key,
    Judgement.supersedes,
).where(
    or_(and_(Judgement.question_id == bindparam("question"), Judgement.annotator_id == bindparam("annotator")), Judgement.idempotency_key == bindparam("key"))
)  # fmt: skip


# ---- how far ----


def still_wanted(session: Session, round_id: int | None) -> int:
    """How many answers the questions of a round (None: of all) still want; check questions and repeats, which nothing waits for, not counted."""
    query = select(func.sum(Question.overlap - Question.answers)).where(
        Question.answers < Question.overlap, Question.gold.is_(None), Question.repeat_of.is_(None), Question.set_id.is_not(None)
    )
    return int(session.scalar(query if round_id is None else query.where(Question.round_id == round_id)) or 0)
