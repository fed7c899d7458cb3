"""The judging page in a real browser on a real server: keys, mouse, a network that fails, and people who can't see or point."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from studio.desk_of_questions import ASKED, LETTER, LETTER_ANSWERS, add_batch, add_person, ask, many_pairs, rules_of_kind
from truing.feedback.sets import new_guideline, set_state
from truing.store.clock import now
from truing.store.judgements import current_judgements
from truing.store.project import Project
from truing.store.tables import Judgement, Question
from truing.studio.auth import COOKIE, begin_session
from truing.studio.screen import to_screen
from visitors import served, studio_of

playwright_api = pytest.importorskip("playwright.sync_api")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = Path("/usr/bin/chromium")
OFFLINE_SECONDS = float(os.environ.get("TRUING_OFFLINE_SECONDS", "4"))  # a benchmark asks for 60
UNREAD_MS = 400  # before that a press is no answer: nobody can have read the question
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844), "small": (320, 640)}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")]


class Visit:
    """Somebody's browser, and what it complained of."""

    def __init__(self, name: str, context: Any, address: str) -> None:
        self.name, self.context, self.address = name, context, address
        self.complaints: list[str] = []

    def open(self, path: str = "/judge", *, ready: str = "#ask") -> Any:
        """A tab with a page of the studio; the guideline, which opens itself, is closed."""
        page = self.context.new_page()
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.complaints.append(request.url) if not request.url.startswith(self.address) else None)
        page.goto(self.address + path)
        page.wait_for_selector(ready)
        closer = page.locator('[data-action="guideline-close"]')
        if closer.count() and closer.is_visible():
            closer.click()
        return page

    def quiet(self) -> bool:
        """Nothing went wrong but what an absent network makes a browser say."""
        return not [one for one in self.complaints if "ERR_INTERNET_DISCONNECTED" not in one]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], env=home)
        yield browser
        browser.close()


@pytest.fixture
def visit(project: Project, chromium: Any) -> Iterator[Callable[..., Visit]]:
    """Gives a signed-in browser on the project's studio."""
    visits: list[Visit] = []
    with served(studio_of(project)) as address:

        def come(name: str = "Ana", size: str = "desktop", theme: str = "light") -> Visit:
            person = name.lower() if name in {one.name for one in visits} else add_person(project, name)
            with project.database.write() as store:
                secret = begin_session(store, person, now())
            width, height = WIDTHS[size]
            context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme, has_touch=size != "desktop")
            context.add_cookies([{"name": COOKIE, "value": secret, "url": address}])
            context.set_default_timeout(10_000)
            visits.append(Visit(name, context, address))
            return visits[-1]

        yield come
        for one in visits:
            one.context.close()
    project.database.close()


def read_through(page: Any) -> None:
    """As long as even a hasty person looks at a question."""
    page.wait_for_timeout(UNREAD_MS)


def texts(page: Any) -> str:
    """What stands on the screen, as one string."""
    return str(page.evaluate("[...document.querySelectorAll('#stage .raw, #stage .between h1')].map(one => one.textContent).join('|')"))


def until(page: Any, expression: str, *, seconds: float = 10.0) -> None:
    """Wait until an expression is true in the page. (Playwright's own way evaluates text inside the page, which its policy forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"still not so: {expression}; the bar says {page.locator('#saved').text_content()!r}"
        page.wait_for_timeout(20)


def bar_says(page: Any, words: str, **choices: Any) -> None:
    until(page, f"document.getElementById('saved').textContent === {json.dumps(words)}", **choices)


def answer(page: Any, act: Callable[[], None]) -> None:
    """Read, act, and wait until something else is on the screen."""
    read_through(page)
    before = texts(page)
    act()
    end = time.monotonic() + 10
    while texts(page) in (before, "One moment"):
        assert time.monotonic() < end, "the same question is still there"
        page.wait_for_timeout(10)


def press(page: Any, keys: str) -> None:
    """Answer with each of these keys."""
    for key in keys:
        answer(page, lambda key=key: page.keyboard.press(key))  # type: ignore[misc]


def saved(page: Any) -> None:
    """Wait until everything has arrived and the page says so."""
    until(page, "!Object.keys(localStorage).some(name => name.includes(':answer:'))")
    bar_says(page, "saved ✓")


def wait_for_rows(project: Project, n: int) -> None:
    end = time.monotonic() + 10
    while rows_in(project) < n:
        assert time.monotonic() < end, f"{rows_in(project)} judgements, not {n}"
        time.sleep(0.02)


def standing(project: Project) -> list[Judgement]:
    """The answers that stand, oldest question first."""
    with project.database.read() as store:
        rows = current_judgements(store, store.scalars(select(Question.id)).all())
        store.expunge_all()
    return sorted(rows, key=lambda row: row.started_at)


def rows_in(project: Project) -> int:
    with project.database.read() as store:
        return len(store.scalars(select(Judgement.id)).all())


def on_screen(row: Judgement) -> dict[str, Any]:
    return to_screen(row.answer, row.order_shown)


# ---- twenty questions by keyboard alone ----

STOPWATCH = """() => {
  window.waits = [];
  let pressed = 0;
  addEventListener('keydown', () => { pressed = performance.now(); }, true);
  const note = () => { if (pressed) { waits.push(performance.now() - pressed); pressed = 0; } };
  new MutationObserver(note).observe(document.getElementById('stage'), {childList: true});
}"""


def test_twenty_by_keyboard_with_two_undone_and_the_network_away(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 30)
    ana = visit()
    page = ana.open()
    page.evaluate(STOPWATCH)
    keys = "1234567tb" * 2 + "12"
    leanings: list[dict[str, Any]] = [{"both_bad": True} if key == "b" else {"leaning": 0 if key == "t" else 4 - int(key)} for key in keys]
    for number, key in enumerate(keys[:10]):
        press(page, key)
        if number == 4:  # change the fifth, and then the fourth
            page.keyboard.press("u")
            page.locator("#change-note").wait_for()
            answer(page, lambda: page.keyboard.press("7"))
            page.keyboard.press("u")
            read_through(page)
            page.keyboard.press("u")
            page.locator('[data-action="lean-4"][aria-pressed="true"]').wait_for()
            answer(page, lambda: page.keyboard.press("1"))
    leanings[4], leanings[3] = {"leaning": -3}, {"leaning": 3}
    saved(page)
    ana.context.set_offline(True)
    gone = time.monotonic()
    press(page, keys[10:14])
    bar_says(page, "4 answers wait for the network")
    page.get_by_role("heading", name="The network is away").wait_for()
    page.wait_for_timeout(max(0.0, OFFLINE_SECONDS - (time.monotonic() - gone)) * 1000)
    assert rows_in(project) == 12
    ana.context.set_offline(False)
    page.wait_for_selector("#ask", timeout=20_000)
    press(page, keys[14:])
    saved(page)
    rows = standing(project)
    assert [on_screen(row) for row in sorted(rows, key=lambda row: first_seen(project, row))] == leanings
    assert rows_in(project) == 22
    assert len({row.question_id for row in rows}) == 20
    assert all(sorted(row.order_shown) == [0, 1] and row.guideline_version == 1 for row in rows)
    assert all(UNREAD_MS <= row.active_ms <= 10_000 and row.started_at < row.submitted_at for row in rows)
    waits = sorted(page.evaluate("waits"))
    assert waits[len(waits) // 2] <= 100, waits
    assert page.locator("#far").text_content() == "20 of 30 today"
    assert ana.quiet(), ana.complaints


def first_seen(project: Project, row: Judgement) -> Any:
    """When the question of an answer, or of the one that it took the place of, was first seen."""
    with project.database.read() as store:
        while row.supersedes:
            row = store.get_one(Judgement, row.supersedes)
        return row.started_at


# ---- every kind, by keyboard and by mouse ----


def one_of(project: Project, kind: str) -> None:
    add_batch(project, [(LETTER, LETTER_ANSWERS)])
    ask(project, "warm replies", kind, **rules_of_kind(kind))


def test_thumbs(project: Project, visit: Callable[..., Visit]) -> None:
    one_of(project, "thumbs")
    ana = visit()
    page = ana.open()
    answer(page, lambda: page.keyboard.press("ArrowDown"))
    answer(page, lambda: page.get_by_role("button", name="Good", exact=False).first.click())
    saved(page)
    assert [on_screen(row) for row in standing(project)] == [{"up": False}, {"up": True}]
    assert ana.quiet(), ana.complaints


def test_rating(project: Project, visit: Callable[..., Visit]) -> None:
    one_of(project, "rating")
    ana = visit()
    page = ana.open()
    read_through(page)
    page.keyboard.press("Enter")  # nothing is rated yet: it goes to the first aspect
    page.keyboard.press("4")
    page.keyboard.press("ArrowUp")  # back to warmth
    page.keyboard.press("5")
    page.keyboard.press("1")
    assert page.locator("#missing").text_content() == "1 aspect to go"
    page.keyboard.press("3")
    answer(page, lambda: page.keyboard.press("Enter"))
    for aspect, point in (("How warm is it?", "2"), ("Does it help with what was asked?", "3"), ("Is what it says true?", "5")):
        page.get_by_role("group", name=aspect).locator(f'input[value="{point}"]').click()
    answer(page, lambda: page.get_by_role("button", name="Done").click())
    saved(page)
    assert [on_screen(row)["aspects"] for row in standing(project)] == [{"warmth": 5, "help": 1, "truth": 3}, {"warmth": 2, "help": 3, "truth": 5}]
    assert ana.quiet(), ana.complaints


def test_ranking(project: Project, visit: Callable[..., Visit]) -> None:
    add_batch(project, [(f"{LETTER} {number}", tuple(f"{number}: {text}" for text in LETTER_ANSWERS)) for number in range(3)])
    ask(project, "warm replies", "ranking")
    ana = visit()
    page = ana.open()
    read_through(page)
    page.keyboard.press("Enter")  # nothing is filled in beforehand: there is no answer to send
    assert page.locator("#missing").text_content() == "4 responses to go"
    for key in ("3", "1", "3", "4"):
        page.keyboard.press(key)
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Backspace")
    page.keyboard.press("1")
    answer(page, lambda: page.keyboard.press("Enter"))

    drag(page, "A", 2)
    drag(page, "B", 2)
    page.get_by_role("button", name="Move C up").click()
    page.get_by_role("button", name="D: rank 4").click()
    answer(page, lambda: page.get_by_role("button", name="Done").click())

    for letter in "ABCD":  # by the arrows of the letters alone
        page.get_by_role("button", name=f"Move {letter} up").click()
    page.get_by_role("button", name="Move D up").click()
    page.get_by_role("button", name="Move A down").click()
    page.get_by_role("button", name="Move A down").click()
    answer(page, lambda: page.get_by_role("button", name="Done").click())
    saved(page)
    assert [on_screen(row)["ranks"] for row in standing(project)] == [[2, 1, 1, 3], [2, 2, 1, 3], [2, 1, 2, 2]]
    assert ana.quiet(), ana.complaints


def drag(page: Any, letter: str, rank: int) -> None:
    grip = page.locator(".chip", has_text=letter).locator(".grip").filter(has_text=letter).first.bounding_box()
    lane = page.locator(f'[data-lane="{rank}"]').bounding_box()
    page.mouse.move(grip["x"] + 8, grip["y"] + 8)
    page.mouse.down()
    page.mouse.move(lane["x"] + 60, lane["y"] + 20, steps=6)
    page.mouse.up()


def test_edit(project: Project, visit: Callable[..., Visit]) -> None:
    one_of(project, "edit")
    ana = visit()
    page = ana.open()
    original = page.locator("#own").input_value()
    read_through(page)
    page.keyboard.press("Enter")  # nothing is changed: nothing is sent
    page.locator("#own").press("Control+End")
    page.keyboard.type(" Warmly, s")  # letters that are keys elsewhere
    page.locator(".changed ins", has_text="Warmly,").wait_for()
    answer(page, lambda: page.keyboard.press("Control+Enter"))
    page.locator("#own").fill("Something else.")
    page.get_by_role("button", name="Start again").click()
    second = page.locator("#own").input_value()
    assert second == page.locator(".changes .raw").text_content()
    answer(page, lambda: page.get_by_role("button", name="It is good as it is").click())
    saved(page)
    assert [on_screen(row) for row in standing(project)] == [{"text": f"{original} Warmly, s"}, {"unchanged": True}]
    assert ana.quiet(), ana.complaints


def test_a_pair_by_mouse_with_flags_comment_and_skip(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 4)
    ana = visit()
    page = ana.open()
    page.get_by_role("button", name="unsafe").click()
    page.keyboard.press("n")  # names itself
    page.keyboard.press("c")
    page.keyboard.type("the 2nd tells b, s and t")  # while a comment is open, keys are letters
    page.keyboard.press("Escape")
    answer(page, lambda: page.get_by_role("button", name="Left is better", exact=False).click())
    page.keyboard.press("s")
    answer(page, lambda: page.keyboard.press("2"))
    page.get_by_role("button", name="Skip", exact=True).first.click()
    page.get_by_label("Another reason").fill("I know the author")
    answer(page, lambda: page.get_by_label("Another reason").press("Enter"))
    saved(page)
    assert [on_screen(row) for row in standing(project)] == [
        {"leaning": 2, "flags": ["unsafe", "names itself"], "comment": "the 2nd tells b, s and t"},
        {"skip": "I know too little about the subject"},
        {"skip": "I know the author"},
    ]
    assert ana.quiet(), ana.complaints


# ---- nothing is doubled, nothing is lost ----


def test_a_double_click_and_a_key_that_is_held_are_one_answer_each(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 5)
    ana = visit()
    page = ana.open()
    answer(page, lambda: page.locator('[data-action="lean-2"]').dblclick())
    page.keyboard.press("3")  # a key that bounced: nobody can have read the question yet
    saved(page)
    assert rows_in(project) == 1
    answer(page, lambda: page.keyboard.down("3"))
    read_through(page)
    page.keyboard.down("3")  # still held
    page.keyboard.up("3")
    saved(page)
    assert rows_in(project) == 2
    assert page.locator("#far").text_content() == "2 of 5 today"


def test_two_tabs_are_one_person(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 6)
    ana = visit()
    here, there = ana.open(), ana.open()
    assert texts(here) == texts(there)
    here.bring_to_front()
    shown = texts(here)
    answer(here, lambda: here.keyboard.press("1"))
    until(there, f"!{json.dumps(shown)}.startsWith(document.querySelector('#stage .raw').textContent)")
    for _ in range(2):
        answer(there, lambda: there.keyboard.press("7"))
    saved(there)
    rows = standing(project)
    assert [on_screen(row) for row in rows] == [{"leaning": 3}, {"leaning": -3}, {"leaning": -3}]
    assert rows_in(project) == 3
    assert texts(here) == texts(there)


def test_the_back_button_brings_no_answered_question(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 4)
    ana = visit()
    page = ana.open()
    answered = texts(page)
    answer(page, lambda: page.keyboard.press("1"))
    saved(page)
    waiting = texts(page)
    page.goto(f"{ana.address}/me")
    page.go_back()
    page.wait_for_selector("#ask")
    assert texts(page) == waiting != answered
    answer(page, lambda: page.keyboard.press("2"))
    saved(page)
    assert rows_in(project) == 2


def test_a_reload_while_the_network_is_away_loses_nothing(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 8)
    ana = visit()
    page = ana.open()
    ana.context.set_offline(True)
    press(page, "12")
    with pytest.raises(playwright_api.Error, match="ERR_INTERNET_DISCONNECTED"):
        page.reload()
    ana.context.set_offline(False)
    page.goto(f"{ana.address}/judge")
    page.wait_for_selector("#ask")
    wait_for_rows(project, 2)
    assert sorted(on_screen(row)["leaning"] for row in standing(project)) == [2, 3]
    answer(page, lambda: page.keyboard.press("7"))
    saved(page)
    assert rows_in(project) == 3


def test_an_answer_whose_acknowledgement_was_lost_is_sent_again_and_kept_once(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 3)
    ana = visit()
    page = ana.open()
    lost: list[str] = []

    def lose_the_first(route: Any) -> None:
        if lost:
            route.continue_()
            return
        lost.append(json.loads(route.request.post_data)["key"])
        route.fetch()  # the studio has it
        route.abort("connectionreset")

    page.route("**/judge/api/submit", lose_the_first)
    answer(page, lambda: page.keyboard.press("1"))
    bar_says(page, "1 answer waits for the network")
    saved(page)
    with project.database.read() as store:
        assert store.scalars(select(Judgement.idempotency_key)).all() == lost


def test_an_answer_and_the_next_question_are_one_way(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 9)
    page = visit().open()
    until(page, "performance.getEntriesByType('resource').filter(one => one.name.endsWith('/api/next')).length === 4")  # the hand is full
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    press(page, "1234")
    saved(page)
    assert asked == ["submit"] * 4
    assert page.locator("#far").inner_text() == "4 of 9 today"
    press(page, "5671")  # the last of them come from the answers before
    saved(page)
    assert rows_in(project) == 8


def test_a_refused_answer_is_said_and_doesn_t_hold_up_the_others(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 4)
    ana = visit()
    page = ana.open()
    body = {"claim": "abc", "answer": {}, "started_at": now().isoformat(), "active_ms": 1, "key": "key-00000000", "guideline_version": 1}
    name = f"truing:{page.locator('#judge').get_attribute('data-me')}:answer:{0:015}:{1:06}:key-00000000"
    page.evaluate("([name, entry]) => localStorage.setItem(name, entry)", [name, json.dumps({"path": "submit", "body": body})])
    answer(page, lambda: page.keyboard.press("1"))
    page.get_by_text("An answer was not taken: this question isn't yours to answer").wait_for()
    saved(page)
    assert rows_in(project) == 1


def test_a_draft_survives_a_reload_and_another_browser(project: Project, visit: Callable[..., Visit]) -> None:
    one_of(project, "rating")
    ana = visit()
    page = ana.open()
    page.keyboard.press("4")
    page.keyboard.press("x")
    page.reload()  # before it was sent
    page.wait_for_selector("#ask")
    assert page.locator(".aspect input:checked").get_attribute("value") == "4"
    page.keyboard.press("c")
    page.keyboard.type("half")
    bar_says(page, "draft saved ✓", seconds=2.0)
    elsewhere = visit().open()
    assert elsewhere.locator("#comment").input_value() == "half"
    assert elsewhere.locator('[data-flag="unsafe"]').get_attribute("aria-pressed") == "true"
    assert elsewhere.locator(".aspect input:checked").get_attribute("value") == "4"


def test_only_active_time_counts(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 3)
    ana = visit()
    page = ana.context.new_page()
    page.clock.install()
    page.goto(f"{ana.address}/judge")
    page.wait_for_selector("#ask")
    page.clock.run_for(10_000)
    page.mouse.move(200, 200)
    page.clock.run_for(300_000)  # five minutes away: half a minute of it counts
    page.mouse.move(300, 300)
    page.clock.run_for(5000)
    page.keyboard.press("2")
    for _ in range(100):
        page.clock.run_for(50)
        if rows_in(project):
            break
        time.sleep(0.05)
    (row,) = standing(project)
    assert 45_000 <= row.active_ms <= 48_000


# ---- the last answers, the guideline, keys of one's own ----


def test_earlier_answers_can_be_opened_after_a_reload(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 6)
    ana = visit()
    page = ana.open()
    press(page, "12")
    saved(page)
    page.reload()
    page.wait_for_selector("#ask")
    here = texts(page)
    page.keyboard.press("u")
    page.locator('[data-action="lean-2"][aria-pressed="true"]').wait_for()
    page.keyboard.press("u")
    page.locator('[data-action="lean-1"][aria-pressed="true"]').wait_for()
    answer(page, lambda: page.keyboard.press("Escape"))
    assert texts(page) == here
    page.goto(f"{ana.address}/judge/last")
    page.get_by_role("link", name="Change: Left is much better").click()
    page.locator('[data-action="lean-1"][aria-pressed="true"]').wait_for()
    answer(page, lambda: page.keyboard.press("6"))
    saved(page)
    assert [on_screen(row) for row in sorted(standing(project), key=lambda row: first_seen(project, row))] == [{"leaning": -2}, {"leaning": 2}]
    assert rows_in(project) == 3
    assert ana.quiet(), ana.complaints


def test_a_newer_guideline_opens_itself_once(project: Project, visit: Callable[..., Visit]) -> None:
    set_id = many_pairs(project, 9)
    ana = visit()
    page = ana.open()
    page.reload()
    page.wait_for_selector("#ask")
    assert not page.locator("#guide").is_visible()
    new_guideline(project, set_id, "Now **shorter** is better.", now())
    page.reload()
    page.get_by_text("Now shorter is better.").wait_for()
    assert page.locator("#guide-head").text_content() == "Guideline v2"
    page.keyboard.press("g")
    assert not page.locator("#guide").is_visible()
    page.keyboard.press("g")
    page.keyboard.press("Escape")
    assert not page.locator("#guide").is_visible()


def test_keys_can_be_changed_and_switched_off(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 5)
    ana = visit()
    page = ana.open()
    page.keyboard.press("?")
    page.get_by_role("button", name="Tie: about the same: T. Change").click()
    page.keyboard.press("b")
    page.get_by_text("B no longer stands for").wait_for()
    page.keyboard.press("Escape")
    answer(page, lambda: page.keyboard.press("b"))
    page.reload()
    page.wait_for_selector("#ask")
    page.keyboard.press("?")
    page.get_by_label("Answer with single keys").uncheck()
    page.keyboard.press("Escape")
    read_through(page)
    before = texts(page)
    for key in "1bsu?":
        page.keyboard.press(key)
    assert texts(page) == before
    assert not page.locator("dialog[open]").count()
    assert not page.locator("#answer kbd:visible").count()
    page.locator('[data-action="lean-5"]').focus()
    answer(page, lambda: page.keyboard.press("Enter"))
    saved(page)
    assert [on_screen(row) for row in standing(project)] == [{"leaning": 0}, {"leaning": -1}]


def test_ways_of_reading(project: Project, visit: Callable[..., Visit]) -> None:
    long = "\n\n".join(f"The **cat** went to mat {number} and looked at its {number} mice." for number in range(60))
    add_batch(project, [("Why?", (long.replace("went", "sat", 1), long.replace("went", "lay", 1)))])
    ask(project, "long ones", "pair")
    ana = visit()
    page = ana.open()
    page.keyboard.press("p")
    assert page.locator(".response .raw").first.is_visible()
    assert not page.locator(".response .rendered").first.is_visible()
    page.keyboard.press("d")
    marks = sorted(page.locator(".compared").nth(side).locator("del, ins").first.text_content() for side in (0, 1))
    assert marks == ["lay", "sat"]
    page.keyboard.press("d")
    assert page.locator(".response .raw").first.is_visible()
    page.keyboard.press("p")
    page.keyboard.press("y")
    page.evaluate("document.querySelectorAll('.response .body')[0].scrollTo(0, 1e6)")
    until(page, "(b => Math.abs(b.scrollTop - (b.scrollHeight - b.clientHeight)) < 3)(document.querySelectorAll('.response .body')[1])")
    page.keyboard.press("PageUp")
    until(page, "(b => b.scrollTop < b.scrollHeight - b.clientHeight - 50)(document.querySelectorAll('.response .body')[1])")
    assert ana.quiet(), ana.complaints


def test_the_end_and_the_rest(project: Project, visit: Callable[..., Visit]) -> None:
    set_id = many_pairs(project, 1, completion_url="https://crowd.example/done")
    ana = visit()
    page = ana.open()
    answer(page, lambda: page.keyboard.press("1"))
    page.get_by_role("heading", name="Nothing is left for you").wait_for()
    assert page.get_by_role("link", name="Finish").get_attribute("href") == "https://crowd.example/done"
    set_state(project, set_id, "paused")
    page.get_by_role("button", name="Look again").click()
    page.get_by_role("heading", name="The questions are resting").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"


def test_who_is_signed_out_keeps_what_they_answered(project: Project, visit: Callable[..., Visit]) -> None:
    many_pairs(project, 6)
    ana = visit()
    page = ana.open()
    until(page, "document.getElementById('far').textContent !== ''")
    page.wait_for_load_state("networkidle")
    cookies = ana.context.cookies()
    ana.context.clear_cookies()
    answer(page, lambda: page.keyboard.press("1"))
    bar_says(page, "signed out: 1 answer waits here")
    ana.context.add_cookies(cookies)
    page.reload()
    page.wait_for_selector("#ask")
    wait_for_rows(project, 1)


# ---- words in common ----

TEXTS = ["", "one", "one two three", "one 2 three", "three two one", "a\n\nb c", "a b\nc d", "  led by space", "the cat the cat the dog", "the dog the cat"]
SIDES = """async ([before, after]) => {
  const {compare, first, second} = await import('/static/judge/diff.js');
  const runs = compare(before, after);
  const text = nodes => nodes.map(node => node.textContent ?? node).join('');
  const kept = nodes => nodes.filter(node => typeof node === 'string').join(' ').split(/\\s+/).filter(Boolean).length;
  return [text(first(runs)), text(second(runs)), kept(first(runs))];
}"""


def in_common(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence, straight from its definition."""
    if not a or not b:
        return 0
    return 1 + in_common(a[1:], b[1:]) if a[0] == b[0] else max(in_common(a[1:], b), in_common(a, b[1:]))


def test_the_diff_shows_both_texts_whole_and_as_much_in_common_as_there_is(project: Project, visit: Callable[..., Visit]) -> None:
    page = visit().open("/me", ready=".empty")
    for before in TEXTS:
        for after in TEXTS:
            shown = page.evaluate(SIDES, [before, after])
            assert shown == [before, after, in_common(before.split(), after.split())]
    long = " ".join(f"word{number}" for number in range(4000))
    assert page.evaluate("([a, b]) => import('/static/judge/diff.js').then(diff => diff.compare(a, b) === null)", [long, long.replace("word", "term")])


# ---- for everybody ----

BEYOND = """[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)
  .filter(e => !e.closest('.unseen, .remarks, .tools, .md pre, .md table')).map(e => e.outerHTML.slice(0, 90))"""
SMALL = """least => [...document.querySelectorAll('main button, main a, main input, main label.point, header button, header a, header summary')]
  .filter(e => e.checkVisibility() && !e.closest('.md, .skip, label'))
  .map(e => [e.getBoundingClientRect(), e.outerHTML.slice(0, 80)])
  .filter(([box]) => box.width < least || box.height < least).map(([box, html]) => `${box.width}x${box.height} ${html}`)"""


def violations(page: Any) -> list[str]:
    page.wait_for_timeout(200)
    found = axe_api.Axe().run(page, options={"resultTypes": ["violations"]})
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]} {one['nodes'][0]['failureSummary'][:300]}" for one in found.response["violations"]]


@pytest.mark.parametrize("kind", ["pair", "ranking", "rating", "thumbs", "edit"])
def test_axe_finds_nothing_on_a_question(project: Project, visit: Callable[..., Visit], kind: str) -> None:
    add_batch(project, ASKED)
    ask(project, "warm replies", kind, **rules_of_kind(kind))
    ana = visit()
    page = ana.open()
    for theme in ("light", "dark", "contrast"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        assert violations(page) == [], theme
    page.keyboard.press("g")
    page.keyboard.press("c")
    page.keyboard.press("Escape")
    if kind == "pair":
        page.keyboard.press("d")
    if kind in ("ranking", "rating"):
        page.keyboard.press("2")
    assert violations(page) == []
    for dialog in ("help", "skip"):
        page.locator(f'[data-action="{dialog}"]').click()
        assert violations(page) == [], dialog
        page.keyboard.press("Escape")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_on_the_other_pages(project: Project, visit: Callable[..., Visit], theme: str) -> None:
    many_pairs(project, 3)
    ana = visit(theme=theme)
    for path, ready in (("/judge/last", ".empty"), ("/me", ".empty")):
        assert violations(ana.open(path, ready=ready)) == []
    page = ana.open()
    for _ in range(3):
        answer(page, lambda: page.keyboard.press("1"))
    page.get_by_role("heading", name="Nothing is left for you").wait_for()
    assert violations(page) == []
    saved(page)
    for path, ready in (("/judge/last", ".last"), ("/me", ".tiles")):
        assert violations(ana.open(path, ready=ready)) == []
    assert ana.quiet(), ana.complaints


@pytest.mark.parametrize("kind", ["pair", "ranking", "rating", "thumbs", "edit"])
def test_nothing_sticks_out_and_everything_can_be_hit(project: Project, visit: Callable[..., Visit], kind: str) -> None:
    add_batch(project, ASKED)
    ask(project, "warm replies", kind, **rules_of_kind(kind))
    page = visit().open()
    for width, height in WIDTHS.values():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(BEYOND) == []
        assert page.evaluate(SMALL, 24) == []
        page.get_by_role("button", name="Skip", exact=True).first.click()
        answer(page, lambda: page.locator("[data-reason]").first.click())
