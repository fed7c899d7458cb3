"""The web application: which rooms it has, what stands before them, how errors are answered, and how it is served."""

import ipaddress
import logging
import socket
import webbrowser
from collections.abc import Collection
from functools import cache
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import select
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session as Store
from starlette.exceptions import HTTPException

from truing.console import say
from truing.errors import Conflict, Unknown, UserError
from truing.store.clock import now
from truing.store.project import Project
from truing.store.tables import Annotator
from truing.studio import api, judge, manage, sign_in
from truing.studio.auth import may_upload, require_scope
from truing.studio.invitations import has_owner, make_owner_link
from truing.studio.passwords import Passwords
from truing.studio.refusals import Refusal, lead_to_sign_in, refuse, wants_json
from truing.studio.render import static_files
from truing.studio.security import READY, SMALLER, Limits, Pace, chain
from truing.studio.turns import provide_turns

log = logging.getLogger("truing.studio")

ROUTERS: tuple[APIRouter, ...] = (judge.doors, sign_in.router, judge.router, manage.router, api.router)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
ANY_ADDRESS = ("0.0.0.0", "::")
SECONDS_TO_STOP = 10


def create_app(
    project: Project,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    https: bool = False,
    owner_link_secret: str | None = None,
    names: Collection[str] = (),
    limits: Limits | None = None,
    passwords: Passwords | None = None,
) -> FastAPI:
    """The studio of a project.

    Args:
        host: the name or address it listens on.
        port: where it listens; 0 if that isn't known yet.
        https: whether people reach it by https, through a proxy that speaks it.
        owner_link_secret: opens /first/SECRET once, while nobody owns the project.
        names: further host names that people reach it by.
        limits: how much it takes at once.
        passwords: hashes passwords; default argon2id as its library recommends.
    """
    limits = limits or Limits()
    own_names = {host, *LOOPBACK_NAMES, *names} - set(ANY_ADDRESS)
    around = chain(limits, https=https, names=own_names, addresses=host in ANY_ADDRESS, may_upload=may_upload)
    app = FastAPI(title="Truing", docs_url=None, redoc_url=None, openapi_url=None, middleware=around)
    app.state.project = project
    app.state.https = https
    app.state.port = port
    app.state.passwords = passwords or Passwords()
    app.state.pace = Pace(limits.each_second, limits.burst)
    provide_turns(app)
    if owner_link_secret is not None:
        make_owner_link(project, at=now(), secret=owner_link_secret)
    app.add_api_route(READY, _ready, include_in_schema=False)
    app.add_api_route("/api/v1/openapi.json", _description, dependencies=[Depends(require_scope("read"))], include_in_schema=False)
    app.mount("/static", static_files(), name="static")
    for router in ROUTERS:
        app.include_router(router)
    _answer_errors(app)
    return app


async def _ready() -> dict[str, bool]:
    """Whether the studio answers; asks nothing of the store."""
    return {"ready": True}


@cache
def _description() -> dict[str, Any]:
    """The API's own description, the same that docs/openapi.json holds."""
    return api.document()


# ---- errors ----


def _answer_errors(app: FastAPI) -> None:
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(DataError, _not_storable)
    app.add_exception_handler(OperationalError, _store_busy)
    app.add_exception_handler(PoolTimeout, _store_busy)


def _user_error(request: Request, error: Exception) -> Response:
    """What a user can mend: a page without a session leads to the sign-in, trouble with the store is the studio's, the rest a 400."""
    assert isinstance(error, UserError)
    if isinstance(error, Refusal):
        if error.status == HTTPStatus.UNAUTHORIZED and not wants_json(request):
            return lead_to_sign_in(request)
        return refuse(request, error.status, error.what, error.fix, error.headers)
    if isinstance(error.__cause__, DBAPIError):
        log.error("the store: %s", error.what)
        full = "disk is full" in error.what
        what = "the disk of the studio is full: nothing of this was kept" if full else "the studio can't reach its store"
        return refuse(
            request, 507 if full else 503, what, "leave this page open and try again when whoever runs the studio has mended it", {"Retry-After": "10"}
        )
    return refuse(request, 404 if isinstance(error, Unknown) else 409 if isinstance(error, Conflict) else 400, error.what, error.fix)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "this address leads nowhere", 405: "this address doesn't take that"}.get(error.status_code, str(error.detail))
    fixes = {404: "check the address, or begin at the start page", 405: "use the page's own buttons", 413: SMALLER}
    return refuse(request, error.status_code, words, fixes.get(error.status_code, "check what was sent"), error.headers)


def _not_understood(request: Request, error: Exception) -> Response:
    """A form or JSON text that lacks something, or has something of another kind. What was sent isn't repeated: it may be a password."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    return refuse(request, 422 if wants_json(request) else 400, f"{place}: {first['msg'].lower()}", "mend it and send it again")


def _not_storable(request: Request, error: Exception) -> Response:
    """A text with NUL in it, or a number beyond 64 bits: PostgreSQL refuses them even where they are only looked for."""
    return refuse(request, 400, "this holds a character or a number that no database keeps", "mend it and send it again")


def _store_busy(request: Request, error: Exception) -> Response:
    log.error("the store: %s", type(error).__name__, exc_info=error)
    return refuse(request, 503, "the store is busy", "try again in a few seconds", {"Retry-After": "3"})


# ---- serving ----


def serve(project: Project, *, host: str = "127.0.0.1", port: int = 8000, https: bool = False, names: Collection[str] = (), open_browser: bool = False) -> None:
    """Serve the studio until it is stopped (Ctrl-C or SIGTERM), in one process.

    Raises:
        UserError: others could reach it and nobody can sign in yet, or the address is taken.
    """
    with project.database.read() as store:
        owned, somebody = has_owner(store), _somebody_signs_in(store)
    if not _is_loopback(host) and not somebody:
        raise UserError(f"others could reach the studio at {host}, and nobody can sign in to it yet", fix="make an owner first: truing studio add-owner NAME")
    listening = listen(host, port)
    port = listening.getsockname()[1]
    secret = make_owner_link(project, at=now()) if _is_loopback(host) and not owned else None
    app = create_app(project, host=host, port=port, https=https, names=names)
    address = _address(host, port, https=https, names=names)
    _announce(address, secret, exposed=not _is_loopback(host) and not https)
    if open_browser:
        webbrowser.open(f"{address}/first/{secret}" if secret else address)
    config = uvicorn.Config(  # loop and http are named, for uvicorn would take others where it finds them
        app, loop="asyncio", http="h11", ws="none", lifespan="off", log_level="warning", access_log=False, server_header=False, proxy_headers=https,
        timeout_keep_alive=65, timeout_graceful_shutdown=SECONDS_TO_STOP,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        say("the studio has stopped; every answer it thanked for is kept", then="truing studio")


def _somebody_signs_in(store: Store) -> bool:
    return store.scalars(select(Annotator.id).where(Annotator.password_hash.is_not(None), Annotator.active).limit(1)).first() is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; it takes connections before the pages are ready to answer them.

    Raises:
        UserError: the address can't be had.
    """
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
        # asyncio sets this on sockets that it opens itself; without it an answer's body waits 40 ms for the client to acknowledge its head
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        raise UserError(f"the studio can't listen at {host}, port {port}: {error}", fix="choose another with --host or --port") from error


def _address(host: str, port: int, *, https: bool, names: Collection[str]) -> str:
    """What to type in a browser."""
    if https and names:
        return f"https://{next(iter(names))}"
    shown = "localhost" if host in ANY_ADDRESS else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def _announce(address: str, secret: str | None, *, exposed: bool) -> None:
    say(f"the studio is at {address}")
    if secret is not None:
        say(f"nobody owns this project yet. This link makes you its owner; it works once, and for a day:\n  {address}/first/{secret}")
    if exposed:
        say("it speaks plain http: on a network you don't trust, put it behind https and start it with --https")
    say("Ctrl-C stops it")
