"""The over-optimisation benchmark's result as one HTML file: two plots, what they come to, and where the numbers come from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from truing.pages import charts
from truing.pages.words import between, count, decimal, percent, signed, typeset

Json = dict[str, Any]
NAMES = {"single": "a single model", "mean": "the mean", "lower": "the lower bound", "worst": "the worst member"}
WAYS = {"best_of_n": "Best of n", "ppo": "PPO"}
HEIGHT = 300


def page(found: Json) -> str:
    """The page of a result, whole or so far."""
    loader = ChoiceLoader([FileSystemLoader(Path(__file__).parent), PackageLoader("truing.pages"), PackageLoader("truing", "data/style")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"between": between, "count": count, "decimal": decimal, "percent": percent, "signed": signed, "typeset": typeset}
    notes = {"best_of_n": f"; n = 1 to {found['settings']['n']}", "ppo": ""}
    ways = [{"title": WAYS[way], "note": notes[way], **found[way], "figure": figure(found[way], WAYS[way])} for way in WAYS if way in found]
    return environment.get_template("page.html.jinja").render(found=found, ways=ways, names=NAMES)


def figure(way: Json, title: str) -> str:
    """Gold of each arm in one colour with its interval, its proxy broken in the same colour."""
    return str(charts.line_chart(list(_lines(way["arms"])), label=f"{title}: gold and proxy against KL from the base", x_name="nats", height=HEIGHT))


def _lines(arms: Json) -> Iterator[charts.Line]:
    for arm, course in arms.items():
        points = course["points"]
        proxy = [(row["kl_nats"], row["proxy"]["value"]) for row in points]
        yield charts.Line(f"proxy, {NAMES[arm]}", proxy, main=False, style=f"proxy {arm}")
        band = [(row["kl_nats"], row["gold"]["low"], row["gold"]["high"]) for row in points if row["gold"]["low"] is not None]
        gold = [(row["kl_nats"], row["gold"]["value"]) for row in points]
        yield charts.Line(f"gold, {NAMES[arm]}", gold, style=arm, band=band if arm in ("single", "lower") else ())
