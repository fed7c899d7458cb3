"""Rows of named cells, as people keep them in tables: read into answers, and written in the plainest of the names that are read.

MTurk, Toloka, Argilla and Label Studio put the same cells in envelopes of their own.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

from truing.errors import UserError
from truing.feedback.formats.names import PLACES, SINGLE, Group, Layout, group_of, layout, standing
from truing.feedback.formats.record import MODERATE, Record, Response, Source, as_number, conversation, dense, flat, inner, person, whole, words
from truing.feedback.formats.scales import Scale, leaning
from truing.feedback.formats.unpaired import YES_NO, yes_or_no
from truing.store.conversations import Turn, checked_prompt
from truing.store.rows import Row
from truing.store.tables import Kind

Cells = Mapping[str, Any]
HEAD, MOST_ROWS = 1000, 100_000  # rows that tell whether columns of preferences are numbers, and on which scale


def prompt_of(cells: Cells, columns: Layout | None = None) -> list[Turn]:
    """The conversation: a text, turns, or turns written as JSON; an `input` under an `instruction` follows it.

    Args:
        columns: the layout of the cells, from whoever has it at hand.

    Raises:
        UserError: there is none.
    """
    key = standing(cells, (columns or layout(cells)).prompts)
    if key is None:
        raise UserError("has no prompt", fix="name a column `prompt` (or messages, conversation, instruction, question, ...)")
    value = flat(cells[key])
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        value = inner(value)
    if isinstance(value, str) and key == "instruction" and isinstance(cells.get("input"), str) and cells["input"].strip():
        value = f"{value}\n\n{cells['input']}"
    return _asked(value) if isinstance(value, str) else checked_prompt(conversation(value) if isinstance(value, list) else value)


@lru_cache(maxsize=2)  # rows about one prompt stand together; more would keep texts of megabytes
def _asked(text: str) -> list[Turn]:
    """A text as a prompt. Those who have the same one share it, and nobody changes it."""
    return checked_prompt(text)


def responses_of(cells: Cells, columns: Layout | None = None) -> tuple[Sequence[str], Sequence[Response]]:
    """(name of each place, response): from a list, from numbered columns, or the single one. Lower case names.

    Args:
        columns: the layout of the cells, from whoever has it at hand.

    Raises:
        UserError: there is none.
    """
    columns = columns or layout(cells)
    items = in_a_list(cells, columns)
    if items is not None:
        return [str(place) for place in range(len(items))], [_response(item) for item in items]
    several = NONE
    for group in columns.numbered:
        filled = _filled(group, cells, columns)
        if len(filled.names) > len(several.names):
            several = filled
    if len(several.names) > 1:
        texts, models = [cells[name] for name in several.columns], [person(cells[name]) if name else None for name in several.models]
        return several.names, _shared(tuple(texts), tuple(models))
    key = standing(cells, columns.single)
    if key is None or not isinstance(cells[key], str):
        raise UserError("has no responses", fix="name columns `response_a` and `response_b`, or one `response`")
    return ["response"], [Response(cells[key], person(cells.get("model")))]


def named(places: Sequence[str], cells: Cells, columns: Layout | None = None) -> Sequence[str]:
    """What the columns call the responses in these places; of a list, nothing: its numbers are ours."""
    return places if in_a_list(cells, columns or layout(cells)) is None else ()


def in_a_list(cells: Cells, columns: Layout) -> list[Any] | None:
    """The responses that stand in one list; None: they don't."""
    key = standing(cells, columns.lists)
    found = cells[key] if key else None
    return found if isinstance(found, list) and found else None


@lru_cache(maxsize=2)  # votes on one question stand together
def _shared(texts: tuple[str, ...], models: tuple[str | None, ...]) -> tuple[Response, ...]:
    """Responses. Those who have the same ones share them."""
    return tuple(map(Response, texts, models))


NONE = Group((), (), ())


def _filled(group: Group, cells: Cells, columns: Layout) -> Group:
    """The places with texts, without empty ones at the end, which a table has where another row needs more of them."""
    for name in group.columns:
        if not isinstance(cells[name], str) or not cells[name]:
            break
    else:
        return group
    found = [(place, name) for place, name in zip(group.names, group.columns, strict=True) if isinstance(cells[name], str)]
    while found and not cells[found[-1][1]] and (len(found) > 2 or not cells[found[0][1]]):
        found.pop()
    return group_of(found, columns.models)


def _response(item: Any) -> Response:
    if isinstance(item, dict):
        key = next((name for name in (*SINGLE, "content", "body", "value") if item.get(name) is not None), None)
        return Response(flat(item[key]) if key else "", person(item.get("model", item.get("model_name"))))
    if not isinstance(item, str):
        raise UserError("a response is no text", fix="write it as text, or leave the row out")
    return Response(item)


def scales(rows: Iterable[Cells]) -> dict[str, Scale]:
    """The scale of each column that may hold preferences, from `HEAD` rows; where there are numbers in them, from `MOST_ROWS`: a file may be sorted."""
    found: dict[str, set[float]] = {}
    for place, cells in enumerate(islice(rows, MOST_ROWS)):
        if place >= HEAD and not found:
            break
        columns = layout(cells)
        for key in (standing(cells, columns.degrees), standing(cells, columns.choices)):
            number = as_number(cells[key]) if key else None
            if key and number is not None:
                found.setdefault(key, set()).add(number)
    return {key: Scale(min(numbers), max(numbers), all(number == int(number) for number in numbers)) for key, numbers in found.items()}


def head(source: Source, cells: Callable[[dict[str, Any]], Iterable[Cells]]) -> dict[str, Scale]:
    """The scales of the columns of a file.

    Args:
        source: the file.
        cells: the cells with answers in a row.
    """
    rows = (row.value for row in source.rows() if isinstance(row, Row) and isinstance(row.value, dict))
    return scales(found for row in rows for found in cells(row))


def answers(
    asked: Cells, said: Cells, known: Mapping[str, Scale], columns: Layout | None = None
) -> Iterator[tuple[Kind, tuple[Response, ...], dict[str, Any]] | UserError]:
    """(kind, responses, answer) for each thing that a row says, and a complaint about each rating off the scale that is left out beside them.

    Args:
        asked: the cells with the responses.
        said:  the cells with the answers; may be the same.
        known: column → its scale.
        columns: the layout of `said`, from whoever has it at hand.

    Raises:
        UserError: it says nothing.
    """
    columns = columns or layout(said)
    listing = columns if asked is said else layout(asked)
    places, listed = responses_of(asked, listing)
    responses = tuple(listed)
    comment, flags = _comment(said, columns), _flags(said)
    beside = {"comment": comment, "flags": flags} if comment or flags else {}
    found = False
    skip = said.get("skip")
    told = _about_one(responses, said, columns) if len(responses) == 1 else _about_several(places, responses, asked, listing, said, columns, known)
    for item in told:
        found = True
        yield item if isinstance(item, UserError) or not beside else (*item[:2], words(item[2], **beside))
    if not found and isinstance(skip, str) and skip.strip():
        kind = {1: Kind.RATING, 2: Kind.PAIR}.get(len(responses), Kind.RANKING)
        yield Kind(said["kind"]) if said.get("kind") in list(Kind) else kind, responses, words({"skip": skip}, **beside)
    elif not found:
        raise UserError(
            "says nothing that is known about its responses", fix="name a column `choice`, `ranks`, `rating`, `thumbs` or `edit`; or leave the row out"
        )


Said = Iterator[tuple[Kind, tuple[Response, ...], dict[str, Any]] | UserError]


def _about_one(responses: tuple[Response, ...], said: Cells, columns: Layout) -> Said:
    edit, thumbs = standing(said, columns.edits), standing(said, columns.thumbs)
    corrected = edit is not None and isinstance(said[edit], str) and bool(said[edit].strip())
    voted = thumbs is not None and (said[thumbs] is True or said[thumbs] is False or str(said[thumbs]).strip().lower() in YES_NO)
    aspects, off = _ratings(((aspect, name) for aspect, name in columns.ratings), said, alone=not corrected and not voted)
    if edit is not None and corrected:
        yield Kind.EDIT, responses, edited(said[edit], responses[0].text)
    if aspects:
        yield Kind.RATING, responses, {"aspects": aspects}
    if thumbs is not None and voted:
        yield Kind.THUMBS, responses, {"up": yes_or_no(said[thumbs], thumbs)}
    yield from off


T = TypeVar("T")


def _ratings(columns: Iterable[tuple[T, str]], said: Cells, *, alone: bool) -> tuple[dict[T, int], list[UserError]]:
    """(the rating of each thing, complaints about those that are off the scale).

    Args:
        columns: (thing, column).
        said:    the cells.
        alone:   the row says nothing beside them.

    Raises:
        UserError: one is off the scale, and there is nothing beside it.
    """
    found: dict[T, int] = {}
    off: list[UserError] = []
    for thing, name in columns:
        if as_number(said[name]) is None:
            continue
        try:
            found[thing] = whole(said[name], 1, 7, name)
        except UserError as error:
            if alone:
                raise
            off.append(UserError(f"{error.what}: this rating is left out, what the row says beside it is taken", fix=error.fix))
    return found, off


def edited(text: str, original: str) -> dict[str, Any]:
    """The answer of someone who was to edit a response and gave this."""
    return {"unchanged": True} if text.strip() == original.strip() else {"text": text}


def _about_several(
    places: Sequence[str], responses: tuple[Response, ...], asked: Cells, listing: Layout, said: Cells, columns: Layout, known: Mapping[str, Scale]
) -> Said:
    ranks = _ranks(places, asked, listing, said, columns)
    preferred = list(_preference(responses, named(places, asked, listing), said, columns, known)) if len(responses) == 2 else []
    if ranks is not None:
        yield Kind.RANKING, responses, {"ranks": ranks}
    yield from preferred
    if not columns.rated:
        return
    numbers = (((place, aspect), name) for aspect, place, name in columns.rated if place in places)
    found, off = _ratings(numbers, said, alone=ranks is None and not preferred)
    rated: dict[str, dict[str, int]] = {}
    for (place, aspect), rating in found.items():
        rated.setdefault(place, {})[aspect] = rating
    for place, aspects in rated.items():
        yield Kind.RATING, (responses[places.index(place)],), {"aspects": aspects}
    yield from off


def _preference(responses: tuple[Response, ...], names: Sequence[str], said: Cells, columns: Layout, known: Mapping[str, Scale]) -> Said:
    degree, choice = standing(said, columns.degrees), standing(said, columns.choices)
    if choice is not None and not isinstance(said[choice], (list, dict)):
        answer = leaning(said[choice], responses, known.get(choice), names)
        if degree is not None and abs(answer.get("strength", 0)) == MODERATE and as_number(said[degree]) is not None:
            size = whole(said[degree], -3, 3, degree)  # how much, beside which
            answer = {"strength": abs(size) if answer["strength"] > 0 else -abs(size)} if size else answer
        yield Kind.PAIR, responses, answer
    elif degree is not None:
        yield Kind.PAIR, responses, leaning(said[degree], responses, known.get(degree), names, degree=True)


def _ranks(places: Sequence[str], asked: Cells, listing: Layout, said: Cells, columns: Layout) -> list[int] | None:
    """A rank for each response: from a list, from `1,2,2`, from `B>A=C`, from a column or an element each."""
    if columns.ranks:
        by_place = {place: number for place, name in columns.ranks.items() if (number := as_number(said[name])) is not None}
        if by_place.keys() >= set(places):
            return dense([by_place[place] for place in places])
    key = standing(said, columns.rankings)
    value = said[key] if key else None
    if value is None:
        several = standing(asked, listing.lists)
        items = asked[several] if several else None
        value = [item.get("rank") if isinstance(item, dict) else None for item in items] if isinstance(items, list) else None
    if isinstance(value, str):
        value = _written_ranks(value, places)
    if not isinstance(value, list) or len(value) != len(places) or any(as_number(rank) is None for rank in value):
        return None
    return dense([float(rank) for rank in value])


def _written_ranks(value: str, places: Sequence[str]) -> list[Any] | None:
    if ">" in value:
        groups = [[name.strip().lower() for name in group.split("=")] for group in value.split(">")]
        found = {name: rank for rank, group in enumerate(groups, start=1) for name in group}
        return [found.get(place) for place in places]
    return re.split(r"[\s,;]+", value.strip("[]() "))


def _comment(said: Cells, columns: Layout) -> str | None:
    key = standing(said, columns.comments)
    return said[key] if key and isinstance(said[key], str) else None


def _flags(said: Cells) -> list[str]:
    value = said.get("flags")
    if not value:
        return []
    found = value if isinstance(value, list) else [flag.strip() for flag in value.split("|")] if isinstance(value, str) else []
    return list(dict.fromkeys(flag for flag in found if isinstance(flag, str) and flag))


def fields(record: Record) -> dict[str, str]:
    """The prompt, the responses and their models, as cells: what `prompt_of` and `responses_of` read."""
    plain = len(record.turns) == 1 and not record.turns[0]["content"].lstrip().startswith("[{")
    found = {"prompt": record.turns[0]["content"] if plain else written(record.turns)}
    names = ["response"] if len(record.responses) == 1 else [f"response_{_place(place)}" for place in range(len(record.responses))]
    for name, response in zip(names, record.responses, strict=True):
        found[name] = response.text
        if response.model is not None:
            found[name.replace("response", "model")] = response.model
    return found


def _place(place: int) -> str:
    return PLACES[place] if place < len(PLACES) else str(place)


def said(record: Record, answer: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An answer as cells: what `answers` reads."""
    answer = record.answer if answer is None else answer
    found: dict[str, Any] = {"comment": answer.get("comment"), "flags": "|".join(answer.get("flags", [])) or None}
    if "skip" in answer:
        found |= {"skip": answer["skip"], "kind": str(record.kind)}
    elif "both_bad" in answer:
        found["choice"] = "both bad"
    elif "strength" in answer:
        strength = answer["strength"]
        found |= {"choice": "a" if strength > 0 else "b", "strength": abs(strength)} if strength else {"choice": "tie"}
    elif "ranks" in answer:
        found["ranks"] = ",".join(map(str, answer["ranks"]))
    elif "aspects" in answer:
        found |= {f"rating:{name}": value for name, value in answer["aspects"].items()}
    elif "up" in answer:
        found["thumbs"] = "up" if answer["up"] else "down"
    else:
        found["edit"] = answer.get("text", record.responses[0].text)
    return {name: value for name, value in found.items() if value is not None}


def why_not(record: Record) -> str | None:
    """Why a record can't stand in cells; None if it can."""
    texts = [response.text for response in record.responses]
    if (not texts[-1] and len(texts) != 2) or not any(texts):
        return "an empty response at the end"
    if len(record.responses) > len(PLACES):
        return f"more than {len(PLACES)} responses"
    if any(name != name.lower() for name in record.answer.get("aspects", {})):
        return "an aspect with capital letters"
    return None


def written(value: Any) -> str:
    """A value as JSON in a cell."""
    return json.dumps(value, ensure_ascii=False)
