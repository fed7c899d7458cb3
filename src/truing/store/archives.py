"""Files from outside, plain or packed: opened so that an archive can't explode, point elsewhere or hide what it holds.

A `.gz` is one packed file. A `.zip` may hold folders, notes and one file of data, which is read in place; nothing is ever unpacked to disk.
"""

import gzip
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import NamedTuple, cast

from truing.errors import BadRow, UserError

MAX_UNPACKED_BYTES = 1 << 30
MAX_RATIO = 100  # unpacked size over packed size; text packs 3 to 10 times
FREE_BYTES = 16 << 20  # an archive may unpack to this much whatever its ratio
MAX_MEMBERS = 10_000
MAX_DIRECTORY_BYTES = 4 << 20  # the list of a zip's members is read whole; 10,000 plain names need about 1 MB
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".txt")
END_OF_DIRECTORY = b"PK\x05\x06"


class Opened(NamedTuple):
    """A file that is being read."""

    stream: BufferedIOBase
    allowance: float  # bytes that may come out of it


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file, a `.gz`, or the one file of data in a `.zip`.

    Raises:
        UserError: it isn't there, can't be read, is damaged, or is an archive that can't be trusted.
    """
    with _mendable(path), ExitStack() as stack:
        if path.suffix == ".zip":
            archive = stack.enter_context(_zip(path))
            member = _only_data(path, archive)
            yield Opened(cast(BufferedIOBase, stack.enter_context(archive.open(member))), _allowance(member.compress_size))
        elif path.suffix == ".gz":
            yield Opened(stack.enter_context(gzip.open(path, "rb")), _allowance(path.stat().st_size))
        else:
            yield Opened(stack.enter_context(path.open("rb")), float("inf"))


def data_name(path: Path) -> str:
    """The name of the data itself: of a packed file, that of what is inside."""
    if path.suffix == ".zip":
        with _mendable(path), _zip(path) as archive:
            return _only_data(path, archive).filename
    return path.name.removesuffix(".gz")


def exploded(path: Path, line: int) -> BadRow:
    """The complaint about an archive that gives more than it may."""
    return BadRow(path.name, line, "the archive unpacks to far more than a text would", fix="unpack it yourself and look at what is in it")


def _allowance(packed_bytes: int) -> float:
    return max(FREE_BYTES, min(MAX_UNPACKED_BYTES, MAX_RATIO * packed_bytes))


@contextmanager
def _zip(path: Path) -> Iterator[zipfile.ZipFile]:
    _require_small_directory(path)
    with zipfile.ZipFile(path) as archive:
        yield archive


def _require_small_directory(path: Path) -> None:
    """Look at the end of the archive before the list of its members is read whole."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - (1 << 16) - 22))
        _, found, end = file.read().rpartition(END_OF_DIRECTORY)
    if not found or len(end) < 18:
        raise zipfile.BadZipFile("it has no list of what is in it")
    members, directory = int.from_bytes(end[6:8], "little"), int.from_bytes(end[8:12], "little")
    if members > MAX_MEMBERS or directory > MAX_DIRECTORY_BYTES:
        raise UserError(f"{path.name} holds more than {MAX_MEMBERS:,} files", fix="unpack it yourself and name the file that you mean")


def _only_data(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise UserError(f"{path.name} holds more than {MAX_MEMBERS:,} files", fix="unpack it yourself and name the file that you mean")
    for member in members:
        _require_harmless(path, member)
    found = [member for member in members if member.filename.endswith(DATA_SUFFIXES) and not _is_a_note(member.filename)]
    if len(found) != 1:
        named = ", ".join(member.filename for member in found[:5]) or "none that ends in " + ", ".join(DATA_SUFFIXES)
        raise UserError(f"{path.name} should hold one file of data; it holds {len(found)}: {named}", fix="unpack it yourself and name the file that you mean")
    if sum(member.file_size for member in members) > MAX_UNPACKED_BYTES or found[0].file_size > _allowance(found[0].compress_size):
        raise exploded(path, 1)
    return found[0]


def _require_harmless(path: Path, member: zipfile.ZipInfo) -> None:
    place = PurePosixPath(member.filename.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in (place.parts or ("",))[0]:
        raise UserError(f"{path.name} holds a file that points out of it: {member.filename[:80]!r}", fix="don't trust it; ask whoever sent it")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(f"{path.name} holds a link: {member.filename[:80]!r}", fix="don't trust it; ask whoever sent it")
    if member.flag_bits & 1:
        raise UserError(f"{path.name} is locked with a password", fix="unpack it yourself and name the file that you mean")


def _is_a_note(name: str) -> bool:
    """What packers and authors put beside the data."""
    place = PurePosixPath(name)
    return "__MACOSX" in place.parts or place.name.startswith(".") or place.stem.lower() in ("readme", "license", "licence", "notice", "changelog")


@contextmanager
def _mendable(path: Path) -> Iterator[None]:
    """Say in words what is wrong with a file as a whole."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}", fix="check the path") from error
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(f"{path} can't be read: {error.strerror}", fix="name a file that you may read") from error
    except NotImplementedError as error:
        raise UserError(f"{path} is packed in a way that can't be read here: {error}", fix="unpack it yourself and name the file that you mean") from error
    except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
        check = "unzip -t" if path.suffix == ".zip" else "gzip -t"
        raise UserError(f"{path} is damaged: {error}", fix=f"fetch it again; `{check}` tells whether it is whole") from error
