"""NVIDIA's HelpSteer: five ratings of one response from 0 to 4 (1 and 2), and preferences from -3 to 3 (2 and 3), below 0 for the first.

HelpSteer2's prompts of several turns stand in one text with marks; HelpSteer3 has lists of turns under `context`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.errors import UserError
from truing.feedback.formats.record import Format, Record, Response, conversation, each, obj, only, text, whole, words
from truing.store.conversations import Turn, checked_prompt
from truing.store.tables import Kind

ASPECTS = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
MARK = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
MARK_OF = {"user": "\n<extra_id_1>User\n", "assistant": "\n<extra_id_1>Assistant\n"}


def _ratings(value: Any) -> Iterator[Record]:
    row = obj(value)
    aspects = {name: 1 + whole(row[name], 0, 4, name) for name in ASPECTS if row.get(name) is not None}
    if not aspects:
        raise UserError("has no ratings", fix=f"give it numbers from 0 to 4 under {', '.join(ASPECTS)}")
    yield Record(Kind.RATING, _turns(row), (Response(text(row, "response")),), {"aspects": aspects})


def _preferences(value: Any) -> Iterator[Record]:
    row = obj(value)
    first, second = ("response_1", "response_2") if "response_1" in row else ("response1", "response2")
    responses = (Response(text(row, first)), Response(text(row, second)))
    turns = _turns(row)
    for place, (score, comment) in enumerate(_votes(row)):
        yield Record(Kind.PAIR, turns, responses, words({"strength": -whole(score, -3, 3, "the preference")}, comment=comment), vote=place)


def _votes(row: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """(score, why) of every annotator, where the row has them; else of the one that it was made of."""
    several = row.get("individual_preference") or row.get("all_preferences_unprocessed")
    if isinstance(several, list) and several:
        return [(obj(vote).get("score", vote.get("strength")), vote.get("reasoning") or vote.get("elaboration")) for vote in several]
    comment = row.get("preference_elaboration") or row.get("preference_statement")
    return [(row.get("preference_strength", row.get("overall_preference")), comment)]


def _turns(row: Mapping[str, Any]) -> list[Turn]:
    if isinstance(row.get("context"), list):
        return checked_prompt(conversation(row["context"]))
    parts = MARK.split(text(row, "prompt"))
    turns = [{"role": "user", "content": parts[0]}] if parts[0] or len(parts) == 1 else []
    return checked_prompt(turns + [{"role": role.lower(), "content": said} for role, said in zip(parts[1::2], parts[2::2], strict=True)])


def _read(value: Any) -> Iterator[Record]:
    row = obj(value)
    return _ratings(row) if "response" in row else _preferences(row)


def _marked(turns: Sequence[Turn]) -> str:
    return turns[0]["content"] + "".join(MARK_OF[turn["role"]] + turn["content"] for turn in turns[1:])


def _write(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    first = records[0]
    if first.kind == Kind.RATING:
        for record in records:
            rated = {name: value - 1 for name, value in record.answer["aspects"].items()}
            yield {"prompt": _marked(first.turns), "response": first.responses[0].text, **dict.fromkeys(ASPECTS), **rated}
        return
    one, two = (response.text for response in first.responses)
    scores = [-record.answer["strength"] for record in records]
    row = {"context": first.turns, "response1": one, "response2": two, "overall_preference": _overall(scores)}
    votes = [{"score": score, "reasoning": record.answer.get("comment")} for score, record in zip(scores, records, strict=True)]
    yield {**row, "individual_preference": votes}


def _overall(scores: Sequence[int]) -> int:
    """The mean, rounded, halves away from 0: two of three who prefer a response are no tie."""
    mean = sum(scores) / len(scores)
    return int(mean + math.copysign(0.5, mean))


def _why_not(record: Record) -> str | None:
    reason = only(record, Kind.PAIR, Kind.RATING) or ("both bad" if "both_bad" in record.answer else None)
    if reason is None and record.kind == Kind.RATING:
        aspects = record.answer["aspects"]
        if not set(aspects) <= set(ASPECTS) or max(aspects.values()) > 5:
            return "an aspect that HelpSteer doesn't have, or a rating above 5"
        if record.turns[0]["role"] != "user" or any(MARK.search(turn["content"]) for turn in record.turns):
            return "a system turn, or HelpSteer's own mark in a text"
    return reason


HELPSTEER = Format(
    "NVIDIA's HelpSteer 1, 2 and 3: ratings from 0 to 4 of a response, or preferences from -3 to 3, of one annotator or of each",
    "jsonl", each(_read),
    lambda row: {"response", *ASPECTS} <= row.keys() or "preference_strength" in row or "overall_preference" in row,
    "both bad and skips; flags; comments on ratings; who, when, how long and in which order shown; models; check questions; aspects of other names; "
    "ratings above 5; rankings, thumbs and edits",
    _why_not, _write, together=True,
)  # fmt: skip
