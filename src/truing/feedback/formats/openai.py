"""Comparisons that OpenAI published: summaries (Stiennon et al. 2020, arXiv:2009.01325) and WebGPT's answers (Nakano et al. 2021, arXiv:2112.09332)."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.errors import UserError
from truing.feedback.formats.record import (
    MODERATE,
    Format,
    Record,
    Response,
    as_number,
    as_shown,
    each,
    listed_order,
    no_preference,
    obj,
    only,
    person,
    single_turn,
    text,
    whole,
    words,
)
from truing.store.conversations import checked_prompt
from truing.store.tables import Kind

POST = re.compile(r"\ASUBREDDIT: r/(.*?)\n\nTITLE: (.*?)\n\nPOST: (.*)\n\nTL;DR:\Z", re.DOTALL)
MIDDLE, FURTHEST = 5, 4  # of the nine points from "surely the first" to "surely the second"
FROM_MIDDLE = {1: 1, 2: 2, 3: 4}  # strength → how far from the middle; `_strength` is its inverse
SCORES = {0: 0.0, 1: 0.25, 2: 0.5, 3: 1.0}  # strength → WebGPT's score of the better answer
BOUNDS = (0.0, 0.375, 0.75)  # a score above the first is 1, above the second 2, above the third 3


def _read_summaries(value: Any) -> Iterator[Record]:
    row = obj(value)
    found = row.get("summaries")
    if not isinstance(found, list) or len(found) != 2:
        raise UserError("has no two summaries", fix='write {"info": ..., "summaries": [..., ...], "choice": 0 or 1}')
    responses = tuple(Response(text(obj(summary), "text"), person(summary.get("policy"))) for summary in found)
    choice, extra = whole(row.get("choice"), 0, 1, "choice"), row.get("extra")
    strength = _strength(extra.get("confidence") if isinstance(extra, dict) else None, choice)
    answer = words({"strength": strength if choice == 0 else -strength}, comment=row.get("note"))
    yield Record(Kind.PAIR, checked_prompt(_prompt(obj(row.get("info")))), responses, answer, annotator=person(row.get("worker")), shown=listed_order(row))


def _strength(confidence: Any, choice: int) -> int:
    """1 to 3, from a confidence of 1 to 9 whose side of the middle agrees with the choice; `MODERATE` where it doesn't, or there is none."""
    number = as_number(confidence)
    if number is None or not 1 <= number <= MIDDLE + FURTHEST or (number - MIDDLE) * (choice - 0.5) < 0:
        return MODERATE
    return max(1, math.ceil(abs(number - MIDDLE) * 3 / FURTHEST))


def _prompt(info: Mapping[str, Any]) -> str:
    """A Reddit post with its title, or an article as it stands."""
    if isinstance(info.get("article"), str) and info["article"]:
        return str(info["article"])
    post, title, subreddit = (info.get(key) for key in ("post", "title", "subreddit"))
    return f"SUBREDDIT: r/{subreddit or ''}\n\nTITLE: {title or ''}\n\nPOST: {text(info, 'post') if post is None else post}\n\nTL;DR:"


def _write_summaries(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for record, order in map(as_shown, records):
        strength, prompt = record.answer["strength"], record.turns[0]["content"]
        found = POST.match(prompt)
        info = dict(zip(("subreddit", "title", "post"), found.groups(), strict=True)) if found else {"article": prompt}
        choice = 0 if strength > 0 else 1
        yield {
            "info": info,
            "summaries": [{"text": response.text, "policy": response.model} for response in record.responses],
            "choice": choice,
            "worker": record.annotator,
            "note": record.answer.get("comment"),
            "extra": {"confidence": MIDDLE + (1 if choice else -1) * FROM_MIDDLE[abs(strength)]},
            **order,
        }


def _read_webgpt(value: Any) -> Iterator[Record]:
    row = obj(value)
    question = row.get("question")
    asked = text(question, "full_text") if isinstance(question, dict) else text(row, "question")
    scores = [as_number(row.get(key)) for key in ("score_0", "score_1")]
    if scores[0] is None or scores[1] is None or max(map(abs, (scores[0], scores[1]))) > 1:
        raise UserError(f"its scores are {row.get('score_0')!r} and {row.get('score_1')!r}", fix="write two numbers from -1 to 1, or leave the row out")
    lead = (scores[0] - scores[1]) / 2
    strength = sum(abs(lead) > bound for bound in BOUNDS)
    responses = (Response(text(row, "answer_0")), Response(text(row, "answer_1")))
    yield Record(Kind.PAIR, checked_prompt(asked), responses, {"strength": strength if lead > 0 else -strength})


def _write_webgpt(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        strength = record.answer["strength"]
        score = math.copysign(SCORES[abs(strength)], strength) if strength else 0.0
        first, second = (response.text for response in record.responses)
        yield {
            "question": {"full_text": record.turns[0]["content"]},
            "answer_0": first,
            "score_0": score,
            "answer_1": second,
            "score_1": -score if score else 0.0,
        }


def _why_not_webgpt(record: Record) -> str | None:
    return only(record, Kind.PAIR) or ("both bad" if "both_bad" in record.answer else single_turn(record))


SUMMARIES = Format(
    "OpenAI's summarize-from-feedback comparisons: `info`, two `summaries`, `choice`, `worker`, `extra.confidence`",
    "jsonl", each(_read_summaries), lambda row: "summaries" in row and "choice" in row,
    "ties, both bad and skips; flags; when and how long; whether a model judged; check questions; conversations of several turns; every kind but `pair`",
    lambda record: no_preference(record) or single_turn(record), _write_summaries,
)  # fmt: skip
WEBGPT = Format(
    "WebGPT comparisons: `question`, `answer_0`, `answer_1`, `score_0`, `score_1` from -1 to 1",
    "jsonl", each(_read_webgpt), lambda row: "score_0" in row and "score_1" in row and "answer_0" in row,
    "both bad and skips; flags and comments; who, when, how long and in which order shown; models; check questions; conversations of several turns; "
    "every kind but `pair`",
    _why_not_webgpt, _write_webgpt,
)  # fmt: skip
