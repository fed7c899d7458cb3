"""The doors: sign in and out, the owner's first link, invitations, and change of password."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from truing.errors import UserError
from truing.store.clock import now
from truing.store.tables import Role
from truing.studio import account
from truing.studio.auth import COOKIE, LONGEST, Person, end_session, require, signed_in
from truing.studio.invitations import Arrival, arrive, invitation_of, join
from truing.studio.refusals import Refusal
from truing.studio.render import page

router = APIRouter(include_in_schema=False)

Typed = Annotated[str, Form()]
Asked = Annotated[str, Query()]
Somebody = Annotated[Person, Depends(require(Role.ANNOTATOR))]


# ---- in and out ----


@router.get("/sign-in")
def sign_in_page(request: Request, next: Asked = "/") -> Response:
    """Name and password; who is signed in already goes on."""
    if signed_in(request) is not None:
        return RedirectResponse(inside(next), status_code=303)
    return page(request, "sign_in/sign_in.html", next=inside(next), name="", problem=None)


@router.post("/sign-in")
def sign_in(request: Request, name: Typed = "", password: Typed = "", next: Typed = "/") -> Response:
    """A new session for the right name and password."""
    state = request.app.state
    try:
        secret = account.sign_in(state.project, state.passwords, name, password, address=address_of(request), at=now())
    except Refusal as problem:
        return _again(request, "sign_in/sign_in.html", problem, next=inside(next), name=name)
    return _with_session(request, secret, inside(next))


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """The session ends at the server; the cookie goes too."""
    _end_old_session(request)
    answer = RedirectResponse("/sign-in", status_code=303)
    answer.delete_cookie(COOKIE, path="/", secure=request.app.state.https, httponly=True, samesite="lax")
    return answer


# ---- links ----


@router.get("/first/{secret}")
def first_page(request: Request, secret: str) -> Response:
    """Where the first owner chooses a name and a password."""
    with request.app.state.project.database.read() as store:
        invitation_of(store, secret, now(), owner=True)
    return page(request, "sign_in/first.html", name="", problem=None)


@router.post("/first/{secret}")
def first(request: Request, secret: str, name: Typed = "", password: Typed = "") -> Response:
    """Make the owner; the link is used up."""
    return _join(request, "sign_in/first.html", secret, name, password, owner=True)


@router.get("/join/{secret}")
def join_page(
    request: Request,
    secret: str,
    worker: Annotated[str, Query(alias="PROLIFIC_PID")] = "",
    study: Annotated[str, Query(alias="STUDY_ID")] = "",
    session: Annotated[str, Query(alias="SESSION_ID")] = "",
) -> Response:
    """Where somebody who was invited chooses a name and a password. A crowd worker, whom the panel's address names, needs neither."""
    with request.app.state.project.database.read() as store:
        invitation_of(store, secret, now(), owner=False, even_used_up=bool(worker))
    if worker:
        return page(request, "sign_in/crowd.html", arrival=Arrival(worker, study, session))
    return page(request, "sign_in/join.html", name="", problem=None)


@router.post("/join/{secret}")
def join_by_link(
    request: Request,
    secret: str,
    name: Typed = "",
    password: Typed = "",
    worker: Annotated[str, Form(alias="PROLIFIC_PID")] = "",
    study: Annotated[str, Form(alias="STUDY_ID")] = "",
    session: Annotated[str, Form(alias="SESSION_ID")] = "",
) -> Response:
    """Make the person; the link has one use less."""
    if not worker:
        return _join(request, "sign_in/join.html", secret, name, password, owner=False)
    opened = arrive(request.app.state.project, secret, Arrival(worker, study, session), at=now())
    return _with_session(request, opened, "/judge")


def _join(request: Request, template: str, secret: str, name: str, password: str, *, owner: bool) -> Response:
    state = request.app.state
    try:
        opened = join(state.project, state.passwords, secret, name, password, owner=owner, at=now())
    except UserError as problem:
        if isinstance(problem, Refusal) and problem.status == 404:
            raise
        return _again(request, template, problem, name=name)
    return _with_session(request, opened, "/")


# ---- password ----


@router.get("/password")
def password_page(request: Request, person: Somebody, changed: bool = False) -> Response:
    """The present password, and another."""
    return page(request, "sign_in/password.html", person=person, problem=None, changed=changed)


@router.post("/password")
def change_password(request: Request, person: Somebody, old: Typed = "", new: Typed = "") -> Response:
    """Another password: every other browser of this person is signed out."""
    state = request.app.state
    try:
        opened = account.change_password(state.project, state.passwords, person, old, new, address=address_of(request), at=now())
    except Refusal as problem:
        return _again(request, "sign_in/password.html", problem, person=person, changed=False)
    return _with_session(request, opened, "/password?changed=1")


# ---- what they share ----


def inside(address: str) -> str:
    """An address within the studio, for after the sign-in; anything that a browser could read as another site becomes the start page."""
    odd = not address.startswith("/") or address.startswith(("//", "/\\")) or not address.isprintable() or "\\" in address
    return "/" if odd else address


def address_of(request: Request) -> str:
    """Where a request came from."""
    return request.client.host if request.client else "unknown"


def _again(request: Request, template: str, problem: UserError, *, person: Person | None = None, **view: str | bool) -> Response:
    """The form once more, with what was wrong above it."""
    status, headers = (problem.status, problem.headers) if isinstance(problem, Refusal) else (400, {})
    answer = page(request, template, person=person, status=status, problem=problem, **view)
    answer.headers.update(headers)
    return answer


def _with_session(request: Request, secret: str, address: str) -> Response:
    """On to a page, with the new session's cookie; the one that this browser had before ends."""
    _end_old_session(request)
    answer = RedirectResponse(address, status_code=303)
    # the cookie lasts as long as a session can; the server ends it sooner where nobody uses it
    answer.set_cookie(COOKIE, secret, max_age=int(LONGEST.total_seconds()), path="/", secure=request.app.state.https, httponly=True, samesite="lax")
    return answer


def _end_old_session(request: Request) -> None:
    secret = request.cookies.get(COOKIE)
    if secret is not None:
        end_session(request.app.state.project, secret)
