"""Several processes that tune one policy together, as `torchrun --nproc-per-node 2 -m truing tune` starts them.

Every process holds the whole model, draws and reads its share of the answers, and takes the same optimiser step from everybody's gradient. The first one, rank
0, does all that a lone process does: it alone writes, and tells the others what to do. A share doesn't depend on what is in it and every answer has a seed of
its own, so that a team's policy is a lone process' but for the order in which gradients are added up.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from truing.errors import UserError
from truing.models.precision import fastest_device

T = TypeVar("T")

BUCKET = 1 << 24  # numbers of a gradient that travel together
PATIENCE = timedelta(hours=6)  # the others wait that long for the first to make up its mind


class Team:
    """This process among those that tune together.

    Attributes:
        rank: in [0, size); 0 is the first.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def owns(self, number: int) -> bool:
        """Whether a piece of work of that number is this process' to do."""
        return number % self.size == self.rank

    def together(self, found: Mapping[int, T]) -> list[T]:
        """What everybody found, by number, in order: every number is found by one of them."""
        if self.size == 1:
            return [found[number] for number in sorted(found)]
        parts: list[Mapping[int, T]] = [{}] * self.size
        dist.all_gather_object(parts, dict(found))
        whole = {number: one for part in parts for number, one in part.items()}
        return [whole[number] for number in sorted(whole)]

    def added(self, seen: Mapping[str, float], *, largest: Sequence[str] = ()) -> dict[str, float]:
        """Sums over the processes of what each saw, name by name; of some names the largest."""
        each = self.together({self.rank: dict(seen)})
        names = dict.fromkeys(name for own in each for name in own)
        return {name: (max if name in largest else sum)(own[name] for own in each if name in own) for name in names}

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Put everybody's sum in the place of each gradient; who has none has zeros."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(map(torch.numel, bucket)) >= BUCKET:
                _add(bucket)
                bucket = []
        if bucket:
            _add(bucket)

    def tell(self, what: Any) -> None:
        """Of the first: say something to the others."""
        if self.size > 1:
            dist.broadcast_object_list([what])

    def hear(self) -> Any:
        """Of the others: what the first says next."""
        heard: list[Any] = [None]
        dist.broadcast_object_list(heard)
        return heard[0]


def team() -> Team:
    """Those that this process tunes with; by itself it is a team of one."""
    return Team(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else Team(0, 1)


@contextmanager
def joined() -> Iterator[Team]:
    """The team that torchrun started this process in, if it did; when the first leaves, the others hear None.

    Raises:
        UserError: there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team(0, 1)
        return
    if torch.cuda.is_available():
        if (here := int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) > torch.cuda.device_count():
            raise UserError(
                f"{here} processes are to share {torch.cuda.device_count()} GPU{'s' if torch.cuda.device_count() > 1 else ''}",
                fix=f"start {torch.cuda.device_count()} (--nproc-per-node), or none on a GPU (an empty CUDA_VISIBLE_DEVICES)",
            )
        torch.cuda.set_device(fastest_device())
    # What is told goes by gloo even beside GPUs: who waits for the first's word keeps no GPU busy.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    try:
        own = team()
        yield own
        if own.rank == 0:
            own.tell(None)
    finally:
        dist.destroy_process_group()


def _add(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, whole in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(whole.view_as(gradient))
