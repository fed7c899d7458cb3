"""What people said of some responses, as tensors, and how surprising that is under scores of the responses.

One reward model may learn from all kinds of judgement at once. Each kind sees the same score on a scale of its own, and has what else its likelihood needs:
how readily people call two alike, where the levels of a rating begin, how readily they say yes. These are learned with the scores and aren't part of them.

A judgement weighs as much as its author is trusted; a rating of m aspects weighs as much as one of a single aspect.

Shapes: S responses, P pairs, Q rankings of up to R responses, M ratings, T thumbs, A aspects.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from truing.reward.losses import cumulative_logit, davidson, logistic, plackett_luce, rising
from truing.store.tables import Kind

OVERALL = "overall"  # the aspect that speaks for a rating
USUAL_LEVELS, MOST_LEVELS = 5, 7  # of a rating
NOBODY = -1  # in `members`: a ranking of fewer responses
SCALED = (Kind.PAIR, Kind.RANKING, Kind.RATING, Kind.THUMBS)  # an edit is a pair


class Said(NamedTuple):
    """One judgement of some responses, which go by their places among all."""

    kind: str
    responses: tuple[int, ...]
    answer: Mapping[str, Any]  # as in feedback/answers.py; neither a skip nor "both bad"
    trust: float  # > 0


class Forms(NamedTuple):
    """What kinds of answer there are, whoever gave them: the same for what is learned from and what is measured on.

    Attributes:
        aspects: the name and the number of levels of each aspect that is rated.
        largest_tie: how many responses a ranking calls alike, at most; 1 without ties.
        shares: of judgements of each kind in `SCALED`; they sum to 1, or are all 0.
    """

    aspects: tuple[tuple[str, int], ...] = ()
    largest_tie: int = 1
    shares: tuple[float, ...] = (0.0,) * len(SCALED)


@dataclass(frozen=True)
class Pairs:
    """first, second: (P,) long. share: (P, 3) of the first, a tie, the second. weight: (P,)."""

    first: Tensor
    second: Tensor
    share: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Rankings:
    """members: (Q, R) long, NOBODY where there are fewer. ranks: (Q, R) long, 0 there. weight: (Q,)."""

    members: Tensor
    ranks: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Ratings:
    """response, aspect, level: (M,) long; level from 0. weight: (M,)."""

    response: Tensor
    aspect: Tensor
    level: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Thumbs:
    """response: (T,) long. up: (T,) 1 or 0. weight: (T,)."""

    response: Tensor
    up: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Judged:
    """All judgements, by kind."""

    pairs: Pairs
    rankings: Rankings
    ratings: Ratings
    thumbs: Thumbs
    forms: Forms

    @property
    def weight(self) -> float:
        """Of all judgements together."""
        return float(sum(part.weight.sum() for part in (self.pairs, self.rankings, self.ratings, self.thumbs)))


def forms_of(said: Iterable[Said]) -> Forms:
    """The forms that some judgements have. A scale has five levels, or seven if somebody gave more than five points."""
    levels: dict[str, int] = {}
    largest, kinds = 1, Counter[str]()
    for one in said:
        kinds[one.kind] += 1
        if one.kind == Kind.RATING:
            for name, point in _aspects(one.answer).items():
                levels[name] = max(levels.get(name, USUAL_LEVELS), point if point <= USUAL_LEVELS else MOST_LEVELS)
        elif one.kind == Kind.RANKING:
            largest = max(largest, *Counter(one.answer["ranks"]).values())
    kinds[Kind.PAIR] += kinds[Kind.EDIT]
    counts = [kinds[kind] for kind in SCALED]
    return Forms(tuple(sorted(levels.items())), largest, tuple(count / max(sum(counts), 1) for count in counts))


def judged(said: Sequence[Said], nats_a_step: float, forms: Forms | None = None) -> Judged:
    """Judgements as tensors. An edit says that the first of its two responses, the person's own, is better by one step.

    Args:
        nats_a_step: log-odds that one step of a pair's strength stands for: a judgement of s says that the first is better with 1 / (1 + exp(-k |s|)).
        forms: of these judgements and whatever they go together with; None: their own.

    Raises:
        ValueError: a kind that nothing can be learned from.
    """
    forms = forms_of(said) if forms is None else forms
    pairs: list[tuple[int, int, tuple[float, float, float], float]] = []
    rankings: list[tuple[tuple[int, ...], list[int], float]] = []
    ratings: list[tuple[int, str, int, float]] = []
    thumbs: list[tuple[int, float, float]] = []
    for one in said:
        if one.kind in (Kind.PAIR, Kind.EDIT):
            strength = 1.0 if one.kind == Kind.EDIT else one.answer["strength"]
            pairs.append((one.responses[0], one.responses[1], _share(strength * nats_a_step), one.trust))
        elif one.kind == Kind.RANKING:
            rankings.append((one.responses, list(one.answer["ranks"]), one.trust))
        elif one.kind == Kind.RATING:
            told = _aspects(one.answer)
            ratings += [(one.responses[0], name, point - 1, one.trust / len(told)) for name, point in sorted(told.items())]
        elif one.kind == Kind.THUMBS:
            thumbs.append((one.responses[0], float(one.answer["up"]), one.trust))
        else:
            raise ValueError(f"nothing is learned from a judgement of kind {one.kind}")
    return Judged(_pairs(pairs), _rankings(rankings), _ratings(ratings, [name for name, _ in forms.aspects]), _thumbs(thumbs), forms)


class Scales(nn.Module):
    """What is learned beside the scores.

    Attributes:
        log_scale: (4,) of the kinds in `SCALED`, against their root mean square by shares: how many nats of each one nat of score is. A scale that could
            grow with all the others would undo what holds the scores small; so would one that could grow far by leaving few judgements unexplained, as it
            can against a geometric mean.
        log_tie: () of pairs.
        log_ties: (K - 1,) of rankings, for ties of 2 to K.
        loading: (A,) logs of how much each aspect heeds the score, beside the scale of ratings and against their root mean square.
        cuts: (L - 1,) for each aspect; see `rising`.
        offset: () of thumbs.
    """

    def __init__(self, forms: Forms) -> None:
        super().__init__()
        self.shares = torch.tensor(forms.shares, dtype=torch.float64)
        self.log_scale = nn.Parameter(torch.zeros(len(SCALED), dtype=torch.float64))
        self.log_tie = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_ties = nn.Parameter(torch.zeros(forms.largest_tie - 1, dtype=torch.float64))
        self.loading = nn.Parameter(torch.zeros(len(forms.aspects), dtype=torch.float64))
        self.cuts = nn.ParameterList([_even_cuts(levels) for _, levels in forms.aspects])
        self.offset = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def scale(self, kind: Kind) -> Tensor:
        """() nats of this kind's likelihood in one nat of score."""
        return (self.log_scale[SCALED.index(kind)] - _log_rms(self.log_scale, self.shares)).exp()

    def loadings(self) -> Tensor:
        """(A,) nats of each aspect in one nat of ratings; their mean square is 1."""
        even = torch.full_like(self.loading, 1 / max(len(self.loading), 1))
        return (self.loading - _log_rms(self.loading, even)).exp()

    def price(self) -> Tensor:
        """() minus the log of a prior, N(0, 1) and for cuts N(0, 3^2): what nobody spoke of stays where it is, and nothing runs away."""
        free = (self.log_scale, self.log_tie.view(1), self.log_ties, self.loading, self.offset.view(1))
        return torch.cat(free).square().sum() / 2 + torch.cat([self.offset.new_zeros(0), *self.cuts]).square().sum() / 18


def surprises(scores: Tensor, judged: Judged, scales: Scales) -> dict[Kind, tuple[Tensor, float]]:
    """Of each kind that there are judgements of: minus their mean log-likelihood in nats, and their weight.

    Args:
        scores: (S,) of the responses, in nats.
    """
    found: dict[Kind, tuple[Tensor, float]] = {}
    if len(rows := judged.pairs.weight):
        pairs = judged.pairs
        own = scores * scales.scale(Kind.PAIR)
        found[Kind.PAIR] = davidson(own[pairs.first], own[pairs.second], pairs.share, log_tie=scales.log_tie, weight=pairs.weight), float(rows.sum())
    if len(rows := judged.rankings.weight):
        found[Kind.RANKING] = _ranked(scores, judged, scales), float(rows.sum())
    if len(rows := judged.ratings.weight):
        found[Kind.RATING] = _rated(scores, judged, scales), float(rows.sum())
    if len(rows := judged.thumbs.weight):
        thumbs = judged.thumbs
        own = scores[thumbs.response] * scales.scale(Kind.THUMBS)
        found[Kind.THUMBS] = logistic(own, thumbs.up, offset=scales.offset, weight=thumbs.weight), float(rows.sum())
    return found


def surprise(scores: Tensor, judged: Judged, scales: Scales) -> Tensor:
    """() nats of a judgement, in the mean over all kinds: what a reward model makes small.

    Raises:
        ValueError: there is no judgement.
    """
    found = surprises(scores, judged, scales)
    if not found:
        raise ValueError("there is no judgement to learn from")
    return torch.stack([loss * weight for loss, weight in found.values()]).sum() / judged.weight


def _ranked(scores: Tensor, judged: Judged, scales: Scales) -> Tensor:
    """() of all rankings, those of one width together: all subsets of a ranking are summed over, and one of nine has as many as sixty of three."""
    rankings, losses = judged.rankings, []
    width = (rankings.members != NOBODY).sum(1)
    for n in width.unique().tolist():
        rows = width == n
        own = scores[rankings.members[rows, :n]] * scales.scale(Kind.RANKING)
        weight = rankings.weight[rows]
        losses.append(plackett_luce(own, rankings.ranks[rows, :n], log_ties=scales.log_ties, weight=weight) * weight.sum())
    return torch.stack(losses).sum() / rankings.weight.sum()


def _rated(scores: Tensor, judged: Judged, scales: Scales) -> Tensor:
    """() of all aspects together, each with cuts of its own."""
    ratings = judged.ratings
    own = scores[ratings.response] * scales.scale(Kind.RATING) * scales.loadings()[ratings.aspect]
    losses = []
    for place, cuts in enumerate(scales.cuts):
        rows = ratings.aspect == place
        if rows.any():
            weight = ratings.weight[rows]
            losses.append(cumulative_logit(own[rows], ratings.level[rows], rising(cuts), weight=weight) * weight.sum())
    return torch.stack(losses).sum() / ratings.weight.sum()


# ---- as tensors ----


def _aspects(answer: Mapping[str, Any]) -> dict[str, int]:
    """The points of a rating that speak for it: "overall" alone, or all that there are."""
    points: dict[str, int] = answer["aspects"]
    return {OVERALL: points[OVERALL]} if OVERALL in points else points


def _share(lead: float) -> tuple[float, float, float]:
    """Of the first, a tie and the second, in a judgement that says the first leads by so many nats."""
    if lead == 0:
        return 0.0, 1.0, 0.0
    first = float(torch.sigmoid(torch.tensor(lead, dtype=torch.float64)))
    return first, 0.0, 1.0 - first


def _log_rms(logs: Tensor, shares: Tensor) -> Tensor:
    """() the log of the root of the mean square by shares, (N,) and (N,)."""
    return torch.logsumexp(2 * logs + shares.log(), 0) / 2


def _even_cuts(levels: int) -> nn.Parameter:
    """Cut-points a nat apart around 0, as `rising` takes them."""
    raw = torch.zeros(levels - 1, dtype=torch.float64)
    raw[0] = -(levels - 2) / 2
    return nn.Parameter(raw)


def _longs(numbers: Sequence[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.long)


def _reals(numbers: Sequence[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _pairs(rows: Sequence[tuple[int, int, tuple[float, float, float], float]]) -> Pairs:
    share = torch.tensor([row[2] for row in rows], dtype=torch.float64).reshape(-1, 3)
    return Pairs(_longs([row[0] for row in rows]), _longs([row[1] for row in rows]), share, _reals([row[3] for row in rows]))


def _rankings(rows: Sequence[tuple[tuple[int, ...], list[int], float]]) -> Rankings:
    widest = max((len(members) for members, _, _ in rows), default=1)
    members, ranks = torch.full((len(rows), widest), NOBODY), torch.zeros(len(rows), widest, dtype=torch.long)
    for place, (row, own, _) in enumerate(rows):
        members[place, : len(row)], ranks[place, : len(row)] = _longs(row), _longs(own)
    return Rankings(members, ranks, _reals([row[2] for row in rows]))


def _ratings(rows: Sequence[tuple[int, str, int, float]], aspects: Sequence[str]) -> Ratings:
    place = [aspects.index(name) for _, name, _, _ in rows]
    return Ratings(_longs([row[0] for row in rows]), _longs(place), _longs([row[2] for row in rows]), _reals([row[3] for row in rows]))


def _thumbs(rows: Sequence[tuple[int, float, float]]) -> Thumbs:
    return Thumbs(_longs([row[0] for row in rows]), _reals([row[1] for row in rows]), _reals([row[2] for row in rows]))
