"""Arena battles: two named models answer the same person, who says which is better, that they tie, or that both are bad.

Read are the conversations of Chatbot Arena and MT-Bench (`conversation_a`, `conversation_b`), and the tables of its competitions (`response_a`,
`response_b`, a column for each outcome). Where a battle went on for several turns, the prompt is what both share, and a response all that follows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.errors import UserError
from truing.feedback.formats.pairs import rest, shared_turns
from truing.feedback.formats.record import MODERATE, Format, Record, Response, as_shown, conversation, each, inner, listed_order, moment, obj, only, person
from truing.store.conversations import Turn, checked_prompt
from truing.store.rows import parse_json, require_clean
from truing.store.tables import Kind

ANSWERS: dict[str, dict[str, Any]] = {
    "model_a": {"strength": MODERATE}, "model_b": {"strength": -MODERATE}, "tie": {"strength": 0},
    "tie (bothbad)": {"both_bad": True}, "bothbad": {"both_bad": True}, "both_bad": {"both_bad": True},
}  # fmt: skip
OUTCOMES = {"winner_model_a": "model_a", "winner_model_b": "model_b", "winner_tie": "tie"}
JUDGES = ("gpt", "claude", "gemini", "llama")  # how a judge's name begins that is a model's


def _read(value: Any) -> Iterator[Record]:
    row = obj(value)
    turns, texts = _conversations(row)
    judge, names = person(row.get("judge")), [person(row.get(key)) for key in ("model_a", "model_b")]
    responses = tuple(Response(said, name) for said, name in zip(texts, names, strict=True))
    when = moment(row.get("tstamp", row.get("timestamp")))
    by = row.get("judged_by")  # ours; others leave it to the name
    is_model = judge is not None and (by == "model" if by is not None else judge.lower().startswith(JUDGES))
    yield Record(
        Kind.PAIR, turns, responses, dict(_answer(row)), annotator=judge, judge=is_model, shown=listed_order(row), started_at=when, submitted_at=when,
    )  # fmt: skip


def _answer(row: Mapping[str, Any]) -> dict[str, Any]:
    winner = row.get("winner")
    if winner is None:
        said = [outcome for column, outcome in OUTCOMES.items() if str(row.get(column)) in ("1", "1.0", "True", "true")]
        winner = said[0] if len(said) == 1 else None
    if not isinstance(winner, str) or winner not in ANSWERS:
        raise UserError(f"the winner is {str(winner)[:40]!r}", fix="use model_a, model_b, tie or tie (bothbad)")
    return ANSWERS[winner]


def _conversations(row: Mapping[str, Any]) -> tuple[list[Turn], list[str]]:
    if row.get("conversation_a") is not None and row.get("conversation_b") is not None:
        a, b = (_turns(row[key]) for key in ("conversation_a", "conversation_b"))
    elif "response_a" in row and "response_b" in row:
        a, b = (_interleaved(_texts(row, "prompt"), _texts(row, key)) for key in ("response_a", "response_b"))
    else:
        raise UserError("has no texts, only the models' names", fix="give it conversation_a and conversation_b, or prompt, response_a and response_b")
    shared = shared_turns(a, b)
    return checked_prompt(a[:shared]), [rest(a[shared:]), rest(b[shared:])]


def _turns(value: Any) -> list[Turn]:
    return conversation(inner(value) if isinstance(value, str) else value)


def _texts(row: Mapping[str, Any], key: str) -> list[str]:
    """The texts of a cell: one, or a list of them written as JSON."""
    found = row[key]
    if isinstance(found, str) and found.startswith("["):
        try:
            found = parse_json(found)
        except UserError:
            found = row[key]
        require_clean(found)
    texts = found if isinstance(found, list) else [found]
    if not all(isinstance(item, str) for item in texts):
        raise UserError(f"{key} holds something that is no text", fix="leave the row out")
    return texts


def _interleaved(asked: list[str], said: list[str]) -> list[Turn]:
    if len(asked) != len(said):
        raise UserError(f"{len(said)} responses stand against {len(asked)} prompts", fix="give each turn one of both, or leave the row out")
    return [
        turn for question, answer in zip(asked, said, strict=True) for turn in ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    ]


def _write(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    for record, order in map(as_shown, records):
        first, second = record.responses
        strength = record.answer.get("strength")
        winner = "tie (bothbad)" if strength is None else "tie" if strength == 0 else "model_a" if strength > 0 else "model_b"
        conversations = [[*record.turns, {"role": "assistant", "content": response.text}] for response in (first, second)]
        when = record.submitted_at.timestamp() if record.submitted_at else None
        yield {
            "model_a": first.model, "model_b": second.model, "winner": winner, "judge": record.annotator,
            "judged_by": "model" if record.judge else "human", "conversation_a": conversations[0], "conversation_b": conversations[1], "tstamp": when, **order,
        }  # fmt: skip


ARENA = Format(
    "Arena battles: `model_a`, `model_b`, `winner` (model_a, model_b, tie, tie (bothbad)), `judge`, and `conversation_a`, `conversation_b` or "
    "`response_a`, `response_b`",
    "jsonl", each(_read), lambda row: "model_a" in row and "model_b" in row and ("winner" in row or "winner_tie" in row),
    "strength; skips; flags and comments; how long; check questions; every kind but `pair`",
    lambda record: only(record, Kind.PAIR), _write,
)  # fmt: skip
