"""Which file is meant, and in which format it is: guessed from its first rows where nobody says."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from truing.errors import UserError
from truing.feedback.formats import RECORD_FORMATS
from truing.feedback.formats.record import Source
from truing.feedback.native import HEADER, NATIVE
from truing.store.archives import DATA_SUFFIXES
from truing.store.rows import Row

AUTO = "auto"
LOOKED_AT = 20  # rows
MOST_FILES = 1000  # of a folder
ARCHIVES = (".gz", ".zip")
MAIN_FILES = {"llmfao": "crowd-comparisons.csv"}  # of several files of a format, the one that is meant by their folder


class Found(NamedTuple):
    """A file and its format."""

    file: Path
    format: str
    guessed: bool  # rather than said


def find(path: Path, format: str) -> Found:
    """The file that is meant by a file or a folder, and its format.

    Args:
        path: a file, or a folder with one file of that format.
        format: its name, or `auto`.

    Raises:
        UserError: there is none, or several are meant.
    """
    if not path.is_dir():
        return Found(path, guess(path), True) if format == AUTO else Found(path, format, False)
    fitting = {file: name for file in _data_files(path) if (name := _guess(file)) is not None and format in (AUTO, name)}
    for name, main in MAIN_FILES.items():
        mains = [file for file, found in fitting.items() if found == name and file.name == main]
        if len(mains) == 1:
            return Found(mains[0], name, format == AUTO)
    if len(fitting) == 1:
        ((file, name),) = fitting.items()
        return Found(file, name, format == AUTO)
    if not fitting:
        raise UserError(f"{path} holds no file that looks like {'judgements' if format == AUTO else format}", fix="name the file itself, with --format")
    named = ", ".join(f"{file.relative_to(path)} ({name})" for file, name in list(fitting.items())[:6])
    raise UserError(f"{path} holds {len(fitting)} files of judgements: {named}", fix="name one of them")


def guess(file: Path) -> str:
    """The format that the first rows look like.

    Raises:
        UserError: they look like none, or the file can't be read.
    """
    found = _guess(file)
    if found is None:
        raise UserError(
            f"the first rows of {file.name} look like no format that is known", fix=f"say which with --format: {', '.join((NATIVE, *RECORD_FORMATS))}"
        )
    return found


def _guess(file: Path) -> str | None:
    rows = [row.value for row in islice(Source(file).rows(), LOOKED_AT) if isinstance(row, Row)]
    objects = [row for row in rows if isinstance(row, dict)]
    if not objects:
        return None
    if objects[0].get("event") == HEADER["event"] and "format" in objects[0]:
        return NATIVE
    return next((name for name, form in RECORD_FORMATS.items() if 2 * sum(map(form.fits, objects)) > len(rows)), None)


def _data_files(folder: Path) -> Iterator[Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts))
    for path in islice(files, MOST_FILES):
        if path.suffix in ARCHIVES or path.suffix in DATA_SUFFIXES[:-1]:
            yield path
