"""Every weight of a role's own: the base stays what it is, to the bit; the role is what its weights make it; and it goes to disk and back."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from adapters import stir
from tiny import make_tiny_model
from truing.errors import SettingError, UserError
from truing.models.generate import generate
from truing.models.logprobs import response_logprobs
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk

PROMPTS = [[5, 6, 7], [8] * 9, [9, 10, 11, 12]]
RESPONSES = [[20, 21, 2], [30], [40, 41]]


def states(trunk: Trunk) -> Tensor:
    return trunk.hidden(trunk.rows(PROMPTS, RESPONSES))


def logits(trunk: Trunk) -> Tensor:
    return trunk.logits(states(trunk))


@torch.no_grad()
@pytest.mark.parametrize("top_layers", [None, 1])
def test_it_begins_as_the_base_and_the_base_stays(trunk: Trunk, top_layers: int | None) -> None:
    before, fingerprint = logits(trunk), trunk.fingerprint
    trunk.add_whole("policy", top_layers=top_layers)
    with trunk.using("policy"):
        assert torch.equal(logits(trunk), before)
    stir(trunk, "policy", seed=1)
    with trunk.using("policy"):
        assert not torch.equal(logits(trunk), before)
        with trunk.using(None):
            assert torch.equal(logits(trunk), before)
    assert torch.equal(logits(trunk), before)
    fresh = open_trunk(ModelSettings(name=trunk.name, dtype="fp32"))
    fresh.add_whole("policy", top_layers=top_layers)
    with fresh.using("policy"):
        assert fresh.fingerprint == fingerprint
    trunk.drop_adapter("policy")
    assert not trunk.has_adapter("policy")
    assert torch.equal(logits(trunk), before)


def test_all_of_it_learns_and_a_shared_matrix_is_one(trunk: Trunk) -> None:
    trunk.add_whole("policy")
    parameters = trunk.adapter_parameters("policy")
    assert sum(own.numel() for own in parameters) == trunk.model.num_parameters()  # which counts the tied embedding once
    for own in parameters:
        own.requires_grad_(True)
    with trunk.using("policy"):
        rows = trunk.rows(PROMPTS, RESPONSES)
        response_logprobs(trunk, rows, 1.0, hidden=trunk.hidden(rows)).logprobs.sum().backward()
    assert all(own.grad is not None and own.grad.abs().max() > 0 for own in parameters)
    assert all(own.grad is None for own in trunk.model.parameters())


@torch.no_grad()
def test_of_the_upper_half_the_lower_layers_are_the_base_s(trunk: Trunk) -> None:
    trunk.add_whole("policy", top_layers=1)
    stir(trunk, "policy", seed=1)
    rows = trunk.rows(PROMPTS, RESPONSES)
    before = trunk.hidden_layers(rows, [1, 2])
    with trunk.using("policy"):
        after = trunk.hidden_layers(rows, [1, 2])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


@torch.no_grad()
def test_what_is_sampled_is_what_is_scored(trunk: Trunk) -> None:
    trunk.add_whole("policy")
    stir(trunk, "policy", seed=1)
    with trunk.merged("policy"):
        drawn = generate(trunk, PROMPTS, [1, 2, 3], max_new_tokens=8, temperature=0.8)
    with trunk.using("policy"):
        rows = trunk.rows(PROMPTS, [one.token_ids for one in drawn])
        scored = response_logprobs(trunk, rows, 0.8, hidden=trunk.hidden(rows)).logprobs
    for row, one in zip(scored, drawn, strict=True):
        torch.testing.assert_close(row[: len(one.logprobs)], torch.tensor(one.logprobs), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("top_layers", [None, 1])
def test_to_disk_and_back_beside_a_low_rank_adapter(trunk: Trunk, tmp_path: Path, top_layers: int | None) -> None:
    trunk.add_whole("policy", top_layers=top_layers)
    stir(trunk, "policy", seed=1)
    with trunk.using("policy"):
        expected = logits(trunk)
    trunk.save_adapter("policy", tmp_path)
    fresh = open_trunk(ModelSettings(name=trunk.name, dtype="fp32"))
    base = logits(fresh)
    fresh.add_adapter("reward", rank=2, alpha=4, seed=1)
    stir(fresh, "reward", seed=2)
    with fresh.using("reward"):
        rewarded = logits(fresh)
    fresh.load_adapter("policy", tmp_path)
    for role, found in (("policy", expected), ("reward", rewarded), (None, base), ("policy", expected)):
        with fresh.using(role):
            assert torch.equal(logits(fresh), found)
    fresh.drop_adapter("reward")
    with fresh.using("policy"):
        assert torch.equal(logits(fresh), expected)


def test_another_model_s_weights_are_refused(trunk: Trunk, tmp_path: Path) -> None:
    trunk.add_whole("policy")
    trunk.save_adapter("policy", tmp_path / "weights")
    (tmp_path / "other").mkdir()
    other = open_trunk(ModelSettings(name=str(make_tiny_model(tmp_path / "other", hidden=16)), dtype="fp32"))
    with pytest.raises(UserError, match="another model"):
        other.load_adapter("policy", tmp_path / "weights")
    assert not other.has_adapter("policy")


def test_a_base_in_bf16_can_t_be_tuned_whole(tiny_model: Path) -> None:
    with pytest.raises(SettingError) as caught:
        open_trunk(ModelSettings(name=str(tiny_model), dtype="bf16")).add_whole("policy")
    assert "model.dtype=fp32" in caught.value.fix
