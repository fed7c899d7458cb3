"""The middle of a report: what people said, what the reward model learned, how tuning went. Each is None while its stage hasn't run."""

from collections.abc import Callable, Mapping
from typing import Any

from markupsafe import Markup

from truing.evaluation.report_sources import Json, Sources
from truing.pages import charts
from truing.pages.words import decimal, signed

CURVES = (  # key of metrics.jsonl, title, unit, whether its axis starts at 0
    ("objective/scores", "Score", "reward-model points", False),
    ("objective/kl", "KL from base", "nats per response", True),
    ("response/length", "Length", "tokens", True),
    ("objective/entropy", "Entropy", "nats per token", True),
)
ANNOTATOR = (  # what the table shows of each
    "id", "name", "n", "trust", "trust_low", "trust_high", "agreement", "agreement_low", "agreement_high", "agreement_n", "gold_right", "gold_n",
    "side_bias", "side_bias_low", "side_bias_high", "tie_rate", "median_active_s",
)  # fmt: skip
VICES = {"random": "clicks anywhere, fast", "left": "always takes the left", "ties": "calls nearly everything a tie"}
UPDATES_SHOWN = 6  # of the sampled answers


# ---- people ----


def quality(sources: Sources) -> Json | None:
    """Quality control as it was when the dataset was frozen, or as the round noted it before."""
    found: Json | None = sources.file("dataset", "quality.json") or sources.made.get("quality")
    return found


def people(sources: Sources) -> Json | None:
    """Judgements, agreement, and the annotators from the most to the least trusted."""
    measured = quality(sources) or {}
    if not sources.made.get("judgements") and not measured:
        return None
    annotators = sorted(measured.get("annotators", []), key=lambda row: (-(row.get("trust") or 0), row["name"]))
    marked = {row["id"] for row in annotators[len(annotators) - (3 if len(annotators) >= 6 else 1) :]}
    return {
        "judgements": (sources.made.get("judgements") or {}).get("n"),
        "questions": sources.made.get("questions"),
        "alpha": measured.get("alpha"),
        "alpha_trusted": measured.get("alpha_trusted"),
        "notes": measured.get("notes") or [],
        "pairs": len(sources.rows("dataset", "pairs.jsonl")) if "dataset" in sources.artifacts else None,
        "annotators": [_annotator(sources, row) | {"least": row["id"] in marked} for row in annotators],
        "simulated": any(row.get("kind") == "simulated" for row in annotators),
        "spoiled": any(_built_as(sources, row["id"]) for row in annotators),
    }


def _annotator(sources: Sources, row: Mapping[str, Any]) -> Json:
    return {field: row.get(field) for field in ANNOTATOR} | {"built": _built_as(sources, row["id"]), "bar": _trust_bar(row)}


def _built_as(sources: Sources, annotator_id: str) -> str | None:
    """What a simulated annotator was built as; the quality stage never saw this."""
    annotator = sources.annotators.get(annotator_id)
    if annotator is None or annotator.kind != "simulated":
        return None
    vice = annotator.facts.get("vice")
    return VICES.get(vice, str(vice)) if vice else None


def _trust_bar(row: Mapping[str, Any]) -> Markup | None:
    if row.get("trust") is None:
        return None
    low, high = row.get("trust_low"), row.get("trust_high")
    words = f"trust {decimal(row['trust'])}" + (f", interval {decimal(low)} to {decimal(high)}" if low is not None else "")
    return charts.interval_bar(row["trust"], low, high, label=words)


# ---- the reward model ----


def reward(sources: Sources) -> Json | None:
    """The reward model's held-out facts and the figures of its card."""
    if "reward" not in sources.artifacts:
        return None
    facts, card = sources.artifacts["reward"].facts, sources.file("reward", "card.json") or {}
    reliability = [(row["predicted"], row["observed"], row["n"]) for row in card.get("reliability", [])]
    histogram, training = card.get("histogram"), card.get("training") or []
    figures: list[Json] = []
    if reliability:
        figure = charts.reliability_chart(reliability, label="Reliability")
        note = f"share preferred against predicted, n = {sum(n for _, _, n in reliability)} held-out pairs"
        figures.append({"title": "Does it know what it knows?", "note": note, "svg": figure})
    if histogram and any(histogram["counts"]):
        figure = charts.histogram(histogram["edges"], histogram["counts"], label="Scores")
        figures.append({"title": "What scores it gives", "note": f"reference samples, n = {sum(histogram['counts'])}", "svg": figure})
    if training:
        figures.append(_learning(training, facts))
    counted = facts.get("n_held_out", (facts.get("accuracy") or {}).get("n"))
    page = sources.project.root / "reports" / f"card-{sources.artifacts['reward'].id}.html"
    href = page.name if page.exists() else None
    return {"facts": facts, "ceiling": card.get("ceiling"), "figures": figures, "n_held_out": counted, "fitness": facts.get("fitness"), "card": href}


def _learning(training: list[Json], facts: Mapping[str, Any]) -> Json:
    """How it was fitted: loss by epoch, or, of a fit in one go, cross-validated loss by how strongly it was held back."""
    counted = f", n = {facts['n_train']:,} pairs" if facts.get("n_train") else ""
    if "l2" in training[0]:
        rows = sorted(training, key=lambda row: float(row["l2"]))
        marked = next((place for place, row in enumerate(rows) if row["l2"] == facts.get("l2")), -1)
        line = charts.Line("left-out folds", [(row["l2"], row["log_loss"]) for row in rows], marked=marked)
        svg = charts.line_chart([line], label="Loss", x_name="L2", log_x=True)
        return {"title": "How far it was held back", "note": f"cross-validated loss by strength of L2; the dot was chosen{counted}", "svg": svg}
    named = (("train_loss", "training", False), ("validation_loss", "validation", True))
    lines = [charts.Line(name, [(row["epoch"], row[key]) for row in training if row.get(key) is not None], main) for key, name, main in named]
    svg = charts.line_chart([line for line in lines if line.points], label="Loss", x_name="epoch")
    return {"title": "How it learned", "note": f"loss in nats by epoch{counted}", "svg": svg, "legend": True}


# ---- tuning ----


def tuning(sources: Sources) -> Json | None:
    """The curves over updates, what went wrong, and sampled answers over time."""
    if "policy" not in sources.artifacts:
        return None
    metrics, inputs = sources.rows("policy", "metrics.jsonl"), sources.artifacts["policy"].manifest["settings"]
    settings = inputs.get("settings", {})
    figures = []
    for key, title, unit, from_zero in CURVES:
        points = [(float(row["update"]), float(row[key])) for row in metrics if row.get(key) is not None]
        if points:
            first, last = points[0][1], points[-1][1]
            svg = charts.line_chart([charts.Line(title, points)], label=f"{title} in {unit}", from_zero=from_zero)
            figures.append({"title": title, "unit": unit, "first": _say(first, key), "last": _say(last, key), "svg": svg})
    return {
        "updates": len(metrics),
        "per_update": settings.get("samples"),
        "algorithm": settings.get("algorithm"),
        "figures": figures,
        "failures": sources.file("policy", "diagnosis.json") or [],
        "samples": _over_time(sources),
    }


def _say(value: float, key: str) -> str:
    form: Callable[[float, int], str] = signed if key == "objective/scores" else decimal
    return form(value, 1 if key == "response/length" else 2)


def _over_time(sources: Sources) -> list[Json]:
    """The sampled answers of a few updates from the first to the last."""
    by_update: dict[int, list[Json]] = {}
    for row in sources.rows("policy", "samples.jsonl"):
        by_update.setdefault(row["update"], []).append(row)
    updates = sorted(by_update)
    wanted = min(UPDATES_SHOWN, len(updates))
    chosen = sorted({updates[round(number * (len(updates) - 1) / max(wanted - 1, 1))] for number in range(wanted)})
    texts = sources.prompt_texts(row["prompt_id"] for update in chosen for row in by_update[update])
    return [{"update": update, "rows": [{**row, "prompt": texts.get(row["prompt_id"], row["prompt_id"])} for row in by_update[update]]} for update in chosen]
