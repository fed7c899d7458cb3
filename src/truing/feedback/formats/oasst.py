"""Open-Assistant's message trees (Köpf et al. 2023, arXiv:2304.07327): replies to a message, ranked from 0 by several people's votes together.

A file holds whole trees, one a line, or single messages that name their parent, those of a tree together.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from truing.errors import BadRow, UserError
from truing.feedback.formats.record import Format, Numbered, Record, Response, as_number, dense, obj, one, only, person, text
from truing.feedback.formats.record import Source as File
from truing.store.conversations import Turn
from truing.store.ids import content_id
from truing.store.rows import Row, bad_row
from truing.store.tables import Kind

ROLES = {"prompter": "user", "assistant": "assistant"}
MOST_MESSAGES = 10_000  # of a tree


def _read(source: File) -> Iterator[Numbered | BadRow]:
    for key, group in groupby(source.rows(), key=_tree_of):
        if key is None:
            for row in group:
                if isinstance(row, BadRow):
                    yield row
                else:
                    yield from one(source, row, _tree)
        else:
            yield from _grown(source, group)


def _tree_of(row: Row | BadRow) -> Any:
    """What the rows of one tree share, where a row is a message; None for a whole tree or a bad row."""
    value = row.value if isinstance(row, Row) else None
    return str(value.get("message_tree_id")) if isinstance(value, dict) and "parent_id" in value and "prompt" not in value else None


def _grown(source: File, group: Iterator[Row | BadRow]) -> Iterator[Numbered | BadRow]:
    """The records of a tree that stands in the file message by message."""
    nodes: dict[str, dict[str, Any]] = {}
    roots: list[Row] = []
    for row in group:
        assert isinstance(row, Row)
        try:
            if len(nodes) >= MOST_MESSAGES:
                raise UserError(f"a tree has more than {MOST_MESSAGES:,} messages", fix="break the tree up")
            node = {**row.value, "replies": []}
            parent = row.value["parent_id"]
            if parent is not None and str(parent) not in nodes:
                raise UserError(f"its parent {str(parent)[:40]} is not above in the file", fix="put a tree's messages together, parents first")
            nodes[text(node, "message_id")] = node
            if parent is None:
                roots.append(Row(row.line, {"prompt": node}))
            else:
                nodes[str(parent)]["replies"].append(node)
        except UserError as error:
            yield bad_row(source.path.name, row.line, error)
    for root in roots:
        yield from one(source, root, _tree)


def _tree(value: Any) -> Iterator[Record]:
    """A ranking for every message with two or more ranked replies."""
    left: list[tuple[dict[str, Any], list[Turn]]] = [(obj(obj(value).get("prompt")), [])]
    while left:
        node, above = left.pop(0)
        turns = [*above, _turn(node)]
        replies = [obj(reply) for reply in _replies(node) if not obj(reply).get("deleted")]
        ranked = [reply for reply in replies if reply.get("role") == "assistant" and as_number(reply.get("rank")) is not None]
        unique = list({text(reply, "text"): reply for reply in reversed(ranked)}.values())[::-1]  # the same text twice can't be ranked
        if len(unique) > 1 and turns[-1]["role"] == "user":
            responses = tuple(Response(text(reply, "text"), person(reply.get("model_name"))) for reply in unique)
            yield Record(Kind.RANKING, turns, responses, {"ranks": dense([float(reply["rank"]) for reply in unique])})
        left.extend((reply, turns) for reply in replies if reply.get("replies"))


def _replies(node: Mapping[str, Any]) -> list[Any]:
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise UserError(f"the replies of a message are {str(replies)[:40]!r}", fix="give them as a list of messages")
    return replies


def _turn(node: Mapping[str, Any]) -> Turn:
    role = str(node.get("role"))
    if role not in ROLES:
        raise UserError(f"a message has the role {role[:40]!r}", fix="use prompter or assistant")
    return {"role": ROLES[role], "content": text(node, "text")}


def _write(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """A tree for a question: its prompt a chain of messages, its responses the last one's replies."""
    (record,) = records
    tree = content_id("tree", record.turns, [list(response) for response in record.responses])
    replies = [
        {"message_id": content_id(tree, place), "text": response.text, "role": "assistant", "rank": rank - 1, "model_name": response.model, "replies": []}
        for place, (response, rank) in enumerate(zip(record.responses, record.answer["ranks"], strict=True))
    ]
    names = {role: name for name, role in ROLES.items()}
    for depth, turn in reversed(list(enumerate(record.turns))):
        message = {"message_id": tree if depth == 0 else content_id(tree, "turn", depth), "text": turn["content"], "role": names[turn["role"]]}
        replies = [{**message, "replies": replies}]
    yield {"message_tree_id": tree, "tree_state": "ready_for_export", "prompt": replies[0]}


def _why_not(record: Record) -> str | None:
    reason = only(record, Kind.RANKING)
    if reason is None and record.turns[0]["role"] == "system":
        return "a system turn"
    if reason is None and len({response.text for response in record.responses}) < len(record.responses):
        return "two responses of the same text"
    return reason


OASST = Format(
    "Open-Assistant message trees, or their messages one a row: replies with a `rank` from 0",
    "jsonl", _read, lambda row: ("message_tree_id" in row and ("prompt" in row or "parent_id" in row)),
    "who, when, how long and in which order shown (several people's rankings of one question become a tree each); skips; flags and comments; check questions; "
    "prompts with a system turn; every kind but `ranking`",
    _why_not, _write,
)  # fmt: skip
