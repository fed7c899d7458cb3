"""The adapters on a language model: LoRA by PEFT, or whole weights; with all of them off it is the base, and the reference."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.errors import SettingError, UserError
from truing.models.lora import lora_layers, speed_up
from truing.models.whole import WholeWeights, bare, saved

if TYPE_CHECKING:
    from peft import PeftModel

# Settings of PEFT's that bring weights, or sums, of which the passes here know nothing.
MORE_THAN_LORA = (
    "modules_to_save", "use_dora", "lora_bias", "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config",
    "use_qalora", "use_bdlora", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip


class Adapted:
    """A base language model and its adapters, of which at most one is on.

    Attributes:
        name: what the registry resolved.
        model: the transformers model; its weights never change.
        dtype: of the base weights. Adapters are fp32 always.
    """

    def __init__(self, name: str, model: Any) -> None:
        self.name, self.model = name, model
        self.dtype: torch.dtype = model.dtype
        self._body = model.get_decoder()
        self._peft: PeftModel | None = None
        self._adapted: list[Any] = []  # PEFT's layers
        self._whole: dict[str, WholeWeights] = {}
        self._active: str | None = None

    @property
    def layers(self) -> int:
        """How many transformer layers there are."""
        return int(self.model.config.num_hidden_layers)

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
        """Open an adapter saved by `save_adapter`, or elsewhere in PEFT's format, under a role's name, replacing one of that name.

        Raises:
            UserError: it isn't plain LoRA; one that had the name keeps it.
        """
        tensors = saved(folder)
        if tensors is None:
            _require_plain(folder)
        if self.has_adapter(name):
            self.drop_adapter(name)
        if tensors is not None:
            self._turn(None)
            whole = WholeWeights(self.model, tensors.__contains__)
            whole.load(tensors)
            self._whole[name] = whole
            return
        from peft import PeftModel

        with _quiet_peft():
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.model, folder, adapter_name=name, torch_device="cpu")
            else:
                self._peft.load_adapter(folder, adapter_name=name, torch_device="cpu")
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
        self._adapted = [module for _, module in lora_layers(self.model)]
        for layer in self._adapted:
            speed_up(layer)
            for part in layer.adapter_layer_names:
                getattr(layer, part).requires_grad_(True)
        self._turn(None)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.model.named_parameters()

    def _turn(self, name: str | None) -> None:
        assert name is None or self.has_adapter(name), f"no adapter {name}"
        if self._active in self._whole:
            self._whole[self._active].step_out()
        self._active = name
        if name in self._whole:
            self._whole[name].step_in()
        on = name is not None and name not in self._whole
        for layer in self._adapted:  # PEFT's own switch goes through the whole model and its gradients, three times
            layer._disable_adapters = not on
            if on:
                layer._active_adapter = [name]


def _require_plain(folder: Path) -> None:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(folder)
    more = [name for name in MORE_THAN_LORA if getattr(config, name, None)]
    more += ["bias"] if getattr(config, "bias", "none") != "none" else []
    if config.peft_type != "LORA" or more:
        raise UserError(
            f"the adapter in {folder} isn't plain LoRA: {', '.join(more) or config.peft_type}",
            fix="merge it into its model (PEFT's merge_and_unload), save that, and name its folder in model.name",
        )


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """PEFT 0.21 asks transformers 5.23 for a name that it has deprecated; nothing that a user could mend."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield
