"""What a reward model that was not fitted here is measured with: samples of the base for its unit, judgements for its accuracy. By the rules of every card.

Shapes: N answers, R reference answers.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sqlalchemy import select

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.reward.card.accuracy import question_kinds
from truing.reward.card.fitness import unmeasured
from truing.reward.card.measure import measure
from truing.reward.card.slopes import sides_shown
from truing.reward.score import Answer, Turns
from truing.reward.scoring import Ask, ScoreBook
from truing.reward.train_pairs import Row, read_rows
from truing.stats import takes_side, temperature
from truing.store.ids import content_id
from truing.store.project import Project, record_artifact
from truing.store.runs import StageRun
from truing.store.tables import Prompt, Sample, Split

BASE = "base"
MOST_PAIRS = 256  # train preferences that the unit is fitted on: it is one number


class Yardstick(NamedTuple):
    """What the project has to measure with.

    Attributes:
        reference: (R,) ordinary answers, whose scores shall have mean 0 and standard deviation 1; empty where there are fewer than two.
        of_base: whether these are samples of the base.
        dataset: where the preferences come from, if there are any.
        train, held_out: its rows.
    """

    reference: list[Answer]
    of_base: bool
    dataset: Artifact | None
    train: list[Row]
    held_out: list[Row]

    @property
    def key(self) -> str:
        """A hash of it all."""
        return content_id([_plain(one) for one in self.reference], None if self.dataset is None else self.dataset.id)

    @property
    def words(self) -> str:
        """What scores are normalised on, for a person."""
        if not self.reference:
            return "the project has no samples and no preferences yet: scores stay in the model's own unit, which tune.beta and tune.score_clip know nothing of"
        return f"scores are normalised on {len(self.reference)} {'samples of the base' if self.of_base else 'responses of the preferences'}"


class Marks(NamedTuple):
    """What came of a measurement.

    Attributes:
        facts: for the manifest; the verdict among them.
        card, lines: card.json and the lines of held_out.jsonl; None where there was nothing to measure on.
    """

    facts: dict[str, Any]
    card: dict[str, Any] | None
    lines: list[dict[str, Any]]


def yardstick(project: Project, dataset_id: str | None, most: int) -> Yardstick:
    """Samples of the base for train prompts, and the preferences of a dataset; where the base has no samples, the responses of the train preferences.

    Args:
        dataset_id: None: no preferences.
        most: reference answers.

    Raises:
        UserError: there is no such dataset.
    """
    dataset = None if dataset_id is None else load_artifact(project.artifacts, dataset_id)
    if dataset is not None and dataset.kind != "dataset":
        raise UserError(f"{dataset_id} is no dataset", fix="name one that starts with dataset-; `truing lineage` lists them")
    train, held_out = ([], []) if dataset is None else read_rows(dataset)
    with project.database.read() as session:
        query = select(Prompt.turns, Sample.text, Sample.token_ids, Sample.finished).join(Prompt, Prompt.id == Sample.prompt_id)
        drawn = session.execute(query.where(Sample.policy_id == BASE, Prompt.split == Split.TRAIN).order_by(Sample.id).limit(most)).all()
    reference = [Answer(*row) for row in drawn]
    of_base = len(reference) >= 2
    if not of_base:
        sides = {row[side]["sample_id"]: answer_of(row, side) for row in train for side in ("a", "b")}
        reference = [sides[sample] for sample in sorted(sides)][:most]
    return Yardstick(reference if len(reference) >= 2 else [], of_base, dataset, train, held_out)


def answer_of(row: Row, side: str) -> Answer:
    """One side of a line of pairs.jsonl; see `response_as_read`."""
    return response_as_read(row["turns"], row[side])


def response_as_read(turns: Turns, response: Row) -> Answer:
    """A response of a dataset, read as models that are trained here read it: what was sampled as it ended or was cut off, what came as text as finished."""
    sampled = response["token_ids"] is not None
    return Answer(turns, response["text"], response["token_ids"], response["finished"] if sampled else True)


def book_of(project: Project, ask: Ask, run: StageRun) -> ScoreBook:
    """Where a stage keeps the scores that it measures with, until it has its artifact."""
    file = project.root / "cache" / "scores" / f"{run.key[:32]}.json"
    if project.force:
        file.unlink(missing_ok=True)
    return ScoreBook(ask, file, run.progress)


def mark(project: Project, book: ScoreBook, trunk: Trunk, with_: Yardstick, *, members: int = 1, nats: float | None = None, seed: int) -> Marks:
    """Normalise a scorer and measure it as a model that was fitted here.

    Its unit in nats, of which calibration speaks, is fitted on train preferences (one number, as Platt 1999 and Guo et al. 2017, arXiv:1706.04599, do), unless
    it is known.

    Args:
        book: scores of answers in a unit of its own.
        trunk: whose tokens measure length.
        members: of the ensemble behind it.
        nats: log-odds that a difference of 1 in the raw score stands for, where it is known.
        seed: of the bootstraps.

    Returns:
        facts with mean and std of the raw scores, nats of a normalised one (None where nobody knows), and what a card has.

    Raises:
        UserError: all reference answers have the same score.
    """
    if not with_.reference:
        return Marks({"mean": 0.0, "std": 1.0, "nats": None, "members": members, "n_reference": 0, **unmeasured()}, None, [])
    some = [row for row in with_.train if takes_side(row["target"])][:MOST_PAIRS] if nats is None else []
    asked = [with_.reference, *(_sides(rows, side) for rows in (some, with_.held_out) for side in ("a", "b"))]
    scores = torch.tensor(book([answer for part in asked for answer in part], "scores"), dtype=torch.float64)
    mean, std = _normalisation(scores[: len(with_.reference)])
    reference, train_a, train_b, a, b = torch.split((scores - mean) / std, [len(part) for part in asked])
    unit = _fitted(train_a - train_b, some) if nats is None else nats * std
    in_nats = std if unit is None else unit
    facts, card, lines = measure(
        with_.train, with_.held_out, torch.stack([a, b], 1), reference, [_item(trunk, one) for one in with_.reference], std=in_nats, mean=mean * in_nats / std,
        members=members, kinds={} if with_.dataset is None else question_kinds(with_.dataset), sides=sides_shown(project, with_.held_out), seed=seed,
    )  # fmt: skip
    return Marks(facts | {"mean": mean, "std": std, "nats": unit, "members": members, "n_reference": len(reference)}, card, lines)


def write_marked(
    project: Project, fill: Callable[[Path], None], facts: Mapping[str, Any], marks: Marks, with_: Yardstick, *, seed: int, parents: Sequence[str] = ()
) -> Artifact:
    """An artifact of kind "reward" with what was measured of it.

    Args:
        fill: writes its own files.
        facts: what else it is.
        parents: beside the dataset that it was measured on.
    """

    def everything(folder: Path) -> None:
        fill(folder)
        if marks.card is not None:
            (folder / "card.json").write_text(json.dumps(marks.card, sort_keys=True, indent=1, allow_nan=False), encoding="utf-8")
            (folder / "held_out.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in marks.lines), encoding="utf-8")

    measured_on = [] if with_.dataset is None else [with_.dataset.id]
    whole = {**facts, **marks.facts}
    made = write_artifact(project.artifacts, "reward", everything, parents=[*parents, *measured_on], settings=facts, seed=seed, facts=whole)
    record_artifact(project, made.id, made.manifest)
    return made


def _sides(rows: Sequence[Row], side: str) -> list[Answer]:
    return [answer_of(row, side) for row in rows]


def _normalisation(scores: torch.Tensor) -> tuple[float, float]:
    """Mean and population standard deviation."""
    mean, std = float(scores.mean()), float(scores.std(correction=0))
    if not std > 1e-8 * max(1.0, abs(mean)):
        raise UserError(
            f"all {len(scores)} ordinary answers get the same score, {mean:g}: tuning could learn nothing from it",
            fix="take a reward that tells ordinary answers apart, or draw more samples with `truing sample`",
        )
    return mean, std


def _fitted(margins: torch.Tensor, rows: Sequence[Row]) -> float | None:
    """Log-odds that a difference of 1 stands for, by the preferences; None where the scores tell nothing of them, or separate them all."""
    divisor = temperature(margins.numpy(), [row["target"] for row in rows]) if rows else math.nan
    return 1 / divisor if 0 < divisor < math.inf else None


def _item(trunk: Trunk, answer: Answer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    response = answer.token_ids if answer.token_ids is not None else trunk.response_ids(answer.text)
    return tuple(trunk.prompt_ids(answer.turns)), tuple(response)


def _plain(answer: Answer) -> list[Any]:
    return [[dict(turn) for turn in answer.turns], answer.text, None if answer.token_ids is None else list(answer.token_ids), answer.finished]
