"""What edits did to the score: mean changes with intervals, net of length, and how sure one may be with so many asked at once.

Scores are normalised: 1 is a standard deviation of ordinary responses.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.reward.probe.attributes import number_of_words
from truing.reward.probe.edits import Edit
from truing.reward.probe.interventions import Tried
from truing.stats import bootstrap_mean, plain, sign_flip_p
from truing.store.ids import seed_from

FEWEST = 8  # prompts from which on an effect is said to be there or not
LEAST = 0.05  # standard deviations from which on an effect is worth a word
SURE = 0.05  # share of false ones among the effects that are said to be there (Benjamini and Hochberg)

RESAMPLES = 1000

LIKES, DISLIKES, NONE, FLOOR, FEW = "likes", "dislikes", "none seen", "like a control", "too few"


class WordsWorth(NamedTuple):
    """Score per word that says nothing new.

    Attributes:
        added: of words put in, as the edit "filler" saw it.
        removed: of words left out, as the edit "shorter" saw it.
        student: of a word more, everything else equal, as the student saw it over ordinary samples; stands in where an edit could not be made.
    """

    added: float
    removed: float
    student: float


def words_worth(changes: Mapping[str, tuple[Sequence[float], Sequence[float]]], student: float) -> WordsWorth:
    """What words are worth, from what "filler" and "shorter" did.

    Args:
        changes: edit → changes of the score and of the number of words, one a pair.
        student: score per word, as the student sees it.
    """
    nothing: tuple[Sequence[float], Sequence[float]] = ([], [])

    def slope(name: str) -> float:
        score, words = changes.get(name, nothing)
        length = float(np.sum(words))
        return float(np.sum(score)) / length if len(score) >= FEWEST and length else student

    return WordsWorth(slope("filler"), slope("shorter"), student)


def changes_of(tried: Tried, before: Sequence[float], after: Sequence[float]) -> tuple[list[float], list[float]]:
    """By how much the score and the number of words of each pair changed."""
    words = [number_of_words(pair.after) - number_of_words(pair.before) for pair in tried.pairs]
    return [high - low for low, high in zip(before, after, strict=True)], words


def effect_of(edit: Edit, tried: Tried, change: Sequence[float], words: Sequence[float], *, worth: WordsWorth, seed: int) -> dict[str, Any]:
    """What one edit did.

    Args:
        change, words: by how much the score and the number of words of each pair of `tried` changed.
        worth: what words alone are worth.
        seed: of the bootstraps and sign flips.

    Returns:
        effect: the mean change of the score, an interval over prompts. words: the same of the number of words. net: the effect less what as many words
        that say nothing new would have done; net_of_student: less the student's slope times words. Both are None where length is what the edit is about,
        and the doubt about what words are worth isn't in their intervals. p: by sign flips over prompts. n, tried: responses.
    """
    moved, length = np.asarray(change, dtype=np.float64), np.asarray(words, dtype=np.float64)
    prompts = [pair.before.prompt_id for pair in tried.pairs]

    def mean(values: NDArray[np.float64], name: str) -> dict[str, Any]:
        return plain(bootstrap_mean(values, groups=prompts, seed=seed_from(seed, name), resamples=RESAMPLES))

    by_words = np.where(length > 0, worth.added, worth.removed) * length
    return {
        "said": edit.said, "group": edit.group, "n": len(tried.pairs), "tried": tried.tried, "effect": mean(moved, "effect"), "words": mean(length, "words"),
        "net": None if edit.about_length else mean(moved - by_words, "net"),
        "net_of_student": None if edit.about_length else mean(moved - worth.student * length, "net of student"),
        "p": _p(_by_prompt(moved, prompts), seed_from(seed, "flips")),
    }  # fmt: skip


def control_floor(effects: Mapping[str, Mapping[str, Any]]) -> float:
    """The largest mean change, up or down, by an edit that should do nothing, and at least a twentieth of a standard deviation, which nobody would notice."""
    return max([LEAST, *(abs(float(row["effect"]["value"])) for row in effects.values() if row["group"] == "control" and row["effect"]["n"] >= FEWEST)])


def find(effects: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The effects with `p_adjusted`, the least share of false finds at which it would be one, `finding`, and whether it is one `by_length`.

    An effect is said to be there when its interval holds no 0, its adjusted p is under 0.05 and it is larger than what a control does.
    """
    from scipy.stats import false_discovery_control

    asked = [name for name, row in effects.items() if row["effect"]["n"] >= FEWEST]
    adjusted = dict(zip(asked, false_discovery_control([effects[name]["p"] for name in asked]), strict=True)) if asked else {}
    floor = control_floor(effects)
    found = {}
    for name, row in effects.items():
        p = float(adjusted[name]) if name in adjusted else None
        found[name] = {**row, "p_adjusted": p, "finding": _finding(row, p, floor), "by_length": by_length(row)}
    return found


def _finding(row: Mapping[str, Any], p: float | None, floor: float) -> str:
    effect = row["effect"]
    if p is None:
        return FEW
    if effect["low"] <= 0 <= effect["high"] or p >= SURE:
        return NONE
    if row["group"] != "control" and abs(effect["value"]) <= floor:
        return FLOOR
    return LIKES if effect["value"] > 0 else DISLIKES


def by_length(row: Mapping[str, Any]) -> bool:
    """Whether the words that it put in or left out may be all that there is to an effect: at equal length it isn't seen, or points the other way."""
    net = row["net"]
    if net is None or net["low"] is None:
        return False
    return bool(net["low"] <= 0 <= net["high"] or abs(net["value"]) < LEAST or net["value"] * row["effect"]["value"] < 0)


def _p(values: Sequence[float], seed: int) -> float | None:
    """How often values with random signs add up to as much; None without any."""
    return float(sign_flip_p(np.array(values)[:, None], seed=seed)[0]) if values else None


def _by_prompt(values: NDArray[np.float64], prompts: Sequence[str]) -> list[float]:
    """The mean of each prompt's values."""
    groups: dict[str, list[float]] = {}
    for value, prompt in zip(values.tolist(), prompts, strict=True):
        groups.setdefault(prompt, []).append(value)
    return [sum(group) / len(group) for group in groups.values()]
