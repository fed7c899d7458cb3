"""A reward model as any tool of the field loads it: transformers' sequence classification, LoRA merged into the weights.

What it gives is the score less a constant, for these models have no bias at the end; `score_offset` in its config.json is to be added. A comparison of two
responses, and so whatever is trained on it, doesn't change by a constant. What is to be read is the prompt up to where the answer begins, the response and the
end token, of these the last `score_max_tokens`.
"""

import copy
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from truing.config import full_disk_said, plain_files
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.reward.heads import LinearHead
from truing.reward.score import RewardModel

OFFSET = "score_offset"
MAX_TOKENS = "score_max_tokens"  # the model was trained on that many last tokens, and scores those here


def export_classifier(model: RewardModel, folder: Path) -> float:
    """Write a folder that `AutoModelForSequenceClassification.from_pretrained` loads, in fp32, with the tokenizer beside it; whole or not at all.

    Args:
        folder: not there yet.

    Returns:
        what is to be added to what it gives to get the model's score.

    Raises:
        UserError: the model reads more than one linear head on the last token can say, nothing could pad, the folder is there, or the disk is full.
    """
    from transformers import AutoModelForSequenceClassification

    trunk, head, layer = model.trunk, *_linear(model)
    if folder.exists():
        raise UserError(f"{folder} is there already", fix="name a folder that isn't, or remove it")
    weight, offset = head.direction()
    config = type(trunk.model.config).from_dict(trunk.model.config.to_dict())
    config.num_labels, config.pad_token_id, config.num_hidden_layers = 1, _pad(trunk), layer
    if getattr(config, "layer_types", None) is not None:  # a kind for each layer that there is
        config.layer_types = config.layer_types[:layer]
    config.dtype = torch.float32
    setattr(config, OFFSET, offset)
    setattr(config, MAX_TOKENS, model.spec.max_tokens)
    classifier = AutoModelForSequenceClassification.from_config(config)
    classifier.get_decoder().load_state_dict(_below(trunk, model.adapter, layer))
    classifier.score.weight.data = weight[None]
    folder.parent.mkdir(parents=True, exist_ok=True)
    full = f"the disk of {folder.parent} is full: {folder.name} was not written"
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".making-"))
    try:
        with full_disk_said(full, fix="free some space, or name a folder on another disk"), plain_files(temporary):
            classifier.save_pretrained(temporary)
            tokenizer = copy.deepcopy(trunk.tokenizer)
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
            tokenizer.save_pretrained(temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return offset


def _linear(model: RewardModel) -> tuple[LinearHead, int]:
    """Its head, and the layer whose last token that reads."""
    (how, layer), *others = model.spec.readings
    final = layer == model.trunk.layers or not model.frozen  # a trunk that learned is read after the final norm wherever it is read
    if others or how != "last" or not final or not isinstance(model.head, LinearHead):
        read = ", ".join(f"{how} of layer {layer}" for how, layer in model.spec.readings)
        raise UserError(
            f"{model.id} reads {read}; such a folder holds one linear head on the last token",
            fix="train with reward.head=adapter or full, or with reward.head=linear and reward.readings=['last@1.0']",
        )
    return model.head, layer


def _pad(trunk: Trunk) -> int:
    """What pads for transformers, which reads the last token that is another: never the end token, which is to be read.

    Raises:
        UserError: the tokenizer has no other special token.
    """
    end = trunk.tokenizer.eos_token_id
    found = [token for token in (trunk.pad_id, *trunk.tokenizer.all_special_ids) if token != end]
    if not found:
        raise UserError(f"{trunk.name} has no special token but the one that ends an answer, so that nothing could pad", fix="give its tokenizer a pad_token")
    return int(found[0])


def _below(trunk: Trunk, adapter: str | None, layer: int) -> dict[str, Tensor]:
    """The weights up to a layer, and the final norm."""
    kept = {f"layers.{number}." for number in range(layer)}
    merged = trunk.merged_weights(adapter)
    return {name: weight for name, weight in merged.items() if not name.startswith("layers.") or any(name.startswith(one) for one in kept)}
