"""A reward model made of several: each part says its scores, `weighing` makes one of them, and that is normalised again.

Shapes: N answers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from truing.artifacts import Artifact
from truing.models.trunk import Trunk
from truing.reward.heads import By, Scores
from truing.reward.objectives.weighing import Floor, Objective, weighed
from truing.reward.score import Answer, AnyRewardModel, load_reward_model
from truing.store.project import Project


class CombinedModel(AnyRewardModel):
    """Scores of several reward models in one.

    Its lower bound is what comes of the parts' lower bounds, its worst member what comes of their worst members, and its doubt how far the lower bound lies
    below the mean: it rises with every part. A part without an ensemble counts as sure.

    Attributes:
        parts: name of each objective → its reward model.
    """

    def __init__(
        self, artifact_id: str, parts: Mapping[str, AnyRewardModel], objectives: Sequence[Objective], floors: Sequence[Floor], *,
        mean: float = 0.0, std: float = 1.0, nats: float | None = None, by: By = "mean",
    ) -> None:  # fmt: skip
        super().__init__(artifact_id, by=by, nats=nats)
        self.parts = dict(parts)
        self._objectives, self._floors, self._mean, self._std = objectives, floors, mean, std

    def said(self, answers: Sequence[Answer]) -> Scores:
        """(N,) normalised scores."""
        return self._in_one({name: part.said(answers) for name, part in self.parts.items()})

    def said_of_tokens(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scores:
        """(N,) normalised scores, given token ids of the project's model."""
        return self._in_one(self._each(lambda part: part.said_of_tokens(prompts, responses)))

    def score_objectives(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float], dict[str, list[float]]]:
        """As `score_with_std`, and each objective's own normalised scores, by the same rule."""
        each = self._each(lambda part: part.said_of_tokens(prompts, responses))
        return *self.in_numbers(self._in_one(each)), {name: own.by(self.by).tolist() for name, own in each.items()}

    def close(self) -> None:
        """Give back what the parts have put on the trunk."""
        for part in self.parts.values():
            part.close()

    def _each(self, ask: Callable[[AnyRewardModel], Scores]) -> dict[str, Scores]:
        return {name: ask(part) for name, part in self.parts.items()}

    def _in_one(self, each: Mapping[str, Scores]) -> Scores:
        mean, lower, worst = (
            (weighed({name: own.by(rule).double() for name, own in each.items()}, self._objectives, self._floors) - self._mean) / self._std
            for rule in ("mean", "lower", "worst")
        )
        return Scores(mean, mean - lower, worst)


def open_combined(project: Project, artifact: Artifact, trunk: Trunk, *, by: By = "mean") -> CombinedModel:
    """Open a reward model that `truing reward combine` made, and its parts.

    Raises:
        UserError: a part can't be opened.
    """
    facts: dict[str, Any] = artifact.facts
    objectives, floors = [Objective(**one) for one in facts["objectives"]], [Floor(**one) for one in facts["at_least"]]
    parts = open_parts(project, objectives, trunk)
    return CombinedModel(artifact.id, parts, objectives, floors, mean=facts["mean"], std=facts["std"], nats=facts["nats"], by=by)


def open_parts(project: Project, objectives: Sequence[Objective], trunk: Trunk) -> dict[str, AnyRewardModel]:
    """Name → reward model of each objective.

    Raises:
        UserError: one of them can't be opened.
    """
    return {objective.name: load_reward_model(project, objective.reward, trunk) for objective in objectives}
