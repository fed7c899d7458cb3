"""One round as one HTML page: the verdict first, then the loop stage by stage, each number with its n and interval.

It only reads the store and the artifacts and computes nothing that a stage did not record, so any report can be rebuilt.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from truing.config import SECTIONS, write_atomically
from truing.evaluation.report_sources import Json, Sources, read_sources, shown_settings
from truing.evaluation.report_stages import people, quality, reward, tuning
from truing.evaluation.verdict import Verdict, reason
from truing.pages import charts
from truing.pages.words import count, decimal, opening, percent, render
from truing.store.project import Project

MEASURES = (  # key of a policy's measures, question, form, digits, how measured
    ("gold", "Gold score", "signed", 2, "mean over answers of the judge that decides matches"),
    ("score", "Reward model’s score", "signed", 2, "what tuning maximised; 0 and 1 are mean and standard deviation on reference samples"),
    ("words", "Length in words", "decimal", 1, "mean over answers"),
    ("tokens", "Length in tokens", "decimal", 1, "mean over answers, the end token included"),
    ("eos_rate", "Ends by itself", "percent", 0, "share of answers that were not cut off; Wilson’s interval"),
    ("distinct2", "Different word pairs", "decimal", 2, "distinct-2: share of different neighbouring words among all; falls as texts grow"),
    (
        "distinct2_ratio",
        "Variety against base",
        "decimal",
        2,
        "distinct-2 over base’s at equal size; interval from random halves of the prompts",
    ),
    ("base_logprob", "Likelihood under base", "decimal", 2, "mean log-probability of a token under the base model, nats"),
    ("logprob_gap", "Likelihood against base’s own", "signed", 2, "difference of the above, answer by answer, nats"),
    ("kl_nats", "KL from base", "decimal", 1, "nats per response: log-probability under the policy minus under base, summed over tokens"),
)


def write_report(project: Project, round_number: int) -> Path:
    """Write `reports/round-N.html`; a round that isn't finished gets a page that says what is missing.

    Returns:
        Where it is.

    Raises:
        UserError: there is no such round, or one of its artifacts is gone.
        DamagedArtifact: an artifact is not what it was.
    """
    path = project.root / "reports" / f"round-{round_number}.html"
    write_atomically(path, render("truing.evaluation", "report.html", build_view(read_sources(project, round_number))))
    return path


def build_view(sources: Sources) -> Json:
    """What the template needs, section by section; a section whose stage hasn't run is None or empty."""
    parent = sources.parent
    verdicts = _verdicts(sources)
    return {
        "project": sources.project.root.absolute().name,
        "number": sources.round.number,
        "seed": sources.round.seed,
        "finished": sources.round.sealed_at.strftime("%-d %B %Y, %H:%M UTC") if sources.round.sealed_at else None,
        "parent": {"number": parent.number, "href": f"round-{parent.number}.html"} if parent else None,
        "headline": _headline(verdicts, sources.round.number),
        "verdicts": verdicts,
        "warnings": (sources.file("evaluation", "evaluation.json") or {}).get("warnings"),
        "loop": _loop(sources, verdicts),
        "evaluation": _evaluation(sources),
        "people": people(sources),
        "reward": reward(sources),
        "tuning": tuning(sources),
        "lineage": _lineage(sources),
        "sealed_as": sources.made.get("round"),
        "settings": _settings(sources),
        "runs": [{"stage": run.stage, "seconds": run.seconds, "state": run.state} for run in sources.runs],
        "versions": sorted({artifact.manifest["truing"] for artifact in sources.artifacts.values()}),
    }


# ---- the verdict ----


def _verdicts(sources: Sources) -> list[Json]:
    document = sources.file("evaluation", "evaluation.json")
    if document is None:
        return []
    ours, sure, independent = sources.name(document["policy"]), document["confidence"], document["independent"]
    verdicts = []
    for row in document["opponents"]:
        win, theirs = row["win_rate"], sources.name(row["policy"])
        why, bar = reason(win, independent=independent), _win_bar(f"win rate against {theirs}", win)
        verdicts.append({**row, "ours": ours, "theirs": theirs, "why": why, "bar": bar, "confidence": sure, "judge": document["judge"]})
    return verdicts


def _headline(verdicts: list[Json], number: int) -> str:
    """The verdict against every opponent in one sentence."""
    if not verdicts:
        return f"Round {number} has no verdict yet"
    first, *others = verdicts
    text = _claim(first)
    for other in others:
        if other["verdict"] == first["verdict"] != Verdict.CANT_TELL:
            text += f", and to {other['theirs']}"
        else:
            text += {
                Verdict.PREFERRED: f"; it is preferred to {other['theirs']}",
                Verdict.NOT_PREFERRED: f"; it is not preferred to {other['theirs']}",
                Verdict.CANT_TELL: f"; against {other['theirs']}, can’t tell",
            }[Verdict(other["verdict"])]
    return text


def _claim(verdict: Json) -> str:
    if verdict["verdict"] == Verdict.CANT_TELL:
        return f"Can’t tell whether {verdict['ours']} is better than {verdict['theirs']}"
    return opening(f"{verdict['ours']} is {verdict['verdict']} to {verdict['theirs']}")


# ---- the loop ----


def _loop(sources: Sources, verdicts: list[Json]) -> list[Json]:
    """The stages in the order of the data: what each made, and its newest number."""
    made, pairs = sources.made, sources.rows("dataset", "pairs.jsonl")
    prompts, questions = made.get("prompts") or {}, made.get("questions") or {}
    alpha = (quality(sources) or {}).get("alpha")
    accuracy = sources.artifacts["reward"].facts.get("accuracy") if "reward" in sources.artifacts else None
    updates = sources.rows("policy", "metrics.jsonl")
    win = verdicts[0]["win_rate"] if verdicts else None
    return [
        _stage("Prompts", prompts.get("n"), f"{prompts.get('held_out')} held out", "verdict"),
        _stage("Samples", (made.get("samples") or {}).get("n"), f"by {sources.name(made.get('parent_policy'))}", "answers"),
        _stage("Judgements", (made.get("judgements") or {}).get("n"), f"on {count(questions.get('n'))} questions", "people"),
        _stage("Preferences", len(pairs) if "dataset" in sources.artifacts else None, f"α {decimal(alpha['value'])}" if alpha else "pairs", "people"),
        _stage(
            "Reward model",
            percent(accuracy["value"]) if accuracy else None,
            f"right on {accuracy['n']} pairs" if accuracy and accuracy["n"] else "not measured",
            "reward",
        ),
        _stage("Policy", len(updates) if "policy" in sources.artifacts else None, "updates", "tuning"),
        _stage("Verdict", percent(win["value"]) if win else None, f"on {win['n']} prompts" if win else "", "verdict")
        | {"good": bool(verdicts) and verdicts[0]["verdict"] == Verdict.PREFERRED},
    ]


def _stage(name: str, value: int | str | None, note: str, anchor: str) -> Json:
    number = f"{value:,}" if isinstance(value, int) else value
    return {"name": name, "number": number, "note": note if value is not None else "not yet", "anchor": anchor, "done": value is not None, "good": False}


# ---- side by side, and every measure ----


def _evaluation(sources: Sources) -> Json | None:
    document = sources.file("evaluation", "evaluation.json")
    if document is None:
        return None
    columns = [document["policy"], *(row["policy"] for row in document["opponents"])]
    rows = []
    for key, question, form, digits, how in MEASURES:
        cells = [document["policies"][policy].get(key) for policy in columns]
        if key in ("distinct2_ratio", "logprob_gap", "kl_nats"):  # base against itself says nothing
            cells = [None if policy == "base" else cell for policy, cell in zip(columns, cells, strict=True)]
        if any(cell and cell["value"] is not None for cell in cells):
            rows.append({"question": question, "form": form, "digits": digits, "how": how, "cells": cells})
    topics = [{**row, "bar": _win_bar(row["topic"], row)} for row in document["opponents"][0]["by_topic"]]
    return {
        "columns": [sources.name(policy) for policy in columns],
        "rows": rows,
        "topics": topics,
        "confidence": document["confidence"],
        "resamples": document["resamples"],
        "judge": document["judge"],
        "ours": sources.name(document["policy"]),
        "contests": [{"theirs": sources.name(row["policy"]), "pairs": row["side_by_side"]} for row in document["opponents"]],
        "file": f"artifacts/{sources.artifacts['evaluation'].id}/pairs.jsonl",
    }


def _win_bar(name: str, win: Mapping[str, Any]) -> Markup:
    words = f"{name}: {percent(win['value'])} of {win['n']} prompts"
    if win["low"] is not None:
        words += f", interval {percent(win['low'])} to {percent(win['high'])}"
    return charts.interval_bar(win["value"], win["low"], win["high"], mark=0.5, label=words)


# ---- where it comes from ----


def _lineage(sources: Sources) -> list[Json]:
    seen: set[str] = set()
    rows = []
    for depth, artifact in sources.lineage():
        again = artifact.id in seen
        seen.add(artifact.id)
        manifest = artifact.manifest
        rows.append({"depth": depth, "id": artifact.id, "kind": artifact.kind, "seed": manifest["seed"], "truing": manifest["truing"], "again": again})
    return rows


def _settings(sources: Sources) -> list[Json]:
    """What was changed in truing.toml or with --set, then all settings that shaped each artifact."""
    changed = {f"{section}.{key}": value for section in SECTIONS for key, value in sorted(sources.project.raw_settings(section).items())}
    groups = [{"name": "changed in truing.toml", "values": changed}]
    return groups + [{"name": artifact.id, "values": dict(shown_settings(artifact))} for artifact in sources.artifacts.values()]
