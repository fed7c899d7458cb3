"""An update's log row, against numbers worked out by hand."""

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from truing.models.generate import Response
from truing.policy.metrics import explained_variance, measure
from truing.policy.rollout import Rollout
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Targets

QUIET = {
    "loss": 0.0,
    "clipfrac": 0.0,
    "kl_old": 0.0,
    "value_loss": 0.0,
    "value_clipfrac": 0.0,
    "ratio": 1.0,
    "max_ratio": 1.0,
    "grad_norm": 0.0,
    "skipped": 0.0,
}
STEPS = [QUIET | {"loss": 1.0, "clipfrac": 0.5, "kl_old": 0.1, "grad_norm": 2.0}, QUIET | {"loss": 3.0, "kl_old": 0.3, "max_ratio": 1.5, "skipped": 1.0}]


def two_answers(*, values: Tensor | None = None, doubts: Tensor | None = None) -> Rollout:
    """Answers of three and of one token; what stands on the padding must not count."""
    responses = [Response([7, 8, 7], [-1.0, -2.5, -3.0], [0.0] * 3, True), Response([9], [-4.0], [0.0], False)]
    mask = torch.tensor([[True, True, True], [True, False, False]])
    logprobs = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 9.0, 9.0]])
    kl = torch.tensor([[1.0, -0.5, 0.5], [-1.0, 9.0, 9.0]])
    entropy = torch.tensor([[1.0, 2.0, 3.0], [2.0, 9.0, 9.0]])
    rewards = torch.tensor([[0.0, 0.5, 1.5], [-1.0, 0.0, 0.0]])
    scores = torch.tensor([3.0, -12.0])
    return Rollout(
        [[1], [2]], responses, [[0, 1]], [[0]], mask, logprobs, logprobs - kl, entropy, values, scores, doubts, scores.clamp(-10, 10), rewards, kl, [None]
    )


def measured(rollout: Rollout, targets: Targets | None = None, settings: OnlineSettings | None = None) -> Mapping[str, float]:
    return measure(rollout, targets or Targets(torch.zeros(2, 3), None), STEPS, settings or OnlineSettings(), beta=0.05, lr=1e-3)


def test_a_row_by_hand() -> None:
    row = measured(two_answers())
    k3 = [math.exp(-kl) - 1 + kl for kl in (1.0, -0.5, 0.5, -1.0)]
    expected = {
        "objective/scores": -4.5,
        "objective/scores_std": 15 / math.sqrt(2),
        "objective/reward": 0.5,
        "objective/kl": 0.0,  # 1 and -1 nats per response
        "objective/kl_stderr": 1.0,  # deviation sqrt(2) over sqrt(2)
        "objective/kl_k3": sum(k3) / 2,
        "objective/kl_per_token": 0.0,
        "objective/beta": 0.05,
        "objective/entropy": 2.0,
        "objective/score_clipped": 0.5,
        "response/length": 2.0,
        "response/eos_rate": 0.5,
        "response/distinct2": 1.0,  # (7, 8) and (8, 7)
        "policy/loss": 2.0,
        "policy/clipfrac": 0.25,
        "policy/kl_old": 0.3,
        "policy/first_ratio_error": 0.0,
        "policy/sampling_gap": (math.exp(0.5) - 1.5) / 4,  # one token of four was drawn with half a nat less than it has now
        "policy/max_ratio": 1.5,
        "policy/grad_norm": 1.0,
        "policy/skipped_steps": 1.0,
        "policy/lr": 1e-3,
    }
    assert row.keys() == expected.keys()
    assert row == pytest.approx(expected, abs=1e-6)


def test_an_ensembles_lower_bound_is_the_score_less_its_doubt() -> None:
    assert measured(two_answers(doubts=torch.tensor([1.0, 2.0])))["objective/scores_lower"] == -6.0  # the mean of 3 - 1 and -12 - 2


@pytest.mark.parametrize("score", ["lower", "worst"])
def test_a_score_that_is_a_bound_already_has_no_other(score: str) -> None:
    """The doubt would be taken off twice."""
    settings = OnlineSettings.model_validate({"score": score})
    assert "objective/scores_lower" not in measured(two_answers(doubts=torch.tensor([1.0, 2.0])), settings=settings)


def test_each_objective_has_a_row() -> None:
    rollout = replace(two_answers(), objectives={"kind": torch.tensor([1.0, 2.0]), "brief": torch.tensor([-3.0, 0.0])})
    row = measured(rollout)
    assert (row["objective/scores/kind"], row["objective/scores/brief"]) == (1.5, -1.5)
    assert not any(name.startswith("objective/scores/") for name in measured(two_answers()))


def test_a_critic_adds_its_rows_and_padding_does_not_count() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 99.0]])
    returns = torch.tensor([[1.0, 3.0, 3.0], [5.0, -99.0, 7.0]])
    row = measured(two_answers(values=values), Targets(torch.zeros(2, 3), returns))
    assert row["value/explained_variance"] == pytest.approx(1 - 0.25 / 2)  # errors 0 1 0 1, returns 1 3 3 5
    assert {"value/loss", "value/clipfrac"} <= row.keys()


def test_a_first_ratio_below_one_is_an_error_too() -> None:
    row = measure(two_answers(), Targets(torch.zeros(2, 3), None), [QUIET | {"max_ratio": 0.75}], OnlineSettings(), beta=0.0, lr=0.0)
    assert row["policy/first_ratio_error"] == 0.25


@pytest.mark.parametrize(
    ("values", "returns", "expected"),
    [
        ([1, 2, 3], [1, 2, 3], 1.0),  # perfect
        ([5, 6, 7], [1, 2, 3], 1.0),  # a constant off: the advantage's whitening takes it out
        ([2, 2, 2], [1, 2, 3], 0.0),  # a constant
        ([3, 2, 1], [1, 2, 3], -3.0),  # errors 2 0 -2: four times the variance
        ([1, 2, 3], [2, 2, 2], 0.0),  # nothing to explain
    ],
)
def test_explained_variance_by_hand(values: list[float], returns: list[float], expected: float) -> None:
    assert explained_variance(torch.tensor(values, dtype=torch.float64), torch.tensor(returns, dtype=torch.float64)) == pytest.approx(expected, abs=1e-12)
