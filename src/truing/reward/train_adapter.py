"""Fit of the `adapter` head: LoRA on the trunk, and scalar heads on what it then makes of a response.

Killed, it goes on from its last checkpoint to the same bits.

Shapes: N pairs, K members (heads on one adapter), D features.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from truing.console import track
from truing.models.trunk import Trunk
from truing.reward.features import FeatureSpec, Item, keep, read
from truing.reward.heads import LinearHead
from truing.reward.losses import bradley_terry
from truing.reward.train_frozen import Fit, agreement
from truing.reward.train_pairs import Pairs, bootstrap_weights, folds_by_prompt
from truing.store.ids import seed_from

if TYPE_CHECKING:
    from truing.reward.train import RewardSettings

ROLE = "reward-in-training"
MICRO = 8  # sequences in a forward and backward pass


def adapter_spec(trunk: Trunk, settings: "RewardSettings") -> FeatureSpec:
    """An adapter's head reads the last layer: lower layers can be moved by the adapter itself."""
    return FeatureSpec(((settings.adapter_pooling, trunk.layers),), settings.max_tokens)


def adapted(trunk: Trunk, items: Sequence[Item], spec: FeatureSpec) -> Tensor:
    """(N, D) fp32 pooled last states under the adapter that is on; carries the gradient where it is wanted."""
    return read(trunk, items, spec)


def fit_adapter(trunk: Trunk, pairs: Pairs, settings: "RewardSettings", seed: int, checkpoint: Path, beat: Callable[..., None]) -> Fit:
    """Minibatch AdamW; the best step on the prompts of one fold, which it doesn't learn from, is kept. Leaves the adapter in the trunk under `ROLE`.

    Args:
        checkpoint: file of the training's state, read if it is there.
        beat: called often with how far the fit is.
    """
    training = _Training(trunk, pairs, settings, seed)
    if checkpoint.exists():
        training.load(checkpoint)
    todo = range(training.step, training.steps)
    for _ in track(todo, "reward adapter", training.steps, done=training.step, stats=training.latest):
        beat(step="adapter", done=training.step, total=training.steps)
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
    return Fit(training.head, training.curve, {"best_step": training.best_step, "steps": training.step})


class _Training:
    """The state of a run: adapter, head, optimiser, where it stands, and the best so far."""

    def __init__(self, trunk: Trunk, pairs: Pairs, settings: "RewardSettings", seed: int) -> None:
        self.trunk, self.settings, self.seed = trunk, settings, seed
        self.spec = adapter_spec(trunk, settings)
        if trunk.has_adapter(ROLE):
            trunk.drop_adapter(ROLE)
        trunk.add_adapter(ROLE, rank=settings.rank, alpha=settings.alpha, seed=seed_from(seed, "adapter"), top_layers=settings.top_layers)
        self.head = _fresh_head(self.spec.width(trunk.hidden_size), settings.members, seed_from(seed, "head"))
        fold = folds_by_prompt(pairs.prompts, min(settings.folds, len(set(pairs.prompts))), seed)
        self.pairs, self.checked = (pairs.at(rows.nonzero()[:, 0].tolist()) for rows in (fold != 0, fold == 0))
        self.heed = bootstrap_weights(self.pairs.prompts, settings.members, seed) * self.pairs.weight  # (K, N)
        self.parameters = [*trunk.adapter_parameters(ROLE), self.head.weight]
        groups = [{"params": self.parameters[:-1], "lr": settings.adapter_learning_rate}, {"params": self.parameters[-1:], "lr": settings.learning_rate}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self.steps_an_epoch = -(-len(self.pairs) // settings.batch_pairs)
        self.steps = settings.adapter_epochs * self.steps_an_epoch
        self.step, self.waited, self.best_step, self.least = 0, -1, 0, float("inf")
        self.best = [parameter.detach().clone() for parameter in self.parameters]
        self.losses: list[float] = []  # since the last check
        self.curve: list[dict[str, Any]] = []

    def latest(self) -> str:
        """The newest numbers, for the progress line."""
        return f"validation loss {self.curve[-1]['validation_loss']:.4f}" if self.curve else ""

    def learn(self) -> None:
        """One step on one minibatch. The learning rate falls in a straight line to 0."""
        epoch, place = divmod(self.step, self.steps_an_epoch)
        order = torch.randperm(len(self.pairs), generator=torch.Generator().manual_seed(seed_from(self.seed, "epoch", epoch))).tolist()
        rows = order[place * self.settings.batch_pairs : (place + 1) * self.settings.batch_pairs]
        left = 1 - self.step / self.steps
        for group, full in zip(self.optimizer.param_groups, (self.settings.adapter_learning_rate, self.settings.learning_rate), strict=True):
            group["lr"] = full * left
        self.optimizer.zero_grad()
        total = self.heed[:, rows].sum()
        loss = 0.0
        with self.trunk.using(ROLE):
            for part in self._micro(rows):
                share = self._loss(part) * (self.heed[:, part].sum() / total)
                share.backward()
                loss += share.item()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_gradient)
        self.optimizer.step()
        self.losses.append(loss)
        self.step += 1

    def _loss(self, rows: list[int]) -> Tensor:
        """() the mean loss of the members on some pairs, each heeded as the member heeds it."""
        part = self.pairs.at(rows)
        raw = self.head(adapted(self.trunk, [*part.a, *part.b], self.spec))  # (2N, K)
        a, b = raw[: len(rows)], raw[len(rows) :]
        target = part.target[:, None].expand_as(a)
        weight = self.heed[:, rows].T
        return bradley_terry(a.flatten(), b.flatten(), target=target.flatten(), weight=weight.flatten(), centre=self.settings.centre)

    def _micro(self, rows: list[int]) -> Iterator[list[int]]:
        """The minibatch in parts that fit in memory, alike in length."""
        ordered = sorted(rows, key=lambda row: (-len(self.pairs.a[row][0]) - len(self.pairs.a[row][1]), row))
        return (ordered[start : start + MICRO // 2] for start in range(0, len(ordered), MICRO // 2))

    @torch.no_grad()
    def check(self) -> None:
        """Measure on the fold that isn't learned from; keep what is best."""
        with self.trunk.using(ROLE):
            raw = self.head(adapted(self.trunk, [*self.checked.a, *self.checked.b], self.spec)).mean(1)
        a, b = raw[: len(self.checked)], raw[len(self.checked) :]
        loss = bradley_terry(a, b, target=self.checked.target, weight=self.checked.weight).item()
        accuracy = agreement(a - b, self.checked.target).mean().item()
        row = {"epoch": self.step / self.steps_an_epoch, "step": self.step, "validation_loss": loss, "validation_accuracy": accuracy}
        if self.losses:
            row["train_loss"] = sum(self.losses) / len(self.losses)
        self.losses = []
        self.curve.append(row)
        self.waited += 1
        if loss < self.least:
            self.least, self.waited, self.best_step = loss, 0, self.step
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
            moments = self.optimizer.state[parameter]
            tensors |= {f"{place}.now": parameter.detach(), f"{place}.best": self.best[place], f"{place}.first": moments["exp_avg"]}
            tensors |= {f"{place}.second": moments["exp_avg_sq"], f"{place}.step": moments["step"]}
        state = {name: getattr(self, name) for name in _COUNTERS}
        state["least"] = self.least.hex()  # a float in JSON that also holds infinity
        return save({key: value.contiguous() for key, value in tensors.items()}, metadata={"state": json.dumps(state)})

    @torch.no_grad()
    def load(self, file: Path) -> None:
        """Take up the state that `saved` wrote."""
        with safe_open(file, framework="pt") as opened:
            state = json.loads(opened.metadata()["state"])
            for place, parameter in enumerate(self.parameters):
                parameter.copy_(opened.get_tensor(f"{place}.now"))
                self.best[place] = opened.get_tensor(f"{place}.best")
                moments = {"step": "step", "exp_avg": "first", "exp_avg_sq": "second"}
                self.optimizer.state[parameter] = {ours: opened.get_tensor(f"{place}.{name}") for ours, name in moments.items()}
        for name in _COUNTERS:
            setattr(self, name, state[name])
        self.least = float.fromhex(state["least"])


_COUNTERS = ("step", "waited", "best_step", "losses", "curve")


def _fresh_head(width: int, members: int, seed: int) -> LinearHead:
    """N(0, 1 / (D + 1)) as in Ziegler et al. 2019: a start whose scores have about unit variance."""
    head = LinearHead(width, members)
    with torch.no_grad():
        head.weight.copy_(torch.randn(members, width, generator=torch.Generator().manual_seed(seed)) / (width + 1) ** 0.5)
    return head
