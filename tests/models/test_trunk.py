"""One base, many adapters: none of them disturbs the base or another, and files are PEFT's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from adapters import stir
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.sequences import collate
from truing.models.trunk import Trunk, open_trunk

BATCH = collate([[5, 6, 7], [9]], [[8, 9, 10, 11], [12, 2]], 0)


@torch.no_grad()
def states(trunk: Trunk, name: str | None) -> Tensor:
    with trunk.using(name):
        return trunk.hidden(BATCH)


def weights(trunk: Trunk) -> list[tuple[int, Tensor]]:
    """Where the base's weights lie and what they are."""
    return [(value.data_ptr(), value.detach().clone()) for key, value in trunk.model.named_parameters() if "lora_" not in key]


def assert_untouched(trunk: Trunk, before: list[tuple[int, Tensor]]) -> None:
    after = weights(trunk)
    assert len(after) == len(before)
    for (new_place, new), (place, old) in zip(after, before, strict=True):
        assert new_place == place, "the very same memory"
        assert torch.equal(new, old)


def test_what_a_trunk_knows_about_its_model(trunk: Trunk) -> None:
    assert (trunk.hidden_size, trunk.layers, trunk.dtype, trunk.softcap) == (32, 2, torch.float32, None)
    assert trunk.eos_ids == {0, 2}
    assert not trunk.model.training
    assert not any(parameter.requires_grad for parameter in trunk.model.parameters())


def test_text_to_tokens_and_back(trunk: Trunk) -> None:
    ids = trunk.prompt_ids([{"role": "user", "content": "Hi ☂"}])
    assert trunk.tokenizer.decode(ids) == "<|im_start|>user\nHi ☂<|im_end|>\n<|im_start|>assistant\n"
    response = trunk.response_ids("Güten Tag")
    assert response[-1] in trunk.eos_ids
    assert trunk.text(response) == "Güten Tag"
    trunk.tokenizer.chat_template = None
    assert trunk.tokenizer.decode(trunk.prompt_ids([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])) == "a\n\nb\n\n"


def test_hidden_layers_are_the_models_own(trunk: Trunk) -> None:
    with torch.no_grad():
        found = trunk.hidden_layers(BATCH, [0, 1, 2])
        assert torch.equal(found[0], trunk.model.get_input_embeddings()(BATCH.input_ids))
        assert torch.equal(found[2], trunk.hidden(BATCH))
        assert not torch.equal(found[1], found[2])


def test_logits_are_the_models_own(trunk: Trunk) -> None:
    with torch.no_grad():
        own = trunk.model(input_ids=BATCH.input_ids).logits
        assert torch.allclose(trunk.logits(trunk.hidden(BATCH).flatten(0, 1)).view_as(own), own, rtol=0, atol=1e-5)


def test_a_new_adapter_changes_nothing_until_it_has_learned(trunk: Trunk) -> None:
    base = states(trunk, None)
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1)
    assert torch.equal(states(trunk, "policy"), base)
    stir(trunk, "policy", seed=2)
    assert not torch.equal(states(trunk, "policy"), base)
    assert torch.equal(states(trunk, None), base)
    trunk.drop_adapter("policy")
    assert torch.equal(states(trunk, None), base)
    assert not trunk.has_adapter("policy")


def test_an_adapter_starts_from_its_seed(trunk: Trunk) -> None:
    starts: list[Tensor] = []
    for seed in (1, 1, 2, 2**63 + 5):
        torch.manual_seed(len(starts))
        state = torch.random.get_rng_state()
        trunk.add_adapter("policy", rank=4, alpha=8, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), state), "the global state isn't moved"
        starts.append(torch.cat([value.detach().flatten() for value in trunk.adapter_parameters("policy")]))
        trunk.drop_adapter("policy")
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_only_upper_layers_are_adapted_where_asked(trunk: Trunk) -> None:
    trunk.add_adapter("other", rank=2, alpha=2, seed=0)
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1, top_layers=1)
    assert len(trunk.adapter_state("policy")) == 14
    assert all(".layers.1." in name for name in trunk.adapter_state("policy"))
    assert len(trunk.adapter_state("other")) == 28
    stir(trunk, "policy", seed=2)
    with torch.no_grad():
        before = trunk.hidden_layers(BATCH, [1, 2])
        with trunk.using("policy"):
            after = trunk.hidden_layers(BATCH, [1, 2])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


def test_two_adapters_do_not_disturb_one_another(tuned: Trunk) -> None:
    base, policy = states(tuned, None), states(tuned, "policy")
    tuned.add_adapter("reward", rank=2, alpha=2, seed=3)
    stir(tuned, "reward", seed=4)
    reward = states(tuned, "reward")
    assert not torch.equal(policy, reward)
    stir(tuned, "reward", seed=5)
    assert torch.equal(states(tuned, "policy"), policy)
    with tuned.using("policy"):
        with tuned.using("reward"), tuned.using(None):
            assert torch.equal(tuned.hidden(BATCH), base)
        assert torch.equal(tuned.hidden(BATCH), policy), "the one that was on is on again"
    assert torch.equal(states(tuned, None), base)
    assert not {id(value) for value in tuned.adapter_parameters("policy")} & {id(value) for value in tuned.adapter_parameters("reward")}
    tuned.drop_adapter("reward")
    assert not tuned.has_adapter("reward")
    assert torch.equal(states(tuned, "policy"), policy)
    assert torch.equal(tuned.hidden(BATCH), base), "what remains is off, as it was"


def test_gradients_go_to_the_adapter_that_is_on(tuned: Trunk) -> None:
    tuned.add_adapter("reward", rank=2, alpha=2, seed=3)
    for name in ("policy", "reward"):
        for parameter in tuned.adapter_parameters(name):
            parameter.requires_grad_(True)
    with tuned.using("policy"):
        tuned.hidden(BATCH).square().sum().backward()
    assert all(parameter.grad is not None for parameter in tuned.adapter_parameters("policy"))
    assert all(parameter.grad is None for parameter in tuned.adapter_parameters("reward"))


@torch.no_grad()
def test_merged_is_the_adapter_and_leaves_the_same_bits_behind(tuned: Trunk) -> None:
    before, base, policy = weights(tuned), states(tuned, None), states(tuned, "policy")
    with tuned.merged("policy"):
        assert (tuned.hidden(BATCH) - policy).abs().max() < 1e-5
        assert (tuned.hidden(BATCH) - base).abs().max() > 1e-2
    assert_untouched(tuned, before)
    assert torch.equal(states(tuned, None), base)
    assert torch.equal(states(tuned, "policy"), policy)
    with tuned.merged(None):
        assert torch.equal(tuned.hidden(BATCH), base)


def test_merged_leaves_the_same_bits_behind_an_error(tuned: Trunk) -> None:
    before, policy = weights(tuned), states(tuned, "policy")

    def fails_inside() -> None:
        with tuned.merged("policy"):
            raise KeyboardInterrupt

    with tuned.using("policy"):
        with pytest.raises(KeyboardInterrupt):
            fails_inside()
        assert torch.equal(tuned.hidden(BATCH), policy), "and the adapter that was on is on again"
    assert_untouched(tuned, before)


def test_an_adapter_survives_its_file_to_the_bit(tuned: Trunk, tiny_model: Path, tmp_path: Path) -> None:
    expected = states(tuned, "policy")
    tuned.save_adapter("policy", tmp_path / "adapter")
    other = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    base = states(other, None)
    other.add_adapter("reward", rank=2, alpha=2, seed=3)
    for _ in range(2):  # the second replaces the first
        other.load_adapter("loaded", tmp_path / "adapter")
        assert torch.equal(states(other, "loaded"), expected)
        assert torch.equal(states(other, None), base)
    assert all(value.dtype == torch.float32 for value in other.adapter_parameters("loaded"))
    other.drop_adapter("loaded")
    assert torch.equal(states(other, None), base)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("more", [{"use_dora": True}, {"modules_to_save": ["norm"]}, {"bias": "lora_only"}, {"trainable_token_indices": [3]}])
def test_an_adapter_that_is_more_than_lora_is_refused(trunk: Trunk, tiny_model: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **more))
    theirs.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"plain LoRA: {next(iter(more)).removesuffix('_only')}") as refused:
        trunk.load_adapter("policy", tmp_path)
    assert "merge" in str(refused.value.fix)
    assert not trunk.has_adapter("policy")


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_another_kind_of_adapter_is_refused(trunk: Trunk, tiny_model: Path, tmp_path: Path) -> None:
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), IA3Config(task_type="CAUSAL_LM")).save_pretrained(tmp_path)
    trunk.add_adapter("policy", rank=2, alpha=2, seed=1)
    with pytest.raises(UserError, match=r"plain LoRA: .*IA3"):
        trunk.load_adapter("policy", tmp_path)
    assert trunk.has_adapter("policy"), "the one that was there stays"


def test_an_adapter_that_isn_t_there_can_t_be_turned_on(tuned: Trunk) -> None:
    with pytest.raises(AssertionError, match="no adapter other"), tuned.using("other"):
        pass


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("top_layers", [None, 1])
def test_plain_peft_opens_the_files(trunk: Trunk, tiny_model: Path, tmp_path: Path, top_layers: int | None) -> None:
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1, top_layers=top_layers)
    stir(trunk, "policy", seed=2)
    trunk.save_adapter("policy", tmp_path)
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
    with torch.no_grad():
        expected = theirs(input_ids=BATCH.input_ids).logits
        with trunk.using("policy"):
            ours = trunk.model(input_ids=BATCH.input_ids).logits
        assert (trunk.model(input_ids=BATCH.input_ids).logits - expected).abs().max() > 0.1
    assert torch.allclose(ours, expected, rtol=0, atol=1e-4)


def test_equal_weights_make_equal_files(tiny_model: Path, tmp_path: Path) -> None:
    for copy in ("one", "two"):
        trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
        trunk.add_adapter("policy", rank=4, alpha=8, seed=1)
        trunk.save_adapter("policy", tmp_path / copy)
        trunk.save_adapter("policy", tmp_path / f"{copy}-again")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names
    targets = json.loads((tmp_path / "one" / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(targets), "a set's order differs from process to process"
    for copy in ("one-again", "two", "two-again"):
        assert {path.name for path in (tmp_path / copy).iterdir()} == names
        for name in names:
            assert (tmp_path / copy / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


def test_a_fingerprint_speaks_for_the_base_and_how_it_reads(tiny_model: Path) -> None:
    def fresh(dtype: str = "fp32") -> Trunk:
        return open_trunk(ModelSettings.model_validate({"name": str(tiny_model), "dtype": dtype}))

    known = fresh().fingerprint
    adapted = fresh()
    adapted.add_adapter("policy", rank=4, alpha=8, seed=1)
    assert adapted.fingerprint == known
    changed = fresh()
    with torch.no_grad():
        next(changed.model.parameters())[0, 0] += 1
    assert changed.fingerprint != known
    assert fresh("bf16").fingerprint != known
    other_template, other_tokens, other_end, used = fresh(), fresh(), fresh(), fresh()
    other_template.tokenizer.chat_template += " "
    other_tokens.tokenizer.add_tokens(["kind"])
    other_end.eos_ids = frozenset({0})
    assert len({known, other_template.fingerprint, other_tokens.fingerprint, other_end.fingerprint}) == 4
    used.tokenizer(["a", "longer"], truncation=True, max_length=2)
    assert used.fingerprint == known


def test_a_model_without_an_end_token_is_refused(trunk: Trunk) -> None:
    trunk.model.generation_config.eos_token_id = None
    assert Trunk("tiny", trunk.model, trunk.tokenizer).eos_ids == {2}, "the tokenizer's own"
    trunk.tokenizer.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        Trunk("tiny", trunk.model, trunk.tokenizer)
