"""Answers as a screen gives them, and as the log keeps them. A page doesn't know which of its texts is A: the studio turns them around.

On the screen an answer speaks of places, from left to right (or from top to bottom):

    pair     {"leaning": -3..3} (> 0: the left one is preferred, 0: a tie) or {"both_bad": true}
    ranking  {"ranks": [2, 1, 2]}, one for each place

The other kinds are about one text and read the same on both sides. Flags, comments and skips stay as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from truing.errors import UserError
from truing.feedback.answers import answer_from_screen
from truing.store.tables import Kind

LETTERS = "ABCDEFGHI"  # what the responses of a ranking are called on the screen
LEANINGS = ("about the same", "slightly better", "better", "much better")
LONGEST_WORDS = 80  # characters of a text that is told in a list


def from_screen(kind: str, given: Mapping[str, Any], order_shown: Sequence[int]) -> dict[str, Any]:
    """The answer as the log keeps it. Its form is checked where it is stored; here only places are turned into samples.

    Args:
        given:       the answer as the page sent it.
        order_shown: positions of the samples from left to right.

    Raises:
        UserError: it speaks of samples, which a page can't know, or leans further than there are points.
    """
    answer = dict(given)
    if "strength" in answer:
        raise UserError("a page speaks of left and right, not of A and B", fix='send {"leaning": -3..3}')
    if "leaning" in answer:
        leaning = answer.pop("leaning")
        if not _is_whole(leaning) or kind != Kind.PAIR:
            raise UserError(f"this is no answer to a {kind} question: found leaning = {leaning!r}", fix="reload the page, and answer again")
        answer |= answer_from_screen(leaning, order_shown)
    ranks = answer.get("ranks")
    if isinstance(ranks, list) and len(ranks) == len(order_shown):
        answer["ranks"] = [ranks[order_shown.index(position)] for position in range(len(ranks))]
    return answer


def to_screen(answer: Mapping[str, Any], order_shown: Sequence[int]) -> dict[str, Any]:
    """An answer of the log as the screen had it: the inverse of `from_screen`."""
    shown = dict(answer)
    if "strength" in shown:
        shown |= {"leaning": answer_from_screen(shown.pop("strength"), order_shown)["strength"]}
    if "ranks" in shown:
        shown["ranks"] = [shown["ranks"][position] for position in order_shown]
    return shown


def in_words(shown: Mapping[str, Any]) -> str:
    """An answer on the screen in a few words, such as "Left is much better"."""
    if "skip" in shown:
        return f"Skipped: {_short(shown['skip'])}"
    if "leaning" in shown:
        leaning = shown["leaning"]
        side = "Left is " if leaning > 0 else "Right is " if leaning else ""
        words = side + LEANINGS[abs(leaning)]
        return words[0].upper() + words[1:]
    if "ranks" in shown:
        return ranking_in_words(shown["ranks"])
    if "aspects" in shown:
        return ", ".join(f"{name} {point}" for name, point in shown["aspects"].items())
    if "text" in shown:
        return f"Changed to: {_short(shown['text'])}"
    return "Both are bad" if "both_bad" in shown else "Good as it is" if "unchanged" in shown else "Good" if shown["up"] else "Not good"


def ranking_in_words(ranks: Sequence[int]) -> str:
    """Ranks by place as letters, best first: [2, 1, 2] is "B, then A = C"."""
    steps = [" = ".join(LETTERS[place] for place, its in enumerate(ranks) if its == rank) for rank in sorted(set(ranks))]
    return ", then ".join(steps)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_WORDS else line[: LONGEST_WORDS - 1].rstrip() + "…"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
