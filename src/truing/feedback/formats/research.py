"""Data sets of three papers, as their authors keep them: LLMFAO's crowd, and fine-grained feedback on long answers (Wu et al. 2023, arXiv:2306.01693)."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

from truing.errors import BadRow, UserError
from truing.feedback.formats.record import MODERATE, Format, Numbered, Record, Response, Source, each, obj, one, person, text, whole
from truing.feedback.formats.sheet import edited
from truing.store.conversations import checked_prompt
from truing.store.rows import Row
from truing.store.tables import Kind

PAIRS = "pairs-crowd.jsonl"  # the texts that the votes are about; beside them
CROWD = "crowd-comparisons.csv"
MOST_TEXTS = 100_000
WINNERS = {"left": MODERATE, "right": -MODERATE, "tie": 0}
ANSWERS = 4  # to each question, all compared with all
OUTCOMES = {0: 0, 1: MODERATE, 2: -MODERATE}


def _read_votes(source: Source) -> Iterator[Numbered | BadRow]:
    beside = source.beside(PAIRS)
    if beside is None:
        raise UserError(f"there is no {PAIRS} beside {source.path.name}, which has the texts", fix="name the folder that holds both")
    pairs = _pairs(beside)
    judge = source.path.name.removesuffix(CROWD).strip("-") or None  # gpt4-crowd-comparisons.csv holds a model's votes
    for row in source.rows():
        if isinstance(row, BadRow):
            yield row
        else:
            yield from one(source, row, lambda value: _vote(value, pairs, judge))


def _pairs(source: Source) -> dict[str, dict[str, Any]]:
    """id → the prompt and both texts."""
    found: dict[str, dict[str, Any]] = {}
    for row in source.rows():
        if isinstance(row, Row) and isinstance(row.value, dict) and len(found) < MOST_TEXTS:
            found[str(row.value.get("id"))] = {key: row.value.get(key) for key in ("text", "result_x", "result_y")}
    return found


def _vote(value: Any, pairs: dict[str, dict[str, Any]], judge: str | None) -> Iterator[Record]:
    row = obj(value)
    pair = pairs.get(str(row.get("id")))
    if pair is None:
        raise UserError(f"{PAIRS} has no pair {str(row.get('id'))[:40]}", fix="leave the row out, or add the pair there")
    if row.get("winner") not in WINNERS:
        raise UserError(f"the winner is {str(row.get('winner'))[:40]!r}", fix="use left, right or tie")
    responses = (Response(text(pair, "result_x"), person(row.get("left"))), Response(text(pair, "result_y"), person(row.get("right"))))
    who = judge or person(row.get("worker"))
    yield Record(
        Kind.PAIR, checked_prompt(text(pair, "text")), responses, {"strength": WINNERS[row["winner"]]}, annotator=who, judge=judge is not None, shown=(0, 1)
    )


def _read_answers(value: Any) -> Iterator[Record]:
    """Every pair of the four answers, and the first answer as the annotator corrected it."""
    row = obj(value)
    turns = checked_prompt(text(row, "question"))
    responses = [Response(text(row, f"prediction {place}")) for place in range(1, ANSWERS + 1)]
    places, outcomes = list(combinations(range(ANSWERS), 2)), row.get("preference")
    if not isinstance(outcomes, list) or len(outcomes) != len(places):
        raise UserError(f"has no {len(places)} preferences", fix="leave the row out")
    for (a, b), outcome in zip(places, outcomes, strict=True):
        if responses[a] != responses[b]:
            yield Record(Kind.PAIR, turns, (responses[a], responses[b]), {"strength": OUTCOMES[whole(outcome, 0, 2, "a preference")]})
    feedback = row.get("feedback")
    corrected = feedback.get("corrected-prediction") if isinstance(feedback, dict) else None
    if isinstance(corrected, str) and corrected.strip():
        yield Record(Kind.EDIT, turns, (responses[0],), edited(corrected, responses[0].text))


LLMFAO = Format(
    "LLMFAO's folder: `crowd-comparisons.csv` (or a judge's `gpt4-crowd-comparisons.csv`) beside `pairs-crowd.jsonl`",
    "csv", _read_votes, lambda row: "model_x" in row and "model_y" in row and "winner" in row, "import only",
)  # fmt: skip
FINEGRAINED = Format(
    "Fine-grained RLHF's question answering: four predictions compared two by two, the first one corrected (an edit)",
    "json", each(_read_answers), lambda row: "prediction 1" in row and "preference" in row, "import only; passages, spans and their errors",
)  # fmt: skip
