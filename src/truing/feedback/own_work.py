"""What annotators are told of their own answers, in private: how many, how fast, how steady. Nothing here is held against anyone."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from truing.feedback.sets import rules_of
from truing.stats import Interval, wilson
from truing.store.tables import Judgement, Kind, Question, QuestionSet, SetState

LATEST = 2000  # judgements that the numbers are taken from
NEAR = 1  # points by which a repeated rating may differ


class OwnNumbers(NamedTuple):
    """Someone's own work. Shares are intervals of Wilson's; nan without any answer of that sort."""

    n: int  # answers that stand, skips included
    skips: int
    median_seconds: float | None  # active time for each; None before the first
    left: Interval  # pairs with a preference in which the left one was preferred
    ties: Interval  # pairs answered with a tie
    steady: Interval  # questions that came twice and were answered alike


class _Answered(NamedTuple):
    kind: str
    answer: Mapping[str, Any]
    order_shown: Sequence[int]
    active_ms: int


def own_numbers(session: Session, annotator_id: str) -> OwnNumbers:
    """The numbers of someone's latest 2,000 answers that stand."""
    rows = [_Answered(*row) for row in session.execute(_standing(annotator_id).limit(LATEST))]
    pairs = [row for row in rows if row.kind == Kind.PAIR and "strength" in row.answer]
    decided = [row for row in pairs if row.answer["strength"]]
    left = sum((row.answer["strength"] > 0) == (row.order_shown[0] == 0) for row in decided)
    alike = [same_answer(kind, first, again) for kind, first, again in _repeats(session, annotator_id)]
    return OwnNumbers(
        n=len(rows),
        skips=sum("skip" in row.answer for row in rows),
        median_seconds=median(row.active_ms for row in rows) / 1000 if rows else None,
        left=wilson(left, len(decided)),
        ties=wilson(len(pairs) - len(decided), len(pairs)),
        steady=wilson(sum(alike), len(alike)),
    )


def same_answer(kind: str, first: Mapping[str, Any], again: Mapping[str, Any]) -> bool:
    """Whether two answers of one person to one question say the same: the same side, the same order, points that differ by one at most."""
    if kind == Kind.RATING and "aspects" in first and "aspects" in again:
        return all(abs(point - again["aspects"].get(name, -NEAR)) <= NEAR for name, point in first["aspects"].items())
    if "strength" in first and "strength" in again:
        return _sign(first["strength"]) == _sign(again["strength"])
    return _bare(first) == _bare(again)


def why_nothing(session: Session, annotator_id: str) -> str:
    """Why someone is asked nothing at present: "done", "paused" (a set of theirs rests), or "empty" (there is no set for them)."""
    states = {row.state for row in session.scalars(select(QuestionSet)) if _asks(row, annotator_id)}
    if SetState.PAUSED.value in states:
        return "paused"
    return "done" if states else "empty"


def completion_address(session: Session, annotator_id: str) -> str | None:
    """Where crowd workers go when nothing is left: as the set of their newest answer says. None: nowhere."""
    query = select(QuestionSet).join(Question, Question.set_id == QuestionSet.id).join(Judgement, Judgement.question_id == Question.id)
    row = session.scalars(query.where(Judgement.annotator_id == annotator_id).order_by(Judgement.submitted_at.desc(), Judgement.id.desc()).limit(1)).first()
    return None if row is None else rules_of(row).completion_url


def _asks(row: QuestionSet, annotator_id: str) -> bool:
    who = row.rules.get("who")
    return row.state != SetState.ARCHIVED.value and (who is None or annotator_id in who)


def _standing(annotator_id: str) -> Any:
    newer = aliased(Judgement)
    query = select(Question.kind, Judgement.answer, Judgement.order_shown, Judgement.active_ms).join(Question)
    query = query.where(Judgement.annotator_id == annotator_id, ~select(newer.id).where(newer.supersedes == Judgement.id).exists())
    return query.order_by(Judgement.submitted_at.desc(), Judgement.id.desc())


def _repeats(session: Session, annotator_id: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(kind, the first answer, the answer to its repeat) of each question that came twice; skips left out."""
    again, first = aliased(Judgement), aliased(Judgement)
    query = select(Question.kind, first.answer, again.answer).select_from(again).join(Question, Question.id == again.question_id)
    query = query.join(first, (first.question_id == Question.repeat_of) & (first.annotator_id == again.annotator_id))
    query = query.where(again.annotator_id == annotator_id, *[~_superseded(one) for one in (again, first)]).limit(LATEST)
    for kind, one, other in session.execute(query):
        if "skip" not in one and "skip" not in other:
            yield kind, one, other


def _superseded(row: Any) -> Any:
    newer = aliased(Judgement)
    return select(func.count(newer.id)).where(newer.supersedes == row.id).scalar_subquery() > 0


def _sign(strength: int) -> int:
    return (strength > 0) - (strength < 0)


def _bare(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in answer.items() if key not in ("flags", "comment")}
