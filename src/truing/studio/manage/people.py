"""The people of a project: how far each can be trusted, what they may do, and the links that let more in."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from truing.errors import UserError
from truing.feedback.people import remove_person, set_active, set_role
from truing.pages.charts import interval_bar
from truing.stats import wilson
from truing.store.clock import now
from truing.store.overview import browse, loop
from truing.store.overview.people import PersonRow, people
from truing.store.tables import Role
from truing.studio.auth import Person, end_sessions, refuse_unless_above
from truing.studio.invitations import invitations_of, make_invitation, revoke_invitation
from truing.studio.manage.answers import told
from truing.studio.manage.desk import Manager, Sent, back, project_of, said, text, whole
from truing.studio.refusals import Refusal
from truing.studio.render import page

router = APIRouter()

ROLES = {Role.ANNOTATOR: "answers questions", Role.MANAGER: "sets up questions, sees everything", Role.OWNER: "may do all, and decides who manages"}


class Line(NamedTuple):
    """Somebody as the table shows them. `measured` is what quality control last found of them; empty before that."""

    person: PersonRow
    measured: Mapping[str, Any]
    gold: Mapping[str, Any] | None  # {"value", "low", "high", "n"}
    bar: Markup | None  # of trust


def lines(session: Session) -> tuple[list[Line], Any]:
    """Everybody, and the run that measured them (None before the first)."""
    run = loop.newest_result(session, "quality")
    measured = {one["id"]: one for one in (run.result.get("annotators", []) if run else [])}
    return [_line(person, measured.get(person.id, {})) for person in people(session)], run


def _line(person: PersonRow, measured: Mapping[str, Any]) -> Line:
    gold = None
    if measured.get("gold_n"):
        found = wilson(measured["gold_right"], measured["gold_n"])
        gold = {"value": found.value, "low": found.low, "high": found.high, "n": found.n}
    trust = measured.get("trust")
    bar = None
    if trust is not None and math.isfinite(trust):
        low, high = measured.get("trust_low"), measured.get("trust_high")
        bar = interval_bar(
            trust, low, high, label=f"trust {trust:.2f}" + (f", between {low:.2f} and {high:.2f}" if low is not None and high is not None else "")
        )
    return Line(person, measured, gold, bar)


def number(measured: Mapping[str, Any], name: str, n: str = "") -> dict[str, Any] | None:
    """One of quality control's numbers with its bounds, as pages show numbers; None where nothing is known."""
    value = measured.get(name)
    if value is None or not math.isfinite(value):
        return None
    low, high = measured.get(f"{name}_low"), measured.get(f"{name}_high")
    return {"value": value, "low": low, "high": high, "n": measured.get(n or f"{name}_n")}


# ---- pages ----


@router.get("/manage/people")
def people_page(request: Request, person: Manager) -> Response:
    """The table of people, and the links that let more in."""
    return _page(request, person)


@router.get("/manage/people/{annotator_id}")
def person_page(request: Request, person: Manager, annotator_id: str) -> Response:
    """One person: their numbers, their last answers, and what can be done."""
    with project_of(request).database.read() as session:
        found, run = lines(session)
        line = next((one for one in found if one.person.id == annotator_id), None)
        if line is None:
            raise Refusal(404, "there is nobody here with that id", fix="choose somebody of the list")
        last = browse.judgements_page(session, browse.Wanted(annotator=annotator_id), size=10).rows
    above = may_decide(person, Role(line.person.role))
    return page(
        request, "manage/person.html", person=person, line=line, run=run, last=last, told=told, number=number, above=above, said=said(request),
        roles={role: words for role, words in ROLES.items() if may_decide(person, role)},
    )  # fmt: skip


def _page(request: Request, person: Person, *, link: str | None = None, problem: UserError | None = None, typed: Mapping[str, str] | None = None) -> Response:
    with project_of(request).database.read() as session:
        found, run = lines(session)
        invitations = invitations_of(session, now())
    filled = {"name": "", "role": "annotator", "uses": "30", "days": "14"} | dict(typed or {})
    roles = {role: ROLES[role] for role in (Role.ANNOTATOR, Role.MANAGER) if may_decide(person, role)}
    return page(
        request, "manage/people.html", status=400 if problem else 200, person=person, lines=found, run=run, invitations=invitations, link=link,
        problem=problem, typed=filled, number=number, said=said(request), roles=roles,
    )  # fmt: skip


# ---- what can be done ----


@router.post("/manage/people/{annotator_id}/role")
def change_role(request: Request, person: Manager, annotator_id: str, form: Sent) -> Response:
    """Let somebody do more, or less."""
    role = text(form, "role")
    if role not in list(Role):
        raise Refusal(400, f"there is no role {role!r}", fix="choose one of the list")
    _may_change(request, person, annotator_id)
    refuse_unless_above(person, Role(role))
    set_role(project_of(request), annotator_id, role)
    return back(f"/manage/people/{annotator_id}", "role")


@router.post("/manage/people/{annotator_id}/active")
def change_active(request: Request, person: Manager, annotator_id: str, form: Sent) -> Response:
    """Let somebody rest, or come back. Who rests is signed out."""
    _may_change(request, person, annotator_id)
    active, project = text(form, "active") == "yes", project_of(request)
    set_active(project, annotator_id, active)
    if not active:
        with project.database.write() as session:
            end_sessions(session, annotator_id)
    return back(f"/manage/people/{annotator_id}", "returns" if active else "rests")


@router.post("/manage/people/{annotator_id}/remove")
def remove(request: Request, person: Manager, annotator_id: str, form: Sent) -> Response:
    """Take away all that says who somebody is; says what is left, and which datasets name them."""
    before = _may_change(request, person, annotator_id)
    if annotator_id == person.id:
        raise Refusal(400, "you can't remove yourself", fix="ask another manager or owner")
    removed = remove_person(project_of(request), annotator_id, at=now())
    return page(request, "manage/removed.html", person=person, before=before, removed=removed, annotator_id=annotator_id)


def _may_change(request: Request, person: Person, annotator_id: str) -> PersonRow:
    """Somebody whose role is below the manager's, or anybody for an owner."""
    with project_of(request).database.read() as session:
        found = next((one for one in people(session) if one.id == annotator_id), None)
    if found is None:
        raise Refusal(404, "there is nobody here with that id", fix="choose somebody of the list")
    refuse_unless_above(person, Role(found.role))
    return found


def may_decide(person: Person, role: Role) -> bool:
    """Whether a person may give or take away this role."""
    try:
        refuse_unless_above(person, role)
    except Refusal:
        return False
    return True


# ---- links ----


@router.post("/manage/invitations")
def invite(request: Request, person: Manager, form: Sent) -> Response:
    """A new link; it is shown once, on the page that answers."""
    typed = {name: text(form, name) for name in ("name", "role", "uses", "days")}
    try:
        if typed["role"] not in (Role.ANNOTATOR, Role.MANAGER):
            raise Refusal(400, "an invitation is for annotators or managers", fix="choose one of the two")
        refuse_unless_above(person, Role(typed["role"]))
        secret = make_invitation(project_of(request), typed["name"], Role(typed["role"]), whole(form, "uses", 1, 10_000), whole(form, "days", 1, 365), at=now())
    except UserError as problem:
        return _page(request, person, problem=problem, typed=typed)
    return _page(request, person, link=address_here(request, f"/join/{secret}"))


@router.post("/manage/invitations/{invitation_id}/revoke")
def revoke(request: Request, person: Manager, invitation_id: str) -> Response:
    """A link lets nobody in any more."""
    revoke_invitation(project_of(request), invitation_id)
    return back("/manage/people", "revoked")


def address_here(request: Request, path: str) -> str:
    """The whole address of a path of this studio, as the browser that asks reached it."""
    return f"{'https' if request.app.state.https else 'http'}://{request.headers['host']}{path}"
