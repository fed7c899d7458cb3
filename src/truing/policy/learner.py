"""What all tuning runs share: an adapter on the trunk, perhaps a head beside it, the optimiser, what has been seen so far, and all of it on disk."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.artifacts import Artifact, load_artifact
from truing.console import say
from truing.errors import SettingError
from truing.models.trunk import Trunk
from truing.policy.checkpoint import load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint
from truing.policy.diagnosis import Finding, newly
from truing.policy.record import Record
from truing.policy.rollout import ROLE, top_layers
from truing.policy.settings import TuneSettings
from truing.store.ids import seed_from

ADAM_BETAS, ADAM_EPS = (0.9, 0.95), 1e-5
CURVE_POINTS = 200  # of a curve while the run is under way
HEAD_FILE = "value_head.safetensors"


class Learner(ABC):
    """A policy being tuned.

    Attributes:
        updates: how many there are to be.
        done: how many there were.
        head: linear, on the policy's last hidden states, or None.
        rows: what each update logged.
        shown: what is kept for people to look at.
    """

    TOLD: ClassVar[tuple[str, ...]]  # of the last row, in the artifact's facts
    DRAWN: ClassVar[tuple[str, ...]]  # curves that the studio draws while the run is under way

    def __init__(self, trunk: Trunk, settings: TuneSettings, *, updates: int, head: nn.Linear | None, seed: int) -> None:
        self.trunk, self.settings, self.updates, self.head, self.seed = trunk, settings, updates, head, seed
        self.done = 0
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
            top = top_layers(self.trunk, settings)
            self.trunk.add_adapter(ROLE, rank=settings.rank, alpha=2 * settings.rank, seed=seed_from(self.seed, "adapter"), top_layers=top)
        else:
            artifact = load_artifact(artifacts, parent)
            _require_same_shape(settings, artifact)
            self.trunk.load_adapter(ROLE, artifact.path / "adapter")
            if self.head is not None and (artifact.path / HEAD_FILE).exists():
                self.head.load_state_dict(load_file(artifact.path / HEAD_FILE))
        for parameter in self.trunk.adapter_parameters(ROLE):
            parameter.requires_grad_(True)
        parameters = [*self.trunk.adapter_parameters(ROLE), *(self.head.parameters() if self.head is not None else [])]
        self.optimizer = torch.optim.AdamW(parameters, lr=settings.lr, betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=0.0)

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

    def curves(self) -> dict[str, list[float]]:
        """Some numbers of every update so far, of a long run at most 200 of them evenly spread: what the studio draws while it runs."""
        step = -(-len(self.rows) // CURVE_POINTS)
        return {name: [round(row[name], 4) for row in self.rows[::-1][::step][::-1]] for name in self.DRAWN}

    def facts(self) -> dict[str, Any]:
        """The last update's main numbers and every named failure."""
        last: Mapping[str, float] = self.rows[-1] if self.rows else {}
        return {name: last.get(name) for name in self.TOLD} | {"updates": self.done, "diagnosis": [finding._asdict() for finding in self.findings()]}

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
        tensors = {f"adapter.{name}": value for name, value in self.trunk.adapter_state(ROLE).items()}
        tensors |= {f"head.{name}": value for name, value in (self.head.state_dict() if self.head is not None else {}).items()}
        save_checkpoint(folder, self.done, self.state() | self.record()._asdict(), tensors | self.tensors() | optimizer_tensors(self.optimizer))

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
        self.load_tensors(tensors)
        self.load_state(state)
        self.done, self.rows, self.shown = state["update"], state["rows"], state["shown"]
        say(f"going on after update {self.done}")

    def write(self, folder: Path) -> None:
        """Fill the policy's artifact."""
        self.trunk.save_adapter(ROLE, folder / "adapter")
        if self.head is not None:
            save_file({name: value.contiguous() for name, value in self.head.state_dict().items()}, folder / HEAD_FILE)
        for name, rows in (("metrics.jsonl", self.rows), ("samples.jsonl", self.shown)):
            (folder / name).write_text("".join(json.dumps(row, sort_keys=True, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        (folder / "diagnosis.json").write_text(json.dumps(self.facts()["diagnosis"], indent=1), encoding="utf-8")


def _require_same_shape(settings: TuneSettings, parent: Artifact) -> None:
    """A policy is tuned further in the adapter that it has: its rank and its layers can't change on the way."""
    made = parent.manifest["settings"]["settings"]
    for name in ("rank", "layers"):
        if made[name] != getattr(settings, name):
            raise SettingError(
                f"tune.{name} is {getattr(settings, name)}, but the policy {parent.id} was made with {made[name]}", fix=f"set tune.{name}={made[name]}"
            )
