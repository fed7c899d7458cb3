"""What is imitated: what people wrote or preferred; never what they liked less, nor what was damaged for a check question."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from asked import add_people, add_question_to, add_set
from stored import judgement
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.demonstrations import demonstrations
from truing.feedback.exchange import import_judgements
from truing.store.project import Project
from truing.store.tables import Question, QuestionSample, Sample


def written(project: Project) -> set[str]:
    with project.database.read() as session:
        return {one.text for one in demonstrations(session)}


def imported(project: Project, folder: Path, format: str, *rows: dict[str, Any]) -> set[str]:
    """What there is to imitate once a file of these rows was imported."""
    file = folder / "file.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_judgements(project, file, format)
    return written(project)


def asked(project: Project, kind: str, n: int, answers: dict[str, dict[str, Any]], *, author: str | None = "writer") -> list[str]:
    """A question whose samples have this author, answered by these people; gives the samples' texts, each with the question's own mark."""
    add_people(project, *(name for name in answers))
    add_set(project, [], kind=kind, name=kind)
    with project.database.write() as session:
        question = add_question_to(session, kind, 0, 9, kind, n)
        samples = list(session.scalars(select(Sample).join(QuestionSample).where(QuestionSample.question_id == question).order_by(QuestionSample.position)))
        for place, sample in enumerate(samples):
            sample.author, sample.text = author, f"{kind} {place}"
        for name, answer in answers.items():
            session.add(judgement(question, f"{name}-{kind}", annotator_id=name.lower(), answer=answer))
    return [f"{kind} {place}" for place in range(n)]


def test_of_an_imported_pair_the_chosen_one_alone(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": f"{place}?", "chosen": f"good {place}", "rejected": f"bad {place}"} for place in range(3)]
    assert imported(project, tmp_path, "trl", *rows) == {"good 0", "good 1", "good 2"}


def test_of_imported_thumbs_those_that_are_up(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "completion": "fine", "label": True}, {"prompt": "b?", "completion": "no", "label": False}]
    assert imported(project, tmp_path, "trl-unpaired", *rows) == {"fine"}


def test_an_imported_answer_of_a_named_model_is_a_models(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "response_a": "one", "response_b": "two", "model_a": "m", "model_b": "n", "choice": "a"}]
    assert imported(project, tmp_path, "table", *rows) == set()


def test_an_imported_rating_says_not_where_liking_begins(project: Project, tmp_path: Path) -> None:
    assert imported(project, tmp_path, "table", {"prompt": "a?", "response": "so-so", "rating": 5}) == set()


def test_an_imported_edit_is_imitated_and_what_it_mended_is_not(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": "a?", "response": "rough", "edit": "smooth"}, {"prompt": "b?", "response": "well", "edit": "well"}]
    assert imported(project, tmp_path, "table", *rows) == {"smooth"}


@pytest.mark.parametrize(
    ("kind", "answers", "liked"),
    [
        ("pair", {}, {0, 1}),  # nobody liked them less
        ("pair", {"Ann": {"strength": 2}}, {0}),
        ("pair", {"Ann": {"strength": 1}, "Bob": {"strength": -3}}, {0, 1}),
        ("pair", {"Ann": {"strength": 0}}, {0, 1}),
        ("pair", {"Ann": {"both_bad": True}}, set()),
        ("pair", {"Ann": {"skip": "unclear"}}, {0, 1}),
        ("ranking", {"Ann": {"ranks": [1, 2, 3]}}, {0, 1}),  # the middle one beat one and lost to one
        ("ranking", {"Ann": {"ranks": [2, 1, 1]}}, {1, 2}),
        ("thumbs", {"Ann": {"up": False}}, set()),
        ("rating", {"Ann": {"aspects": {"overall": 1}}}, {0}),
    ],
)
def test_what_people_wrote_counts_unless_it_was_liked_less(project: Project, kind: str, answers: dict[str, dict[str, Any]], liked: set[int]) -> None:
    n = {"pair": 2, "ranking": 3}.get(kind, 1)
    texts = asked(project, kind, n, answers)
    assert written(project) == {texts[place] for place in liked}


@pytest.mark.parametrize("author", [None, CHECK_AUTHOR])
def test_what_models_wrote_or_a_check_damaged_never_counts(project: Project, author: str | None) -> None:
    asked(project, "pair", 2, {"Ann": {"strength": 2}}, author=author)
    assert written(project) == set()


def test_an_edit_counts_as_it_stands_now(project: Project) -> None:
    asked(project, "edit", 1, {"Ann": {"text": "first"}}, author=None)
    with project.database.write() as session:
        question = session.scalars(select(Question.id)).one()
        session.add(judgement(question, "again", annotator_id="ann", answer={"text": "second"}, supersedes="Ann-edit"))
    assert written(project) == {"second"}


def test_each_comes_once_in_order_with_its_prompt(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": name, "chosen": text, "rejected": "x"} for name, text in (("b?", "two"), ("a?", "one"), ("b?", "two"))]
    imported(project, tmp_path, "trl", *rows)
    with project.database.read() as session:
        found = demonstrations(session)
    assert sorted((one.turns[-1]["content"], one.text) for one in found) == [("a?", "one"), ("b?", "two")]
    assert [one.prompt_id for one in found] == sorted(one.prompt_id for one in found)
