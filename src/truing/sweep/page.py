"""A sweep as one HTML page: which trial to take, score against KL, every trial, and what each swept setting did."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from truing.config import write_atomically
from truing.pages import charts
from truing.pages.words import render
from truing.store.project import Project
from truing.sweep.search import Sweep
from truing.sweep.space import worded
from truing.sweep.trial import Number

Json = dict[str, Any]


def write_page(project: Project, sweep: Sweep, then: str | None) -> Path:
    """Write `reports/sweep-<name>.html`.

    Args:
        then: the command that takes the best trial up; None where there is none.

    Returns:
        Where it is.
    """
    path = project.root / "reports" / f"sweep-{sweep.name}.html"
    write_atomically(path, render("truing.sweep", "sweep.html", build_view(project, sweep, then)))
    return path


def build_view(project: Project, sweep: Sweep, then: str | None) -> Json:
    """What the template needs."""
    ends = [end for row in (sweep.base, *(trial.measured for trial in sweep.trials)) for end in _bounds(row.score)]
    ticks = charts.nice_ticks(min(ends), max(ends))
    return {
        "project": project.root.absolute().name,
        "name": sweep.name,
        "truing": version("truing"),
        "keys": list(sweep.space.values),
        "size": len(sweep.space.settings),
        "base": sweep.base,
        "best": sweep.best,
        "command": then and then.split(" --"),
        "front": sum(trial.front for trial in sweep.trials),
        "trials": sweep.ranked(),
        "worded": worded,
        "plane": _plane(sweep),
        "effects": [(key, _effect(sweep, key, (ticks[0], ticks[-1]))) for key, values in sweep.space.values.items() if len(values) > 1],
    }


def _plane(sweep: Sweep) -> Markup:
    """Score against KL, a point a trial; those that no other beats in both are joined."""
    marks = [charts.Mark("base", 0.0, sweep.base.score["value"], _bounds(sweep.base.score), "quiet")]
    for trial in sweep.trials:
        style = "quiet" if trial.measured.findings else "main" if trial.front else "hollow"
        marks.append(charts.Mark(str(trial.number), trial.measured.kl_nats["value"], trial.measured.score["value"], _bounds(trial.measured.score), style))
    front = sorted((trial.measured.kl_nats["value"], trial.measured.score["value"]) for trial in sweep.trials if trial.front)
    return charts.scatter_chart(marks, label="Score against KL", x_name="KL", curve=front)


def _effect(sweep: Sweep, key: str, bounds: tuple[float, float]) -> list[Json]:
    """Each value of a key: the mean score of the trials that had it, from the lowest to the highest of them, and their mean KL."""
    rows = []
    for value in sweep.space.values[key]:
        own = [trial.measured for trial in sweep.trials if trial.choice[key] == value]
        if own:
            scores = [one.score["value"] for one in own]
            mean, low, high = sum(scores) / len(scores), min(scores), max(scores)
            bar = charts.interval_bar(mean, low, high, bounds=bounds, label=f"{key} {worded(value)}: mean score {mean:.2f}, {low:.2f} to {high:.2f}")
            kl = sum(one.kl_nats["value"] for one in own) / len(own)
            rows.append({"value": worded(value), "n": len(own), "score": mean, "low": low, "high": high, "kl_nats": kl, "bar": bar})
    return rows


def _bounds(number: Number) -> tuple[float, float]:
    """The ends of an interval; the value itself where one prompt gives none."""
    low, high = (number["value"] if number[end] is None else number[end] for end in ("low", "high"))
    return low, high
