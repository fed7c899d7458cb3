"""The probe as one HTML page: the verdict in words first, then every edit with its effect, the student, and what fools the reward model.

It reads the probe's artifact and computes nothing that the stage did not record. Prompts and responses are untrusted text: the templates escape them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from truing.artifacts import Artifact
from truing.config import write_atomically
from truing.pages import charts
from truing.pages.words import render, signed
from truing.reward.probe.attributes import said
from truing.reward.probe.effects import DISLIKES, LIKES
from truing.reward.probe.stage import read_probe
from truing.store.project import Project

Json = dict[str, Any]

BINS = 24
KINDS = {"swaps": "words swapped in one response", "suffix": "a suffix for any response", "string": "one string for any prompt"}


def write_page(project: Project, artifact: Artifact) -> Path:
    """Write `reports/probe-<reward model>.html`.

    Returns:
        Where it is.
    """
    facts, samples = read_probe(artifact)
    path = project.root / "reports" / f"probe-{facts['reward']}.html"
    write_atomically(path, render("truing.reward", "probe.html", build_view(project, artifact, facts, samples)))
    return path


def build_view(project: Project, artifact: Artifact, facts: Json, samples: Sequence[Json]) -> Json:
    """What the template needs."""
    effects = sorted(facts["effects"].values(), key=lambda row: -(row["effect"]["value"] or 0.0))
    coefficients = facts["student"]["ridge"]["coefficients"]
    return {
        "project": project.root.absolute().name,
        "artifact": artifact.id,
        "settings": artifact.manifest["settings"],
        "seed": artifact.manifest["seed"],
        "truing": artifact.manifest["truing"],
        "facts": facts,
        "effects": _barred([row for row in effects if row["effect"]["value"] is not None]),
        "untold": [row for row in effects if row["effect"]["value"] is None],
        "examples": [row for row in effects if row["example"]],
        "told": (LIKES, DISLIKES),
        "constant": [said(name) for name in facts["student"]["constant"]],
        "coefficients": _barred(coefficients),
        "worst": {side: [samples[row["sample"]] for row in rows] for side, rows in facts["student"]["worst"].items()},
        "histogram": _histogram([sample["score"] for sample in samples]),
        "kinds": KINDS,
        "best": samples[facts["exploits"]["ordinary"]["best_sample"]],
    }


def _barred(rows: Sequence[Json]) -> list[Json]:
    """The rows, each with its interval on a line that all of them share."""
    ends = [row["effect"][end] for row in rows for end in ("value", "low", "high") if row["effect"][end] is not None]
    ticks = charts.nice_ticks(min(0.0, *ends), max(0.0, *ends)) if ends else [0.0, 1.0]
    return [{**row, "bar": _bar(row["said"], row["effect"], (ticks[0], ticks[-1]))} for row in rows]


def _bar(name: str, effect: Mapping[str, Any], bounds: tuple[float, float]) -> Markup:
    words = f"{name}: {signed(effect['value'])}, n = {effect['n']}"
    if effect["low"] is not None:
        words += f", interval {signed(effect['low'])} to {signed(effect['high'])}"
    return charts.interval_bar(effect["value"], effect["low"], effect["high"], bounds=bounds, mark=0.0, label=words)


def _histogram(scores: Sequence[float]) -> Markup | None:
    """How ordinary responses score; nothing to draw where all score alike."""
    if max(scores) - min(scores) < 1e-9:
        return None
    counts, edges = np.histogram(np.asarray(scores, dtype=np.float64), bins=BINS)
    return charts.histogram(edges.tolist(), counts.tolist(), label="scores of ordinary responses")
