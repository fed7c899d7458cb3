"""Every format: what its rows mean, worked out by hand; what it can hold comes back the same; what people write differently is understood."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from truing.errors import BadRow, UserError
from truing.feedback.exchange import FORMATS, WRITABLE, export_judgements, import_judgements, preview_import
from truing.feedback.formats import RECORD_FORMATS
from truing.feedback.formats.record import MODERATE, Numbered, Record, Response, Source, checked, dense, milliseconds, moment
from truing.feedback.formats.scales import Scale, strength_of
from truing.feedback.formats.tables import ours, own, safe, unsafe
from truing.feedback.guess import find
from truing.store.conversations import Turn, turns_of
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Judgement, Kind, Policy, Prompt, Question, QuestionSample, Sample

DATA = Path(__file__).parents[2].parent / "shared" / "data"
DOCS = Path(__file__).parents[2] / "docs" / "formats.md"
ASKED = turns_of("Is it?")
LONGER: list[Turn] = [*turns_of("Hi"), {"role": "assistant", "content": "Yes?"}, *turns_of("Is it?")]
A, B, C = Response("Yes.", "m1"), Response("No.", "m2"), Response("=Perhaps")
NOON = datetime(2026, 1, 2, 12, 30, tzinfo=UTC)


def written(path: Path, format: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A file of rows in the way of a format."""
    form = RECORD_FORMATS[format].file
    if form in ("csv", "tsv"):
        names = list(dict.fromkeys(name for row in rows for name in row))
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, names, restval="", delimiter="\t" if form == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(out.getvalue(), encoding="utf-8", newline="")
    elif form == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path, format: str) -> list[Record]:
    """The records of a file in which every row can be used."""
    found = list(RECORD_FORMATS[format].read(Source(path)))
    assert all(isinstance(item, Numbered) for item in found), found
    return [item.record for item in found if isinstance(item, Numbered)]


@pytest.fixture
def read_rows(tmp_path: Path) -> Any:
    """Read rows as a file of a format."""

    def reader(format: str, *rows: Mapping[str, Any]) -> list[Record]:
        return read(written(tmp_path / f"rows.{RECORD_FORMATS[format].file}", format, rows), format)

    return reader


def said(record: Record) -> tuple[str, list[Turn], tuple[Response, ...], dict[str, Any]]:
    return str(record.kind), record.turns, record.responses, record.answer


# ---- what rows mean ----

PAIR = {"prompt": "Is it?", "response_a": "Yes.", "response_b": "No."}
CONVERSATIONS = {"conversation_a": [*ASKED, {"role": "assistant", "content": "Yes."}], "conversation_b": [*ASKED, {"role": "assistant", "content": "No."}]}
STUDIO = {"data": {"prompt": "Is it?", "answer1": "Yes.", "answer2": "No."}}
RECORD = {"fields": {"prompt": "Is it?", "response-1": "Yes.", "response-2": "No."}}
PREDICTIONS = {"question": "Is it?", "prediction 1": "a", "prediction 2": "b", "prediction 3": "c", "prediction 4": "d"}
SUMMARIES = [{"text": "Yes.", "policy": "m1"}, {"text": "No.", "policy": "m2"}]


def result(kind: str, name: str, **value: Any) -> dict[str, Any]:
    return {"type": kind, "from_name": name, "value": value}


@pytest.mark.parametrize(
    ("format", "row", "kind", "answers"),
    [
        ("trl-unpaired", {"prompt": "Is it?", "completion": "Yes.", "label": True}, "thumbs", [{"up": True}]),
        ("trl-unpaired", {"prompt": ASKED, "completion": [{"role": "assistant", "content": "Yes."}], "label": 0}, "thumbs", [{"up": False}]),
        ("summarize-from-feedback", {"info": {"article": "Is it?"}, "summaries": SUMMARIES, "choice": 1, "worker": "w"}, "pair", [{"strength": -2}]),
        ("summarize-from-feedback", {"info": {"article": "Is it?"}, "summaries": SUMMARIES, "choice": 0, "extra": {"confidence": 1}}, "pair",
         [{"strength": 3}]),
        ("summarize-from-feedback", {"info": {"article": "Is it?"}, "summaries": SUMMARIES, "choice": 1, "extra": {"confidence": 6}, "note": "Hm"}, "pair",
         [{"strength": -1, "comment": "Hm"}]),
        # a confidence on the other side than the choice says nothing about the strength
        ("summarize-from-feedback", {"info": {"article": "Is it?"}, "summaries": SUMMARIES, "choice": 1, "extra": {"confidence": 2}}, "pair",
         [{"strength": -2}]),
        ("webgpt", {"question": {"full_text": "Is it?"}, "answer_0": "Yes.", "score_0": 1.0, "answer_1": "No.", "score_1": -1.0}, "pair", [{"strength": 3}]),
        ("webgpt", {"question": "Is it?", "answer_0": "Yes.", "score_0": -0.25, "answer_1": "No.", "score_1": 0.25}, "pair", [{"strength": -1}]),
        ("webgpt", {"question": "Is it?", "answer_0": "Yes.", "score_0": 0.0, "answer_1": "No.", "score_1": 0.0}, "pair", [{"strength": 0}]),
        ("helpsteer", {"prompt": "Is it?", "response": "Yes.", "helpfulness": 0, "verbosity": 4}, "rating", [{"aspects": {"helpfulness": 1, "verbosity": 5}}]),
        ("helpsteer", {"prompt": "Is it?", "response_1": "Yes.", "response_2": "No.", "preference_strength": -3}, "pair", [{"strength": 3}]),
        ("helpsteer", {"context": ASKED, "response1": "Yes.", "response2": "No.", "overall_preference": 1,
                       "individual_preference": [{"score": 2, "reasoning": "Short"}, {"score": 0}]}, "pair",
         [{"strength": -2, "comment": "Short"}, {"strength": 0}]),
        ("ultrafeedback", {"instruction": "Is it?", "completions": [
            {"model": "m1", "response": "Yes.", "annotations": {"honesty": {"Rating": "5"}, "helpfulness": {"Rating": "N/A"}}, "overall_score": 10.0}]},
         "rating", [{"aspects": {"honesty": 5, "overall": 7}}]),
        ("oasst", {"message_tree_id": "t", "prompt": {"text": "Is it?", "role": "prompter", "replies": [
            {"text": "No.", "role": "assistant", "rank": 2, "replies": []}, {"text": "Yes.", "role": "assistant", "rank": 0, "replies": []},
            {"text": "Eh.", "role": "assistant", "rank": None, "replies": []}]}}, "ranking", [{"ranks": [2, 1]}]),
        ("arena", {"model_a": "m1", "model_b": "m2", "winner": "model_b", "judge": "author_3", **CONVERSATIONS}, "pair", [{"strength": -2}]),
        ("arena", {"model_a": "m1", "model_b": "m2", "winner": "tie (bothbad)", **CONVERSATIONS}, "pair", [{"both_bad": True}]),
        ("arena", {"model_a": "m1", "model_b": "m2", "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1, "prompt": '["Is it?"]',
                   "response_a": '["Yes."]', "response_b": '["No."]'}, "pair", [{"strength": 0}]),
        ("label-studio", {**STUDIO, "annotations": [{"completed_by": 1, "result": [result("pairwise", "p", selected="right")]},
                                                    {"completed_by": {"id": 2}, "was_cancelled": True, "result": []}]}, "pair",
         [{"strength": -2}, {"skip": "cancelled"}]),
        ("label-studio", {"data": {"prompt": "Is it?", "items": [{"id": "x", "text": "Yes."}, {"id": "y", "text": "No."}, {"id": "z", "text": "Eh."}]},
                          "annotations": [{"result": [result("ranker", "r", ranker={"best": ["z", "x", "y"]})]}]}, "ranking", [{"ranks": [2, 3, 1]}]),
        ("label-studio", {"data": {"text": "Yes.", "prompt": "Is it?"}, "annotations": [{"result": [result("rating", "tone", rating=4)]}]},
         "rating", [{"aspects": {"tone": 4}}]),
        ("argilla", {**RECORD, "responses": {"preference": [{"value": "response-2", "user_id": "u1"}, {"value": "response-1", "user_id": "u2"}]}}, "pair",
         [{"strength": -2}, {"strength": 2}]),
        # a ranking is what was answered, not 1, 2, 3
        ("argilla", {**RECORD, "responses": {"ranking": [{"value": ["response-2", "response-1"], "user_id": "u"}]}}, "ranking", [{"ranks": [2, 1]}]),
        ("argilla", {**RECORD, "responses": [
            {"user_id": "u", "values": {"r": {"value": [{"value": "response-1", "rank": 1}, {"value": "response-2", "rank": 1}]}}}]},
         "ranking", [{"ranks": [1, 1]}]),
        ("argilla", {"fields": {"prompt": "Is it?", "response": "Yes."}, "responses": {"quality": [{"value": 4, "user_id": "u"}]}}, "rating",
         [{"aspects": {"quality": 4}}]),
        ("crowd-kit", {"worker": "w", "left": "Yes.", "right": "No.", "label": "No."}, "pair", [{"strength": -2}]),
        ("crowd-kit", {"worker": "w", "left": "Yes.", "right": "No.", "label": "left"}, "pair", [{"strength": 2}]),
        ("crowd-kit", {"worker": "w", "task": "Yes.", "label": "1"}, "thumbs", [{"up": True}]),
        ("mturk", {"WorkerId": "W", "Input.prompt": "Is it?", "Input.response_a": "Yes.", "Input.response_b": "", "Answer.choice.a": "true",
                   "Answer.choice.b": "false"}, "pair", [{"strength": 2}]),
        ("toloka", {"INPUT:prompt": "Is it?", "INPUT:left": "Yes.", "INPUT:right": "No.", "OUTPUT:result": "RIGHT"}, "pair", [{"strength": -2}]),
        ("halueval", {"user_query": "Is it?", "chatgpt_response": "Yes.", "hallucination": "yes"}, "thumbs", [{"up": False}]),
        ("finegrained-rlhf", {**PREDICTIONS, "preference": [0, 1, 2, 0, 0, 0]}, "pair", [{"strength": s} for s in (0, 2, -2, 0, 0, 0)]),
        # what people call things in tables of their own
        ("table", {**PAIR, "choice": "a"}, "pair", [{"strength": 2}]),
        ("table", {**PAIR, "winner": "Both bad"}, "pair", [{"both_bad": True}]),
        ("table", {**PAIR, "verdict": "tie", "comment": "Same"}, "pair", [{"strength": 0, "comment": "Same"}]),
        ("table", {**PAIR, "choice": "b", "strength": "3", "flags": "unsafe|off-topic"}, "pair", [{"strength": -3, "flags": ["unsafe", "off-topic"]}]),
        (
            "table",
            {"instruction": "Is it?", "output_1": "Yes.", "output_2": "No.", "model_a": "m1", "model_b": "m2", "winner": "m2"},
            "pair",
            [{"strength": -2}],
        ),
        ("table", {**PAIR, "skip": "both in Dutch"}, "pair", [{"skip": "both in Dutch"}]),
        ("table", {**PAIR, "rating_a": "5", "rating_b": "2"}, "rating", [{"aspects": {"rating": 5}}, {"aspects": {"rating": 2}}]),
        ("table", {**PAIR, "response_c": "Eh.", "ranks": "2,1,2"}, "ranking", [{"ranks": [2, 1, 2]}]),
        ("table", {**PAIR, "response_c": "Eh.", "ranking": "c > a = b"}, "ranking", [{"ranks": [2, 2, 1]}]),
        ("table", {**PAIR, "response_c": "Eh.", "rank_a": "1", "rank_b": "3", "rank_c": "2"}, "ranking", [{"ranks": [1, 3, 2]}]),
        ("table", {"prompt": "Is it?", "response": "Yes.", "helpfulness": "5", "clarity": "1"}, "rating", [{"aspects": {"helpfulness": 5, "clarity": 1}}]),
        ("table", {"prompt": "Is it?", "response": "Yes.", "thumbs": "down"}, "thumbs", [{"up": False}]),
        ("table", {"prompt": "Is it?", "response": "Yes.", "edited": "Yes, it is."}, "edit", [{"text": "Yes, it is."}]),
        ("table", {"prompt": "Is it?", "response": "Yes.", "edited": "Yes."}, "edit", [{"unchanged": True}]),
    ],
)  # fmt: skip
def test_what_a_row_means(read_rows: Any, format: str, row: dict[str, Any], kind: str, answers: list[dict[str, Any]]) -> None:
    records = read_rows(format, row)
    assert [record.answer for record in records] == answers
    assert {str(record.kind) for record in records} == {kind}
    assert all(record.turns[-1]["content"] in ("Is it?", "Which do you prefer?") for record in records)


def json_file(folder: Path, *rows: Any) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "rows.jsonl"


def test_several_answers_in_one_row(tmp_path: Path) -> None:
    """A list of votes without names is as many annotators; a list of ranked answers is a ranking."""
    row = {"prompt": "Is it?", "answers": ["Yes.", "No."], "votes": ["a", "a", {"choice": "tie", "annotator": "Ann"}]}
    assert [(one.answer["strength"], one.annotator, one.vote) for one in read(json_file(tmp_path, row), "table")] == [(2, None, 0), (2, None, 1), (0, "Ann", 2)]
    ranked = {"prompt": "Is it?", "answers": [{"answer": "Yes.", "model": "m1", "rank": 2}, {"answer": "No.", "model": "m2", "rank": 1}]}
    (one,) = read(json_file(tmp_path, ranked), "table")
    assert (one.kind, one.responses, one.answer) == (Kind.RANKING, (A, B), {"ranks": [2, 1]})


@pytest.mark.parametrize(
    ("written", "strengths"),
    [
        ([0, 1, 1], [2, -2, -2]),  # the place, from 0
        ([1, 2, 1], [2, -2, 2]),  # the place, from 1
        ([1, 0, 2], [2, 0, -2]),  # and 0 for a tie
        ([1, 2, 3, 4, 5], [3, 1, 0, -1, -3]),  # five levels, the first response at the low end
        ([1, 2, 3, 4, 5, 6, 7], [3, 2, 1, 0, -1, -2, -3]),
        ([0, 1, 2, 3, 4], [3, 1, 0, -1, -3]),
        ([-3, -1, 0, 2, 3], [3, 1, 0, -2, -3]),
        ([-3, -2, -1], [3, 2, 1]),  # below 0 there is but one reading
        ([-1, 0, 1], [2, 0, -2]),
    ],
)
def test_numbers_on_the_scale_of_their_column(read_rows: Any, written: list[int], strengths: list[int]) -> None:
    assert [record.answer["strength"] for record in read_rows("table", *numbered(PAIR, written))] == strengths


def numbered(pair: Mapping[str, str], written: Sequence[float]) -> list[dict[str, str]]:
    """A row for each of these preferences."""
    return [{**pair, "prompt": f"Is it {n}?", "preference": str(number)} for n, number in enumerate(written)]


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 1],  # the second from 0, or the first from 1
        [0, 0],  # the first, or a tie
        [2, 2],  # the second, or slightly the first of five
        [4, 5, 6, 7],  # of seven, of ten, or four levels
        [1, 2, 3, 4],  # four levels, or five of which nobody took the last
        [2, 3, 4, 5, 6],
        [0, 1, 2, 3],  # of four, or from -3 with nobody for the first
        [1, 2, 3],  # 3 is a tie, or the second
        [-1, 1, 2, 3, 4, 5],  # -1 may be no answer at all
        [-1, 1, 2],
        [0.25, 0.5],
    ],
    ids=str,
)
def test_numbers_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, numbers: list[float]) -> None:
    """They were read by the least and greatest that happened to be there, which turned one-sided files around."""
    found = list(RECORD_FORMATS["table"].read(Source(written(tmp_path / "a.csv", "table", numbered(PAIR, numbers)))))
    assert len(found) == len(numbers)
    for item in found:
        assert isinstance(item, BadRow)
        assert "no telling what that means" in item.what
        assert "under `strength`" in item.fix


def test_a_sorted_column_is_read_to_its_end(read_rows: Any) -> None:
    """The first thousand rows of a sorted one hold 1 and 2 alone: slightly and clearly the first, and no places."""
    records = read_rows("table", *numbered(PAIR, [1] * 1000 + [2] * 1000 + [3, 4, 5]))
    assert Counter(record.answer["strength"] for record in records) == {3: 1000, 1: 1000, 0: 1, -1: 1, -3: 1}


@pytest.mark.parametrize(
    ("names", "said", "strengths"),
    [
        (("response_1", "response_2"), "1110", [2, 2, 2, 0]),
        (("response_1", "response_2"), "22", [-2, -2]),
        (("response_0", "response_1"), "11", [-2, -2]),
        (("response_0", "response_1"), "00", [2, 2]),
        (("answer_one", "answer_two"), "11", [2, 2]),
        (("response_b", "response_c"), "bc", [2, -2]),
    ],
)
def test_a_number_is_the_response_that_its_column_calls_so(read_rows: Any, names: tuple[str, str], said: str, strengths: list[int]) -> None:
    """`1` beside `response_1` is that one, whatever else stands in the column."""
    asked = dict(zip(names, ("Yes.", "No."), strict=True))
    assert [record.answer["strength"] for record in read_rows("table", *numbered(asked, list(said)))] == strengths  # type: ignore[arg-type]


def test_radio_buttons_of_mturk_tell_what_could_be_chosen(read_rows: Any) -> None:
    asked = {"WorkerId": "W", "Input.prompt": "Is it?", "Input.response_a": "Yes.", "Input.response_b": "No."}
    rows = [{**asked, "Answer.choice.1": str(first).lower(), "Answer.choice.2": str(not first).lower()} for first in (True, False, True)]
    assert [record.answer["strength"] for record in read_rows("mturk", *rows)] == [2, -2, 2]
    assert [record.answer["strength"] for record in read_rows("mturk", rows[0])] == [2]


def test_choices_by_number_in_label_studio_and_argilla(read_rows: Any) -> None:
    tasks = [{**STUDIO, "annotations": [{"result": [result("choices", "which", choices=[place])]}]} for place in "12"]
    assert [record.answer["strength"] for record in read_rows("label-studio", *tasks)] == [2, -2]
    assert [record.answer["strength"] for record in read_rows("label-studio", tasks[0])] == [2]
    assert [record.answer["strength"] for place in "12" for record in read_rows("argilla", labelled(place))] == [2, -2]
    lettered = [{**labelled(level), "fields": PAIR} for level in "15234"]
    assert [record.answer["strength"] for record in read_rows("argilla", *lettered)] == [3, -3, 1, 0, -1]


def labelled(value: str, **more: Any) -> dict[str, Any]:
    return {**RECORD, "responses": {"label": [{"value": value, "user_id": "u", **more}]}}


def test_drafts_of_argilla_are_no_answers(tmp_path: Path) -> None:
    rows = [labelled("1"), labelled("1", status="submitted"), labelled("2", status="draft"), labelled("2", status="discarded")]
    one = {"user_id": "u", "values": {"label": {"value": "1"}}}
    rows += [{**RECORD, "responses": [{**one, "status": "submitted"}, {**one, "status": "draft"}, {**one, "status": "discarded"}]}]
    found = list(RECORD_FORMATS["argilla"].read(Source(json_file(tmp_path, *rows))))
    assert [item.record.answer for item in found if isinstance(item, Numbered)] == [{"strength": 2}] * 3
    assert [(item.line, "submitted" in item.what) for item in found if isinstance(item, BadRow)] == [(3, True), (4, True)]


@pytest.mark.parametrize(("left", "right", "label", "strength"), [("1", "0", "1", 2), ("1", "0", 0, -2), ("b", "a", "b", 2), ("12", "7", "12", 2)])
def test_a_label_of_crowd_kit_is_the_item_whatever_it_is_called(tmp_path: Path, left: str, right: str, label: Any, strength: int) -> None:
    (record,) = read(json_file(tmp_path, {"worker": "w", "left": left, "right": right, "label": label}), "crowd-kit")
    assert record.answer == {"strength": strength}


@given(st.integers(-3, 3), st.integers(1, 3))
def test_a_scale_turned_around_prefers_the_other(number: int, reach: int) -> None:
    if abs(number) <= reach:
        scale = Scale(-reach, reach)
        assert strength_of(number, scale, degree=True) == -strength_of(-number, scale, degree=True)
        assert (strength_of(number, scale, degree=True) > 0) == (number < 0)


def test_arena_battles_of_several_turns(read_rows: Any) -> None:
    def battle(said: str) -> list[Turn]:
        return [*ASKED, {"role": "assistant", "content": said}, *turns_of("Why?"), {"role": "assistant", "content": "So."}]

    (record,) = read_rows("arena", {"model_a": "m1", "model_b": "m2", "winner": "model_a", "judge": "gpt-4", "tstamp": 1700000000.0,
                                    "conversation_a": battle("Yes."), "conversation_b": battle("No.")})  # fmt: skip
    assert record.turns == ASKED
    assert [response.text for response in record.responses] == [f"{said}\n\nHuman: Why?\n\nAssistant: So." for said in ("Yes.", "No.")]
    assert (record.judge, record.annotator, record.submitted_at) == (True, "gpt-4", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC))


def test_open_assistant_messages_one_by_one(read_rows: Any) -> None:
    def message(name: str, parent: str | None, said: str, role: str, rank: int | None = None) -> dict[str, Any]:
        return {"message_id": name, "parent_id": parent, "message_tree_id": "t", "text": said, "role": role, "rank": rank}

    rows = [
        message("1", None, "Hi", "prompter"), message("2", "1", "Yes?", "assistant", 0), message("3", "1", "Hello.", "assistant", 1),
        message("4", "2", "Is it?", "prompter"), message("5", "4", "Yes.", "assistant", 1), message("6", "4", "No.", "assistant", 0),
    ]  # fmt: skip
    first, second = read_rows("oasst", *rows)
    assert said(first) == ("ranking", turns_of("Hi"), (Response("Yes?"), Response("Hello.")), {"ranks": [1, 2]})
    assert said(second) == ("ranking", LONGER, (Response("Yes."), Response("No.")), {"ranks": [2, 1]})


def test_helpsteer_prompts_of_several_turns(read_rows: Any) -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nIs it?"
    (record,) = read_rows("helpsteer", {"prompt": prompt, "response": "Yes.", "helpfulness": 3})
    assert record.turns == LONGER


def test_helpsteer_is_guessed_by_all_of_its_aspects(tmp_path: Path) -> None:
    """A table of one's own with ratings from 1 to 5 was taken for HelpSteer's from 0 to 4."""
    rows = [{"prompt": f"Is it {rating}?", "response": "Yes.", "helpfulness": rating} for rating in range(1, 6)]
    file = written(tmp_path / "a.csv", "table", rows)
    assert find(file, "auto").format == "table"
    assert [record.answer["aspects"]["helpfulness"] for record in read(file, "table")] == [1, 2, 3, 4, 5]
    whole = {"prompt": "Is it?", "response": "Yes.", "helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 0, "verbosity": 0}
    assert find(json_file(tmp_path, whole), "auto").format == "helpsteer"


@pytest.mark.parametrize(("votes", "overall"), [([1, 0, 1], 1), ([-1, 0, -1], -1), ([1, 0], 1), ([-1, 0], -1), ([0, 0, 1], 0), ([2, 3, 3], 3), ([-1, 1], 0)])
def test_helpsteer_s_overall_preference_is_the_mean_rounded(votes: list[int], overall: int) -> None:
    form = RECORD_FORMATS["helpsteer"]
    assert form.write is not None
    (row,) = form.write([pair({"strength": -vote}) for vote in votes])
    assert row["overall_preference"] == overall


SHP = {"post_id": "p", "history": "Is it?", "human_ref_A": "Yes.", "human_ref_B": "No."}


def test_stanford_s_human_preferences(tmp_path: Path) -> None:
    """1 is A, in a table of text as well; what Reddit's voters gave is no rating, and no reason to refuse the row."""
    rows = [{**SHP, "history": f"Is it {n}?", "labels": label, "score_A": 340, "score_B": score} for n, (label, score) in enumerate([(1, 5), (0, 700), (1, 2)])]
    for file in (written(tmp_path / "a.csv", "table", rows), json_file(tmp_path, *rows)):
        records = read(file, "table")
        assert [record.answer for record in records] == [{"strength": 2}, {"strength": -2}, {"strength": 2}]
        assert {record.kind for record in records} == {Kind.PAIR}
    assert [record.answer for record in read(written(tmp_path / "b.csv", "table", rows[:1]), "table")] == [{"strength": 2}]


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        ({**PAIR, "choice": "a", "rating_a": "9", "rating_b": "3"}, ["pair", "rating"]),
        ({**PAIR, "response_c": "Eh.", "ranks": "1,2,3", "rating_a": "9"}, ["ranking"]),
        ({"prompt": "Is it?", "response": "Yes.", "thumbs": "up", "score": "340"}, ["thumbs"]),
    ],
)
def test_a_rating_off_the_scale_is_said_and_costs_no_choice(projects: Any, tmp_path: Path, row: dict[str, str], kinds: list[str]) -> None:
    found = list(RECORD_FORMATS["table"].read(Source(written(tmp_path / "a.csv", "table", [row]))))
    assert [str(item.record.kind) for item in found if isinstance(item, Numbered)] == kinds
    assert [(item.line, "this rating is left out" in item.what) for item in found if isinstance(item, BadRow)] == [(2, True)]
    report = import_judgements(projects(), tmp_path / "a.csv", "table")
    assert (report.added, len(report.refused)) == (len(kinds), 1)


def test_a_rating_off_the_scale_with_nothing_beside_it_is_a_bad_row(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", "table", [{**PAIR, "rating_a": "9", "rating_b": "3"}, {"prompt": "Is it?", "response_a": "Yes.", "rating": "9"}])
    found = list(RECORD_FORMATS["table"].read(Source(file)))
    assert [item.line for item in found if isinstance(item, BadRow)] == [2, 3] == [item.line for item in found]


def test_mturk_times(read_rows: Any) -> None:
    (record,) = read_rows("mturk", {"WorkerId": "W", "WorkTimeInSeconds": "9.5", "SubmitTime": "Fri Jan 02 04:30:00 PST 2026",
                                    "Input.prompt": "Is it?", "Input.response": "Yes.", "Answer.rating": "3"})  # fmt: skip
    assert (record.submitted_at, record.active_ms, record.annotator) == (NOON, 9500, "W")


# ---- out and back ----

WHO: dict[str, Any] = {"annotator": "ann"}
WHEN: dict[str, Any] = {"started_at": NOON, "submitted_at": NOON, "active_ms": 2500}


def pair(answer: Mapping[str, Any], *, turns: list[Turn] = ASKED, responses: tuple[Response, ...] = (A, B), **more: Any) -> Record:
    return Record(Kind.PAIR, turns, responses, dict(answer), **more)


EVERYTHING = [
    pair({"strength": 3, "comment": "=SUM(A1)\n", "flags": ["unsafe"]}), pair({"strength": -1}, turns=LONGER), pair({"strength": 0}), pair({"both_bad": True}),
    pair({"skip": "in Dutch"}), pair({"strength": 2}, responses=(Response(""), C)),
    Record(Kind.RANKING, ASKED, (A, B, C), {"ranks": [2, 1, 2]}), Record(Kind.RANKING, LONGER, (A, B), {"ranks": [1, 2], "comment": "Hm"}),
    Record(Kind.RATING, ASKED, (A,), {"aspects": {"helpfulness": 5, "tone of voice": 1}}), Record(Kind.RATING, LONGER, (C,), {"aspects": {"overall": 7}}),
    Record(Kind.THUMBS, ASKED, (A,), {"up": True}), Record(Kind.THUMBS, LONGER, (B,), {"up": False}), Record(Kind.THUMBS, ASKED, (B,), {"skip": "eh"}),
    Record(Kind.EDIT, ASKED, (A,), {"text": "Yes,\tit is.\r\n"}), Record(Kind.EDIT, ASKED, (A,), {"unchanged": True}),
]  # fmt: skip
NAMELESS = ("hh-rlhf", "trl", "trl-unpaired", "webgpt", "helpsteer", "oasst")  # these can't say who
PAIRS = [record for record in EVERYTHING if record.kind == Kind.PAIR]
HOLDS: dict[str, list[Record]] = {
    "hh-rlhf": [pair({"strength": MODERATE}, responses=(Response("Yes."), C), turns=LONGER)],
    "trl": [pair({"strength": MODERATE}, responses=(Response("Yes."), C), turns=[{"role": "system", "content": "Be brief."}, *ASKED])],
    "trl-unpaired": [Record(Kind.THUMBS, LONGER, (C,), {"up": False})],
    "summarize-from-feedback": [
        pair({"strength": s, **more}, annotator="w", shown=(0, 1), turns=turns)
        for s in (1, 2, 3, -1, -2, -3)
        for more, turns in (({}, ASKED), ({"comment": "é"}, turns_of("SUBREDDIT: r/x\n\nTITLE: t\n\nPOST: p\n\nTL;DR:")))
    ],
    "webgpt": [pair({"strength": s}, responses=(Response("Yes."), C)) for s in range(-3, 4)],
    "helpsteer": [pair({"strength": s}, responses=(Response("Yes."), C), turns=LONGER) for s in range(-3, 4)]
    + [Record(Kind.RATING, LONGER, (C,), {"aspects": {"helpfulness": 5, "verbosity": 1}})],
    "ultrafeedback": [Record(Kind.RATING, ASKED, (A,), {"aspects": {"honesty": 4, "overall": score}, "comment": "Hm"}, **WHO) for score in range(1, 8)],
    "oasst": [Record(Kind.RANKING, LONGER, (A, B, C), {"ranks": [2, 1, 2]})],
    "arena": [
        pair(answer, annotator="w", shown=(0, 1), started_at=NOON, submitted_at=NOON)
        for answer in ({"strength": 2}, {"strength": -2}, {"strength": 0}, {"both_bad": True})
    ],
    "label-studio": [record._replace(**WHO, **WHEN) for record in EVERYTHING],
    "argilla": [record._replace(**WHO) for record in EVERYTHING],
    "mturk": [record._replace(**WHO, **WHEN) for record in EVERYTHING],
    "toloka": [record._replace(**WHO, **WHEN) for record in EVERYTHING] + [pair({"strength": 1}, gold={"strength": -2}, **WHO, **WHEN)],
    "crowd-kit": [pair({"strength": s}, annotator="w", shown=(0, 1), turns=LONGER) for s in (MODERATE, -MODERATE)],
    "table": [record._replace(**WHO, **WHEN) for record in EVERYTHING] + [pair({"strength": 1}, shown=(1, 0), annotator="gpt", judge=True, **WHEN)],
}  # fmt: skip


def test_every_format_that_is_written_has_records_to_round_trip() -> None:
    assert {"native", *HOLDS} == set(WRITABLE)


@pytest.mark.parametrize("format", HOLDS)
def test_what_a_format_holds_comes_back(tmp_path: Path, format: str) -> None:
    form = RECORD_FORMATS[format]
    assert form.write is not None
    for record in HOLDS[format]:
        assert form.why_not(record) is None, record
        path = written(tmp_path / f"rows.{form.file}", format, list(form.write([record])))
        assert read(path, format) == [record]
        assert find(path, "auto").format == format


@pytest.mark.parametrize("format", ["arena", "summarize-from-feedback", "crowd-kit", "table"])
def test_the_response_on_the_left_is_written_first(tmp_path: Path, format: str) -> None:
    """A format whose first response is the one that stood on the left has it there; where nobody knows, its reader claims nothing."""
    form = RECORD_FORMATS[format]
    assert form.write is not None
    records = [pair({"strength": MODERATE}, annotator="w", shown=shown) for shown in ((0, 1), (1, 0), None)]
    found = read(written(tmp_path / f"a.{form.file}", format, [row for record in records for row in form.write([record])]), format)
    left = [None if one.shown is None else one.responses[one.shown[0]] for one in found]
    better = [one.responses[0 if one.answer["strength"] > 0 else 1] for one in found]
    assert (left, better) == ([A, B, None], [A, A, A])


@pytest.mark.parametrize(("name", "judge"), [("qwen", True), ("llama farmer", False)])
def test_who_judged_an_arena_battle_stays_what_they_are(tmp_path: Path, name: str, judge: bool) -> None:
    record = pair({"strength": 2}, annotator=name, judge=judge)
    form = RECORD_FORMATS["arena"]
    assert form.write is not None
    (found,) = read(written(tmp_path / "a.jsonl", "arena", list(form.write([record]))), "arena")
    assert (found.annotator, found.judge) == (record.annotator, record.judge)


@pytest.mark.parametrize("format", HOLDS)
def test_what_a_format_does_not_hold_is_said(format: str) -> None:
    """Every kind of record either comes back or has a reason."""
    form = RECORD_FORMATS[format]
    for record in (record._replace(gold={"strength": 2}) if gold else record for record in EVERYTHING for gold in (False, True) if not gold or record in PAIRS):
        reason = form.why_not(record)
        assert reason is None or (reason and not reason.endswith("."))
        if reason is None:
            assert form.write is not None
            assert list(form.write([record]))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1).filter(lambda text: any(c.isprintable() and not c.isspace() for c in text))


@settings(max_examples=30)
@given(texts, texts, st.none() | texts, st.integers(-3, 3))
@pytest.mark.parametrize("format", ["table", "mturk", "toloka", "label-studio", "argilla"])
def test_any_text_comes_back_from_tables(
    tmp_path_factory: pytest.TempPathFactory, format: str, prompt: str, response: str, comment: str | None, strength: int
) -> None:
    record = pair(
        {"strength": strength} | ({"comment": comment} if comment else {}),
        turns=turns_of(prompt),
        responses=(Response(response), Response(response + "x", "m")),
        **WHO,
    )
    form = RECORD_FORMATS[format]
    assert form.write is not None
    path = written(tmp_path_factory.mktemp("any") / f"rows.{form.file}", format, list(form.write([record])))
    assert [said(found) for found in read(path, format)] == [said(record)]


@given(st.sampled_from(["", "=", "+", "-", "@", "\t", "\r", "'", "'=", "''-"]), st.text(st.characters(codec="utf-8", exclude_characters="\x00")))
def test_no_cell_runs_in_a_spreadsheet(begins: str, ends: str) -> None:
    cell = begins + ends
    assert not safe(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert unsafe(safe(cell)) == cell
    assert own(ours({"x": cell})) == {"x": cell}
    assert own({"x": safe(cell)}) == {"x": safe(cell)}  # not ours: as it is


# ---- through the store ----


def store_said(project: Project) -> Counter[str]:
    """Every judgement in words: prompt, responses with their models, and what was said about which of them."""
    found: Counter[str] = Counter()
    with project.database.read() as session:
        for question, judgement in session.execute(select(Question, Judgement).join(Judgement)):
            query = select(Sample.text, Policy.model).outerjoin(Policy).join(QuestionSample).where(QuestionSample.question_id == question.id)
            responses = [tuple(row) for row in session.execute(query.order_by(QuestionSample.position))]
            turns = session.get_one(Prompt, question.prompt_id).turns
            found[json.dumps([question.kind, turns, responses, judgement.answer, question.gold, judgement.active_ms], sort_keys=True)] += 1
    return found


@pytest.fixture
def projects(tmp_path: Path) -> Iterator[Any]:
    opened: list[Project] = []

    def make() -> Project:
        opened.append(open_project(create_project(tmp_path / f"project{len(opened)}", settings="")))
        return opened[-1]

    yield make
    for project in opened:
        project.database.close()


@pytest.mark.parametrize("format", HOLDS)
def test_in_and_out_and_in_again(projects: Any, tmp_path: Path, format: str) -> None:
    """A file, imported, exported and imported elsewhere, says the same of the same responses; the same log gives the same bytes."""
    form, source, target = RECORD_FORMATS[format], projects(), projects()
    assert form.write is not None
    records = [record._replace(turns=turns_of(f"Question {n}") if len(record.turns) == 1 else record.turns) for n, record in enumerate(HOLDS[format])]
    file = written(tmp_path / f"in.{form.file}", format, [row for record in records for row in form.write([record])])
    first = import_judgements(source, file, format, name="same")
    assert (first.added, first.refused, first.format) == (len(records), [], format)
    assert import_judgements(source, file, format, name="same")[:2] == (0, len(records))
    report = export_judgements(source, format, tmp_path / f"out.{form.file}")
    assert (report.written, report.dropped) == (len(records), {})
    assert import_judgements(target, tmp_path / f"out.{form.file}", "auto", name="same").added == len(records)
    assert store_said(target) == store_said(source)
    export_judgements(source, format, tmp_path / f"again.{form.file}.gz")
    export_judgements(source, format, tmp_path / f"same.{form.file}.gz")
    assert (tmp_path / f"again.{form.file}.gz").read_bytes() == (tmp_path / f"same.{form.file}.gz").read_bytes()


def test_workers_get_names_that_tell_nobody(projects: Any, tmp_path: Path) -> None:
    """The same worker of a marketplace is the same person in every file; a plain number only within its own; a judge keeps its name."""
    one, other = projects(), projects()
    row = {"Input.prompt": "Is it?", "Input.response": "Yes.", "Answer.thumbs": "up", "WorkerId": "A1SECRETWORKER"}
    for number in (1, 2):
        import_judgements(one, written(tmp_path / f"{number}.csv", "mturk", [row]), "mturk")
        import_judgements(one, written(tmp_path / f"t{number}.csv", "table", [{**PAIR, "choice": "a", "annotator": "17"}]), "table")
    import_judgements(one, json_file(tmp_path, {"model_a": "m1", "model_b": "m2", "winner": "tie", "judge": "gpt-4", **CONVERSATIONS}), "arena")
    import_judgements(other, tmp_path / "1.csv", "mturk")
    with one.database.read() as session, other.database.read() as elsewhere:
        people = session.scalars(select(Annotator).order_by(Annotator.name)).all()
        assert [re.sub("[0-9a-f]{16}", "#", person.name) for person in people] == ["import:mturk/#", "import:t1.csv/#", "import:t2.csv/#", "judge:gpt-4"]
        assert [person.kind for person in people] == ["human", "human", "human", "model"]
        assert elsewhere.scalars(select(Annotator.name)).one() not in [person.name for person in people]
    for name in ("native", "mturk"):
        export_judgements(one, name, tmp_path / "out")
        assert b"SECRET" not in (tmp_path / "out").read_bytes()


def test_nameless_votes_on_one_pair_are_counted_each(projects: Any, tmp_path: Path) -> None:
    project = projects()
    row = {"context": ASKED, "response1": "Yes.", "response2": "No.", "individual_preference": [{"score": -1}, {"score": -1}, {"score": 2}]}
    report = import_judgements(project, json_file(tmp_path, row), "helpsteer")
    assert (report.added, report.questions, report.annotators) == (3, 1, 3)
    with project.database.read() as session:
        question = session.scalars(select(Question)).one()
        assert (question.answers, question.open) == (3, False)
    assert export_judgements(project, "helpsteer", tmp_path / "out.jsonl").written == 3
    (out,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (out["overall_preference"], sorted(abs(vote["score"]) for vote in out["individual_preference"])) == (0, [1, 1, 2])


def test_the_order_shown_is_kept_with_the_samples_it_is_about(projects: Any, tmp_path: Path) -> None:
    project = projects()
    rows = [{**PAIR, "prompt": f"Question {n}", "choice": "a", "shown": "b,a"} for n in range(20)]
    import_judgements(project, written(tmp_path / "a.csv", "table", rows), "table")
    with project.database.read() as session:
        for question, judgement in session.execute(select(Question, Judgement).join(Judgement)):
            texts = session.scalars(
                select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == question.id).order_by(QuestionSample.position)
            ).all()
            assert [texts[place] for place in judgement.order_shown] == ["No.", "Yes."]
            assert "order_shown" not in question.facts


def test_the_store_says_it_of_the_right_responses(projects: Any, tmp_path: Path) -> None:
    """Which response is A is drawn; what was said stays with the text that it was said of."""
    project = projects()
    rows = [{**PAIR, "prompt": f"Pair {n}", "choice": "b", "strength": "3"} for n in range(20)]
    rows += [{**PAIR, "prompt": f"Ranking {n}", "response_c": "Eh.", "ranks": "2,3,1"} for n in range(20)]
    import_judgements(project, written(tmp_path / "a.csv", "table", rows), "table")
    orders = set()
    with project.database.read() as session:
        for question, judgement in session.execute(select(Question, Judgement).join(Judgement)):
            query = select(Sample.text).join(QuestionSample).where(QuestionSample.question_id == question.id).order_by(QuestionSample.position)
            texts = tuple(session.scalars(query))
            orders.add(texts)
            if question.kind == Kind.PAIR:
                assert judgement.answer == {"strength": 3 if texts[0] == "No." else -3}
            else:
                assert dict(zip(texts, judgement.answer["ranks"], strict=True)) == {"Yes.": 2, "No.": 3, "Eh.": 1}
    assert len(orders) == 2 + 6


def test_a_known_answer_becomes_a_check_question(projects: Any, tmp_path: Path) -> None:
    project = projects()
    row = {"INPUT:prompt": "Is it?", "INPUT:left": "Yes.", "INPUT:right": "No.", "OUTPUT:result": "right", "GOLDEN:result": "left"}
    import_judgements(project, written(tmp_path / "a.tsv", "toloka", [row]), "toloka")
    with project.database.read() as session:
        question = session.scalars(select(Question)).one()
        texts = session.scalars(select(Sample.text).join(QuestionSample).order_by(QuestionSample.position)).all()
    assert question.gold is not None
    assert texts[question.gold["better"]] == "Yes."


def test_bad_rows_are_named_and_strict_refuses_all(projects: Any, tmp_path: Path) -> None:
    project = projects()
    good, rows = {**PAIR, "choice": "a"}, [{**PAIR, "choice": "perhaps"}, {**PAIR, "prompt": "", "choice": "a"}, {**PAIR, "response_b": "Yes.", "choice": "a"}]
    file = written(tmp_path / "a.csv", "table", [good, *rows])
    report = import_judgements(project, file, "table")
    assert report.added == 1
    assert [(row.line, row.reason.split(" ")[0]) for row in report.refused] == [(3, "the"), (4, "has"), (5, "the")]
    assert all(row.fix for row in report.refused)
    with pytest.raises(UserError, match="3 rows can't be used, so nothing was imported"):
        import_judgements(project, file, "table", name="strict", strict=True)
    with project.database.read() as session:
        assert len(session.scalars(select(Judgement)).all()) == 1


NULLS = [
    (format, key)
    for format, records in HOLDS.items()
    for key in ("prompt", "question", "info", "instruction", "completions", "conversation_a", "data", "fields", "chosen")
]


@pytest.mark.parametrize(("format", "key"), NULLS)
def test_a_null_is_a_bad_row_and_no_crash(tmp_path: Path, format: str, key: str) -> None:
    form = RECORD_FORMATS[format]
    assert form.write is not None
    if form.file in ("csv", "tsv"):
        return
    rows = [dict(row) for row in form.write([HOLDS[format][0]])]
    if key in rows[0]:
        (tmp_path / "a.jsonl").write_text(json.dumps({**rows[0], key: None}) + "\n" + json.dumps({**rows[0], key: 7}) + "\n", encoding="utf-8")
        assert all(isinstance(item, BadRow) and item.fix for item in form.read(Source(tmp_path / "a.jsonl")))


CELLS: dict[str, tuple[dict[str, Any], str, str]] = {
    "arena": ({"model_a": "m1", "model_b": "m2", "winner_model_a": 1, "prompt": '["Is it?"]', "response_b": '["No."]'}, "response_a", '["%s"]'),
    "table": ({**PAIR, "choice": "a"}, "prompt", '[{"role": "user", "content": "%s"}]'),
    "crowd-kit": ({"worker": "w", "left": "Yes.", "right": "No.", "label": "No."}, "prompt", '[{"role": "user", "content": "%s"}]'),
}


@pytest.mark.parametrize("format", CELLS)
@pytest.mark.parametrize("harm", [r"\ud83d", r"\u0000"])
def test_json_in_a_cell_is_as_clean_as_the_file(projects: Any, tmp_path: Path, format: str, harm: str) -> None:
    """One such row ended the whole import with a traceback."""
    row, key, inside = CELLS[format]
    file = json_file(tmp_path, {**row, key: inside % "Yes."}, {**row, key: inside % harm})
    report = import_judgements(projects(), file, format)
    assert (report.added, [row.line for row in report.refused]) == (1, [2])


def test_battles_whose_conversations_are_written_as_json(tmp_path: Path) -> None:
    cells = {name: json.dumps(turns).replace("No.", r"\ud83d") for name, turns in CONVERSATIONS.items()}
    (found,) = RECORD_FORMATS["arena"].read(Source(json_file(tmp_path, {"model_a": "m1", "model_b": "m2", "winner": "tie", **cells})))
    assert isinstance(found, BadRow)


RANKED = {"prompt": "Is it?", "items": [{"id": "x", "text": "Yes."}, {"id": "y", "text": "No."}]}


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("label-studio", {"data": {**RANKED, "items": None, "list": RANKED["items"], "answer1": "Yes.", "answer2": "No."},
                          "annotations": [{"result": [result("ranker", "r", ranker={"best": ["x", "y"]})]}]}),
        ("label-studio", {"data": RANKED, "annotations": [{"result": 7}]}),
        ("label-studio", {"data": RANKED, "annotations": [{"result": [result("ranker", "r", ranker=7)]}]}),
        ("label-studio", {"data": RANKED, "annotations": [{"result": [result("ranker", "r", ranker={"best": ["x", ["y", 3]]}), 7]}]}),
        ("crowd-kit", {"worker": "w", "left": "Yes.", "right": "No.", "label": "No.", "prompt": 7}),
        ("crowd-kit", {"worker": "w", "left": "Yes.", "right": "No.", "label": "No.", "prompt": {"a": 1}}),
    ],
)  # fmt: skip
def test_a_cell_of_another_type_is_a_bad_row_and_no_crash(tmp_path: Path, format: str, row: dict[str, Any]) -> None:
    (found,) = RECORD_FORMATS[format].read(Source(json_file(tmp_path, row)))
    assert isinstance(found, BadRow)


KEYS = ["prompt", "text", "role", "content", "replies", "value", "result", "type", "data", "fields", "responses", "a", "b", "rank", "choice"]
LEAVES = st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3)
rubbish: st.SearchStrategy[Any] = st.deferred(lambda: LEAVES | st.lists(rubbish, max_size=3) | st.dictionaries(st.sampled_from(KEYS), rubbish, max_size=4))


@settings(max_examples=40)
@given(st.data())
@pytest.mark.parametrize("format", [name for name, form in RECORD_FORMATS.items() if form.file in ("json", "jsonl")])
def test_whatever_a_row_holds_the_reader_says_what_is_wrong(tmp_path_factory: pytest.TempPathFactory, format: str, data: st.DataObject) -> None:
    row: dict[str, Any] = {}
    if format in HOLDS:
        form = RECORD_FORMATS[format]
        assert form.write is not None
        row = dict(next(iter(form.write([data.draw(st.sampled_from(HOLDS[format]))]))))
    for key in data.draw(st.lists(st.sampled_from(sorted(row) or ["prompt"]), max_size=3)):
        row[key] = data.draw(rubbish)
    path = json_file(tmp_path_factory.mktemp("rubbish"), row)
    for item in RECORD_FORMATS[format].read(Source(path)):
        assert isinstance(item, (Numbered, BadRow))


@pytest.mark.parametrize("wrong", [{"role": []}, {"replies": 5}, {"replies": [[]]}, {"replies": [{"role": "assistant", "rank": 0, "text": {}}]}], ids=str)
def test_what_is_wrong_deep_in_a_tree_is_said(tmp_path: Path, wrong: dict[str, Any]) -> None:
    tree = {"message_tree_id": "t", "prompt": {"text": "Is it?", "role": "prompter", "replies": [], **wrong}}
    (found,) = RECORD_FORMATS["oasst"].read(Source(json_file(tmp_path, tree)))
    assert isinstance(found, BadRow)


# ---- which file, which format ----


def test_preview_writes_nothing(projects: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", "table", [{**PAIR, "prompt": f"Is it {n}?", "choice": "a" if n else "?", "annotator": f"w{n % 3}"} for n in range(30)])
    before = sorted(tmp_path.iterdir())
    preview = preview_import(file, rows=5)
    assert (preview.format, preview.guessed, preview.kinds, preview.refused_seen, preview.annotators, preview.whole) == (
        "table",
        True,
        {"pair": 29},
        1,
        3,
        True,
    )
    assert [item.line for item in preview.records] == [3, 4, 5, 6, 7]
    assert preview.refused[0].line == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_with_one_file_of_judgements(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    written(tmp_path / "deep" / "a.csv", "table", [{**PAIR, "choice": "a"}])
    (tmp_path / "README.md").write_text("Hello")
    (tmp_path / "notes.json").write_text('{"a": 1}')
    assert find(tmp_path, "auto")[:2] == (tmp_path / "deep" / "a.csv", "table")
    with pytest.raises(UserError, match="looks like arena"):
        find(tmp_path, "arena")
    written(tmp_path / "b.csv", "table", [{**PAIR, "choice": "a"}])
    with pytest.raises(UserError, match="holds 2 files of judgements"):
        find(tmp_path, "auto")
    with pytest.raises(UserError, match="look like no format"):
        find(tmp_path / "notes.json", "auto")


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a": 2}]', '[\n  {"a": 1},\n  {"a":\n 2}\n]\n', '{"a": 1}\n{"a": 2}\n', '{\n "a": 1\n}\n{\n "a": 2\n}', '\ufeff[{"a": 1},{"a": 2}]']
)
def test_json_however_it_is_laid_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    assert [row.value for row in Source(tmp_path / "a.json").rows() if not isinstance(row, BadRow)] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_tables_with_other_signs_between_the_cells(tmp_path: Path, sign: str) -> None:
    (tmp_path / "a.csv").write_text(f"prompt{sign}response_a{sign}response_b{sign}choice\nIs it?{sign}Yes.{sign}No.{sign}b\n")
    assert [record.answer for record in read(tmp_path / "a.csv", "table")] == [{"strength": -2}]


def test_a_table_whose_first_column_has_no_name(tmp_path: Path) -> None:
    """As pandas writes it: the number of the row."""
    (tmp_path / "a.csv").write_text(",prompt,response_a,response_b,choice\n0,Is it?,Yes.,No.,a\n", encoding="utf-8")
    (found,) = RECORD_FORMATS["table"].read(Source(tmp_path / "a.csv"))
    assert isinstance(found, Numbered)
    assert found.record.answer == {"strength": MODERATE}


def test_true_is_no_strength_though_it_equals_one() -> None:
    responses = (Response("Yes."), Response("No."))
    assert checked(Record(Kind.PAIR, turns_of("Is it?"), responses, {"strength": 1}))
    for strength in (True, 4, 1.0):
        with pytest.raises(UserError, match="no answer to a pair question"):
            checked(Record(Kind.PAIR, turns_of("Is it?"), responses, {"strength": strength}))


def test_small_words() -> None:
    assert dense([0.5, 3, 0.5, 1]) == [1, 3, 1, 2]
    assert [milliseconds(value) for value in ("2.5", 0, -1, None, True, "x", 10**9)] == [2500, 0, None, None, None, None, None]
    assert moment("2026-01-02T12:30:00Z") == moment(1767357000) == moment(1767357000000) == moment("2026-01-02 12:30:00") == NOON
    odd: list[Any] = [None, "", "soon", -1, True, 10**400, {}, "0001-01-01"]
    assert [moment(value) for value in odd] == [None] * 8


# ---- real data ----

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"the real data are not at {DATA}")


@pytest.mark.slow
@needs_data
@pytest.mark.parametrize(
    ("folder", "format", "kinds", "facts"),
    [
        ("llmfao", "llmfao", {"pair": 8931}, {"questions": 2139, "prompts": 13, "annotators": 124}),
        ("finegrained_rlhf_dev", "finegrained-rlhf", {"pair": 3000, "edit": 487}, {"questions": 3487, "prompts": 500, "annotators": 1}),
        ("halueval_general", "halueval", {"thumbs": 4507}, {"questions": 4507, "prompts": 4507, "annotators": 1}),
        ("hh_rlhf_harmless_test", "hh-rlhf", {"pair": 2312}, {"questions": 2312, "annotators": 1}),
    ],
)
def test_the_real_data(projects: Any, tmp_path: Path, folder: str, format: str, kinds: dict[str, int], facts: dict[str, int]) -> None:
    project = projects()
    report = import_judgements(project, DATA / folder, "auto")
    assert (report.format, report.added, report.refused) == (format, sum(kinds.values()), [])
    assert {name: getattr(report, name) for name in facts} == facts
    assert import_judgements(project, DATA / folder, format)[:2] == (0, sum(kinds.values()))
    with project.database.read() as session:
        found = Counter(session.scalars(select(Question.kind).join(Judgement)))
        assert found == kinds
        if folder == "llmfao":
            ties = sum(answer["strength"] == 0 for answer in session.scalars(select(Judgement.answer)))
            assert (ties, len(session.scalars(select(Policy)).all())) == (3471, 59)
    assert export_judgements(project, "label-studio", tmp_path / "out.json").written == sum(kinds.values())


# ---- the documentation ----


def test_the_table_in_the_docs_lists_every_format() -> None:
    cells = [[cell.strip() for cell in line.strip("|\n ").split(" | ")] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in cells] == list(FORMATS)
    for name, about, _, drops in (row[:4] for row in cells if row[0].strip("`") in RECORD_FORMATS):
        form = RECORD_FORMATS[name.strip("`")]
        assert (about, drops) == (form.about, form.drops)
