"""Rewards as a rollout sees them: what they may know beside a score, and what they say of answers.

Shapes: B responses, H hidden.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from truing.models.trunk import Rows
from truing.policy.settings import OnlineSettings
from truing.policy.team import team

Score = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[float]]  # prompts, responses → normalised scores


@runtime_checkable
class ReadsHidden(Protocol):
    """A reward that can go by hidden states of the base: then the reference's pass over the answers serves it too.

    Attributes:
        feature_layers: the layers it reads.
        longest: tokens of prompt and answer together up to which it can; 0: never.
    """

    @property
    def feature_layers(self) -> tuple[int, ...]:
        """The layers it reads."""

    @property
    def longest(self) -> int:
        """Tokens of prompt and answer together up to which it can; 0: never."""

    def score_hidden(self, hidden: Mapping[int, Tensor], rows: Rows) -> tuple[list[float], list[float]]:
        """Scores of some answers, and how sure they are, from layer → states of the rows."""


@runtime_checkable
class KnowsDoubt(Protocol):
    """A reward that says how sure it is, as an ensemble can."""

    def score_with_std(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float]]:
        """Scores, and the standard deviation of each over the ensemble."""


@runtime_checkable
class HasObjectives(Protocol):
    """A reward that is made of several, each with a name.

    Attributes:
        parts: by name.
    """

    @property
    def parts(self) -> Mapping[str, object]:
        """By name."""

    def score_objectives(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float], dict[str, list[float]]]:
        """Scores, how sure they are, and each objective's own scores."""


@runtime_checkable
class GivesValues(Protocol):
    """A reward that may be linear in the base's state at the last token: then a value head can start as it."""

    def value_direction(self) -> tuple[Tensor, float]:
        """(H,) and a constant; their sum with the state is the score. A `UserError` where the reward is nothing of that kind."""


class Scored(NamedTuple):
    """What a reward says of some answers.

    Attributes:
        scores: (B,).
        doubts: (B,) or None where the reward knows none.
        objectives: name → (B,), of a reward that is made of several.
    """

    scores: Tensor
    doubts: Tensor | None
    objectives: dict[str, Tensor]

    def at(self, rows: Tensor) -> "Scored":
        """Of some of them, in that order; rows: (N,) places."""
        return Scored(self.scores[rows], None if self.doubts is None else self.doubts[rows], {name: one[rows] for name, one in self.objectives.items()})


def reader_of(score: Score, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> ReadsHidden | None:
    """The reward, if hidden states of these answers are enough for it."""
    longest = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
    return score if isinstance(score, ReadsHidden) and longest <= score.longest else None


def scores_of(score: Score, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scored:
    """What the reward says, each process asking about its share."""
    own = team()
    mine = [place for place in range(len(prompts)) if own.owns(place)]
    if own.size == 1:
        return _scored(score, prompts, responses)
    found = _scored(score, [prompts[place] for place in mine], [responses[place] for place in mine])
    return in_a_row(own.together({place: found.at(torch.tensor([row])) for row, place in enumerate(mine)}))


def in_a_row(each: Sequence[Scored]) -> Scored:
    """What was said of some answers, then of others."""
    doubts = [one.doubts for one in each if one.doubts is not None]
    names = each[0].objectives
    objectives = {name: torch.cat([one.objectives[name] for one in each]) for name in names}
    return Scored(torch.cat([one.scores for one in each]), torch.cat(doubts) if doubts else None, objectives)


def _scored(score: Score, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Scored:
    """What the reward says, and all that it knows beside."""
    if isinstance(score, HasObjectives):
        mean, spread, each = score.score_objectives(prompts, responses)
        return Scored(torch.tensor(mean), torch.tensor(spread), {name: torch.tensor(own) for name, own in each.items()})
    if isinstance(score, KnowsDoubt):
        mean, spread = score.score_with_std(prompts, responses)
        return Scored(torch.tensor(mean), torch.tensor(spread), {})
    return Scored(torch.tensor(score(prompts, responses), dtype=torch.float32), None, {})


def final_scores(raw: Tensor, finished: Tensor, settings: OnlineSettings) -> Tensor:
    """(B,) scores after the rule for answers that were cut off, held within the clip."""
    if settings.truncation == "set":
        raw = torch.where(finished, raw, -settings.truncation_penalty)
    elif settings.truncation == "subtract":
        raw = torch.where(finished, raw, raw - settings.truncation_penalty)
    return raw.clamp(-settings.score_clip, settings.score_clip)
