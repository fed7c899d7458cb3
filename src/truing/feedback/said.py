"""What was said, as quality control reads it: judgements of every kind that stand, as evidence for the joint model and as votes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.feedback.evidence import ORACLE, Choice, Evidence, Known, Level, choices_of_ranking, gather
from truing.store.judgements import batches, current_judgements
from truing.store.tables import Annotator, Kind, Prompt, Question, QuestionSample, Sample

WORDS_A_MINUTE = 238  # silent reading of non-fiction (Brysbaert 2019, doi:10.1016/j.jml.2019.104047)
THUMBS = "thumbs"  # the scale of thumbs, beside the aspects of ratings


class Said(NamedTuple):
    """A judgement that stands and is neither a skip nor "both bad"."""

    question: str
    annotator: str
    kind: str
    samples: tuple[str, ...]  # A, B, ...
    answer: Mapping[str, Any]
    order: tuple[int, ...] = ()  # from left to right; () where nobody knows
    active_s: float = math.nan
    reading_s: float = math.nan  # what reading it takes at 238 words a minute
    repeat_of: str | None = None  # the question that this one asks again


class Vote(NamedTuple):
    """One thing said that others may have said otherwise: of a pair, of two responses of a ranking, of a thumb."""

    unit: str
    annotator: str
    choice: int  # 1: A (or up), -1: B (or down), 0: tie


R = TypeVar("R", Said, Vote)


class Who(NamedTuple):
    """An annotator, by name."""

    id: str
    name: str
    kind: str


class Log(NamedTuple):
    """What quality control goes by."""

    said: list[Said]
    gold: dict[str, dict[str, Any]]  # check question → its right answer, as `Question.gold` has it
    people: list[Who]  # all who were asked and answered, be it by a skip
    n_skipped: int
    n_both_bad: int


# ---- as votes ----


def votes_of(row: Said) -> Iterator[Vote]:
    """The votes in a judgement; ratings and edits have none."""
    if row.kind == Kind.PAIR:
        yield Vote(row.question, row.annotator, sign(row.answer["strength"]))
    elif row.kind == Kind.RANKING:
        for i, j in combinations(range(len(row.samples)), 2):
            yield Vote(f"{row.question}/{i}/{j}", row.annotator, sign(row.answer["ranks"][j] - row.answer["ranks"][i]))
    elif row.kind == Kind.THUMBS:
        yield Vote(row.question, row.annotator, 1 if row.answer["up"] else -1)


def by_annotator(rows: Iterable[R]) -> dict[str, list[R]]:
    """Annotator → their rows, in the order given: to look through all rows for each of thousands takes many minutes."""
    found: dict[str, list[R]] = {}
    for row in rows:
        found.setdefault(row.annotator, []).append(row)
    return found


def ratings_of(row: Said) -> Iterator[tuple[str, str, int]]:
    """(unit, annotator, answer) for Krippendorff's alpha; edits have none."""
    if row.kind == Kind.RATING:
        yield from ((f"{row.question}/{aspect}", row.annotator, points) for aspect, points in row.answer["aspects"].items())
    else:
        yield from votes_of(row)


def left_of(row: Said) -> bool | None:
    """Whether the response that a pair's judgement prefers stood on the left; None for ties, other kinds and unknown orders."""
    if row.kind != Kind.PAIR or not row.order or not row.answer["strength"]:
        return None
    return bool((row.answer["strength"] > 0) == (row.order[0] == 0))


def sign(x: float) -> int:
    """1, 0 or -1."""
    return (x > 0) - (x < 0)


# ---- as evidence ----


def evidence_of(said: Iterable[Said], gold: Mapping[str, Mapping[str, Any]], people: Iterable[str]) -> Evidence:
    """Everything that bears on rewards and skills. Questions asked again are left out: whoever remembers their answer says nothing new. So are edits: everyone
    prefers their own words."""
    plain = [row for row in said if row.repeat_of is None]
    checks = {row.question: row for row in plain if row.question in gold}.values()
    known = [_known(row, gold[row.question]) for row in checks]
    levels = [level for row in plain for level in _levels(row.annotator, row.kind, row.samples, row.answer)]
    return gather(
        [choice for row in plain for choice in _choices(row)],
        levels + [level for _, right in known for level in right],
        {pair for pairs, _ in known for pair in pairs},
        people,
    )


def _choices(row: Said) -> list[Choice]:
    if row.kind == Kind.RANKING:
        return choices_of_ranking(row.annotator, row.samples, row.answer["ranks"])
    if row.kind != Kind.PAIR:
        return []
    strength, side = row.answer["strength"], (1 if row.order[0] == 0 else -1) if row.order else 0
    return [Choice(row.annotator, row.samples[0], row.samples[1], sign(strength), side, abs(strength))]


def _levels(annotator: str, kind: str, samples: Sequence[str], answer: Mapping[str, Any]) -> list[Level]:
    if kind == Kind.RATING:
        return [Level(annotator, samples[0], aspect, points - 1) for aspect, points in answer["aspects"].items()]
    return [Level(annotator, samples[0], THUMBS, int(answer["up"]))] if kind == Kind.THUMBS else []


def _known(row: Said, gold: Mapping[str, Any]) -> tuple[list[Known], list[Level]]:
    """What the right answer of a check question makes known: which response is better, and where one stands on scales."""
    if "better" in gold:
        better = gold["better"]
        return [Known(row.samples[better], row.samples[1 - better])], []
    right = gold["answer"]
    if row.kind == Kind.RANKING:
        pairs = combinations(zip(right["ranks"], row.samples, strict=True), 2)
        return [Known(*(name for _, name in sorted(pair))) for pair in pairs if pair[0][0] != pair[1][0]], []
    return [], _levels(ORACLE, row.kind, row.samples, right)


# ---- from the store ----


def read_log(session: Session, round_ids: Sequence[int] | None) -> Log:
    """What stands of the judgements of these rounds; None: of all, imported ones included."""
    query = select(Question).order_by(Question.id)
    questions = {row.id: row for row in session.scalars(query if round_ids is None else query.where(Question.round_id.in_(round_ids)))}
    samples, words = _shown(session, list(questions))
    said, skipped, both_bad, seen = [], 0, 0, set()
    for row in current_judgements(session, questions):
        seen.add(row.annotator_id)
        skipped += "skip" in row.answer
        both_bad += "both_bad" in row.answer
        if "skip" in row.answer or "both_bad" in row.answer:
            continue
        question = questions[row.question_id]
        order = () if question.facts.get("order_shown") == "unknown" else tuple(row.order_shown)
        reading = 60 * words[question.id] / WORDS_A_MINUTE
        said.append(
            Said(question.id, row.annotator_id, question.kind, samples[question.id], row.answer, order, row.active_ms / 1000, reading, question.repeat_of)
        )
    people = [Who(row.id, row.name, row.kind) for row in session.scalars(select(Annotator).order_by(Annotator.id)) if row.id in seen]
    return Log(said, {row.id: row.gold for row in questions.values() if row.gold is not None}, people, skipped, both_bad)


def _shown(session: Session, question_ids: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], dict[str, int]]:
    """Ids of each question's samples in their order, and the words to read before answering."""
    samples: dict[str, tuple[str, ...]] = {}
    words: dict[str, int] = {}
    for ids in batches(question_ids):
        rows = session.execute(
            select(Question.id, Prompt.text, Sample.id, Sample.text)
            .join(QuestionSample, QuestionSample.question_id == Question.id)
            .join(Sample, Sample.id == QuestionSample.sample_id)
            .join(Prompt, Prompt.id == Question.prompt_id)
            .where(Question.id.in_(ids))
            .order_by(Question.id, QuestionSample.position)
        )
        for question, prompt, sample, response in rows:
            samples[question] = (*samples.get(question, ()), sample)
            words[question] = words.get(question, len(prompt.split())) + len(response.split())
    return samples, words
