"""Accuracy of heads on frozen features on every pair of one file, each foretold from the pairs of other prompts, beside a plain logistic fit.

A test half of 500 pairs knows an accuracy to four points either way, which tells no two heads apart. Here all pairs are parted in folds by their prompt, every
pair is foretold once, and heads are compared pair by pair.

    PYTHONPATH=tests python -m benchmarks.reward_folds FILE [--folds 5]

    plain            logistic on the standardised differences of the last token's state after five sixths of the layers (layer 25 of SmolLM2's 30) and after
                     the last, each with the best of five strengths of L2 as seen on the very pairs that are foretold: a little flattered
    each head        as `truing reward train` fits it, its strength of L2, or when to stop, found on the pairs that it learns from

Features and what is foretold are kept (--work), so that a run that was killed goes on. Intervals are bootstraps over prompts. The last line of stdout is one
JSON object; the same is written to reward-folds-DATE.json.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.reward_speed import LENGTH, SEED, tokens
from torch import Tensor

from studio.bench import record
from truing.config import write_atomically
from truing.feedback.chosen import read_chosen
from truing.models.registry import ModelSettings
from truing.models.trunk import open_trunk
from truing.reward.features import FeatureCache, FeatureSpec, readings_at
from truing.reward.lessons import PairLesson
from truing.reward.readings import CANDIDATES
from truing.reward.train import RewardSettings, choose, fit_frozen
from truing.reward.train_frozen import Frozen, agreement, solve_linear
from truing.reward.train_pairs import folds_by_prompt
from truing.stats import bootstrap_mean, plain
from truing.store.ids import content_id

PLAIN = {"plain, layer 25 of 30": "last@0.833", "plain, last layer": "last@1.0"}
STRENGTHS = (3.0, 0.3, 0.03, 0.003, 0.0003)
HEADS: dict[str, dict[str, Any]] = {
    "linear": {},
    "linear, one member": {"members": 1},
    "linear, with the top": {"readings": ("last@1.0", "mean@0.6", "max@0.3", "max@0.6")},
    "linear, two fifths of the layers": {"readings": ("last@0.4", "mean@0.4", "max@0.2", "max@0.4")},
    "linear, a third of the layers": {"readings": ("last@0.33", "mean@0.33", "max@0.2", "max@0.33")},
    "linear, readings chosen": {"readings": "choose"},
    "mlp": {"head": "mlp"},
}


def main() -> None:
    """Foretell, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(".cache/reward-folds"), help="where features and what was foretold are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    trunk = open_trunk(ModelSettings())
    settings = {name: RewardSettings(max_tokens=LENGTH, **changes) for name, changes in HEADS.items()}
    words = [*PLAIN.values(), *CANDIDATES, *(word for one in settings.values() if one.readings != "choose" for word in one.readings)]
    spec = FeatureSpec(readings_at(words, trunk.layers), LENGTH)
    lesson = PairLesson(tokens(read_chosen(arguments.file).chosen, trunk), settings["linear"].centre)
    seen = FeatureCache(arguments.work, trunk, spec).get(lesson.responses)
    fold = folds_by_prompt(lesson.prompts, arguments.folds, SEED)

    def columns(readings: tuple[str, ...]) -> Tensor:
        places = [spec.readings.index(one) for one in readings_at(readings, trunk.layers)]
        chosen: Tensor = seen.unflatten(1, (len(spec.readings), -1))[:, places].flatten(1)
        return chosen

    def kept(name: str, work: Callable[[], Tensor]) -> Tensor:
        file = arguments.work / f"{content_id(name, HEADS.get(name), trunk.fingerprint, lesson.prompts, fold.tolist())}.json"
        if not file.exists():
            write_atomically(file, json.dumps(work().tolist()))
        found = torch.tensor(json.loads(file.read_text()), dtype=torch.float64)
        print(name, found.mean().item(), flush=True)
        return found

    right = {name: kept(name, partial(flattered, columns((word,)), lesson, fold)) for name, word in PLAIN.items()}
    for name, own in settings.items():
        readings = CANDIDATES if own.readings == "choose" else own.readings
        right[name] = kept(name, partial(foretold, columns(readings), lesson, fold, own, FeatureSpec(readings_at(readings, trunk.layers), LENGTH)))
    best = max(PLAIN, key=lambda name: right[name].mean().item())
    found = {"pairs": len(lesson.prompts), "prompts": len(set(lesson.prompts)), "folds": arguments.folds, "best_plain": best} | {
        name: {"accuracy": interval(rows, lesson.prompts), "less_best_plain": interval(rows - right[best], lesson.prompts)} for name, rows in right.items()
    }
    record("reward-folds", "accuracy of heads on frozen features, each pair foretold from those of other prompts", found, arguments.out)


def flattered(x: Tensor, lesson: PairLesson, fold: Tensor) -> Tensor:
    """(N,) 1 where a plain logistic fit is right, by the strength of L2 that is right most often on the pairs of the fold.

    Args:
        x: (S, H) of the lesson's responses.
    """
    first, second = lesson.places()
    right = torch.zeros(len(fold), dtype=torch.float64)
    for left_out in fold.unique().tolist():
        learned, asked = fold != left_out, fold == left_out
        steps = (x[first] - x[second]).double()
        steps = steps / steps[learned].std(0)
        data = Frozen(steps[learned], torch.zeros_like(steps[learned]), lesson.pairs.target[learned], lesson.pairs.weight[learned], [])
        tried = [agreement(steps[asked] @ solve_linear(data, l2, 0.0), lesson.pairs.target[asked].double()) for l2 in STRENGTHS]
        right[asked] = max(tried, key=lambda one: one.mean().item())
    return right


def foretold(x: Tensor, lesson: PairLesson, fold: Tensor, settings: RewardSettings, spec: FeatureSpec) -> Tensor:
    """(N,) 1 where a head is right that learned from the other folds, 0 where not, 1/2 where it sees a tie.

    Args:
        x: (S, D) of the lesson's responses, as `spec` reads them.
    """
    where = {item: place for place, item in enumerate(lesson.responses)}
    right = torch.zeros(len(fold), dtype=torch.float64)
    for left_out in fold.unique().tolist():
        own = PairLesson(lesson.pairs.at((fold != left_out).nonzero()[:, 0].tolist()), lesson.centre)
        seen, every = x[[where[item] for item in own.responses]], x
        if settings.readings == "choose":
            first, second = own.places()
            _, columns, _ = choose(own.pairs, seen[first], seen[second], spec, settings, SEED)
            seen, every = seen[:, columns], x[:, columns]
        fit, _ = fit_frozen(own, seen, settings, SEED, lambda **_: None)
        with torch.no_grad():
            scores = fit.head(every).double().mean(1)
        first, second = lesson.places()
        asked = fold == left_out
        right[asked] = agreement(scores[first] - scores[second], lesson.pairs.target.double())[asked]
    return right


def interval(rows: Tensor, prompts: list[str]) -> dict[str, Any]:
    """The mean, an interval drawn over prompts."""
    return plain(bootstrap_mean(rows.tolist(), groups=prompts, seed=SEED)._replace(n=len(rows)))


if __name__ == "__main__":
    main()
