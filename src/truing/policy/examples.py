"""What a policy can learn from without a reward model: preferences, demonstrations, edits."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from truing.artifacts import Artifact
from truing.models.trunk import Trunk
from truing.stats import takes_side
from truing.store.tables import Split

Tokens = tuple[int, ...]


class Example(NamedTuple):
    """A prompt with one response to imitate, or with two of which one is preferred.

    Attributes:
        prompt_id: what is never parted.
        responses: tokens of each.
        target: of two, the chance that the first is preferred.
        weight: how much it is trusted, > 0.
    """

    prompt_id: str
    prompt: Tokens
    responses: tuple[Tokens, ...]
    target: float = 1.0
    weight: float = 1.0

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest response together."""
        return len(self.prompt) + max(map(len, self.responses))


class Examples(NamedTuple):
    """What there is to learn from, what is held out, and how many were too long."""

    train: list[Example]
    held_out: list[Example]
    too_long: int


def preferences(dataset: Artifact, trunk: Trunk, max_tokens: int) -> Examples:
    """The pairs of a dataset that take a side. What a policy sampled keeps its own tokens; what came as text is encoded."""
    with (dataset.path / "pairs.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = []
    for row in rows:
        if takes_side(row["target"]):
            sides = (_tokens(row["a"], trunk), _tokens(row["b"], trunk))
            found.append((row["split"], Example(row["prompt_id"], tuple(trunk.prompt_ids(row["turns"])), sides, row["target"], row["weight"])))
    return _parted(found, max_tokens)


def to_imitate(written: Iterable[tuple[str, str, Sequence[Mapping[str, str]], str]], trunk: Trunk, max_tokens: int) -> Examples:
    """Demonstrations as the model reads them.

    Args:
        written: of each, its prompt's id, split and turns, and the text.
    """
    found = [(split, Example(prompt_id, tuple(trunk.prompt_ids(turns)), (tuple(trunk.response_ids(text)),))) for prompt_id, split, turns, text in written]
    return _parted(found, max_tokens)


def _parted(rows: Sequence[tuple[str, Example]], max_tokens: int) -> Examples:
    fit = [(split, example) for split, example in rows if example.longest <= max_tokens]
    train, held_out = ([example for split, example in fit if split == wanted] for wanted in (Split.TRAIN, Split.HELD_OUT))
    return Examples(train, held_out, len(rows) - len(fit))


def _tokens(side: dict[str, Any], trunk: Trunk) -> Tokens:
    return tuple(side["token_ids"] if side["token_ids"] is not None else trunk.response_ids(side["text"]))
