"""Judgements of all kinds as one likelihood: by hand, as the losses it is made of, and on crowds whose taste is known."""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from truing.reward.judged import Judged, Said, Scales, forms_of, judged, surprise, surprises
from truing.reward.losses import bradley_terry, plackett_luce
from truing.stats import spearman
from truing.store.tables import Kind

LN3 = math.log(3)


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


def pair(first: int, second: int, strength: int, trust: float = 1.0) -> Said:
    return Said(Kind.PAIR, (first, second), {"strength": strength}, trust)


def scores(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# ---- by hand ----


def test_a_mixture_by_hand() -> None:
    """Scores ln 3 and 0 on everybody's own scale, no ties wide, one judgement of each kind."""
    said = [
        pair(0, 1, 0, 0.5),  # root 3 : 1 : 1 / root 3
        Said(Kind.RANKING, (0, 1), {"ranks": [1, 2]}, 2.0),
        Said(Kind.RATING, (1,), {"aspects": {"overall": 1}}, 1.0),  # the cuts begin a nat apart, at -1.5
        Said(Kind.THUMBS, (0,), {"up": True}, 0.5),
    ]
    found = judged(said, LN3)
    scales = Scales(found.forms)
    root = math.sqrt(3)
    tie, lowest = math.log(root + 1 + 1 / root), math.log1p(math.exp(1.5))
    expected = {Kind.PAIR: tie, Kind.RANKING: math.log(4 / 3), Kind.RATING: lowest, Kind.THUMBS: math.log(4 / 3)}
    parts = surprises(scores(LN3, 0), found, scales)
    assert {kind: loss.item() for kind, (loss, _) in parts.items()} == {kind: near(loss) for kind, loss in expected.items()}
    assert {kind: weight for kind, (_, weight) in parts.items()} == {Kind.PAIR: 0.5, Kind.RANKING: 2.0, Kind.RATING: 1.0, Kind.THUMBS: 0.5}
    whole = (0.5 * tie + 2.5 * math.log(4 / 3) + lowest) / 4
    assert surprise(scores(LN3, 0), found, scales).item() == near(whole)


def test_scales_are_against_their_mean_square_by_shares() -> None:
    thumbs, ranking = Said(Kind.THUMBS, (0,), {"up": True}, 1.0), Said(Kind.RANKING, (0, 1), {"ranks": [1, 2]}, 1.0)
    forms = forms_of([pair(0, 1, 1), Said(Kind.EDIT, (0, 1), {}, 1.0), ranking, thumbs])
    assert forms.shares == (0.5, 0.25, 0, 0.25)
    scales = Scales(forms)
    with torch.no_grad():
        scales.log_scale.copy_(torch.tensor([0.0, math.log(5), 7.0, LN3], dtype=torch.float64))
    assert [scales.scale(kind).item() for kind in (Kind.PAIR, Kind.RANKING, Kind.THUMBS)] == [near(1 / 3), near(5 / 3), near(1)]  # 9 = 1/2 + 25/4 + 9/4
    alone = Scales(forms_of([thumbs]))
    with torch.no_grad():
        alone.log_scale.fill_(5.0)
    assert alone.scale(Kind.THUMBS).item() == 1  # so that strong L2 on the scores is strong


def test_aspects_are_loaded_against_their_mean_square() -> None:
    scales = Scales(forms_of([Said(Kind.RATING, (0,), {"aspects": {"true": 1, "warm": 2}}, 1.0)]))
    with torch.no_grad():
        scales.loading.copy_(torch.tensor([math.log(7), 0.0], dtype=torch.float64))
    assert scales.loadings().tolist() == [near(1.4), near(0.2)]  # 5 is the root of (49 + 1) / 2
    alone = Scales(forms_of([Said(Kind.RATING, (0,), {"aspects": {"true": 1}}, 1.0)]))
    with torch.no_grad():
        alone.loading.fill_(2.0)
    assert alone.loadings().tolist() == [1]


def test_strength_says_how_sure() -> None:
    found = judged([pair(0, 1, 1), pair(0, 1, -2), pair(0, 1, 0)], LN3)
    shares = found.pairs.share.flatten().tolist()
    assert shares == pytest.approx([3 / 4, 0, 1 / 4, 1 / 10, 0, 9 / 10, 0, 1, 0])


def test_an_edit_is_one_step_for_the_person_s_own() -> None:
    edit = Said(Kind.EDIT, (4, 2), {"text": "mine"}, 0.7)
    found = judged([edit], LN3).pairs
    assert (found.first.item(), found.second.item(), found.weight.item()) == (4, 2, 0.7)
    assert found.share.tolist() == [[near(3 / 4), 0, near(1 / 4)]]


def test_a_rating_goes_by_overall_or_by_all_its_aspects_together() -> None:
    rated = Said(Kind.RATING, (0,), {"aspects": {"warm": 2, "true": 5}}, 0.6)
    found = judged([rated, Said(Kind.RATING, (1,), {"aspects": {"overall": 3, "warm": 1}}, 1.0)], LN3)
    assert found.forms.aspects == (("overall", 5), ("true", 5), ("warm", 5))
    assert [(row.item(), found.forms.aspects[aspect][0], level.item()) for row, aspect, level in zip(*rows_of(found), strict=True)] == [
        (0, "true", 4),
        (0, "warm", 1),
        (1, "overall", 2),
    ]
    assert found.ratings.weight.tolist() == [0.3, 0.3, 1.0]
    assert found.weight == near(1.6)


def test_a_scale_has_five_levels_or_seven() -> None:
    rated = [Said(Kind.RATING, (0,), {"aspects": {"warm": warm, "true": 2}}, 1.0) for warm in (1, 6)]
    assert judged(rated, LN3).forms.aspects == (("true", 5), ("warm", 7))


def rows_of(found: Judged) -> tuple[Tensor, Tensor, Tensor]:
    return found.ratings.response, found.ratings.aspect, found.ratings.level


def test_the_largest_tie() -> None:
    rankings = [Said(Kind.RANKING, (0, 1, 2), {"ranks": [1, 2, 2]}, 1.0), Said(Kind.RANKING, (0, 1), {"ranks": [1, 2]}, 1.0)]
    assert forms_of(rankings).largest_tie == 2
    assert forms_of(rankings[1:]).largest_tie == 1
    assert forms_of([pair(0, 1, 1)]).largest_tie == 1


# ---- as what it is made of ----


def test_of_sided_pairs_without_ties_it_is_bradley_and_terry_s() -> None:
    found = judged([pair(0, 1, 2, 0.5), pair(2, 1, -1), pair(0, 2, 3)], LN3)
    scales = Scales(found.forms)
    with torch.no_grad():
        scales.log_tie.fill_(-math.inf)
    at = scores(0.4, -1.0, 2.0)
    target = found.pairs.share[:, 0]
    expected = bradley_terry(at[found.pairs.first], at[found.pairs.second], target=target, weight=found.pairs.weight)
    assert surprise(at, found, scales).item() == near(expected.item())


def test_two_people_of_one_mind_are_one_of_twice_the_trust() -> None:
    twice, once = (judged(said, LN3) for said in ([pair(0, 1, 2)] * 2 + [pair(0, 1, 0)], [pair(0, 1, 2, 2.0), pair(0, 1, 0)]))
    at = scores(0.3, -0.2)
    assert surprise(at, twice, Scales(twice.forms)).item() == near(surprise(at, once, Scales(once.forms)).item())


def test_rankings_pay_for_their_own_width_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two, three and nine responses: the likelihood of all in one table, without its subsets of nine for each."""
    said = [
        Said(Kind.RANKING, (0, 1), {"ranks": [1, 2]}, 1.0), Said(Kind.RANKING, tuple(range(9)), {"ranks": [9, 2, 2, 4, 5, 6, 7, 8, 1]}, 0.5),
        Said(Kind.RANKING, (3, 1, 2), {"ranks": [1, 3, 1]}, 2.0), Said(Kind.RANKING, (4, 2), {"ranks": [1, 1]}, 0.7),
    ]  # fmt: skip
    found = judged(said, LN3)
    scales, at = Scales(found.forms), torch.linspace(-1, 2, 9, dtype=torch.float64)
    together = found.rankings
    expected = plackett_luce(at[together.members.clamp(min=0)], together.ranks, log_ties=scales.log_ties, weight=together.weight).item()
    widths: list[tuple[int, ...]] = []

    def seen(scores: Tensor, ranks: Tensor, **more: Tensor) -> Tensor:
        widths.append(tuple(scores.shape))
        return plackett_luce(scores, ranks, **more)

    monkeypatch.setattr("truing.reward.judged.plackett_luce", seen)
    assert surprises(at, found, scales)[Kind.RANKING][0].item() == near(expected)
    assert widths == [(2, 2), (1, 3), (1, 9)]


def test_nothing_to_learn_from() -> None:
    nothing = judged([], LN3)
    with pytest.raises(ValueError, match="no judgement"):
        surprise(scores(0), nothing, Scales(nothing.forms))
    with pytest.raises(ValueError, match="kind gossip"):
        judged([Said("gossip", (0,), {}, 1.0)], LN3)


# ---- a known taste ----

SAMPLING = 0.25  # nats that 3,000 judgements of each kind and the priors leave open
TRUTH = torch.linspace(-2, 2, 12, dtype=torch.float64)


def crowd(draw: random.Random, kind: Kind, n: int) -> list[Said]:
    """So many judgements by people whose likelihood is the model's: pairs on the scores' scale, thumbs at half of it, ratings at twice."""
    said = []
    for _ in range(n):
        some = draw.sample(range(len(TRUTH)), 4)
        at = [TRUTH[i].item() for i in some]
        if kind == Kind.PAIR:
            half = (at[0] - at[1]) / 2
            strength = draw.choices([1, 0, -1], [math.exp(half), 0.5, math.exp(-half)])[0]
            said.append(pair(some[0], some[1], 99 * strength))  # sure of it
        elif kind == Kind.RANKING:
            said.append(Said(kind, tuple(some), {"ranks": ranked(draw, at)}, 1.0))
        elif kind == Kind.RATING:
            felt = 2 * at[0] + logistic_noise(draw)
            said.append(Said(kind, (some[0],), {"aspects": {"overall": 1 + sum(felt > cut for cut in (-3, -1, 1, 3))}}, 1.0))
        else:
            said.append(Said(kind, (some[0],), {"up": logistic_noise(draw) + at[0] / 2 + 0.7 > 0}, 1.0))
    return said


def ranked(draw: random.Random, at: Sequence[float]) -> list[int]:
    """Plackett and Luce: the worths with noise of Gumbel's, in falling order."""
    noisy = [worth - math.log(-math.log(draw.random())) for worth in at]
    return [1 + sum(other > own for other in noisy) for own in noisy]


def logistic_noise(draw: random.Random) -> float:
    p = draw.random()
    return math.log(p / (1 - p))


def fitted(said: Sequence[Said]) -> tuple[Tensor, Scales]:
    """Free scores and scales that fit, under a wide prior."""
    found = judged(said, LN3)
    free, scales = torch.zeros(len(TRUTH), dtype=torch.float64, requires_grad=True), Scales(found.forms)
    optimizer = torch.optim.LBFGS([free, *scales.parameters()], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = surprise(free, found, scales) + (scales.price() + free.square().sum() / 8) / found.weight
        value.backward()
        return value

    optimizer.step(loss)
    return free.detach(), scales


@pytest.mark.parametrize("kind", list(Kind)[:4])
def test_each_kind_alone_finds_the_taste(kind: Kind) -> None:
    found, _ = fitted(crowd(random.Random(kind), kind, 1500))
    assert spearman(found.tolist(), TRUTH.tolist()) > 0.95


@pytest.mark.slow
def test_a_mixture_finds_the_taste_and_each_kind_s_scale() -> None:
    draw = random.Random(3)
    said = [one for kind in (Kind.PAIR, Kind.RANKING, Kind.RATING, Kind.THUMBS) for one in crowd(draw, kind, 3000)]
    found, scales = fitted(said)
    scale = {kind: (scales.scale(kind) / scales.scale(Kind.PAIR)).item() for kind in (Kind.RANKING, Kind.RATING, Kind.THUMBS)}
    found = (found - found.mean()) * scales.scale(Kind.PAIR).item()
    assert (found - TRUTH).abs().max() < SAMPLING
    assert max(abs(math.log(scale[kind] / own)) for kind, own in ((Kind.RANKING, 1), (Kind.RATING, 2), (Kind.THUMBS, 0.5))) < SAMPLING
    assert abs(scales.log_tie.item() - math.log(0.5)) < SAMPLING


def test_a_mixture_knows_more_than_any_kind_alone() -> None:
    draw = random.Random(5)
    parts = [crowd(draw, kind, 150) for kind in (Kind.PAIR, Kind.RANKING, Kind.RATING, Kind.THUMBS)]
    alone = [error_of(fitted(part)[0]) for part in parts]
    assert error_of(fitted([one for part in parts for one in part])[0]) < min(alone)


def error_of(found: Tensor) -> float:
    """Mean square of what the best line from the scores to the truth leaves."""
    x, y = found - found.mean(), TRUTH - TRUTH.mean()
    return float((y - x * (x @ y) / (x @ x)).square().mean())
