"""Which number type this machine multiplies fastest, measured once and remembered."""

import json
import os
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from truing.config import write_atomically
from truing.models.registry import cache_folder

WORTH_IT = 1.3  # bf16 rounds more: it must be at least this much faster to be taken


def fastest_device() -> torch.device:
    """A CUDA device where this process may see one (CUDA_VISIBLE_DEVICES says which, or, empty, none), of several its own by its place in a team; else
    the CPU."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else torch.device("cpu")


def fastest_dtype() -> torch.dtype:
    """bf16 where its matrix products are clearly faster than fp32's, else fp32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    place = cache_folder() / "machine.json"
    machine = f"{platform.processor() or platform.machine()} {_cpu_name()} torch {torch.__version__} threads {torch.get_num_threads()}"
    known = json.loads(place.read_text()) if place.exists() else {}
    if machine not in known:
        known[machine] = round(bf16_speedup(), 2)
        write_atomically(place, json.dumps(known, indent=1, sort_keys=True))
    return torch.bfloat16 if known[machine] >= WORTH_IT else torch.float32


def bf16_speedup() -> float:
    """How many times faster bf16 is than fp32 at a product as in a small language model: the median of paired runs."""
    a, b = torch.randn(1024, 576), torch.randn(1536, 576)
    a16, b16 = a.bfloat16(), b.bfloat16()
    ratios = sorted(_seconds(lambda: a @ b.T) / _seconds(lambda: a16 @ b16.T) for _ in range(9))
    return ratios[len(ratios) // 2]


def machine() -> str:
    """What a measurement ran on, in words."""
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    threads = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return f"{gpu}{_cpu_name()} ({platform.machine()}), {threads}, torch {torch.__version__}, Python {platform.python_version()}"


def _seconds(work: Callable[[], Tensor]) -> float:
    work()
    start = time.perf_counter()
    for _ in range(5):
        work()
    return time.perf_counter() - start


def _cpu_name() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.machine()
