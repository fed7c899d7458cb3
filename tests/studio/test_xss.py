"""No text that anybody gave ever runs: real Chromium looks at every page of a project in which every text tries to."""

import os
from pathlib import Path

import pytest

from studio.scripts_in_texts import CHROMIUM, look
from studio.xss import CONTEXTS, ELSEWHERE, INSPECT, VECTORS, WATCH, payloads, plant
from truing.store.project import Project
from visitors import served, studio_of


def test_the_payloads_are_many_and_different() -> None:
    made = payloads()
    assert len(set(made)) == len(made) == 2 * len(VECTORS) * len(CONTEXTS) == 384
    assert sum("hit(" in text or ELSEWHERE in text or "hit" in text.lower() for text in made) > 300


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
def test_what_runs_is_seen(tmp_path: Path) -> None:
    """On a page that shows texts as they are, each of these vectors is noticed: as something that ran, a request, or markup that doesn't belong."""
    from playwright.sync_api import sync_playwright

    missed: list[str] = []
    shown = [""]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], env={**os.environ, "HOME": str(tmp_path)})
        page = browser.new_page()
        page.add_init_script(WATCH)
        page.route("**/*", lambda route: route.fulfill(content_type="text/html", body=shown[0]))
        for vector in VECTORS:
            if not vector.startswith("<") or vector.startswith(("<javascript", "<meta")):  # markdown, templates; a page that leads away
                continue
            shown[0] = f"<main>{vector.format(run='hit(1)', n=1, elsewhere=ELSEWHERE)}</main>"
            page.goto("http://naive.example/")
            found = page.evaluate(INSPECT)
            missed += [] if found["hits"] or found["strange"] else [vector]
        browser.close()
    assert missed == []


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
def test_texts_stay_texts(project: Project, tmp_path: Path) -> None:
    """Every twenty-fourth payload; benchmarks/studio/xss.py has them all."""
    pytest.importorskip("playwright.sync_api")
    planted = plant(project, payloads()[::24])
    with served(studio_of(project)) as address:
        seen = look(project, address, planted, questions=16, each=2, home=tmp_path)
    assert seen.executions == []
    assert seen.elsewhere == []
    assert seen.strange == []
    assert seen.complaints == []
    assert (seen.questions, seen.pages >= 40) == (16, True)
    project.database.close()
