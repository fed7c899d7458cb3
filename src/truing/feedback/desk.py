"""What an annotator sees: the question as it is shown, their last answers, how far they are. Nothing that tells who wrote what."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, literal, select
from sqlalchemy.orm import Session, aliased

from truing.errors import UserError
from truing.feedback.next_question import OPEN, Asking, may_answer, open_sets
from truing.feedback.sets import Aspect, Rules
from truing.store.database import brief
from truing.store.tables import Guideline, Judgement, Prompt, Question, QuestionSample, QuestionSet, Sample

PACE_OVER = 50  # answers that the pace is taken from
LEFT_COUNTED = 300  # what is left for someone is counted up to this


class Shown(NamedTuple):
    """A question as its annotator sees it."""

    question_id: str
    kind: str
    turns: list[dict[str, Any]]  # the prompt: [{"role": "user", "content": "..."}, ...]
    texts: list[str]  # from left to right
    aspects: list[Aspect]
    scale: int
    flags: list[str]
    guideline: str
    guideline_version: int
    set_name: str


class Given(NamedTuple):
    """An answer of theirs that stands."""

    judgement_id: str
    question_id: str
    set_id: str | None
    kind: str
    answer: dict[str, Any]
    order_shown: tuple[int, ...]
    submitted_at: datetime


class Progress(NamedTuple):
    """How far an annotator is."""

    today: int  # questions answered or skipped since midnight, in the time zone of the moment asked for
    median_seconds: float | None  # time spent on each of their last 50; None before the first
    left: int  # questions that they may still be asked, at most 300; some may be lent to others at present


def question_shown(session: Session, question_id: str, order_shown: Sequence[int]) -> Shown:
    """The question with its texts in this order.

    Raises:
        UserError: no such question, or an order that doesn't fit it.
    """
    asked = brief(session, _ASKED, {"question": question_id}).first()
    if asked is None:
        raise UserError(f"there is no question {question_id}", fix="ask for a question first")
    texts = brief(session, _TEXTS, {"question": question_id}).scalars().all()
    if sorted(order_shown) != list(range(len(texts))):
        raise UserError(f"this question has {len(texts)} responses, and {list(order_shown)} is no order of them", fix="show them in the order of the claim")
    rules = Rules() if asked.rules is None else Rules.model_validate(asked.rules)
    return Shown(
        question_id, asked.kind, asked.turns, [texts[place] for place in order_shown], rules.aspects, rules.scale, rules.flags, asked.told or "",
        asked.version or 0, asked.name or "",
    )  # fmt: skip


def last_answers(session: Session, annotator_id: str, n: int = 20) -> list[Given]:
    """Their answers that stand, newest first."""
    newer = aliased(Judgement)
    query = select(Judgement, Question.set_id, Question.kind).join(Question)
    query = query.where(Judgement.annotator_id == annotator_id, ~select(newer.id).where(newer.supersedes == Judgement.id).exists())
    rows = session.execute(query.order_by(Judgement.submitted_at.desc(), Judgement.id.desc()).limit(n))
    return [Given(row.id, row.question_id, set_id, kind, row.answer, tuple(row.order_shown), row.submitted_at) for row, set_id, kind in rows]


def progress(session: Session, annotator_id: str, at: datetime) -> Progress:
    """How far the annotator is at this moment."""
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    newest = brief(session, _PACE, {"annotator": annotator_id, "midnight": midnight, "at": at}).all()
    spent = [row.active_ms for row in newest]
    return Progress(newest[0].today if newest else 0, median(spent) / 1000 if spent else None, _left(session, Asking(annotator_id, at)))


def answers_given(session: Session, annotator_id: str) -> int:
    """How many questions the annotator has answered or skipped; a change of mind is no further one."""
    return session.scalar(_GIVEN, {"annotator": annotator_id}) or 0


def _left(session: Session, asking: Asking) -> int:
    left = 0
    for one in open_sets(session, asking):
        values = {"annotator": asking.annotator, "set_id": one.id, "most": LEFT_COUNTED - left}
        left += brief(session, _left_of_set(one.rules.gold == "scheduled"), values).scalar() or 0
        if left >= LEFT_COUNTED:
            break
    return left


@cache
def _left_of_set(without_gold: bool) -> "Select[int]":
    """How many questions of `set_id` may still be asked of `annotator`, counted up to `most`. Built once: building takes longer than running."""
    query = select(literal(1)).select_from(Question).where(Question.set_id == bindparam("set_id"), OPEN, *may_answer())
    if without_gold:
        query = query.where(Question.gold.is_(None))
    return select(func.count()).select_from(query.limit(bindparam("most")).subquery())


# Built once: to build a query takes longer than to run it.
_newest = select(func.max(Guideline.version)).where(Guideline.set_id == Question.set_id).correlate(Question).scalar_subquery()
_ASKED = (
    select(Question.kind, Prompt.turns, QuestionSet.rules, QuestionSet.name, Guideline.text.label("told"), Guideline.version)
    .join(Prompt, Prompt.id == Question.prompt_id)
    .outerjoin(QuestionSet, QuestionSet.id == Question.set_id)
    .outerjoin(Guideline, (Guideline.set_id == Question.set_id) & (Guideline.version == _newest))
    .where(Question.id == bindparam("question"))
)
_TEXTS = select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == bindparam("question")).order_by(QuestionSample.position)
# Said so that no database looks through all that supersede nothing.
_MINE = (Judgement.annotator_id == bindparam("annotator"), func.coalesce(Judgement.supersedes, "") == "")
_GIVEN = select(func.count()).select_from(Judgement).where(*_MINE)
_TODAY = _GIVEN.where(Judgement.submitted_at >= bindparam("midnight"), Judgement.submitted_at <= bindparam("at"))
_PACE = (
    select(Judgement.active_ms, _TODAY.scalar_subquery().label("today"))
    .where(Judgement.annotator_id == bindparam("annotator"))
    .order_by(Judgement.submitted_at.desc())
    .limit(PACE_OVER)
)
