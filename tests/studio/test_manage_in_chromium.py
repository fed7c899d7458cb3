"""The managers' pages in a real browser: nothing that axe objects to, nothing that scrolls sideways, no error, and a loop that lives."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from sqlalchemy import select

from studio.filled import SET, advance, fill, finish, run_under_way, studio_of_managers
from truing.store.clock import now
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Prompt, Question, QuestionSet, Run, RunState
from truing.studio.auth import COOKIE, begin_session
from visitors import served, signed_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

CHROMIUM = Path("/usr/bin/chromium")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"], "resultTypes": ["violations"]}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """Debian's Chromium."""
    from playwright.sync_api import sync_playwright

    environment: dict[str, str | float | bool] = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], env=environment)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A filled project with a tuning run under way."""
    project = open_project(create_project(tmp_path_factory.mktemp("filled") / "warm-words", settings=""))
    fill(project)
    yield project
    project.database.close()


@pytest.fixture(scope="module")
def address(filled: Project) -> Iterator[str]:
    """Its studio."""
    app = studio_of_managers(filled)
    signed_in(app, "owner", "Olga").post("/manage/rounds/1/report")
    with served(app) as opened:
        yield opened


def pages_of(project: Project) -> list[str]:
    """Every manager's page, one of each kind."""
    with project.database.read() as session:
        question = session.scalars(select(Question.id).where(Question.answers > 1, Question.kind == "pair").order_by(Question.position)).first()
        rating = session.scalars(select(Question.id).where(Question.kind == "rating")).first()
        a_set = session.scalars(select(QuestionSet.id).where(QuestionSet.name == SET)).first()
        person = session.scalars(select(Annotator.id).where(Annotator.name == "Ana")).first()
        prompt = session.scalars(select(Prompt.id)).first()
        tuned = session.scalars(select(Run.id).where(Run.stage == "tune", Run.state == RunState.DONE)).first()
    return [
        "/", "/manage/sets", "/manage/sets/new", f"/manage/sets/{a_set}", "/manage/import", "/manage/people", f"/manage/people/{person}", "/manage/tokens",
        "/manage/quality", "/manage/adjudicate", "/manage/prompts", f"/manage/prompts/{prompt}", "/manage/samples", "/manage/judgements",
        f"/manage/questions/{question}", f"/manage/questions/{rating}", "/manage/rounds", "/manage/rounds/1", "/manage/rounds/1/report",
        f"/manage/tuning/{tuned}", f"/manage/tuning/{run_under_way(project)}",
    ]  # fmt: skip


def context_of(browser: "Browser", project: Project, address: str, *, width: int, theme: str = "light") -> "BrowserContext":
    """A window in which the owner is signed in."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if theme == "dark" else "light")
    with project.database.write() as session:
        secret = begin_session(session, owner_of(project), now())
    context.add_cookies([{"name": COOKIE, "value": secret, "url": address}])
    return context


def owner_of(project: Project) -> str:
    """The owner's id."""
    with project.database.read() as session:
        return session.scalars(select(Annotator.id).where(Annotator.role == "owner")).one()


def watched(context: "BrowserContext", complaints: list[str]) -> "Page":
    """A page whose errors, policy's refusals and failed requests are written down."""
    page = context.new_page()
    page.on("console", lambda message: complaints.append(f"{page.url}: {message.text}") if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}"))
    page.on("response", lambda answer: complaints.append(f"{answer.url}: {answer.status}") if answer.status >= 400 else None)
    return page


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])  # contrast goes by the theme, layout by the width
def test_axe_objects_to_nothing(browser: "Browser", filled: Project, address: str, theme: str, width: int) -> None:
    complaints: list[str] = []
    context = context_of(browser, filled, address, width=width, theme=theme)
    page, axe = watched(context, complaints), Axe()
    for path in pages_of(filled):
        page.goto(address + path)
        found = axe.run(page, options=RULES).response
        assert len(found["passes"]) > 10, path  # it has looked
        complaints += [f"{path}: {one['id']} at {one['nodes'][0]['html'][:120]}" for one in found["violations"]]
    context.close()
    assert complaints == []


@pytest.mark.parametrize("width", [390, 320])
def test_nothing_scrolls_sideways(browser: "Browser", filled: Project, address: str, width: int) -> None:
    context = context_of(browser, filled, address, width=width)
    page = context.new_page()
    wide = {}
    for path in pages_of(filled):
        page.goto(address + path)
        beyond = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if beyond > 0:
            wide[path] = beyond
    context.close()
    assert wide == {}


def test_the_loop_lives_and_rests_in_a_hidden_tab(browser: "Browser", filled: Project, address: str) -> None:
    complaints: list[str] = []
    context = context_of(browser, filled, address, width=1280)
    page = watched(context, complaints)
    run = run_under_way(filled)
    page.goto(address)
    page.get_by_text("12 of 20").wait_for()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/manage/live") else None)
    advance(filled, run, 15)
    page.get_by_text("15 of 20").wait_for(timeout=10_000)
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.wait_for_timeout(500)
    before = len(asked)
    page.wait_for_timeout(4500)
    assert len(asked) == before
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    advance(filled, run, 18)
    page.get_by_text("18 of 20").wait_for(timeout=10_000)
    context.close()
    assert complaints == []


def test_a_tuning_run_is_watched_to_its_end(browser: "Browser", filled: Project, address: str) -> None:
    complaints: list[str] = []
    context = context_of(browser, filled, address, width=1280)
    page = watched(context, complaints)
    run = run_under_way(filled)
    page.goto(f"{address}/manage/tuning/{run}")
    page.get_by_text("Update 12 of 20").wait_for()
    advance(filled, run, 15)
    page.get_by_text("Update 15 of 20").wait_for(timeout=10_000)
    page.get_by_text("Update 15, the newest").wait_for(timeout=10_000)
    page.get_by_role("img", name="Score").filter(has=page.locator("text=15")).wait_for(timeout=10_000)
    earlier = page.get_by_role("link", name="Earlier")
    earlier.focus()
    advance(filled, run, 16)
    page.get_by_text("Update 16, the newest").wait_for(timeout=10_000)
    assert page.evaluate("document.activeElement.id") == "earlier"  # whoever steps by keyboard keeps their place
    page.keyboard.press("Enter")
    page.get_by_text("Update 15.").wait_for()
    advance(filled, run, 17)
    page.get_by_text("Update 17 of 20").wait_for(timeout=10_000)
    assert page.get_by_text("Update 15.").is_visible()
    with filled.database.read() as session:
        policy = session.scalars(select(Run.result).where(Run.stage == "tune", Run.state == RunState.DONE)).first()
    assert policy is not None
    finish(filled, run, policy["policy"])
    page.get_by_text("20 updates in").wait_for(timeout=10_000)
    assert page.get_by_text("Update 15.").is_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4500)
    assert asked == []  # it rests
    context.close()
    assert complaints == []


def test_questions_are_set_up_by_hand_with_a_preview_of_the_guideline(browser: "Browser", filled: Project, address: str) -> None:
    complaints: list[str] = []
    context = context_of(browser, filled, address, width=1280)
    page = watched(context, complaints)
    page.goto(f"{address}/manage/sets/new")
    assert not page.get_by_text("What is rated").is_visible()
    page.get_by_label("Rating").check()
    assert page.get_by_text("What is rated").is_visible()
    page.get_by_label("Name", exact=True).first.fill("by hand")
    page.get_by_label("Guideline").fill("Be **kind**.")
    page.locator("#guideline-preview strong").wait_for()
    page.get_by_label("How many questions").fill("7")
    page.get_by_role("button", name="Set up the questions").click()
    page.get_by_role("heading", name="by hand").wait_for()
    assert re.search(r"Questions\s*7", page.locator(".tiles").inner_text())
    context.close()
    assert complaints == []


def test_a_measurement_shows_its_end_by_itself(browser: "Browser", filled: Project, address: str) -> None:
    complaints: list[str] = []
    context = context_of(browser, filled, address, width=1280)
    page = watched(context, complaints)
    page.goto(f"{address}/manage/quality")
    with page.expect_navigation(url=re.compile("said=measuring")):
        page.get_by_role("button", name="Measure again").click()
    page.wait_for_url(re.compile(r"/manage/quality$"), timeout=60_000)
    page.get_by_text("Agreement α").first.wait_for()
    context.close()
    assert complaints == []
