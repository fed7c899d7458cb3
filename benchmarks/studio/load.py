"""A crowd at a real server with SQLite: a working day, saturation, overload, power cuts, a full disk, a read-only disk, a wrong clock.

    python benchmarks/studio/load.py [steady saturated overload killed disk-full read-only wrong-clock] [--minutes 15] [--people 200] [--kills 200]

Without names all trials run, about half an hour in all; saturation is tried three times, for a shared machine is not always equally fast. Server
and crowd share the machine. The small disk is a tmpfs, for which one must be root. The last line of stdout is one JSON object; the same is written
to studio-load-DATE.json, beside the other trials of that day.
"""

import argparse
import datetime
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from stored import small_disk
from studio.bench import record
from studio.trials import disk_full, killed, read_only, saturated, steady, wrong_clock

ANSWERS_AT_LEAST = 20_000


def main() -> None:
    """Go through the trials, write after each."""
    arguments = parsed()
    trials: dict[str, Callable[[Path], dict[str, Any]]] = {
        "steady": lambda folder: steady(folder, people=arguments.people, think_s=10.0, seconds=60 * arguments.minutes, questions=day(arguments)),
        "saturated": lambda folder: three_times(lambda place: saturated(place, people=64, seconds=60.0, questions=20_000), folder),
        "overload": lambda folder: saturated(folder, people=600, seconds=60.0, questions=20_000),
        "killed": lambda folder: killed(
            folder, kills=arguments.kills, people=50, between_s=(0.2, 1.5), questions=30_000, at_least=ANSWERS_AT_LEAST if arguments.kills >= 200 else 0
        ),
        "disk-full": lambda folder: on_small_disk(folder, lambda disk: disk_full(disk, people=20, seconds=10.0, questions=2000)),
        "read-only": lambda folder: on_small_disk(folder, lambda disk: read_only(disk, questions=500)),
        "wrong-clock": lambda folder: wrong_clock(folder, people=20, seconds=10.0, questions=5000),
    }
    found = of_today(arguments.out)
    for name in arguments.trials or trials:
        with tempfile.TemporaryDirectory() as scratch:
            found[name] = trials[name](Path(scratch))
        record("studio-load", "a crowd at a real server: latencies at the client, and an audit of every acknowledged answer", found, arguments.out)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trials", nargs="*")
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def day(arguments: argparse.Namespace) -> int:
    """Questions enough that nobody runs out: an answer in ten seconds each, three to a question, and as many again."""
    return int(arguments.people * arguments.minutes * 6 / 3 * 2)


def three_times(trial: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
    """A trial three times over: the rates, the median, and all that was found."""
    runs = [trial(folder / str(number)) for number in range(3)]
    rates = [run["submits_a_second"] for run in runs]
    return {"submits_a_second": rates, "median": median(rates), "runs": runs}


def of_today(out: Path) -> dict[str, Any]:
    """The trials that were made today already."""
    file = out / f"studio-load-{datetime.date.today().isoformat()}.json"
    earlier: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: trial for name, trial in earlier.items() if isinstance(trial, dict) and name != "versions"}


def on_small_disk(folder: Path, trial: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """A trial on a disk of 24 MB."""
    with small_disk(folder / "disk", "24m") as disk:
        return trial(disk)


if __name__ == "__main__":
    main()
