"""How a preference between two responses is written: by word (`A`, `left`, `model_b`, `tie`, `both bad`), by place from 0 or from 1 (0 is a tie then), or by
degree on a scale with the first response at its low end and the second at its high end. Numbers that can be read in two ways are refused.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from truing.errors import UserError
from truing.feedback.formats.names import LONGEST_NAME, NUMBERED, SAME_PLACE
from truing.feedback.formats.record import MODERATE, Response, as_number

FIRST = {
    "a",
    "left",
    "first",
    "one",
    "model_a",
    "response_a",
    "response a",
    "a is better",
    "x",
    "model_x",
    "response_1",
    "answer_a",
    "output_1",
    "option_a",
    "prefer_a",
    "a>b",
    "system_a",
    "system a",
}
SECOND = {
    "b",
    "right",
    "second",
    "two",
    "model_b",
    "response_b",
    "response b",
    "b is better",
    "y",
    "model_y",
    "response_2",
    "answer_b",
    "output_2",
    "option_b",
    "prefer_b",
    "b>a",
    "system_b",
    "system b",
}
TIES = {"tie", "tied", "equal", "same", "draw", "both", "both good", "both_good", "a=b", "no preference", "no_preference", "neutral", "about the same"}
BOTH_BAD = {"both bad", "both_bad", "bothbad", "tie (bothbad)", "neither", "none"}
SKIPS = {"skip", "skipped", "n/a", "can't judge", "cannot judge", "unsure", "don't know"}


ENDS = {(0, 4), (1, 5), (1, 7), (1, 9), (1, 10), (0, 10), (0, 100), (1, 100)}  # of the scales that are known; their middle is a tie
FAR = 3  # how far a scale around 0 reaches at most, unless both of its ends are seen
FROM_1 = {0: 0, 1: MODERATE, 2: -MODERATE}  # places, and 0 for a tie


class Scale(NamedTuple):
    """The numbers that a column of preferences holds, by which the meaning of each is told."""

    low: float  # the least
    high: float  # the greatest
    whole: bool = True  # none has a fraction


def strength_of(number: float, scale: Scale, names: Sequence[str] = (), *, degree: bool = False) -> int:
    """-3 to 3, > 0 for the first response, from a number on a scale.

    Where the numbers that are there can be read in two ways (only 1s: the second place from 0, or the first one from 1; 1 to 4: four levels, or five of
    which nobody took the last), none is: half of the readings turn people's preferences around.

    Args:
        number: what stood there.
        scale:  the numbers that stand in that column.
        names:  what the columns call the two responses, where they have names of their own: a 1 beside `response_1` is that one.
        degree: a column that says how much: 0..1 or 1..2 are then no places.

    Raises:
        UserError: the number is off the scale, or there is no telling what it means.
    """
    low, high, whole = scale
    if not low <= number <= high:
        raise UserError(f"the preference is {number:g} where the file's first rows have {low:g} to {high:g}", fix="leave the row out, or mend the number")
    if not degree:
        called = _by_name(number, scale, [SAME_PLACE.get(name, name) for name in names])
        if called is not None:
            return called
        if whole and low >= 0 and high <= 2 and not any(name.isdecimal() for name in names):
            return _of_place(number, scale)
    middle, furthest = _middle(number, scale)
    away = middle - number
    if away == 0:
        return 0
    size = MODERATE if furthest <= 1 else max(1, int(3 * abs(away) / furthest + 1e-9))
    return size if away > 0 else -size


def _by_name(number: float, scale: Scale, names: Sequence[str]) -> int | None:
    """The strength, where the responses have numbers for names and all that stands in the column are those, or a 0 for a tie beside 1 and 2."""
    called = [int(name) for name in names if name.isdecimal()]
    if len(called) == 2 and scale.low in called and scale.high in called and number in called:
        return -MODERATE if called.index(int(number)) else MODERATE
    return FROM_1[int(number)] if called == [1, 2] and scale.whole and scale.low >= 0 and scale.high <= 2 else None


def _of_place(number: float, scale: Scale) -> int:
    """The strength, from a place: from 1 where there is a 2, from 0 where there are both 0 and 1."""
    if scale.low == scale.high:
        raise _untold(number, scale)
    if scale.high == 2:
        return FROM_1[int(number)]
    return -MODERATE if number else MODERATE


def _middle(number: float, scale: Scale) -> tuple[float, float]:
    """(the number that is a tie, how far from it the ends are) of a column that says how much."""
    low, high, whole = scale
    furthest = max(-low, high)
    if low < 0 and (low == -high or (furthest <= FAR and (low < -1 or high <= 0))):  # -1 alone, far from the other end, may stand for no answer
        return 0.0, furthest
    if (low, high) in ENDS or (not whole and (low, high) == (0, 1)):
        return (low + high) / 2, (high - low) / 2
    raise _untold(number, scale)


def _untold(number: float, scale: Scale) -> UserError:
    found = f"the numbers there are {scale.low:g} to {scale.high:g}" if scale.low < scale.high else "there is no other number"
    return UserError(
        f"the preference is {number:g}, and there is no telling what that means: {found}",
        fix="write a, b or tie under `choice`, and how much, from 1 to 3, under `strength`",
    )


def leaning(value: Any, responses: Sequence[Response], scale: Scale | None, names: Sequence[str] = (), *, degree: bool = False) -> dict[str, Any]:
    """The answer to a pair, as a cell has it.

    Args:
        value:     the cell.
        responses: the two.
        scale:     the numbers that stand in its column; None: this one alone.
        names:     what the columns call the two, where they have names of their own.
        degree:    the column says how much.

    Raises:
        UserError: the cell says nothing that is known.
    """
    word = value.strip().lower() if isinstance(value, str) else ""
    number = None if word in FIRST or word in SECOND else as_number(value)
    if number is not None:
        return {"strength": strength_of(number, scale or Scale(number, number, number == int(number)), names, degree=degree)}
    place = _named(word, tuple(names)) if len(word) <= LONGEST_NAME else None
    if place is not None:
        return {"strength": -MODERATE if place else MODERATE}
    if word in FIRST:
        return {"strength": MODERATE}
    if word in SECOND:
        return {"strength": -MODERATE}
    by_name = [place for place, response in enumerate(responses) if value is not None and value in (response.model, response.text)]
    if len(by_name) == 1:
        return {"strength": -MODERATE if by_name[0] else MODERATE}
    if word in TIES:
        return {"strength": 0}
    if word in BOTH_BAD:
        return {"both_bad": True}
    if word in SKIPS:
        return {"skip": word}
    raise UserError(f"the preference is {str(value)[:40]!r}", fix="write a, b, tie or both bad, or a number, or leave the row out")


@lru_cache(maxsize=256)  # the same few words all through a file
def _named(word: str, names: tuple[str, ...]) -> int | None:
    """Which of two responses a word names as their columns do (`c` beside `response_b` and `response_c`); None: neither."""
    match = NUMBERED.fullmatch(word)
    places = [SAME_PLACE.get(name, name) for name in names]
    place = SAME_PLACE.get(match["place"], match["place"]) if match else None
    return places.index(place) if place in places else None
