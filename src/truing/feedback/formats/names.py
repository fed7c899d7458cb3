"""What people call their columns: which are the prompt, the responses and their models, the answers, who and when.

Names vary from file to file; the tables below are all that is known. They are matched whatever their case.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

PROMPTS = (
    "prompt",
    "messages",
    "conversation",
    "context",
    "chat",
    "instruction",
    "question",
    "query",
    "user_query",
    "input",
    "history",
    "dialogue",
    "post",
    "article",
    "task",
)
SINGLE = ("response", "answer", "completion", "output", "reply", "summary", "text", "generation", "result")
LISTS = ("responses", "answers", "completions", "outputs", "candidates", "generations", "options", "items")
STEM = r"(?:response|answer|output|completion|summary|text|option|candidate|generation|reply|item|result|human_ref|system_output)"
PLACES = list("abcdefghi")
SUFFIX = r"(?:[a-i]|\d|left|right|x|y|one|two|first|second)"
NUMBERED = re.compile(rf"(?P<stem>{STEM}|)[ _.\-]?(?P<place>{SUFFIX})", re.IGNORECASE)
MODELS = re.compile(rf"(?:model|policy|system)[ _.\-]?(?P<place>{SUFFIX})(?:[ _.\-]name)?", re.IGNORECASE)
RANKS = re.compile(rf"rank[ _.\-]?(?P<place>{SUFFIX})|(?P<second>{STEM}[ _.\-]?{SUFFIX})[ _.\-]rank", re.IGNORECASE)
RATED = (
    re.compile(rf"(?P<aspect>[a-z][a-z_ \-]*?)[ _.\-](?:{STEM}[ _.\-]?)?(?P<place>{SUFFIX})", re.IGNORECASE),
    re.compile(rf"{STEM}[ _.\-]?(?P<place>{SUFFIX})[ _.\-](?P<aspect>[a-z][a-z_ \-]*)", re.IGNORECASE),
)
COMMENTS = ("comment", "comments", "justification", "reason", "rationale", "explanation")
CHOICES = (
    "choice",
    "winner",
    "preference",
    "preferred",
    "label",
    "labels",
    "verdict",
    "better",
    "best",
    "better_response_id",
    "chosen",
    "selected",
    "vote",
    "answer",
    "result",
    "comparison",
)
DEGREES = ("strength", "preference_strength", "overall_preference", "degree", "margin", "likert")
RANKINGS = ("ranks", "ranking", "rank", "order")
THUMBS = ("thumbs", "thumb", "label", "up", "liked", "is_good", "good", "acceptable")
EDITS = ("edit", "edited", "corrected", "correction", "revision", "rewrite")
ASPECTS = (
    "rating", "overall", "quality", "score", "helpfulness", "correctness", "coherence", "complexity", "verbosity", "harmlessness", "honesty", "truthfulness",
    "instruction_following", "relevance", "fluency", "accuracy", "clarity", "style", "safety", "factuality", "completeness",
)  # fmt: skip
LISTED_VOTES = ("votes", "annotations", "judgements", "judgments", "labels")
PEOPLE = (
    "worker",
    "worker_id",
    "workerid",
    "annotator",
    "annotator_id",
    "rater",
    "rater_id",
    "judge",
    "labeler",
    "evaluator",
    "participant_id",
    "user_id",
    "user",
)
WHEN = ("submitted_at", "timestamp", "created_at", "time")
SECONDS = ("seconds", "duration", "time_spent", "lead_time")
SAME_PLACE = {"left": "a", "right": "b", "one": "1", "two": "2", "first": "1", "second": "2"}
LONGEST_NAME = 80


class Group(NamedTuple):
    """Columns of one kind of name that hold a response each, in the order of their places."""

    names: tuple[str, ...]  # of the places
    columns: tuple[str, ...]
    models: tuple[str | None, ...]  # the column with the model of each, if there is one


class Layout(NamedTuple):
    """The columns of a table by what they hold; of several that may hold it, the likeliest first."""

    prompts: tuple[str, ...]
    lists: tuple[str, ...]  # all responses in one
    single: tuple[str, ...]
    numbered: tuple[Group, ...]
    models: dict[str, str]  # place → column
    ranks: dict[str, str]  # place → column
    rated: tuple[tuple[str, str, str], ...]  # (aspect, place, column)
    ratings: tuple[tuple[str, str], ...]  # (aspect, column) of a single response
    votes: tuple[str, ...]  # what several people said, in one list
    choices: tuple[str, ...]
    degrees: tuple[str, ...]
    rankings: tuple[str, ...]
    thumbs: tuple[str, ...]
    edits: tuple[str, ...]
    comments: tuple[str, ...]
    people: tuple[str, ...]
    when: tuple[str, ...]
    seconds: tuple[str, ...]


def layout(cells: Mapping[str, Any]) -> Layout:
    """The layout of a row."""
    return _layout(tuple(cells))


def standing(cells: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The first of these columns in which something stands."""
    for name in columns:
        if cells[name] is not None and cells[name] != "":
            return name
    return None


@lru_cache(maxsize=16)
def _layout(columns: tuple[str, ...]) -> Layout:
    short = [name for name in columns if len(name) <= LONGEST_NAME]
    lower = {name.lower(): name for name in short}
    known = [tuple(lower[name] for name in names if name in lower) for names in KNOWN]
    ranks = {place: name for name in short if (place := _rank_place(name))}
    models = {match["place"].lower(): name for name in short if (match := MODELS.fullmatch(name))}
    rated = [(match, name) for name in short if (match := RATED[0].fullmatch(name) or RATED[1].fullmatch(name))]
    of_several = tuple((match["aspect"].lower(), match["place"].lower(), name) for match, name in rated if match["aspect"].lower() in ASPECTS)
    of_one = tuple((name.lower().removeprefix("rating:"), name) for name in short if name.lower() in ASPECTS or name.lower().startswith("rating:"))
    prompts, lists, single, *others = known
    votes = tuple(name for name in LISTED_VOTES if name in columns)
    return Layout(prompts, lists, single, _numbered(short, models), models, ranks, of_several, of_one, votes, *others)


KNOWN = (PROMPTS, LISTS, SINGLE, CHOICES, DEGREES, RANKINGS, THUMBS, EDITS, COMMENTS, PEOPLE, WHEN, SECONDS)


def group_of(places: Sequence[tuple[str, str]], models: Mapping[str, str]) -> Group:
    """These (place, column), with the columns of their models.

    Args:
        models: place → column.
    """
    others = models.keys().isdisjoint(dict(places))  # response_1 beside model_a
    shift = dict(zip((place for place, _ in places), sorted(models), strict=False)) if others else {}
    named = tuple(models.get(place) or models.get(shift.get(place, "")) for place, _ in places)
    return Group(tuple(place for place, _ in places), tuple(column for _, column in places), named)


def _numbered(names: Sequence[str], models: Mapping[str, str]) -> tuple[Group, ...]:
    by_stem: dict[str, dict[str, str]] = {}
    for name in names:
        match = NUMBERED.fullmatch(name)
        if match:
            by_stem.setdefault(match["stem"].lower(), {})[match["place"].lower()] = name
    ordered = [sorted(places.items(), key=lambda item: SAME_PLACE.get(item[0], item[0])) for places in by_stem.values() if len(places) > 1]
    return tuple(group_of(places, models) for places in ordered)


def _rank_place(name: str) -> str | None:
    match = RANKS.fullmatch(name)
    if match is None:
        return None
    inner = NUMBERED.fullmatch(match["second"] or f"response_{match['place']}")
    return inner["place"].lower() if inner else None
