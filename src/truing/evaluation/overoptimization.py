"""Over-optimisation: a policy leaves the base, ever further, for what a proxy likes; gold, which the proxy stands for, rises and then falls (Gao et al. 2022,
arXiv:2210.10760). Where that happens, how much is lost, and whether another proxy loses less.

Pure: arrays in, numbers out. Shapes: D draws (proxies that each learned from labels of their own), S stations on the way from the base, P prompts, the same at
every station and in every draw.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.stats import Interval, plain

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


class Course(NamedTuple):
    """The way of a policy from the base.

    Attributes:
        kl_nats: (S,) from the base, nats per response, ascending.
        proxy: (D, S, P) score of what is optimised.
        gold: (D, S, P) score of what is meant.
    """

    kl_nats: Floats
    proxy: Floats
    gold: Floats


def stations(kl_nats: Floats, values: Floats, goals: Floats) -> Floats:
    """Values where a policy first came to each distance, by a straight line from the station before.

    Args:
        kl_nats: (S,) as measured, so that it may fall back; the first is 0.
        values: (S, P).
        goals: (G,) nats, from 0 to the furthest that the policy came.

    Returns:
        (G, P).

    Raises:
        ValueError: the policy never came to one of the goals.
    """
    found = []
    for goal in goals:
        (there,) = np.nonzero(kl_nats >= goal)
        if not len(there):
            raise ValueError(f"{goal:g} nats, and the policy came to {kl_nats.max():g}")
        at = there[0]
        share = 1.0 if at == 0 else (goal - kl_nats[at - 1]) / (kl_nats[at] - kl_nats[at - 1])
        found.append(values[max(at - 1, 0)] * (1 - share) + values[at] * share)
    return np.stack(found)


def mean(values: Floats, *, seed: int) -> Interval:
    """Mean of (D, P) with an interval over draws and prompts."""
    return resampled(lambda draws, prompts: float(values[np.ix_(draws, prompts)].mean()), values.shape, seed=seed)


def resampled(statistic: Callable[[Ints, Ints], float], shape: tuple[int, ...], *, seed: int, resamples: int = 1000, confidence: float = 0.95) -> Interval:
    """Any statistic of some draws and some prompts with its percentile interval, both being drawn again, each by themselves: neither the draws of a prompt nor
    the prompts of a draw are independent (the pigeonhole bootstrap: Owen 2007, doi:10.1214/07-AOAS122; a little too wide for many of both, too narrow for a
    few draws).

    Args:
        statistic: of places of draws and of prompts.
        shape: (D, P). With one draw the interval is over prompts alone.

    Returns:
        the interval, with n the number of prompts. One prompt gives a value without bounds.
    """
    draws, prompts = shape
    value = statistic(np.arange(draws), np.arange(prompts))
    if prompts < 2:
        return Interval(value, math.nan, math.nan, prompts)
    generator = np.random.default_rng(seed)
    found = [statistic(generator.integers(0, draws, draws), generator.integers(0, prompts, prompts)) for _ in range(resamples)]
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), prompts)


def peak(gold: Floats) -> int:
    """The station where the mean of (D, S, P) is highest; the first of several."""
    return int(gold.mean((0, 2)).argmax())


def fall(gold: Floats) -> Floats:
    """(D, P) gold at its peak less gold at the last station, from (D, S, P).

    The highest of many means is partly luck, which would count as a fall. So the station is chosen by every second prompt and the fall is read from the others,
    and the other way round: where nothing falls, the mean is 0 or below.

    Raises:
        ValueError: fewer than two prompts.
    """
    prompts = gold.shape[2]
    if prompts < 2:
        raise ValueError(f"{prompts} prompt: one half chooses the peak for the other")
    found = np.empty((gold.shape[0], prompts))
    for side in (0, 1):
        chosen = peak(gold[:, :, 1 - side :: 2])
        found[:, side::2] = gold[:, chosen, side::2] - gold[:, -1, side::2]
    return found


def summary(course: Course, *, seed: int) -> dict[str, Any]:
    """A course in numbers, as JSON holds them: each station, the peak of gold, the end, and the fall between them.

    Returns:
        points: rows of kl_nats, proxy and gold. peak: kl_nats, whose interval says where else the peak may lie, and gold there. end: kl_nats, proxy and gold.
        fall: see `fall`. Every value with its interval and n prompts.
    """
    draws, _, prompts = course.gold.shape
    top = peak(course.gold)
    where = resampled(lambda some, of: float(course.kl_nats[peak(course.gold[some][:, :, of])]), (draws, prompts), seed=seed)
    points = [
        {"kl_nats": float(kl), "proxy": plain(mean(course.proxy[:, at], seed=seed)), "gold": plain(mean(course.gold[:, at], seed=seed))}
        for at, kl in enumerate(course.kl_nats)
    ]
    return {
        "points": points,
        "peak": {"kl_nats": plain(where), "gold": points[top]["gold"]},
        "end": points[-1],
        "fall": plain(mean(fall(course.gold), seed=seed)),
    }


def agreement(scores: Floats, gold: Floats) -> Floats:
    """(P,) share of pairs of a prompt's responses that scores and gold put in the same order, from (P, N) each; a response is in one pair, a tie is half right.

    Raises:
        ValueError: N is odd.
    """
    if scores.shape[1] % 2:
        raise ValueError(f"{scores.shape[1]} responses can't be paired")
    same = np.sign(scores[:, ::2] - scores[:, 1::2]) * np.sign(gold[:, ::2] - gold[:, 1::2])
    found: Floats = (1 + same.mean(1)) / 2
    return found


def lead(one: Course, other: Course, *, at: int = -1, seed: int) -> Interval:
    """How much more gold the one has than the other at a station, as a rule the last, prompt by prompt and draw by draw; their stations are the same."""
    return mean(one.gold[:, at] - other.gold[:, at], seed=seed)


def verdict(single: Mapping[str, Any] | None, ahead: Mapping[str, Any] | None) -> str:
    """What the intervals allow to say, in a sentence each.

    Args:
        single: the `summary` under a single reward model, if there is one.
        ahead: `lead` of an ensemble's lower bound over it, as JSON holds it, if there is one.
    """
    sentences = []
    if single is not None:
        top, end = single["peak"]["kl_nats"]["value"], single["end"]["kl_nats"]
        seen = "is over-optimised" if _above(single["fall"]) else "isn't seen to be over-optimised"
        place = f"{in_words(single['fall'])} below its peak near {top:.1f} nats" if top < end else "at its highest"
        sentences.append(f"A single model {seen}: at {end:.1f} nats gold is {place}.")
    if ahead is not None:
        below = ahead["high"] is not None and ahead["high"] < 0
        said = "keeps more gold" if _above(ahead) else "keeps less gold" if below else "isn't seen to help or to harm"
        sentences.append(f"The lower bound {said}: it leads the single model by {in_words(ahead)} at the same distance.")
    return " ".join(sentences)


def in_words(number: Mapping[str, Any]) -> str:
    """A number with its interval, where it has one."""
    return f"{number['value']:.2f}" + (f" [{number['low']:.2f}, {number['high']:.2f}]" if number["low"] is not None else "")


def _above(number: Mapping[str, Any]) -> bool:
    return number["low"] is not None and number["low"] > 0
