"""The report as a reader, a screen reader and an attacker meet it."""

import math
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from evaluation.finished_round import make_round
from truing.artifacts import load_artifact
from truing.errors import UserError
from truing.evaluation.report import build_view, write_report
from truing.evaluation.report_sources import read_sources
from truing.pages.words import render
from truing.pages.words import whole_percent as percent
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Round

HOSTILE = "</p></div><script>alert(1)</script><img src=x onerror=alert(1)> & \"quotes\" 'apostrophes' {{ 7 * 7 }} http://evil.example"
VOID = {"meta", "link", "br", "img", "input", "hr"}
CHROMIUM = Path("/usr/bin/chromium")


class Page(HTMLParser):
    """Reads a page, and fails where a tag is closed that wasn't open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # (path of tags, text)
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((" ".join(self.open), data))

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]

    def text(self, inside: str = "") -> str:
        return " ".join(data for path, data in self.texts if inside in path and "style" not in path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with two finished rounds."""
    project = open_project(create_project(tmp_path_factory.mktemp("report") / "warm-replies", settings=""))
    make_round(project, number=1)
    make_round(project, number=2)
    return project


@pytest.fixture(scope="module")
def first(finished: Project) -> str:
    return write_report(finished, 1).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def second(finished: Project) -> str:
    return write_report(finished, 2).read_text(encoding="utf-8")


def test_the_verdict_comes_first(finished: Project, first: str) -> None:
    with finished.database.read() as session:
        evaluation = session.query(Round).filter_by(number=1).one().made["evaluation"]
    win = load_artifact(finished.artifacts, evaluation).facts["win_rate"]
    page = Page(first)
    assert page.text("h1") == "The tuned model is preferred to the base model"
    assert f"95 % interval {percent(win['low'])} to {percent(win['high'])}".replace(" %", "\u202f%") in page.text("main")
    assert page.text("title").startswith(f"Round 1: preferred, {percent(win['value'])} against the base model".replace(" %", "\u202f%"))


def test_a_child_round_is_told_apart(second: str) -> None:
    page = Page(second)
    assert page.text("h1").startswith("Round 2’s model is preferred to the base model; ")
    assert "round 1’s model" in page.text("h1")
    assert {"href": "round-1.html"} in page.tags("a")
    assert "against round 1’s model" in page.text("tbody tr th")
    assert "against the base model" in page.text("tbody tr th")


def test_it_runs_nothing_and_asks_nothing_of_the_network(first: str) -> None:
    page = Page(first)
    assert page.tags("script") == []
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action", "srcset", "poster", "data"):
            assert re.match(r"(#|data:,|round-\d+\.html$)", attributes.get(name) or "#")
    assert re.findall(r"url\(|@import|https?:", first) == []
    assert any(attributes.get("http-equiv") == "Content-Security-Policy" for attributes in page.tags("meta"))


def test_every_number_carries_its_n(first: str, second: str) -> None:
    for html in (first, second):
        cells = re.findall(r'<td class="num value-of".*?</td>', html, re.DOTALL)
        assert len(cells) > 15
        assert all("n = " in cell or ">–<" in cell for cell in cells)
        assert all("n = " in row for row in re.findall(r"<figcaption>.*?</figcaption>", html, re.DOTALL) if "→" not in row)
        assert html.count("n = 32") == 1  # the curves' n, said once above them
        assert all("n = " in row for row in re.findall(r'<ul class="topics">(.*?)</ul>', html, re.DOTALL))


def test_it_is_accessible(first: str, second: str) -> None:
    for html in (first, second):
        page = Page(html)
        assert page.tags("html") == [{"lang": "en"}]
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        assert all(header.get("scope") in ("col", "row") for header in page.tags("th"))
        outer = [svg for svg in page.tags("svg") if svg.get("class") != "icon" and "viewbox" not in svg]
        assert outer
        assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in outer)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(set(ids)) == len(ids)
        links = [str(link["href"])[1:] for link in page.tags("a") if str(link["href"]).startswith("#")]
        assert set(links) <= set(ids)


def test_annotators_stand_by_trust_and_the_least_are_marked(first: str) -> None:
    table = first[first.index("Checks right</th>") :]
    names = re.findall(r'rowheader">(\w+)', table)[:10]
    assert names == ["Amara", "Bruno", "Chiyo", "Dalia", "Edvin", "Farah", "Goran", "Hina", "Ivo", "Juno"]
    assert re.findall(r'rowheader">(\w+)<span class="tag">least trusted', table) == ["Hina", "Ivo", "Juno"]
    assert "built as: always takes the left" in table


def test_what_went_wrong_is_said(first: str, second: str) -> None:
    assert "Negative KL</b>" in first
    assert "None of the named failures was seen" in second


def test_the_verdict_on_the_reward_model_is_said(finished: Project) -> None:
    sources = read_sources(finished, 1)
    fitness = {"sentence": "This reward model is not fit to tune against", "reasons": [{"text": "it may be a coin", "remedy": "collect more"}]}
    sources.artifacts["reward"].manifest["facts"]["fitness"] = fitness
    page = render("truing.evaluation", "report.html", build_view(sources))
    assert "<b>This reward model is not fit to tune against.</b> It may be a coin." in page
    assert "truing reward card" in page
    card = finished.root / "reports" / f"card-{sources.artifacts['reward'].id}.html"
    card.write_text("the card")
    assert f'<a href="{card.name}">Its card</a>' in render("truing.evaluation", "report.html", build_view(sources))
    card.unlink()


def test_the_same_round_gives_the_same_page(finished: Project, first: str) -> None:
    assert write_report(finished, 1).read_text(encoding="utf-8") == first


def test_hostile_text_is_only_text(tmp_path: Path) -> None:
    project = open_project(create_project(tmp_path / "<b>project", settings=""))
    make_round(project, prompts=20, hostile=HOSTILE)
    html = write_report(project, 1).read_text(encoding="utf-8")
    page = Page(html)
    assert page.tags("script") == page.tags("img") == page.tags("b1") == []
    assert HOSTILE in page.text("article")
    assert HOSTILE in page.text("tbody tr th")
    assert any(HOSTILE in str(svg.get("aria-label")) for svg in page.tags("svg"))
    assert "{{ 7 * 7 }}" in page.text("details")


def test_a_poor_result_is_told_as_one(tmp_path: Path) -> None:
    project = open_project(create_project(tmp_path / "poor", settings=""))
    made = make_round(project, lift=-0.6)
    html = write_report(project, made.number).read_text(encoding="utf-8")
    assert Page(html).text("h1") == "The tuned model is not preferred to the base model"
    assert '<div class="preferred">' not in html
    small = open_project(create_project(tmp_path / "small", settings=""))
    make_round(small, prompts=10, lift=0.0)
    html = write_report(small, 1).read_text(encoding="utf-8")
    assert "covers 50\u202f%" in html
    assert "Before you trust this" in html


STAGES = ("prompts", "samples", "questions", "judgements", "dataset", "reward", "policy", "evaluation")


@pytest.mark.parametrize("done", range(len(STAGES) + 1))
def test_an_unfinished_round_says_what_is_missing(finished: Project, done: int) -> None:
    with finished.database.read() as session:
        whole: dict[str, Any] = session.query(Round).filter_by(number=1).one().made
    number = 10 + done
    with finished.database.write() as session:
        made = {stage: whole[stage] for stage in STAGES[:done]}
        first_round = session.query(Round).filter_by(number=1).one()
        session.add(Round(number=number, parent_id=None, seed=1, made=made, created_at=first_round.created_at, sealed_at=None))
    try:
        page = Page(write_report(finished, number).read_text(encoding="utf-8"))
    finally:
        with finished.database.write() as session:
            session.delete(session.query(Round).filter_by(number=number).one())
    missing = sum("missing" in (attributes.get("class") or "") for _, attributes in page.elements)
    assert (missing == 0) == (done == len(STAGES))
    assert "not finished" in page.text("header")
    if done < len(STAGES):
        assert page.text("h1") == f"Round {number} has no verdict yet"


def test_no_such_round(finished: Project) -> None:
    with pytest.raises(UserError, match="no round 99"):
        write_report(finished, 99)


# ---- contrast: the page's own tokens, converted from OKLCH (Björn Ottosson 2020) and measured as WCAG 2 does ----


def tokens(css: str) -> tuple[dict[str, tuple[float, float, float]], dict[str, tuple[float, float, float]]]:
    """The colours of the light and of the dark theme."""
    hue = float(re.findall(r"--hue: (\d+)", css)[0])
    colour = r"oklch\(([\d.]+) ([\d.]+) (var\(--hue\)|\d+)\)"
    themes: tuple[dict[str, tuple[float, float, float]], ...] = ({}, {})
    for name, *numbers in re.findall(rf"--([\w-]+): light-dark\({colour}, {colour}\)", css):
        for theme, (lightness, chroma, own) in zip(themes, (numbers[:3], numbers[3:]), strict=True):
            theme[name] = (float(lightness), float(chroma), hue if own.startswith("var") else float(own))
    return themes[0], themes[1]


def luminance(colour: tuple[float, float, float]) -> float:
    lightness, chroma, hue = colour
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    red, green, blue = (min(max(channel, 0.0), 1.0) for channel in (red, green, blue))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_enough_in_both_themes(first: str) -> None:
    assert contrast((0.0, 0.0, 0.0), (1.0, 0.0, 0.0)) == pytest.approx(21, abs=0.01)
    inks = {"ink": 4.5, "quiet": 4.5, "accent": 4.5, "accent-strong": 4.5, "bad": 4.5, "warm": 4.5, "edge": 3.0}  # WCAG 1.4.3; 1.4.11 for an edge
    for colours in tokens(first):
        for ink, least in inks.items():
            for ground in ("page", "surface", "raised", "accent-soft"):
                assert contrast(colours[ink], colours[ground]) >= least, (ink, ground)
        assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
        assert contrast(colours["bad"], colours["bad-soft"]) >= 4.5


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    home: dict[str, str | float | bool] = {**os.environ, "HOME": str(tmp_path_factory.mktemp("home"))}
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"], env=home)
        yield opened
        opened.close()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_a_browser_shows_it_without_scrolling_sideways(finished: Project, browser: Any, width: int, theme: Any) -> None:
    path = write_report(finished, 2)
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: complaints.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    beyond = page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    wide = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    assert wide == width
    assert beyond == []
    assert [complaint for complaint in complaints if not complaint.startswith("data:")] == []
