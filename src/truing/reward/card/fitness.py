"""The verdict of a card: fit to tune against, fit with a lower bound, or not fit; and what tuning does with it.

The verdict is a pure function of numbers that are known as soon as a model is fitted. docs/card.md gives the reason for every threshold.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from truing.artifacts import Artifact
from truing.console import say
from truing.errors import UserError

Card = Mapping[str, Any]

FEWEST_PROMPTS = 30  # held out, with a preference: a bootstrap over fewer is too narrow to go by
CHANCE = 0.5
STRONG = 0.6  # lower end of the accuracy, from which the mean score may be tuned against
OVERCONFIDENT = 1.25  # lower end of the temperature: said 90 % comes to 85 % at most
MISCALIBRATED = 0.05  # lower end of the calibration error beyond chance
HEAVY = 0.01  # lower end of the share of reference samples above 3 standard deviations; a normal distribution has 0.0013


class Verdict(StrEnum):
    """What may be done with a reward model."""

    FIT = "fit to tune against"
    LOWER_BOUND = "fit with a lower bound"
    NOT_FIT = "not fit"


class Reason(NamedTuple):
    """Why a rule speaks against a model, and what would mend it."""

    rule: str
    verdict: Verdict  # the best that the model can be called
    text: str
    remedy: str


def fitness(card: Card) -> dict[str, Any]:
    """The verdict of a card, with its reasons, the weightiest first.

    Args:
        card: accuracy, n_test_prompts, rules, calibration, distribution and members, as `card.measure` gives them.

    Returns:
        verdict: one of `Verdict`; sentence: the same in one sentence with its number; reasons: rule, verdict, text and remedy of each rule that speaks
        against it; none where it is fit.
    """
    reasons = [reason for rule in RULES if (reason := rule(card)) is not None]
    if any(reason.rule == "chance" for reason in reasons):
        reasons = [reason for reason in reasons if reason.rule != "weak"]  # said already
    worst = next((verdict for verdict in (Verdict.NOT_FIT, Verdict.LOWER_BOUND) if any(reason.verdict == verdict for reason in reasons)), Verdict.FIT)
    if worst == Verdict.LOWER_BOUND and card["members"] < 2:
        remedy = "train an ensemble: reward.members=4 or more; a model from outside can be combined with one (`truing reward combine`)"
        reasons.append(Reason("single", worst, "it has a single member, which has no lower bound", remedy))
    ordered = sorted(reasons, key=lambda reason: reason.verdict != Verdict.NOT_FIT)
    return {"verdict": worst.value, "sentence": _sentence(worst, card), "reasons": [reason._asdict() for reason in ordered]}


def unmeasured() -> dict[str, Any]:
    """The facts of a model of which nothing could be measured: accuracy and verdict. What nobody can check speaks against it, as for every other model."""
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    card = {
        "accuracy": nothing, "n_test_prompts": 0, "rules": [{"rule": "the longer answer", "accuracy": nothing, "lead": nothing}],
        "calibration": {"temperature": nothing, "ece": nothing}, "distribution": {"above": nothing}, "members": 1,
    }  # fmt: skip
    return {"accuracy": nothing, "fitness": fitness(card)}


def require_fit(reward: Artifact, *, unfit: bool) -> None:
    """Stop where a reward model's card says that it is not fit to tune against, unless it is to be used all the same; pass on what else the card says.

    Args:
        reward: its artifact. One without a verdict, made by an older version, passes with a word.
        unfit: go on even so (tune.unfit).

    Raises:
        UserError: it is not fit.
    """
    found = reward.facts.get("fitness")
    if found is None:
        say(f"{reward.id} has no verdict on whether it is fit to tune against: it has no card from its training")
        return
    why = "; ".join(reason["text"] for reason in found["reasons"])
    if found["verdict"] == Verdict.NOT_FIT and not unfit:
        remedies = "; ".join(reason["remedy"] for reason in found["reasons"] if reason["verdict"] == Verdict.NOT_FIT)
        raise UserError(f"{found['sentence']}: {why}", fix=f"{remedies}; or go on all the same with `--set tune.unfit=true`")
    if found["reasons"]:
        advice = {Verdict.NOT_FIT: "; going on, as tune.unfit says", Verdict.LOWER_BOUND: "; `--set tune.score=lower` tunes against the lower bound"}
        say(f"{found['sentence']}: {why}{advice.get(found['verdict'], '')}")


def _sentence(verdict: Verdict, card: Card) -> str:
    accuracy = card["accuracy"]
    right = "it could not be measured" if accuracy["value"] is None else f"right on {_percent(accuracy['value'])} of {accuracy['n']} held-out pairs"
    bounds = "" if accuracy["value"] is None or accuracy["low"] is None else f" ({_percent(accuracy['low'])} to {_percent(accuracy['high'])})"
    said = {
        Verdict.FIT: "This reward model is fit to tune against",
        Verdict.LOWER_BOUND: "This reward model is fit to tune against by its lower bound",
        Verdict.NOT_FIT: "This reward model is not fit to tune against",
    }
    return f"{said[verdict]}: {right}{bounds}"


# ---- the rules ----


def _few(card: Card) -> Reason | None:
    n = card["n_test_prompts"]
    if n >= FEWEST_PROMPTS:
        return None
    text = f"only {n} held-out prompt{'s have' if n != 1 else ' has'} a preference, and fewer than {FEWEST_PROMPTS} say too little of how often it is right"
    return Reason("few", Verdict.NOT_FIT, text, "collect judgements on more held-out prompts, or import more prompts (prompts.held_out_share of them are kept)")


def _chance(card: Card) -> Reason | None:
    low = card["accuracy"]["low"]
    if low is not None and low > CHANCE:
        return None
    found = "nobody can say that it beats a coin" if low is None else f"it may be no better than a coin: the lower end of its accuracy is {_percent(low)}"
    return Reason("chance", Verdict.NOT_FIT, found, "collect more judgements, or look at who is trusted with `truing quality`")


def _trivial(card: Card) -> Reason | None:
    """The rule that comes closest, if its distance may be none."""
    near = min(card["rules"], key=lambda row: _or(row["lead"]["low"], 0.0))
    low, accuracy = near["lead"]["low"], near["accuracy"]["value"]
    if low is not None and low > 0:
        return None
    share = "" if accuracy is None else f", which is right on {_percent(accuracy)} of the same pairs"
    text = f"it is not surely better than “{near['rule']}”{share}: tuning would reach for length"
    return Reason("trivial", Verdict.NOT_FIT, text, "collect judgements on pairs alike in length, or more of them; another reward.head may tell more")


def _weak(card: Card) -> Reason | None:
    low = card["accuracy"]["low"]
    if low is None or low >= STRONG:
        return None
    text = f"the lower end of its accuracy, {_percent(low)}, is under {_percent(STRONG)}: what it likes beyond that may be its own error"
    return Reason("weak", Verdict.LOWER_BOUND, text, "collect more judgements; the learning curve of `truing reward card` says how many")


def _unsure(card: Card) -> Reason | None:
    measured = card["calibration"]
    cold, off = measured["temperature"]["low"], measured["ece"]["low"]
    if cold is not None and cold > OVERCONFIDENT:
        text = f"it is too sure of itself: its log-odds want dividing by {cold:.2f} at least"
    elif off is not None and off > MISCALIBRATED:
        text = f"its probabilities are {_percent(off)} off at least, beyond what chance explains"
    else:
        return None
    return Reason("unsure", Verdict.LOWER_BOUND, text, "raise reward.l2 or lower reward.epochs, or collect more judgements")


def _heavy(card: Card) -> Reason | None:
    above = card["distribution"]["above"]
    if above["low"] is None or above["low"] <= HEAVY:
        return None
    text = f"{_percent(above['value'])} of ordinary samples score over 3 standard deviations above the mean: tuning will find what they share"
    return Reason("heavy", Verdict.LOWER_BOUND, text, "look at these samples, and ask people about them: `truing reward probe` lists what scores absurdly high")


RULES: tuple[Callable[[Card], Reason | None], ...] = (_few, _chance, _trivial, _weak, _unsure, _heavy)


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
