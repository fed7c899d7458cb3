"""Writes that share the way to the disk: each is there when its thread goes on, and one that fails takes nobody else's with it."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from truing.errors import UserError
from truing.store import together
from truing.store.database import Database, sqlite_url
from truing.store.together import Together


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    """A database with a table of numbers."""
    database = Database(sqlite_url(tmp_path / "store.db"))
    with database.write() as session:
        session.execute(text("CREATE TABLE number (n INTEGER PRIMARY KEY, padding TEXT)"))
    yield database
    database.close()


def numbers(store: Database) -> list[int]:
    """What is in the file, as another program sees it."""
    connection = sqlite3.connect(str(store.engine.url.database))
    try:
        return [row[0] for row in connection.execute("SELECT n FROM number ORDER BY n")]
    finally:
        connection.close()


def commits(store: Database) -> list[float]:
    """Grows by a moment with each commit that reaches the disk."""
    moments: list[float] = []
    event.listen(store.engine, "commit", lambda connection: moments.append(time.monotonic()))
    return moments


def add(store: Database, n: int, *, padding: str = "", then: Callable[[], None] = lambda: None) -> None:
    with store.write_together() as session:
        session.execute(text("INSERT INTO number VALUES (:n, :padding)"), {"n": n, "padding": padding})
        then()


def while_one_holds_the_turn(store: Database, work: Callable[[int], None], n: int, *, alone: int = 0) -> list[BaseException | None]:
    """Let threads pile up behind a write, so that they go in together; gives what each of them met.

    Args:
        alone: so many of them write by themselves.
    """
    met: list[BaseException | None] = [None] * n
    inside, go_on = threading.Event(), threading.Event()

    def first() -> None:
        with store.write():
            inside.set()
            assert go_on.wait(20)

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  whatever it is, the test looks at it
            met[number] = error

    with ThreadPoolExecutor(n + 1) as pool:
        pool.submit(first)
        assert inside.wait(20)
        threads = [pool.submit(one, number) for number in range(n)]
        assert store._turns is not None
        until(lambda: store._turns is not None and store._turns._waiting == n - alone)
        go_on.set()
        for thread in threads:
            thread.result(timeout=20)
    return met


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.001)


def test_many_writes_share_few_commits_and_each_is_in_the_file_when_its_thread_goes_on(store: Database) -> None:
    moments, seen = commits(store), []

    def write(number: int) -> None:
        add(store, number)
        seen.append(number in numbers(store))

    assert while_one_holds_the_turn(store, write, 20) == [None] * 20
    assert numbers(store) == list(range(20))
    assert seen == [True] * 20
    assert len(moments) < 12  # the holder's own, and few for the twenty


def test_a_write_alone_is_committed_at_once(store: Database) -> None:
    add(store, 1)
    assert numbers(store) == [1]
    assert store._turns is not None
    assert store._turns._open is None


def test_one_that_fails_takes_back_its_own_part_and_no_other(store: Database) -> None:
    def write(number: int) -> None:
        def fail() -> None:
            if number % 3 == 0:
                raise ZeroDivisionError

        add(store, number, then=fail)

    met = while_one_holds_the_turn(store, write, 12)
    assert [type(error) for error in met] == [ZeroDivisionError if number % 3 == 0 else type(None) for number in range(12)]
    assert numbers(store) == [number for number in range(12) if number % 3]


def test_a_write_sees_what_those_before_it_in_the_transaction_wrote(store: Database) -> None:
    def count_up(number: int) -> None:
        with store.write_together() as session:
            session.execute(text("INSERT INTO number SELECT coalesce(max(n), 0) + 1, '' FROM number"))

    assert while_one_holds_the_turn(store, count_up, 15) == [None] * 15
    assert numbers(store) == list(range(1, 16))


def test_when_the_commit_fails_everybody_is_told_and_nothing_is_kept(store: Database) -> None:
    def refuse(connection: object) -> None:
        raise OperationalError("COMMIT", {}, sqlite3.OperationalError("database or disk is full"))

    event.listen(store.engine, "commit", refuse)
    met = while_one_holds_the_turn(store, lambda number: add(store, number), 8)
    event.remove(store.engine, "commit", refuse)
    assert all(isinstance(error, UserError) and "disk is full" in error.what for error in met)
    assert numbers(store) == []
    add(store, 100)
    assert numbers(store) == [100]


def test_a_full_file_refuses_what_does_not_fit_and_goes_on_when_there_is_room(store: Database) -> None:
    """SQLite may take back the whole transaction by itself then: whoever was in it is told so."""

    @event.listens_for(store.engine, "begin")
    def bounded(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 400")  # type: ignore[attr-defined]  # 1.6 MB

    met = while_one_holds_the_turn(store, lambda number: add(store, number, padding="x" * (4_000_000 if number == 3 else 10)), 8)
    kept = [number for number, error in enumerate(met) if error is None]
    assert isinstance(met[3], UserError)
    assert "disk is full" in met[3].what
    assert numbers(store) == kept
    add(store, 100)
    assert numbers(store) == [*kept, 100]


def test_a_long_write_is_not_made_to_wait_for_nor_waited_for(store: Database) -> None:
    """Those who wrote together are through before one who writes alone begins."""
    order: list[str] = []

    def work(number: int) -> None:
        if number == 0:
            with store.write() as session:
                assert numbers(store) == [row[0] for row in session.execute(text("SELECT n FROM number ORDER BY n"))]  # nothing is half-way
                time.sleep(0.05)
                order.append("alone")
        else:
            add(store, number)
            order.append("together")

    assert while_one_holds_the_turn(store, work, 6, alone=1) == [None] * 6
    assert numbers(store) == [1, 2, 3, 4, 5]


def test_a_write_alone_closes_what_was_left_open_for_others(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "LOOK_S", 15.0)  # whoever waits doesn't look itself
    turns = store._turns
    assert turns is not None
    turns._waiting += 1  # somebody for whom the transaction stays open
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(add, store, 1)
        until(lambda: turns._open is not None)
        began = time.monotonic()
        with store.write() as session:
            session.execute(text("INSERT INTO number VALUES (2, '')"))
        assert time.monotonic() - began < 12  # SQLite itself would have it wait for 30 s and then refuse
        there.result(timeout=20)
    turns._waiting -= 1
    assert numbers(store) == [1, 2]


def test_whoever_waits_commits_when_the_next_one_never_comes(tmp_path: Path, store: Database) -> None:
    turns = store._turns
    assert turns is not None
    turns._waiting += 1  # somebody who gives up
    add(store, 7)
    turns._waiting -= 1
    assert numbers(store) == [7]


def test_patience_ends_and_sqlite_decides(store: Database) -> None:
    hasty = Together(store.engine, patience_s=0.05)
    assert hasty._turn.acquire()
    with hasty.shared() as session:  # nobody else holds SQLite's own lock, so this goes through
        session.execute(text("INSERT INTO number VALUES (1, '')"))
    with hasty.alone():
        pass
    hasty._turn.release()
    assert numbers(store) == [1]
    with hasty.shared() as session:
        session.execute(text("INSERT INTO number VALUES (2, '')"))
    assert numbers(store) == [1, 2]
