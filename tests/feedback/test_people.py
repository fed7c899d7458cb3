"""People come, change, rest and go; what they said stays."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from asked import add_set
from door import give, rows, take
from stored import NOON
from truing.artifacts import write_artifact
from truing.errors import UserError
from truing.feedback.assignment import claim, save_draft
from truing.feedback.people import add_person, remove_person, set_active, set_role
from truing.store.project import Project, record_artifact
from truing.store.tables import Annotator, Assignment, Dataset, Role, Session, SignInFailure


def person(project: Project, annotator_id: str) -> Annotator:
    with project.database.read() as session:
        return session.get_one(Annotator, annotator_id)


def test_someone_comes_in(project: Project) -> None:
    ann = add_person(project, "  Ann   Lee ", role="manager", password_hash="$argon2id$x", at=NOON)
    found = person(project, ann)
    assert (found.name, found.kind, found.role, found.active, found.password_hash, found.facts) == ("Ann Lee", "human", "manager", True, "$argon2id$x", {})


@pytest.mark.parametrize("name", ["", "  ", "a\0b", "a\ud800", "x" * 121, "a\u202eb"])
def test_a_name_is_one(project: Project, name: str) -> None:
    with pytest.raises(UserError, match="needs a name"):
        add_person(project, name, role="annotator", at=NOON)


def test_a_name_is_of_one_person(project: Project) -> None:
    for name in ("Ann", "Änne"):
        add_person(project, name, role="annotator", at=NOON)
    for name in ("ann", "Änne"):
        with pytest.raises(UserError, match="taken"):
            add_person(project, name, role="annotator", at=NOON)


def test_a_role_is_one_of_three(project: Project) -> None:
    ann = add_person(project, "Ann", role="annotator", at=NOON)
    set_role(project, ann, "manager")
    assert person(project, ann).role == Role.MANAGER
    with pytest.raises(ValueError, match="king"):
        set_role(project, ann, "king")
    with pytest.raises(UserError, match="no annotator nobody"):
        set_role(project, "nobody", "manager")


def test_the_last_owner_stays_one(project: Project) -> None:
    ann = add_person(project, "Ann", role="owner", at=NOON)
    bob = add_person(project, "Bob", role="owner", at=NOON)
    set_active(project, bob, False)  # Ann is left
    for act in (lambda: set_role(project, ann, "manager"), lambda: set_active(project, ann, False), lambda: remove_person(project, ann, at=NOON)):
        with pytest.raises(UserError, match="Ann is the only owner"):
            act()
    set_active(project, bob, True)
    set_role(project, ann, "annotator")
    with pytest.raises(UserError, match="Bob is the only owner"):
        set_active(project, bob, False)


def test_who_goes_leaves_their_answers_and_no_name(project: Project) -> None:
    add_set(project, [1, 1])
    ann = add_person(project, "Ann", role="annotator", password_hash="x", at=NOON)
    bob = add_person(project, "Bob", role="annotator", at=NOON)
    with project.database.write() as session:
        session.get_one(Annotator, ann).facts = {"PROLIFIC_PID": "5f1"}
        session.add(Session(id="s", annotator_id=ann, created_at=NOON, expires_at=NOON + timedelta(days=1)))
        session.add(Session(id="t", annotator_id=bob, created_at=NOON, expires_at=NOON + timedelta(days=1)))
        session.add(SignInFailure(id="f", account="ANN", address="127.0.0.1", at=NOON))
    give(project, take(project, ann))
    held = take(project, ann)
    save_draft(project, held.id, {"comment": "I, Ann"}, annotator_id=ann, at=NOON)
    left = remove_person(project, ann, at=NOON)
    gone = person(project, ann)
    assert left.name == gone.name
    assert len(gone.name.removeprefix("removed-")) == 8
    assert (gone.password_hash, gone.active, gone.role, gone.facts) == (None, False, "annotator", {})
    assert [row.annotator_id for row in rows(project)] == [ann]
    with project.database.read() as session:
        assert list(session.scalars(select(Session.id))) == ["t"]
        assert list(session.scalars(select(SignInFailure))) == []
        assert session.get_one(Assignment, held.id).draft is None
    assert take(project, bob).question_id == held.question_id  # what Ann held is free
    with pytest.raises(UserError, match="no active annotator"):
        claim(project, ann, at=NOON)
    add_person(project, "Ann", role="annotator", at=NOON)  # the name is free too


def test_the_datasets_that_name_someone_are_told(project: Project) -> None:
    ann = add_person(project, "Ann", role="annotator", at=NOON)
    made = []
    for version, who in ((1, ann), (2, "someone else")):
        artifact = write_artifact(project.artifacts, "dataset", partial(_write, who), facts={"version": version})
        record_artifact(project, artifact.id, artifact.manifest)
        with project.database.write() as session:
            session.add(Dataset(artifact_id=artifact.id, round_id=None, version=version, created_at=NOON))
        made.append(artifact.id)
    assert remove_person(project, ann, at=NOON).datasets == (made[0],)


def _write(who: str, folder: Path) -> None:
    (folder / "pairs.jsonl").write_text(f'{{"annotator_id": "{who}"}}\n')
