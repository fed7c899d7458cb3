"""Simulated crowds with known vices: how many judgements it takes to find the spoilers, and what trust is worth to a reward model.

    PYTHONPATH=tests python -m benchmarks.studio.trust_simulated [--model]

Samples are made up (tests/asked.py), people are those of `truing annotate --simulated`. A quarter of them (first part), a third or nobody (second) click
anywhere, always take the left or call nearly everything a tie. The reward model is the package's linear one, on the words and the taste's features of a
response, or with --model on the default model's frozen features; it is right where it scores higher what the population's taste likes better, on pairs of
prompts of its own. The last line of stdout is one JSON object.
"""

import argparse
import json
import math
import random
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from benchmarks.studio.trust_crowds import circumstances, rounded

from asked import SUBJECTS, WISHES, made_up
from stored import judgement, prompt
from truing.feedback.joint import fit
from truing.feedback.joint_model import Priors
from truing.feedback.quality import QualitySettings, assess
from truing.feedback.said import Log, Said, Who, evidence_of
from truing.feedback.simulated import CHECK_LOGPROB, CrowdSettings, Shown, Text, judge, make_crowd
from truing.feedback.taste import POPULATION, features, utility
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.preferences import Asked, PreferenceSettings, to_rows
from truing.reward.features import FeatureSpec, readings_at, shorten
from truing.reward.features import features as frozen_features
from truing.reward.train import RewardSettings
from truing.reward.train_frozen import Frozen, fit_linear
from truing.stats import bootstrap_mean, wilson
from truing.store.ids import seed_from
from truing.store.tables import Annotator, Kind, Sample

EACH = (6, 12, 24, 48)  # judgements a person, checks included
OVERLAPS = (2, 3)
CHECKED = 0.08  # of them are checks, at least one: the studio's rule for the first 50
SEEDS_OF_SPOILERS, SEEDS_OF_REWARD = 20, 5
FOUND_BELOW = 0.35  # trust under which someone counts as found
TEST_PAIRS, TEST_PAIRS_READ = 2000, 500  # the latter when the default model reads them
WORD_BUCKETS = 512
LEAST = 0.02  # trust of someone who is known to be careless: the least that anybody has


class Pair(NamedTuple):
    """Two made-up responses to a prompt."""

    prompt: str
    texts: tuple[str, str]
    shown: Shown

    @property
    def lead(self) -> float:
        """How much more the population likes the first, in utility units."""
        a, b = self.shown.texts
        return utility(a.features, POPULATION) - utility(b.features, POPULATION)


def pair(seed: int, number: int) -> Pair:
    """One of a seed's pairs."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    asked = f"{WISHES[number // len(SUBJECTS) % len(WISHES)]} {subject}, number {number}?"
    made = [made_up(seed_from(seed, "text", number, place), asked, subject) for place in range(2)]
    return _pair(asked, made)


def check(seed: int, number: int) -> Pair:
    """A check question: a whole answer, which is the first, against half of another's."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    whole = f"The {subject} is a friend to me, so keep it warm and dry."
    return _pair(f"{WISHES[seed % len(WISHES)]} {subject}?", [(whole, True, -1.5), ("Some people say that in the", False, CHECK_LOGPROB)])


def _pair(asked: str, made: Sequence[tuple[str, bool, float]]) -> Pair:
    measured = [Text(features(asked, text, finished=finished, base_logprob=logprob), len(text.split())) for text, finished, logprob in made]
    return Pair(asked, (made[0][0], made[1][0]), Shown(len(asked.split()), (measured[0], measured[1])))


class Work(NamedTuple):
    """What a crowd said about some pairs."""

    pairs: list[Pair]
    log: Log
    spoilers: set[str]


def work(seed: int, crowd: Sequence[Annotator], *, each: int, overlap: int, n_checks: int) -> Work:
    """Everyone answers `each` questions, `n_checks` of them checks that all answer; the others are answered by `overlap` people each."""
    draw = random.Random(seed_from("work", seed, each, overlap))
    places = [person for person in crowd for _ in range(each - n_checks)]
    pairs = [pair(seed, number) for number in range(math.ceil(len(places) / overlap))]
    said = []
    left = {person.id: each - n_checks for person in crowd}
    for number, asked in enumerate(pairs):
        free = sorted((person for person in crowd if left[person.id]), key=lambda person: (-left[person.id], draw.random()))
        for person in free[:overlap]:
            left[person.id] -= 1
            said.append(_answer(f"q{number}", person, asked, draw))
    for number in range(n_checks):
        said += [_answer(f"g{number}", person, check(seed, number), draw) for person in crowd]
    gold = {f"g{number}": {"better": 0} for number in range(n_checks)}
    people = [Who(person.id, person.name, person.kind) for person in crowd]
    return Work(pairs, Log(said, gold, people, 0, 0), {person.id for person in crowd if person.facts["vice"]})


def _answer(question: str, person: Annotator, asked: Pair, draw: random.Random) -> Said:
    order = draw.sample([0, 1], 2)
    return Said(question, person.id, Kind.PAIR, (f"{question}-a", f"{question}-b"), judge(person.facts, asked.shown, order, draw), tuple(order))


# ---- finding spoilers ----


def spoilers_found() -> list[dict[str, Any]]:
    """A row for each number of judgements and overlap: of those under the threshold, and of the k least trusted, how many are spoilers; and of the spoilers,
    how many were under it. Summed over seeds of 12 people, 3 of them spoilers."""
    rows = []
    for overlap in OVERLAPS:
        for each in EACH:
            named, right, among, total = 0, 0, 0, 0
            for seed in range(SEEDS_OF_SPOILERS):
                done = work(seed, make_crowd(CrowdSettings(), seed), each=each, overlap=overlap, n_checks=max(1, round(CHECKED * each)))
                annotators = assess(done.log, QualitySettings()).annotators
                flagged = {one.id for one in annotators if one.trust < FOUND_BELOW}
                named, right, total = named + len(flagged), right + len(flagged & done.spoilers), total + len(done.spoilers)
                among += len({one.id for one in annotators[: len(done.spoilers)]} & done.spoilers)
            row = {"judgements_each": each, "checks_each": max(1, round(CHECKED * each)), "overlap": overlap, "seeds": SEEDS_OF_SPOILERS}
            counted = {"precision": wilson(right, named), "recall": wilson(right, total), "least_trusted": wilson(among, total)}
            rows.append(row | {name: rounded(interval) for name, interval in counted.items()})
            print(f"{each:3d} judgements, overlap {overlap}: " + ", ".join(f"{name} {interval.value:.2f}" for name, interval in counted.items()), flush=True)
    return rows


# ---- what trust is worth to a reward model ----


def reward_accuracy(trunk: Trunk | None, *, each: int, overlap: int, spoilers: int) -> list[dict[str, Any]]:
    """A row for each seed: how often a reward model is right that was fitted to the same judgements with trust, without, and to the joint posterior.

    And how often with the trust of someone who knows who is careless, and takes all others alike.
    """
    rows = []
    for seed in range(SEEDS_OF_REWARD):
        done = work(seed, make_crowd(CrowdSettings(spoilers=spoilers), seed), each=each, overlap=overlap, n_checks=max(1, round(CHECKED * each)))
        quality = assess(done.log, QualitySettings())
        trust = {one.id: one.trust for one in quality.annotators}
        weighted, plain = dataset(done, trust), dataset(done, dict.fromkeys(trust, 1.0))
        known_to_be = dataset(done, {who: LEAST if who in done.spoilers else 1.0 for who in trust})
        test = [asked for asked in (pair(seed, 100_000 + number) for number in range(TEST_PAIRS_READ if trunk else TEST_PAIRS)) if asked.lead]
        known, unknown = features_of(done.pairs, trunk), features_of(test, trunk)
        right = np.sign([asked.lead for asked in test])
        posterior = [row | {"target": p} for row, p in zip(weighted, posteriors(done, weighted), strict=True)]
        arms = {"unweighted": plain, "weighted": weighted, "joint_posterior": posterior, "careless_known": known_to_be}
        hits = {name: accuracy(train, known, unknown, right, seed) for name, train in arms.items()}
        row: dict[str, Any] = {name: round(float(found.mean()), 4) for name, found in hits.items()}
        for name, arm in (("gain", "weighted"), ("gain_if_known", "careless_known")):
            row[name] = rounded(bootstrap_mean(hits[arm] - hits["unweighted"], seed=seed))
        row |= {"seed": seed, "pairs": len(weighted)}
        rows.append(row | {"trust_of_spoilers": [round(trust[who], 2) for who in sorted(done.spoilers)]})
        print(f"seed {seed}: " + ", ".join(f"{name} {row[name]:.3f}" for name in arms), flush=True)
    return rows


def dataset(done: Work, trust: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows as `truing preferences` makes them, in the order of the pairs."""
    asked = {}
    for number, found in enumerate(done.pairs):
        samples = [Sample(id=f"q{number}-{side}", text=f"{side}: {text}", token_ids=None, finished=True) for side, text in zip("ab", found.texts, strict=True)]
        asked[f"q{number}"] = Asked(f"q{number}", prompt(found.prompt), samples)
    for place, row in enumerate(done.log.said):
        if row.question in asked:
            asked[row.question].judgements.append(judgement(row.question, f"j{place:06d}", annotator_id=row.annotator, answer=dict(row.answer)))
    return sorted(to_rows(list(asked.values()), trust, PreferenceSettings()), key=lambda row: int(row["question_id"][1:]))


def posteriors(done: Work, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """How likely the joint model makes it that a typical person prefers A, of each row."""
    found = fit(evidence_of(done.log.said, done.log.gold, []), Priors())
    place = {name: i for i, name in enumerate(found.model.evidence.samples)}
    belief = found.rewards.pairs(*(np.array([place[f"{row['question_id']}-{side}"] for row in rows]) for side in "ab"))
    steps = np.linspace(-3, 3, 25)
    mass = np.exp(-(steps**2) / 2)
    chances = 1 / (1 + np.exp(-found.crowd_skill * belief.at(steps)))
    return [float(p) for p in chances @ mass / mass.sum()]


def features_of(pairs: Sequence[Pair], trunk: Trunk | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, D) of the first and the second response of each pair."""
    if trunk is None:
        sides = [torch.tensor([[*found.shown.texts[side].features.values(), *words(found.texts[side])] for found in pairs]) for side in (0, 1)]
        return sides[0].float(), sides[1].float()
    read(pairs, trunk)
    return tuple(torch.stack([READ[found.prompt, found.texts[side]] for found in pairs]) for side in (0, 1))  # type: ignore[return-value]


def read(pairs: Sequence[Pair], trunk: Trunk) -> None:
    """Bring the frozen features of these pairs' responses into READ; what stands there already, with another crowd's pairs, isn't read again."""
    settings = RewardSettings()
    spec = FeatureSpec(readings_at(settings.readings, trunk.layers), settings.max_tokens)
    wanted = sorted({(found.prompt, text) for found in pairs for text in found.texts} - set(READ))
    if wanted:
        items = [shorten(trunk.prompt_ids([{"role": "user", "content": asked}]), trunk.response_ids(text), spec.max_tokens) for asked, text in wanted]
        READ.update(zip(wanted, frozen_features(trunk, items, spec), strict=True))


READ: dict[tuple[str, str], torch.Tensor] = {}  # (prompt, response) → its features


def words(text: str) -> list[float]:
    """(W,) how often words of each bucket stand in a text."""
    counts = [0.0] * WORD_BUCKETS
    for word in text.lower().split():
        counts[zlib.crc32(word.encode()) % WORD_BUCKETS] += 1
    return counts


def accuracy(rows: Sequence[Mapping[str, Any]], known: Sequence[torch.Tensor], unknown: Sequence[torch.Tensor], right: Any, seed: int) -> Any:
    """(T,) whether the package's linear reward model scores the better of each test pair higher; 1/2 where it scores them alike."""
    kept = torch.tensor([int(row["question_id"][1:]) for row in rows])
    target, weight = (torch.tensor([row[name] for row in rows], dtype=torch.float32) for name in ("target", "weight"))
    data = Frozen(known[0][kept], known[1][kept], target, weight, [row["prompt_id"] for row in rows])
    head = fit_linear(data, RewardSettings(head="linear", members=1), seed, lambda **_: None).head
    with torch.no_grad():
        margin = (head(unknown[0]) - head(unknown[1])).mean(1).double().numpy()
    return (1 + np.sign(margin) * right) / 2


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", action="store_true", help="the reward model reads the default model's frozen features")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    trunk = open_trunk(ModelSettings()) if arguments.model else None
    found = circumstances() | {"found_below_trust": FOUND_BELOW, "spoilers": spoilers_found(), "reward_features": "model" if trunk else "words and taste"}
    for careless, spoilers in (("a_third_careless", 4), ("nobody_careless", 0)):
        print(careless)
        found[careless] = reward_accuracy(trunk, each=60, overlap=2, spoilers=spoilers)
    name = f"studio-trust-simulated{'-model' if trunk else ''}-{found['date']}.json"
    (arguments.out / name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
