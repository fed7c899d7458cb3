"""Who may answer, and as what: people come, change their role, rest, and go. What they said stays, under a name that is nobody's."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from truing.errors import UserError
from truing.store.database import hold
from truing.store.ids import content_id, uuid7
from truing.store.project import Project
from truing.store.tables import Annotator, AnnotatorKind, Assignment, Dataset, Role, SignInFailure
from truing.store.tables import Session as SignedIn

LONGEST_NAME = 120  # characters


class Removed(NamedTuple):
    """What is left of someone who was removed."""

    name: str  # the one they have now: "removed-" and eight hex digits
    datasets: tuple[str, ...]  # artifacts that hold their judgements or name them; `truing preferences` makes the next version without the name


def add_person(project: Project, name: str, *, role: str, password_hash: str | None = None, at: datetime) -> str:
    """Let someone in; returns their id. See `add_person_in`."""
    with project.database.write() as session:
        return add_person_in(session, name, role=role, password_hash=password_hash, at=at)


def add_person_in(session: Session, name: str, *, role: str, password_hash: str | None = None, at: datetime) -> str:
    """Let someone in; returns their id.

    Raises:
        UserError: the name is taken, or is none.
    """
    hold(session, Annotator)
    name = " ".join(name.split())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise UserError("a person needs a name", fix=f"give one of 1 to {LONGEST_NAME} letters")
    alike = or_(Annotator.name == name, func.lower(Annotator.name) == func.lower(name))  # SQLite knows the small letters of ASCII alone
    if session.scalars(select(Annotator.id).where(alike)).first() is not None:
        raise UserError(f"the name {name!r} is taken", fix="choose another one")
    person = Annotator(
        id=uuid7(at), name=name, kind=AnnotatorKind.HUMAN, role=Role(role), password_hash=password_hash, active=True, facts={}, created_at=at
    )  # fmt: skip
    session.add(person)
    session.flush()
    return person.id


def set_role(project: Project, annotator_id: str, role: str) -> None:
    """Let someone do more, or less.

    Raises:
        UserError: there is no such person, or no owner would be left.
    """
    with project.database.write() as session:
        person = _person(session, annotator_id)
        if role != Role.OWNER:
            _keep_an_owner(session, person)
        person.role = Role(role)


def set_active(project: Project, annotator_id: str, active: bool) -> None:
    """Let someone rest, or come back. Who rests is lent nothing; by the studio a pause ends their session at once.

    Raises:
        UserError: there is no such person, or no owner would be left.
    """
    with project.database.write() as session:
        person = _person(session, annotator_id)
        if not active:
            _keep_an_owner(session, person)
        person.active = active


def remove_person(project: Project, annotator_id: str, *, at: datetime) -> Removed:
    """Take away all that says who someone is: name, password, sessions, facts. Their judgements stay, and what they hold is given back.

    Raises:
        UserError: there is no such person, or no owner would be left.
    """
    with project.database.write() as session:
        person = _person(session, annotator_id)
        _keep_an_owner(session, person)
        session.execute(delete(SignInFailure).where(func.lower(SignInFailure.account) == person.name.lower()))
        session.execute(delete(SignedIn).where(SignedIn.annotator_id == annotator_id))
        session.execute(update(Assignment).where(Assignment.annotator_id == annotator_id).values(draft=None))
        session.execute(update(Assignment).where(Assignment.annotator_id == annotator_id, Assignment.expires_at > at).values(expires_at=at))
        person.name, person.password_hash, person.active = f"removed-{content_id('removed', annotator_id, length=8)}", None, False
        person.role, person.facts = Role.ANNOTATOR, {}
        datasets = list(session.scalars(select(Dataset.artifact_id).order_by(Dataset.version)))
        return Removed(person.name, tuple(dataset for dataset in datasets if _names(project.artifacts / dataset, annotator_id)))


def _person(session: Session, annotator_id: str) -> Annotator:
    hold(session, Annotator)
    person = session.get(Annotator, annotator_id)
    if person is None:
        raise UserError(f"there is no annotator {annotator_id}", fix="choose among the people of this project")
    return person


def _keep_an_owner(session: Session, person: Annotator) -> None:
    others = select(func.count()).where(Annotator.role == Role.OWNER, Annotator.active, Annotator.id != person.id)
    if person.role == Role.OWNER and person.active and not session.scalar(others):
        raise UserError(f"{person.name} is the only owner", fix="make someone else an owner first")


def _names(folder: Path, annotator_id: str) -> bool:
    return any(annotator_id.encode() in file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())
