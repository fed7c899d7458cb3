"""Reward models, ready to score. Scores have mean 0 and standard deviation 1 on the reference samples they were normalised on.

Shapes: N responses, B of them in a batch, L tokens, H hidden size.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from truing.artifacts import Artifact, load_artifact
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.trunk import Rows, Trunk, open_trunk
from truing.reward.features import FeatureSpec, Item, features, pool
from truing.reward.heads import WEIGHTS, By, Head, LinearHead, Scores, load_head
from truing.reward.train_trunk import learned_states
from truing.store.project import Project

Turns = Sequence[Mapping[str, str]]  # a conversation that ends with a user turn


class Scorer(Protocol):
    """Whatever scores text: a reward model made here, another model with its own tokenizer, a Python function."""

    def score_texts(self, prompts: Sequence[Turns], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        """A score of each response to its conversation, and how sure it is: the standard deviation over an ensemble in the same unit, 0 where there is none."""


class Answer(NamedTuple):
    """A response with the conversation that it answers.

    Attributes:
        turns: the conversation, which ends with a user turn.
        text: what a person reads of the response.
        token_ids: the response's own tokens in the project's model where that sampled it, None where it came as text.
        finished: whether it ended by itself; it matters where it came as text.
    """

    turns: Turns
    text: str
    token_ids: Sequence[int] | None = None
    finished: bool = True


class AnyRewardModel(ABC):
    """What every reward model of a project can do, whether it was trained here, came from outside or is made of several.

    Attributes:
        id: its artifact.
        by: what its members say in one number, which is the score.
        nats: log-odds of being preferred that a difference of 1 in the score stands for; None where nobody knows.
    """

    def __init__(self, artifact_id: str, *, by: By = "mean", nats: float | None = None) -> None:
        self.id, self.by, self.nats = artifact_id, by, nats

    @abstractmethod
    def said(self, answers: Sequence[Answer]) -> Scores:
        """(N,) normalised scores of answers; each depends on its own answer alone."""

    @abstractmethod
    def said_of_tokens(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scores:
        """(N,) as `said`, given token ids of the project's model."""

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """As `score`."""
        return self.score(prompts, responses)

    def score(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """The normalised score of each response, given token ids. It depends on neither its neighbours nor their order."""
        return self.score_with_std(prompts, responses)[0]

    def score_with_std(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float]]:
        """The normalised scores, and how far an ensemble's members differ about each, in the same unit (0 with one member)."""
        return self.in_numbers(self.said_of_tokens(prompts, responses))

    def score_answers(self, answers: Sequence[Answer]) -> tuple[list[float], list[float]]:
        """As `score_with_std`, of answers."""
        return self.in_numbers(self.said(answers))

    def score_texts(self, prompts: Sequence[Turns], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        """As `score_with_std`, of finished answers that came as text."""
        return self.score_answers([Answer(turns, text) for turns, text in zip(prompts, responses, strict=True)])

    def in_numbers(self, scores: Scores) -> tuple[list[float], list[float]]:
        """The score of each by the rule of this model, and the doubt about it."""
        return scores.by(self.by).tolist(), scores.std.tolist()

    def value_direction(self) -> tuple[Tensor, float]:
        """(H,) and a constant: the score as a linear form of the base's state at the last token after the final norm, from which a value head can start.

        Raises:
            UserError: this model's score is nothing of that kind.
        """
        raise UserError(
            f"{self.id} isn't one linear head on the last state of the project's model, so that no value head can start from it",
            fix="train with reward.head=linear and reward.readings=['last@1.0'], or leave tune.value_start=zero",
        )

    def close(self) -> None:  # noqa: B027 (most have nothing to give back)
        """Give back what it has put on the trunk."""


class RewardModel(AnyRewardModel):
    """A reward model that was trained here.

    Attributes:
        spec: what it reads of the trunk, and of how many last tokens.
        trunk: the shared one, or its own where every weight was trained.
        adapter: name of its adapter in the trunk, if it has one.
        frozen: whether it reads the base model's states.
    """

    def __init__(
        self, artifact_id: str, head: Head, spec: FeatureSpec, trunk: Trunk, *, adapter: str | None = None, frozen: bool = True, by: By = "mean"
    ) -> None:
        super().__init__(artifact_id, by=by, nats=float(head.std))
        self.head, self.spec, self.trunk, self.adapter, self.frozen = head, spec, trunk, adapter, frozen

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """Layers of the base that `score_hidden` needs; empty where the model needs a pass of its own."""
        return self.spec.layers if self.frozen else ()

    @property
    def longest(self) -> int:
        """Tokens of prompt and response together up to which `score_hidden` can be used; 0 where it can't."""
        return self.spec.max_tokens if self.frozen else 0

    def said(self, answers: Sequence[Answer]) -> Scores:
        """(N,) normalised scores. What a policy sampled is read by its own tokens; a text that was cut off is read without an end token."""
        return self.said_of_tokens([self.trunk.prompt_ids(one.turns) for one in answers], [self._tokens(one) for one in answers])

    def said_of_tokens(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scores:
        """(N,) normalised scores, given token ids."""
        items: list[Item] = [(tuple(prompt), tuple(response)) for prompt, response in zip(prompts, responses, strict=True)]
        if not items:
            return Scores(torch.empty(0), torch.empty(0), torch.empty(0))
        return self.head.scores(self.states(items))

    @torch.no_grad()
    def score_hidden(self, hidden: Mapping[int, Tensor], rows: Rows) -> tuple[list[float], list[float]]:
        """As `score_with_std`, from hidden states that the caller has: saves a forward pass of the base.

        Args:
            hidden: layer → states of the base with adapters off, for each of `feature_layers`.
            rows: what they are the states of.

        Raises:
            ValueError: the model reads a trunk that has learned, or a sequence is longer than what the model reads.
        """
        if not self.frozen:
            raise ValueError("this reward model's trunk has learned: the base's hidden states are not what it reads")
        if rows.longest > self.spec.max_tokens:
            raise ValueError(f"a sequence of {rows.longest} tokens; this reward model reads the last {self.spec.max_tokens}: use score()")
        return self.in_numbers(self.head.scores(pool(hidden, rows, self.spec)))

    def states(self, items: Sequence[Item]) -> Tensor:
        """(N, D) what the head reads of each response."""
        if self.frozen:
            return features(self.trunk, items, self.spec)
        with torch.no_grad(), self.trunk.using(self.adapter):
            return learned_states(self.trunk, items, self.spec)

    def value_direction(self) -> tuple[Tensor, float]:
        """(H,) fp32 and a constant, by the members' mean."""
        if not self.frozen or self.spec.readings != (("last", self.trunk.layers),) or not isinstance(self.head, LinearHead):
            return super().value_direction()
        return self.head.direction()

    def _tokens(self, answer: Answer) -> Sequence[int]:
        if answer.token_ids is not None:
            return answer.token_ids
        ids = self.trunk.response_ids(answer.text)
        return ids if answer.finished else ids[:-1]

    def close(self) -> None:
        """Take its adapter out of the trunk; one without an adapter has nothing to give back."""
        if self.adapter is not None and self.trunk.has_adapter(self.adapter):
            self.trunk.drop_adapter(self.adapter)


def load_reward_model(project: Project, artifact_id: str, trunk: Trunk, *, by: By = "mean") -> AnyRewardModel:
    """Open a reward model of any kind: trained on this trunk, brought from outside, or made of several.

    Args:
        trunk: the project's base model.
        by: what an ensemble's members say in one number.

    Raises:
        UserError: there is no such reward model, it was trained on other weights than the trunk's, or what it was brought from isn't what it was.
    """
    artifact = load_artifact(project.artifacts, artifact_id)
    if artifact.kind != "reward":
        raise UserError(f"{artifact_id} is no reward model", fix="name one that starts with reward-; `truing lineage` lists them")
    source = artifact.facts.get("source")
    if source is None:
        return _open_trained(artifact, trunk, by)
    if source == "combined":
        from truing.reward.objectives.model import open_combined  # it opens its parts by this function

        return open_combined(project, artifact, trunk, by=by)
    from truing.reward.outside.model import open_outside  # the two know `AnyRewardModel`

    return open_outside(project, artifact, trunk, by=by)


def load_trained_model(project: Project, artifact_id: str, trunk: Trunk, *, by: By = "mean") -> RewardModel:
    """As `load_reward_model`, where only a model that was trained here will do.

    Raises:
        UserError: it wasn't.
    """
    found = load_reward_model(project, artifact_id, trunk, by=by)
    if isinstance(found, RewardModel):
        return found
    found.close()
    raise UserError(f"{artifact_id} was not trained here", fix="name a reward model that `truing reward train` made")


def _open_trained(artifact: Artifact, trunk: Trunk, by: By) -> RewardModel:
    facts, own_id = artifact.facts, artifact.id
    if facts["fingerprint"] != trunk.fingerprint:
        raise UserError(
            f"{own_id} was trained on {facts['model']}; the project's model is {trunk.name} with other weights, another tokenizer or another dtype",
            fix=f"set model.name={facts['model']} (and model.dtype as it was), or train again with `truing reward train`",
        )
    spec = FeatureSpec(tuple((how, layer) for how, layer in facts["readings"]), facts["max_tokens"])
    head = load_head(artifact.path / "head.safetensors")
    if facts["head"] == "full":
        own = open_trunk(ModelSettings(name=facts["model"], dtype="fp32"))
        own.load_weights(artifact.path / WEIGHTS)
        return RewardModel(own_id, head, spec, own, frozen=False, by=by)
    if facts["head"] == "adapter":  # its name, "reward-" and a hash, has no dots, which PEFT can't take
        if not trunk.has_adapter(own_id):
            trunk.load_adapter(own_id, artifact.path / "adapter")
        return RewardModel(own_id, head, spec, trunk, adapter=own_id, frozen=False, by=by)
    return RewardModel(own_id, head, spec, trunk, by=by)
