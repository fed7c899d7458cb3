"""Files of judgements at size: 200,000 judgements out in 10 s and 64 MB, 1,000,000 rows in within 60 s and 256 MB (the goals).

    python benchmarks/studio/exchange.py [--rows 1000000] [--judgements 200000]

Imported are votes of a crowd as JSON Lines (`table`: a prompt, two responses with their models, a choice, a worker; 1,000 workers, five votes a
pair, four pairs a prompt), and a fifth as many rows of `trl` in which every row is a new prompt. Exported is the log of such votes, as `native`,
`trl` and `table`. Each step runs in a process of its own, whose memory is all it ever held; an export's is told beside what the process held before.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
VOTES_A_PAIR, PAIRS_A_PROMPT, WORKERS = 5, 4, 1000
GOALS = {"import votes": {"seconds": 60, "peak_mb": 256}, "export native": {"seconds": 10, "more_mb": 64}, "export trl": {"seconds": 10, "more_mb": 64}}


class Words:
    """Texts of made-up words, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self._words = ["".join(self.draw.choices("abcdefghijklmnop", k=self.draw.randint(2, 9))) for _ in range(2000)]

    def text(self, n: int) -> str:
        """n words."""
        return " ".join(self.draw.choices(self._words, k=n))


def votes(n: int) -> Iterator[dict[str, Any]]:
    """n votes of a crowd."""
    words = Words(0)
    for pair in range(-(-n // VOTES_A_PAIR)):
        if pair % PAIRS_A_PROMPT == 0:
            prompt = f"{words.text(12)} {pair}"
        a, b = words.text(25), words.text(25)
        for _ in range(min(VOTES_A_PAIR, n - pair * VOTES_A_PAIR)):
            yield {
                "prompt": prompt, "response_a": a, "response_b": b, "model_a": f"m{pair % 7}", "model_b": f"n{pair % 5}", "choice": words.draw.choice("ab"),
                "strength": words.draw.randint(1, 3), "annotator": f"w{words.draw.randrange(WORKERS)}", "seconds": words.draw.randint(3, 90),
            }  # fmt: skip


def pairs(n: int) -> Iterator[dict[str, Any]]:
    """n preferences on n prompts."""
    words = Words(1)
    for number in range(n):
        yield {"prompt": f"{words.text(12)} {number}", "chosen": words.text(25), "rejected": words.text(25)}


def write(file: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Rows as JSON Lines."""
    with file.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows)


def step(command: str, project: str, format: str, file: str) -> dict[str, Any]:
    """One import or export, in this process."""
    from truing.feedback.exchange import ExportReport, export_judgements, import_judgements
    from truing.store.project import create_project, open_project

    root = Path(project)
    opened = open_project(root if (root / "truing.toml").exists() else create_project(root, settings=""))
    before, began, used = _peak_mb(), time.perf_counter(), time.process_time()
    report = import_judgements(opened, Path(file), format) if command == "import" else export_judgements(opened, format, Path(file))
    seconds, cpu, peak = time.perf_counter() - began, time.process_time() - used, _peak_mb()
    count = report.written if isinstance(report, ExportReport) else report.added
    return {"judgements": count, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mb": round(peak), "more_mb": round(peak - before)}


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _apart(*arguments: str) -> dict[str, Any]:
    """A step in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--step", *arguments], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(folder: Path, rows: int, judgements: int) -> dict[str, dict[str, Any]]:
    """Every step's figures."""
    write(folder / "votes.jsonl", votes(rows))
    write(folder / "fewer.jsonl", votes(judgements))
    write(folder / "pairs.jsonl", pairs(rows // 5))
    found = {
        "import votes": _apart("import", str(folder / "votes"), "table", str(folder / "votes.jsonl")),
        "import pairs": _apart("import", str(folder / "pairs"), "trl", str(folder / "pairs.jsonl")),
        "import fewer": _apart("import", str(folder / "fewer"), "table", str(folder / "fewer.jsonl")),
    }
    for format in ("native", "trl", "table"):
        found[f"export {format}"] = _apart("export", str(folder / "fewer"), format, str(folder / f"out-{format}"))
    found["import native"] = _apart("import", str(folder / "native"), "native", str(folder / "out-native"))
    return found


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to import")
    parser.add_argument("--judgements", type=int, default=200_000, help="judgements to export")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(step(*arguments.step)))
        return
    with tempfile.TemporaryDirectory() as folder:
        load = os.getloadavg()[0]
        found = measure(Path(folder), arguments.rows, arguments.judgements)
    when = datetime.now(UTC).date().isoformat()
    machine = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version(), "load_before_and_after": [load, os.getloadavg()[0]]}
    document = {"date": when, "machine": machine, "rows": arguments.rows, "goals": GOALS, "steps": found}
    for name, figures in found.items():
        print(name, figures, "goal:", GOALS.get(name, "none"))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"studio-exchange-{when}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
