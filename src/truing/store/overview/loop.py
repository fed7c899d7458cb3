"""The loop in numbers: how much there is of everything, what is under way, and who is at work."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, func, select, union
from sqlalchemy.orm import Session

from truing.store.ids import uuid7
from truing.store.tables import (
    Artifact,
    Assignment,
    Base,
    Dataset,
    Judgement,
    Policy,
    Prompt,
    Question,
    QuestionSet,
    Round,
    Run,
    RunState,
    Sample,
    SetState,
    Split,
)

PRESENT = timedelta(minutes=10)  # who took a question or gave an answer within this is at work


class Counts(NamedTuple):
    """How much a project has of everything."""

    prompts: int
    held_out: int
    samples: int
    by_people: int  # of the samples
    policies: int  # that gave samples
    questions: int  # check questions and repeats not counted
    answered: int  # answers in, of those wanted
    wanted: int
    judgements: int  # rows of the log, changed ones included
    sets: int
    open_sets: int
    datasets: int
    reward_models: int
    tuned: int  # policies that a tuning run made
    evaluations: int
    rounds: int


def counts(session: Session) -> Counts:
    """Count everything, from indexes and aggregates."""
    splits = dict(session.execute(select(Prompt.split, func.count()).group_by(Prompt.split)).all())
    policies = dict(session.execute(select(Sample.policy_id, func.count()).group_by(Sample.policy_id)).all())
    made = dict(session.execute(select(Artifact.kind, func.count()).group_by(Artifact.kind)).all())
    states = dict(session.execute(select(QuestionSet.state, func.count()).group_by(QuestionSet.state)).all())
    questions, answered, wanted = session.execute(_questions()).one()
    return Counts(
        prompts=sum(splits.values()), held_out=splits.get(Split.HELD_OUT, 0), samples=sum(policies.values()), by_people=policies.pop(None, 0),
        policies=len(policies), questions=questions, answered=int(answered), wanted=int(wanted),
        judgements=total(session, Judgement), sets=sum(states.values()), open_sets=states.get(SetState.OPEN, 0),
        datasets=total(session, Dataset), reward_models=made.get("reward", 0),
        tuned=session.scalar(select(func.count()).where(Policy.artifact_id.is_not(None))) or 0, evaluations=made.get("evaluation", 0),
        rounds=total(session, Round),
    )  # fmt: skip


def total(session: Session, table: type[Base]) -> int:
    """How many rows a table has."""
    return session.scalar(select(func.count()).select_from(table)) or 0


def plain_question() -> ColumnElement[bool]:
    """Whether a question is asked for its answer: neither a check question nor a repeat."""
    return Question.gold.is_(None) & Question.repeat_of.is_(None)


def _questions() -> Any:
    answered = case((Question.answers < Question.overlap, Question.answers), else_=Question.overlap)
    return select(func.count(), func.coalesce(func.sum(answered), 0), func.coalesce(func.sum(Question.overlap), 0)).where(plain_question())


# ---- who is at work ----


def people_now(session: Session, at: datetime) -> int:
    """How many annotators took a question or gave an answer in the last ten minutes.

    Ids of both are ordered by time, so that only the newest rows are read.
    """
    since = at - PRESENT
    asked = select(Assignment.annotator_id).where(Assignment.id > first_id(since), Assignment.claimed_at > since, Assignment.claimed_at <= at)
    gave = select(Judgement.annotator_id).where(Judgement.id > first_id(since), Judgement.submitted_at > since, Judgement.submitted_at <= at)
    return session.scalar(select(func.count()).select_from(union(asked, gave).subquery())) or 0


class Pace(NamedTuple):
    """How quickly answers come in."""

    answers: int  # in the last hour
    hours: float  # for which there were any, at most one, at least a minute

    @property
    def each_hour(self) -> float:
        """Answers in an hour at this pace."""
        return self.answers / self.hours if self.answers else 0.0


def pace(session: Session, at: datetime) -> dict[str | None, Pace]:
    """How quickly each set's questions are answered: set → pace; the key None is all of them together."""
    since = at - timedelta(hours=1)
    rows = session.execute(
        select(Question.set_id, func.count(), func.min(Judgement.submitted_at))
        .join(Question, Question.id == Judgement.question_id)
        .where(Judgement.id > first_id(since), Judgement.submitted_at > since, Judgement.submitted_at <= at)
        .group_by(Question.set_id)
    ).all()
    found: dict[str | None, Pace] = {set_id: _pace(n, first, at) for set_id, n, first in rows if set_id is not None}
    if rows:
        found[None] = _pace(sum(row[1] for row in rows), min(row[2] for row in rows), at)
    return found


def _pace(answers: int, first: datetime, at: datetime) -> Pace:
    return Pace(answers, min(1.0, max((at - first).total_seconds() / 3600, 1 / 60)))


def first_id(moment: datetime) -> str:
    """The smallest id that an event of this moment can have."""
    return uuid7(moment, lambda bits: 0)


# ---- what was made, and what is under way ----


class Made(NamedTuple):
    """The newest thing of a kind."""

    id: str
    facts: Mapping[str, Any]
    created_at: datetime
    version: int | None = None


def newest(session: Session, kind: str) -> Made | None:
    """The newest artifact of a kind; None if there is none."""
    row = session.execute(
        select(Artifact, Dataset.version)
        .join(Dataset, Dataset.artifact_id == Artifact.id, isouter=True)
        .where(Artifact.kind == kind)
        .order_by(Artifact.created_at.desc(), Artifact.id)
        .limit(1)
    ).first()
    return Made(row.Artifact.id, row.Artifact.manifest.get("facts", {}), row.Artifact.created_at, row.version) if row else None


def newest_result(session: Session, stage: str) -> Run | None:
    """The newest finished run of a stage; None if none has finished."""
    return session.scalars(select(Run).where(Run.stage == stage, Run.state == RunState.DONE).order_by(Run.finished_at.desc(), Run.id.desc()).limit(1)).first()


def latest_runs(session: Session) -> dict[str, Run]:
    """Stage → the run of it that was heard of last."""
    last = select(Run.stage, func.max(Run.heartbeat_at).label("heard")).group_by(Run.stage).subquery()
    rows = session.scalars(select(Run).join(last, (Run.stage == last.c.stage) & (Run.heartbeat_at == last.c.heard)).order_by(Run.id))
    return {row.stage: row for row in rows}


def newest_round(session: Session) -> Round | None:
    """The newest round; None before the first."""
    return session.scalars(select(Round).order_by(Round.number.desc()).limit(1)).first()
