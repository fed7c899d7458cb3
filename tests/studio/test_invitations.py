"""Links that let people in: made, looked at, used up by as many as they are for, and taken back."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from stored import new_database
from truing.errors import UserError
from truing.feedback.people import set_active
from truing.store.clock import now
from truing.store.project import Project, create_project, open_project
from truing.store.salt import project_salt
from truing.store.tables import Annotator, Invitation, Role
from truing.studio.account import sign_in
from truing.studio.auth import hashed, person_of
from truing.studio.invitations import (
    Arrival,
    add_owner,
    arrive,
    has_owner,
    invitation_of,
    invitations_of,
    join,
    make_invitation,
    make_owner_link,
    revoke_invitation,
    worker_name,
)
from truing.studio.passwords import Passwords
from truing.studio.refusals import Refusal
from visitors import PASSWORD, person_in, quick_passwords

START = now()
WORKER = Arrival("5f3c0ffee0ddba11deadbeef", "study1", "session1")


@pytest.fixture
def passwords() -> Passwords:
    return quick_passwords()


def come(project: Project, secret: str, name: str = "Ana", **changes: Any) -> str:
    given: dict[str, Any] = {"owner": False, "at": START} | changes
    return join(project, quick_passwords(), secret, name, given.pop("password", PASSWORD), **given)


def uses_left(project: Project) -> int:
    with project.database.read() as store:
        return store.scalars(select(Invitation.uses_left)).one()


def people(project: Project) -> list[str]:
    with project.database.read() as store:
        return sorted(store.scalars(select(Annotator.name)))


# ---- invitations ----


def test_an_invitation_is_stored_hashed_and_listed_without_its_secret(project: Project) -> None:
    secret = make_invitation(project, "class 7b", Role.ANNOTATOR, 30, 7, at=START)
    assert len(secret) == 43
    with project.database.read() as store:
        line = invitations_of(store, START)[0]
    assert (line.id, line.name, line.role, line.uses_left) == (hashed(secret), "class 7b", Role.ANNOTATOR, 30)
    assert line.expires_at == START + timedelta(days=7)


@pytest.mark.parametrize(("role", "uses", "days"), [("owner", 1, 1), ("annotator", 0, 1), ("annotator", 10_001, 1), ("manager", 1, 0), ("manager", 1, 366)])
def test_an_invitation_out_of_bounds_isnt_made(project: Project, role: str, uses: int, days: int) -> None:
    with pytest.raises(UserError):
        make_invitation(project, "x", Role(role), uses, days, at=START)


@pytest.mark.parametrize("role", ["annotator", "manager"])
def test_who_joins_has_the_role_of_the_link_and_can_sign_in(project: Project, passwords: Passwords, role: str) -> None:
    secret = make_invitation(project, "team", Role(role), 2, 7, at=START)
    found = person_of(project, come(project, secret), START)
    assert found is not None
    assert (found.name, found.role) == ("Ana", Role(role))
    assert uses_left(project) == 1
    assert sign_in(project, passwords, "Ana", PASSWORD, address="10.0.0.1", at=START)


def test_looking_at_a_link_doesnt_use_it_up(project: Project) -> None:
    secret = make_invitation(project, "team", Role.ANNOTATOR, 1, 7, at=START)
    for _ in range(5):
        with project.database.read() as store:
            invitation_of(store, secret, START, owner=False)
    assert uses_left(project) == 1


def test_a_link_that_is_used_up_too_old_taken_back_or_unknown_lets_nobody_in(project: Project) -> None:
    used = make_invitation(project, "used", Role.ANNOTATOR, 1, 7, at=START)
    come(project, used)
    back = make_invitation(project, "back", Role.ANNOTATOR, 1, 7, at=START)
    revoke_invitation(project, hashed(back))
    old = make_invitation(project, "old", Role.ANNOTATOR, 1, 7, at=START - timedelta(days=7))
    for secret in (used, back, old, "unknown", "", "\ud800"):
        with pytest.raises(Refusal) as refusal:
            come(project, secret, "Bob")
        assert refusal.value.status == 404
        with pytest.raises(Refusal), project.database.read() as store:
            invitation_of(store, secret, START, owner=False)  # nor is the form shown
    assert people(project) == ["Ana"]
    with project.database.read() as store:
        assert invitations_of(store, START) == []


@pytest.mark.parametrize(
    ("name", "password"), [("ana", PASSWORD), ("Ana", PASSWORD), ("\u00c4nne", PASSWORD), ("", PASSWORD), ("Bob", "short"), ("Bob", "password1")]
)
def test_a_name_that_is_taken_or_a_bad_password_doesnt_use_a_link_up(project: Project, name: str, password: str) -> None:
    person_in(project, "Ana", "annotator")
    person_in(project, "\u00c4nne", "annotator")
    secret = make_invitation(project, "team", Role.ANNOTATOR, 1, 7, at=START)
    with pytest.raises(UserError):
        come(project, secret, name, password=password)
    assert uses_left(project) == 1
    assert people(project) == ["Ana", "\u00c4nne"]


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_as_many_come_in_at_once_as_the_link_is_for(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_DATABASE", new_database(kind, tmp_path))
    project = open_project(create_project(tmp_path / "project", settings=""))
    secret = make_invitation(project, "team", Role.ANNOTATOR, 3, 7, at=START)
    outcomes: list[int] = []

    def try_to_come(number: int) -> None:
        try:
            come(project, secret, f"person {number}")
        except Refusal as refusal:
            outcomes.append(refusal.status)
        else:
            outcomes.append(200)

    crowd = [threading.Thread(target=try_to_come, args=(number,)) for number in range(10)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert sorted(outcomes) == [200] * 3 + [404] * 7
    assert uses_left(project) == 0
    assert len(people(project)) == 3
    project.database.close()


# ---- the owner ----


def test_the_owners_link_works_once_and_only_while_nobody_owns_the_project(project: Project) -> None:
    first = make_owner_link(project, at=START)
    second = make_owner_link(project, at=START)
    assert first is not None
    assert second is not None
    with pytest.raises(Refusal):
        come(project, first, owner=True)  # the newer link stands in its place
    found = person_of(project, come(project, second, owner=True), START)
    assert found is not None
    assert found.role == Role.OWNER
    with pytest.raises(Refusal):
        come(project, second, "Mallory", owner=True)
    assert make_owner_link(project, at=START) is None


def test_the_owners_link_closes_when_somebody_owns_the_project_by_another_way(project: Project, passwords: Passwords) -> None:
    secret = make_owner_link(project, at=START)
    assert secret is not None
    person_in(project, "Olga", "owner", password_hash=passwords.hash(PASSWORD))
    with pytest.raises(Refusal):
        come(project, secret, "Mallory", owner=True)


def test_the_owners_link_is_good_for_a_day(project: Project) -> None:
    secret = make_owner_link(project, at=START - timedelta(days=1))
    assert secret is not None
    with pytest.raises(Refusal):
        come(project, secret, owner=True)


def test_a_link_opens_only_its_own_door(project: Project) -> None:
    owners = make_owner_link(project, at=START)
    assert owners is not None
    team = make_invitation(project, "team", Role.ANNOTATOR, 1, 7, at=START)
    for secret, owner in ((owners, False), (team, True)):
        with pytest.raises(Refusal):
            come(project, secret, owner=owner)
    with pytest.raises(Refusal):
        arrive(project, owners, WORKER, at=START)
    with pytest.raises(Refusal):
        revoke_invitation(project, hashed(owners))
    with project.database.read() as store:
        assert [line.name for line in invitations_of(store, START)] == ["team"]


def test_an_owner_made_at_the_terminal_closes_the_link_and_may_be_made_again(project: Project, passwords: Passwords) -> None:
    secret = make_owner_link(project, at=START)
    assert secret is not None
    assert add_owner(project, passwords, "Olga", PASSWORD, at=START)
    with pytest.raises(Refusal):
        come(project, secret, "Mallory", owner=True)
    opened = sign_in(project, passwords, "Olga", PASSWORD, address="10.0.0.1", at=START)
    assert not add_owner(project, passwords, "Olga", "zebra lamp quarry", at=START)  # she had forgotten it
    assert person_of(project, opened, START) is None
    assert sign_in(project, passwords, "Olga", "zebra lamp quarry", address="10.0.0.1", at=START)
    with project.database.read() as store:
        assert has_owner(store)


def test_an_owner_at_the_terminal_needs_a_good_password_and_a_persons_name(project: Project, passwords: Passwords) -> None:
    with project.database.write() as store:
        store.add(Annotator(id="sim", name="crowd of one", kind="simulated", role="annotator", active=True, facts={}, created_at=START))
    for name, password in (("Olga", "password1"), ("", PASSWORD), ("crowd of one", PASSWORD)):
        with pytest.raises(UserError):
            add_owner(project, passwords, name, password, at=START)


# ---- crowd workers ----


def test_a_crowd_worker_is_a_hash_and_the_same_one_again(project: Project) -> None:
    secret = make_invitation(project, "study", Role.ANNOTATOR, 1, 7, at=START)
    first = person_of(project, arrive(project, secret, WORKER, at=START), START)
    again = person_of(project, arrive(project, secret, WORKER._replace(session="session2"), at=START), START)
    assert first == again
    assert first is not None
    assert first.role == Role.ANNOTATOR
    with project.database.read() as store:
        row = store.get_one(Annotator, first.id)
    assert row.name.startswith("crowd-")
    assert row.password_hash is None
    assert WORKER.worker not in f"{row.name}{row.facts}"
    assert uses_left(project) == 0
    with pytest.raises(Refusal):
        arrive(project, secret, WORKER._replace(worker="somebody-else"), at=START)  # the link was for one


def test_a_workers_hash_depends_on_the_projects_salt(project: Project, tmp_path: Path) -> None:
    other = open_project(create_project(tmp_path / "other", settings=""))
    assert worker_name(project, "w1") == worker_name(project, "w1") != worker_name(project, "w2")
    assert worker_name(project, "w1") != worker_name(other, "w1")
    other.database.close()


def test_the_salt_is_made_once_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    salts: list[bytes] = []
    crowd = [threading.Thread(target=lambda: salts.append(project_salt(tmp_path))) for _ in range(8)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert len(set(salts)) == 1
    assert len(salts[0]) == 32
    assert (tmp_path / "salt").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["salt"]


@pytest.mark.parametrize("part", ["", "a b", "x" * 65, "<script>", "\u0661"])
def test_what_isnt_an_id_of_a_panel_is_refused(project: Project, part: str) -> None:
    secret = make_invitation(project, "study", Role.ANNOTATOR, 1, 7, at=START)
    for field in Arrival._fields:
        with pytest.raises(Refusal, match="doesn't name the worker"):
            arrive(project, secret, WORKER._replace(**{field: part}), at=START)
    assert people(project) == []


def test_a_worker_who_was_paused_cant_come_back_by_the_link(project: Project) -> None:
    secret = make_invitation(project, "study", Role.ANNOTATOR, 5, 7, at=START)
    worker = person_of(project, arrive(project, secret, WORKER, at=START), START)
    assert worker is not None
    set_active(project, worker.id, False)
    with pytest.raises(Refusal, match="can't take part"):
        arrive(project, secret, WORKER, at=START)


def test_only_an_annotators_link_takes_crowd_workers(project: Project) -> None:
    secret = make_invitation(project, "staff", Role.MANAGER, 5, 7, at=START)
    with pytest.raises(Refusal, match="not for crowd workers"):
        arrive(project, secret, WORKER, at=START)
