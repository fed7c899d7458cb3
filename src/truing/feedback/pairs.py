"""Which responses stand together in a question: pairs of different texts, groups to rank, single ones; and in what order they are asked about."""

import random
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from truing.store.ids import content_id
from truing.store.tables import Sample


class Ask(NamedTuple):
    """A question to be: its samples (A, B, ...), why it was chosen, and the known answer if it is a check."""

    samples: tuple[Sample, ...]
    why: str
    gold: dict[str, Any] | None = None

    @property
    def prompt_id(self) -> str:
        """Whose samples they are."""
        return self.samples[0].prompt_id

    def id(self, *before: Any) -> str:
        """The question's id: what is asked about which samples, and whatever else makes it another question."""
        return content_id("question", *before, [sample.id for sample in self.samples])


Pair = tuple[Sample, Sample]


def pairs_of(samples: Sequence[Sample], seed: int) -> list[Pair]:
    """All pairs of different texts, those of fresh samples first; which of the two is A is drawn."""
    draw = random.Random(seed)
    order = draw.sample(list(samples), len(samples))
    places = sorted(combinations(range(len(order)), 2), key=lambda place: (place[1] - place[0] != 1 or place[0] % 2 == 1, place))
    pairs = [(order[i], order[j]) if draw.getrandbits(1) else (order[j], order[i]) for i, j in places]
    return [(a, b) for a, b in pairs if a.text.strip() != b.text.strip()]


def groups_of(samples: Sequence[Sample], size: int, seed: int) -> list[tuple[Sample, ...]]:
    """Groups of `size`, drawn; fewer samples than that, but at least two, are one group, and a rest is left over."""
    order = random.Random(seed).sample(list(samples), len(samples))
    size = min(size, len(order))
    return [tuple(order[i : i + size]) for i in range(0, len(order) - size + 1, size)] if size >= 2 else []


def round_robin(groups: Mapping[str, Sequence[tuple[Sample, ...]]], n: int | None, why: str) -> list[Ask]:
    """The first of every prompt, then the second of every prompt, ..., until there are n (None: all)."""
    rounds = max(map(len, groups.values()), default=0)
    asks = [Ask(of_prompt[turn], why) for turn in range(rounds) for of_prompt in groups.values() if turn < len(of_prompt)]
    return asks if n is None else asks[: max(n, 0)]


def interleave(lists: Iterable[Sequence[Ask]], draw: random.Random) -> list[Ask]:
    """One list in which each given one keeps its order and is spread evenly."""
    placed = [((i + draw.random()) / len(asks), kind, i, ask) for kind, asks in enumerate(lists) for i, ask in enumerate(asks)]
    return [ask for *_, ask in sorted(placed, key=lambda row: row[:3])]
