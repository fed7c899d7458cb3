"""Every response token is found exactly once, whatever the lengths and whatever stands for padding."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from truing.models.sequences import collate, length_buckets

PAD = 7  # also a token of the vocabulary: no mask may be built from it
tokens = st.integers(0, 9)
rows = st.lists(st.tuples(st.lists(tokens, min_size=1, max_size=6), st.lists(tokens, max_size=6)), min_size=1, max_size=5)


@given(rows)
def test_every_response_token_is_found_exactly_once(rows: list[tuple[list[int], list[int]]]) -> None:
    batch = collate([prompt for prompt, _ in rows], [response for _, response in rows], PAD)
    assert batch.targets.tolist() == [token for _, response in rows for token in response]
    assert batch.lengths.tolist() == [len(prompt) + len(response) for prompt, response in rows]
    for row, (prompt, response) in zip(batch.input_ids.tolist(), rows, strict=True):
        assert row[: len(prompt) + len(response)] == prompt + response
        assert set(row[len(prompt) + len(response) :]) <= {PAD}


@given(rows)
def test_the_predicting_state_stands_one_before_the_reading_state(rows: list[tuple[list[int], list[int]]]) -> None:
    batch = collate([prompt for prompt, _ in rows], [response for _, response in rows], PAD)
    height, width = batch.input_ids.shape
    places = torch.stack(
        [torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)], dim=2
    )  # "hidden states" that say where they stand
    reading, predicting = batch.reading(places), batch.predicting(places)
    expected = [[row, len(prompt) + step] for row, (prompt, response) in enumerate(rows) for step in range(len(response))]
    assert reading.tolist() == expected
    assert torch.equal(predicting, reading - torch.tensor([0, 1]))


@given(rows)
def test_a_rectangle_holds_each_value_under_its_mask_and_zeros_elsewhere(rows: list[tuple[list[int], list[int]]]) -> None:
    batch = collate([prompt for prompt, _ in rows], [response for _, response in rows], PAD)
    count = sum(len(response) for _, response in rows)
    values = torch.arange(1, count + 1)
    rectangle, mask = batch.rectangle(values), batch.mask
    assert mask.shape == rectangle.shape == (len(rows), max(len(response) for _, response in rows))
    assert mask.sum(1).tolist() == [len(response) for _, response in rows]
    assert torch.equal(rectangle[mask], values)
    assert not rectangle[~mask].any()


def test_a_batch_by_hand() -> None:
    batch = collate([[1, 2], [3]], [[4], [5, 6, 7]], PAD)
    assert batch.input_ids.tolist() == [[1, 2, 4, PAD], [3, 5, 6, 7]]
    assert batch.mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.rectangle(torch.tensor([1.0, 2.0, 3.0, 4.0])).tolist() == [[1, 0, 0], [2, 3, 4]]


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt without tokens"):
        collate([[1], []], [[2], [3]], PAD)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 8))
def test_buckets_hold_every_index_once_longest_first(lengths: list[int], size: int) -> None:
    buckets = length_buckets(lengths, size)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(len(lengths)))
    assert all(1 <= len(bucket) <= size for bucket in buckets)
    in_order = [lengths[index] for bucket in buckets for index in bucket]
    assert in_order == sorted(lengths, reverse=True)
