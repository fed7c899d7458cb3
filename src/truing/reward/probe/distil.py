"""An interpretable student of a reward model: a ridge and a shallow tree that foresee its scores from named attributes.

How well they do on prompts they never saw says how much of the reward model these attributes are; what they say is what it looks at, as far as
samples can tell: attributes that come together share the credit. Shapes: N samples, A attributes, P prompts.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from truing.reward.probe.attributes import said
from truing.stats import Interval, bootstrap, bootstrap_mean, plain
from truing.store.ids import seed_from

Floats = NDArray[np.float64]

FOLDS = 5
ALPHAS = tuple(float(strength) for strength in 10.0 ** np.arange(-1, 4.5, 0.5))
DEPTH = 3
SHOWN = 4  # samples told of each kind that the student explains worst
RESAMPLES = 500


class Student(NamedTuple):
    """What the students found.

    Attributes:
        facts: JSON values: fidelity, coefficients, the tree, the samples explained worst.
        expected: (N,) scores that the ridge foresaw for samples of prompts it hadn't seen.
        slope_per_word: score per word, everything else equal; 0 where length never varies.
    """

    facts: dict[str, Any]
    expected: list[float]
    slope_per_word: float


Step = tuple[str, str, float]  # attribute, "at most" or "more than", border
Foresee = Callable[[Floats], Floats]  # (N, A) attributes → (N,) scores


def distil(names: Sequence[str], rows: Sequence[Sequence[float]], scores: Sequence[float], prompts: Sequence[str], *, seed: int) -> Student:
    """Fit both students and measure them on prompts left out.

    Args:
        names: A attributes.
        rows: (N, A).
        scores: (N,) of the reward model.
        prompts: (N,) the prompt of each; at least two different ones.
        seed: of the bootstraps.

    Raises:
        ValueError: fewer than two prompts.
    """
    if len(set(prompts)) < 2:
        raise ValueError("a student is measured on prompts that it didn't learn from: two are the least")
    table, y = np.asarray(rows, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    varies = table.std(axis=0) > 1e-12
    x, kept = table[:, varies], [name for name, moves in zip(names, varies, strict=True) if moves]
    splits = _splits(prompts)
    alpha = _strength(x, y, splits)
    expected = _held_out(x, y, splits, _by_ridge(alpha))
    tree_expected = _held_out(x, y, splits, _by_tree)
    weights = ridge(x, y, alpha)[1]
    facts = {
        "n": len(y), "n_prompts": len(set(prompts)), "alpha": alpha, "folds": len(splits), "constant": [name for name in names if name not in kept],
        "ridge": {
            "r2": plain(r_squared(y, expected, prompts, seed=seed_from(seed, "ridge"))),
            "coefficients": _coefficients(kept, x, y, prompts, alpha, seed_from(seed, "coefficients")),
        },
        "tree": {"r2": plain(r_squared(y, tree_expected, prompts, seed=seed_from(seed, "tree"))), "rules": _rules(kept, x, y, prompts, seed)},
        "worst": _worst(y, expected),
    }  # fmt: skip
    slope = float(weights[kept.index("words")]) if "words" in kept else 0.0
    return Student(facts, expected.tolist(), slope)


def r_squared(scores: Sequence[float] | Floats, expected: Sequence[float] | Floats, prompts: Sequence[str], *, seed: int) -> Interval:
    """1 - squared error over squared distance from the mean: 1 is perfect, 0 no better than the mean, below 0 worse.

    Returns:
        the value with a percentile bootstrap interval over prompts, n of them; nan where the scores don't vary.
    """
    y, found = np.asarray(scores, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    return bootstrap(lambda rows: _r_squared(y[rows], found[rows]), prompts, seed=seed, resamples=RESAMPLES)


def _r_squared(y: Floats, found: Floats) -> float:
    around = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - found) ** 2).sum()) / around if around > 1e-12 else float("nan")


# ---- fits ----


def ridge(x: Floats, y: Floats, alpha: float) -> tuple[float, Floats]:
    """The ridge on attributes standardised on these very rows (Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634).

        min over w of |y - mean(y) - Z w|^2 + alpha |w|^2,    Z = (x - mean) / sd

    Args:
        x: (N, A). y: (N,). alpha: > 0.

    Returns:
        the score at attributes of 0; (A,) score per unit of each. An attribute that doesn't vary here counts for nothing.
    """
    centre, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 1e-12, spread, np.inf)
    z = (x - centre) / scale
    weights: Floats = np.linalg.solve(z.T @ z + alpha * np.eye(x.shape[1]), z.T @ (y - y.mean())) / scale
    return float(y.mean() - centre @ weights), weights


def _by_ridge(alpha: float) -> Callable[[Floats, Floats], Foresee]:
    """What lies beyond the values that were learned from, and beyond 3 standard deviations, counts as the furthest of them: a slope through a single emoji says
    nothing of a row of twenty."""

    def fit(x: Floats, y: Floats) -> Foresee:
        start, weights = ridge(x, y, alpha)
        centre, reach = x.mean(axis=0), 3 * x.std(axis=0)
        least, most = np.minimum(x.min(axis=0), centre - reach), np.maximum(x.max(axis=0), centre + reach)
        return lambda new: np.asarray(np.clip(new, least, most) @ weights + start, dtype=np.float64)

    return fit


def _by_tree(x: Floats, y: Floats) -> Foresee:
    foresee: Foresee = _fitted_tree(x, y).predict
    return foresee


def _fitted_tree(x: Floats, y: Floats) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    return DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=max(5, len(y) // 20), random_state=0).fit(x, y)


def _strength(x: Floats, y: Floats, splits: Sequence[tuple[Any, Any]]) -> float:
    """The strength of the ridge that foresees left-out prompts best; of equal ones the strongest."""
    errors = {alpha: float(np.square(y - _held_out(x, y, splits, _by_ridge(alpha))).sum()) for alpha in ALPHAS}
    return min(reversed(ALPHAS), key=errors.__getitem__)


def _held_out(x: Floats, y: Floats, splits: Sequence[tuple[Any, Any]], fit: Callable[[Floats, Floats], Foresee]) -> Floats:
    """(N,) what fits that left a sample's prompt out foresee for it."""
    expected = np.empty(len(y))
    for learn, test in splits:
        expected[test] = fit(x[learn], y[learn])(x[test])
    return expected


def _splits(prompts: Sequence[str]) -> list[tuple[Any, Any]]:
    from sklearn.model_selection import GroupKFold

    return list(GroupKFold(min(FOLDS, len(set(prompts)))).split(np.zeros(len(prompts)), groups=list(prompts)))


def _resampled(prompts: Sequence[str], seed: int) -> Iterator[Any]:
    """Row numbers of bootstrap samples of whole prompts."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    groups, generator = [np.array(found) for found in rows.values()], np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield np.concatenate([groups[place] for place in generator.integers(0, len(groups), len(groups))])


# ---- what they say ----


def _coefficients(names: Sequence[str], x: Floats, y: Floats, prompts: Sequence[str], alpha: float, seed: int) -> list[dict[str, Any]]:
    """Score per standard deviation of each attribute, with an interval over prompts, the largest first; how large a standard deviation is stands beside it."""
    spread = x.std(axis=0)
    draws = np.array([ridge(x[rows], y[rows], alpha)[1] * spread for rows in _resampled(prompts, seed)])  # (B, A)
    value = ridge(x, y, alpha)[1] * spread
    low, high = np.quantile(draws, [0.025, 0.975], axis=0) if len(names) else (value, value)
    n = len(set(prompts))
    rows = [
        {"attribute": name, "said": said(name), "sd": float(spread[a]), "effect": plain(Interval(float(value[a]), float(low[a]), float(high[a]), n))}
        for a, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -abs(row["effect"]["value"]))


def _rules(names: Sequence[str], x: Floats, y: Floats, prompts: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """The tree's leaves in words: the way to each, its mean score with an interval over its prompts, and how many samples it holds."""
    fitted = _fitted_tree(x, y)
    leaf_of = fitted.apply(x)
    found = []
    answers = {name for name, column in zip(names, x.T, strict=True) if set(column.tolist()) <= {0.0, 1.0}}
    for leaf, way in _leaves(fitted.tree_, names):
        rows = np.flatnonzero(leaf_of == leaf).tolist()
        mean = bootstrap_mean(y[rows], groups=[prompts[row] for row in rows], seed=seed_from(seed, "leaf", int(leaf)))
        found.append({"conditions": _in_words(way, answers), "score": plain(mean), "n": len(rows)})
    return sorted(found, key=lambda row: -row["score"]["value"])


def _leaves(tree: Any, names: Sequence[str], node: int = 0, way: tuple[Step, ...] = ()) -> Iterator[tuple[int, tuple[Step, ...]]]:
    if tree.children_left[node] < 0:
        yield node, way
        return
    name, border = names[tree.feature[node]], float(tree.threshold[node])
    yield from _leaves(tree, names, tree.children_left[node], (*way, (name, "at most", border)))
    yield from _leaves(tree, names, tree.children_right[node], (*way, (name, "more than", border)))


def _in_words(way: Sequence[Step], answers: AbstractSet[str]) -> list[str]:
    """Each attribute's tightest bounds, once: "words more than 12", "words at most 40"; of one that is answered by yes or no, which of them."""
    bounds: dict[tuple[str, str], float] = {}
    for name, side, border in way:
        tighter = min if side == "at most" else max
        bounds[name, side] = tighter(bounds.get((name, side), border), border)
    return [
        f"{said(name)}: {'no' if side == 'at most' else 'yes'}" if name in answers else f"{said(name)} {side} {border:.3g}"
        for (name, side), border in bounds.items()
    ]


def _worst(y: Floats, expected: Floats) -> dict[str, list[dict[str, Any]]]:
    """The samples whose score the ridge missed most: by number, those scored higher and those scored lower than it foresaw."""
    missed = y - expected
    order = np.argsort(missed, kind="stable")
    rows = [{"sample": int(row), "score": float(y[row]), "expected": float(expected[row])} for row in order]
    return {
        "higher": [row for row in rows[::-1][:SHOWN] if row["score"] > row["expected"]],
        "lower": [row for row in rows[:SHOWN] if row["score"] < row["expected"]],
    }
