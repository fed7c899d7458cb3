"""How far people agree, how each set's answers look, what other methods say: the newest measurement, and a button for another."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup
from sqlalchemy import select

from truing.feedback.disputes import EDGES
from truing.pages.charts import histogram, interval_bar
from truing.store.clock import now
from truing.store.overview import loop
from truing.store.tables import Judgement, Prompt
from truing.studio.manage.desk import Manager, Sent, back, project_of, said, text
from truing.studio.manage.measuring import age, measuring_of, under_way
from truing.studio.manage.people import lines, number
from truing.studio.render import fragment, page

router = APIRouter()

PROMPTS_SHOWN = 10
LEAST_SHOWN = 8


@router.get("/manage/quality")
def quality_page(request: Request, person: Manager) -> Response:
    """The newest measurement."""
    with project_of(request).database.read() as session:
        measured, disputes = loop.newest_result(session, "quality"), loop.newest_result(session, "disputes")
        found, old = disputes.result if disputes else {}, age(session)
        prompts = sorted(found.get("prompts", [])[:PROMPTS_SHOWN], key=lambda row: -float(row["disagreement"]))
        wanted = [row["prompt"] for row in prompts]
        texts = dict(session.execute(select(Prompt.id, Prompt.text).where(Prompt.id.in_(wanted))).all())
        people, _ = lines(session)
        doing, judgements = under_way(session, now()), loop.total(session, Judgement)
    known = sorted((line for line in people if line.measured.get("trust") is not None), key=lambda line: float(line.measured["trust"]))
    second = {one["id"]: one for one in ((measured.result.get("second_opinion") or {}).get("annotators", []) if measured else [])}
    others = [(line, second[line.person.id]) for line in known[: 2 * LEAST_SHOWN] if line.person.id in second]
    return page(
        request, "manage/quality.html", person=person, others=others, quality=measured.result if measured else {}, found=found, age=old, doing=doing,
        prompts=prompts, texts=texts, least=known[:LEAST_SHOWN], judgements=judgements, time_chart=_time(found), bar=bar, number=number, said=said(request),
        problem=measuring_of(request.app).problem, at=now(),
    )  # fmt: skip


@router.post("/manage/quality/measure")
def measure(request: Request, person: Manager, form: Sent) -> Response:
    """Measure again, in the background."""
    measuring_of(request.app).start(project_of(request), second_opinion=text(form, "second") == "yes")
    return back("/manage/quality", "measuring")


@router.get("/manage/quality/state")
def state(request: Request, person: Manager) -> HTMLResponse:
    """How far the measurement is, for the page that waits for it."""
    with project_of(request).database.read() as session:
        doing = under_way(session, now())
    over = doing is None and not measuring_of(request.app).alive
    return HTMLResponse(fragment("manage/measuring.html", doing=doing, over=over))


def bar(row: dict[str, Any] | None, name: str, mark: float | None = None) -> Markup | None:
    """An interval on a line from 0 to 1; None where nothing is known."""
    if not row or row.get("value") is None:
        return None
    low, high = row.get("low"), row.get("high")
    words = f"{name}: {row['value']:.2f}" + (f", between {low:.2f} and {high:.2f}" if low is not None and high is not None else "")
    return interval_bar(row["value"], low, high, bounds=(min(0.0, row["value"], low or 0.0), 1.0), mark=mark, label=words)


def _time(found: dict[str, Any]) -> Markup | None:
    """How long answers took."""
    counts = found.get("time", {}).get("counts") or []
    return histogram([float(edge) for edge in EDGES], counts, label="Seconds an answer took") if sum(counts) else None
