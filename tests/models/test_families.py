"""Families of models differ in attention, positions, matrices and logits; what Truing computes agrees with what each computes itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from adapters import stir
from truing.errors import UserError
from truing.models.generate import generate
from truing.models.logprobs import response_logprobs
from truing.models.registry import ModelSettings
from truing.models.sequences import collate
from truing.models.trunk import Lower, Trunk, open_trunk

SIZES: dict[str, Any] = {
    "vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip
WIDE: dict[str, Any] = {**SIZES, "intermediate_size": 64, "initializer_range": 0.3, "pad_token_id": None}
GROUPED: dict[str, Any] = {**WIDE, "num_key_value_heads": 2}
WINDOW = 6  # shorter than the sequences below, so that it matters
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**GROUPED)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED)),  # biased projections
    "qwen2, a layer slides": lambda: Qwen2ForCausalLM(Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**GROUPED, head_dim=16)),  # heads wider than hidden_size / heads
    "mistral": lambda: MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=WINDOW)),  # every layer slides
    "gemma2": lambda: Gemma2ForCausalLM(  # layers of both kinds, eager attention, capped logits
        Gemma2Config(**GROUPED, head_dim=8, sliding_window=WINDOW, final_logit_softcapping=5.0, attn_logit_softcapping=3.0)
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZES, initializer_range=0.3)),  # learned positions, transposed matrices
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**WIDE)),  # parallel blocks, an output matrix of its own
    "opt": lambda: OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=64, init_std=0.3, word_embed_proj_dim=32)),  # positions counted from 2
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(**GROUPED)),  # fused projections
}
PROMPTS = [[5, 6, 7], [8] * 14, [9, 10, 11, 12, 13, 14, 15, 16], [77]] * 2


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_model: Path) -> Trunk:
    """A random model of each family with an adapter that changes something."""
    torch.manual_seed(0)
    trunk = Trunk(request.param, FAMILIES[request.param](), AutoTokenizer.from_pretrained(tiny_model))
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1)
    stir(trunk, "policy", seed=2, size=0.05)
    return trunk


@torch.no_grad()
@pytest.mark.parametrize("role", [None, "policy"])
def test_sampling_and_scoring_agree_with_the_models_own_logits(family: Trunk, role: str | None) -> None:
    with family.merged(role):
        responses = generate(family, PROMPTS, list(range(8)), max_new_tokens=12, temperature=0.9)
    with family.using(role):
        scored = response_logprobs(family, collate(PROMPTS, [response.token_ids for response in responses], family.pad_id), 0.9).logprobs
        for row, (prompt, response) in enumerate(zip(PROMPTS, responses, strict=True)):
            tokens = torch.tensor(response.token_ids)
            logits = family.model(input_ids=torch.tensor([prompt + response.token_ids])).logits[0, len(prompt) - 1 : -1] / 0.9
            own = logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]
            assert (torch.tensor(response.logprobs) - own).abs().max() < 1e-4
            assert (scored[row, : len(tokens)] - own).abs().max() < 1e-4


@torch.no_grad()
def test_every_weight_can_be_a_role_s_own(family: Trunk) -> None:
    base = family.model(input_ids=torch.tensor([PROMPTS[1]])).logits
    family.drop_adapter("policy")
    family.add_whole("policy")
    stir(family, "policy", seed=2, size=0.05)
    test_sampling_and_scoring_agree_with_the_models_own_logits(family, "policy")
    with family.using(None):
        assert torch.equal(family.model(input_ids=torch.tensor([PROMPTS[1]])).logits, base)


def test_every_weight_learns_what_autograd_says(family: Trunk) -> None:
    """The output matrix too, whether it is the input's (gpt2, gemma2) or one of its own, and where logits are capped."""
    family.drop_adapter("policy")
    family.add_whole("policy")
    parameters = family.adapter_parameters("policy")
    batch = collate(PROMPTS, PROMPTS, family.pad_id)
    with family.using("policy"):
        for own in parameters:
            own.requires_grad_(True)
        ours = torch.autograd.grad(response_logprobs(family, batch, 0.7).logprobs.sum(), parameters)
        logits = family.model(input_ids=batch.input_ids).logits / 0.7
        theirs = torch.autograd.grad(batch.predicting(logits).log_softmax(1).gather(1, batch.targets[:, None]).sum(), parameters)
    for our, their in zip(ours, theirs, strict=True):
        assert (our - their).abs().max() <= 1e-4 * float(their.abs().max()) + 1e-5


@torch.no_grad()
def test_the_upper_half_can_be_adapted_alone(family: Trunk) -> None:
    family.drop_adapter("policy")
    family.add_adapter("policy", rank=2, alpha=4, seed=1, top_layers=1)
    stir(family, "policy", seed=2)
    batch = collate(PROMPTS, PROMPTS, family.pad_id)
    before = family.hidden_layers(batch, [1, 2])
    with family.using("policy"):
        after = family.hidden_layers(batch, [1, 2])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


@torch.no_grad()
def test_going_on_from_the_lower_layers_is_the_whole_way(family: Trunk) -> None:
    """Where the trunk says that it can; and it can for those that Truing is mostly used with."""
    rows = family.rows(PROMPTS, PROMPTS)
    assert family.splits == (family.name in ("llama", "qwen2"))
    if family.splits:
        for role in (None, "policy"):
            with family.using(role):
                lower = Lower(1, family.hidden_layers(rows, [1])[1])
                assert torch.equal(family.hidden_layers(rows, [2], lower=lower)[2], family.hidden(rows))


def test_a_model_that_scales_its_logits_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    GraniteForCausalLM(GraniteConfig(**GROUPED, logits_scaling=8.0)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="changes its logits"):
        open_trunk(ModelSettings(name=str(tmp_path), dtype="fp32"))


def test_attention_that_pytorch_cannot_do_is_left_to_the_model(tiny_model: Path, tmp_path: Path) -> None:
    """Gemma 2 caps its attention scores; PyTorch's attention would leave the cap out."""
    FAMILIES["gemma2"]().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    trunk = open_trunk(ModelSettings(name=str(tmp_path), dtype="fp32"))
    assert trunk.softcap == 5.0
    assert trunk.model.config._attn_implementation == "eager"
