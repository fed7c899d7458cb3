"""What it is worth to learn from judgements as they were made, and not from the pairs they come to: rankings, ties, thumbs, mixtures, on real data.

    PYTHONPATH=tests python -m benchmarks.reward_kinds NAME=PATH[:FORMAT][,PATH[:FORMAT]] ... [--prompts 500] [--work .cache/reward-kinds] [--out FOLDER]

NAME names the data in the result, PATH is any file that `truing import` reads; several together are one mixture. For each: import, trust, features of the
default model, and the linear head fitted to each arm's judgements with the same folds, strengths of L2 and members:

    as said      pairs with their ties (Davidson), rankings, ratings, thumbs, edits, each by its own likelihood
    rankings     where somebody compared all responses of a prompt two by two and ranked them by it, one ranking (Plackett-Luce with ties) in their place
    pairs        rankings as comparisons of two, ties as half a vote for each (Bradley-Terry)
    no ties      the same without ties
    only KIND    where there are several kinds, as said but of one kind alone
    nothing      all scores alike: what the scales of the kinds know by themselves

Each is asked how surprising judgements are that it has not seen, as they were said. The prompts are parted in folds, each scored by a fit to the others;
where there are fewer than 30 prompts, with which nobody can tell what holds for others, it is sets of responses that were asked about together which are
parted, so that other judgements of a response may have been seen. A slope of the scores and scales (widths of ties, cut-points) are then fitted to what the
other folds said, with scores that never saw what they are asked about: an arm whose scores are too steep or too flat isn't blamed for it, and only what they
know is compared. Intervals are bootstraps over prompts.

The last line of stdout is one JSON object; the same is written to reward-kinds-DATE.json.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
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
from truing.reward.card.fitness import FEWEST_PROMPTS
from truing.reward.features import FeatureCache
from truing.reward.judged import Said, Scales, forms_of, judged, surprise, surprises
from truing.reward.lessons import SaidLesson, read_said
from truing.reward.train import RewardSettings, frozen_spec
from truing.reward.train_judged import fit_judged
from truing.reward.train_pairs import folds_by_prompt
from truing.stats import bootstrap_mean
from truing.store.project import create_project, open_project
from truing.store.tables import Kind

SEED = 1
SURE = 99  # strength of a comparison that is all one way
Change = Callable[[Sequence[Said]], list[Said]]


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--prompts", type=int, default=500, help="at most, of those that were asked about in the same kinds")
    parser.add_argument("--folds", type=int, default=4, help="of prompts, each foretold from the others")
    parser.add_argument("--work", type=Path, default=Path(".cache/reward-kinds"), help="where features are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    trunk, found = open_trunk(ModelSettings()), {}
    for one in arguments.data:
        name, _, files = one.partition("=")
        found[name] = compared([file.partition(":")[::2] for file in files.split(",")], trunk, arguments)
    record("reward-kinds", "judgements that weren't seen under reward models that learned from judgements as said, and in other forms", found, arguments.out)


def compared(files: Sequence[tuple[str, str]], trunk: Trunk, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every arm on some files, (path, format) each."""
    folds = arguments.folds
    settings = RewardSettings(learn_from="judgements")
    told = all_said(files, trunk, settings, arguments.prompts)
    features = FeatureCache(arguments.work, trunk, frozen_spec(trunk, settings)).get(told.responses)
    places = {item: place for place, item in enumerate(told.responses)}
    by_prompt = len(set(told.prompts)) >= FEWEST_PROMPTS
    sets = [f"{prompt}/{sorted(one.responses)}" for one, prompt in zip(told.said, told.prompts, strict=True)]
    unit = told.prompts if by_prompt else sets
    fold = dict(zip(units := sorted(set(unit)), folds_by_prompt(units, folds, SEED).tolist(), strict=True))
    at = [fold[one] for one in unit]
    found: dict[str, list[Tensor]] = {}  # of each arm and fold, (S,) scores of all responses by a fit that didn't see the fold's judgements
    strengths: dict[str, list[float]] = {}
    for left_out in range(folds):
        train = part(told, [place != left_out for place in at])
        seen = features[[places[item] for item in train.responses]]
        for name, lesson in arms_of(train).items():
            scores = torch.zeros(len(features), dtype=torch.float64)
            if lesson is not None:
                fit, _ = fit_judged(lesson, seen, settings, SEED, lambda **_: None)
                strengths.setdefault(name, []).append(fit.facts["l2"])
                with torch.no_grad():
                    scores = fit.head(features).double().mean(1)
            found.setdefault(name, []).append(scores)
    # a response counts once for each fold, so that every judgement can ask the fit that didn't see it
    apart = [one._replace(responses=tuple(place * len(features) + of for of in one.responses)) for one, place in zip(told.said, at, strict=True)]
    asked_of = replace(told, responses=told.responses * folds, prompt_of=told.prompt_of * folds, said=apart)
    each: dict[str, list[float]] = {}
    asked: list[str] = []
    for left_out in range(folds):
        asked += [prompt for prompt, place in zip(told.prompts, at, strict=True) if place == left_out]
        others, own = ([one for one, place in zip(apart, at, strict=True) if (place == left_out) is out] for out in (False, True))
        for name, parts in found.items():
            assert len(parts) == folds, f"{name} is the same as another arm in some folds and not in others: they can't be put together"
            scores = torch.cat(parts)
            slope, scales = scales_for(replace(asked_of, said=others), scores)
            each.setdefault(name, []).extend(by_judgement(replace(asked_of, said=own), scores * slope, scales))
    kinds = dict(Counter(str(one.kind) for one in told.said))
    row: dict[str, Any] = {"judgements": kinds, "prompts": len(set(told.prompts)), "responses": len(told.responses)}
    row |= {"folds": folds, "parted": "prompts" if by_prompt else "sets of responses"}
    for name, nats in each.items():
        row[name] = {"nats": interval(nats, asked), "l2": strengths.get(name)}
        if name != "as said":
            row[f"{name} less as said"] = interval([other - own for own, other in zip(each["as said"], nats, strict=True)], asked)
    if len(kinds) > 1:  # what each arm knows of each kind
        told_in_order = [str(one.kind) for place in range(folds) for one, own in zip(told.said, at, strict=True) if own == place]
        for kind in sorted(kinds):
            chosen = [place for place, own in enumerate(told_in_order) if own == kind]
            row[f"of {kind} alone"] = {name: interval([nats[place] for place in chosen], [asked[place] for place in chosen]) for name, nats in each.items()}
            row[f"of {kind} alone, less as said"] = {
                name: interval([nats[place] - each["as said"][place] for place in chosen], [asked[place] for place in chosen])
                for name, nats in each.items() if name != "as said"
            }  # fmt: skip
    if "rankings" in each:
        row["pairs less rankings"] = interval([other - own for own, other in zip(each["rankings"], each["pairs"], strict=True)], asked)
    return row


def all_said(files: Sequence[tuple[str, str]], trunk: Trunk, settings: RewardSettings, most: int) -> SaidLesson:
    """Everything that some files say of some prompts, with the trust that quality control gives."""
    with tempfile.TemporaryDirectory() as scratch:
        project = open_project(create_project(Path(scratch) / "p", settings=""))
        for path, form in files:
            import_judgements(project, Path(path), form or "auto")
        quality = measure_quality(project, QualitySettings(), round_ids=None)
        dataset = build_preferences(project, PreferenceSettings(), quality.as_dict(), round_ids=None, seed=SEED)
        train, held_out = read_said(dataset, trunk, settings.centre)
        project.database.close()
    shift = len(train.responses)
    more = [one._replace(responses=tuple(place + shift for place in one.responses)) for one in held_out.said]
    whole = replace(
        train, responses=train.responses + held_out.responses, prompt_of=train.prompt_of + held_out.prompt_of, said=train.said + more,
        prompts=train.prompts + held_out.prompts, whole=train.whole + held_out.whole,
    )  # fmt: skip
    kinds: dict[str, set[str]] = {}
    for one, prompt in zip(whole.said, whole.prompts, strict=True):
        kinds.setdefault(prompt, set()).add(one.kind)
    wanted: list[str] = []
    for alike in sorted({tuple(sorted(own)) for own in kinds.values()}):
        names = sorted(prompt for prompt, own in kinds.items() if tuple(sorted(own)) == alike)
        wanted += [names[place] for place in torch.randperm(len(names), generator=torch.Generator().manual_seed(SEED))[:most].tolist()]
    return whole.only(wanted)


def part(told: SaidLesson, kept: Sequence[bool]) -> SaidLesson:
    """Some of the judgements, with the responses that they are about."""
    rows = [(one, prompt) for one, prompt, keep in zip(told.said, told.prompts, kept, strict=True) if keep]
    about = sorted({place for one, _ in rows for place in one.responses})
    new = {old: place for place, old in enumerate(about)}
    said = [one._replace(responses=tuple(new[old] for old in one.responses)) for one, _ in rows]
    responses, prompt_of = [told.responses[old] for old in about], [told.prompt_of[old] for old in about]
    return replace(told, responses=responses, prompt_of=prompt_of, said=said, prompts=[prompt for _, prompt in rows])


def arms_of(told: SaidLesson) -> dict[str, SaidLesson | None]:
    """Each arm's judgements; None: it learns nothing. An arm that would be the same as another isn't there."""
    changes: dict[str, Change] = {"rankings": in_rankings, "pairs": in_pairs, "no ties": lambda said: in_pairs(said, ties=False)}
    kinds = sorted({one.kind for one in told.said})
    if len(kinds) > 1:
        changes |= {f"only {kind}": partial(of_kind, kind=kind) for kind in kinds}
    arms: dict[str, SaidLesson | None] = {"as said": told}
    for name, change in changes.items():
        lesson = changed(told, change)
        if all(sorted(map(repr, lesson.said)) != sorted(map(repr, other.said)) for other in arms.values() if other is not None):
            arms[name] = lesson
    return arms | {"nothing": None}


def of_kind(said: Sequence[Said], kind: str) -> list[Said]:
    """Those of one kind."""
    return [one for one in said if one.kind == kind]


def in_rankings(said: Sequence[Said]) -> list[Said]:
    """One ranking in the place of the comparisons of a prompt's responses, where each two were compared once and agree with it; it weighs as much as they."""
    pairs, others = [one for one in said if one.kind == Kind.PAIR], [one for one in said if one.kind != Kind.PAIR]
    some = sorted({place for one in pairs for place in one.responses})
    side = {one.responses: (one.answer["strength"] > 0) - (one.answer["strength"] < 0) for one in pairs}
    side |= {(b, a): -found for (a, b), found in list(side.items())}
    if len(some) < 3 or len(pairs) != len(some) * (len(some) - 1) / 2 or len(side) != 2 * len(pairs):
        return list(said)
    ranks = [1 + sum(side[other, own] > 0 for other in some if other != own) for own in some]
    if any(side[some[i], some[j]] != (ranks[j] > ranks[i]) - (ranks[j] < ranks[i]) for i, j in combinations(range(len(some)), 2)):
        return list(said)
    return [Said(Kind.RANKING, tuple(some), {"ranks": ranks}, sum(one.trust for one in pairs) / (len(some) - 1)), *others]


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


def changed(told: SaidLesson, change: Change) -> SaidLesson:
    """The same prompts with other judgements in the place of each prompt's."""
    of: dict[str, list[Said]] = {}
    for one, prompt in zip(told.said, told.prompts, strict=True):
        of.setdefault(prompt, []).append(one)
    said, prompts = [], []
    for prompt, own in of.items():
        new = change(own)
        said += new
        prompts += [prompt] * len(new)
    return replace(told, said=said, prompts=prompts, forms=forms_of(said))


def scales_for(told: SaidLesson, scores: Tensor) -> tuple[Tensor, Scales]:
    """The likeliest slope of scores that stand, and scales with it."""
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
