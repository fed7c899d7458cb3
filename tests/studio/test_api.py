"""The API as programs meet it: what is kept, what is refused and how, who may do what; on both databases."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from stored import new_database
from studio.doors import KEY, QUESTION, asked, holder, judgement, sample_ids
from truing.feedback.assignment import claim
from truing.feedback.exchange import WRITABLE
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Assignment, Judgement, Prompt, Question, QuestionSet, Round, Sample
from truing.studio.openapi import text
from truing.studio.security import Limits
from visitors import person_in, program, signed_in, stranger, studio_of

pytestmark = pytest.mark.slow

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(params=["sqlite", "postgresql"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, tmp_path))
    opened = open_project(create_project(tmp_path / "project", settings=""))
    yield opened
    opened.database.close()


@pytest.fixture
def app(project: Project) -> FastAPI:
    return studio_of(project)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return holder(app)


def rows(project: Project, table: Any) -> list[Any]:
    with project.database.read() as session:
        return list(session.scalars(select(table).order_by(table.id)))


# ---- what is kept ----


def test_prompts_are_kept_once(client: TestClient, project: Project) -> None:
    body = {"prompts": [{"turns": QUESTION, "source": "chat", "metadata": {"lang": "en", "n": 3}}, {"turns": [{"role": "user", "content": "  Hi!  "}]}]}
    first = client.post("/api/v1/prompts", json=body).json()["prompts"]
    assert [one["id"] for one in first] == [content_id(QUESTION), content_id([{"role": "user", "content": "Hi!"}])]
    assert [one["new"] for one in first] == [True, True]
    again = client.post("/api/v1/prompts", json=body).json()["prompts"]
    assert again == [one | {"new": False} for one in first]
    kept = {row.text: row for row in rows(project, Prompt)}
    assert kept.keys() == {"Word a kind refusal.", "Hi!"}
    assert (kept["Word a kind refusal."].source, kept["Word a kind refusal."].facts) == ("chat", {"lang": "en", "n": 3})
    assert sorted(row.position for row in kept.values()) == [0, 1]


def test_samples_are_kept_once_and_bring_their_prompt(client: TestClient, project: Project) -> None:
    body = {
        "samples": [
            {"prompt": QUESTION, "text": "No.", "by": "model-1"},
            {"prompt": QUESTION, "text": "No, but thank you!", "by": "model-1"},
            {"prompt": content_id(QUESTION), "text": "No.", "by": "Ana", "human": True, "finished": False},
        ]
    }
    first = client.post("/api/v1/samples", json=body).json()["samples"]
    assert len({one["id"] for one in first}) == 3
    assert {one["prompt_id"] for one in first} == {content_id(QUESTION)}
    assert client.post("/api/v1/samples", json=body).json()["samples"] == [one | {"new": False} for one in first]
    kept = [(row.text, row.policy_id, row.author, row.batch, row.position, row.finished) for row in sorted(rows(project, Sample), key=lambda row: row.position)]
    assert kept == [
        ("No.", "model-1", None, "api:app", 0, True),
        ("No, but thank you!", "model-1", None, "api:app", 1, True),
        ("No.", None, "Ana", "api:app", 2, False),
    ]


def test_each_sample_goes_to_its_own_prompt(client: TestClient) -> None:
    """Prompts by id and by their turns, new and known, one of them twice."""
    known, others = content_id(QUESTION), [[{"role": "user", "content": f"Word a refusal number {number}."}] for number in (1, 2)]
    client.post("/api/v1/prompts", json={"prompts": [{"turns": QUESTION}]})
    sent = [others[0], known, others[1], QUESTION, others[0]]
    body = {"samples": [{"prompt": prompt, "text": f"No {place}.", "by": "model-1"} for place, prompt in enumerate(sent)]}
    found = [one["prompt_id"] for one in client.post("/api/v1/samples", json=body).json()["samples"]]
    assert found == [content_id(others[0]), known, content_id(others[1]), known, content_id(others[0])]


def test_a_request_is_kept_whole_or_not_at_all(client: TestClient, project: Project) -> None:
    body = {"samples": [{"prompt": QUESTION, "text": "No.", "by": "model-1"}, {"prompt": "0" * 32, "text": "No.", "by": "model-1"}]}
    answer = client.post("/api/v1/samples", json=body)
    assert answer.status_code == 404
    assert answer.json()["what"] == f"there is no prompt {'0' * 32}"
    assert rows(project, Prompt) == rows(project, Sample) == []


def test_a_comparison_makes_its_set_and_stands_in_it_once(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "No, but thank you!", overlap=3, guideline="Which is kinder?")
    assert [sample["text"] for sample in question["samples"]] == ["No.", "No, but thank you!"]
    assert question["turns"] == QUESTION
    assert (question["set"], question["kind"], question["overlap"], question["answers"], question["open"]) == ("refusals", "pair", 3, 0, True)
    assert (question["guideline"], question["guideline_version"]) == ("Which is kinder?", 1)
    assert {sample["by"] for sample in question["samples"]} == {"model-1"}
    assert asked(client, "No.", "No, but thank you!") == question
    assert asked(client, "No.", "No, thanks.", set="refusals")["set_id"] == question["set_id"]
    assert client.get(f"/api/v1/questions/{question['id']}").json() == question
    assert [(row.name, row.state) for row in rows(project, QuestionSet)] == [("refusals", "open")]
    assert len(rows(project, Question)) == 2


@pytest.mark.parametrize(("kind", "n"), [("pair", 2), ("ranking", 4), ("rating", 1), ("thumbs", 1), ("edit", 1)])
def test_people_in_the_studio_are_asked_it(client: TestClient, project: Project, kind: str, n: int) -> None:
    question = asked(client, *[f"text {i}" for i in range(n)], kind=kind)
    lent = claim(project, person_in(project, "Ana", "annotator"), at=now())
    assert lent is not None
    assert (lent.question_id, lent.kind) == (question["id"], kind)
    assert sorted(lent.order_shown) == list(range(n))


# ---- what people say ----


@pytest.mark.parametrize(
    ("kind", "n", "answer"),
    [
        ("pair", 2, {"strength": -3}),
        ("pair", 2, {"both_bad": True, "flags": ["unsafe"], "comment": "both are rude"}),
        ("ranking", 3, {"ranks": [2, 1, 2]}),
        ("rating", 1, {"aspects": {"overall": 5}}),
        ("thumbs", 1, {"up": False}),
        ("edit", 1, {"text": "No, and thank you for asking."}),
        ("edit", 1, {"unchanged": True}),
        ("pair", 2, {"skip": "I don't know either"}),
    ],
)
def test_an_answer_is_kept_as_it_was_given(client: TestClient, project: Project, kind: str, n: int, answer: dict[str, Any]) -> None:
    question = asked(client, *[f"text {i}" for i in range(n)], kind=kind)
    order = list(reversed(range(n)))
    started = now() - timedelta(seconds=20)
    sent = judgement(question["id"], answer=answer, order_shown=order, started_at=started.isoformat(), active_ms=8000)
    receipt = client.post("/api/v1/judgements", json=sent).json()
    (row,) = rows(project, Judgement)
    assert (row.id, row.question_id, row.annotator_id) == (receipt["judgement_id"], receipt["question_id"], receipt["annotator_id"])
    assert (row.answer, row.order_shown, row.started_at, row.active_ms, row.guideline_version) == (answer, order, started, 8000, 1)
    after = client.get(f"/api/v1/questions/{question['id']}").json()
    assert (after["answers"], after["open"]) == ((0, True) if "skip" in answer else (1, False))


def test_an_answer_sent_twice_is_there_once(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.")["id"]
    first = client.post("/api/v1/judgements", json=judgement(question)).json()
    again = client.post("/api/v1/judgements", json=judgement(question)).json()
    assert (first["replay"], again) == (False, first | {"replay": True})
    clash = client.post("/api/v1/judgements", json=judgement(question, answer={"strength": 1}))
    assert clash.status_code == 409
    assert clash.json() == {"what": "this idempotency key came with another answer before", "fix": "send each answer with a key of its own"}
    assert len(rows(project, Judgement)) == 1


def test_keys_of_two_tokens_never_meet(app: FastAPI, client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.")["id"]
    first = client.post("/api/v1/judgements", json=judgement(question)).json()
    other = program(app, "judgements:write").post("/api/v1/judgements", json=judgement(question, user="customer 8", answer={"strength": 0})).json()
    assert not other["replay"]
    assert other["judgement_id"] != first["judgement_id"]


def test_a_change_of_mind_supersedes(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.", overlap=2)["id"]
    first = client.post("/api/v1/judgements", json=judgement(question)).json()
    changed = judgement(question, answer={"strength": -1}, order_shown=[0, 1], idempotency_key="another-key")
    second = client.post("/api/v1/judgements", json=changed).json()
    log = {row.id: row for row in rows(project, Judgement)}
    assert log[second["judgement_id"]].supersedes == first["judgement_id"]
    assert [log[one["judgement_id"]].order_shown for one in (first, second)] == [[1, 0], [0, 1]]
    assert client.get(f"/api/v1/questions/{question}").json()["answers"] == 1


def test_the_user_is_kept_as_a_hash_under_the_projects_salt(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.", overlap=3)["id"]
    for number, user in enumerate(("ana@example.org", "ben@example.org", "ana@example.org")):
        client.post("/api/v1/judgements", json=judgement(question, user=user, idempotency_key=f"key-number-{number}"))
    people = rows(project, Annotator)
    assert len(people) == 2
    assert all(row.name.startswith("user-") and len(row.name) == 21 and row.password_hash is None for row in people)
    assert "example.org" not in json.dumps([[row.name, row.facts] for row in people])
    (project.root / "salt").write_bytes(b"another" * 4)
    client.post("/api/v1/judgements", json=judgement(question, user="ana@example.org", idempotency_key="key-number-3"))
    assert len(rows(project, Annotator)) == 3


def test_a_thumb_makes_its_question_and_every_person_counts(client: TestClient, project: Project) -> None:
    (sample,) = sample_ids(client, "No, but thank you!")
    sent = [("ana", True, "key-thumb-1"), ("ben", False, "key-thumb-2"), ("ben", False, "key-thumb-2"), ("ana", False, "key-thumb-3")]
    receipts = [
        client.post("/api/v1/thumbs", json={"sample_id": sample, "up": up, "user": user, "idempotency_key": key, "comment": "fine"}).json()
        for user, up, key in sent
    ]
    assert [receipt["replay"] for receipt in receipts] == [False, False, True, False]
    assert not any(receipt["extra"] for receipt in receipts)
    (question,) = rows(project, Question)
    assert (question.kind, question.answers, question.overlap, question.open) == ("thumbs", 2, 2, False)
    standing = {row.id: row.answer for row in rows(project, Judgement)}
    assert standing[receipts[3]["judgement_id"]] == {"up": False, "comment": "fine"}
    assert claim(project, person_in(project, "Cleo", "annotator"), at=now()) is None
    assert len(rows(project, Assignment)) == 2


def test_a_start_long_ago_or_in_the_future_is_brought_near(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.", overlap=3)["id"]
    for number, started in enumerate(("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")):
        answer = client.post("/api/v1/judgements", json=judgement(question, user=f"u{number}", started_at=started, idempotency_key=f"key-at-{number:05}"))
        assert answer.status_code == 200, answer.text
    early, late = sorted(rows(project, Judgement), key=lambda row: row.started_at)
    assert early.submitted_at - early.started_at == timedelta(days=30)
    assert late.started_at == late.submitted_at


# ---- what is refused ----


@pytest.mark.parametrize(
    ("path", "body", "status", "what"),
    [
        ("prompts", {"prompts": []}, 422, "prompts"),
        ("prompts", {"prompts": [{"turns": [{"role": "user", "content": "a\0b"}]}]}, 422, "prompts.0.turns.0.content"),
        ("prompts", {"prompts": [{"turns": [{"role": "assistant", "content": "Hi"}]}]}, 422, "prompts.0.turns"),
        ("prompts", {"prompts": [{"turns": QUESTION, "metadata": {"n": 2**64}}]}, 422, "prompts.0.metadata.n"),
        ("prompts", {"prompts": [{"turns": QUESTION, "metadata": {"n": [1]}}]}, 422, "prompts.0.metadata.n"),
        ("prompts", {"prompts": [{"turns": QUESTION, "colour": "red"}]}, 422, "prompts.0.colour"),
        ("prompts", {"prompts": [{"turns": [{"role": "user", "content": "x" * 20_001}]}]}, 400, "20,001 characters"),
        ("samples", {"samples": [{"prompt": QUESTION, "text": " \u200b\t", "by": "m"}]}, 422, "samples.0.text"),
        ("samples", {"samples": [{"prompt": QUESTION, "text": "x", "by": "check", "human": True}]}, 400, "check"),
        ("comparisons", {"set": "s", "samples": ["0" * 32, "1" * 32]}, 404, "no sample"),
        ("comparisons", {"set": "s", "samples": ["0" * 32, "0" * 32]}, 422, "samples"),
        ("comparisons", {"set": "s", "kind": "guess", "samples": ["0" * 32]}, 422, "kind"),
        ("judgements", judgement("0" * 32), 404, "no question"),
        ("judgements", judgement("0" * 32, answer={"strength": 4}), 422, "answer"),
        ("judgements", judgement("0" * 32, answer={"strength": True}), 422, "answer"),
        ("judgements", judgement("0" * 32, answer={"strength": 1, "up": True}), 422, "answer"),
        ("judgements", judgement("0" * 32, answer={}), 422, "exactly one of"),
        ("judgements", judgement("0" * 32, active_ms=2**70), 422, "active_ms"),
        ("judgements", judgement("0" * 32, active_ms="5"), 422, "active_ms"),
        ("judgements", judgement("0" * 32, order_shown=[0, 0]), 422, "order_shown"),
        ("judgements", judgement("0" * 32, started_at="2026-01-01"), 422, "started_at"),
        ("judgements", judgement("0" * 32, started_at=1767225600), 422, "started_at"),
        ("judgements", judgement("0" * 32, idempotency_key="short"), 422, "idempotency_key"),
        ("thumbs", {"sample_id": "0" * 32, "up": True, "user": "u", "idempotency_key": KEY}, 404, "no sample"),
        ("thumbs", {"sample_id": "0" * 32, "up": 1, "user": "u", "idempotency_key": KEY}, 422, "up"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(client: TestClient, project: Project, path: str, body: Any, status: int, what: str) -> None:
    answer = client.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"what", "fix"}
    assert what in answer.json()["what"]
    assert answer.json()["fix"]
    assert not any(rows(project, table) for table in (Prompt, Sample, QuestionSet, Judgement, Annotator))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompts": [{"turns": [{"role": "user", "content": "\\ud800"}]}]}',
        b'{"prompts": [{"turns": [{"role": "user", "content": "\xff"}]}]}',
        b'{"prompts": [{"turns": [{"role": "user", "content": "x"}], "metadata": {"n": NaN}}]}',
        b'{"prompts": [{"turns": [{"role": "user", "content": "x"}], "metadata": {"n": 1e999}}]}',
        b'{"prompts": [{"turns": [{"role": "user", "content": "x"}], "metadata": {"n": ' + b"9" * 6000 + b"}}]}",
        b"[" * 100_000,
        b'{"prompts": ' + b'{"a":' * 50_000,
        b"",
        b"null",
        b"\x00",
    ],
)
def test_hostile_bytes_are_refused(client: TestClient, project: Project, raw: bytes) -> None:
    answer = client.post("/api/v1/prompts", content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json().keys() == {"what", "fix"}
    assert rows(project, Prompt) == []


def test_questions_that_make_no_sense_are_refused(client: TestClient) -> None:
    one, two, three = sample_ids(client, "No.", "Nope.", "Never.")
    (same,) = sample_ids(client, "No.", by="model-2")
    elsewhere = client.post("/api/v1/samples", json={"samples": [{"prompt": [{"role": "user", "content": "Hi"}], "text": "Hello", "by": "m"}]}).json()
    for kind, samples, what in (
        ("pair", [one], "two samples, not 1"),
        ("pair", [one, two, three], "two samples, not 3"),
        ("ranking", [one], "two to nine"),
        ("rating", [one, two], "one sample, not 2"),
        ("pair", [one, same], "same text"),
        ("pair", [one, elsewhere["samples"][0]["id"]], "different prompts"),
    ):
        answer = client.post("/api/v1/comparisons", json={"set": "s", "kind": kind, "samples": samples})
        assert (answer.status_code, what in answer.json()["what"]) == (400, True), answer.text
    assert client.get("/api/v1/sets").json() == {"sets": []}
    asked(client, "No.", "Nope.", set="s")
    clash = client.post("/api/v1/comparisons", json={"set": "s", "kind": "thumbs", "samples": [one]})
    assert (clash.status_code, "asks pair questions" in clash.json()["what"]) == (409, True)


def test_an_answer_of_another_kind_is_refused(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.")["id"]
    for changes in ({"answer": {"up": True}}, {"answer": {"ranks": [1, 2]}}, {"order_shown": [0]}, {"order_shown": [0, 2]}, {"guideline_version": 2}):
        answer = client.post("/api/v1/judgements", json=judgement(question, **changes))
        assert answer.status_code == 400, answer.text
    assert rows(project, Judgement) == rows(project, Assignment) == []


def test_a_paused_person_is_refused(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.", overlap=2)["id"]
    client.post("/api/v1/judgements", json=judgement(question))
    with project.database.write() as session:
        session.scalars(select(Annotator)).one().active = False
    answer = client.post("/api/v1/judgements", json=judgement(question, idempotency_key="another-key"))
    assert (answer.status_code, answer.json()["what"]) == (409, "this person was paused in the studio")


# ---- who may do what ----

DOORS = {
    ("POST", "/prompts"): "prompts:write",
    ("POST", "/samples"): "samples:write",
    ("POST", "/comparisons"): "questions:write",
    ("POST", "/judgements"): "judgements:write",
    ("POST", "/thumbs"): "judgements:write",
    ("POST", "/import"): "judgements:write",
    ("GET", f"/questions/{'0' * 32}"): "read",
    ("GET", "/sets"): "read",
    ("GET", f"/sets/{'0' * 32}/progress"): "read",
    ("GET", "/judgements"): "read",
    ("GET", "/export"): "read",
    ("GET", "/rounds"): "read",
    ("GET", "/status"): "read",
}


def test_every_door_is_in_the_table() -> None:
    paths = json.loads(text())["paths"]
    found = {
        (method.upper(), path.removeprefix("/api/v1").replace("{question_id}", "0" * 32).replace("{set_id}", "0" * 32))
        for path in paths
        for method in paths[path]
    }
    assert found == DOORS.keys()


def test_each_door_needs_its_scope(app: FastAPI, project: Project) -> None:
    everything = sorted(set(DOORS.values()))
    holders = {scope: program(app, scope) for scope in everything}
    people = {role: signed_in(app, role) for role in ("annotator", "manager", "owner")}
    for (method, path), needed in DOORS.items():
        for scope, client in holders.items():
            status = client.request(method, f"/api/v1{path}").status_code
            assert (status == 403) == (scope != needed), (path, scope, status)
        assert stranger(app).request(method, f"/api/v1{path}").status_code == 401
        assert {role: client.request(method, f"/api/v1{path}").status_code == 403 for role, client in people.items()} == {
            "annotator": True, "manager": False, "owner": False,
        }  # fmt: skip
        wrong = TestClient(app, base_url="http://127.0.0.1", headers={"authorization": "Bearer truing_wrong"}).request(method, f"/api/v1{path}")
        assert (wrong.status_code, wrong.json().keys()) == (401, {"what", "fix"})


# ---- what can be read ----


def test_the_log_is_read_in_pages(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.", overlap=20)["id"]
    sent = [client.post("/api/v1/judgements", json=judgement(question, user=f"user {i}", idempotency_key=f"key-number-{i}")).json() for i in range(7)]
    seen, after = [], None
    while True:
        page = client.get("/api/v1/judgements", params={"limit": 3} | ({"after": after} if after else {})).json()
        seen += page["judgements"]
        after = page["next"]
        if after is None:
            break
    assert [row["id"] for row in seen] == sorted(one["judgement_id"] for one in sent)
    middle = seen[3]["submitted_at"]
    later = client.get("/api/v1/judgements", params={"since": middle}).json()["judgements"]
    assert later == [row for row in seen if row["submitted_at"] >= middle]
    assert client.get("/api/v1/judgements", params={"since": "9999-12-31T23:59:59-14:00"}).json() == {"judgements": [], "next": None}
    for wrong in ({"limit": 0}, {"limit": 1001}, {"since": "yesterday"}, {"after": "\0"}, {"after": "x" * 37}):
        assert client.get("/api/v1/judgements", params=wrong).status_code == 422


def test_sets_and_status_say_how_far_things_are(client: TestClient, project: Project) -> None:
    question = asked(client, "No.", "Nope.", overlap=2)
    asked(client, "No.", "Never.", overlap=1)
    client.post("/api/v1/judgements", json=judgement(question["id"]))
    with project.database.write() as session:
        session.add(Round(id=1, number=1, parent_id=None, seed=5, made={"prompts": 2}, created_at=datetime(2026, 1, 1, tzinfo=UTC), sealed_at=None))
    (one,) = client.get("/api/v1/sets").json()["sets"]
    assert one == {
        "id": question["set_id"], "name": "refusals", "kind": "pair", "state": "open", "questions": 2, "answered": 1, "wanted": 3, "judgements": 1, "people": 1,
    }  # fmt: skip
    assert client.get(f"/api/v1/sets/{question['set_id']}/progress").json() == one
    assert client.get(f"/api/v1/sets/{'0' * 32}/progress").status_code == 404
    status = client.get("/api/v1/status").json()
    assert {name: status[name] for name in ("project", "prompts", "samples", "questions", "judgements", "sets", "rounds", "answered", "wanted", "running")} == {
        "project": "project", "prompts": 1, "samples": 3, "questions": 2, "judgements": 1, "sets": 1, "rounds": 1, "answered": 1, "wanted": 3, "running": [],
    }  # fmt: skip
    (turn,) = client.get("/api/v1/rounds").json()["rounds"]
    assert turn == {"number": 1, "parent": None, "made": {"prompts": 2}, "created_at": "2026-01-01T00:00:00Z", "sealed_at": None}


def test_files_go_out_and_come_in(client: TestClient, tmp_path: Path) -> None:
    row = {"prompt": "Word a kind refusal.", "chosen": "No, but thank you!", "rejected": "No."}
    sent = {"file": ("pairs.jsonl", json.dumps(row).encode() + b'\n{"prompt": 3}\n')}
    report = client.post("/api/v1/import", files=sent, data={"format": "trl"}).json()
    assert (report["added"], report["duplicates"], report["refused_in_all"], report["refused"][0]["line"]) == (1, 0, 1, 2)
    assert client.post("/api/v1/import", files=sent, data={"format": "trl"}).json()["duplicates"] == 1
    strict = client.post("/api/v1/import", files=sent, data={"format": "trl", "strict": "true"})
    assert (strict.status_code, strict.json().keys()) == (400, {"what", "fix"})
    out = client.get("/api/v1/export", params={"format": "trl"})
    assert json.loads(out.content)["chosen"] == [{"role": "assistant", "content": "No, but thank you!"}]
    guessed = client.post("/api/v1/import", files={"file": ("pairs.jsonl", json.dumps(row).encode())})  # its format can be seen
    assert (guessed.status_code, guessed.json()["duplicates"]) == (200, 1), guessed.text
    for format in WRITABLE:
        assert client.get("/api/v1/export", params={"format": format}).status_code == 200, format
    native = client.get("/api/v1/export")
    assert native.content.count(b'"event": "judgement"') == 1
    for wrong in ("abacus", "../native"):
        assert client.get("/api/v1/export", params={"format": wrong}).status_code == 422
        assert client.post("/api/v1/import", files=sent, data={"format": wrong}).status_code == 422


@pytest.mark.parametrize("name", ["../../../etc/passwd", "a" * 300, "x\0y.jsonl", "..", "ünï✓.jsonl", "<script>alert(1)</script>.jsonl", "/"])
def test_a_hostile_file_name_does_no_harm(client: TestClient, name: str) -> None:
    row = {"prompt": "Word a kind refusal.", "chosen": "No, but thank you!", "rejected": "No."}
    answer = client.post("/api/v1/import", files={"file": (name, json.dumps(row).encode())}, data={"format": "trl"})
    assert answer.status_code in (200, 400, 422), answer.text
    assert not (Path("/etc/passwd").read_text().startswith("{"))


# ---- its description ----


def test_the_committed_description_is_this_apis() -> None:
    assert OPENAPI.read_text(encoding="utf-8") == text(), "refresh it: python -m truing.studio.openapi docs/openapi.json"


def test_the_description_is_served_to_those_who_may_read(app: FastAPI) -> None:
    served = program(app, "read").get("/api/v1/openapi.json").json()
    assert {path: doors for path, doors in served["paths"].items() if path.startswith("/api/")} == json.loads(text())["paths"]
    assert program(app, "prompts:write").get("/api/v1/openapi.json").status_code == 403


def test_a_program_without_a_token_is_told_so(app: FastAPI) -> None:
    answer = TestClient(app, base_url="http://127.0.0.1").post("/api/v1/prompts", json={"prompts": [{"turns": QUESTION}]})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["what"] == "no token came with this request"


def test_a_full_studio_says_so_in_the_same_words(project: Project) -> None:
    answer = holder(studio_of(project, limits=Limits(at_once=0))).get("/api/v1/status")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"what": "too many requests wait already", "fix": "try again in a second"}
