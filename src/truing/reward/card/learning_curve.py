"""What more judgements would buy: the same head refitted on ever larger parts of the train prompts, and a curve through its held-out accuracy.

    accuracy(n) = c - b / sqrt(n),   n judgements

c is where the curve ends and b how far off it starts. The exponent of a half is that of a mean, and given: four sizes can't tell an exponent from an end.
(Measured curves of whole networks fall more slowly, Hestness et al. 2017, arXiv:1712.00409; a head on frozen features is nearer to a mean.) What the curve says
of sizes that nobody has seen is a guess, and the interval says how wide a one.

Shapes: F fractions, D draws of a fraction, N held-out pairs.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.console import say
from truing.reward.card.accuracy import right
from truing.reward.train_pairs import Row
from truing.stats import Interval, plain, takes_side
from truing.store.ids import seed_from

Refit = Callable[[Collection[str], int], Sequence[tuple[float, float]]]  # train prompts and a seed → scores of a and b of each held-out row

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1.0)
DRAWS = 4
TARGETS = (0.70, 0.75, 0.80)
FAR = 1000.0  # times the judgements there are: beyond it a curve says nothing
FEWEST_PAIRS, FEWEST_PROMPTS = 10, 2  # a smaller part isn't fitted
RESAMPLES = 1000

Floats = NDArray[np.float64]


class Part(NamedTuple):
    """A part of the train prompts. Those of one draw are nested: the smaller ones are beginnings of the larger."""

    fraction: float
    draw: int
    prompts: frozenset[str]


class Curve(NamedTuple):
    """end: c, where it ends. start: b, in units of the root of a judgement."""

    end: float
    start: float

    def at(self, n: float) -> float:
        """Accuracy after n judgements."""
        return self.end - self.start / math.sqrt(n)

    def needed(self, accuracy: float) -> float:
        """Judgements until it gets there; infinite where it doesn't."""
        if self.end <= accuracy:
            return math.inf
        return (max(self.start, 0.0) / (self.end - accuracy)) ** 2


def parts_of(rows: Sequence[Row], seed: int) -> list[Part]:
    """The parts to fit, smallest first; the whole is fitted once, and parts too small to fit are left out."""
    prompts = sorted({row["prompt_id"] for row in rows})
    found = []
    for fraction in FRACTIONS:
        for draw in range(DRAWS if fraction < 1 else 1):
            order = sorted(prompts, key=lambda prompt: (seed_from(seed, "curve", draw, prompt), prompt))
            part = frozenset(order[: round(fraction * len(order))])
            if len(part) >= FEWEST_PROMPTS and sum(row["prompt_id"] in part for row in rows) >= FEWEST_PAIRS:
                found.append(Part(fraction, draw, part))
    return found


def judgements_of(rows: Iterable[Row], prompts: Collection[str]) -> int:
    """How many judgements stand behind the rows of some prompts, each once."""
    return len({one for row in rows if row["prompt_id"] in prompts for said in row["judgements"] for one in str(said["id"]).split("+")})


def learning_curve(train: Sequence[Row], held_out: Sequence[Row], refit: Refit, parts: Sequence[Part], *, seed: int) -> dict[str, Any]:
    """Fit each part and draw the curve.

    Args:
        train: lines with a prompt_id and the judgements that were learned from.
        held_out: lines of pairs.jsonl.
        refit: fits the head to the train rows of some prompts.
        parts: of `parts_of`.
        seed: of the model itself: the whole is fitted as it was.

    Returns:
        what `curve_through` gives.
    """
    decided = [place for place, row in enumerate(held_out) if takes_side(row["target"])]
    found: dict[float, list[tuple[int, Floats]]] = {}
    for number, part in enumerate(parts, 1):
        say(f"learning curve: fit {number} of {len(parts)}, {part.fraction:.1%} of the train prompts")
        own = seed if part.fraction == 1 else seed_from(seed, "curve", part.draw, repr(part.fraction))
        scores = refit(part.prompts, own)
        hits = [right(scores[place][0] - scores[place][1], held_out[place]["target"] - 0.5) for place in decided]
        found.setdefault(part.fraction, []).append((judgements_of(train, part.prompts), np.array(hits)))
    sizes = [(fraction, float(np.mean([n for n, _ in fits])), np.stack([hits for _, hits in fits])) for fraction, fits in sorted(found.items())]
    return curve_through(sizes, [held_out[place]["prompt_id"] for place in decided], seed=seed)


def curve_through(sizes: Sequence[tuple[float, float, Floats]], prompts: Sequence[str], *, seed: int) -> dict[str, Any]:
    """The curve through fits of several sizes.

    Args:
        sizes: fraction, mean number of judgements, and (D, N) whether each fit was right on each held-out pair.
        prompts: (N,) the prompt of each pair. The intervals draw prompts, and draws of each fraction, anew.

    Returns:
        points: share, judgements, fits and accuracy of each size; end: where the curve ends; doubling: what twice the judgements add; needed: for each of
        `TARGETS` the judgements until then, None where the curve doesn't get there within `FAR` times those there are, and `reached`, the share of
        resamples that do; judgements: that there are. Fewer than two sizes give no curve: end and doubling are then None and needed is empty.
    """
    whole = [hits.mean() for _, _, hits in sizes]
    drawn = np.array(list(_resampled([hits for _, _, hits in sizes], prompts, seed)))  # (resamples, F)
    points = [
        {"share": fraction, "judgements": round(n), "fits": len(hits), "accuracy": plain(_interval(value, drawn[:, place], hits.shape[1]))}
        for place, ((fraction, n, hits), value) in enumerate(zip(sizes, whole, strict=True))
    ]  # fmt: skip
    counts = [n for _, n, _ in sizes]
    found: dict[str, Any] = {"points": points, "judgements": round(counts[-1]) if counts else 0, "end": None, "doubling": None, "needed": []}
    if len(sizes) < 2:
        return found
    curve, others = fit_curve(counts, whole), [fit_curve(counts, row) for row in drawn]
    most, n = counts[-1], len(prompts)

    def about(take: Callable[[Curve], float]) -> Interval:
        return _interval(take(curve), np.array([take(one) for one in others]), n)

    needed = [(target, about(lambda one, target=target: _within(one.needed(target), FAR * most))) for target in TARGETS]  # type: ignore[misc]
    reached = [float(np.mean([one.needed(target) <= FAR * most for one in others])) for target in TARGETS]
    return found | {
        "end": plain(about(lambda one: one.end)),
        "start": curve.start,
        "doubling": plain(about(lambda one: one.at(2 * most) - one.at(most))),
        "needed": [{"accuracy": target, "reached": share, **plain(interval)} for (target, interval), share in zip(needed, reached, strict=True)],
    }


def fit_curve(counts: Sequence[float], accuracies: Sequence[float] | Floats) -> Curve:
    """Least squares of accuracy on 1 / sqrt(n): two numbers from at least two sizes."""
    x, y = 1 / np.sqrt(np.asarray(counts, dtype=np.float64)), np.asarray(accuracies, dtype=np.float64)
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return Curve(float(y.mean() - slope * x.mean()), -slope)


def _resampled(fits: Sequence[Floats], prompts: Sequence[str], seed: int) -> Iterable[list[float]]:
    """Accuracy at each size in a world with other held-out prompts and other draws."""
    generator = np.random.default_rng(seed_from(seed, "learning curve"))
    names = sorted(set(prompts))
    place = {name: number for number, name in enumerate(names)}
    unit = np.array([place[prompt] for prompt in prompts], dtype=np.intp)
    for _ in range(RESAMPLES if len(names) > 1 else 0):
        heed = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))[unit]
        yield [float(np.average(hits[generator.integers(0, len(hits), len(hits))].mean(0), weights=heed)) for hits in fits]


def _interval(value: float, draws: Floats, n: int) -> Interval:
    if not len(draws):
        return Interval(float(value), math.nan, math.nan, n)
    low, high = np.quantile(draws, [0.025, 0.975], method="nearest")
    return Interval(float(value), float(low), float(high), n)


def _within(n: float, most: float) -> float:
    return n if n <= most else math.inf


def in_words(row: dict[str, Any], smallest: float) -> str:
    """What a row of `needed` says, e.g. "about 1,200 judgements (800 to not in reach)". What is less than the smallest part that was fitted is said so."""
    if row["value"] is None:
        return f"not in reach by this curve; {100 * row['reached']:.0f} % of resamples reach it"
    value, low, high = (_count(row[end], smallest) for end in ("value", "low", "high"))
    return f"about {value} judgements ({low} to {high})" if row["value"] >= smallest else f"{value} judgements (up to {high})"


def _count(value: float | None, smallest: float) -> str:
    if value is None:
        return "not in reach"
    return f"under {smallest:,.0f}" if value < smallest else f"{float(f'{value:.2g}'):,.0f}"
