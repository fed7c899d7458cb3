"""The client as an application uses it: against a real server, and on a bad line."""

import contextlib
import io
import re
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from stored import judgement
from studio.doors import ALL, QUESTION
from truing.client import Client
from truing.errors import UserError
from truing.store.clock import now
from truing.store.project import Project
from truing.store.tables import Annotator, Judgement, Sample
from truing.studio.auth import make_token
from truing.studio.security import Limits
from visitors import served, studio_of

DOCS = Path(__file__).parents[2] / "docs" / "client.md"


@pytest.fixture
def token(project: Project) -> str:
    return make_token(project, "an application", ALL, None, at=now())


@pytest.fixture
def url(project: Project) -> Iterator[str]:
    with served(studio_of(project)) as address:
        yield address
    project.database.close()


@pytest.fixture
def client(url: str, token: str) -> Iterator[Client]:
    with Client(url, token) as opened:
        yield opened


def log(project: Project) -> list[Judgement]:
    with project.database.read() as session:
        return list(session.scalars(select(Judgement).order_by(Judgement.id)))


def test_the_example_in_the_docs_works(url: str, token: str, project: Project) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(DOCS), "exec"), {"url": url, "token": token})
    rows = log(project)
    assert [row.answer for row in rows] == [{"up": True, "comment": "warm"}, {"strength": -2}]
    assert len({row.annotator_id for row in rows}) == 1
    assert out.getvalue().splitlines()[1].startswith("{'strength': -2} [1, 0] ")
    with project.database.read() as session:
        assert sorted(map(str, session.scalars(select(Sample.policy_id)))) == ["my-model-1", "my-model-2"]


@pytest.mark.slow
def test_it_speaks_for_every_door(client: Client, project: Project, tmp_path: Path) -> None:
    prompt = client.add_prompt("Word a kind refusal.", source="chat", metadata={"lang": "en"})
    assert client.add_prompt(QUESTION).id == prompt.id
    one, two = (client.add_sample(prompt.id, text, by="my-model") for text in ("No.", "No, thank you!"))
    assert client.add_sample(QUESTION, "No.", by="my-model").id == one.id
    question = client.ask("refusals", [one.id, two.id], overlap=3, guideline="Which is kinder?")
    assert client.question(question.id) == question
    started = now() - timedelta(seconds=9)
    receipt = client.judge(question.id, {"both_bad": True}, user="ana", order_shown=[1, 0], started_at=started, active_ms=9000, key="key-of-my-own")
    assert client.judge(question.id, {"both_bad": True}, user="ana", order_shown=[1, 0], key="key-of-my-own").replay
    tie = client.prefer(question, None, user="ben", order_shown=[0, 1])
    much = client.prefer(question, one.id, user="cleo", order_shown=[0, 1], strength=3)
    less = client.prefer(question, two.id, user="dan", order_shown=[0, 1], strength=1)
    said = {row.id: row for row in client.judgements()}
    assert [said[one.judgement_id].answer for one in (receipt, tie, much, less)] == [{"both_bad": True}, {"strength": 0}, {"strength": 3}, {"strength": -1}]
    assert said[receipt.judgement_id].started_at == started
    assert [row.extra for row in said.values()] == [False, False, False, True]
    assert list(client.judgements(since=datetime(2999, 1, 1, tzinfo=UTC))) == []
    assert len(list(client.judgements(after=min(said)))) == 3
    (found,) = client.sets()
    assert client.progress(found.id) == found
    assert (found.answered, found.wanted) == (3, 3)
    client.export(tmp_path / "log.jsonl")
    assert (tmp_path / "log.jsonl").read_text().count('"event": "judgement"') == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "project"]
    assert client.import_file(tmp_path / "log.jsonl").duplicates == 4
    assert client.rounds() == []
    assert client.status().judgements == 4


def test_long_logs_come_in_pages(client: Client, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("truing.studio.wire.MOST_IN_A_PAGE", 2)
    sample = client.add_sample("Hi", "Hello!", by="m")
    keys = [client.thumb(sample.id, up=True, user=f"user {i}").judgement_id for i in range(5)]
    assert [row.id for row in client.judgements()] == sorted(keys)


def test_what_comes_late_is_found_by_the_ids_one_has(client: Client, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without times comes in before all that was read, and so does an answer that was kept after a later one: `after` and `since` pass over them."""
    monkeypatch.setattr("truing.studio.wire.MOST_IN_A_PAGE", 2)
    sample = client.add_sample("Hi", "Hello!", by="m")
    for user in range(3):
        client.thumb(sample.id, up=True, user=f"user {user}")
    have = {row.id: row for row in client.judgements()}
    file = tmp_path / "file.jsonl"
    file.write_text("".join(f'{{"prompt": "{n}?", "chosen": "yes", "rejected": "no"}}\n' for n in range(5)))
    assert client.import_file(file).added == 5
    last = max(have.values(), key=lambda row: row.id)
    with project.database.write() as session:
        slow = judgement(last.question_id, f"{min(have)[:-12]}{0:012}", submitted_at=last.submitted_at - timedelta(seconds=1), answer={"up": False})
        session.add_all([Annotator(id="ann", name="Ann", kind="human", role="annotator", active=True, facts={}, created_at=now()), slow])
        late = slow.id
    assert list(client.judgements(after=last.id)) == list(client.judgements(since=last.submitted_at, after=last.id)) == []
    fresh = [row.id for row in client.judgements(known=have)]
    assert sorted({*fresh, *have}) == [row.id for row in log(project)]
    assert (len(fresh), late in fresh) == (6, True)
    assert list(client.judgements(known={*fresh, *have})) == []


def test_what_is_refused_says_why(client: Client, url: str, project: Project) -> None:
    with pytest.raises(UserError, match=r"there is no sample 0{32}") as caught:
        client.thumb("0" * 32, up=True, user="ana")
    assert caught.value.fix == "post the sample first and use the id that comes back"
    for wrong in ("", " ", "a\0b", "\ud800"):
        with pytest.raises(UserError):
            client.add_prompt(wrong)
    with pytest.raises(UserError, match="answer"):
        client.judge("0" * 32, {"strength": 9}, user="ana", order_shown=[0, 1])
    with Client(url, make_token(project, "a reader", ["read"], None, at=now())) as reader, pytest.raises(UserError, match="samples:write"):
        reader.add_sample("Hi", "Hello!", by="m")
    with Client(url, "truing_none") as unknown, pytest.raises(UserError, match="not known"):
        unknown.status()


def on_a_bad_line(answers: list[Callable[[httpx2.Request], httpx2.Response]], token: str = "t") -> tuple[Client, list[httpx2.Request], list[float]]:
    """A client whose requests meet these answers one after the other; what it sent, and how long it waited."""
    sent: list[httpx2.Request] = []
    waited: list[float] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return answers[len(sent) - 1](request)

    return Client("http://studio", token, attempts=4, transport=httpx2.MockTransport(answer), sleep=waited.append), sent, waited


def refused(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("connection refused")


def cut_off(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadError("the line broke after the request was sent")


def busy(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(429, json={"what": "that is more requests than one person sends", "fix": "slow down a little"}, headers={"retry-after": "7"})


def full(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(503, text="too many requests wait already\n")


def kept(request: httpx2.Request) -> httpx2.Response:
    receipt = {"judgement_id": "j", "question_id": "0" * 32, "annotator_id": "a", "extra": False, "replay": False}
    return httpx2.Response(200, json=receipt)


def test_it_tries_again_with_the_same_key_and_keeps_the_pauses_asked_for() -> None:
    client, sent, waited = on_a_bad_line([cut_off, busy, full, kept])
    assert client.thumb("0" * 32, up=True, user="ana").judgement_id == "j"
    assert len({request.content for request in sent}) == 1
    assert all(request.headers["authorization"] == "Bearer t" for request in sent)
    assert waited[1] == 7
    assert 0.25 <= waited[0] <= 0.5
    assert 1 <= waited[2] <= 2


def test_two_calls_are_two_answers() -> None:
    client, sent, _ = on_a_bad_line([kept, kept])
    for _ in range(2):
        client.thumb("0" * 32, up=True, user="ana")
    assert len({request.content for request in sent}) == 2


@pytest.mark.parametrize(("last", "what"), [(refused, "no studio answers at http://studio"), (busy, "more requests than one person"), (full, "status 503")])
def test_it_gives_up_in_words(last: Callable[[httpx2.Request], httpx2.Response], what: str) -> None:
    client, sent, waited = on_a_bad_line([refused, busy, full, last])
    with pytest.raises(UserError, match=what):
        client.status()
    assert (len(sent), len(waited)) == (4, 3)


def test_a_refusal_is_not_tried_again() -> None:
    client, sent, _ = on_a_bad_line([lambda request: httpx2.Response(409, json={"what": "too late", "fix": "be early"})])
    with pytest.raises(UserError, match="too late"):
        client.status()
    assert len(sent) == 1


def test_a_download_that_breaks_off_begins_again(tmp_path: Path) -> None:
    def half(request: httpx2.Request) -> httpx2.Response:
        def pieces() -> Iterator[bytes]:
            yield b"half of "
            raise httpx2.ReadError("the line broke")

        return httpx2.Response(200, content=pieces())

    client, _, _ = on_a_bad_line([half, lambda request: httpx2.Response(200, content=b"the whole file")])
    client.export(tmp_path / "log")
    assert (tmp_path / "log").read_bytes() == b"the whole file"
    gone, _, _ = on_a_bad_line([half] * 4)
    with pytest.raises(UserError):
        gone.export(tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.slow
def test_a_real_studio_that_asks_to_slow_down_is_obeyed(project: Project, token: str) -> None:
    waited: list[float] = []
    limits = Limits(each_second=1.0, burst=1)
    with served(studio_of(project, limits=limits)) as address, Client(address, token, sleep=lambda s: waited.append(s), attempts=2) as client:
        client.status()
        with pytest.raises(UserError, match="more requests than one person sends"):
            client.status()
    assert waited == [1.0]
    project.database.close()


def test_no_studio_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", "t", attempts=2, sleep=lambda _: None) as client, pytest.raises(UserError, match="no studio answers"):
        client.status()
