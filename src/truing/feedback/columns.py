"""The values of a table's columns as JSON and back: times in ISO 8601 UTC, bytes in base64, everything else as it is."""

import base64
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Float, Integer, LargeBinary, String

from truing.errors import UserError
from truing.store.tables import Utc

LISTS = {"turns", "token_ids", "order_shown"}  # the JSON columns that hold a list; the others hold an object


def encode(value: Any) -> Any:
    """A column's value as JSON has it."""
    if isinstance(value, datetime):
        return _written(value)
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


@lru_cache(maxsize=4096)  # an import's rows often have one and the same
def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def decode(column: Column[Any], value: Any) -> Any:
    """A JSON value as the column holds it.

    Raises:
        UserError: the column can't hold it.
    """
    if value is None and column.nullable:
        return None
    try:
        return _decoded(column, value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{column.name} is {str(value)[:60]!r}, which that column can't hold", fix="export again") from error


def _decoded(column: Column[Any], value: Any) -> Any:
    kind = column.type
    if isinstance(kind, JSON):
        return _of_type(value, list if column.name in LISTS else dict)
    if isinstance(kind, Utc):
        moment = datetime.fromisoformat(_of_type(value, str))
        return moment.astimezone(UTC) if moment.tzinfo else _of_type(value, datetime)
    if isinstance(kind, LargeBinary):
        return base64.b64decode(_of_type(value, str), validate=True)
    if isinstance(kind, Boolean):
        return _of_type(value, bool)
    if isinstance(kind, Double | Float):
        return float(value if isinstance(value, int) and not isinstance(value, bool) else _of_type(value, float))
    if isinstance(kind, Integer):
        return _within(value, 63 if isinstance(kind, BigInteger) else 31)
    return _of_length(value, kind.length if isinstance(kind, String) else None)


def _of_type(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(type(value).__name__)
    return value


def _within(value: Any, bits: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(1 << bits) <= value < 1 << bits:
        raise ValueError("not a whole number of that many bits")
    return value


def _of_length(value: Any, length: int | None) -> str:
    if not isinstance(value, str) or (length is not None and len(value) > length):
        raise ValueError("not a text of that length")
    return value
