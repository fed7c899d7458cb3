"""A step of sampling that is recorded once and replayed, as on a GPU."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from truing.models import decoding as module
from truing.models.generate import Response, generate
from truing.models.trunk import Trunk

PROMPTS = [[5, 6, 7], [9], [10] * 14, [16, 17, 18, 19, 20, 21]] * 4
Work = Callable[[], Tensor]


class Tape(TorchDispatchMode):
    """Records work as a CUDA graph does: every operation with the very tensors that it read and wrote. Replayed, they are all that is read and written; what
    Python would have chosen otherwise the second time stays as it was."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.done: list[tuple[Any, Sequence[Any], Mapping[str, Any], Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        found = function(*args, **(kwargs or {}))
        self.done.append((function, args, kwargs or {}, found))
        return found

    def replay(self) -> None:
        for function, args, kwargs, before in self.done:
            for old, new in zip(tree_leaves(before), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():  # else a view, or written in place
                    old.copy_(new)


def taped(work: Work) -> Work:
    """As `record`, by a tape."""
    with Tape() as tape:
        found = work()

    def again() -> Tensor:
        tape.replay()
        return found

    return again


def answers(trunk: Trunk) -> list[Response]:
    return generate(trunk, PROMPTS, range(len(PROMPTS)), max_new_tokens=12, temperature=0.9)


def assert_same(found: list[Response], expected: list[Response]) -> None:
    assert [(one.token_ids, one.finished) for one in found] == [(one.token_ids, one.finished) for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


@pytest.mark.parametrize("ends", [64, 2], ids=["few end", "rows are dropped, and it is recorded anew"])
def test_replayed_steps_give_the_answers_that_steps_give(trunk: Trunk, monkeypatch: pytest.MonkeyPatch, ends: int) -> None:
    trunk.eos_ids = frozenset(range(0, 259, ends))
    expected = answers(trunk)
    tapes: list[Work] = []

    def counted(work: Work) -> Work:
        tapes.append(work)
        return taped(work)

    monkeypatch.setattr(module, "records", lambda device: True)
    monkeypatch.setattr(module, "record", counted)
    assert_same(answers(trunk), expected)
    assert (len(tapes) > 1) == (ends == 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_replays_what_it_would_do(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = answers(trunk)
    monkeypatch.setattr(module, "records", lambda device: False)
    assert_same(recorded, answers(trunk))
