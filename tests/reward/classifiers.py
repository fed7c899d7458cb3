"""Random sequence-classification models of several families, small enough for a test, each with a tokenizer of its own that splits text into bytes."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

TEMPLATE = "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + eos_token }}{% endfor %}"
SPECIALS = ["<pad>", "<eos>", "<cls>"]  # 0, 1, 2
FAMILIES = ("llama", "gpt2", "bert")


def make_classifier(
    folder: Path, family: str = "llama", *, labels: tuple[str, ...] = ("good",), template: str | None = TEMPLATE, seed: int = 0, **config: Any
) -> Path:
    """Write a model and its tokenizer into `folder` in transformers' format. An encoder reads a first token that its tokenizer puts there."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIALS, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = {"eos_token": "<eos>", "pad_token": "<pad>"}
    if family == "bert":
        inner.post_processor = processors.TemplateProcessing(single="<cls> $A", special_tokens=[("<cls>", 2)])
        special["cls_token"] = "<cls>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **special)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    model = _model(family, len(vocabulary), {"num_labels": len(labels), "id2label": dict(enumerate(labels))} | config)
    model.save_pretrained(folder)
    return folder


def _model(family: str, size: int, config: dict[str, Any]) -> Any:
    common = {"vocab_size": size, "initializer_range": 0.3, "eos_token_id": 1, "bos_token_id": 1} | config
    if family == "gpt2":
        return GPT2ForSequenceClassification(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **common))
    if family == "bert":
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 512}
        return BertForSequenceClassification(BertConfig(pad_token_id=0, **sizes, **common))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    return LlamaForSequenceClassification(LlamaConfig(max_position_embeddings=512, **sizes, **common))


def change_config(folder: Path, **changes: Any) -> None:
    """Rewrite some entries of a model's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
