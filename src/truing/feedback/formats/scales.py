"""How a preference between two responses is written: by word (`A`, `left`, `model_b`, `tie`, `both bad`), by place from 0 or from 1 (0 is a tie then), or by
degree on a scale with the first response at its low end and the second at its high end.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from truing.errors import UserError
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


class Scale(NamedTuple):
    """The numbers that a column of preferences holds. `low` and `high` are the least and greatest."""

    low: float = 0
    high: float = 1


def strength_of(number: float, scale: Scale, *, degree: bool = False) -> int:
    """-3 to 3, > 0 for the first response, from a number on a scale.

    Args:
        number: what stood there.
        scale:  the numbers that stand in that column.
        degree: a column that says how much: 0..1 or 1..2 are then no places.

    Raises:
        UserError: the number is off the scale.
    """
    low, high = scale
    if not low <= number <= high:
        raise UserError(f"the preference is {number:g} where the file's first rows have {low:g} to {high:g}", fix="leave the row out, or mend the number")
    if not degree and low >= 0 and high <= 2 and number == int(number):
        if high == 2:
            return {0: 0, 1: MODERATE, 2: -MODERATE}[int(number)]
        return MODERATE if number == 0 else -MODERATE
    middle, furthest = ((low + high) / 2, (high - low) / 2) if low >= 0 else (0.0, max(-low, high))
    away = middle - number
    if away == 0 or furthest == 0:
        return 0
    size = MODERATE if furthest <= 1 else max(1, int(3 * abs(away) / furthest + 1e-9))
    return size if away > 0 else -size


def leaning(value: Any, responses: Sequence[Response], scale: Scale, *, degree: bool = False) -> dict[str, Any]:
    """The answer to a pair, as a cell has it.

    Raises:
        UserError: the cell says nothing that is known.
    """
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in FIRST:
        return {"strength": MODERATE}
    if word in SECOND:
        return {"strength": -MODERATE}
    number = as_number(value)
    if number is not None:
        return {"strength": strength_of(number, scale, degree=degree)}
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
