"""A JSON file that is one list, or values with line ends inside them: read value by value, never the whole file in memory."""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truing.errors import BadRow, UserError
from truing.store.archives import Opened, data_name, exploded, opened
from truing.store.rows import MAX_DEPTH, MAX_LINE_BYTES, Row, bad_row, csv_rows, json_rows, parse_json, require_clean, without_mark

CHUNK_BYTES = 1 << 16
BETWEEN = re.compile(r"[\s,]*")


def data_rows(path: Path) -> Iterator[Row | BadRow]:
    """The rows of a file of data, whatever its form: CSV, TSV, JSON Lines, one JSON list, JSON values one after the other.

    A row's number is its line, or in JSON that isn't line by line its place in the file, from 1.

    Raises:
        UserError: the file can't be read as such.
    """
    name = data_name(path).lower()
    if name.endswith((".csv", ".tsv")):
        return csv_rows(path, _delimiter(path))
    return json_rows(path) if _is_line_by_line(path) else json_values(path)


def json_values(path: Path) -> Iterator[Row | BadRow]:
    """The elements of a JSON list, or the values of a file of several, each checked by `require_clean`.

    Raises:
        BadRow: from here on the values can't be told apart.
    """
    with opened(path) as file:
        yield from _Values(path, file)


def _delimiter(path: Path) -> str:
    """What parts the cells: of tab, semicolon and comma, the one that stands most often in the first line."""
    with opened(path) as file:
        line = file.stream.readline(MAX_LINE_BYTES)
    return max("\t;,", key=lambda sign: (line.count(sign.encode()), sign == ","))


def _is_line_by_line(path: Path) -> bool:
    """Whether the first line that says something is a value by itself."""
    with opened(path) as file:
        for raw in iter(lambda: file.stream.readline(MAX_LINE_BYTES + 1), b""):
            text = raw.removeprefix(codecs.BOM_UTF8).strip()
            if text:
                break
        else:
            return True
    if len(raw) > MAX_LINE_BYTES:
        return not text.startswith(b"[")
    try:
        value = parse_json(text.decode("utf-8", "surrogateescape"))
    except UserError:
        return not text.startswith(b"[") and not text.endswith((b"{", b"[", b",", b":"))  # an object that goes on in the next line
    return not (isinstance(value, list) and all(isinstance(item, dict) for item in value))


class _Values:
    """Values read one by one from a growing piece of the file."""

    def __init__(self, path: Path, file: Opened) -> None:
        self._path, self._stream, self._left = path, file.stream, file.allowance
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text, self._at, self._number, self._ended, self._begun = "", 0, 0, False, False
        self._twins = False
        self._decoder = json.JSONDecoder(object_pairs_hook=self._pairs)

    def __iter__(self) -> Iterator[Row | BadRow]:
        in_list = self._next_sign() == "["
        self._at += in_list
        while True:
            sign = self._next_sign()
            if in_list and sign == "]":
                self._at += 1
                in_list = False
                if self._next_sign():
                    raise self._bad("something follows the list", "leave out what stands after the closing ]")
                return
            if not sign:
                if in_list:
                    raise self._bad("the list doesn't end: the file was cut off", "fetch it again")
                return
            self._number += 1
            yield self._checked(self._value())

    def _checked(self, value: Any) -> Row | BadRow:
        try:
            if self._twins:
                raise UserError("has a key twice in one object", fix="keep one of them")
            require_clean(value)
        except UserError as error:
            return bad_row(self._path.name, self._number, error)
        return Row(self._number, value)

    def _value(self) -> Any:
        self._twins = False
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise self._bad("is nested too deeply", f"keep it under {MAX_DEPTH} levels") from None
            except json.JSONDecodeError as error:
                if self._ended or not self._more():
                    raise self._bad(f"is not valid JSON: {error.msg}", "write the file with a JSON library") from None
            except ValueError as error:
                raise self._bad(f"is not usable JSON: {error}", "write very long numbers as text") from None
            else:
                if end < len(self._text) or self._ended or not self._more():
                    self._at = end
                    return value

    def _next_sign(self) -> str:
        """The next character that is neither white space nor a comma; empty at the end."""
        while True:
            found = BETWEEN.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _more(self) -> bool:
        """Double what is held of the file, and forget what was read; whether there may be more to come.

        Raises:
            BadRow: the value at hand is too long.
        """
        held = len(self._text) - self._at
        if held > MAX_LINE_BYTES:
            raise self._bad(f"the value is longer than {MAX_LINE_BYTES >> 20} MB", "break it up, or leave it out")
        raw = self._stream.read(max(CHUNK_BYTES, held))
        self._left -= len(raw)
        if self._left < 0:
            raise exploded(self._path, self._number)
        self._ended = not raw
        if not self._begun:
            raw, self._begun = without_mark(self._path, raw), True
        self._text, self._at = self._text[self._at :] + self._decode(raw, final=self._ended), 0
        return not self._ended

    def _pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        self._twins |= len(found) < len(pairs)
        return found

    def _bad(self, what: str, fix: str) -> BadRow:
        return BadRow(self._path.name, max(self._number, 1), what, fix=fix)
