"""Which rows of the append-only log of judgements still stand."""

from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.store.tables import Judgement

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


def batches(ids: Sequence[str], size: int = IDS_A_QUERY) -> Iterator[Sequence[str]]:
    """Slices of a list of ids, each small enough for one IN."""
    return (ids[i : i + size] for i in range(0, len(ids), size))


def _age(row: Judgement) -> tuple[object, str]:
    return row.submitted_at, row.id
