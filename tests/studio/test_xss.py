"""No text that anybody gave ever runs: real Chromium looks at every page of a project in which every text tries to."""

from pathlib import Path

import pytest

from studio.scripts_in_texts import CHROMIUM, look
from studio.xss import CONTEXTS, ELSEWHERE, VECTORS, payloads, plant
from truing.store.project import Project
from visitors import served, studio_of


def test_the_payloads_are_many_and_different() -> None:
    made = payloads()
    assert len(set(made)) == len(made) == 2 * len(VECTORS) * len(CONTEXTS) == 384
    assert sum("hit(" in text or ELSEWHERE in text or "hit" in text.lower() for text in made) > 300


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
def test_texts_stay_texts(project: Project, tmp_path: Path) -> None:
    """Every sixteenth payload; benchmarks/studio/xss.py has them all."""
    pytest.importorskip("playwright.sync_api")
    planted = plant(project, payloads()[::16])
    with served(studio_of(project)) as address:
        seen = look(project, address, planted, questions=24, each=2, home=tmp_path)
    assert seen.executions == []
    assert seen.elsewhere == []
    assert seen.strange == []
    assert seen.complaints == []
    assert (seen.questions, seen.pages >= 45) == (24, True)
    project.database.close()
