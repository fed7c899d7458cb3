"""Open a project's database: SQLite by default, PostgreSQL by URL. Short transactions, one writer at a time on SQLite."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event, inspect, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session

from truing.errors import UserError
from truing.store.together import Together

MIGRATIONS = Path(__file__).parent / "migrations"
NEWEST = "0003"  # the newest migration; a test holds it to the files
BUSY_SECONDS = 30


class Database:
    """A project's database.

    `read()` and `write()` each give a session in a transaction of its own, `write_together()` one in a part of a transaction. A write is
    on the disk when its block has ended, or leaves nothing.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.url = self.engine.url.render_as_string(hide_password=True)  # the form that may be shown
        self._turns = Together(self.engine, BUSY_SECONDS) if self.engine.dialect.name == "sqlite" else None
        try:
            with _clear_errors(self.url):
                _bring_up_to_date(self.engine)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for looking. Nothing it changes is kept."""
        with _clear_errors(self.url), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose changes are kept, all of them or none."""
        with _clear_errors(self.url), self._turns.alone() if self._turns else nullcontext(), Session(self.engine, expire_on_commit=False) as session:
            # SQLite's write lock is taken first: a transaction that reads and then writes would else fail under load.
            session.connection(execution_options={"sqlite_immediate": True})
            yield session
            session.commit()

    @contextmanager
    def write_together(self) -> Iterator[Session]:
        """The same for a write of milliseconds among those of many threads: on SQLite they share the way to the disk (see together.py)."""
        if self._turns is None:
            with self.write() as session:
                yield session
        else:
            with _clear_errors(self.url), self._turns.shared() as session:
                yield session

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


def hold(session: Session, table: type[DeclarativeBase]) -> None:
    """Make the session's transaction the only writer of a table until it ends; reading goes on. On SQLite a write is that already.

    Who writes to several tables takes them in this order, so that no two wait for each other: annotator, question_set, assignment, judgement.
    """
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text(f'LOCK TABLE "{table.__tablename__}" IN SHARE ROW EXCLUSIVE MODE'))


def brief(session: Session, statement: Executable, values: Mapping[str, Any]) -> CursorResult[Any]:
    """Run a statement about columns past the session's own machinery, which for one row takes several times as long as the database.

    What is pending in the session is flushed first; objects that it holds already don't learn of changes.
    """
    session.flush()
    return session.connection().execute(statement, values)


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    return f"sqlite:///{path}"


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return _server_engine(url)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def _set_pragmas(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
            connection.execute(f"PRAGMA {pragma}")
        _write_ahead(connection)

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        immediate = connection.get_execution_options().get("sqlite_immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    @event.listens_for(engine, "reset")
    def _leave_nothing_open(connection: Any, record: Any, state: Any) -> None:
        """SQLAlchemy takes a transaction for ended when its COMMIT failed; SQLite keeps it, and with it the lock on all writing."""
        if connection.in_transaction:
            connection.rollback()

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Keep a write-ahead log. Where several open a new file at once SQLite calls it locked at this place without waiting, whatever `busy_timeout` says."""
    give_up = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:  # the code's lowest byte says what, the others why
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _server_engine(url: str) -> Engine:
    """PostgreSQL through psycopg 3, which `postgres://` and `postgresql://` don't name by themselves in every SQLAlchemy."""
    scheme, colon, rest = url.partition("://")
    try:
        return create_engine(f"postgresql+psycopg://{rest}" if colon and scheme in ("postgres", "postgresql") else url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UserError(f"TRUING_DATABASE is not a database's URL: {error}", fix="write postgresql://user:password@host/name, or unset it") from error
    except ModuleNotFoundError as error:
        raise UserError(f"PostgreSQL needs a library that is not installed: {error.name}", fix="pip install 'truing[postgres]'") from error


def _bring_up_to_date(engine: Engine) -> None:
    """Run the migrations this database hasn't seen, one process at a time."""
    with engine.connect() as connection:
        if _revision(connection) == NEWEST:
            return
    from alembic import command  # a third of a second to import, and needed once in a database's life
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.connect().execution_options(sqlite_immediate=True) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('truing migrations'))"))
        known = _revision(connection)
        if known == NEWEST:  # another process was faster
            return
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise UserError(f"this database is at revision {known}, which this version of Truing doesn't know", fix="pip install --upgrade truing") from error
        connection.commit()


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _clear_errors(url: str) -> Iterator[None]:
    """Turn what a user can mend (disk full, read-only, no server) into words."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig)
        if "disk is full" in reason or "No space left" in reason or "disk I/O error" in reason:
            raise UserError(f"the disk is full: nothing of this step was written to {url}", fix="free some space and type the same command again") from error
        if "readonly database" in reason or "unable to open database file" in reason:
            raise UserError(f"{url} can't be written", fix="check the folder's owner and permissions") from error
        if isinstance(error, OperationalError) and not url.startswith("sqlite") and error.connection_invalidated is False and "connect" in reason:
            raise UserError(
                f"no database answers at {url.rsplit('@', 1)[-1]}: {reason.splitlines()[0]}", fix="start the server, or mend `TRUING_DATABASE`"
            ) from error
        raise
