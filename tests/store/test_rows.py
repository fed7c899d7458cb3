"""Files from outside: whatever is in them, a row number and a remedy come out, quickly and in little memory."""

import gzip
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.errors import BadRow, UserError
from truing.store.rows import MAX_DEPTH, Row, csv_rows, json_rows, parse_json, require_clean, text_rows

BOM = "\ufeff"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a file, packed if its name ends in .gz."""

    def written(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
        return tmp_path / name

    return written


def good(rows: Iterator[Row | BadRow]) -> list[tuple[int, Any]]:
    found = list(rows)
    assert all(isinstance(row, Row) for row in found), found
    return [(row.line, row.value) for row in found if isinstance(row, Row)]


def bad(rows: Iterator[Row | BadRow]) -> list[tuple[int, str]]:
    return [(row.line, row.reason) for row in rows if isinstance(row, BadRow)]


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines_keep_their_numbers(write: Callable[[str, bytes], Path], name: str) -> None:
    content = f"{BOM}one\r\n\n  \ntwo words \nthrée".encode()
    assert good(text_rows(write(name, content))) == [(1, "one"), (4, "two words "), (5, "thrée")]


def test_json_lines(write: Callable[[str, bytes], Path]) -> None:
    assert good(json_rows(write("a.jsonl", b'{"a": [1, null, 2.5]}\n\n"text"\n'))) == [(1, {"a": [1, None, 2.5]}), (3, "text")]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"a": 1', "not valid JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "the number inf"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (rb'{"a": "\ud800"}', "not Unicode text"),
        (rb'{"\ud800": 1}', "not Unicode text"),
        (rb'{"a": "\u0000"}', "NUL"),
        (b'{"a": "caf\xe9"}', "not Unicode text"),
        (b'{"a": "' + "é".encode("utf-16-le") + b'"}', "not Unicode text|not valid JSON"),
        (b"[" * 100_000, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b'{"a":' * 50_000, "nested"),
        (b"9" * 5000, "4300 digits"),
    ],
)
def test_a_bad_line_spoils_itself_alone(write: Callable[[str, bytes], Path], line: bytes, what: str) -> None:
    path = write("a.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    rows = list(json_rows(path))
    assert [row.line for row in rows] == [1, 2, 3]
    refused = rows[1]
    assert isinstance(refused, BadRow)
    assert refused.reason
    assert any(word in refused.reason for word in what.split("|")), refused.reason
    assert refused.what.startswith("a.jsonl, line 2: ")
    assert refused.fix
    assert isinstance(rows[0], Row)
    assert isinstance(rows[2], Row)


def test_big_numbers_and_depth_within_bounds_pass(write: Callable[[str, bytes], Path]) -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert good(json_rows(write("a.jsonl", f"{2**64}\n{deep}\n".encode())))[0] == (1, 2**64)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_of_a_hundred_megabytes(write: Callable[[str, bytes], Path], name: str) -> None:
    line = (b'{"a": "' + bytes(range(97, 123)) * 40_000) * 97  # about 100 MB, which packs less than a hundredfold
    if name.endswith(".gz"):
        line = line[: 14 << 20]  # an archive may hold 16 MB whatever its ratio
    path = write(name, b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    tracemalloc.start()
    rows = list(json_rows(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row.line, isinstance(row, BadRow)) for row in rows] == [(1, False), (2, True), (3, False)]
    assert "longer than 4 MB" in str(rows[1])
    assert peak < 32e6


@pytest.mark.slow
def test_an_archive_that_explodes_is_left(write: Callable[[str, bytes], Path]) -> None:
    path = write("bomb.jsonl.gz", b'{"a": 1}\n' + b" " * (200 << 20))
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    with pytest.raises(BadRow, match="line 2: the archive unpacks to far more"):
        list(json_rows(path))
    assert tracemalloc.get_traced_memory()[1] < 32e6
    tracemalloc.stop()


@pytest.mark.parametrize("reader", [text_rows, json_rows, csv_rows])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_in_words(write: Callable[[str, bytes], Path], reader: Callable[[Path], Iterator[Any]], encoding: str) -> None:
    with pytest.raises(BadRow, match=r"line 1: the file is UTF-16") as caught:
        list(reader(write("a.csv", 'prompt\n"hello"\n'.encode(encoding))))
    assert "iconv" in caught.value.fix


def test_csv(write: Callable[[str, bytes], Path]) -> None:
    content = f'{BOM}prompt,topic\r\n"one, ""two""",x\r\n\r\n"three\nfour",\r\n'.encode()
    assert good(csv_rows(write("a.csv", content))) == [(2, {"prompt": 'one, "two"', "topic": "x"}), (5, {"prompt": "three\nfour", "topic": ""})]


def test_bad_csv_rows(write: Callable[[str, bytes], Path]) -> None:
    content = b'prompt,topic\none\ntwo,x,y\n"th"ree,x\nfo\x00ur,x\nf\xefve,x\nsix,x\n'
    rows = list(csv_rows(write("a.csv", content)))
    assert [row.line for row in rows] == [2, 3, 4, 5, 6, 7]
    assert isinstance(rows[5], Row)
    reasons = [reason for _, reason in bad(iter(rows))]
    assert ["1 cells" in reasons[0], "3 cells" in reasons[1], "not valid CSV" in reasons[2], "NUL" in reasons[3], "not Unicode" in reasons[4]] == [True] * 5


@pytest.mark.parametrize(("content", "reason"), [(b"a\rb\n1\n", "carriage return"), (b'"a"b,c\n1,2\n', "not valid CSV"), (b"a,b\n1\r2,3\n", "carriage return")])
def test_a_csv_file_whose_lines_are_none(write: Callable[[str, bytes], Path], content: bytes, reason: str) -> None:
    """Found by hypothesis in the header, where it ended in a traceback."""
    file = write("a.csv", content)
    if content.startswith(b"a,b"):
        assert [reason in found for _, found in bad(csv_rows(file))] == [True]
    else:
        with pytest.raises(BadRow, match=f"line 1: .*{reason}"):
            list(csv_rows(file))


def test_a_csv_quote_that_never_ends(write: Callable[[str, bytes], Path]) -> None:
    """Ends in complaints, not in memory."""
    rows = list(csv_rows(write("a.csv", b'prompt\n"open\n' + b"more text\n" * 100_000)))
    assert any("not valid CSV" in reason for _, reason in bad(iter(rows)))


@pytest.mark.parametrize("content", [b"", b"a,b,a\n1,2,3\n"])
def test_a_csv_header_names_each_column_once(write: Callable[[str, bytes], Path], content: bytes) -> None:
    with pytest.raises(UserError, match="first line that names each column once"):
        list(csv_rows(write("a.csv", content)))


def test_a_csv_line_too_long_ends_the_reading(write: Callable[[str, bytes], Path]) -> None:
    with pytest.raises(BadRow, match="line 2: the line is longer"):
        list(csv_rows(write("a.csv", b"prompt\n" + b"x" * (5 << 20) + b"\nlast\n")))


def test_files_that_cannot_be_read(tmp_path: Path, write: Callable[[str, bytes], Path]) -> None:
    with pytest.raises(UserError, match="there is no file"):
        list(text_rows(tmp_path / "nothing.txt"))
    with pytest.raises(UserError, match="can't be read"):
        list(text_rows(tmp_path))
    whole = write("a.jsonl.gz", b'{"a": 1}\n' * 10_000)
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        list(json_rows(whole))
    whole.write_bytes(b"no archive")
    with pytest.raises(UserError, match="damaged"):
        list(json_rows(whole))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_clean_means_storable(value: Any) -> None:
    """What passes can be written as strict UTF-8 JSON without NUL, and read back the same; what fails can't."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8").decode()
        storable = r"\u0000" not in json.dumps(value)
    except ValueError:
        storable = False
    if storable:
        require_clean(value)
        assert parse_json(text) == value
    else:
        with pytest.raises(UserError):
            require_clean(value)


@pytest.mark.parametrize("value", [b"bytes", {"a": object()}, {1, 2}, {"a": (1, 2)}])
def test_what_json_does_not_know_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match="which is not text, number"):
        require_clean(value)
