"""A role with weights of its own, all of them: full fine-tuning beside a frozen base that stays the reference."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.errors import UserError

FILE = "weights.safetensors"


class Place(NamedTuple):
    """Where a weight stands: an attribute of a module."""

    module: nn.Module
    leaf: str
    base: nn.Parameter


class WholeWeights:
    """A learnable copy of some of a model's weights, which can stand in their place.

    Attributes:
        weights: by their names in the bare model, as the base has them.
    """

    def __init__(self, model: nn.Module, wanted: Callable[[str], bool]) -> None:
        """Copy the weights that stand in a model now, but for those of adapters.

        Args:
            wanted: whether a weight of that name is copied. A matrix that is used twice, as input and output embedding, is copied once.
        """
        self.weights: dict[str, nn.Parameter] = {}
        self._places: list[tuple[Place, str]] = []
        names: dict[int, str] = {}
        for prefix, module in model.named_modules():
            for leaf, parameter in module._parameters.items():
                name = names.setdefault(id(parameter), bare(f"{prefix}.{leaf}"))
                if parameter is None or "lora_" in name or not wanted(name):
                    continue
                if name not in self.weights:
                    self.weights[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                self._places.append((Place(module, leaf, parameter), name))

    def step_in(self) -> None:
        """Stand in the base's place."""
        for place, name in self._places:
            place.module._parameters[place.leaf] = self.weights[name]

    def step_out(self) -> None:
        """Give it back: the same tensors as before."""
        for place, _ in self._places:
            place.module._parameters[place.leaf] = place.base

    def save(self, folder: Path) -> None:
        """Write them, straight into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: weight.detach().cpu().contiguous() for name, weight in sorted(self.weights.items())}, folder / FILE, metadata={"format": "pt"})

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `save` wrote.

        Raises:
            UserError: it is of another model.
        """
        if {name: value.shape for name, value in tensors.items()} != {name: weight.shape for name, weight in self.weights.items()}:
            raise UserError("these weights are of another model than the project's", fix="set model.name to the one that they were tuned from")
        for name, weight in self.weights.items():
            weight.copy_(tensors[name])


def saved(folder: Path) -> dict[str, Tensor] | None:
    """What `WholeWeights.save` wrote, or None where it wrote nothing."""
    return load_file(folder / FILE) if (folder / FILE).exists() else None


def bare(name: str) -> str:
    """A weight's name in the model as it was before any adapter was put on it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
