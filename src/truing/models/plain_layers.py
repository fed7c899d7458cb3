"""Plain causal layers (Llama, Qwen 2, Mistral without a window) on one row of tokens, with their own weights and adapters.

The same sums as transformers' modules, in fewer passes over memory: outside the matrix products a small model on a CPU spends its time there.

Shapes: N tokens of a row, B sequences that grow by a token at a time, S tokens that each may have, H hidden, h heads of queries, g of keys and values, D
numbers of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from truing.models.packed import Packed, attend
from truing.models.products import Products, Together

Keep = Callable[[Tensor, Tensor], None]


def layer_forward(layer: Any, states: Tensor, cos: Tensor, sin: Tensor, packed: Packed, keep: Keep | None = None) -> Tensor:
    """(N, H) after a transformer layer from (N, H) before it.

    Args:
        cos, sin: (N, D) of the rotary embedding at each token's position.
        keep: is given the layer's keys and values, (N, g, D).
    """
    own = layer.self_attn
    query, key, value = _projected(layer, states, cos, sin)
    if keep is not None:
        keep(key, value)
    mixed = attend(query, key, value, own.scaling, packed)
    states = states + own.o_proj(mixed.flatten(1))
    found: Tensor = states + layer.mlp(norm(layer.post_attention_layernorm, states))
    return found


def layer_step(
    layer: Any, states: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, at: int | Tensor, mask: Tensor, products: Products
) -> Tensor:
    """(B, H) after a transformer layer from (B, H) before it, one more token of each sequence; its keys and values are written into the buffers.

    Args:
        cos, sin: (B, D) of the rotary embedding at each token's position.
        keys, values: (B, g, S, D).
        at: the place of the new token, the same in every sequence; as (1,) on the model's device, the whole of the buffers is looked at, so that every step
            is the same work.
        mask: (B, 1, 1, at + 1), 0 where it may look and -inf where not; (B, 1, 1, S) where `at` is a tensor.
        products: who applies the layer's matrices.
    """
    own = layer.self_attn
    inner = norm(layer.input_layernorm, states)
    into, out, wide, narrow = matrices(layer)
    projected, shared = products(into, inner).unflatten(-1, (-1, own.head_dim)), keys.shape[1]  # (B, h + 2 g, D): queries, keys, values
    turned = rotate(projected[:, :-shared], cos, sin)
    seen_keys, seen_values = _written(keys, at, turned[:, -shared:]), _written(values, at, projected[:, -shared:])
    together = turned[:, :-shared].unflatten(1, (shared, -1))  # (B, g, h / g, D): the heads that share keys ask as if they were tokens
    mixed = scaled_dot_product_attention(together, seen_keys, seen_values, attn_mask=mask, scale=own.scaling)
    states = states + products(out, mixed.flatten(1))
    gate, up = products(wide, norm(layer.post_attention_layernorm, states)).chunk(2, -1)
    return states + products(narrow, layer.mlp.act_fn(gate).mul_(up))


def matrices(layer: Any) -> list[Together]:
    """Of a layer, as modules: what `layer_step` multiplies by, those that are applied to the same rows together."""
    own, mlp = layer.self_attn, layer.mlp
    return [(own.q_proj, own.k_proj, own.v_proj), (own.o_proj,), (mlp.gate_proj, mlp.up_proj), (mlp.down_proj,)]


def _written(buffer: Tensor, at: int | Tensor, states: Tensor) -> Tensor:
    """What there is to look at of a buffer (B, g, S, D) once states (B, g, D) stand at that place."""
    if isinstance(at, Tensor):
        return buffer.index_copy_(2, at, states[:, :, None])
    buffer[:, :, at] = states
    return buffer[:, :, : at + 1]


def _projected(layer: Any, states: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, h, D), (N, g, D) and (N, g, D): queries and keys, turned, and values."""
    own = layer.self_attn
    inner = norm(layer.input_layernorm, states)
    query, key, value = (project(inner).unflatten(-1, (-1, own.head_dim)) for project in (own.q_proj, own.k_proj, own.v_proj))
    return rotate(query, cos, sin), rotate(key, cos, sin), value


def norm(module: Any, states: Tensor) -> Tensor:
    """(N, H) after root-mean-square normalisation (Zhang & Sennrich 2019, arXiv:1910.07467) with a module's weight."""
    if not torch.is_grad_enabled():
        return _normed(states, module.weight, module.variance_epsilon)[0]
    found: Tensor = _Norm.apply(states, module.weight, module.variance_epsilon)  # type: ignore[no-untyped-call]
    return found


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(N, heads, D) with each half's pairs turned by their positions' angles (Su et al. 2021, arXiv:2104.09864)."""
    if not torch.is_grad_enabled():
        return _turned(states, cos, sin, 1)
    found: Tensor = _Rotate.apply(states, cos, sin)  # type: ignore[no-untyped-call]
    return found


class _Norm(torch.autograd.Function):
    """y = w x / r, r = √(mean x² + ε), in fp32; dx = (w g − x mean(w g x) / r²) / r."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        found, scale = _normed(states, weight, epsilon)
        ctx.save_for_backward(states, weight, scale)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, scale = ctx.saved_tensors
        fine, upward = states.to(scale.dtype), grad.to(scale.dtype)
        of_weight = (upward * fine).mul_(scale).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        pulled = upward * weight
        along = (pulled * fine).mean(-1, keepdim=True).mul_(scale.pow(3)).neg_()
        return pulled.mul_(scale).addcmul_(fine, along).to(states.dtype), of_weight, None


def _normed(states: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(N, H) and 1 / r, (N, 1)."""
    fine = states.to(torch.promote_types(states.dtype, torch.float32))
    scale = fine.square().mean(-1, keepdim=True).add_(epsilon).rsqrt_()
    return (fine * scale).to(states.dtype).mul_(weight), scale


class _Rotate(torch.autograd.Function):
    """y = x cos + turned(x) sin; its gradient is turned back by the same angles."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(states, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def _turned(states: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    half = states.shape[-1] // 2
    cos, sin = cos[:, None], sin[:, None]
    found = states * cos
    found[..., :half].addcmul_(states[..., half:], sin[..., :half], value=-way)
    found[..., half:].addcmul_(states[..., :half], sin[..., half:], value=way)
    return found
