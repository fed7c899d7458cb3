"""A reward model from outside as the project's stages use it: raw scores normalised, tokens turned back into what its own tokenizer or function reads.

Shapes: N responses.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sqlalchemy import select

from truing.artifacts import Artifact
from truing.models.trunk import Trunk
from truing.reward.heads import By, Scores
from truing.reward.outside.classifier import Reading, open_classifier
from truing.reward.outside.function import open_function
from truing.reward.outside.source import opened_again
from truing.reward.score import Answer, AnyRewardModel, Turns
from truing.store.project import Project
from truing.store.tables import Prompt

TEMPLATE = "template.jinja"
Raw = Callable[[Sequence[Answer]], list[float]]  # answers → their scores in the scorer's own unit


class Conversations:
    """Conversations of a project by the tokens of its model: what tunes and evaluates has a prompt as tokens, and others can't read those."""

    def __init__(self, project: Project, trunk: Trunk) -> None:
        self._project, self._trunk = project, trunk
        self._known: dict[tuple[int, ...], Turns] = {}

    def answer(self, prompt: Sequence[int], response: Sequence[int]) -> Answer:
        """A response with its conversation, from tokens.

        Raises:
            ValueError: the project has no such prompt.
        """
        ended = bool(response) and response[-1] in self._trunk.eos_ids
        return Answer(self._turns(tuple(prompt)), self._trunk.text(response), response, ended)

    def _turns(self, ids: tuple[int, ...]) -> Turns:
        if ids not in self._known:
            with self._project.database.read() as session:
                every = list(session.scalars(select(Prompt.turns)))
            self._known = {tuple(self._trunk.prompt_ids(turns)): turns for turns in every}
        if ids not in self._known:
            raise ValueError("these are not the tokens of a prompt of the project: a reward model from outside reads conversations, not tokens")
        return self._known[ids]


class OutsideModel(AnyRewardModel):
    """A model with a tokenizer of its own, or a function. It has no ensemble: its doubt is 0, and its lower bound and worst member are its score."""

    def __init__(
        self, artifact_id: str, raw: Raw, conversations: Conversations, *, mean: float = 0.0, std: float = 1.0, nats: float | None = None, by: By = "mean"
    ) -> None:
        super().__init__(artifact_id, by=by, nats=nats)
        self._raw, self._conversations, self._mean, self._std = raw, conversations, mean, std

    def said(self, answers: Sequence[Answer]) -> Scores:
        """(N,) normalised scores."""
        scores = (torch.tensor(self._raw(answers) if answers else [], dtype=torch.float64) - self._mean) / self._std
        return Scores(scores, torch.zeros_like(scores), scores)

    def said_of_tokens(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scores:
        """(N,) normalised scores, given token ids of the project's model; they are read as text, by whoever's tokenizer it is."""
        return self.said([self._conversations.answer(prompt, response) for prompt, response in zip(prompts, responses, strict=True)])


def open_outside(project: Project, artifact: Artifact, trunk: Trunk, *, by: By = "mean") -> OutsideModel:
    """Open a reward model that `truing reward use` brought in.

    Raises:
        UserError: the model that it stands for has gone or changed.
    """
    facts = artifact.facts
    return OutsideModel(artifact.id, _raw(artifact), Conversations(project, trunk), mean=facts["mean"], std=facts["std"], nats=facts["nats"], by=by)


def _raw(artifact: Artifact) -> Raw:
    facts: Mapping[str, Any] = artifact.facts
    if facts["source"] == "function":
        return open_function(artifact.path / facts["file"], facts["function"])
    template = artifact.path / TEMPLATE
    own = template.read_text(encoding="utf-8") if template.exists() else None
    return open_classifier(facts["name"], opened_again(facts).path, Reading(facts["label"], own, facts["max_tokens"], facts["dtype"]))
