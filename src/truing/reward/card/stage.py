"""The stage behind `truing reward card`: what takes longer to know of a reward model than its training had time for.

Each look is kept as soon as it is done, so that an interrupted card goes on from there.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import write_atomically
from truing.console import say
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.reward.card.audit import audit
from truing.reward.card.ensemble import spread_against_error
from truing.reward.card.invariance import invariance
from truing.reward.card.learning_curve import learning_curve, parts_of
from truing.reward.card.measure import reward_card
from truing.reward.card.ratings import against_ratings, rated_responses
from truing.reward.card.red_team import red_team
from truing.reward.card.refit import refitting
from truing.reward.features import FeatureCache, Item
from truing.reward.lessons import said_rows
from truing.reward.score import AnyRewardModel, RewardModel, load_reward_model
from truing.reward.scoring import ScoreBook, asks
from truing.reward.train_pairs import Row, read_rows, response_of, tokenised
from truing.reward.yardstick import answer_of, response_as_read
from truing.stats import takes_side
from truing.store.project import Project, record_artifact
from truing.store.runs import StageRun, stage_run
from truing.store.tables import Split

CARD = "card.json"
PARTS_VERSION = 2  # of what the looks measure; raised when one of them changes


def make_card(project: Project, reward_id: str, trunk: Trunk, *, round_id: int | None = None) -> Artifact:
    """Look at a reward model from all sides, or answer with the card that was made of it before.

    Args:
        trunk: the base model; it comes back as it was.
        round_id: the round that asks for it.

    Returns:
        an artifact of kind "card": card.json holds what was measured at training and all looks; its facts hold the verdict.

    Raises:
        UserError: there is no such model, it has no card from its training, there were no preferences to measure it on, or it was trained on other weights.
    """
    artifact = load_artifact(project.artifacts, reward_id)
    if artifact.kind != "reward" or "fitness" not in artifact.facts:
        raise UserError(f"{reward_id} has no card from its training", fix="train it again with `truing reward train --force`, or name another reward model")
    if not artifact.facts.get("n_held_out"):
        again = "bring it in again with `truing reward use` or `truing reward combine`" if "source" in artifact.facts else "`truing reward train`"
        raise UserError(
            f"{reward_id} was made when the project had no held-out preferences, and was measured on none",
            fix=f"let people compare answers to more prompts, make a dataset with `truing preferences`, then {again}",
        )
    with stage_run(project, "card", {"reward": reward_id, "model": trunk.fingerprint, "version": PARTS_VERSION}, round_id=round_id) as run:
        if not run.answered:
            run.result = {"artifact": _make(project, artifact, trunk, run).id}
    return load_artifact(project.artifacts, run.result["artifact"])


def read_card(artifact: Artifact) -> dict[str, Any]:
    """Everything that a card holds."""
    found: dict[str, Any] = json.loads((artifact.path / CARD).read_text(encoding="utf-8"))
    return found


def _make(project: Project, artifact: Artifact, trunk: Trunk, run: StageRun) -> Artifact:
    kept = project.root / "cache" / "card" / run.key[:32]
    if project.force:
        shutil.rmtree(kept, ignore_errors=True)
    model = load_reward_model(project, artifact.id, trunk)
    try:
        looks = _Looks(project, artifact, model, run)
        card = reward_card(project, artifact.id) | looks.all(kept) | {"omitted": looks.omitted()}
    finally:
        model.close()

    def fill(folder: Path) -> None:
        (folder / CARD).write_text(json.dumps(card, sort_keys=True, indent=1, allow_nan=False), encoding="utf-8")

    facts = {"reward": artifact.id, "fitness": card["fitness"], "accuracy": card["accuracy"]}
    made = write_artifact(project.artifacts, "card", fill, parents=[artifact.id], seed=artifact.manifest["seed"], facts=facts)
    record_artifact(project, made.id, made.manifest)
    shutil.rmtree(kept, ignore_errors=True)
    return made


class _Looks:
    """A reward model with the dataset that it is measured on, and the looks at it. What only a model that was trained here can be asked is None for others."""

    def __init__(self, project: Project, artifact: Artifact, model: AnyRewardModel, run: StageRun) -> None:
        self.project, self.artifact, self.model, self.run = project, artifact, model, run
        self.trained = model if isinstance(model, RewardModel) else None
        self.seed = int(artifact.manifest["seed"])
        self.dataset = next(load_artifact(project.artifacts, parent) for parent in artifact.parents if parent.startswith("dataset-"))
        self.train, self.held_out = read_rows(self.dataset)

    def omitted(self) -> dict[str, str]:
        """Name → why, of each look that can't be taken at this model."""
        if self.trained is None:
            of_parts = "its parts have ensembles of their own, and a card each" if self.artifact.facts["source"] == "combined" else "it comes from outside"
            return {"ensemble": f"{of_parts}: it has no members of its own that could disagree", "learning_curve": "it was not fitted to these judgements"}
        found = {} if self.trained.frozen else {"learning_curve": "its trunk learned, too: each point would be a training of its own"}
        return found | (
            {} if self.artifact.facts["members"] > 1 else {"ensemble": "it has a single member, and so no spread: reward.members would give it one"}
        )

    def all(self, folder: Path) -> dict[str, Any]:
        """Name → what each look found; those that `folder` has are read from it."""
        looks: dict[str, tuple[str, Callable[[], Any]]] = {
            "ensemble": ("does the ensemble know where it is wrong", self.ensemble),
            "ratings": ("scores against ratings", self.ratings),
            "invariance": ("scores in other company, order and type", self.invariance),
            "learning_curve": ("what more judgements would buy", self.learning_curve),
            "audit": ("the same text about other people", lambda: audit(self.model, seed=self.seed)),
            "red_team": ("harmful requests, and harmless ones that look it", lambda: red_team(self.model, seed=self.seed)),
        }
        found = {}
        for place, (name, (words, look)) in enumerate(looks.items()):
            file = folder / f"{name}.json"
            self.run.progress(step=name, done=place, total=len(looks))
            if not file.exists():
                say(f"card {place + 1}/{len(looks)}: {words}")
                write_atomically(file, json.dumps(look(), sort_keys=True, allow_nan=False))
            found[name] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def ensemble(self) -> dict[str, Any] | None:
        """Spread of the members against the errors of their mean."""
        if self.trained is None:
            return None
        decided = [place for place, row in enumerate(self.held_out) if takes_side(row["target"])]
        pairs = tokenised(self.held_out, self.trained.trunk)
        margins = (_raw(self.project, self.trained, pairs.a) - _raw(self.project, self.trained, pairs.b))[decided].double().numpy()
        rows = [self.held_out[place] for place in decided]
        return spread_against_error(margins, [row["target"] for row in rows], [row["prompt_id"] for row in rows], seed=self.seed)

    def ratings(self) -> dict[str, Any] | None:
        """Rank correlations with ratings."""
        rated = rated_responses(self.dataset)
        return against_ratings(rated, self._scores([one.row for one in rated]), seed=self.seed)

    def invariance(self) -> dict[str, Any]:
        """Scores once more, otherwise; of held-out answers."""
        return invariance(self.project, self.model, [answer_of(row, side) for row in self.held_out for side in ("a", "b")])

    def learning_curve(self) -> dict[str, Any] | None:
        """Refits on parts of the train prompts; None for a head whose trunk learns too: each would be a training of its own."""
        if self.trained is None or not self.trained.frozen:
            return None
        refit = refitting(self.project, self.artifact, self.dataset, self.trained, self.run.progress)
        learned = self._learned()
        return learning_curve(learned, self.held_out, refit, parts_of(learned, self.seed), seed=self.seed)

    def _learned(self) -> list[Row]:
        """Lines with the judgements that the model learned from: of pairs, or of what was said, of which some came to no pair."""
        if self.artifact.manifest["settings"].get("learn_from") != "judgements":
            return self.train
        return [row | {"judgements": row["said"]} for row in said_rows(self.dataset) if row["split"] == Split.TRAIN]

    def _scores(self, rows: Sequence[Row]) -> list[float]:
        """Normalised scores of the single response of each line of said.jsonl."""
        if self.trained is None:
            answers = [response_as_read(row["turns"], row["responses"][0]) for row in rows]
            return ScoreBook(asks(self.model))(answers, "ratings")
        trunk = self.trained.trunk
        items: list[Item] = [(tuple(trunk.prompt_ids(row["turns"])), response_of(row["responses"][0], trunk)) for row in rows]
        return self.trained.head.scores(_features(self.project, self.trained, items)).mean.tolist() if items else []


def _raw(project: Project, model: RewardModel, items: Sequence[Item]) -> Tensor:
    """(N, K) each member's score in nats."""
    with torch.no_grad():
        return model.head(_features(project, model, items))  # type: ignore[no-any-return]


def _features(project: Project, model: RewardModel, items: Sequence[Item]) -> Tensor:
    """(N, D) what the head reads, from the cache where the base is frozen."""
    return FeatureCache(project.root / "cache" / "features", model.trunk, model.spec).get(items) if model.frozen else model.states(items)
