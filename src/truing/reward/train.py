"""The reward stage: a dataset of preferences → a reward model with its card.

pairs → features (or LoRA) → head fitted by Bradley-Terry → normalised on reference samples → measured on held-out prompts → artifact
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import Settings
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.reward.card.accuracy import question_kinds
from truing.reward.card.fitness import unmeasured
from truing.reward.card.measure import measure
from truing.reward.card.slopes import sides_shown
from truing.reward.features import FeatureCache, FeatureSpec, Item, item_key, readings_at
from truing.reward.heads import WEIGHTS, save_head
from truing.reward.judged import Scales
from truing.reward.lessons import Lesson, PairLesson, SaidLesson, read_said, require_said, said_rows
from truing.reward.readings import CANDIDATES, choose_readings
from truing.reward.reference import reference_responses, responses_of
from truing.reward.train_frozen import Fit, Frozen, fit_linear
from truing.reward.train_judged import fit_judged, held_out_surprise
from truing.reward.train_mlp import fit_mlp
from truing.reward.train_pairs import Pairs, Row, read_rows, require_rows, tokenised
from truing.reward.train_trunk import ROLE, fit_trunk, learned_states, trunk_spec
from truing.stats import takes_side
from truing.store.ids import content_id
from truing.store.project import Project, record_artifact
from truing.store.runs import StageRun, stage_run

FROZEN = ("linear", "mlp")  # heads that read what the base makes of a response


class RewardSettings(Settings):
    """What the reward model reads, how it is fitted, and when it stops."""

    head: Literal["linear", "mlp", "adapter", "full"] = Field(
        "linear", description="linear and mlp read frozen features; adapter is LoRA with a scalar head, full trains every weight of a copy of the model"
    )
    learn_from: Literal["pairs", "judgements"] = Field(
        "pairs", description="pairs: what judgements come to for each two responses; judgements: what people said as they said it"
    )
    readings: Literal["choose"] | tuple[str, ...] = Field(
        ("last@0.6", "mean@0.6", "max@0.3", "max@0.6"),
        description="what linear and mlp read: the state at the last token, or the mean or max over the response's, @ a share of the model's depth; "
        "choose: up to four of these, by cross-validation over the train prompts",
    )
    max_tokens: int = Field(384, ge=2, le=32768, description="last tokens of prompt and response together that are read")
    members: int = Field(4, ge=1, le=64, description="heads in the ensemble; their mean is the score, their spread the doubt")
    folds: int = Field(5, ge=2, le=20, description="parts of the train prompts: for the choice of l2, and to know when to stop")
    centre: float = Field(0.01, ge=0, description="price of a squared sum of a pair's scores, which holds scores near 0")
    min_preferences: int = Field(20, ge=2, description="train preferences (judgements, where the model learns from these) without which nothing is fitted")
    reference_samples: int = Field(256, ge=2, description="samples of the base on which scores get mean 0 and standard deviation 1")
    l2: float | None = Field(None, gt=0, description="linear: strength of L2 on standardised features; none = chosen by cross-validation over prompts")
    units: int = Field(32, ge=1, description="mlp: hidden units")
    epochs: int = Field(400, ge=1, description="mlp: most passes over the pairs")
    patience: int = Field(20, ge=1, description="checks without a better validation loss after which the fit stops; mlp checks every pass")
    learning_rate: float = Field(1e-3, gt=0, description="of the mlp, and of the scalar head of adapter and full")
    weight_decay: float = Field(0.1, ge=0, description="all but linear: AdamW's decay per step, times the learning rate")
    trunk_epochs: int = Field(2, ge=1, description="adapter and full: most passes over the judgements")
    trunk_reading: str = Field("last@0.6", description="adapter and full: what the head reads; layers above it aren't run")
    adapter_learning_rate: float = Field(2e-4, gt=0, description="adapter: of LoRA")
    full_learning_rate: float = Field(1e-5, gt=0, description="full: of the model's weights")
    rank: int = Field(8, ge=1, description="adapter: rank of LoRA")
    alpha: float = Field(16.0, gt=0, description="adapter: LoRA is scaled by alpha / rank")
    layers: Literal["all", "top-half"] = Field("top-half", description="adapter: which of the layers up to the reading are adapted")
    batch_pairs: int = Field(16, ge=1, description="adapter and full: judgements in a step, more where a prompt has more")
    row_tokens: int = Field(1024, ge=1, description="adapter and full: tokens in memory at a time; changes speed and memory, not the result")
    clip_gradient: float = Field(1.0, gt=0, description="adapter and full: largest norm of a step's gradient")
    check_every: int = Field(20, ge=1, description="adapter and full: steps between two validations")
    checkpoint_every: int = Field(10, ge=1, description="adapter and full: steps that a killed run can lose")

    @field_validator("trunk_reading")
    @classmethod
    def _is_a_reading(cls, value: str) -> str:
        readings_at([value], 1)
        return value

    @field_validator("readings")
    @classmethod
    def _are_readings(cls, value: Literal["choose"] | tuple[str, ...]) -> Literal["choose"] | tuple[str, ...]:
        if not value:
            raise ValueError("no reading is left")
        if value != "choose":
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
    """A normalised head, the trunk that it reads, and the scores it gives. held_out: (N, 2), of a and b. reference: (R,)."""

    fit: Fit
    trunk: Trunk
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
        an artifact of kind "reward": head.safetensors, adapter/ or weights.safetensors where the trunk learned; card.json and held_out.jsonl, unless it
        learned from judgements and no held-out pair takes a side, so that nothing can be measured with pairs.

    Raises:
        UserError: too little to learn from, or, of a model that learns from pairs, none to measure with.
    """
    dataset = load_artifact(project.artifacts, dataset_id)
    train, held_out = read_rows(dataset)
    said = said_rows(dataset) if settings.learn_from == "judgements" else []
    if settings.learn_from == "pairs" or (settings.head in FROZEN and settings.readings == "choose"):
        require_rows(train, held_out, settings.min_preferences)
    if settings.learn_from == "judgements":
        require_said(said, settings.min_preferences)
    if reference is None:
        chosen = reference_responses(project, settings.reference_samples, responses_of(train, said), trunk)
    else:
        chosen = [(tuple(prompt), tuple(response)) for prompt, response in reference]
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
        fitted = _fit_frozen(work) if work.settings.head in FROZEN else _fit_trunk(work, checkpoint)
        artifact = _write(work, fitted)
    finally:
        if work.trunk.has_adapter(ROLE):
            work.trunk.drop_adapter(ROLE)
    record_artifact(work.project, artifact.id, artifact.manifest)
    checkpoint.unlink(missing_ok=True)
    return artifact


def _fit_frozen(work: Work) -> Fitted:
    settings, trunk = work.settings, work.trunk
    (lesson, unseen), tests = lessons(work.dataset, work.train, trunk, settings), tokenised(work.held_out, trunk)
    spec = frozen_spec(trunk, settings)
    path: list[dict[str, Any]] = []
    train = tokenised(work.train if settings.readings == "choose" else [], trunk)
    parts = [train.a, train.b, lesson.responses, unseen.responses if unseen else [], tests.a, tests.b, work.reference]
    found = FeatureCache(work.project.root / "cache" / "features", trunk, spec).get([item for part in parts for item in part])
    if settings.readings == "choose":
        a, b, *_ = torch.split(found, [len(part) for part in parts])
        spec, columns, path = choose(train, a, b, spec, settings, work.seed)
        found = found[:, columns]
    _, _, seen, held_out, test_a, test_b, reference = torch.split(found, [len(part) for part in parts])
    fit, beside = fit_frozen(lesson, seen, settings, work.seed, work.run.progress)
    fit = fit._replace(facts=fit.facts | {"readings_path": path})
    return _normalised(_with_surprise(fit, lesson, unseen, held_out, beside), trunk, spec, test_a, test_b, reference)


def frozen_spec(trunk: Trunk, settings: RewardSettings) -> FeatureSpec:
    """What linear and mlp read of a trunk, or what they choose from."""
    words = CANDIDATES if settings.readings == "choose" else settings.readings
    return FeatureSpec(readings_at(words, trunk.layers), settings.max_tokens)


def choose(pairs: Pairs, a: Tensor, b: Tensor, spec: FeatureSpec, settings: RewardSettings, seed: int) -> tuple[FeatureSpec, Tensor, list[dict[str, Any]]]:
    """The readings of `spec` that are worth it, the columns of the features that they are, and how each was chosen.

    Args:
        a, b: (N, D) features of both responses of the train pairs.
    """
    each = (len(spec.readings), -1)
    choice = choose_readings(a.unflatten(1, each), b.unflatten(1, each), pairs.target, pairs.weight, pairs.prompts, folds=settings.folds, seed=seed)
    path = [row | {"reading": list(spec.readings[row["reading"]])} for row in choice.path]
    columns = torch.arange(a.shape[1]).unflatten(0, each)[choice.places].flatten()
    return replace(spec, readings=tuple(spec.readings[place] for place in choice.places)), columns, path


def _fit_trunk(work: Work, checkpoint: Path) -> Fitted:
    settings = work.settings
    trunk = work.trunk if settings.head == "adapter" else open_trunk(ModelSettings(name=work.trunk.name, dtype="fp32"))
    spec = trunk_spec(trunk, settings)
    (lesson, unseen), tests = lessons(work.dataset, work.train, trunk, settings), tokenised(work.held_out, trunk)
    fit, beside = _in_nats(*fit_trunk(trunk, lesson, settings, work.seed, checkpoint, work.run.progress), lesson)
    parts = [unseen.responses if unseen else [], tests.a, tests.b, work.reference]
    with torch.no_grad(), trunk.using(ROLE if settings.head == "adapter" else None):
        held_out, *rest = (learned_states(trunk, items, spec) for items in parts)
    return _normalised(_with_surprise(fit, lesson, unseen, held_out, beside), trunk, spec, *rest)


def lessons(dataset: Artifact, train: list[Row], trunk: Trunk, settings: RewardSettings) -> tuple[Lesson, SaidLesson | None]:
    """What there is to learn from, and the held-out judgements where the model learns from judgements."""
    if settings.learn_from == "judgements":
        return read_said(dataset, trunk, settings.centre)
    return PairLesson(tokenised(train, trunk), settings.centre), None


def fit_frozen(lesson: Lesson, features: Tensor, settings: RewardSettings, seed: int, beat: Callable[..., None]) -> tuple[Fit, list[nn.Module]]:
    """Fit the head that the settings name to frozen features.

    Args:
        features: (S, D) of the lesson's responses, as the trunk gave them.
        beat: called often with how far the fit is.

    Returns:
        the head, with scores in nats of a comparison, and what each member learned beside them.
    """
    if settings.head == "mlp":
        return _in_nats(*fit_mlp(lesson, features, settings, seed, beat), lesson)
    if isinstance(lesson, SaidLesson):
        fit, scales = fit_judged(lesson, features, settings, seed, beat)
        return _in_nats(fit, list(scales), lesson)
    assert isinstance(lesson, PairLesson)
    first, second = lesson.places()
    data = Frozen(features[first], features[second], lesson.pairs.target, lesson.pairs.weight, lesson.prompts)
    return fit_linear(data, settings, seed, beat), []


def _in_nats(fit: Fit, beside: list[nn.Module], lesson: Lesson) -> tuple[Fit, list[nn.Module]]:
    """The same with a head whose scores differ by the log-odds of a comparison: what kinds share is the scores, and each kind's nats are on its own scale."""
    if isinstance(lesson, SaidLesson):
        fit.head.stretch(lesson.units(beside))
    return fit, beside


@torch.no_grad()
def _with_surprise(fit: Fit, lesson: Lesson, unseen: SaidLesson | None, states: Tensor, beside: list[nn.Module]) -> Fit:
    """The fit with how surprising it finds the held-out judgements, where it learned from judgements."""
    if unseen is None:
        return fit
    assert isinstance(lesson, SaidLesson)
    scales = [own for own in beside if isinstance(own, Scales)]
    shared = fit.head(states) / lesson.units(beside)
    return fit._replace(facts=fit.facts | {"held_out_surprise": held_out_surprise(unseen, shared, scales, lesson.beside())})


def _normalised(fit: Fit, trunk: Trunk, spec: FeatureSpec, a: Tensor, b: Tensor, reference: Tensor) -> Fitted:
    fit.head.normalise_on(reference)
    scores = [fit.head.scores(features).mean for features in (a, b, reference)]
    return Fitted(fit, trunk, spec, torch.stack(scores[:2], 1), scores[2])


def _write(work: Work, fitted: Fitted) -> Artifact:
    settings, head, spec = work.settings, fitted.fit.head, fitted.spec
    facts, card, rows = _measured(work, fitted)
    facts |= {
        "head": settings.head, "layer": _in_words(spec.layers), "readings": [list(reading) for reading in spec.readings], "max_tokens": spec.max_tokens,
        "members": settings.members, "mean": float(head.member_mean.mean()), "std": float(head.std), "n_train": len(work.train),
        "n_reference": len(work.reference), "model": work.trunk.name, "fingerprint": work.trunk.fingerprint, **fitted.fit.facts,
    }  # fmt: skip
    curve = {"training": [], "l2_path": fitted.fit.curve} if settings.head == "linear" else {"training": fitted.fit.curve, "l2_path": []}

    def fill(folder: Path) -> None:
        save_head(head, folder / "head.safetensors")
        if settings.head == "adapter":
            work.trunk.save_adapter(ROLE, folder / "adapter")
        if settings.head == "full":
            save_file({name: weight.contiguous() for name, weight in sorted(fitted.trunk.merged_weights(None).items())}, folder / WEIGHTS)
        if card is not None:
            (folder / "card.json").write_text(json.dumps(card | curve, sort_keys=True, indent=1, allow_nan=False), encoding="utf-8")
            (folder / "held_out.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), encoding="utf-8")

    made_with = settings.model_dump(mode="json")
    return write_artifact(work.project.artifacts, "reward", fill, parents=[work.dataset.id], settings=made_with, seed=work.seed, facts=facts)


def _measured(work: Work, fitted: Fitted) -> tuple[dict[str, Any], dict[str, Any] | None, list[dict[str, Any]]]:
    """Facts, card and the lines of held_out.jsonl; without a held-out pair that takes a side the facts of a model that nobody could measure."""
    if not any(takes_side(row["target"]) for row in work.held_out):
        return {**unmeasured(), "n_held_out": 0}, None, []
    head = fitted.fit.head
    return measure(
        work.train, work.held_out, fitted.held_out, fitted.reference, work.reference, std=float(head.std), mean=float(head.member_mean.mean()),
        members=work.settings.members, kinds=question_kinds(work.dataset), sides=sides_shown(work.project, work.held_out), seed=work.seed,
    )  # fmt: skip


def _in_words(layers: Sequence[int]) -> Any:
    return layers[0] if len(layers) == 1 else ", ".join(map(str, layers))
