"""Records into the store: each becomes a prompt, samples, a question and a judgement, unless the store has them; an edit becomes one more sample, its words.

Which response is A is drawn from the content, the same whatever was answered. Names of models become policies `import:<name>`, names of workers become
pseudonyms, names of judge models stay. Everything happens in one transaction, a few thousand rows at a time.
"""

import gc
import hmac
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from truing.errors import BadRow, UserError
from truing.feedback.answers import gold_of
from truing.feedback.assignment import EDITS, edit_sample_id
from truing.feedback.formats.record import Numbered, Record, Response
from truing.store.bulk import Inserts
from truing.store.clock import now
from truing.store.conversations import Turn
from truing.store.database import hold
from truing.store.ids import canonical, content_id, content_id_of_json, seed_from, uuid7_of
from truing.store.judgements import batches, count_answers
from truing.store.project import Project
from truing.store.salt import project_salt
from truing.store.splits import held_out_share, split_of_turns
from truing.store.tables import Annotator, AnnotatorKind, Judgement, Kind, Policy, Prompt, Question, QuestionSample, Role, Sample, Split

CHUNK = 4000  # records
CHUNK_CHARACTERS = 8 << 20  # or this much text, whichever is less
REFUSED_KEPT = 1000  # of more, the number alone is kept
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # the file doesn't tell; the same file must give the same rows
LONGEST_NAME = 60  # sample.batch and policy.id hold 80 characters
IMPORT = "import:"
JUDGE = "judge:"
NAME_DIGITS = 16  # 64 bits: among a million workers two meet by chance once in thirty million projects
REMEMBERED = 20_000  # samples whose ids are kept at hand


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
    with _settled(), project.database.write() as session:
        hold(session, Annotator)  # before the judgements, as an app's new user does
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


@contextmanager
def _settled() -> Iterator[None]:
    """Let the garbage collector pass over what was there before: to walk all of a program's libraries again and again takes an eighth of an import."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _make_room(session: Session) -> None:
    """Let SQLite hold more of its indexes in memory than it does for short work: ids of content fall everywhere in them."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA cache_size = -122880")  # 120 MB


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """What follows from a prompt and its responses alone; votes on one question share it."""

    turns: list[Turn]
    told: tuple[Response, ...]  # as the record lists them
    prompt_id: str
    order: tuple[int, ...]  # which of them is A, which B, ...
    characters: int

    @property
    def responses(self) -> tuple[Response, ...]:
        """In the order A, B, ..."""
        return tuple(self.told[at] for at in self.order)


class _Line(NamedTuple):
    """A record, where in the file it stood and where in the store it belongs."""

    number: int
    record: Record
    place: _Place


def _chunks(records: Iterable[Numbered | BadRow], intake: "_Intake") -> Iterator[list[_Line]]:
    """The usable rows, some at a time; the others are handed to `intake.refuse`."""
    chunk: list[_Line] = []
    characters = 0
    place = _Place([], (), "", (), 0)
    for item in records:
        if isinstance(item, BadRow):
            intake.refuse(item)
            continue
        line, record = item
        if record.responses != place.told or record.turns != place.turns:  # votes on one question stand together
            place = _place(record, place)
        chunk.append(_Line(line, record, place))
        characters += place.characters
        if len(chunk) >= CHUNK or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _place(record: Record, last: _Place) -> _Place:
    prompt_id = last.prompt_id if record.turns == last.turns else content_id(record.turns)
    characters = sum(len(response.text) for response in record.responses) + sum(len(turn["content"]) for turn in record.turns)
    return _Place(record.turns, record.responses, prompt_id, drawn_order(prompt_id, record.responses), characters)


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


PROMPT = ("id", "turns", "text", "split", "source", "facts", "position", "created_at")
SAMPLE = ("id", "prompt_id", "policy_id", "author", "batch", "position", "text", "finished", "created_at")
QUESTION = ("id", "kind", "prompt_id", "gold", "overlap", "answers", "open", "position", "facts", "created_at")
QUESTION_SAMPLE = ("question_id", "position", "sample_id")
ANNOTATOR = ("id", "name", "kind", "role", "active", "facts", "created_at")
POLICY = ("id", "model", "created_at")
JUDGEMENT = (
    "id", "question_id", "annotator_id", "answer", "order_shown", "started_at", "submitted_at", "active_ms", "guideline_version", "idempotency_key", "extra",
)  # fmt: skip


class _Intake:
    """An import under way: what it knows of the store and what it has done."""

    def __init__(self, project: Project, session: Session, origin: Origin) -> None:
        self._project, self._session, self._origin, self._moment = project, session, origin, now()
        self._share = held_out_share(project)
        self._label = label_of(origin.label)
        self._batch = self._author = f"{IMPORT}{self._label}"
        self._batch_told = canonical(self._batch).decode("utf-8")  # as ids are made of it
        self._salt: bytes | None = None
        self._annotators: dict[tuple[str | None, bool, int], str] = {}
        self._policies: dict[str, str] = {}
        self._ids: dict[str, dict[tuple[str | None, str], str]] = {}  # prompt → (policy, text) → sample
        self._add_prompts, self._add_samples = Inserts(session, Prompt, PROMPT), Inserts(session, Sample, SAMPLE)
        self._add_questions, self._add_places = Inserts(session, Question, QUESTION), Inserts(session, QuestionSample, QUESTION_SAMPLE)
        self._add_annotators, self._add_policies = Inserts(session, Annotator, ANNOTATOR), Inserts(session, Policy, POLICY)
        self._add_judgements = Inserts(session, Judgement, JUDGEMENT)
        self._strengths: dict[int, Any] = {}  # of an answer that is nothing else → the answer, bound
        self._shown: dict[tuple[int, ...], Any] = {}  # an order → the same, bound
        self._extra = self._add_judgements.bound("extra", False)
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
        """Write what the store doesn't have of these rows.

        Raises:
            UserError: an id or key that is made from a row belongs to something else in the store.
        """
        try:
            self._take(lines)
        except IntegrityError as error:
            first, last = lines[0].number, lines[-1].number
            raise UserError(
                f"something in lines {first} to {last} of {self._origin.file} clashes with what the project has: {error.orig}",
                fix="import into a new project, or under another name with --name",
            ) from error

    def _take(self, lines: list[_Line]) -> None:
        places = list(dict.fromkeys(line.place for line in lines))
        fresh = self._take_prompts(places)
        samples, met = self._take_samples(places, fresh)
        questions = _asked(lines, samples)
        known = self._known(Question.id, {question for line, question in zip(lines, questions, strict=True) if line.place in met} if met else set())
        judgements, people = self._judgements(lines, questions, known)
        self._take_questions(lines, samples, questions, known, people)
        judgements.sort(key=itemgetter(1))  # as their index has them: neighbours lie in one page
        self._add_judgements.write(judgements, ready=("answer", "order_shown", "extra"))
        self._added += len(judgements)
        self._duplicates += len(lines) - len(judgements)
        if known:
            count_answers(self._session, known & {row[1] for row in judgements})

    def _take_prompts(self, places: list[_Place]) -> set[str]:
        """Ids of the prompts that the store didn't have."""
        known = self._known(Prompt.id, {place.prompt_id for place in places})
        fresh: set[str] = set()
        rows: list[tuple[Any, ...]] = []
        for place in places:
            if place.prompt_id in known or place.prompt_id in fresh:
                continue
            fresh.add(place.prompt_id)
            split = split_of_turns(place.turns, self._share)
            self._held_out += split == Split.HELD_OUT
            position = self._prompt_position + len(rows)
            rows.append((place.prompt_id, place.turns, place.turns[-1]["content"], str(split), self._label, {}, position, self._moment))
        self._prompt_position += len(rows)
        self._prompts += len(rows)
        self._add_prompts.write(rows)
        return fresh

    def _take_samples(self, places: list[_Place], fresh: set[str]) -> tuple[dict[_Place, list[str]], set[_Place]]:
        """Ids of the samples of each place, A first, and the places all of whose samples the store had before these rows.

        A text that the import gave to that prompt before, under the same policy, is the same sample.
        """
        self._recall({place.prompt_id for place in places}, fresh)
        rows: list[tuple[Any, ...]] = []
        found: dict[_Place, list[str]] = {}
        created: set[str] = set()
        for place in places:
            ids = self._ids[place.prompt_id]
            found[place] = mine = []
            for text, model in place.responses:
                policy = None if model is None else self._policy(model)
                sample = ids.get((policy, text))
                if sample is None:
                    position = len(ids)
                    sample = ids[policy, text] = content_id_of_json(f'["sample","{place.prompt_id}",{self._batch_told},{position}]')
                    created.add(sample)
                    author = self._author if policy is None else None
                    rows.append((sample, place.prompt_id, policy, author, self._batch, position, text, True, self._moment))
                mine.append(sample)
        self._samples += len(rows)
        self._add_samples.write(rows)
        return found, {place for place, ids in found.items() if created.isdisjoint(ids)}

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

    def _take_questions(self, lines: list[_Line], samples: dict[_Place, list[str]], questions: list[str], known: set[str], people: dict[str, set[str]]) -> None:
        rows: list[tuple[Any, ...]] = []
        places: list[tuple[str, int, str]] = []
        done = set(known)
        for line, question in zip(lines, questions, strict=True):
            if question in done:
                continue
            done.add(question)
            answers = len(people.get(question, ()))
            rows.append(
                (question, str(line.record.kind), line.place.prompt_id, self._gold(line), 1, answers, answers < 1, self._question_position + len(rows),
                 self._facts(line), self._moment)
            )  # fmt: skip
            places += [(question, place, sample) for place, sample in enumerate(samples[line.place])]
        self._question_position += len(rows)
        self._questions += len(rows)
        self._add_questions.write(sorted(rows, key=itemgetter(0)))
        self._add_places.write(sorted(places))

    def _facts(self, line: _Line) -> dict[str, Any]:
        facts = {"why": "imported", "file": self._label, "line": line.number}
        return facts if line.record.shown is not None else {**facts, "order_shown": "unknown"}

    def _gold(self, line: _Line) -> dict[str, Any] | None:
        """The known answer as a question holds it; a skip or an edit is none."""
        gold, kind = line.record.gold, line.record.kind
        return None if gold is None or "skip" in gold or kind == Kind.EDIT else gold_of(kind, in_order(gold, line.place.order))

    def _judgements(self, lines: list[_Line], questions: list[str], known: set[str]) -> tuple[list[tuple[Any, ...]], dict[str, set[str]]]:
        """The rows of judgements that the store doesn't have, and who answered each question with them; a skip is no answer.

        Only a question that the store has, one of the `known`, can have a judgement there.
        """
        rows: dict[str, tuple[Any, ...]] = {}
        skips: set[str] = set()
        edits: dict[str, tuple[_Line, str]] = {}  # the sample that an edit makes → its line and its annotator
        for line, question in zip(lines, questions, strict=True):
            key, row = self._judgement(line, question)
            if rows.setdefault(key, row) is row and "skip" in line.record.answer:
                skips.add(key)
            if "text" in line.record.answer:
                edits.setdefault(edit_sample_id(row[0]), (line, row[2]))
        self._keep_edits(edits)
        there = self._known(Judgement.idempotency_key, {key for key, row in rows.items() if row[1] in known}) if known else set()
        people: dict[str, set[str]] = {}
        for key, row in rows.items():
            if key not in there and key not in skips:
                people.setdefault(row[1], set()).add(row[2])
        return [row for key, row in rows.items() if key not in there], people

    def _keep_edits(self, edits: dict[str, tuple[_Line, str]]) -> None:
        """Add the versions that people wrote, as samples by them, unless the store has them: an edit in a file makes what one in the studio makes."""
        there = self._known(Sample.id, set(edits))
        rows = [
            (sample, line.place.prompt_id, None, annotator, f"{EDITS}{self._batch}", 0, line.record.answer["text"], True,
             line.record.submitted_at or self._moment)
            for sample, (line, annotator) in edits.items() if sample not in there
        ]  # fmt: skip
        self._samples += len(rows)
        self._add_samples.write(rows)

    def _judgement(self, line: _Line, question: str) -> tuple[str, tuple[Any, ...]]:
        """(idempotency key, row) of a line."""
        record, order = line.record, line.place.order
        annotator = self._annotator(record)
        told, answer = self._answer(in_order(record.answer, order))
        when = "" if record.submitted_at is None else f',"{record.submitted_at.isoformat()}"'
        key = content_id_of_json(f'["import","{question}","{annotator}",{told}{when}]')
        submitted = record.submitted_at or UNKNOWN_TIME
        shown = tuple(range(len(order))) if record.shown is None else tuple(map(order.index, record.shown))
        if shown not in self._shown:
            self._shown[shown] = self._add_judgements.bound("order_shown", list(shown))
        judgement_id = uuid7_of(submitted, int(question[:3], 16), int(key[:16], 16) >> 2)
        return key, (
            judgement_id, question, annotator, answer, self._shown[shown], record.started_at or submitted, submitted, record.active_ms or 0, 0, key,
            self._extra,
        )  # fmt: skip

    def _answer(self, answer: dict[str, Any]) -> tuple[str, Any]:
        """(as JSON in the key, bound) of an answer. Most say a strength and nothing else, and there are seven of those."""
        if answer.keys() != {"strength"}:
            return canonical(answer).decode("utf-8", "surrogatepass"), self._add_judgements.bound("answer", answer)
        strength = answer["strength"]
        if strength not in self._strengths:
            self._strengths[strength] = self._add_judgements.bound("answer", answer)
        return str(strength), self._strengths[strength]

    def _annotator(self, record: Record) -> str:
        """Id of whoever judged: a worker under a pseudonym, a judge model, or the one who stands for all the nameless of the file."""
        key = (record.annotator, record.judge, 0 if record.annotator is not None else record.vote)
        found = self._annotators.get(key)
        if found is None:
            found = self._annotators[key] = self._met(*key)
        return found

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
            self._add_annotators.write([(annotator_id, full, str(kind), str(Role.ANNOTATOR), True, facts, self._moment)])
            self._people += 1
        return annotator_id

    def _policy(self, model: str) -> str:
        """Id of the policy that stands for a model of this name."""
        if model not in self._policies:
            policy_id = f"{IMPORT}{label_of(model)}"
            if self._session.get(Policy, policy_id) is None:
                self._add_policies.write([(policy_id, model, self._moment)])
            self._policies[model] = policy_id
        return self._policies[model]

    def _known(self, column: InstrumentedAttribute[str], values: set[str]) -> set[str]:
        return {found for ids in batches(sorted(values)) for found in self._session.scalars(select(column).where(column.in_(ids)))}

    def _next(self, column: InstrumentedAttribute[int]) -> int:
        return int(self._session.scalar(select(func.coalesce(func.max(column), -1))) or 0) + 1


def _asked(lines: list[_Line], samples: dict[_Place, list[str]]) -> list[str]:
    """The id of each line's question."""
    found: list[str] = []
    place, kind, question = None, None, ""
    for line in lines:
        if line.place is not place or line.record.kind != kind:
            place, kind = line.place, line.record.kind
            told = '","'.join(samples[place])
            question = content_id_of_json(f'["question","{kind}",["{told}"]]')
        found.append(question)
    return found
