"""What every format is read into and written from: one judgement with its prompt and responses, in nobody's notation.

An answer is the store's own (feedback/questions.py), about `responses` in the order in which the record lists them. Readers and writers are
pure: what a file doesn't tell is None, and nothing is looked up.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from truing.errors import BadRow, UserError
from truing.feedback.answers import check_answer
from truing.store.conversations import Turn, checked_turns
from truing.store.json_values import data_rows
from truing.store.rows import Row, bad_row, parse_json, require_clean
from truing.store.tables import Kind

MODERATE = 2  # of 3: the strength of a preference where a file says which was better and not by how much
MOST_RESPONSES = 64
LONGEST_PERSON = 200  # characters of a name that are kept


class Response(NamedTuple):
    """One answer to the prompt, and the name of the model that wrote it, where the file tells."""

    text: str
    model: str | None = None


class Record(NamedTuple):
    """One judgement."""

    kind: Kind
    turns: list[Turn]
    responses: tuple[Response, ...]
    answer: dict[str, Any]
    annotator: str | None = None  # as the file names them; None: it doesn't
    judge: bool = False  # the annotator is a model
    vote: int = 0  # which of several nameless annotators of this question it was, from 0
    shown: tuple[int, ...] | None = None  # the responses from left to right
    started_at: datetime | None = None
    submitted_at: datetime | None = None
    active_ms: int | None = None
    gold: dict[str, Any] | None = None  # the known answer of a check question, in the form of `answer`


class Numbered(NamedTuple):
    """A record, and where in the file it stood."""

    line: int
    record: Record


class Source:
    """A file of data that can be read from its beginning again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> Iterator[Row | BadRow]:
        """Its rows."""
        return data_rows(self.path)

    def beside(self, name: str) -> "Source | None":
        """A file of that name in the same folder, if there is one."""
        found = self.path.with_name(name)
        return Source(found) if found.is_file() else None


Reader = Callable[[Source], Iterator[Numbered | BadRow]]


class Format(NamedTuple):
    """How a kind of file is recognised, read and written."""

    about: str  # what it is, for the documentation
    file: str  # jsonl, json (one list), csv or tsv
    read: Reader
    fits: Callable[[Mapping[str, Any]], bool]  # whether a row looks like one of this format
    drops: str  # what an export can't hold, for the documentation
    why_not: Callable[[Record], str | None] = lambda record: None  # why a record can't be written
    write: Callable[[Sequence[Record]], Iterable[Mapping[str, Any]]] | None = None  # the rows of some records; None: import only
    together: bool = False  # `write` wants all records of a question at once, rather than one by one
    by_prompt: bool = False  # ... of a prompt
    everywhere: bool = False  # a worker's name means the same person in every file


def each(read: Callable[[Any], Iterable[Record | UserError]]) -> Reader:
    """A reader that makes records of one row at a time, as `one` does."""

    def reader(source: Source) -> Iterator[Numbered | BadRow]:
        for row in source.rows():
            if isinstance(row, BadRow):
                yield row
            else:
                yield from one(source, row, read)

    return reader


def one(source: Source, row: Row, read: Callable[[Any], Iterable[Record | UserError]]) -> Iterator[Numbered | BadRow]:
    """The checked records of a row, and its complaints about a part of it; or, if any record can't be used, the row's complaint alone."""
    try:
        found = [item if isinstance(item, UserError) else Numbered(row.line, checked(item)) for item in read(row.value)]
    except UserError as error:
        yield bad_row(source.path.name, row.line, error)
    else:
        yield from (bad_row(source.path.name, row.line, item) if isinstance(item, UserError) else item for item in found)


def checked(record: Record) -> Record:
    """The record, if it makes sense.

    Raises:
        UserError: it doesn't.
    """
    n = len(record.responses)
    if n > MOST_RESPONSES:
        raise UserError(f"{n} responses are compared at once", fix=f"compare at most {MOST_RESPONSES}")
    for response in record.responses:
        if not isinstance(response.text, str):
            raise UserError("a response is no text", fix="write it as text, or leave the row out")
    if n > 1 and (record.responses[0] == record.responses[1] if n == 2 else len(set(record.responses)) < n):
        raise UserError("the two responses are the same text", fix="leave the row out: it prefers nothing")
    strength = record.answer.get("strength") if len(record.answer) == 1 and record.kind == Kind.PAIR else None
    if type(strength) is int:  # true is an int as well, and no strength
        _check_strength(strength, n)
    else:
        check_answer(record.kind, record.answer, n)
    if record.shown is not None and sorted(record.shown) != list(range(n)):
        raise UserError("the order shown is no order of the responses", fix="leave it out")
    return record


@lru_cache(maxsize=64)
def _check_strength(strength: int, n: int) -> None:
    """`check_answer` for a pair, asked once for each of the seven answers that most records give."""
    check_answer(Kind.PAIR, {"strength": strength}, n)


def obj(row: Any) -> dict[str, Any]:
    """The row, which must be an object.

    Raises:
        UserError: it isn't.
    """
    if not isinstance(row, dict):
        raise UserError("is no object with named fields", fix='write a row as {"name": value, ...}')
    return row


def text(row: Mapping[str, Any], key: str) -> str:
    """The text under a key.

    Raises:
        UserError: there is none.
    """
    found = row.get(key)
    if not isinstance(found, str):
        raise UserError(f"has no text under {key}", fix=f"give `{key}` a text, or leave the row out")
    return found


def whole(value: Any, low: int, high: int, name: str) -> int:
    """A whole number, from a number or its text.

    Raises:
        UserError: it is none, or not between `low` and `high`.
    """
    number = as_number(value)
    if number is None or number != int(number) or not low <= number <= high:
        raise UserError(f"{name} is {str(value)[:40]!r}", fix=f"write a whole number from {low} to {high}, or leave the row out")
    return int(number)


def as_number(value: Any) -> float | None:
    """A number, from a number or its text; None if it is neither, or out of any scale."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 1e15 else None


def inner(cell: str) -> Any:
    """What a cell holds as JSON, as clean as what stands in a file itself.

    Raises:
        UserError: it isn't.
    """
    found = parse_json(cell)
    require_clean(found)
    return found


def moment(value: Any) -> datetime | None:
    """A time, from ISO 8601 or seconds since 1970; None if it is neither. A time without a zone is taken for UTC."""
    number = as_number(value)
    try:
        if number is not None:
            return datetime.fromtimestamp(number / (1000 if number > 1e11 else 1), UTC) if number > 0 else None
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    if found is None or found.year < 1970:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def milliseconds(seconds: Any) -> int | None:
    """A duration in seconds as whole milliseconds; None if it is none, or longer than a week."""
    number = as_number(seconds)
    return round(1000 * number) if number is not None and 0 <= number <= 7 * 86400 else None


def person(value: Any) -> str | None:
    """Who, from a name or a number; None if the file leaves it empty."""
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    text = value if isinstance(value, str) else str(value)
    return _named(text) if len(text) <= LONGEST_PERSON else text.strip()[:LONGEST_PERSON] or None


@lru_cache(maxsize=4096)  # the same workers and models all through a file
def _named(text: str) -> str | None:
    return text.strip() or None


def words(answer: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """An answer with what stands beside it, where there is any: a comment, flags."""
    beside = {key: value for key, value in more.items() if value not in (None, "", [])}
    if isinstance(beside.get("comment"), str) and not beside["comment"].strip():
        del beside["comment"]
    return {**answer, **beside}


UNKNOWN_ORDER = {"order_shown": "unknown"}  # beside a pair that a format lists from left to right, where nobody knows how it was shown


def as_shown(record: Record) -> tuple[Record, dict[str, str]]:
    """(a pair, its response on the left first; what stands beside it), for formats whose first response is the one that stood there."""
    if record.shown is None:
        return record, UNKNOWN_ORDER
    if record.shown == (0, 1):
        return record, {}
    answer = {**record.answer, "strength": -record.answer["strength"]} if "strength" in record.answer else record.answer
    return record._replace(responses=record.responses[::-1], answer=answer, shown=(0, 1)), {}


def listed_order(row: Mapping[str, Any]) -> tuple[int, int] | None:
    """The order shown, of a row that lists its pair from left to right; None where `as_shown` said that it is unknown."""
    return None if row.get("order_shown") == UNKNOWN_ORDER["order_shown"] else (0, 1)


def single_turn(record: Record) -> str | None:
    """Why a prompt is more than one user turn; None if it is one."""
    return None if len(record.turns) == 1 else "a conversation of several turns"


def no_preference(record: Record) -> str | None:
    """Why a record says nothing that a format of plain preferences can hold; None if it does."""
    reason = only(record, Kind.PAIR)
    if reason is None and "both_bad" in record.answer:
        return "both bad"
    return "tie" if reason is None and record.answer.get("strength") == 0 else reason


def only(record: Record, *kinds: Kind) -> str | None:
    """Why a record is not an answer, other than a skip, to a question of these kinds; None if it is."""
    if record.kind not in kinds:
        return f"{record.kind} question"
    if record.gold is not None:
        return "check question"
    return "skip" if "skip" in record.answer else None


def dense(ranks: Sequence[float]) -> list[int]:
    """Ranks from 1 without gaps, in the order of these numbers; equal numbers are ties."""
    places = {value: place for place, value in enumerate(sorted(set(ranks)), start=1)}
    return [places[value] for value in ranks]


def conversation(value: Any) -> list[Turn]:
    """Turns in any of the common notations: role/content or from/value, contents in parts, other names for the roles.

    Raises:
        UserError: they aren't turns.
    """
    if not isinstance(value, list):
        raise UserError("the conversation is no list of turns", fix='write [{"role": "user", "content": "text"}]')
    return checked_turns([_turn(turn) for turn in value])


def flat(content: Any) -> Any:
    """A turn's content as one text, where it is a list of parts."""
    if isinstance(content, list) and content and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "\n".join(part["text"] for part in content)
    return content


ROLE_WORDS = {
    "human": "user", "prompter": "user", "user": "user", "gpt": "assistant", "bot": "assistant", "chatgpt": "assistant", "model": "assistant",
    "assistant": "assistant", "system": "system",
}  # fmt: skip


def _turn(turn: Any) -> Any:
    if not isinstance(turn, dict):
        return turn
    role = turn.get("role", turn.get("from"))
    content = flat(turn.get("content", turn.get("value", turn.get("text"))))
    return {"role": ROLE_WORDS.get(role.lower(), role) if isinstance(role, str) else role, "content": content}
