"""What a studio goes through with a crowd at work: a working day, more than it can take, power cuts, a full disk, a wrong clock.

Each trial makes a project in a folder, lets people work at a real server, and looks in the store for every answer that was acknowledged.
"""

import asyncio
import os
import random
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.crowd import Audit, Crowd, DidNotStart, Server, Tally, audit, fill, quantile_ms, sign_in
from truing.store.project import Project, create_project, open_project

Found = dict[str, Any]
PATIENCE_S = 60.0  # beyond the time that people were to work


def steady(folder: Path, *, people: int, think_s: float, seconds: float, questions: int, at_least: int = 0) -> Found:
    """People who answer at their own pace.

    Args:
        at_least: on a machine that is so busy that fewer answers are acknowledged in time, people go on; here as below.
    """
    project, secrets = _project(folder, people, questions)
    with Server(project.root) as server:
        tally = _work(Crowd(server.address, secrets, think_s, time.monotonic() + seconds), at_least)
        peak = server.peak_mb()
    return {"people": people, "think_s": think_s, "seconds": seconds, "peak_mb": round(peak, 1)} | _told(tally) | _audited(project, tally)


def saturated(folder: Path, *, people: int, seconds: float, questions: int, at_least: int = 0) -> Found:
    """People who answer at once: how many durable answers a second."""
    project, secrets = _project(folder, people, questions)
    with Server(project.root) as server:
        began = time.monotonic()
        tally = _work(Crowd(server.address, secrets, 0.0, began + seconds), at_least)
        rate = round(len(tally.acknowledged) / max(time.monotonic() - began, seconds), 1)
        peak = server.peak_mb()
    return {"people": people, "seconds": seconds, "submits_a_second": rate, "peak_mb": round(peak, 1)} | _told(tally) | _audited(project, tally)


def killed(
    folder: Path, *, kills: int, people: int, between_s: tuple[float, float], questions: int, think_s: float = 0.0, at_least: int = 0, seed: int = 1
) -> Found:
    """Power cuts while people work; every acknowledgement is on the client's disk before the next answer is thought of.

    Args:
        between_s: the server lives so many seconds after it is ready, drawn between the two.
        at_least: people go on after the last cut until so many answers are acknowledged.
    """
    project, secrets = _project(folder, people, questions)
    witness = folder / "acknowledged"
    witness.touch()
    server = Server(project.root)
    ready, integrity = [server.start()], []
    crowd = Crowd(server.address, secrets, think_s, time.monotonic() + 36_000, witness)

    async def cut() -> None:
        draw = random.Random(seed)
        for _ in range(kills):
            await asyncio.sleep(draw.uniform(*between_s))
            server.kill()
            integrity.append(await asyncio.to_thread(lambda: audit(project, []).integrity))
            ready.append(await asyncio.to_thread(server.start))
        while len(crowd.tally.acknowledged) < at_least and crowd.tally.finished < people:
            await asyncio.sleep(0.1)
        await asyncio.sleep(between_s[0])
        crowd.stop_at = time.monotonic()

    async def both() -> None:
        await asyncio.gather(cut(), crowd.work())

    with server_stopped(server):
        asyncio.run(both())
    noted = [(line.split()[0], line.split()[1]) for line in witness.read_text().splitlines()]
    found = {"kills": kills, "people": people, "ready_s_most": round(max(ready), 2), "ready_s_median": round(sorted(ready)[len(ready) // 2], 2)}
    clean = sum(one == "ok" for one in integrity)
    return found | {"integrity_ok_after_kills": clean} | _told(crowd.tally) | asdict(_closed(project, audit(project, noted)))


def disk_full(folder: Path, *, people: int, seconds: float, questions: int) -> Found:
    """The disk fills while people work, and then there is room again.

    Args:
        folder: on a small disk.
        seconds: before, during and after.
    """
    project, secrets = _project(folder, people, questions)
    ballast = folder / "ballast"
    with Server(project.root) as server:
        crowd = Crowd(server.address, secrets, 0.02, time.monotonic() + 3 * seconds)
        marks: list[int] = []

        async def fill_and_free() -> None:
            await asyncio.sleep(seconds)
            marks.append(len(crowd.tally.acknowledged))
            _fill_up(ballast)
            await asyncio.sleep(seconds)
            marks.append(len(crowd.tally.acknowledged))
            ballast.unlink()

        async def both() -> None:
            await asyncio.gather(fill_and_free(), crowd.work())

        asyncio.run(both())
    before, during = marks[0], marks[1] - marks[0]
    after = len(crowd.tally.acknowledged) - marks[1]
    return {"before": before, "during": during, "after": after} | _told(crowd.tally) | _audited(project, crowd.tally)


def _fill_up(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as out:
        size = 1 << 16
        while size:
            try:
                out.write(bytes(size))
            except OSError:
                size //= 2


def read_only(folder: Path, *, questions: int) -> Found:
    """A studio on a disk that can't be written says so and ends; on the same disk made writable it works.

    Args:
        folder: the root of a small disk.
    """
    project, secrets = _project(folder, 3, questions)
    project.database.close()
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    server = Server(project.root)
    try:
        server.start()
        code, words = 0, ""
        server.stop()
    except DidNotStart as ended:
        code, words = ended.args
    finally:
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
    with server:
        tally = _work(Crowd(server.address, secrets, 0.0, time.monotonic() + 1.0), 1)
    return {"exit_code": code, "words": words} | _told(tally) | _audited(project, tally)


def wrong_clock(folder: Path, *, people: int, seconds: float, questions: int, at_least: int = 0) -> Found:
    """The server's clock jumps: right, an hour late, an hour early, right again; sessions, leases and answers go on."""
    project, secrets = _project(folder, people, questions)
    server, tally = Server(project.root), Tally()
    each: list[int] = []
    for hours in (0.0, -1.0, 1.0, 0.0):
        server.start(clock_hours=hours)
        with server_stopped(server):
            crowd = Crowd(server.address, secrets, 0.0, time.monotonic() + seconds, seed=len(each), tally=tally)
            before = len(tally.acknowledged)
            _work(crowd, at_least)
            each.append(len(tally.acknowledged) - before)
    return {"answers_with_each_clock": each} | _told(tally) | _audited(project, tally)


class server_stopped:  # noqa: N801 (a context manager is called as a function is)
    """Stop a server at the end of a block, whatever happened in it."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> Server:
        return self._server

    def __exit__(self, *ended: object) -> None:
        self._server.__exit__(*ended)


def _project(folder: Path, people: int, questions: int) -> tuple[Project, list[str]]:
    os.environ.pop("TRUING_DATABASE", None)
    project = open_project(create_project(folder / "project", settings=""))
    fill(project, questions)
    return project, sign_in(project, people)


def _work(crowd: Crowd, at_least: int = 0) -> Tally:
    goal, give_up = len(crowd.tally.acknowledged) + at_least, crowd.stop_at + PATIENCE_S

    async def until_enough() -> None:
        work = asyncio.create_task(crowd.work())
        while not work.done() and len(crowd.tally.acknowledged) < goal and time.monotonic() < give_up:
            crowd.stop_at = max(crowd.stop_at, time.monotonic() + 1)
            await asyncio.sleep(0.1)
        await work

    asyncio.run(until_enough())
    return crowd.tally


def _told(tally: Tally) -> Found:
    shares: Mapping[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        "submit_ms": {name: quantile_ms(tally.submits_s, share) for name, share in shares.items()},
        "next_ms": {name: quantile_ms(tally.nexts_s, share) for name, share in shares.items()},
        "statuses": {str(status): n for status, n in sorted(tally.statuses.items())}, "broken_connections": tally.broken, "untidy": tally.untidy[:20],
        "people_with_nothing_left": tally.finished,
    }  # fmt: skip


def _audited(project: Project, tally: Tally) -> Found:
    return asdict(_closed(project, audit(project, tally.acknowledged)))


def _closed(project: Project, found: Audit) -> Audit:
    project.database.close()
    return found
