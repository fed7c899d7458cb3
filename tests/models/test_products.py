"""Matrices that are laid out once give the products that they give anyway."""

from pathlib import Path

import pytest
import torch
from torch import nn

from adapters import stir
from truing.models.generate import generate
from truing.models.products import FEWEST_STEPS, Products
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk

BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


@pytest.fixture
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("asked", [1, 5, 16, 40])
def test_any_number_of_rows_can_be_asked(bias: bool, asked: int) -> None:
    torch.manual_seed(0)
    alone, first, second = nn.Linear(48, 32, bias=bias), nn.Linear(48, 16, bias=bias), nn.Linear(48, 8)
    products, x = Products([(alone,), (first, second)], lay_out=True), torch.randn(asked, 48)
    assert (products((alone,), x) - alone(x)).abs().max() < 1e-5
    assert (products((first, second), x) - torch.cat([first(x), second(x)], 1)).abs().max() < 1e-5


@torch.no_grad()
def test_only_what_gains_is_laid_out_and_the_rest_gives_the_same() -> None:
    fine, coarse = nn.Linear(8, 8), nn.Linear(8, 8, dtype=torch.float64)
    groups = [(fine,), (coarse,), (fine, coarse)]
    assert set(Products(groups, lay_out=True)._laid_out) == ({(fine,)} if torch.backends.mkldnn.is_available() else set())
    assert not Products(groups, lay_out=False)._laid_out
    x = torch.randn(3, 8)
    assert torch.equal(Products(groups, lay_out=False)((fine, fine), x), torch.cat([fine(x), fine(x)], 1))


@torch.no_grad()
@pytest.mark.skipif(not BF16, reason="no products of bf16 in this machine's oneDNN")
def test_bf16_is_laid_out_where_its_products_are_known() -> None:
    torch.manual_seed(0)
    first, second = (nn.Linear(64, 32, bias=bias, dtype=torch.bfloat16) for bias in (True, False))
    products, x = Products([(first, second)], lay_out=True), torch.randn(5, 64, dtype=torch.bfloat16)
    assert (first, second) in products._laid_out
    exact = torch.cat([nn.functional.linear(x.double(), one.weight.double(), None if one.bias is None else one.bias.double()) for one in (first, second)], 1)
    assert (products((first, second), x) - exact).abs().max() < 2**-8 * exact.abs().max()  # rounded once, at the end


@torch.no_grad()
def test_what_is_merged_is_laid_out_and_what_is_on_is_asked_itself(trunk: Trunk) -> None:
    trunk.add_adapter("policy", rank=2, alpha=4, seed=1)
    stir(trunk, "policy", seed=2)
    module, x = trunk.model.model.layers[0].mlp.gate_proj, torch.randn(16, trunk.hidden_size)
    with trunk.merged("policy"):
        merged = Products([(module,)], lay_out=True)
        assert set(merged._laid_out) == ({(module,)} if torch.backends.mkldnn.is_available() else set())
        summed = merged((module,), x)
    with trunk.using("policy"):
        on = Products([(module,)], lay_out=True)
        assert not on._laid_out
        assert (on((module,), x) - summed).abs().max() < 1e-5
    assert (Products([(module,)], lay_out=True)((module,), x) - summed).abs().max() > 1e-3  # the base's


@torch.no_grad()
def test_nothing_is_laid_out_for_a_step_or_two(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One-token answers, as on a bandit, would pay for it and never gain."""
    asked: list[bool] = []
    products = trunk.products

    def counted(*, lay_out: bool) -> Products:
        asked.append(lay_out)
        return products(lay_out=lay_out)

    monkeypatch.setattr(trunk, "products", counted)
    for steps in (1, FEWEST_STEPS - 1, FEWEST_STEPS):
        generate(trunk, [[5, 6, 7]] * 16, range(16), max_new_tokens=steps, temperature=1.0)
    assert asked == [False, False, True]
