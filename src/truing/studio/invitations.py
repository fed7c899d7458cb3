"""Links that let people in: the owner's one-time link, invitations by name and password, and crowd workers who come from a panel.

A link's secret has 256 random bits and is stored as its sha256. Looking at a link changes nothing; only a POST uses it up.
"""

import hashlib
import hmac
import re
import secrets
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import CursorResult, delete, func, select, update
from sqlalchemy.orm import Session as Store

from truing.feedback.people import add_person_in
from truing.store.database import hold
from truing.store.project import Project
from truing.store.salt import project_salt
from truing.store.tables import Annotator, AnnotatorKind, Invitation, Role
from truing.studio.auth import begin_session, end_sessions, hashed, plain_name
from truing.studio.passwords import Passwords, check
from truing.studio.refusals import Refusal

OWNERS_LINK = timedelta(days=1)
CROWD_FIELD = re.compile(r"[A-Za-z0-9_-]{1,64}")  # what Prolific puts in an address: 24 hexadecimal digits


class InvitationLine(NamedTuple):
    """An invitation as managers see it."""

    id: str
    name: str
    role: Role
    uses_left: int
    created_at: datetime
    expires_at: datetime


class Arrival(NamedTuple):
    """What a panel of crowd workers says in the address of who arrives."""

    worker: str
    study: str
    session: str


# ---- making them ----


def make_invitation(project: Project, name: str, role: Role, uses: int, days: int, *, at: datetime) -> str:
    """A link for so many people and days; gives the secret of /join/SECRET, which can't be shown again.

    Args:
        name: what it is for: a class, a team.
        role: what they may do; an owner is made at the terminal alone.
        uses: 1 to 10,000.
        days: 1 to 365.

    Raises:
        Refusal: something of it is out of its bounds.
    """
    if role == Role.OWNER:
        raise Refusal(400, "nobody becomes an owner by an invitation", fix="truing studio add-owner NAME")
    if not 1 <= uses <= 10_000 or not 1 <= days <= 365:
        raise Refusal(400, "an invitation is for 1 to 10,000 people and 1 to 365 days", fix="choose numbers between")
    with project.database.write() as store:
        return _new_link(store, plain_name(name), role, uses, timedelta(days=days), at)


def invitations_of(store: Store, at: datetime) -> list[InvitationLine]:
    """The invitations that still let somebody in, newest first."""
    rows = store.scalars(
        select(Invitation)
        .where(Invitation.uses_left > 0, Invitation.expires_at > at, Invitation.role != Role.OWNER)
        .order_by(Invitation.created_at.desc(), Invitation.id)
    )
    return [InvitationLine(row.id, row.name, Role(row.role), row.uses_left, row.created_at, row.expires_at) for row in rows]


def revoke_invitation(project: Project, invitation_id: str) -> None:
    """A link lets nobody in any more; who came by it stays.

    Raises:
        Refusal: there is no such invitation.
    """
    with project.database.write() as store:
        row = store.get(Invitation, invitation_id)
        if row is None or row.role == Role.OWNER:
            raise Refusal(404, "there is no such invitation", fix="it may have been taken back already: see the list")
        store.delete(row)


def _new_link(store: Store, name: str, role: Role, uses: int, lasts: timedelta, at: datetime, secret: str | None = None) -> str:
    secret = secret or secrets.token_urlsafe(32)
    store.add(Invitation(id=hashed(secret), name=name, role=str(role), uses_left=uses, created_at=at, expires_at=at + lasts))
    return secret


# ---- the owner ----


def has_owner(store: Store) -> bool:
    """Whether somebody owns the project and can sign in."""
    return bool(
        store.scalar(select(func.count()).select_from(Annotator).where(Annotator.role == Role.OWNER, Annotator.password_hash.is_not(None), Annotator.active))
    )


def make_owner_link(project: Project, *, at: datetime, secret: str | None = None) -> str | None:
    """The secret of /first/SECRET, good once within a day and in place of any earlier one; None if the project has an owner.

    Args:
        secret: a secret of 256 random bits; default a new one.
    """
    with project.database.write() as store:
        store.execute(delete(Invitation).where(Invitation.role == Role.OWNER))
        return None if has_owner(store) else _new_link(store, "owner", Role.OWNER, 1, OWNERS_LINK, at, secret)


def add_owner(project: Project, passwords: Passwords, name: str, password: str, *, at: datetime) -> bool:
    """Make an owner from the terminal, or give somebody who is there that role and another password; True for somebody new.

    Raises:
        Refusal: the name can't be one, or the password is too easily guessed.
    """
    name = plain_name(name)
    check(password, name)
    kept = passwords.hash(password)
    with project.database.write() as store:
        hold(store, Annotator)
        store.execute(delete(Invitation).where(Invitation.role == Role.OWNER))
        found = store.scalars(select(Annotator).where(Annotator.name == name)).one_or_none()
        if found is None:
            _new_person(store, name, Role.OWNER, kept, {}, at)
            return True
        if found.kind != AnnotatorKind.HUMAN:
            raise Refusal(400, f"{name} is the name of a {found.kind} annotator", fix="choose another name")
        found.role, found.password_hash, found.active = str(Role.OWNER), kept, True
        end_sessions(store, found.id)
        return False


# ---- coming in ----


def invitation_of(store: Store, secret: str, at: datetime, *, owner: bool, even_used_up: bool = False) -> Invitation:
    """The invitation of a link that still lets somebody in.

    Args:
        owner: whether the owner's link is looked for, or an invitation.
        even_used_up: take one without uses left, for a crowd worker who came by it before.

    Raises:
        Refusal: 404; it is unknown, used up, over, or was taken back.
    """
    row = store.get(Invitation, hashed(secret))
    fits = row is not None and row.expires_at > at and (row.uses_left > 0 or even_used_up) and (row.role == Role.OWNER) is owner
    if row is None or not fits or (owner and has_owner(store)):
        fix = "stop the studio and start it again: it prints a new one while nobody owns the project" if owner else "ask for a new link"
        raise Refusal(404, "this link is not good any more: it was used, taken back, or is too old", fix=fix)
    return row


def join(project: Project, passwords: Passwords, secret: str, name: str, password: str, *, owner: bool, at: datetime) -> str:
    """Let somebody in by a link, under a name and password of their choice; gives the secret of their session.

    Raises:
        Refusal: the link is not good, the name is taken or none, or the password too easily guessed. The link is not used up then.
    """
    with project.database.read() as store:
        invitation_of(store, secret, at, owner=owner)
    name = plain_name(name)
    check(password, name)
    kept = passwords.hash(password)
    with project.database.write() as store:
        hold(store, Annotator)
        invitation = invitation_of(store, secret, at, owner=owner)
        if store.scalars(select(Annotator.id).where(Annotator.name == name)).first() is not None:
            raise Refusal(409, f"somebody here is called {name} already", fix="add something to your name")
        _use_up(store, invitation.id, at)
        person_id = _new_person(store, name, Role(invitation.role), kept, {"invitation": invitation.name}, at)
        return begin_session(store, person_id, at)


def _use_up(store: Store, invitation_id: str, at: datetime) -> None:
    """Count one use, in the one statement that also looks whether one is left."""
    left = (
        update(Invitation)
        .where(Invitation.id == invitation_id, Invitation.uses_left > 0, Invitation.expires_at > at)
        .values(uses_left=Invitation.uses_left - 1)
    )
    done: CursorResult[tuple[()]] = store.execute(left)  # type: ignore[assignment]  # an update's result counts its rows
    if done.rowcount != 1:
        raise Refusal(404, "this link was used up a moment ago", fix="ask for a new link")


def _new_person(store: Store, name: str, role: Role, password_hash: str | None, facts: dict[str, str], at: datetime) -> str:
    person_id = add_person_in(store, name, role=role, password_hash=password_hash, at=at)
    store.get_one(Annotator, person_id).facts = facts
    return person_id


# ---- crowd workers ----


def arrive(project: Project, secret: str, arrival: Arrival, *, at: datetime) -> str:
    """Let a crowd worker in, without name or password; gives the secret of their session.

    They are known by a hash of their id, so that who comes again is the same annotator and uses the link up only once.

    Raises:
        Refusal: the link is not good or not for annotators, an id isn't one, or the worker was paused or removed.
    """
    if not all(CROWD_FIELD.fullmatch(part) for part in arrival):
        raise Refusal(400, "the address doesn't name the worker, the study and the session as Prolific does", fix="come again from the study's page")
    name = worker_name(project, arrival.worker)
    with project.database.write() as store:
        hold(store, Annotator)
        found = store.scalars(select(Annotator).where(Annotator.name == name)).one_or_none()
        if found is not None and not found.active:
            raise Refusal(403, "you can't take part any more", fix="write to whoever runs the study")
        invitation = invitation_of(store, secret, at, owner=False, even_used_up=found is not None)
        if invitation.role != Role.ANNOTATOR:
            raise Refusal(403, "this link is not for crowd workers", fix="come again from the study's page")
        if found is not None:
            return begin_session(store, found.id, at)
        _use_up(store, invitation.id, at)
        return begin_session(store, _new_person(store, name, Role.ANNOTATOR, None, {"crowd": "prolific", "study": arrival.study}, at), at)


def worker_name(project: Project, worker: str) -> str:
    """The name of a crowd worker here: a hash under a key that never leaves the project, so that nobody can look a worker up."""
    return f"crowd-{hmac.new(project_salt(project.root), worker.encode(), hashlib.sha256).hexdigest()[:16]}"
