"""Records out of the store, in the order of the questions: a pure function of the log.

A superseded answer is left out and counted, and so is one to a question that was asked again, to see whether somebody agrees with themselves: it says nothing
new. Names go out as the store has them: of a worker, an annotator's id; of a judge model, its name.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.feedback.formats.record import MODERATE, Format, Record, Response
from truing.feedback.imports import IMPORT, UNKNOWN_TIME
from truing.store.judgements import batches
from truing.store.tables import Annotator, AnnotatorKind, Judgement, Kind, Policy, Prompt, Question, QuestionSample, Sample

CHUNK = 500  # questions
AGAIN = "asked again"
REMEMBERED = 50_000  # annotators who are kept at hand


class Stored(NamedTuple):
    """A record, and what it belongs to."""

    prompt: str
    question: str
    superseded: bool
    again: bool  # its question was asked again
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
    reason = "superseded" if stored.superseded else AGAIN if stored.again else form.why_not(stored.record)
    if reason is not None:
        dropped[reason] += 1
    return reason is None


def records(session: Session, *, by_prompt: bool = False) -> Iterator[Stored]:
    """Every judgement, in the order of the questions (or of the prompts), then of time."""
    order = [Prompt.position, Prompt.id] if by_prompt else []
    query = (
        select(Question.id, Question.kind, Question.gold, Question.facts, Question.repeat_of, Question.prompt_id, Prompt.turns)
        .join(Prompt, Prompt.id == Question.prompt_id)
        .order_by(*order, Question.position, Question.id)
    )
    people: dict[str, _Who] = {}
    with session.execute(query.execution_options(yield_per=CHUNK)) as result:
        for part in result.partitions():
            yield from _records_of(session, part, people)


class _Who(NamedTuple):
    """An annotator as they go out."""

    name: str | None
    judge: bool
    nameless: bool  # one who stands for all the nameless of a file


def _records_of(session: Session, questions: Sequence[Any], people: dict[str, _Who]) -> Iterator[Stored]:
    ids = [question.id for question in questions]
    responses = _responses(session, ids)
    judgements: dict[str, list[Any]] = {}
    query = select(
        Judgement.id, Judgement.question_id, Judgement.annotator_id, Judgement.supersedes, Judgement.answer, Judgement.order_shown, Judgement.started_at,
        Judgement.submitted_at, Judgement.active_ms,
    )  # fmt: skip
    rows = session.execute(query.where(Judgement.question_id.in_(ids)).order_by(Judgement.submitted_at, Judgement.id)).all()
    for row in rows:
        judgements.setdefault(row[1], []).append(row)
    _meet(session, people, {row[2] for row in rows})
    for question, kind, gold, facts, repeat_of, prompt, turns in questions:
        mine = judgements.get(question, [])
        superseded = {row[3] for row in mine}
        asked, right = Kind(kind), _gold(gold)
        ordered = facts.get("order_shown") != "unknown" and len(responses[question]) > 1
        nameless = 0
        for key, _, annotator, _, answer, shown, started, submitted, active_ms in mine:
            who = people[annotator]
            told = submitted != UNKNOWN_TIME
            record = Record(
                asked, turns, responses[question], answer, annotator=who.name, judge=who.judge, vote=nameless if who.nameless else 0,
                shown=tuple(shown) if ordered else None, started_at=started if told else None, submitted_at=submitted if told else None,
                active_ms=active_ms if told or active_ms else None, gold=right,
            )  # fmt: skip
            nameless += who.name is None
            yield Stored(prompt, question, key in superseded, repeat_of is not None, record)


def _meet(session: Session, people: dict[str, _Who], ids: set[str]) -> None:
    """Have these annotators among `people`."""
    if len(people) > REMEMBERED:
        people.clear()
    for some in batches(sorted(ids - people.keys())):
        for key, kind, name, facts in session.execute(select(Annotator.id, Annotator.kind, Annotator.name, Annotator.facts).where(Annotator.id.in_(some))):
            judge = kind == AnnotatorKind.MODEL
            nameless = bool(facts.get("imported")) and not facts.get("worker") and not judge
            people[key] = _Who(None if nameless else facts.get("judge", name) if judge else key, judge, nameless)


def _gold(gold: dict[str, Any] | None) -> dict[str, Any] | None:
    """The known answer, in the form of an answer."""
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
