"""The verdict, rule by rule, and what tuning does with it."""

import copy
from pathlib import Path
from typing import Any

import pytest

from truing.artifacts import Artifact
from truing.errors import UserError
from truing.reward.card.fitness import Verdict, fitness, require_fit


def interval(value: float | None, low: float | None, high: float | None, n: int = 200) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


GOOD: dict[str, Any] = {
    "accuracy": interval(0.74, 0.68, 0.80, 240),
    "n_test_prompts": 200,
    "members": 4,
    "rules": [
        {"rule": "the longer answer", "accuracy": interval(0.55, 0.48, 0.62), "lead": interval(0.19, 0.10, 0.28)},
        {"rule": "the shorter answer", "accuracy": interval(0.45, 0.38, 0.52), "lead": interval(0.29, 0.20, 0.38)},
    ],
    "calibration": {"temperature": interval(1.1, 0.9, 1.3), "ece": interval(0.02, 0.0, 0.06)},
    "distribution": {"above": interval(0.004, 0.001, 0.02)},
}


def verdict_with(**changes: Any) -> dict[str, Any]:
    """The verdict on a good card with some of its numbers changed; a dotted name goes inwards, with __ for the dot."""
    card = copy.deepcopy(GOOD)
    for path, value in changes.items():
        *outer, last = path.split("__")
        place: Any = card
        for part in outer:
            place = place[int(part)] if part.isdigit() else place[part]
        place[last] = value
    return fitness(card)


def rules_of(found: dict[str, Any]) -> list[str]:
    return [reason["rule"] for reason in found["reasons"]]


def test_a_good_card_is_fit() -> None:
    found = fitness(GOOD)
    assert found["verdict"] == Verdict.FIT
    assert found["reasons"] == []
    assert found["sentence"] == "This reward model is fit to tune against: right on 74 % of 240 held-out pairs (68 % to 80 %)"


@pytest.mark.parametrize(
    ("changes", "verdict", "rules"),
    [
        ({"n_test_prompts": 30}, Verdict.FIT, []),
        ({"n_test_prompts": 29}, Verdict.NOT_FIT, ["few"]),
        ({"accuracy": interval(0.55, 0.501, 0.60)}, Verdict.LOWER_BOUND, ["weak"]),
        ({"accuracy": interval(0.55, 0.5, 0.60)}, Verdict.NOT_FIT, ["chance"]),  # the lower end must be above a coin, not at it
        ({"accuracy": interval(0.9, None, None)}, Verdict.NOT_FIT, ["chance"]),  # without an interval nobody knows
        ({"accuracy": interval(0.66, 0.6, 0.72)}, Verdict.FIT, []),
        ({"accuracy": interval(0.66, 0.599, 0.72)}, Verdict.LOWER_BOUND, ["weak"]),
        ({"rules__0__lead": interval(0.05, 0.0, 0.1)}, Verdict.NOT_FIT, ["trivial"]),
        ({"rules__1__lead": interval(-0.1, -0.2, -0.01)}, Verdict.NOT_FIT, ["trivial"]),
        ({"rules__0__lead": interval(0.05, 0.001, 0.1)}, Verdict.FIT, []),
        ({"calibration__temperature": interval(1.5, 1.25, 1.8)}, Verdict.FIT, []),
        ({"calibration__temperature": interval(1.5, 1.26, 1.8)}, Verdict.LOWER_BOUND, ["unsure"]),
        ({"calibration__temperature": interval(0.5, 0.3, 0.8)}, Verdict.FIT, []),  # too modest is no danger
        ({"calibration__ece": interval(0.1, 0.05, 0.15)}, Verdict.FIT, []),
        ({"calibration__ece": interval(0.1, 0.051, 0.15)}, Verdict.LOWER_BOUND, ["unsure"]),
        ({"distribution__above": interval(0.02, 0.01, 0.04)}, Verdict.FIT, []),
        ({"distribution__above": interval(0.03, 0.011, 0.06)}, Verdict.LOWER_BOUND, ["heavy"]),
        ({"n_test_prompts": 3, "calibration__ece": interval(0.3, 0.2, 0.4)}, Verdict.NOT_FIT, ["few", "unsure"]),
    ],
)
def test_every_rule_at_its_edge(changes: dict[str, Any], verdict: Verdict, rules: list[str]) -> None:
    found = verdict_with(**changes)
    assert found["verdict"] == verdict
    assert rules_of(found) == rules
    assert all(reason["text"] and reason["remedy"] for reason in found["reasons"])


def test_the_rule_that_comes_closest_is_named() -> None:
    found = verdict_with(rules__0__lead=interval(0.01, -0.05, 0.07), rules__1__lead=interval(0.02, -0.02, 0.09))
    assert "“the longer answer”, which is right on 55 % of the same pairs" in found["reasons"][0]["text"]


def test_a_single_member_has_no_lower_bound_to_go_by() -> None:
    assert rules_of(verdict_with(accuracy=interval(0.62, 0.55, 0.7), members=1)) == ["weak", "single"]
    assert rules_of(verdict_with(members=1)) == []


def reward(facts: dict[str, Any]) -> Artifact:
    return Artifact("reward-0123456789abcdef", Path("nowhere"), {"kind": "reward", "facts": facts})


def test_tuning_refuses_what_is_not_fit_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    bad = reward({"fitness": verdict_with(n_test_prompts=7)})
    with pytest.raises(UserError, match=r"only 7 held-out prompts.*\n  fix: collect judgements on more held-out prompts.*tune\.unfit=true"):
        require_fit(bad, unfit=False)
    require_fit(bad, unfit=True)
    assert "going on, as tune.unfit says" in capsys.readouterr().out


def test_tuning_passes_on_what_a_card_advises_and_says_nothing_of_a_good_one(capsys: pytest.CaptureFixture[str]) -> None:
    require_fit(reward({"fitness": fitness(GOOD)}), unfit=False)
    assert capsys.readouterr().out == ""
    require_fit(reward({"fitness": verdict_with(accuracy=interval(0.62, 0.55, 0.7))}), unfit=False)
    said = capsys.readouterr().out
    assert "by its lower bound" in said
    assert "the lower end of its accuracy, 55 %, is under 60 %" in said
    require_fit(reward({}), unfit=False)
    assert "has no verdict" in capsys.readouterr().out
