"""Losses of ties, rankings, ratings and thumbs: by hand, as distributions, as one another's special cases, and what they refuse."""

import math
from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import grad

from truing.reward.losses import bradley_terry, cumulative_logit, davidson, logistic, mean_zero, plackett_luce, rising, score_l2

LN3 = math.log(3)
NEVER = torch.tensor(-math.inf, dtype=torch.float64)


def row(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def ranks(*numbers: int) -> Tensor:
    return torch.tensor([numbers])


def near(number: float) -> object:
    return pytest.approx(number, abs=1e-12)


def weak_orders(n: int) -> Iterator[tuple[int, ...]]:
    """All rankings of n responses with ties, ranks without gaps."""
    return (found for found in product(range(1, n + 1), repeat=n) if set(found) == set(range(1, max(found) + 1)))


# ---- by hand ----


def test_a_tie_by_hand() -> None:
    # a lead of 2 ln 3 and t = 0: 3 : 1 : 1/3, that is 9, 3 and 1 of 13
    def loss(*share: float) -> float:
        return davidson(row(2 * LN3), row(0), row(*share)[None], log_tie=row(0)[0]).item()

    assert loss(1, 0, 0) == near(math.log(13 / 9))
    assert loss(0, 1, 0) == near(math.log(13 / 3))
    assert loss(0, 0, 1) == near(math.log(13))
    assert loss(1 / 2, 1 / 4, 1 / 4) == near((2 * math.log(13 / 9) + math.log(13 / 3) + math.log(13)) / 4)
    alike = davidson(row(1), row(1), row(0, 1, 0)[None], log_tie=row(math.log(2))[0])
    assert alike.item() == near(math.log(2))  # e^t / (2 + e^t) = 1/2


def test_a_ranking_by_hand() -> None:
    # worths 3, 1, 1: the first is best with 3/5, then it is even
    scores = row(LN3, 0, 0)[None]
    assert plackett_luce(scores, ranks(1, 2, 3)).item() == near(math.log(10 / 3))
    assert plackett_luce(scores, ranks(3, 2, 1)).item() == near(math.log(5) + math.log(4))
    # with t_2 = 0: {1} 3, {2} 1, {3} 1, {1,2} and {1,3} the root of 3, {2,3} 1
    tied = plackett_luce(scores, ranks(1, 1, 2), log_ties=row(0))
    assert tied.item() == near(math.log((6 + 2 * math.sqrt(3)) / math.sqrt(3)))
    last_two = plackett_luce(scores, ranks(1, 2, 2), log_ties=row(0))
    assert last_two.item() == near(math.log((6 + 2 * math.sqrt(3)) / 3) + math.log(3))  # of two alike, t = 0: a third


def test_ranks_need_not_be_next_to_one_another() -> None:
    scores = row(0.3, -1.2, 2.0)[None]
    assert plackett_luce(scores, ranks(2, 7, 4)).item() == plackett_luce(scores, ranks(1, 3, 2)).item()


def test_a_rating_by_hand() -> None:
    cuts = row(0, LN3)  # at score 0: 1/2, 1/4, 1/4
    for level, surprise in enumerate((math.log(2), math.log(4), math.log(4))):
        assert cumulative_logit(row(0), torch.tensor([level]), cuts).item() == near(surprise)
    assert cumulative_logit(row(LN3), torch.tensor([1]), row(0)).item() == near(math.log(4 / 3))


def test_cuts_by_hand() -> None:
    assert rising(row(1, 0, math.log(2))).tolist() == near_all(1, 2, 4)
    assert rising(row(0.5)).tolist() == [0.5]
    assert rising(row(0, -99)).diff().item() == pytest.approx(math.exp(-12))


def near_all(*numbers: float) -> object:
    return pytest.approx(list(numbers), abs=1e-12)


def test_thumbs_by_hand() -> None:
    assert logistic(row(LN3), row(1)).item() == near(math.log(4 / 3))
    assert logistic(row(LN3), row(0)).item() == near(math.log(4))
    assert logistic(row(0), row(1), offset=LN3).item() == near(math.log(4 / 3))
    assert logistic(row(LN3, LN3), row(1, 0), weight=row(3, 1)).item() == near((3 * math.log(4 / 3) + math.log(4)) / 4)


def test_regularisers_by_hand() -> None:
    assert mean_zero(row(1, 2, 6)).item() == near(9)
    assert score_l2(row(1, 2, -2)).item() == near(3)


# ---- as distributions ----

score = st.floats(-8, 8)


@pytest.mark.slow
@settings(deadline=None, max_examples=30)
@given(st.lists(score, min_size=1, max_size=4), st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_all_rankings_together_are_certain(scores: list[float], widths: list[float]) -> None:
    n = len(scores)
    log_ties = row(*widths[: n - 1]) if n > 1 else None
    chances = [math.exp(-plackett_luce(row(*scores)[None], ranks(*order), log_ties=log_ties).item()) for order in weak_orders(n)]
    assert math.fsum(chances) == pytest.approx(1, abs=1e-9)


@settings(deadline=None)
@given(score, st.lists(st.floats(-2, 2), min_size=1, max_size=6))
def test_all_levels_together_are_certain(at: float, raw: list[float]) -> None:
    cuts = rising(row(*raw))
    chances = [math.exp(-cumulative_logit(row(at), torch.tensor([level]), cuts).item()) for level in range(len(raw) + 1)]
    assert math.fsum(chances) == pytest.approx(1, abs=1e-9)


@settings(deadline=None)
@given(score, score, st.floats(-3, 3))
def test_the_truth_is_where_nothing_is_left_to_learn(first: float, second: float, tie: float) -> None:
    a, b, t = (row(number).requires_grad_() for number in (first, second, tie))
    half = (a - b).detach() / 2
    share = torch.softmax(torch.stack([half, t.detach(), -half], 1), 1)
    assert slopes(davidson(a, b, share, log_tie=t[0]), a, b, t) == near_all(0, 0, 0)


def test_rankings_drawn_from_the_model_teach_it_nothing_new() -> None:
    scores, log_ties = row(0.7, -0.4, 0.1).requires_grad_(), row(0.2, -0.5).requires_grad_()
    orders = torch.tensor(list(weak_orders(3)))
    chance = torch.stack([torch.exp(-plackett_luce(scores[None], order[None], log_ties=log_ties)) for order in orders]).detach()
    loss = plackett_luce(scores.expand(len(orders), 3), orders, log_ties=log_ties, weight=chance)
    assert slopes(loss, scores, log_ties) == near_all(0, 0, 0, 0, 0)


def slopes(loss: Tensor, *of: Tensor) -> list[float]:
    return [float(slope) for found in grad(loss, of) for slope in found]


# ---- as one another's special cases ----


@pytest.mark.slow
@settings(deadline=None)
@given(score, score, st.floats(-3, 3))
def test_of_two_responses_a_ranking_is_a_pair(first: float, second: float, tie: float) -> None:
    both, width = row(first, second)[None], row(tie)
    for order, share in (((1, 2), (1, 0, 0)), ((1, 1), (0, 1, 0)), ((2, 1), (0, 0, 1))):
        pair = davidson(both[:, 0], both[:, 1], row(*share)[None], log_tie=width[0])
        assert plackett_luce(both, ranks(*order), log_ties=width).item() == pytest.approx(pair.item(), abs=1e-9)
    without = bradley_terry(both[:, 0], both[:, 1]).item()
    assert plackett_luce(both, ranks(1, 2)).item() == pytest.approx(without, abs=1e-9)
    assert davidson(both[:, 0], both[:, 1], row(1, 0, 0)[None], log_tie=NEVER).item() == pytest.approx(without, abs=1e-9)


def test_without_ties_a_pair_has_slopes_all_the_same() -> None:
    first = row(1.0).requires_grad_()
    assert slopes(davidson(first, row(0), row(0.5, 0, 0.5)[None], log_tie=NEVER), first) == near_all(1 / (1 + math.exp(-1)) - 1 / 2)


@settings(deadline=None)
@given(score, st.floats(-3, 3))
def test_of_two_levels_a_rating_is_a_thumb(at: float, cut: float) -> None:
    for level in (0, 1):
        thumb = logistic(row(at), row(level), offset=-cut).item()
        assert cumulative_logit(row(at), torch.tensor([level]), row(cut)).item() == pytest.approx(thumb, abs=1e-9)


def test_rankings_of_different_lengths_stand_in_one_batch() -> None:
    scores = row(0.3, -1.0, 0.8, 5.0, 1.0, -2.0).view(2, 3)
    order = torch.tensor([[2, 3, 1], [1, 1, 0]])
    together = plackett_luce(scores, order, log_ties=row(0.4, -1.0), weight=row(1, 2))
    alone = plackett_luce(scores[:1], order[:1], log_ties=row(0.4, -1.0)), plackett_luce(scores[1:, :2], order[1:, :2], log_ties=row(0.4))
    assert together.item() == near((alone[0].item() + 2 * alone[1].item()) / 3)


def test_each_judgement_may_have_cuts_of_its_own() -> None:
    cuts, level = torch.stack([row(0, 1), row(-1, 3)]), torch.tensor([2, 0])
    alone = [cumulative_logit(row(0.5), level[i : i + 1], cuts[i]).item() for i in (0, 1)]
    assert cumulative_logit(row(0.5, 0.5), level, cuts).item() == near(sum(alone) / 2)


@pytest.mark.parametrize("shift", [-40.0, 7.0])
def test_only_differences_count_in_rankings(shift: float) -> None:
    scores, order = row(0.3, -1.0, 0.8)[None], ranks(2, 1, 2)
    expected = plackett_luce(scores, order, log_ties=row(0.1)).item()
    assert plackett_luce(scores + shift, order, log_ties=row(0.1)).item() == pytest.approx(expected, abs=1e-9)


def test_far_scores_stay_finite() -> None:
    scores = row(900.0, -900.0, 0.0).requires_grad_()
    loss = plackett_luce(scores[None], ranks(2, 1, 2), log_ties=row(0))
    assert all(math.isfinite(slope) for slope in [loss.item(), *slopes(loss, scores)])
    rated = cumulative_logit(row(900.0), torch.tensor([0]), row(0, 1))
    assert rated.item() == pytest.approx(900)


# ---- what they refuse ----


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda: davidson(row(1), row(2, 3), row(1, 0, 0)[None], log_tie=row(0)[0]), "of one shape"),
        (lambda: davidson(row(1), row(2), row(1, 0)[None], log_tie=row(0)[0]), "three shares"),
        (lambda: davidson(row(1), row(2), row(1, 1, 0)[None], log_tie=row(0)[0]), "three shares"),
        (lambda: davidson(row(1), row(2), row(2, -1, 0)[None], log_tie=row(0)[0]), "three shares"),
        (lambda: plackett_luce(row(1, 2)[None], ranks(1, 2, 3)), "of one shape"),
        (lambda: plackett_luce(row(*range(10))[None], ranks(*range(1, 11))), "1 to 9 responses"),
        (lambda: plackett_luce(row(1, 2)[None], ranks(1, -1)), "a rank is 1 or more"),
        (lambda: plackett_luce(row(1, 2)[None], ranks(1, 1)), "ties of at most 1"),
        (lambda: plackett_luce(row(1, 2)[None], ranks(1, 2), weight=row(0)), "0 for every judgement"),
        (lambda: cumulative_logit(row(1), torch.tensor([2]), row(0)), "levels go from 0 to 1"),
        (lambda: cumulative_logit(row(1), torch.tensor([0]), row(1, 1)), "cuts must rise"),
        (lambda: logistic(row(1), row(2)), r"up must lie in"),
        (lambda: logistic(row(1), row(1), weight=row(-1)), "weight must be finite and not negative"),
    ],
)
def test_refuses(loss: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss()
