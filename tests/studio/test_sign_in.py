"""The doors as a browser meets them: pages, cookies, and where they lead."""

from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx2 import Response
from starlette.testclient import TestClient

from stored import new_database, small_disk
from truing.store.clock import now
from truing.store.project import create_project, open_project
from truing.store.tables import Role
from truing.studio.auth import COOKIE, person_of
from truing.studio.invitations import make_invitation, make_owner_link
from truing.studio.sign_in import inside
from visitors import PASSWORD, person_in, quick_passwords, signed_in, stranger, studio_of

PANEL = {"PROLIFIC_PID": "5f3c0ffee0ddba11deadbeef", "STUDY_ID": "study1", "SESSION_ID": "session1"}


@pytest.fixture
def ana(app: FastAPI) -> str:
    """The id of Ana, who has a password."""
    return person_in(app.state.project, "Ana", "annotator", password_hash=quick_passwords().hash(PASSWORD))


def cookie_of(answer: Response) -> tuple[str, dict[str, str]]:
    """The secret and the attributes of the session's cookie that an answer sets."""
    morsel = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    return morsel.value, {name: str(value) for name, value in morsel.items() if value}


def sign_in(client: TestClient, **changes: str) -> Response:
    return client.post("/sign-in", data={"name": "Ana", "password": PASSWORD} | changes)


# ---- sign in and out ----


def test_signing_in_sets_a_cookie_that_scripts_and_other_sites_cant_use(nobody: TestClient, ana: str) -> None:
    answer = sign_in(nobody)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    secret, attributes = cookie_of(answer)
    assert len(secret) == 43
    assert attributes == {"path": "/", "max-age": str(60 * 24 * 3600), "httponly": "True", "samesite": "lax"}
    assert nobody.get("/password").status_code == 200


def test_behind_https_the_cookie_goes_nowhere_else(app: FastAPI, ana: str) -> None:
    behind = studio_of(app.state.project, https=True)
    client = TestClient(behind, base_url="https://localhost", headers={"origin": "https://localhost", "accept": "text/html"}, follow_redirects=False)
    answer = sign_in(client)
    assert cookie_of(answer)[1]["secure"] == "True"
    assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_a_session_that_somebody_planted_ends_at_sign_in(app: FastAPI, nobody: TestClient, ana: str) -> None:
    planted = signed_in(app, "annotator", "Mallory").cookies[COOKIE]
    nobody.cookies.set(COOKIE, planted, domain="127.0.0.1", path="/")
    fresh, _ = cookie_of(sign_in(nobody))
    found = person_of(app.state.project, fresh, now())
    assert fresh != planted
    assert found is not None
    assert found.id == ana
    assert person_of(app.state.project, planted, now()) is None


def test_a_wrong_password_shows_the_form_again_with_the_name_and_not_the_password(nobody: TestClient, ana: str) -> None:
    answer = sign_in(nobody, name='Ana"><b>', password="wrong-secret-word")
    assert answer.status_code == 401
    assert "No one here has that name and password" in answer.text
    assert "Ana&#34;&gt;&lt;b&gt;" in answer.text
    assert "wrong-secret-word" not in answer.text
    assert "set-cookie" not in answer.headers


def test_the_eleventh_attempt_is_told_when_to_come_back(nobody: TestClient, ana: str) -> None:
    assert [sign_in(nobody, password="wrong").status_code for _ in range(10)] == [401] * 10
    answer = sign_in(nobody)
    assert answer.status_code == 429
    assert 890 <= int(answer.headers["retry-after"]) <= 900
    assert "Wait 15 minutes, then try again." in answer.text


def test_a_form_without_its_fields_is_a_wrong_password(nobody: TestClient) -> None:
    assert nobody.post("/sign-in").status_code == 401


def test_signing_out_ends_the_session_and_takes_the_cookie(app: FastAPI, annotator: TestClient) -> None:
    secret = annotator.cookies[COOKIE]
    answer = annotator.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert COOKIE not in annotator.cookies
    assert person_of(app.state.project, secret, now()) is None


def test_a_page_leads_to_the_sign_in_and_back(nobody: TestClient, ana: str) -> None:
    answer = nobody.get("/password?changed=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/password%3Fchanged%3D1")
    assert 'name="next" value="/password?changed=1"' in nobody.get(answer.headers["location"]).text
    assert sign_in(nobody, next="/password?changed=1").headers["location"] == "/password?changed=1"
    assert nobody.get("/sign-in?next=/password").headers["location"] == "/password"  # signed in already


@pytest.mark.parametrize(
    "address",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)", "", "/a\r\nX: y", "/\t/evil.example", "evil"],
)
def test_no_sign_in_leads_to_another_site(nobody: TestClient, ana: str, address: str) -> None:
    assert inside(address) == "/"
    assert sign_in(nobody, next=address).headers["location"] == "/"


@pytest.mark.parametrize("address", ["/", "/judge", "/manage/sets/new?kind=pair#top", "/manage/prompts?q=%C3%A4"])
def test_a_sign_in_leads_back_inside(address: str) -> None:
    assert inside(address) == address


# ---- links ----


def test_the_first_link_makes_an_owner_who_is_signed_in(app: FastAPI, nobody: TestClient) -> None:
    secret = make_owner_link(app.state.project, at=now())
    assert nobody.get(f"/first/{secret}").status_code == 200
    weak = nobody.post(f"/first/{secret}", data={"name": "Olga", "password": "password1"})
    assert weak.status_code == 400
    assert "first that a guesser tries" in weak.text
    assert 'value="Olga"' in weak.text
    assert "password1" not in weak.text
    answer = nobody.post(f"/first/{secret}", data={"name": "Olga", "password": PASSWORD})
    assert answer.status_code == 303
    found = person_of(app.state.project, cookie_of(answer)[0], now())
    assert found is not None
    assert (found.name, found.role) == ("Olga", Role.OWNER)
    assert stranger(app).get(f"/first/{secret}").status_code == 404
    assert stranger(app).post(f"/first/{secret}", data={"name": "Mallory", "password": PASSWORD}).status_code == 404


def test_the_app_takes_the_link_that_its_server_printed(app: FastAPI) -> None:
    again = studio_of(app.state.project, owner_link_secret="x" * 43)
    assert stranger(again).get("/first/" + "x" * 43).status_code == 200
    assert stranger(again).get("/first/" + "y" * 43).status_code == 404


def test_a_link_is_used_up_by_a_post_alone(app: FastAPI, nobody: TestClient) -> None:
    secret = make_invitation(app.state.project, "team", Role.ANNOTATOR, 1, 7, at=now())
    assert [nobody.get(f"/join/{secret}").status_code for _ in range(3)] == [200] * 3
    assert nobody.head(f"/join/{secret}").status_code in (200, 405)
    assert nobody.post(f"/join/{secret}", data={"name": "Bob", "password": PASSWORD}).status_code == 303
    late = stranger(app).post(f"/join/{secret}", data={"name": "Eve", "password": PASSWORD})
    assert late.status_code == 404
    assert "not good any more" in late.text


def test_a_name_that_is_taken_is_said_in_the_form(app: FastAPI, nobody: TestClient, ana: str) -> None:
    secret = make_invitation(app.state.project, "team", Role.ANNOTATOR, 1, 7, at=now())
    for name in ("Ana", "ANA"):
        answer = nobody.post(f"/join/{secret}", data={"name": name, "password": PASSWORD})
        assert answer.status_code in (400, 409)
        assert f'value="{name}"' in answer.text


def test_a_crowd_worker_needs_no_name_and_comes_to_the_questions(app: FastAPI, nobody: TestClient) -> None:
    secret = make_invitation(app.state.project, "study", Role.ANNOTATOR, 1, 7, at=now())
    shown = nobody.get(f"/join/{secret}", params=PANEL)
    assert shown.status_code == 200
    assert 'name="PROLIFIC_PID" value="5f3c0ffee0ddba11deadbeef"' in shown.text
    answer = nobody.post(f"/join/{secret}", data=PANEL)
    assert (answer.status_code, answer.headers["location"]) == (303, "/judge")
    first = person_of(app.state.project, cookie_of(answer)[0], now())
    again = stranger(app)
    assert again.get(f"/join/{secret}", params=PANEL).status_code == 200  # used up, but theirs
    back = again.post(f"/join/{secret}", data=PANEL)
    assert person_of(app.state.project, cookie_of(back)[0], now()) == first
    assert stranger(app).post(f"/join/{secret}", data=PANEL | {"PROLIFIC_PID": "another"}).status_code == 404
    assert stranger(app).post(f"/join/{secret}", data=PANEL | {"PROLIFIC_PID": "<script>"}).status_code == 400


# ---- password ----


def test_a_change_of_password_rotates_the_session(app: FastAPI, nobody: TestClient, ana: str) -> None:
    before, _ = cookie_of(sign_in(nobody))
    answer = nobody.post("/password", data={"old": PASSWORD, "new": "zebra lamp quarry"})
    assert answer.status_code == 303
    after, _ = cookie_of(answer)
    assert after != before
    assert person_of(app.state.project, before, now()) is None
    assert "Your password is changed" in nobody.get(answer.headers["location"]).text
    assert sign_in(stranger(app)).status_code == 401
    assert sign_in(stranger(app), password="zebra lamp quarry").status_code == 303


def test_a_wrong_present_password_changes_nothing(app: FastAPI, nobody: TestClient, ana: str) -> None:
    sign_in(nobody)
    answer = nobody.post("/password", data={"old": "wrong", "new": "zebra lamp quarry"})
    assert answer.status_code == 400
    assert "not your present password" in answer.text
    assert sign_in(stranger(app)).status_code == 303


# ---- other stores ----


def test_the_doors_open_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which refuses NUL in a text, and counts in time zones."""
    monkeypatch.setenv("TRUING_DATABASE", new_database("postgresql", tmp_path))
    project = open_project(create_project(tmp_path / "project", settings=""))
    app = studio_of(project, owner_link_secret="x" * 43)
    client = stranger(app)
    assert client.post("/first/" + "x" * 43, data={"name": "Olga", "password": PASSWORD}).status_code == 303
    assert client.get("/password").status_code == 200
    secret = make_invitation(project, "team", Role.ANNOTATOR, 1, 7, at=now())
    for name, status in (("A\0na", 400), ("olga", 400), ("Ana", 303)):
        assert stranger(app).post(f"/join/{secret}", data={"name": name, "password": PASSWORD}).status_code == status
    assert [sign_in(stranger(app), password=word).status_code for word in ("a\0b", PASSWORD)] == [401, 303]
    assert stranger(app).get("/join/a%00b").status_code == 404
    assert client.post("/sign-out").status_code == 303
    project.database.close()


def test_on_a_full_disk_nobody_comes_in_and_then_somebody_does(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size="3m") as disk:
        project = open_project(create_project(disk / "project", settings=""))
        person_in(project, "Ana", "annotator", password_hash=quick_passwords().hash(PASSWORD))
        client = stranger(studio_of(project))
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space left"):
            ballast.write_bytes(bytes(4 * 1024**2))
        answers = [sign_in(client, next="/" + "x" * 100) for _ in range(20)]
        full = [answer for answer in answers if answer.status_code != 303]
        assert {answer.status_code for answer in full} == {507}
        assert "The disk of the studio is full" in full[0].text
        assert "retry-after" in full[0].headers
        ballast.unlink()
        assert sign_in(client).status_code == 303
        assert client.get("/password").status_code == 200
        project.database.close()
