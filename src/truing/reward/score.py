"""A trained reward model, ready to score. Scores have mean 0 and standard deviation 1 on the reference samples it was normalised on.

Shapes: B responses, L tokens, H hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from truing.artifacts import load_artifact
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.sequences import Batch
from truing.models.trunk import Trunk, open_trunk
from truing.reward.features import FeatureSpec, Item, features, pool
from truing.reward.heads import WEIGHTS, By, Head, Scores, load_head
from truing.reward.train_trunk import learned_states
from truing.store.project import Project

Turns = Sequence[Mapping[str, str]]  # a conversation that ends with a user turn


class Scorer(Protocol):
    """Whatever scores text: a reward model made here, another model with its own tokenizer, a Python function."""

    def score_texts(self, prompts: Sequence[Turns], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        """A score of each response to its conversation, and how sure it is: the standard deviation over an ensemble in the same unit, 0 where there is none."""


class RewardModel:
    """Scores of (prompt, response).

    Attributes:
        id: its artifact.
        spec: what it reads of the trunk, and of how many last tokens.
        trunk: the shared one, or its own where every weight was trained.
        adapter: name of its adapter in the trunk, if it has one.
        frozen: whether it reads the base model's states.
        by: what its members say in one number, which is the score.
    """

    def __init__(
        self, artifact_id: str, head: Head, spec: FeatureSpec, trunk: Trunk, *, adapter: str | None = None, frozen: bool = True, by: By = "mean"
    ) -> None:
        self.id, self.head, self.spec, self.trunk, self.adapter, self.frozen, self.by = artifact_id, head, spec, trunk, adapter, frozen, by

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """Layers of the base that `score_hidden` needs; empty where the model needs a pass of its own."""
        return self.spec.layers if self.frozen else ()

    @property
    def longest(self) -> int:
        """Tokens of prompt and response together up to which `score_hidden` can be used; 0 where it can't."""
        return self.spec.max_tokens if self.frozen else 0

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """As `score`."""
        return self.score(prompts, responses)

    def score(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """The normalised score of each response, given token ids. It depends on neither its neighbours nor their order."""
        return self.score_with_std(prompts, responses)[0]

    def score_with_std(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float]]:
        """The normalised scores, and how far the ensemble's members differ about each, in the same unit (0 with one member)."""
        items: list[Item] = [(tuple(prompt), tuple(response)) for prompt, response in zip(prompts, responses, strict=True)]
        if not items:
            return [], []
        return self._said(self.head.scores(self.states(items)))

    def score_texts(self, prompts: Sequence[Turns], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        """As `score_with_std`, of finished answers that came as text."""
        return self.score_with_std([self.trunk.prompt_ids(turns) for turns in prompts], [self.trunk.response_ids(text) for text in responses])

    @torch.no_grad()
    def score_hidden(self, hidden: Mapping[int, Tensor], batch: Batch) -> tuple[list[float], list[float]]:
        """As `score_with_std`, from hidden states that the caller has: saves a forward pass of the base.

        Args:
            hidden: layer → (B, L, H) of the base with adapters off, for each of `feature_layers`.
            batch: what they are the states of.

        Raises:
            ValueError: the model reads a trunk that has learned, or a sequence is longer than what the model reads.
        """
        if not self.frozen:
            raise ValueError("this reward model's trunk has learned: the base's hidden states are not what it reads")
        if int(batch.lengths.max()) > self.spec.max_tokens:
            raise ValueError(f"a sequence of {int(batch.lengths.max())} tokens; this reward model reads the last {self.spec.max_tokens}: use score()")
        return self._said(self.head.scores(pool(hidden, batch, self.spec)))

    def states(self, items: Sequence[Item]) -> Tensor:
        """(N, D) what the head reads of each response."""
        if self.frozen:
            return features(self.trunk, items, self.spec)
        with torch.no_grad(), self.trunk.using(self.adapter):
            return learned_states(self.trunk, items, self.spec)

    def _said(self, scores: Scores) -> tuple[list[float], list[float]]:
        return scores.by(self.by).tolist(), scores.std.tolist()

    def close(self) -> None:
        """Take its adapter out of the trunk; one without an adapter has nothing to give back."""
        if self.adapter is not None and self.trunk.has_adapter(self.adapter):
            self.trunk.drop_adapter(self.adapter)


def load_reward_model(project: Project, artifact_id: str, trunk: Trunk, *, by: By = "mean") -> RewardModel:
    """Open a reward model on a trunk.

    Args:
        by: what its members say in one number.

    Raises:
        UserError: there is no such artifact, or it was trained on other weights than the trunk's.
    """
    artifact = load_artifact(project.artifacts, artifact_id)
    facts = artifact.facts
    if facts["fingerprint"] != trunk.fingerprint:
        raise UserError(
            f"{artifact_id} was trained on {facts['model']}; the project's model is {trunk.name} with other weights or another dtype",
            fix=f"set model.name={facts['model']} (and model.dtype as it was), or train again with `truing reward train`",
        )
    spec = FeatureSpec(tuple((how, layer) for how, layer in facts["readings"]), facts["max_tokens"])
    head = load_head(artifact.path / "head.safetensors")
    if facts["head"] == "full":
        own = open_trunk(ModelSettings(name=facts["model"], dtype="fp32"))
        own.load_weights(artifact.path / WEIGHTS)
        return RewardModel(artifact_id, head, spec, own, frozen=False, by=by)
    if facts["head"] == "adapter":  # its name, "reward-" and a hash, has no dots, which PEFT can't take
        if not trunk.has_adapter(artifact_id):
            trunk.load_adapter(artifact_id, artifact.path / "adapter")
        return RewardModel(artifact_id, head, spec, trunk, adapter=artifact_id, frozen=False, by=by)
    return RewardModel(artifact_id, head, spec, trunk, by=by)
