"""Our LoRA arithmetic is PEFT's, with the right gradients."""

from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from adapters import stir
from truing.models.lora import _LoraLinear
from truing.models.sequences import collate
from truing.models.trunk import Trunk

BATCH = collate([[5, 6, 7], [9]], [[8, 9, 10, 11], [12, 2]], 0)


def lora_layers(trunk: Trunk) -> list[Any]:
    return [module for module in trunk.model.modules() if isinstance(module, LoraLayer)]


def test_our_forward_is_pefts_in_fp32(tuned: Trunk) -> None:
    layers = lora_layers(tuned)
    assert len(layers) == 14
    with tuned.using("policy"), torch.no_grad():
        for layer in layers:
            assert "forward" in vars(layer), "ours stands on the instance, PEFT's on the class"
            x = torch.randn(2, 3, layer.in_features)
            ours, theirs = layer.forward(x), type(layer).forward(layer, x)
            assert (ours - theirs).abs().max() <= 1e-6 * max(1.0, float(theirs.abs().max()))


def test_our_gradients_are_pefts_in_fp32(tuned: Trunk) -> None:
    def gradients() -> list[Tensor]:
        with tuned.using("policy"):
            for parameter in parameters:
                parameter.grad = None
            tuned.hidden(BATCH).square().mean().backward()
        return [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]

    parameters = tuned.adapter_parameters("policy")
    ours = gradients()
    for layer in lora_layers(tuned):
        del layer.forward
    theirs = gradients()
    assert len(ours) == len(theirs) == len(parameters) == 28
    for our, their in zip(ours, theirs, strict=True):
        assert our.abs().max() > 0
        assert (our - their).abs().max() <= 1e-6 + 1e-5 * float(their.abs().max())


@pytest.mark.parametrize("biased", [False, True])
def test_gradients_by_finite_differences(biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weight, bias = random(5, 4), random(5) if biased else None
    x, a, b = (tensor.requires_grad_(True) for tensor in (random(2, 3, 4), random(2, 4), random(5, 2)))
    assert torch.autograd.gradcheck(lambda x, a, b: _LoraLinear.apply(x, weight, bias, a, b, 0.5), (x, a, b))
    expected = torch.nn.functional.linear(x, weight, bias) + 0.5 * (x @ a.T) @ b.T
    assert torch.allclose(_LoraLinear.apply(x, weight, bias, a, b, 0.5), expected, rtol=0, atol=1e-12)


def test_bf16_is_close_and_its_gradients_are_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((3, 7, 32), (16, 32)))
    a, b = (torch.randn(*shape, generator=generator).requires_grad_(True) for shape in ((4, 32), (16, 4)))
    output = _LoraLinear.apply(x, weight, None, a, b, 0.25)
    output.float().square().mean().backward()
    exact_a, exact_b = (tensor.detach().double().requires_grad_(True) for tensor in (a, b))
    exact = x.double() @ weight.double().T + 0.25 * (x.double() @ exact_a.T) @ exact_b.T
    exact.square().mean().backward()
    assert output.dtype == torch.bfloat16
    assert (output.double() - exact).abs().max() < 0.01 * exact.abs().max()
    for ours, theirs in ((a.grad, exact_a.grad), (b.grad, exact_b.grad)):
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == torch.float32
        assert (ours.double() - theirs).norm() < 0.01 * theirs.norm()


def test_nothing_is_kept_for_a_backward_pass_that_never_comes() -> None:
    x, weight = torch.randn(3, 4), torch.randn(5, 4)
    with torch.no_grad():
        output = _LoraLinear.apply(x, weight, None, torch.randn(2, 4, requires_grad=True), torch.randn(5, 2, requires_grad=True), 1.0)
    assert not output.requires_grad


def test_a_disabled_adapter_is_the_base_to_the_bit(trunk: Trunk) -> None:
    with torch.no_grad():
        before = trunk.hidden(BATCH)
        trunk.add_adapter("policy", rank=4, alpha=8, seed=1)
        stir(trunk, "policy", seed=2)
        assert torch.equal(trunk.hidden(BATCH), before)
        with trunk.using("policy"):
            assert not torch.equal(trunk.hidden(BATCH), before)
        with trunk.using(None):
            assert torch.equal(trunk.hidden(BATCH), before)
