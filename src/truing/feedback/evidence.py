"""Judgements of every kind as what a likelihood needs: choices between two responses, answers on a scale, and what is known beforehand."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from truing.feedback.likelihoods import Floats, Ints, pairs_of_ranking

STRENGTH = "strength"  # the scale on which a choice says how much better
PAIR, RANKING = "pair", "ranking"
ORACLE = ""  # the annotator who gives the right answers of check questions on scales


class Choice(NamedTuple):
    """Someone's choice between two responses."""

    annotator: str
    first: str  # ids of the responses
    second: str
    choice: int  # 1: the first, 0: a tie, -1: the second
    side: int = 0  # 1: the first stood on the left, -1: on the right, 0: unknown, or they had no sides
    strength: int = 0  # 1, 2, 3: how much better; 0: wasn't said
    weight: float = 1.0
    form: str = PAIR  # ties are as wide as the form of the question makes them, and the annotator


class Level(NamedTuple):
    """Someone's answer about one response on an ordered scale: an aspect of a rating, or thumbs."""

    annotator: str
    sample: str
    scale: str
    level: int  # 0, 1, ...; more is better


class Known(NamedTuple):
    """A check question's answer."""

    better: str
    worse: str


def choices_of_ranking(annotator: str, samples: Sequence[str], ranks: Sequence[int]) -> list[Choice]:
    """A ranking as choices; see `pairs_of_ranking`."""
    return [Choice(annotator, samples[i], samples[j], choice, weight=weight, form=RANKING) for i, j, choice, weight in pairs_of_ranking(ranks)]


@dataclass(frozen=True)
class Choices:
    """N choices as arrays."""

    annotator: Ints
    first: Ints
    second: Ints
    choice: Ints
    side: Floats
    weight: Floats
    form: Ints


@dataclass(frozen=True)
class Levels:
    """N answers on scales as arrays. `sign` turns the difference seen towards what was chosen; `offset` numbers those of (annotator, scale)."""

    annotator: Ints
    first: Ints
    second: Ints  # -1: the first alone
    sign: Floats
    scale: Ints
    level: Ints
    weight: Floats
    offset: Ints


@dataclass(frozen=True)
class Evidence:
    """All that was said, in an order of its own: the same judgements in another order are the same evidence."""

    annotators: tuple[str, ...]
    samples: tuple[str, ...]
    forms: tuple[str, ...]
    scales: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]  # (annotator, scale)
    points: tuple[int, ...]  # of each scale, >= 2
    choices: Choices
    levels: Levels
    better: Ints
    worse: Ints


def gather(choices: Iterable[Choice], levels: Iterable[Level], known: Iterable[Known], annotators: Iterable[str]) -> Evidence:
    """Number everything.

    How much better a choice said its response to be counts only from those who have used more than one strength: an export that knows no strength says
    one and the same of all.

    Args:
        annotators: everyone to speak of, those without a judgement included.
    """
    chosen, known = sorted(choices), sorted(set(known))
    strengths = [row for row in chosen if row.choice and row.strength]
    used = Counter(who for who, _ in {(row.annotator, row.strength) for row in strengths})
    strengths = [row for row in strengths if used[row.annotator] > 1]
    rated = sorted(levels)
    people = sorted({*annotators, *(row.annotator for row in chosen), *(row.annotator for row in rated)})
    samples = sorted({s for row in chosen for s in (row.first, row.second)} | {row.sample for row in rated} | {s for row in known for s in row})
    forms = sorted({row.form for row in chosen})
    scales = sorted({row.scale for row in rated} | ({STRENGTH} if strengths else set()))
    person, sample, form, scale = (_numbers(items) for items in (people, samples, forms, scales))
    of_scale = [(person[row.annotator], scale[STRENGTH]) for row in strengths] + [(person[row.annotator], scale[row.scale]) for row in rated]
    offsets = sorted(set(of_scale))
    offset = _numbers(offsets)
    level = [row.strength - 1 for row in strengths] + [row.level for row in rated]
    points = [max(2, 1 + max(found for found, (_, at) in zip(level, of_scale, strict=True) if at == place)) for place in range(len(scales))]
    return Evidence(
        tuple(people), tuple(samples), tuple(forms), tuple(scales), tuple(offsets), tuple(points),
        Choices(
            _ints(person[row.annotator] for row in chosen), _ints(sample[row.first] for row in chosen), _ints(sample[row.second] for row in chosen),
            _ints(row.choice for row in chosen), _floats(row.side for row in chosen), _floats(row.weight for row in chosen),
            _ints(form[row.form] for row in chosen),
        ),
        Levels(
            _ints(who for who, _ in of_scale),
            _ints([*(sample[row.first] for row in strengths), *(sample[row.sample] for row in rated)]),
            _ints([*(sample[row.second] for row in strengths), *(-1 for _ in rated)]),
            _floats([*(row.choice for row in strengths), *(1 for _ in rated)]),
            _ints(at for _, at in of_scale), _ints(level), _floats([*(row.weight for row in strengths), *(1.0 for _ in rated)]),
            _ints(offset[key] for key in of_scale),
        ),
        _ints(sample[row.better] for row in known), _ints(sample[row.worse] for row in known),
    )  # fmt: skip


def _numbers(items: Sequence[Any]) -> Mapping[Any, int]:
    return {item: i for i, item in enumerate(items)}


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.intp)


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, dtype=np.float64)
