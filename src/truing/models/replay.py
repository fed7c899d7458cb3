"""Work that is the same at every step, recorded once: on a GPU a small model's step takes longer to ask for than to do.

With CUDA graphs (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

Work = Callable[[], Tensor]
WARM_UP = 3  # times before it is recorded, so that libraries have chosen their kernels and have their memory


def records(device: torch.device) -> bool:
    """Whether work there is worth recording."""
    return device.type == "cuda"


@cache
def _aside(device: int) -> torch.cuda.Stream:
    """The stream on which work of a device is recorded: cuBLAS keeps a workspace for each that it has seen."""
    return torch.cuda.Stream(device)


def record(work: Work) -> Work:
    """The work, to be done again; what it gives is overwritten the next time.

    Args:
        work: on a CUDA device, without a gradient, reading and writing the same places every time. It is done a few times at once, which must do no harm.
    """
    aside = _aside(torch.cuda.current_device())
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):
        found = work()

    def again() -> Tensor:
        graph.replay()
        return found

    return again
