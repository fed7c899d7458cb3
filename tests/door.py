"""Short ways through the door, for tests."""

import random
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from stored import NOON
from truing.feedback.assignment import Claim, Receipt, claim, submit
from truing.store.project import Project
from truing.store.tables import Judgement, Question

LATER = NOON + timedelta(minutes=1)
EXPIRED = NOON + timedelta(minutes=31)


def take(project: Project, who: str, at: datetime = NOON, **which: Any) -> Claim:
    """What they are lent; there must be something."""
    found = claim(project, who, at=at, **which)
    assert found is not None
    return found


def give(project: Project, lent: Claim, answer: dict[str, Any] | None = None, *, key: str | None = None, at: datetime = LATER, **changes: Any) -> Receipt:
    """Answer: A is a little better, unless said otherwise."""
    work: dict[str, Any] = {"annotator_id": lent.annotator_id, "started_at": NOON, "at": at, "active_ms": 9000, "guideline_version": 1}
    work["idempotency_key"] = key = key or f"{lent.annotator_id} on {lent.question_id}"
    work["random_bits"] = random.Random(key).getrandbits
    return submit(project, lent.id, answer or {"strength": 1}, **(work | changes))


def rows(project: Project) -> list[Judgement]:
    """The log."""
    with project.database.read() as session:
        return list(session.scalars(select(Judgement).order_by(Judgement.submitted_at, Judgement.id)))


def question(project: Project, question_id: str) -> Question:
    """A question as it stands."""
    with project.database.read() as session:
        return session.get_one(Question, question_id)
