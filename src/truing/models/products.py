"""Products of a few rows with a model's matrices, time after time, as in sampling a token at a time.

PyTorch hands each to a kernel that lays the matrix out anew for every product; with few rows that takes longer than the product. On a CPU with oneDNN, in fp32
and where it has products of bf16, the matrices are laid out once for all that is drawn, those that are applied to the same rows as one (docs/log.md has what
that gains).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

FEWEST_STEPS = 8  # to lay all matrices out (0.2 to 0.6 s for 135M) takes as long as some steps save
LIKELY_ROWS = 16  # laid out with these in mind; others gain as much, measured from 4 to 128

Together = tuple[nn.Module, ...]


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(N, O) from x (N, I) and weight (O, I), without a gradient: what `nn.functional.linear` gives, by the faster library where O is a vocabulary.

    In fp32 on a CPU PyTorch asks MKL, which is twice as slow as oneDNN where O is tens of thousands, and as fast elsewhere (docs/log.md).
    """
    if weight.dtype == torch.float32 and weight.device.type == "cpu" and torch.backends.mkldnn.is_available():
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found
    return nn.functional.linear(x, weight, bias)


class Products:
    """`nn.Linear` modules, or LoRA around them that is off, applied to rows.

    Args:
        groups: modules that are applied to the same rows stand together.
        lay_out: False multiplies as ever, for too few steps to gain.
    """

    def __init__(self, groups: Iterable[Together], *, lay_out: bool) -> None:
        self._laid_out: dict[Together, tuple[Tensor, Tensor | None]] = {}
        for group in groups if lay_out and torch.backends.mkldnn.is_available() else ():
            bases = [base for base in map(_bare, group) if base is not None and _gains(base)]
            if len(bases) == len(group):
                weight = bases[0].weight.detach() if len(bases) == 1 else torch.cat([base.weight.detach() for base in bases])
                self._laid_out[group] = torch.ops.mkldnn._reorder_linear_weight(weight, LIKELY_ROWS), _biases(bases)

    def __call__(self, group: Together, x: Tensor) -> Tensor:
        """(N, O) from x (N, I): what the group's modules give, side by side. Carries no gradient."""
        found: Tensor
        if group in self._laid_out:
            found = torch.ops.mkldnn._linear_pointwise(x, *self._laid_out[group], "none", [], "")
        else:
            parts = [module(x) for module in group]
            found = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        return found


def _bare(module: Any) -> nn.Linear | None:
    """The linear layer that a module comes down to, or None where it is more than that."""
    if hasattr(module, "lora_A"):  # PEFT's, around a linear layer
        on = not module.disable_adapters and any(name in module.lora_A for name in module.active_adapters)
        module = module if on else module.get_base_layer()
    return module if type(module) is nn.Linear else None


def _gains(base: nn.Linear) -> bool:
    if base.weight.device.type != "cpu":
        return False
    return base.weight.dtype == torch.float32 or (base.weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _biases(bases: list[nn.Linear]) -> Tensor | None:
    if all(base.bias is None for base in bases):
        return None
    return torch.cat([base.weight.new_zeros(base.out_features) if base.bias is None else base.bias.detach() for base in bases])
