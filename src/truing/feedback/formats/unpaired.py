"""Single responses called good or bad: TRL's unpaired preference type, and HaluEval's general data."""

from collections.abc import Iterator, Sequence
from typing import Any

from truing.errors import UserError
from truing.feedback.formats.record import Format, Record, Response, conversation, each, obj, only, text
from truing.store.conversations import checked_prompt
from truing.store.tables import Kind

YES_NO = {"yes": True, "true": True, "1": True, "up": True, "good": True, "no": False, "false": False, "0": False, "down": False, "bad": False}


def yes_or_no(value: Any, name: str) -> bool:
    """True or false, from the ways in which files write it.

    Raises:
        UserError: it is neither.
    """
    found = value if isinstance(value, bool) else YES_NO.get(str(int(value) if isinstance(value, float) and value in (0, 1) else value).strip().lower())
    if found is None:
        raise UserError(f"{name} is {str(value)[:40]!r}", fix="write true or false, or leave the row out")
    return found


def _read_trl(value: Any) -> Iterator[Record]:
    row = obj(value)
    completion = row.get("completion")
    if isinstance(completion, list):
        turns = conversation(completion)
        if len(turns) != 1 or turns[0]["role"] != "assistant":
            raise UserError("the completion is not one assistant turn", fix="join its turns into one, or leave the row out")
        completion = turns[0]["content"]
    if not isinstance(completion, str):
        raise UserError("has no completion", fix='write {"prompt": ..., "completion": ..., "label": true}')
    prompt = row.get("prompt")
    turns = checked_prompt(conversation(prompt) if isinstance(prompt, list) else prompt)
    yield Record(Kind.THUMBS, turns, (Response(completion),), {"up": yes_or_no(row.get("label"), "label")})


def _write_trl(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for record in records:
        yield {
            "prompt": record.turns,
            "completion": [{"role": "assistant", "content": record.responses[0].text}],
            "label": record.answer["up"],
        }


def _read_halueval(value: Any) -> Iterator[Record]:
    row = obj(value)
    bad = yes_or_no(row.get("hallucination"), "hallucination")
    yield Record(Kind.THUMBS, checked_prompt(text(row, "user_query")), (Response(text(row, "chatgpt_response"), "ChatGPT"),), {"up": not bad})


UNPAIRED = Format(
    "TRL's unpaired type: `prompt`, `completion`, `label`, as texts or turns",
    "jsonl", each(_read_trl), lambda row: "completion" in row and "label" in row,
    "flags and comments; who, when and how long; models; skips; check questions; every kind but `thumbs`",
    lambda record: only(record, Kind.THUMBS), _write_trl,
)  # fmt: skip
HALUEVAL = Format(
    "HaluEval's general data: `user_query`, `chatgpt_response`, `hallucination` (yes is a thumb down)",
    "jsonl", each(_read_halueval), lambda row: "hallucination" in row and "user_query" in row, "import only; spans",
)  # fmt: skip
