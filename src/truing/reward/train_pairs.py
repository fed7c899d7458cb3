"""What a reward model learns from: the dataset's pairs as token ids and numbers, and the groups that keep prompts together.

Shapes: N pairs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from truing.artifacts import Artifact
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.reward.features import Item
from truing.stats import takes_side
from truing.store.ids import seed_from

Row = dict[str, Any]  # a line of pairs.jsonl


@dataclass(frozen=True)
class Pairs:
    """Pairs of responses, ready to be scored.

    Attributes:
        a, b: tokens of the two responses with their prompt.
        target: (N,) fp32, probability that a is preferred, in [0, 1].
        weight: (N,) fp32, how much the label is trusted, > 0.
        prompts: the prompt's id of each pair: pairs of one prompt are never parted.
    """

    a: list[Item]
    b: list[Item]
    target: Tensor
    weight: Tensor
    prompts: list[str]

    def __len__(self) -> int:
        return len(self.prompts)

    def at(self, indices: Sequence[int]) -> "Pairs":
        """Some of the pairs."""
        rows = list(indices)
        return Pairs([self.a[i] for i in rows], [self.b[i] for i in rows], self.target[rows], self.weight[rows], [self.prompts[i] for i in rows])


def read_rows(dataset: Artifact) -> tuple[list[Row], list[Row]]:
    """The train rows and the held-out rows of a dataset artifact, in their order there."""
    with (dataset.path / "pairs.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["split"] == "train"], [row for row in rows if row["split"] == "held-out"]


def require_rows(train: Sequence[Row], held_out: Sequence[Row], needed: int) -> None:
    """Stop, in words, where nothing could be learned or measured.

    Raises:
        UserError: too few preferences, or none that takes a side, or no held-out ones.
    """
    decided = [row for row in train if takes_side(row["target"])]
    if len(train) < needed or not decided:
        raise UserError(
            f"the dataset has {len(train)} train preferences, {len(train) - len(decided)} of them ties; a reward model needs at least {needed}, not all ties",
            fix="collect more judgements and run `truing preferences` again, accept the risk with a lower reward.min_preferences, or, where ratings and thumbs "
            "say what pairs don't, learn from judgements as they were made (reward.learn_from=judgements)",
        )
    if len({row["prompt_id"] for row in train}) < 2:
        raise UserError("all train preferences are about one prompt: nothing tells taste from topic", fix="collect judgements on more prompts")
    if not any(takes_side(row["target"]) for row in held_out):
        raise UserError(
            f"the dataset has {len(held_out)} held-out preferences and none takes a side, so that the reward model's accuracy can't be measured",
            fix="collect judgements on more prompts: a share of them, prompts.held_out_share, is kept for measuring",
        )


def tokenised(rows: Sequence[Row], trunk: Trunk) -> Pairs:
    """Rows of pairs.jsonl as token ids. What a policy sampled keeps its own tokens; what came as text is encoded."""
    prompts = [tuple(trunk.prompt_ids(row["turns"])) for row in rows]
    a, b = ([(prompt, response_of(row[side], trunk)) for prompt, row in zip(prompts, rows, strict=True)] for side in ("a", "b"))
    numbers = torch.tensor([[row["target"], row["weight"]] for row in rows], dtype=torch.float32).reshape(-1, 2)
    return Pairs(a, b, numbers[:, 0], numbers[:, 1], [row["prompt_id"] for row in rows])


def response_of(side: Row, trunk: Trunk) -> tuple[int, ...]:
    """Tokens of one side of a pair."""
    return tuple(side["token_ids"] if side["token_ids"] is not None else trunk.response_ids(side["text"]))


def folds_by_prompt(prompts: Sequence[str], folds: int, seed: int) -> Tensor:
    """(N,) fold of each pair, in [0, folds): all pairs of a prompt in one, prompts dealt out evenly in an order that the seed shuffles."""
    order = sorted(set(prompts), key=lambda prompt: (seed_from(seed, "fold", prompt), prompt))
    fold = {prompt: place % folds for place, prompt in enumerate(order)}
    return torch.tensor([fold[prompt] for prompt in prompts])


def bootstrap_weights(prompts: Sequence[str], members: int, seed: int) -> Tensor:
    """(K, N) how much each member heeds each pair: Exp(1), drawn for a prompt, mean near 1. A single member heeds all alike.

    Rubin's Bayesian bootstrap (1981, doi:10.1214/aos/1176345338): unlike a resample it leaves no pair out.
    """
    if members == 1:
        return torch.ones(1, len(prompts))
    draws = {}
    for prompt in sorted(set(prompts)):
        generator = torch.Generator().manual_seed(seed_from(seed, "bootstrap", prompt))
        draws[prompt] = torch.empty(members).exponential_(generator=generator)
    return torch.stack([draws[prompt] for prompt in prompts], 1)
