"""The faster number type is measured once for a machine and remembered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from truing.models import precision
from truing.models.precision import bf16_speedup, fastest_dtype


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def measured(monkeypatch: pytest.MonkeyPatch, answers: list[float]) -> None:
    """The measurement gives these in turn, and must not be made more often."""
    monkeypatch.setattr(precision, "bf16_speedup", lambda: answers.pop(0))


@pytest.mark.parametrize(("speedup", "dtype"), [(0.2, torch.float32), (1.29, torch.float32), (1.3, torch.bfloat16), (5.0, torch.bfloat16)])
def test_bf16_is_taken_where_it_is_clearly_faster(monkeypatch: pytest.MonkeyPatch, speedup: float, dtype: torch.dtype) -> None:
    measured(monkeypatch, [speedup])
    assert fastest_dtype() == dtype


def test_the_answer_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured(monkeypatch, [2.0])
    assert fastest_dtype() == torch.bfloat16
    assert fastest_dtype() == torch.bfloat16
    (machine,) = json.loads((tmp_path / "machine.json").read_text())
    assert torch.__version__ in machine
    assert f"threads {torch.get_num_threads()}" in machine


def test_another_machine_is_measured_anew_and_the_first_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text('{"another machine": 9.0}')
    measured(monkeypatch, [1.0])
    assert fastest_dtype() == torch.float32
    assert sorted(json.loads((tmp_path / "machine.json").read_text()).values()) == [1.0, 9.0]


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_says_what_it_can(monkeypatch: pytest.MonkeyPatch, supported: bool, dtype: torch.dtype) -> None:
    measured(monkeypatch, [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert fastest_dtype() == dtype


def test_the_speedup_is_the_median_of_paired_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine pairs, fp32 first: four hiccups in one and none in the other leave the median at 6 / 3."""
    seconds = [each for pair in [(6.0, 3.0)] * 5 + [(60.0, 3.0)] * 4 for each in pair]
    types: list[torch.dtype] = []

    def timed(work: Callable[[], Tensor]) -> float:
        types.append(work().dtype)
        return seconds.pop(0)

    monkeypatch.setattr(precision, "_seconds", timed)
    assert bf16_speedup() == 2.0
    assert types == [torch.float32, torch.bfloat16] * 9
