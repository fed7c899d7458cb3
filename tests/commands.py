"""Commands of `truing` in processes of their own, each a fork of one that has loaded the libraries.

A fresh Python takes seconds to load torch and transformers, most commands on a tiny model less than one. What runs is the same `main` with the same
arguments, environment and folder, and it ends as it would by itself. Tests that ask how a command starts, or press Ctrl-C, start a Python as a user does.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from functools import cache
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import truing

LIBRARIES = ("alembic.command", "alembic.config", "crowdkit.aggregation", "peft", "safetensors.torch", "scipy.stats", "transformers.models.llama")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}  # one thread everywhere: another number has other last bits
LOOK_EVERY_S = 0.005


class Ended(NamedTuple):
    """What came of a command."""

    returncode: int  # negative: the signal that ended it
    stdout: str
    stderr: str
    processor_s: float = nan  # what it took of the processor


def run(*words: str, cwd: Path | None = None, kill_after_s: float | None = None) -> Ended:
    """`truing WORDS`.

    Args:
        cwd: the folder in which it is typed; default this process's.
        kill_after_s: it is killed when it has had so much of the processor; default it runs to its end. By the clock it would be killed at another point
            of its work whenever something else is busy.
    """
    process = _forker()
    assert process.stdin is not None
    assert process.stdout is not None
    order = {"words": words, "cwd": str(cwd or Path.cwd()), "environment": {**os.environ, **ENVIRONMENT}, "kill_after_s": kill_after_s}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    assert line, "the process that forks has ended; its words are above"
    return Ended(**json.loads(line))


@cache
def _forker() -> "subprocess.Popen[str]":
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(Path(truing.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(process.communicate)  # which closes its stdin, and so ends it
    return process


def _load() -> None:
    """Everything that a command may import, so that no child has to."""
    for name in (*LIBRARIES, *(module.name for module in pkgutil.walk_packages(truing.__path__, "truing."))):
        if name != "truing.__main__" and ".migrations" not in name:  # one would run, the others are alembic's
            importlib.import_module(name)
    gc.freeze()  # else every child goes through all of that, page by page, as it ends: three seconds of it
    assert threading.active_count() == 1, "a fork takes no threads along"  # pyarrow's allocator has one, and sees to forks itself


def _serve() -> None:
    """Answer orders, a line each, until there are no more; only children come back from here."""
    folder = Path(tempfile.mkdtemp(prefix="truing-commands-"))
    out, err = folder / "out", folder / "err"
    for line in sys.stdin:
        order = json.loads(line)
        out.write_bytes(b"")
        err.write_bytes(b"")
        child = os.fork()
        if child == 0:
            _become(order, out, err)
            return
        code, spent = _outcome(child, order["kill_after_s"])
        print(json.dumps(Ended(code, out.read_text(), err.read_text(), spent)._asdict()), flush=True)
    shutil.rmtree(folder)
    sys.exit()


def _become(order: Mapping[str, Any], out: Path, err: Path) -> None:
    """Make this child look as if its command had been typed."""
    for number, (path, mode) in enumerate(((Path(os.devnull), os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    sys.argv = ["truing", *order["words"]]


def _outcome(child: int, kill_after_s: float | None) -> tuple[int, float]:
    """The exit code of a child, and its seconds of the processor; killed if it takes more of them."""
    ended, status, used = os.wait4(child, os.WNOHANG if kill_after_s is not None else 0)
    while not ended:
        assert kill_after_s is not None
        if _spent(child) >= kill_after_s:
            os.kill(child, signal.SIGKILL)
            ended, status, used = os.wait4(child, 0)
        else:
            time.sleep(LOOK_EVERY_S)
            ended, status, used = os.wait4(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def _spent(process: int) -> float:
    """Seconds of the processor that a running process has had, by the clock that Linux keeps for it (`clock_getcpuclockid`)."""
    return time.clock_gettime((~process << 3) | 2)


if __name__ == "__main__":
    _load()
    _serve()
    from truing.cli.app import main

    try:
        main()
    except SystemExit as end:
        if isinstance(end.code, int) and threading.active_count() == 1:  # else Python takes all the libraries down, a page copied for each that it touches
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise
