"""A sequence-classification model of transformers' as a scorer, with its own tokenizer and chat template.

Texts go through it one by one: then nothing pads, and a score has the same bits whatever else is scored. On a CPU a batch is no faster (16 texts of up to 100
tokens through a model of 135 million parameters on one core: 3.7 s one by one, 3.9 s at once), and each kind of model finds the end of padded texts in a way of
its own.

Shapes: C labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor

from truing.errors import UserError
from truing.models.precision import fastest_device
from truing.models.trunk import DTYPES
from truing.reward.export import MAX_TOKENS, OFFSET
from truing.reward.score import Answer, Turns

NO_LIMIT = 1_000_000  # a tokenizer that doesn't know a limit says some absurd number


class Reading(NamedTuple):
    """What the user may say about how a model is read.

    Attributes:
        label: the one whose log-odds are the score, where the model has several.
        template: a chat template that stands in for the tokenizer's own.
        max_tokens: read at most; None: as many as the model can.
        dtype: of the weights, "fp32" or "bf16".
    """

    label: str | None = None
    template: str | None = None
    max_tokens: int | None = None
    dtype: str = "fp32"


class Classifier:
    """Scores of whole conversations.

    Attributes:
        name: how errors call it.
        made_here: whether `truing reward export` wrote it: such a model reads prompt, response and end token as it did when it learned.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, reading: Reading) -> None:
        self.name, self._model, self._tokenizer = name, model, tokenizer
        model.requires_grad_(False)
        model.eval()
        self._config = model.config.get_text_config()
        self.made_here = hasattr(self._config, OFFSET)
        if reading.template is not None:
            tokenizer.chat_template = reading.template
        if tokenizer.chat_template is None and not self.made_here:
            raise UserError(
                f"{name} has no chat template, so that nobody knows how it wants a conversation written",
                fix="give it one with --template FILE, in Jinja as in transformers' documentation; or take a model that has one",
            )
        self._label = _label_of(name, model.config, reading.label)
        self._most = self._limit(reading.max_tokens)

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """The raw score of each answer: what a model with one label gives; the log-odds of the chosen label where there are several.

        Raises:
            UserError: the chat template can't write one of the conversations.
        """
        return [self._score(self._tokens(answer)) for answer in answers]

    @torch.no_grad()
    def _score(self, ids: Sequence[int]) -> float:
        row = torch.tensor([ids], device=self._model.device)
        logits = self._model(input_ids=row, attention_mask=torch.ones_like(row)).logits.float().cpu()
        return float(self._chosen(logits)) + float(getattr(self._config, OFFSET, 0.0))

    def _chosen(self, logits: Tensor) -> Tensor:
        """(1,) from (1, C)."""
        own = logits[:, self._label]
        if logits.shape[1] == 1 or self._model.config.problem_type == "multi_label_classification":
            return own
        return own - torch.cat([logits[:, : self._label], logits[:, self._label + 1 :]], 1).logsumexp(1)

    def _tokens(self, answer: Answer) -> list[int]:
        if self.made_here:
            return self._as_it_learned(answer)[-self._most :]
        ids = self._encoded(self._written([*answer.turns, {"role": "assistant", "content": answer.text}]))
        if not ids:
            raise UserError(f"the chat template of {self.name} writes nothing of a conversation", fix="give it another with --template FILE")
        return ids if len(ids) <= self._most else [ids[0], *ids[1 - self._most :]]  # the first token may be the one that an encoder reads

    def _as_it_learned(self, answer: Answer) -> list[int]:
        """As a `Trunk` makes tokens of a conversation and a response."""
        if self._tokenizer.chat_template is None:
            prompt = self._tokenizer("\n\n".join(turn["content"] for turn in answer.turns) + "\n\n")["input_ids"]
        else:
            prompt = self._tokenizer(self._written(answer.turns, begin_answer=True), add_special_tokens=False)["input_ids"]
        end = [self._tokenizer.eos_token_id] if answer.finished else []
        return [*prompt, *self._tokenizer(answer.text, add_special_tokens=False)["input_ids"], *end]

    def _written(self, turns: Turns, *, begin_answer: bool = False) -> str:
        try:
            return str(self._tokenizer.apply_chat_template([dict(turn) for turn in turns], tokenize=False, add_generation_prompt=begin_answer))
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise UserError(
                f"the chat template of {self.name} can't write a conversation of {roles}: {error}", fix="give it another with --template FILE"
            ) from error

    def _encoded(self, text: str) -> list[int]:
        """Templates write a decoder's special tokens themselves; an encoder reads the token that its tokenizer puts first."""
        first = self._tokenizer.cls_token
        return list(self._tokenizer(text, add_special_tokens=first is not None and not text.startswith(first))["input_ids"])

    def _limit(self, wanted: int | None) -> int:
        known = (self._tokenizer.model_max_length, getattr(self._config, "max_position_embeddings", None), getattr(self._config, MAX_TOKENS, None), wanted)
        return min(limit for limit in (*known, NO_LIMIT) if limit is not None and limit > 1)


def open_classifier(name: str, path: Path, reading: Reading) -> Classifier:
    """Open a model from a folder, without a pickle and without anybody's code.

    Args:
        name: how errors call it.

    Raises:
        UserError: it can't be opened so, it was never trained to classify, it has no chat template, or several labels of which none was chosen.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        model, seen = AutoModelForSequenceClassification.from_pretrained(
            path, dtype=DTYPES[reading.dtype], local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError) as error:  # a ValueError: transformers doesn't know the kind of model, or would have to run code that comes with it
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{name} can't be opened as a sequence-classification model: {reason}",
            fix="name a model that transformers knows itself (no code of its own), or wrap it in a Python function: FILE.py:FUNCTION",
        ) from error
    if seen["missing_keys"]:
        missing = ", ".join(sorted(seen["missing_keys"])[:3])
        raise UserError(f"{name} was never trained to classify: it has no {missing}", fix="name a reward model or another sequence-classification model")
    return Classifier(name, model.to(fastest_device()), tokenizer, reading)


def _label_of(name: str, config: Any, wanted: str | None) -> int:
    """Which of the model's labels is the score.

    Raises:
        UserError: several, and none or none of them was named; or one, and another was named.
    """
    labels = {str(label): int(number) for number, label in config.id2label.items()}
    if wanted is None and config.num_labels == 1:
        return 0
    if wanted in labels:
        return labels[wanted]
    listed = ", ".join(labels)
    what = f"{name} has the labels {listed}" if wanted is None else f"{name} has no label {wanted}, but {listed}"
    raise UserError(what, fix=f"say which one's log-odds are the score: --label {next(iter(labels))}" if config.num_labels > 1 else "leave --label away")
