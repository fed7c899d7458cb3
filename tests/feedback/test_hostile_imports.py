"""Files made to do harm: an error with a row number within 5 s and 256 MB, and nothing half-imported.

Each is imported in a process of its own (importer.py) that may not take more memory or processor time than that.
"""

import gzip
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import truing

pytestmark = pytest.mark.slow

ROW = '{"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}'
MEGABYTES = 256
IMPORTER = Path(__file__).with_name("importer.py")

Said = dict[str, object]
Run = Callable[..., Said]


@pytest.fixture(scope="module")
def importer(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """The process that the importing ones are born of."""
    # one thread: each thread's stack is an address space of its own, and a fork takes no threads along
    source = str(Path(truing.__file__).parents[1])
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": source}
    environment.pop("TRUING_DATABASE", None)
    command = [sys.executable, str(IMPORTER), str(tmp_path_factory.mktemp("imports"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(importer: "subprocess.Popen[str]") -> Run:
    """Import a file in a process of its own, and tell what it said."""

    def running(file: Path, format: str = "trl", strict: str = "strict") -> Said:
        assert importer.stdin is not None
        assert importer.stdout is not None
        importer.stdin.write(json.dumps({"file": str(file), "format": format, "strict": strict}) + "\n")
        importer.stdin.flush()
        done = json.loads(importer.stdout.readline())
        assert done["code"] == 0, done
        said: Said = json.loads(done["said"])
        assert isinstance(said["megabytes"], float)
        assert said["megabytes"] < MEGABYTES
        return said

    return running


def refused(said: Said) -> str:
    """The complaint about a file of which nothing was imported."""
    assert "error" in said, said
    assert said["fix"]
    assert said["rows"] == 0
    return str(said["error"])


BAD_LINES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nan": (lambda: ROW.replace('"No."', "NaN").encode(), "NaN"),
    "infinity": (lambda: ROW.replace('"No."', "1e999").encode(), "inf"),
    "lone surrogate": (lambda: ROW.replace("No.", r"\ud800").encode(), "lone surrogate"),
    "nul": (lambda: ROW.replace("No.", r"\u0000").encode(), "NUL"),
    "raw nul": (lambda: ROW.replace("No.", "\0").encode(), "not valid JSON"),
    "latin-1": (lambda: ROW.replace("No.", "Né").encode("latin-1"), "not Unicode"),
    "twins": (lambda: ROW.replace('"chosen"', '"prompt": "x", "chosen"').encode(), "a key twice"),
    "deep": (lambda: b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "deep objects": (lambda: b'{"a":' * 100_000, "nested"),
    "2^64": (lambda: ROW.replace('"No."', str(2**64)).encode(), "not both texts"),
    "many digits": (lambda: ROW.replace('"No."', "9" * 100_000).encode(), "not usable JSON"),
    "null": (lambda: ROW.replace('"No."', "null").encode(), "not both texts"),
    "100 MB": (lambda: ROW.replace("No.", "x" * (100 << 20)).encode(), "longer than 4 MB"),
    "all brackets": (lambda: b"[[]," * ((1 << 20) - 16), "nested"),
    "empty values": (lambda: b"[" + b"[]," * 1_000_000 + b"[]]", "no chosen"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line(run: Run, tmp_path: Path, name: str) -> None:
    make, what = BAD_LINES[name]
    (tmp_path / "a.jsonl").write_bytes(ROW.encode() + b"\n" + make() + b"\n" + ROW.replace("Is", "Was").encode() + b"\n")
    complaint = refused(run(tmp_path / "a.jsonl"))
    assert "a.jsonl, line 2: " in complaint
    assert what in complaint
    kept = run(tmp_path / "a.jsonl", strict="liberal")
    assert (kept["added"], kept["lines"]) == (2, [2])


@pytest.mark.parametrize("name", ["nan", "lone surrogate", "nul", "twins", "2^64", "null", "deep", "100 MB", "many digits"])
def test_a_bad_element_of_a_list(run: Run, tmp_path: Path, name: str) -> None:
    make, _ = BAD_LINES[name]
    (tmp_path / "a.json").write_bytes(b"[" + ROW.encode() + b",\n" + make() + b",\n" + ROW.encode() + b"]")
    assert "a.json, line 2: " in refused(run(tmp_path / "a.json"))


def test_a_long_list_is_read_piece_by_piece(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" + ",".join(ROW.replace("Is it", f"Is it {n % 10}") for n in range(20_000)) + "]")
    assert run(tmp_path / "a.json")["added"] == 10
    (tmp_path / "a.json").write_text("[" + ROW + ",")
    assert "the file was cut off" in str(run(tmp_path / "a.json")["error"])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("format", ["trl", "auto"])
def test_utf_16(run: Run, tmp_path: Path, encoding: str, format: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW.encode(encoding))
    assert "line 1: the file is UTF-16" in refused(run(tmp_path / "a.jsonl", format))


def test_a_byte_order_mark_is_no_harm(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + ROW.encode())
    assert run(tmp_path / "a.jsonl", "auto")["added"] == 1


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_a_zip_with_one_file_of_data(run: Run, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", ("README.md", b"Hello"), ("deep/a.jsonl", ROW.encode()), ("__MACOSX/deep/._a.jsonl", b"\0"))
    assert run(path, "auto")["added"] == 1


def link() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a.jsonl")
    info.external_attr = 0o120777 << 16
    return info


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "points out": (lambda folder: zipped(folder / "a.zip", ("../a.jsonl", ROW.encode())), "points out of it"),
    "points out, as Windows does": (lambda folder: zipped(folder / "a.zip", ("x\\..\\..\\a.jsonl", ROW.encode())), "points out of it"),
    "points to the root": (lambda folder: zipped(folder / "a.zip", ("/etc/a.jsonl", ROW.encode())), "points out of it"),
    "link": (lambda folder: zipped(folder / "a.zip", (link(), b"/etc/passwd")), "holds a link"),
    "bomb": (lambda folder: zipped(folder / "a.zip", ("a.jsonl", ROW.encode() + b"\n" + b" " * (200 << 20))), "far more"),
    "many members": (lambda folder: zipped(folder / "a.zip", *((f"{n}.txt", b"") for n in range(10_001))), "more than 10,000"),
    "two files": (lambda folder: zipped(folder / "a.zip", ("a.jsonl", ROW.encode()), ("b.jsonl", ROW.encode())), "it holds 2: a.jsonl, b.jsonl"),
    "no file": (lambda folder: zipped(folder / "a.zip", ("a.exe", b"MZ")), "it holds 0"),
    "packed twice": (lambda folder: zipped(folder / "a.zip", ("a.jsonl.gz", gzip.compress(ROW.encode()))), "it holds 0"),
}


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("format", ["trl", "auto"])
def test_an_archive_that_cannot_be_trusted(run: Run, tmp_path: Path, name: str, format: str) -> None:
    make, what = ARCHIVES[name]
    assert what in refused(run(make(tmp_path), format))


def test_a_zip_that_lies_about_its_size(run: Run, tmp_path: Path) -> None:
    """The directory says 100 bytes; what comes out is checked as well."""
    path = zipped(tmp_path / "a.zip", ("a.jsonl", ROW.encode() + b"\n" + b" " * (64 << 20)))
    raw = path.read_bytes()
    size = (len(ROW) + 1 + (64 << 20)).to_bytes(4, "little")
    assert raw.count(size) == 2
    path.write_bytes(raw.replace(size, (100).to_bytes(4, "little")))
    refused(run(path))


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-30], lambda raw: b"PK" + raw, lambda raw: raw[:40] + b"\0\0\0\0\0\0" + raw[46:], lambda raw: b"no archive"]
)
def test_a_damaged_zip(run: Run, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = zipped(tmp_path / "a.zip", ("a.jsonl", "\n".join(ROW.replace("it", str(n)) for n in range(500)).encode()))
    path.write_bytes(damage(path.read_bytes()))
    said = run(path)
    assert said.get("added") == 500 or "damaged" in refused(said)  # something in front of an archive is no damage to it


def test_a_gz_bomb(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(ROW.encode() + b"\n" + b" " * (200 << 20)))
    assert "far more than a text would" in refused(run(tmp_path / "a.jsonl.gz"))


def test_a_table_with_an_open_quote(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,response,thumbs\n"Is it?,Yes.,up\n' + "more\n" * 1_000_000)
    assert "line " in refused(run(tmp_path / "a.csv", "table"))


@pytest.mark.parametrize("rank", [2**64, -1, 1.5, "x", True, [1]])
def test_numbers_off_every_scale(run: Run, tmp_path: Path, rank: object) -> None:
    row = {"prompt": "Is it?", "response": "Yes.", "helpfulness": rank}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    assert "a.jsonl, line 1: " in refused(run(tmp_path / "a.jsonl", "helpsteer"))
