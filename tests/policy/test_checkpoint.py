"""A checkpoint is whole or not there, and gives back what it was given to the bit."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stored import small_disk
from truing.errors import UserError
from truing.policy.checkpoint import load_checkpoint, load_optimizer_tensors, optimizer_tensors, save_checkpoint

STATE: dict[str, Any] = {"kl": {"beta": 0.1}, "rows": [{"update": 1.0, "objective/kl": 1 / 3}], "shown": [{"text": "ü\u2028"}]}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"adapter.a": torch.randn(3, 2, generator=generator), "optimizer.0.step": torch.tensor(7.0), "turned": torch.randn(2, 3, generator=generator).T}


def test_what_goes_in_comes_out_to_the_bit(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "nothing") is None
    save_checkpoint(tmp_path, 3, STATE, tensors())
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == {"update": 3, **STATE}
    assert found[1].keys() == tensors().keys()
    assert all(torch.equal(found[1][name], value) for name, value in tensors().items())


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for update in (1, 2, 10, 11):
        save_checkpoint(tmp_path, update, STATE, tensors(update))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["update-000010", "update-000011"]
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0]["update"] == 11
    assert torch.equal(found[1]["adapter.a"], tensors(11)["adapter.a"])


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors", "seal.json"])
@pytest.mark.parametrize("harm", ["torn", "empty", "gone", "a bit"])
def test_a_damaged_one_is_said_and_the_one_before_serves(tmp_path: Path, name: str, harm: str, capsys: pytest.CaptureFixture[str]) -> None:
    for update in (4, 5):
        save_checkpoint(tmp_path, update, STATE, tensors(update))
    damage(tmp_path / "update-000005" / name, harm)
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == {"update": 4, **STATE}
    assert torch.equal(found[1]["adapter.a"], tensors(4)["adapter.a"])
    assert "damaged" in capsys.readouterr().err
    save_checkpoint(tmp_path, 5, STATE, tensors(5))  # made once more, in its place
    again = load_checkpoint(tmp_path)
    assert again is not None
    assert again[0]["update"] == 5


def test_where_all_are_damaged_there_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, STATE, tensors())
    damage(tmp_path / "update-000001" / "state.json", "empty")
    assert load_checkpoint(tmp_path) is None


def damage(path: Path, harm: str) -> None:
    """What a disk may do to a file."""
    whole = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "a bit":
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    else:
        path.write_bytes(whole[: len(whole) // 2] if harm == "torn" else b"")


def test_a_checkpoint_that_was_being_made_is_not_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, STATE, tensors())
    (tmp_path / ".making-abc").mkdir()
    (tmp_path / ".making-abc" / "state.json").write_text('{"upd')
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found[0]["update"] == 1
    save_checkpoint(tmp_path, 2, STATE, tensors())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["update-000001", "update-000002"], "what a killed process left is gone"


@pytest.mark.parametrize("what", ["tensors", "state"])
def test_a_full_disk_leaves_the_one_before(tmp_path: Path, what: str) -> None:
    state, weights = (STATE, {"adapter.a": torch.zeros(1 << 19)}) if what == "tensors" else (STATE | {"rows": ["x" * (2 << 20)]}, tensors())
    with small_disk(tmp_path / "disk") as folder:
        save_checkpoint(folder, 1, STATE, tensors())
        with pytest.raises(UserError, match="disk is full: update 2 was not kept"):
            save_checkpoint(folder, 2, state, weights)
        assert [entry.name for entry in folder.iterdir()] == ["update-000001"]


def test_others_can_read_it(tmp_path: Path) -> None:
    """As a project is read that several people share."""
    save_checkpoint(tmp_path, 1, STATE, tensors())
    place = tmp_path / "update-000001"
    assert place.stat().st_mode & 0o777 == 0o755
    assert [file.stat().st_mode & 0o777 for file in place.iterdir()] == [0o644] * 3


def test_another_disk_error_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(tmp_path, 2, STATE, tensors())
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 1, {"rows": [{"objective/kl": float("nan")}]}, {})


def test_an_optimiser_goes_on_to_the_bit() -> None:
    """Five steps at a stretch, or three, through tensors, and two by another optimiser."""

    def start() -> tuple[nn.Linear, torch.optim.AdamW]:
        layer = nn.Linear(3, 1)
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.0)

    def step(layer: nn.Linear, optimizer: torch.optim.AdamW, number: int) -> None:
        optimizer.zero_grad()
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(number))
        layer(x).square().mean().backward()
        optimizer.step()

    whole, its_optimizer = start()
    assert optimizer_tensors(its_optimizer) == {}
    broken, first = start()
    for number in range(3):
        step(whole, its_optimizer, number)
        step(broken, first, number)
    second = torch.optim.AdamW(broken.parameters(), lr=0.1, weight_decay=0.0)
    load_optimizer_tensors(second, {"head.weight": torch.zeros(1), **{name: value.clone() for name, value in optimizer_tensors(first).items()}})
    for number in range(3, 5):
        step(whole, its_optimizer, number)
        step(broken, second, number)
    assert torch.equal(whole.weight, broken.weight)
    assert torch.equal(whole.bias, broken.bias)
