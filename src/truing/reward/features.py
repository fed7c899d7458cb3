"""Frozen features: what the base model makes of a prompt and response, computed once and kept on disk.

Shapes: N responses, B of them in a batch, L tokens, H hidden size, D features. A response's features depend on its tokens alone, not on what they were
computed beside: prompts and responses stand in one row of tokens without padding (models/packed.py), a prompt once for all its responses; in a model whose
layers can't be run that way, every sequence is padded to a width that follows from its own length, so that the same shapes do the same sums.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Literal, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from truing.config import full_disk_said, write_atomically
from truing.console import track
from truing.errors import UserError
from truing.models.packed import Tree, pack, packs
from truing.models.sequences import collate
from truing.models.trunk import Rows, Trunk
from truing.store.ids import content_id

Pooling = Literal["last", "mean", "max"]
Reading = tuple[Pooling, int]  # what is taken of which layer's states
Item = tuple[tuple[int, ...], tuple[int, ...]]  # prompt ids, response ids

ROW = 2048  # tokens in a forward pass
BATCH = 16  # sequences in one, where they are padded
WIDTH_STEP = 16  # widths are multiples of this many tokens
SHARD = 256  # responses in a file of the cache


@dataclass(frozen=True)
class FeatureSpec:
    """Which hidden states are read.

    Attributes:
        readings: each a pooling and the number of a layer, 1 to the model's depth; laid side by side. "last" is the state
            at the last real token, "mean" and "max" go over the response's tokens, each of the H numbers by itself.
        max_tokens: only that many last tokens of prompt and response together are read.
    """

    readings: tuple[Reading, ...]
    max_tokens: int

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that are read, each once, lowest first."""
        return tuple(sorted({layer for _, layer in self.readings}))

    def width(self, hidden_size: int) -> int:
        """D, how many features there are."""
        return len(self.readings) * hidden_size


def readings_at(words: Sequence[str], depth: int) -> tuple[Reading, ...]:
    """Readings such as "mean@0.6", a pooling at a share of the depth, as layers of a model of that depth.

    Raises:
        ValueError: one isn't of that form, or its share isn't in (0, 1].
    """
    found: list[Reading] = []
    for word in words:
        match = re.fullmatch(r"(last|mean|max)@(\d*\.?\d+)", word)
        if match is None or not 0 < float(match[2]) <= 1:
            raise ValueError(f"{word!r} is not last, mean or max, then @ and a share of the depth in (0, 1], such as mean@0.6")
        reading = (cast(Pooling, match[1]), max(round(float(match[2]) * depth), 1))
        if reading not in found:
            found.append(reading)
    return tuple(found)


def shorten(prompt: Sequence[int], response: Sequence[int], max_tokens: int) -> Item:
    """The last `max_tokens` tokens of prompt and response together, >= 2. Where nothing of the prompt is left, the first token stands for it."""
    tokens = [*prompt, *response][-max_tokens:]
    kept = min(len(response), len(tokens) - 1)
    border = len(tokens) - kept
    return tuple(tokens[:border]), tuple(tokens[border:])


def pool(hidden: Mapping[int, Tensor], rows: Rows, spec: FeatureSpec) -> Tensor:
    """(B, D) fp32, on the CPU, from layer → states of `rows`: the readings of each response, side by side.

    Of a response without tokens the prompt's last state is read.
    """
    each = [rows.response_states(hidden[layer]) for layer in spec.layers]
    return torch.stack([_read(dict(zip(spec.layers, own, strict=True)), spec) for own in zip(*each, strict=True)]).cpu()


def _read(states: Mapping[int, Tensor], spec: FeatureSpec) -> Tensor:
    """(D,) fp32 from layer → (T, H) of a response."""
    fine = {layer: own.to(torch.promote_types(own.dtype, torch.float32)) for layer, own in states.items()}
    return torch.cat([_reduce(fine[layer], how) for how, layer in spec.readings]).float()


def _reduce(states: Tensor, how: Pooling) -> Tensor:
    """(H,) from (T, H)."""
    if how == "last":
        return states[-1]
    return states.mean(0) if how == "mean" else states.amax(0)


def read(trunk: Trunk, items: Sequence[Item], spec: FeatureSpec, *, row: int = ROW) -> Tensor:
    """(N, D) fp32 what is read of each response under the adapter that is on; carries the gradient where it is wanted.

    Args:
        row: tokens in a forward pass; changes speed and memory, not the result.
    """
    short = [shorten(*item, spec.max_tokens) for item in items]
    found: list[Tensor] = [torch.empty(0)] * len(items)
    for group, rows in _in_a_row(trunk, short, spec, row) if trunk.splits else _padded(trunk, short, spec):
        for index, one in zip(group, rows, strict=True):
            found[index] = one
    return torch.stack(found) if found else torch.empty(0, spec.width(trunk.hidden_size))


@torch.no_grad()
def features(trunk: Trunk, items: Sequence[Item], spec: FeatureSpec) -> Tensor:
    """(N, D) fp32: features of each (prompt ids, response ids) under the base model, adapters off."""
    with trunk.using(None):
        return read(trunk, items, spec)


def by_prompt(items: Sequence[Item], most: int) -> tuple[list[Tree], list[list[int]]]:
    """Each prompt with its responses, and the indices of these; more than `most` tokens of one prompt are several trees."""
    together: dict[tuple[int, ...], list[int]] = {}
    for index, (prompt, _) in enumerate(items):
        together.setdefault(prompt, []).append(index)
    places: list[list[int]] = []
    for prompt, indices in together.items():
        room = -1
        for index in indices:
            length = len(items[index][1])
            if length > room:
                places.append([])
                room = max(most - len(prompt), length)
            places[-1].append(index)
            room -= length
    return [Tree(items[own[0]][0], tuple(items[index][1] for index in own)) for own in places], places


def _in_a_row(trunk: Trunk, short: Sequence[Item], spec: FeatureSpec, row: int) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Indices and what is read of them, a forward pass at a time."""
    trees, places = by_prompt(short, row)
    for group in packs([tree.size for tree in trees], row):
        packed = pack([trees[tree] for tree in group], trunk.pad_id, device=trunk.device)
        yield [index for tree in group for index in places[tree]], list(pool(trunk.hidden_layers(packed, spec.layers), packed, spec))


def _padded(trunk: Trunk, short: Sequence[Item], spec: FeatureSpec) -> Iterator[tuple[list[int], list[Tensor]]]:
    """The same with sequences of one width in a rectangle."""
    widths = [_width(item) for item in short]
    order = sorted(range(len(short)), key=lambda index: (-widths[index], index))
    for _, same in groupby(order, key=widths.__getitem__):
        for group in iter(lambda: list(islice(same, BATCH)), []):  # noqa: B023 (used at once)
            batch = collate([short[index][0] for index in group], [short[index][1] for index in group], trunk.pad_id, device=trunk.device)
            missing = widths[group[0]] - batch.input_ids.shape[1]
            batch = replace(batch, input_ids=torch.nn.functional.pad(batch.input_ids, (0, missing), value=trunk.pad_id))
            yield group, list(pool(trunk.hidden_layers(batch, spec.layers), batch, spec))


class FeatureCache:
    """Features on disk: safetensors files of many responses each, found again by a hash of the tokens. A file is there whole or not at all."""

    def __init__(self, folder: Path, trunk: Trunk, spec: FeatureSpec) -> None:
        self.trunk, self.spec = trunk, spec
        self.folder = folder / content_id(trunk.fingerprint, asdict(spec), length=16)

    def get(self, items: Sequence[Item], *, label: str = "features") -> Tensor:
        """(N, D) fp32, read where they are known, else computed and kept; an interrupted call goes on where it stopped.

        Raises:
            UserError: a file of the cache can't be read, or the disk is full.
        """
        short = [shorten(*item, self.spec.max_tokens) for item in items]
        keys = [item_key(item) for item in short]
        known = self._read(set(keys))
        missing = {key: item for key, item in sorted(zip(keys, short, strict=True)) if key not in known}
        groups = self._groups(missing)
        for found in track(self._compute(missing, groups), label, len(groups)):
            known.update(found)
        return torch.stack([known[key] for key in keys]) if keys else torch.empty(0, self.spec.width(self.trunk.hidden_size))

    def _groups(self, missing: Mapping[str, Item]) -> list[list[str]]:
        """Keys in the order in which they are computed, a forward pass' worth at a time, the responses of a prompt together."""
        keys = list(missing)
        trees, places = by_prompt([missing[key] for key in keys], ROW)
        return [[keys[index] for tree in group for index in places[tree]] for group in packs([tree.size for tree in trees], ROW)]

    def _compute(self, missing: Mapping[str, Item], groups: Sequence[Sequence[str]]) -> Iterator[dict[str, Tensor]]:
        """Features of `missing`; every `SHARD` of them are written down."""
        unsaved: dict[str, Tensor] = {}
        for place, keys in enumerate(groups, 1):
            found = dict(zip(keys, features(self.trunk, [missing[key] for key in keys], self.spec), strict=True))
            unsaved.update(found)
            if len(unsaved) >= SHARD or place == len(groups):
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
        keep(self.folder / f"{content_id(keys, length=16)}.safetensors", data)


def keep(file: Path, data: bytes) -> None:
    """Write a file that lets an interrupted fit go on.

    Raises:
        UserError: the disk is full.
    """
    what = f"the disk is full: {file.name} of {len(data) / 1e6:.0f} MB was not written"
    with full_disk_said(what, fix=f"free some space on the disk of {file.parent} and type the same command again: it goes on from here"):
        write_atomically(file, data)


def item_key(item: Item) -> str:
    """A hash of the tokens of a prompt and response."""
    return hashlib.sha256(json.dumps(item).encode()).hexdigest()[:32]


def _width(item: Item) -> int:
    return -(-(len(item[0]) + len(item[1])) // WIDTH_STEP) * WIDTH_STEP
