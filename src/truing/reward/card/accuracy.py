"""How often the scores side with people: in all, by stratum, beside how often people side with each other, and beside rules that read nothing."""

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any, NamedTuple

import numpy as np

from truing.artifacts import Artifact
from truing.reward.train_pairs import Row
from truing.stats import Interval, bootstrap_mean, plain, takes_side
from truing.store.ids import seed_from

Scores = Sequence[tuple[float, float]]  # of a and b of each row

RULES: dict[str, Callable[[Row], float]] = {
    "the longer answer": lambda side: float(len(side["text"])),
    "the shorter answer": lambda side: -float(len(side["text"])),
}
"""What could be preferred without reading: rule → a response's score by it. Length is in characters."""

RESAMPLES = 1000  # of every interval here: there are some fifty, and a model is fitted often
PEOPLE = ("one person", "two people", "three or more")
STEPS = ((1.0, "one step or less"), (2.0, "over one step, up to two"), (math.inf, "over two steps"))


class Trial(NamedTuple):
    """One comparison: 1 where right, 0 where wrong, 1/2 where undecided, with the prompt that it is about and the stratum it falls into."""

    right: float
    prompt: str
    stratum: str = ""


# ---- in all ----


def majority_accuracy(rows: Sequence[Row], scores: Scores, *, seed: int = 0) -> Interval:
    """Share of rows where the response that the judgements prefer scores higher; rows without a preference are left out, equal scores count half.

    Args:
        rows: lines of pairs.jsonl.
        scores: of a and b of each.

    Returns:
        an interval drawn over prompts; n is the number of prompts.
    """
    return _mean_by_prompt(_majority(rows, scores), seed)


def judged_accuracy(rows: Sequence[Row], scores: Scores, annotators: Collection[str] | None = None, *, seed: int = 0) -> Interval:
    """Share of single judgements with which the scores agree; ties of a person are left out, equal scores count half.

    Args:
        rows: lines of pairs.jsonl.
        scores: of a and b of each.
        annotators: ids of those whose judgements count; None: everyone's.

    Returns:
        an interval drawn over prompts; n is the number of judgements.
    """
    trials = _judged(rows, scores, lambda row, judgement: "" if annotators is None or judgement["annotator_id"] in annotators else None)
    return _mean_by_prompt(trials, seed)._replace(n=len(trials))


def human_agreement(rows: Sequence[Row], *, seed: int = 0) -> Interval:
    """How often two people who both preferred a response of the same pair preferred the same one: what a reward model can hope for.

    Returns:
        an interval drawn over prompts; n is the number of couples of judgements. nan without overlap.
    """
    trials = [Trial(right(one["strength"], other["strength"]), row["prompt_id"]) for row in rows for one, other in combinations(_of_two(row), 2)
              if one["annotator_id"] != other["annotator_id"]]  # fmt: skip
    return _mean_by_prompt(trials, seed)._replace(n=len(trials))


def beside_rules(rows: Sequence[Row], scores: Scores, *, seed: int = 0) -> list[dict[str, Any]]:
    """Each of `RULES` on the same pairs, and by how much the scores are right more often.

    Returns:
        rows of `rule`, `accuracy` (an interval over prompts) and `lead` (of the differences pair by pair).
    """
    decided = [place for place, row in enumerate(rows) if takes_side(row["target"])]
    ours = _majority(rows, scores)
    found = []
    for name, rule in RULES.items():
        theirs = _majority([rows[place] for place in decided], [(rule(rows[place]["a"]), rule(rows[place]["b"])) for place in decided])
        lead = [Trial(one.right - other.right, one.prompt) for one, other in zip(ours, theirs, strict=True)]
        found.append({"rule": name, "accuracy": plain(_mean_by_prompt(theirs, seed)), "lead": plain(_mean_by_prompt(lead, seed))})
    return found


# ---- by stratum ----


def strata(train: Sequence[Row], held_out: Sequence[Row], scores: Scores, kinds: Mapping[str, str], *, seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Accuracy and ceiling by how many people judged a pair, by how strongly, and by the kind of question they were asked.

    By strength, a single judgement falls where its own strength lies, so that the scores and other people are asked to foresee the same judgements.

    Args:
        kinds: question id of said.jsonl → kind; empty where nobody knows.

    Returns:
        annotators, strength, kind → rows of `stratum`; `accuracy` on what a pair's judgements come to, `judged` with single judgements, `ceiling` of two
        people with each other, on train pairs too. Each an interval over prompts, with n pairs, judgements, couples.
    """
    levels: dict[str, tuple[Callable[[Row], str | None], Callable[[Row, Row], str | None], Sequence[str]]] = {
        "annotators": (_people, lambda row, judgement: _people(row), PEOPLE),
        "strength": (lambda row: step(row["strength"]), lambda row, judgement: step(judgement["strength"]), [words for _, words in STEPS]),
        "kind": (lambda row: kind_of(row, kinds), lambda row, judgement: kind_of(row, kinds), sorted(set(kinds.values()))),
    }
    found = {}
    for name, (of_row, of_judgement, order) in levels.items():
        trials = {
            "accuracy": _majority(held_out, scores, of_row),
            "judged": _judged(held_out, scores, of_judgement),
            "ceiling": _couples([*train, *held_out], of_judgement),
        }
        rows = [(stratum, {key: plain(_within(some, stratum, seed)) for key, some in trials.items()}) for stratum in order]
        found[name] = [{"stratum": stratum, **cells} for stratum, cells in rows if cells["accuracy"]["n"] or cells["judged"]["n"]]
    return found


def step(strength: float) -> str:
    """Which of `STEPS` a strength falls into, whatever its side."""
    return next(words for most, words in STEPS if abs(strength) <= most)


def kind_of(row: Row, kinds: Mapping[str, str]) -> str | None:
    """The kind of question that a line of pairs.jsonl came from; None where nobody knows. preferences.py says how its id is made of theirs."""
    name = str(row["question_id"])
    return next((kinds[part] for part in (name, name.split("+")[0], name.split("/")[0]) if part in kinds), None)


def question_kinds(dataset: Artifact) -> dict[str, str]:
    """Question id → kind, as said.jsonl of a dataset has them; empty where the dataset is older than that file."""
    file = dataset.path / "said.jsonl"
    if not file.exists():
        return {}
    with file.open(encoding="utf-8") as lines:
        return {row["question_id"]: row["kind"] for row in map(json.loads, lines)}


def _people(row: Row) -> str:
    return PEOPLE[min(row["n_annotators"], len(PEOPLE)) - 1]


def _within(trials: Sequence[Trial], stratum: str, seed: int) -> Interval:
    mine = [trial for trial in trials if trial.stratum == stratum]
    return _mean_by_prompt(mine, seed)._replace(n=len(mine))


# ---- trials ----


def _majority(rows: Sequence[Row], scores: Scores, stratum: Callable[[Row], str | None] = lambda row: "") -> list[Trial]:
    return [
        Trial(right(a - b, row["target"] - 0.5), row["prompt_id"], stratum(row) or "")
        for row, (a, b) in zip(rows, scores, strict=True)
        if takes_side(row["target"])
    ]  # fmt: skip


def _judged(rows: Sequence[Row], scores: Scores, stratum: Callable[[Row, Row], str | None]) -> list[Trial]:
    """A judgement without a stratum is left out."""
    found = []
    for row, (a, b) in zip(rows, scores, strict=True):
        for judgement in _of_two(row):
            if (place := stratum(row, judgement)) is not None:
                found.append(Trial(right(a - b, judgement["strength"]), row["prompt_id"], place))
    return found


def _couples(rows: Sequence[Row], stratum: Callable[[Row, Row], str | None]) -> list[Trial]:
    """Each judgement with each other person's of the same pair: does the other foresee it?"""
    return [
        Trial(right(one["strength"], other["strength"]), row["prompt_id"], stratum(row, one) or "")
        for row in rows
        for one, other in permutations(_of_two(row), 2)
        if one["annotator_id"] != other["annotator_id"]
    ]  # fmt: skip


def _of_two(row: Row) -> list[Row]:
    """The judgements of a pair that take a side. A thumb is about one of the two responses, so that it neither takes a side nor agrees with another's."""
    return [] if _of_thumbs(row) else [judgement for judgement in row["judgements"] if judgement["strength"] != 0]


def _of_thumbs(row: Row) -> bool:
    """Whether a line of pairs.jsonl came from thumbs: of two questions, like one from ratings, but each of its judgements is about one of them."""
    return "+" in str(row["question_id"]) and not any("+" in str(judgement["id"]) for judgement in row["judgements"])


def right(margin: float, label: float) -> float:
    """1 where both have one sign, 0 where not, 1/2 where the margin is 0."""
    return (1 + float(np.sign(margin) * np.sign(label))) / 2


def _mean_by_prompt(trials: Sequence[Trial], seed: int) -> Interval:
    return bootstrap_mean([trial.right for trial in trials], groups=[trial.prompt for trial in trials], seed=seed_from(seed, "card"), resamples=RESAMPLES)


# ---- for JSON ----
