"""The learning benchmark's result as one HTML file: gold against answers and against seconds, and where each algorithm ends."""

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from truing.pages import charts
from truing.pages.words import between, count, decimal, signed, typeset

Json = dict[str, Any]
HEIGHT = 320


def page(found: Json) -> str:
    """The page of a result, whole or so far."""
    loader = ChoiceLoader([FileSystemLoader(Path(__file__).parent), PackageLoader("truing.pages"), PackageLoader("truing", "data/style")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"between": between, "count": count, "decimal": decimal, "signed": signed, "typeset": typeset}
    figures = [{"title": "against answers drawn", "svg": figure(found, "answers")}, {"title": "against seconds", "svg": figure(found, "seconds")}]
    styles = {arm: f"arm{number}" for number, arm in enumerate(found["arms"])}
    return environment.get_template("learning_page.html.jinja").render(found=found, figures=figures, styles=styles)


def figure(found: Json, across: str) -> str:
    """A curve for each arm. Against answers, what learned from the base's at once has no course: only where it ends is marked."""
    lines = []
    for number, (arm, points) in enumerate(found["arms"].items()):
        course = [(row[across], row["gold"]["value"]) for row in points]
        all_at_once = len({x for x, _ in course[1:]}) == 1
        lines.append(charts.Line(arm, course[-1:] if all_at_once else course, style=f"arm{number}"))
    return str(charts.line_chart(lines, label=f"gold against {across}", x_name=across, height=HEIGHT))
