"""A process that imports files for a test, each in a child that may take no more memory and processor time than it should.

Run as `python importer.py FOLDER`; an order is a line of JSON on stdin, what came of it a line on stdout. The modules are loaded once, and a child
is a fork: a Python of its own for every file would spend more time on its start than on the file.
"""

import json
import os
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from truing.errors import BadRow, UserError
from truing.feedback.exchange import import_judgements
from truing.store.project import create_project, open_project
from truing.store.tables import Annotator, Judgement, Policy, Prompt, Question, Sample

SECONDS = 5
ADDRESSES = 1 << 30  # a gigabyte: libraries are mapped into it, not held


def main(folder: Path) -> None:
    """Answer orders until there are no more."""
    empty = create_project(folder / "empty", settings="")
    for line in sys.stdin:
        print(json.dumps(in_a_child(folder, empty, json.loads(line))), flush=True)


def in_a_child(folder: Path, empty: Path, order: dict[str, str]) -> dict[str, Any]:
    """The exit code of an import (negative: the signal that ended it) and the words it left."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        code = 1
        try:
            said = imported(Path(shutil.copytree(empty, Path(tempfile.mkdtemp(dir=folder)) / "project")), **order)
            os.write(writing, json.dumps(said).encode())
            code = 0
        except BaseException:  # noqa: BLE001 (the parent is told, and a child must never come back into its loop)
            os.write(writing, traceback.format_exc()[-2000:].encode())
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as words:
        said_words = words.read()
    return {"code": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "said": said_words}


def imported(root: Path, file: str, format: str, strict: str) -> dict[str, Any]:
    """What the import of a file into an empty project reported or complained of, what is in the store then, and the most memory that was held."""
    project = open_project(root)
    said: dict[str, Any]
    try:
        report = import_judgements(project, Path(file), format, strict=strict == "strict")
        said = {"added": report.added, "lines": [row.line for row in report.refused], "what": [row.what for row in report.refused]}
    except UserError as error:
        said = {"error": error.what, "fix": error.fix, "line": error.line if isinstance(error, BadRow) else None}
    with project.database.read() as session:
        said["rows"] = sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in (Annotator, Judgement, Policy, Prompt, Question, Sample))
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage would count what the parent held before the fork
    said["megabytes"] = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    said["seconds"] = sum(os.times()[:2])
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1]))
