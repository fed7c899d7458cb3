"""The studio as a process: where it may listen, what it prints, and how it stops."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest

from truing.errors import UserError
from truing.store.clock import now
from truing.store.project import Project
from truing.studio.app import listen, serve
from truing.studio.invitations import add_owner
from visitors import PASSWORD, quick_passwords, served, studio_of

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from pathlib import Path
from truing.store.project import open_project
from truing.studio.app import serve
serve(open_project(Path(sys.argv[1])), host=sys.argv[2], port=int(sys.argv[3]))
"""


@contextmanager
def running(project: Project, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A studio in a process of its own, and what it said before it was ready."""
    command = [sys.executable, "-u", "-W", "error", "-c", SCRIPT, str(project.root), host, str(port)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job is started deaf to Ctrl-C
    )
    assert process.stdout is not None
    said = ""
    try:
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline()
            assert line, f"it ended: {said}"
            said += line
        yield process, said
    finally:
        process.kill()
        process.wait(timeout=20)
        process.stdout.close()


def address_in(said: str) -> str:
    found = re.search(r"the studio is at (http://\S+)", said)
    assert found is not None, said
    return found[1]


def test_a_first_start_prints_a_link_for_the_owner(project: Project) -> None:
    with running(project) as (_, said):
        link = re.search(r"(http://127\.0\.0\.1:\d+)/first/([\w-]{43})", said)
        assert link is not None, said
        browser = {"sec-fetch-site": "same-origin", "accept": "text/html"}
        answer = httpx.post(link[0], data={"name": "Olga", "password": PASSWORD}, headers=browser)
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"].partition(";")[0]
    with running(project) as (_, said):
        assert "/first/" not in said  # there is an owner now
        kept = httpx.get(f"{address_in(said)}/password", headers={"cookie": cookie})
        assert kept.status_code == 200  # no key is made afresh: a session outlives a restart


def test_a_start_without_an_owner_closes_the_link_of_the_start_before(project: Project) -> None:
    links = []
    for _ in range(2):
        with running(project) as (_, said):
            links += re.findall(r"/first/([\w-]{43})", said)
    with running(project) as (_, said):
        address = address_in(said)
        assert [httpx.get(f"{address}/first/{link}").status_code for link in links] == [404, 404]


@pytest.mark.parametrize(("stop", "words"), [(signal.SIGINT, "the studio has stopped"), (signal.SIGTERM, "")])
def test_it_stops_by_a_signal_in_good_order(project: Project, stop: signal.Signals, words: str) -> None:
    with running(project) as (process, said):
        assert httpx.get(f"{address_in(said)}/healthz").json() == {"ready": True}
        process.send_signal(stop)
        start = time.monotonic()
        rest, _ = process.communicate(timeout=20)
        assert time.monotonic() - start < 10
        assert words in rest
        assert "Traceback" not in rest
        assert process.returncode in (0, -stop)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "studio.example"])
def test_others_cant_reach_a_studio_in_which_nobody_can_sign_in(project: Project, host: str) -> None:
    with pytest.raises(UserError, match="nobody can sign in") as error:
        serve(project, host=host, port=0)
    assert "truing studio add-owner NAME" in error.value.fix


def test_with_an_owner_others_may_reach_it_and_no_link_is_printed(project: Project) -> None:
    add_owner(project, quick_passwords(), "Olga", PASSWORD, at=now())
    with running(project, host="0.0.0.0") as (_, said):
        assert "/first/" not in said
        assert "plain http" in said
        port = address_in(said).rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", headers={"host": "evil.example"}).status_code == 421


def test_a_port_that_is_taken_is_said(project: Project) -> None:
    with served(studio_of(project)) as address, pytest.raises(UserError, match="can't listen") as error:
        serve(project, port=int(address.rpartition(":")[2]))
    assert "--port" in error.value.fix


def test_an_answer_doesnt_wait_for_the_client_to_acknowledge_its_head() -> None:
    """Head and body are written apart: with Nagle's algorithm the second waits 40 ms on Linux."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()) as _:
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_the_address_of_a_proxy_is_believed_only_behind_https(project: Project, tmp_path: Path) -> None:
    """A header that anybody can send mustn't lend an attacker fresh addresses to guess from."""
    with running(project) as (_, said):
        address = address_in(said)
        outcomes = [
            httpx.post(
                f"{address}/sign-in", data={"name": "Ana", "password": "wrong"}, headers={"sec-fetch-site": "same-origin", "x-forwarded-for": f"10.0.0.{n}"}
            ).status_code
            for n in range(11)
        ]
    assert outcomes == [401] * 10 + [429]
