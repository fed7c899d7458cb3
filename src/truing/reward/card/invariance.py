"""Does a score depend on what it must not depend on: company, order, the type of the numbers? Measured by scoring again.

Scores are normalised: a difference is in standard deviations of the reference samples.
"""

from collections.abc import Sequence
from typing import Any

import torch

from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.features import Item
from truing.reward.score import RewardModel, load_reward_model
from truing.stats import spearman
from truing.store.project import Project

RESPONSES = 32  # scored again
LARGE = 1_000_000_000  # parameters from which a second copy isn't opened


def invariance(project: Project, model: RewardModel, items: Sequence[Item]) -> dict[str, Any]:
    """The largest change of a score, by what was changed.

    Args:
        items: responses with their prompts, up to `RESPONSES` of them are scored.

    Returns:
        rows of what, largest (in standard deviations; None where it was not measured), spearman with the scores as they are, n, and why not.
    """
    some = list(items)[:RESPONSES]
    together = _scores(model, some)
    alone = [_scores(model, [item])[0] for item in some]
    backwards = _scores(model, some[::-1])[::-1]
    longest = max(some, key=lambda item: len(item[0]) + len(item[1]))
    accompanied = [_scores(model, [(longest[0], longest[1] * 2), item])[1] for item in some]
    rows = [_row(what, together, other) for what, other in (("alone", alone), ("in reversed order", backwards), ("beside a longer neighbour", accompanied))]
    return {"rows": [*rows, _in_fp32(project, model, some, together)]}


def _in_fp32(project: Project, model: RewardModel, items: Sequence[Item], together: Sequence[float]) -> dict[str, Any]:
    what, trunk = "in fp32", model.trunk
    if trunk.dtype == torch.float32:
        return _unknown(what, "the model is in fp32 as it is")
    if (size := sum(weight.numel() for weight in trunk.model.parameters())) > LARGE:
        return _unknown(what, f"it would need a second copy of {size / 1e9:.1f} billion parameters")
    return _row(what, together, _scores(_copied(project, model), items))


def _copied(project: Project, model: RewardModel) -> RewardModel:
    """The same model on an fp32 trunk."""
    trunk = open_trunk(ModelSettings(name=model.trunk.name, dtype="fp32"))
    return load_reward_model(project, model.id, _Posing(trunk, model.trunk.fingerprint))


class _Posing(Trunk):
    """A trunk that passes for the one a model was trained on, whose weights it has in another type."""

    def __init__(self, trunk: Trunk, fingerprint: str) -> None:
        super().__init__(trunk.name, trunk.model, trunk.tokenizer)
        self.__dict__["fingerprint"] = fingerprint


def _scores(model: RewardModel, items: Sequence[Item]) -> list[float]:
    return list(model.score([prompt for prompt, _ in items], [response for _, response in items]))


def _row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    rank = spearman(ours, theirs)
    largest = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    return {"what": what, "largest": largest, "spearman": rank if rank == rank else None, "n": len(ours), "why": None}


def _unknown(what: str, why: str) -> dict[str, Any]:
    return {"what": what, "largest": None, "spearman": None, "n": 0, "why": why}
