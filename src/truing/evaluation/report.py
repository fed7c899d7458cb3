"""One round as one HTML page: the verdict first, then the loop stage by stage, each number with its n and interval.

It only reads the store and the artifacts and computes nothing that a stage did not record, so any report can be rebuilt.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from truing.config import SECTIONS, write_atomically
from truing.evaluation import charts
from truing.evaluation.page import decimal, opening, percent, render, signed
from truing.evaluation.report_sources import Json, Sources, read_sources, shown_settings
from truing.evaluation.verdict import Verdict, sentence
from truing.store.project import Project

CURVES = (  # key of metrics.jsonl, title, unit, whether its axis starts at 0
    ("objective/scores", "Score", "reward-model points", False),
    ("objective/kl", "KL from base", "nats per response", True),
    ("response/length", "Length", "tokens", True),
    ("objective/entropy", "Entropy", "nats per token", True),
)
MEASURES = (  # key of a policy's measures, question, form, digits, how measured
    ("gold", "Gold score", "signed", 2, "mean over answers of the judge that decides matches"),
    ("score", "Reward model’s score", "signed", 2, "what tuning maximised; 0 and 1 are mean and standard deviation on reference samples"),
    ("words", "Length in words", "decimal", 1, "mean over answers"),
    ("tokens", "Length in tokens", "decimal", 1, "mean over answers, the end token included"),
    ("eos_rate", "Ends by itself", "percent", 0, "share of answers that were not cut off; Wilson’s interval"),
    ("distinct2", "Different word pairs", "decimal", 2, "distinct-2: share of different neighbouring words among all; falls as texts grow"),
    ("distinct2_ratio", "Variety against base", "decimal", 2, "distinct-2 over base’s at the same number of word pairs; interval from random halves of the prompts"),
    ("base_logprob", "Likelihood under base", "decimal", 2, "mean log-probability of a token under the base model, nats"),
    ("logprob_gap", "Likelihood against base’s own", "signed", 2, "difference of the above, answer by answer, nats"),
    ("kl_nats", "KL from base", "decimal", 1, "nats per response: log-probability under the policy minus under base, summed over tokens"),
)
UPDATES_SHOWN = 6  # of the sampled answers


def write_report(project: Project, round_number: int) -> Path:
    """Write `reports/round-N.html`; a round that isn't finished gets a page that says what is missing.

    Returns:
        Where it is.

    Raises:
        UserError: there is no such round, or one of its artifacts is gone.
        DamagedArtifact: an artifact is not what it was.
    """
    path = project.root / "reports" / f"round-{round_number}.html"
    write_atomically(path, render("report.html", build_view(read_sources(project, round_number))))
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
        "people": _people(sources),
        "reward": _reward(sources),
        "tuning": _tuning(sources),
        "lineage": _lineage(sources),
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
        words = f"{percent(win['value'])} of {win['n']} prompts" + (f", interval {percent(win['low'])} to {percent(win['high'])}" if win["low"] is not None else "")
        bar = charts.interval_bar(win["value"], win["low"], win["high"], mark=0.5, label=f"win rate against {theirs}: {words}")
        told = sentence(win, ours, theirs, confidence=sure, independent=independent)
        verdicts.append({**row, "ours": ours, "theirs": theirs, "sentence": told, "bar": bar, "confidence": sure, "judge": document["judge"]})
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
    alpha = (_quality(sources) or {}).get("alpha")
    accuracy = sources.artifacts["reward"].facts.get("accuracy") if "reward" in sources.artifacts else None
    updates = sources.rows("policy", "metrics.jsonl")
    win = verdicts[0]["win_rate"] if verdicts else None
    return [
        _stage("Prompts", prompts.get("n"), f"{prompts.get('held_out')} held out", "verdict"),
        _stage("Samples", (made.get("samples") or {}).get("n"), f"by {sources.name(made.get('parent_policy'))}", "answers"),
        _stage("Judgements", (made.get("judgements") or {}).get("n"), f"on {questions.get('n')} questions", "people"),
        _stage("Preferences", len(pairs) if "dataset" in sources.artifacts else None, f"α {decimal(alpha['value'])}" if alpha else "pairs", "people"),
        _stage("Reward model", percent(accuracy["value"]) if accuracy else None, f"right on {accuracy['n']} pairs" if accuracy else "", "reward"),
        _stage("Policy", len(updates) if "policy" in sources.artifacts else None, "updates", "tuning"),
        _stage("Verdict", percent(win["value"]) if win else None, f"of {win['n']} prompts" if win else "", "verdict")
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
    topics = [{**row, "bar": _topic_bar(row)} for row in document["opponents"][0]["by_topic"]]
    return {
        "columns": [sources.name(policy) for policy in columns],
        "rows": rows,
        "topics": topics,
        "confidence": document["confidence"],
        "resamples": document["resamples"],
        "judge": document["judge"],
        "pairs": document["opponents"][0]["side_by_side"],
        "ours": sources.name(document["policy"]),
        "theirs": sources.name(document["opponents"][0]["policy"]),
        "file": f"artifacts/{sources.artifacts['evaluation'].id}/pairs.jsonl",
    }


def _topic_bar(row: Mapping[str, Any]) -> Markup:
    words = f"{row['topic']}: {percent(row['value'])} of {row['n']} prompts, interval {percent(row['low'])} to {percent(row['high'])}"
    return charts.interval_bar(row["value"], row["low"], row["high"], mark=0.5, label=words)


# ---- people ----


def _quality(sources: Sources) -> Json | None:
    """Quality control as it was when the dataset was frozen, or as the round noted it before."""
    found: Json | None = sources.file("dataset", "quality.json") or sources.made.get("quality")
    return found


def _people(sources: Sources) -> Json | None:
    quality = _quality(sources)
    if not sources.made.get("judgements") and quality is None:
        return None
    annotators = sorted((quality or {}).get("annotators", []), key=lambda row: (-(row.get("trust") or 0), row["name"]))
    marked = {row["id"] for row in annotators[len(annotators) - (3 if len(annotators) >= 6 else 1) :]}
    return {
        "judgements": (sources.made.get("judgements") or {}).get("n"),
        "questions": sources.made.get("questions"),
        "alpha": (quality or {}).get("alpha"),
        "pairs": len(sources.rows("dataset", "pairs.jsonl")) if "dataset" in sources.artifacts else None,
        "annotators": [{**row, "least": row["id"] in marked, "built": _built_as(sources, row["id"]), "bar": _trust_bar(row)} for row in annotators],
        "simulated": any(row.get("kind") == "simulated" for row in annotators),
    }


def _built_as(sources: Sources, annotator_id: str) -> str | None:
    """What a simulated annotator was built as; the quality stage never saw this."""
    annotator = sources.annotators.get(annotator_id)
    if annotator is None or annotator.kind != "simulated":
        return None
    built = annotator.facts.get("built_as")
    return str(built) if built else None


def _trust_bar(row: Mapping[str, Any]) -> Markup | None:
    if row.get("trust") is None:
        return None
    low, high = row.get("trust_low"), row.get("trust_high")
    words = f"trust {decimal(row['trust'])}" + (f", interval {decimal(low)} to {decimal(high)}" if low is not None else "")
    return charts.interval_bar(row["trust"], low, high, label=words)


# ---- the reward model ----


def _reward(sources: Sources) -> Json | None:
    if "reward" not in sources.artifacts:
        return None
    facts, card = sources.artifacts["reward"].facts, sources.file("reward", "card.json") or {}
    reliability = [(row["predicted"], row["observed"], row["n"]) for row in card.get("reliability", [])]
    histogram, training = card.get("histogram"), card.get("training") or []
    figures: list[Json] = []
    if reliability:
        figure = charts.reliability_chart(reliability, label="Reliability")
        figures.append({"title": "Does it know what it knows?", "note": f"share preferred against predicted, n = {sum(row[2] for row in reliability)} held-out pairs", "svg": figure})
    if histogram and any(histogram["counts"]):
        figure = charts.histogram(histogram["edges"], histogram["counts"], label="Scores")
        figures.append({"title": "What scores it gives", "note": f"reference samples, n = {sum(histogram['counts'])}", "svg": figure})
    if training:
        figures.append({"title": "How it learned", "note": "loss in nats by epoch", "svg": _training_curve(training), "legend": True})
    return {"facts": facts, "figures": figures}


def _training_curve(training: list[Json]) -> Markup:
    lines = [
        charts.Line(name, [(row["epoch"], row[key]) for row in training if row.get(key) is not None], main)
        for key, name, main in (("train_loss", "training", False), ("validation_loss", "validation", True))
    ]
    return charts.line_chart([line for line in lines if line.points], label="Loss", x_name="epoch")


# ---- tuning ----


def _tuning(sources: Sources) -> Json | None:
    if "policy" not in sources.artifacts:
        return None
    metrics, samples = sources.rows("policy", "metrics.jsonl"), sources.rows("policy", "samples.jsonl")
    figures = []
    for key, title, unit, from_zero in CURVES:
        points = [(float(row["update"]), float(row[key])) for row in metrics if row.get(key) is not None]
        if points:
            first, last = points[0][1], points[-1][1]
            svg = charts.line_chart([charts.Line(title, points)], label=f"{title} in {unit}", from_zero=from_zero)
            figures.append({"title": title, "unit": unit, "first": _say(first, key), "last": _say(last, key), "svg": svg})
    return {
        "updates": len(metrics),
        "per_update": next((row["response/n"] for row in metrics if row.get("response/n")), None),
        "algorithm": sources.artifacts["policy"].manifest["settings"].get("algorithm"),
        "figures": figures,
        "failures": sources.file("policy", "diagnosis.json") or [],
        "samples": _over_time(samples),
    }


def _say(value: float, key: str) -> str:
    form: Callable[[float, int], str] = signed if key == "objective/scores" else decimal
    return form(value, 1 if key == "response/length" else 2)


def _over_time(samples: list[Json]) -> list[Json]:
    """The sampled answers of a few updates from the first to the last."""
    by_update: dict[int, list[Json]] = {}
    for row in samples:
        by_update.setdefault(row["update"], []).append(row)
    updates = sorted(by_update)
    wanted = min(UPDATES_SHOWN, len(updates))
    chosen = sorted({updates[round(number * (len(updates) - 1) / max(wanted - 1, 1))] for number in range(wanted)})
    return [{"update": update, "rows": by_update[update]} for update in chosen]


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
