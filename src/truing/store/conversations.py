"""What a prompt may be: a conversation of system, user and assistant turns that ends with the user."""

from typing import Any

from truing.errors import UserError

ROLES = ("system", "user", "assistant")

Turn = dict[str, str]  # {"role": one of ROLES, "content": text}


def turns_of(text: str) -> list[Turn]:
    """The conversation that is one user turn."""
    return [{"role": "user", "content": text}]


def checked_prompt(value: Any, *, max_characters: int | None = None) -> list[Turn]:
    """A prompt as turns, from a text or from a list of turns. A turn's keys other than role and content are dropped.

    Turns of the same role may follow each other, as in real logs.

    Args:
        value: what stood in the file; already passed by `rows.require_clean`.
        max_characters: of all turns together.

    Raises:
        UserError: not a conversation, an empty turn, a system turn that isn't first, the last turn isn't the user's, or too long.
    """
    turns = checked_turns(turns_of(value) if isinstance(value, str) else value)
    if turns[-1]["role"] != "user":
        raise UserError(f"the conversation ends with the {turns[-1]['role']}'s turn, not with the user's", fix="leave out what follows the last user turn")
    length = sum(len(turn["content"]) for turn in turns)
    if max_characters is not None and length > max_characters:
        raise UserError(f"has {length:,} characters, more than {max_characters:,}", fix="shorten it, or raise it with --set prompts.max_characters=...")
    for turn in turns:
        if not _says_something(turn["content"]):
            raise UserError(f"a {turn['role']} turn is empty", fix="write something, or leave the row out")
    return turns


def checked_turns(value: Any) -> list[Turn]:
    """Turns with known roles and texts, a system turn first if anywhere; they may end with any role and may be empty texts.

    Raises:
        UserError: they aren't that.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"expected text or a list of turns, found {_name(value)}", fix='write "text" or [{"role": "user", "content": "text"}]')
    turns = [_checked_turn(turn) for turn in value]
    if any(turn["role"] == "system" for turn in turns[1:]):
        raise UserError("a system turn stands after the first turn", fix="put it first, or leave it out")
    return turns


def _checked_turn(turn: Any) -> Turn:
    if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
        raise UserError(f"a turn is {_name(turn)} without role and content", fix='write {"role": "user", "content": "text"}')
    if turn["role"] not in ROLES:
        raise UserError(f"a turn has the role {str(turn['role'])[:40]!r}", fix=f"use one of {', '.join(ROLES)}")
    if not isinstance(turn["content"], str):
        raise UserError(f"a turn's content is {_name(turn['content'])}, not text", fix="join its parts into one text")
    return {"role": turn["role"], "content": turn["content"]}


def _says_something(text: str) -> bool:
    return any(letter.isprintable() and not letter.isspace() for letter in text)


def _name(value: Any) -> str:
    names = {"NoneType": "nothing", "dict": "an object", "list": "an empty list" if value == [] else "a list", "str": "a text", "bool": "true or false"}
    return names.get(type(value).__name__, "a number")
