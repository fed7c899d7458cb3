"""One frozen base, many roles: LoRA adapters by name and the base itself, which is the reference, with all of them off."""

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.errors import SettingError, UserError
from truing.models.lora import lora_layers, speed_up
from truing.models.packed import Packed, pack, trees_of
from truing.models.plain_layers import Keep, layer_forward, layer_step, matrices, norm
from truing.models.precision import fastest_device, fastest_dtype
from truing.models.products import Products
from truing.models.registry import ModelSettings, load
from truing.models.sequences import Batch, collate
from truing.models.whole import WholeWeights, bare, saved

if TYPE_CHECKING:
    from peft import PeftModel

Rows = Batch | Packed


class Lower(NamedTuple):
    """States after the first `layers` layers, (N, H)."""

    layers: int
    states: Tensor


DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Trunk:
    """A base language model and its adapters; an adapter is LoRA, or whole: weights of its own in the place of the base's.

    Attributes:
        name: what the registry resolved.
        model: the transformers model; its weights never change.
        tokenizer: its tokenizer.
        dtype: of the base weights. Adapters are fp32 always.
        eos_ids: every token that ends an answer, by the model's generation settings.
        pad_id: fills rectangles; means nothing.
        softcap: bound on the logits where the model has one (Gemma 2), else None.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.dtype: torch.dtype = model.dtype
        model.requires_grad_(False)
        model.eval()  # no dropout anywhere: the first-epoch ratio must be exactly 1
        self.eos_ids = _eos_ids(model, tokenizer)
        self.pad_id = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.eos_ids))
        self.softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self.head: nn.Linear = model.get_output_embeddings()
        self._body = model.get_decoder()
        self._peft: PeftModel | None = None
        self._adapted: list[Any] = []  # PEFT's layers,
        self._copied: list[Any] = []  # and its modules of which an adapter brings a whole copy
        self._whole: dict[str, WholeWeights] = {}
        self._active: str | None = None

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.head.weight.device

    @property
    def hidden_size(self) -> int:
        """H, the width of the hidden states."""
        return int(self.model.config.hidden_size)

    @property
    def layers(self) -> int:
        """How many transformer layers there are."""
        return int(self.model.config.num_hidden_layers)

    @property
    def longest(self) -> int | None:
        """How many tokens the model was built to read; None where its configuration doesn't say."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of these very weights and their type, for caches and manifests."""
        digest = hashlib.sha256(str(self.dtype).encode())
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

    def hidden(self, rows: Rows) -> Tensor:
        """(B, L, H) or (N, H) states after the last layer and the final norm, under the adapter that is on."""
        if isinstance(rows, Packed):
            return self.hidden_layers(rows, [self.layers])[self.layers]
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
        """(N, V) fp32 from (N, H).

        Args:
            products: who applies the output matrix.
        """
        logits: Tensor = (self.head(rows) if products is None else products((self.head,), rows)).float()
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def normed(self, states: Tensor) -> Tensor:
        """(N, H) states of any layer after the model's final norm, as if the layers above weren't there."""
        norm = next(getattr(self._body, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(self._body, name))
        output: Tensor = norm(states.to(self.device))
        return output.to(states.device)

    def learnable(self) -> list[nn.Parameter]:
        """Every weight below the output matrix, made to learn. For a trunk of one's own: these are the base weights themselves."""
        self._body.requires_grad_(True)
        return list(self._body.parameters())

    def merged_weights(self, adapter: str | None) -> dict[str, Tensor]:
        """Every weight below the output matrix by its name in the bare model, fp32 on the CPU, with an adapter's change added in."""
        found = {name.replace(".base_layer.", "."): own.detach().float().cpu() for name, own in self._body.named_parameters() if "lora_" not in name}
        if adapter is not None:
            for name, module in lora_layers(self._body):
                if adapter in module.lora_A:
                    found[f"{name}.weight"] = found[f"{name}.weight"] + module.get_delta_weight(adapter).detach().float().cpu()
        return found

    def load_weights(self, file: Path) -> None:
        """Take up what `merged_weights` gave. For a trunk of one's own: it is another model then."""
        self._body.load_state_dict(load_file(file))

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

    # Adapters ------------------------------------------------------------------------------------------------------

    def add_adapter(self, name: str, *, rank: int, alpha: float, seed: int, top_layers: int | None = None) -> None:
        """A new LoRA adapter on every linear layer (Hu et al. 2021, arXiv:2106.09685). It starts as the identity: B is zero.

        Args:
            name: a role, e.g. "policy".
            rank: of the update.
            alpha: the update is scaled by alpha / rank.
            seed: of A's random start.
            top_layers: adapt only that many of the upper layers; None = all.
        """
        from peft import LoraConfig, get_peft_model  # here, for it takes seconds to load, and most of this package never tunes
        from transformers.pytorch_utils import Conv1D

        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules="all-linear" if top_layers is None else self._linear_names(top_layers), task_type="CAUSAL_LM",
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.model.modules()),  # GPT-2 keeps its matrices transposed
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]), _quiet_peft():
            torch.manual_seed(seed % (1 << 63))
            if self._peft is None:
                self._peft = get_peft_model(self.model, config, adapter_name=name)
            else:
                self._peft.add_adapter(name, config)
        self._adapters_changed()

    def add_whole(self, name: str, *, top_layers: int | None = None) -> None:
        """A new adapter with every weight of its own. It starts as the base.

        Args:
            name: a role, e.g. "policy".
            top_layers: only that many of the upper layers; None = all of the model, embeddings too.

        Raises:
            SettingError: the base isn't held in fp32. In bf16 steps of a usual learning rate round to nothing.
        """
        if self.dtype != torch.float32:
            raise SettingError("every weight is to be tuned, and the base is held in bf16, where small steps are lost", fix="set model.dtype=fp32")
        self._turn(None)
        upper = None if top_layers is None else tuple(f"{bare(self._stack())}.{index}." for index in range(self.layers - top_layers, self.layers))
        self._whole[name] = WholeWeights(self.model, lambda weight: upper is None or weight.startswith(upper))

    def load_adapter(self, name: str, folder: Path) -> None:
        """Open an adapter saved by `save_adapter`, or elsewhere in PEFT's format, under a role's name, replacing one of that name."""
        if self.has_adapter(name):
            self.drop_adapter(name)
        if (tensors := saved(folder)) is not None:
            self._turn(None)
            whole = WholeWeights(self.model, tensors.__contains__)
            whole.load(tensors)
            self._whole[name] = whole
            return
        from peft import PeftModel

        with _quiet_peft():
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
            else:
                self._peft.load_adapter(folder, adapter_name=name)
        self._adapters_changed()

    def save_adapter(self, name: str, folder: Path) -> None:
        """Write an adapter straight into `folder`: LoRA in PEFT's format, safetensors and JSON; a whole one as safetensors by the model's own names."""
        from peft import get_peft_model_state_dict

        if name in self._whole:
            self._whole[name].save(folder)
            return
        assert self._peft is not None
        folder.mkdir(parents=True, exist_ok=True)
        weights = {key: value.detach().cpu().contiguous() for key, value in get_peft_model_state_dict(self._peft, adapter_name=name).items()}
        save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = self._peft.peft_config[name]
        known, config.base_model_name_or_path = config.base_model_name_or_path, self.name
        targets, config.target_modules = config.target_modules, sorted(config.target_modules)  # a set's order would change the file's bytes
        try:
            config.save_pretrained(folder)
        finally:
            config.base_model_name_or_path, config.target_modules = known, targets

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter."""
        if name in self._whole:
            self._turn(None)
            del self._whole[name]
            return
        assert self._peft is not None
        if list(self._peft.peft_config) == [name]:
            self.model = self._peft.unload()
            self._peft = None
        else:
            self._peft.set_adapter(next(other for other in self._peft.peft_config if other != name))  # PEFT warns when the active one goes
            self._peft.delete_adapter(name)
        self._adapters_changed()

    def has_adapter(self, name: str) -> bool:
        """Whether there is an adapter of that name."""
        return name in self._whole or (self._peft is not None and name in self._peft.peft_config)

    def adapter_parameters(self, name: str, *, below: int | None = None) -> list[nn.Parameter]:
        """The trainable tensors of an adapter, fp32, in a fixed order; with `below`, of that many lowest layers alone."""
        if name in self._whole:
            return list(self._whole[name].weights.values())
        wanted = None if below is None else tuple(f"{self._stack()}.{layer}." for layer in range(below))
        mine = ((key, parameter) for key, parameter in self._named() if f".{name}." in key and "lora_" in key)
        return [parameter for key, parameter in mine if wanted is None or key.startswith(wanted)]

    def adapter_state(self, name: str) -> dict[str, Tensor]:
        """The same tensors by name."""
        if name in self._whole:
            return {key: weight.data for key, weight in self._whole[name].weights.items()}
        return {key: parameter.data for key, parameter in self._named() if f".{name}." in key and "lora_" in key}

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Turn one adapter on, or with None all of them off: then the model is the reference."""
        before = self._active
        self._turn(name)
        try:
            yield
        finally:
            self._turn(before)

    @contextmanager
    def merged(self, name: str | None) -> Iterator[None]:
        """Add an adapter into the weights while sampling, and put the very same weights back afterwards.

        In bf16 the sum is rounded, so log-probabilities differ a little from the unmerged adapter's: what is trained on
        is recomputed unmerged.
        """
        with self.using(name if name in self._whole else None):
            if name is None or name in self._whole:
                yield
                return
            kept: list[tuple[nn.Module, nn.Parameter]] = []
            try:
                for layer in self._lora_layers(name):
                    base = layer.get_base_layer()
                    kept.append((base, base.weight))
                    base.weight = nn.Parameter((base.weight.float() + layer.get_delta_weight(name).float()).to(base.weight.dtype), requires_grad=False)
                yield
            finally:
                for base, weight in kept:
                    base.weight = weight

    def _linear_names(self, top_layers: int) -> list[str]:
        """The linear layers inside the uppermost transformer layers."""
        from transformers.pytorch_utils import Conv1D

        upper = tuple(f"{self._stack()}.{index}." for index in range(self.layers - top_layers, self.layers))
        linear = (name for name, module in self.model.named_modules() if isinstance(module, (nn.Linear, Conv1D)) and "lora_" not in name)
        return [name.removesuffix(".base_layer") for name in linear if name.startswith(upper)]

    def _stack(self) -> str:
        """The name of the list of transformer layers in the model."""
        return next(str(name) for name, module in self.model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == self.layers)

    def _lora_layers(self, name: str) -> list[Any]:
        return [module for _, module in lora_layers(self.model) if name in module.lora_A]

    def _adapters_changed(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        modules = list(self.model.modules())
        self._adapted = [module for module in modules if isinstance(module, BaseTunerLayer)]
        self._copied = [module for module in modules if isinstance(module, AuxiliaryTrainingWrapper)]
        for layer in self._adapted:
            speed_up(layer)
            for part in layer.adapter_layer_names:
                getattr(layer, part).requires_grad_(True)
        self._turn(None)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters()

    def _turn(self, name: str | None) -> None:
        if self._active in self._whole:
            self._whole[self._active].step_out()
        self._active = name
        if name in self._whole:
            self._whole[name].step_in()
        if self._peft is None:
            assert name is None or name in self._whole, f"no adapter {name}"
            return
        on = name is not None and name not in self._whole
        for layer in self._adapted:  # PEFT's own switch goes through the whole model and its gradients, three times: a tenth of a small model's update
            layer._disable_adapters = not on
            if on:
                layer._active_adapter = [name]
        for module in self._copied:
            if on:
                module.set_adapter(name)
            module.enable_adapters(on)


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 for a name that it has deprecated; nothing that a user could mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def open_trunk(settings: ModelSettings) -> Trunk:
    """Load the base model of a project, onto the GPU where there is one.

    Raises:
        UserError: there is no such model, its answers would never end, or it makes its logits in a way of its own.
    """
    dtype = fastest_dtype() if settings.dtype == "auto" else DTYPES[settings.dtype]
    model, tokenizer = load(settings.name, dtype)
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
    if (own - ours).abs().max() > 0.05 * own.abs().max():  # far above bf16's rounding, far below any scale in use
        raise UserError(f"{trunk.name} changes its logits after the output matrix, which Truing doesn't follow", fix="take a model of another family")


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that the generation settings call an end; the tokenizer's own where they say nothing."""
    found = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = found if isinstance(found, list) else [found if found is not None else tokenizer.eos_token_id]
    if ids == [None]:
        raise UserError("this model has no end token, so that every answer would run to the limit", fix="set eos_token_id in its generation_config.json")
    return frozenset(int(token) for token in ids)
