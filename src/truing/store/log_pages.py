"""The log of judgements a page at a time, what stands in a question, and which runs are under way: what programs read."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.store.tables import Judgement, QuestionSample, Run, RunState, Sample


def judgements_after(session: Session, after: str, limit: int, *, since: datetime | None = None) -> Sequence[Judgement]:
    """At most `limit` rows of the log whose ids come after this one, in the order of their ids.

    An id begins with the time of submission, which is not the order of arrival: an import brings rows of long ago (1970 where its file doesn't say), and of two
    answers given at once the later id may be kept first. So an id is a place within one reading, and no mark of what was read before.

    Args:
        after: an id; "" for the beginning.
        since: only what was submitted then or later.
    """
    query = select(Judgement).where(Judgement.id > after).order_by(Judgement.id).limit(limit)
    return session.scalars(query if since is None else query.where(Judgement.submitted_at >= since)).all()


def samples_of(session: Session, question_id: str) -> Sequence[Sample]:
    """The samples of a question, A first."""
    query = select(Sample).join(QuestionSample, QuestionSample.sample_id == Sample.id).where(QuestionSample.question_id == question_id)
    return session.scalars(query.order_by(QuestionSample.position)).all()


def runs_under_way(session: Session) -> Sequence[Run]:
    """The runs that say they are running, oldest first; one that was killed says so until it is taken up again."""
    return session.scalars(select(Run).where(Run.state == RunState.RUNNING).order_by(Run.started_at, Run.id)).all()
