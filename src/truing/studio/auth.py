"""Who is asking: people by a session's cookie, scripts by a token. Every secret is stored as its sha256 and shown once.

`require(role)` and `require_scope(scope)` are what a route depends on. Names and passwords stand in account.py, links that
let people in in invitations.py.
"""

import hashlib
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, NamedTuple

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import bindparam, delete, select
from sqlalchemy.orm import Session as Store

from truing.store.clock import now
from truing.store.database import brief
from truing.store.project import Project
from truing.store.tables import Annotator, Role, Session, Token
from truing.studio.refusals import Refusal
from truing.studio.security import bearer

COOKIE = "truing_session"
IDLE = timedelta(days=14)  # a session that nobody uses ends after this
LONGEST = timedelta(days=60)  # and every session after this
RENEWED_AFTER = timedelta(days=1)  # a session's end is moved at most so often: reading must not become writing
LONGEST_NAME = 80  # characters
SCOPES = ("prompts:write", "samples:write", "questions:write", "judgements:write", "read")
RESERVED = ("removed-", "crowd-", "user-")  # how the names begin that the studio gives
TOKEN_PREFIX = "truing_"  # lets a scanner of leaked secrets know one


class Person(NamedTuple):
    """Somebody who is signed in."""

    id: str
    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether they may do what this role may: owner before manager before annotator."""
        return at_least(self.role, role)


class Caller(NamedTuple):
    """Who calls the API: a token, or a manager's own browser."""

    name: str
    person: Person | None
    token_id: str | None


def at_least(has: Role, needed: Role) -> bool:
    """Whether a role may do what another may."""
    order = list(Role)
    return order.index(has) <= order.index(needed)


def refuse_unless_above(person: Person, role: Role) -> None:
    """Let a person give, change or take away this role: only roles below their own, and an owner all of them.

    Raises:
        Refusal: it is not below theirs.
    """
    if person.role != Role.OWNER and at_least(role, person.role):
        raise Refusal(403, f"{person.name} is a {person.role} and may not decide who is {role}", fix="ask an owner of this project")


def hashed(secret: str) -> str:
    """What is stored of a secret of 256 random bits: no salt and no slow hash can make that harder to guess."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def plain_name(text: str) -> str:
    """A name as it is kept and looked up: one line, one spelling.

    Raises:
        Refusal: it is empty, longer than 80 characters, has signs that can't be seen, or begins as the studio's own names do.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    unseen = [sign for sign in name if unicodedata.category(sign)[0] == "C" and sign not in "\u200c\u200d"]  # the two joiners are part of some scripts
    if not 1 <= len(name) <= LONGEST_NAME or unseen:
        raise Refusal(400, f"a name has 1 to {LONGEST_NAME} letters, and no signs that can't be seen", fix="type another name")
    if name.casefold().startswith(RESERVED):
        raise Refusal(400, f"names that begin with {', '.join(RESERVED)} are the studio's own", fix="type another name")
    return name


# ---- sessions ----


def begin_session(store: Store, person_id: str, at: datetime) -> str:
    """A new session of a person; gives the secret for its cookie."""
    secret = secrets.token_urlsafe(32)
    store.execute(delete(Session).where(Session.expires_at <= at))
    store.add(Session(id=hashed(secret), annotator_id=person_id, created_at=at, expires_at=at + IDLE))
    return secret


def end_session(project: Project, secret: str) -> None:
    """Sign out: the cookie opens nothing any more."""
    with project.database.write() as store:
        store.execute(delete(Session).where(Session.id == hashed(secret)))


def end_sessions(store: Store, person_id: str) -> None:
    """Sign a person out everywhere."""
    store.execute(delete(Session).where(Session.annotator_id == person_id))


def person_of(project: Project, secret: str, at: datetime) -> Person | None:
    """Who a cookie belongs to; None if its session has ended or the person was paused or removed.

    A session that is used goes on for another 14 days, until 60 days after it began.
    """
    with project.database.read() as store:
        found = brief(store, _WHO, {"secret": hashed(secret), "at": at}).one_or_none()
    if found is None or not found.active:
        return None
    until = min(at + IDLE, found.created_at + LONGEST)
    if until - found.expires_at >= RENEWED_AFTER:
        with project.database.write() as store:
            kept = store.get(Session, hashed(secret))
            if kept is not None:
                kept.expires_at = until
    return Person(found.id, found.name, Role(found.role))


# Asked with every request, so it is built once and brings only what is needed.
_WHO = (
    select(Annotator.id, Annotator.name, Annotator.role, Annotator.active, Session.created_at, Session.expires_at)
    .join(Session, Session.annotator_id == Annotator.id)
    .where(Session.id == bindparam("secret"), Session.expires_at > bindparam("at"))
)


# ---- tokens ----


class TokenLine(NamedTuple):
    """A token as managers see it."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None


def make_token(project: Project, name: str, scopes: Iterable[str], days: int | None, *, at: datetime) -> str:
    """A new token; gives its secret, which can't be shown again.

    Args:
        name: what it is for.
        scopes: some of SCOPES.
        days: how long it works, 1 to 3,650; None for ever.

    Raises:
        UserError: a scope is unknown, or there is none, or the days are out of their bounds.
    """
    wanted = sorted(set(scopes))
    if not wanted or not set(wanted) <= set(SCOPES):
        raise Refusal(400, f"a token may do some of {', '.join(SCOPES)}", fix="choose at least one of them")
    if days is not None and not 1 <= days <= 3650:
        raise Refusal(400, f"a token works for 1 to 3,650 days, not {days}", fix="choose a number between")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    expires = None if days is None else at + timedelta(days=days)
    with project.database.write() as store:
        store.add(Token(id=hashed(secret), name=plain_name(name), scopes=wanted, created_at=at, expires_at=expires))
    return secret


def tokens_of(store: Store) -> list[TokenLine]:
    """All tokens, newest first."""
    rows = store.scalars(select(Token).order_by(Token.created_at.desc(), Token.id))
    return [TokenLine(row.id, row.name, tuple(row.scopes), row.created_at, row.expires_at) for row in rows]


def revoke_token(project: Project, token_id: str) -> None:
    """A token opens nothing any more.

    Raises:
        Refusal: there is no such token.
    """
    with project.database.write() as store:
        row = store.get(Token, token_id)
        if row is None:
            raise Refusal(404, "there is no such token", fix="it may have been revoked already: see the list")
        store.delete(row)


# ---- what a route depends on ----


@cache
def require(role: Role) -> Callable[[Request], Person]:
    """A dependency that gives the person who is signed in, if they have at least this role.

    Raises (in the request):
        Refusal: 401 without a session (a page then leads to the sign-in), 403 below the role, 429 for an absurd rate.
    """

    def person(request: Request) -> Person:
        found = signed_in(request)
        if found is None:
            raise Refusal(401, "you are not signed in", fix="sign in first")
        if not found.may(role):
            raise Refusal(403, f"{found.name} is here as {_article(found.role)}; this is for {_article(role)}", fix="ask whoever runs this project")
        return found

    return person


TOKEN = HTTPBearer(auto_error=False, description="A token from Manage → Tokens; each operation says which scope it needs.")


@cache
def require_scope(scope: str) -> Callable[..., Caller]:
    """A dependency that gives who calls the API: a token with this scope, or a manager's or owner's own session.

    Raises (in the request):
        Refusal: 401 without either, 403 without the scope, 429 for an absurd rate.
    """
    if scope not in SCOPES:
        raise ValueError(f"no scope is called {scope!r}")

    def caller(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Security(TOKEN)] = None) -> Caller:
        if credentials is not None:
            return _token_caller(request, credentials.credentials, scope)
        person = require(Role.MANAGER)(request)
        return Caller(person.name, person, None)

    return caller


def signed_in(request: Request) -> Person | None:
    """The person whose cookie came with a request; None without a live session. A request with a token is no person's.

    Raises:
        Refusal: 429 for an absurd rate.
    """
    secret = request.cookies.get(COOKIE)
    if secret is None or bearer(request.headers) is not None:
        return None
    found = person_of(request.app.state.project, secret, now())
    if found is not None:
        _keep_pace(request, found.id)
    request.state.person = found  # so that a page about an error keeps the person's menu
    return found


def may_upload(request: Request) -> bool:
    """Whether a request comes from a manager or with a token, before any route looks at it."""
    project, token, secret = request.app.state.project, bearer(request.headers), request.cookies.get(COOKIE)
    if token is not None:
        with project.database.read() as store:
            return _live_token(store, token) is not None
    person = person_of(project, secret, now()) if secret is not None else None
    return person is not None and person.may(Role.MANAGER)


def _live_token(store: Store, secret: str) -> Token | None:
    row = store.get(Token, hashed(secret))
    return None if row is None or (row.expires_at is not None and row.expires_at <= now()) else row


def _token_caller(request: Request, secret: str, scope: str) -> Caller:
    with request.app.state.project.database.read() as store:
        row = _live_token(store, secret)
    if row is None:
        raise Refusal(401, "this token is not known, or no longer", fix="make a new one under Manage → Tokens")
    if scope not in row.scopes:
        raise Refusal(403, f"the token {row.name} may {', '.join(row.scopes)}; this needs {scope}", fix="make one with that scope under Manage → Tokens")
    _keep_pace(request, row.id)
    return Caller(row.name, None, row.id)


def _keep_pace(request: Request, who: str) -> None:
    wait = request.app.state.pace.take(who, time.monotonic())
    if wait:
        raise Refusal(429, "that is more requests than one person sends", fix="slow down a little", retry_after=wait)


def _article(role: Role) -> str:
    return f"{'a' if role == Role.MANAGER else 'an'} {role}"
