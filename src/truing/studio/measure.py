"""One measurement of quality, in a process of its own: `python -m truing.studio.measure PROJECT SETTINGS [second]`.

At the size of a crowd it takes minutes and a gigabyte, which the server's process would have to share with the people who judge. The
studio starts it and waits for it; how far it is stands in the store, as of any stage.
"""

import json
import os
import sys
from pathlib import Path

from truing.console import complain
from truing.errors import UserError
from truing.feedback.disputes import measure_disputes
from truing.feedback.quality import QualitySettings, measure_quality
from truing.store.project import Project, open_project

GIVES_WAY = 5  # niceness: the people who judge come first


def command(project: Project, *, second_opinion: bool) -> list[str]:
    """What to run to measure a project with its present settings."""
    settings = json.dumps(project.settings(QualitySettings).model_dump())
    return [sys.executable, "-m", "truing.studio.measure", str(project.root.absolute()), settings, *(["second"] if second_opinion else [])]


def main(arguments: list[str]) -> int:
    """Measure; the exit code is 2 for what a user can mend, whose words are then stderr's."""
    root, settings, *more = arguments
    os.nice(GIVES_WAY)
    try:
        project = open_project(Path(root))
        measure_disputes(project)
        measure_quality(project, QualitySettings(**json.loads(settings)), round_ids=None, second_opinion="second" in more)
    except UserError as error:
        complain(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
