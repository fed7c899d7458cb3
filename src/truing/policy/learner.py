"""What all tuning runs share: an adapter on the trunk, perhaps a head beside it, the optimiser, what has been seen so far, and all of it on disk."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.artifacts import Artifact, load_artifact
from truing.console import say
from truing.errors import SettingError, UserError
from truing.models.trunk import Trunk
from truing.policy.checkpoint import load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from truing.policy.diagnosis import Finding, newly
from truing.policy.record import Record
from truing.policy.rollout import ROLE, add_role
from truing.policy.settings import TuneSettings
from truing.policy.team import team
from truing.store.ids import seed_from

ADAM_BETAS, ADAM_EPS = (0.9, 0.95), 1e-5
CURVE_POINTS = 200  # of a curve while the run is under way
HEAD_FILE = "value_head.safetensors"
BEST = "best"  # folder in a run's folder: the policy to go back to


class Learner(ABC):
    """A policy being tuned.

    Attributes:
        updates: how many there are to be.
        done: how many there were.
        stopped: what it stopped for before its time, or None.
        team: those that it is tuned by.
        back_at: the update that it then went back to.
        head: linear, on the policy's last hidden states, or None.
        rows: what each update logged.
        shown: what is kept for people to look at.
    """

    TOLD: ClassVar[tuple[str, ...]]  # of the last row, in the artifact's facts
    DRAWN: ClassVar[tuple[str, ...]]  # curves that the studio draws while the run is under way

    def __init__(self, trunk: Trunk, settings: TuneSettings, *, updates: int, head: nn.Linear | None, seed: int) -> None:
        self.trunk, self.settings, self.updates, self.head, self.seed = trunk, settings, updates, head, seed
        self.team = team()
        self.done = 0
        self.stopped: Finding | None = None
        self.back_at = 0
        self.rows: list[dict[str, float]] = []
        self.shown: list[dict[str, Any]] = []
        self._found: list[Finding] = []
        self._looked_at = 0  # rows that were looked at for failures
        self.optimizer: torch.optim.AdamW

    @abstractmethod
    def update(self) -> None:
        """One update: another row."""

    @abstractmethod
    def headline(self) -> str:
        """The newest numbers, for the progress line."""

    def start(self, artifacts: Path, parent: str) -> None:
        """Put the adapter on the trunk: the parent's, or a new one that changes nothing yet. A parent's head goes on from where it was."""
        settings = self.settings
        if parent == "base":
            add_role(self.trunk, ROLE, settings, seed=seed_from(self.seed, "adapter"))
        else:
            artifact = load_artifact(artifacts, parent)
            _require_same_shape(settings, artifact)
            self.trunk.load_adapter(ROLE, artifact.path / "adapter")
            if self.head is not None and (artifact.path / HEAD_FILE).exists():
                self.head.load_state_dict(load_file(artifact.path / HEAD_FILE))
        for parameter in self.trunk.adapter_parameters(ROLE):
            parameter.requires_grad_(True)
        parameters = [*self.trunk.adapter_parameters(ROLE), *(self.head.parameters() if self.head is not None else [])]
        self.optimizer = torch.optim.AdamW(parameters, lr=settings.lr, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=0.0, fused=True)

    def close(self) -> None:
        """Take off the trunk what was put there."""
        if self.trunk.has_adapter(ROLE):
            self.trunk.drop_adapter(ROLE)

    def slow_down(self) -> float:
        """Set this update's learning rate, which falls in a straight line to 0, and say it."""
        rate = self.settings.lr * (1 - self.done / self.updates)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def take_step(self) -> float:
        """Take a step by the gradient that is there, clipped; its norm before.

        Raises:
            UserError: it isn't a number, and a step would make the policy none either. The policy of the newest checkpoint stays.
        """
        norm = float(nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.settings.grad_clip))
        if not math.isfinite(norm):
            raise UserError(
                f"the gradient of update {self.done + 1} is not a finite number", fix="lower tune.lr, or set model.dtype=fp32, and begin with --force"
            )
        self.optimizer.step()
        return norm

    def curves(self) -> dict[str, list[float]]:
        """Some numbers of every update so far, of a long run at most 200 of them evenly spread: what the studio draws while it runs."""
        step = -(-len(self.rows) // CURVE_POINTS)
        return {name: [round(row[name], 4) for row in self.rows[::-1][::step][::-1]] for name in self.DRAWN}

    def failure(self) -> Finding | None:
        """What it is time to stop for; None: nothing, or nobody asked to."""
        return None

    def facts(self) -> dict[str, Any]:
        """The main numbers of the update whose policy this is, every named failure, and what it stopped for."""
        update = self.done if self.stopped is None else self.back_at
        own: Mapping[str, float] = self.rows[update - 1] if update else {}
        found = {name: own.get(name) for name in self.TOLD} | {"updates": update, "diagnosis": [finding._asdict() for finding in self.findings()]}
        return found if self.stopped is None else found | {"stopped": {"failure": self.stopped.failure, "after": self.done}}

    def findings(self) -> list[Finding]:
        """Every named failure so far."""
        for end in range(self._looked_at + 1, len(self.rows) + 1):
            self._found += newly(self.rows[:end], self._found)
        self._looked_at = len(self.rows)
        return self._found

    def record(self) -> Record:
        """What the run has told of itself so far."""
        return Record(self.settings.model_dump(), self.updates, self.rows, self.shown, self.findings())

    # On disk ---------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What else a checkpoint holds, as JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (a learner may have nothing more)
        """Take up what `state` gave."""

    def tensors(self) -> dict[str, Tensor]:
        """What else it holds, as tensors."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:  # noqa: B027
        """Take up what `tensors` gave."""

    def keep(self, folder: Path) -> None:
        """Write a checkpoint."""
        state = self.state() | self.record()._asdict()
        save_checkpoint(folder, self.done, state, self._weights() | self.tensors() | optimizer_tensors(self.optimizer))

    def remember(self, folder: Path) -> None:
        """Keep the policy as it is now, to go back to."""
        save_checkpoint(folder / BEST, self.done, {}, self._weights())

    def go_back(self, folder: Path, finding: Finding) -> None:
        """Be the policy that was remembered.

        Raises:
            UserError: it is damaged on disk.
        """
        found = load_checkpoint(folder / BEST)
        if found is None:
            raise UserError(f"{finding.failure}, and the policy to go back to is damaged on disk", fix="type the same command again with --force")
        self._take_up(found[1])
        self.stopped, self.back_at = finding, found[0]["update"]

    def resume(self, folder: Path) -> None:
        """Go on from the newest checkpoint, if there is one."""
        found = load_checkpoint(folder)
        if found is None:
            return
        state, tensors = found
        self._take_up(tensors)
        load_optimizer_tensors(self.optimizer, tensors)
        self.load_tensors(tensors)
        self.load_state(state)
        self.done, self.rows, self.shown = state["update"], state["rows"], state["shown"]
        if self.done:
            say(f"going on after update {self.done}")

    def _weights(self) -> dict[str, Tensor]:
        """The adapter's and the head's."""
        tensors = {f"adapter.{name}": value for name, value in self.trunk.adapter_state(ROLE).items()}
        return tensors | {f"head.{name}": value for name, value in (self.head.state_dict() if self.head is not None else {}).items()}

    def _take_up(self, tensors: Mapping[str, Tensor]) -> None:
        for name, value in self.trunk.adapter_state(ROLE).items():
            value.copy_(tensors[f"adapter.{name}"])
        if self.head is not None:
            self.head.load_state_dict({name: tensors[f"head.{name}"] for name in ("weight", "bias")})

    def write(self, folder: Path) -> None:
        """Fill the policy's artifact."""
        self.trunk.save_adapter(ROLE, folder / "adapter")
        if self.head is not None:
            save_file({name: value.cpu().contiguous() for name, value in self.head.state_dict().items()}, folder / HEAD_FILE)
        for name, rows in (("metrics.jsonl", self.rows), ("samples.jsonl", self.shown)):
            (folder / name).write_text("".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        (folder / "diagnosis.json").write_text(json.dumps(self.facts()["diagnosis"], indent=1), encoding="utf-8")


def _require_same_shape(settings: TuneSettings, parent: Artifact) -> None:
    """A policy is tuned further in the adapter that it has: its kind, rank and layers can't change on the way."""
    made = parent.manifest["settings"]["settings"]
    for name in ("weights", "rank", "layers"):
        if made[name] != getattr(settings, name) and not (name == "rank" and settings.weights == "full"):
            raise SettingError(
                f"tune.{name} is {getattr(settings, name)}, but the policy {parent.id} was made with {made[name]}", fix=f"set tune.{name}={made[name]}"
            )
