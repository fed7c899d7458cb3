"""Preference pairs as the training libraries keep them: hh-rlhf's transcripts, and TRL's chosen and rejected. One row, one pair.

A `Pair` holds a conversation and two responses, the chosen one first. `write_*` is the inverse of `read_*` for every pair that the format can hold, and raises
`UserError` for one that it can't.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from truing.errors import UserError
from truing.feedback.formats.record import MODERATE, Format, Record, Response, as_number, each, no_preference
from truing.store.conversations import Turn, checked_prompt, checked_turns, turns_of
from truing.store.tables import Kind

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class Pair(NamedTuple):
    """One preference: of two responses to a conversation, which was liked better."""

    turns: list[Turn]
    chosen: str
    rejected: str


def read_hh(row: Any) -> Pair:
    """A row of Anthropic's hh-rlhf: two transcripts, `\\n\\nHuman: … \\n\\nAssistant: …`, that share all but the last turn.

    Where they part earlier, the prompt is their longest common beginning that ends with a human turn, and a response is all that follows, in
    the same notation: people compared the whole of it.

    Raises:
        UserError: not such a row, or a side goes on with a human turn.
    """
    chosen, rejected = (_transcript(_text(row, key)) for key in ("chosen", "rejected"))
    shared = shared_turns(chosen, rejected)
    return Pair(checked_prompt(chosen[:shared]), rest(chosen[shared:]), rest(rejected[shared:]))


def write_hh(pair: Pair) -> dict[str, Any]:
    """The pair as two transcripts.

    Raises:
        UserError: there is a system turn, or a text has a speaker's mark inside.
    """
    texts = [turn["content"] for turn in pair.turns] + [pair.chosen, pair.rejected]
    if pair.turns[0]["role"] == "system":
        raise UserError("a system turn", fix="export as trl")
    shared = "".join(_marked(turn) for turn in pair.turns)
    row = {"chosen": f"{shared}\n\nAssistant: {pair.chosen}", "rejected": f"{shared}\n\nAssistant: {pair.rejected}"}
    if any(SPEAKER.search(text) for text in texts) and not _reads_back(row, pair):
        raise UserError("`Human:` or `Assistant:` begins a paragraph of a text", fix="export as trl")
    return row


def read_trl(row: Any) -> Pair:
    """A row of TRL's preference type: texts or lists of turns, with the prompt apart (explicit) or in front of both responses (implicit).

    Raises:
        UserError: not such a row.
    """
    if not isinstance(row, dict) or "chosen" not in row or "rejected" not in row:
        raise UserError("has no chosen and rejected", fix='write {"prompt": ..., "chosen": ..., "rejected": ...}')
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        return _conversational(prompt, checked_turns(chosen), checked_turns(rejected))
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise UserError("chosen and rejected are not both texts or both lists of turns", fix="write both the same way")
    if prompt is None:
        return _implicit(chosen, rejected)
    return Pair(checked_prompt(prompt), chosen, rejected)


def write_trl(pair: Pair) -> dict[str, Any]:
    """The pair in TRL's conversational form with an explicit prompt, which can hold every pair."""
    return {
        "prompt": pair.turns,
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def _reads_back(row: dict[str, Any], pair: Pair) -> bool:
    try:
        return read_hh(row) == pair
    except UserError:
        return False


def _text(row: Any, key: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(key), str):
        raise UserError(f"has no text under {key}", fix='write {"chosen": "...", "rejected": "..."}')
    found: str = row[key]
    return found


def _transcript(text: str) -> list[Turn]:
    """The turns of a transcript. One space after the colon belongs to the mark; all other white space to the text."""
    parts = SPEAKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
    if parts[0] or len(parts) < 3:
        raise UserError("a transcript doesn't begin with `Human:` or `Assistant:`", fix="begin it with two line ends and `Human: `")
    return [{"role": SPEAKERS[name], "content": said.removeprefix(" ")} for name, said in zip(parts[1::2], parts[2::2], strict=True)]


def _marked(turn: Turn) -> str:
    name = next(name for name, role in SPEAKERS.items() if role == turn["role"])
    return f"\n\n{name}: {turn['content']}"


def rest(turns: list[Turn]) -> str:
    """The text of what one side goes on with: its first turn, and any further ones with their marks."""
    if not turns or turns[0]["role"] != "assistant":
        raise UserError("no assistant turn follows the shared prompt", fix="leave the row out")
    return turns[0]["content"] + "".join(_marked(turn) for turn in turns[1:])


def _shared_prompt(chosen: list[Turn], rejected: list[Turn]) -> Pair:
    shared = shared_turns(chosen, rejected)
    return Pair(checked_prompt(chosen[:shared]), _only_response(chosen[shared:]), _only_response(rejected[shared:]))


def shared_turns(chosen: list[Turn], rejected: list[Turn]) -> int:
    """How many turns both begin with, up to a user turn."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and chosen[shared - 1]["role"] != "user":
        shared -= 1
    if not shared:
        raise UserError("the two sides share no beginning that ends with a user turn", fix="leave the row out, or give both sides the same prompt")
    return shared


def _only_response(turns: list[Turn]) -> str:
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise UserError(f"{len(turns)} turns follow the shared prompt where one assistant turn is needed", fix="leave the row out, or join the turns into one")
    return turns[0]["content"]


def _conversational(prompt: Any, chosen: list[Turn], rejected: list[Turn]) -> Pair:
    if isinstance(prompt, list):
        return Pair(checked_prompt(prompt), _only_response(chosen), _only_response(rejected))
    if prompt is None:
        return _shared_prompt(chosen, rejected)
    if chosen[0]["role"] == "assistant":  # a text as prompt, the responses as turns
        return Pair(checked_prompt(prompt), _only_response(chosen), _only_response(rejected))
    pair = _shared_prompt(chosen, rejected)  # the prompt stands both apart, as text, and in front of the responses
    if prompt not in (pair.turns[-1]["content"], pair.turns[0]["content"]):
        raise UserError("the prompt differs from the one in front of the responses", fix="leave one of them out")
    return pair


def _implicit(chosen: str, rejected: str) -> Pair:
    """The prompt is the longest common beginning of the two texts, less a space at its end (as TRL's `extract_prompt` has it)."""
    if SPEAKER.match(chosen):
        raise UserError("the texts are transcripts of Human: and Assistant:", fix="import the file with the format hh-rlhf")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if shared and chosen[shared - 1] == " ":
        shared -= 1
    if not chosen[:shared].strip():
        raise UserError("has no prompt, and the two responses share no beginning", fix="add the prompt under `prompt`")
    return Pair(turns_of(chosen[:shared]), chosen[shared:], rejected[shared:])


def record_of(pair: Pair) -> Record:
    """The pair as a record: the chosen response first, better by `MODERATE`."""
    return Record(Kind.PAIR, pair.turns, (Response(pair.chosen), Response(pair.rejected)), {"strength": MODERATE})


SCORED = (("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"))


def scored_alike(row: Mapping[str, Any]) -> bool:
    """Whether a row holds the same score for both sides, so that which was chosen is an accident."""
    scores = ([as_number(row.get(key)) for key in keys] for keys in SCORED)
    return any(chosen is not None and chosen == rejected for chosen, rejected in scores)


def pair_of(record: Record) -> Pair:
    """The record of a preference as a pair, the chosen response first."""
    ahead, behind = record.responses if record.answer["strength"] > 0 else reversed(record.responses)
    return Pair(record.turns, ahead.text, behind.text)


def _hh_records(row: Any) -> Iterator[Record]:
    yield record_of(read_hh(row))


def _trl_records(row: Any) -> Iterator[Record]:
    record = record_of(read_trl(row))
    yield record._replace(answer={"strength": 0}) if scored_alike(row) else record


def _why_not_hh(record: Record) -> str | None:
    reason = no_preference(record)
    if reason is None:
        try:
            write_hh(pair_of(record))
        except UserError as error:
            return error.what
    return reason


def _is_transcript(row: Mapping[str, Any]) -> bool:
    chosen = row.get("chosen")
    return isinstance(chosen, str) and isinstance(row.get("rejected"), str) and SPEAKER.match(chosen) is not None


def _write_hh(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [write_hh(pair_of(record)) for record in records]


def _write_trl(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [write_trl(pair_of(record)) for record in records]


PREFERENCE_DROPS = (
    "strength; ties, both bad and skips; flags and comments; who, when, how long and in which order shown; models; check questions; every kind but `pair`"
)
HH = Format(
    "Anthropic's hh-rlhf: `chosen` and `rejected` transcripts of `Human:` and `Assistant:`",
    "jsonl", each(_hh_records), _is_transcript,
    f"{PREFERENCE_DROPS}; prompts with a system turn; texts with a paragraph that begins `Human:` or `Assistant:`",
    _why_not_hh, _write_hh,
)  # fmt: skip
TRL = Format(
    "TRL's preference type: `prompt`, `chosen`, `rejected`, as texts or turns, the prompt apart or in front of both",
    "jsonl", each(_trl_records), lambda row: "chosen" in row and "rejected" in row and not _is_transcript(row),
    PREFERENCE_DROPS, no_preference, _write_trl,
)  # fmt: skip
