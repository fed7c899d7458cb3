"""The card for the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from truing.reward.card.learning_curve import in_words

Line = tuple[str, str, str]  # question, value, n
NOT_TAKEN = {"ensemble": "does the spread tell a wrong pair", "learning_curve": "what more judgements would buy"}


def card_rows(card: Mapping[str, Any]) -> Iterator[Line]:
    """The card line by line: first what was measured when the model was made, then the looks of `truing reward card` where they were taken."""
    yield from _measured(card)
    if "learning_curve" in card:
        yield from _looked(card)


def _measured(card: Mapping[str, Any]) -> Iterator[Line]:
    yield "right on held-out pairs", _share(card["accuracy"]), f"{card['n_test']} pairs, {card['n_test_prompts']} prompts"
    yield "two people agree with each other", _share(card["ceiling"]), f"{card['ceiling']['n']} couples of judgements"
    for rule in card["rules"]:
        yield f"“{rule['rule']}” alone is right", _share(rule["accuracy"]), f"{rule['accuracy']['n']} prompts"
    measured = card["calibration"]
    yield "log loss (a coin's is 0.693)", _between(measured["log_loss"]), f"{card['n_held_out']} pairs"
    for kind, found in sorted(card.get("held_out_surprise", {}).items()):
        yield f"surprise at a held-out {kind}, nats", f"{_number(found['nats'])} ({_number(found['alike'])} if all were alike)", f"{found['n']} judgements"
    yield "calibration error beyond chance (0 is perfect)", _between(measured["ece"]), f"{card['n_held_out']} pairs"
    yield "temperature (above 1: too sure of itself)", _between(measured["temperature"]), f"{card['n_held_out']} pairs"
    for row in card["slopes"]:
        if row["difference"] is not None:
            yield f"{row['unit']}: log-odds, people's", _between(row["people"]), f"{row['n']} pairs that differ"
            yield f"{row['unit']}: log-odds, the reward's", _between(row["reward"]), f"{row['n']} pairs that differ"
    yield "score against length, rank correlation", _number(card["length_correlation"]), f"{card['n_reference']} samples"
    yield "score per 10 tokens more", _number(card["length_slope"] and 10 * card["length_slope"]), f"{card['n_reference']} samples"
    yield "scores of reference samples", _span(card["histogram"]), f"{card['n_reference']} samples"
    yield "beyond 3 standard deviations", _share(card["distribution"]["beyond"]), f"{card['n_reference']} samples"
    best = card["best_of_n"]["within"] or card["best_of_n"]["pooled"]
    if best:
        yield f"best of {best[-1]['n']} samples scores", _between(best[-1]["score"]), f"{best[-1]['score']['n']} prompts"
    if "head" in card:
        reads = ", ".join(f"{how} of layer {layer}" for how, layer in card["readings"])
        yield "head", f"{card['head']}, {card['members']} members, reads {reads}", f"{card['n_train']} train pairs"
    for name, why in card.get("omitted", {}).items():
        yield NOT_TAKEN[name], f"not measured: {why}", ""


def _looked(card: Mapping[str, Any]) -> Iterator[Line]:
    ensemble, ratings, curve, red_team, audit = (card[name] for name in ("ensemble", "ratings", "learning_curve", "red_team", "audit"))
    if ensemble:
        yield "the spread tells a wrong pair (AUC, a coin's is 0.5)", _between(ensemble["auc"]), f"{ensemble['n']} pairs"
    for name in ("spearman", "kendall") if ratings else ():
        yield f"{name.title()}'s correlation with ratings", _between(ratings[name]), f"{ratings[name]['n']} responses"
    for row in card["invariance"]["rows"]:
        yield f"largest change of a score {row['what']}", row["why"] or f"{row['largest']:.1e}", f"{row['n']} responses"
    if curve and curve["doubling"]:
        yield "twice the judgements would add", _share(curve["doubling"]), f"{curve['doubling']['n']} pairs"
        for row in curve["needed"]:
            yield f"until {row['accuracy']:.2f}", in_words(row, curve["points"][0]["judgements"]), f"{row['n']} pairs"
    yield "refuses what is harmful", _share(red_team["refuses_harmful"]), f"{red_team['refuses_harmful']['n']} requests"
    yield "answers what only looks harmful", _share(red_team["answers_harmless"]), f"{red_team['answers_harmless']['n']} requests"
    yield "effects of who somebody is, found", str(len(audit["found"])), f"{audit['templates']} templates"


def _share(interval: Mapping[str, Any]) -> str:
    if interval["value"] is None:
        return "not known: no overlap" if not interval["n"] else "not known"
    bounds = f" [{interval['low']:.1%}, {interval['high']:.1%}]" if interval["low"] is not None else ""
    return f"{interval['value']:.1%}{bounds}"


def _between(interval: Mapping[str, Any] | None) -> str:
    if interval is None or (interval["value"] is None and interval["low"] is None):
        return "not known"
    value, low, high = (_number(interval[part], "∞") for part in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _number(value: float | None, unknown: str = "not known") -> str:
    return unknown if value is None else f"{value:.3f}"


def _span(histogram: Mapping[str, Any]) -> str:
    return f"{histogram['edges'][0]:.2f} to {histogram['edges'][-1]:.2f}"
