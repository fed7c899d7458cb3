"""The rest of the API: files of judgements out and in, rounds, and how things stand."""

import importlib.metadata
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import Depends, File, Form, Query, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator

from truing.feedback.exchange import AUTO, FORMATS, WRITABLE, export_judgements, import_judgements
from truing.feedback.native import NATIVE
from truing.store.log_pages import runs_under_way
from truing.store.overview.loop import counts
from truing.store.project import rounds_of
from truing.store.rows import require_clean
from truing.studio import wire
from truing.studio.auth import require_scope
from truing.studio.door import Here, door, refusals

PIECE = 1 << 16  # bytes of a file sent at a time
REFUSED_SHOWN = 100
UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
router = door()

# ---- files ----


READABLE = (AUTO, *FORMATS)


def _one_of(formats: tuple[str, ...]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name not in formats:
            raise ValueError(f"is one of {', '.join(formats)}")
        return name

    return check


BYTES: dict[str, Any] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "description": "the file"}


Written = Annotated[str, Query(json_schema_extra={"enum": [*WRITABLE]}), AfterValidator(_one_of(WRITABLE))]
Sent = Annotated[str, Form(json_schema_extra={"enum": [*READABLE]}), AfterValidator(_one_of(READABLE))]


@router.get("/export", dependencies=[Depends(require_scope("read"))], response_class=StreamingResponse, responses=refusals() | {200: BYTES})
def get_export(project: Here, format: Written = NATIVE) -> StreamingResponse:
    """All judgements as a file (scope read): the same log gives the same bytes."""
    folder = Path(tempfile.mkdtemp(prefix="truing-export-"))
    try:
        export_judgements(project, format, folder / "export")
        file = (folder / "export").open("rb")
    finally:
        shutil.rmtree(folder)  # the open file lives until it is sent
    return StreamingResponse(
        _pieces(file), media_type="application/octet-stream", headers={"Content-Disposition": f'attachment; filename="judgements-{format}"'}
    )


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE):
            yield piece


@router.post("/import", dependencies=[Depends(require_scope("judgements:write"))], responses=refusals(413))
def post_import(
    project: Here,
    file: Annotated[UploadFile, File(description="a file of judgements; its name tells whether it is packed")],
    format: Sent = AUTO,
    strict: Annotated[bool, Form(description="refuse the whole file if one row can't be used")] = False,
) -> wire.ImportView:
    """Take in a file of judgements (scope judgements:write), in one transaction; sending it twice is no harm."""
    name = Path(file.filename or "upload").name[-wire.LONGEST_NAME :]
    require_clean(name)
    with tempfile.TemporaryDirectory(prefix="truing-import-") as folder:
        place = Path(folder) / (UNSAFE.sub("_", name).lstrip(".") or "upload")
        with place.open("wb") as copy:
            shutil.copyfileobj(file.file, copy, PIECE)
        report = import_judgements(project, place, format, name=name, strict=strict)
    refused = [wire.RefusedRow(line=row.line, what=row.reason, fix=row.fix) for row in report.refused[:REFUSED_SHOWN]]
    return wire.ImportView(
        added=report.added, duplicates=report.duplicates, prompts=report.prompts, samples=report.samples, questions=report.questions, refused=refused,
        refused_in_all=len(report.refused) + report.more_refused,
    )  # fmt: skip


# ---- rounds and state ----


@router.get("/rounds", dependencies=[Depends(require_scope("read"))], responses=refusals())
def get_rounds(project: Here) -> wire.RoundViews:
    """All rounds and what each has made (scope read)."""
    rounds = rounds_of(project)
    numbers = {row.id: row.number for row in rounds}
    return wire.RoundViews(
        rounds=[
            wire.RoundView(
                number=row.number, parent=numbers.get(row.parent_id or 0), made=row.made, created_at=row.created_at, sealed_at=row.sealed_at
            )
            for row in rounds
        ]
    )  # fmt: skip


@router.get("/status", dependencies=[Depends(require_scope("read"))], responses=refusals())
def get_status(project: Here) -> wire.StatusView:
    """What the project holds and which runs are under way (scope read)."""
    with project.database.read() as session:
        found = counts(session)
        running = [
            wire.RunView(stage=run.stage, started_at=run.started_at, heartbeat_at=run.heartbeat_at, progress=run.progress) for run in runs_under_way(session)
        ]
    numbers = {name: value for name, value in found._asdict().items() if name in wire.StatusView.model_fields}
    return wire.StatusView(project=project.root.absolute().name, version=importlib.metadata.version("truing"), running=running, **numbers)
