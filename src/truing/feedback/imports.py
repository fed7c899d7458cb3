"""Preference pairs into the store: each becomes a prompt, two samples, a question and a judgement, unless the store has them."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from truing.errors import BadRow, UserError
from truing.feedback.formats import Pair
from truing.store.clock import now
from truing.store.database import hold
from truing.store.ids import content_id, seed_from, uuid7
from truing.store.project import Project
from truing.store.rows import bad_row, chunks, json_rows
from truing.store.splits import held_out_share, split_of_turns
from truing.store.tables import Annotator, AnnotatorKind, Base, Judgement, Kind, Prompt, Question, QuestionSample, Sample, Split

CHUNK = 500
REFUSED_KEPT = 1000  # of more, the number alone is kept
CHOSEN_STRENGTH = 2  # of 3: these formats say which was better, not by how much
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)  # the files don't tell; the same file must give the same rows
LONGEST_NAME = 60  # sample.batch holds 80 characters


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


class _Line(NamedTuple):
    """A row of the file with the ids of what it becomes. `texts` are the responses in the order A, B."""

    number: int
    pair: Pair
    prompt_id: str
    texts: tuple[str, str]


def import_pairs(project: Project, file: Path, read: Callable[[Any], Pair], *, name: str, strict: bool) -> JudgementReport:
    """Take in a file of pairs in one transaction.

    Args:
        project: where to.
        file: JSON Lines; packed if its name ends in .gz.
        read: makes a pair of a row; raises UserError for a row that can't be used.
        name: what the import is called.
        strict: raise rather than leave out a row.

    Raises:
        UserError: the file can't be read, has no row, or none that can be used; or (strict) one that can't. Nothing is imported then.
    """
    share = held_out_share(project)
    with project.database.write() as session:
        hold(session, Judgement)
        intake = _Intake(session, name, share)
        for chunk in chunks(_lines(file, read, intake), CHUNK):
            intake.take(chunk)
        report = intake.report()
        if report.refused and (strict or not report.added + report.duplicates):
            count = len(report.refused) + report.more_refused
            raise UserError(f"{count} rows can't be used, so nothing was imported. The first: {report.refused[0].what}", fix=report.refused[0].fix)
        if not report.added + report.duplicates:
            raise UserError(f"{file.name} has no rows", fix="check that it is the file you meant")
    return report


def _lines(file: Path, read: Callable[[Any], Pair], intake: "_Intake") -> Iterator[_Line]:
    """The usable rows; the others are handed to `intake.refuse`."""
    for row in json_rows(file):
        if isinstance(row, BadRow):
            intake.refuse(row)
            continue
        try:
            pair = read(row.value)
            if pair.chosen == pair.rejected:
                raise UserError("the two responses are the same text", fix="leave the row out: it prefers nothing")
        except UserError as error:
            intake.refuse(bad_row(file.name, row.line, error))
        else:
            prompt_id = content_id(pair.turns)
            yield _Line(row.line, pair, prompt_id, _drawn_order(prompt_id, pair))


def _drawn_order(prompt_id: str, pair: Pair) -> tuple[str, str]:
    """The responses as A and B: drawn from the content, the same whichever of them was chosen."""
    low, high = sorted((pair.chosen, pair.rejected))
    return (low, high) if seed_from("order", prompt_id, low, high) % 2 else (high, low)


class _Intake:
    """An import under way: what it knows of the store and what it has done."""

    def __init__(self, session: Session, name: str, share: float) -> None:
        self._session, self._share, self._moment = session, share, now()
        self._label = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 17]}-{content_id(name, length=16)}"
        self._batch = self._author = f"import:{self._label}"
        self._annotator = self._imported_annotator()
        self._prompt_position = self._next(Prompt.position)
        self._question_position = self._next(Question.position)
        self._refused: list[BadRow] = []
        self._added = self._duplicates = self._prompts = self._samples = self._questions = self._held_out = self._more_refused = 0

    def refuse(self, row: BadRow) -> None:
        """Note a row that can't be used."""
        if len(self._refused) < REFUSED_KEPT:
            self._refused.append(row)
        else:
            self._more_refused += 1

    def report(self) -> JudgementReport:
        """What was done."""
        return JudgementReport(self._added, self._duplicates, self._refused, self._prompts, self._samples, self._questions, self._held_out, self._more_refused)

    def take(self, lines: list[_Line]) -> None:
        """Write what the store doesn't have of these rows."""
        self._take_prompts(lines)
        samples = self._take_samples(lines)
        pairs = [(samples[line.prompt_id, line.texts[0]], samples[line.prompt_id, line.texts[1]]) for line in lines]
        questions = [content_id("question", str(Kind.PAIR), list(pair)) for pair in pairs]
        self._take_questions(lines, pairs, questions)
        self._take_judgements(lines, questions)

    def _take_prompts(self, lines: list[_Line]) -> None:
        known = self._known(Prompt.id, {line.prompt_id for line in lines})
        rows: list[dict[str, Any]] = []
        for line in lines:
            if line.prompt_id in known:
                continue
            known.add(line.prompt_id)
            turns = line.pair.turns
            rows.append(
                {"id": line.prompt_id, "turns": turns, "text": turns[-1]["content"], "split": str(split_of_turns(turns, self._share)), "source": self._label,
                 "facts": {}, "position": self._prompt_position + len(rows), "created_at": self._moment}
            )  # fmt: skip
        self._prompt_position += len(rows)
        self._prompts += len(rows)
        self._held_out += sum(row["split"] == Split.HELD_OUT for row in rows)
        self._add(Prompt, rows)

    def _take_samples(self, lines: list[_Line]) -> dict[tuple[str, str], str]:
        """Id of each (prompt, text). A text that the import gave to that prompt before is the same sample."""
        query = select(Sample.prompt_id, Sample.text, Sample.id).where(Sample.batch == self._batch, Sample.prompt_id.in_({line.prompt_id for line in lines}))
        ids = {(prompt_id, text): sample_id for prompt_id, text, sample_id in self._session.execute(query)}
        positions: dict[str, int] = {}
        for prompt_id, _ in ids:
            positions[prompt_id] = positions.get(prompt_id, 0) + 1
        rows: list[dict[str, Any]] = []
        for line in lines:
            for text in line.texts:
                key = (line.prompt_id, text)
                if key in ids:
                    continue
                position = positions.get(line.prompt_id, 0)
                positions[line.prompt_id] = position + 1
                ids[key] = content_id("sample", line.prompt_id, self._batch, position)
                rows.append(
                    {"id": ids[key], "prompt_id": line.prompt_id, "author": self._author, "batch": self._batch, "position": position, "text": text,
                     "finished": True, "created_at": self._moment}
                )  # fmt: skip
        self._samples += len(rows)
        self._add(Sample, rows)
        return ids

    def _take_questions(self, lines: list[_Line], pairs: list[tuple[str, str]], ids: list[str]) -> None:
        known = self._known(Question.id, set(ids))
        rows: list[dict[str, Any]] = []
        places: list[dict[str, Any]] = []
        for line, pair, question_id in zip(lines, pairs, ids, strict=True):
            if question_id in known:
                continue
            known.add(question_id)
            rows.append(
                {"id": question_id, "kind": str(Kind.PAIR), "prompt_id": line.prompt_id, "overlap": 1, "position": self._question_position + len(rows),
                 "facts": {"why": "imported", "file": self._label, "line": line.number, "order_shown": "unknown"}, "created_at": self._moment}
            )  # fmt: skip
            places += [{"question_id": question_id, "position": place, "sample_id": sample_id} for place, sample_id in enumerate(pair)]
        self._question_position += len(rows)
        self._questions += len(rows)
        self._add(Question, rows)
        self._add(QuestionSample, places)

    def _take_judgements(self, lines: list[_Line], questions: list[str]) -> None:
        strengths = [CHOSEN_STRENGTH if line.pair.chosen == line.texts[0] else -CHOSEN_STRENGTH for line in lines]
        keys = [content_id("import", question, self._annotator, strength) for question, strength in zip(questions, strengths, strict=True)]
        known = self._known(Judgement.idempotency_key, set(keys))
        rows: list[dict[str, Any]] = []
        for question, strength, key in zip(questions, strengths, keys, strict=True):
            if key in known:
                self._duplicates += 1
                continue
            known.add(key)
            rows.append(
                {"id": uuid7(UNKNOWN_TIME, Random(seed_from(key)).getrandbits), "question_id": question, "annotator_id": self._annotator,
                 "answer": {"strength": strength}, "order_shown": [0, 1], "started_at": UNKNOWN_TIME, "submitted_at": UNKNOWN_TIME, "active_ms": 0,
                 "guideline_version": 0, "idempotency_key": key}
            )  # fmt: skip
        self._added += len(rows)
        self._add(Judgement, rows)

    def _imported_annotator(self) -> str:
        """The one who stands for all the people who judged in the file."""
        name = f"import:{self._label}"
        annotator_id = content_id("annotator", name)
        if self._session.get(Annotator, annotator_id) is None:
            row = {"id": annotator_id, "name": name, "kind": str(AnnotatorKind.HUMAN), "role": "annotator", "active": True, "facts": {"imported": True}}
            self._add(Annotator, [{**row, "created_at": self._moment}])
        return annotator_id

    def _known(self, column: InstrumentedAttribute[str], values: set[str]) -> set[str]:
        return set(self._session.scalars(select(column).where(column.in_(values))))

    def _next(self, column: InstrumentedAttribute[int]) -> int:
        return int(self._session.scalar(select(func.coalesce(func.max(column), -1))) or 0) + 1

    def _add(self, table: type[Base], rows: list[dict[str, Any]]) -> None:
        if rows:
            self._session.execute(insert(table), rows)
