"""What stands before the pages: headers on everything, one host, no writes from other sites, bounds on size and load, errors without a trace."""

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request, UploadFile
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.datastructures import Headers
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from truing.errors import Conflict, Unknown, UserError
from truing.store.tables import Role
from truing.studio.auth import COOKIE, Person, require, require_scope
from truing.studio.security import HEADERS, Limits, NotTooMany, Pace, from_here, without_port
from visitors import program, served, signed_in, stranger, studio_of

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SMALL = Limits(body_bytes=1000, upload_bytes=5000, uploads=("/trial/import",), at_once=3, each_second=0.001, burst=5)


def with_trials(app: FastAPI) -> FastAPI:
    """The app and a few routes that go wrong, or that take what they are sent."""

    @app.get("/trial/boom")
    @app.get("/api/v1/boom")
    def boom() -> None:
        raise ZeroDivisionError("the secret recipe")

    @app.get("/trial/mistake")
    @app.get("/api/v1/mistake")
    def mistake() -> None:
        raise UserError("the set has no questions", fix="add some")

    @app.get("/api/v1/missing/{kind}")
    def missing(kind: str) -> None:
        raise {"unknown": Unknown, "conflict": Conflict}[kind]("there is no such set", fix="see the list")

    @app.post("/trial/body")
    @app.post("/trial/import")
    async def body(request: Request) -> int:
        return len(await request.body())

    @app.post("/trial/form")
    async def form(request: Request) -> list[str]:
        return sorted(await request.form())

    @app.post("/trial/import/file")
    def upload(file: UploadFile) -> int:
        return len(file.file.read())

    @app.get("/trial/person")
    def person(who: Annotated[Person, Depends(require(Role.ANNOTATOR))]) -> str:
        return who.name

    @app.post("/api/v1/trial", dependencies=[Depends(require_scope("samples:write"))])
    def write() -> str:
        return "written"

    return app


@pytest.fixture
def trial(app: FastAPI) -> FastAPI:
    return with_trials(app)


@pytest.fixture
def small(app: FastAPI) -> FastAPI:
    """A studio that takes little."""
    return with_trials(studio_of(app.state.project, limits=SMALL))


# ---- headers ----


def test_the_policy_is_the_one_that_was_decided() -> None:
    assert HEADERS["Content-Security-Policy"] == CSP


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"), ("GET", "/sign-in"), ("GET", "/password"), ("GET", "/nowhere"), ("GET", "/trial/boom"), ("GET", "/api/v1/boom"),
        ("GET", "/api/v1/nowhere"), ("GET", "/trial/mistake"), ("DELETE", "/sign-in"), ("POST", "/sign-in"), ("GET", "/static/studio.css"),
        ("GET", "/static/nothing.css"), ("GET", "/static/../app.py"), ("GET", "/api/v1/openapi.json"), ("OPTIONS", "/sign-in"), ("GET", "/first/x"),
        ("GET", "//evil.example/%2f.."), ("GET", "/sign-in/"),
    ],
)  # fmt: skip
def test_every_answer_carries_the_headers(trial: FastAPI, method: str, path: str) -> None:
    answer = stranger(trial).request(method, path)
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "strict-transport-security" not in answer.headers
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_refusals_before_the_pages_carry_them_too(small: FastAPI) -> None:
    answers = [
        stranger(small).get("/sign-in", headers={"host": "evil.example"}),
        stranger(small, sec_fetch_site="cross-site").post("/sign-in"),
        stranger(small).post("/sign-in", content=b"x" * 1001),
    ]
    assert [answer.status_code for answer in answers] == [421, 403, 413]
    assert [answer.headers["content-security-policy"] for answer in answers] == [CSP] * 3


def test_a_static_file_is_kept_only_where_its_address_has_its_hash(nobody: TestClient) -> None:
    address = re.search(r'href="(/static/studio\.css\?v=[0-9a-f]+)"', nobody.get("/sign-in").text)
    assert address is not None
    assert nobody.get(address[1]).headers["cache-control"] == "public, max-age=31536000, immutable"
    assert nobody.get("/static/studio.css").headers["cache-control"] == "no-store"
    assert nobody.get("/static/nothing.css?v=1").headers["cache-control"] == "no-store"
    assert nobody.get("/sign-in?v=1").headers["cache-control"] == "no-store"


# ---- host ----


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:9", "LOCALHOST", "[::1]:8000", "localhost."])
def test_the_studio_answers_to_its_own_names(nobody: TestClient, host: str) -> None:
    assert nobody.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "192.168.0.7", "127.0.0.1@evil.example", "", "[::1]evil.example", "[::2]"]
)
def test_the_studio_answers_to_no_other_name(nobody: TestClient, host: str) -> None:
    assert nobody.get("/healthz", headers={"host": host}).status_code == 421


def test_a_request_names_one_host(nobody: TestClient) -> None:
    assert nobody.get("/healthz", headers=[("host", "localhost"), ("host", "localhost")]).status_code == 421


def test_a_studio_that_listens_everywhere_answers_to_addresses_and_to_the_names_it_was_given(app: FastAPI) -> None:
    client = stranger(studio_of(app.state.project, host="0.0.0.0", names=["truing.example"]))
    known = {
        host: client.get("/healthz", headers={"host": host}).status_code
        for host in ("192.168.0.7:8000", "[fe80::1]", "truing.example", "evil.example", "0x7f.1", "a.1")
    }
    assert known == {"192.168.0.7:8000": 200, "[fe80::1]": 200, "truing.example": 200, "evil.example": 421, "0x7f.1": 421, "a.1": 421}


@given(st.text())
def test_any_host_header_has_a_name(host: str) -> None:
    assert host.startswith(without_port(host))
    assert without_port(f"studio.example:{len(host)}") == "studio.example"


# ---- writes from other sites ----


@pytest.mark.parametrize(
    ("sent", "ours"),
    [
        ({"sec-fetch-site": "same-origin"}, True),  # a script of ours, or a form of a page without a referrer
        ({"sec-fetch-site": "same-origin", "origin": "null"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://h:1"}, True),
        ({"sec-fetch-site": "none", "origin": "http://h:1"}, True),
        ({"origin": "http://h:1"}, True),  # a browser that sends no Sec-Fetch-Site, as over plain http
        ({"origin": "HTTP://H:1"}, True),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://h:1"}, False),  # another port or subdomain
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://h:1"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://evil.example"}, False),
        ({"origin": "https://h:1"}, False),
        ({"origin": "http://h"}, False),
        ({"origin": "http://h:1.evil.example"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_which_writes_come_from_a_page_of_ours(sent: dict[str, str], ours: bool) -> None:
    assert from_here(Headers({"host": "h:1"} | sent), "http") is ours


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_write_from_elsewhere_is_refused_before_it_reaches_a_page(app: FastAPI, owner: TestClient, method: str) -> None:
    elsewhere = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
    assert owner.request(method, "/sign-out", headers=elsewhere).status_code == 403
    assert owner.get("/password").status_code == 200  # still signed in


def test_a_token_needs_no_origin_and_brings_no_cookie(trial: FastAPI) -> None:
    script = program(trial, "samples:write")
    assert script.post("/api/v1/trial", headers={"sec-fetch-site": "cross-site"}).status_code == 200
    browser = signed_in(trial, "owner")
    assert browser.post("/api/v1/trial").status_code == 200
    # a bearer word that is no token doesn't let the cookie through the gate
    forged = {"authorization": "Bearer x", "sec-fetch-site": "cross-site"}
    assert browser.post("/api/v1/trial", headers=forged).status_code == 401
    assert browser.get("/trial/person", headers={"authorization": "Bearer x", "accept": "application/json"}).status_code == 401
    assert browser.post("/sign-out", headers=forged | {"authorization": "Basic eA=="}).status_code == 403


# ---- tokens and sessions at a route ----


def test_a_token_does_what_its_scopes_say(trial: FastAPI) -> None:
    answer = program(trial, "read", "questions:write").post("/api/v1/trial")
    assert answer.status_code == 403
    assert answer.json()["what"].endswith("this needs samples:write")
    assert stranger(trial).post("/api/v1/trial").json() == {"what": "you are not signed in", "fix": "sign in first"}


def test_a_revoked_or_outdated_token_opens_nothing(trial: FastAPI) -> None:
    script = program(trial, "samples:write")
    with trial.state.project.database.write() as store:
        store.execute(text("UPDATE token SET expires_at = '2020-01-01 00:00:00'"))
    answer = script.post("/api/v1/trial")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    with trial.state.project.database.write() as store:
        store.execute(text("DELETE FROM token"))
    assert script.post("/api/v1/trial").status_code == 401


def test_an_annotators_session_doesnt_open_the_api(trial: FastAPI, annotator: TestClient, manager: TestClient) -> None:
    assert annotator.post("/api/v1/trial").status_code == 403
    assert manager.post("/api/v1/trial").status_code == 200
    assert annotator.get("/api/v1/openapi.json").status_code == 403
    assert manager.get("/api/v1/openapi.json").json()["info"]["title"] == "Truing"


@pytest.mark.parametrize("cookie", ["", "x", "a" * 5000, "\u00e9", "../../etc", "%00"])
def test_a_cookie_that_is_no_session_is_nobody(trial: FastAPI, cookie: str) -> None:
    answer = stranger(trial).get("/trial/person", headers=[(b"cookie", f"{COOKIE}={cookie}".encode("latin-1"))])
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=/trial/person")


# ---- sizes ----


def test_a_body_that_says_it_is_too_large_is_refused(small: FastAPI) -> None:
    client = signed_in(small, "manager")
    assert client.post("/trial/body", content=b"x" * 1000).json() == 1000
    answer = client.post("/trial/body", content=b"x" * 1001)
    assert answer.status_code == 413
    assert "1000 bytes" in answer.text
    assert client.post("/trial/import", content=b"x" * 5000).json() == 5000
    assert client.post("/trial/import", content=b"x" * 5001).status_code == 413
    assert client.post("/trial/imports", content=b"x" * 1001).status_code == 413


def test_a_body_that_grows_too_large_is_refused(small: FastAPI) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        yield from (b"x" * 100 for _ in range(size // 100))

    client = signed_in(small, "manager")
    client.headers["accept"] = "application/json"
    assert client.post("/trial/body", content=chunks(1000)).json() == 1000
    assert client.post("/trial/body", content=chunks(1100)).status_code == 413
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/trial/form", content=chunks(1100), headers=form).status_code == 413
    assert client.post("/trial/import/file", files={"file": b"x" * 6000}).status_code == 413
    assert client.post("/trial/import/file", files={"file": b"x" * 4000}).json() == 4000


def test_only_who_may_import_may_send_as_much_as_an_import_has(small: FastAPI) -> None:
    """A form is read before a route looks at who sent it: a stranger could fill the disk."""
    large = b"x" * 2000
    senders = [stranger(small), signed_in(small, "annotator"), signed_in(small, "manager"), program(small, "read")]
    assert [sender.post("/trial/import", content=large).status_code for sender in senders] == [413, 413, 200, 200]
    forged = {"authorization": "Bearer nothing", "cookie": f"{COOKIE}=nothing"}
    assert stranger(small).post("/trial/import", headers=forged, content=large).status_code == 413


# ---- load ----


def test_beyond_what_it_can_serve_the_studio_says_so_at_once() -> None:
    async def scene() -> list[int]:
        inside, open_gate, statuses = asyncio.Event(), asyncio.Event(), []

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            inside.set()
            await open_gate.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        full = NotTooMany(slow, at_once=2)

        async def visit(path: str = "/judge") -> None:
            async def send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    statuses.append(message["status"])
                    assert message["status"] == 200 or (b"retry-after", b"1") in message["headers"]

            async def receive() -> Message:
                return {"type": "http.request", "body": b""}

            await full({"type": "http", "path": path, "method": "GET", "headers": []}, receive, send)

        waiting = [asyncio.create_task(visit()) for _ in range(2)]
        await inside.wait()
        await asyncio.sleep(0)
        await visit()
        waiting.append(asyncio.create_task(visit("/healthz")))
        open_gate.set()
        await asyncio.gather(*waiting)
        await visit()
        return statuses

    assert asyncio.run(scene()) == [503, 200, 200, 200, 200]


def test_a_bucket_holds_its_burst_and_fills_at_its_rate() -> None:
    pace = Pace(2.0, burst=3)
    assert [pace.take("ana", 10.0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert pace.take("bob", 10.0) == 0
    assert [pace.take("ana", 10.5), pace.take("ana", 10.5)] == [0, 0.5]
    assert [pace.take("ana", 100.0) for _ in range(4)] == [0, 0, 0, 0.5]


def test_buckets_dont_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "MOST", 10)
    pace = Pace(1.0, burst=2)
    for number in range(100):
        pace.take(f"visitor {number}", float(number))
    assert len(pace._buckets) <= 11


@pytest.mark.slow
def test_one_person_at_an_absurd_rate_is_slowed_and_others_arent(small: FastAPI) -> None:
    fast, other, script = signed_in(small, "annotator", "Fast"), signed_in(small, "annotator", "Other"), program(small, "samples:write")
    assert [fast.get("/trial/person").status_code for _ in range(6)] == [200] * 5 + [429]
    assert int(fast.get("/trial/person").headers["retry-after"]) > 0
    assert other.get("/trial/person").status_code == 200
    assert [script.post("/api/v1/trial").status_code for _ in range(6)] == [200] * 5 + [429]


# ---- errors ----


def test_an_error_nobody_foresaw_shows_an_id_and_the_log_has_the_rest(trial: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    page = stranger(trial).get("/trial/boom")
    said = stranger(trial).get("/api/v1/boom").json()
    assert page.status_code == 500
    for words in (page.text, said["what"]):
        found = re.search(r"trouble ([0-9a-f-]{36})", words)
        assert found is not None
        assert found[1] in caplog.text
        assert "recipe" not in words
        assert "Traceback" not in words
    assert "ZeroDivisionError: the secret recipe" in caplog.text
    assert "/trial/boom" in caplog.text


def test_the_log_doesnt_hold_the_secret_of_a_link(app: FastAPI, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(app.state.project.database, "read", broken)
    assert stranger(app).get("/join/very-secret").status_code == 500
    assert "/join/{secret}" in caplog.text
    assert "very-secret" not in caplog.text


def test_what_a_user_can_mend_is_a_400_in_words(trial: FastAPI) -> None:
    assert stranger(trial).get("/api/v1/mistake").json() == {"what": "the set has no questions", "fix": "add some"}
    page = stranger(trial).get("/trial/mistake")
    assert page.status_code == 400
    assert "The set has no questions." in page.text
    assert "Add some." in page.text


def test_what_names_nothing_is_a_404_and_what_comes_too_late_a_409(trial: FastAPI) -> None:
    answers = [stranger(trial).get(f"/api/v1/missing/{kind}") for kind in ("unknown", "conflict")]
    assert [answer.status_code for answer in answers] == [404, 409]
    assert answers[0].json() == {"what": "there is no such set", "fix": "see the list"}


def test_an_unknown_address_is_a_page_or_json(nobody: TestClient) -> None:
    assert "This address leads nowhere." in nobody.get("/nowhere").text
    assert nobody.get("/api/v1/nowhere").json()["what"] == "this address leads nowhere"
    assert nobody.get("/nowhere", headers={"accept": "application/json"}).json()["what"] == "this address leads nowhere"


@pytest.mark.parametrize(("reason", "status"), [("database or disk is full", 507), ("attempt to write a readonly database", 503), ("database is locked", 503)])
def test_trouble_with_the_store_is_not_the_visitors(app: FastAPI, monkeypatch: pytest.MonkeyPatch, reason: str, status: int) -> None:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    from truing.studio import sign_in

    def broken(*args: object, **more: object) -> None:
        with app.state.project.database.write():
            raise OperationalError("INSERT", {}, sqlite3.OperationalError(reason))

    monkeypatch.setattr(sign_in, "end_session", broken)
    client = stranger(app)
    client.cookies.set(COOKIE, "x", domain="127.0.0.1", path="/")
    answer = client.post("/sign-out")
    assert answer.status_code == status
    assert int(answer.headers["retry-after"]) > 0
    assert "sqlite" not in answer.text.lower()
    assert str(app.state.project.root) not in answer.text


# ---- on the wire ----


def say(address: str, *pieces: bytes, answers: int = 1, patience_s: float = 30) -> bytes:
    """Everything a server answers to these bytes, until it closes, or is silent for a second once the answers that must come are there, or for all that one
    has patience."""
    host, _, port = address.removeprefix("http://").partition(":")
    answered = b""
    with socket.create_connection((host, int(port)), timeout=patience_s) as line:
        for piece in pieces:
            line.sendall(piece)
        try:
            while more := line.recv(65536):
                answered += more
                if len(statuses(answered)) >= answers:
                    line.settimeout(1)
        except TimeoutError:
            pass
        except ConnectionResetError:
            pass
    return answered


def statuses(answered: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", answered)]


POST = b"POST /trial/body HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n"
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.slow
def test_no_second_request_hides_in_the_body_of_a_first(small: FastAPI) -> None:
    both = POST + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(HIDDEN)) + HIDDEN
    twice = POST + b"Content-Length: 4\r\nContent-Length: 60\r\n\r\nabcd" + HIDDEN
    folded = POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN
    signed = POST + b"Content-Length: +4\r\n\r\nabcd" + HIDDEN
    refused = POST + b"Content-Length: 2000\r\n\r\n" + HIDDEN.ljust(2000, b"x")
    two_hosts = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n"
    with served(small) as address:
        for name, sent in {"both": both, "twice": twice, "folded": folded, "signed": signed}.items():
            answered = statuses(say(address, sent))
            assert answered in ([400], [501]), name
        assert statuses(say(address, refused)) == [413]
        assert statuses(say(address, refused, HIDDEN)) in ([413], [413, 200])  # the body is passed over whole
        assert statuses(say(address, two_hosts)) in ([400], [421])
        assert statuses(say(address, POST + b"Content-Length: 4\r\n\r\nabcd", HIDDEN, answers=2)) == [200, 200]


@pytest.mark.slow
def test_a_real_server_says_nothing_of_itself_and_stays_up(small: FastAPI) -> None:
    with served(small) as address:
        for rubbish in (b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 100_000, b"PRI * HTTP/2.0\r\n\r\n"):
            say(address, rubbish, patience_s=2)  # it waits for the rest of some, and then we are gone
        answered = say(address, HIDDEN)
    assert statuses(answered) == [200]
    assert b"server:" not in answered.lower()


def test_many_at_once_get_answers_or_a_clean_refusal(small: FastAPI) -> None:
    got: list[list[int]] = []
    with served(small) as address:
        crowd = [
            threading.Thread(target=lambda: got.append(statuses(say(address, b"GET /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"))))
            for _ in range(40)
        ]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
    assert {tuple(one) for one in got} <= {(200,), (503,)}
    assert (200,) in {tuple(one) for one in got}
