"""Lists of prompts, samples, questions and judgements: filtered, a page at a time, each page found by a key and never by counting rows."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, String, case, cast, func, select
from sqlalchemy.orm import Session, aliased

from truing.store.tables import Annotator, Guideline, Judgement, Policy, Prompt, Question, QuestionSample, QuestionSet, Sample

PAGE = 30
PEOPLE = "people"  # instead of a policy: samples that people wrote
SORTS = ("answered", "unanswered", "gold", "repeats")  # which questions of a set

T = TypeVar("T")


class Page(NamedTuple, Generic[T]):
    """One page of a list, and the key at which the next one begins; None on the last."""

    rows: list[T]
    next: str | None


def _page(rows: Sequence[T], key: Any, size: int) -> Page[T]:
    """The first `size` of rows that were asked for one too many."""
    shown = list(rows[:size])
    return Page(shown, str(key(shown[-1])) if len(rows) > size else None)


def _says(column: Any, words: str) -> ColumnElement[bool]:
    """Whether a text holds these words, whatever their case; % and _ mean themselves."""
    plain = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    found: ColumnElement[bool] = column.ilike(f"%{plain}%", escape="\\")
    return found


# ---- prompts ----


class PromptRow(NamedTuple):
    """A prompt as a list shows it."""

    id: str
    text: str
    turns: int
    split: str
    source: str
    topic: str
    position: int
    samples: int
    questions: int
    answers: int


def prompts_page(session: Session, *, words: str = "", split: str = "", source: str = "", after: str = "", size: int = PAGE) -> Page[PromptRow]:
    """Prompts in the order of their import.

    Args:
        words: in the last user turn.
        after: `next` of the page before.
    """
    query = select(Prompt).order_by(Prompt.position, Prompt.id)
    if words:
        query = query.where(_says(Prompt.text, words))
    if split:
        query = query.where(Prompt.split == split)
    if source:
        query = query.where(Prompt.source == source)
    place, _, last = after.partition(".")  # a log from elsewhere brings positions that are taken
    if place.isdecimal() and last:
        query = query.where((Prompt.position > int(place)) | ((Prompt.position == int(place)) & (Prompt.id > last)))
    found = session.scalars(query.limit(size + 1)).all()
    page = _page(found, lambda row: f"{row.position}.{row.id}", size)
    samples, asked = _of_prompts(session, [row.id for row in page.rows])
    return Page([_prompt_row(row, samples.get(row.id, 0), *asked.get(row.id, (0, 0))) for row in page.rows], page.next)


def _of_prompts(session: Session, ids: Sequence[str]) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    """Prompt → its samples; and its questions and their answers."""
    samples = session.execute(select(Sample.prompt_id, func.count()).where(Sample.prompt_id.in_(ids)).group_by(Sample.prompt_id))
    numbers = (Question.prompt_id, func.count(), func.sum(Question.answers))
    asked = session.execute(select(*numbers).where(Question.prompt_id.in_(ids)).group_by(Question.prompt_id))
    return dict(samples.all()), {prompt: (n, int(answers)) for prompt, n, answers in asked}


def _prompt_row(row: Prompt, samples: int, questions: int, answers: int) -> PromptRow:
    topic = row.facts.get("topic")
    named = topic if isinstance(topic, str) else ""
    return PromptRow(row.id, row.text, len(row.turns), row.split, row.source, named, row.position, samples, questions, answers)


def sources(session: Session, most: int = 50) -> list[str]:
    """The files that prompts came from, by name; the first fifty."""
    return list(session.scalars(select(Prompt.source).distinct().order_by(Prompt.source).limit(most)))


# ---- samples ----


class SampleRow(NamedTuple):
    """A sample as a list shows it."""

    id: str
    prompt_id: str
    prompt: str
    split: str
    text: str
    policy: str  # or who wrote it
    batch: str
    finished: bool
    created_at: datetime


def samples_page(
    session: Session, *, words: str = "", policy: str = "", split: str = "", batch: str = "", prompt_id: str = "", after: str = "", size: int = PAGE
) -> Page[SampleRow]:
    """Samples, those of one prompt beside each other.

    Args:
        words:  in the response.
        policy: its id, or "people".
        after:  `next` of the page before.
    """
    columns = (Sample.id, Sample.prompt_id, Prompt.text, Prompt.split, Sample.text, Sample.policy_id, Sample.author, Sample.batch, Sample.finished)
    query = select(*columns, Sample.created_at).join(Prompt, Prompt.id == Sample.prompt_id).order_by(Sample.prompt_id, Sample.id)
    if words:
        query = query.where(_says(Sample.text, words))
    if policy:
        query = query.where(Sample.policy_id.is_(None) if policy == PEOPLE else Sample.policy_id == policy)
    for column, wanted in ((Prompt.split, split), (Sample.batch, batch), (Sample.prompt_id, prompt_id)):
        query = query.where(column == wanted) if wanted else query
    prompt, _, sample = after.partition(".")
    if sample:
        query = query.where((Sample.prompt_id > prompt) | ((Sample.prompt_id == prompt) & (Sample.id > sample)), Sample.prompt_id >= prompt)
    found = [
        SampleRow(sample_id, asked, words_asked, of, text, policy_id or author or "somebody", name, finished, at)
        for sample_id, asked, words_asked, of, text, policy_id, author, name, finished, at in session.execute(query.limit(size + 1))
    ]
    return _page(found, lambda row: f"{row.prompt_id}.{row.id}", size)


class Batch(NamedTuple):
    """Samples that were drawn or imported together."""

    name: str
    policy: str  # or who wrote them
    samples: int
    created_at: datetime


def sample_batches(session: Session) -> list[Batch]:
    """The batches of samples, newest first; those made for check questions not among them."""
    found = []
    for batch, n in session.execute(select(Sample.batch, func.count()).where(~Sample.batch.startswith("check:")).group_by(Sample.batch)).all():
        one = session.execute(select(Sample.policy_id, Sample.author, Sample.created_at).where(Sample.batch == batch).limit(1)).one()
        found.append(Batch(batch, one.policy_id or one.author or "people", n, one.created_at))
    return sorted(found, key=lambda row: row.created_at, reverse=True)


def policies(session: Session) -> list[str]:
    """Ids of the policies, the newest last."""
    return list(session.scalars(select(Policy.id).order_by(Policy.created_at, Policy.id)))


# ---- judgements ----


class JudgementRow(NamedTuple):
    """A judgement as a list shows it."""

    id: str
    question_id: str
    annotator_id: str
    annotator: str
    kind: str
    prompt: str
    set_name: str | None
    answer: dict[str, Any]
    order_shown: list[int]
    submitted_at: datetime
    active_ms: int
    gold: dict[str, Any] | None
    superseded: bool
    extra: bool


class Wanted(NamedTuple):
    """Which judgements a list shows; empty: any."""

    words: str = ""  # in the prompt
    annotator: str = ""  # id
    set_id: str = ""
    kind: str = ""
    answer: str = ""  # tie, both_bad, skip, flag, comment or gold
    flag: str = ""
    since: datetime | None = None
    until: datetime | None = None


ANSWERS = ("tie", "both_bad", "skip", "flag", "comment", "gold")


def judgements_page(session: Session, wanted: Wanted, *, before: str = "", size: int = PAGE) -> Page[JudgementRow]:
    """Judgements, the newest first.

    Args:
        before: `next` of the page before.
    """
    ids = select(Judgement.id, Judgement.question_id).order_by(Judgement.id.desc()).where(*_wanted(wanted))
    if before:
        ids = ids.where(Judgement.id < before)
    page = _page(session.execute(ids.limit(size + 1)).all(), lambda row: row.id, size)
    return Page(_rows(session, [row.id for row in page.rows]), page.next)


def _wanted(wanted: Wanted) -> list[ColumnElement[bool]]:
    """The conditions; those on the question are looked up as lists of ids."""
    asked: list[ColumnElement[bool]] = []
    if wanted.words:
        asked.append(Question.prompt_id.in_(select(Prompt.id).where(_says(Prompt.text, wanted.words))))
    if wanted.set_id:
        asked.append(Question.set_id == wanted.set_id)
    if wanted.kind:
        asked.append(Question.kind == wanted.kind)
    if wanted.answer == "gold":
        asked.append(Question.gold.is_not(None))
    found: list[ColumnElement[bool]] = [Judgement.question_id.in_(select(Question.id).where(*asked))] if asked else []
    if wanted.annotator:
        found.append(Judgement.annotator_id == wanted.annotator)
    if wanted.since is not None:
        found.append(Judgement.submitted_at >= wanted.since)
    if wanted.until is not None:
        found.append(Judgement.submitted_at < wanted.until)
    if wanted.flag:
        found.append(_says(cast(Judgement.answer["flags"].as_string(), String), json.dumps(wanted.flag)))  # as the store writes it
    said = {
        "tie": Judgement.answer["strength"].as_string() == "0",
        "both_bad": Judgement.answer["both_bad"].as_string().is_not(None),
        "skip": Judgement.answer["skip"].as_string().is_not(None),
        "flag": Judgement.answer["flags"].as_string().is_not(None),
        "comment": Judgement.answer["comment"].as_string().is_not(None),
    }
    return [*found, *([said[wanted.answer]] if wanted.answer in said else [])]


def _rows(session: Session, ids: Sequence[str]) -> list[JudgementRow]:
    newer = aliased(Judgement)
    superseded = case((select(newer.id).where(newer.supersedes == Judgement.id).exists(), True), else_=False)
    query: Select[Any] = (
        select(Judgement, Annotator.name, Question.kind, Prompt.text, QuestionSet.name, Question.gold, superseded)
        .join(Annotator, Annotator.id == Judgement.annotator_id)
        .join(Question, Question.id == Judgement.question_id)
        .join(Prompt, Prompt.id == Question.prompt_id)
        .join(QuestionSet, QuestionSet.id == Question.set_id, isouter=True)
        .where(Judgement.id.in_(ids))
        .order_by(Judgement.id.desc())
    )
    return [
        JudgementRow(
            row.id, row.question_id, row.annotator_id, name, kind, prompt, set_name, row.answer, row.order_shown, row.submitted_at, row.active_ms, gold,
            bool(gone), row.extra,
        )
        for row, name, kind, prompt, set_name, gold, gone in session.execute(query)
    ]  # fmt: skip


def sets_by_name(session: Session) -> list[tuple[str, str]]:
    """(id, name) of every set, in the order in which they are asked."""
    return [(row.id, row.name) for row in session.execute(select(QuestionSet.id, QuestionSet.name).order_by(QuestionSet.position, QuestionSet.id))]


def flags(session: Session) -> list[str]:
    """Every flag that a set offers, by name."""
    return sorted({str(flag) for rules in session.scalars(select(QuestionSet.rules)) for flag in rules.get("flags", [])})


# ---- questions ----


class QuestionRow(NamedTuple):
    """A question as a list shows it."""

    id: str
    position: int
    prompt: str
    gold: dict[str, Any] | None
    repeat: bool
    answers: int
    overlap: int


def questions_page(session: Session, set_id: str, *, words: str = "", which: str = "", after: str = "", size: int = PAGE) -> Page[QuestionRow]:
    """The questions of a set in their order.

    Args:
        words: in the prompt.
        which: one of SORTS; empty: all.
        after: `next` of the page before.
    """
    columns = (Question.id, Question.position, Prompt.text, Question.gold, Question.repeat_of, Question.answers, Question.overlap)
    query = select(*columns).join(Prompt, Prompt.id == Question.prompt_id).where(Question.set_id == set_id).order_by(Question.position, Question.id)
    if words:
        query = query.where(_says(Prompt.text, words))
    kept = {
        "answered": Question.answers > 0,
        "unanswered": Question.answers == 0,
        "gold": Question.gold.is_not(None),
        "repeats": Question.repeat_of.is_not(None),
    }
    if which in kept:
        query = query.where(kept[which])
    place, _, last = after.partition(".")
    if place.isdecimal() and last:
        query = query.where((Question.position > int(place)) | ((Question.position == int(place)) & (Question.id > last)))
    found = [QuestionRow(row[0], row[1], row[2], row[3], row[4] is not None, row[5], row[6]) for row in session.execute(query.limit(size + 1))]
    return _page(found, lambda row: f"{row.position}.{row.id}", size)


class Whole(NamedTuple):
    """A question with all that belongs to it."""

    question: Question
    set: QuestionSet | None
    prompt: Prompt
    samples: list[Sample]  # by position
    judgements: list[JudgementRow]  # oldest first, superseded ones included


def whole_question(session: Session, question_id: str) -> Whole | None:
    """A question's whole history; None if there is no such question."""
    question = session.get(Question, question_id)
    if question is None:
        return None
    shown = select(Sample).join(QuestionSample, QuestionSample.sample_id == Sample.id).where(QuestionSample.question_id == question_id)
    samples = session.scalars(shown.order_by(QuestionSample.position)).all()
    ids = list(session.scalars(select(Judgement.id).where(Judgement.question_id == question_id)))
    history = sorted(_rows(session, ids), key=lambda row: (row.submitted_at, row.id))
    held = session.get(QuestionSet, question.set_id) if question.set_id else None
    return Whole(question, held, session.get_one(Prompt, question.prompt_id), list(samples), history)


class WholePrompt(NamedTuple):
    """A prompt with its samples and questions."""

    prompt: Prompt
    samples: list[Sample]
    questions: list[tuple[str, str, int]]  # id, kind, answers


def whole_prompt(session: Session, prompt_id: str, most: int = 100) -> WholePrompt | None:
    """A prompt, and the first hundred samples and questions of it; None if there is no such prompt."""
    prompt = session.get(Prompt, prompt_id)
    if prompt is None:
        return None
    samples = session.scalars(select(Sample).where(Sample.prompt_id == prompt_id).order_by(Sample.batch, Sample.position, Sample.id).limit(most)).all()
    asked = session.execute(select(Question.id, Question.kind, Question.answers).where(Question.prompt_id == prompt_id).order_by(Question.position).limit(most))
    return WholePrompt(prompt, list(samples), [(row.id, row.kind, row.answers) for row in asked])


class Version(NamedTuple):
    """A version of a set's guideline."""

    version: int
    text: str
    created_at: datetime


def guidelines(session: Session, set_id: str) -> list[Version]:
    """The versions of a set's guideline, the newest first."""
    rows = session.scalars(select(Guideline).where(Guideline.set_id == set_id).order_by(Guideline.version.desc()))
    return [Version(row.version, row.text, row.created_at) for row in rows]
