"""Short writes of many threads to SQLite: each with a transaction of its own, and sharing the way to the disk (docs/decisions/0010).

    python benchmarks/studio/commits.py [--threads 30] [--each 20]

The two take turns, three times each; the medians are compared. The last line of stdout is one JSON object; the same is written to
studio-commits-DATE.json.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from sqlalchemy import text
from sqlalchemy.orm import Session

from studio.bench import record
from truing.store.database import Database, sqlite_url

TIMES = 3


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=30)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        database = Database(sqlite_url(Path(scratch) / "store.db"))
        with database.write() as session:
            session.execute(text("CREATE TABLE number (n INTEGER PRIMARY KEY, padding TEXT)"))
        ways = {"alone": database.write, "together": database.write_together}
        read: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(TIMES):
            for name, way in ways.items():
                read[name].append(writes_a_second(way, arguments.threads, arguments.each))
        with database.read() as session:
            rows = session.scalar(text("SELECT count(*) FROM number"))
        database.close()
    if rows != 2 * TIMES * arguments.threads * arguments.each:
        raise AssertionError(f"{rows} rows are there")
    medians = {name: median(found) for name, found in read.items()}
    found = {"threads": arguments.threads, "each": arguments.each} | {name: [round(one, 1) for one in all_] for name, all_ in read.items()}
    found |= {"ratio": round(medians["together"] / medians["alone"], 2)}
    record("studio-commits", "durable inserts a second of many threads, in transactions of their own and together", found, arguments.out)


def writes_a_second(way: Callable[[], AbstractContextManager[Session]], threads: int, each: int) -> float:
    """How many rows reach the disk in a second when so many threads insert so many rows each, one at a time."""

    def work() -> None:
        for _ in range(each):
            with way() as session:
                session.execute(text("INSERT INTO number (padding) VALUES ('an answer')"))

    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return threads * each / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
