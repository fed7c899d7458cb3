"""The layers' arithmetic is that of transformers' modules, and its gradients are those of the sums it does."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from truing.models.plain_layers import norm, rotate


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_transformers_own(dtype: torch.dtype) -> None:
    module = LlamaRMSNorm(8, eps=1e-5).to(dtype)
    with torch.no_grad():
        module.weight.copy_(drawn(8, seed=1))
    states = (3 * drawn(5, 8)).to(dtype)
    torch.testing.assert_close(norm(module, states), module(states))


def test_a_turn_is_transformers_own() -> None:
    config = LlamaConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2)
    states = drawn(5, 2, 8).float()
    cos, sin = LlamaRotaryEmbedding(config)(states, torch.tensor([[0, 1, 2, 1, 7]]))
    theirs, _ = apply_rotary_pos_emb(states.transpose(0, 1)[None], states.transpose(0, 1)[None], cos, sin)
    torch.testing.assert_close(rotate(states, cos[0], sin[0]), theirs[0].transpose(0, 1))


def test_gradients_are_those_of_the_sums() -> None:
    module = LlamaRMSNorm(6, eps=1e-2).double()
    with torch.no_grad():
        module.weight.copy_(drawn(6, seed=1))
    states = drawn(4, 6).requires_grad_()

    def normed(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        module._parameters["weight"] = weight
        return norm(module, states)

    assert torch.autograd.gradcheck(normed, (states, drawn(6, seed=1).requires_grad_()))
    angles = drawn(4, 3, seed=2)
    cos, sin = (torch.cat([half, half], 1) for half in (angles.cos(), angles.sin()))
    assert torch.autograd.gradcheck(lambda own: rotate(own, cos, sin), (drawn(4, 2, 6).requires_grad_(),))
