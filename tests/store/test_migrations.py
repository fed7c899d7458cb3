"""The migrations lead to the tables, back again, and once, on both databases."""

import sqlite3
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, select, text

from stored import NOON, SHIPPED, add_question, judgement, new_database
from truing.errors import UserError
from truing.store import database as database_module
from truing.store.database import MIGRATIONS, NEWEST, Database, sqlite_url
from truing.store.tables import Assignment, Base, Question


@pytest.fixture(autouse=True)
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here every database is made by the migrations."""
    monkeypatch.setattr(database_module, "_bring_up_to_date", SHIPPED)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    return new_database(request.param, tmp_path, migrated=False)


def config() -> Config:
    found = Config()
    found.set_main_option("script_location", str(MIGRATIONS))
    return found


def test_newest_is_the_one_head() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [NEWEST]


def test_the_migrations_make_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_every_migration_can_be_taken_back_and_made_again(database: Database) -> None:
    with database.engine.connect() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "base")
        connection.commit()
        assert set(inspect(connection).get_table_names()) == {"alembic_version"}
        connection.rollback()
        command.upgrade(settings, "head")
        connection.commit()
    with database.write() as session:
        session.add(judgement(add_question(session), "j1"))


def test_answers_from_before_there_was_a_studio_are_counted(database: Database) -> None:
    with database.write() as session:
        answered, skipped, withdrawn = (add_question(session, words) for words in ("one", "two", "three"))
        session.add(judgement(answered, "j1"))
        session.add(judgement(skipped, "j2", answer={"skip": "?"}))
        session.add(judgement(withdrawn, "j3"))
        session.flush()
        session.add(judgement(withdrawn, "j4", answer={"skip": "?"}, supersedes="j3"))
        for question in (answered, skipped):
            session.add(Assignment(id=question, question_id=question, annotator_id="ann", order_shown=[1, 0], claimed_at=NOON, expires_at=NOON))
    with database.engine.connect() as connection:
        settings = config()
        settings.attributes["connection"] = connection
        command.downgrade(settings, "0002")
        command.upgrade(settings, "head")
        connection.commit()
    with database.read() as session:
        counted = {row.id: (row.answers, row.open) for row in session.scalars(select(Question))}
        assert counted == {answered: (1, False), skipped: (0, True), withdrawn: (0, True)}
        assert {row.answered for row in session.scalars(select(Assignment))} == {True}


def test_opening_again_keeps_the_rows(url: str) -> None:
    first = Database(url)
    with first.write() as session:
        add_question(session)
    first.close()
    again = Database(url)
    with again.read() as session:
        assert session.scalar(text("SELECT count(*) FROM question")) == 1
    again.close()


def test_four_may_open_a_new_database_at_once(url: str) -> None:
    opened: list[Database] = []
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            opened.append(Database(url))
        except BaseException as error:  # noqa: BLE001 (a thread's error would else be lost)
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for database in opened:
        database.close()


def test_a_new_file_that_someone_is_writing_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "new.db"
    other = sqlite3.connect(file, check_same_thread=False)
    other.execute("CREATE TABLE begun (x)")  # in a rollback journal, as before the first Database
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, other.rollback)
    release.start()
    Database(sqlite_url(file)).close()
    release.join()
    other.close()


def test_a_database_of_a_later_version_is_not_touched(url: str) -> None:
    database = Database(url)
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UserError, match="9999") as caught:
        Database(url)
    assert "upgrade" in caught.value.fix
    database.close()


def test_a_folder_with_a_percent_sign(tmp_path: Path) -> None:
    folder = tmp_path / "100%"
    folder.mkdir()
    Database(f"sqlite:///{folder}/truing.db").close()
