"""Records into the store: each becomes a prompt, samples, a question and a judgement, unless the store has them.

Which response is A is drawn from the content, the same whatever was answered. Names of models become policies `import:<name>`, names of workers become
pseudonyms, names of judge models stay. Everything happens in one transaction, a few thousand rows at a time.
"""

import hmac
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import Table, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from truing.errors import BadRow, UserError
from truing.feedback.answers import gold_of
from truing.feedback.formats.record import Numbered, Record, Response
from truing.store.clock import now
from truing.store.conversations import Turn
from truing.store.database import hold
from truing.store.ids import content_id, seed_from, uuid7
from truing.store.judgements import batches, count_answers
from truing.store.project import Project
from truing.store.salt import project_salt
from truing.store.splits import held_out_share, split_of_turns
from truing.store.tables import Annotator, AnnotatorKind, Base, Judgement, Kind, Policy, Prompt, Question, QuestionSample, Role, Sample, Split

CHUNK = 4000  # records
CHUNK_CHARACTERS = 8 << 20  # or this much text, whichever is less
REFUSED_KEPT = 1000  # of more, the number alone is kept
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # the file doesn't tell; the same file must give the same rows
LONGEST_NAME = 60  # sample.batch and policy.id hold 80 characters
IMPORT = "import:"
JUDGE = "judge:"
NAME_DIGITS = 16  # 64 bits: among a million workers two meet by chance once in thirty million projects
REMEMBERED = 50_000  # samples whose ids are kept at hand


class JudgementReport(NamedTuple):
    """What an import did."""

    added: int  # judgements
    duplicates: int  # rows whose judgement an earlier row gave or the store has
    refused: list[BadRow]  # the first thousand rows that can't be used, each with its remedy
    prompts: int  # new ones
    samples: int  # new ones
    questions: int  # new ones
    held_out: int  # of the new prompts
    more_refused: int = 0  # rows refused beyond those in `refused`
    annotators: int = 0  # new ones
    format: str = ""  # the format it was read as


class Origin(NamedTuple):
    """Where records come from."""

    file: str  # the file's name, for messages
    label: str  # what the import is called
    format: str
    everywhere: bool  # a worker's name means the same person in every file of this format


def import_records(project: Project, records: Iterable[Numbered | BadRow], origin: Origin, *, strict: bool) -> JudgementReport:
    """Take in records in one transaction.

    Args:
        project: where to.
        records: and the rows that can't be used.
        origin: where they come from.
        strict: raise rather than leave out a row.

    Raises:
        UserError: there is no row, or none that can be used; or (strict) one that can't. Nothing is imported then.
    """
    with project.database.write() as session:
        hold(session, Judgement)
        _make_room(session)
        intake = _Intake(project, session, origin)
        for chunk in _chunks(records, intake):
            intake.take(chunk)
        report = intake.report()
        if report.refused and (strict or not report.added + report.duplicates):
            count = len(report.refused) + report.more_refused
            raise UserError(f"{count} rows can't be used, so nothing was imported. The first: {report.refused[0].what}", fix=report.refused[0].fix)
        if not report.added + report.duplicates:
            raise UserError(f"{origin.file} has no rows", fix="check that it is the file you meant")
    return report


def label_of(name: str) -> str:
    """A name short enough to be part of ids."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 17]}-{content_id(name, length=16)}"


def pseudonym(salt: bytes, scope: str, worker: str) -> str:
    """16 hex digits in place of a worker's id.

    Args:
        salt:   the project's.
        scope:  where the id is this person's: the same id elsewhere is somebody else.
        worker: as the file has it.
    """
    return hmac.digest(salt, f"{scope}\n{worker}".encode("utf-8", "surrogatepass"), "sha256").hex()[:NAME_DIGITS]


def _make_room(session: Session) -> None:
    """Let SQLite hold more of its indexes in memory than it does for short work: ids of content fall everywhere in them."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA cache_size = -98304")  # 96 MB


class _Line(NamedTuple):
    """A record with the ids of what it becomes. `responses` stand in the order A, B, ... and `order` says which they were in the record."""

    number: int
    record: Record
    prompt_id: str
    responses: tuple[Response, ...]
    order: tuple[int, ...]


def _chunks(records: Iterable[Numbered | BadRow], intake: "_Intake") -> Iterator[list[_Line]]:
    """The usable rows, some at a time; the others are handed to `intake.refuse`."""
    chunk: list[_Line] = []
    characters = 0
    place = _Place([], (), "", ())
    for item in records:
        if isinstance(item, BadRow):
            intake.refuse(item)
            continue
        line, record = item
        if record.responses != place.told or record.turns != place.turns:  # votes on one question stand together
            place = _place(record, place)
        chunk.append(_Line(line, record, place.prompt_id, tuple(record.responses[at] for at in place.order), place.order))
        characters += sum(len(response.text) for response in record.responses) + sum(len(turn["content"]) for turn in record.turns)
        if len(chunk) >= CHUNK or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


class _Place(NamedTuple):
    """What follows from a prompt and its responses alone."""

    turns: list[Turn]
    told: tuple[Response, ...]
    prompt_id: str
    order: tuple[int, ...]


def _place(record: Record, last: _Place) -> _Place:
    prompt_id = last.prompt_id if record.turns == last.turns else content_id(record.turns)
    return _Place(record.turns, record.responses, prompt_id, drawn_order(prompt_id, record.responses))


def drawn_order(prompt_id: str, responses: Sequence[Response]) -> tuple[int, ...]:
    """Which response is A, which B, ...: drawn from the content."""
    if len(responses) == 1:
        return (0,)
    low_first = sorted(range(len(responses)), key=lambda place: (responses[place].text, responses[place].model or ""))
    if len(responses) == 2:
        low, high = (responses[place].text for place in low_first)
        return (low_first[0], low_first[1]) if seed_from("order", prompt_id, low, high) % 2 else (low_first[1], low_first[0])
    return tuple(sorted(low_first, key=lambda place: content_id("order", prompt_id, list(responses[place]))))


def in_order(answer: dict[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """An answer about responses as an answer about the same ones in another order."""
    if "strength" in answer and order[0] == 1:
        return {**answer, "strength": -answer["strength"]}
    if "ranks" in answer:
        return {**answer, "ranks": [answer["ranks"][place] for place in order]}
    return answer


class _Intake:
    """An import under way: what it knows of the store and what it has done."""

    def __init__(self, project: Project, session: Session, origin: Origin) -> None:
        self._project, self._session, self._origin, self._moment = project, session, origin, now()
        self._share = held_out_share(project)
        self._label = label_of(origin.label)
        self._batch = self._author = f"{IMPORT}{self._label}"
        self._salt: bytes | None = None
        self._annotators: dict[tuple[str | None, bool, int], str] = {}
        self._policies: dict[str, str] = {}
        self._ids: dict[str, dict[tuple[str | None, str], str]] = {}  # prompt → (policy, text) → sample
        self._draw = Random()
        self._prompt_position = self._next(Prompt.position)
        self._question_position = self._next(Question.position)
        self._refused: list[BadRow] = []
        self._added = self._duplicates = self._prompts = self._samples = self._questions = self._held_out = self._more_refused = self._people = 0

    def refuse(self, row: BadRow) -> None:
        """Note a row that can't be used."""
        if len(self._refused) < REFUSED_KEPT:
            self._refused.append(row)
        else:
            self._more_refused += 1

    def report(self) -> JudgementReport:
        """What was done."""
        return JudgementReport(
            self._added, self._duplicates, self._refused, self._prompts, self._samples, self._questions, self._held_out, self._more_refused, self._people,
            self._origin.format,
        )  # fmt: skip

    def take(self, lines: list[_Line]) -> None:
        """Write what the store doesn't have of these rows."""
        fresh = self._take_prompts(lines)
        samples = self._take_samples(lines, fresh)
        asked = [(line.record.kind, tuple(ids)) for line, ids in zip(lines, samples, strict=True)]
        named = {question: content_id("question", str(question[0]), list(question[1])) for question in set(asked)}
        questions = [named[question] for question in asked]
        judgements = self._judgements(lines, questions)
        known = self._take_questions(lines, samples, questions, judgements)
        self._added += len(judgements)
        self._duplicates += len(lines) - len(judgements)
        self._add(Judgement, judgements)
        count_answers(self._session, known & {row["question_id"] for row in judgements})

    def _take_prompts(self, lines: list[_Line]) -> set[str]:
        """Ids of the prompts that the store didn't have."""
        known = self._known(Prompt.id, {line.prompt_id for line in lines})
        fresh: set[str] = set()
        rows: list[dict[str, Any]] = []
        for line in lines:
            if line.prompt_id in known or line.prompt_id in fresh:
                continue
            fresh.add(line.prompt_id)
            turns = line.record.turns
            rows.append(
                {"id": line.prompt_id, "turns": turns, "text": turns[-1]["content"], "split": str(split_of_turns(turns, self._share)), "source": self._label,
                 "facts": {}, "position": self._prompt_position + len(rows), "created_at": self._moment}
            )  # fmt: skip
        self._prompt_position += len(rows)
        self._prompts += len(rows)
        self._held_out += sum(row["split"] == Split.HELD_OUT for row in rows)
        self._add(Prompt, rows)
        return fresh

    def _take_samples(self, lines: list[_Line], fresh: set[str]) -> list[list[str]]:
        """Ids of each line's samples. A text that the import gave to that prompt before, under the same policy, is the same sample."""
        self._recall({line.prompt_id for line in lines}, fresh)
        rows: list[dict[str, Any]] = []
        found: list[list[str]] = []
        for line in lines:
            ids = self._ids[line.prompt_id]
            mine = []
            for text, model in line.responses:
                policy = None if model is None else self._policy(model)
                sample = ids.get((policy, text))
                if sample is None:
                    position = len(ids)
                    sample = ids[policy, text] = content_id("sample", line.prompt_id, self._batch, position)
                    rows.append(
                        {"id": sample, "prompt_id": line.prompt_id, "policy_id": policy, "author": self._author if policy is None else None,
                         "batch": self._batch, "position": position, "text": text, "finished": True, "created_at": self._moment}
                    )  # fmt: skip
                mine.append(sample)
            found.append(mine)
        self._samples += len(rows)
        self._add(Sample, rows)
        return found

    def _recall(self, prompts: set[str], fresh: set[str]) -> None:
        """Have the ids of these prompts' samples at hand."""
        if sum(map(len, self._ids.values())) > REMEMBERED:
            self._ids = {prompt: ids for prompt, ids in self._ids.items() if prompt in prompts}
        missing = prompts - self._ids.keys()
        for prompt in missing:
            self._ids[prompt] = {}
        query = select(Sample.prompt_id, Sample.policy_id, Sample.text, Sample.id).where(Sample.batch == self._batch)
        for ids in batches(sorted(missing - fresh)):
            for prompt, policy, text, sample in self._session.execute(query.where(Sample.prompt_id.in_(ids))):
                self._ids[prompt][policy, text] = sample

    def _take_questions(self, lines: list[_Line], samples: list[list[str]], ids: list[str], judgements: list[dict[str, Any]]) -> set[str]:
        """Ids of the questions that the store had already."""
        known = self._known(Question.id, set(ids))
        people: dict[str, set[str]] = {}
        for row in judgements:
            if "skip" not in row["answer"]:
                people.setdefault(row["question_id"], set()).add(row["annotator_id"])
        rows: list[dict[str, Any]] = []
        places: list[dict[str, Any]] = []
        done = set(known)
        for line, mine, question in zip(lines, samples, ids, strict=True):
            if question in done:
                continue
            done.add(question)
            answers = len(people.get(question, ()))
            rows.append(
                {"id": question, "kind": str(line.record.kind), "prompt_id": line.prompt_id, "gold": self._gold(line), "overlap": 1,
                 "position": self._question_position + len(rows), "answers": answers, "open": answers < 1, "facts": self._facts(line),
                 "created_at": self._moment}
            )  # fmt: skip
            places += [{"question_id": question, "position": place, "sample_id": sample} for place, sample in enumerate(mine)]
        self._question_position += len(rows)
        self._questions += len(rows)
        self._add(Question, rows)
        self._add(QuestionSample, places)
        return known

    def _facts(self, line: _Line) -> dict[str, Any]:
        facts = {"why": "imported", "file": self._label, "line": line.number}
        return facts if line.record.shown is not None else {**facts, "order_shown": "unknown"}

    def _gold(self, line: _Line) -> dict[str, Any] | None:
        """The known answer as a question holds it; a skip or an edit is none."""
        gold, kind = line.record.gold, line.record.kind
        return None if gold is None or "skip" in gold or kind == Kind.EDIT else gold_of(kind, in_order(gold, line.order))

    def _judgements(self, lines: list[_Line], questions: list[str]) -> list[dict[str, Any]]:
        """The rows of judgements that the store doesn't have."""
        rows: dict[str, dict[str, Any]] = {}
        for line, question in zip(lines, questions, strict=True):
            row = self._judgement(line, question)
            rows.setdefault(row["idempotency_key"], row)
        known = self._known(Judgement.idempotency_key, set(rows))
        return [row for key, row in rows.items() if key not in known]

    def _judgement(self, line: _Line, question: str) -> dict[str, Any]:
        record = line.record
        annotator = self._annotator(record)
        answer = in_order(record.answer, line.order)
        when = [] if record.submitted_at is None else [record.submitted_at.isoformat()]
        key = content_id("import", question, annotator, answer["strength"] if answer.keys() == {"strength"} else answer, *when)
        submitted = record.submitted_at or UNKNOWN_TIME
        self._draw.seed(seed_from(key))
        shown = range(len(line.order)) if record.shown is None else [line.order.index(place) for place in record.shown]
        return {
            "id": uuid7(submitted, self._draw.getrandbits), "question_id": question, "annotator_id": annotator, "answer": answer, "order_shown": list(shown),
            "started_at": record.started_at or submitted, "submitted_at": submitted, "active_ms": record.active_ms or 0, "guideline_version": 0,
            "idempotency_key": key,
        }  # fmt: skip

    def _annotator(self, record: Record) -> str:
        """Id of whoever judged: a worker under a pseudonym, a judge model, or the one who stands for all the nameless of the file."""
        key = (record.annotator, record.judge, 0 if record.annotator is not None else record.vote)
        if key not in self._annotators:
            self._annotators[key] = self._met(*key)
        return self._annotators[key]

    def _met(self, name: str | None, judge: bool, vote: int) -> str:
        facts: dict[str, Any] = {"imported": True}
        if name is None:
            full = f"{IMPORT}{self._label}" + (f"#{vote + 1}" if vote else "")
        elif judge:
            full, facts = f"{JUDGE}{name}", {**facts, "judge": name}
        else:
            self._salt = self._salt or project_salt(self._project.root)
            scope = self._origin.format if self._origin.everywhere else self._label
            full, facts = f"{IMPORT}{label_of(scope)}/{pseudonym(self._salt, scope, name)}", {**facts, "worker": True}
        annotator_id = content_id("annotator", full)
        if self._session.get(Annotator, annotator_id) is None:
            kind = AnnotatorKind.MODEL if judge and name is not None else AnnotatorKind.HUMAN
            row = {"id": annotator_id, "name": full, "kind": str(kind), "role": str(Role.ANNOTATOR), "active": True, "facts": facts}
            self._add(Annotator, [{**row, "created_at": self._moment}])
            self._people += 1
        return annotator_id

    def _policy(self, model: str) -> str:
        """Id of the policy that stands for a model of this name."""
        if model not in self._policies:
            policy_id = f"{IMPORT}{label_of(model)}"
            if self._session.get(Policy, policy_id) is None:
                self._add(Policy, [{"id": policy_id, "model": model, "artifact_id": None, "parent_id": None, "created_at": self._moment}])
            self._policies[model] = policy_id
        return self._policies[model]

    def _known(self, column: InstrumentedAttribute[str], values: set[str]) -> set[str]:
        return {found for ids in batches(sorted(values)) for found in self._session.scalars(select(column).where(column.in_(ids)))}

    def _next(self, column: InstrumentedAttribute[int]) -> int:
        return int(self._session.scalar(select(func.coalesce(func.max(column), -1))) or 0) + 1

    def _add(self, table: type[Base], rows: list[dict[str, Any]]) -> None:
        if rows:
            assert isinstance(table.__table__, Table)  # by way of the table, not the class: a third of the time
            self._session.execute(insert(table.__table__), rows)
