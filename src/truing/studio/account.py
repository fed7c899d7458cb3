"""Names and passwords: signing in, another password, and how many attempts there are."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, or_, select
from sqlalchemy.orm import Session as Store

from truing.store.database import hold
from truing.store.ids import content_id, uuid7
from truing.store.project import Project
from truing.store.tables import Annotator, SignInFailure
from truing.studio.auth import Person, begin_session, end_sessions, plain_name
from truing.studio.passwords import Passwords, check
from truing.studio.refusals import Refusal

WINDOW = timedelta(minutes=15)
FAILURES_HERE = 10  # wrong passwords for one account from one address within the window
FAILURES_WIDE = 100  # for one account from anywhere, or from one address for any account


def sign_in(project: Project, passwords: Passwords, name: str, password: str, *, address: str, at: datetime) -> str:
    """The secret of a new session, for the right name and password.

    Args:
        address: where the request came from.

    Raises:
        Refusal: 401 for a wrong name or password, 429 after ten of them.
    """
    found = _find(project, name)
    account = found.name if found else content_id("account", name)  # a password may stand where the name belongs: no such word is kept
    _count_attempt(project, account, address, at)
    fits = passwords.fits(found.password_hash if found else None, password)
    if found is None or not fits or not found.active:
        raise Refusal(401, "no one here has that name and password", fix="check both; if you forgot the password, ask whoever runs this project")
    renewed = passwords.hash(password) if passwords.outdated(str(found.password_hash)) else None
    with project.database.write() as store:
        _forget_attempts(store, account, address)
        if renewed is not None:
            store.get_one(Annotator, found.id).password_hash = renewed
        return begin_session(store, found.id, at)


def change_password(project: Project, passwords: Passwords, person: Person, old: str, new: str, *, address: str, at: datetime) -> str:
    """Another password. All sessions of the person end; gives the secret of a new one.

    Raises:
        Refusal: the old one is wrong, the new one too easily guessed, or ten were wrong.
    """
    check(new, person.name)
    _count_attempt(project, person.name, address, at)
    with project.database.read() as store:
        stored = store.get_one(Annotator, person.id).password_hash
    if not passwords.fits(stored, old):
        raise Refusal(400, "that is not your present password", fix="type it again; if you forgot it, ask whoever runs this project")
    fresh = passwords.hash(new)
    with project.database.write() as store:
        _forget_attempts(store, person.name, address)
        store.get_one(Annotator, person.id).password_hash = fresh
        end_sessions(store, person.id)
        return begin_session(store, person.id, at)


def _find(project: Project, name: str) -> Annotator | None:
    """Who is called so; capitals matter only where two names differ in nothing else. None for what can't be a name."""
    try:
        known = plain_name(name)
    except Refusal:
        return None
    with project.database.read() as store:
        alike = store.scalars(select(Annotator).where(or_(Annotator.name == known, func.lower(Annotator.name) == known.lower()))).all()
    return min(alike, key=lambda row: (row.name != known, row.id), default=None)


def _count_attempt(project: Project, account: str, address: str, at: datetime) -> None:
    """Count an attempt as failed before it is known to be, so that many at the same time are counted too.

    Raises:
        Refusal: 429, too many failed in the last 15 minutes.
    """
    here, there = SignInFailure.account == account, SignInFailure.address == address
    with project.database.write() as store:
        hold(store, SignInFailure)
        store.execute(delete(SignInFailure).where(SignInFailure.at <= at - WINDOW))
        wait = max(_wait(store, [here, there], FAILURES_HERE, at), _wait(store, [here], FAILURES_WIDE, at), _wait(store, [there], FAILURES_WIDE, at))
        if wait:
            minutes = max(1, round(wait / 60))
            fix = f"wait {minutes} minute{'s' if minutes > 1 else ''}, then try again"
            raise Refusal(429, "too many passwords were wrong within 15 minutes", fix=fix, retry_after=wait)
        store.add(SignInFailure(id=uuid7(at), account=account, address=address, at=at))


def _wait(store: Store, where: list[ColumnElement[bool]], most: int, at: datetime) -> float:
    """Seconds until fewer than `most` failures are left in the window."""
    oldest = store.scalars(select(SignInFailure.at).where(*where).order_by(SignInFailure.at.desc()).offset(most - 1).limit(1)).first()
    return 0.0 if oldest is None else (oldest + WINDOW - at).total_seconds()


def _forget_attempts(store: Store, account: str, address: str) -> None:
    store.execute(delete(SignInFailure).where(SignInFailure.account == account, SignInFailure.address == address))
