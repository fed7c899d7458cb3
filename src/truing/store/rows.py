"""Rows of files from outside, read with suspicion: line by line, never more than a few megabytes in memory.

A row that can't be used is yielded as a `BadRow` with its line number, so that the caller chooses to go on or to stop; what spoils the
whole file (no such file, UTF-16, a damaged or exploding archive) is raised.
"""

import codecs
import csv
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from truing.errors import BadRow, UserError
from truing.store.archives import Opened, exploded, opened

MAX_LINE_BYTES = 4 << 20  # a line of JSON can weigh twenty times its length in memory
MAX_DEPTH = 64

T = TypeVar("T")

csv.field_size_limit(MAX_LINE_BYTES)  # a cell may be as long as a line: responses are


class Row(NamedTuple):
    """One row of a file: its 1-based line (or row) number and what stood there."""

    line: int
    value: Any


def parquet_values(path: Path, *, at_a_time: int = 1000) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file as they are, some at a time.

    Raises:
        UserError: there is no such file, or it is not parquet.
    """
    import pyarrow  # a fifth of a second, for those who need it
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=at_a_time):
                yield from batch.to_pylist()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}", fix="check the path") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path} can't be read as parquet: {str(error).splitlines()[0]}", fix="fetch or write it again") from error


def text_rows(path: Path) -> Iterator[Row | BadRow]:
    """The lines of a UTF-8 file (or .gz or .zip of one), without their ends; lines of white space alone are passed over.

    Bytes that aren't UTF-8 come through as lone surrogates, which `require_clean` refuses.
    """
    with opened(path) as file:
        for number, raw in _raw_lines(path, file):
            if raw is None:
                yield BadRow(path.name, number, f"the line is longer than {MAX_LINE_BYTES >> 20} MB", fix="break it up, or leave it out")
            elif raw.strip():
                yield Row(number, raw.rstrip(b"\r\n").decode("utf-8", "surrogateescape"))


def json_rows(path: Path) -> Iterator[Row | BadRow]:
    """The values of a JSON Lines file, each checked by `require_clean`."""
    for row in text_rows(path):
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            value = parse_json(row.value)
            if not _plainly_clean(row.value):
                require_clean(value)
        except UserError as error:
            yield bad_row(path.name, row.line, error)
        else:
            yield Row(row.line, value)


def csv_rows(path: Path, delimiter: str = ",") -> Iterator[Row | BadRow]:
    """The rows of a CSV file with a header, as dicts of text, each checked by `require_clean`.

    Raises:
        UserError: the header names a column twice, or there is none.
        BadRow: the header is no CSV, or a line is so long that the rows after it can't be told apart.
    """
    with opened(path) as file:
        reader = csv.reader(_csv_lines(path, file), strict=True, delimiter=delimiter)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise _no_csv(path, 1, error) from None
        if not header or len(set(header)) < len(header):
            raise UserError(f"{path.name} needs a first line that names each column once", fix="for example a line `prompt,topic`")
        try:
            require_clean(header)
        except UserError as error:
            raise bad_row(path.name, 1, error) from None
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield _no_csv(path, reader.line_num, error)
                continue
            if cells is None:
                return
            try:
                if cells:
                    yield Row(reader.line_num, _named_cells(header, cells))
            except UserError as error:
                yield bad_row(path.name, reader.line_num, error)


def _no_csv(path: Path, line: int, error: csv.Error) -> BadRow:
    if "new-line character" in str(error):  # as files of very old spreadsheets have it
        return BadRow(path.name, line, "has a carriage return in the midst of a line", fix="save the file with lines that end in LF or CR LF")
    return BadRow(path.name, line, f"is not valid CSV: {error}", fix='double every " inside a quoted cell, and close the quotes')


def bad_row(file: str, line: int, error: UserError) -> BadRow:
    """The same complaint, with the file and line it is about."""
    return error if isinstance(error, BadRow) else BadRow(file, line, error.what, fix=error.fix)


def parse_json(text: str) -> Any:
    """A JSON value, read strictly.

    Raises:
        UserError: not JSON, nested too deeply, NaN or an infinity, a key twice in one object, a number of thousands of digits.
    """
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise UserError("is nested too deeply", fix=f"keep it under {MAX_DEPTH} levels") from None
    except json.JSONDecodeError as error:
        raise UserError(f"is not valid JSON: {error.msg} at column {error.colno}", fix="a line is one whole JSON value; write it with a JSON library") from None
    except ValueError as error:
        raise UserError(f"is not usable JSON: {error}", fix="write very long numbers as text") from None


def require_clean(value: Any) -> None:
    """Check that every text in a JSON-like value can be stored anywhere and every number is finite.

    Raises:
        UserError: NUL, a lone surrogate, NaN or an infinity, nested too deeply, or not a JSON value at all.
    """
    left: list[tuple[Any, int]] = [(value, 0)]
    while left:
        item, depth = left.pop()
        if isinstance(item, str):
            _require_clean_text(item)
        elif isinstance(item, (dict, list)):
            if depth >= MAX_DEPTH:
                raise UserError(f"is nested deeper than {MAX_DEPTH} levels", fix="flatten it")
            parts = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            left.extend((part, depth + 1) for part in parts)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise UserError(f"holds the number {item}", fix="write null, or leave the key out")
        elif item is not None and not isinstance(item, int):
            raise UserError(f"holds a {type(item).__name__}, which is not text, number, list or object", fix="write it as text")


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items` in lists of `size`; the last may be shorter."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _require_clean_text(text: str) -> None:
    if "\x00" in text:
        raise UserError("holds a NUL character", fix="remove it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("holds something that is not Unicode text (a lone surrogate, or bytes that are not UTF-8)", fix="save the file as UTF-8") from None


def _plainly_clean(text: str) -> bool:
    """Whether a text of JSON holds, at a glance, nothing that `require_clean` refuses beyond what `parse_json` does."""
    if "\\u" in text or "\x00" in text or text.count("[") + text.count("{") > MAX_DEPTH:
        return False
    try:
        return text.isascii() or bool(text.encode("utf-8"))
    except UnicodeEncodeError:
        return False


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise UserError(f"holds the number {number}", fix="write null, or leave the key out")
    return number


def _refuse_constant(name: str) -> Any:
    raise UserError(f"holds {name}, which is not JSON", fix="write null, or leave the key out")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise UserError("has a key twice in one object", fix="keep one of them")
    return found


_STRICT = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_no_twins)


def _named_cells(header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise UserError(f"has {len(cells)} cells where the header names {len(header)}", fix="put a cell that holds a comma in double quotes")
    require_clean(cells)
    return dict(zip(header, cells, strict=True))


def _csv_lines(path: Path, file: Opened) -> Iterator[str]:
    for number, raw in _raw_lines(path, file):
        if raw is None:
            raise BadRow(path.name, number, f"the line is longer than {MAX_LINE_BYTES >> 20} MB", fix="break it up, or leave it out")
        yield raw.decode("utf-8", "surrogateescape")


def _raw_lines(path: Path, file: Opened) -> Iterator[tuple[int, bytes | None]]:
    """(number, bytes) of each line; None for one that is too long, which is read past without being held."""
    stream, left = file
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        left -= len(raw)
        too_long = len(raw) > MAX_LINE_BYTES
        piece = raw
        while too_long and left > 0 and piece and not piece.endswith(b"\n"):
            piece = stream.readline(1 << 20)
            left -= len(piece)
        if left < 0:
            raise exploded(path, number)
        if number == 1:
            raw = without_mark(path, raw)
        yield number, None if too_long else raw


def without_mark(path: Path, raw: bytes) -> bytes:
    """The beginning of a file without its byte order mark.

    Raises:
        BadRow: it is no UTF-8 text.
    """
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\x00" in raw[:4]:
        raise BadRow(path.name, 1, "the file is UTF-16 or UTF-32, or is no text at all", fix="save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW")
    return raw.removeprefix(codecs.BOM_UTF8)
