"""Refits of a trained head on frozen features to parts of what it learned from, for the learning curve.

L2 is not chosen anew for each part. It is the price of a weight beside the mean loss, so that a part with n of N judgements deserves N / n times the strength
that was right for all: the weights then have the same prior.

Shapes: S train responses, M held-out pairs, D features.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from truing.artifacts import Artifact
from truing.reward.card.learning_curve import Refit
from truing.reward.features import FeatureCache
from truing.reward.lessons import Lesson
from truing.reward.score import RewardModel
from truing.reward.train import RewardSettings, fit_frozen, lessons
from truing.reward.train_pairs import read_rows, tokenised
from truing.store.project import Project


def refitting(project: Project, artifact: Artifact, dataset: Artifact, model: RewardModel, beat: Callable[..., None]) -> Refit:
    """The refits of a reward model that reads frozen features; these are read from the cache, or computed once.

    Args:
        beat: called often with how far each fit is.
    """
    settings = RewardSettings.model_validate(artifact.manifest["settings"])
    train, held_out = read_rows(dataset)
    lesson, tests = lessons(dataset, train, model.trunk, settings)[0], tokenised(held_out, model.trunk)
    parts = [lesson.responses, tests.a, tests.b]
    cache = FeatureCache(project.root / "cache" / "features", model.trunk, model.spec)
    seen, a, b = torch.split(cache.get([item for part in parts for item in part]), [len(part) for part in parts])
    place = {item: index for index, item in enumerate(lesson.responses)}
    mass, l2 = lesson.asked().mass, artifact.facts.get("l2")

    def refit(prompts: Collection[str], seed: int) -> list[tuple[float, float]]:
        part = lesson.only(sorted(prompts))
        mine = settings if l2 is None else settings.model_copy(update={"l2": l2 * mass / part.asked().mass})
        return _scores(part, seen[[place[item] for item in part.responses]], a, b, mine, seed, beat)

    return refit


def _scores(part: Lesson, seen: Tensor, a: Tensor, b: Tensor, settings: RewardSettings, seed: int, beat: Callable[..., None]) -> list[tuple[float, float]]:
    """(a, b) of each held-out pair, in nats, by the members' mean of a head that is fitted to a part."""
    head = fit_frozen(part, seen, settings, seed, beat)[0].head
    with torch.no_grad():
        first, second = (head(features).double().mean(1).tolist() for features in (a, b))
    return list(zip(first, second, strict=True))
