"""What others would say: Dawid-Skene, MACE and Krippendorff's alpha of crowd-kit, beside our own numbers.

They know choices alone: no strengths, sides, ratings or rewards that responses share. Where they and the joint model differ much on somebody, look at what
that person answered.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from truing.feedback.said import Vote, by_annotator

ROUNDS_OF_DAWID_SKENE, STARTS_OF_MACE = 50, 3


def second_opinion(votes: Sequence[Vote], annotators: Sequence[str], trust: Mapping[str, float]) -> dict[str, Any]:
    """Each annotator as seen by Dawid & Skene 1979 (doi:10.2307/2346806) and by MACE (Hovy et al. 2013, N13-1132).

    NumPy's global generator is left as it was, whatever the library does with it.

    Args:
        votes:      at most one for each annotator and unit.
        annotators: whom to speak of.
        trust:      the weight of each one's vote in the consensus.

    Returns:
        {"alpha": crowd-kit's nominal alpha or None,
         "annotators": [{"id", "dawid_skene": how often they give the true label, "mace": how often they look, both in [0, 1] or None without votes,
                         "agrees_dawid_skene", "agrees_mace": how often they gave the label that method settles on}],
         "consensus_dawid_skene", "consensus_mace": share of units on which the method's label is the side of our trust-weighted vote}.
    """
    if not votes:
        nothing = {"dawid_skene": None, "mace": None, "agrees_dawid_skene": None, "agrees_mace": None}
        return {"alpha": None, "annotators": [{"id": who, **nothing} for who in annotators], "consensus_dawid_skene": None, "consensus_mace": None}
    with numpy_left_alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # crowd-kit calls pandas in ways that pandas is about to drop
        labels, skills, alpha = _ask(votes)
    ours, cast = _consensus(votes, trust), by_annotator(votes)
    rows = [
        {"id": who, **{name: skills[name].get(who) for name in labels},
         **{f"agrees_{name}": _agrees(cast.get(who, ()), found) for name, found in labels.items()}}
        for who in annotators
    ]  # fmt: skip
    shared = {f"consensus_{name}": float(np.mean([found[unit] == side for unit, side in ours.items()])) for name, found in labels.items()}
    return {"alpha": alpha, "annotators": rows, **shared}


@contextmanager
def numpy_left_alone() -> Iterator[None]:
    """NumPy's global generator is afterwards as it was before."""
    state = np.random.get_state()  # crowd-kit's models reseed it
    try:
        yield
    finally:
        np.random.set_state(state)


def _ask(votes: Sequence[Vote]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]], float | None]:
    """Labels by unit and skills by annotator, of each method; and alpha."""
    import pandas as pd  # these take seconds to import
    from crowdkit.aggregation import MACE, DawidSkene
    from crowdkit.metrics.data import alpha_krippendorff

    frame = pd.DataFrame([(vote.unit, vote.annotator, vote.choice) for vote in sorted(votes)], columns=["task", "worker", "label"])
    dawid_skene = DawidSkene(n_iter=ROUNDS_OF_DAWID_SKENE).fit(frame)
    mace = MACE(n_restarts=STARTS_OF_MACE).fit(frame)
    labels = {
        "dawid_skene": {str(unit): int(label) for unit, label in dawid_skene.labels_.items()},
        "mace": {str(unit): int(label) for unit, label in mace.labels_.items()},
    }
    looking = np.asarray(mace.spamming_)[:, 1]
    workers = list(pd.factorize(frame["worker"])[1])
    skills = {
        "dawid_skene": _accuracy(dawid_skene.probas_, frame),
        "mace": {str(who): float(share) for who, share in zip(workers, looking, strict=True)},
    }
    repeated = frame.groupby("task").size().max() > 1 and frame["label"].nunique() > 1
    alpha = float(alpha_krippendorff(frame)) if repeated else math.nan
    return labels, skills, None if math.isnan(alpha) else alpha


def _accuracy(probabilities: Any, frame: Any) -> dict[str, float]:
    """How often each gave the true label, as far as Dawid-Skene knows it."""
    right: dict[str, list[float]] = {}
    table = probabilities.to_dict("index")
    for task, worker, label in frame.itertuples(index=False):
        right.setdefault(str(worker), []).append(float(table[task].get(label, 0.0)))
    return {who: float(np.mean(found)) for who, found in right.items()}


def _consensus(votes: Sequence[Vote], trust: Mapping[str, float]) -> dict[str, int]:
    """The side with more trust behind it, of the units that have one."""
    leaning: dict[str, float] = {}
    for vote in sorted(votes):
        leaning[vote.unit] = leaning.get(vote.unit, 0.0) + vote.choice * trust[vote.annotator]
    return {unit: 1 if lean > 0 else -1 for unit, lean in leaning.items() if abs(lean) > 1e-9}


def _agrees(cast: Sequence[Vote], labels: Mapping[str, int]) -> float | None:
    """How often somebody with these votes gave the label."""
    return float(np.mean([vote.choice == labels[vote.unit] for vote in cast])) if cast else None
