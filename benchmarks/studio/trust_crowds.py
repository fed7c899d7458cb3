"""Real crowds: how well a held-out vote is foretold by the joint model, a majority, Dawid-Skene and Bradley-Terry; alpha; the least trusted workers.

    python benchmarks/studio/trust_crowds.py ../shared/data/llmfao/crowd-comparisons.csv ../shared/data/finegrained_rlhf_dev/.../dev_feedback.json

One vote of each pair is left out, by a draw, three times over; everything is fitted to the rest and says with which probability the left-out vote is the first,
a tie or the second. Whatever a rival leaves open (smoothing, iterations, ridge, tie width) is chosen by the same game on the training votes of the first
draw. The joint model has the package's defaults. In the second file one unnamed person compared all pairs of four answers: there one pair of each question is
left out. Losses are in nats a vote, intervals from a bootstrap over pairs. The last line of stdout is one JSON object.
"""

import argparse
import csv
import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import random
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.feedback.evidence import Choice, gather
from truing.feedback.joint import Fit, fit, likeliest_rewards
from truing.feedback.joint_model import Priors
from truing.feedback.likelihoods import davidson_log_p
from truing.feedback.quality import QualitySettings, assess
from truing.feedback.said import Log, Said, Who
from truing.feedback.second_opinion import numpy_left_alone
from truing.stats import Interval, bootstrap_mean
from truing.store.tables import Kind

Floats = NDArray[np.float64]
Forecast = Callable[[Sequence[Choice], Sequence[Choice]], Floats]  # train, test → (N, 3): first, tie, second
OUTCOMES = (1, 0, -1)
DRAWS = 3
VOTERS = 100  # drawn from those who voted, each as often as they did: the typical next voter


class Rival(NamedTuple):
    """A way of foretelling votes, and what is to be chosen about it."""

    forecast: Callable[..., Floats]
    choices: Mapping[str, Sequence[float]]


# ---- the votes ----


def read_llmfao(path: Path) -> list[Choice]:
    """Votes on pairs of answers, named "prompt/model"; the first is the one on the left."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    said = {"left": 1, "tie": 0, "right": -1}
    return [Choice(row["worker"], f"{row['prompt']}/{row['model_x']}", f"{row['prompt']}/{row['model_y']}", said[row["winner"]], 1) for row in rows]


def read_finegrained(path: Path) -> list[Choice]:
    """All pairs of four answers to each question, by one unnamed person."""
    found = []
    for number, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        for (i, j), said in zip(itertools.combinations(range(1, 5), 2), row["preference"], strict=True):
            found.append(Choice("someone", f"{number}/{i}", f"{number}/{j}", {1: 1, 2: -1, 0: 0}[said], 1))
    return found


def leave_out(votes: Sequence[Choice], unit: Callable[[Choice], Hashable], seed: int) -> tuple[list[Choice], list[Choice]]:
    """One vote of each unit that has two or more, drawn; and the others."""
    draw, groups = random.Random(seed), defaultdict(list)
    for place, vote in enumerate(votes):
        groups[unit(vote)].append(place)
    out = {draw.choice(places) for places in groups.values() if len(places) > 1}
    return [vote for place, vote in enumerate(votes) if place not in out], [votes[place] for place in sorted(out)]


def pair_of(vote: Choice) -> tuple[str, str]:
    """The two answers."""
    return vote.first, vote.second


def question_of(vote: Choice) -> str:
    """What both answer."""
    return vote.first.partition("/")[0]


# ---- the rivals ----


def shares(votes: Iterable[Choice]) -> Floats:
    """(3,) how often each outcome was voted, with one more of each."""
    counts = np.ones(3)
    for vote in votes:
        counts[OUTCOMES.index(vote.choice)] += 1
    return np.asarray(counts / counts.sum())


def tally() -> dict[Any, Floats]:
    """Counts of outcomes, from 0."""
    return defaultdict(lambda: np.zeros(3))


def majority(train: Sequence[Choice], test: Sequence[Choice], *, smoothing: float) -> Floats:
    """The shares of a pair's other votes, and of everybody's for so many votes more."""
    overall, counts = shares(train), tally()
    for vote in train:
        counts[pair_of(vote)][OUTCOMES.index(vote.choice)] += 1
    return np.stack([(counts[pair_of(vote)] + smoothing * overall) / (counts[pair_of(vote)].sum() + smoothing) for vote in test])


def habits(train: Sequence[Choice], test: Sequence[Choice], *, smoothing: float) -> Floats:
    """The shares of the worker's other votes, whatever the pair."""
    by_worker = [[vote._replace(first=vote.annotator, second="") for vote in votes] for votes in (train, test)]
    return majority(by_worker[0], by_worker[1], smoothing=smoothing)


def dawid_skene(train: Sequence[Choice], test: Sequence[Choice], *, iterations: float, smoothing: float) -> Floats:
    """crowd-kit's labels and confusions; each worker's confusion is drawn towards everyone's by so many votes."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    frame = pd.DataFrame([("|".join(pair_of(vote)), vote.annotator, vote.choice) for vote in train], columns=["task", "worker", "label"])
    with numpy_left_alone():
        found = DawidSkene(n_iter=int(iterations)).fit(frame)
    labels = found.probas_.reindex(columns=list(OUTCOMES)).fillna(0.0)
    chance = dict(zip(labels.index, labels.to_numpy(), strict=True))
    seen = tally()
    given: dict[str, Floats] = defaultdict(lambda: np.zeros((3, 3)))  # answer by label
    for task, worker, answer in frame.itertuples(index=False):
        seen[worker] += chance[task]
        given[worker][OUTCOMES.index(answer)] += chance[task]
    everyone = (sum(given.values()) + 1e-3) / (sum(seen.values()) + 3e-3)
    usual = labels.to_numpy().mean(0)
    rows = []
    for vote in test:
        confusion = (given[vote.annotator] + smoothing * everyone) / (seen[vote.annotator] + smoothing)
        rows.append(confusion @ chance.get("|".join(pair_of(vote)), usual))
    return np.stack(rows)


def bradley_terry(train: Sequence[Choice], test: Sequence[Choice], *, ridge_sd: float, tie: float) -> Floats:
    """Bradley-Terry with Davidson's ties: a strength for each answer, everyone alike."""
    evidence = gather([vote._replace(annotator="", side=0) for vote in train], [], [], [])
    strength = dict(zip(evidence.samples, likeliest_rewards(evidence, np.ones(1), prior_sd=ridge_sd, tie=tie), strict=True))
    lead = np.array([strength.get(vote.first, 0.0) - strength.get(vote.second, 0.0) for vote in test])
    return np.exp(np.stack([davidson_log_p(lead, np.array(tie), np.array(choice)) for choice in OUTCOMES], 1))


def bradley_terry_of_models(train: Sequence[Choice], test: Sequence[Choice], *, ridge_sd: float, tie: float) -> Floats:
    """The same with a strength for each model, whatever the prompt."""
    by_model = [[vote._replace(first=vote.first.partition("/")[2], second=vote.second.partition("/")[2]) for vote in votes] for votes in (train, test)]
    return bradley_terry(by_model[0], by_model[1], ridge_sd=ridge_sd, tie=tie)


def joint(train: Sequence[Choice], test: Sequence[Choice], priors: Priors | None = None) -> Floats:
    """The package's model as it is."""
    return foretell(fit(gather(train, [], [], {vote.annotator for vote in test}), priors or Priors()), test)


def joint_of_equals(train: Sequence[Choice], test: Sequence[Choice]) -> Floats:
    """The package's model without skills: what side biases and tie widths alone are worth."""
    return joint(train, test, Priors(skill_sd=1e-3, guessers=1e-9))


def joint_with_models(train: Sequence[Choice], test: Sequence[Choice]) -> Floats:
    """The package's model, fitted again with a prior mean for each model: its answers' mean reward by the first fit, drawn to 0 by one answer's worth."""
    evidence = gather(train, [], [], {vote.annotator for vote in test})
    first = fit(evidence).rewards.mean
    model = [name.partition("/")[2] for name in evidence.samples]
    total: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for name, mean in zip(model, first, strict=True):
        total[name] += mean
        count[name] += 1
    return foretell(fit(evidence, prior_mean=np.array([total[name] / (count[name] + 1) for name in model])), test)


def foretell(found: Fit, test: Sequence[Choice]) -> Floats:
    """(N, 3) the joint model's forecasts. An answer nobody has seen has the prior's reward."""
    place = {name: i for i, name in enumerate(found.model.evidence.samples)}
    chances = np.tile(shares([]), (len(test), 1))
    by_worker = defaultdict(list)
    for i, vote in enumerate(test):
        if vote.first in place and vote.second in place:
            by_worker[vote.annotator].append(i)
    for worker, rows in by_worker.items():
        belief = found.rewards.pairs(np.array([place[test[i].first] for i in rows]), np.array([place[test[i].second] for i in rows]))
        chances[rows] = found.probabilities(worker, belief, np.array([float(test[i].side) for i in rows]))
    return chances


SMOOTHING = {"smoothing": (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)}
RIDGE = {"ridge_sd": (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0), "tie": (-3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.25, 0.5)}
RIVALS: Mapping[str, Rival] = {
    "joint": Rival(joint, {}),
    "joint, a mean for each model": Rival(joint_with_models, {}),
    "joint, equal skills": Rival(joint_of_equals, {}),
    "majority of the pair": Rival(majority, SMOOTHING),
    "habits of the worker": Rival(habits, SMOOTHING),
    "dawid-skene": Rival(dawid_skene, {"iterations": (2, 5, 20, 100), "smoothing": (1.0, 4.0, 16.0, 64.0)}),
    "bradley-terry of answers": Rival(bradley_terry, RIDGE),
    "bradley-terry of models": Rival(bradley_terry_of_models, RIDGE),
}


# ---- the game ----


def losses(chances: Floats, test: Sequence[Choice]) -> tuple[Floats, Floats]:
    """(N,) log-loss in nats, and whether the likeliest outcome was voted."""
    voted = np.array([OUTCOMES.index(vote.choice) for vote in test])
    return -np.log(np.maximum(chances[np.arange(len(test)), voted], 1e-12)), (chances.argmax(1) == voted).astype(np.float64)


def tuned(rival: Rival, train: Sequence[Choice], unit: Callable[[Choice], Hashable]) -> dict[str, float]:
    """What foretells best one vote left out of the training votes."""
    inner, test = leave_out(train, unit, seed=1000)
    options = [dict(zip(rival.choices, values, strict=True)) for values in itertools.product(*rival.choices.values())]
    if len(options) == 1:
        return options[0]
    return min(options, key=lambda option: float(losses(rival.forecast(inner, test, **option), test)[0].mean()))


def play(votes: Sequence[Choice], unit: Callable[[Choice], Hashable], names: Sequence[str]) -> dict[str, Any]:
    """Every rival's loss and accuracy on left-out votes, and how much worse each is than the joint model on the same votes."""
    draws = [leave_out(votes, unit, seed) for seed in range(DRAWS)]
    units = [unit(vote) for _, test in draws for vote in test]
    table: dict[str, Floats] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        chosen = tuned(RIVALS[name], draws[0][0], unit)
        start = time.perf_counter()
        scored = [losses(RIVALS[name].forecast(train, test, **chosen), test) for train, test in draws]
        table[name] = np.concatenate([loss for loss, _ in scored])
        right = np.concatenate([hit for _, hit in scored])
        found[name] = {
            "log_loss": rounded(bootstrap_mean(table[name], groups=units)),
            "accuracy": rounded(bootstrap_mean(right, groups=units)),
            "worse_than_joint": rounded(bootstrap_mean(table[name] - table["joint"], groups=units)),
            "chosen": chosen,
            "seconds_a_fit": round((time.perf_counter() - start) / DRAWS, 2),
        }
        print(f"{name:32s} {table[name].mean():.4f}  right {right.mean():.3f}", flush=True)
    return {"held_out_votes": len(units) // DRAWS, "draws": DRAWS, "models": found}


def soft_labels(votes: Sequence[Choice]) -> dict[str, Any]:
    """Two soft labels for a pair, against the left-out votes that took a side: the trust-weighted mean of the other votes, as in a dataset, and how
    likely the joint model makes it that the next voter who takes a side takes the first's."""
    mean, posterior, taken = [], [], []
    for seed in range(DRAWS):
        train, test = leave_out(votes, pair_of, seed)
        found = fit(gather(train, [], [], []))
        trust = {who: max(0.02, found.skill_of(who).trust) for who in found.model.evidence.annotators}
        weight: dict[tuple[str, str], float] = defaultdict(float)
        firsts: dict[tuple[str, str], float] = defaultdict(float)
        for vote in train:
            weight[pair_of(vote)] += trust[vote.annotator]
            firsts[pair_of(vote)] += trust[vote.annotator] / (1 + 3.0**-vote.choice)
        place = {name: i for i, name in enumerate(found.model.evidence.samples)}
        sided = [vote for vote in test if vote.choice]
        belief = found.rewards.pairs(np.array([place[vote.first] for vote in sided]), np.array([place[vote.second] for vote in sided]))
        chances = np.mean([found.probabilities(vote.annotator, belief, np.ones(len(sided))) for vote in random.Random(seed).sample(train, VOTERS)], axis=0)
        posterior += (chances[:, 0] / (chances[:, 0] + chances[:, 2])).tolist()
        mean += [(firsts[pair_of(vote)] + 0.05) / (weight[pair_of(vote)] + 0.1) for vote in sided]
        taken += [(pair_of(vote), vote.choice > 0) for vote in sided]
    groups = [pair for pair, _ in taken]
    return {
        name: rounded(bootstrap_mean([-np.log(p if first else 1 - p) for p, (_, first) in zip(found, taken, strict=True)], groups=groups))
        for name, found in (("mean_of_votes", mean), ("joint_posterior", posterior))
    }


def crowd(votes: Sequence[Choice]) -> dict[str, Any]:
    """Alpha and trust as `truing quality` gives them."""
    said = [Said("|".join(pair_of(vote)), vote.annotator, Kind.PAIR, pair_of(vote), {"strength": vote.choice}, (0, 1)) for vote in votes]
    people = [Who(who, f"worker {who}", "human") for who in sorted({vote.annotator for vote in votes})]
    found = assess(Log(said, {}, people, 0, 0), QualitySettings())
    least = [
        {"name": one.name, "n": one.n, "trust": [round(x, 3) for x in (one.trust, one.trust_low, one.trust_high)],
         "agreement": round(one.agreement, 3), "left": round(one.side_bias, 3), "ties": round(one.tie_rate, 3)}
        for one in found.annotators[:12]
    ]  # fmt: skip
    return {
        "alpha": rounded(found.alpha),
        "alpha_trusted": rounded(found.alpha_trusted),
        "annotators": len(people),
        "trust_surely_below_0.3": sum(one.trust_high < 0.3 for one in found.annotators),
        "least_trusted": least,
    }


def fit_seconds(judgements: int, annotators: int, seed: int = 0) -> dict[str, Any]:
    """How long the joint model takes for made-up judgements of pairs with strengths, three to a pair, three responses to a prompt."""
    draw = np.random.default_rng(seed)
    reward, skill = draw.normal(size=judgements // 3), np.exp(0.6 * draw.normal(size=annotators)) * 2
    said = []
    for _ in range(judgements // 3):
        a, b = (int(place) for place in 3 * draw.integers(len(reward) // 3) + draw.choice(3, 2, replace=False))
        for who in draw.choice(annotators, 3, replace=False):
            strength = int(np.clip(np.round((skill[who] * (reward[a] - reward[b]) + draw.logistic()) / 1.5), -3, 3))
            said.append(Choice(f"w{who}", f"s{a}", f"s{b}", int(np.sign(strength)), int(draw.choice((1, -1))), abs(strength)))
    start, busy = time.perf_counter(), time.process_time()
    fit(gather(said, [], [], []))
    spent = {"seconds": round(time.perf_counter() - start, 2), "cpu_seconds": round(time.process_time() - busy, 2)}
    return {"judgements": len(said), "annotators": annotators} | spent


def rounded(interval: Interval) -> dict[str, Any]:
    """Four digits of each number."""
    return {"value": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4), "n": interval.n}


def circumstances() -> dict[str, Any]:
    """Machine, date and versions."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "scipy", "crowd-kit")} | {"python": platform.python_version()}
    return {"machine": {"cpu": cpu, "cores": os.cpu_count()}, "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(), "versions": versions}


def main() -> None:
    """Play, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("llmfao", type=Path, help="crowd-comparisons.csv")
    parser.add_argument("finegrained", type=Path, help="dev_feedback.json")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    votes = read_llmfao(arguments.llmfao)
    found = circumstances() | {"seeds": list(range(DRAWS)), "fit": fit_seconds(20_000, 200)}
    found["llmfao"] = crowd(votes) | play(votes, pair_of, list(RIVALS)) | {"soft_label_log_loss": soft_labels(votes)}
    print("")
    one_person = ["joint", "majority of the pair", "bradley-terry of answers"]
    found["finegrained"] = play(read_finegrained(arguments.finegrained), question_of, one_person)
    text = json.dumps(found)
    (arguments.out / f"studio-trust-crowds-{found['date']}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
