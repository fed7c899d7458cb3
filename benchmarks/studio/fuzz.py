"""Schemathesis against the API, all its checks, 100 random requests an operation beside those that go through the edges of the description.

    python benchmarks/studio/fuzz.py [--examples 100] [--databases sqlite postgresql] [--seed 1] [--out benchmarks/results]

The last line of stdout is one JSON object; the same is written to studio-fuzz-DATE.json.
"""

import argparse
import importlib.metadata
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from stored import new_database
from studio.bench import record
from studio.fuzzing import PHASES, fuzz, studio_for_fuzzing
from truing.store.project import create_project, open_project


def main() -> None:
    """Fuzz, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--databases", nargs="+", choices=("sqlite", "postgresql"), default=["sqlite", "postgresql"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    runs = {name: run(name, arguments.examples, arguments.seed) for name in arguments.databases}
    settings = {"examples": arguments.examples, "seed": arguments.seed, "phases": PHASES, "schemathesis": importlib.metadata.version("schemathesis")}
    record("studio-fuzz", "schemathesis against the API: requests, statuses, failures", settings | runs, arguments.out)


def run(database: str, examples: int, seed: int) -> dict[str, Any]:
    """What came of it on one database."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TRUING_DATABASE"] = new_database(database, Path(scratch))
        project = open_project(create_project(Path(scratch) / "project", settings=""))
        found = fuzz(studio_for_fuzzing(project), examples=examples, seed=seed)
        project.database.close()
    return found._asdict() | {"seconds": round(time.monotonic() - began)}


if __name__ == "__main__":
    main()
