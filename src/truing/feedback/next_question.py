"""Which question an annotator gets next: in the order of the set, with check questions and repeats among them.

Every query is built once, for building one takes longer than running it, and finds its row by an index, however long the log is.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, func, insert, or_, select, text
from sqlalchemy.orm import Session, aliased

from truing.feedback.sets import Rules
from truing.store.database import brief
from truing.store.ids import content_id
from truing.store.judgements import is_answer
from truing.store.tables import Assignment, Judgement, Kind, Question, QuestionSample, QuestionSet, SetState

RandomBits = Callable[[int], int]
GOLD_BLOCK = 100  # after an annotator's first questions, the share of check questions holds in every hundred
GOLD_CHOICE = 50  # a check question is drawn from so many
REPEAT_GAP = 10  # so many questions stand between a question and its repeat
REPEAT_CHOICE = 50  # a repeat is drawn from so many
CHANCE = 10_000  # rates are told apart to this part


class Asking(NamedTuple):
    """Who asks for a question, when, and of which ones."""

    annotator: str
    at: datetime
    set_id: str | None = None
    round: int | None = None
    kind: str | None = None
    besides: tuple[str, ...] = ()  # claims that are on their screen already


class Claim(NamedTuple):
    """A question lent to an annotator. Nothing in it tells who wrote what, nor whether it is a check or a repeat."""

    id: str
    question_id: str
    annotator_id: str
    order_shown: tuple[int, ...]  # positions of the question's samples from left to right
    claimed_at: datetime
    expires_at: datetime
    set_id: str
    kind: str
    draft: dict[str, Any] | None  # what they had entered before


class OpenSet(NamedTuple):
    """A set that asks questions at present."""

    id: str
    kind: str
    rules: Rules


def held_claim(session: Session, asking: Asking) -> Claim | None:
    """The annotator's oldest running lease on a question that they haven't answered; none of a set that rests."""
    row = brief(session, _held(*_filters(asking)), asking._asdict()).first()
    return None if row is None else Claim._make(row)._replace(order_shown=tuple(row.order_shown))


def open_sets(session: Session, asking: Asking) -> list[OpenSet]:
    """The sets that ask this annotator and have open questions, in their order."""
    found = brief(session, _sets(*_filters(asking)), asking._asdict())
    sets = [OpenSet(row.id, row.kind, Rules.model_validate(row.rules)) for row in found]
    return [one for one in sets if one.rules.who is None or asking.annotator in one.rules.who]


def turns_taken(session: Session, annotator_id: str, set_id: str) -> int:
    """The number of the annotator's newest question in this set; 0 before the first."""
    return brief(session, _TURNS, {"annotator": annotator_id, "set_id": set_id}).scalar() or 0


def next_question(session: Session, among: OpenSet, asking: Asking, taken: int, random_bits: RandomBits) -> str | None:
    """The id of the question of this set that the annotator gets next; None when nothing is left for them.

    Check questions and repeats stand among others: where no other is left, none of them is asked.

    Args:
        taken:       the annotator's turns in this set so far.
        random_bits: asked only if the set's check questions are scheduled.
    """
    values, rules = asking._asdict() | {"set_id": among.id}, among.rules
    fewest = rules.order == "fewest"
    if rules.gold == "interleaved":
        return _first(session, fewest, None, values)
    plain = _first(session, fewest, False, values)
    if plain is None:
        return None
    if _gold_is_due(session, rules, values, taken, random_bits):
        gold = brief(session, _next(False, True), values).scalars().all()
        if gold:
            return str(gold[below(len(gold), random_bits)])
    if among.kind != Kind.EDIT and below(CHANCE, random_bits) < round(rules.repeat_rate * CHANCE):
        return _repeat(session, values, taken, random_bits) or plain
    return plain


def _first(session: Session, fewest: bool, gold: bool | None, values: Mapping[str, Any]) -> str | None:
    found: str | None = brief(session, _next(fewest, gold), values).scalar()
    return found


def below(n: int, random_bits: RandomBits) -> int:
    """An even draw from 0..n-1: bits that overshoot are thrown away."""
    drawn = n
    while drawn >= n:
        drawn = random_bits((n - 1).bit_length()) if n > 1 else 0
    return drawn


# ---- check questions ----


def _gold_is_due(session: Session, rules: Rules, values: Mapping[str, Any], taken: int, random_bits: RandomBits) -> bool:
    """Whether the next turn is a check question's: of a block of turns just the wanted number are, and which ones is drawn as they come.

    With k checks still to come in the m turns that the block still has, this turn is one with probability k / m.
    """
    start, size, rate = block_of(rules, taken)
    wanted = round(rate * size)
    if not wanted:
        return False
    had = brief(session, _GOLD_HAD, {**values, "start": start}).scalar() or 0
    return below(start + size - taken, random_bits) < wanted - had


def block_of(rules: Rules, taken: int) -> tuple[int, int, float]:
    """Of the block that turn `taken` (from 0) lies in: its first turn, its length, and the share of checks in it."""
    if taken < rules.gold_first_n:
        return 0, rules.gold_first_n, rules.gold_first
    return taken - (taken - rules.gold_first_n) % GOLD_BLOCK, GOLD_BLOCK, rules.gold_later


# ---- repeats ----


def _repeat(session: Session, values: Mapping[str, Any], taken: int, random_bits: RandomBits) -> str | None:
    """A question that the annotator answered a while ago, as a new question for them alone; None if there is none."""
    rows = session.execute(_REPEATABLE, {**values, "from": taken - REPEAT_GAP - REPEAT_CHOICE, "to": taken - REPEAT_GAP}).scalars().all()
    ids = {content_id("repeat", question, values["annotator"]): question for question in rows}
    known = set(session.scalars(select(Question.id).where(Question.id.in_(ids))))
    left = [repeat for repeat in ids if repeat not in known]
    if not left:
        return None
    chosen = left[below(len(left), random_bits)]
    _add_repeat(session, chosen, session.get_one(Question, ids[chosen]), values["annotator"], values["at"])
    return chosen


def _add_repeat(session: Session, repeat_id: str, question: Question, annotator_id: str, at: datetime) -> None:
    session.add(
        Question(
            id=repeat_id, round_id=question.round_id, set_id=question.set_id, kind=question.kind, prompt_id=question.prompt_id, gold=None,
            repeat_of=question.id, only_for=annotator_id, overlap=1, position=question.position, facts={"why": "repeat"}, created_at=at,
        )
    )  # fmt: skip
    session.flush()
    samples = session.execute(select(QuestionSample.position, QuestionSample.sample_id).where(QuestionSample.question_id == question.id)).all()
    session.execute(insert(QuestionSample), [{"question_id": repeat_id, "position": place, "sample_id": sample} for place, sample in samples])


# ---- queries ----


def _filters(asking: Asking) -> tuple[bool, bool, bool]:
    return asking.set_id is not None, asking.round is not None, asking.kind is not None


def _asked(by_set: bool, by_round: bool, by_kind: bool) -> list[ColumnElement[bool]]:
    """Open sets; only the one called `set_id`, those of `round`, those of `kind`."""
    conditions = [QuestionSet.id == bindparam("set_id"), QuestionSet.round_id == bindparam("round"), QuestionSet.kind == bindparam("kind")]
    wanted = [condition for condition, asked in zip(conditions, (by_set, by_round, by_kind), strict=True) if asked]
    return [QuestionSet.state == SetState.OPEN.value, *wanted]


@cache
def _held(by_set: bool, by_round: bool, by_kind: bool) -> "Select[*tuple[Any, ...]]":
    query = select(*_CLAIM).join(Question, Question.id == Assignment.question_id).join(QuestionSet, QuestionSet.id == Question.set_id)
    mine = (Assignment.annotator_id == bindparam("annotator"), Assignment.expires_at > bindparam("at"))
    query = query.where(*mine, UNANSWERED, ~ON_SCREEN, ~_answered_by(Assignment.question_id, bindparam("annotator")), *_asked(by_set, by_round, by_kind))
    return query.order_by(Assignment.claimed_at, Assignment.id).limit(1)


@cache
def _sets(by_set: bool, by_round: bool, by_kind: bool) -> "Select[str, str, dict[str, Any]]":
    some = select(Question.id).where(Question.set_id == QuestionSet.id, OPEN).exists()
    return (
        select(QuestionSet.id, QuestionSet.kind, QuestionSet.rules)
        .where(some, *_asked(by_set, by_round, by_kind))
        .order_by(QuestionSet.position, QuestionSet.id)
    )


@cache
def _next(fewest: bool, gold: bool | None) -> "Select[str]":
    """Questions of a set that need an answer at `at` and that `annotator` neither answered nor holds; the first, or some checks to draw from."""
    query = select(Question.id).where(Question.set_id == bindparam("set_id"), OPEN, *may_answer())
    if gold is not None:
        query = query.where(Question.gold.is_not(None) if gold else Question.gold.is_(None))
    query = query.where(~_held_by_me(), Question.answers + _others_leases() < Question.overlap)
    order = [Question.answers, Question.position, Question.id] if fewest else [Question.position, Question.id]
    return query.order_by(*order).limit(GOLD_CHOICE if gold else 1)


def may_answer() -> list[ColumnElement[bool]]:
    """Whether `annotator` may be asked the question: it is for them, and they haven't answered it in any way, a skip included."""
    return [or_(Question.only_for.is_(None), Question.only_for == bindparam("annotator")), ~_answered_by(Question.id, bindparam("annotator"))]


def _held_by_me() -> ColumnElement[bool]:
    mine = (Assignment.question_id == Question.id, Assignment.annotator_id == bindparam("annotator"))
    return select(Assignment.id).where(*mine, or_(Assignment.expires_at > bindparam("at"), ON_SCREEN)).exists()


def _others_leases() -> Any:
    running = (Assignment.question_id == Question.id, Assignment.annotator_id != bindparam("annotator"), Assignment.expires_at > bindparam("at"))
    return select(func.count(Assignment.id)).where(*running, UNANSWERED, ~_answered_by(Assignment.question_id, Assignment.annotator_id)).scalar_subquery()


def _answered_by(question_id: Any, annotator_id: Any) -> ColumnElement[bool]:
    given = aliased(Judgement)
    return select(given.id).where(given.question_id == question_id, given.annotator_id == annotator_id).exists()


_CLAIM: tuple[Any, ...] = (  # as a Claim has them
    Assignment.id, Assignment.question_id, Assignment.annotator_id, Assignment.order_shown, Assignment.claimed_at, Assignment.expires_at, Assignment.set_id,
    Question.kind, Assignment.draft,
)  # fmt: skip
ON_SCREEN = Assignment.id.in_(bindparam("besides", expanding=True))
OPEN = text("question.open")  # as the partial indexes have it: SQLite doesn't see that `open = 1` says the same
UNANSWERED = text("NOT assignment.answered")
_MINE = (Assignment.annotator_id == bindparam("annotator"), Assignment.set_id == bindparam("set_id"))
_TURNS = select(func.max(Assignment.number)).where(*_MINE)
_GOLD_HAD = (
    select(func.count())
    .select_from(Assignment)
    .join(Question, Question.id == Assignment.question_id)
    .where(*_MINE, Assignment.number > bindparam("start"), Question.gold.is_not(None))
)
_REPEATABLE = (
    select(Question.id)
    .join(Assignment, Assignment.question_id == Question.id)
    .join(Judgement, (Judgement.question_id == Question.id) & (Judgement.annotator_id == Assignment.annotator_id))
    .where(
        *_MINE, Assignment.number > bindparam("from"), Assignment.number <= bindparam("to"), Question.gold.is_(None), Question.repeat_of.is_(None), is_answer()
    )
    .order_by(Assignment.number, Question.id)
)
