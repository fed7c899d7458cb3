"""Judgements in and out: each format round-trips what it can hold, twice is no harm, and nothing is half-imported."""

import gzip
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from stored import NOON, add_question, judgement, new_database
from truing.errors import BadRow, UserError
from truing.feedback.app_users import Told, known_user, thumb
from truing.feedback.exchange import WRITABLE, export_judgements, import_judgements
from truing.feedback.formats.pairs import Pair, read_hh, read_trl, write_hh, write_trl
from truing.store.conversations import turns_of
from truing.store.database import Database
from truing.store.ids import content_id
from truing.store.judgements import count_answers
from truing.store.project import Project, create_project, open_project
from truing.store.splits import split_of
from truing.store.tables import Annotator, Base, Guideline, Judgement, Policy, Prompt, Question, QuestionSample, QuestionSet, Round, Sample

HARMLESS = Path(__file__).parents[2].parent / "shared" / "data" / "hh_rlhf_harmless_test" / "harmless-base" / "test.jsonl.gz"
Write = Callable[..., Path]
MakeProject = Callable[[str], Project]


def hh(*said: str) -> str:
    """A transcript in which Human and Assistant take turns."""
    return "".join(f"\n\n{('Human', 'Assistant')[place % 2]}: {text}" for place, text in enumerate(said))


@pytest.fixture(params=["sqlite", "postgresql"])
def make_project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeProject]:
    """Make empty projects, on each database."""
    opened: list[Project] = []

    def make(name: str) -> Project:
        monkeypatch.setenv("TRUING_DATABASE", new_database(request.param, tmp_path))
        opened.append(open_project(create_project(tmp_path / name, settings="")))
        return opened[-1]

    yield make
    for project in opened:
        project.database.close()


@pytest.fixture
def project(make_project: MakeProject) -> Project:
    """An empty project, on each database."""
    return make_project("project")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as JSON Lines, packed if the name ends in .gz."""

    def written(name: str, *rows: Any) -> Path:
        raw = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
        (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return tmp_path / name

    return written


def rows_of(file: Path) -> list[Any]:
    raw = file.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if file.suffix == ".gz" else raw).splitlines()]


def counts(project: Project) -> dict[str, int]:
    tables: list[type[Base]] = [Prompt, Sample, QuestionSet, Guideline, Question, QuestionSample, Annotator, Judgement]
    with project.database.read() as session:
        return {table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0 for table in tables}


def preferred(project: Project) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) of every judgement, in the order of the questions."""
    found = []
    with project.database.read() as session:
        for question, answer in session.execute(select(Question, Judgement.answer).join(Judgement).order_by(Question.position)):
            a, b = session.scalars(select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == question.id).order_by(QuestionSample.position))
            chosen, rejected = (a, b) if answer["strength"] > 0 else (b, a)
            found.append((session.get_one(Prompt, question.prompt_id).text, chosen, rejected))
    return found


# ---- formats, row by row ----


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"chosen": hh("Why?", "So."), "rejected": hh("Why?", "No.")}, Pair(turns_of("Why?"), "So.", "No.")),
        ({"chosen": hh("Why?", ""), "rejected": hh("Why?", " No.\n")}, Pair(turns_of("Why?"), "", " No.\n")),
        ({"chosen": hh("Hi", "Yes?", "Why?", "So.")[2:], "rejected": hh("Hi", "Yes?", "Why?", "No.")[2:]},
         Pair([*turns_of("Hi"), {"role": "assistant", "content": "Yes?"}, *turns_of("Why?")], "So.", "No.")),
        # they part after the same words of the assistant: the prompt ends with the last shared human turn
        ({"chosen": hh("Hi", "So."), "rejected": hh("Hi", "So. Or not.")}, Pair(turns_of("Hi"), "So.", "So. Or not.")),
        # where a side goes on, people compared all of it
        ({"chosen": hh("Hi", "So.", "And?", "Yes."), "rejected": hh("Hi", "No.")}, Pair(turns_of("Hi"), "So.\n\nHuman: And?\n\nAssistant: Yes.", "No.")),
        ({"chosen": hh("Hi", "So.") + "\n\nAssistant: More.", "rejected": hh("Hi", "No.")}, Pair(turns_of("Hi"), "So.\n\nAssistant: More.", "No.")),
        ({"chosen": hh("Hi", "So.", "Who?"), "rejected": hh("Hi", "So.", "What?")}, Pair(turns_of("Hi"), "So.\n\nHuman: Who?", "So.\n\nHuman: What?")),
    ],
)  # fmt: skip
def test_hh_rows(row: dict[str, str], pair: Pair) -> None:
    assert read_hh(row) == pair


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"chosen": hh("Why?", "So.")}, "no text under rejected"),
        ({"chosen": hh("Why?", "So."), "rejected": None}, "no text under rejected"),
        (["x"], "no text under chosen"),
        ({"chosen": "So.", "rejected": "No."}, "doesn't begin with"),
        ({"chosen": hh("Why?", "So."), "rejected": hh("Who?", "No.")}, "share no beginning"),
        ({"chosen": hh("Why?"), "rejected": hh("Why?")}, "no assistant turn follows"),
        ({"chosen": hh("Why?") + "\n\nHuman: Eh?", "rejected": hh("Why?", "No.")}, "no assistant turn follows"),
        ({"chosen": hh("", "So."), "rejected": hh("", "No.")}, "a user turn is empty"),
    ],
)
def test_bad_hh_rows(row: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_hh(row)


YES, NO = [{"role": "assistant", "content": "Yes."}], [{"role": "assistant", "content": "No."}]
ASKED = turns_of("Is it?")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."},  # standard, explicit
        {"prompt": ASKED, "chosen": YES, "rejected": NO},  # conversational, explicit
        {"chosen": ASKED + YES, "rejected": ASKED + NO},  # conversational, implicit
        {"prompt": "Is it?", "chosen": YES, "rejected": NO},
        {"prompt": "Is it?", "chosen": ASKED + YES, "rejected": ASKED + NO, "score_chosen": 8.0},  # as in ultrafeedback_binarized
        {"prompt": None, "chosen": ASKED + YES, "rejected": ASKED + NO},
    ],
)
def test_trl_rows(row: dict[str, Any]) -> None:
    assert read_trl(row) == Pair(ASKED, "Yes.", "No.")


def test_an_implicit_standard_prompt_is_the_shared_beginning() -> None:
    """The example of TRL's own documentation for `extract_prompt`."""
    assert read_trl({"chosen": "The sky is blue.", "rejected": "The sky is green."}) == Pair(turns_of("The sky is"), " blue.", " green.")


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"prompt": "Is it?", "chosen": "Yes."}, "no chosen and rejected"),
        ({"prompt": "Is it?", "chosen": "Yes.", "rejected": NO}, "not both texts"),
        ({"prompt": "Is it?", "chosen": "Yes.", "rejected": None}, "not both texts"),
        ({"prompt": 7, "chosen": "Yes.", "rejected": "No."}, "found a number"),
        ({"prompt": ASKED + YES, "chosen": YES, "rejected": NO}, "ends with the assistant's turn"),
        ({"prompt": ASKED, "chosen": ASKED + YES, "rejected": NO}, "2 turns follow"),
        ({"prompt": "Who?", "chosen": ASKED + YES, "rejected": ASKED + NO}, "the prompt differs"),
        ({"chosen": "Yes.", "rejected": "No."}, "share no beginning"),
        ({"chosen": hh("Why?", "So."), "rejected": hh("Why?", "No.")}, "transcripts"),
        ({"chosen": [], "rejected": []}, "an empty list"),
    ],
)
def test_bad_trl_rows(row: Any, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_trl(row)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(lambda text: any(c.isprintable() and not c.isspace() for c in text))
plain = texts.filter(lambda text: "Human:" not in text and "Assistant:" not in text)


@given(st.lists(plain, min_size=1, max_size=5).filter(lambda said: len(said) % 2 == 1), plain, st.just("") | plain)
def test_every_pair_round_trips(said: list[str], chosen: str, rejected: str) -> None:
    pair = Pair([{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)], chosen, rejected)
    if chosen != rejected:
        assert read_hh(write_hh(pair)) == pair
        assert read_trl(write_trl(pair)) == pair


def test_what_hh_cannot_hold_is_not_written() -> None:
    with pytest.raises(UserError, match="a system turn"):
        write_hh(Pair([{"role": "system", "content": "Be brief."}, *ASKED], "Yes.", "No."))
    with pytest.raises(UserError, match="begins a paragraph"):
        write_hh(Pair(ASKED, "He said:\n\nHuman: no", "He said:\n\nHuman: no"))


# ---- into the store ----


def test_a_pair_becomes_a_prompt_two_samples_a_question_and_a_judgement(project: Project, write: Write) -> None:
    file = write("mine.jsonl.gz", {"chosen": hh("Hi", "Yes?", "Why?", "So."), "rejected": hh("Hi", "Yes?", "Why?", "No.")})
    report = import_judgements(project, file, "hh-rlhf")
    assert (report.added, report.duplicates, report.refused, report.prompts, report.samples, report.questions) == (1, 0, [], 1, 2, 1)
    with project.database.read() as session:
        prompt, question, answer = session.scalars(select(Prompt)).one(), session.scalars(select(Question)).one(), session.scalars(select(Judgement)).one()
        annotator, samples = session.scalars(select(Annotator)).one(), session.scalars(select(Sample).order_by(Sample.position)).all()
    assert (prompt.text, len(prompt.turns), prompt.source, prompt.split) == ("Why?", 3, "mine.jsonl.gz", split_of("Hi", 0.25))
    assert (annotator.kind, annotator.name) == ("human", "import:mine.jsonl.gz")
    assert [(sample.author, sample.batch, sample.position, sample.policy_id) for sample in samples] == [
        ("import:mine.jsonl.gz", "import:mine.jsonl.gz", place, None) for place in (0, 1)
    ]
    assert {sample.text for sample in samples} == {"So.", "No."}
    assert (question.kind, question.gold, question.facts["line"]) == ("pair", None, 1)
    assert answer.answer == {"strength": 2 if samples[0].text == "So." else -2}
    assert answer.submitted_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert preferred(project) == [("Why?", "So.", "No.")]


def test_the_chosen_is_not_always_a(project: Project, write: Write) -> None:
    file = write("a.jsonl", *({"prompt": f"Question {number}", "chosen": "Yes.", "rejected": "No."} for number in range(100)))
    import_judgements(project, file, "trl")
    with project.database.read() as session:
        signs = Counter(answer["strength"] for answer in session.scalars(select(Judgement.answer)))
    assert signs.keys() == {2, -2}
    assert 30 < signs[2] < 70
    assert preferred(project) == [(f"Question {number}", "Yes.", "No.") for number in range(100)]


def test_the_same_file_twice_is_no_harm(project: Project, write: Write) -> None:
    rows = [{"prompt": f"Question {number}", "chosen": "Yes.", "rejected": "No."} for number in range(700)]  # more than a chunk
    file = write("a.jsonl", *rows[:10], *rows)
    first = import_judgements(project, file, "trl")
    assert (first.added, first.duplicates) == (700, 10)
    before = counts(project)
    again = import_judgements(project, file, "trl")
    assert (again.added, again.duplicates, again.prompts, again.samples, again.questions, again.held_out) == (0, 710, 0, 0, 0, 0)
    assert counts(project) == before


def test_the_same_file_gives_the_same_ids_in_any_project(make_project: MakeProject, write: Write) -> None:
    rows = [{"prompt": f"Question {number % 7}", "chosen": f"Yes {number % 3}.", "rejected": f"No {number % 5}."} for number in range(60)]
    file = write("a.jsonl", *rows)
    ids = []
    for name in ("one", "two"):
        project = make_project(name)
        import_judgements(project, file, "trl")
        with project.database.read() as session:
            ids.append([sorted(session.scalars(select(table.id))) for table in (Prompt, Sample, Question, Annotator, Judgement)])
    assert ids[0] == ids[1]


def test_responses_that_come_again_are_the_same_samples(project: Project, write: Write) -> None:
    """Three responses compared two by two are three samples and three questions; a pair judged both ways is one question."""
    rows = [{"prompt": "Is it?", "chosen": chosen, "rejected": rejected} for chosen, rejected in (("a", "b"), ("b", "c"), ("c", "a"), ("b", "a"))]
    report = import_judgements(project, write("a.jsonl", *rows), "trl")
    assert (report.added, report.prompts, report.samples, report.questions) == (4, 1, 3, 3)
    with project.database.read() as session:
        assert sorted(session.scalars(select(Sample.position))) == [0, 1, 2]


def test_a_row_has_the_same_key_for_ever(project: Project, write: Write) -> None:
    """A file that an earlier version imported is known again by it. What is no plain strength stands in it whole."""
    rows = [
        {"prompt": "Is it?", "response_a": "Yes.", "response_b": "No.", "choice": "a", "annotator": "w", "submitted_at": "2026-01-01T12:00:00+01:00"},
        {"prompt": "Is it?", "response_a": "Yes.", "response_b": "No.", "choice": "b", "annotator": "w", "comment": '\u00e9 "so"'},
        {"prompt": "Is it?", "response_a": "Yes.", "response_b": "No.", "skip": "can't say", "annotator": "v"},
    ]
    assert import_judgements(project, write("a.jsonl", *rows), "table").added == 3
    with project.database.read() as session:
        for row in session.scalars(select(Judgement)):
            told = row.answer["strength"] if row.answer.keys() == {"strength"} else row.answer
            when = [row.submitted_at.isoformat()] if row.submitted_at.year > 1970 else []
            assert row.idempotency_key == content_id("import", row.question_id, row.annotator_id, told, *when)
            assert UUID(row.id).version == 7


def test_votes_that_come_again_later_in_the_file_are_known(project: Project, write: Write) -> None:
    """Beyond the rows that are taken in at once, and beyond the samples that are kept at hand."""
    rows = [
        {"prompt": f"Question {n}", "response_a": f"Yes {n}.", "response_b": "No.", "choice": "a", "annotator": worker}
        for worker in ("v", "w", "v")
        for n in range(30)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("truing.feedback.imports.CHUNK", 7)
        patch.setattr("truing.feedback.imports.REMEMBERED", 10)
        report = import_judgements(project, write("a.jsonl", *rows), "table")
    assert (report.added, report.duplicates, report.prompts, report.samples, report.questions, report.annotators) == (60, 30, 30, 60, 30, 2)
    with project.database.read() as session:
        assert set(map(tuple, session.execute(select(Question.answers, Question.open)))) == {(2, False)}


def test_a_key_that_belongs_to_something_else_is_said_and_nothing_comes_in(project: Project, write: Write) -> None:
    file = write("a.jsonl", *({"prompt": f"Question {n}", "chosen": "Yes.", "rejected": "No."} for n in range(3)))
    import_judgements(project, file, "trl")
    with project.database.read() as session:
        key = session.scalars(select(Judgement.idempotency_key).join(Question).order_by(Question.position)).all()[1]
    fresh = write("b.jsonl", {"prompt": "New", "chosen": "Yes.", "rejected": "No."}, {"prompt": "Newer", "chosen": "Yes.", "rejected": "No."})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("truing.feedback.imports.content_id_of_json", lambda parts: key)
        before = counts(project)
        with pytest.raises(UserError, match=r"lines 1 to 2 of b.jsonl clashes with what the project has") as caught:
            import_judgements(project, fresh, "trl")
    assert caught.value.fix
    assert counts(project) == before


def test_a_second_file_stands_beside_the_first(project: Project, write: Write) -> None:
    row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
    import_judgements(project, write("a.jsonl", row), "trl")
    report = import_judgements(project, write("b.jsonl", row), "trl")
    assert (report.added, report.prompts, report.samples, report.questions) == (1, 0, 2, 1)
    named = import_judgements(project, write("c.jsonl", row), "trl", name="a.jsonl")
    assert (named.added, named.duplicates) == (0, 1)


def test_a_bad_row_is_named_and_the_others_come_in(project: Project, write: Write) -> None:
    row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
    file = write("a.jsonl", row, {**row, "rejected": "Yes."}, "{", {**row, "prompt": "x\x00"}, {**row, "prompt": "And?"})
    report = import_judgements(project, file, "trl")
    assert report.added == 2
    assert [refused.line for refused in report.refused] == [2, 3, 4]
    assert "same text" in report.refused[0].reason


def test_strict_is_all_or_nothing(project: Project, write: Write) -> None:
    row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
    with pytest.raises(UserError, match=r"1 rows can't be used, so nothing was imported. The first: a.jsonl, line 2"):
        import_judgements(project, write("a.jsonl", row, {}), "trl", strict=True)
    assert not any(counts(project).values())


def test_a_file_that_breaks_off_leaves_nothing(project: Project, write: Write) -> None:
    file = write("a.jsonl.gz", *({"prompt": f"Question {random.random()}", "chosen": "Yes.", "rejected": "No."} for _ in range(2000)))
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged"):
        import_judgements(project, file, "trl")
    assert not any(counts(project).values())


def test_a_file_without_a_usable_row(project: Project, write: Write) -> None:
    with pytest.raises(UserError, match="2 rows can't be used"):
        import_judgements(project, write("a.jsonl", {}, {}), "hh-rlhf")
    with pytest.raises(UserError, match="has no rows"):
        import_judgements(project, write("a.jsonl"), "hh-rlhf")
    with pytest.raises(UserError, match="there is no format 'hh'"):
        import_judgements(project, write("a.jsonl"), "hh")
    with pytest.raises(UserError, match="there is no format 'hh'"):
        export_judgements(project, "hh", project.root / "out.jsonl")
    assert not any(counts(project).values())


def test_a_long_file_name(project: Project, write: Write) -> None:
    row = {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No."}
    for end in ("a", "b"):
        assert import_judgements(project, write("long" * 50 + f"{end}.jsonl", row), "trl").added == 1
    with project.database.read() as session:
        assert all(len(batch) <= 80 for batch in session.scalars(select(Sample.batch)))
        assert len(session.scalars(select(Annotator.name)).all()) == 2


# ---- out of the store ----


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
@pytest.mark.parametrize("format", ["hh-rlhf", "trl"])
def test_what_came_in_goes_out(project: Project, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, name: str) -> None:
    pairs = [Pair([*turns_of(f"Question {n}"), {"role": "assistant", "content": "Well?"}, *turns_of("Now")], f"Yes {n}.", f"No {n}. ") for n in range(20)]
    rows = [{"hh-rlhf": write_hh, "trl": write_trl}[format](pair) for pair in pairs]
    import_judgements(project, write("a.jsonl", *rows), format)
    report = export_judgements(project, format, tmp_path / name)
    assert (report.written, report.dropped) == (20, {})
    assert rows_of(tmp_path / name) == rows
    first = (tmp_path / name).read_bytes()
    monkeypatch.setattr("gzip.time.time", lambda: 0.0)  # another day
    export_judgements(project, format, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def many_answers(database: Database) -> None:
    """One preference that counts and one of everything that isn't a preference."""
    with database.write() as session:
        answers: list[dict[str, Any]] = [{"strength": -3, "comment": "é"}, {"strength": 0}, {"both_bad": True}, {"skip": "can't judge"}]
        for number, answer in enumerate(answers):
            session.add(judgement(add_question(session, f"Question {number}"), f"j{number}", answer=answer))
        check = add_question(session, "Check")
        session.get_one(Question, check).gold = {"better": 0}
        changed = add_question(session, "Changed")
        session.add_all([judgement(check, "check"), judgement(changed, "x-old")])
        session.flush()
        session.add(judgement(changed, "a-new", supersedes="x-old", answer={"strength": 1}, submitted_at=NOON + timedelta(seconds=5)))
        thumbs = add_question(session, "Thumbs")
        session.get_one(Question, thumbs).kind = "thumbs"
        session.add(judgement(thumbs, "thumbs", answer={"up": True}, extra=True))


def ask_again(database: Database) -> None:
    """Ann is asked a question that she answered once more, and says otherwise."""
    with database.write() as session:
        first = session.scalars(select(Judgement).where(Judgement.id == "j0")).one()
        question = session.get_one(Question, first.question_id)
        again = Question(
            id="again", kind="pair", prompt_id=question.prompt_id, repeat_of=question.id, only_for="ann", overlap=1, position=0, facts={}, created_at=NOON
        )  # fmt: skip
        session.add(again)
        session.flush()
        places = session.scalars(select(QuestionSample).where(QuestionSample.question_id == question.id)).all()
        session.add_all(QuestionSample(question_id="again", position=place.position, sample_id=place.sample_id) for place in places)
        session.add(judgement("again", "j0-again", answer={"strength": 2}, submitted_at=NOON + timedelta(hours=1)))


def test_what_is_no_preference_is_dropped_and_counted(project: Project, tmp_path: Path) -> None:
    many_answers(project.database)
    report = export_judgements(project, "trl", tmp_path / "out.jsonl")
    assert report.dropped == {"both bad": 1, "check question": 1, "skip": 1, "superseded": 1, "thumbs question": 1, "tie": 1}
    assert report.written == 2
    found = {row["prompt"][0]["content"]: (row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows_of(tmp_path / "out.jsonl")}
    assert found == {"Question 0": ("answer 1", "answer 0"), "Changed": ("answer 0", "answer 1")}


@pytest.mark.parametrize("format", [name for name in WRITABLE if name != "native"])
def test_what_was_asked_again_is_left_out_and_counted(project: Project, tmp_path: Path, format: str) -> None:
    many_answers(project.database)
    before = export_judgements(project, format, tmp_path / "before")
    ask_again(project.database)
    report = export_judgements(project, format, tmp_path / "after")
    assert report == (before.written, before.dropped | {"asked again": 1})
    assert (tmp_path / "after").read_bytes() == (tmp_path / "before").read_bytes()


def test_the_log_keeps_what_was_asked_again(project: Project, tmp_path: Path) -> None:
    many_answers(project.database)
    ask_again(project.database)
    assert export_judgements(project, "native", tmp_path / "log.jsonl") == (9, {})
    assert "j0-again" in {row["id"] for row in rows_of(tmp_path / "log.jsonl") if row["event"] == "judgement"}


def test_an_export_that_fails_leaves_the_old_file(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many_answers(project.database)
    (tmp_path / "out.jsonl").write_text("old", encoding="utf-8")

    def fail(*arguments: object, **named: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("truing.feedback.exchange._encode", fail)
    with pytest.raises(KeyboardInterrupt):
        export_judgements(project, "trl", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []
    with pytest.raises(UserError, match="can't be written"):
        export_judgements(project, "trl", tmp_path / "nowhere" / "out.jsonl")


# ---- at the same time as others ----


@pytest.mark.parametrize("met", [False, True], ids=["new user", "known user"])
@pytest.mark.parametrize("format", ["trl", "native"])
def test_an_import_and_an_answer_from_an_app_wait_for_no_more_than_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, format: str, met: bool
) -> None:
    """While the import is on its way someone who uses an app says something: both are kept, in whatever order they ask the server for its tables."""
    places = {}
    for name, kind in (("source", "sqlite"), ("target", "postgresql")):
        monkeypatch.setenv("TRUING_DATABASE", new_database(kind, tmp_path))
        places[name] = open_project(create_project(tmp_path / name, settings=""))
    file = write("file.jsonl", {"prompt": "New?", "chosen": "Yes.", "rejected": "No."})
    if format == "native":
        import_judgements(places["source"], file, "trl")
        say(places["source"], "someone", "elsewhere")
        export_judgements(places["source"], "native", file)
    target = places["target"]
    import_judgements(target, write("first.jsonl", {"prompt": "Old?", "chosen": "Yes.", "rejected": "No."}), "trl")
    if met:
        say(target, "ana", "a set from before")
    before = counts(target)["judgement"]
    with ThreadPoolExecutor(2) as threads:
        with target.database.engine.begin() as held:  # the import gets as far as its prompts, and the answer as far as it can, before either goes on
            held.execute(text("LOCK TABLE prompt IN SHARE MODE"))
            importing = threads.submit(import_judgements, target, file, format)
            wait_for(target, 1)
            answering = threads.submit(say, target, "ana", "thumbs")
            wait_for(target, 2)
        assert importing.result(60).added == (2 if format == "native" else 1)
        answering.result(60)
    assert counts(target)["judgement"] == before + importing.result().added + 1
    for project in places.values():
        project.database.close()


def say(project: Project, user: str, set_name: str) -> None:
    """A thumb up from somebody who uses an app, about the project's first sample."""
    at = datetime.now(UTC)
    with project.database.write() as session:
        sample = session.scalars(select(Sample.id).order_by(Sample.id)).first()
        assert sample is not None
        thumb(session, sample, known_user(session, b"salt", user, at), Told({"up": True}, [0], f"{user} {set_name}", None, 0), set_name=set_name, at=at)


def wait_for(project: Project, n: int) -> None:
    """Until so many transactions wait for a table."""
    with project.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as looking:
        for _ in range(600):
            if looking.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'relation'")) == n:
                return
            time.sleep(0.05)
    raise AssertionError(f"no {n} transactions wait")


# ---- the log ----


def fill(project: Project) -> None:
    """Something in every table and column of the log."""
    many_answers(project.database)
    with project.database.write() as session:
        session.add_all(
            Policy(id=name, model="tiny", artifact_id=None, parent_id=parent, created_at=NOON) for name, parent in (("base", None), ("a-tuned", "base"))
        )
        session.flush()
        first = Round(number=1, parent_id=None, seed=2**62, made={"dataset": "dataset-1"}, created_at=NOON, sealed_at=NOON)
        session.add(first)
        session.flush()
        session.add(Round(number=2, parent_id=first.id, seed=3, made={}, created_at=NOON, sealed_at=None))
        for number, sample in enumerate(session.scalars(select(Sample).order_by(Sample.id))):
            sample.policy_id, sample.author = ("a-tuned", None) if number % 2 else (None, "Ann")
            sample.token_ids, sample.logprobs, sample.base_logprob, sample.temperature, sample.seed = [1, 2], b"\x00\xff", -1.2345678901234567, 0.7, 2**62
        for number, question in enumerate(session.scalars(select(Question).order_by(Question.id))):
            question.position, question.round_id = number, first.id if number % 2 else None
        session.add(QuestionSet(id="warm", name="Warm", kind="pair", round_id=first.id, state="paused", rules={"overlap": 2}, position=0, created_at=NOON))
        session.flush()
        session.add_all(Guideline(set_id="warm", version=version, text=f"Be *{version}*", created_at=NOON) for version in (1, 2))
        asked = session.scalars(select(Question).order_by(Question.id)).all()
        asked[0].set_id, asked[0].repeat_of, asked[0].only_for = "warm", asked[1].id, "ann"  # the one that it repeats comes later in the order of ids
        count_answers(session, [question.id for question in asked])
        annotator = session.get_one(Annotator, "ann")
        annotator.role, annotator.password_hash, annotator.facts = "owner", "secret hash", {"vice": {"side": 0.25}}


def test_the_log_round_trips_byte_for_byte(make_project: MakeProject, tmp_path: Path) -> None:
    source, target = make_project("source"), make_project("target")
    fill(source)
    report = export_judgements(source, "native", tmp_path / "log.jsonl")
    assert report == (8, {})
    imported = import_judgements(target, tmp_path / "log.jsonl", "native")
    assert (imported.added, imported.duplicates, imported.prompts, imported.samples, imported.questions) == (8, 0, 7, 14, 7)
    export_judgements(target, "native", tmp_path / "again.jsonl.gz")
    assert gzip.decompress((tmp_path / "again.jsonl.gz").read_bytes()) == (tmp_path / "log.jsonl").read_bytes()
    assert counts(target) == counts(source)
    answered = []
    for project in (source, target):
        with project.database.read() as session:
            answered.append(session.execute(select(Question.id, Question.answers, Question.open).order_by(Question.id)).all())
    assert answered[0] == answered[1]
    assert {row.answers for row in answered[0]} == {0, 1}  # a skip and an extra are no answers


@pytest.mark.slow
def test_the_log_is_the_same_on_both_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = []
    for kind in ("sqlite", "postgresql"):
        monkeypatch.setenv("TRUING_DATABASE", new_database(kind, tmp_path))
        opened = open_project(create_project(tmp_path / kind, settings=""))
        fill(opened)
        export_judgements(opened, "native", tmp_path / kind / "log.jsonl")
        opened.database.close()
        logs.append((tmp_path / kind / "log.jsonl").read_bytes())
    assert logs[0] == logs[1]


def test_the_log_keeps_what_is_the_studio_s_to_itself(project: Project, make_project: MakeProject, tmp_path: Path) -> None:
    fill(project)
    export_judgements(project, "native", tmp_path / "log.jsonl")
    assert b"secret" not in (tmp_path / "log.jsonl").read_bytes()
    assert b"owner" not in (tmp_path / "log.jsonl").read_bytes()
    target = make_project("target")
    import_judgements(target, tmp_path / "log.jsonl", "native")
    with target.database.read() as session:
        annotator = session.get_one(Annotator, "ann")
        assert (annotator.role, annotator.password_hash) == ("annotator", None)
        assert [(this.number, this.made) for this in session.scalars(select(Round).order_by(Round.number))] == [(1, {}), (2, {})]


def test_the_log_twice_is_no_harm(project: Project, tmp_path: Path) -> None:
    fill(project)
    export_judgements(project, "native", tmp_path / "log.jsonl")
    before = counts(project)
    report = import_judgements(project, tmp_path / "log.jsonl", "native")
    assert (report.added, report.duplicates, report.prompts) == (0, 8, 0)
    assert counts(project) == before


@pytest.fixture(scope="module")
def a_log(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The rows of a whole log."""
    folder = tmp_path_factory.mktemp("log")
    project = open_project(create_project(folder / "project", settings=""))
    fill(project)
    export_judgements(project, "native", folder / "log.jsonl")
    project.database.close()
    return rows_of(folder / "log.jsonl")


def change(event: str, /, **changes: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Change the last event of a kind."""

    def changed(rows: list[dict[str, Any]]) -> None:
        [row for row in rows if row["event"] == event][-1].update(changes)

    return changed


def drop(event: str) -> Callable[[list[dict[str, Any]]], None]:
    def dropped(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["event"] != event]

    return dropped


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda rows: rows.pop(0), "not the first line of a log"),
        (change("log", version=1), "not the first line of a log"),
        (change("prompt", event="prumpt"), "not an event"),
        (lambda rows: rows.append({"event": ["prompt"]}), "not an event"),
        (lambda rows: rows.append([1]), "not an event"),
        (lambda rows: rows[-1].pop("answer"), "has other keys"),
        (change("judgement", more=1), "has other keys"),
        (change("prompt", text="another"), "doesn't fit its turns"),
        (change("prompt", turns=turns_of("another")), "doesn't fit its turns"),
        (change("prompt", split="test"), "use one of train, held-out"),
        (change("prompt", position=2**31), "position is"),
        (change("prompt", position=True), "position is"),
        (change("prompt", created_at="2026-01-01T00:00:00"), "created_at is"),
        (change("prompt", created_at="soon"), "created_at is"),
        (change("prompt", facts=[]), "facts is"),
        (change("prompt", source=None), "source is"),
        (change("sample", logprobs="*"), "logprobs is"),
        (change("sample", finished=1), "finished is"),
        (change("sample", base_logprob="x"), "base_logprob is"),
        (change("sample", id="x" * 33), "id is"),
        (change("sample", prompt_id="nothing"), "prompt_id is nothing, which is neither above"),
        (change("sample", policy_id="nothing"), "policy_id is nothing, which is neither above"),
        (change("question", samples=["nothing"]), "a sample of the question is unknown"),
        (change("question", samples=[]), "has no samples"),
        (change("question", kind="poll"), "use one of pair"),
        (change("question", round=7), "round is 7"),
        (change("question", round="1"), "round is of the wrong type"),
        (change("annotator", kind="alien"), "use one of human"),
        (change("set", state="asleep"), "use one of open, paused, archived"),
        (change("set", kind="poll"), "use one of pair"),
        (change("set", round=7), "round is 7"),
        (change("guideline", set_id="nothing"), "set_id is nothing, which is neither above"),
        (change("guideline", version=1), "with another text"),
        (change("question", set_id="nothing"), "set_id is nothing, which is neither above"),
        (change("question", only_for="nothing"), "only_for is nothing, which is neither above"),
        (change("question", repeat_of="nothing"), "repeat_of is nothing, which is neither above"),
        (change("judgement", extra=1), "extra is"),
        (change("judgement", annotator_id="nothing"), "annotator_id is nothing"),
        (change("judgement", question_id="nothing"), "question_id is nothing"),
        (change("judgement", supersedes="nothing"), "supersedes is nothing"),
        (change("judgement", supersedes="j1"), "supersedes another annotator's judgement, or one on another question"),
        (change("judgement", answer={"strength": 9}), "no answer to a pair question"),
        (change("judgement", order_shown=[0, 0]), "no order of the question's samples"),
        (change("judgement", idempotency_key="j0"), "clashes with"),
        (drop("annotator"), "only_for is ann"),
        (drop("round"), "round is 1"),
        (lambda rows: rows.append({**rows[-1], "active_ms": 5}), "with another active_ms"),
    ],
)
def test_a_log_that_was_changed_is_refused_whole(
    a_log: list[dict[str, Any]], tmp_path: Path, write: Write, harm: Callable[[list[Any]], object], what: str
) -> None:
    rows = json.loads(json.dumps(a_log))
    harm(rows)
    project = open_project(create_project(tmp_path / "project", settings=""))
    with pytest.raises(BadRow, match=what) as caught:
        import_judgements(project, write("harmed.jsonl", *rows), "native")
    assert caught.value.fix
    assert not any(counts(project).values())
    project.database.close()


def test_a_log_that_says_otherwise_than_the_store_is_refused(project: Project, write: Write, tmp_path: Path) -> None:
    fill(project)
    export_judgements(project, "native", tmp_path / "log.jsonl")
    rows = rows_of(tmp_path / "log.jsonl")
    change("judgement", answer={"strength": -2})(rows)
    with pytest.raises(BadRow, match=r"has this judgement .* with another answer"):
        import_judgements(project, write("other.jsonl", *rows), "native")


# ---- real data ----


@pytest.mark.slow
@pytest.mark.skipif(not HARMLESS.exists(), reason=f"the hh-rlhf test file is not at {HARMLESS}")
def test_the_real_hh_file(project: Project, tmp_path: Path) -> None:
    report = import_judgements(project, HARMLESS, "hh-rlhf")
    assert report.added == report.questions == 2312
    assert report.refused == []
    assert 0.22 < report.held_out / report.prompts < 0.28
    again = import_judgements(project, HARMLESS, "hh-rlhf")
    assert (again.added, again.duplicates) == (0, 2312)
    with project.database.read() as session:
        chosen_is_a = sum(answer["strength"] > 0 for answer in session.scalars(select(Judgement.answer)))
    assert 0.45 < chosen_is_a / 2312 < 0.55
    assert export_judgements(project, "hh-rlhf", tmp_path / "out.jsonl.gz") == (2312, {})
    assert rows_of(tmp_path / "out.jsonl.gz") == rows_of(HARMLESS)
