"""What the store promises: all of a write or none of it, no lost writes, judgements for ever, and words for what a person can mend."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import Session

from stored import NOON, add_question, judgement, new_database, prompt
from truing.errors import UserError
from truing.store.database import Database, hold, sqlite_url
from truing.store.tables import Judgement, Prompt, Question, Round


def numbered(session: Session) -> list[str]:
    return list(session.scalars(select(Prompt.text).order_by(Prompt.text)))


def test_a_write_is_kept_and_a_read_keeps_nothing(database: Database) -> None:
    with database.write() as session:
        session.add(prompt("one"))
    with database.read() as session:
        session.add(prompt("two"))
        session.flush()
    with database.read() as session:
        assert numbered(session) == ["one"]


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    def write(session: Session) -> None:
        session.add(prompt("one"))
        session.flush()
        raise ZeroDivisionError

    def write_twice(session: Session) -> None:
        session.add(prompt("two"))
        session.flush()
        session.add(prompt("two", source="another"))

    with pytest.raises(ZeroDivisionError), database.write() as session:
        write(session)
    with pytest.raises(IntegrityError), database.write() as session:
        write_twice(session)
    with database.read() as session:
        assert numbered(session) == []


def test_a_commit_that_fails_leaves_nothing_and_holds_nothing(database: Database) -> None:
    with database.write() as session:
        session.execute(text("CREATE TABLE child (parent VARCHAR(32) REFERENCES prompt (id) DEFERRABLE INITIALLY DEFERRED)"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.execute(text("INSERT INTO child VALUES ('nobody')"))
    with database.write() as session:
        session.add(prompt("one"))
    with pytest.raises(IntegrityError), database.write_together() as session:
        session.execute(text("INSERT INTO child VALUES ('nobody')"))
    with database.write_together() as session:
        session.add(prompt("two"))
    with database.read() as session:
        assert numbered(session) == ["one", "two"]
        assert session.scalar(text("SELECT count(*) FROM child")) == 0


def test_a_row_cannot_name_what_is_not_there(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(judgement("no such question", "j1"))


def test_two_writers_lose_nothing(database: Database) -> None:
    failures: list[BaseException] = []

    def write(who: str) -> None:
        try:
            for number in range(25):
                with database.write() as session:
                    before = session.scalar(select(func.count()).select_from(Prompt))  # read, then write: what deadlocks a deferred SQLite transaction
                    session.add(prompt(f"{who} {number:02} {before}"))
        except BaseException as error:  # noqa: BLE001 (a thread's error would else be lost)
            failures.append(error)

    threads = [threading.Thread(target=write, args=(who,)) for who in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Prompt)) == 50


def test_a_held_table_has_one_writer(database: Database) -> None:
    """Two threads read a number and add one to it; with the table held, no addition is lost."""
    with database.write() as session:
        session.add(Round(number=1, parent_id=None, seed=0, made={"count": 0}, created_at=NOON, sealed_at=None))

    def add() -> None:
        for _ in range(20):
            with database.write() as session:
                hold(session, Round)
                this = session.scalars(select(Round)).one()
                this.made = {"count": this.made["count"] + 1}

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert session.scalars(select(Round.made)).one() == {"count": 40}


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session.execute(update(Judgement).values(active_ms=0)),
        lambda session: session.execute(delete(Judgement)),
        lambda session: session.execute(text("UPDATE judgement SET answer = '{}'")),
        lambda session: session.execute(text("DELETE FROM judgement WHERE id = 'j1'")),
        lambda session: setattr(session.get_one(Judgement, "j1"), "answer", {"strength": -3}),
        lambda session: session.delete(session.get_one(Judgement, "j1")),
    ],
)
def test_a_judgement_is_never_changed_or_deleted(database: Database, change: Callable[[Session], object]) -> None:
    with database.write() as session:
        session.add(judgement(add_question(session), "j1"))
    with pytest.raises(DBAPIError, match="never changed or deleted"), database.write() as session:
        change(session)
    with database.read() as session:
        assert session.get_one(Judgement, "j1").answer == {"strength": 2}


def test_a_judgement_is_not_replaced_or_truncated(database: Database) -> None:
    """The two ways around a row trigger."""
    with database.write() as session:
        session.add(judgement(add_question(session), "j1"))
    if database.engine.dialect.name == "sqlite":
        around = "INSERT OR REPLACE INTO judgement SELECT id, question_id, annotator_id, '{}', order_shown, started_at, submitted_at, active_ms, \
            guideline_version, idempotency_key, supersedes, extra FROM judgement"
    else:
        around = "TRUNCATE judgement"
    with pytest.raises(DBAPIError, match="never changed or deleted"), database.write() as session:
        session.execute(text(around))
    with database.read() as session:
        assert session.get_one(Judgement, "j1").answer == {"strength": 2}


def test_a_change_of_mind_is_a_new_row_and_each_is_superseded_once(database: Database) -> None:
    with database.write() as session:
        question = add_question(session)
        session.add(judgement(question, "j1"))
        session.flush()
        session.add(judgement(question, "j2", supersedes="j1", answer={"strength": -1}))
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(judgement(question, "j3", supersedes="j1"))
    with database.read() as session:
        assert session.scalars(select(Judgement.answer).order_by(Judgement.id)).all() == [{"strength": 2}, {"strength": -1}]


def test_an_answer_sent_twice_is_one_row(database: Database) -> None:
    with database.write() as session:
        question = add_question(session)
        session.add(judgement(question, "j1"))
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(judgement(question, "j2", idempotency_key="j1"))


def test_no_gold_is_null(database: Database) -> None:
    """`gold.is_(None)` finds a question that is no check question: None isn't stored as JSON's null."""
    with database.write() as session:
        add_question(session)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Question).where(Question.gold.is_(None))) == 1


def test_times_come_back_in_utc_and_naive_ones_are_refused(database: Database) -> None:
    with database.write() as session:
        session.add(prompt("one"))
    with database.read() as session:
        assert session.scalars(select(Prompt.created_at)).one() == NOON
        assert str(session.scalars(select(Prompt.created_at)).one().tzinfo) == "UTC"
    with pytest.raises(StatementError, match="naive time"), database.write() as session:
        session.add(prompt("two", created_at=datetime(2026, 1, 1)))


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """A process writes, says so after each commit, and is killed in the midst of the next write."""
    url = sqlite_url(tmp_path / "truing.db")
    Database(url).close()
    script = """
import sys
sys.path.insert(0, sys.argv[2])
from stored import prompt
from truing.store.database import Database
database = Database(sys.argv[1])
for number in range(10_000):
    with database.write() as session:
        session.add(prompt(f"{number:05} first"))
        session.flush()
        session.add(prompt(f"{number:05} second"))
    print(number, flush=True)
"""
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", script, url, tests], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(30)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout]
    database = Database(url)
    with database.read() as session:
        found = numbered(session)
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
    database.close()
    assert {f"{number:05} {half}" for number in acknowledged for half in ("first", "second")} <= set(found)
    assert len(found) % 2 == 0  # no half of a write


def test_a_full_disk_is_said_in_words(full_soon: Path) -> None:
    database = Database(sqlite_url(full_soon / "truing.db"))
    with database.write() as session:
        session.add(prompt("small"))
    with pytest.raises(UserError, match="disk is full") as caught, database.write() as session:
        session.add_all(prompt(f"{number} " + "large " * 2000) for number in range(500))
    assert "free some space" in caught.value.fix
    with database.read() as session:
        assert numbered(session) == ["small"]
    with database.write() as session:  # and the store goes on without a restart
        session.add(prompt("another"))
    database.close()


def test_a_folder_that_is_not_there_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be written"):
        Database(sqlite_url(tmp_path / "nowhere" / "truing.db"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only file")
def test_a_read_only_file_is_said_in_words(tmp_path: Path) -> None:
    Database(sqlite_url(tmp_path / "truing.db")).close()
    (tmp_path / "truing.db").chmod(0o444)
    database = Database(sqlite_url(tmp_path / "truing.db"))
    with pytest.raises(UserError, match="can't be written"), database.write() as session:
        session.add(prompt("one"))


def test_a_server_that_is_away_is_said_in_words_without_the_password() -> None:
    with pytest.raises(UserError, match="no database answers") as caught:
        Database("postgresql://ann:secret@127.0.0.1:1/truing")
    assert "secret" not in str(caught.value)
    assert "TRUING_DATABASE" in caught.value.fix


def test_the_url_that_may_be_shown_has_no_password(tmp_path: Path) -> None:
    database = Database(new_database("postgresql", tmp_path).replace("postgres:@", "postgres:secret@"))  # the test's server asks for none
    database.close()
    assert "secret" not in database.url
    assert "postgres" in database.url


def test_a_wrong_url_is_said_in_words() -> None:
    with pytest.raises(UserError, match="not a database's URL"):
        Database("the big one")
