"""Prompts with their responses in one row of tokens, without padding: a prompt is read once, however many responses follow it.

Each token has the position it would have in its own sequence. A response sees its prompt and itself, never a sibling: the numbers are those of reading
each prompt and response alone. All but attention works on a token at a time, so that the row is one matrix for every product.

Shapes: N tokens of all, T of a tree, h heads of queries, g of keys and values, D numbers of a head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

LEAST_ROWS, ROW_STEP = 512, 64
SHORT = 384  # keys up to which PyTorch's attention is faster both ways in fp32 than in bf16 on a CPU: twice as fast at 88, as fast at 500 (docs/log.md)
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
    input_ids, positions: (N,), where the model is. What is said of responses (`mask`, `rectangle`) is small, and stands on the CPU.
    trees: of each tree the tokens of its prompt and of each of its responses. What the row has beyond them fills it.
    spans: of each response in the order of the trees. Of a response without tokens, the last token of its prompt.
    whole: whether attention asks for all responses to a prompt at once; None: where something is learned. See `attend`.
    """

    input_ids: Tensor
    positions: Tensor
    trees: list[tuple[int, ...]]
    spans: list[Span]
    whole: bool | None = None
    _masks: dict[tuple[int, int, torch.dtype], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def predicting(self, hidden: Tensor) -> Tensor:
        """(R, H) from (N, H): the hidden state just before each response token, which predicts it, response after response."""
        return hidden[self._predicting]

    def reading(self, hidden: Tensor) -> Tensor:
        """(R, H) from (N, H): the hidden state at each response token, which has read it."""
        return torch.cat([hidden[start:end] for (start, end), length in zip(self.spans, self.lengths, strict=True) if length])

    def response_states(self, hidden: Tensor) -> list[Tensor]:
        """(T, H) from (N, H) for each response: its tokens' states; of a response without tokens the prompt's last."""
        return [hidden[start:end] for start, end in self.spans]

    @cached_property
    def _predicting(self) -> Tensor:
        """(R,) the place before each response token: the last of the prompt, then the token before."""
        places: list[int] = []
        start = 0
        for prompt, *responses in self.trees:
            border = start + prompt
            start = border
            for length in responses:
                places += ([border - 1] if length else []) + list(range(start, start + length - 1))
                start += length
        return torch.tensor(places, dtype=torch.long, device=self.input_ids.device)

    @cached_property
    def targets(self) -> Tensor:
        """(R,) the response tokens."""
        spans = [self.input_ids[start:end] for (start, end), length in zip(self.spans, self.lengths, strict=True) if length]
        return torch.cat(spans) if spans else self.input_ids[:0]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [length for _, *responses in self.trees for length in responses]

    @property
    def longest(self) -> int:
        """Most tokens of a prompt and its response together."""
        return max(prompt + max(responses, default=0) for prompt, *responses in self.trees)

    @cached_property
    def mask(self) -> Tensor:
        """(B, T) True on response tokens."""
        lengths = torch.tensor(self.lengths)
        return torch.arange(int(lengths.max())) < lengths[:, None]

    def rectangle(self, values: Tensor) -> Tensor:
        """(B, T) from (R,): a value for each response token put where `mask` is True, 0 elsewhere."""
        return torch.zeros(self.mask.shape, dtype=values.dtype).masked_scatter(self.mask, values.cpu())

    def mask_of(self, response: int, prompt: int, dtype: torch.dtype) -> Tensor:
        """(R, P + R) 0 where a token of a response may look, -inf where not: at its prompt, and at what stands before it. Made once for all layers.

        Args:
            dtype: of the states; the mask has the type that attention is asked in.
        """
        made_for = response, prompt, _asked_in(dtype, prompt + response, self.input_ids.device)
        if made_for not in self._masks:
            full = torch.full((response, prompt + response), float("-inf"), dtype=made_for[2], device=self.input_ids.device)
            self._masks[made_for] = full.triu_(prompt + 1)
        return self._masks[made_for]


def trees_of(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[Tree]:
    """Prompts with their responses, in order: those that stand together with one prompt are one tree."""
    rows = zip(map(tuple, prompts), map(tuple, responses), strict=True)
    return [Tree(prompt, tuple(response for _, response in own)) for prompt, own in groupby(rows, key=itemgetter(0))]


def pack(trees: Sequence[Tree], pad_id: int, *, device: torch.device | None = None, whole: bool | None = None, fill: bool = True) -> Packed:
    """Trees in one row.

    The row is filled up to a number of tokens of which a matrix product gives each row the same bits wherever it stands: kernels for few rows, and for the
    last odd ones, add in another order.

    Args:
        device: where the model is; None: the CPU.
        fill: False leaves it as short as it is, for a reader to whom last bits are nothing.

    Raises:
        ValueError: a prompt is empty.
    """
    if any(not tree.prompt for tree in trees):
        raise ValueError("a prompt without tokens")
    ids: list[int] = []
    positions: list[int] = []
    spans: list[Span] = []
    for prompt, responses in trees:
        ids += prompt
        positions += range(len(prompt))
        border = len(ids)
        for response in responses:
            spans.append(Span(len(ids), len(ids) + len(response)) if response else Span(border - 1, border))
            ids += response
            positions += range(len(prompt), len(prompt) + len(response))
    rows = max(-(-len(ids) // ROW_STEP) * ROW_STEP, LEAST_ROWS) if fill else len(ids)
    positions += [0] * (rows - len(ids))
    ids += [pad_id] * (rows - len(ids))
    sizes = [(len(tree.prompt), *map(len, tree.responses)) for tree in trees]
    return Packed(torch.tensor(ids, device=device), torch.tensor(positions, device=device), sizes, spans, whole)


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


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, packed: Packed) -> Tensor:
    """(N, h, D) from query (N, h, D), key and value (N, g, D): a token sees its prompt and what stands before it in its own response.

    Where nothing is learned, each response is asked alone, so that its numbers are the same to the bit whatever siblings it has; where something is, all
    responses to a prompt are asked at once, which is faster both ways and the same to rounding. `packed.whole` says it for a pass without a gradient that is
    to have the same bits as one with it.
    """
    sizes = [sum(lengths) for lengths in packed.trees]
    *trees, (filling, _, _) = zip(*(states.split([*sizes, len(query) - sum(sizes)]) for states in (query, key, value)), strict=True)
    together = query.requires_grad if packed.whole is None else packed.whole
    ask = _together if together else _apart
    found = [part for (q, k, v), lengths in zip(trees, packed.trees, strict=True) for part in ask(q, k, v, scaling, lengths, packed)]
    return torch.cat([*found, filling])  # what fills the row: any numbers do


def _apart(query: Tensor, key: Tensor, value: Tensor, scaling: float, lengths: Sequence[int], packed: Packed) -> Iterator[Tensor]:
    """(T, h, D) of each part of a tree."""
    parts = zip(*(states.split(list(lengths)) for states in (query, key, value)), strict=True)
    q, k, v = next(parts)
    yield _attend(q[None], k[None], v[None], scaling)[0]
    for own_q, own_k, own_v in parts:
        if len(own_q):
            mask = packed.mask_of(len(own_q), len(k), query.dtype)
            yield _attend(own_q[None], torch.cat([k, own_k])[None], torch.cat([v, own_v])[None], scaling, mask)[0]


def _together(query: Tensor, key: Tensor, value: Tensor, scaling: float, lengths: Sequence[int], packed: Packed) -> Iterator[Tensor]:
    """(T, h, D) of a tree's parts: its prompt, and then all its responses as a batch, each as long as the longest. What lengthens one is seen by no token of
    its own."""
    prompt, *responses = lengths
    responses = [length for length in responses if length]
    if len(responses) < 2:  # a sequence like any other
        yield _attend(query[None], key[None], value[None], scaling)[0]
        return
    (q, *own_q), (k, *own_k), (v, *own_v) = (states.split([prompt, *responses]) for states in (query, key, value))
    yield _attend(q[None], k[None], v[None], scaling)[0]
    queries, keys, values = (pad_sequence(own, batch_first=True) for own in (own_q, own_k, own_v))
    keys, values = (torch.cat([one.expand(len(own), -1, -1, -1), own], 1) for one, own in ((k, keys), (v, values)))
    found = _attend(queries, keys, values, scaling, packed.mask_of(max(responses), prompt, query.dtype))
    yield from (own[:length] for own, length in zip(found.unbind(), responses, strict=True))


def _attend(query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None) -> Tensor:
    """(B, Q, h, D) from query (B, Q, h, D), key and value (B, K, g, D); without a mask each token sees those before it."""
    asked_in = _asked_in(query.dtype, key.shape[1], query.device)
    q, k, v = (states.to(asked_in).transpose(1, 2) for states in (query, key, value))
    if mask is not None and mask.device.type == "cuda":  # of its kernels that take a mask, those that share keys among heads hold all scores in fp32
        k, v = (states.repeat_interleave(q.shape[1] // k.shape[1], 1) for states in (k, v))
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True)
    return found.transpose(1, 2).to(query.dtype)


def _asked_in(dtype: torch.dtype, keys: int, device: torch.device) -> torch.dtype:
    """The number type that attention over so many keys is asked in."""
    return torch.float32 if dtype == torch.bfloat16 and keys <= SHORT and device.type == "cpu" else dtype
