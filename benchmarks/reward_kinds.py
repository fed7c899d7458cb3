"""What it is worth to learn from judgements as they were made, and not from the pairs they come to: rankings, ties, thumbs, on real data.

    PYTHONPATH=tests python -m benchmarks.reward_kinds NAME=PATH[:FORMAT] ... [--out benchmarks/results]

NAME names the data in the result, PATH is any file that `truing import` reads. For each file: import, trust, features of the default model, and the linear
head fitted to each arm's judgements with the same folds, strengths of L2 and members:

    as said     rankings as rankings, ties as ties, points as points
    pairs       each judgement of several responses as comparisons of two of them, ties as half a vote for each (Bradley-Terry)
    no ties     the same without ties

Each is asked how surprising the held-out prompts' judgements are, as they were said: scales of its own (widths of ties, cut-points) are fitted to the
train judgements with its scores as they stand, so that only the scores are compared. Intervals are bootstraps over held-out prompts. The last line of
stdout is one JSON object; the same is written to reward-kinds-DATE.json.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.bench import record
from truing.feedback.exchange import import_judgements
from truing.feedback.quality import QualitySettings, measure_quality
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.preferences import PreferenceSettings, build_preferences
from truing.reward.features import FeatureCache, FeatureSpec, readings_at
from truing.reward.judged import Said, Scales, judged, surprise, surprises
from truing.reward.lessons import SaidLesson, read_said
from truing.reward.train import RewardSettings
from truing.reward.train_judged import fit_judged
from truing.stats import bootstrap_mean
from truing.store.project import create_project, open_project
from truing.store.tables import Kind

SEED = 1
SURE = 99  # strength of a comparison that is all one way


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    trunk, found = open_trunk(ModelSettings()), {}
    for one in arguments.data:
        name, _, place = one.partition("=")
        path, _, form = place.partition(":")
        found[name] = compared(Path(path), form or "auto", trunk)
    record("reward-kinds", "held-out judgements under reward models that learned from judgements as said, and from pairs of them", found, arguments.out)


def compared(path: Path, form: str, trunk: Trunk) -> dict[str, Any]:
    """Every arm on one file."""
    settings = RewardSettings(learn_from="judgements")
    with tempfile.TemporaryDirectory() as scratch:
        project = open_project(create_project(Path(scratch) / "p", settings=""))
        import_judgements(project, path, form)
        quality = measure_quality(project, QualitySettings(), round_ids=None)
        dataset = build_preferences(project, PreferenceSettings(), quality.as_dict(), round_ids=None, seed=SEED)
        told, unseen = read_said(dataset, trunk, settings.centre)
        spec = FeatureSpec(readings_at(settings.readings, trunk.layers), settings.max_tokens)
        seen, held_out = (FeatureCache(Path(scratch) / "features", trunk, spec).get(part.responses) for part in (told, unseen))
        project.database.close()
    row: dict[str, Any] = {"judgements": len(told.said), "held_out": len(unseen.said), "responses": len(told.responses) + len(unseen.responses)}
    arms: dict[str, Callable[[Sequence[Said]], list[Said]]] = {"as said": list, "pairs": in_pairs, "no ties": lambda said: in_pairs(said, ties=False)}
    each: dict[str, list[float]] = {}
    for name, change in arms.items():
        fit, _ = fit_judged(changed(told, change), seen, settings, SEED, lambda **_: None)
        with torch.no_grad():
            scores, unknown = (fit.head(x).double().mean(1) for x in (seen, held_out))
        slope, scales = scales_for(told, scores)
        each[name] = by_judgement(unseen, unknown * slope, scales)
        row[name] = {"nats": interval(each[name], unseen.prompts), "l2": fit.facts["l2"]}
        print(path.name, name, row[name], flush=True)
    for name in ("pairs", "no ties"):
        row[f"{name} less as said"] = interval([other - own for own, other in zip(each["as said"], each[name], strict=True)], unseen.prompts)
    return row


def in_pairs(said: Sequence[Said], *, ties: bool = True) -> list[Said]:
    """Comparisons of two in the place of rankings, which weigh as much together; ties of pairs as half a vote for each, or left out."""
    found: list[Said] = []
    for one in said:
        if one.kind == Kind.RANKING:
            ranks, n = one.answer["ranks"], len(one.responses)
            twos = [(i, j, (ranks[j] > ranks[i]) - (ranks[j] < ranks[i])) for i, j in combinations(range(n), 2)]
            found += [Said(Kind.PAIR, (one.responses[i], one.responses[j]), {"strength": SURE * side}, one.trust * 2 / n) for i, j, side in twos]
        else:
            found.append(one)
    sided = [one for one in found if one.kind != Kind.PAIR or one.answer["strength"]]
    if not ties:
        return sided
    tied = [one for one in found if one.kind == Kind.PAIR and not one.answer["strength"]]
    return sided + [one._replace(answer={"strength": side}, trust=one.trust / 2) for one in tied for side in (SURE, -SURE)]


def changed(told: SaidLesson, change: Callable[[Sequence[Said]], list[Said]]) -> SaidLesson:
    """The same prompts with other judgements in the place of each."""
    said, prompts = [], []
    for one, prompt in zip(told.said, told.prompts, strict=True):
        own = change([one])
        said += own
        prompts += [prompt] * len(own)
    return replace(told, said=said, prompts=prompts)


def scales_for(told: SaidLesson, scores: Tensor) -> tuple[Tensor, Scales]:
    """The likeliest slope, for an arm may have learned scores too steep, and scales of the train judgements for scores that stand."""
    said = told.tensors()
    scales = Scales(told.forms)
    log_slope = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_slope, *scales.parameters()], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = surprise(scores * log_slope.exp(), said, scales) + scales.price() / said.weight
        value.backward()
        return value

    optimizer.step(loss)
    return log_slope.detach().exp(), scales


def by_judgement(unseen: SaidLesson, scores: Tensor, scales: Scales) -> list[float]:
    """Nats of each held-out judgement."""
    found = []
    with torch.no_grad():
        for one in unseen.said:
            (loss, _), = surprises(scores, judged([one._replace(trust=1.0)], unseen.nats_a_step, unseen.forms), scales).values()  # fmt: skip
            found.append(loss.item())
    return found


def interval(values: Sequence[float], prompts: Sequence[str]) -> dict[str, float]:
    """Mean with a bootstrap interval over prompts."""
    found = bootstrap_mean(values, groups=prompts, seed=SEED)
    return {"value": round(found.value, 4), "low": round(found.low, 4), "high": round(found.high, 4), "prompts": found.n}


if __name__ == "__main__":
    main()
