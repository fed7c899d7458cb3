"""Judgements in from files and out to files: `FORMATS` names them all, docs/formats.md says what each can't hold.

Files may be packed (.gz, .zip), be a folder, and have a format that is guessed. On import, a row that can't be used is left out and named. On export, the
judgements that a format can't hold are left out and counted; the same log gives the same bytes.
"""

import csv
import gzip
import io
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BufferedIOBase
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from truing.errors import BadRow, UserError
from truing.feedback.exports import rows_of
from truing.feedback.formats import RECORD_FORMATS
from truing.feedback.formats.record import Format, Numbered, Source
from truing.feedback.guess import AUTO, find
from truing.feedback.imports import JudgementReport, Origin, import_records
from truing.feedback.native import NATIVE, export_log, import_log, read_log
from truing.store.project import Project
from truing.store.rows import require_clean

__all__ = ["AUTO", "FORMATS", "WRITABLE", "ExportReport", "JudgementReport", "Preview", "export_judgements", "import_judgements", "preview_import"]

FORMATS = (NATIVE, *RECORD_FORMATS)
WRITABLE = (NATIVE, *(name for name, form in RECORD_FORMATS.items() if form.write is not None))
PREVIEWED = 5000  # records; a preview answers while somebody waits
PREVIEW_ERRORS = 50
Rows = Generator[tuple[int, Mapping[str, Any]]]


class ExportReport(NamedTuple):
    """What an export did."""

    written: int  # judgements
    dropped: dict[str, int]  # why → how many judgements the format can't hold


class Preview(NamedTuple):
    """What an import would do, from the beginning of the file."""

    format: str
    guessed: bool  # the format, rather than said
    records: list[Numbered]  # the first ones; empty for `native`
    refused: list[BadRow]  # the first rows that can't be used
    kinds: dict[str, int]  # kind of question → judgements seen
    refused_seen: int  # rows
    annotators: int  # names seen; 0: the file doesn't name them
    models: int  # names seen
    whole: bool  # all of the file was seen


def import_judgements(project: Project, file: Path, format: str, *, name: str | None = None, strict: bool = False) -> JudgementReport:
    """Take in a file of judgements, in one transaction; importing it twice is no harm.

    Args:
        project: where to.
        file: where it is: a file, or a folder with one.
        format: one of `FORMATS`, or `auto`.
        name: what the import is called; part of the annotators' and the batch's names. Default the file's (or folder's) name.
        strict: refuse the whole file if one row can't be used. `native` is always strict: half a log is none.

    Raises:
        UserError: the file can't be read, or none of its rows can be used, or (strict) one can't. Nothing is imported then.
    """
    _known(format, (AUTO, *FORMATS))
    label = name or file.name or file.resolve().name
    require_clean(label)
    found = find(file, format)
    if found.format == NATIVE:
        return import_log(project, found.file)
    form = RECORD_FORMATS[found.format]
    origin = Origin(found.file.name, label, found.format, form.everywhere)
    return import_records(project, form.read(Source(found.file)), origin, strict=strict)


def preview_import(file: Path, format: str = AUTO, *, rows: int = 20) -> Preview:
    """Look at the beginning of a file of judgements; nothing is written.

    Args:
        file: as for `import_judgements`.
        format: as for `import_judgements`.
        rows: records to show.

    Raises:
        UserError: the file can't be read, or its format can't be guessed.
    """
    _known(format, (AUTO, *FORMATS))
    found = find(file, format)
    if found.format == NATIVE:
        return _preview_log(found.file, found.guessed)
    shown: list[Numbered] = []
    refused: list[BadRow] = []
    kinds: Counter[str] = Counter()
    people: set[str] = set()
    models: set[str] = set()
    bad = seen = 0
    items = RECORD_FORMATS[found.format].read(Source(found.file))
    with closing(items):  # type: ignore[type-var]
        for item in islice(items, PREVIEWED):
            seen += 1
            if isinstance(item, BadRow):
                bad += 1
                refused += [item] * (len(refused) < PREVIEW_ERRORS)
                continue
            shown += [item] * (len(shown) < rows)
            kinds[str(item.record.kind)] += 1
            people |= {item.record.annotator} - {None}  # type: ignore[arg-type]
            models |= {response.model for response in item.record.responses if response.model is not None}
    return Preview(found.format, found.guessed, shown, refused, dict(kinds), bad, len(people), len(models), seen < PREVIEWED)


def _preview_log(file: Path, guessed: bool) -> Preview:
    try:
        events = Counter(str(row.value["event"]) for row in islice(read_log(file), PREVIEWED))
    except BadRow as error:
        return Preview(NATIVE, guessed, [], [error], {}, 1, 0, 0, False)
    return Preview(NATIVE, guessed, [], [], dict(events), 0, events["annotator"], events["policy"], events.total() < PREVIEWED)


def export_judgements(project: Project, format: str, file: Path) -> ExportReport:
    """Write the judgements to a file: the same log gives the same bytes. The file appears whole or not at all.

    Args:
        project: where from.
        format: one of `WRITABLE`.
        file: where to.

    Raises:
        UserError: no such format, or the file can't be written.
    """
    _known(format, WRITABLE)
    with _whole_or_nothing(file) as out, project.database.read() as session:
        if format == NATIVE:
            return ExportReport(_write_lines(out, export_log(session)), {})
        form = RECORD_FORMATS[format]
        dropped: Counter[str] = Counter()
        written = _WRITERS[form.file](out, session, form, dropped)
    return ExportReport(written, dict(sorted(dropped.items())))


def _known(format: str, formats: tuple[str, ...]) -> None:
    if format not in formats:
        what = "can be imported and not exported" if format in FORMATS else "is unknown"
        raise UserError(f"there is no format {format!r}" if format not in FORMATS else f"{format} {what}", fix=f"use one of {', '.join(formats)}")


# ---- how rows are written ----


def _lines(out: BufferedIOBase, session: Session, form: Format, dropped: Counter[str]) -> int:
    return _write_lines(out, rows_of(session, form, dropped))


def _list(out: BufferedIOBase, session: Session, form: Format, dropped: Counter[str]) -> int:
    """One JSON list, an element a line."""
    written = 0
    sign = b"[\n"
    with closing(rows_of(session, form, dropped)) as rows:
        for counts, row in rows:
            out.write(sign + _encode(row).encode("utf-8"))
            written, sign = written + counts, b",\n"
    out.write((b"" if written else b"[") + b"\n]\n")
    return written


def _cells(out: BufferedIOBase, session: Session, form: Format, dropped: Counter[str]) -> int:
    """A table. Which columns there are is known only after all rows were seen: they are made twice."""
    columns: dict[str, None] = {}
    with closing(rows_of(session, form, Counter())) as rows:
        for _, row in rows:
            columns |= dict.fromkeys(row)
    last = "exported_by"
    names = [name for name in columns if name != last] + [last] * (last in columns)
    written = 0
    with closing(rows_of(session, form, dropped)) as rows:
        line = io.StringIO(newline="")
        writer = csv.DictWriter(line, names, restval="", delimiter="\t" if form.file == "tsv" else ",", lineterminator="\r\n")
        writer.writeheader()
        for counts, row in rows:
            writer.writerow(row)
            written += counts
            out.write(line.getvalue().encode("utf-8"))
            line.seek(0)
            line.truncate()
        out.write(line.getvalue().encode("utf-8"))  # of a table without rows, the header
    return written


_WRITERS: Mapping[str, Callable[[BufferedIOBase, Session, Format, Counter[str]], int]] = {"jsonl": _lines, "json": _list, "csv": _cells, "tsv": _cells}
_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, allow_nan=False).encode


def _write_lines(out: BufferedIOBase, rows: Rows) -> int:
    written = 0
    with closing(rows):  # a failure on the way must not leave the database's cursor open
        for counts, row in rows:
            out.write(_encode(row).encode("utf-8") + b"\n")
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
