"""Frozen features: what the base model makes of a prompt and response, computed once and kept on disk.

Shapes: B responses, L tokens, H hidden size, D features. A response's features depend on its tokens alone, not on the batch it was computed in: every
sequence is padded to a width that follows from its own length, so that the same shapes do the same sums.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from truing.config import write_atomically
from truing.console import track
from truing.errors import UserError
from truing.models.sequences import Batch, collate
from truing.models.trunk import Trunk
from truing.store.ids import content_id

Pooling = Literal["last", "mean", "both"]
Item = tuple[tuple[int, ...], tuple[int, ...]]  # prompt ids, response ids

BATCH = 16  # sequences in a forward pass
WIDTH_STEP = 16  # widths are multiples of this many tokens
SHARD = 256  # responses in a file of the cache


@dataclass(frozen=True)
class FeatureSpec:
    """Which hidden states are read.

    Attributes:
        layers: numbers of layers, 1 to the model's depth; several are laid side by side.
        pooling: the state at the last real token, the mean over the response's tokens, or both side by side.
        max_tokens: only that many last tokens of prompt and response together are read.
    """

    layers: tuple[int, ...]
    pooling: Pooling
    max_tokens: int

    def width(self, hidden_size: int) -> int:
        """D, how many features there are."""
        return len(self.layers) * hidden_size * (2 if self.pooling == "both" else 1)


def shorten(prompt: Sequence[int], response: Sequence[int], max_tokens: int) -> Item:
    """The last `max_tokens` tokens of prompt and response together, >= 2. Where nothing of the prompt is left, the first token stands for it."""
    tokens = [*prompt, *response][-max_tokens:]
    kept = min(len(response), len(tokens) - 1)
    border = len(tokens) - kept
    return tuple(tokens[:border]), tuple(tokens[border:])


def pool(hidden: Mapping[int, Tensor], batch: Batch, spec: FeatureSpec) -> Tensor:
    """(B, D) fp32 from layer → (B, L, H): for each layer in turn the state at the last real token, the response's mean, or both.

    A response without tokens has the prompt's last state for both.
    """
    rows = []
    for row, (end, length) in enumerate(zip(batch.lengths.tolist(), batch.response_lengths.tolist(), strict=True)):
        parts = []
        for layer in spec.layers:
            states = hidden[layer][row, end - max(length, 1) : end].to(torch.promote_types(hidden[layer].dtype, torch.float32))
            if spec.pooling != "mean":
                parts.append(states[-1])
            if spec.pooling != "last":
                parts.append(states.mean(0))
        rows.append(torch.cat(parts))
    return torch.stack(rows).float()


def widened_batches(items: Sequence[Item], size: int) -> list[list[int]]:
    """Indices in groups of one width and at most `size`, widest first."""
    widths = [_width(item) for item in items]
    order = sorted(range(len(items)), key=lambda index: (-widths[index], index))
    groups: list[list[int]] = []
    for index in order:
        if not groups or len(groups[-1]) == size or widths[groups[-1][0]] != widths[index]:
            groups.append([])
        groups[-1].append(index)
    return groups


def widened(items: Sequence[Item], pad_id: int) -> Batch:
    """A batch of items of one width, padded to it."""
    batch = collate([prompt for prompt, _ in items], [response for _, response in items], pad_id)
    missing = _width(items[0]) - batch.input_ids.shape[1]
    return replace(batch, input_ids=torch.nn.functional.pad(batch.input_ids, (0, missing), value=pad_id))


@torch.no_grad()
def features(trunk: Trunk, items: Sequence[Item], spec: FeatureSpec) -> Tensor:
    """(N, D) fp32: features of each (prompt ids, response ids) under the base model, adapters off."""
    short = [shorten(*item, spec.max_tokens) for item in items]
    found = torch.empty(len(items), spec.width(trunk.hidden_size))
    with trunk.using(None):
        for group in widened_batches(short, BATCH):
            batch = widened([short[index] for index in group], trunk.pad_id)
            found[group] = pool(trunk.hidden_layers(batch, spec.layers), batch, spec)
    return found


class FeatureCache:
    """Features on disk: safetensors files of many responses each, found again by a hash of the tokens. A file is there whole or not at all."""

    def __init__(self, folder: Path, trunk: Trunk, spec: FeatureSpec) -> None:
        self.trunk, self.spec = trunk, spec
        self.folder = folder / content_id(trunk.fingerprint, asdict(spec), length=16)

    def get(self, items: Sequence[Item], *, label: str = "features") -> Tensor:
        """(N, D) fp32, read where they are known, else computed and kept; an interrupted call goes on where it stopped.

        Raises:
            UserError: a file of the cache can't be read.
        """
        short = [shorten(*item, self.spec.max_tokens) for item in items]
        keys = [item_key(item) for item in short]
        known = self._read(set(keys))
        missing = {key: item for key, item in sorted(zip(keys, short, strict=True)) if key not in known}
        batches = self._compute(missing)
        for found in track(batches, label, -(-len(missing) // BATCH)):
            known.update(found)
        return torch.stack([known[key] for key in keys]) if keys else torch.empty(0, self.spec.width(self.trunk.hidden_size))

    def _compute(self, missing: Mapping[str, Item]) -> Iterator[dict[str, Tensor]]:
        """Features of `missing`, a batch's worth at a time, widest first; every `SHARD` of them are written down."""
        order = sorted(missing, key=lambda key: (-_width(missing[key]), key))
        unsaved: dict[str, Tensor] = {}
        for start in range(0, len(order), BATCH):
            keys = order[start : start + BATCH]
            found = dict(zip(keys, features(self.trunk, [missing[key] for key in keys], self.spec), strict=True))
            unsaved.update(found)
            if len(unsaved) >= SHARD or start + BATCH >= len(order):
                self._write(unsaved)
                unsaved = {}
            yield found

    def _read(self, wanted: set[str]) -> dict[str, Tensor]:
        known: dict[str, Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, framework="pt") as file:
                    keys = json.loads(file.metadata()["keys"])
                    if not wanted.isdisjoint(keys):
                        known.update({key: row for key, row in zip(keys, file.get_tensor("features"), strict=True) if key in wanted})
            except SafetensorError as error:
                raise UserError(f"{path} can't be read: {error}", fix=f"delete that file: its features are computed again ({path})") from error
        return known

    def _write(self, rows: Mapping[str, Tensor]) -> None:
        keys = sorted(rows)
        data = save({"features": torch.stack([rows[key] for key in keys])}, metadata={"keys": json.dumps(keys)})
        write_atomically(self.folder / f"{content_id(keys, length=16)}.safetensors", data)


def item_key(item: Item) -> str:
    """A hash of the tokens of a prompt and response."""
    return hashlib.sha256(json.dumps(item).encode()).hexdigest()[:32]


def _width(item: Item) -> int:
    return -(-(len(item[0]) + len(item[1])) // WIDTH_STEP) * WIDTH_STEP
