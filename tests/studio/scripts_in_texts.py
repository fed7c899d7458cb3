"""A browser that opens every page of a project full of payloads, and what it noticed."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from studio.xss import INSPECT, WATCH, Planted, addresses
from truing.feedback.assignment import claim, submit
from truing.store.clock import now
from truing.store.ids import uuid7
from truing.store.project import Project
from truing.studio.auth import COOKIE, begin_session
from visitors import person_in

CHROMIUM = Path("/usr/bin/chromium")


class Seen(NamedTuple):
    """What came of it."""

    pages: int
    questions: int  # of them shown to an annotator
    executions: list[str]
    elsewhere: list[str]  # requests to another origin
    strange: list[str]  # markup that no page of the studio has
    complaints: list[str]  # of the browser: a script or style that the policy kept from running was there all the same


def look(project: Project, address: str, planted: Planted, *, questions: int, each: int, home: Path) -> Seen:
    """Open the pages.

    Args:
        address: of the project's studio.
        questions: how many questions an annotator is shown.
        each: of the pages about one thing, how many.
        home: a folder for the browser.
    """
    from playwright.sync_api import sync_playwright

    seen = Seen(0, 0, [], [], [], [])
    annotators, managers = addresses(planted, each=each)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], env={**os.environ, "HOME": str(home)})
        page = _tab(browser, project, planted.person, address, seen)
        pages = [_open(page, address, path, seen) for path in annotators]
        reader = person_in(project, "Reader", "annotator")
        page = _tab(browser, project, reader, address, seen)
        shown = _through_questions(project, reader, page, address, seen, questions)
        page = _tab(browser, project, person_in(project, "Mana", "owner"), address, seen)
        pages += [_open(page, address, path, seen) for path in managers]
        browser.close()
    return seen._replace(pages=len(pages) + shown, questions=shown)


def _tab(browser: Any, project: Project, person: str, address: str, seen: Seen) -> Any:
    with project.database.write() as store:
        secret = begin_session(store, person, now())
    context = browser.new_context()
    context.add_cookies([{"name": COOKIE, "value": secret, "url": address}])
    context.add_init_script(WATCH)
    page = context.new_page()
    page.on("dialog", lambda dialog: _dismiss(dialog, seen))
    page.on("request", lambda request: seen.elsewhere.append(request.url) if not request.url.startswith(address) else None)
    page.on("console", lambda message: _hear(message, seen))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    return page


def _hear(message: Any, seen: Seen) -> None:
    if message.type in ("error", "warning") and "status of 404" not in message.text:
        seen.complaints.append(message.text)


def _dismiss(dialog: Any, seen: Seen) -> None:
    seen.executions.append(f"dialog: {dialog.message}")
    dialog.dismiss()


def _open(page: Any, address: str, path: str, seen: Seen, ready: str = "main") -> str:
    answer = page.goto(address + path)
    if answer.status >= 400 and answer.status != 404:  # a question that everybody skipped is in no dispute
        seen.complaints.append(f"{path}: status {answer.status}")
    page.wait_for_selector(ready, state="attached")
    _note(page, path, answer.url, seen)
    return path


def _note(page: Any, path: str, landed: str, seen: Seen) -> None:
    found = page.evaluate(INSPECT)
    seen.executions.extend(f"{path}: hit {n}" for n in found["hits"])
    seen.strange.extend(f"{path}: {what}" for what in found["strange"])
    if page.url != landed:
        seen.executions.append(f"{path} led to {page.url}")


def _through_questions(project: Project, person: str, page: Any, address: str, seen: Seen, most: int) -> int:
    """Show the person one question after the other; each is skipped behind the page's back."""
    for number in range(most):
        at = now()
        lent = claim(project, person, at=at)
        if lent is None:
            return number
        _open(page, address, "/judge", seen, ready="#stage .raw")
        common: dict[str, Any] = {"annotator_id": person, "started_at": at, "at": at, "active_ms": 900, "guideline_version": 1}
        submit(project, lent.id, {"skip": "seen"}, idempotency_key=uuid7(), **common)
    return most
