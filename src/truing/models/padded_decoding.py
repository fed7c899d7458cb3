"""Sequences that grow by a token at a time, in any model of transformers'. Shapes: B rows, P prompts, S cached tokens, V vocabulary."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from truing.models.trunk import Trunk


class PaddedDecoding:
    """What `Decoding` is in the models that it knows, by transformers' own layers; prompts are padded on the left."""

    recorded = False

    def __init__(self, trunk: Trunk, prompts: Sequence[tuple[int, ...]], steps: int) -> None:
        self.trunk = trunk
        longest = max(len(prompt) for prompt in prompts)
        padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=trunk.device)
        input_ids = torch.tensor([[*[trunk.pad_id] * (longest - len(prompt)), *prompt] for prompt in prompts], device=trunk.device)
        places = torch.arange(longest, device=trunk.device)
        real = places >= padding[:, None]  # (P, S)
        causal = places[:, None] >= places
        # A pad sees itself, so that its row of attention isn't empty (softmax over nothing is NaN); nothing real sees a pad.
        mask = (causal & real[:, None, :]) | torch.eye(longest, dtype=torch.bool, device=trunk.device)
        self.cache = _Cache(trunk.layers, longest + steps)
        self.hidden = trunk.step(input_ids, mask[:, None], (places - padding[:, None]).clamp(min=0), self.cache)[:, -1]
        self.positions = longest - padding
        self.looks = torch.nn.functional.pad(real, (0, steps), value=True)

    def logits(self) -> Tensor:
        """(B, V) of the next token."""
        return self.trunk.logits(self.hidden)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        self.cache.select(rows)
        self.hidden, self.positions, self.looks = self.hidden[rows], self.positions[rows], self.looks[rows]

    def step(self, tokens: Tensor) -> None:
        """One more token of each, (B,)."""
        seen = self.cache.get_seq_length() + 1
        self.hidden = self.trunk.step(tokens[:, None], self.looks[:, None, None, :seen], self.positions[:, None], self.cache)[:, -1]
        self.positions = self.positions + 1


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer in a buffer as long as they will ever be: new ones are written in place, and what is
    read is a view."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_zeros(rows, heads, self.capacity, width)
        self.values = value_states.new_zeros(rows, heads, self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity


class _Cache(Cache):  # type: ignore[misc]
    """A `_Layer` for each transformer layer."""

    def __init__(self, layers: int, capacity: int) -> None:
        super().__init__(layers=[_Layer(capacity) for _ in range(layers)])

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        for layer in self.layers:
            layer.select(rows)
