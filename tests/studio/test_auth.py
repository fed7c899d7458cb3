"""Sessions, sign-in and tokens in the store: what opens, for how long, and what closes it."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from stored import new_database
from truing.errors import UserError
from truing.feedback.people import remove_person, set_active
from truing.store.clock import now
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Role, Session, SignInFailure, Token
from truing.studio.account import FAILURES_HERE, FAILURES_WIDE, WINDOW, change_password, sign_in
from truing.studio.auth import (
    IDLE,
    LONGEST,
    SCOPES,
    Person,
    at_least,
    begin_session,
    end_session,
    hashed,
    make_token,
    person_of,
    plain_name,
    refuse_unless_above,
    revoke_token,
    tokens_of,
)
from truing.studio.passwords import Passwords
from truing.studio.refusals import Refusal
from visitors import PASSWORD, person_in, quick_passwords

START = now()


@pytest.fixture
def passwords() -> Passwords:
    return quick_passwords()


@pytest.fixture
def ana(project: Project, passwords: Passwords) -> str:
    """The id of Ana, who can sign in."""
    return person_in(project, "Ana", "annotator", password_hash=passwords.hash(PASSWORD))


def session_of(project: Project, person_id: str) -> str:
    with project.database.write() as store:
        return begin_session(store, person_id, START)


def rows(project: Project, table: type[Any]) -> int:
    with project.database.read() as store:
        return store.scalar(select(func.count()).select_from(table)) or 0


def try_to_sign_in(project: Project, passwords: Passwords, password: str = "wrong", **changes: Any) -> int:
    """The status of an attempt: 200 or what refused it."""
    given: dict[str, Any] = {"name": "Ana", "address": "10.0.0.1", "at": START} | changes
    try:
        sign_in(project, passwords, given.pop("name"), password, **given)
    except Refusal as refusal:
        return refusal.status
    return 200


# ---- sessions ----


def test_a_session_is_stored_hashed_and_has_256_bits(project: Project, ana: str) -> None:
    secret = session_of(project, ana)
    assert len(secret) == 43  # 32 bytes in base 64 without padding
    with project.database.read() as store:
        row = store.scalars(select(Session)).one()
    assert row.id == hashed(secret) != secret
    assert person_of(project, secret, START) == Person(ana, "Ana", Role.ANNOTATOR)
    assert person_of(project, row.id, START) is None  # what is stored opens nothing


def test_a_session_that_nobody_uses_ends_after_14_days(project: Project, ana: str) -> None:
    secret = session_of(project, ana)
    assert person_of(project, secret, START + IDLE) is None
    assert person_of(project, secret, START + IDLE - timedelta(seconds=1)) is not None


def test_a_session_that_is_used_goes_on_but_not_past_60_days(project: Project, ana: str) -> None:
    secret = session_of(project, ana)
    days = [day for day in range(0, 100, 10) if person_of(project, secret, START + timedelta(days=day))]
    assert days == [0, 10, 20, 30, 40, 50]
    with project.database.read() as store:
        assert store.scalars(select(Session.expires_at)).one() == START + LONGEST


def test_reading_pages_doesnt_write_to_the_store(project: Project, ana: str) -> None:
    secret = session_of(project, ana)
    person_of(project, secret, START + timedelta(hours=23))
    with project.database.read() as store:
        assert store.scalars(select(Session.expires_at)).one() == START + IDLE


def test_a_pause_and_a_removal_end_a_sessions_power_at_once(project: Project, ana: str) -> None:
    secret = session_of(project, ana)
    set_active(project, ana, False)
    assert person_of(project, secret, START) is None
    set_active(project, ana, True)
    assert person_of(project, secret, START) is not None
    remove_person(project, ana, at=START)
    assert person_of(project, secret, START) is None


def test_a_role_that_is_taken_away_is_gone_at_the_next_request(project: Project, ana: str) -> None:
    secret = session_of(project, ana)
    with project.database.write() as store:
        store.get_one(Annotator, ana).role = "manager"
    found = person_of(project, secret, START)
    assert found is not None
    assert found.role == Role.MANAGER


def test_signing_out_ends_the_session_at_the_server(project: Project, ana: str) -> None:
    here, elsewhere = session_of(project, ana), session_of(project, ana)
    end_session(project, here)
    assert person_of(project, here, START) is None
    assert person_of(project, elsewhere, START) is not None


def test_sessions_that_ended_are_swept(project: Project, ana: str) -> None:
    session_of(project, ana)
    with project.database.write() as store:
        begin_session(store, ana, START + timedelta(days=20))
    assert rows(project, Session) == 1


# ---- signing in ----


def test_name_and_password_open_a_session(project: Project, passwords: Passwords, ana: str) -> None:
    secret = sign_in(project, passwords, "  ana ", PASSWORD, address="10.0.0.1", at=START)
    assert person_of(project, secret, START) == Person(ana, "Ana", Role.ANNOTATOR)


@pytest.mark.parametrize("name", ["Bob", "", "removed-12345678", "crowd-0", "a\0b", "x" * 5000, "Ana\u202e", "\ud800"])
def test_nobody_signs_in_under_a_name_that_is_nobodys(project: Project, passwords: Passwords, ana: str, name: str) -> None:
    assert try_to_sign_in(project, passwords, PASSWORD, name=name) == 401


def test_who_rests_cant_sign_in_and_isnt_told_apart(project: Project, passwords: Passwords, ana: str) -> None:
    set_active(project, ana, False)
    assert try_to_sign_in(project, passwords, PASSWORD) == 401


def test_a_person_without_a_password_cant_sign_in(project: Project, passwords: Passwords) -> None:
    person_in(project, "Ana", "annotator")
    assert [try_to_sign_in(project, passwords, word) for word in ("", "None", "wrong")] == [401, 401, 401]


def test_ten_failures_close_the_door_for_a_quarter_of_an_hour(project: Project, passwords: Passwords, ana: str) -> None:
    minutes = [try_to_sign_in(project, passwords, at=START + timedelta(minutes=n)) for n in range(FAILURES_HERE)]
    assert minutes == [401] * 10
    with pytest.raises(Refusal) as refusal:
        sign_in(project, passwords, "Ana", PASSWORD, address="10.0.0.1", at=START + timedelta(minutes=10))
    assert refusal.value.status == 429
    assert refusal.value.headers["Retry-After"] == "300"  # the first failure is 10 of 15 minutes old
    assert try_to_sign_in(project, passwords, PASSWORD, at=START + WINDOW) == 200


def test_the_door_is_closed_for_one_account_at_one_address(project: Project, passwords: Passwords, ana: str) -> None:
    person_in(project, "Bob", "annotator", password_hash=passwords.hash(PASSWORD))
    for _ in range(FAILURES_HERE):
        try_to_sign_in(project, passwords)
    assert try_to_sign_in(project, passwords, PASSWORD) == 429
    assert try_to_sign_in(project, passwords, PASSWORD, address="10.0.0.2") == 200  # nobody can lock Ana out from elsewhere
    assert try_to_sign_in(project, passwords, PASSWORD, name="Bob") == 200


def test_a_closed_door_looks_the_same_for_a_name_that_is_nobodys(project: Project, passwords: Passwords) -> None:
    assert [try_to_sign_in(project, passwords, name="Nobody") for _ in range(11)] == [401] * 10 + [429]


@pytest.mark.slow
def test_guessing_from_many_addresses_or_at_many_accounts_ends_at_a_hundred(project: Project, passwords: Passwords, ana: str) -> None:
    wide = [try_to_sign_in(project, passwords, address=f"10.0.1.{n}") for n in range(FAILURES_WIDE + 1)]
    assert (wide.count(401), wide[-1]) == (FAILURES_WIDE, 429)
    spray = [try_to_sign_in(project, passwords, name=f"person {n}", address="10.0.2.1") for n in range(FAILURES_WIDE + 1)]
    assert (spray.count(401), spray[-1]) == (FAILURES_WIDE, 429)


def test_the_right_password_forgets_the_wrong_ones(project: Project, passwords: Passwords, ana: str) -> None:
    for _ in range(3):
        outcomes = [try_to_sign_in(project, passwords) for _ in range(FAILURES_HERE - 1)]
        assert outcomes == [401] * 9
        assert try_to_sign_in(project, passwords, PASSWORD) == 200
    assert rows(project, SignInFailure) == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_guesses_at_the_same_moment_are_all_counted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passwords: Passwords) -> None:
    monkeypatch.setenv("TRUING_DATABASE", new_database(kind, tmp_path))
    project = open_project(create_project(tmp_path / "project", settings=""))
    person_in(project, "Ana", "annotator", password_hash=passwords.hash(PASSWORD))
    outcomes: list[int] = []
    crowd = [threading.Thread(target=lambda: outcomes.append(try_to_sign_in(project, passwords))) for _ in range(14)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert sorted(outcomes) == [401] * 10 + [429] * 4
    project.database.close()


def test_a_word_typed_where_the_name_belongs_isnt_kept(project: Project, passwords: Passwords, ana: str) -> None:
    try_to_sign_in(project, passwords, name=PASSWORD)
    with project.database.read() as store:
        assert PASSWORD not in store.scalars(select(SignInFailure.account)).one()


def test_an_old_hash_is_made_anew_when_its_password_is_known(project: Project, ana: str) -> None:
    assert try_to_sign_in(project, Passwords(), PASSWORD) == 200
    with project.database.read() as store:
        assert "m=65536" in str(store.get_one(Annotator, ana).password_hash)


def test_another_password_signs_out_everywhere_else(project: Project, passwords: Passwords, ana: str) -> None:
    person = Person(ana, "Ana", Role.ANNOTATOR)
    old = [session_of(project, ana) for _ in range(2)]
    fresh = change_password(project, passwords, person, PASSWORD, "zebra lamp quarry", address="10.0.0.1", at=START)
    assert [person_of(project, secret, START) for secret in old] == [None, None]
    assert person_of(project, fresh, START) == person
    assert try_to_sign_in(project, passwords, PASSWORD) == 401
    assert try_to_sign_in(project, passwords, "zebra lamp quarry") == 200


def test_a_password_changes_only_by_the_one_before_and_to_a_good_one(project: Project, passwords: Passwords, ana: str) -> None:
    person = Person(ana, "Ana", Role.ANNOTATOR)
    with pytest.raises(Refusal, match="first that a guesser tries"):
        change_password(project, passwords, person, PASSWORD, "password1", address="10.0.0.1", at=START)
    for _ in range(FAILURES_HERE):
        with pytest.raises(Refusal, match="not your present password"):
            change_password(project, passwords, person, "wrong", "zebra lamp quarry", address="10.0.0.1", at=START)
    with pytest.raises(Refusal, match="too many passwords were wrong"):
        change_password(project, passwords, person, PASSWORD, "zebra lamp quarry", address="10.0.0.1", at=START)


# ---- names and roles ----


def test_a_name_is_one_line_in_one_spelling() -> None:
    assert plain_name("  Ana \t\n Lo\u0301pez ") == "Ana L\u00f3pez"
    assert (
        plain_name("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645") == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    )  # a joiner inside a Persian word


@pytest.mark.parametrize("name", ["", "   ", "x" * 81, "a\0b", "a\u202eb", "\u200b", "\ud800", "Removed-1234", "crowd-1"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Refusal):
        plain_name(name)


def test_roles_stand_above_each_other() -> None:
    table = [[at_least(has, needed) for needed in (Role.ANNOTATOR, Role.MANAGER, Role.OWNER)] for has in (Role.ANNOTATOR, Role.MANAGER, Role.OWNER)]
    assert table == [[True, False, False], [True, True, False], [True, True, True]]


def test_nobody_decides_about_a_role_that_isnt_below_their_own() -> None:
    def allowed(has: Role, given: Role) -> bool:
        try:
            refuse_unless_above(Person("p", "P", has), given)
        except Refusal:
            return False
        return True

    table = [[allowed(has, given) for given in (Role.ANNOTATOR, Role.MANAGER, Role.OWNER)] for has in (Role.ANNOTATOR, Role.MANAGER, Role.OWNER)]
    assert table == [[False, False, False], [True, False, False], [True, True, True]]


# ---- tokens ----


def test_a_token_is_shown_once_and_stored_hashed(project: Project) -> None:
    secret = make_token(project, "nightly import", ["read", "samples:write", "read"], 30, at=START)
    assert secret.startswith("truing_")
    assert len(secret) == 7 + 43
    with project.database.read() as store:
        row = store.scalars(select(Token)).one()
        line = tokens_of(store)[0]
    assert row.id == hashed(secret)
    assert (line.name, line.scopes, line.expires_at) == ("nightly import", ("read", "samples:write"), START + timedelta(days=30))


@pytest.mark.parametrize(("scopes", "days"), [([], 30), (["write"], 30), (["read", "admin"], None), (["read"], 0), (["read"], 3651)])
def test_a_token_of_no_use_isnt_made(project: Project, scopes: list[str], days: int | None) -> None:
    with pytest.raises(UserError):
        make_token(project, "x", scopes, days, at=START)
    assert rows(project, Token) == 0


def test_a_token_is_revoked_once(project: Project) -> None:
    make_token(project, "x", SCOPES, None, at=START)
    with project.database.read() as store:
        token_id = tokens_of(store)[0].id
    revoke_token(project, token_id)
    with pytest.raises(Refusal) as refusal:
        revoke_token(project, token_id)
    assert refusal.value.status == 404
