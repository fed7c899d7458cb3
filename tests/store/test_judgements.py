"""Which judgements stand."""

from datetime import timedelta

from stored import NOON, add_question, judgement
from truing.store.database import Database
from truing.store.judgements import batches, current_judgements
from truing.store.tables import Annotator


def test_the_last_answer_of_each_annotator_stands(database: Database) -> None:
    with database.write() as session:
        first, second = add_question(session, "one"), add_question(session, "two")
        session.add(Annotator(id="bob", name="Bob", kind="human", role="annotator", active=True, facts={}, created_at=NOON))
        session.flush()
        session.add(judgement(first, "j1"))
        session.flush()
        session.add(judgement(first, "j3", supersedes="j1", submitted_at=NOON - timedelta(hours=1)))  # the clock was set back: what it supersedes still falls
        session.add(judgement(first, "j2", annotator_id="bob", submitted_at=NOON + timedelta(seconds=1)))
        session.add(judgement(second, "j4"))
    with database.read() as session:
        assert [row.id for row in current_judgements(session, [first])] == ["j3", "j2"]
        assert [row.id for row in current_judgements(session, [second, first, first])] == ["j3", "j4", "j2"]
        assert current_judgements(session, []) == []


def test_many_questions_are_asked_for_in_batches() -> None:
    assert list(batches("abcde", 2)) == ["ab", "cd", "e"]
    assert list(batches([], 2)) == []
