"""Ids: the same content gives the same id on every machine and in every version; events are ordered by time."""

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.store.ids import canonical, content_id, content_id_of_json, seed_from, uuid7, uuid7_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_content_id_is_golden() -> None:
    """printf '%s' '["sample","p1","first",0]' | sha256sum | cut -c1-32"""
    assert content_id("sample", "p1", "first", 0) == "4225e91e5404084d6267c8bed38cdc4a"
    assert content_id([{"role": "user", "content": "Héllo"}]) == "e47745dc4248268ac46b1f015d09e078"
    assert seed_from("shuffle", 1) == int("06b4d4a54e3495c3", 16) >> 1


@given(values)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    if isinstance(value, dict):
        assert content_id(value) == content_id(dict(reversed(list(value.items()))))
    assert len(content_id(value)) == 32
    assert 0 <= seed_from(value) < 2**63


@given(values, values)
def test_other_content_has_another_id(one: Any, other: Any) -> None:
    assert (content_id(one) == content_id(other)) == (canonical(one) == canonical(other))


def test_parts_do_not_run_together() -> None:
    assert len({content_id("ab", "c"), content_id("a", "bc"), content_id("abc"), content_id(["ab", "c"])}) == 4


@given(st.lists(values, max_size=3))
def test_an_id_of_what_is_json_already_is_the_same(parts: list[Any]) -> None:
    assert content_id_of_json(canonical(parts).decode("utf-8", "surrogatepass")) == content_id(*parts)


def test_an_id_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        content_id(float("nan"))


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6, unique=True))
def test_uuid7_sorts_by_time(milliseconds: list[int]) -> None:
    made = {ms: uuid7(NOON + timedelta(milliseconds=ms)) for ms in milliseconds}
    assert [made[ms] for ms in sorted(milliseconds)] == sorted(made.values())


def test_uuid7_is_what_rfc_9562_says() -> None:
    """The example of its appendix A.6: 2022-02-22 19:22:22 GMT, rand_a 0xCC3, rand_b 0x18C4DC0C0C07398F."""
    bits = {12: 0xCC3, 62: 0x18C4DC0C0C07398F}
    moment = datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)
    assert uuid7(moment, bits.__getitem__) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    assert uuid7_of(moment, bits[12], bits[62]) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_uuid7_follows_its_seed_and_differs_without_one() -> None:
    same = {uuid7(NOON, random.Random(7).getrandbits) for _ in range(3)}
    assert len(same) == 1
    assert len({uuid7(NOON) for _ in range(100)}) == 100
    assert uuid.UUID(same.pop()).version == 7
