"""Inserts of many rows: what they write is what SQLAlchemy's own insert would have written."""

from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, insert, select

from stored import NOON, add_question, new_database, prompt
from truing.store.bulk import Inserts
from truing.store.database import Database
from truing.store.tables import Judgement, Prompt, Sample

SAMPLE = ("id", "prompt_id", "author", "batch", "position", "text", "token_ids", "logprobs", "finished", "temperature", "seed", "created_at")
JUDGEMENT = (
    "id", "question_id", "annotator_id", "answer", "order_shown", "started_at", "submitted_at", "active_ms", "guideline_version", "idempotency_key", "extra",
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind."""
    opened = Database(new_database(request.param, tmp_path))
    yield opened
    opened.close()


def test_rows_are_those_of_the_ordinary_insert(database: Database) -> None:
    asked = prompt("Why?")
    values: list[dict[str, Any]] = [
        {"author": "Ann", "text": "é 100 %s ?", "token_ids": [1, 2], "logprobs": b"\x00\xff", "finished": True, "temperature": 0.7, "seed": 2**62},
        {"author": None, "text": "", "token_ids": None, "logprobs": None, "finished": False, "temperature": None, "seed": None},
    ]
    assert isinstance(Sample.__table__, Table)
    with database.write() as session:
        session.add(asked)
        session.flush()
        for batch in ("ordinary", "bulk"):
            rows = [
                {"id": f"{batch}-{place}", "prompt_id": asked.id, "batch": batch, "position": place, "created_at": NOON, **value}
                for place, value in enumerate(values)
            ]
            if batch == "ordinary":
                session.execute(insert(Sample.__table__), rows)
            else:
                Inserts(session, Sample, SAMPLE).write([tuple(row[column] for column in SAMPLE) for row in rows])
    compared = [column for column in Sample.__table__.c if column.name not in ("id", "batch")]
    with database.read() as session:
        ordinary, bulk = (
            [tuple(row) for row in session.execute(select(*compared).where(Sample.batch == batch).order_by(Sample.position))] for batch in ("ordinary", "bulk")
        )
    assert bulk == ordinary
    assert len(bulk) == 2


def test_moments_of_any_zone_and_values_bound_before(database: Database) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    with database.write() as session:
        question = add_question(session)
        session.flush()
        judgements = Inserts(session, Judgement, JUDGEMENT)
        answer, order = judgements.bound("answer", {"strength": 2, "comment": "é"}), judgements.bound("order_shown", [1, 0])
        rows = [(f"j{n}", question, "ann", answer, order, elsewhere, NOON + timedelta(microseconds=n), 5, 0, f"key {n}", False) for n in range(3)]
        judgements.write(rows, ready=("answer", "order_shown"))
        judgements.write([])
    with database.read() as session:
        found = session.scalars(select(Judgement).order_by(Judgement.id)).all()
    assert [(row.answer, row.order_shown, row.started_at, row.extra) for row in found] == [({"strength": 2, "comment": "é"}, [1, 0], NOON, False)] * 3
    assert [row.submitted_at for row in found] == [NOON + timedelta(microseconds=n) for n in range(3)]


def test_a_naive_moment_is_refused(database: Database) -> None:
    with database.write() as session:
        prompts = Inserts(session, Prompt, tuple(Prompt.__table__.c.keys()))
        with pytest.raises(ValueError, match="naive time"):
            prompts.write([("p", [], "", "train", "test", {}, 0, NOON.replace(tzinfo=None))])


def test_columns_in_another_order_or_without_a_default_are_refused(database: Database) -> None:
    with database.write() as session:
        for columns in ((*JUDGEMENT[1:], JUDGEMENT[0]), JUDGEMENT[:-1]):
            with pytest.raises(ValueError, match="the columns of judgement are id, question_id"):
                Inserts(session, Judgement, columns)
