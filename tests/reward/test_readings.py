"""Readings are chosen that say something of the label, and no others."""

import pytest
import torch

from truing.reward import readings
from truing.reward.readings import choose_readings


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(n: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Five readings of six numbers; the label goes by one number of the fourth and, half as much, by one of the second."""
    a, b = drawn(n, 5, 6, seed=seed), drawn(n, 5, 6, seed=seed + 1)
    steps = a - b
    worth = 2 * steps[:, 3, 0] + steps[:, 1, 2]
    target = (torch.sigmoid(2 * worth) > torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).double()
    return a, b, target


@pytest.mark.slow
def test_the_readings_that_matter_are_found_in_the_order_of_their_worth() -> None:
    a, b, target = pairs(400)
    choice = choose_readings(a, b, target, torch.ones(400), [str(place // 2) for place in range(400)], folds=5, seed=0)
    assert choice.places == [3, 1]
    assert [row["reading"] for row in choice.path] == [3, 1]
    assert choice.path[0]["error"] > choice.path[1]["error"]
    assert choice.path[1]["accuracy"] > 0.85


def test_where_nothing_says_anything_one_reading_is_left() -> None:
    a, b, _ = pairs(200)
    target = (drawn(200, seed=9) > 0).double()
    assert len(choose_readings(a, b, target, torch.ones(200), [str(place) for place in range(200)], folds=5, seed=0).places) == 1


def test_what_is_foretold_is_ridge_regression_on_the_numbers_themselves() -> None:
    """The kernel's answer by the weights' own equations: w = (XᵀWX + λI)⁻¹ XᵀWy."""
    x, labels, weight = drawn(12, 3, seed=1), drawn(12, seed=2).sign(), drawn(12, seed=3).abs()
    fold = torch.tensor([0, 1] * 6)
    found = readings._foretold(x @ x.T, labels, weight, fold)
    errors = {}
    for penalty in readings.PENALTIES:
        own = torch.zeros(12, dtype=torch.float64)
        for left_out in (0, 1):
            train, test = fold != left_out, fold == left_out
            t, w = x[train], weight[train]
            price = penalty * t.square().sum(1).mean()
            own[test] = x[test] @ torch.linalg.solve(t.T @ (w[:, None] * t) + price * torch.eye(3, dtype=torch.float64), t.T @ (w * labels[train]))
        errors[((labels - own).square() * weight).sum().item()] = own
    torch.testing.assert_close(found, errors[min(errors)])


def test_pairs_of_a_prompt_are_no_proof_of_one_another() -> None:
    """Thirty copies of each of twenty pairs say no more of a gain than one of each does."""
    gain, prompts = drawn(20, seed=4), [str(place) for place in range(20)]
    once = readings._standard_error(gain, torch.ones(20, dtype=torch.float64), prompts)
    assert once == pytest.approx((gain.std(correction=0) / 20**0.5).item())
    assert readings._standard_error(gain.repeat(30), torch.ones(600, dtype=torch.float64), prompts * 30) == pytest.approx(once)


def test_a_pair_without_weight_says_nothing() -> None:
    a, b, target = pairs(120)
    weight = torch.ones(120)
    weight[60:] = 0
    prompts = [str(place) for place in range(120)]
    wrong = target.clone()
    wrong[60:] = 1 - wrong[60:]
    one, other = (choose_readings(a, b, own, weight, prompts, folds=3, seed=0) for own in (target, wrong))
    assert one == other


def test_of_many_pairs_some_are_enough_and_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    a, b, target = pairs(400)
    monkeypatch.setattr(readings, "PAIRS", 300)
    choice = choose_readings(a, b, target, torch.ones(400), [str(place) for place in range(400)], folds=5, seed=0)
    assert choice.places[0] == 3
    assert "300 of 400 pairs" in capsys.readouterr().out
