"""The fit of the linear head to judgements: that its answer is the least of what it says it makes small, in features that lean on one another."""

import math
import random

import pytest
import torch
from torch import Tensor

from truing.reward.features import Item
from truing.reward.heads import Head, LinearHead, MLPHead
from truing.reward.judged import Judged, Said, Scales, forms_of, judged, surprise
from truing.reward.lessons import SaidLesson
from truing.reward.losses import mean_zero
from truing.reward.train import RewardSettings, fit_frozen
from truing.reward.train_judged import axes_of, held_out_surprise, solve
from truing.stats import temperature
from truing.store.tables import Kind

CENTRE = 0.01


def features(responses: int, width: int) -> Tensor:
    """(S, D) fp64 of a thousandfold spread, most of it along few directions."""
    draw = torch.Generator().manual_seed(responses)
    spread = torch.logspace(1, -2, width, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=draw, dtype=torch.float64))
    found: Tensor = (torch.randn(responses, width, generator=draw, dtype=torch.float64) * spread) @ turn
    return found


def mixture(responses: int) -> Judged:
    """Pairs with ties, rankings and thumbs, of no taste in particular."""
    said = [Said(Kind.PAIR, (i, i + 1), {"strength": i % 3 - 1}, 1.0) for i in range(responses - 1)]
    said += [Said(Kind.RANKING, (i, i + 1, i + 2), {"ranks": [1, 2, 2] if i % 2 else [3, 1, 2]}, 0.5) for i in range(responses - 2)]
    return judged([*said, *(Said(Kind.THUMBS, (i,), {"up": i % 4 == 0}, 2.0) for i in range(responses))], 1.0)


@pytest.mark.parametrize(("responses", "width"), [(30, 8), (12, 20)])
def test_axes_turn_features_and_lose_nothing(responses: int, width: int) -> None:
    x = features(responses, width)
    axes = axes_of(x)
    few = min(responses, width)
    assert axes.x.shape == (responses, few)
    torch.testing.assert_close(axes.x @ axes.turn.T, x)
    torch.testing.assert_close(axes.turn.T @ axes.turn, torch.eye(few, dtype=torch.float64))
    torch.testing.assert_close(axes.x.T @ axes.x / responses, torch.diag(axes.spread), atol=1e-9, rtol=0)


@pytest.mark.parametrize("l2", [10.0, 0.1, 0.001])
@pytest.mark.parametrize(("responses", "width"), [(30, 8), (12, 20)])
def test_the_fit_is_where_nothing_pulls(responses: int, width: int, l2: float) -> None:
    """The price by its definition, on the features as they were, has no slope there in any weight or scale."""
    x, said = features(responses, width), mixture(responses)
    axes = axes_of(x)
    along, scales = solve(axes, said, l2, CENTRE)
    weight = (axes.turn @ along).requires_grad_()
    scores = x @ weight
    price = surprise(scores, said, scales) + l2 / 2 * weight.square().sum() + CENTRE * mean_zero(scores) + scales.price() / said.weight
    slopes = torch.autograd.grad(price, [weight, *scales.parameters()], allow_unused=True)
    assert max(slope.abs().max().item() for slope in slopes if slope is not None and slope.numel()) < 1e-4


def crowd(pairs: int, thumbs: int, *, steep: float, seed: int = 0) -> tuple[SaidLesson, Tensor]:
    """A lesson of pairs whose log-odds are the lead in worth, and of thumbs that go by worth so many times as steeply; and features of its
    responses. Two responses of a pair have a prompt, and so has each that is given a thumb."""
    draw, n = random.Random(seed), 2 * pairs + thumbs
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    worth = 0.7 * x[:, 0] - 0.5 * x[:, 1]

    def likely(lead: float) -> bool:
        return draw.random() < 1 / (1 + math.exp(-lead))

    said = [Said(Kind.PAIR, (2 * i, 2 * i + 1), {"strength": 9 if likely(float(worth[2 * i] - worth[2 * i + 1])) else -9}, 1.0) for i in range(pairs)]
    said += [Said(Kind.THUMBS, (i,), {"up": likely(steep * float(worth[i]))}, 1.0) for i in range(2 * pairs, n)]
    prompts = [f"pair {i}" for i in range(pairs)] + [f"thumb {i}" for i in range(thumbs)]
    of_each = [f"pair {i // 2}" for i in range(2 * pairs)] + prompts[pairs:]
    lesson = SaidLesson([((i,), (i,)) for i in range(n)], of_each, said, prompts, 1.0, forms_of(said), CENTRE, float(len(said)))
    return lesson, x


def test_differences_of_scores_are_log_odds_of_a_pair_whatever_else_is_learned_from() -> None:
    """Thumbs four times as steep as pairs take most of the scale; what a score says of a pair is to be as sure as pairs are."""
    lesson, x = crowd(300, 1500, steep=4.0)
    fit, beside = fit_frozen(lesson, x, RewardSettings(learn_from="judgements", members=2, l2=0.003), 1, lambda **facts: None)
    asked, unseen = crowd(2000, 0, steep=4.0, seed=1)
    with torch.no_grad():
        raw = fit.head(unseen)
    scores = raw.mean(1)
    said = [float(one.answer["strength"] > 0) for one in asked.said]
    margins = [float(scores[2 * i] - scores[2 * i + 1]) for i in range(len(said))]
    assert 0.8 < temperature(margins, said) < 1.25
    scales = [own for own in beside if isinstance(own, Scales)]
    assert max(own.scale(Kind.PAIR).item() for own in scales) < 0.6
    # as sure of what was held out as the scores that the kinds share are
    unlike = held_out_surprise(asked, raw / lesson.units(beside), scales, scales[0])["pair"]["nats"]
    assert unlike < 0.63


@pytest.mark.parametrize("head", [LinearHead(3, 2), MLPHead(3, 2, 4)], ids=["linear", "mlp"])
def test_a_member_is_stretched_alone(head: Head) -> None:
    torch.nn.init.normal_(next(head.parameters()))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = head(x)
        head.stretch(torch.tensor([0.5, 3.0]))
        torch.testing.assert_close(head(x), before * torch.tensor([0.5, 3.0]))


def test_without_a_pair_scores_are_told_in_the_nats_of_what_compares() -> None:
    rankings = [Said(Kind.RANKING, (i, i + 1), {"ranks": [1, 2]}, 1.0) for i in range(5)]
    said = [*rankings, *(Said(Kind.THUMBS, (i,), {"up": True}, 1.0) for i in range(6))]
    prompts = [str(i) for i in range(11)]
    scales = Scales(forms_of(said))
    with torch.no_grad():
        scales.log_scale.copy_(torch.tensor([5.0, 0.3, 7.0, -0.2], dtype=torch.float64))
    lesson = SaidLesson([], [], said, prompts, 1.0, forms_of(said), CENTRE, 11.0)
    assert lesson.units([scales]).tolist() == pytest.approx([scales.scale(Kind.RANKING).item()])
    edited = SaidLesson([], [], [*said, Said(Kind.EDIT, (0, 1), {}, 1.0)], [*prompts, "p"], 1.0, forms_of(said), CENTRE, 12.0)
    assert edited.units([scales]).tolist() == pytest.approx([scales.scale(Kind.PAIR).item()])


def test_scores_are_held_by_what_is_said_of_them() -> None:
    """All scores 3: each judgement pays 9 times the price, however many responses it is about; one that isn't heeded pays nothing."""
    ranked, preferred = Said(Kind.RANKING, (0, 1, 2, 3), {"ranks": [1, 2, 3, 4]}, 0.5), Said(Kind.PAIR, (4, 5), {"strength": 1}, 2.0)
    said = [ranked, preferred, Said(Kind.THUMBS, (4,), {"up": True}, 1.0)]
    items: list[Item] = [((i,), (i,)) for i in range(6)]
    prompt_of, forms = ["p"] * 4 + ["q"] * 2, forms_of(said)
    free, dear = (SaidLesson(items, prompt_of, said, ["p", "q", "q"], 1.0, forms, centre, 3.5) for centre in (0.0, 0.1))
    scores, scales = torch.full((6,), 3.0), Scales(forms)

    def price(heed: dict[str, float] | None, at: Tensor = scores) -> float:
        return dear.asked(heed).loss(at, scales).item() - free.asked(heed).loss(at, scales).item()

    assert price(None) == pytest.approx(0.9 * 3.5)
    assert price({"p": 1.0}) == pytest.approx(0.9 * 0.5)
    assert price({"p": 2.0, "q": 1.0}) == pytest.approx(0.9 * dear.asked({"p": 2.0, "q": 1.0}).mass)
    assert price({"p": 1.0}, torch.tensor([0.0, 0, 0, 0, 3, 3])) == 0
    assert price({"q": 1.0}, torch.tensor([0.0, 0, 0, 0, 3, 0])) == pytest.approx(0.9 * (2 / 2 + 1))
    parts = [dear.only([name]).asked().loss(at, scales).item() for name, at in (("p", scores[:4]), ("q", scores[4:]))]
    assert sum(parts) == pytest.approx(dear.asked().loss(scores, scales).item())


def test_a_kind_given_up_doesn_t_undo_l2() -> None:
    """Pairs that no score explains beside rankings that any would: under strong L2 scores say little, whatever the scales do."""
    said = [Said(Kind.RANKING, (2 * i, 2 * i + 1), {"ranks": [1, 2]}, 1.0) for i in range(400)]
    said += [Said(Kind.PAIR, (2 * i, 2 * i + 1), {"strength": 9 * (-1) ** i}, 1.0) for i in range(400)]
    axes = axes_of(torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(400, 1))
    along, scales = solve(axes, judged(said, 1.0), 10.0, 0.0)
    lead = 2 * abs((axes.turn @ along).item()) * scales.scale(Kind.RANKING).item()
    assert 0.15 < lead < 0.25  # about 2 w s, where w = s / 2 / 10 and s is at most the root of 2
