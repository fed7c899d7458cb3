"""Nothing an annotator receives tells who wrote what: not a name, not an id, not an order, not a length."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from stored import NOON
from studio.desk_of_questions import ASPECTS, AUTHOR, BATCH, FILE, LETTER, LETTER_ANSWERS, POLICY, add_batch, add_person, ask
from truing.feedback.assignment import claim_in
from truing.feedback.sets import add_gold
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.log_pages import samples_of
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Artifact, Assignment, Judgement, Policy, Prompt, Question, QuestionSet, Sample
from truing.studio.auth import COOKIE, begin_session
from visitors import signed_in, stranger, studio_of

ARTIFACT = "policy-0123456789abcdef0123456789abcdef"
WORDS_OF_THE_STORE = ("gold", "repeat_of", "only_for", "policy", "author", "sample_id", "artifact", "batch", "strength", "order_shown", "overlap", 'answers":')
KINDS = ("pair", "ranking", "rating", "thumbs", "edit")
ANSWERS: dict[str, dict[str, Any]] = {
    "pair": {"leaning": 2, "comment": "clearer"}, "ranking": {"ranks": [2, 1, 3]}, "rating": {"aspects": {aspect.name: 4 for aspect in ASPECTS}},
    "thumbs": {"up": True}, "edit": {"text": "I would write it so."},
}  # fmt: skip
OTHERS_WORDS = "what-another-annotator-wrote"


@pytest.fixture
def full(project: Project) -> Iterator[FastAPI]:
    """A studio with a question of every kind, answers by others, and a policy that is an artifact."""
    add_batch(project, [(LETTER, LETTER_ANSWERS[:3])])
    with project.database.write() as session:
        session.add(Artifact(id=ARTIFACT, kind="policy", manifest={"kind": "policy"}, created_at=NOON))
        session.flush()
        session.add(Policy(id=ARTIFACT, model="tuned", artifact_id=ARTIFACT, parent_id=POLICY, created_at=NOON))
        session.flush()
        session.scalars(select(Sample).where(Sample.position == 0)).one().policy_id = ARTIFACT
    for kind in KINDS:
        ask(project, f"about {kind}", kind, aspects=ASPECTS, samples_per_question=3)
    app = studio_of(project)
    other = somebody(app, "Somebody Else")
    for _ in range(20):
        asked = other.post("/judge/api/next", json={"besides": []}).json()["question"]
        if asked is not None:
            answer = ANSWERS[asked["kind"]] | {"comment": OTHERS_WORDS}
            assert other.post("/judge/api/submit", json=submission(asked["claim"], answer, asked["guideline"]["version"])).status_code == 200
    yield app
    project.database.close()


def somebody(app: FastAPI, name: str) -> TestClient:
    """An annotator's browser."""
    return signed_in(app, "annotator", name)


def submission(claim: str, answer: dict[str, Any], version: int, key: str = "") -> dict[str, Any]:
    started = now().isoformat()
    return {"claim": claim, "answer": answer, "started_at": started, "active_ms": 900, "key": key or content_id(claim, answer), "guideline_version": version}


def everything_received(app: FastAPI, client: TestClient) -> list[tuple[str, bytes]]:
    """(where, headers and body) of all that an annotator's browser gets while it goes through all questions, changes an answer and looks back."""
    received: list[tuple[str, bytes]] = []

    def note(method: str, path: str, body: Any = None) -> Any:
        answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
        assert answer.status_code in (200, 303, 403, 404), (path, answer.text)
        received.append((f"{method} {path}", json.dumps(dict(answer.headers)).encode() + answer.content))
        return answer

    given = []
    while (found := note("POST", "/judge/api/next", {"besides": []}).json())["question"] is not None:
        asked = found["question"]
        note("POST", "/judge/api/draft", {"claim": asked["claim"], "draft": {"comment": "half a thought"}})
        note("POST", "/judge/api/next", {"besides": [asked["claim"]]})
        sent = submission(asked["claim"], ANSWERS[asked["kind"]], asked["guideline"]["version"])
        given.append((asked["kind"], note("POST", "/judge/api/submit", sent).json()["judgement"]))
        note("POST", "/judge/api/submit", sent | {"besides": [asked["claim"]]})
    assert sorted(kind for kind, _ in given) == sorted(["pair", "pair", "pair", "ranking", *["rating", "thumbs", "edit"] * 3])
    for kind, judgement in given:
        note("GET", f"/judge/api/last/{judgement}")
        changed = submission("", ANSWERS[kind] | {"comment": "on second thoughts"}, 1, key=content_id("changed", judgement))
        note("POST", "/judge/api/supersede", {name: value for name, value in changed.items() if name != "claim"} | {"judgement": judgement})
    for path in ("/judge", "/judge/last", "/me", "/judge/api/last", "/", "/manage/samples", "/api/v1/judgements", "/judge/api/last/0"):
        note("GET", path)
    return received


def secrets_of(project: Project) -> dict[str, str]:
    """What must not be received → what it is."""
    found = {BATCH: "batch", AUTHOR: "author", POLICY: "policy", FILE: "file", ARTIFACT: "artifact", ARTIFACT[7:]: "artifact's hash", OTHERS_WORDS: "comment"}
    with project.database.read() as session:
        for table in (Sample, Prompt, Question, QuestionSet):
            found |= dict.fromkeys(session.scalars(select(table.id)), table.__tablename__)
        found |= {row.name: "annotator" for row in session.scalars(select(Annotator).where(Annotator.name == "Somebody Else"))}
    return found


@pytest.mark.slow
def test_nothing_received_tells(full: FastAPI) -> None:
    client = somebody(full, "Ana")
    received = everything_received(full, client)
    assert len(received) > 60
    secrets = secrets_of(full.state.project)
    told = [(where, what) for where, raw in received for secret, what in secrets.items() if secret.encode() in raw]
    assert told == []
    pages = [(where, raw) for where, raw in received if raw.lstrip().startswith(b"{") and not where.startswith("GET /judge/api/last/0")]
    words = [(where, word) for where, raw in pages for word in WORDS_OF_THE_STORE if f'"{word}"'.encode() in raw]
    assert words == []


def test_a_leak_would_be_seen(full: FastAPI) -> None:
    """The scan is no better than its list: each of these is really in the store, and a manager's page shows them."""
    secrets = secrets_of(full.state.project)
    shown = signed_in(full, "manager").get("/manage/samples").content
    assert {"author", "policy", "artifact"} <= {what for secret, what in secrets.items() if secret.encode() in shown}


def twin(folder: Path, writers: tuple[dict[str, Any], dict[str, Any]], *, gold: bool = False) -> tuple[Project, FastAPI]:
    """A project with one pair question whose responses have these writers; everything else is the same in each."""
    project = open_project(create_project(folder, settings=""))
    add_batch(project, [(LETTER, LETTER_ANSWERS[:2])])
    with project.database.write() as session:
        for row, by in zip(session.scalars(select(Sample).order_by(Sample.position)), writers, strict=True):
            row.policy_id, row.author = by.get("policy_id"), by.get("author")
    made = ask(project, "warm replies", "pair", overlap=1000, gold="interleaved")
    if gold:
        with project.database.read() as session:
            (question,) = session.scalars(select(Question.id))
        add_gold(project, made, question, {"strength": 2})
    return project, studio_of(project)


def first_question(project: Project, app: FastAPI, order: list[int]) -> tuple[dict[str, str], dict[str, Any], bytes]:
    """Headers, JSON and text of the first question, as somebody gets it to whom the server drew this order."""
    for number in range(60):
        name = f"Ana{number:02}"
        person = add_person(project, name)
        client = stranger(app)
        with project.database.write() as session:
            secret = begin_session(session, person, now())
        client.cookies.set(COOKIE, secret, domain="127.0.0.1", path="/")
        answer = client.post("/judge/api/next", json={"besides": []})
        with project.database.read() as session:
            lent = session.scalars(select(Assignment).where(Assignment.annotator_id == person)).one()
        if lent.order_shown == order:
            found = answer.json()
            lease = found["question"].pop("claim")
            found["question"].pop("lease_seconds")
            return dict(answer.headers), found, answer.content.replace(lease.encode(), b"CLAIM")
    raise AssertionError("sixty draws, and this order never came")


def test_who_wrote_it_changes_no_byte(tmp_path: Path) -> None:
    ours, theirs = {"policy_id": POLICY}, {"author": AUTHOR}
    cases = [
        twin(tmp_path / "a", (ours, theirs)),
        twin(tmp_path / "b", (theirs, ours)),
        twin(tmp_path / "c", (ours, ours)),
        twin(tmp_path / "d", (theirs, ours), gold=True),
    ]
    with cases[0][0].database.read() as session:
        texts = list(session.scalars(select(Sample.text).order_by(Sample.position)))
    first = first_question(*cases[0], positions(cases[0][0], texts))
    for project, app in cases[1:]:
        headers, found, raw = first_question(project, app, positions(project, texts))
        assert found == first[1]
        assert re.sub(rb'"lease_seconds":\d+', b"", raw) == re.sub(rb'"lease_seconds":\d+', b"", first[2])
        assert headers == first[0]
    for project, _ in cases:
        project.database.close()


def positions(project: Project, texts: list[str]) -> list[int]:
    """The order in which these texts stand from left to right."""
    with project.database.read() as session:
        (question,) = session.scalars(select(Question.id))
        here = [sample.text for sample in samples_of(session, question)]
    return [here.index(text) for text in texts]


@pytest.mark.slow
def test_the_order_is_drawn_evenly_and_kept(tmp_path: Path) -> None:
    """Of 400 views of a pair, A stands left in 200 give or take 40 (four standard deviations); of a ranking each of 6 orders in 67 give or take 30."""
    project = open_project(create_project(tmp_path / "project", settings=""))
    add_batch(project, [(LETTER, LETTER_ANSWERS[:3])])
    ask(project, "pairs", "pair", overlap=1000, limit=1)
    app = studio_of(project)
    assert abs(views(project, app, 400)[0, 1] - 200) <= 40
    with project.database.write() as session:
        session.scalars(select(QuestionSet)).one().state = "archived"
    ask(project, "rankings", "ranking", overlap=1000, samples_per_question=3)
    counted = views(project, app, 400)
    assert len(counted) == 6
    assert all(abs(n - 400 / 6) <= 30 for n in counted.values())
    project.database.close()


def views(project: Project, app: FastAPI, n: int) -> Counter[tuple[int, ...]]:
    """How often each order was drawn for n people; what each saw is the order that is in the store."""
    before = {row.id for row in _assignments(project)}
    with project.database.write() as session:
        start = len(list(session.scalars(select(Annotator.id))))
        for number in range(start, start + n):
            session.add(Annotator(id=f"view{number}", name=f"View {number}", kind="human", role="annotator", active=True, facts={}, created_at=NOON))
    with project.database.write() as session:
        for number in range(start, start + n):
            assert claim_in(session, f"view{number}", at=now()) is not None
    seen = somebody(app, "View")
    asked = seen.post("/judge/api/next", json={"besides": []}).json()["question"]
    fresh = [row for row in _assignments(project) if row.id not in before]
    mine = next(row for row in fresh if row.id == asked["claim"])
    with project.database.read() as session:
        texts = [sample.text for sample in samples_of(session, mine.question_id)]
    places = [asked["html"].index(json_free(texts[place])) for place in mine.order_shown]
    assert places == sorted(places)
    return Counter(tuple(row.order_shown) for row in fresh if row.id != mine.id)


def json_free(text: str) -> str:
    """Some words of a text that stand in its HTML as they are."""
    runs: list[str] = re.findall(r"[A-Za-z ,]+", text)
    return max(runs, key=len).strip()


def _assignments(project: Project) -> list[Assignment]:
    with project.database.read() as session:
        return list(session.scalars(select(Assignment)))


@pytest.mark.slow
def test_the_log_holds_the_order_that_was_seen(full: FastAPI) -> None:
    client = somebody(full, "Ana")
    everything_received(full, client)
    with full.state.project.database.read() as session:
        rows = session.execute(
            select(Judgement.order_shown, Assignment.order_shown).join(
                Assignment, (Assignment.question_id == Judgement.question_id) & (Assignment.annotator_id == Judgement.annotator_id)
            )
        ).all()
    assert len(rows) > 20
    assert all(judged == lent for judged, lent in rows)
