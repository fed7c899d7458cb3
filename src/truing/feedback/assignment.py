"""The one door of feedback: a question is lent to an annotator, and an answer comes back. People, judge models and simulated
annotators all pass through it.

Each function exists twice: `claim` and its like open a transaction of their own; `claim_in` and its like work inside a caller's.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session, aliased

from truing.errors import UserError
from truing.feedback.answers import check_answer
from truing.feedback.desk import Given as Given
from truing.feedback.desk import Progress as Progress
from truing.feedback.desk import Shown as Shown
from truing.feedback.desk import answers_given as answers_given
from truing.feedback.desk import last_answers as last_answers
from truing.feedback.desk import progress as progress
from truing.feedback.desk import question_shown as question_shown
from truing.feedback.next_question import Asking, RandomBits, below, held_claim, next_question, open_sets, turns_taken
from truing.feedback.sets import Rules, rules_of
from truing.store.database import hold
from truing.store.ids import content_id, uuid7
from truing.store.judgements import count_answers
from truing.store.judgements import current_judgements as current_judgements
from truing.store.project import Project
from truing.store.tables import Annotator, Assignment, Guideline, Judgement, Question, QuestionSample, QuestionSet, Sample

MOST_BESIDES = 10  # claims that may be on a screen while another is asked for
LONGEST_DRAFT = 400_000  # characters of JSON
LONGEST_KEY = 80
LONGEST_MS = 2**31 - 1


class Claim(NamedTuple):
    """A question lent to an annotator. Nothing in it tells who wrote what, nor whether it is a check or a repeat."""

    id: str
    question_id: str
    annotator_id: str
    order_shown: tuple[int, ...]  # positions of the question's samples from left to right
    claimed_at: datetime
    expires_at: datetime
    set_id: str
    kind: str
    draft: dict[str, Any] | None  # what they had entered before


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
    if not session.scalar(_ACTIVE, {"annotator": annotator_id}):
        raise UserError(f"there is no active annotator {annotator_id}", fix="sign in again, or ask a manager to let you in")
    if len(besides) > MOST_BESIDES:
        raise UserError(f"you hold {len(besides)} questions already", fix="answer some of them first")
    asking = Asking(annotator_id, at, set_id, round_id, kind, tuple(besides))
    held = held_claim(session, asking)
    if held is not None:
        return _as_claim(*held)
    for row, rules in open_sets(session, asking):
        taken = turns_taken(session, annotator_id, row.id)
        question = next_question(session, row, rules, asking, taken, random_bits)
        if question is not None:
            until = at + timedelta(minutes=rules.lease_minutes if lease_minutes is None else lease_minutes)
            return _as_claim(_lend(session, question, row.id, asking, taken + 1, until, random_bits), row.kind)
    return None


def _lend(session: Session, question_id: str, set_id: str, asking: Asking, number: int, until: datetime, random_bits: RandomBits) -> Assignment:
    lent = session.scalars(_LENT, {"question": question_id, "annotator": asking.annotator}).first()
    if lent is not None:
        lent.claimed_at, lent.expires_at, lent.set_id, lent.number = asking.at, until, set_id, number
    else:
        n = session.scalar(_N_SAMPLES, {"question": question_id}) or 0
        lent = Assignment(
            id=uuid7(asking.at, random_bits), question_id=question_id, annotator_id=asking.annotator, set_id=set_id, number=number,
            order_shown=_shuffled(n, random_bits), claimed_at=asking.at, expires_at=until, draft=None,
        )  # fmt: skip
        session.add(lent)
    session.flush()
    return lent


def _shuffled(n: int, random_bits: RandomBits) -> list[int]:
    """0 to n - 1 in an order drawn evenly (Fisher and Yates)."""
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = below(i + 1, random_bits)
        order[i], order[j] = order[j], order[i]
    return order


def _as_claim(row: Assignment, kind: str) -> Claim:
    return Claim(row.id, row.question_id, row.annotator_id, tuple(row.order_shown), row.claimed_at, row.expires_at, row.set_id or "", kind, row.draft)


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
    if _standing(session, lent.question_id, annotator_id) is not None:
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
    hold(session, Assignment)
    lent = _claim_of(session, claim_id, annotator_id)
    earlier = _sent_before(session, work.idempotency_key, lent.question_id, annotator_id, answer)
    if earlier is not None:
        return earlier
    lent.draft, lent.answered = None, True
    return _store(session, lent.question_id, annotator_id, lent.order_shown, answer, work, _standing(session, lent.question_id, annotator_id), random_bits)


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
    earlier = _sent_before(session, work.idempotency_key, old.question_id, annotator_id, answer)
    if earlier is not None:
        return earlier
    if session.scalars(select(Judgement.id).where(Judgement.supersedes == old.id)).first() is not None:
        raise UserError(f"judgement {judgement_id} was changed already", fix="change the newer one")
    return _store(session, old.question_id, annotator_id, old.order_shown, answer, work, old, random_bits)


def lent_question(session: Session, claim_id: str, annotator_id: str) -> tuple[Assignment, Question] | None:
    """A claim of theirs and its question; None if they have no such claim. Both stay in the session for as long as the caller holds them."""
    found = session.execute(_BORROWED, {"claim": claim_id, "annotator": annotator_id}).first()
    return None if found is None else (found[0], found[1])


def _claim_of(session: Session, claim_id: str, annotator_id: str) -> Assignment:
    lent = session.get(Assignment, claim_id)
    if lent is None or lent.annotator_id != annotator_id:
        raise UserError(f"there is no claim {claim_id} of yours", fix="ask for a question first")
    return lent


def _sent_before(session: Session, key: str, question_id: str, annotator_id: str, answer: Mapping[str, Any]) -> Receipt | None:
    """What became of the answer that this key brought before; None if it is new."""
    if not 0 < len(key) <= LONGEST_KEY or "\0" in key:
        raise UserError(f"an answer needs a key of 1 to {LONGEST_KEY} characters", fix="send each answer with a key of its own")
    row = session.scalars(_SENT, {"key": key}).first()
    if row is None:
        return None
    if (row.question_id, row.annotator_id, row.answer) != (question_id, annotator_id, dict(answer)):
        raise UserError(f"the key {key!r} was used for another answer", fix="send each answer with a key of its own")
    return Receipt(row.id, row.extra, replay=True)


def _standing(session: Session, question_id: str, annotator_id: str) -> Judgement | None:
    """The annotator's answer to the question that stands."""
    rows = session.scalars(_STANDING, {"question": question_id, "annotator": annotator_id})
    return max(rows, key=lambda row: (row.submitted_at, row.id), default=None)


def _store(
    session: Session,
    question_id: str,
    annotator_id: str,
    order_shown: Sequence[int],
    answer: Mapping[str, Any],
    work: Work,
    standing: Judgement | None,
    random_bits: RandomBits,
) -> Receipt:
    question = session.get_one(Question, question_id)
    asked = session.execute(_ASKED, {"set_id": question.set_id}).first()
    _check_work(work, None if asked is None else asked.newest)
    checked = _checked(session, question, None if asked is None else Rules.model_validate(asked.rules), answer, len(order_shown))
    by_others = question.answers - (standing is not None and "skip" not in standing.answer and not standing.extra)
    row = Judgement(
        id=uuid7(work.at, random_bits), question_id=question_id, annotator_id=annotator_id, answer=checked, order_shown=list(order_shown),
        started_at=min(work.started_at, work.at), submitted_at=work.at, active_ms=work.active_ms, guideline_version=work.guideline_version,
        idempotency_key=work.idempotency_key, supersedes=standing.id if standing else None, extra="skip" not in checked and by_others >= question.overlap,
    )  # fmt: skip
    session.add(row)
    if "text" in checked:
        _keep_edit(session, question, row)
    count_answers(session, [question_id])
    return Receipt(row.id, row.extra, replay=False)


def _check_work(work: Work, newest: int | None) -> None:
    """`newest` is the newest version of the guideline; None: there is none."""
    if not 0 <= work.active_ms <= LONGEST_MS:
        raise UserError(f"an answer can't take {work.active_ms} ms", fix="send the milliseconds spent on it, 0 or more")
    if newest is not None and not 1 <= work.guideline_version <= newest:
        raise UserError(f"there is no version {work.guideline_version} of this guideline", fix=f"reload the page: the newest is {newest}")


def _checked(session: Session, question: Question, rules: Rules | None, answer: Mapping[str, Any], n_samples: int) -> dict[str, Any]:
    """The answer, if it is one to this question."""
    original = None
    if "text" in answer:
        original = session.scalars(select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == question.id)).first()
    if rules is None:
        return check_answer(question.kind, answer, n_samples, original=original)
    return rules.check(question.kind, answer, n_samples, original=original)


def _keep_edit(session: Session, question: Question, row: Judgement) -> None:
    """An edit is a demonstration: a sample by the annotator."""
    session.add(
        Sample(
            id=edit_sample_id(row.id), prompt_id=question.prompt_id, policy_id=None, author=row.annotator_id, batch=f"edits:{question.set_id}", position=0,
            text=row.answer["text"], token_ids=None, logprobs=None, finished=True, temperature=None, seed=None, base_logprob=None, created_at=row.submitted_at,
        )
    )  # fmt: skip


def edit_sample_id(judgement_id: str) -> str:
    """The id of the sample that an edit made."""
    return content_id("edit", judgement_id)


# Built once: to build a query takes longer than to run it.
_newer = aliased(Judgement)
_ACTIVE = select(Annotator.active).where(Annotator.id == bindparam("annotator"))
_LENT = select(Assignment).where(Assignment.question_id == bindparam("question"), Assignment.annotator_id == bindparam("annotator"))
_N_SAMPLES = select(func.count()).select_from(QuestionSample).where(QuestionSample.question_id == bindparam("question"))
_BORROWED = (
    select(Assignment, Question)
    .join(Question, Question.id == Assignment.question_id)
    .where(Assignment.id == bindparam("claim"), Assignment.annotator_id == bindparam("annotator"))
)
_ASKED = select(QuestionSet.rules, select(func.max(Guideline.version)).where(Guideline.set_id == QuestionSet.id).scalar_subquery().label("newest")).where(
    QuestionSet.id == bindparam("set_id")
)
_SENT = select(Judgement).where(Judgement.idempotency_key == bindparam("key"))
_STANDING = select(Judgement).where(
    Judgement.question_id == bindparam("question"),
    Judgement.annotator_id == bindparam("annotator"),
    ~select(_newer.id).where(_newer.supersedes == Judgement.id).exists(),
)


# ---- how far ----


def still_wanted(session: Session, round_id: int | None) -> int:
    """How many answers the questions of a round (None: of all) still want; check questions and repeats, which nothing waits for, not counted."""
    query = select(func.sum(Question.overlap - Question.answers)).where(
        Question.answers < Question.overlap, Question.gold.is_(None), Question.repeat_of.is_(None), Question.set_id.is_not(None)
    )
    return int(session.scalar(query if round_id is None else query.where(Question.round_id == round_id)) or 0)
