"""The one loop of online tuning: draw answers, score them, learn from them; a checkpoint after every update.

What differs between algorithms (advantages, loss, a value head or none) is in `policy/algorithms/`, a small module each.
"""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.artifacts import Artifact, load_artifact, write_artifact
from truing.config import build
from truing.console import say, track
from truing.errors import SettingError
from truing.models.trunk import Trunk
from truing.policy.algorithms import ALGORITHMS
from truing.policy.checkpoint import load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from truing.policy.diagnosis import diagnose
from truing.policy.kl import AdaptiveKL, FixedKL
from truing.policy.losses import denominators, masked_mean
from truing.policy.metrics import measure
from truing.policy.rollout import ROLE, Forward, GivesValues, Rollout, Score, draw_rollout, forward, top_layers
from truing.policy.settings import TuneSettings
from truing.policy.targets import Targets
from truing.store.ids import seed_from
from truing.store.project import Project, record_artifact
from truing.store.runs import stage_run

ADAM_BETAS, ADAM_EPS = (0.9, 0.95), 1e-5
MAX_MEAN_RATIO = 10.0  # a minibatch whose mean ratio passes this is skipped: its gradient would be noise
CURVE_POINTS = 200  # of a curve while the run is under way
SHOWN = 5  # sampled answers kept from each update


def tune_settings(project: Project, algorithm: str | None = None) -> TuneSettings:
    """The settings of tuning, in the class of the algorithm that they name.

    Raises:
        SettingError: there is no such algorithm, or it has no such setting.
    """
    raw = dict(project.raw_settings("tune"))
    if algorithm is not None:
        raw["algorithm"] = algorithm
    name = raw.get("algorithm", "ppo")
    if name not in ALGORITHMS:
        raise SettingError(f"there is no algorithm {name!r}", fix=f"known ones: {', '.join(ALGORITHMS)}")
    kind: type[TuneSettings] = ALGORITHMS[name].Settings
    return build(kind, "tune", raw)


def train_policy(
    project: Project,
    settings: TuneSettings,
    *,
    trunk: Trunk,
    prompts: Mapping[str, Sequence[int]],
    score: Score,
    reward_id: str,
    parent: str,
    temperature: float,
    max_new_tokens: int,
    seed: int,
    round_id: int | None = None,
) -> Artifact:
    """Tune the policy against a reward model.

    Args:
        trunk: the base; on return it has no policy adapter on it.
        prompts: prompt id → token ids, in order.
        score: prompts and responses → scores normalised to standard deviation 1.
        reward_id: the artifact that `score` speaks for.
        parent: the policy to go on from: "base" or an artifact id. The reference is the base in both cases.
        temperature, max_new_tokens: as in the samples that the reward model was fitted on.
        seed: of everything drawn.

    Returns:
        an artifact of kind "policy": adapter/ in PEFT's format, value_head.safetensors, metrics.jsonl, samples.jsonl,
        diagnosis.json.
    """
    inputs = {
        "model": trunk.fingerprint, "prompts": list(prompts), "reward": reward_id, "parent": parent, "settings": settings.model_dump(),
        "temperature": temperature, "max_new_tokens": max_new_tokens, "seed": seed,
    }  # fmt: skip
    with stage_run(project, "tune", inputs, round_id=round_id) as run:
        if run.answered:
            return load_artifact(project.artifacts, run.result["policy"])
        folder = project.root / "runs" / run.key[:16]
        if project.force:
            shutil.rmtree(folder, ignore_errors=True)
        learner = Learner(trunk, settings, prompts, score, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)
        try:
            learner.start(project.artifacts, parent)
            learner.resume(folder)
            for _ in track(range(learner.done, settings.updates), settings.algorithm, settings.updates, done=learner.done, stats=learner.headline):
                learner.update()
                learner.keep(folder)
                run.progress(done=learner.done, total=settings.updates, curves=learner.curves(), **learner.rows[-1])
            artifact = write_artifact(
                project.artifacts, "policy", learner.write, seed=seed, settings=inputs,
                parents=[parent for parent in (reward_id, parent) if parent != "base"], facts=learner.facts(),
            )  # fmt: skip
        finally:
            if trunk.has_adapter(ROLE):
                trunk.drop_adapter(ROLE)
        record_artifact(project, artifact.id, artifact.manifest)
        run.result = {"policy": artifact.id, **learner.facts(), "seconds": round(run.seconds, 1)}
    shutil.rmtree(folder, ignore_errors=True)
    for finding in artifact.facts["diagnosis"]:
        say(f"{finding['failure']}: {finding['sign']}. {finding['say']}")
    return artifact


class Learner:
    """A policy being tuned: the adapter, the value head, the optimiser, and what has been seen so far."""

    def __init__(
        self, trunk: Trunk, settings: TuneSettings, prompts: Mapping[str, Sequence[int]], score: Score, *, temperature: float, max_new_tokens: int, seed: int
    ) -> None:
        self.trunk, self.settings, self.score, self.seed = trunk, settings, score, seed
        self.temperature, self.max_new_tokens = temperature, max_new_tokens
        self.algorithm: ModuleType = ALGORITHMS[settings.algorithm]
        self.prompt_ids = list(prompts)
        self.prompts = [list(ids) for ids in prompts.values()]
        self.head: nn.Linear | None = nn.Linear(trunk.hidden_size, 1) if self.algorithm.NEEDS_VALUES else None
        target = settings.kl_target_nats
        self.kl = FixedKL(settings.beta) if target is None else AdaptiveKL(settings.beta, target=target, horizon=settings.kl_horizon)
        self.done = 0
        self.rows: list[dict[str, float]] = []
        self.shown: list[dict[str, Any]] = []
        self.optimizer: torch.optim.AdamW

    def start(self, artifacts: Path, parent: str) -> None:
        """Put the adapter on the trunk: the parent's, or a new one that changes nothing yet. A parent's value head goes on from where it was."""
        settings = self.settings
        if self.head is not None:
            _start_value_head(self.head, settings, self.score)
        if parent == "base":
            top = top_layers(self.trunk, settings)
            self.trunk.add_adapter(ROLE, rank=settings.rank, alpha=2 * settings.rank, seed=seed_from(self.seed, "adapter"), top_layers=top)
        else:
            artifact = load_artifact(artifacts, parent)
            _require_same_shape(settings, artifact)
            self.trunk.load_adapter(ROLE, artifact.path / "adapter")
            if self.head is not None and (artifact.path / "value_head.safetensors").exists():
                self.head.load_state_dict(load_file(artifact.path / "value_head.safetensors"))
        for parameter in self.trunk.adapter_parameters(ROLE):
            parameter.requires_grad_(True)
        parameters = [*self.trunk.adapter_parameters(ROLE), *(self.head.parameters() if self.head is not None else [])]
        self.optimizer = torch.optim.AdamW(parameters, lr=settings.lr, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=0.0)

    def update(self) -> None:
        """One update: a rollout and `epochs` passes over it."""
        began = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * (1 - self.done / self.settings.updates)
        chosen = self.chosen_prompts(self.done)
        seeds = [seed_from(self.seed, "answer", self.done, place) for place in range(len(chosen))]
        rollout = draw_rollout(
            self.trunk, self.head, [self.prompts[index] for index in chosen], seeds, self.score, self.settings,
            beta=self.kl.beta, temperature=self.temperature, max_new_tokens=self.max_new_tokens,
        )  # fmt: skip
        targets: Targets = self.algorithm.targets(rollout, self.settings, self.rows)
        beta = self.kl.beta
        steps = self._learn(rollout, targets)
        row = {
            "update": self.done + 1.0,
            **measure(rollout, targets, steps, beta=beta, lr=self.optimizer.param_groups[0]["lr"], score_clip=self.settings.score_clip),
        }
        if self.settings.kl_target_nats is not None:
            row["objective/kl_target"] = self.settings.kl_target_nats
        self.kl.update(row["objective/kl"], len(chosen))
        self.rows.append(row)
        for place in range(min(SHOWN, len(chosen))):
            at = place * len(chosen) // min(SHOWN, len(chosen))
            response = rollout.responses[at]
            self.shown.append(
                {"update": self.done + 1, "prompt_id": self.prompt_ids[chosen[at]], "text": self.trunk.text(response.token_ids),
                 "finished": response.finished, "score": round(float(rollout.raw_scores[at]), 4)}
            )  # fmt: skip
        self.done += 1
        self.seconds = time.perf_counter() - began

    def chosen_prompts(self, update: int) -> list[int]:
        """Which prompts an update draws answers to, each `group_size` times: the prompts in a fresh random order each
        time they have all had their turn."""
        wanted = self.settings.samples // self.settings.group_size
        places = range(update * wanted, (update + 1) * wanted)
        orders: dict[int, list[int]] = {}
        chosen = []
        for place in places:
            turn, at = divmod(place, len(self.prompts))
            if turn not in orders:
                orders[turn] = torch.randperm(len(self.prompts), generator=torch.Generator().manual_seed(seed_from(self.seed, "order", turn))).tolist()
            chosen += [orders[turn][at]] * self.settings.group_size
        return chosen

    def _learn(self, rollout: Rollout, targets: Targets) -> list[dict[str, float]]:
        """All optimiser steps of an update; what each of them saw."""
        steps: list[dict[str, float]] = []
        for epoch in range(self.settings.epochs):
            for parts in self._minibatches(rollout, epoch):
                seen = self._step(rollout, targets, parts)
                steps.append(seen)
                if seen["kl_old"] > self.settings.max_kl_old:
                    return steps
        return steps

    def _minibatches(self, rollout: Rollout, epoch: int) -> list[list[int]]:
        """The rollout's minibatches in another order each epoch. Parts themselves never change: see `Rollout`."""
        generator = torch.Generator().manual_seed(seed_from(self.seed, "minibatch", self.done, epoch))
        return [rollout.minibatches[number] for number in torch.randperm(len(rollout.minibatches), generator=generator).tolist()]

    def _step(self, rollout: Rollout, targets: Targets, parts: list[int]) -> dict[str, float]:
        """One optimiser step over a minibatch, a part at a time; every loss is divided by what its mean over the whole minibatch is."""
        trunk, head, settings = self.trunk, self.head, self.settings
        rows = [index for part in parts for index in rollout.parts[part]]
        lengths = rollout.mask.sum(1)
        divisor = torch.ones(len(lengths), 1)
        divisor[rows] = denominators(lengths[rows], settings.average, limit=self.max_new_tokens)
        tokens = float(lengths[rows].sum())
        seen = dict.fromkeys(("loss", "clipfrac", "kl_old", "value_loss", "value_clipfrac", "ratio"), 0.0) | {
            "max_ratio": 0.0,
            "grad_norm": 0.0,
            "skipped": 0.0,
        }
        warming = self.done < getattr(settings, "critic_warmup", 0)
        self.optimizer.zero_grad(set_to_none=True)
        with trunk.using(ROLE):
            for part in parts:
                batch = rollout.part(part, trunk.pad_id)
                new = forward(
                    trunk, head, batch, self.temperature, lower=rollout.lower[part], top_layers=top_layers(trunk, settings),
                    entropy_gradient=settings.entropy_weight > 0,
                )  # fmt: skip
                mask, own = batch.mask, divisor[rollout.parts[part]]
                narrow = _narrow(rollout.parts[part], mask.shape[1])
                old = Forward(narrow(rollout.logprobs), narrow(rollout.entropy), None if rollout.values is None else narrow(rollout.values))
                goal = Targets(*(None if values is None else narrow(values) for values in targets))
                losses = self.algorithm.loss(new, old, goal, mask, settings, own)
                total = losses.value if warming else losses.total
                if settings.entropy_weight and not warming:
                    total = total - settings.entropy_weight * masked_mean(new.entropy, mask, own)
                total.backward()
                _add(seen, new, old, losses, mask, tokens)
        if seen["ratio"] > MAX_MEAN_RATIO or seen["kl_old"] > settings.max_kl_old:
            self.optimizer.zero_grad(set_to_none=True)
            seen["skipped"] = 1.0
            return seen
        if warming:  # the head's loss reaches the adapter through the hidden states: the adapter stays as it is
            for parameter in trunk.adapter_parameters(ROLE):
                parameter.grad = None
        seen["grad_norm"] = float(nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], settings.grad_clip))
        self.optimizer.step()
        return seen

    def headline(self) -> str:
        """The newest numbers, for the progress line."""
        if not self.rows:
            return ""
        row = self.rows[-1]
        return f"score {row['objective/scores']:+.2f}  kl {row['objective/kl']:.1f}  length {row['response/length']:.0f}  ends {row['response/eos_rate']:.0%}"

    def curves(self) -> dict[str, list[float]]:
        """Score and KL of every update so far, of a long run at most 200 of them evenly spread: what the studio draws while it runs."""
        step = -(-len(self.rows) // CURVE_POINTS)
        return {name: [round(row[name], 4) for row in self.rows[::-1][::step][::-1]] for name in ("objective/scores", "objective/kl")}

    # On disk ---------------------------------------------------------------------------------------------------------

    def keep(self, folder: Path) -> None:
        """Write a checkpoint."""
        tensors = {f"adapter.{name}": value for name, value in self.trunk.adapter_state(ROLE).items()}
        tensors |= {f"head.{name}": value for name, value in (self.head.state_dict() if self.head is not None else {}).items()}
        state = {"kl": self.kl.state(), "rows": self.rows, "shown": self.shown}
        save_checkpoint(folder, self.done, state, tensors | optimizer_tensors(self.optimizer))

    def resume(self, folder: Path) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = load_checkpoint(folder)
        if found is None:
            return
        state, tensors = found
        for name, value in self.trunk.adapter_state(ROLE).items():
            value.copy_(tensors[f"adapter.{name}"])
        if self.head is not None:
            self.head.load_state_dict({name: tensors[f"head.{name}"] for name in ("weight", "bias")})
        load_optimizer_tensors(self.optimizer, tensors)
        self.kl.load(state["kl"])
        self.done, self.rows, self.shown = state["update"], state["rows"], state["shown"]
        say(f"going on after update {self.done}")

    def write(self, folder: Path) -> None:
        """Fill the policy's artifact."""
        self.trunk.save_adapter(ROLE, folder / "adapter")
        if self.head is not None:
            save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, folder / "value_head.safetensors")
        for name, rows in (("metrics.jsonl", self.rows), ("samples.jsonl", self.shown)):
            (folder / name).write_text("".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        (folder / "diagnosis.json").write_text(json.dumps(self.facts()["diagnosis"], indent=1), encoding="utf-8")

    def facts(self) -> dict[str, Any]:
        """The last update's main numbers and every named failure."""
        last = self.rows[-1] if self.rows else {}
        kept = ("objective/scores", "objective/kl", "objective/entropy", "response/length", "response/eos_rate", "response/distinct2")
        return {name: last.get(name) for name in kept} | {"updates": self.done, "diagnosis": [finding._asdict() for finding in diagnose(self.rows)]}


def _require_same_shape(settings: TuneSettings, parent: Artifact) -> None:
    """A policy is tuned further in the adapter that it has: its rank and its layers can't change on the way."""
    made = parent.manifest["settings"]["settings"]
    for name in ("rank", "layers"):
        if made[name] != getattr(settings, name):
            raise SettingError(
                f"tune.{name} is {getattr(settings, name)}, but the policy {parent.id} was made with {made[name]}", fix=f"set tune.{name}={made[name]}"
            )


@torch.no_grad()
def _start_value_head(head: nn.Linear, settings: TuneSettings, score: Score) -> None:
    """A critic that promises nothing, or, under `tune.value_start`, one that says of any state what the reward model would say if the answer ended there.

    Raises:
        UserError: the reward is nothing that a head on the policy's states could say.
    """
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if getattr(settings, "value_start", "zero") == "zero":
        return
    if not isinstance(score, GivesValues):
        raise SettingError("tune.value_start is reward, and this reward has no head that a value head could start from", fix="set tune.value_start=zero")
    weight, constant = score.value_direction()
    head.weight.copy_(weight[None])
    head.bias.fill_(constant)


def _narrow(part: list[int], longest: int) -> Any:
    return lambda values: values[part, :longest]


def _add(seen: dict[str, float], new: Forward, old: Forward, losses: Any, mask: Tensor, tokens: float) -> None:
    """Add a part's statistics to its minibatch's."""
    with torch.no_grad():
        ratio = (new.logprobs - old.logprobs).clamp(-20, 20).exp()
        seen["ratio"] += float(ratio[mask].sum()) / tokens
    seen["loss"] += float(losses.policy.loss.detach())
    seen["clipfrac"] += float(losses.policy.clip_fraction)
    seen["kl_old"] += float(losses.policy.kl_old)
    seen["max_ratio"] = max(seen["max_ratio"], float(losses.policy.max_ratio))
    if losses.value is not None:
        seen["value_loss"] += float(losses.value.detach())
        seen["value_clipfrac"] += float(losses.value_clip_fraction)
