"""A trained reward model, ready to score. Scores have mean 0 and standard deviation 1 on the reference samples it was normalised on.

Shapes: B responses, L tokens, H hidden size.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from truing.artifacts import load_artifact
from truing.errors import UserError
from truing.models.sequences import Batch
from truing.models.trunk import Trunk
from truing.reward.features import FeatureSpec, Item, features, pool
from truing.reward.heads import Head, Scores, load_head
from truing.reward.train_adapter import adapted
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
        adapter: name of its adapter in the trunk; None where it reads the base model's frozen states.
    """

    def __init__(self, artifact_id: str, head: Head, spec: FeatureSpec, trunk: Trunk, adapter: str | None) -> None:
        self.id, self.head, self.spec, self.trunk, self.adapter = artifact_id, head, spec, trunk, adapter

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """Layers of the base that `score_hidden` needs; empty where the model has an adapter and needs a pass of its own."""
        return self.spec.layers if self.adapter is None else ()

    @property
    def longest(self) -> int:
        """Tokens of prompt and response together up to which `score_hidden` can be used; 0 where it can't."""
        return self.spec.max_tokens if self.adapter is None else 0

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
        return _lists(self.head.scores(self._features(items)))

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
            ValueError: the model has an adapter, or a sequence is longer than what the model reads.
        """
        if self.adapter is not None:
            raise ValueError("this reward model has an adapter: the base's hidden states are not what it reads")
        if int(batch.lengths.max()) > self.spec.max_tokens:
            raise ValueError(f"a sequence of {int(batch.lengths.max())} tokens; this reward model reads the last {self.spec.max_tokens}: use score()")
        return _lists(self.head.scores(pool(hidden, batch, self.spec)))

    def _features(self, items: Sequence[Item]) -> Tensor:
        if self.adapter is None:
            return features(self.trunk, items, self.spec)
        with torch.no_grad(), self.trunk.using(self.adapter):
            return adapted(self.trunk, items, self.spec)

    def close(self) -> None:
        """Take its adapter out of the trunk; one without an adapter has nothing to give back."""
        if self.adapter is not None and self.trunk.has_adapter(self.adapter):
            self.trunk.drop_adapter(self.adapter)


def load_reward_model(project: Project, artifact_id: str, trunk: Trunk) -> RewardModel:
    """Open a reward model on a trunk.

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
    adapter = None
    if facts["head"] == "adapter":
        adapter = artifact_id  # "reward-" and a hash: no dots, which PEFT can't take in a name
        if not trunk.has_adapter(adapter):
            trunk.load_adapter(adapter, artifact.path / "adapter")
    return RewardModel(artifact_id, load_head(artifact.path / "head.safetensors"), spec, trunk, adapter)


def _lists(scores: Scores) -> tuple[list[float], list[float]]:
    return scores.mean.tolist(), scores.std.tolist()
