"""A verdict says no more than its interval allows, and a poor result is told as one."""

from typing import Any

import pytest

from truing.evaluation.verdict import Limits, Verdict, decide, find_warnings, sentence
from truing.pages.words import whole_percent as percent

LIMITS = Limits(distinct2_ratio=0.7, logprob_drop=0.3, length_ratio=0.25, kl_nats=20)
FINE: dict[str, Any] = {"distinct2_ratio": None, "logprob_gap": None, "kl_nats": None}


def number(value: float, low: float | None, high: float | None, n: int = 80) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.51, 0.8, Verdict.PREFERRED),
        (0.5, 0.8, Verdict.CANT_TELL),  # touching 50 % is not beyond it
        (0.2, 0.49, Verdict.NOT_PREFERRED),
        (0.2, 0.5, Verdict.CANT_TELL),
        (None, None, Verdict.CANT_TELL),
    ],
)
def test_the_whole_interval_must_lie_on_one_side(low: float | None, high: float | None, verdict: Verdict) -> None:
    assert decide(number(0.5, low, high)) is verdict


def test_the_judge_it_was_tuned_to_please_proves_no_win() -> None:
    assert decide(number(0.95, 0.9, 0.99), independent=False) is Verdict.CANT_TELL
    assert decide(number(0.05, 0.01, 0.1), independent=False) is Verdict.NOT_PREFERRED
    assert "ask people" in sentence(number(0.95, 0.9, 0.99), "the tuned model", "the base model", independent=False)


@pytest.mark.parametrize(
    ("win", "expected"),
    [
        (
            number(0.78, 0.67, 0.87),
            "The tuned model is preferred to the base model: it wins 78 % on 80 held-out prompts (95 % interval 67 % to 87 %, ties count half).",
        ),
        (
            number(0.31, 0.2, 0.42),
            "The tuned model is not preferred to the base model: it wins only 31 % on 80 held-out prompts (95 % interval 20 % to 42 %, ties count half).",
        ),
        (
            number(0.54, 0.43, 0.65),
            "Can't tell whether the tuned model is better than the base model: it wins 54 % on 80 held-out prompts. "
            "The interval, 43 % to 65 %, covers 50 %: it may be chance.",
        ),
        (
            number(1.0, None, None, n=1),
            "Can't tell whether the tuned model is better than the base model: it wins 100 % on 1 held-out prompt. That is too few to tell anything.",
        ),
    ],
)
def test_sentences(win: dict[str, Any], expected: str) -> None:
    assert sentence(win, "the tuned model", "the base model") == expected


@pytest.mark.parametrize(("share", "words"), [(0.0, "0 %"), (0.004, "< 1 %"), (0.555, "56 %"), (0.997, "> 99 %"), (1.0, "100 %"), (None, "?")])
def test_percents_never_round_to_certainty(share: float | None, words: str) -> None:
    assert percent(share) == words


def against(**changes: Any) -> dict[str, Any]:
    healthy = {
        "policy": "base",
        "win_rate": number(0.78, 0.67, 0.87),
        "equal_length": number(0.7, 0.6, 0.8),
        "gold_gain": number(0.4, 0.2, 0.6),
        "score_gain": number(1.0, 0.8, 1.2),
        "length_ratio": 0.6,
        "eos_gain": number(0.3, 0.2, 0.4),
    }
    return healthy | changes


def failures(ours: dict[str, Any], opponent: dict[str, Any]) -> list[str]:
    return [warning["failure"] for warning in find_warnings(ours, [opponent], LIMITS)]


@pytest.mark.parametrize(
    ("ours", "opponent", "expected"),
    [
        (FINE, against(), []),
        (FINE, against(gold_gain=number(-0.1, -0.3, 0.1)), ["reward hacking"]),
        (FINE, against(gold_gain=number(0.1, -0.1, 0.3)), ["perhaps reward hacking"]),
        (FINE, against(gold_gain=None), []),  # nobody measured it
        (FINE, against(equal_length=number(0.52, 0.4, 0.64)), ["a matter of length"]),
        (FINE, against(length_ratio=0.2), ["EOS collapse"]),
        (FINE, against(length_ratio=1.4, eos_gain=number(-0.2, -0.3, -0.1)), ["length run-away"]),
        (FINE, against(win_rate=number(0.9, 0.6, 1.0, n=19)), ["few prompts"]),
        (FINE | {"distinct2_ratio": number(0.69, 0.6, 0.8)}, against(), ["mode collapse"]),
        (FINE | {"distinct2_ratio": number(0.7, 0.6, 0.8)}, against(), []),
        (FINE | {"logprob_gap": number(-0.31, -0.4, -0.2)}, against(), ["gibberish"]),
        (FINE | {"kl_nats": number(20.5, 19, 22)}, against(), ["KL blow-up"]),
    ],
)
def test_warnings(ours: dict[str, Any], opponent: dict[str, Any], expected: list[str]) -> None:
    assert failures(ours, opponent) == expected


@pytest.mark.parametrize(("equal", "said"), [(number(0.52, 0.4, 0.64), "its interval covers 50 %"), (number(0.35, 0.25, 0.45), "35 %, a loss")])
def test_a_win_by_length_says_what_it_would_be_without(equal: dict[str, Any], said: str) -> None:
    (warning,) = find_warnings(FINE, [against(equal_length=equal)], LIMITS)
    assert said in warning["sign"]
