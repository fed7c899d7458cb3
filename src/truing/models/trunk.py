"""One frozen base, many roles: LoRA adapters by name and the base itself, which is the reference, with all of them off."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from truing.errors import UserError
from truing.models.adapters import Adapted
from truing.models.packed import Packed, pack, trees_of
from truing.models.plain_layers import Keep, layer_forward, layer_step, matrices, norm
from truing.models.precision import fastest_device, fastest_dtype
from truing.models.products import Products, product
from truing.models.registry import ModelSettings, load
from truing.models.sequences import Batch, collate

Rows = Batch | Packed


class Lower(NamedTuple):
    """States after the first `layers` layers, (N, H)."""

    layers: int
    states: Tensor


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Trunk(Adapted):
    """A base language model and its adapters, read and sampled from.

    Attributes:
        name, model, dtype: see `Adapted`.
        tokenizer: its tokenizer.
        eos_ids: every token that ends an answer, by the model's generation settings.
        pad_id: fills rectangles; means nothing.
        softcap: bound on the logits where the model has one (Gemma 2), else None.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        super().__init__(name, model)
        self.tokenizer = tokenizer
        model.requires_grad_(False)
        model.eval()  # no dropout anywhere: the first-epoch ratio must be exactly 1
        self.eos_ids = _eos_ids(model, tokenizer)
        self.pad_id = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.eos_ids))
        self.softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self.head: nn.Linear = model.get_output_embeddings()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.head.weight.device

    @property
    def hidden_size(self) -> int:
        """H, the width of the hidden states."""
        return int(self.model.config.hidden_size)

    @property
    def longest(self) -> int | None:
        """How many tokens the model was built to read; None where its configuration doesn't say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of these very weights, their type, and how text becomes tokens and ends, for caches and manifests."""
        digest = hashlib.sha256(f"{self.dtype} {sorted(self.eos_ids)} {self.tokenizer.chat_template}".encode())
        digest.update(_tokens_of(self.tokenizer).encode())
        with self.using(None):
            for key, value in self._named():
                if "lora_" not in key:
                    digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def prompt_ids(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of a conversation up to where the model's answer begins."""
        if self.tokenizer.chat_template is None:
            return list(self.tokenizer("\n\n".join(turn["content"] for turn in turns) + "\n\n")["input_ids"])
        text = self.tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def response_ids(self, text: str) -> list[int]:
        """Tokens of a finished answer that came as text, with the end token. Never for what a policy sampled: that has
        its tokens."""
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], int(self.tokenizer.eos_token_id)]

    def text(self, token_ids: Sequence[int]) -> str:
        """What a person reads: the tokens decoded, special ones left out."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()

    def rows(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], *, whole: bool | None = None) -> Rows:
        """Prompts and responses as the model runs them: in one row of tokens where its layers can be run that way, else padded.

        Args:
            whole: see `Packed`.
        """
        if self.splits:
            return pack(trees_of(prompts, responses), self.pad_id, device=self.device, whole=whole)
        return collate(prompts, responses, self.pad_id, device=self.device)

    @cached_property
    def splits(self) -> bool:
        """Whether this model's layers can be run on one row of tokens, and from any layer on: plain causal ones between an embedding and a norm (Llama,
        Qwen 2, Mistral without a window)."""
        window = getattr(self.model.config, "sliding_window", None) if getattr(self.model.config, "use_sliding_window", True) else None
        return self.model.config.model_type in ("llama", "qwen2", "mistral") and window is None

    def hidden(self, rows: Rows, lower: Lower | None = None) -> Tensor:
        """(B, L, H) or (N, H) states after the last layer and the final norm, under the adapter that is on; `lower` as for `hidden_layers`."""
        if isinstance(rows, Packed):
            return self.hidden_layers(rows, [self.layers], lower=lower)[self.layers]
        output: Tensor = self._body(input_ids=rows.input_ids, use_cache=False).last_hidden_state
        return output

    def hidden_layers(self, rows: Rows, layers: Sequence[int], *, lower: Lower | None = None, keep: Keep | None = None) -> dict[int, Tensor]:
        """Layer → (B, L, H) or (N, H), under the adapter that is on. Layer 0 is the embedding, layer i the output of the i-th transformer layer; the last has
        the final norm applied.

        Args:
            lower: states after some layer to go on from. Where no adapter touches the layers below, they are the same for every role: run them once. Only
                for a model that `splits`.
            keep: is given each layer's keys and values, (N, g, D), in turn. Only for a model that `splits`.
        """
        if not isinstance(rows, Packed):
            every = self._body(input_ids=rows.input_ids, use_cache=False, output_hidden_states=True).hidden_states
            return {layer: every[layer] for layer in layers}
        done, states = (0, self._body.embed_tokens(rows.input_ids)) if lower is None else lower
        cos, sin = (angles[0] for angles in self._body.rotary_emb(states, position_ids=rows.positions[None]))
        found = {done: states} if done in layers else {}
        for place, layer in enumerate(self._body.layers[done : max(layers)], done + 1):
            states = layer_forward(layer, states, cos, sin, rows, keep)
            if place in layers:
                found[place] = norm(self._body.norm, states) if place == self.layers else states
        return found

    def logits(self, rows: Tensor, products: Products | None = None) -> Tensor:
        """(N, V) from (N, H), in the model's number type, in fp32 where it caps them; carries no gradient.

        Args:
            products: who applies the output matrix.
        """
        logits: Tensor = product(rows, self.head.weight, self.head.bias) if products is None else products((self.head,), rows)
        return logits if self.softcap is None else self.softcap * torch.tanh(logits.float() / self.softcap)

    def normed(self, states: Tensor) -> Tensor:
        """(N, H) states of any layer after the model's final norm, as if the layers above weren't there."""
        norm = next(getattr(self._body, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(self._body, name))
        own = states.to(self.device)
        if isinstance(norm, nn.LayerNorm):  # takes states in the type of its weights alone; RMS norms take any
            weight, bias = (None if one is None else one.to(own.dtype) for one in (norm.weight, norm.bias))
            output = nn.functional.layer_norm(own, norm.normalized_shape, weight, bias, norm.eps)
        else:
            output = norm(own)
        return output.to(states.device)

    def products(self, *, lay_out: bool) -> Products:
        """The model's matrices as they are now, to be applied time after time; only for a model that `splits`."""
        return Products([(self.head,), *(group for layer in self._body.layers for group in matrices(layer))], lay_out=lay_out)

    def read_tokens(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, H) states below the first layer and (B, D) cos and sin of the rotary embedding, of tokens (B,) at positions (B,); only for a model that
        `splits`."""
        states = self._body.embed_tokens(tokens)
        cos, sin = (angles[0] for angles in self._body.rotary_emb(states, position_ids=positions[None]))
        return states, cos, sin

    def plain_step(
        self, states: Tensor, cos: Tensor, sin: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], at: int | Tensor, looks: Tensor, products: Products
    ) -> Tensor:
        """(B, H) states of one more token of each sequence; only for a model that `splits`.

        Args:
            states, cos, sin: of `read_tokens`.
            keys, values: (B, g, S, D) of each layer; written at place `at`, see `layer_step`.
            looks: (B, at + 1), or all S where `at` is a tensor; bool, True where the token may look.
            products: of this model.
        """
        mask = torch.zeros_like(looks, dtype=states.dtype).masked_fill_(~looks, float("-inf"))[:, None, None]  # once, and not in every layer's attention
        for layer, own_keys, own_values in zip(self._body.layers, keys, values, strict=True):
            states = layer_step(layer, states, cos, sin, own_keys, own_values, at, mask, products)
        return norm(self._body.norm, states)

    def step(self, input_ids: Tensor, mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """(B, Q, H) states of Q more tokens, given a key-value cache that is extended in place.

        Args:
            input_ids: (B, Q).
            mask: (B, 1, Q, S) bool, True where a query may look; S = cached and new tokens.
            positions: (B, Q) explicit, as prompts are padded on the left here.
            cache: a transformers Cache.
        """
        output: Tensor = self._body(
            input_ids=input_ids, attention_mask=self._own_mask(mask), position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return output

    def _own_mask(self, mask: Tensor) -> Tensor | dict[str, Tensor]:
        """The mask as this kind of model takes it: narrowed where its attention slides, and one for each kind of layer
        where it mixes kinds."""
        config = self.model.config
        kinds, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
        full = self._as_added(mask)
        if window is None or (kinds is not None and "sliding_attention" not in kinds):
            return full
        queries, keys = mask.shape[-2:]
        places = torch.arange(keys, device=mask.device)
        near = places > places[keys - queries :, None] - window  # (Q, S)
        slid = self._as_added(mask & near)
        return slid if kinds is None else {"full_attention": full, "sliding_attention": slid}

    def _as_added(self, mask: Tensor) -> Tensor:
        """PyTorch's attention takes a bool mask; transformers' eager attention adds one to the scores."""
        if self.model.config._attn_implementation != "eager":
            return mask
        return torch.zeros(mask.shape, dtype=self.dtype, device=mask.device).masked_fill_(~mask, torch.finfo(self.dtype).min)


def open_trunk(settings: ModelSettings) -> Trunk:
    """Load the base model of a project, onto the GPU where there is one.

    Raises:
        UserError: there is no such model, its answers would never end, or it makes its logits in a way of its own.
    """
    dtype = fastest_dtype() if settings.dtype == "auto" else DTYPES[settings.dtype]
    model, tokenizer = load(settings.name, dtype)
    # cuDNN's attention, the first choice on an H100, has NaN gradients under a mask at some lengths (pytorch#196678), and makes a plan for each new length.
    torch.backends.cuda.enable_cudnn_sdp(False)
    trunk = Trunk(settings.name, model.to(fastest_device()), tokenizer)
    _check_logits(trunk)
    return trunk


@torch.no_grad()
def _check_logits(trunk: Trunk) -> None:
    """Some families (Granite, Cohere) scale what the output matrix gives: their log-probabilities would be wrong
    without a word."""
    batch = collate([[min(trunk.eos_ids)]], [[min(trunk.eos_ids)]], trunk.pad_id, device=trunk.device)
    own = trunk.model(input_ids=batch.input_ids, use_cache=False).logits.float()
    ours = trunk.logits(trunk.hidden(batch))
    if (own - ours.float()).abs().max() > 0.05 * own.abs().max():  # far above bf16's rounding, far below any scale in use
        raise UserError(f"{trunk.name} changes its logits after the output matrix, which Truing doesn't follow", fix="take a model of another family")


def _tokens_of(tokenizer: Any) -> str:
    """What a tokenizer does, as text, from where it is said after how it pads and cuts, which is its caller's."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(tokenizer.get_vocab(), sort_keys=True)
    text = str(backend.to_str())
    return text[text.index('"added_tokens"') :]


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that the generation settings call an end; the tokenizer's own where they say nothing."""
    found = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = found if isinstance(found, list) else [found if found is not None else tokenizer.eos_token_id]
    if ids == [None]:
        raise UserError("this model has no end token, so that every answer would run to the limit", fix="set eos_token_id in its generation_config.json")
    return frozenset(int(token) for token in ids)
