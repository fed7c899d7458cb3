"""Judgements in from files and out to files. All formats are JSON Lines, packed where the name ends in .gz.

| format    | what it drops on export                                                                                       |
|-----------|---------------------------------------------------------------------------------------------------------------|
| `native`  | assignments, sessions, roles and passwords, runs, datasets, artifacts; what a round made; a policy's artifact |
| `trl`     | strength; ties, "both bad" and skips; flags and comments; who, when, how long, in which order shown;          |
|           | superseded answers; check questions; every kind but `pair`; ids, splits and facts                             |
| `hh-rlhf` | all that `trl` drops; prompts with a system turn; texts with a paragraph that begins `Human:` or `Assistant:` |

The report of an export counts the judgements that were dropped, by reason.

On import, hh-rlhf and trl keep the conversation, the two responses and which was chosen (as strength 2 of 3); their other columns are
dropped. They don't tell who judged or in which order the responses stood: all judgements of a file get one annotator, and which
response is A is drawn from the content.
"""

import gzip
import json
import os
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, func, select
from sqlalchemy.orm import Session, aliased

from truing.errors import UserError
from truing.feedback.formats import PAIR_FORMATS, Format, Pair
from truing.feedback.imports import JudgementReport, import_pairs
from truing.feedback.native import export_log, import_log
from truing.store.project import Project
from truing.store.rows import require_clean
from truing.store.tables import Judgement, Kind, Prompt, Question, QuestionSample, Sample

__all__ = ["FORMATS", "ExportReport", "JudgementReport", "export_judgements", "import_judgements"]

NATIVE = "native"
FORMATS = (NATIVE, *PAIR_FORMATS)


class ExportReport(NamedTuple):
    """What an export did."""

    written: int  # judgements
    dropped: dict[str, int]  # why → how many judgements the format can't hold


def import_judgements(project: Project, file: Path, format: str, *, name: str | None = None, strict: bool = False) -> JudgementReport:
    """Take in a file of judgements, in one transaction; importing it twice is no harm.

    Args:
        project: where to.
        file: where it is.
        format: one of `FORMATS`.
        name: what the import is called; part of the annotator's and the batch's name. Default the file's name.
        strict: refuse the whole file if one row can't be used. `native` is always strict: half a log is none.

    Raises:
        UserError: the file can't be read, or none of its rows can be used, or (strict) one can't. Nothing is imported then.
    """
    _known(format)
    require_clean(name or file.name)
    if format == NATIVE:
        return import_log(project, file)
    return import_pairs(project, file, PAIR_FORMATS[format].read, name=name or file.name, strict=strict)


def export_judgements(project: Project, format: str, file: Path) -> ExportReport:
    """Write the judgements to a file: the same log gives the same bytes. The file appears whole or not at all.

    Args:
        project: where from.
        format: one of `FORMATS`.
        file: where to.

    Raises:
        UserError: no such format, or the file can't be written.
    """
    _known(format)
    with _whole_or_nothing(file) as out, project.database.read() as session:
        if format == NATIVE:
            return ExportReport(_write_lines(out, export_log(session)), {})
        dropped: Counter[str] = Counter()
        written = _write_lines(out, _pair_rows(session, PAIR_FORMATS[format], dropped))
    return ExportReport(written, dict(sorted(dropped.items())))


def _known(format: str) -> None:
    if format not in FORMATS:
        raise UserError(f"there is no format {format!r}", fix=f"use one of {', '.join(FORMATS)}")


def _pair_rows(session: Session, form: Format, dropped: Counter[str]) -> Generator[tuple[bool, Mapping[str, Any]]]:
    """(counts, row) for every preference among the judgements, in the order of the questions."""
    for kind, count in session.execute(select(Question.kind, func.count()).join(Judgement).where(Question.kind != Kind.PAIR).group_by(Question.kind)):
        dropped[f"{kind} question"] += count
    for row in _pair_judgements(session):
        reason = _why_no_preference(row)
        if reason is None:
            ahead, behind = (row.a, row.b) if row.answer["strength"] > 0 else (row.b, row.a)
            try:
                yield True, form.write(Pair(row.turns, ahead, behind))
            except UserError as error:
                reason = error.what
        if reason is not None:
            dropped[reason] += 1


def _pair_judgements(session: Session) -> Iterator[Row[Any]]:
    place_a, place_b, a, b, later = aliased(QuestionSample), aliased(QuestionSample), aliased(Sample), aliased(Sample), aliased(Judgement)
    superseded: ColumnElement[bool] = select(later.id).where(later.supersedes == Judgement.id).exists()
    query = (
        select(Judgement.answer, Question.gold, Prompt.turns, a.text.label("a"), b.text.label("b"), superseded.label("superseded"))
        .join(Question, Question.id == Judgement.question_id)
        .join(Prompt, Prompt.id == Question.prompt_id)
        .join(place_a, (place_a.question_id == Question.id) & (place_a.position == 0))
        .join(place_b, (place_b.question_id == Question.id) & (place_b.position == 1))
        .join(a, a.id == place_a.sample_id)
        .join(b, b.id == place_b.sample_id)
        .where(Question.kind == Kind.PAIR)
        .order_by(Question.position, Question.id, Judgement.submitted_at, Judgement.id)
    )
    with session.execute(query.execution_options(yield_per=1000)) as result:
        yield from result


def _why_no_preference(row: Row[Any]) -> str | None:
    """Why a judgement on a pair says nothing that these formats can hold; None if it does."""
    reasons = {
        "superseded": row.superseded,
        "check question": row.gold is not None,
        "skip": "skip" in row.answer,
        "both bad": bool(row.answer.get("both_bad")),
        "tie": row.answer.get("strength") == 0,
    }
    return next((reason for reason, true in reasons.items() if true), None)


def _write_lines(out: BufferedIOBase, rows: Generator[tuple[bool, Mapping[str, Any]]]) -> int:
    written = 0
    with closing(rows):  # a failure on the way must not leave the database's cursor open
        for counts, row in rows:
            out.write(json.dumps(row, ensure_ascii=False, sort_keys=True, allow_nan=False).encode("utf-8") + b"\n")
            written += counts
    return written


@contextmanager
def _whole_or_nothing(file: Path) -> Iterator[BufferedIOBase]:
    """A file to write to, put in its place when the block ends well."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}", fix="choose a folder that exists and may be written") from error
    try:
        with os.fdopen(descriptor, "wb") as raw:
            if file.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:  # no name and no time inside: the same log, the same bytes
                    yield packed
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}", fix="free some space, or choose another place") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
