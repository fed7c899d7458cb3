"""Requests that nobody would write by hand: whatever comes, the studio says what is wrong and goes on."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import truing
from stored import new_database
from studio.doors import asked, holder, judgement, sample_ids
from studio.fuzzing import fuzz, studio_for_fuzzing
from truing.store.project import Project, create_project, open_project
from truing.studio.app import ROUTERS
from truing.studio.door import PREFIX
from visitors import signed_in

pytestmark = pytest.mark.slow

LETTERS = st.text(st.characters(codec="utf-8"), max_size=60)  # NUL, line ends, unseen signs and every script among them
HOSTILE = st.sampled_from(
    ["", "\0", "NaN", "-1", "1e999", str(2**64), "9" * 5000, "../../etc/passwd", "' OR 1=1 --", "<script>", "{{ 7 * 7 }}", "%00", "\x85", "[]", "{}"]
)


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, tmp_path))
    opened = open_project(create_project(tmp_path / "project", settings=""))
    yield opened
    opened.database.close()


@pytest.fixture
def app(project: Project) -> FastAPI:
    return studio_for_fuzzing(project)


def test_the_api_keeps_to_its_description(app: FastAPI, project: Project) -> None:
    """A short run; benchmarks/studio/fuzz.py is the long one, which also goes through the edges of the description."""
    on_sqlite = project.database.url.startswith("sqlite")
    found = fuzz(app, examples=10 if on_sqlite else 4, seed=1, phases=("fuzzing", "stateful") if on_sqlite else ("fuzzing",))
    assert found.failures == []
    assert found.operations >= 13
    assert not [status for status in found.statuses if not "200" <= status < "500"]
    assert found.statuses["200"] > 5


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | LETTERS | HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def test_one_wrong_value_in_a_right_request_is_refused_in_words(app: FastAPI) -> None:
    """Schemathesis seldom changes one thing alone in a request whose ids exist."""
    client = holder(app)
    question = asked(client, "No.", "Nope.", overlap=1000)["id"]
    (sample,) = sample_ids(client, "No.")
    right = {
        "judgements": judgement(question, started_at="2026-01-01T00:00:00Z", active_ms=1, guideline_version=1),
        "thumbs": {"sample_id": sample, "up": True, "user": "ana", "idempotency_key": "key-thumb-1", "comment": "good", "active_ms": 1, "set": "thumbs"},
        "comparisons": {"set": "fuzzed", "kind": "pair", "samples": [sample, sample], "overlap": 1, "guideline": "Which?"},
        "samples": {"samples": [{"prompt": [{"role": "user", "content": "Hi"}], "text": "Hello", "by": "m", "human": False, "batch": "b"}]},
        "prompts": {"prompts": [{"turns": [{"role": "user", "content": "Hi"}], "source": "s", "metadata": {"a": 1}}]},
    }

    @settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def changed(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(right)))
        body: dict[str, Any] = dict(right[path])
        inner = body[path][0] if path in ("samples", "prompts") else body
        changed = {**inner, data.draw(st.sampled_from(sorted(inner))): data.draw(VALUES)}
        body = {path: [changed]} if inner is not body else changed
        answer = client.post(f"{PREFIX}/{path}", content=as_json(body), headers={"content-type": "application/json"})
        assert answer.status_code < 500, answer.text
        assert answer.status_code == 200 or answer.json().keys() == {"what", "fix"}

    changed()


def as_json(value: Any) -> bytes:
    """JSON with NaN, infinities and lone surrogates, as careless programs write it."""
    return json.dumps(value).encode()


def routes(router: APIRouter, method: str) -> Iterator[tuple[str, list[str]]]:
    """(path, names of what the handler takes) of every route that takes this method."""
    for route in router.routes:
        if isinstance(route, APIRoute) and method in (route.methods or ()):
            yield route.path, list(inspect.signature(route.endpoint).parameters)
        elif hasattr(route, "original_router"):
            yield from routes(route.original_router, method)


TEMPLATES = Path(truing.__file__).parent / "studio" / "templates"
FIELDS = sorted({name for page in TEMPLATES.rglob("*.html") for name in re.findall(r'\bname="([\w-]+)"', page.read_text(encoding="utf-8"))})
LONG_WORK = ("/manage/quality/measure",)  # goes on after its answer, and so into the next example
PLACES = st.sampled_from(["x", "0" * 32, "1", "%00", "%F0%9F%98%80", "..%2f", str(2**70)])


def test_no_form_brings_the_studio_down(app: FastAPI, project: Project) -> None:
    doors = dict(found for router in ROUTERS for found in routes(router, "POST") if not found[0].startswith(PREFIX) and found[0] not in LONG_WORK)
    assert len(doors) >= 20
    asked(holder(app), "No.", "Nope.")

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def sent(data: st.DataObject) -> None:
        role = data.draw(st.sampled_from(["annotator", "manager", "owner"]))
        path = data.draw(st.sampled_from(sorted(doors)))
        names = st.sampled_from([*doors[path], *FIELDS])
        place = re.sub(r"{\w+}", lambda _: data.draw(PLACES), path)
        client = signed_in(app, role)
        if path.startswith("/judge/api") or data.draw(st.booleans()):
            fields = data.draw(st.dictionaries(names, VALUES, max_size=6) | VALUES)
            answer = client.post(place, content=as_json(fields), headers={"content-type": "application/json"})
        else:
            fields = data.draw(st.dictionaries(names, LETTERS | HOSTILE, max_size=6))
            answer = client.post(place, data=fields)
        assert answer.status_code < 500, (path, fields, answer.text)

    sent()


def test_no_address_brings_the_studio_down(app: FastAPI, project: Project) -> None:
    asked(holder(app), "No.", "Nope.")
    doors = sorted({path for router in ROUTERS for path, _ in routes(router, "GET")})
    assert len(doors) >= 30

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def sent(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(doors))
        place = re.sub(r"{\w+}", lambda _: data.draw(PLACES), path)
        wanted = data.draw(st.dictionaries(st.sampled_from([*names_of[path], "after", "before", "words"]), LETTERS | HOSTILE, max_size=3))
        answer = signed_in(app, data.draw(st.sampled_from(["annotator", "manager", "owner"]))).get(place, params=wanted)
        assert answer.status_code < 500, (path, wanted, answer.text)

    names_of = dict(found for router in ROUTERS for found in routes(router, "GET"))
    sent()
