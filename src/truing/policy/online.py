"""The loop of online tuning: draw answers, score them, learn from them.

What differs between algorithms (advantages, loss, a value head or none) is in `policy/algorithms/`, a small module each.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from truing.errors import SettingError
from truing.models.trunk import Trunk
from truing.policy.algorithms import ALGORITHMS
from truing.policy.constraint import Constraint
from truing.policy.diagnosis import Finding, best_update, fatal
from truing.policy.kl import AdaptiveKL, FixedKL
from truing.policy.learner import Learner
from truing.policy.losses import denominators, masked_mean
from truing.policy.metrics import measure
from truing.policy.rewards import GivesValues, HasObjectives, Score
from truing.policy.rollout import ROLE, Forward, Rollout, draw_rollout, forward
from truing.policy.settings import OnlineSettings
from truing.policy.targets import Targets
from truing.store.ids import seed_from

MAX_MEAN_RATIO = 10.0  # a minibatch whose mean ratio passes this is skipped: its gradient would be noise
SEEN = ("loss", "clipfrac", "kl_old", "value_loss", "value_clipfrac", "ratio", "max_ratio", "grad_norm", "skipped")  # in an optimiser step
SHOWN = 5  # sampled answers kept from each update


class OnlineLearner(Learner):
    """A policy that learns from answers of its own."""

    TOLD = ("objective/scores", "objective/kl", "objective/entropy", "response/length", "response/eos_rate", "response/distinct2")
    DRAWN = ("objective/scores", "objective/kl")

    def __init__(
        self, trunk: Trunk, settings: OnlineSettings, prompts: Mapping[str, Sequence[int]], score: Score, *, temperature: float, max_new_tokens: int, seed: int
    ) -> None:
        self.algorithm: ModuleType = ALGORITHMS[settings.algorithm]
        head = nn.Linear(trunk.hidden_size, 1, device=trunk.device) if self.algorithm.NEEDS_VALUES else None
        super().__init__(trunk, settings, updates=settings.updates, head=head, seed=seed)
        self.settings: OnlineSettings = settings
        self.score, self.temperature, self.max_new_tokens = score, temperature, max_new_tokens
        self.prompt_ids = list(prompts)
        self.prompts = [list(ids) for ids in prompts.values()]
        target = settings.kl_target_nats
        self.constraint = Constraint(settings.at_least, lr=settings.at_least_lr, start=settings.at_least_price) if settings.at_least else None
        self.kl = FixedKL(settings.beta) if target is None else AdaptiveKL(settings.beta, target=target, horizon=settings.kl_horizon)

    def start(self, artifacts: Path, parent: str) -> None:
        """As every learner; a new value head promises nothing, or what the reward model would say.

        Raises:
            SettingError: a constraint is on an objective that the reward isn't made of.
        """
        _require_objectives(self.settings, self.score)
        if self.head is not None:
            _start_value_head(self.head, self.settings, self.score)
        super().start(artifacts, parent)

    def update(self) -> None:
        """One update: a rollout and `epochs` passes over it."""
        began = time.perf_counter()
        rate = self.slow_down()
        chosen = self.chosen_prompts(self.done)
        seeds = [seed_from(self.seed, "answer", self.done, place) for place in range(len(chosen))]
        rollout = draw_rollout(
            self.trunk, self.head, [self.prompts[index] for index in chosen], seeds, self.score, self.settings,
            beta=self.kl.beta, temperature=self.temperature, max_new_tokens=self.max_new_tokens, constraint=self.constraint,
        )  # fmt: skip
        targets, beta = self.targets(rollout), self.kl.beta
        steps = self.learn(rollout, targets)
        row = {"update": self.done + 1.0, **measure(rollout, targets, steps, self.settings, beta=beta, lr=rate)}
        if self.settings.kl_target_nats is not None:
            row["objective/kl_target"] = self.settings.kl_target_nats
        if self.constraint is not None:
            row |= {f"objective/price/{name}": price for name, price in self.constraint.prices.items()}
            self.constraint.update(rollout.objectives)
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

    def targets(self, rollout: Rollout) -> Targets:
        """What the answers' tokens are worth."""
        found: Targets = self.algorithm.targets(rollout, self.settings, self.rows)
        return found

    def learn(self, rollout: Rollout, targets: Targets) -> list[dict[str, float]]:
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
        members = [index for part in parts for index in rollout.parts[part]]
        lengths = rollout.mask.sum(1)
        divisor = torch.ones(len(lengths), 1)
        divisor[members] = denominators(lengths[members], settings.average, limit=self.max_new_tokens)
        tokens = float(lengths[members].sum())
        seen = dict.fromkeys(SEEN, 0.0)
        warming = self.done < getattr(settings, "critic_warmup", 0)
        self.optimizer.zero_grad(set_to_none=True)
        with trunk.using(ROLE):
            for part in filter(self.team.owns, parts):
                rows = rollout.part(part, trunk)
                new = forward(trunk, head, rows, self.temperature, lower=rollout.lower[part], entropy_gradient=settings.entropy_weight > 0)
                mask, own = rows.mask, divisor[rollout.parts[part]]
                narrow = _narrow(rollout.parts[part], mask.shape[1])
                old = Forward(narrow(rollout.logprobs), narrow(rollout.entropy), None if rollout.values is None else narrow(rollout.values))
                goal = targets.part(rollout.parts[part], mask.shape[1])
                losses = self.algorithm.loss(new, old, goal, mask, settings, own)
                total = losses.value if warming else losses.total
                if settings.entropy_weight and not warming:
                    total = total - settings.entropy_weight * masked_mean(new.entropy, mask, own)
                total.backward()
                _add(seen, new, old, losses, mask, tokens)
        self.team.add_gradients(self.optimizer.param_groups[0]["params"])
        seen = self.team.added(seen, largest=("max_ratio",))
        if seen["ratio"] > MAX_MEAN_RATIO or seen["kl_old"] > settings.max_kl_old:
            self.optimizer.zero_grad(set_to_none=True)
            seen["skipped"] = 1.0
            return seen
        if warming:  # the head's loss reaches the adapter through the hidden states: the adapter stays as it is
            for parameter in trunk.adapter_parameters(ROLE):
                parameter.grad = None
        seen["grad_norm"] = self.take_step()
        return seen

    def failure(self) -> Finding | None:
        """Under `tune.watch`: the failure that the newest update shows."""
        return fatal(self.rows) if self.settings.watch else None

    def keep(self, folder: Path) -> None:
        """As every learner; under `tune.watch` the best policy so far too."""
        if self.settings.watch and best_update(self.rows) == self.done:
            self.remember(folder)
        super().keep(folder)

    def headline(self) -> str:
        """The newest numbers, for the progress line."""
        if not self.rows:
            return ""
        row = self.rows[-1]
        return f"score {row['objective/scores']:+.2f}  kl {row['objective/kl']:.1f}  length {row['response/length']:.0f}  ends {row['response/eos_rate']:.0%}"

    def state(self) -> dict[str, Any]:
        """Where an adaptive beta and the prices of constraints stand."""
        return {"kl": self.kl.state(), "constraint": None if self.constraint is None else self.constraint.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.kl.load(state["kl"])
        if self.constraint is not None:
            self.constraint.load(state["constraint"])


def _require_objectives(settings: OnlineSettings, score: Score) -> None:
    known: Mapping[str, object] = score.parts if isinstance(score, HasObjectives) else {}
    missing = sorted(settings.at_least.keys() - set(known))
    if missing:
        has = f"it is made of {', '.join(sorted(known))}" if known else "it is not made of several"
        raise SettingError(
            f"tune.at_least names {', '.join(missing)}, and the reward model has no such objective: {has}",
            fix="`truing reward combine` makes one reward model of several; name one of its objectives",
        )


@torch.no_grad()
def _start_value_head(head: nn.Linear, settings: OnlineSettings, score: Score) -> None:
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
    """Add a part's statistics to its minibatch's, which has so many tokens."""
    share = float(mask.sum()) / tokens
    with torch.no_grad():
        ratio = (new.logprobs - old.logprobs).clamp(-20, 20).exp()
        seen["ratio"] += share * float(ratio[mask].mean())
    seen["loss"] += float(losses.policy.loss.detach())
    seen["clipfrac"] += share * float(losses.policy.clip_fraction)
    seen["kl_old"] += share * float(losses.policy.kl_old)
    seen["max_ratio"] = max(seen["max_ratio"], float(losses.policy.max_ratio))
    if losses.value is not None:
        seen["value_loss"] += float(losses.value.detach())
        seen["value_clipfrac"] += share * float(losses.value_clip_fraction)
