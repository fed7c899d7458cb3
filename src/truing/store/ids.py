"""Ids: hashes of content for what is made from other things, uuid7 for events."""

import hashlib
import json
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, so that equal values have equal bytes.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return _encode(value).encode("utf-8", "surrogatepass")


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def content_id(*parts: Any, length: int = 32) -> str:
    """The first `length` hex digits of the sha256 of the parts."""
    return hashlib.sha256(canonical(list(parts))).hexdigest()[:length]


def content_id_of_json(parts: str, length: int = 32) -> str:
    """`content_id` of parts that are written as one canonical JSON list already, for who has very many ids to make."""
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def seed_from(*parts: Any) -> int:
    """A seed in [0, 2^63) that depends on every part and on nothing else."""
    return int.from_bytes(hashlib.sha256(canonical(list(parts))).digest()[:8], "big") >> 1


def uuid7(now: datetime | None = None, random_bits: Callable[[int], int] = secrets.randbits) -> str:
    """A time-ordered id (RFC 9562, section 5.7).

    Args:
        now: the moment it carries, to the millisecond; default the present.
        random_bits: gives that many random bits. A simulated annotator passes its own seeded source.
    """
    return uuid7_of(now or datetime.now(UTC), random_bits(12), random_bits(62))


def uuid7_of(moment: datetime, first: int, last: int) -> str:
    """The uuid7 of a moment with these 12 and 62 bits, for an event that always has the same id. Equal `first` stand together in an index."""
    milliseconds = int(moment.timestamp() * 1000) & (1 << 48) - 1
    value = milliseconds << 80 | 0x7 << 76 | first << 64 | 0b10 << 62 | last
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
