"""A crowd at work: a real server in a process of its own, and browsers without a screen that use the same doors as the judging page.

Each annotator asks for a question, thinks, answers, and keeps an answer until it is acknowledged: with the same key, however often the
network, the server or the disk fails in between. As on the page, an answer brings the next question along. What was acknowledged is noted,
so that it can be looked for in the store afterwards.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx2
from sqlalchemy import func, insert, select, text

from stored import NOON
from truing.feedback.sets import Rules, create_set
from truing.store.clock import now
from truing.store.conversations import turns_of
from truing.store.ids import content_id, uuid7
from truing.store.project import Project
from truing.store.tables import Annotator, Judgement, Prompt, Question, Sample
from truing.studio.auth import COOKIE, begin_session

BATCH = "crowd"
CHUNK = 2000
READY_WITHIN_S = 60.0
# The command line, with `now` moved before anything has taken it.
WRONG_CLOCK = """
import sys
from datetime import timedelta
from truing.store import clock
wrong, right = timedelta(hours=float(sys.argv.pop(1))), clock.now
if wrong:
    clock.now = lambda: right() + wrong
from truing.cli.app import main
main()
"""


# ---- a project and its people ----


def fill(project: Project, questions: int, *, overlap: int = 3) -> str:
    """So many pair questions in one open set; gives its id."""
    for start in range(0, questions, CHUNK):
        numbers = range(start, min(start + CHUNK, questions))
        asked = {number: turns_of(f"What shall I cook tonight, with {number} potatoes and an onion?") for number in numbers}
        prompts = [
            {"id": content_id(turns), "turns": turns, "text": turns[-1]["content"], "split": "train", "source": "made up", "facts": {}, "position": number,
             "created_at": NOON}
            for number, turns in asked.items()
        ]  # fmt: skip
        samples = [
            {"id": content_id("sample", content_id(turns), BATCH, place), "prompt_id": content_id(turns), "author": "made up", "batch": BATCH,
             "position": place, "text": f"{words} {number} potatoes will do. " * 4, "finished": True, "created_at": NOON}
            for number, turns in asked.items()
            for place, words in enumerate(("A soup:", "A salad:"))
        ]  # fmt: skip
        with project.database.write() as session:
            session.execute(insert(Prompt), prompts)
            session.execute(insert(Sample), samples)
    rules = Rules(overlap=overlap)
    return create_set(project, name="supper", kind="pair", guideline="Which would you rather eat?", rules=rules, batch=BATCH, seed=1, at=NOON).id


def sign_in(project: Project, n: int) -> list[str]:
    """So many annotators, each with a session; gives the secrets of their cookies."""
    people = [{"id": uuid7(), "name": f"Person {number}"} for number in range(n)]
    common: dict[str, Any] = {"kind": "human", "role": "annotator", "password_hash": None, "active": True, "facts": {}, "created_at": NOON}
    with project.database.write() as session:
        session.execute(insert(Annotator), [person | common for person in people])
        return [begin_session(session, person["id"], now()) for person in people]


# ---- the server ----


class DidNotStart(Exception):
    """The exit code, and the last words, of a studio that ended before it answered."""


class Server:
    """`truing studio` in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.log = Path(tempfile.gettempdir()) / f"truing-server-{self.port}.log"

    @property
    def address(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, clock_hours: float = 0.0) -> float:
        """Start it, with a clock that is wrong by so many hours; gives the seconds until it answers."""
        command = [sys.executable, "-c", WRONG_CLOCK, str(clock_hours), "studio", "--project", str(self.root), "--port", str(self.port)]
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONWARNINGS", "TRUING_DATABASE")}
        began = time.monotonic()
        with self.log.open("ab") as log:
            hearing = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  a shell's background job is started deaf to Ctrl-C
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, preexec_fn=hearing)
        with httpx2.Client() as client:
            while time.monotonic() - began < READY_WITHIN_S:
                try:
                    if client.get(f"{self.address}/healthz").is_success:
                        return time.monotonic() - began
                except httpx2.TransportError:
                    if self.process.poll() is not None:
                        raise DidNotStart(self.process.returncode, self.log.read_text()[-2000:]) from None
                    time.sleep(0.01)
        raise AssertionError("the studio doesn't answer")

    def kill(self) -> None:
        """As a power cut ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """As Ctrl-C ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *ended: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.log.unlink(missing_ok=True)

    def peak_mb(self) -> float:
        """The most memory it has held, in MiB."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return float(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


# ---- the people ----


@dataclass
class Tally:
    """What the people met."""

    submits_s: list[float] = field(default_factory=list)  # of each acknowledged answer, the last attempt alone
    nexts_s: list[float] = field(default_factory=list)  # of the first questions, which no answer brought
    acknowledged: list[tuple[str, str]] = field(default_factory=list)  # (judgement, key)
    statuses: dict[int, int] = field(default_factory=dict)
    broken: int = 0  # requests that the network ended
    untidy: list[str] = field(default_factory=list)  # a 429 or 503 without Retry-After, or a 5xx that isn't one of 503 and 507
    finished: int = 0  # people for whom nothing was left

    def note(self, answer: httpx2.Response) -> None:
        """Count an answer, and keep what should not be."""
        status = answer.status_code
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if (status in (429, 503) and "retry-after" not in answer.headers) or (status >= 500 and status not in (503, 507)):
            self.untidy.append(f"{status}: {answer.text[:200]}")


@dataclass
class Crowd:
    """People at one studio.

    Attributes:
        address: where it is.
        secrets: of their cookies, one for each.
        think_s: the mean of the seconds that an answer takes, between half and one and a half of which it is drawn; 0: none.
        witness: a file to which each acknowledgement is written, and brought to the disk before anything else happens.
        stop_at: by `time.monotonic`.
    """

    address: str
    secrets: Sequence[str]
    think_s: float
    stop_at: float
    witness: Path | None = None
    seed: int = 1
    tally: Tally = field(default_factory=Tally)
    enough: Callable[[Tally], bool] = lambda tally: False

    async def work(self) -> Tally:
        """Let all of them work until the time is over."""
        limits = httpx2.Limits(max_connections=len(self.secrets) + 10, max_keepalive_connections=len(self.secrets) + 10)
        async with httpx2.AsyncClient(base_url=self.address, limits=limits, timeout=30.0) as client:
            await asyncio.gather(*(self._person(client, secret, random.Random(f"{self.seed} {i}")) for i, secret in enumerate(self.secrets)))
        return self.tally

    def _over(self) -> bool:
        return time.monotonic() >= self.stop_at or self.enough(self.tally)

    async def _person(self, client: httpx2.AsyncClient, secret: str, draw: random.Random) -> None:
        await asyncio.sleep(self.think_s * draw.random())
        first = await self._send(client, secret, "next", {"besides": []}, draw)
        following = None if first is None else first.json()
        while following is not None and not self._over():
            question = following["question"]
            if question is None:
                self.tally.finished += 1
                return
            began = datetime.now(UTC)
            await asyncio.sleep(self.think_s * (0.5 + draw.random()))
            answer = {
                "claim": question["claim"], "answer": {"leaning": draw.randint(-3, 3)}, "started_at": began.isoformat(), "active_ms": int(self.think_s * 1000),
                "key": f"{draw.getrandbits(128):032x}", "guideline_version": question["guideline"]["version"], "besides": [],
            }  # fmt: skip
            got = await self._send(client, secret, "submit", answer, draw)
            if got is not None:
                self._acknowledge(got.json()["judgement"], str(answer["key"]))
            following = None if got is None else got.json()["next"]

    def _acknowledge(self, judgement: str, key: str) -> None:
        self.tally.acknowledged.append((judgement, key))
        if self.witness is not None:
            with self.witness.open("a") as out:
                out.write(f"{judgement} {key}\n")
                out.flush()
                os.fsync(out.fileno())

    async def _send(self, client: httpx2.AsyncClient, secret: str, door: str, body: dict[str, Any], draw: random.Random) -> httpx2.Response | None:
        """The answer of a door, asked until it gives one; None when the time is over before."""
        headers = {"cookie": f"{COOKIE}={secret}", "origin": self.address, "sec-fetch-site": "same-origin", "accept": "application/json"}
        while True:
            began = time.perf_counter()
            try:
                answer = await client.post(f"/judge/api/{door}", json=body, headers=headers)
            except httpx2.TransportError:
                self.tally.broken += 1
                pause = 0.2 + 0.8 * draw.random()
            else:
                self.tally.note(answer)
                if answer.is_success:
                    (self.tally.submits_s if door == "submit" else self.tally.nexts_s).append(time.perf_counter() - began)
                    return answer
                if answer.status_code not in (429, 503, 507):
                    self.tally.untidy.append(f"{door}: {answer.status_code}: {answer.text[:200]}")
                    return None
                pause = min(float(answer.headers.get("retry-after", "1")), 2.0) * (0.5 + draw.random())
            if self._over():
                return None
            await asyncio.sleep(pause)


# ---- afterwards ----


@dataclass
class Audit:
    """What the store says of what was acknowledged."""

    acknowledged: int
    lost: int  # acknowledged and not in the store, or in it under another key
    doubled: int  # answers of one person to one question that don't supersede one another
    stored: int  # judgements in all; more than acknowledged where an acknowledgement was on its way when everything ended
    over_quota: int  # questions with more answers that count than are wanted
    integrity: str  # "ok", or what the database found


def audit(project: Project, acknowledged: Sequence[tuple[str, str]]) -> Audit:
    """Look for every acknowledged answer."""
    with project.database.read() as session:
        stored = dict(session.execute(select(Judgement.id, Judgement.idempotency_key)).all())
        twice = select(Judgement.question_id).where(Judgement.supersedes.is_(None)).group_by(Judgement.question_id, Judgement.annotator_id)
        doubled = len(session.execute(twice.having(func.count() > 1)).all())
        over = session.scalar(select(func.count()).select_from(Question).where(Question.answers > Question.overlap)) or 0
        integrity = "ok"
        if session.get_bind().dialect.name == "sqlite":
            integrity = "; ".join(str(row[0]) for row in session.execute(text("PRAGMA integrity_check")))
            integrity += "".join(f"; {row}" for row in session.execute(text("PRAGMA foreign_key_check")))
    lost = sum(stored.get(judgement) != key for judgement, key in set(acknowledged))
    return Audit(len(set(acknowledged)), lost, doubled, len(stored), over, integrity)


def quantile_ms(seconds: Sequence[float], share: float) -> float:
    """The time below which this share of the requests stayed, in milliseconds."""
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1) if ordered else float("nan")
