"""Short writes of many threads that reach the disk together (group commit), for SQLite, where one fsync bounds every transaction.

Whoever has the turn writes inside a savepoint of one transaction that stays open while others wait for theirs; the last commits it for
all. Nobody goes on before what they wrote is on the disk, and an error in one's own part takes back that part alone.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session

MOST_TOGETHER = 64
LONGEST_S = 0.02  # a transaction takes no further write after this, so that the first doesn't wait for ever
LOOK_S = 0.1  # after so long a wait for the commit, whoever waits looks whether somebody is still there to do it


class Together:
    """The turns of one process's writers to one SQLite database.

    Args:
        engine: of SQLite; connections begin with BEGIN IMMEDIATE when they have the execution option `sqlite_immediate`.
        patience_s: how long a thread waits for its turn before it leaves the waiting to SQLite, which refuses in its own time.
    """

    def __init__(self, engine: Engine, patience_s: float) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._turn = threading.Lock()  # whoever has it writes
        self._count = threading.Lock()
        self._waiting = 0  # threads that will join the open transaction
        self._open: _Batch | None = None  # touched only by whoever has the turn

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A turn for a transaction of one's own.

        SQLite by itself has writers ask again after longer and longer sleeps. Other processes, and a thread that has waited
        too long here, are SQLite's to hold off or refuse.
        """
        mine = self._turn.acquire(timeout=self._patience_s)
        try:
            if mine:
                self._close_open()
            yield
        finally:
            if mine:
                self._turn.release()

    @contextmanager
    def shared(self) -> Iterator[Session]:
        """A session whose changes are on the disk when the block ends, or taken back if it fails. For what takes milliseconds.

        Raises:
            DBAPIError: the transaction that this was a part of could not be committed: nothing of it is kept.
        """
        if not self._acquire():
            with Session(self._engine, expire_on_commit=False) as session:
                session.connection(execution_options={"sqlite_immediate": True})
                yield session
                session.commit()
            return
        try:
            batch = self._join()
            with Session(batch.connection, expire_on_commit=False, join_transaction_mode="create_savepoint") as session:
                try:
                    yield session
                    session.commit()
                except BaseException as error:
                    if not batch.lives():  # SQLite took everything back by itself, as it may when the disk is full
                        self._open = None
                        batch.end(error)
                    raise
        finally:
            if self._open is not None and not (self._waiting and self._open.takes_more()):
                self._close_open()
            self._turn.release()
        self._await(batch)

    def _acquire(self) -> bool:
        """Wait for a turn, and be counted meanwhile."""
        with self._count:
            self._waiting += 1
        try:
            return self._turn.acquire(timeout=self._patience_s)
        finally:
            with self._count:
                self._waiting -= 1

    def _join(self) -> "_Batch":
        if self._open is None:
            self._open = _Batch(self._engine)
        self._open.size += 1
        return self._open

    def _close_open(self) -> None:
        batch, self._open = self._open, None
        if batch is not None:
            batch.commit()

    def _await(self, batch: "_Batch") -> None:
        """Wait for the commit. A thread that was to come next may have given up: then whoever waits does it."""
        while not batch.done.wait(LOOK_S):
            if self._turn.acquire(timeout=LOOK_S):
                try:
                    if self._open is batch:
                        self._close_open()
                finally:
                    self._turn.release()
        if batch.error is not None:
            raise batch.error


class _Batch:
    """One transaction, and what became of it."""

    def __init__(self, engine: Engine) -> None:
        self.connection: Connection = engine.connect().execution_options(sqlite_immediate=True)
        try:
            self.connection.begin()
        except BaseException:
            self.connection.close()
            raise
        self.began = time.monotonic()
        self.size = 0
        self.done = threading.Event()
        self.error: BaseException | None = None

    def takes_more(self) -> bool:
        return self.size < MOST_TOGETHER and time.monotonic() - self.began < LONGEST_S

    def lives(self) -> bool:
        """Whether SQLite still holds the transaction."""
        return bool(self.connection.connection.driver_connection.in_transaction)  # type: ignore[union-attr]

    def commit(self) -> None:
        try:
            self.connection.commit()
        except BaseException as error:  # noqa: BLE001  raised again in each thread that waits for this commit
            self.end(error)
        else:
            self.end(None)

    def end(self, error: BaseException | None) -> None:
        """Tell everybody what became of it. A connection on which something failed is thrown away: nobody knows what it still holds."""
        self.error = error
        try:
            if error is not None:
                self.connection.invalidate()
            self.connection.close()
        finally:
            self.done.set()
