"""The people of a project, with how much each has answered."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.store.tables import Annotator, Judgement


class PersonRow(NamedTuple):
    """One annotator as the list of people shows them."""

    id: str
    name: str
    kind: str
    role: str
    active: bool
    signs_in: bool  # has a password, or came from a panel of crowd workers
    judgements: int  # rows of the log
    last_at: datetime | None
    created_at: datetime


def people(session: Session) -> list[PersonRow]:
    """Everybody, those who answered most recently first."""
    given = select(Judgement.annotator_id, func.count().label("n"), func.max(Judgement.submitted_at).label("last")).group_by(Judgement.annotator_id).subquery()
    rows = session.execute(
        select(Annotator, given.c.n, given.c.last)
        .join(given, given.c.annotator_id == Annotator.id, isouter=True)
        .order_by(given.c.last.is_(None), given.c.last.desc(), Annotator.created_at, Annotator.id)
    )
    return [_row(annotator, n or 0, last) for annotator, n, last in rows]


def _row(annotator: Annotator, n: int, last: datetime | None) -> PersonRow:
    return PersonRow(
        annotator.id, annotator.name, annotator.kind, annotator.role, annotator.active,
        annotator.password_hash is not None or "crowd" in annotator.facts, n, last, annotator.created_at,
    )  # fmt: skip


def names(session: Session) -> list[tuple[str, str]]:
    """(id, name) of everybody, by name."""
    return [(row.id, row.name) for row in session.execute(select(Annotator.id, Annotator.name).order_by(func.lower(Annotator.name)))]
