"""A device that is not the CPU, made of the CPU's own memory: as strict as a GPU about where a tensor stands, and with the CPU's arithmetic.

    PYTHONPATH=tests python tests/models/elsewhere.py FOLDER MODEL

Goes through whole stages with a model that is there, and with the same on the CPU; prints the main numbers of both. In a process of its own: PyTorch knows one
such device for good, and takes it for the machine's accelerator.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
NAME = "elsewhere"
MAY_CROSS = {aten._to_copy.default, aten.copy_.default}  # from one device to another
MAY_BE_TOLD = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}  # places in a tensor that is elsewhere may come from the CPU


class Elsewhere(torch.Tensor):
    """A tensor whose numbers are in one on the CPU."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        found: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype, device=torch.device(NAME, 0)
        )
        found.here = here
        return found

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Elsewhere({self.here!r})"

    def tolist(self) -> list[Any]:
        """PyTorch has none for a tensor of a kind of its own."""
        found: list[Any] = self.here.tolist()
        return found

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:  # type: ignore[override]
        return run(function, args, kwargs or {})


def install() -> torch.device:
    """Make PyTorch know the device, for as long as this process lives."""
    _setup_privateuseone_for_python_backend(NAME)
    for name in ("empty.memory_format", "empty_strided"):  # what every other way to make a tensor begins with
        torch.library.impl(f"aten::{name}", "privateuseone", partial(_made, getattr(aten, name.partition(".")[0])))
    torch.library.impl("aten::_copy_from", "privateuseone", _copied)
    return torch.device(NAME, 0)


def _copied(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    on_the_cpu(target).copy_(on_the_cpu(source))
    return target


def on_the_cpu(one: Any) -> Any:
    """The tensor that has the numbers; anything else as it is."""
    return one.here if isinstance(one, Elsewhere) else one


def _made(function: Any, *args: Any, **kwargs: Any) -> Elsewhere:
    return Elsewhere(function(*args, **{**kwargs, "device": torch.device("cpu"), "pin_memory": False}))


def run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation, where its tensors are.

    Raises:
        RuntimeError: they aren't all in one place.
    """
    flat, shape = tree_flatten((args, dict(kwargs)))
    there = [one for one in flat if isinstance(one, Elsewhere)]
    here = [one for one in flat if isinstance(one, Tensor) and not isinstance(one, Elsewhere) and one.dim() > 0]
    if there and here and function not in MAY_CROSS and not (function in MAY_BE_TOLD and isinstance(args[0], Elsewhere)):
        raise RuntimeError(f"{function}: tensors of {NAME} and of the CPU together")
    named = kwargs.get("device")
    goes = bool(there) if named is None else torch.device(named).type == NAME
    if function is aten.copy_.default:
        goes = isinstance(args[0], Elsewhere)
    own_args, own_kwargs = tree_unflatten([on_the_cpu(one) for one in flat], shape)
    if named is not None:
        own_kwargs["device"] = torch.device("cpu")
    found = function(*own_args, **own_kwargs)
    if function._schema.returns and any(one.alias_info is not None and one.alias_info.is_write for one in function._schema.returns):
        return kwargs.get("out", args[0] if args else None)
    return tree_map_only(Tensor, Elsewhere, found) if goes else found


# ---- whole stages ----

OF_A_POLICY = ("objective/scores", "objective/kl", "objective/entropy", "response/length")
STAGES = ("ppo", "ppo, upper half", "ppo, whole weights", "rloo", "q-learning", "dpo", "linear", "adapter", "full", "gpt2", "taken up")


def main(folder: Path, model: str) -> None:
    """Each stage on the CPU, then elsewhere; a line of JSON for each."""
    torch.set_num_threads(1)
    there = install()
    for stage in STAGES:
        found = {place.type: numbers(stage, place, folder / f"{stage}-{place.type}", model) for place in (torch.device("cpu"), there)}
        print(json.dumps({"stage": stage, **found}), flush=True)


def numbers(stage: str, place: torch.device, root: Path, model: str) -> list[float]:
    """What a stage comes to with a model at a place."""
    from policy.test_offline import examples_for
    from policy.test_offline import settings_for as offline_settings
    from reward.letters import letter_rows, write_dataset
    from reward.test_train import ADAPTER, FULL, LINEAR
    from truing.models import trunk as trunks
    from truing.models.registry import ModelSettings
    from truing.policy.train import imitate
    from truing.reward.score import load_reward_model
    from truing.reward.train import train_reward_model
    from truing.store.project import create_project, open_project
    from tuning import learner_for, settings_for, tune

    project = open_project(create_project(root, settings=""))
    with patch.object(trunks, "fastest_device", lambda: place):
        trunk = trunks.open_trunk(ModelSettings(name=f"{model}-{stage}" if stage == "gpt2" else model, dtype="fp32"))
        trunk.model.tie_weights()  # a move that swaps tensors, as this one, parts what stood twice
        assert trunk.device == place
        if stage in ("linear", "adapter", "full"):
            settings = {"linear": LINEAR, "adapter": ADAPTER, "full": FULL}[stage]
            made = train_reward_model(project, settings, write_dataset(project, letter_rows(30)).id, trunk, seed=1)
            scores = load_reward_model(project, made.id, trunk).score([[5, 6, 7], [9, 10]], [[11, 12, 13], [14]])
            return [made.facts["accuracy"]["value"], *scores]
        if stage == "dpo":
            made = imitate(project, offline_settings("dpo"), examples_for(project, trunk, "dpo"), trunk=trunk, dataset_id=None, parent="base", seed=0)
            return [made.facts["policy/loss"], made.facts["policy/margin"]]
        if stage == "taken up":
            for _ in range(2):
                learner = learner_for(trunk, settings_for("ppo"))
                learner.resume(root)
                learner.update()
                learner.keep(root)
                learner.close()
            return [learner.done, *(learner.rows[-1][name] for name in (*OF_A_POLICY, "policy/grad_norm"))]
        changes = {"ppo, upper half": {"layers": "top-half"}, "ppo, whole weights": {"weights": "full"}}.get(stage, {})
        made = tune(project, trunk, settings_for("ppo" if stage.startswith(("ppo", "gpt2")) else stage, updates=2, **changes))
        return [made.facts[name] for name in OF_A_POLICY]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
