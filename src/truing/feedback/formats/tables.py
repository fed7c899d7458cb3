"""Tables of people's answers: plain ones, crowd-kit's frames, and those that MTurk and Toloka hand out.

Cells that a spreadsheet might run (they begin with = + - @, a tab or a carriage return) are written with a `'` in front. A table that Truing wrote says so
in its last column, and only there is the `'` taken away again.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from truing.errors import BadRow, UserError
from truing.feedback.formats import sheet
from truing.feedback.formats.names import PLACES, Layout, layout, standing
from truing.feedback.formats.record import (
    MODERATE,
    Format,
    Numbered,
    Record,
    Response,
    Source,
    as_number,
    as_shown,
    conversation,
    each,
    inner,
    listed_order,
    milliseconds,
    moment,
    no_preference,
    obj,
    one,
    person,
    text,
)  # fmt: skip
from truing.feedback.formats.scales import Scale, leaning
from truing.feedback.formats.unpaired import YES_NO
from truing.store.conversations import Turn, checked_prompt, turns_of
from truing.store.tables import Kind

Cells = Mapping[str, Any]

OURS, OUR_NAME = "exported_by", "truing"
RISKY = re.compile(r"'*[=+\-@\t\r]")


# ---- cells ----


def safe(value: Any) -> str:
    """A cell that no spreadsheet runs."""
    cell = "" if value is None else str(value)
    return f"'{cell}" if RISKY.match(cell) else cell


def unsafe(cell: Any) -> Any:
    """What `safe` made of it before."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and RISKY.match(cell) else cell


def own(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without our mark and without what was put before its cells because of it."""
    if row.get(OURS) != OUR_NAME:
        return row if isinstance(row, dict) else dict(row)
    return {name: unsafe(cell) for name, cell in row.items() if name != OURS}


def ours(row: Mapping[str, Any]) -> dict[str, str]:
    """The row as a table of ours holds it."""
    return {**{name: safe(cell) for name, cell in row.items()}, OURS: OUR_NAME}


def _time(when: datetime | None) -> str | None:
    return when.isoformat() if when else None


def _seconds(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else f"{milliseconds / 1000:g}" if milliseconds % 1000 == 0 else str(milliseconds / 1000)


def _part(row: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The cells whose column begins so, without that beginning."""
    return {key[len(part) :]: value for key, value in row.items() if key.startswith(part)}


# ---- plain tables ----


def _read_table(source: Source) -> Iterator[Numbered | BadRow]:
    known = sheet.head(source, lambda row: (said for said, _ in _said(own(row))))
    for row in source.rows():
        if isinstance(row, BadRow):
            yield row
        else:
            yield from one(source, row, lambda value: _table_records(own(obj(value)), known))


def _table_records(row: dict[str, Any], known: Mapping[str, Scale]) -> Iterator[Record | UserError]:
    turns = sheet.prompt_of(row, layout(row))
    for place, (said, columns) in enumerate(_said(row)):
        yield from _table_row(turns, row, said, columns, known, place)


def _said(row: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Layout]]:
    """The cells of each answer in a row, with their layout: the row itself, or each vote in a list."""
    if "human_ref_A" in row:
        row = _of_shp(row)
    columns = layout(row)
    votes = next((row[name] for name in columns.votes if isinstance(row[name], list)), None) if columns.votes else None
    if votes is None:
        yield row, columns
    for vote in votes or ():
        said = vote if isinstance(vote, dict) else {"choice": vote}
        yield said, layout(said)


def _of_shp(row: dict[str, Any]) -> dict[str, Any]:
    """A row of Stanford's SHP (Ethayarajh et al. 2022, arXiv:2110.08420), which says 1 for A, and whose scores are votes on Reddit and no ratings."""
    label = as_number(row.get("labels"))
    kept = {name: value for name, value in row.items() if name not in ("score_A", "score_B")}
    return {**kept, "labels": "a" if label else "b"} if label in (0, 1) else kept


def _table_row(turns: list[Turn], row: Cells, said: Cells, columns: Layout, known: Mapping[str, Scale], vote: int) -> Iterator[Record | UserError]:
    who, when, seconds = standing(said, columns.people), standing(said, columns.when), standing(said, columns.seconds)
    submitted = moment(said[when]) if when else None
    started = (moment(said["started_at"]) if "started_at" in said else None) or submitted
    active = milliseconds(said[seconds]) if seconds else None
    shown = str(said["shown"]).split(",") if said.get("shown") else None
    for item in sheet.answers(row, said, known, columns):
        if isinstance(item, UserError):
            yield item
            continue
        kind, responses, answer = item
        whole = shown is not None and len(shown) == len(responses)
        order = tuple(_place(name) for name in shown) if shown and whole else None
        name = person(said[who]) if who else None
        yield Record(kind, turns, responses, answer, name, said.get("judged_by") == "model", vote, order, started, submitted, active)


def _place(name: str) -> int:
    name = name.strip().lower()
    return PLACES.index(name) if name in PLACES else -1


def _write_table(records: Sequence[Record]) -> Iterator[dict[str, str]]:
    for record in records:
        yield ours(
            {
                **sheet.fields(record), **sheet.said(record), "annotator": record.annotator, "judged_by": "model" if record.judge else None,
                "shown": ",".join(PLACES[place] for place in record.shown) if record.shown else None,
                "started_at": _time(record.started_at), "submitted_at": _time(record.submitted_at), "seconds": _seconds(record.active_ms),
            }
        )  # fmt: skip


def _in_a_sheet(record: Record) -> str | None:
    return "check question" if record.gold is not None else sheet.why_not(record)


def _fits_table(row: Mapping[str, Any]) -> bool:
    try:
        sheet.prompt_of(row)
        return bool(sheet.responses_of(row))
    except UserError:
        return False


# ---- crowd-kit ----


def _read_frame(value: Any) -> Iterator[Record | UserError]:
    row = own(obj(value))
    worker, label = person(row.get("worker")), row.get("label")
    if "left" not in row:
        for item in sheet.answers({"response": text(row, "task")}, _labelled(label), {}):
            yield item if isinstance(item, UserError) else Record(item[0], turns_of(ASKED), *item[1:], annotator=worker)
        return
    prompt = row.get("prompt") or ASKED
    turns = checked_prompt(conversation(inner(prompt)) if isinstance(prompt, str) and prompt.startswith("[{") else prompt)
    responses = tuple(Response(text(row, side), person(row.get(f"model_{side}"))) for side in ("left", "right"))
    yield Record(Kind.PAIR, turns, responses, _of_item(label, responses), annotator=worker, shown=listed_order(row))


def _of_item(label: Any, responses: Sequence[Response]) -> dict[str, Any]:
    """The answer of a label, which is the better item itself, whatever it is called; else a word or the name of a model."""
    items = [response.text for response in responses]
    if str(label) in items:
        return {"strength": -MODERATE if items.index(str(label)) else MODERATE}
    return leaning(label, responses, None, ("left", "right"))


def _labelled(label: Any) -> dict[str, Any]:
    """A label of one task: a yes or no, or a rating."""
    return {"thumbs": label} if str(label).strip().lower() in YES_NO else {"rating": label}


ASKED = "Which do you prefer?"  # the prompt where a frame has only the names of what was compared


def _write_frame(records: Sequence[Record]) -> Iterator[dict[str, str]]:
    for record, order in map(as_shown, records):
        ahead = record.responses[0 if record.answer["strength"] > 0 else 1].text
        left, right = record.responses
        yield ours(
            {
                "worker": record.annotator, "left": left.text, "right": right.text, "label": ahead, "prompt": sheet.fields(record)["prompt"],
                "model_left": left.model, "model_right": right.model, **order,
            }
        )  # fmt: skip


def _why_not_frame(record: Record) -> str | None:
    same = record.kind == Kind.PAIR and record.responses[0].text == record.responses[1].text
    return no_preference(record) or ("two responses of the same text" if same else None)


# ---- MTurk ----


def _read_mturk(source: Source) -> Iterator[Numbered | BadRow]:
    known = sheet.head(source, lambda row: _offered(_part(own(row), "Answer.")))
    for row in source.rows():
        if isinstance(row, BadRow):
            yield row
        else:
            yield from one(source, row, lambda value: _mturk_records(own(obj(value)), known))


def _mturk_records(row: dict[str, Any], known: Mapping[str, Scale]) -> Iterator[Record | UserError]:
    asked, given = _part(row, "Input."), _gathered(_part(row, "Answer."))
    turns = sheet.prompt_of(asked)
    seconds = milliseconds(row.get("WorkTimeInSeconds"))
    started, submitted = (_turk_time(row.get(name)) for name in ("AcceptTime", "SubmitTime"))
    for item in sheet.answers(asked, given, known):
        yield item if isinstance(item, UserError) else Record(
            item[0], turns, *item[1:], annotator=person(row.get("WorkerId")), started_at=started, submitted_at=submitted, active_ms=seconds,
        )  # fmt: skip


def _gathered(given: Mapping[str, Any]) -> dict[str, Any]:
    """Answers whose radio buttons stand in a column each (`choice.a` = true) as one cell."""
    found = {}
    for name, value in given.items():
        head, dot, tail = name.rpartition(".")
        if not dot:
            found[name] = value
        elif str(value).lower() in ("true", "on"):
            found[head] = tail
    return found


def _offered(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers, and each radio button that could have been chosen: they tell the scale, whichever were."""
    yield _gathered(given)
    for name in given:
        head, dot, tail = name.rpartition(".")
        if dot:
            yield {head: tail}


TURK_TIME = re.compile(r"\w{3} (?P<rest>\w{3} \d\d \d\d:\d\d:\d\d) (?P<zone>P[DS]T|UTC|GMT) (?P<year>\d{4})")
HOURS = {"PDT": "-0700", "PST": "-0800"}


def _turk_time(value: Any) -> datetime | None:
    """A time as MTurk writes it, `Fri Jan 02 03:04:05 PST 2026`, or as others do."""
    found = TURK_TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return moment(value)
    try:
        return moment(datetime.strptime(f"{found['rest']} {found['year']} {HOURS.get(found['zone'], '+0000')}", "%b %d %H:%M:%S %Y %z").isoformat())
    except ValueError:
        return None


def _write_mturk(records: Sequence[Record]) -> Iterator[dict[str, str]]:
    for record in records:
        yield ours(
            {
                "WorkerId": record.annotator, "AcceptTime": _time(record.started_at), "SubmitTime": _time(record.submitted_at),
                "WorkTimeInSeconds": _seconds(record.active_ms), **_named("Input.", sheet.fields(record)), **_named("Answer.", sheet.said(record)),
            }
        )  # fmt: skip


def _named(part: str, cells: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}{name}": value for name, value in cells.items()}


# ---- Toloka ----


def _read_toloka(source: Source) -> Iterator[Numbered | BadRow]:
    known = sheet.head(source, lambda row: (_part(own(row), part) for part in ("OUTPUT:", "GOLDEN:")))
    for row in source.rows():
        if isinstance(row, BadRow):
            yield row
        else:
            yield from one(source, row, lambda value: _toloka_records(own(obj(value)), known))


def _toloka_records(row: dict[str, Any], known: Mapping[str, Scale]) -> Iterator[Record | UserError]:
    asked, given, golden = _part(row, "INPUT:"), _part(row, "OUTPUT:"), _part(row, "GOLDEN:")
    turns = sheet.prompt_of(asked)
    right = _right(asked, golden, known) if any(golden.values()) else {}
    started, submitted = moment(row.get("ASSIGNMENT:started")), moment(row.get("ASSIGNMENT:submitted"))
    for item in sheet.answers(asked, given, known):
        yield item if isinstance(item, UserError) else Record(
            item[0], turns, *item[1:], annotator=person(row.get("ASSIGNMENT:worker_id")), started_at=started, submitted_at=submitted,
            active_ms=milliseconds(row.get("ASSIGNMENT:active_seconds")), gold=right.get(item[:2]),
        )  # fmt: skip


def _right(asked: Cells, golden: Cells, known: Mapping[str, Scale]) -> dict[tuple[Kind, tuple[Response, ...]], dict[str, Any]]:
    """(kind, responses) → the known answer. One that can't be used spoils the row: what people said would pass for no check."""
    found = {}
    for item in sheet.answers(asked, golden, known):
        if isinstance(item, UserError):
            raise item
        found[item[:2]] = item[2]
    return found


def _write_toloka(records: Sequence[Record]) -> Iterator[dict[str, str]]:
    for record in records:
        golden = sheet.said(record, record.gold) if record.gold is not None else {}
        yield ours(
            {
                **_named("INPUT:", sheet.fields(record)), **_named("OUTPUT:", sheet.said(record)), **_named("GOLDEN:", golden),
                "ASSIGNMENT:worker_id": record.annotator, "ASSIGNMENT:started": _time(record.started_at), "ASSIGNMENT:submitted": _time(record.submitted_at),
                "ASSIGNMENT:active_seconds": _seconds(record.active_ms),
            }
        )  # fmt: skip


def _has(*beginnings: str) -> Any:
    return lambda row: all(any(str(key).startswith(beginning) for key in row) for beginning in beginnings)


TABLE = Format(
    "a table of your own (CSV, TSV or JSON): `prompt`; `response_a`, `response_b` … or `response`; `choice`, `strength`, `ranks`, `rating`, `thumbs` or "
    "`edit`; other common names are known",
    "csv", _read_table, _fits_table, "check questions; aspects with capital letters; more than 9 responses", _in_a_sheet, _write_table,
)  # fmt: skip
CROWD_KIT = Format(
    "crowd-kit's frames: `worker`, `left`, `right`, `label` (pairs) or `worker`, `task`, `label` (thumbs, ratings), with a `prompt` if there is one",
    "csv", each(_read_frame), lambda row: "worker" in row and "label" in row and ("left" in row or "task" in row),
    "strength; ties, both bad and skips; flags and comments; when and how long; whether a model judged; check questions; every kind but `pair`",
    _why_not_frame, _write_frame,
)  # fmt: skip
MTURK = Format(
    "an MTurk batch: `Input.*` and `Answer.*` named as in `table`, `WorkerId`, `WorkTimeInSeconds`, `SubmitTime`",
    "csv", _read_mturk, _has("Input.", "Answer."), "check questions; in which order shown; aspects with capital letters; more than 9 responses",
    _in_a_sheet, _write_mturk, everywhere=True,
)  # fmt: skip
TOLOKA = Format(
    "a Toloka pool's answers: `INPUT:*`, `OUTPUT:*` and `GOLDEN:*` named as in `table`, `ASSIGNMENT:worker_id`",
    "tsv", _read_toloka, _has("INPUT:", "OUTPUT:"), "in which order shown; aspects with capital letters; more than 9 responses",
    sheet.why_not, _write_toloka, everywhere=True,
)  # fmt: skip
