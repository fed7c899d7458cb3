"""The doors in a real browser: by keyboard, in light and dark, at two widths, over plain http, and from another site."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

from truing.store.clock import now
from truing.store.project import Project
from truing.store.tables import Role
from truing.studio.auth import COOKIE
from truing.studio.invitations import make_invitation
from visitors import PASSWORD, person_in, quick_passwords, served, studio_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")
LINK = "o" * 43
NAMES = ("studio.test", "evil.test")  # both lead here; the studio knows one of them

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Browser"]:
    """A browser for which two names lead to this machine."""
    from playwright.sync_api import sync_playwright

    rules = ",".join(f"MAP {name} 127.0.0.1" for name in NAMES)
    arguments = ["--no-sandbox", "--disable-gpu", f"--host-resolver-rules={rules}"]
    home: dict[str, str | float | bool] = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments, env=home)
        yield opened
        opened.close()


@pytest.fixture
def browser(chromium: "Browser") -> Iterator["Browser"]:
    """The browser without a window: what a test before left in one, cookies above all, went with it."""
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture
def address(project: Project) -> Iterator[str]:
    """A studio that nobody owns yet."""
    with served(studio_of(project, owner_link_secret=LINK, names=["studio.test"])) as opened:
        yield opened


def at(page: "Page") -> str:
    """The path of the page that is shown."""
    page.wait_for_load_state()
    return "/" + page.url.split("/", 3)[3]


def test_the_owner_comes_in_and_out_by_keyboard_alone(browser: "Browser", address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}/first/{LINK}")
    page.keyboard.type("Olga")
    page.keyboard.press("Tab")
    page.keyboard.type("password1")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("first that a guesser tries").wait_for()
    page.wait_for_function("document.activeElement.id === 'f-name'")  # filled in already
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")
    cookie = next(cookie for cookie in page.context.cookies() if cookie["name"] == COOKIE)
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert page.evaluate("document.cookie").find(COOKIE) == -1
    page.goto(f"{address}/password")
    page.evaluate("document.querySelector('form[action=\"/sign-out\"]').requestSubmit()")
    page.wait_for_url(f"{address}/sign-in")
    page.keyboard.type("Olga")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_doors_are_for_everybody(browser: "Browser", address: str, project: Project, scheme: str, width: int) -> None:
    """axe-core finds nothing, no word is cut off at the side, and the console is silent."""
    invitation = make_invitation(project, "team", Role.ANNOTATOR, 5, 7, at=now())
    person_in(project, "Ana", "annotator", password_hash=quick_passwords().hash(PASSWORD))
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme="dark" if scheme == "dark" else "light")
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))

    def look() -> None:
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")

    for path in ("/sign-in", f"/first/{LINK}", f"/join/{invitation}", f"/join/{invitation}?PROLIFIC_PID=p&STUDY_ID=s&SESSION_ID=x"):
        page.goto(f"{address}{path}")
        look()
    assert said == []
    page.goto(f"{address}/sign-in?next=/password")
    page.fill("#f-name", "Ana")
    page.fill("#f-password", "wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()
    look()
    page.fill("#f-password", PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{address}/password")
    look()
    page.goto(f"{address}/nowhere")
    look()


def test_a_form_is_taken_over_plain_http_under_another_name(browser: "Browser", address: str, project: Project) -> None:
    """There a browser sends no Sec-Fetch-Site, and a page without a referrer would send no Origin either."""
    person_in(project, "Ana", "annotator", password_hash=quick_passwords().hash(PASSWORD))
    elsewhere = address.replace("127.0.0.1", "studio.test")
    page = browser.new_page()
    page.goto(f"{elsewhere}/sign-in?next=/password")
    page.fill("#f-name", "Ana")
    page.fill("#f-password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{elsewhere}/password")


def test_another_sites_page_cant_sign_anybody_out_or_in(browser: "Browser", address: str, project: Project) -> None:
    person_in(project, "Ana", "annotator", password_hash=quick_passwords().hash(PASSWORD))
    page = browser.new_context().new_page()
    page.goto(f"{address}/sign-in?next=/password")
    page.fill("#f-name", "Ana")
    page.fill("#f-password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{address}/password")
    evil = page.context.new_page()
    hostile = f'<form method="post" action="{address}/sign-out"></form><script>document.forms[0].submit()</script>'
    evil.route("http://evil.test/", lambda route: route.fulfill(content_type="text/html", body=hostile))
    with evil.expect_response(lambda answer: answer.url.endswith("/sign-out")) as answer:
        evil.goto("http://evil.test/")
    assert answer.value.status == 403
    page.reload()
    assert at(page) == "/password"


def test_a_name_that_was_pointed_here_gets_nothing(browser: "Browser", address: str) -> None:
    page = browser.new_page()
    answer = page.goto(address.replace("127.0.0.1", "evil.test") + "/sign-in")
    assert answer is not None
    assert answer.status == 421
    assert "password" not in page.content().lower()
