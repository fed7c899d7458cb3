"""The judging pages and their doors: what goes in, what comes out, and what an annotator can't find out."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from starlette.testclient import TestClient

from studio.desk_of_questions import CHAT, LETTER, LETTER_ANSWERS, SOUP_ANSWERS, TELLING, add_batch, ask, many_pairs, rules_of_kind
from truing.errors import UserError
from truing.feedback.own_work import own_numbers, same_answer
from truing.feedback.sets import add_gold, new_guideline, set_state
from truing.store.clock import now
from truing.store.project import Project
from truing.store.tables import Annotator, Assignment, Judgement, Question, QuestionSample, Sample
from truing.studio import judge
from truing.studio.screen import from_screen, in_words, to_screen
from visitors import signed_in

KINDS = ["pair", "ranking", "rating", "thumbs", "edit"]
ANSWERS: dict[str, dict[str, Any]] = {
    "pair": {"leaning": 2},
    "ranking": {"ranks": [2, 1, 2, 3]},
    "rating": {"aspects": {"warmth": 4, "help": 5, "truth": 1}},
    "thumbs": {"up": False},
    "edit": {"text": "Dear Sam, what a pity."},
}


def ask_every_kind(project: Project, *kinds: str) -> None:
    add_batch(project, [(LETTER, LETTER_ANSWERS), (CHAT, SOUP_ANSWERS)])
    for kind in kinds or KINDS:
        ask(project, f"set of {kind}", kind, **rules_of_kind(kind))


def post(client: TestClient, door: str, **body: Any) -> Any:
    return client.post(f"/judge/api/{door}", json=body, headers={"accept": "application/json"})


def following(client: TestClient, *besides: str) -> dict[str, Any]:
    """The question that the door gives next."""
    answer = post(client, "next", besides=list(besides))
    assert answer.status_code == 200, answer.text
    question: dict[str, Any] = answer.json()["question"]
    return question


def work(key: str = "key-00000001", **changes: Any) -> dict[str, Any]:
    return {"started_at": now().isoformat(), "active_ms": 4200, "key": key, "guideline_version": 1} | changes


def log(project: Project) -> list[Judgement]:
    with project.database.read() as store:
        rows = list(store.scalars(select(Judgement).order_by(Judgement.submitted_at, Judgement.id)))
        store.expunge_all()
    return rows


# ---- an answer's way ----


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_asked_and_answered(project: Project, app: FastAPI, annotator: TestClient, kind: str) -> None:
    ask_every_kind(project, kind)
    question = following(annotator)
    assert (question["kind"], question["set"], question["guideline"]["version"]) == (kind, f"set of {kind}", 1)
    assert f'data-kind="{kind}"' in question["html"]
    given = ANSWERS[kind] | {"flags": ["off-topic"], "comment": "a line"}
    if kind == "ranking" and "lentil" in question["html"]:
        given = given | {"ranks": [2, 1]}
    receipt = post(annotator, "submit", claim=question["claim"], answer=given, **work())
    assert receipt.status_code == 200, receipt.text
    (row,) = log(project)
    assert to_screen(row.answer, row.order_shown) == given
    assert (row.active_ms, row.guideline_version, row.id) == (4200, 1, receipt.json()["judgement"])
    assert following(annotator)["claim"] != question["claim"]


def test_the_text_that_stood_on_the_left_is_the_one_preferred(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 30)
    orders = Counter[bool]()
    for number in range(30):
        question = following(annotator)
        left = unescape(re.findall(r'class="raw" dir="auto" hidden>(.*?)</div>', question["html"], re.DOTALL)[1])
        assert post(annotator, "submit", claim=question["claim"], answer={"leaning": 3}, **work(f"key-{number:08}")).status_code == 200
        row = log(project)[-1]
        with project.database.read() as store:
            preferred = select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == row.question_id)
            preferred = preferred.where(QuestionSample.position == (0 if row.answer["strength"] > 0 else 1))
            assert store.scalars(preferred).one().strip() == left.strip()
        orders[row.order_shown == [0, 1]] += 1
    assert min(orders.values()) >= 3  # both orders are drawn: fewer than 3 of 30 has a chance of 1 in a million


def test_the_same_key_again_changes_nothing(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 2)
    question = following(annotator)
    sent = {"claim": question["claim"], "answer": {"leaning": 1}} | work()
    first, again = post(annotator, "submit", **sent), post(annotator, "submit", **sent)
    assert (first.json()["replay"], again.json()["replay"]) == (False, True)
    assert first.json()["judgement"] == again.json()["judgement"]
    assert len(log(project)) == 1


def test_a_second_answer_takes_the_place_of_the_first(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 2)
    question = following(annotator)
    first = post(annotator, "submit", claim=question["claim"], answer={"leaning": 1}, **work("key-00000001")).json()["judgement"]
    second = post(annotator, "submit", claim=question["claim"], answer={"leaning": -3}, **work("key-00000002")).json()["judgement"]
    third = post(annotator, "supersede", judgement=second, answer={"both_bad": True}, **work("key-00000003")).json()["judgement"]
    assert [(row.id, row.supersedes) for row in log(project)] == [(first, None), (second, first), (third, second)]
    again = post(annotator, "supersede", judgement=second, answer={"both_bad": True}, **work("key-00000003"))
    assert again.json() == {"judgement": third, "replay": True}  # the acknowledgement was lost, and the page sent it again


def test_questions_ahead_are_lent_beside_those_at_hand(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 6)
    claims: list[str] = []
    for _ in range(4):
        claims.append(following(annotator, *claims)["claim"])
    assert len(set(claims)) == 4
    assert following(annotator)["claim"] == claims[0]  # a page that is loaded afresh goes on where it was
    post(annotator, "release", claim=claims[3])
    with project.database.read() as store:
        lent = store.get_one(Assignment, claims[3])
        assert lent.expires_at <= now()


def test_a_draft_comes_back(project: Project, annotator: TestClient) -> None:
    ask_every_kind(project, "rating")
    question = following(annotator)
    draft = {"answer": {"aspects": {"warmth": 2}, "comment": "half"}, "active_ms": 900, "started_at": now().isoformat(), "at": 1}
    assert post(annotator, "draft", claim=question["claim"], draft=draft).json() == {"saved": True}
    assert following(annotator)["draft"] == draft


def test_a_wrong_clock_is_believed_for_a_month(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 2)
    for number, stamp in enumerate(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]):
        question = following(annotator)
        answer = post(annotator, "submit", claim=question["claim"], answer={"leaning": 0}, **work(f"key-{number:08}", started_at=stamp))
        assert answer.status_code == 200, answer.text
    early, late = log(project)
    assert early.submitted_at - early.started_at == timedelta(days=30)
    assert late.started_at == late.submitted_at


def test_why_there_is_no_question(project: Project, annotator: TestClient) -> None:
    def nothing() -> dict[str, Any]:
        answer: dict[str, Any] = post(annotator, "next", besides=[]).json()["nothing"]
        return answer

    assert nothing() == {"why": "empty", "leave_by": None}
    set_id = many_pairs(project, 1, completion_url="https://crowd.example/done?code=ABC")
    question = following(annotator)
    post(annotator, "submit", claim=question["claim"], answer={"skip": "I can't tell"}, **work())
    assert nothing() == {"why": "done", "leave_by": "https://crowd.example/done?code=ABC"}
    set_state(project, set_id, "paused")
    assert nothing()["why"] == "paused"
    set_state(project, set_id, "archived")
    assert nothing()["why"] == "empty"


# ---- the last answers ----


def test_the_last_twenty_can_be_opened_again(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 22)
    ids = []
    for number in range(22):
        question = following(annotator)
        sent = post(annotator, "submit", claim=question["claim"], answer={"leaning": number % 7 - 3}, **work(f"key-{number:08}"))
        ids.append(sent.json()["judgement"])
    listed = annotator.get("/judge/api/last").json()["answers"]
    assert [one["judgement"] for one in listed] == ids[:1:-1]
    assert listed[0]["words"] == "Right is much better"  # 21 % 7 - 3 = -3
    opened = annotator.get(f"/judge/api/last/{ids[-1]}").json()
    assert (opened["answer"], opened["kind"]) == ({"leaning": -3}, "pair")
    page = annotator.get("/judge/last")
    assert page.text.count('href="/judge?change=') == 20
    assert "Right is much better" in page.text
    refused = annotator.get(f"/judge/api/last/{ids[0]}", headers={"accept": "application/json"})
    assert refused.status_code == 404
    assert refused.json()["what"] == "this isn't one of your last 20 answers"


def test_empty_pages_say_what_to_do(annotator: TestClient) -> None:
    assert 'href="/judge">Answer the first question' in annotator.get("/judge/last").text
    assert 'href="/judge">Start judging' in annotator.get("/me").text


# ---- one's own numbers ----


def test_own_numbers_by_hand(project: Project, app: FastAPI, annotator: TestClient) -> None:
    many_pairs(project, 20)
    given_in_ms: list[tuple[dict[str, Any], int]] = [({"leaning": -1}, 9000), ({"leaning": 0}, 2000), ({"skip": "no"}, 500)]
    given_in_ms += [({"leaning": 3}, 1000), ({"leaning": 1}, 3000)] * 8
    for number, (answer, ms) in enumerate(given_in_ms):
        post(annotator, "submit", claim=following(annotator)["claim"], answer=answer, **work(f"key-{number:08}", active_ms=ms))
    with project.database.read() as store:
        who = store.scalars(select(Annotator.id).where(Annotator.name == "Some annotator")).one()
        numbers = own_numbers(store, who)
    assert (numbers.n, numbers.skips, numbers.median_seconds) == (19, 1, 2.0)  # 500, 1000 × 8, 2000, 3000 × 8, 9000 ms
    assert (numbers.left.value, numbers.left.n) == (16 / 17, 17)
    assert (numbers.ties.value, numbers.ties.n) == (1 / 18, 18)
    assert numbers.steady.n == 0
    text = annotator.get("/me").text
    assert "94\u202f%" in text
    assert "n = 17" in text
    assert "1 skipped, which is fine" in text


def test_a_question_answered_twice_tells_how_steady_one_is(project: Project, app: FastAPI, annotator: TestClient) -> None:
    many_pairs(project, 24, repeat_rate=0.5)
    for number in range(24):
        post(annotator, "submit", claim=following(annotator)["claim"], answer={"leaning": 2 if number < 12 else -2}, **work(f"key-{number:08}"))
    with project.database.read() as store:
        asked_again = select(Question).where(Question.repeat_of.is_not(None))
        answers = {row.question_id: (row.answer["strength"] > 0) for row in store.scalars(select(Judgement))}
        alike = [answers[again.id] == answers[str(again.repeat_of)] for again in store.scalars(asked_again) if again.id in answers]
        numbers = own_numbers(store, store.scalars(select(Annotator.id).where(Annotator.name == "Some annotator")).one())
    assert numbers.steady.n == len(alike) > 0
    assert numbers.steady.value == sum(alike) / len(alike)


@pytest.mark.parametrize(
    ("kind", "first", "again", "alike"),
    [
        ("pair", {"strength": 3}, {"strength": 1, "comment": "now less"}, True),
        ("pair", {"strength": 1}, {"strength": -1}, False),
        ("pair", {"strength": 0}, {"strength": 1}, False),
        ("pair", {"both_bad": True}, {"both_bad": True}, True),
        ("pair", {"both_bad": True}, {"strength": 0}, False),
        ("rating", {"aspects": {"warmth": 4}}, {"aspects": {"warmth": 5}}, True),
        ("rating", {"aspects": {"warmth": 3}}, {"aspects": {"warmth": 5}}, False),
        ("ranking", {"ranks": [1, 2]}, {"ranks": [1, 1]}, False),
        ("thumbs", {"up": True}, {"up": True, "flags": ["unsafe"]}, True),
    ],
)
def test_answered_alike(kind: str, first: dict[str, Any], again: dict[str, Any], alike: bool) -> None:
    assert same_answer(kind, first, again) is alike
    assert same_answer(kind, again, first) is alike


# ---- blindness ----


def test_an_answer_brings_the_next_question_along(project: Project, annotator: TestClient) -> None:
    many_pairs(project, 3)
    first, second = following(annotator), following(annotator, following(annotator)["claim"])
    sent = {"claim": first["claim"], "answer": {"leaning": 1}} | work()
    got = post(annotator, "submit", **sent, besides=[first["claim"], second["claim"]]).json()
    third = got["next"]["question"]
    assert third["claim"] not in (first["claim"], second["claim"])
    assert got["next"]["progress"] == {"today": 1, "left": 2, "seconds": 4.2}
    assert third == following(annotator, second["claim"]) | {"lease_seconds": third["lease_seconds"]}
    again = post(annotator, "submit", **sent, besides=[second["claim"]]).json()
    assert (again["replay"], again["next"]["question"]["claim"]) == (True, third["claim"])
    assert "next" not in post(annotator, "submit", **sent).json()
    for number, question in enumerate((second, third)):
        last = post(annotator, "submit", claim=question["claim"], answer={"leaning": -1}, **work(f"key-1000000{number}"), besides=[]).json()
    assert (last["next"]["question"], last["next"]["nothing"]["why"]) == (None, "done")


def test_whoever_is_paused_between_answer_and_question_keeps_the_answer(project: Project, annotator: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    many_pairs(project, 2)
    question = following(annotator)

    def paused_meanwhile(*given: Any, **named: Any) -> NoReturn:
        raise UserError("there is no active annotator", fix="sign in again")

    monkeypatch.setattr(judge, "claim_in", paused_meanwhile)
    got = post(annotator, "submit", claim=question["claim"], answer={"leaning": 1}, **work(), besides=[])
    assert (got.status_code, "next" in got.json()) == (200, False)
    assert post(annotator, "next", besides=[]).json()["what"] == "there is no active annotator"  # asked by itself, it says why
    assert [row.id for row in log(project)] == [got.json()["judgement"]]


def test_nothing_that_a_browser_gets_tells_who_wrote_what(project: Project, app: FastAPI, annotator: TestClient) -> None:
    ask_every_kind(project)
    with project.database.read() as store:
        gold = store.scalars(select(Question.id).where(Question.kind == "thumbs")).first()
        set_id = store.scalars(select(Question.set_id).where(Question.id == gold)).one()
    add_gold(project, str(set_id), str(gold), {"up": True})
    received, asked = [annotator.get("/judge").text], []
    for number in range(40):
        answer = post(annotator, "next", besides=[])
        received.append(answer.text)
        question = answer.json()["question"]
        if question is None:
            break
        asked.append(question)
        n = question["html"].count('class="letter"')
        given = ANSWERS[question["kind"]] | ({"ranks": list(range(1, n + 1))} if n else {})
        if question["kind"] == "edit":
            given = {"unchanged": True}
        sent = post(annotator, "submit", claim=question["claim"], answer=given, **work(f"key-{number:08}"))
        assert sent.status_code == 200, sent.text
        received.append(sent.text)
    received += [annotator.get(path).text for path in ("/judge/last", "/judge/api/last", "/me")]
    received += [annotator.get(f"/judge/api/last/{one['judgement']}").text for one in annotator.get("/judge/api/last").json()["answers"]]
    assert {one["kind"] for one in asked} == set(KINDS)
    with project.database.read() as store:
        secrets = {str(row.id) for row in store.scalars(select(Sample))} | {str(row.id) for row in store.scalars(select(Question))}
        secrets |= {row.id for row in store.scalars(select(Annotator))} | {str(row.set_id) for row in store.scalars(select(Question))}
    for secret in [*TELLING, *secrets, "order_shown", "gold", "policy", "author", "batch"]:
        assert not [text for text in received if secret in text], secret
    assert {frozenset(one) for one in asked} == {frozenset({"kind", "set", "html", "guideline", "claim", "draft", "lease_seconds"})}


def test_what_a_response_says_is_text_and_nothing_else(project: Project, annotator: TestClient) -> None:
    hostile = "<script>alert(1)</script><img src=x onerror=alert(1)> \"' {{ 7 * 7 }} ![p](http://evil.example/x.png) </div></textarea>"
    add_batch(project, [(hostile, (hostile, f"{hostile} again"))], batch="hostile")
    ask(project, f"set {hostile[:40]}", "pair", batch="hostile", guideline=hostile)
    question = following(annotator)
    for html in (question["html"], question["guideline"]["html"]):
        assert not re.search(r"<(script|img|iframe|style|link|object|svg on)", html)
        assert not re.search(r"<[^>]*\s(on\w+|style)=", html)
        assert "49" not in html
    assert unescape(question["html"]).count("</div></textarea>") >= 3


# ---- refusals ----


def test_somebody_else_s_question_is_nobody_s_business(project: Project, app: FastAPI, annotator: TestClient) -> None:
    many_pairs(project, 3)
    question = following(annotator)
    other = signed_in(app, "annotator", "Ben")
    assert post(other, "submit", claim=question["claim"], answer={"leaning": 1}, **work()).status_code == 404
    assert post(other, "draft", claim=question["claim"], draft={"answer": {}}).status_code == 400
    assert post(other, "release", claim=question["claim"]).status_code == 400
    judged = post(annotator, "submit", claim=question["claim"], answer={"leaning": 1}, **work()).json()["judgement"]
    assert post(other, "supersede", judgement=judged, answer={"leaning": 1}, **work("key-00000002")).status_code == 404
    assert other.get(f"/judge/api/last/{judged}", headers={"accept": "application/json"}).status_code == 404
    assert len(log(project)) == 1


@pytest.mark.parametrize(
    "answer",
    [{}, {"strength": 2}, {"leaning": 4}, {"leaning": True}, {"leaning": "2"}, {"leaning": None}, {"leaning": 1, "both_bad": True}, {"ranks": [1, 2]},
     {"leaning": 1, "flags": ["dull"]}, {"leaning": 1, "flags": "unsafe"}, {"leaning": 1, "comment": ""}, {"skip": " "}, {"up": True}, {"leaning": 10**30}],
)  # fmt: skip
def test_what_is_no_answer_to_a_pair(project: Project, annotator: TestClient, answer: dict[str, Any]) -> None:
    many_pairs(project, 1)
    refused = post(annotator, "submit", claim=following(annotator)["claim"], answer=answer, **work())
    assert refused.status_code == 400, refused.text
    assert set(refused.json()) == {"what", "fix"}
    assert log(project) == []


@pytest.mark.parametrize(
    ("door", "body"),
    [
        ("next", {"besides": ["x'; drop table"]}),
        ("next", {"besides": ["a"] * 11}),
        ("next", {}),
        ("submit", {"claim": "a", "answer": {"leaning": 1}, "besides": ["a"] * 11, **work()}),
        ("submit", {"claim": "a", "answer": [], **work()}),
        ("submit", {"claim": "a", "answer": {"leaning": 1}, **work("short")}),
        ("submit", {"claim": "a", "answer": {"leaning": 1}, **work(active_ms=-1)}),
        ("submit", {"claim": "a", "answer": {"leaning": 1}, **work(active_ms=2**31)}),
        ("submit", {"claim": "a", "answer": {"leaning": 1}, **work(started_at="2026-01-01T00:00:00")}),
        ("submit", {"claim": "a", "answer": {"leaning": 1}, "author": "me", **work()}),
        ("submit", {"claim": "\x00", "answer": {"leaning": 1}, **work()}),
        ("draft", {"claim": "a"}),
    ],
)
def test_what_a_door_can_t_read(annotator: TestClient, door: str, body: dict[str, Any]) -> None:
    refused = post(annotator, door, **body)
    assert refused.status_code == 422, refused.text
    assert set(refused.json()) == {"what", "fix"}


@pytest.mark.parametrize(
    ("body", "kind", "what"),
    [
        (b'{"besides": []', "application/json", "the request: invalid json"),
        (b"", "application/json", "the request: invalid json"),
        (b'{"besides": ["\\ud800"]}', "application/json", "the request: invalid json"),
        (b'{"besides": ["A?"]}', "application/json", "besides.0: string should match pattern"),
        (b'{"besides": []}', "text/plain", "the request: this door takes application/json"),
    ],
)
def test_what_isn_t_json(annotator: TestClient, body: bytes, kind: str, what: str) -> None:
    refused = annotator.post("/judge/api/next", content=body, headers={"accept": "application/json", "content-type": kind})
    assert (refused.status_code, refused.json()["what"][: len(what)]) == (422, what)


@pytest.mark.parametrize("text", ["\\ud800", "\\u0000"])
def test_a_draft_holds_only_what_every_store_can(project: Project, annotator: TestClient, text: str) -> None:
    many_pairs(project, 1)
    claim = following(annotator)["claim"]
    raw = f'{{"claim": "{claim}", "draft": {{"answer": {{"comment": "{text}"}}}}}}'
    refused = annotator.post("/judge/api/draft", content=raw, headers={"content-type": "application/json", "accept": "application/json"})
    assert refused.status_code in (400, 422)


def test_strangers_are_led_to_the_sign_in(nobody: TestClient) -> None:
    for path in ("/judge", "/judge/last", "/me"):
        answer = nobody.get(path)
        assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/sign-in")
    assert post(nobody, "next", besides=[]).status_code == 401


def test_a_new_guideline_is_told_and_remembered(project: Project, annotator: TestClient) -> None:
    set_id = many_pairs(project, 3)
    question = following(annotator)
    new_guideline(project, set_id, "Now **shorter** is better.", datetime.now(UTC))
    assert following(annotator)["guideline"] == {"version": 2, "html": "<p>Now <strong>shorter</strong> is better.</p>\n"}
    post(annotator, "submit", claim=question["claim"], answer={"leaning": 1}, **work(guideline_version=1))
    assert log(project)[0].guideline_version == 1


# ---- places and samples ----

orders = st.integers(2, 9).flatmap(lambda n: st.permutations(range(n)))


@given(orders, st.data())
def test_ranks_come_back_as_they_were_given(order: list[int], data: st.DataObject) -> None:
    given_ranks = data.draw(st.lists(st.integers(1, len(order)), min_size=len(order), max_size=len(order)))
    stored = from_screen("ranking", {"ranks": given_ranks}, order)
    assert [stored["ranks"][position] for position in order] == given_ranks
    assert to_screen(stored, order) == {"ranks": given_ranks}


@given(st.integers(-3, 3), st.permutations([0, 1]))
def test_leanings_come_back_as_they_were_given(leaning: int, order: list[int]) -> None:
    assert to_screen(from_screen("pair", {"leaning": leaning}, order), order) == {"leaning": leaning}


def test_a_page_knows_no_samples() -> None:
    assert from_screen("pair", {"leaning": 2}, [1, 0]) == {"strength": -2}
    assert from_screen("ranking", {"ranks": [1, 2, 3]}, [2, 0, 1]) == {"ranks": [2, 3, 1]}
    with pytest.raises(UserError, match="left and right"):
        from_screen("pair", {"strength": 2}, [1, 0])
    with pytest.raises(UserError, match="thumbs"):
        from_screen("thumbs", {"leaning": 2}, [0])


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        ({"leaning": 3}, "Left is much better"),
        ({"leaning": -1}, "Right is slightly better"),
        ({"leaning": 0}, "About the same"),
        ({"both_bad": True}, "Both are bad"),
        ({"ranks": [2, 1, 2]}, "B, then A = C"),
        ({"aspects": {"warmth": 4, "truth": 1}}, "warmth 4, truth 1"),
        ({"up": True}, "Good"),
        ({"up": False}, "Not good"),
        ({"unchanged": True}, "Good as it is"),
        ({"text": "x " * 100}, "Changed to: " + "x " * 39 + "x…"),
        ({"skip": "can't\ntell"}, "Skipped: can't tell"),
    ],
)
def test_answers_in_words(shown: dict[str, Any], words: str) -> None:
    assert in_words(shown) == words
    assert json.dumps(shown)
