"""Import with a preview: a file is sent, looked at, and taken in when somebody has said yes. Until then nothing of it is in the store.

What was sent waits in the project's `imports/` for a day at most.
"""

import json
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from truing.errors import UserError
from truing.feedback.exchange import AUTO, FORMATS, import_judgements, preview_import
from truing.prompts import PromptSettings, import_prompts, preview_prompts
from truing.store.overview import loop
from truing.store.project import Project
from truing.store.tables import Prompt
from truing.studio.auth import Person
from truing.studio.manage.answers import shown_order, told
from truing.studio.manage.desk import Manager, Sent, back, project_of, said, text
from truing.studio.refusals import Refusal
from truing.studio.render import page

router = APIRouter()

KINDS = ("prompts", "judgements")
ROWS = 20  # shown of a file
ERRORS = 50
KEPT_SECONDS = 24 * 3600
NOTE = "import.json"
PLAIN = re.compile(r"[^\w.\- ]+")
Key = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]


class Upload(NamedTuple):
    """A file that was sent and waits."""

    key: str
    kind: str
    format: str
    file: Path


@router.get("/manage/import")
def import_page(request: Request, person: Manager, kind: str = "") -> Response:
    """Choose a file."""
    if kind not in KINDS:
        with project_of(request).database.read() as session:
            kind = "prompts" if not loop.total(session, Prompt) else "judgements"
    return _choose(request, person, kind)


@router.post("/manage/import")
def upload(request: Request, person: Manager, form: Sent) -> Response:
    """Keep the file aside, and look at it."""
    kind, format, sent = text(form, "kind"), text(form, "format") or AUTO, form.get("file")
    if kind not in KINDS or format not in (AUTO, *FORMATS):
        raise Refusal(400, "that is nothing that can be imported", fix="use the page's own form")
    if not isinstance(sent, UploadFile) or not sent.filename:
        return _choose(request, person, kind, format, UserError("no file was chosen", fix="choose one, then look at it"))
    kept = _keep(project_of(request), sent, kind, format)
    try:
        _look(project_of(request), kept)
    except UserError as problem:
        _forget(kept)
        return _choose(request, person, kind, format, problem)
    return back(f"/manage/import/{kept.key}")


@router.get("/manage/import/{key}")
def preview_page(request: Request, person: Manager, key: Key) -> Response:
    """The first rows as they would be taken in, what can't be used and why, and how much there is."""
    project = project_of(request)
    kept = _kept(project, key)
    view = _look(project, kept)
    return page(request, "manage/import_preview.html", person=person, upload=kept, told=told, shown_order=shown_order, **view)


@router.post("/manage/import/{key}")
def take_in(request: Request, person: Manager, key: Key, form: Sent) -> Response:
    """Take it in, in one transaction, or throw it away."""
    project = project_of(request)
    kept = _kept(project, key)
    if text(form, "yes") != "yes":
        _forget(kept)
        return back("/manage/import", "forgotten")
    strict = text(form, "strict") == "yes"
    try:
        report: Any
        if kept.kind == "prompts":
            report = import_prompts(project, project.settings(PromptSettings).model_copy(update={"strict": strict}), [kept.file])
        else:
            report = import_judgements(project, kept.file, kept.format, strict=strict)
    except UserError as problem:
        return page(
            request, "manage/import_preview.html", status=400, person=person, upload=kept, told=told, shown_order=shown_order,
            **(_look(project, kept) | {"problem": problem}),
        )  # fmt: skip
    _forget(kept)
    return page(request, "manage/import_done.html", person=person, upload=kept, report=report, refused=report.refused[:ERRORS])


def _choose(request: Request, person: Person, kind: str, format: str = AUTO, problem: UserError | None = None) -> Response:
    return page(
        request, "manage/import.html", status=400 if problem else 200, person=person, kind=kind, format=format, formats=FORMATS, problem=problem,
        said=said(request),
    )  # fmt: skip


# ---- what waits ----


def _look(project: Project, kept: Upload) -> dict[str, Any]:
    """What a preview shows of the file."""
    if kept.kind == "prompts":
        prompts = preview_prompts(project, project.settings(PromptSettings), kept.file, rows=ROWS)
        return {"prompts": prompts, "judgements": None, "refused": prompts.report.refused[:ERRORS], "problem": None}
    judgements = preview_import(kept.file, kept.format, rows=ROWS)
    return {"prompts": None, "judgements": judgements, "refused": judgements.refused[:ERRORS], "problem": None}


def _keep(project: Project, sent: UploadFile, kind: str, format: str) -> Upload:
    """Write what was sent into a folder of its own, under a key that can't be guessed."""
    place = project.root / "imports"
    _sweep(place)
    key = secrets.token_hex(16)
    folder = place / key
    folder.mkdir(parents=True)
    file = folder / "file" / (PLAIN.sub("_", Path(sent.filename or "").name)[-100:].lstrip(". ") or "file.jsonl")
    file.parent.mkdir()
    try:
        with file.open("wb") as out:
            shutil.copyfileobj(sent.file, out)
        (folder / NOTE).write_text(json.dumps({"kind": kind, "format": format, "file": file.name}), encoding="utf-8")
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"the file couldn't be kept aside: {error.strerror}", fix="free some space, then send it again") from error
    return Upload(key, kind, format, file)


def _kept(project: Project, key: str) -> Upload:
    folder = project.root / "imports" / key
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Refusal(404, "this file waits no longer: it was taken in, thrown away, or is older than a day", fix="send it again") from error
    return Upload(key, note["kind"], note["format"], folder / "file" / note["file"])


def _forget(kept: Upload) -> None:
    shutil.rmtree(kept.file.parent.parent, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Throw away what has waited for more than a day."""
    for folder in place.glob("*") if place.is_dir() else ():
        if time.time() - folder.stat().st_mtime > KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
