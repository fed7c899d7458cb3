"""What leans the choice: length, position, markdown, refusal and warmth, in what the reward prefers and in what people preferred on the same pairs.

A reward that likes long answers may have learned it from people who do. So both are asked in the same way: one logistic fit each, on the differences of all
attributes at once, people's to what their judgements say of a pair, the reward's to the probabilities that follow from its scores. A reward that is
calibrated given these attributes has people's slopes; the difference is its own.

Shapes: N pairs, K attributes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from truing.reward.card.calibration import chances
from truing.reward.probe.attributes import ATTRIBUTES, Case
from truing.reward.train_pairs import Row
from truing.stats import Interval, bootstrap, plain
from truing.store.ids import seed_from
from truing.store.judgements import batches
from truing.store.project import Project
from truing.store.tables import Judgement, Question

Floats = NDArray[np.float64]

LEANINGS: dict[str, tuple[str, Callable[[Case], float]]] = {
    "length": ("twice as many words", lambda case: float(np.log2(1 + ATTRIBUTES["words"].measure(case)))),
    "markdown": ("has markdown or a list", lambda case: float(ATTRIBUTES["markdown"].measure(case) + ATTRIBUTES["list_lines"].measure(case) > 0)),
    "refusal": ("has a refusal", ATTRIBUTES["refusal"].measure),
    "warmth": ("one point warmer, of two", ATTRIBUTES["warmth"].measure),
}
"""Attribute → what one unit of it is, and its measure."""

POSITION = "position"
FEWEST = 10  # pairs that differ in an attribute, without which nothing is said of it
PRIOR_PRECISION = 0.01  # of a slope: N(0, 10^2) holds those that the pairs would send to infinity
RESAMPLES = 300


def slopes(rows: Sequence[Row], margins: Sequence[float], sides: Mapping[str, float], *, seed: int) -> list[dict[str, Any]]:
    """Log-odds of being preferred for a unit more of each attribute, the others held where they are.

    Args:
        rows: held-out lines of pairs.jsonl.
        margins: (N,) log-odds by the scores that a is preferred.
        sides: question id → where a stood, from -1 (always on the right) to 1 (always on the left); absent where nobody knows.

    Returns:
        rows of name, unit, and people, reward, difference (the reward's less people's): intervals over prompts, n pairs that differ in it. The intervals are
        None for an attribute in which fewer than `FEWEST` pairs differ.
    """
    names, table = _differences(rows, sides)
    differ = (table != 0).sum(0)
    kept = np.flatnonzero(differ >= FEWEST)
    said, guessed = np.array([row["target"] for row in rows], dtype=np.float64), chances(margins)
    units = {name: unit for name, (unit, _) in LEANINGS.items()} | {POSITION: "stood on the left"}
    prompts = [row["prompt_id"] for row in rows]
    fits = {"people": said, "reward": guessed} if len(kept) else {}
    both = _bootstrapped(table[:, kept], fits, prompts, seed) if fits else []
    found: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        n = int(differ[place])
        row: dict[str, Any] = {"name": name, "unit": units[name], "n": n, "people": None, "reward": None, "difference": None}
        if place in kept:
            row |= {key: plain(value._replace(n=n)) for key, value in both[int(np.flatnonzero(kept == place)[0])].items()}
        found.append(row)
    return found


def _differences(rows: Sequence[Row], sides: Mapping[str, float]) -> tuple[list[str], Floats]:
    """(N, K) of each attribute, a's less b's. A pair whose sides nobody knows stands in the middle."""
    cases = [[Case(row["prompt_id"], row["turns"], row[side]["text"], row[side]["finished"]) for side in ("a", "b")] for row in rows]
    columns = [[measure(a) - measure(b) for a, b in cases] for _, measure in LEANINGS.values()]
    columns.append([sides.get(row["question_id"], 0.0) for row in rows])
    return [*LEANINGS, POSITION], np.array(columns, dtype=np.float64).reshape(len(columns), len(rows)).T


def _bootstrapped(table: Floats, fits: Mapping[str, Floats], prompts: Sequence[str], seed: int) -> list[dict[str, Interval]]:
    """Of each attribute: people's slope, the reward's, and the reward's less people's."""
    remembered: dict[bytes, dict[str, Floats]] = {}

    def found(rows: NDArray[np.intp]) -> dict[str, Floats]:
        key = rows.tobytes()
        if key not in remembered:  # the same resamples come by for every attribute
            both = {name: logistic_slopes(table[rows], y[rows]) for name, y in fits.items()}
            remembered[key] = both | {"difference": both["reward"] - both["people"]}
        return remembered[key]

    def about(name: str, place: int) -> Interval:
        return bootstrap(lambda rows: float(found(rows)[name][place]), prompts, seed=seed_from(seed, "slopes"), resamples=RESAMPLES)

    return [{name: about(name, place) for name in ("people", "reward", "difference")} for place in range(table.shape[1])]


def logistic_slopes(x: Floats, y: Floats) -> Floats:
    """(K,) slopes without an intercept of y in [0, 1] on (N, K) x, by Newton's steps, under a wide prior. Swapping the two responses of a pair, which turns
    x over and y into 1 - y, changes nothing."""
    slope = np.zeros(x.shape[1])
    for _ in range(50):
        p = chances(x @ slope)
        gradient = x.T @ (p - y) + PRIOR_PRECISION * slope
        hessian = (x * (p * (1 - p))[:, None]).T @ x + PRIOR_PRECISION * np.eye(len(slope))
        change = np.linalg.solve(hessian, gradient)
        slope = slope - change * min(1.0, 5 / max(float(np.abs(change).max()), 1e-300))
        if np.abs(change).max() < 1e-7:
            break
    return slope


def sides_shown(project: Project, rows: Sequence[Row]) -> dict[str, float]:
    """Where a stood on the screen, in the mean over a pair's judgements: 1 on the left, -1 on the right. A pair of which nobody knows it is absent."""
    ids = sorted({judgement["id"] for row in rows for judgement in row["judgements"]})
    left: dict[str, float] = {}
    with project.database.read() as session:
        for some in batches(ids):
            query = select(Judgement.id, Judgement.order_shown, Question.kind, Question.facts).join(Question, Question.id == Judgement.question_id)
            for row in session.execute(query.where(Judgement.id.in_(some))):
                if row.kind == "pair" and len(row.order_shown) == 2 and row.facts.get("order_shown") != "unknown":
                    left[row.id] = 1.0 if row.order_shown[0] == 0 else -1.0
    known = {row["question_id"]: [left[judgement["id"]] for judgement in row["judgements"] if judgement["id"] in left] for row in rows}
    return {question: sum(stood) / len(stood) for question, stood in known.items() if stood}
