"""All payloads in every text field, every page, real Chromium: how many ran, and how many requests left the origin.

    python benchmarks/studio/xss.py [--every 1] [--out benchmarks/results]

The last line of stdout is one JSON object; the same is written to studio-xss-DATE.json.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from studio.bench import record
from studio.scripts_in_texts import look
from studio.xss import CONTEXTS, ENCODINGS, VECTORS, payloads, plant
from truing.store.project import create_project, open_project
from visitors import served, studio_of


def main() -> None:
    """Plant, look, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth payload")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    texts = payloads()[:: arguments.every]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        project = open_project(create_project(Path(scratch) / "project", settings=""))
        planted = plant(project, texts)
        with served(studio_of(project)) as address:
            seen = look(project, address, planted, questions=len(texts), each=len(texts), home=Path(scratch))
        project.database.close()
    size = {"payloads": len(texts), "vectors": len(VECTORS), "contexts": len(CONTEXTS), "encodings": len(ENCODINGS)}
    found: dict[str, Any] = {name: value if isinstance(value, int) else {"n": len(value), "first": value[:20]} for name, value in seen._asdict().items()}
    record(
        "studio-xss", "payloads in every text field, every page opened in Chromium", size | found | {"seconds": round(time.monotonic() - began)}, arguments.out
    )


if __name__ == "__main__":
    main()
