"""What an answer may say.

An answer speaks of samples (A is position 0, B position 1), never of the sides of a screen:

    pair     {"strength": -3..3} (> 0: A is preferred, 0: a tie) or {"both_bad": true}
    ranking  {"ranks": [1, 2, 2]}             one for each sample, 1 is best
    rating   {"aspects": {"overall": 4}}      1..5 or 1..7
    thumbs   {"up": true}
    edit     {"text": "..."}                  other words than the original's; or {"unchanged": true}
    any      {"skip": "reason"};              beside any of them "flags": [...] and "comment": "..."
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from truing.errors import UserError
from truing.store.tables import Kind

STRONGEST = 3
HIGHEST_RATING = 7
LONGEST_TEXT = 100_000  # characters of a comment or an edit
FLAGS = ("unsafe", "off-topic", "wrong language", "names itself")  # unless a set has its own
NEAR = 1  # points by which a rating may differ from the known one


def check_answer(
    kind: str,
    answer: Any,
    n_samples: int,
    *,
    aspects: Collection[str] | None = None,
    scale: int = HIGHEST_RATING,
    flags: Collection[str] | None = None,
    original: str | None = None,
) -> dict[str, Any]:
    """The answer, if it is one to a question of this kind about this many samples.

    Args:
        aspects:  a rating names exactly these; None: any.
        scale:    the highest rating.
        flags:    only these may be raised; None: any.
        original: the text that an edit differs from; None: unknown.

    Raises:
        UserError: it is not; the message says what was found and what an answer looks like.
    """
    form = FORMS[Kind(kind)]
    if not isinstance(answer, Mapping):
        raise _not_an_answer(kind, f"found {answer!r}")
    said = {key: value for key, value in answer.items() if key not in ("flags", "comment")}
    if len(said) != 1 or not set(said) <= {*form, "skip"}:
        raise _not_an_answer(kind, f"found the keys {', '.join(map(repr, answer)) or 'none'}")
    ((key, value),) = said.items()
    if not _CHECKS[key](value, n_samples):
        raise _not_an_answer(kind, f"found {key} = {value!r}")
    if key == "aspects":
        _check_rating(value, aspects, scale)
    if key == "text" and original is not None and value.strip() == original.strip():
        raise UserError("the edited text is the original", fix='change something, or answer {"unchanged": true}')
    _check_remarks(kind, answer, flags)
    return dict(answer)


def answer_from_screen(leaning: int, order_shown: Sequence[int]) -> dict[str, Any]:
    """The answer to a pair that was given by sides.

    Args:
        leaning:     -3..3, > 0: the response on the left was preferred, 0: a tie.
        order_shown: [0, 1] when A stood on the left, [1, 0] when B did.
    """
    return {"strength": leaning if order_shown[0] == 0 else -leaning}


def gold_of(kind: str, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The `gold` of a question whose right answer this is: {"better": 0 or 1} for a pair with a better one, else {"answer": ...}.

    Raises:
        UserError: a skip is no right answer, and an edit has none.
    """
    if "skip" in answer or kind == Kind.EDIT:
        raise UserError(
            f"this can't be the known answer of a check question of kind {kind}: {dict(answer)!r}", fix="give the answer that everybody should give"
        )
    strength = answer.get("strength", 0)
    if strength:
        return {"better": 0 if strength > 0 else 1}
    return {"answer": {key: value for key, value in answer.items() if key not in ("flags", "comment")}}


def is_right(kind: str, gold: Mapping[str, Any], answer: Mapping[str, Any]) -> bool:
    """Whether an answer to a check question is right; a skip is not. Strength plays no part, and a rating may be a point off.

    A ranking is right when it turns no two responses around; to tie two that differ, or to part two that are tied, is forgiven.
    """
    if "skip" in answer:
        return False
    if "better" in gold:
        strength = answer.get("strength", 0)
        return bool(strength) and (strength < 0) == bool(gold["better"])
    right = gold["answer"]
    if kind == Kind.RANKING:
        return not any(
            (a - b) * (x - y) < 0 for a, x in zip(right["ranks"], answer["ranks"], strict=True) for b, y in zip(right["ranks"], answer["ranks"], strict=True)
        )
    if kind == Kind.RATING:
        return all(abs(answer["aspects"].get(name, -HIGHEST_RATING) - point) <= NEAR for name, point in right["aspects"].items())
    return all(answer.get(key) == value for key, value in right.items())


FORMS: Mapping[Kind, Mapping[str, str]] = {
    Kind.PAIR: {"strength": '{"strength": -3..3}', "both_bad": '{"both_bad": true}'},
    Kind.RANKING: {"ranks": '{"ranks": [...]} with a rank from 1 for each response'},
    Kind.RATING: {"aspects": '{"aspects": {"overall": 1..7}}'},
    Kind.THUMBS: {"up": '{"up": true} or {"up": false}'},
    Kind.EDIT: {"text": '{"text": "..."}', "unchanged": '{"unchanged": true}'},
}
_CHECKS: Mapping[str, Callable[[Any, int], bool]] = {
    "skip": lambda value, n: _is_text(value),
    "strength": lambda value, n: _is_whole(value, -STRONGEST, STRONGEST) and n == 2,
    "both_bad": lambda value, n: value is True and n == 2,
    "ranks": lambda value, n: isinstance(value, list) and len(value) == n and all(_is_whole(rank, 1, n) for rank in value) and 1 in value,
    "aspects": lambda value, n: isinstance(value, dict) and bool(value) and all(_is_text(k, 80) and _is_whole(v, 1, HIGHEST_RATING) for k, v in value.items()),
    "up": lambda value, n: isinstance(value, bool),
    "text": lambda value, n: _is_text(value),
    "unchanged": lambda value, n: value is True,
}


def _check_rating(value: Mapping[str, int], aspects: Collection[str] | None, scale: int) -> None:
    if aspects is not None and set(value) != set(aspects):
        raise UserError(f"this rating is of {', '.join(value)}", fix=f"rate {', '.join(aspects)}: each of them and nothing else")
    if max(value.values()) > scale:
        raise UserError(f"this rating goes up to {max(value.values())}", fix=f"rate from 1 to {scale}")


def _check_remarks(kind: str, answer: Mapping[str, Any], known: Collection[str] | None) -> None:
    flags = answer.get("flags", [])
    if not (isinstance(flags, list) and all(_is_text(flag, 80) for flag in flags) and len(set(flags)) == len(flags)):
        raise _not_an_answer(kind, f"found flags = {flags!r}; flags are a list of different words")
    strange = [flag for flag in flags if known is not None and flag not in known]
    if strange:
        raise UserError(f"there is no flag {strange[0]!r} here", fix=f"raise one of {', '.join(known or ())}" if known else "leave the flags away")
    if "comment" in answer and not _is_text(answer["comment"]):
        raise _not_an_answer(kind, "its comment is no text, or too long")


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any, longest: int = LONGEST_TEXT) -> bool:
    """Some words that every database can hold."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= longest and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _not_an_answer(kind: str, found: str) -> UserError:
    forms = ", ".join([*FORMS[Kind(kind)].values(), '{"skip": "reason"}'])
    return UserError(f"this is no answer to a {kind} question: {found}", fix=f"answer with one of {forms}")
