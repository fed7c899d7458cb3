"""What a head learns from, prompt by prompt, whichever head it is: pairs of responses with a graded label, or judgements as people made them.

Shapes: S responses, N pairs, K members of an ensemble.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from truing.artifacts import Artifact
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.reward.features import Item
from truing.reward.judged import SCALED, Forms, Judged, Said, Scales, forms_of, judged, surprise
from truing.reward.losses import MOST_RANKED, bradley_terry
from truing.reward.train_pairs import Pairs, response_of
from truing.store.ids import canonical
from truing.store.tables import Kind, Split

SAID = "said.jsonl"
Heed = Mapping[str, float]  # how much a member heeds each prompt; one that isn't there, or 0, is left out


class Asked(NamedTuple):
    """What one member of an ensemble is asked to make small.

    Attributes:
        mass: weight of all the judgements together, as the member heeds them.
        loss: (S,) scores of the lesson's responses, and what the member learns beside its scores → () nats, summed by weight: that of two parts of a lesson
            together is the sum of theirs.
    """

    mass: float
    loss: Callable[[Tensor, nn.Module], Tensor]


class Lesson(Protocol):
    """Responses, and what was said of them."""

    @property
    def responses(self) -> list[Item]:
        """(S,) each once."""

    @property
    def prompts(self) -> list[str]:
        """The prompt's id of each judgement."""

    def only(self, prompts: Sequence[str]) -> "Lesson":
        """The part about some prompts."""

    def beside(self) -> nn.Module:
        """What a member learns beside its scores, to begin with."""

    def asked(self, heed: Heed | None = None) -> Asked:
        """All of it as one member heeds it; None: all prompts alike."""


@dataclass(frozen=True)
class PairLesson:
    """Pairs of responses under Bradley and Terry's model.

    Attributes:
        pairs: with their labels.
        centre: price of a squared sum of a pair's scores.
    """

    pairs: Pairs
    centre: float

    @property
    def responses(self) -> list[Item]:
        """(S,) each once, in the order in which they come."""
        return list(dict.fromkeys([*self.pairs.a, *self.pairs.b]))

    @property
    def prompts(self) -> list[str]:
        """(N,) the prompt's id of each pair."""
        return self.pairs.prompts

    def only(self, prompts: Sequence[str]) -> "PairLesson":
        """The pairs of some prompts."""
        wanted = set(prompts)
        return replace(self, pairs=self.pairs.at([place for place, prompt in enumerate(self.pairs.prompts) if prompt in wanted]))

    def places(self) -> tuple[Tensor, Tensor]:
        """(N,) where the two responses of each pair stand among `responses`."""
        place = {item: index for index, item in enumerate(self.responses)}
        return torch.tensor([place[item] for item in self.pairs.a]), torch.tensor([place[item] for item in self.pairs.b])

    def beside(self) -> nn.Module:
        """Nothing: a pair's scores are all there is."""
        return nn.Module()

    def asked(self, heed: Heed | None = None) -> Asked:
        """Cross-entropy of the labels."""
        first, second = self.places()
        heeded = torch.tensor([1.0 if heed is None else heed.get(prompt, 0.0) for prompt in self.pairs.prompts])
        weight = self.pairs.weight * heeded
        kept = weight > 0
        first, second, target, weight = first[kept], second[kept], self.pairs.target[kept], weight[kept]

        def loss(scores: Tensor, _: nn.Module) -> Tensor:
            a, b = scores[first], scores[second]
            return bradley_terry(a, b, target=target, weight=weight) * weight.sum() + self.centre * (weight * (a + b).square()).sum()

        return Asked(float(weight.sum()), loss if len(weight) else _nothing)


@dataclass(frozen=True)
class SaidLesson:
    """Judgements of some prompts, of every kind in one likelihood (judged.py).

    Attributes:
        responses: tokens of each response with its prompt, every one once.
        prompt_of: the prompt's id of each response.
        said: judgements, whose responses go by their places there.
        prompts: the prompt's id of each judgement.
        nats_a_step: log-odds that a step of a pair's strength stands for.
        forms: of the whole dataset.
        centre: price of the mean square of a judgement's scores.
        whole: weight of all the judgements that there are, of which these may be a part.
    """

    responses: list[Item]
    prompt_of: list[str]
    said: list[Said]
    prompts: list[str]
    nats_a_step: float
    forms: Forms
    centre: float
    whole: float

    def only(self, prompts: Sequence[str]) -> "SaidLesson":
        """The judgements of some prompts."""
        wanted = set(prompts)
        kept = [place for place, prompt in enumerate(self.prompt_of) if prompt in wanted]
        place = {old: new for new, old in enumerate(kept)}
        rows = [(one, prompt) for one, prompt in zip(self.said, self.prompts, strict=True) if prompt in wanted]
        said = [one._replace(responses=tuple(place[response] for response in one.responses)) for one, _ in rows]
        return replace(
            self, responses=[self.responses[old] for old in kept], prompt_of=[self.prompt_of[old] for old in kept], said=said,
            prompts=[prompt for _, prompt in rows],
        )  # fmt: skip

    def tensors(self, heed: Heed | None = None) -> Judged:
        """All of it, each judgement weighed by how much its prompt is heeded."""
        if heed is None:
            return judged(self.said, self.nats_a_step, self.forms)
        heeded = [one._replace(trust=one.trust * heed[prompt]) for one, prompt in zip(self.said, self.prompts, strict=True) if heed.get(prompt)]
        return judged(heeded, self.nats_a_step, self.forms)

    def beside(self) -> Scales:
        """A scale for each kind, widths of ties, cut-points of points, as they are likeliest while all scores are alike."""
        scales, asked, alike = Scales(self.forms), self.asked(), torch.zeros(len(self.responses), dtype=torch.float64)
        optimizer = torch.optim.LBFGS(scales.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            value = asked.loss(alike, scales) / max(asked.mass, 1.0)
            value.backward()
            return value

        optimizer.step(loss)
        return scales

    def units(self, beside: Iterable[nn.Module]) -> Tensor:
        """(K,) nats of a comparison in one nat of each member's score, by the scale that it learned for pairs; where nobody compared two, for the first of
        rankings, ratings and thumbs that there are."""
        kinds = {Kind.PAIR if one.kind == Kind.EDIT else one.kind for one in self.said}
        compared = next(kind for kind in SCALED if kind in kinds)
        return torch.tensor([scales.scale(compared).item() for scales in beside if isinstance(scales, Scales)])

    def asked(self, heed: Heed | None = None) -> Asked:
        """How surprising the judgements are; the price of the scales is spread over the whole dataset, and that of a score goes by what was said of it."""
        said, about = self.tensors(heed), self._about(heed)

        def loss(scores: Tensor, scales: nn.Module) -> Tensor:
            assert isinstance(scales, Scales)
            own = scores.double()
            return (surprise(own, said, scales) + scales.price() / self.whole) * said.weight + self.centre * (about * own.square()).sum()

        return Asked(said.weight, loss if said.weight else _nothing)

    def _about(self, heed: Heed | None) -> Tensor:
        """(S,) trust in what is said of each response, as it is heeded; that in a judgement is shared out among its responses."""
        found = torch.zeros(len(self.responses), dtype=torch.float64)
        for one, prompt in zip(self.said, self.prompts, strict=True):
            found[list(one.responses)] += one.trust * (1.0 if heed is None else heed.get(prompt, 0.0)) / len(one.responses)
        return found


def said_rows(dataset: Artifact) -> list[dict[str, Any]]:
    """A dataset's lines of said.jsonl."""
    with (dataset.path / SAID).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def require_said(rows: Sequence[Mapping[str, Any]], needed: int) -> None:
    """Stop, in words, where nothing could be learned from judgements.

    Args:
        rows: lines of said.jsonl.

    Raises:
        UserError: too few train judgements, none that tells better from worse, all about one prompt, or a ranking of more than can be learned from.
    """
    if long := sorted({len(row["responses"]) for row in rows if row["kind"] == Kind.RANKING and len(row["responses"]) > MOST_RANKED}):
        raise UserError(
            f"the dataset has rankings of up to {long[-1]} responses; learned from as they were made, one has {MOST_RANKED} at most",
            fix="learn from the pairs that they come to (reward.learn_from=pairs), or leave out their rounds",
        )
    train = [row for row in rows if row["split"] == Split.TRAIN]
    if (n := sum(len(row["said"]) for row in train)) < needed:
        raise UserError(
            f"the dataset has {n} train judgements; a reward model needs at least {needed}",
            fix="collect more and run `truing preferences` again, or accept the risk with a lower reward.min_preferences",
        )
    if not _tell_apart(train):
        raise UserError(
            f"all {n} train judgements say the same of what they are about: nothing tells better from worse",
            fix="collect judgements of better and of worse answers, and run `truing preferences` again",
        )
    if len({row["prompt_id"] for row in train}) < 2:
        raise UserError("all train judgements are about one prompt: nothing tells taste from topic", fix="collect judgements on more prompts")


def _tell_apart(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether somebody preferred a response to another, or single responses were called different things."""
    answers: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        answers.setdefault(row["kind"], []).extend(one["answer"] for one in row["said"])
    preferred = any(answer["strength"] for answer in answers.get(Kind.PAIR, [])) or any(len(set(one["ranks"])) > 1 for one in answers.get(Kind.RANKING, []))
    differ = any(len({canonical(answer) for answer in answers.get(kind, [])}) > 1 for kind in (Kind.RATING, Kind.THUMBS))
    return preferred or differ or bool(answers.get(Kind.EDIT))


def read_said(dataset: Artifact, trunk: Trunk, centre: float) -> tuple[SaidLesson, SaidLesson]:
    """The train part and the held-out part of a dataset's judgements, as token ids."""
    step = float(dataset.manifest["settings"]["preferences"]["nats_a_step"])
    rows = said_rows(dataset)
    train, held_out = (_lesson([row for row in rows if row["split"] == split], trunk, step, centre) for split in (Split.TRAIN, Split.HELD_OUT))
    forms = forms_of([*train.said, *held_out.said])
    return replace(train, forms=forms), replace(held_out, forms=forms)


def _lesson(rows: Sequence[Mapping[str, Any]], trunk: Trunk, step: float, centre: float) -> SaidLesson:
    responses: list[Item] = []
    prompt_of: list[str] = []
    place: dict[str, int] = {}
    said: list[Said] = []
    prompts: list[str] = []
    for row in rows:
        asked = tuple(trunk.prompt_ids(row["turns"]))
        for response in row["responses"]:
            if response["sample_id"] not in place:
                place[response["sample_id"]] = len(responses)
                responses.append((asked, response_of(response, trunk)))
                prompt_of.append(row["prompt_id"])
        about = tuple(place[response["sample_id"]] for response in row["responses"])
        said += [Said(row["kind"], about, one["answer"], one["trust"]) for one in row["said"]]
        prompts += [row["prompt_id"]] * len(row["said"])
    return SaidLesson(responses, prompt_of, said, prompts, step, forms_of(said), centre, sum(one.trust for one in said))


def _nothing(scores: Tensor, _: nn.Module) -> Tensor:
    return scores.sum() * 0
