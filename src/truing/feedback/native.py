"""Truing's own log: one event a line, with every row that is needed to rebuild the judgements elsewhere.

The first line names the format; then come policies, rounds, prompts, samples, annotators, sets of questions with their guidelines, questions (with the
ids of their samples, A first) and judgements, each after all that it refers to. A line holds the columns of its table: times in ISO 8601 UTC, bytes in
base64. A log imported into an empty project and exported again has the same bytes.

Not in it: assignments and drafts, sessions, roles and passwords (an imported annotator's role is `annotator`), invitations, tokens, runs, datasets,
artifacts, what a round made, which artifact a policy is. How many have answered a question is counted afresh.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, LargeBinary, Select, insert, literal, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from truing.errors import BadRow, UserError
from truing.feedback.answers import check_answer
from truing.feedback.columns import decode, encode
from truing.feedback.imports import JudgementReport
from truing.store.conversations import checked_prompt
from truing.store.database import hold
from truing.store.ids import content_id
from truing.store.judgements import count_answers
from truing.store.project import Project
from truing.store.rows import Row, bad_row, chunks, json_rows
from truing.store.tables import (
    Annotator,
    AnnotatorKind,
    Base,
    Guideline,
    Judgement,
    Kind,
    Policy,
    Prompt,
    Question,
    QuestionSample,
    QuestionSet,
    Role,
    Round,
    Sample,
    SetState,
    Split,
    Utc,
)  # fmt: skip

NATIVE = "native"
HEADER = {"event": "log", "format": "truing-native", "version": 2}
CHUNK = 500
# What may differ between a line and the row of that id which the store has: bookkeeping, not content.
BOOKKEEPING = {"position", "created_at", "source", "split", "facts", "overlap", "active", "base_logprob", "round", "sealed_at", "name", "state", "rules"}


class Event(NamedTuple):
    """How the rows of one table stand in the file."""

    table: type[Base]
    dropped: dict[str, Any]  # column → what it gets on import
    refers: dict[str, type[Base]]  # column → the table its value is an id of
    more: dict[str, type]  # keys beside the columns
    check: Callable[[dict[str, Any]], None]


def _check_prompt(row: dict[str, Any]) -> None:
    if row["turns"] != checked_prompt(row["turns"]) or row["id"] != content_id(row["turns"]) or row["text"] != row["turns"][-1]["content"]:
        raise UserError("the prompt's id or text doesn't fit its turns", fix="the line was changed after the export: export again")
    _one_of(row, "split", Split)


def _check_question(row: dict[str, Any]) -> None:
    _one_of(row, "kind", Kind)
    if not row["samples"] or not all(isinstance(sample, str) for sample in row["samples"]):
        raise UserError("a question has no samples", fix="export again")


def _check_annotator(row: dict[str, Any]) -> None:
    _one_of(row, "kind", AnnotatorKind)


def _check_set(row: dict[str, Any]) -> None:
    _one_of(row, "kind", Kind)
    _one_of(row, "state", SetState)


def _one_of(row: dict[str, Any], column: str, words: type[Split] | type[Kind] | type[AnnotatorKind] | type[SetState]) -> None:
    if row[column] not in list(words):
        raise UserError(f"{column} is {row[column]!r}", fix=f"use one of {', '.join(words)}")


def _nothing_more(row: dict[str, Any]) -> None:
    """The types of the columns say it all."""


EVENTS: dict[str, Event] = {
    "policy": Event(Policy, {"artifact_id": None}, {"parent_id": Policy}, {}, _nothing_more),
    "round": Event(Round, {"id": None, "parent_id": None, "made": {}}, {}, {"parent": int}, _nothing_more),
    "prompt": Event(Prompt, {}, {}, {}, _check_prompt),
    "sample": Event(Sample, {}, {"prompt_id": Prompt, "policy_id": Policy}, {}, _nothing_more),
    "annotator": Event(Annotator, {"password_hash": None, "role": str(Role.ANNOTATOR)}, {}, {}, _check_annotator),
    "set": Event(QuestionSet, {"round_id": None}, {}, {"round": int}, _check_set),
    "guideline": Event(Guideline, {}, {"set_id": QuestionSet}, {}, _nothing_more),
    "question": Event(
        Question, {"round_id": None, "answers": 0, "open": True},
        {"prompt_id": Prompt, "set_id": QuestionSet, "repeat_of": Question, "only_for": Annotator}, {"round": int, "samples": list}, _check_question,
    ),
    "judgement": Event(Judgement, {}, {"question_id": Question, "annotator_id": Annotator, "supersedes": Judgement}, {}, _nothing_more),
}  # fmt: skip
ROUNDS = {Round: "parent_id", Question: "round_id", QuestionSet: "round_id"}  # table → its column that is a round's id; a line has its number


def export_log(session: Session) -> Generator[tuple[bool, Mapping[str, Any]]]:
    """(is a judgement, line) for every line of the log, in an order that the content alone decides."""
    yield False, HEADER
    numbers = dict(session.execute(select(Round.id, Round.number)).all())
    for name, event in EVENTS.items():
        columns = _columns(event)
        names = [column.name for column in columns]
        coded = [column.name for column in columns if isinstance(column.type, Utc | LargeBinary)]
        for part in _partitions(session, _ordered(session, event)):
            lines: list[dict[str, Any]] = [dict(zip(names, row, strict=False)) for row in part]
            for line in lines:
                line["event"] = name
                for key in coded:
                    line[key] = encode(line[key])
            if event.table in ROUNDS:
                key = "parent" if event.table is Round else "round"
                for line, row in zip(lines, part, strict=True):
                    line[key] = numbers.get(getattr(row, ROUNDS[event.table]))
            if event.table is Question:
                samples = _samples_of(session, [line["id"] for line in lines])
                for line in lines:
                    line["samples"] = samples[line["id"]]
            for line in lines:
                yield event.table is Judgement, line


def import_log(project: Project, file: Path) -> JudgementReport:
    """Take in a log, all of it or nothing, in one transaction. What the store has already is counted as a duplicate.

    Raises:
        BadRow: a line isn't what a log holds, refers to something unknown, or differs from what the store has under the same id.
        UserError: the file can't be read.
    """
    added = dict.fromkeys(EVENTS, 0)
    duplicates = held_out = 0
    with project.database.write() as session:
        for table in (Annotator, QuestionSet, Judgement):  # in the order in which an answer from an app takes them
            hold(session, table)
        for name, group in itertools.groupby(read_log(file), key=lambda line: str(line.value["event"])):
            for chunk in chunks(group, 1 if name == "round" else CHUNK):  # a round may be the parent of the next
                fresh = _Chunk(session, file, EVENTS[name], chunk).write()
                added[name] += len(fresh)
                duplicates += (len(chunk) - len(fresh)) * (name == "judgement")
                held_out += sum(row.get("split") == Split.HELD_OUT for row in fresh)
                count_answers(session, {row["question_id"] for row in fresh if name == "judgement"})
    return JudgementReport(
        added["judgement"], duplicates, [], added["prompt"], added["sample"], added["question"], held_out, 0, added["annotator"], NATIVE,
    )  # fmt: skip


KEYS: dict[type[Base], tuple[str, ...]] = {Round: ("number",), Guideline: ("set_id", "version")}  # the others' is `id`


class _Chunk:
    """Some lines of one event, on their way into the store."""

    def __init__(self, session: Session, file: Path, event: Event, lines: list[Row]) -> None:
        self._session, self._file, self._event, self._lines = session, file, event, lines
        self._columns = event.table.__table__.c
        self._key = KEYS.get(event.table, ("id",))

    def write(self) -> list[dict[str, Any]]:
        """Insert the rows that the store doesn't have, and return them."""
        fresh = self._fresh()
        for column, table in self._event.refers.items():
            self._require_known(fresh, column, table)
        rows = [self._stored(row) for row in fresh]
        places = self._places(fresh) if self._event.table is Question else []
        if self._event.table is Judgement:
            self._require_sense(fresh)
        try:
            for table, values in ((self._event.table, rows), (QuestionSample, places)):
                if values:
                    self._session.execute(insert(table), values)
        except IntegrityError as error:
            raise self._bad(self._lines[0].line, f"a row from here on clashes with what the project has: {error.orig}", "import into a new project") from error
        return [row.value for row in fresh]

    def _fresh(self) -> list[Row]:
        """The lines whose id is new; one whose id is known must say the same as before."""
        key = self._columns[self._key[0]]
        wanted = {row.value[self._key[0]] for row in self._lines}
        query = select(self._event.table.__table__).where(key.in_(wanted))
        known = {self._name(found): dict(found) for found in self._session.execute(query).mappings()}
        fresh = []
        for row in self._lines:
            before = known.setdefault(self._name(row.value), row.value)
            if before is row.value:
                fresh.append(row)
                continue
            for column in _columns(self._event):
                if column.name not in BOOKKEEPING and before[column.name] != row.value[column.name]:
                    what = f"the project has this {row.value['event']} ({self._name(row.value)[0]}) with another {column.name}"
                    raise self._bad(row.line, what, "import into a new project")
        return fresh

    def _name(self, row: Mapping[Any, Any]) -> tuple[Any, ...]:
        """What no two rows of the table share."""
        return tuple(row[column] for column in self._key)

    def _require_known(self, fresh: list[Row], column: str, table: type[Base]) -> None:
        named = {row.value[column] for row in fresh} - {None}
        ids = table.__table__.c.id
        known = set(self._session.scalars(select(ids).where(ids.in_(named))))
        for row in fresh:
            value = row.value[column]
            if value is not None and value not in known:
                raise self._bad(row.line, f"{column} is {value}, which is neither above in the file nor in the project", "export again")
            if table is self._event.table:
                known.add(row.value["id"])

    def _require_sense(self, fresh: list[Row]) -> None:
        """Check that each judgement answers its question and supersedes none but its annotator's own on that question."""
        questions = {row.value["question_id"] for row in fresh}
        kinds = dict(self._session.execute(select(Question.id, Question.kind).where(Question.id.in_(questions))).all())
        samples = _samples_of(self._session, sorted(questions))
        earlier = {row.value["supersedes"] for row in fresh} - {None}
        query = select(Judgement.id, Judgement.question_id, Judgement.annotator_id).where(Judgement.id.in_(earlier))
        answered = {key: (question, annotator) for key, question, annotator in self._session.execute(query)}
        for row in fresh:
            question, before = row.value["question_id"], row.value["supersedes"]
            answered[row.value["id"]] = (question, row.value["annotator_id"])
            if before is not None and answered[before] != answered[row.value["id"]]:
                raise self._bad(row.line, "it supersedes another annotator's judgement, or one on another question", "export again")
            if sorted(row.value["order_shown"]) != list(range(len(samples[question]))):
                raise self._bad(row.line, "order_shown is no order of the question's samples", "export again")
            try:
                check_answer(kinds[question], row.value["answer"], len(samples[question]))
            except UserError as error:
                raise bad_row(self._file.name, row.line, error) from None

    def _places(self, fresh: list[Row]) -> list[dict[str, Any]]:
        """Rows of question_sample."""
        named = {sample for row in fresh for sample in row.value["samples"]}
        prompts = dict(self._session.execute(select(Sample.id, Sample.prompt_id).where(Sample.id.in_(named))).all())
        for row in fresh:
            if any(prompts.get(sample) != row.value["prompt_id"] for sample in row.value["samples"]):
                raise self._bad(row.line, "a sample of the question is unknown, or of another prompt", "export again")
        return [
            {"question_id": row.value["id"], "position": place, "sample_id": sample}
            for row in fresh
            for place, sample in enumerate(row.value["samples"])
        ]  # fmt: skip

    def _stored(self, row: Row) -> dict[str, Any]:
        """The columns of a line, with those that the file doesn't hold."""
        values = {column.name: row.value[column.name] for column in _columns(self._event)} | self._event.dropped
        if self._event.table is Round:
            del values["id"]
        if self._event.table in ROUNDS:
            values[ROUNDS[self._event.table]] = self._round_id(row, "parent" if self._event.table is Round else "round")
        return values

    def _round_id(self, row: Row, field: str) -> int | None:
        if row.value[field] is None:
            return None
        found = self._session.scalar(select(Round.id).where(Round.number == row.value[field]))
        if found is None:
            raise self._bad(row.line, f"{field} is {row.value[field]}, a round that is neither above in the file nor in the project", "export again")
        return found

    def _bad(self, line: int, what: str, fix: str) -> BadRow:
        return BadRow(self._file.name, line, what, fix=fix)


def _partitions(session: Session, query: Select[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a query, some at a time; the cursor is closed whatever becomes of the reader."""
    with session.execute(query.execution_options(yield_per=CHUNK)) as result:
        yield from result.partitions()


def _columns(event: Event) -> list[Column[Any]]:
    """The columns that stand in the file."""
    return [column for column in event.table.__table__.columns if isinstance(column, Column) and column.name not in event.dropped]


def _ordered(session: Session, event: Event) -> Select[Any]:
    """All rows of an event's table, each after what it refers to, in an order that doesn't depend on the database."""
    query, columns = select(*_columns(event)), event.table.__table__.c
    if event.table in ROUNDS:
        query = query.add_columns(columns[ROUNDS[event.table]])
    if event.table in PARENTS and _has_children(session, columns[PARENTS[event.table]]):
        query = _by_depth(query, columns.id, columns[PARENTS[event.table]])
    return query.order_by(*(columns[name] for name in ORDER.get(event.table, ("id",))))


PARENTS: dict[type[Base], str] = {Policy: "parent_id", Question: "repeat_of", Judgement: "supersedes"}
ORDER: dict[type[Base], tuple[str, ...]] = {
    Round: ("number",), Prompt: ("position", "id"), QuestionSet: ("position", "id"), Guideline: ("set_id", "version"), Question: ("position", "id"),
    Judgement: ("submitted_at", "id"),
}  # fmt: skip


def _has_children(session: Session, parent: ColumnElement[Any]) -> bool:
    """Whether any row has a parent; in most logs none has, and to walk the tree of a million single rows takes seconds."""
    return session.scalar(select(parent).where(parent.is_not(None)).limit(1)) is not None


def _by_depth(query: Select[Any], key: ColumnElement[Any], parent: ColumnElement[Any]) -> Select[Any]:
    """`query` with a row's parent before the row."""
    tree = select(key.label("id"), literal(0).label("depth")).where(parent.is_(None)).cte("tree", recursive=True)
    tree = tree.union_all(select(key, tree.c.depth + 1).where(parent == tree.c.id))
    return query.join(tree, tree.c.id == key).order_by(tree.c.depth)


def _samples_of(session: Session, questions: list[str]) -> dict[str, list[str]]:
    """Ids of each question's samples, A first."""
    found: dict[str, list[str]] = {question: [] for question in questions}
    query = select(QuestionSample.question_id, QuestionSample.sample_id).where(QuestionSample.question_id.in_(questions))
    for question, sample in session.execute(query.order_by(QuestionSample.question_id, QuestionSample.position)):
        found[question].append(sample)
    return found


def read_log(file: Path) -> Iterator[Row]:
    """The events of a log, with checked values.

    Raises:
        BadRow: the first line that isn't one.
    """
    rows = json_rows(file)
    first = next(rows, None)
    if not isinstance(first, Row) or first.value != HEADER:
        raise BadRow(file.name, 1, "is not the first line of a log of this version of Truing", fix="name the file's format, or export the log again")
    for row in rows:
        if isinstance(row, BadRow):
            raise row
        try:
            yield Row(row.line, _checked(row.value))
        except UserError as error:
            raise bad_row(file.name, row.line, error) from None


def _checked(value: Any) -> dict[str, Any]:
    """The values of a line as its table holds them."""
    event = EVENTS.get(str(value.get("event"))) if isinstance(value, dict) else None
    if event is None:
        raise UserError("is not an event of a log", fix=f"`event` is one of {', '.join(EVENTS)}")
    columns = _columns(event)
    expected = {column.name for column in columns} | event.more.keys() | {"event"}
    if value.keys() != expected:
        raise UserError(f"has other keys than a {value['event']} has: {', '.join(sorted(value.keys() ^ expected))[:200]}", fix="export again")
    row = {"event": value["event"]} | {column.name: decode(column, value[column.name]) for column in columns}
    for name, kind in event.more.items():
        row[name] = value[name]
        if not (isinstance(row[name], kind) or (kind is int and row[name] is None)):
            raise UserError(f"{name} is of the wrong type", fix="export again")
    event.check(row)
    return row
