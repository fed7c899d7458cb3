"""Argilla's records: fields, and the answers of several people under each question's name. Read are those of version 2 (`responses` by question) and of
version 1 (`responses` by person)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.errors import BadRow, UserError
from truing.feedback.formats import sheet
from truing.feedback.formats.names import CHOICES, EDITS, NUMBERED, THUMBS
from truing.feedback.formats.record import Format, Numbered, Record, Source, dense, each, obj, person
from truing.feedback.formats.scales import FIRST, SECOND, TIES, Scale
from truing.store.ids import content_id

Given = dict[str, Any]  # question → value


def _read(source: Source) -> Iterator[Numbered | BadRow]:
    known = sheet.head(source, _plain)
    return each(lambda value: _records(value, known))(source)


def _plain(row: dict[str, Any]) -> Iterator[Given]:
    """What each person answered, as cells, without rankings: they tell the scales, where they are numbers."""
    try:
        for _, given in _by_person(row.get("responses")):
            yield {name: found for question, value in given.items() if not isinstance(value, list) for name, found in _cells(question, value, {}).items()}
    except UserError:  # it is said when the row is read
        return


def _records(value: Any, known: Mapping[str, Scale]) -> Iterator[Record | UserError]:
    row = obj(value)
    fields = {name.replace("-", "_"): found for name, found in obj(row.get("fields")).items()}
    turns = sheet.prompt_of(fields)
    answers = _by_person(row.get("responses"))
    if not answers:
        raise UserError("has no responses that were submitted", fix="export the records with their responses, or leave out those without")
    for place, (who, given) in enumerate(answers):
        given = {name: found for question, value in given.items() for name, found in _cells(question, value, fields).items()}
        for item in sheet.answers(fields, given, known):
            yield item if isinstance(item, UserError) else Record(item[0], turns, *item[1:], annotator=who, vote=place)


def _by_person(responses: Any) -> list[tuple[str | None, Given]]:
    """(who, their answers), in the order of the file."""
    if isinstance(responses, list):  # version 1
        return [(person(one.get("user_id")), _values(obj(one.get("values")))) for one in map(obj, responses) if _submitted(one) and one.get("values")]
    found: dict[Any, Given] = {}
    for question, given in (responses if isinstance(responses, dict) else {}).items():
        for place, one in enumerate(map(obj, given if isinstance(given, list) else [])):
            who = person(one.get("user_id"))
            if _submitted(one):
                found.setdefault(who if who is not None else place, {})[str(question)] = one.get("value")
    return [(key if isinstance(key, str) else None, given) for key, given in found.items()]


def _submitted(one: Mapping[str, Any]) -> bool:
    """Whether this is an answer: a draft isn't one yet, and what was discarded no longer."""
    return one.get("status") in (None, "submitted")


def _values(values: Mapping[str, Any]) -> Given:
    return {name: value.get("value") if isinstance(value, dict) else value for name, value in values.items()}


def _cells(question: str, value: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A question's answer as cells. A ranking's values name fields, best first, or carry ranks."""
    name = question.replace("-", "_")
    if isinstance(value, list) and value and name != "flags":
        return {"ranks": _ranks(value, fields)}
    if isinstance(value, str):
        value = value.replace("-", "_") if value.replace("-", "_") in fields else value
    known = name.startswith("rating:") or name in ("comment", "flags", "skip", "kind", "edit", "thumbs", "strength", "choice")
    if not known and isinstance(value, int) and not isinstance(value, bool):
        return {f"rating:{name.lower()}": value}
    if not known and isinstance(value, str) and not any(name.lower() in names for names in (CHOICES, THUMBS, EDITS)):
        return {"choice": value} if value.lower() in FIRST | SECOND | TIES else {"comment": value}
    return {name: value}


def _ranks(value: Sequence[Any], fields: Mapping[str, Any]) -> list[int]:
    places, _ = sheet.responses_of(fields)
    found: dict[str, float] = {}
    for place, item in enumerate(value, start=1):
        name, rank = (str(item.get("value")), item.get("rank", place)) if isinstance(item, dict) else (str(item), place)
        match = NUMBERED.fullmatch(name.replace("-", "_"))
        if match and isinstance(rank, int):
            found[match["place"].lower()] = rank
    if any(place not in found for place in places):
        raise UserError("a ranking leaves out some of the responses", fix="rank every response, or leave the record out")
    return dense([found[place] for place in places])


def _write(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """A record with the answers of everyone whom it was asked."""
    fields = sheet.fields(records[0])
    responses: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        for name, value in _said(record).items():
            responses.setdefault(name, []).append({"value": value, "user_id": record.annotator})
    yield {
        "id": content_id("record", str(records[0].kind), fields),
        "fields": fields,
        "metadata": {},
        "suggestions": {},
        "responses": responses,
        "status": "completed",
    }


def _said(record: Record) -> dict[str, Any]:
    found = sheet.said(record)
    if "ranks" in record.answer:
        names = [name for name in sheet.fields(record) if name.startswith("response_")]
        found["ranks"] = [{"value": name, "rank": rank} for name, rank in zip(names, record.answer["ranks"], strict=True)]
    if "flags" in found:
        found["flags"] = record.answer["flags"]
    return found


def _why_not(record: Record) -> str | None:
    if record.annotator is None and record.vote:
        return "another answer of nobody's"
    return "check question" if record.gold is not None else sheet.why_not(record)


ARGILLA = Format(
    "Argilla's records, version 2 or 1: `fields` named as in `table`, `responses` with a value and a user for each question",
    "jsonl", _read, lambda row: "fields" in row and "responses" in row,
    "when, how long and in which order shown; whether a model judged; check questions; aspects with capital letters; more than 9 responses",
    _why_not, _write, together=True,
)  # fmt: skip
