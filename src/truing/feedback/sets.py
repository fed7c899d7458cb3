"""Sets of questions: what is asked, under which guideline, by which rules; how far they are, and whether they are asked at all."""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator
from sqlalchemy import bindparam, case, func, insert, select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.errors import UserError
from truing.feedback.answers import FLAGS, check_answer, gold_of
from truing.feedback.checks import CHECK_AUTHOR, check_questions
from truing.feedback.pairs import Ask, groups_of, interleave, pairs_of, round_robin
from truing.store.database import hold
from truing.store.ids import content_id, seed_from
from truing.store.judgements import batches, count_answers
from truing.store.project import Project
from truing.store.tables import Annotator, Assignment, Guideline, Kind, Prompt, Question, QuestionSample, QuestionSet, Sample, SetState, Split

EVERYBODY = 1_000_000  # the overlap of a check question: nobody is one too many
LONGEST_NAME = 120  # characters
LONGEST_GUIDELINE = 50_000


class Aspect(Settings):
    """One thing that a rating is about."""

    name: str = Field(min_length=1, max_length=80, description="its key in the answer, such as warmth")
    ask: str = Field("", max_length=400, description="the question as the annotator reads it")
    points: dict[str, str] = Field(default_factory=dict, description='what single points mean: {"1": "cold", "5": "as a friend would say it"}')


class Rules(Settings):
    """How the questions of a set are asked."""

    overlap: int = Field(2, ge=1, le=1000, description="annotators who answer each question")
    gold: Literal["scheduled", "interleaved"] = Field("scheduled", description="check questions come to each annotator at a rate, or in the order of the set")
    gold_first: float = Field(0.08, ge=0, le=0.5, description="check questions as a share of an annotator's first questions in the set")
    gold_first_n: int = Field(50, ge=0, description="how many questions are the first ones")
    gold_later: float = Field(0.03, ge=0, le=0.5, description="check questions as a share of those after")
    repeat_rate: float = Field(
        0.03, ge=0, le=0.5, description="share of an annotator's questions that they have answered before, to see whether they agree with themselves"
    )
    order: Literal["listed", "random", "fewest"] = Field("listed", description="as listed, in an order drawn once, or those with the fewest answers first")
    lease_minutes: float = Field(30.0, gt=0, le=7 * 24 * 60, description="minutes for which a question is lent to an annotator")
    who: list[str] | None = Field(None, description="ids of the annotators who are asked; none: everyone")
    aspects: list[Aspect] = Field([Aspect(name="overall", ask="How good is it?")], min_length=1, max_length=12, description="what is rated")
    scale: Literal[5, 7] = Field(5, description="the highest rating")
    flags: list[str] = Field(list(FLAGS), max_length=20, description="what may be wrong with a question, beside the answer")
    samples_per_question: int = Field(4, ge=2, le=9, description="responses in a ranking")
    completion_url: str | None = Field(None, pattern=r"^https?://", max_length=2000, description="where crowd workers go when nothing is left; none: nowhere")

    @field_validator("aspects", "flags")
    @classmethod
    def _each_once(cls, value: list[Any]) -> list[Any]:
        names = [one.name if isinstance(one, Aspect) else one for one in value]
        if len(set(names)) < len(names) or not all(name.strip() and len(name) <= 80 for name in names):
            raise ValueError("each needs a name of its own, of at most 80 characters")
        return value

    def check(self, kind: str, answer: Any, n_samples: int, *, original: str | None = None) -> dict[str, Any]:
        """The answer, if these rules allow it; see `check_answer`."""
        aspects = [aspect.name for aspect in self.aspects] if kind == Kind.RATING else None
        return check_answer(kind, answer, n_samples, aspects=aspects, scale=self.scale, flags=self.flags, original=original)


class SetReport(NamedTuple):
    """What came of a new set."""

    id: str
    questions: int  # check questions not counted
    gold: int
    passed_over: dict[str, int]  # samples that no question is about, by reason


class SetSummary(NamedTuple):
    """How far a set is. Check questions and repeats are not counted among its questions and answers."""

    id: str
    name: str
    kind: str
    state: str
    round_id: int | None
    questions: int
    answered: int  # answers in, of those wanted
    wanted: int
    judgements: int  # all answers that count, those to check questions and repeats included
    people: int  # who have been lent a question


# ---- making a set ----


def create_set(
    project: Project,
    *,
    name: str,
    kind: str,
    guideline: str,
    rules: Rules,
    batch: str | None = None,
    sample_ids: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    checks: int = 0,
    seed: int,
    round_id: int | None = None,
    at: datetime,
) -> SetReport:
    """Ask about the samples of a sampling batch, or about these samples. See `create_set_in`."""
    with project.database.write() as session:
        return create_set_in(
            session, name=name, kind=kind, guideline=guideline, rules=rules, batch=batch, sample_ids=sample_ids, split=split, limit=limit,
            checks=checks, seed=seed, round_id=round_id, at=at,
        )  # fmt: skip


def create_set_in(
    session: Session,
    *,
    name: str,
    kind: str,
    guideline: str,
    rules: Rules,
    batch: str | None = None,
    sample_ids: Sequence[str] | None = None,
    split: str | None = None,
    limit: int | None = None,
    checks: int = 0,
    seed: int,
    round_id: int | None = None,
    at: datetime,
) -> SetReport:
    """Make a set: pairs of different texts, groups to rank, or one question for each sample; each prompt is asked about once before any is twice.

    Args:
        name:       what annotators and managers call it; no other set has it.
        batch:      the sampling batch or import whose samples are asked about; or
        sample_ids: these.
        split:      only prompts of this split; None: both.
        limit:      at most this many questions.
        checks:     at most this many check questions, whose answer is known by construction; for pairs of a batch.
        seed:       draws the pairs, which of two is A, and the order if it is "random".

    Raises:
        UserError: the name is taken, there is nothing to ask about, or what is asked for doesn't fit together.
    """
    row = _new_set(session, name, Kind(kind), rules, round_id, seed, at)
    samples = _samples(session, batch, sample_ids, split)
    by_prompt, passed_over = _different(samples)
    asks = _asks(row.kind, rules, by_prompt, seed)
    if rules.order == "random":
        random.Random(seed_from("order of a set", seed)).shuffle(asks)
    asks = asks[:limit]
    used = {sample.id for ask in asks for sample in ask.samples}
    passed_over["not needed"] = sum(sample.id not in used for of_prompt in by_prompt.values() for sample in of_prompt)
    if not asks:
        fix = "draw or bring more samples; a pair and a ranking need two different responses to one prompt"
        raise UserError(f"there is nothing to ask about: {len(samples)} samples give no {row.kind} question", fix=fix)
    gold = _checks(session, row.kind, batch, round_id, seed, checks)
    session.add(row)
    session.flush()
    set_guideline(session, row.id, guideline, at)
    order = interleave([asks, gold], random.Random(seed_from("checks of a set", seed)))
    overlaps = [EVERYBODY if ask.gold else rules.overlap for ask in order]
    add_questions(session, row, [(ask.id(row.id, row.kind), ask) for ask in order], overlaps, at)
    return SetReport(row.id, len(asks), len(gold), {reason: n for reason, n in passed_over.items() if n})


def _new_set(session: Session, name: str, kind: Kind, rules: Rules, round_id: int | None, seed: int, at: datetime) -> QuestionSet:
    hold(session, QuestionSet)
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not _can_be_stored(name):
        raise UserError("a set of questions needs a name", fix=f"give it one of at most {LONGEST_NAME} characters")
    if session.scalars(select(QuestionSet.id).where(QuestionSet.name == name)).first() is not None:
        raise UserError(f"there is a set called {name!r} already", fix="choose another name")
    strangers = set(rules.who or ()) - set(session.scalars(select(Annotator.id).where(Annotator.id.in_(rules.who or ()))))
    if strangers:
        raise UserError(f"there is no annotator {sorted(strangers)[0]}", fix="choose among the people of this project")
    return new_set_row(session, content_id("question set", name, seed, at.isoformat()), name, kind, rules, round_id, at)


def new_set_row(session: Session, set_id: str, name: str, kind: Kind, rules: Rules, round_id: int | None, at: datetime) -> QuestionSet:
    """An open set that comes after all others; not yet added to the session."""
    last = session.scalar(select(func.coalesce(func.max(QuestionSet.position), -1))) or 0
    return QuestionSet(
        id=set_id, name=name, kind=kind, round_id=round_id, state=SetState.OPEN, rules=rules.model_dump(mode="json"), position=last + 1, created_at=at
    )


def _samples(session: Session, batch: str | None, sample_ids: Sequence[str] | None, split: str | None) -> list[Sample]:
    """The samples to ask about, those of a batch in the order of their prompts."""
    if (batch is None) == (sample_ids is None):
        raise UserError("a set is about the samples of a batch, or about a list of samples", fix="name one of the two")
    query = select(Sample).join(Prompt)
    if split is not None:
        query = query.where(Prompt.split == Split(split))
    if batch is not None:
        rows = session.scalars(query.where(Sample.batch == batch).order_by(Prompt.position, Prompt.id, Sample.position, Sample.id))
        return [row for row in rows if row.author != CHECK_AUTHOR]
    wanted = list(dict.fromkeys(sample_ids or ()))
    known = {sample for ids in batches(wanted) for sample in session.scalars(select(Sample.id).where(Sample.id.in_(ids)))}
    if set(wanted) - known:
        raise UserError(f"there is no sample {sorted(set(wanted) - known)[0]}", fix="list samples that are in the store")
    found = {row.id: row for ids in batches(wanted) for row in session.scalars(query.where(Sample.id.in_(ids)))}
    return [found[sample] for sample in wanted if sample in found]


def _different(samples: Iterable[Sample]) -> tuple[dict[str, list[Sample]], dict[str, int]]:
    """Prompt → its samples of different texts; and how many were passed over."""
    by_prompt: dict[str, list[Sample]] = {}
    texts: set[tuple[str, str]] = set()
    passed_over = {"blank": 0, "same text": 0}
    for sample in samples:
        text = sample.text.strip()
        if not text:
            passed_over["blank"] += 1
        elif (sample.prompt_id, text) in texts:
            passed_over["same text"] += 1
        else:
            texts.add((sample.prompt_id, text))
            by_prompt.setdefault(sample.prompt_id, []).append(sample)
    return by_prompt, passed_over


def _asks(kind: str, rules: Rules, by_prompt: Mapping[str, list[Sample]], seed: int) -> list[Ask]:
    groups: dict[str, Sequence[tuple[Sample, ...]]] = {}
    for prompt, samples in by_prompt.items():
        if kind == Kind.PAIR:
            groups[prompt] = pairs_of(samples, seed_from("pairs of a set", seed, prompt))
        elif kind == Kind.RANKING:
            groups[prompt] = groups_of(samples, rules.samples_per_question, seed_from("groups of a set", seed, prompt))
        else:
            groups[prompt] = [(sample,) for sample in samples]
    return round_robin(groups, None, "set")


def _checks(session: Session, kind: str, batch: str | None, round_id: int | None, seed: int, n: int) -> list[Ask]:
    if not n:
        return []
    if kind != Kind.PAIR or batch is None:
        raise UserError(
            "check questions are made for pairs of a batch alone", fix="ask for none, and mark questions whose right answer you know when the set is there"
        )
    return check_questions(session, batch, round_id, seed, n)


def add_questions(session: Session, row: QuestionSet, asks: Sequence[tuple[str, Ask]], overlaps: Sequence[int], at: datetime) -> None:
    """Add these questions (id, what is asked) to a set, in their order, after all that the store has; and the samples of checks."""
    made = {sample.id: sample for _, ask in asks for sample in ask.samples if sample.author == CHECK_AUTHOR}
    known = {found for ids in batches(sorted(made)) for found in session.scalars(select(Sample.id).where(Sample.id.in_(ids)))}
    session.add_all(sample for sample_id, sample in made.items() if sample_id not in known)
    session.flush()
    start = 1 + (session.scalar(select(func.coalesce(func.max(Question.position), -1))) or 0)
    questions = [
        {"id": question, "round_id": row.round_id, "set_id": row.id, "kind": row.kind, "prompt_id": ask.prompt_id, "gold": ask.gold, "overlap": overlap,
         "position": start + place, "facts": {"why": ask.why}, "created_at": at}
        for place, ((question, ask), overlap) in enumerate(zip(asks, overlaps, strict=True))
    ]  # fmt: skip
    places = [{"question_id": question, "position": i, "sample_id": sample.id} for question, ask in asks for i, sample in enumerate(ask.samples)]
    if questions:
        session.execute(insert(Question), questions)
        session.execute(insert(QuestionSample), places)


# ---- what becomes of it ----


def set_state(project: Project, set_id: str, state: str) -> None:
    """Open, pause or archive a set. What is lent of it may still be answered.

    Raises:
        UserError: no such set.
    """
    with project.database.write() as session:
        set_of(session, set_id).state = SetState(state)


def new_guideline(project: Project, set_id: str, text: str, at: datetime) -> int:
    """Tell annotators something else from now on; returns the version, which is a new one if the text is.

    Raises:
        UserError: no such set, or no text.
    """
    with project.database.write() as session:
        return set_guideline(session, set_of(session, set_id).id, text, at)


def set_guideline(session: Session, set_id: str, text: str, at: datetime) -> int:
    """`new_guideline` in a caller's transaction."""
    if not text.strip() or len(text) > LONGEST_GUIDELINE or not _can_be_stored(text):
        raise UserError("annotators need a guideline", fix=f"say in at most {LONGEST_GUIDELINE} characters what makes one answer better than another")
    newest = newest_guideline(session, set_id)
    if newest is not None and newest.text == text:
        return newest.version
    version = 1 if newest is None else newest.version + 1
    session.add(Guideline(set_id=set_id, version=version, text=text, created_at=at))
    session.flush()
    return version


def newest_guideline(session: Session, set_id: str | None) -> Guideline | None:
    """What annotators of a set are told at present."""
    return session.scalars(_NEWEST_GUIDELINE, {"set_id": set_id}).first()


_NEWEST_GUIDELINE = select(Guideline).where(Guideline.set_id == bindparam("set_id")).order_by(Guideline.version.desc()).limit(1)


def add_gold(project: Project, set_id: str, question_id: str, answer: Mapping[str, Any] | None) -> None:
    """Make a question of the set a check question with this right answer; None makes it a plain one again.

    Raises:
        UserError: the set has no such question, or this is no answer to it.
    """
    with project.database.write() as session:
        rules = rules_of(set_of(session, set_id))
        question = session.get(Question, question_id)
        if question is None or question.set_id != set_id or question.repeat_of is not None:
            raise UserError(f"there is no question {question_id} in this set", fix="choose one of the set's questions")
        if answer is None:
            question.gold, question.overlap = None, rules.overlap
        else:
            n = session.scalar(select(func.count()).where(QuestionSample.question_id == question_id)) or 0
            question.gold = gold_of(question.kind, rules.check(question.kind, answer, n))
            question.overlap = EVERYBODY if rules.gold == "scheduled" else question.overlap
        count_answers(session, [question_id])


def set_of(session: Session, set_id: str) -> QuestionSet:
    """A set of questions.

    Raises:
        UserError: there is none with this id.
    """
    found = session.get(QuestionSet, set_id)
    if found is None:
        raise UserError(f"there is no set of questions {set_id}", fix="choose one of the project's sets")
    return found


def rules_of(row: QuestionSet) -> Rules:
    """The rules of a set."""
    return Rules.model_validate(row.rules)


def sets_of(session: Session) -> list[SetSummary]:
    """All sets in the order in which they are asked, and how far each is."""
    plain = Question.gold.is_(None) & Question.repeat_of.is_(None)
    answered = case((Question.answers < Question.overlap, Question.answers), else_=Question.overlap)
    sums = [func.coalesce(one, 0) for one in (func.sum(answered).filter(plain), func.sum(Question.overlap).filter(plain), func.sum(Question.answers))]
    query = select(Question.set_id, func.count().filter(plain), *sums).where(Question.set_id.is_not(None)).group_by(Question.set_id)
    numbers = {row[0]: tuple(map(int, row[1:])) for row in session.execute(query)}
    people = dict(session.execute(select(Assignment.set_id, func.count(Assignment.annotator_id.distinct())).group_by(Assignment.set_id)).all())
    rows = session.scalars(select(QuestionSet).order_by(QuestionSet.position, QuestionSet.id))
    return [_summary(row, numbers.get(row.id, (0, 0, 0, 0)), people.get(row.id, 0)) for row in rows]


def _summary(row: QuestionSet, numbers: Sequence[int], people: int) -> SetSummary:
    questions, answered, wanted, judgements = numbers
    return SetSummary(row.id, row.name, row.kind, row.state, row.round_id, questions, answered, wanted, judgements, people)


def _can_be_stored(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
