"""Records out of the store, in the order of the questions: a pure function of the log.

A superseded answer is left out and counted. Names go out as the store has them: of a worker, an annotator's id; of a judge model, its name.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from truing.feedback.formats.record import MODERATE, Format, Record, Response
from truing.feedback.imports import IMPORT, UNKNOWN_TIME
from truing.store.tables import Annotator, AnnotatorKind, Judgement, Kind, Policy, Prompt, Question, QuestionSample, Sample

CHUNK = 500  # questions


class Stored(NamedTuple):
    """A record, and what it belongs to."""

    prompt: str
    question: str
    superseded: bool
    record: Record


def rows_of(session: Session, form: Format, dropped: Counter[str]) -> Generator[tuple[int, Mapping[str, Any]]]:
    """(judgements, row) for every row of a format that can be written. `dropped` counts the judgements that it can't hold, by reason."""
    assert form.write is not None
    kept = (stored for stored in records(session, by_prompt=form.by_prompt) if _kept(form, stored, dropped))
    if not form.together:
        for stored in kept:
            for row in form.write([stored.record]):
                yield 1, row
        return
    for _, group in groupby(kept, key=lambda stored: stored.prompt if form.by_prompt else stored.question):
        several = [stored.record for stored in group]
        for place, row in enumerate(form.write(several)):
            yield len(several) if place == 0 else 0, row


def _kept(form: Format, stored: Stored, dropped: Counter[str]) -> bool:
    reason = "superseded" if stored.superseded else form.why_not(stored.record)
    if reason is not None:
        dropped[reason] += 1
    return reason is None


def records(session: Session, *, by_prompt: bool = False) -> Iterator[Stored]:
    """Every judgement, in the order of the questions (or of the prompts), then of time."""
    order = [Prompt.position, Prompt.id] if by_prompt else []
    query = (
        select(Question.id, Question.kind, Question.gold, Question.facts, Question.prompt_id, Prompt.turns)
        .join(Prompt, Prompt.id == Question.prompt_id)
        .order_by(*order, Question.position, Question.id)
    )
    with session.execute(query.execution_options(yield_per=CHUNK)) as result:
        for part in result.partitions():
            yield from _records_of(session, part)


def _records_of(session: Session, questions: Sequence[Row[Any]]) -> Iterator[Stored]:
    ids = [question.id for question in questions]
    responses = _responses(session, ids)
    judgements: dict[str, list[Row[Any]]] = {}
    query = select(
        Judgement.id, Judgement.question_id, Judgement.answer, Judgement.order_shown, Judgement.started_at, Judgement.submitted_at, Judgement.active_ms,
        Judgement.annotator_id, Judgement.supersedes, Annotator.kind, Annotator.name, Annotator.facts,
    ).join(Annotator, Annotator.id == Judgement.annotator_id)  # fmt: skip
    for row in session.execute(query.where(Judgement.question_id.in_(ids)).order_by(Judgement.submitted_at, Judgement.id)):
        judgements.setdefault(row.question_id, []).append(row)
    for question in questions:
        mine = judgements.get(question.id, [])
        superseded = {row.supersedes for row in mine}
        nameless = 0
        for row in mine:
            record = _record(question, responses[question.id], row, nameless)
            nameless += record.annotator is None
            yield Stored(question.prompt_id, question.id, row.id in superseded, record)


def _record(question: Row[Any], responses: tuple[Response, ...], row: Row[Any], vote: int) -> Record:
    judge = row.kind == AnnotatorKind.MODEL
    nameless = row.facts.get("imported") and not row.facts.get("worker") and not judge
    told = row.submitted_at != UNKNOWN_TIME
    shown = None if question.facts.get("order_shown") == "unknown" else tuple(row.order_shown)
    return Record(
        Kind(question.kind), question.turns, responses, row.answer,
        annotator=None if nameless else row.facts.get("judge", row.name) if judge else row.annotator_id, judge=judge, vote=vote if nameless else 0,
        shown=shown if len(responses) > 1 else None, started_at=row.started_at if told else None, submitted_at=row.submitted_at if told else None,
        active_ms=row.active_ms if told or row.active_ms else None, gold=_gold(question),
    )  # fmt: skip


def _gold(question: Row[Any]) -> dict[str, Any] | None:
    """The known answer, in the form of an answer."""
    gold: dict[str, Any] | None = question.gold
    if gold is None or "better" not in gold:
        return None if gold is None else gold["answer"]
    return {"strength": -MODERATE if gold["better"] else MODERATE}


def _responses(session: Session, questions: list[str]) -> dict[str, tuple[Response, ...]]:
    """The responses of each question, A first. A model's name is the one that it was imported under, or its policy's id."""
    query = (
        select(QuestionSample.question_id, Sample.text, Sample.policy_id, Policy.model)
        .join(Sample, Sample.id == QuestionSample.sample_id)
        .outerjoin(Policy, Policy.id == Sample.policy_id)
        .where(QuestionSample.question_id.in_(questions))
        .order_by(QuestionSample.question_id, QuestionSample.position)
    )
    found: dict[str, tuple[Response, ...]] = dict.fromkeys(questions, ())
    for question, text, policy, model in session.execute(query):
        found[question] += (Response(text, model if policy is not None and policy.startswith(IMPORT) else policy),)
    return found
