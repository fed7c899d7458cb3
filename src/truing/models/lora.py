"""The arithmetic of a LoRA layer in one step: y = x W' + s (x A') B' (Hu et al. 2021, arXiv:2106.09685, eq. 3).

PEFT keeps the parameters, their names and their files; its forward pass in a bf16 model turns every input to fp32 and
keeps both copies for the backward pass. Here products run in the type of the base weights and only `x` and the (N, r)
middle are kept.
"""

import sys
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and modules of PEFT's LoRA layers in a model. Where PEFT isn't loaded yet there are none, and it isn't loaded for their sake."""
    if "peft" in sys.modules:
        from peft.tuners.lora import LoraLayer

        yield from ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def speed_up(layer: Any) -> None:
    """Give a PEFT LoRA layer around an `nn.Linear` the forward pass below; other kinds of layer keep PEFT's own."""
    if isinstance(layer.get_base_layer(), nn.Linear):
        layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, x: Tensor) -> Tensor:
    base: nn.Linear = layer.get_base_layer()
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or not names:
        return nn.functional.linear(x, base.weight, base.bias)
    (name,) = names
    output: Tensor = _LoraLinear.apply(x, base.weight, base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name])  # type: ignore[no-untyped-call]
    return output


class _LoraLinear(torch.autograd.Function):
    """x (..., I), weight (O, I) frozen, a (r, I), b (O, r) → (..., O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        rows = x.flatten(0, -2)
        a_here, b_here = a.to(x.dtype), (b * scale).to(x.dtype)
        middle = rows @ a_here.T
        output = nn.functional.linear(rows, weight, bias).addmm_(middle, b_here.T)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(rows, middle, weight, a_here, b_here)
            ctx.scale = scale
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, middle, weight, a, b = ctx.saved_tensors
        upward = grad.reshape(-1, grad.shape[-1])
        through = upward @ b  # (N, r)
        grad_x = (upward @ weight).addmm_(through, a).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        grad_a = (through.T @ rows).float() if grad.dtype != torch.float64 else through.T @ rows
        grad_b = upward.T @ middle
        grad_b = (grad_b.float() if grad.dtype != torch.float64 else grad_b) * ctx.scale
        return grad_x, None, None, grad_a, grad_b, None
