"""Files made to do harm: an error with a row number within 5 s and 256 MB, and nothing half-imported.

Each runs in a process of its own that may not take more memory or processor time than that.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROW = '{"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}'
SECONDS = 5
MEGABYTES = 256
IMPORT = """
import json, sys
from pathlib import Path
from sqlalchemy import func, select
from truing.errors import BadRow, UserError
from truing.feedback.exchange import import_judgements
from truing.store.project import create_project, open_project
from truing.store.tables import Annotator, Judgement, Policy, Prompt, Question, Sample
project = open_project(create_project(Path(sys.argv[1]), settings=""))
said = {}
try:
    report = import_judgements(project, Path(sys.argv[2]), sys.argv[3], strict=sys.argv[4] == "strict")
    said = {"added": report.added, "lines": [row.line for row in report.refused], "what": [row.what for row in report.refused]}
except UserError as error:
    said = {"error": error.what, "fix": error.fix, "line": error.line if isinstance(error, BadRow) else None}
with project.database.read() as session:
    said["rows"] = sum(session.scalar(select(func.count()).select_from(table)) for table in (Annotator, Judgement, Policy, Prompt, Question, Sample))
lines = Path("/proc/self/status").read_text().splitlines()  # getrusage would count what the parent held before the fork
said["megabytes"] = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
print(json.dumps(said))
"""


def bounded() -> None:
    """What the process may take: a gigabyte of addresses (libraries are mapped into them, not held) and 5 s of the processor beyond its start."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 5, SECONDS + 5))


Said = dict[str, object]
Run = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Import a file in a process of its own, and tell what it said."""

    def running(file: Path, format: str = "trl", strict: str = "strict") -> Said:
        command = [sys.executable, "-c", IMPORT, tempfile.mkdtemp(dir=tmp_path) + "/project", str(file), format, strict]
        # one thread: each thread's stack is an address space of its own
        done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=bounded, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr[-2000:]
        said: Said = json.loads(done.stdout)
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
