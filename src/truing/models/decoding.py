"""Sequences that grow by a token at a time, by the engine's own layers (plain_layers.py). Shapes: B rows, P prompts, H the states' width, V vocabulary."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from truing.models.packed import Tree, pack
from truing.models.products import Products
from truing.models.replay import record, records
from truing.models.trunk import Trunk


class Decoding:
    """Sequences in a model whose layers can be run on rows of tokens: prompts are read without padding, and then stand in buffers that end where answers
    begin.

    Attributes:
        hidden: (B, H) states that predict the next token.
        recorded: whether a step is the same work every time, recorded once: on a GPU.
    """

    def __init__(self, trunk: Trunk, products: Products, prompts: Sequence[tuple[int, ...]], steps: int) -> None:
        self.trunk, self.products, self.recorded = trunk, products, records(trunk.device)
        self._place = torch.zeros(1, dtype=torch.long, device=trunk.device)
        self._given: tuple[Tensor, ...] = ()  # where a recorded step reads: states, cos, sin, and where it may look
        self._work: Callable[[], Tensor] | None = None
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=trunk.device)
        self.length, ends = int(lengths.max()), lengths.cumsum(0)
        capacity = self.length + steps
        padding = self.length - lengths  # of each, on the left
        from_left = (torch.arange(self.length, device=trunk.device) - padding[:, None]).clamp(min=0)  # (P, length); a pad is like the first token
        from_row = from_left + (ends - lengths)[:, None]
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

        def keep(key: Tensor, value: Tensor) -> None:
            for kept, states in ((self.keys, key), (self.values, value)):
                kept.append(states.new_zeros(len(prompts), states.shape[1], capacity, states.shape[2]))
                kept[-1][:, :, : self.length] = states[from_row].transpose(1, 2)

        packed = pack([Tree(prompt, ()) for prompt in prompts], trunk.pad_id, device=trunk.device, fill=False)
        self.hidden = trunk.hidden_layers(packed, [trunk.layers], keep=keep)[trunk.layers][ends - 1]
        self.positions = lengths
        self.looks = torch.arange(capacity, device=trunk.device) >= padding[:, None]  # (P, capacity)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        self._work = None  # what was recorded reads the old rows
        self.keys, self.values = ([states[rows] for states in kept] for kept in (self.keys, self.values))
        self.hidden, self.positions, self.looks = self.hidden[rows], self.positions[rows], self.looks[rows]

    def logits(self) -> Tensor:
        """(B, V) of the next token."""
        return self.trunk.logits(self.hidden, self.products)

    def step(self, tokens: Tensor) -> None:
        """One more token of each, (B,)."""
        read = self.trunk.read_tokens(tokens, self.positions)
        if self.recorded:
            self.hidden = self._again(*read)
        else:
            self.hidden = self.trunk.plain_step(*read, self.keys, self.values, self.length, self.looks[:, : self.length + 1], self.products)
        self.length += 1
        self.positions = self.positions + 1

    def _again(self, *read: Tensor) -> Tensor:
        """A step as it was recorded; recorded first, where rows have changed since. The states are overwritten by the next."""
        reached = torch.arange(self.looks.shape[1], device=self.looks.device) <= self.length
        given = (*read, self.looks & reached)
        self._place.fill_(self.length)
        if self._work is None:
            states, cos, sin, looks = self._given = tuple(tensor.clone() for tensor in given)
            self._work = record(lambda: self.trunk.plain_step(states, cos, sin, self.keys, self.values, self._place, looks, self.products))
        for kept, new in zip(self._given, given, strict=True):
            kept.copy_(new)
        return self._work()
