"""Rounds: the list, what each made, and its report.

A report is one self-contained file with its style inside, which this studio's policy against inline styles doesn't let through. So the
file's style is served as a stylesheet of its own, and the few figures that the page passes to it become attributes.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.evaluation.report import write_report
from truing.pages.words import typeset
from truing.store.tables import Artifact, Round, Run
from truing.studio.manage.desk import Manager, back, project_of
from truing.studio.refusals import Refusal
from truing.studio.render import page

router = APIRouter()

Number = Annotated[int, InPath(ge=1, le=1_000_000)]
STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
OWN_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
FIGURE = re.compile(r' style="--(columns|depth):(\d{1,3})"')
MOST = 64  # columns, or depth, that the stylesheet knows


@router.get("/manage/rounds")
def rounds_page(request: Request, person: Manager) -> Response:
    """All rounds, the newest first, each with its verdict."""
    with project_of(request).database.read() as session:
        rounds = list(session.scalars(select(Round).order_by(Round.number.desc())))
        found = [(row, _facts(session, row, "evaluation")) for row in rounds]
    return page(request, "manage/rounds.html", person=person, rounds=found)


@router.get("/manage/rounds/round-{number}.html")
def linked(request: Request, person: Manager, number: Number) -> Response:
    """Where a report's link to another round's leads."""
    return RedirectResponse(f"/manage/rounds/{number}/report", status_code=303)


@router.get("/manage/rounds/{number}")
def round_page(request: Request, person: Manager, number: Number) -> Response:
    """What a round made, stage by stage, and how long it took."""
    with project_of(request).database.read() as session:
        row = _round(session, number)
        runs = list(session.scalars(select(Run).where(Run.round_id == row.id).order_by(Run.started_at, Run.id)))
        facts = {stage: _facts(session, row, stage) for stage in ("dataset", "reward", "policy", "evaluation")}
        parent = session.get(Round, row.parent_id) if row.parent_id else None
    report = _file(request, number)
    sentence = next(iter(facts["evaluation"].get("sentences", [])), None)
    return page(
        request,
        "manage/round.html",
        person=person,
        row=row,
        runs=runs,
        facts=facts,
        parent=parent,
        has_report=report.is_file(),
        sentence=typeset(sentence) if sentence else None,
    )


@router.post("/manage/rounds/{number}/report")
def write(request: Request, person: Manager, number: Number) -> Response:
    """Write the report afresh from the store, then show it."""
    with project_of(request).database.read() as session:
        _round(session, number)
    write_report(project_of(request), number)
    return back(f"/manage/rounds/{number}/report")


@router.get("/manage/rounds/{number}/report")
def report_page(request: Request, person: Manager, number: Number) -> Response:
    """The report's file, with its style as a file of its own."""
    return HTMLResponse(without_inline_style(_report(request, number), f"/manage/rounds/{number}/report.css"))


@router.get("/manage/rounds/{number}/report.css")
def report_style(request: Request, person: Manager, number: Number) -> Response:
    """The style of the report's file."""
    return Response(style_of(_report(request, number)), media_type="text/css")


def without_inline_style(html: str, address: str) -> str:
    """A report as the studio's policy lets it through.

    Args:
        html:    the report. What others wrote is escaped in it: no quotation mark of theirs can open an attribute.
        address: where its style is.
    """
    version = hashlib.sha256(html.encode()).hexdigest()[:12]
    html = STYLE.sub(f'<link rel="stylesheet" href="{address}?v={version}">', OWN_POLICY.sub("", html, count=1), count=1)
    return FIGURE.sub(r' data-\1="\2"', html)


def style_of(html: str) -> str:
    """The style of a report, and what its attributes mean."""
    found = STYLE.search(html)
    figures = [f'[data-{name}="{value}"] {{ --{name}: {value}; }}' for name in ("columns", "depth") for value in range(MOST)]
    return "\n".join([found.group(1) if found else "", *figures])


def _report(request: Request, number: int) -> str:
    file = _file(request, number)
    if not file.is_file():
        raise Refusal(404, f"round {number} has no report yet", fix=f"write it on the page of the round, or with `truing report {number}`")
    return file.read_text(encoding="utf-8")


def _file(request: Request, number: int) -> Path:
    return project_of(request).root / "reports" / f"round-{number}.html"


def _round(session: Session, number: int) -> Round:
    row = session.scalars(select(Round).where(Round.number == number)).one_or_none()
    if row is None:
        raise Refusal(404, f"there is no round {number}", fix="choose one of the list")
    return row


def _facts(session: Session, row: Round, stage: str) -> dict[str, Any]:
    """What the round's artifact of a stage says of itself."""
    artifact = session.get(Artifact, row.made[stage]) if row.made.get(stage) else None
    return artifact.manifest.get("facts", {}) if artifact else {}
