"""Does a score depend on what it must not depend on: company, order, the type of the numbers? Measured by scoring again.

Scores are normalised: a difference is in standard deviations of the reference samples.
"""

from collections.abc import Sequence
from typing import Any

import torch

from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.score import Answer, AnyRewardModel, RewardModel, load_trained_model
from truing.stats import spearman
from truing.store.project import Project

RESPONSES = 32  # scored again
LARGE = 1_000_000_000  # parameters from which a second copy isn't opened


def invariance(project: Project, model: AnyRewardModel, answers: Sequence[Answer]) -> dict[str, Any]:
    """The largest change of a score, by what was changed.

    Args:
        answers: up to `RESPONSES` of them are scored.

    Returns:
        rows of what, largest (in standard deviations; None where it was not measured), spearman with the scores as they are, n, and why not.
    """
    some = list(answers)[:RESPONSES]
    together = _scores(model, some)
    alone = [_scores(model, [one])[0] for one in some]
    backwards = _scores(model, some[::-1])[::-1]
    longest = _twice(max(some, key=lambda one: sum(len(turn["content"]) for turn in one.turns) + len(one.text)))
    accompanied = [_scores(model, [longest, one])[1] for one in some]
    rows = [_row(what, together, other) for what, other in (("alone", alone), ("in reversed order", backwards), ("beside a longer neighbour", accompanied))]
    return {"rows": [*rows, _in_fp32(project, model, some, together)]}


def _twice(answer: Answer) -> Answer:
    """The same response, said twice over."""
    return answer._replace(text=f"{answer.text} {answer.text}", token_ids=None if answer.token_ids is None else [*answer.token_ids, *answer.token_ids])


def _in_fp32(project: Project, model: AnyRewardModel, answers: Sequence[Answer], together: Sequence[float]) -> dict[str, Any]:
    what = "in fp32"
    if not isinstance(model, RewardModel):
        return _unknown(what, "only a model that was trained here is opened a second time")
    trunk = model.trunk
    if trunk.dtype == torch.float32:
        return _unknown(what, "the model is in fp32 as it is")
    if (size := sum(weight.numel() for weight in trunk.model.parameters())) > LARGE:
        return _unknown(what, f"it would need a second copy of {size / 1e9:.1f} billion parameters")
    return _row(what, together, _scores(_copied(project, model), answers))


def _copied(project: Project, model: RewardModel) -> RewardModel:
    """The same model on an fp32 trunk."""
    trunk = open_trunk(ModelSettings(name=model.trunk.name, dtype="fp32"))
    return load_trained_model(project, model.id, _Posing(trunk, model.trunk.fingerprint))


class _Posing(Trunk):
    """A trunk that passes for the one a model was trained on, whose weights it has in another type."""

    def __init__(self, trunk: Trunk, fingerprint: str) -> None:
        super().__init__(trunk.name, trunk.model, trunk.tokenizer)
        self.__dict__["fingerprint"] = fingerprint


def _scores(model: AnyRewardModel, answers: Sequence[Answer]) -> list[float]:
    return model.score_answers(answers)[0]


def _row(what: str, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    rank = spearman(ours, theirs)
    largest = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    return {"what": what, "largest": largest, "spearman": rank if rank == rank else None, "n": len(ours), "why": None}


def _unknown(what: str, why: str) -> dict[str, Any]:
    return {"what": what, "largest": None, "spearman": None, "n": 0, "why": why}
