"""Write the API's description to a file: `python -m truing.studio.openapi docs/openapi.json`."""

import json
import sys
from pathlib import Path

from truing.config import write_atomically
from truing.studio.api import document


def text() -> str:
    """The description as it is committed: the same code gives the same bytes."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def main(place: str) -> None:
    """Write it."""
    write_atomically(Path(place), text())


if __name__ == "__main__":
    main(sys.argv[1])
