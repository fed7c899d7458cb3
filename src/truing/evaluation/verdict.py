"""What an evaluation says in words: preferred, not preferred or can't tell, and what should make a reader doubt it."""

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from truing.pages.words import whole_percent
from truing.stats import Interval

BASE = "base"
FEW_PROMPTS = 20  # below this a percentile bootstrap is too narrow (see truing.stats.bootstrap_mean): a win rate's interval is Wilson's then
DIGITS = 6  # of a recorded number: finer than any interval, coarser than the noise of a CPU's last bits

Number = Mapping[str, Any]  # {"value", "low", "high", "n"}; a bound the data cannot define is None


class Verdict(StrEnum):
    """What a win rate and its interval allow one to say."""

    PREFERRED = "preferred"
    NOT_PREFERRED = "not preferred"
    CANT_TELL = "can't tell"


class Limits(NamedTuple):
    """Where an evaluation starts to warn."""

    distinct2_ratio: float
    logprob_drop: float
    length_ratio: float
    kl_nats: float


def number(interval: Interval) -> dict[str, Any]:
    """An interval as JSON; nan becomes None."""
    value, low, high = (round(part, DIGITS) if math.isfinite(part) else None for part in interval[:3])
    return {"value": value, "low": low, "high": high, "n": interval.n}


def decide(win_rate: Number, *, independent: bool = True) -> Verdict:
    """The verdict of a win rate: its whole interval must lie on one side of 50 %.

    Args:
        win_rate:    in [0, 1].
        independent: whether the judge is another than the reward model that the policy was tuned to please; if it isn't, a win proves nothing.
    """
    low, high = win_rate["low"], win_rate["high"]
    if high is not None and high < 0.5:
        return Verdict.NOT_PREFERRED
    if independent and low is not None and low > 0.5:
        return Verdict.PREFERRED
    return Verdict.CANT_TELL


def sentence(win_rate: Number, ours: str, theirs: str, *, confidence: float = 0.95, independent: bool = True) -> str:
    """One plain sentence with the number, its n and its interval.

    Args:
        ours, theirs: how to call the two, e.g. "the tuned model", "the base model".
    """
    verdict = decide(win_rate, independent=independent)
    wins, n = whole_percent(win_rate["value"]), win_rate["n"]
    prompts = "1 held-out prompt" if n == 1 else f"{n} held-out prompts"
    if verdict is Verdict.CANT_TELL:
        text = f"can't tell whether {ours} is better than {theirs}: it wins {wins} on {prompts}. {reason(win_rate, independent=independent)}"
    else:
        between = f"{whole_percent(win_rate['low'])} to {whole_percent(win_rate['high'])}"
        only = "only " if verdict is Verdict.NOT_PREFERRED else ""
        text = f"{ours} is {verdict} to {theirs}: it wins {only}{wins} on {prompts} ({whole_percent(confidence)} interval {between}, ties count half)."
    return text[0].upper() + text[1:]


def reason(win_rate: Number, *, independent: bool = True) -> str | None:
    """Why one can't tell; None where one can."""
    if decide(win_rate, independent=independent) is not Verdict.CANT_TELL:
        return None
    if not independent:
        return "Nobody but the reward model it was tuned to please compared them: ask people."
    if win_rate["low"] is None:
        return "That is too few to tell anything."
    return f"The interval, {whole_percent(win_rate['low'])} to {whole_percent(win_rate['high'])}, covers 50 %: it may be chance."


def find_warnings(ours: Mapping[str, Any], opponents: list[dict[str, Any]], limits: Limits) -> list[dict[str, str]]:
    """What should make a reader doubt a good win rate, in the words of PPO's named failures.

    Args:
        ours:      the policy's own measures, each a `Number` or None.
        opponents: each with `policy`, `win_rate`, `equal_length`, `gold_gain`, `score_gain`, `length_ratio`, `eos_gain`.

    Returns:
        [{"failure", "sign", "say"}], the gravest first.
    """
    found = []
    for opponent in opponents:
        found += _against(opponent, limits)
    found += _by_itself(ours, limits)
    return found


def _against(opponent: Mapping[str, Any], limits: Limits) -> list[dict[str, str]]:
    rival = "base" if opponent["policy"] == BASE else "the previous policy"
    found = []
    score, gold, win = opponent["score_gain"], opponent["gold_gain"], opponent["win_rate"]
    if _above(score, 0) and gold is not None and not _above(gold, 0):
        fell = gold["value"] <= 0
        did = "did not rise" if fell else "may not have risen"
        sign = f"against {rival} the reward model's score rose by {score['value']:.2f}, while the gold score {did} ({gold['value']:+.2f})"
        found.append(
            _warning("reward hacking" if fell else "perhaps reward hacking", sign, "stop the tuning earlier, raise β, or ask people about such answers")
        )
    if _above(win, 0.5) and opponent["equal_length"] is not None and not _above(opponent["equal_length"], 0.5):
        equal = opponent["equal_length"]
        loses = equal["high"] is not None and equal["high"] < 0.5
        how = "a loss" if loses else "and its interval covers 50 %"
        sign = f"at equal length the win rate against {rival} would be {whole_percent(equal['value'])}, {how}"
        found.append(_warning("a matter of length", sign, "part of the win is the answers' length; make sure that people want that length"))
    ratio = opponent["length_ratio"]
    if ratio is not None and ratio < limits.length_ratio:
        sign = f"answers have {whole_percent(ratio)} of the words of {rival}'s"
        found.append(_warning("EOS collapse", sign, "the reward model likes short answers; penalise or rebalance"))
    eos = opponent["eos_gain"]
    if ratio is not None and ratio > 1 and eos is not None and eos["high"] is not None and eos["high"] < 0:
        sign = f"answers are longer than {rival}'s and fewer end by themselves ({100 * eos['value']:+.0f} points)"
        found.append(_warning("length run-away", sign, "penalise truncated answers, or control the reward for length"))
    if win["n"] < FEW_PROMPTS:
        found.append(_warning("few prompts", f"{win['n']} held-out prompts", "other measures' intervals are too narrow for so few; evaluate on more"))
    return found


def _by_itself(ours: Mapping[str, Any], limits: Limits) -> list[dict[str, str]]:
    found = []
    ratio, gap, kl = ours["distinct2_ratio"], ours["logprob_gap"], ours["kl_nats"]
    if ratio is not None and ratio["value"] is not None and ratio["value"] < limits.distinct2_ratio:
        sign = f"distinct word pairs are at {ratio['value']:.2f} of base's (limit {limits.distinct2_ratio:.2f})"
        found.append(_warning("mode collapse", sign, "answers have grown alike; lower the learning rate or raise β"))
    if gap is not None and gap["value"] is not None and gap["value"] < -limits.logprob_drop:
        sign = f"a token is {-gap['value']:.2f} nats less likely under base than base's own (limit {limits.logprob_drop:.2f})"
        found.append(_warning("gibberish", sign, "answers read less like the base model's language; lower the learning rate or raise β"))
    if kl is not None and kl["value"] is not None and kl["value"] > limits.kl_nats:
        sign = f"{kl['value']:.1f} nats of KL per response (limit {limits.kl_nats:.0f})"
        found.append(_warning("KL blow-up", sign, "the policy has gone far from base; raise β or use the adaptive one"))
    return found


def _above(value: Number | None, mark: float) -> bool:
    """Whether the whole interval lies above the mark."""
    return value is not None and value["low"] is not None and bool(value["low"] > mark)


def _warning(failure: str, sign: str, say: str) -> dict[str, str]:
    return {"failure": failure, "sign": sign, "say": say}
