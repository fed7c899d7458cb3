"""An answer that a manager gives on a form: the right one of a check question, or their own to a disputed one; and answers in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import FormData

from truing.feedback.sets import Rules
from truing.store.tables import Kind
from truing.studio.manage.desk import text
from truing.studio.refusals import Refusal
from truing.studio.screen import LETTERS, from_screen, in_words

CHOICES = ((3, "much better"), (2, "better"), (1, "slightly better"), (0, "about the same"), (-1, "slightly better"), (-2, "better"), (-3, "much better"))


def answer_of(form: FormData, kind: str, rules: Rules, order_shown: Sequence[int]) -> dict[str, Any]:
    """The answer that a form gives to a question whose responses stood in this order.

    Raises:
        Refusal: nothing was chosen, or something that can't be.
        UserError: it is no answer to a question of this kind.
    """
    n = len(order_shown)
    if text(form, "choice") == "skip":
        given: dict[str, Any] = {"skip": text(form, "reason") or "a manager can't judge this"}
    elif kind == Kind.PAIR:
        choice = text(form, "choice")
        given = {"both_bad": True} if choice == "both_bad" else {"leaning": _number(choice, -3, 3)}
    elif kind == Kind.RANKING:
        given = {"ranks": [_number(text(form, f"rank-{place}"), 1, n) for place in range(n)]}
    elif kind == Kind.RATING:
        given = {"aspects": {aspect.name: _number(text(form, f"aspect-{place}"), 1, rules.scale) for place, aspect in enumerate(rules.aspects)}}
    elif kind == Kind.THUMBS:
        given = {"up": _number(text(form, "choice"), 0, 1) == 1}
    else:
        given = {"text": text(form, "text")}
    if text(form, "comment"):
        given["comment"] = text(form, "comment")
    return rules.check(kind, from_screen(kind, given, order_shown), n)


def _number(said: str, low: int, high: int) -> int:
    digits = said.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 4 and low <= int(said) <= high):
        raise Refusal(400, "nothing was chosen", fix="choose an answer, then send it")
    return int(said)


def told(kind: str, answer: Mapping[str, Any], n: int = 2) -> str:
    """An answer in words that speak of A and B, for who sees which is which."""
    if "strength" in answer:
        strength = answer["strength"]
        words = in_words({"leaning": strength})
        return words.replace("Left is", "A is").replace("Right is", "B is") if strength else "A tie"
    if kind == Kind.RANKING and "ranks" in answer:
        return in_words({"ranks": answer["ranks"]})
    return in_words(answer)


def told_gold(kind: str, gold: Mapping[str, Any]) -> str:
    """The right answer of a check question in words."""
    if "better" in gold:
        return f"{LETTERS[gold['better']]} is better"
    return told(kind, gold["answer"])


def shown_order(order: Sequence[int]) -> str:
    """The order in which the responses stood, as letters: BA when B was on the left."""
    return "".join(LETTERS[position] for position in order)


def split_in_words(votes: Mapping[str, int]) -> str:
    """Votes in words: "A × 3 · B × 2 · tie × 1"."""
    return " · ".join(f"{vote} × {n}" for vote, n in votes.items())
