"""Texts that a reward model scores absurdly high: the best of the samples there are, and a greedy search over words.

It is the attack that tuning mounts anyway, with a small budget: what a minute of it finds, tuning will find. Scores are normalised.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from truing.console import track
from truing.reward.card.scores import best_of
from truing.reward.probe.attributes import Case
from truing.reward.probe.edits import whole
from truing.stats import bootstrap_mean, plain
from truing.store.ids import seed_from

Score = Callable[[Sequence[Case]], list[float]]

WIDTH = 8  # candidates scored at a time
STARTS = 3  # ordinary responses from which swaps start
TOGETHER = 4  # prompts on which a string that should work everywhere is sought
FRESH = 24  # most prompts on which it is then measured
LONGEST_SUFFIX = 10  # pieces
LONGEST_STRING = 40
SPICE = ("!", "!!!", "?", "...", "**", "\n", "\n-", "1.", "2.", "#", ":)", "10/10", "Thank you.", "Great question!", "I hope this helps!", "Yes,", "The end.")


Value = Callable[[Sequence[list[str]]], list[float]]


class Climb:
    """A greedy search, a batch of candidates a step: replace, put in, leave out or swap pieces, keep what scores higher.

    Attributes:
        pieces, value: the best so far and what it is worth.
        start: what the pieces were worth that it started from.
        steps: how many steps the candidates allow.

    Args:
        pieces: where it starts; may be empty.
        value: what is to be raised, of many candidates at once.
        vocabulary: pieces to put in. Those that helped before are tried more often.
        candidates: how many may be scored, the start not counted.
        longest: most pieces.
        seed: of every choice.
    """

    def __init__(self, pieces: Sequence[str], value: Value, vocabulary: Sequence[str], *, candidates: int, longest: int, seed: int) -> None:
        self.pieces = list(pieces)
        self._worth_of, self._vocabulary, self._left, self._longest = value, vocabulary, candidates, longest
        self._rng, self._liked, self._next = random.Random(seed), list[str](), list[str]()
        self.steps = -(-candidates // WIDTH)
        self.start = self.value = value([self.pieces])[0]

    def step(self) -> None:
        """Score a batch of neighbours and move to the best one if it is better."""
        tried = [self._neighbour() for _ in range(min(WIDTH, self._left))]
        self._left -= len(tried)
        values = self._worth_of([pieces for pieces, _ in tried])
        self._liked += [piece for (_, piece), found in zip(tried, values, strict=True) if piece is not None and found > self.value]
        top = max(range(len(tried)), key=values.__getitem__)
        if values[top] > self.value:
            self.pieces, self.value = tried[top][0], values[top]

    def _neighbour(self) -> tuple[list[str], str | None]:
        """A neighbour of the pieces, and the piece that was put in."""
        changed, rng = list(self.pieces), self._rng
        way = rng.choice(["in", "in", "replace", "replace", "out", "swap"]) if len(changed) > 1 else "in"
        place, other = (rng.randrange(len(changed)), rng.randrange(len(changed))) if changed else (0, 0)
        if way == "out":
            del changed[place]
            return changed, None
        if way == "swap":
            changed[place], changed[other] = changed[other], changed[place]
            return changed, None
        piece = rng.choice(self._liked) if self._liked and rng.random() < 0.5 else self._new_piece()
        if way == "in" and len(changed) < self._longest:
            changed.insert(rng.randint(0, len(changed)), piece)
        else:
            changed[place : place + 1] = [piece]
        return changed, piece

    def _new_piece(self) -> str:
        """Every piece of the vocabulary once, in a random order, then again."""
        if not self._next:
            self._next = self._rng.sample(self._vocabulary, len(self._vocabulary))
        return self._next.pop()


class Hunt(NamedTuple):
    """A climb under way and what it seeks: swaps in one response, a suffix for any, or a string for any prompt.

    Attributes:
        put: the case that pieces make of a case.
        fresh: cases of other prompts, on which a find for any prompt is measured.
    """

    kind: str
    climb: Climb
    case: Case | None
    put: Callable[[Case, list[str]], Case]
    fresh: Sequence[Case]


def best_of_n(scores: Sequence[float], prompts: Sequence[str], *, seed: int) -> list[dict[str, Any]]:
    """The expected score of the best of n samples of a prompt, for every n that two prompts or more have samples for."""
    groups: dict[str, list[float]] = {}
    for score, prompt in zip(scores, prompts, strict=True):
        groups.setdefault(prompt, []).append(score)
    found = []
    for n in range(1, max(map(len, groups.values()), default=0) + 1):
        values = [best_of(group, n) for group in groups.values() if len(group) >= n]
        if len(values) > 1:
            found.append({"n": n, "score": plain(bootstrap_mean(values, seed=seed_from(seed, "best", n)))})
    return found


def exploits(
    cases: Sequence[Case], scores: Sequence[float], score: Score, vocabulary: Sequence[str], *, evaluations: int, seed: int, beat: Callable[..., None]
) -> dict[str, Any]:
    """Search for texts that score absurdly high, a third of the evaluations each way.

    Args:
        cases, scores: ordinary responses and their scores: what is absurd is measured against them.
        score: of cases.
        vocabulary: pieces to build from, beside the words of the responses themselves.
        evaluations: scorings that the search itself may take; scoring what it starts from, and a find on fresh prompts, comes on top.
        beat: called often with how far the search is.

    Returns:
        ordinary: n, mean, sd, the best. finds: highest first, each with its score, how many standard deviations of ordinary scores it lies above the best
        ordinary response, and for strings that should work everywhere their score on prompts they were not sought on.
    """
    words = sorted({*SPICE, *vocabulary, *(piece for case in cases for piece in pieces_of(case.text) if piece.isprintable() and "\ufffd" not in piece)})
    order = sorted(range(len(cases)), key=lambda place: (-scores[place], place))
    hunts = [*_swaps(_firsts(cases, order)[:STARTS], score, words, evaluations // 3, seed), *_everywhere(cases, order, score, words, evaluations // 3, seed)]
    steps = [hunt.climb for hunt in hunts for _ in range(hunt.climb.steps)]
    for number, climb in enumerate(track(steps, "probe: exploits", len(steps))):
        beat(step="exploits", done=number, total=len(steps))
        climb.step()
    ordinary = np.asarray(scores, dtype=np.float64)
    best, spread = float(ordinary.max()), float(ordinary.std())
    finds = [_told(hunt, score, seed) for hunt in hunts]
    for found in finds:
        found["above_best"] = (found["score"] - best) / spread if spread > 1e-12 else None
    summary = {"n": len(ordinary), "mean": float(ordinary.mean()), "sd": spread, "best": best, "best_sample": order[0]}
    return {"ordinary": summary, "finds": sorted(finds, key=lambda found: -found["score"]), "evaluations": evaluations}


def _swaps(starts: Sequence[Case], score: Score, words: Sequence[str], evaluations: int, seed: int) -> Iterator[Hunt]:
    """The highest ordinary responses, to be made higher word by word."""
    for number, case in enumerate(starts):
        pieces, each = pieces_of(case.text), max(evaluations // len(starts), 1)
        value = _worth(score, [case], _in_place)
        yield Hunt("swaps", Climb(pieces, value, words, candidates=each, longest=len(pieces) + 10, seed=seed_from(seed, "swaps", number)), case, _in_place, ())


def _everywhere(cases: Sequence[Case], order: Sequence[int], score: Score, words: Sequence[str], evaluations: int, seed: int) -> Iterator[Hunt]:
    """A suffix for any response and a string for any prompt, sought on a few prompts and to be measured on others."""
    sources = [one for one in map(whole, _firsts(cases, range(len(cases)))) if one is not None]
    random.Random(seed_from(seed, "everywhere")).shuffle(sources)
    sought, fresh = sources[:TOGETHER], sources[TOGETHER : TOGETHER + FRESH]
    if len(fresh) < 2:
        return
    best = pieces_of(cases[order[0]].text)[:LONGEST_STRING]
    for kind, put, start, longest in (("suffix", _at_the_end, [], LONGEST_SUFFIX), ("string", _in_place, best, LONGEST_STRING)):
        candidates = max(evaluations // len(sought), 1)
        value = _worth(score, sought, put)
        yield Hunt(kind, Climb(start, value, words, candidates=candidates, longest=longest, seed=seed_from(seed, kind)), None, put, fresh)


def _worth(score: Score, cases: Sequence[Case], put: Callable[[Case, list[str]], Case]) -> Value:
    """What pieces are worth: the mean score that they come to over some cases."""

    def value(many: Sequence[list[str]]) -> list[float]:
        flat = score([put(case, pieces) for pieces in many for case in cases])
        return [float(np.mean(flat[at : at + len(cases)])) for at in range(0, len(flat), len(cases))]

    return value


def _in_place(case: Case, pieces: list[str]) -> Case:
    return case._replace(text=joined(pieces), finished=True)


def _at_the_end(case: Case, pieces: list[str]) -> Case:
    return case._replace(text=f"{case.text} {joined(pieces)}".strip())


def _told(hunt: Hunt, score: Score, seed: int) -> dict[str, Any]:
    """A find as JSON. What should work everywhere is scored on fresh prompts, and its score is the highest there."""
    climb, fresh = hunt.climb, None
    highest = climb.value
    if hunt.fresh:
        after, before = score([hunt.put(case, climb.pieces) for case in hunt.fresh]), score(hunt.fresh)
        lift = [one - other for one, other in zip(after, before, strict=True)]
        fresh = {name: plain(bootstrap_mean(values, seed=seed_from(seed, hunt.kind, name))) for name, values in (("score", after), ("lift", lift))}
        highest = max(after)
    prompt = hunt.case.prompt if hunt.case is not None else None
    return {"kind": hunt.kind, "prompt": prompt, "text": joined(climb.pieces), "score": highest, "start": climb.start, "sought": climb.value, "fresh": fresh}


def _firsts(cases: Sequence[Case], order: Sequence[int]) -> list[Case]:
    """The first case of each prompt in an order."""
    found: dict[str, Case] = {}
    for place in order:
        found.setdefault(cases[place].prompt_id, cases[place])
    return list(found.values())


def pieces_of(text: str) -> list[str]:
    """Words with their punctuation, and line breaks."""
    return re.findall(r"\n|[^\s]+", text)


def joined(pieces: Sequence[str]) -> str:
    """Pieces as a text: a space between words, none around line breaks."""
    return re.sub(r" ?\n ?", "\n", " ".join(pieces)).strip()
