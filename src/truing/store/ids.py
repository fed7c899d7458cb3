"""Ids: hashes of content for what is made from other things, uuid7 for events."""

import hashlib
import json
import secrets
import uuid
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


def seed_from(*parts: Any) -> int:
    """A seed in [0, 2^63) that depends on every part and on nothing else."""
    return int.from_bytes(hashlib.sha256(canonical(list(parts))).digest()[:8], "big") >> 1


def uuid7(now: datetime | None = None, random_bits: Callable[[int], int] = secrets.randbits) -> str:
    """A time-ordered id (RFC 9562, section 5.7).

    Args:
        now: the moment it carries, to the millisecond; default the present.
        random_bits: gives that many random bits. A simulated annotator passes its own seeded source.
    """
    moment = now or datetime.now(UTC)
    milliseconds = int(moment.timestamp() * 1000) & (1 << 48) - 1
    value = milliseconds << 80 | 0x7 << 76 | random_bits(12) << 64 | 0b10 << 62 | random_bits(62)
    return str(uuid.UUID(int=value))
