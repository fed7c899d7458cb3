"""The world of the over-optimisation benchmark: prompts, responses of the base, a gold reward that is known, and proxies that learned from noisy pairs.

Everything drawn or learned lies in a folder, found again by a hash of what made it: a run that was killed goes on where it was.

Shapes: S responses, D features, P prompts, N responses to each.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from truing.config import write_atomically
from truing.console import track
from truing.feedback.taste import gold_reward
from truing.models.generate import generate
from truing.models.logprobs import response_logprobs
from truing.models.sequences import length_buckets
from truing.models.trunk import Trunk
from truing.prompts import everyday_prompts
from truing.reward.features import FeatureCache, Item, pool
from truing.reward.heads import By, Head, Scores, load_head, save_head
from truing.reward.lessons import PairLesson
from truing.reward.train import RewardSettings, fit_frozen, frozen_spec
from truing.reward.train_pairs import Pairs
from truing.store.ids import content_id, seed_from
from truing.store.splits import HELD_OUT_SHARE, split_of
from truing.store.tables import Split

Floats = NDArray[np.float64]

BATCH = 256  # responses drawn at a time, and kept in one file
PART = 16  # responses in a pass of the base
ARMS: dict[str, tuple[Literal["single", "ensemble"], By]] = {
    "single": ("single", "mean"),
    "mean": ("ensemble", "mean"),
    "lower": ("ensemble", "lower"),
    "worst": ("ensemble", "worst"),
}


class Sample(NamedTuple):
    """A response. prompt: its text. base_logprob: under the base at temperature 1, nats for each token in the mean."""

    prompt: str
    token_ids: tuple[int, ...]
    base_logprob: float
    finished: bool


@dataclass(frozen=True)
class Plan:
    """What decides the responses and the labels.

    Attributes:
        seed: of everything drawn.
        train: prompts that are learned from, at most.
        max_new_tokens, temperature: of every response, of the policies' too.
        per_prompt: responses of the base to each train prompt, of which pairs are made.
        stopped: how many of these are stopped early, each at a place of its own, with an end token.
        pairs: labelled pairs that a proxy learns from.
        noise: scale of the logistic noise on a difference of gold, in standard deviations of gold on the reference responses.
    """

    seed: int
    train: int
    max_new_tokens: int
    temperature: float
    per_prompt: int
    stopped: int
    pairs: int
    noise: float


class Labelled(NamedTuple):
    """Pairs with their labels, and the share of labels that go against gold."""

    pairs: Pairs
    against: float


class World:
    """The base, where its work is kept, and what was planned.

    Attributes:
        train, held_out: the package's own prompts, by the house's split.
        pool: responses to the train prompts.
        mean, std: of gold on the reference responses, the first of each train prompt, as many as the reward settings say.
    """

    def __init__(self, trunk: Trunk, folder: Path, plan: Plan, settings: RewardSettings) -> None:
        self.trunk, self.folder, self.plan, self.settings = trunk, folder, plan, settings
        prompts = [json.loads(line)["prompt"] for line in everyday_prompts().read_text(encoding="utf-8").splitlines()]
        train, self.held_out = ([text for text in prompts if split_of(text, HELD_OUT_SHARE) == split] for split in (Split.TRAIN, Split.HELD_OUT))
        self.train = train[: plan.train]
        self.spec = frozen_spec(trunk, settings)
        self.pool = self._with_stopped(self.draw(self.train, plan.per_prompt, "pool"))
        self.reference = self.pool[:: plan.per_prompt][: settings.reference_samples]
        found = np.array([self._utility(sample) for sample in self.reference])
        self.mean, self.std = float(found.mean()), float(found.std())

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt."""
        return tuple(self.trunk.prompt_ids([{"role": "user", "content": text}]))

    def draw(self, prompts: Sequence[str], each: int, label: str) -> list[Sample]:
        """Responses of the base, those of a prompt together."""
        jobs = [(text, seed_from(self.plan.seed, "sample", text, number)) for text in prompts for number in range(each)]
        batches = [jobs[start : start + BATCH] for start in range(0, len(jobs), BATCH)]
        return [sample for batch in track(batches, label, len(batches)) for sample in self._batch(batch)]

    def _batch(self, jobs: Sequence[tuple[str, int]]) -> list[Sample]:
        plan, asked = self.plan, [self.prompt_ids(text) for text, _ in jobs]
        file = self.folder / "samples" / f"{content_id(self.trunk.fingerprint, plan.max_new_tokens, plan.temperature, asked, jobs)}.json"
        if not file.exists():
            seeds = [seed for _, seed in jobs]
            drawn = generate(self.trunk, asked, seeds, max_new_tokens=plan.max_new_tokens, temperature=plan.temperature, batch_size=BATCH)
            rows = [(one.token_ids, float(np.mean(one.plain_logprobs)), one.finished) for one in drawn]
            write_atomically(file, json.dumps(rows))
        return [Sample(text, tuple(tokens), logprob, end) for (text, _), (tokens, logprob, end) in zip(jobs, json.loads(file.read_text()), strict=True)]

    def _with_stopped(self, drawn: list[Sample]) -> list[Sample]:
        """The last few responses of each prompt stopped after some of their tokens, each number of these being as likely."""
        plan, end = self.plan, self.trunk.response_ids("")[-1]
        places = [place for place in range(len(drawn)) if place % plan.per_prompt >= plan.per_prompt - plan.stopped]
        kept = [1 + seed_from(plan.seed, "stop", place) % max(len(drawn[place].token_ids) - 1, 1) for place in places]
        asked = [self.prompt_ids(drawn[place].prompt) for place in places]
        tokens = [(*drawn[place].token_ids[:length], end) for place, length in zip(places, kept, strict=True)]
        file = self.folder / "samples" / f"stopped-{content_id(self.trunk.fingerprint, asked, tokens)}.json"
        if places and not file.exists():
            write_atomically(file, json.dumps(self.read(asked, tokens)[0].tolist()))
        logprobs = json.loads(file.read_text()) if places else []
        changed = {place: Sample(drawn[place].prompt, own, logprob, True) for place, own, logprob in zip(places, tokens, logprobs, strict=True)}
        return [changed.get(place, sample) for place, sample in enumerate(drawn)]

    @torch.no_grad()
    def read(self, prompts: Sequence[tuple[int, ...]], responses: Sequence[tuple[int, ...]]) -> tuple[Floats, Floats, Tensor]:
        """One pass of the base.

        Returns:
            (S,) log-probability of each response at temperature 1, nats for each token in the mean; (S,) at the temperature of sampling, nats of the whole;
            (S, D).
        """
        trunk, spec = self.trunk, self.spec
        plain, cooled = np.empty(len(prompts)), np.empty(len(prompts))
        features = torch.empty(len(prompts), spec.width(trunk.hidden_size))
        with trunk.using(None):
            for part in length_buckets([len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)], PART):
                rows = trunk.rows([prompts[index] for index in part], [responses[index] for index in part])
                states = trunk.hidden_layers(rows, sorted({*spec.layers, trunk.layers}))
                for found, temperature in ((plain, 1.0), (cooled, self.plan.temperature)):
                    found[part] = response_logprobs(trunk, rows, temperature, hidden=states[trunk.layers]).logprobs.double().sum(1).numpy()
                plain[part] /= rows.mask.sum(1).numpy()
                features[part] = pool(states, rows, spec)
        return plain, cooled, features

    # ---- the truth ----

    def gold(self, samples: Sequence[Sample]) -> Floats:
        """(S,) in standard deviations of the reference responses, whose mean is 0."""
        return (np.array([self._utility(sample) for sample in samples]) - self.mean) / self.std

    def _utility(self, sample: Sample) -> float:
        text = self.trunk.text(sample.token_ids)
        return gold_reward(sample.prompt, text, finished=sample.finished, base_logprob=sample.base_logprob)

    # ---- what is known of it ----

    def features(self, samples: Sequence[Sample], label: str) -> Tensor:
        """(S, D)."""
        return FeatureCache(self.folder / "features", self.trunk, self.spec).get([self.item(sample) for sample in samples], label=label)

    def item(self, sample: Sample) -> Item:
        """Tokens of prompt and response."""
        return self.prompt_ids(sample.prompt), sample.token_ids

    def labelled(self, draw: int) -> Labelled:
        """Pairs of responses to one prompt, each judged once by Bradley and Terry's model on gold.

        Args:
            draw: number of the draw: other pairs and other luck.
        """
        plan, generator = self.plan, np.random.default_rng(seed_from(self.plan.seed, "labels", draw))
        gold = self.gold(self.pool)
        places: list[tuple[int, int]] = []
        while len(places) < plan.pairs:  # each prompt as often as any other, but for one
            for prompt in generator.permutation(len(self.train)):
                a, b = prompt * plan.per_prompt + generator.choice(plan.per_prompt, 2, replace=False)
                places.append((int(a), int(b)))
        places = places[: plan.pairs]
        lead = np.array([gold[a] - gold[b] for a, b in places])
        target = generator.random(len(lead)) < 1 / (1 + np.exp(-lead / plan.noise))
        against = float(np.mean(np.where(lead == 0, 0.5, target != (lead > 0))))
        a, b = ([self.item(self.pool[pair[side]]) for pair in places] for side in (0, 1))
        ones = torch.ones(len(lead))
        return Labelled(Pairs(a, b, torch.tensor(target, dtype=torch.float32), ones, [self.pool[pair[0]].prompt for pair in places]), against)

    def proxies(self, draw: int) -> dict[str, Head]:
        """The ensemble as the settings have it, and a single model: the same fit with one member, which heeds all pairs alike; both normalised."""
        ensemble = self._head(draw, self.settings)
        l2 = self._known(draw, self.settings).get("l2")  # chosen before members differ: a single model's cross-validation would be the same to the bit
        return {"ensemble": ensemble, "single": self._head(draw, self.settings.model_copy(update={"members": 1, "l2": l2}))}

    def _known(self, draw: int, settings: RewardSettings) -> dict[str, Any]:
        return dict(json.loads(self._place(draw, settings).with_suffix(".json").read_text()))

    def _place(self, draw: int, settings: RewardSettings) -> Path:
        made_of = (self.trunk.fingerprint, vars(self.plan), settings.model_dump(mode="json"), draw)
        return self.folder / "heads" / f"{content_id(made_of)}.safetensors"

    def _head(self, draw: int, settings: RewardSettings) -> Head:
        file = self._place(draw, settings)
        if not file.exists():
            pairs, against = self.labelled(draw)
            lesson = PairLesson(pairs, settings.centre)
            seed = seed_from(self.plan.seed, "fit", draw)
            learned = self.features(self.pool, "pool features")
            place = {self.item(sample): row for row, sample in enumerate(self.pool)}
            fit, _ = fit_frozen(lesson, learned[[place[item] for item in lesson.responses]], settings, seed, lambda **_: None)
            fit.head.normalise_on(learned[[place[self.item(sample)] for sample in self.reference]])
            with tempfile.TemporaryDirectory() as scratch:
                save_head(fit.head, Path(scratch) / "head")
                write_atomically(file.with_suffix(".json"), json.dumps(fit.facts | {"against": against}))
                write_atomically(file, (Path(scratch) / "head").read_bytes())
        return load_head(file)

    def facts(self, draw: int) -> dict[str, Any]:
        """What was chosen on the way to a draw's ensemble, and the share of its labels that go against gold."""
        return self._known(draw, self.settings)


def arms_of(heads: dict[str, Head], features: Tensor) -> dict[str, Floats]:
    """(S,) what each arm says of (S, D)."""
    said: dict[str, Scores] = {name: head.scores(features) for name, head in heads.items()}
    return {arm: said[head].by(rule).numpy() for arm, (head, rule) in ARMS.items()}
