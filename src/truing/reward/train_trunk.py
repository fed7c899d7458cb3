"""Fit of the heads whose trunk learns too: `adapter`, LoRA on the shared trunk, and `full`, every weight of a trunk of its own.

Minibatches are of prompts with all that was said of them; what is in memory at a time is a row of tokens in which a prompt stands once (models/packed.py).
Killed, a fit goes on from its last checkpoint to the same bits.

Shapes: S responses, K members (heads on one trunk), D features.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from truing.console import track
from truing.models.packed import packs
from truing.models.trunk import Trunk
from truing.reward.features import ROW, FeatureSpec, Item, by_prompt, keep, read, readings_at, shorten
from truing.reward.heads import LinearHead
from truing.reward.lessons import Lesson
from truing.reward.train_frozen import Fit
from truing.reward.train_pairs import bootstrap_weights, folds_by_prompt
from truing.store.ids import seed_from

if TYPE_CHECKING:
    from truing.reward.train import RewardSettings

ROLE = "reward-in-training"


def trunk_spec(trunk: Trunk, settings: "RewardSettings") -> FeatureSpec:
    """The one reading of a trunk that learns: what it is to read there, the layers below can move."""
    return FeatureSpec(readings_at([settings.trunk_reading], trunk.layers), settings.max_tokens)


def learned_states(trunk: Trunk, items: Sequence[Item], spec: FeatureSpec, *, row: int = ROW) -> Tensor:
    """(S, D) fp32 what `spec` reads of a trunk that learns, after the final norm wherever it is read; carries the gradient where it is wanted."""
    states = read(trunk, items, spec, row=row)
    return states if spec.layers[-1] == trunk.layers else trunk.normed(states)


def fit_trunk(trunk: Trunk, lesson: Lesson, settings: "RewardSettings", seed: int, checkpoint: Path, beat: Callable[..., None]) -> tuple[Fit, list[nn.Module]]:
    """Minibatch AdamW; the best step on the prompts of one fold, which it doesn't learn from, is kept.

    Leaves the adapter in the trunk under `ROLE`, or the trunk with other weights.

    Args:
        checkpoint: file of the training's state, read if it is there.
        beat: called often with how far the fit is.

    Returns:
        the head, and what each member learned beside its scores.
    """
    training = Training(trunk, lesson, settings, seed)
    if checkpoint.exists():
        training.load(checkpoint)
    steps = len(training.plan)
    for _ in track(range(training.step, steps), f"reward {settings.head}", steps, done=training.step, stats=training.latest):
        beat(step=settings.head, done=training.step, total=steps)
        if training.step % settings.check_every == 0:
            training.check()
            if training.waited >= settings.patience:
                break
        training.learn()
        if training.step % settings.checkpoint_every == 0:
            keep(checkpoint, training.saved())
    else:
        training.check()
    training.restore()
    return Fit(training.head, training.curve, {"best_step": training.best_step, "steps": training.step}), list(training.beside)


class Training:
    """The state of a fit: weights, heads, optimiser, where it stands, and the best so far.

    Attributes:
        plan: the prompts of each step, epoch after epoch.
        mass: weight of the judgements of a step, in the mean over the plan. A step's own would undo how much its prompts are heeded and their judges trusted.
        step: how many are done.
        waited: checks since the last that was better.
    """

    def __init__(self, trunk: Trunk, lesson: Lesson, settings: "RewardSettings", seed: int) -> None:
        self.trunk, self.lesson, self.settings, self.spec = trunk, lesson, settings, trunk_spec(trunk, settings)
        self.head = _fresh_head(self.spec.width(trunk.hidden_size), settings.members, seed_from(seed, "head"))
        self.beside = nn.ModuleList([lesson.beside() for _ in range(settings.members)])
        self.role, own, rate = self._open(seed)
        prompts = sorted(set(lesson.prompts))
        fold = folds_by_prompt(prompts, min(settings.folds, len(prompts)), seed).tolist()
        kept = [prompt for prompt, place in zip(prompts, fold, strict=True) if place != 0]
        self.checked = lesson.only([prompt for prompt, place in zip(prompts, fold, strict=True) if place == 0])
        self.heeds = [dict(zip(kept, heed, strict=True)) for heed in bootstrap_weights(kept, settings.members, seed).tolist()]
        learned = lesson.only(kept)
        self.plan = _plan(learned, settings, seed)
        self.mass = settings.trunk_epochs * sum(learned.asked(heed).mass for heed in self.heeds) / len(self.plan)
        self.parameters = [*own, self.head.weight, *self.beside.parameters()]
        self.rates = (rate, settings.learning_rate)
        self.optimizer = torch.optim.AdamW([{"params": own}, {"params": self.parameters[len(own) :]}], weight_decay=settings.weight_decay, fused=True)
        self.step, self.waited, self.best_step, self.least = 0, -1, 0, float("inf")
        self.best = [parameter.detach().clone() for parameter in self.parameters]
        self.losses: list[float] = []  # since the last check
        self.curve: list[dict[str, Any]] = []

    def _open(self, seed: int) -> tuple[str | None, list[nn.Parameter], float]:
        """The adapter that is on while it learns (None: none), the trunk's weights that learn, and their learning rate."""
        settings, trunk = self.settings, self.trunk
        if settings.head == "full":
            return None, trunk.learnable(), settings.full_learning_rate
        if trunk.has_adapter(ROLE):
            trunk.drop_adapter(ROLE)
        read_to = self.spec.layers[-1]
        top = None if settings.layers == "all" else trunk.layers - read_to // 2
        trunk.add_adapter(ROLE, rank=settings.rank, alpha=settings.alpha, seed=seed_from(seed, "adapter"), top_layers=top)
        return ROLE, trunk.adapter_parameters(ROLE, below=read_to), settings.adapter_learning_rate

    def latest(self) -> str:
        """The newest numbers, for the progress line."""
        return f"validation loss {self.curve[-1]['validation_loss']:.4f}" if self.curve else ""

    def learn(self) -> None:
        """One step on one minibatch. The learning rates fall in a straight line to 0."""
        for group, full in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = full * (1 - self.step / len(self.plan))
        self.optimizer.zero_grad()
        minibatch = self.lesson.only(self.plan[self.step])
        loss = 0.0
        with self.trunk.using(self.role):
            for part in self._in_memory(minibatch):
                share = self._loss(part) / self.mass
                share.backward()
                loss += share.item()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_gradient)
        self.optimizer.step()
        self.losses.append(loss)
        self.step += 1

    def _loss(self, part: Lesson) -> Tensor:
        """() the loss of all members together, summed over what is said, each judgement heeded as the member heeds it."""
        raw = self.head(learned_states(self.trunk, part.responses, self.spec, row=self.settings.row_tokens))  # (S, K)
        asked = [part.asked(heed) for heed in self.heeds]
        return torch.stack([one.loss(raw[:, member], self.beside[member]) for member, one in enumerate(asked)]).sum()

    def _in_memory(self, minibatch: Lesson) -> Iterator[Lesson]:
        """The minibatch in parts that fit in memory; a prompt is never parted, for what is said of its responses goes together."""
        prompts = sorted(set(minibatch.prompts))
        alone = [minibatch.only([prompt]) for prompt in prompts]
        trees = [by_prompt([shorten(*item, self.settings.max_tokens) for item in one.responses], 1 << 30)[0] for one in alone]
        groups = packs([sum(tree.size for tree in own) for own in trees], self.settings.row_tokens)
        return (minibatch.only([prompts[place] for place in group]) for group in groups)

    @torch.no_grad()
    def check(self) -> None:
        """Measure on the fold that isn't learned from; keep what is best."""
        with self.trunk.using(self.role):
            raw = self.head(learned_states(self.trunk, self.checked.responses, self.spec))
        asked = self.checked.asked()
        losses = [asked.loss(raw[:, member], beside).item() / max(asked.mass, 1e-12) for member, beside in enumerate(self.beside)]
        row = {"epoch": self.settings.trunk_epochs * self.step / len(self.plan), "step": self.step, "validation_loss": sum(losses) / len(losses)}
        if self.losses:
            row["train_loss"] = sum(self.losses) / len(self.losses)
        self.losses = []
        self.curve.append(row)
        self.waited += 1
        if row["validation_loss"] < self.least:
            self.least, self.waited, self.best_step = row["validation_loss"], 0, self.step
            self.best = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best parameters back."""
        for parameter, best in zip(self.parameters, self.best, strict=True):
            parameter.copy_(best)

    def saved(self) -> bytes:
        """All of the state in one safetensors file: tensors, and the rest as JSON in its header."""
        tensors: dict[str, Tensor] = {}
        for place, parameter in enumerate(self.parameters):
            tensors |= {f"{place}.now": parameter.detach(), f"{place}.best": self.best[place]}
            moments = self.optimizer.state[parameter]  # of one that had no gradient yet there are none
            tensors |= {f"{place}.{ours}": moments[theirs] for ours, theirs in _MOMENTS.items() if theirs in moments}
        state = {name: getattr(self, name) for name in _COUNTERS}
        state["least"] = self.least.hex()  # a float in JSON that also holds infinity
        return save({key: value.cpu().contiguous() for key, value in tensors.items()}, metadata={"state": json.dumps(state)})

    @torch.no_grad()
    def load(self, file: Path) -> None:
        """Take up the state that `saved` wrote."""
        with safe_open(file, framework="pt") as opened:
            state, there = json.loads(opened.metadata()["state"]), set(opened.keys())
            for place, parameter in enumerate(self.parameters):
                parameter.copy_(opened.get_tensor(f"{place}.now"))
                self.best[place] = opened.get_tensor(f"{place}.best").to(parameter.device)
                if f"{place}.first" in there:
                    self.optimizer.state[parameter] = {theirs: opened.get_tensor(f"{place}.{ours}").to(parameter.device) for ours, theirs in _MOMENTS.items()}
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.least = float.fromhex(state["least"])


_COUNTERS = ("step", "waited", "best_step", "losses", "curve")
_MOMENTS = {"first": "exp_avg", "second": "exp_avg_sq", "step": "step"}


def _plan(lesson: Lesson, settings: "RewardSettings", seed: int) -> list[list[str]]:
    """The prompts of each step: every epoch's in an order of its own, as many at a time as it takes for `batch_pairs` judgements."""
    said: dict[str, int] = {}
    for prompt in lesson.prompts:
        said[prompt] = said.get(prompt, 0) + 1
    names = sorted(said)
    plan: list[list[str]] = []
    for epoch in range(settings.trunk_epochs):
        order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed_from(seed, "epoch", epoch))).tolist()
        room = 0
        for place in order:
            if room <= 0:
                plan.append([])
                room = settings.batch_pairs
            plan[-1].append(names[place])
            room -= said[names[place]]
    return plan


def _fresh_head(width: int, members: int, seed: int) -> LinearHead:
    """N(0, 1 / (D + 1)) as in Ziegler et al. 2019: a start whose scores have about unit variance."""
    head = LinearHead(width, members)
    with torch.no_grad():
        head.weight.copy_(torch.randn(members, width, generator=torch.Generator().manual_seed(seed)) / (width + 1) ** 0.5)
    return head
