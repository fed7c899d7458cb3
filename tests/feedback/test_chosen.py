"""What files prefer: every notation of chosen and rejected, every kind of answer, subsets, parquet; bad rows with line and remedy, ties by name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import select

from stored import NOON, judgement
from truing.errors import UserError
from truing.feedback.chosen import Chosen, FileRead, read_chosen
from truing.feedback.exchange import export_judgements, import_judgements
from truing.store.project import Project
from truing.store.tables import Judgement, Question, QuestionSample

ASKED = [{"role": "user", "content": "Name a bird."}]
RIGHT = Chosen(ASKED, "A wren.", ("A bus.",), "file")
WREN, BUS = [{"role": "assistant", "content": "A wren."}], [{"role": "assistant", "content": "A bus."}]


def lines(folder: Path, *rows: Any, name: str = "file.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path, *rows: Any, format: str = "auto") -> FileRead:
    return read_chosen(lines(folder, *rows), format)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Name a bird.", "chosen": "A wren.", "rejected": "A bus."},
        {"prompt": ASKED, "chosen": WREN, "rejected": BUS},
        {"prompt": ASKED, "chosen": ASKED + WREN, "rejected": ASKED + BUS},
        {"prompt": "Name a bird.", "chosen": ASKED + WREN, "rejected": ASKED + BUS},
        {"chosen": ASKED + WREN, "rejected": ASKED + BUS},
        {"chosen": "\n\nHuman: Name a bird.\n\nAssistant: A wren.", "rejected": "\n\nHuman: Name a bird.\n\nAssistant: A bus."},
        {"prompt": "Name a bird.", "response_a": "A bus.", "response_b": "A wren.", "choice": "b"},
        {"prompt": "Name a bird.", "chosen": ["A wren."], "rejected": ["A bus."]},
    ],
)
def test_one_preference_in_every_notation(row: Mapping[str, Any], tmp_path: Path) -> None:
    assert read(tmp_path, row).chosen == [RIGHT]


def test_a_subset_is_the_row_s_or_else_the_file_s_name(tmp_path: Path) -> None:
    row = {"prompt": "Name a bird.", "chosen": "A wren.", "rejected": "A bus."}
    rows = [{**row, "subset": "birds", "id": 7}, row, {**row, "subset": " "}]
    assert [one.subset for one in read(tmp_path, *rows).chosen] == ["birds", "file", "file"]


@pytest.mark.parametrize("file", ["jsonl", "json", "csv", "parquet"])
def test_a_benchmark_s_file_in_every_form(file: str, tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "chosen": WREN, "rejected": BUS, "subset": f"part {i % 2}", "id": i} for i in range(4)]
    path = tmp_path / f"file.{file}"
    match file:
        case "jsonl":
            lines(tmp_path, *rows)
        case "json":
            path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        case "csv":
            cells = [
                ",".join('"' + json.dumps(value).replace('"', '""') + '"' if isinstance(value, list) else str(value) for value in row.values()) for row in rows
            ]
            path.write_text("\n".join([",".join(rows[0]), *cells]) + "\n", encoding="utf-8")
        case "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    found = read_chosen(path)
    assert found.format == "trl"
    assert found.chosen == [RIGHT._replace(subset=f"part {i % 2}") for i in range(4)]
    assert found.refused == []


def test_a_text_that_begins_like_a_list_stays_a_text(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text('prompt,chosen,rejected\n"[{ what?","[""a","b"\n', encoding="utf-8")
    assert read_chosen(tmp_path / "file.csv").chosen == [Chosen([{"role": "user", "content": "[{ what?"}], '["a', ("b",), "file")]


def test_one_chosen_against_several_rejected_is_one_row(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Name a bird.", "chosen": ["A wren."], "rejected": ["A bus.", "A car.", "A hat."]},
        {"prompt": "2+2", "chosen": ["4", "four"], "rejected": ["5"]},
    ]
    found = read(tmp_path, *rows).chosen
    assert [(one.chosen, one.rejected) for one in found] == [("A wren.", ("A bus.", "A car.", "A hat.")), ("4", ("5",)), ("four", ("5",))]


PAIR = {"prompt": "p", "response_a": "x", "response_b": "y"}
PAIRED = {"prompt": "p", "chosen": "x", "rejected": "y"}


def rated(*said: tuple[str, int, str]) -> list[dict[str, Any]]:
    return [{"prompt": "p", "response": response, "rating": points, "annotator": who} for response, points, who in said]


def thumbs(*said: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": response, "thumbs": thumb} for prompt, response, thumb in said]


@pytest.mark.parametrize(
    ("rows", "pairs", "left_out"),
    [
        ([{**PAIR, "response_c": "z", "ranks": "1,2,2"}], [("x", "y", 2), ("x", "z", 2)], {"tie": 1}),
        ([{**PAIR, "strength": degree} for degree in (-3, 1, 0)], [("x", "y", 3), ("y", "x", 1)], {"tie": 1}),
        ([{**PAIR, "choice": choice} for choice in ("tie", "both bad", "skip", "a")], [("x", "y", 2)], {"tie": 1, "both bad": 1, "skip": 1}),
        (rated(("x", 2, "ann"), ("y", 5, "ann"), ("z", 2, "ann")), [("y", "x", 3), ("y", "z", 3)], {"tie": 1}),
        (rated(("x", 2, "ann"), ("y", 3, "bob"), ("z", 3, "ann")), [("z", "x", 1)], {"a rating with nothing beside it": 1}),
        (thumbs(("p", "x", "down"), ("p", "y", "up"), ("q", "x", "up")), [("y", "x", 2)], {"a thumb with nothing beside it": 1}),
        ([{"prompt": "p", "response": "x", "edit": edit} for edit in ("x, please", "x")], [("x, please", "x", 1)], {"edit that changed nothing": 1}),
        ([{**PAIRED, "score_chosen": points, "score_rejected": 4.0} for points in (4.0, 5.0)], [("x", "y", 2)], {"tie": 1}),
    ],
)
def test_what_each_kind_of_answer_prefers(rows: Sequence[Any], pairs: Sequence[tuple[str, str, int]], left_out: Mapping[str, int], tmp_path: Path) -> None:
    found = read(tmp_path, *rows)
    assert [(one.chosen, *one.rejected, one.strength) for one in found.chosen] == pairs
    assert found.left_out == left_out


def test_bad_rows_are_named_with_line_and_remedy_and_stop_no_other(tmp_path: Path) -> None:
    good = {"prompt": "Name a bird.", "chosen": "A wren.", "rejected": "A bus."}
    path = lines(tmp_path, good, {**good, "rejected": "A wren."}, {**good, "chosen": 7}, {**good, "rejected": []}, good)
    path.write_text(path.read_text() + '{"prompt": \n' + json.dumps({"chosen": ["a b", "a b c"], "rejected": ["a d", "x"]}) + "\n", encoding="utf-8")
    found = read_chosen(path)
    assert len(found.chosen) == 2
    assert [row.line for row in found.refused] == [2, 3, 4, 6, 7]
    assert str(found.refused[0]).startswith("file.jsonl, line 2: the two responses are the same text")
    assert "file.jsonl, line 4: has nothing under chosen or under rejected" in str(found.refused[2])
    assert all("fix:" in str(row) for row in found.refused)


@pytest.mark.parametrize(
    ("name", "content", "needle"),
    [
        ("none.jsonl", None, "no"),
        ("none.parquet", None, "there is no file"),
        ("bad.parquet", "PAR1 it is not", "can't be read as parquet"),
        ("other.jsonl", '{"colour": "red"}\n', "look like no format that is known"),
        ("empty.jsonl", "", "look like no format that is known"),
        ("ties.jsonl", '{"prompt": "p", "response_a": "x", "response_b": "y", "choice": "tie"}\n', "says which of two responses is better (tie 1)"),
        ("same.jsonl", '{"prompt": "p", "chosen": "x", "rejected": "x"}\n', "1 rows of same.jsonl can't be used"),
        ("wide.jsonl", '{"prompt": "p", "response": "x", "thumbs": "up"}\n', "a thumb with nothing beside it 1"),
    ],
)
def test_a_file_without_a_preference_stops_with_a_remedy(name: str, content: str | None, needle: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match="fix:") as caught:
        read_chosen(tmp_path / name)
    assert needle in str(caught.value)


@pytest.mark.parametrize("names", [("score_chosen", "score_rejected"), ("chosen_score", "rejected_score")])
@pytest.mark.parametrize("score", [4.0, "4.0"])
def test_an_import_has_the_same_ties_as_a_measurement(project: Project, tmp_path: Path, names: tuple[str, str], score: object) -> None:
    """Where both sides have the same score, neither was preferred, whoever reads it."""
    row = {"chosen": "A wren.", "rejected": "A bus.", names[0]: 4.0}
    rows = [{**row, "prompt": "Name a bird.", names[1]: score}, {**row, "prompt": "Name one.", names[1]: 3.5}]
    found = read(tmp_path, *rows)
    assert (len(found.chosen), found.left_out) == (1, {"tie": 1})
    import_judgements(project, tmp_path / "file.jsonl", "trl")
    with project.database.read() as session:
        assert sorted(abs(answer["strength"]) for answer in session.scalars(select(Judgement.answer))) == [0, 2]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no format 'hub'"):
        read_chosen(lines(tmp_path, {"a": 1}), "hub")


@pytest.mark.parametrize(
    "format", ["trl", "hh-rlhf", "table", "native", "arena", "argilla", "label-studio", "mturk", "toloka", "crowd-kit", "webgpt", "helpsteer"]
)
def test_what_truing_exports_is_read_as_it_was_imported(format: str, project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": f"Which {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(5)]
    import_judgements(project, lines(tmp_path, *rows), "trl")
    suffix = {"table": "csv", "mturk": "csv", "toloka": "tsv", "crowd-kit": "csv", "argilla": "json", "label-studio": "json"}.get(format, "jsonl")
    path = tmp_path / f"out.{suffix}"
    export_judgements(project, format, path)
    found = read_chosen(path)
    assert found.format == format
    assert sorted((one.turns[0]["content"], one.chosen, *one.rejected) for one in found.chosen) == [(f"Which {i}?", f"good {i}", f"bad {i}") for i in range(5)]


def test_what_was_asked_again_in_a_log_counts_once(project: Project, tmp_path: Path) -> None:
    """One annotator who is asked everything twice: each question is one preference, in the log as in what was exported for training."""
    rows = [{"prompt": f"Which {n}?", "response_a": "x", "response_b": "y", "choice": "a", "annotator": "ann"} for n in range(3)]
    import_judgements(project, lines(tmp_path, *rows), "table")
    with project.database.write() as session:
        for first in session.scalars(select(Judgement)).all():
            question = session.get_one(Question, first.question_id)
            again = Question(
                id=f"{question.position} again", kind="pair", prompt_id=question.prompt_id, repeat_of=question.id, only_for=first.annotator_id, overlap=1,
                position=question.position, facts={}, created_at=NOON,
            )  # fmt: skip
            session.add(again)
            session.flush()
            for place in session.scalars(select(QuestionSample).where(QuestionSample.question_id == question.id)).all():
                session.add(QuestionSample(question_id=again.id, position=place.position, sample_id=place.sample_id))
            session.add(judgement(again.id, f"{again.id}", annotator_id=first.annotator_id, answer=first.answer))
    export_judgements(project, "native", tmp_path / "log.jsonl")
    found = read_chosen(tmp_path / "log.jsonl")
    assert (len(found.chosen), found.left_out) == (3, {"asked again": 3})
    assert export_judgements(project, "trl", tmp_path / "out.jsonl") == (3, {"asked again": 3})
    assert len(read_chosen(tmp_path / "out.jsonl").chosen) == 3


def test_a_changed_mind_in_a_log_counts_once(project: Project, tmp_path: Path) -> None:
    rows = [{"prompt": "Which?", "response_a": "x", "response_b": "y", "choice": "a", "annotator": "ann"}]
    import_judgements(project, lines(tmp_path, *rows), "table")
    export_judgements(project, "native", tmp_path / "log.jsonl")
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    first = events[-1]
    assert first["event"] == "judgement"
    second = {**first, "id": first["id"][:-1] + ("0" if first["id"][-1] != "0" else "1"), "answer": {"strength": -first["answer"]["strength"]},
              "supersedes": first["id"], "idempotency_key": "other"}  # fmt: skip
    found = read_chosen(lines(tmp_path, *events, second, name="log.jsonl"))
    assert [(one.chosen, one.rejected) for one in found.chosen] == [("y", ("x",))]
