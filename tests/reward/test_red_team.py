"""The red team: scorers of which the result is known, the trade-off by hand, and data in which length decides nothing."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.reward.card.red_team import HARMFUL, HARMLESS, WORST, best_shift, read_requests, red_team, trade_off

pytestmark = pytest.mark.slow  # it trains, reads or draws for seconds

REQUESTS = read_requests()
REFUSALS = {request.good if request.kind == HARMFUL else request.bad for request in REQUESTS}
GOOD = {request.good for request in REQUESTS}


class By:
    """A scorer by a rule of the response."""

    def __init__(self, like: Callable[[str], float]) -> None:
        self.like = like

    def score_texts(self, prompts: Sequence[Sequence[Mapping[str, str]]], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        return [self.like(response) for response in responses], [0.0] * len(responses)


def shares(result: dict[str, Any]) -> tuple[float, float]:
    return result["refuses_harmful"]["value"], result["answers_harmless"]["value"]


def test_who_always_likes_refusals_refuses_all_and_answers_none() -> None:
    result = red_team(By(lambda text: float(text in REFUSALS)), seed=1)
    assert shares(result) == (1.0, 0.0)
    assert result["margins"][HARMFUL]["value"] == 1.0
    assert result["margins"][HARMLESS]["value"] == -1.0
    assert result["trade_off"]["tells_apart"]["value"] == 0.5
    assert "isn't shown" in result["sentence"]
    assert [one["kind"] for one in result["worst"]] == [HARMLESS] * WORST
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_who_never_refuses_is_the_contrary() -> None:
    result = red_team(By(lambda text: -float(text in REFUSALS)), seed=1)
    assert shares(result) == (0.0, 1.0)
    assert result["worst"][0]["kind"] == HARMFUL
    assert result["worst"][0]["good"] in REFUSALS


def test_who_knows_what_is_good_is_right_throughout() -> None:
    result = red_team(By(lambda text: float(text in GOOD)), seed=1)
    assert shares(result) == (1.0, 1.0)
    assert result["worst"] == []
    assert result["trade_off"]["tells_apart"]["value"] == 1.0
    assert result["trade_off"]["shift"] == 0
    assert {row["right"]["value"] for row in result["categories"]} == {1.0}
    assert "would not help" in result["sentence"]


def test_who_sees_no_difference_is_a_coin() -> None:
    result = red_team(By(lambda text: 0.3), seed=1)
    assert shares(result) == (0.5, 0.5)
    assert result["refuses_harmful"]["n"] == 60
    assert result["worst"] == []


@pytest.mark.parametrize("sign", [1, -1])
def test_who_likes_length_or_brevity_gets_half(sign: int) -> None:
    result = red_team(By(lambda text: sign * len(text) / 100), seed=1)
    assert all(0.4 < share < 0.6 for share in shares(result))
    by_hand = mean((sign * (len(one.good) - len(one.bad)) > 0) + (len(one.good) == len(one.bad)) / 2 for one in REQUESTS if one.kind == HARMFUL)
    assert result["refuses_harmful"]["value"] == pytest.approx(by_hand)


def test_one_that_leans_is_told_by_how_much() -> None:
    # knows good from bad by 1, and likes every refusal by 3 more: a refusal leads by 4 where it should win and by 2 where it should not
    result = red_team(By(lambda text: float(text in GOOD) + 3 * (text in REFUSALS)), seed=1)
    assert shares(result) == (1.0, 0.0)
    assert result["trade_off"] == {
        "tells_apart": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 120}, "shift": -3.0, "refuses_harmful": 1.0, "answers_harmless": 1.0,
    }  # fmt: skip
    assert "Were every refusal to score 3.00 less, it would be 100% and 100%" in result["sentence"]


def test_one_that_has_it_the_wrong_way_round_is_told_so() -> None:
    result = red_team(By(lambda text: -float(text in GOOD)), seed=1)
    assert shares(result) == (0.0, 0.0)
    assert "It likes refusals better where they are needless: in 100% of couples" in result["sentence"]


def test_trade_off_by_hand() -> None:
    # 0.5 leads -3 and 2 leads both, but 0.5 doesn't lead 1: 3 of 4. No gift makes both shares more than a half; the smallest that gives a half is none
    found = trade_off(np.array([0.5, 2.0]), np.array([-3.0, 1.0]), seed=0)
    assert found["tells_apart"]["value"] == 3 / 4
    assert (found["shift"], found["refuses_harmful"], found["answers_harmless"]) == (0, 1, 0.5)
    found = trade_off(np.array([2.0, 3.0]), np.array([1.0, -1.0]), seed=0)
    assert (found["shift"], found["refuses_harmful"], found["answers_harmless"]) == (-1.5, 1, 1)


leads = st.lists(st.integers(-8, 8), min_size=1, max_size=8).map(lambda numbers: np.array(numbers, dtype=float))


@given(leads, leads, st.integers(-5, 5))
def test_a_gift_to_all_refusals_is_taken_back(harmful: np.ndarray[Any, Any], harmless: np.ndarray[Any, Any], gift: int) -> None:
    def lower_share(by: float) -> float:
        return float(min(np.mean(np.sign(harmful + by) + 1), np.mean(1 - np.sign(harmless + by)))) / 2

    shift = best_shift(harmful, harmless)
    assert lower_share(shift) == max(lower_share(by / 4) for by in range(-40, 41))
    assert lower_share(gift + best_shift(harmful + gift, harmless + gift)) == lower_share(shift)


def test_the_requests_are_many_different_and_whole() -> None:
    assert min(Counter(request.kind for request in REQUESTS).values()) >= 60
    assert {request.kind for request in REQUESTS} == {HARMFUL, HARMLESS}
    assert all(text.strip() == text != "" for request in REQUESTS for text in request)
    for field in ("prompt", "good", "bad"):
        assert len({getattr(request, field) for request in REQUESTS}) == len(REQUESTS)
    assert not REFUSALS & (GOOD - {request.good for request in REQUESTS if request.kind == HARMFUL})
    categories = Counter((request.kind, request.category) for request in REQUESTS)
    assert min(categories.values()) >= 5
    assert len({category for _, category in categories}) >= 11


@pytest.mark.parametrize("kind", [HARMFUL, HARMLESS])
@pytest.mark.parametrize("length", [len, lambda text: len(text.split())], ids=["characters", "words"])
def test_neither_side_is_the_longer_one(kind: str, length: Callable[[str], int]) -> None:
    pairs = [(length(request.good), length(request.bad)) for request in REQUESTS if request.kind == kind]
    good, bad = mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)
    assert abs(good - bad) < 0.08 * bad
    assert 0.4 < mean((a > b) + (a == b) / 2 for a, b in pairs) < 0.6


def test_no_bad_answer_to_a_harmful_request_tells_a_thing() -> None:
    """They hold no number, no code and no name of a substance or tool: words of the request aside, only the plainest ones."""
    for request in REQUESTS:
        if request.kind == HARMFUL:
            assert not any(sign in request.bad for sign in "0123456789`@/%°:") or request.bad.startswith("Quick and simple:")
            assert len(request.bad) < 260
