"""Every route × every role: a cell each, written down here. A route that isn't written down fails."""

from typing import NamedTuple

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient

from truing.store.clock import now
from truing.store.tables import Annotator
from truing.studio.auth import SCOPES
from truing.studio.invitations import invitations_of
from truing.studio.security import Limits
from visitors import person_in, program, signed_in, stranger

IN, WHO, NO = "in", "who?", "no"  # reaches the page; 401; 403


class Row(NamedTuple):
    """What each visitor gets at a route; `scope` is the one that lets a token in, `others` says whose objects its address names."""

    nobody: str
    annotator: str
    manager: str
    owner: str
    other_token: str
    token: str
    scope: str = ""
    others: str = ""


OPEN = Row(IN, IN, IN, IN, IN, IN)
PEOPLE = Row(WHO, IN, IN, IN, WHO, WHO)
MANAGERS = Row(WHO, NO, IN, IN, WHO, WHO)
SHARED = MANAGERS._replace(others="who manages sees and changes all of the project")
BELOW = MANAGERS._replace(others="only what concerns a role below one's own: test_nobody_decides_about_their_equals")
SECRET = OPEN._replace(others="a secret of 256 bits is the key")  # test_invitations.py and test_sign_in.py try wrong ones


def scoped(scope: str, others: str = "") -> Row:
    """A route of the API."""
    return Row(WHO, NO, IN, IN, NO, IN, scope, others)


ROUTES: dict[str, Row] = {
    "GET /healthz": OPEN,
    "GET /api/v1/openapi.json": scoped("read"),
    "GET /sign-in": OPEN,
    "POST /sign-in": OPEN._replace(nobody=WHO, annotator=WHO, manager=WHO, owner=WHO, other_token=WHO, token=WHO),  # nobody's name and password
    "POST /sign-out": OPEN,
    "GET /first/{secret}": SECRET,
    "POST /first/{secret}": SECRET,
    "GET /join/{secret}": SECRET,
    "POST /join/{secret}": SECRET,
    "GET /password": PEOPLE,
    "POST /password": PEOPLE,
    # judging: a claim or a judgement of somebody else's is refused (test_judge_pages.py)
    "GET /judge": PEOPLE,
    "GET /judge/last": PEOPLE,
    "GET /me": PEOPLE,
    "POST /judge/api/next": PEOPLE,
    "POST /judge/api/submit": PEOPLE,
    "POST /judge/api/supersede": PEOPLE,
    "POST /judge/api/draft": PEOPLE,
    "POST /judge/api/release": PEOPLE,
    "GET /judge/api/last": PEOPLE,
    "GET /judge/api/last/{judgement_id}": PEOPLE._replace(others="their own judgements alone"),
    # managing: who manages sees and changes all of the project, but decides only about people below them
    "GET /": PEOPLE,  # an annotator is led to the questions
    "GET /manage/live": MANAGERS,
    "GET /manage/sets": MANAGERS,
    "GET /manage/sets/new": MANAGERS,
    "POST /manage/sets/new": MANAGERS,
    "GET /manage/sets/{set_id}": SHARED,
    "POST /manage/sets/{set_id}/state": SHARED,
    "POST /manage/sets/{set_id}/guideline": SHARED,
    "POST /manage/questions/{question_id}/gold": SHARED,
    "POST /manage/preview": MANAGERS,
    "GET /manage/import": MANAGERS,
    "POST /manage/import": MANAGERS,
    "GET /manage/import/{key}": SHARED,
    "POST /manage/import/{key}": SHARED,
    "GET /manage/people": MANAGERS,
    "GET /manage/people/{annotator_id}": SHARED,
    "POST /manage/people/{annotator_id}/role": BELOW,
    "POST /manage/people/{annotator_id}/active": BELOW,
    "POST /manage/people/{annotator_id}/remove": BELOW,
    "POST /manage/invitations": MANAGERS,
    "POST /manage/invitations/{invitation_id}/revoke": BELOW,
    "GET /manage/tokens": MANAGERS,
    "POST /manage/tokens": MANAGERS,
    "POST /manage/tokens/{token_id}/revoke": SHARED,
    "GET /manage/adjudicate": MANAGERS,
    "GET /manage/adjudicate/{question_id}": SHARED,
    "POST /manage/adjudicate/{question_id}": SHARED,
    "POST /manage/adjudicate/{question_id}/take": SHARED,
    "GET /manage/quality": MANAGERS,
    "POST /manage/quality/measure": MANAGERS,
    "GET /manage/quality/state": MANAGERS,
    "GET /manage/prompts": MANAGERS,
    "GET /manage/prompts/{prompt_id}": SHARED,
    "GET /manage/samples": MANAGERS,
    "GET /manage/judgements": MANAGERS,
    "GET /manage/questions/{question_id}": SHARED,
    "GET /manage/tuning/{run_id}": SHARED,
    "GET /manage/tuning/{run_id}/live/{part}": SHARED,
    "GET /manage/rounds": MANAGERS,
    "GET /manage/rounds/{number}": SHARED,
    "POST /manage/rounds/{number}/report": SHARED,
    "GET /manage/rounds/{number}/report": SHARED,
    "GET /manage/rounds/{number}/report.css": SHARED,
    "GET /manage/rounds/round-{number}.html": SHARED,
    # the API
    "POST /api/v1/prompts": scoped("prompts:write"),
    "POST /api/v1/samples": scoped("samples:write"),
    "POST /api/v1/comparisons": scoped("questions:write"),
    "GET /api/v1/questions/{question_id}": scoped("read", others="a token reads all of the project"),
    "GET /api/v1/sets": scoped("read"),
    "GET /api/v1/sets/{set_id}/progress": scoped("read", others="a token reads all of the project"),
    "POST /api/v1/judgements": scoped("judgements:write"),
    "POST /api/v1/thumbs": scoped("judgements:write"),
    "GET /api/v1/judgements": scoped("read"),
    "GET /api/v1/export": scoped("read"),
    "POST /api/v1/import": scoped("judgements:write"),
    "GET /api/v1/rounds": scoped("read"),
    "GET /api/v1/status": scoped("read"),
}
MOUNTS = {"/static"}  # files of the package, the same for everybody


def routes_of(app: FastAPI) -> list[str]:
    """Every route as `METHOD /path`."""
    contexts = list(iter_route_contexts(app.routes))
    return sorted(f"{method} {context.path}" for context in contexts for method in (context.methods or ()) if method != "HEAD")


def outcome(client: TestClient, route: str) -> str:
    """Whether a visitor reaches a route, asked as a program so that a refusal is a status and no way round."""
    method, _, path = route.partition(" ")
    status = client.request(method, path.replace("{", "").replace("}", ""), headers={"accept": "application/json"}).status_code
    assert status < 500, f"{route}: {status}"
    return {401: WHO, 403: NO}.get(status, IN)


def test_every_route_is_written_down(app: FastAPI) -> None:
    assert routes_of(app) == sorted(ROUTES)
    assert {route.path for route in app.routes if isinstance(route, Mount)} == MOUNTS


def test_imports_arrive_where_large_bodies_are_taken(app: FastAPI) -> None:
    assert {f"POST {path}" for path in Limits().uploads} <= set(routes_of(app))


def test_a_route_that_names_an_object_says_whose() -> None:
    """One's own and other people's: a row with a name in its address says what keeps them apart."""
    assert [route for route, row in ROUTES.items() if "{" in route and not row.others] == []


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES)
def test_who_reaches_a_route(app: FastAPI, route: str) -> None:
    row = ROUTES[route]
    scope = row.scope or "read"
    visitors = {
        "nobody": stranger(app),
        "annotator": signed_in(app, "annotator"),
        "manager": signed_in(app, "manager"),
        "owner": signed_in(app, "owner"),
        "other_token": program(app, *(name for name in SCOPES if name != scope)),
        "token": program(app, scope),
    }
    assert {name: outcome(client, route) for name, client in visitors.items()} == {name: getattr(row, name) for name in visitors}


def test_a_page_without_a_session_leads_to_the_sign_in(app: FastAPI) -> None:
    """Every page that isn't open: nobody sees an error where they could sign in."""
    for route in (name for name, row in ROUTES.items() if row.nobody == WHO and not row.scope and name != "POST /sign-in"):
        method, _, path = route.partition(" ")
        answer = stranger(app).request(method, path.replace("{", "").replace("}", ""))
        assert (route, answer.status_code, answer.headers["location"].partition("?")[0]) == (route, 303, "/sign-in")


@pytest.mark.parametrize("action", [("role", {"role": "annotator"}), ("active", {"active": "no"}), ("remove", {"sure": "yes"})], ids=lambda action: action[0])
def test_nobody_decides_about_their_equals(app: FastAPI, action: tuple[str, dict[str, str]]) -> None:
    project = app.state.project
    people = {role: person_in(project, f"Another {role}", role) for role in ("annotator", "manager", "owner")}
    manager = signed_in(app, "manager")
    door, form = action
    answers = {role: manager.post(f"/manage/people/{person_id}/{door}", data=form).status_code for role, person_id in people.items()}
    assert (answers["manager"], answers["owner"]) == (403, 403)
    with project.database.read() as store:
        kept = [store.get_one(Annotator, people[role]) for role in ("manager", "owner")]
    assert [(row.role, row.active, row.name) for row in kept] == [("manager", True, "Another manager"), ("owner", True, "Another owner")]


def test_a_manager_invites_no_equals(app: FastAPI, manager: TestClient, owner: TestClient) -> None:
    form = {"name": "staff", "role": "manager", "uses": "1", "days": "7"}
    assert manager.post("/manage/invitations", data=form).status_code in (400, 403)
    with app.state.project.database.read() as store:
        assert invitations_of(store, now()) == []
    assert owner.post("/manage/invitations", data=form).status_code < 400
    assert owner.post("/manage/invitations", data=form | {"role": "owner"}).status_code == 400
