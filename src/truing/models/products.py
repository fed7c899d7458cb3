"""Products of a few rows with a model's matrices, time after time, as in sampling a token at a time.

PyTorch hands each to a kernel that lays the matrix out anew for every product; with few rows that takes longer than the product. In fp32 on a CPU with MKL the
matrices are laid out once, for so many rows: a step of sampling is then 2.5 times faster at 16 and 32 rows, and half as fast again at 64 (docs/log.md).
"""

from collections.abc import Iterable
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

FEWEST_ROWS = 8  # with less, reading the matrix is all there is to do
FEWEST_STEPS = 4  # to lay all matrices out (0.1 to 0.2 s for 135M) takes as long as one or two steps save


class Products:
    """`nn.Linear` modules, or LoRA around them that is off, applied to rows.

    Attributes:
        rows: for how many the matrices are laid out; any other number is multiplied as ever.
    """

    def __init__(self, modules: Iterable[nn.Module], rows: int) -> None:
        self.rows = rows
        self._laid_out: dict[nn.Module, tuple[Tensor, nn.Linear]] = {}
        for module in modules if rows >= FEWEST_ROWS and torch.backends.mkl.is_available() else ():
            base = _bare(module)
            if base is not None and base.weight.dtype == torch.float32 and base.weight.device.type == "cpu":
                self._laid_out[module] = torch.ops.mkl._mkl_reorder_linear_weight(base.weight.detach(), rows), base

    def __call__(self, module: Any, x: Tensor) -> Tensor:
        """(N, O) from x (N, I). Carries no gradient."""
        found: Tensor
        if module not in self._laid_out or len(x) != self.rows:
            found = module(x)
        else:
            weight, base = self._laid_out[module]
            found = torch.ops.mkl._mkl_linear(x, weight, base.weight, base.bias, self.rows)
        return found


def _bare(module: nn.Module) -> nn.Linear | None:
    """The linear layer that a module comes down to, or None where it is more than that."""
    if isinstance(module, LoraLayer):
        on = not module.disable_adapters and any(name in module.lora_A for name in module.active_adapters)
        module = module if on else module.get_base_layer()
    return module if type(module) is nn.Linear else None
