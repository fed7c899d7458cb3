"""Where a tuning run stands, on disk: a folder for each of the newest two finished updates, safetensors and JSON under a seal of their hashes, put in place
by a rename. A disk that gave back something else than it took is noticed by the seal, and the update before serves.

Random numbers need no saving: every answer's seed and every prompt's turn follow from the run's seed and the number of
the update.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from truing.artifacts import MAKING
from truing.config import full_disk_said, plain_files
from truing.console import complain
from truing.policy.record import STATE, checkpoints

TENSORS, SEAL = "tensors.safetensors", "seal.json"
KEPT = 2  # newest checkpoints: one to go on from, and one in case that it is damaged


def save_checkpoint(folder: Path, update: int, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Keep what is needed to go on after `update` updates; all older checkpoints but one go once this one is in place.

    Raises:
        UserError: the disk is full. The checkpoints before this one stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{MAKING}*"):  # by one that was killed: a run has one writer
        shutil.rmtree(left, ignore_errors=True)
    full = full_disk_said(
        f"the disk is full: update {update} was not kept", fix="free some space and type the same command again: it goes on from the update before"
    )
    with full:
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=MAKING))
        try:
            with plain_files(temporary):
                save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary / TENSORS)
            (temporary / STATE).write_text(json.dumps({"update": update, **state}, allow_nan=False), encoding="utf-8")
            (temporary / SEAL).write_text(json.dumps({name: _digest(temporary / name) for name in (STATE, TENSORS)}), encoding="utf-8")
            for path in temporary.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            place = folder / f"update-{update:06d}"
            shutil.rmtree(place, ignore_errors=True)
            os.replace(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """The newest state and tensors that are as they were written, or None where there are none. Those that aren't are named, and passed over."""
    for place in reversed(checkpoints(folder)):
        if _whole(place):
            return json.loads((place / STATE).read_text(encoding="utf-8")), load_file(place / TENSORS)
        complain(f"the checkpoint {place} is damaged, as by a disk that lost what was written: it is not used")
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state by parameter number and name; empty before its first step."""
    return {
        f"optimizer.{number}.{name}": value
        for number, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = _parameters(optimizer)
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            own = parameters[int(number)]
            optimizer.state[own][name] = value.to(own.device, copy=True)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _whole(place: Path) -> bool:
    """Whether a checkpoint's files are what its seal says."""
    try:
        seal = json.loads((place / SEAL).read_text(encoding="utf-8"))
        return bool(seal == {name: _digest(place / name) for name in (STATE, TENSORS)})
    except (FileNotFoundError, ValueError):  # ValueError: bytes that are no text, or no JSON
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
