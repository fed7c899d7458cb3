"""One tuning run, while it goes on and afterwards: how far it is, its numbers with what is normal, named failures, and sampled answers of every update.

The page is made of three parts, each of which `live.js` fetches again by itself, so that an answer stays as it is while somebody reads it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup

from truing.errors import UserError
from truing.pages.charts import Line, line_chart
from truing.policy.diagnosis import CHECKS
from truing.policy.figures import Figure, figures
from truing.policy.record import Record, prompt_texts, record_of
from truing.store.clock import now
from truing.store.tables import Round, Run, RunState
from truing.studio.manage.desk import Manager, project_of
from truing.studio.manage.home import doing
from truing.studio.refusals import Refusal
from truing.studio.render import fragment, page

router = APIRouter()

PLOT = 96  # px, of each small curve
RunId = Annotated[str, InPath(pattern=r"^[!-~]{1,36}$")]
Update = Annotated[int | None, Query(ge=1, le=1_000_000_000)]
Part = Literal["state", "figures", "samples"]


class Drawn(NamedTuple):
    """A figure and its curve; `troubles` are the failures found in it."""

    figure: Figure
    svg: Markup
    troubles: list[str]


@router.get("/manage/tuning/{run_id}")
def tuning_page(request: Request, person: Manager, run_id: RunId, update: Update = None) -> Response:
    """A tuning run; with an update, its sampled answers instead of the newest."""
    run, record, trouble = _told(request, run_id)
    parts = _state(request, run, record) | _figures(request, run, record) | _samples(request, run, record, update)
    return page(request, "manage/tuning.html", person=person, trouble=trouble, **parts)


@router.get("/manage/tuning/{run_id}/live/{part}")
def live(request: Request, person: Manager, run_id: RunId, part: Part) -> HTMLResponse:
    """A part of it, for the page that shows it."""
    run, record, _ = _told(request, run_id)
    view = {"state": _state, "figures": _figures, "samples": _samples}[part](request, run, record)
    return HTMLResponse(fragment(f"manage/tuning_{part}.html", **view))


def _told(request: Request, run_id: str) -> tuple[Run, Record, UserError | None]:
    """The run, what it has told, and why that is nothing where it should be something."""
    project = project_of(request)
    with project.database.read() as session:
        run = session.get(Run, run_id)
    if run is None or run.stage != "tune":
        raise Refusal(404, "there is no such tuning run", fix="the loop shows the newest one, and a round those that it made")
    try:
        return run, record_of(project, run), None
    except UserError as error:
        return run, Record({}, None, [], [], []), error


def _state(request: Request, run: Run, record: Record) -> dict[str, Any]:
    """How far it is."""
    at = now()
    with project_of(request).database.read() as session:
        row = session.get(Round, run.round_id) if run.round_id is not None else None
    return {
        "run": run, "over": run.state == RunState.DONE, "doing": doing(run, at), "done": record.done, "updates": record.updates,
        "algorithm": record.settings.get("algorithm"), "round": row.number if row else None, "policy": run.result.get("policy"),
        "seconds": run.seconds, "stopped": run.result.get("stopped"), "back_at": run.result.get("updates"),
    }  # fmt: skip


def _figures(request: Request, run: Run, record: Record) -> dict[str, Any]:
    """Its curves and what is wrong with them."""
    found = {one.failure for one in record.findings}
    drawn = [Drawn(figure, _curve(figure), [failure for failure in figure.failures if failure in found]) for figure in figures(record)]
    return {"over": run.state == RunState.DONE, "drawn": drawn, "findings": record.findings, "checks": list(CHECKS)}


def _curve(figure: Figure) -> Markup:
    times = 100 if figure.form == "percent" else 1
    lines = [Line(figure.name, [(x, times * y) for x, y in figure.points])]
    if figure.beside is not None:
        lines.append(Line(figure.beside[0], figure.beside[1], main=False))
    if figure.target is not None:
        ends = (figure.points[0][0], figure.points[-1][0])
        lines.append(Line("target", [(x, figure.target) for x in ends], main=False, style="target"))
    unit = "percent" if figure.form == "percent" else figure.unit
    return line_chart(lines, label=f"{figure.name} in {unit}" if unit else figure.name, height=PLOT)


def _samples(request: Request, run: Run, record: Record, update: int | None = None) -> dict[str, Any]:
    """The sampled answers of an update, by default the newest, and the way to those before and after it."""
    updates = sorted({int(one["update"]) for one in record.shown})
    newest = updates[-1] if updates else 0
    at = newest if update is None else min(updates, key=lambda one: abs(one - update), default=0)
    rows = record.of_update(at)
    with project_of(request).database.read() as session:
        prompts = prompt_texts(session, [str(row["prompt_id"]) for row in rows])
    return {
        "run": run, "over": run.state == RunState.DONE, "at": at, "first": updates[0] if updates else 0, "newest": newest, "chosen": update is not None,
        "before": max((one for one in updates if one < at), default=None), "after": min((one for one in updates if one > at), default=None),
        "answers": [_answer(row, prompts) for row in rows], "draws": not record.rows or "objective/scores" in record.rows[-1],
    }  # fmt: skip


def _answer(row: Mapping[str, Any], prompts: Mapping[str, str]) -> dict[str, Any]:
    prompt_id = str(row["prompt_id"])
    return {"prompt_id": prompt_id, "prompt": prompts.get(prompt_id), "text": row["text"], "score": row["score"], "finished": row["finished"]}
