"""Which rows of the append-only log of judgements still stand, and how many of them count as answers."""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, select, update
from sqlalchemy.orm import Session, aliased

from truing.store.tables import Judgement, Question

IDS_A_QUERY = 500  # databases bound the number of parameters of one statement


def current_judgements(session: Session, question_ids: Iterable[str]) -> list[Judgement]:
    """The last judgement of each annotator on each of these questions, oldest first.

    A row that another supersedes doesn't stand; of several that stand (an import may bring them), the latest submitted does.
    """
    rows = [row for ids in batches(sorted(set(question_ids))) for row in session.scalars(select(Judgement).where(Judgement.question_id.in_(ids)))]
    superseded = {row.supersedes for row in rows}
    last: dict[tuple[str, str], Judgement] = {}
    for row in sorted(rows, key=_age):
        if row.id not in superseded:
            last[row.question_id, row.annotator_id] = row
    return sorted(last.values(), key=_age)


def count_answers(session: Session, question_ids: Iterable[str]) -> None:
    """Count afresh how many answers each of these questions has, and whether it is open: whoever adds judgements calls this before the commit.

    An answer is a person whose judgement stands and is neither a skip nor an extra.
    """
    wanted = set(question_ids)
    session.flush()
    for ids in batches(sorted(wanted)):
        session.connection().execute(_COUNT, {"ids": ids})  # past the session, which would take the statement apart anew each time
    for row in session.identity_map.values():
        if isinstance(row, Question) and row.id in wanted:
            session.expire(row, ["answers", "open"])


def is_answer() -> ColumnElement[bool]:
    """Whether a row of the log counts as an answer: it stands, and is neither a skip nor an extra."""
    newer = aliased(Judgement)
    superseded = select(newer.id).where(newer.supersedes == Judgement.id).exists()
    return and_(Judgement.answer["skip"].as_string().is_(None), ~Judgement.extra, ~superseded)


def _answers() -> "Select[int]":
    return select(func.count(Judgement.annotator_id.distinct())).where(is_answer(), Judgement.question_id == Question.id)


_COUNT = (
    update(Question)
    .where(Question.id.in_(bindparam("ids", expanding=True)))
    .values(answers=_answers().scalar_subquery(), open=_answers().scalar_subquery() < Question.overlap)
)


def batches(ids: Sequence[str], size: int = IDS_A_QUERY) -> Iterator[Sequence[str]]:
    """Slices of a list of ids, each small enough for one IN."""
    return (ids[i : i + size] for i in range(0, len(ids), size))


def _age(row: Judgement) -> tuple[object, str]:
    return row.submitted_at, row.id
