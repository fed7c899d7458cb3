"""The loop at a glance: what there is of everything, what is under way, and what to do next."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.store.clock import now
from truing.store.overview import loop
from truing.store.tables import Role, Round, Run, RunState
from truing.studio.auth import Person, require
from truing.studio.manage.desk import Manager, project_of
from truing.studio.manage.sparks import sparkline
from truing.studio.render import fragment, page

router = APIRouter()

SILENT_AFTER = {"quality": 900.0}  # seconds without a sign of life after which a run is taken for dead: one that doesn't tell how far it is gets longer
SILENT = 60.0  # any other
CARD_OF = {
    "samples": "samples", "ask": "questions", "annotate": "judgements", "quality": "judgements", "disputes": "judgements", "preferences": "preferences",
    "reward": "reward", "tune": "policy", "evaluate": "verdict",
}  # fmt: skip
DOING = {
    "samples": "drawing samples", "ask": "making questions", "annotate": "the simulated crowd answers", "quality": "measuring agreement",
    "disputes": "looking for disputes", "preferences": "freezing preferences", "reward": "fitting", "tune": "tuning", "evaluate": "comparing",
}  # fmt: skip
TOLD_IN_FULL = {"tune": "tuning"}  # stage → the room that has a page for each of its runs
CURVES = {"objective/scores": "score", "objective/kl": "KL"}


class Action(NamedTuple):
    """What to do: somewhere to go, or a command to type."""

    name: str
    address: str = ""
    command: str = ""


class Doing(NamedTuple):
    """A run as its card shows it."""

    stage: str
    words: str
    state: str  # running, silent, failed or interrupted
    done: float | None
    total: float | None
    left_s: float | None
    silent_s: float
    numbers: list[tuple[str, float]]
    curves: list[tuple[str, float, Markup]]
    error: str | None

    @property
    def alive(self) -> bool:
        """Whether it is under way."""
        return self.state == "running"


class Card(NamedTuple):
    """One stage of the loop."""

    key: str
    name: str
    number: str | None  # the large one; None when there is nothing yet
    unit: str
    measure: Mapping[str, Any] | None  # the newest number, with its interval
    measure_name: str
    form: str  # percent or decimal
    notes: list[str]
    action: Action
    address: str  # where its things are listed
    doing: Doing | None
    next: bool  # whether this is the one to go on with
    watch: str = ""  # where its newest run is told in full


@router.get("/")
def home(request: Request, person: Annotated[Person, Depends(require(Role.ANNOTATOR))]) -> Response:
    """The loop, for managers; annotators go to their questions."""
    if person.role == Role.ANNOTATOR:
        return RedirectResponse("/judge", status_code=303)
    return page(request, "manage/home.html", person=person, **_view(request))


@router.get("/manage/live")
def live(request: Request, person: Manager) -> HTMLResponse:
    """The cards alone, for the page that shows them."""
    return HTMLResponse(fragment("manage/loop.html", **_view(request)))


def _view(request: Request) -> dict[str, Any]:
    at = now()
    with project_of(request).database.read() as session:
        counts = loop.counts(session)
        cards = cards_of(session, counts, at)
        return {"cards": cards, "counts": counts, "people_now": loop.people_now(session, at), "next": next((card for card in cards if card.next), None)}


def cards_of(session: Session, counts: loop.Counts, at: datetime) -> list[Card]:
    """The stages in the order of the data."""
    latest = loop.latest_runs(session)
    runs = _under_way(latest, at)
    watched = {CARD_OF[stage]: f"/manage/{room}/{latest[stage].id}" for stage, room in TOLD_IN_FULL.items() if stage in latest}
    cards = [
        _prompts(counts), _samples(counts), _questions(counts), _judgements(session, counts, at), _preferences(session), _reward(session),
        _policy(session, counts), _verdict(session),
    ]  # fmt: skip
    cards = [card._replace(doing=runs.get(card.key), watch=watched.get(card.key, "")) for card in cards]
    first = next((card.key for card in cards if _unfinished(card, counts)), None)
    return [card._replace(next=card.key == first) for card in cards]


def _unfinished(card: Card, counts: loop.Counts) -> bool:
    return counts.answered < counts.wanted if card.key == "judgements" and card.number else card.number is None


# ---- one card each ----


def _card(key: str, name: str, n: int | None, unit: str, notes: list[str], action: Action, address: str, **more: Any) -> Card:
    empty: dict[str, Any] = {"measure": None, "measure_name": "", "form": "decimal", "doing": None, "next": False}
    return Card(key, name, f"{n:,}" if n else None, unit, notes=notes, action=action, address=address, **(empty | more))


def _prompts(counts: loop.Counts) -> Card:
    notes = [f"{counts.held_out:,} held out for honest evaluation"] if counts.prompts else ["what people ask the model"]
    return _card("prompts", "Prompts", counts.prompts, "", notes, Action("Import prompts", "/manage/import?kind=prompts"), "/manage/prompts")


def _samples(counts: loop.Counts) -> Card:
    by = [f"by {_many(counts.policies, 'policy', 'policies')}" if counts.policies else "", f"{counts.by_people:,} by people" if counts.by_people else ""]
    notes = [", ".join(filter(None, by))] if counts.samples else ["the model’s answers to them"]
    return _card("samples", "Samples", counts.samples, "", notes, Action("Draw samples", command="truing sample"), "/manage/samples")


def _questions(counts: loop.Counts) -> Card:
    notes = [f"in {_many(counts.sets, 'set')}, {counts.open_sets} open"] if counts.sets else ["what people are asked about them"]
    return _card("questions", "Questions", counts.questions, "", notes, Action("Set up questions", "/manage/sets/new"), "/manage/sets")


def _judgements(session: Session, counts: loop.Counts, at: datetime) -> Card:
    measured = loop.newest_result(session, "quality")
    notes = [f"{counts.answered:,} of {counts.wanted:,} wanted answers"] if counts.wanted else ["what people say"]
    each_hour = loop.pace(session, at).get(None)
    if each_hour is not None and counts.answered < counts.wanted:
        hours = (counts.wanted - counts.answered) / each_hour.each_hour
        notes.append(f"{each_hour.each_hour:,.0f} an hour, {_hours(hours)} left")
    action = Action("Invite people", "/manage/people") if counts.answered < counts.wanted or not counts.wanted else Action("See the quality", "/manage/quality")
    alpha = measured.result.get("alpha") if measured else None
    return _card("judgements", "Judgements", counts.judgements, "", notes, action, "/manage/judgements", measure=alpha, measure_name="agreement α")


def _preferences(session: Session) -> Card:
    found = loop.newest(session, "dataset")
    notes = ["judgements, weighed by trust"]
    if found is not None:
        people = found.facts.get("annotators")
        notes = [", ".join(filter(None, [f"version {found.version}" if found.version else "", f"from {people:,} people" if people else ""])) or "frozen"]
    pairs = found.facts.get("pairs") if found else None
    return _card("preferences", "Preferences", pairs, "", notes, Action("Freeze them", command="truing preferences"), "/manage/rounds")


def _reward(session: Session) -> Card:
    found = loop.newest(session, "reward")
    facts = found.facts if found else {}
    notes = [f"learned from {facts['n_train']:,} pairs" if facts.get("n_train") else "made"] if found else ["what the preferences teach"]
    card = _card("reward", "Reward model", None, "", notes, Action("Fit one", command="truing reward train"), "/manage/rounds")
    if found is None:
        return card
    accuracy = facts.get("accuracy")
    return card._replace(number=_percent(accuracy) or "made", unit="right on held-out pairs" if _percent(accuracy) else "", measure=accuracy, form="percent")


def _policy(session: Session, counts: loop.Counts) -> Card:
    found = loop.newest(session, "policy")
    facts = found.facts if found else {}
    notes = [] if found else ["the tuned model"]
    if facts.get("objective/scores") is not None:
        notes = [f"score {facts['objective/scores']:+.2f}, KL {facts.get('objective/kl') or 0:.1f} nats".replace("-", "−")]
    card = _card("policy", "Policy", counts.tuned, "tuned", notes, Action("Tune one", command="truing tune"), "/manage/rounds")
    if found is None:
        return card
    return card._replace(number=f"{facts['updates']:,}" if facts.get("updates") else card.number, unit="updates" if facts.get("updates") else "tuned")


def _verdict(session: Session) -> Card:
    found = loop.newest(session, "evaluation")
    last = _round_of(session, found.id) if found else None
    win = found.facts.get("win_rate") if found else None
    action = Action("Compare them", command="truing evaluate") if found is None else Action("The next round", command="truing round next")
    notes = [f"round {last.number}: {found.facts.get('verdict', '')}" if last else str(found.facts.get("verdict", ""))] if found else ["is it better, blind?"]
    card = _card("verdict", "Verdict", None, "", notes, action, f"/manage/rounds/{last.number}" if last else "/manage/rounds")
    return card._replace(number=_percent(win), unit="of matches won", measure=win, form="percent") if win else card


def _round_of(session: Session, evaluation_id: str) -> Round | None:
    """The round that ended with an evaluation; None for one that was asked for by itself."""
    return next((row for row in session.scalars(select(Round).order_by(Round.number.desc())) if row.made.get("evaluation") == evaluation_id), None)


# ---- what is under way ----


def _under_way(runs: Mapping[str, Run], at: datetime) -> dict[str, Doing]:
    """Card → its run, if that is under way or has stopped before its end. Of several the one heard of last."""
    found: dict[str, Doing] = {}
    for run in sorted(runs.values(), key=lambda run: run.heartbeat_at):
        key = CARD_OF.get(run.stage)
        if key is not None:
            found.pop(key, None)
            if run.state != RunState.DONE:
                found[key] = doing(run, at)
    return found


def doing(run: Run, at: datetime) -> Doing:
    """A run as its card shows it: the numbers that its stage wrote into `progress`."""
    facts, silent = run.progress, (at - run.heartbeat_at).total_seconds()
    state = "silent" if run.state == RunState.RUNNING and silent > _patience(run) else run.state
    curves = []
    for key, name in CURVES.items():
        values = facts.get("curves", {}).get(key) or []
        drawn = sparkline(values, f"{name}, {len(values)} updates, now {values[-1]:.2f}") if values else None
        if drawn is not None:
            curves.append((name, values[-1], drawn))
    numbers = [(name, float(facts[key])) for key, name in CURVES.items() if facts.get(key) is not None and not curves]
    left = facts.get("left_s")
    done, total = facts.get("done"), facts.get("total")
    return Doing(
        run.stage, DOING.get(run.stage, run.stage), state, done, total, None if left is None else max(0.0, left - silent), silent, numbers, curves, run.error
    )


def _patience(run: Run) -> float:
    """Seconds without a sign of life after which a run is taken for dead; one whose steps are long gets three of them."""
    done = run.progress.get("done")
    return max(SILENT_AFTER.get(run.stage, SILENT), 3 * run.seconds / done if done else 0.0)


def _many(n: int, one: str, several: str = "") -> str:
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def _percent(number: Mapping[str, Any] | None) -> str | None:
    return f"{100 * number['value']:.0f}\u202f%" if number and number.get("value") is not None else None


def _hours(hours: float) -> str:
    """A time that is left, in the unit one would say it in."""
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
