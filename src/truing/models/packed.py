"""Prompts with their responses in one row of tokens, without padding: a prompt is read once, however many responses follow it.

Each token has the position it would have in its own sequence. A response sees its prompt and itself, never a sibling: the numbers are those of reading
each prompt and response alone. All but attention works on a token at a time, so that the row is one matrix for every product.

Shapes: N tokens of all, H hidden, h heads, D numbers of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

ATTENTION = "truing_packed"  # by which transformers knows the function below
LEAST_ROWS, ROW_STEP = 512, 64
Tokens = tuple[int, ...]


class Span(NamedTuple):
    """Where a response stands in the row."""

    start: int
    end: int


class Tree(NamedTuple):
    """A prompt and the responses that follow it."""

    prompt: Tokens
    responses: tuple[Tokens, ...]

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.prompt) + sum(len(response) for response in self.responses)


@dataclass(frozen=True)
class Packed:
    """Attributes:
    input_ids, positions: (N,).
    lengths: tokens of each prompt and of each of its responses, tree after tree; the last is what fills the row.
    branches: how many responses each tree has.
    spans: of each response in the order of the trees. Of a response without tokens, the last token of its prompt.
    """

    input_ids: Tensor
    positions: Tensor
    lengths: list[int]
    branches: list[int]
    spans: list[Span]


def pack(trees: Sequence[Tree], pad_id: int) -> Packed:
    """Trees in one row.

    The row is filled up to a number of tokens of which a matrix product gives each row the same bits wherever it stands: kernels for few rows, and for the
    last odd ones, add in another order.

    Raises:
        ValueError: a prompt is empty.
    """
    if any(not tree.prompt for tree in trees):
        raise ValueError("a prompt without tokens")
    ids: list[int] = []
    positions: list[int] = []
    lengths: list[int] = []
    spans: list[Span] = []
    for prompt, responses in trees:
        ids += prompt
        positions += range(len(prompt))
        lengths.append(len(prompt))
        border = len(ids)
        for response in responses:
            spans.append(Span(len(ids), len(ids) + len(response)) if response else Span(border - 1, border))
            ids += response
            positions += range(len(prompt), len(prompt) + len(response))
            lengths.append(len(response))
    rows = max(-(-len(ids) // ROW_STEP) * ROW_STEP, LEAST_ROWS)
    lengths.append(rows - len(ids))
    positions += [0] * lengths[-1]
    ids += [pad_id] * lengths[-1]
    return Packed(torch.tensor(ids), torch.tensor(positions), lengths, [len(tree.responses) for tree in trees], spans)


def packs(sizes: Sequence[int], most: int) -> list[list[int]]:
    """Indices of trees in groups of at most `most` tokens together (a larger tree is a group of its own), largest first: what doesn't fit in memory fails
    at once."""
    order = sorted(range(len(sizes)), key=lambda index: (-sizes[index], index))
    groups: list[list[int]] = []
    room = 0
    for index in order:
        if not groups or sizes[index] > room:
            groups.append([])
            room = most
        groups[-1].append(index)
        room -= sizes[index]
    return groups


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, scaling: float, packed: Packed, **_: Any
) -> tuple[Tensor, None]:
    """(1, N, h, D) from query (1, h, N, D), key and value (1, g, N, D): a prompt by itself, a response after its prompt."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = zip(*(states.split(packed.lengths, 2) for states in (query, key, value)), strict=True)
    found: list[Tensor] = []
    for branches in packed.branches:
        q, k, v = next(parts)
        found.append(_attend(q, k, v, scaling, causal=True))
        for _response in range(branches):
            own_q, own_k, own_v = next(parts)
            if own_q.shape[2]:
                seen = _seen(own_q.shape[2], k.shape[2], own_q)
                found.append(_attend(own_q, torch.cat([k, own_k], 2), torch.cat([v, own_v], 2), scaling, mask=seen))
    found.append(next(parts)[2])  # what fills the row: any numbers do
    return torch.cat(found, 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scaling)


def _seen(response: int, prompt: int, like: Tensor) -> Tensor:
    """(R, P + R) 0 where a token of a response may look, -inf where not."""
    return torch.full((response, prompt + response), float("-inf"), dtype=like.dtype, device=like.device).triu_(prompt + 1)


AttentionInterface.register(ATTENTION, _attention)
