"""The reward stage: a dataset of preferences → a reward model with its card.

pairs → features (or LoRA) → head fitted by Bradley-Terry → normalised on reference samples → measured on held-out prompts → artifact
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, field_validator, model_validator
from sqlalchemy import select
from torch import Tensor

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import Settings
from truing.console import say
from truing.models.trunk import Trunk
from truing.reward.card import measure
from truing.reward.features import FeatureCache, FeatureSpec, Item, Pooling, item_key, readings_at
from truing.reward.heads import save_head
from truing.reward.train_adapter import ROLE, adapted, adapter_spec, fit_adapter
from truing.reward.train_frozen import Fit, Frozen, fit_frozen
from truing.reward.train_judged import fit_judged, held_out_surprise, read_said
from truing.reward.train_pairs import Row, read_rows, require_rows, response_of, tokenised
from truing.store.ids import content_id
from truing.store.project import Project, record_artifact
from truing.store.runs import StageRun, stage_run
from truing.store.tables import Sample

BASE = "base"


class RewardSettings(Settings):
    """What the reward model reads, how it is fitted, and when it stops."""

    head: Literal["linear", "mlp", "adapter"] = Field("linear", description="linear and mlp read frozen features; adapter is LoRA with a scalar head")
    learn_from: Literal["pairs", "judgements"] = Field(
        "pairs", description="pairs: what judgements come to for each two responses; judgements: what people said as they said it (linear alone)"
    )
    readings: tuple[str, ...] = Field(
        ("last@1.0", "mean@0.6", "max@0.3", "max@0.6"),
        min_length=1,
        description="what linear and mlp read: the state at the last token, or the mean or max over the response's, @ a share of the model's depth",
    )
    max_tokens: int = Field(384, ge=2, le=32768, description="last tokens of prompt and response together that are read")
    members: int = Field(4, ge=1, le=64, description="heads in the ensemble; their mean is the score, their spread the doubt")
    folds: int = Field(5, ge=2, le=20, description="parts of the train prompts: for the choice of l2, and to know when to stop")
    centre: float = Field(0.01, ge=0, description="price of a squared sum of a pair's scores, which holds scores near 0")
    min_preferences: int = Field(20, ge=2, description="train preferences without which nothing is fitted")
    reference_samples: int = Field(256, ge=2, description="samples of the base on which scores get mean 0 and standard deviation 1")
    l2: float | None = Field(None, gt=0, description="linear: strength of L2 on standardised features; none = chosen by cross-validation over prompts")
    units: int = Field(32, ge=1, description="mlp: hidden units")
    epochs: int = Field(400, ge=1, description="mlp: most passes over the pairs")
    adapter_epochs: int = Field(2, ge=1, description="adapter: most passes over the pairs")
    patience: int = Field(20, ge=1, description="checks without a better validation loss after which the fit stops; mlp checks every pass")
    learning_rate: float = Field(1e-3, gt=0, description="of the mlp, and of the adapter's scalar head")
    weight_decay: float = Field(0.1, ge=0, description="mlp and adapter: AdamW's decay per step, times the learning rate")
    adapter_learning_rate: float = Field(2e-4, gt=0, description="adapter: of LoRA")
    adapter_pooling: Pooling = Field("last", description="adapter: what is read of the last layer: last, mean or max")
    rank: int = Field(8, ge=1, description="adapter: rank of LoRA")
    alpha: float = Field(16.0, gt=0, description="adapter: LoRA is scaled by alpha / rank")
    top_layers: int | None = Field(None, ge=1, description="adapter: adapt only that many upper layers; none = all")
    batch_pairs: int = Field(16, ge=1, description="adapter: pairs in a step")
    clip_gradient: float = Field(1.0, gt=0, description="adapter: largest norm of a step's gradient")
    check_every: int = Field(20, ge=1, description="adapter: steps between two validations")
    checkpoint_every: int = Field(10, ge=1, description="adapter: steps that a killed run can lose")

    @model_validator(mode="after")
    def _can_learn(self) -> Self:
        if self.learn_from == "judgements" and self.head != "linear":
            raise ValueError(f"learn_from = judgements is for the linear head, not for {self.head}")
        return self

    @field_validator("readings")
    @classmethod
    def _are_readings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        readings_at(value, 1)
        return value


class Work(NamedTuple):
    """What a fit needs. train, held_out: lines of pairs.jsonl. reference: responses to normalise on."""

    project: Project
    settings: RewardSettings
    dataset: Artifact
    train: list[Row]
    held_out: list[Row]
    reference: list[Item]
    trunk: Trunk
    seed: int
    run: StageRun


class Fitted(NamedTuple):
    """A normalised head and the scores it gives. held_out: (N, 2), of a and b. reference: (R,)."""

    fit: Fit
    spec: FeatureSpec
    held_out: Tensor
    reference: Tensor


def train_reward_model(
    project: Project,
    settings: RewardSettings,
    dataset_id: str,
    trunk: Trunk,
    *,
    seed: int,
    reference: Sequence[tuple[Sequence[int], Sequence[int]]] | None = None,
    round_id: int | None = None,
) -> Artifact:
    """Fit a reward model to a dataset, or answer with the one that the same inputs gave before.

    Args:
        dataset_id: a dataset artifact.
        trunk: the base model; it comes back as it was.
        seed: of every random choice.
        reference: (prompt ids, response ids) on which scores get mean 0 and standard deviation 1; default: the base's samples of the train prompts.
        round_id: the round that asks for it.

    Returns:
        an artifact of kind "reward": head.safetensors, adapter/ where the head is one, card.json, held_out.jsonl.

    Raises:
        UserError: too few preferences to learn from, or none to measure with.
    """
    dataset = load_artifact(project.artifacts, dataset_id)
    train, held_out = read_rows(dataset)
    require_rows(train, held_out, settings.min_preferences)
    chosen = [(tuple(prompt), tuple(response)) for prompt, response in reference] if reference is not None else _reference(project, settings, train, trunk)
    inputs = {
        "dataset": dataset_id,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "model": trunk.fingerprint,
        "reference": content_id([item_key(item) for item in chosen]),
    }
    with stage_run(project, "reward", inputs, round_id=round_id) as run:
        if not run.answered:
            run.result = {"artifact": _make(Work(project, settings, dataset, train, held_out, chosen, trunk, seed, run)).id}
    return load_artifact(project.artifacts, run.result["artifact"])


def _make(work: Work) -> Artifact:
    checkpoint = work.project.root / "cache" / "reward" / f"{work.run.key[:32]}.safetensors"
    try:
        fitted = _fit_adapter(work, checkpoint) if work.settings.head == "adapter" else _fit_frozen(work)
        artifact = _write(work, fitted)
    finally:
        if work.trunk.has_adapter(ROLE):
            work.trunk.drop_adapter(ROLE)
    record_artifact(work.project, artifact.id, artifact.manifest)
    checkpoint.unlink(missing_ok=True)
    return artifact


def _fit_frozen(work: Work) -> Fitted:
    if work.settings.learn_from == "judgements":
        return _fit_said(work)
    settings, trunk = work.settings, work.trunk
    pairs, tests = tokenised(work.train, trunk), tokenised(work.held_out, trunk)
    spec = FeatureSpec(readings_at(settings.readings, trunk.layers), settings.max_tokens)
    parts = [pairs.a, pairs.b, tests.a, tests.b, work.reference]
    found = FeatureCache(work.project.root / "cache" / "features", trunk, spec).get([item for part in parts for item in part])
    a, b, test_a, test_b, reference = torch.split(found, [len(part) for part in parts])
    fit = fit_frozen(Frozen(a, b, pairs.target, pairs.weight, pairs.prompts), settings, work.seed, work.run.progress)
    return _normalised(fit, spec, test_a, test_b, reference)


def _fit_said(work: Work) -> Fitted:
    settings, trunk = work.settings, work.trunk
    (told, unseen), tests = read_said(work.dataset, trunk), tokenised(work.held_out, trunk)
    spec = FeatureSpec(readings_at(settings.readings, trunk.layers), settings.max_tokens)
    parts = [told.responses, unseen.responses, tests.a, tests.b, work.reference]
    found = FeatureCache(work.project.root / "cache" / "features", trunk, spec).get([item for part in parts for item in part])
    seen, held_out, test_a, test_b, reference = torch.split(found, [len(part) for part in parts])
    fit, scales = fit_judged(told, seen, settings, work.seed, work.run.progress)
    with torch.no_grad():
        facts = fit.facts | {"held_out_surprise": held_out_surprise(unseen, fit.head(held_out), scales)}
    return _normalised(fit._replace(facts=facts), spec, test_a, test_b, reference)


def _fit_adapter(work: Work, checkpoint: Path) -> Fitted:
    trunk, spec = work.trunk, adapter_spec(work.trunk, work.settings)
    pairs, tests = tokenised(work.train, trunk), tokenised(work.held_out, trunk)
    fit = fit_adapter(trunk, pairs, work.settings, work.seed, checkpoint, work.run.progress)
    with torch.no_grad(), trunk.using(ROLE):
        parts = [adapted(trunk, items, spec) for items in (tests.a, tests.b, work.reference)]
    return _normalised(fit, spec, *parts)


def _normalised(fit: Fit, spec: FeatureSpec, a: Tensor, b: Tensor, reference: Tensor) -> Fitted:
    fit.head.normalise_on(reference)
    scores = [fit.head.scores(features).mean for features in (a, b, reference)]
    return Fitted(fit, spec, torch.stack(scores[:2], 1), scores[2])


def _write(work: Work, fitted: Fitted) -> Artifact:
    settings, head, spec = work.settings, fitted.fit.head, fitted.spec
    lengths = [len(response) for _, response in work.reference]
    facts, card, rows = measure(work.train, work.held_out, fitted.held_out, fitted.reference, lengths, std=float(head.std), seed=work.seed)
    facts |= {
        "head": settings.head, "layer": _in_words(spec.layers), "readings": [list(reading) for reading in spec.readings], "max_tokens": spec.max_tokens,
        "members": settings.members, "mean": float(head.member_mean.mean()), "std": float(head.std), "n_train": len(work.train),
        "n_reference": len(work.reference), "model": work.trunk.name, "fingerprint": work.trunk.fingerprint, **fitted.fit.facts,
    }  # fmt: skip
    card |= {"training": [], "l2_path": fitted.fit.curve} if settings.head == "linear" else {"training": fitted.fit.curve, "l2_path": []}

    def fill(folder: Path) -> None:
        save_head(head, folder / "head.safetensors")
        if settings.head == "adapter":
            work.trunk.save_adapter(ROLE, folder / "adapter")
        (folder / "card.json").write_text(json.dumps(card, sort_keys=True, indent=1, allow_nan=False), encoding="utf-8")
        (folder / "held_out.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), encoding="utf-8")

    made_with = settings.model_dump(mode="json")
    return write_artifact(work.project.artifacts, "reward", fill, parents=[work.dataset.id], settings=made_with, seed=work.seed, facts=facts)


def _reference(project: Project, settings: RewardSettings, train: Sequence[Row], trunk: Trunk) -> list[Item]:
    """Samples of the base for train prompts, those first whose features the fit needs anyway; the pairs' own responses where the base has no two."""
    turns = {row["prompt_id"]: row["turns"] for row in train}
    sides = {row[side]["sample_id"] for row in train for side in ("a", "b")}
    with project.database.read() as session:
        drawn = select(Sample.id, Sample.prompt_id, Sample.token_ids).where(Sample.policy_id == BASE, Sample.token_ids.is_not(None))
        found = [(row.id, row.prompt_id, row.token_ids) for row in session.execute(drawn) if row.prompt_id in turns and row.token_ids]
    found.sort(key=lambda row: (row[0] not in sides, row[0]))
    items = [(tuple(trunk.prompt_ids(turns[prompt])), tuple(tokens)) for _, prompt, tokens in found[: settings.reference_samples]]
    if len(items) >= 2:
        if len(items) < settings.reference_samples:
            say(f"scores are normalised on {len(items)} samples of the base; {settings.reference_samples} were wanted (reward.reference_samples)")
        return items
    say("the base has no samples of the train prompts: scores are normalised on the responses of the pairs themselves")
    own = {row[side]["sample_id"]: (tuple(trunk.prompt_ids(row["turns"])), response_of(row[side], trunk)) for row in train for side in ("a", "b")}
    return [own[sample] for sample in sorted(own)[: settings.reference_samples]]


def _in_words(layers: Sequence[int]) -> Any:
    return layers[0] if len(layers) == 1 else ", ".join(map(str, layers))
