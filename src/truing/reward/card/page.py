"""The card as one HTML page: the verdict and its reasons first, then every number with its n and interval.

It reads the card's artifact and computes nothing that the stage did not record, but for coordinates of curves.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from truing.artifacts import Artifact, load_artifact
from truing.config import write_atomically
from truing.pages import charts
from truing.pages.words import count, decimal, percent, render, signed
from truing.reward.card.fitness import FEWEST_PROMPTS, Verdict
from truing.reward.card.learning_curve import Curve, in_words
from truing.store.project import Project

Json = dict[str, Any]

HEADLINES = {Verdict.FIT: "Fit to tune against", Verdict.LOWER_BOUND: "Fit with a lower bound", Verdict.NOT_FIT: "Not fit to tune against"}
STRATA = {"annotators": "By how many judged the pair", "strength": "By how strongly they preferred", "kind": "By the kind of question"}
STEPS_OF_CURVE = 40
POWERS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write_page(project: Project, card_id: str) -> Path:
    """Write `reports/card-<reward model>.html`.

    Returns:
        Where it is.

    Raises:
        UserError: there is no such card.
        DamagedArtifact: it is not what it was.
    """
    artifact = load_artifact(project.artifacts, card_id)
    path = page_of(project, artifact.facts["reward"])
    write_atomically(path, render("truing.reward", "card.html", build_view(project, artifact)))
    return path


def page_of(project: Project, reward_id: str) -> Path:
    """Where the page of a reward model's card is written."""
    return project.root / "reports" / f"card-{reward_id}.html"


def build_view(project: Project, artifact: Artifact) -> Json:
    """What the template needs."""
    card: Json = json.loads((artifact.path / "card.json").read_text(encoding="utf-8"))
    verdict = Verdict(card["fitness"]["verdict"])
    accuracy = card["accuracy"]
    return {
        "project": project.root.absolute().name,
        "card": {"omitted": {}, **card},
        "artifact": artifact.id,
        "truing": artifact.manifest["truing"],
        "headline": HEADLINES[verdict],
        "fit": verdict == Verdict.FIT,
        "bar": _bar(accuracy, "right on held-out pairs", form="percent", mark=0.5),
        "fewest": FEWEST_PROMPTS,
        "temperature": _open_ended(card["calibration"]["temperature"]),
        "figures": list(_figures(card)),
        "strata": [{"name": name, "rows": card["strata"][key]} for key, name in STRATA.items() if card["strata"][key]],
        "slopes": [_slope(row) for row in card["slopes"]],
        "needed": [{**row, "words": in_words(row, card["learning_curve"]["points"][0]["judgements"])} for row in _curve_of(card).get("needed", [])],
        "audit": _audit(card["audit"]),
        "invariance": [{**row, "said": None if row["largest"] is None else _tiny(row["largest"])} for row in card["invariance"]["rows"]],
        "quantiles": card["distribution"]["quantiles"],
    }


def _curve_of(card: Json) -> Json:
    """The learning curve; nothing for a head that was not refitted."""
    return card["learning_curve"] or {}


# ---- figures ----


def _figures(card: Json) -> Iterator[Json]:
    reliability = [(row["predicted"], row["observed"], row["n"]) for row in card["reliability"]]
    yield {
        "title": "Does it know what it knows?",
        "note": f"share preferred against predicted, n = {count(card['n_held_out'])} held-out pairs",
        "svg": charts.reliability_chart(reliability, label="Reliability"),
    }
    if points := _curve_of(card).get("points"):
        yield _learning(card["learning_curve"], points)
    best = card["best_of_n"]["pooled"]
    if best:
        rows = [charts.Estimate(row["n"], **{part: row["score"][part] for part in ("value", "low", "high")}) for row in best]
        note = f"score of the best of n samples, of {count(card['n_reference'])} from {count(best[0]['score']['n'])} prompts, as if of one"
        svg = charts.estimates_chart(rows, label="Best of n", x_name="samples", curve=[(row.x, row.value) for row in rows])
        yield {"title": "What picking the best gains", "note": note, "svg": svg}
    histogram = card["histogram"]
    svg = charts.histogram(histogram["edges"], histogram["counts"], label="Scores")
    yield {"title": "What scores it gives", "note": f"reference samples, n = {count(card['n_reference'])}; mean 0, standard deviation 1", "svg": svg}


def _learning(found: Json, points: list[Json]) -> Json:
    rows = [charts.Estimate(row["judgements"], **{part: row["accuracy"][part] for part in ("value", "low", "high")}) for row in points]
    curve: list[tuple[float, float]] = []
    if found["end"] is not None:
        fitted, first, last = Curve(found["end"]["value"], found["start"]), rows[0].x, 2 * rows[-1].x
        places = [first * (last / first) ** (step / STEPS_OF_CURVE) for step in range(STEPS_OF_CURVE + 1)]
        curve = [(x, fitted.at(x)) for x in places]
    note = f"held-out accuracy by judgements, n = {count(points[0]['accuracy']['n'])} pairs; the line goes on to twice as many"
    return {
        "title": "What more judgements would buy",
        "note": note,
        "svg": charts.estimates_chart(rows, label="Learning curve", x_name="judgements", curve=curve, percent=True),
    }


def _bar(number: Mapping[str, Any], name: str, *, form: str, mark: float | None, bounds: tuple[float, float] = (0, 1)) -> Markup | None:
    if number["value"] is None:
        return None
    say = percent if form == "percent" else signed
    words = f"{name}: {say(number['value'])}, n = {number['n']}"
    if number["low"] is not None and number["high"] is not None:
        words += f", interval {say(number['low'])} to {say(number['high'])}"
    return charts.interval_bar(number["value"], number["low"], number["high"], bounds=bounds, mark=mark, label=words)


# ---- tables ----


def _slope(row: Json) -> Json:
    """A line of what leans the choice, with a word on the difference."""
    difference = row["difference"]
    if difference is None or difference["low"] is None:
        return {**row, "finding": f"only {count(row['n'])} pairs differ in it" if difference is None else "no interval"}
    finding = "as people do"
    if difference["low"] > 0 or difference["high"] < 0:
        stronger = abs(row["reward"]["value"]) > abs(row["people"]["value"]) or row["reward"]["value"] * row["people"]["value"] < 0
        finding = "the reward leans more" if stronger else "the reward leans less"
    return {**row, "finding": finding}


def _audit(found: Json) -> Json:
    """The audit with a bar for each effect, all on one scale."""
    ends = [abs(effect["effect"][part]) for family in found["families"] for effect in family["effects"] for part in ("low", "value", "high")]
    most = max([*ends, 1e-9])
    families = [
        {**family, "effects": [{**one, "bar": _bar(one["effect"], one["group"], form="signed", mark=0.0, bounds=(-most, most))} for one in family["effects"]]}
        for family in found["families"]
    ]
    return {**found, "families": families, "most": most}


def _tiny(value: float) -> str:
    """5.7e-07 → 5.7 · 10⁻⁷."""
    if value == 0 or value >= 0.001:
        return decimal(value, 3) if value else "0"
    digits, power = f"{value:.1e}".split("e")
    return f"{digits} · 10{str(int(power)).translate(POWERS)}"


def _open_ended(number: Json) -> Json:
    """A temperature in words: it may be infinite, which JSON has no word for."""
    value, low, high = ("∞" if number[part] is None else decimal(number[part]) for part in ("value", "low", "high"))
    return {"value": value, "between": f"{low} to {high}" if number["low"] is not None or number["value"] is None else "no interval", "n": number["n"]}
