"""Matrices laid out for a number of rows give the products that they give anyway."""

from pathlib import Path

import pytest
import torch
from torch import nn

from adapters import stir
from truing.models.generate import generate
from truing.models.products import FEWEST_ROWS, Products
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk


@pytest.fixture
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("asked", [1, 5, 16, 40])
def test_any_number_of_rows_can_be_asked(bias: bool, asked: int) -> None:
    torch.manual_seed(0)
    module = nn.Linear(48, 32, bias=bias)
    products, x = Products([module], 16), torch.randn(asked, 48)
    assert (products(module, x) - module(x)).abs().max() < 1e-5


def test_only_what_gains_is_laid_out() -> None:
    fine, coarse = nn.Linear(8, 8), nn.Linear(8, 8, dtype=torch.bfloat16)
    assert set(Products([fine, coarse], FEWEST_ROWS)._laid_out) == ({fine} if torch.backends.mkl.is_available() else set())
    assert not Products([fine, coarse], FEWEST_ROWS - 1)._laid_out


@torch.no_grad()
def test_what_is_merged_is_laid_out_and_what_is_on_is_asked_itself(trunk: Trunk) -> None:
    trunk.add_adapter("policy", rank=2, alpha=4, seed=1)
    stir(trunk, "policy", seed=2)
    module, x = trunk.model.model.layers[0].mlp.gate_proj, torch.randn(16, trunk.hidden_size)
    with trunk.merged("policy"):
        merged = Products([module], 16)
        assert set(merged._laid_out) == ({module} if torch.backends.mkl.is_available() else set())
        summed = merged(module, x)
    with trunk.using("policy"):
        on = Products([module], 16)
        assert not on._laid_out
        assert (on(module, x) - summed).abs().max() < 1e-5
    assert (Products([module], 16)(module, x) - summed).abs().max() > 1e-3  # the base's


@torch.no_grad()
def test_nothing_is_laid_out_for_a_step_or_two(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    """One-token answers, as on a bandit, would pay for it and never gain."""
    asked: list[int] = []
    products = trunk.products

    def counted(rows: int) -> Products:
        asked.append(rows)
        return products(rows)

    monkeypatch.setattr(trunk, "products", counted)
    for steps in (1, 2, 12):
        trunk.eos_ids = frozenset()
        generate(trunk, [[5, 6, 7]] * 16, range(16), max_new_tokens=steps, temperature=1.0)
    assert asked == [0, 16]
