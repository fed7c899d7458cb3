"""A reward model on somebody's file of preferences: how often it scores the chosen response above the rejected, subset by subset.

Shapes: N rows, each a chosen response against one or several rejected ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from truing.artifacts import Artifact, load_artifact
from truing.errors import UserError
from truing.reward.lessons import said_rows
from truing.reward.score import Answer, Scorer
from truing.reward.scoring import ScoreBook, asks
from truing.reward.train_pairs import Row, read_rows
from truing.stats import Interval, bootstrap, bootstrap_mean, plain, wilson
from truing.store.conversations import Turn
from truing.store.ids import content_id, seed_from
from truing.store.project import Project
from truing.store.splits import normal_text
from truing.store.tables import Split

Floats = NDArray[np.float64]

GRADES = ("slightly", "moderately", "clearly")  # better: strengths 1, 2, 3


class Preferred(Protocol):
    """A response that was preferred to another one or to each of several; `feedback.chosen` reads them from files."""

    @property
    def turns(self) -> list[Turn]:
        """The conversation that both answer."""

    @property
    def chosen(self) -> str:
        """The response that was preferred."""

    @property
    def rejected(self) -> tuple[str, ...]:
        """Those that it was preferred to."""

    @property
    def subset(self) -> str:
        """The part of the file that it belongs to."""

    @property
    def strength(self) -> float:
        """By how much: 1 slightly to 3 clearly."""


class Measured(NamedTuple):
    """What came of the rows, (N,) each.

    Attributes:
        right: 1 where the chosen response scores highest, 0 where not, 1 over their number where several do.
        longer: the same of the number of characters in place of scores.
        margin: score of the chosen response less that of the best rejected one.
        loss: nats of surprise that the chosen one was chosen.
        prompts: an id of the conversation.
    """

    right: Floats
    longer: Floats
    margin: Floats
    loss: Floats
    prompts: list[str]


def evaluate_pairs(scorer: Scorer, rows: Sequence[Preferred], *, seed: int, nats: float | None = None, file: Path | None = None) -> dict[str, Any]:
    """Accuracy of a reward model on preferences that it hasn't seen.

    Args:
        scorer: whatever scores text.
        rows: at least one.
        seed: of the bootstraps.
        nats: log-odds that a difference of 1 in the score stands for; None where the scores aren't calibrated: then nothing is said of log loss.
        file: where scores are kept until all are there, so that an interrupted call goes on from them; None: nowhere.

    Returns:
        `subsets`, in the order of the rows, and `micro` (over all rows) with `accuracy`, `longer_wins`, `margin` and `log_loss` (None without `nats`),
        each an interval drawn over prompts, `pairs`, `prompts`, `ties` (rows with equal scores at the top, which count as a share) and `chance`, what a
        coin would get; `macro`, the mean of the subsets' accuracies, n their number; `grades`, the same by strength where rows differ in it; `sentence`.

    Raises:
        UserError: there is no row.
    """
    if not rows:
        raise UserError("there is no preference to measure on", fix="name a file of preferences that the reward model hasn't learned from")
    book = ScoreBook(asks(scorer), file)
    measured = _measured(rows, _scores(book, rows), 1.0 if nats is None else nats)
    book.done()
    subset_of, grade_of = [row.subset for row in rows], [GRADES[min(max(round(row.strength), 1), 3) - 1] for row in rows]

    def line(places: Sequence[int], label: str) -> dict[str, Any]:
        return _line([rows[place] for place in places], _some(measured, places), calibrated=nats is not None, seed=seed_from(seed, "eval", label))

    found: dict[str, Any] = {
        "subsets": [{"subset": name, **line(places, name)} for name, places in _places(subset_of)],
        "micro": line(range(len(rows)), ""),
        "macro": {name: _macro(values, subset_of, measured.prompts, seed) for name, values in (("accuracy", measured.right), ("longer_wins", measured.longer))},
        "grades": [{"grade": name, **line(places, name)} for name, places in _places(grade_of)] if len(set(grade_of)) > 1 else [],
    }
    return found | {"sentence": _sentence(found)}


def not_learned_from(project: Project, reward_id: str, rows: Sequence[Preferred]) -> list[Preferred]:
    """The rows whose conversations didn't begin as one that the reward model learned from, by the rule that keeps prompts held out.

    Raises:
        UserError: there were rows, and all of them did.
    """
    known = {_opening(row["turns"]) for fitted in _fitted(project, reward_id) for row in _learned_from(project, fitted)}
    left = [row for row in rows if _opening(row.turns) not in known]
    if rows and not left:
        raise UserError(
            f"all {len(rows)} preferences are about prompts that {reward_id} learned from: they can't tell how good it is",
            fix="name a file that it hasn't learned from, or another reward model with --model",
        )
    return left


def table(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The lines of a result for a terminal; `COLUMNS` stand above."""
    for row in found["subsets"]:
        yield _cells(row["subset"], row)
    for row in found["grades"]:
        yield _cells(f"preferred {row['grade']}", row)
    macro = found["macro"]
    if macro["accuracy"]["n"] > 1:
        yield f"mean of {macro['accuracy']['n']}", _percent(macro["accuracy"]), _percent(macro["longer_wins"]), "", "", "", "", ""
    yield _cells("all", found["micro"])


COLUMNS = ("subset", "right, %", "longer, %", "coin, %", "margin", "log loss", "pairs", "prompts")


def _opening(turns: Sequence[Mapping[str, str]]) -> str:
    """The first user turn as it counts for sameness."""
    return normal_text(next(turn["content"] for turn in turns if turn["role"] == "user"))


def _fitted(project: Project, reward_id: str) -> list[Artifact]:
    """A reward model that was fitted here, or those that are parts of it; one from outside was only measured on the project's judgements."""
    artifact = load_artifact(project.artifacts, reward_id)
    source = artifact.facts.get("source")
    if source == "combined":
        return [fitted for parent in artifact.parents if parent.startswith("reward-") for fitted in _fitted(project, parent)]
    return [] if source else [artifact]


def _learned_from(project: Project, fitted: Artifact) -> list[Row]:
    """Lines of what a reward model was fitted to: of pairs, or of judgements, of which some came to no pair."""
    dataset = next(load_artifact(project.artifacts, parent) for parent in fitted.parents if parent.startswith("dataset-"))
    told = said_rows(dataset) if fitted.manifest["settings"].get("learn_from") == "judgements" else []
    return [*read_rows(dataset)[0], *(row for row in told if row["split"] == Split.TRAIN)]


def _scores(book: ScoreBook, rows: Sequence[Preferred]) -> list[Floats]:
    """(1 + rejected,) of each row, the chosen response first."""
    flat = np.array(book([Answer(row.turns, text) for row in rows for text in (row.chosen, *row.rejected)], "scores"))
    return np.split(flat, np.cumsum([1 + len(row.rejected) for row in rows])[:-1])


def _measured(rows: Sequence[Preferred], scores: Sequence[Floats], nats: float) -> Measured:
    lengths = [np.array([len(text) for text in (row.chosen, *row.rejected)], dtype=np.float64) for row in rows]
    return Measured(
        np.array([credit(of_row) for of_row in scores]),
        np.array([credit(of_row) for of_row in lengths]),
        np.array([float(of_row[0] - of_row[1:].max()) for of_row in scores]),
        np.array([surprise(of_row * nats) for of_row in scores]),
        [content_id(row.turns) for row in rows],
    )


def credit(scores: Floats) -> float:
    """1 where the first score is the highest, 0 where another is, 1 / k where it shares the first place with k - 1 others.

    Args:
        scores: (1 + rejected,), the chosen response first.
    """
    return float(scores[0] == scores.max()) / int((scores == scores.max()).sum())


def surprise(logits: Floats) -> float:
    """-ln of the chance that the first is chosen among all, by Bradley and Terry and its extension to several (Luce 1959), in nats.

    Args:
        logits: (1 + rejected,), the chosen response first.
    """
    return float(np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[0])


def _some(measured: Measured, places: Sequence[int]) -> Measured:
    at = list(places)
    right, longer, margin, loss, prompts = measured
    return Measured(right[at], longer[at], margin[at], loss[at], [prompts[place] for place in at])


def _places(names: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Each name with the places where it stands, in the order of their first."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return list(found.items())


def _line(rows: Sequence[Preferred], measured: Measured, *, calibrated: bool, seed: int) -> dict[str, Any]:
    prompts = measured.prompts

    def interval(values: Floats) -> Interval:
        return bootstrap_mean(values, groups=prompts, seed=seed)

    return {
        "accuracy": plain(_never_certain(interval(measured.right))._replace(n=len(rows))),
        "longer_wins": plain(_never_certain(interval(measured.longer))._replace(n=len(rows))),
        "margin": plain(interval(measured.margin)._replace(n=len(rows))),
        "log_loss": plain(interval(measured.loss)._replace(n=len(rows))) if calibrated else None,
        "chance": float(np.mean([1 / (1 + len(row.rejected)) for row in rows])),
        "ties": int(((measured.right > 0) & (measured.right < 1)).sum()),
        "pairs": len(rows),
        "prompts": len(set(prompts)),
    }


def _never_certain(share: Interval) -> Interval:
    """The interval; of a share of all or none, where a bootstrap sees no doubt at all, Wilson's over the prompts."""
    return wilson(share.value * share.n, share.n) if share.value in (0, 1) else share


def _macro(values: Floats, subset_of: Sequence[str], prompts: Sequence[str], seed: int) -> dict[str, Any]:
    """Mean of the subsets' means, an interval drawn over prompts; n is the number of subsets."""
    code = {name: place for place, name in enumerate(dict.fromkeys(subset_of))}
    codes = np.array([code[name] for name in subset_of])

    def mean_of_means(places: NDArray[np.intp]) -> float:
        counts = np.bincount(codes[places], minlength=len(code))
        sums = np.bincount(codes[places], values[places], minlength=len(code))
        return float((sums[counts > 0] / counts[counts > 0]).mean())

    return plain((_never_certain(bootstrap(mean_of_means, prompts, seed=seed_from(seed, "eval", "macro"))))._replace(n=len(code)))


def _sentence(found: Mapping[str, Any]) -> str:
    micro, macro = found["micro"], found["macro"]["accuracy"]
    several = f"; {_share(macro)} in the mean of {macro['n']} subsets" if macro["n"] > 1 else ""
    right = f"Right on {_share(micro['accuracy'])} of {micro['pairs']} pairs ({micro['prompts']} prompts){several}."
    return f"{right} Whoever takes the longer response is right on {_share(micro['longer_wins'])}."


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    loss = row["log_loss"]
    return (
        name, _percent(row["accuracy"]), _percent(row["longer_wins"]), f"{100 * row['chance']:.0f}", _number(row["margin"], "+.2f"),
        "" if loss is None else _number(loss, ".3f"), str(row["pairs"]), str(row["prompts"]),
    )  # fmt: skip


def _percent(interval: Mapping[str, Any]) -> str:
    return _share(interval).replace("%", "")


def _share(interval: Mapping[str, Any]) -> str:
    return _number(interval, ".1%")


def _number(interval: Mapping[str, Any], how: str) -> str:
    bounds = f" [{interval['low']:{how}}, {interval['high']:{how}}]" if interval["low"] is not None else ""
    return f"{interval['value']:{how}}{bounds}"
