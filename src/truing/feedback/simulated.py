"""A crowd of simulated annotators, who come through the same door as people and live on a clock of their own.

Each has a taste (the population's, with a spread of their own), a noise, a width of ties and a pace; a few are spoilers with a vice. All
that happens to them is drawn from (seed, annotator, question), and each moment follows from the one stored before it: a crowd that was
killed half way goes on to the same rows, ids and times.
"""

import heapq
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.console import track
from truing.errors import UserError
from truing.feedback.answers import answer_from_screen
from truing.feedback.assignment import Work, claim_in, submit_in
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.questions import FeedbackSettings
from truing.feedback.taste import POPULATION, features, utility
from truing.store.ids import content_id, seed_from
from truing.store.judgements import current_judgements
from truing.store.project import Project
from truing.store.runs import stage_run
from truing.store.tables import Annotator, AnnotatorKind, Guideline, Judgement, Kind, Prompt, Question, QuestionSample, Round, Sample

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)  # the simulated morning of round 0; each round has a day of its own
WORDS_A_MINUTE = 238  # silent reading of non-fiction (Brysbaert 2019, doi:10.1016/j.jml.2019.104047)
VICES = ("random", "left", "ties")  # clicks anywhere, fast; always the left; calls nearly everything a tie
CHECK_LOGPROB = -2.9  # nats per token of half an answer under another's prompt: mean of 40 measured on the default model
STRENGTHS = (1.5, 3.5)  # utility at which a preference becomes one of strength 2, and of strength 3
STEPS_A_TRANSACTION = 50
NAMES = (
    "Ada", "Bilal", "Chiara", "Dmitri", "Esi", "Farah", "Goran", "Hana", "Ivo", "Juno", "Kemal", "Lena",
    "Marta", "Nuru", "Oona", "Pavel", "Qing", "Rosa", "Sami", "Tove", "Umar", "Vera", "Wren", "Yara",
)  # fmt: skip


class CrowdSettings(Settings):
    """The simulated annotators: how many, how alike in taste, how careful."""

    annotators: int = Field(12, ge=1, description="simulated annotators")
    spoilers: int = Field(3, ge=0, description="how many of them are careless or biased: a random clicker, one always left, one who ties")
    taste_spread: float = Field(0.25, ge=0, description="standard deviation of an annotator's weights around the population's, as a share of them")
    noise: float = Field(0.5, ge=0, description="scale of the logistic noise on the utility difference, in utility units")
    tie_width: float = Field(1.0, ge=0, description="utility difference below which it is a tie, in utility units")


class Text(NamedTuple):
    """What an annotator sees of one sample, measured."""

    features: dict[str, float]
    words: int


class Shown(NamedTuple):
    """A question, measured: the words of its prompt, and its responses by position."""

    prompt_words: int
    texts: tuple[Text, ...]


def annotate_simulated(project: Project, settings: CrowdSettings, *, round_id: int | None, seed: int, feedback: FeedbackSettings) -> dict[str, Any]:
    """Let a simulated crowd answer the pair questions of a round until none is left.

    Args:
        round_id: whose questions; None: those of every round and of none.
        seed:     of the crowd: the same seed brings the same people, also in a later round.
        feedback: for the lease.

    Returns:
        {"judgements": given by this crowd, "annotators": ids, "spoilers": ids of the careless and biased ones}.

    Raises:
        UserError: the round has no pair questions, or a sample lacks `base_logprob`.
    """
    inputs: dict[str, Any] = {"round": round_id, "seed": seed, "settings": settings.model_dump(), "feedback": feedback.model_dump()}
    with project.database.read() as session:
        shown = _shown(session, round_id)
        day = session.scalar(select(Round.number).where(Round.id == round_id)) or 0
    if not shown:
        where = f" in round {round_id}" if round_id else ""
        raise UserError(f"there is nothing to annotate: no pair questions{where}", fix="start with `truing sample`, or `truing round run`")
    inputs["questions"] = content_id(sorted(shown))
    with stage_run(project, "annotate", inputs, round_id=round_id) as run:
        if not run.answered:
            with project.database.write() as session:
                crowd = [_settle(session, person) for person in make_crowd(settings, seed)]
            _work(project, crowd, shown, feedback, round_id=round_id, seed=seed, start=START + timedelta(days=day))
            with project.database.read() as session:
                given = [row for row in current_judgements(session, shown) if row.annotator_id in {person.id for person in crowd}]
            run.result = {
                "judgements": len(given),
                "annotators": [person.id for person in crowd],
                "spoilers": [person.id for person in crowd if person.facts["vice"]],
            }
    return run.result


# ---- the people ----


def make_crowd(settings: CrowdSettings, seed: int) -> list[Annotator]:
    """The annotators of a seed; their `facts` are all there is to know about them. Which ones are spoilers is drawn."""
    draw = random.Random(seed_from("crowd", seed))
    vices = [VICES[i % len(VICES)] if i < settings.spoilers else None for i in range(settings.annotators)]
    draw.shuffle(vices)
    names = [name if lap == 0 else f"{name} {lap + 1}" for lap in range(settings.annotators // len(NAMES) + 1) for name in NAMES]
    return [_person(settings, seed, name, vice) for name, vice in zip(names, vices, strict=False)]


def _person(settings: CrowdSettings, seed: int, name: str, vice: str | None) -> Annotator:
    identity = content_id("annotator", name, seed)[:32]
    draw = random.Random(seed_from("person", identity, seed))
    facts = {
        "seed": seed,
        "vice": vice,
        "weights": {key: weight * (1 + settings.taste_spread * draw.gauss(0, 1)) for key, weight in POPULATION.items()},
        "noise": settings.noise * math.exp(draw.gauss(0, 0.2)),
        "tie_width": settings.tie_width * math.exp(draw.gauss(0, 0.3)),
        "pace": math.exp(draw.gauss(0, 0.2)) * (0.15 if vice == "random" else 1.0),
        "rest_s": 35.0 if vice == "random" else 8.0,  # quick with an answer, slow to come back
    }
    return Annotator(id=identity, name=name, kind=AnnotatorKind.SIMULATED, role="annotator", password_hash=None, active=True, facts=facts, created_at=START)


def _settle(session: Session, person: Annotator) -> Annotator:
    """The stored annotator, added if new. A name that another crowd has taken gets the seed behind it.

    Raises:
        UserError: the same seed met other settings.
    """
    known = session.get(Annotator, person.id)
    if known is not None:
        if known.facts != person.facts:
            raise UserError(
                f"the crowd of seed {person.facts['seed']} was made with other [crowd] settings, and people don't change",
                fix="put those settings back, or choose another seed",
            )
        return known
    if session.scalar(select(func.count()).select_from(Annotator).where(Annotator.name == person.name)):
        person.name = f"{person.name} of crowd {person.facts['seed']}"
    session.add(person)
    session.flush()
    return person


def judge(facts: Mapping[str, Any], shown: Shown, order_shown: Sequence[int], draw: random.Random) -> dict[str, Any]:
    """What an annotator answers to a pair.

    An honest one prefers A when u(A) - u(B) + noise > 0, with u their own taste; a difference within their tie width is a tie, and the larger it
    is, the stronger they say it.
    """
    noisy = utility_difference(facts["weights"], shown) + facts["noise"] * _logistic(draw)
    lot, strength = draw.random(), draw.randint(1, 3)
    if facts["vice"] == "random":
        return {"strength": strength if lot < 0.5 else -strength}
    if facts["vice"] == "left":
        return answer_from_screen(strength, order_shown)
    if abs(noisy) <= facts["tie_width"] or (facts["vice"] == "ties" and lot < 0.85):
        return {"strength": 0}
    size = 1 + sum(abs(noisy) >= step for step in STRENGTHS)
    return {"strength": size if noisy > 0 else -size}


def utility_difference(weights: Mapping[str, float], shown: Shown) -> float:
    """How much more A is liked than B, in utility units."""
    a, b = shown.texts
    return utility(a.features, weights) - utility(b.features, weights)


def _logistic(draw: random.Random) -> float:
    p = min(max(draw.random(), 1e-12), 1 - 1e-12)
    return math.log(p / (1 - p))


# ---- their day ----


def _work(
    project: Project,
    crowd: Sequence[Annotator],
    shown: Mapping[str, Shown],
    feedback: FeedbackSettings,
    *,
    round_id: int | None,
    seed: int,
    start: datetime,
) -> None:
    """Whoever is free earliest takes the next question, until nobody finds one.

    A claim and its answer are one step: whether a question is held or answered, it counts the same for the others.
    """
    with project.database.read() as session:
        wanted, states = _states(session, crowd, round_id, seed, start)
        versions: dict[str, int] = dict(session.execute(select(Guideline.set_id, func.max(Guideline.version)).group_by(Guideline.set_id)).all())
    by_id = {person.id: person for person in crowd}
    free = [(moment, person, done) for person, (moment, done) in states.items()]
    heapq.heapify(free)

    def step(session: Session) -> bool:
        at, who, done = heapq.heappop(free)
        person = by_id[who]
        claim_draw = random.Random(seed_from("claim", seed, who, done))
        lent = claim_in(session, who, at=at, random_bits=claim_draw.getrandbits, lease_minutes=feedback.lease_minutes, round_id=round_id, kind=Kind.PAIR)
        if lent is None:
            return False
        draw = random.Random(seed_from("judge", seed, who, lent.question_id))
        seen = shown[_original(session, lent.question_id)]
        spent = _milliseconds(person.facts, seen, draw)
        until = at + timedelta(milliseconds=spent)
        work = Work(at, until, spent, content_id("simulated", seed, who, lent.question_id), versions[lent.set_id])
        submit_in(session, lent.id, judge(person.facts, seen, lent.order_shown, draw), work, annotator_id=who, random_bits=draw.getrandbits)
        heapq.heappush(free, (until + _pause(person, lent.question_id), who, done + 1))
        return True

    def steps() -> Iterator[int]:
        while free:
            with project.database.write() as session:
                given = sum(step(session) for _ in range(STEPS_A_TRANSACTION) if free)
            yield from range(given)

    done = sum(done for _, done in states.values())
    for _ in track(steps(), "annotate", max(wanted, done), done=done):
        pass


def _original(session: Session, question_id: str) -> str:
    """The question itself, or the one that it repeats."""
    return session.get_one(Question, question_id).repeat_of or question_id


def _states(session: Session, crowd: Sequence[Annotator], round_id: int | None, seed: int, start: datetime) -> tuple[int, dict[str, tuple[datetime, int]]]:
    """How many answers the round wants, and for each annotator when they are free next and how many they gave."""
    asked = _asked(round_id)
    wanted = session.scalar(select(func.sum(Question.overlap)).where(asked)) or 0
    rows = session.execute(
        select(Judgement.annotator_id, Judgement.question_id, Judgement.submitted_at).join(Question).where(asked).order_by(Judgement.submitted_at, Judgement.id)
    ).all()
    states = {}
    for person in crowd:
        given = [(moment, question) for who, question, moment in rows if who == person.id]
        if given:
            last, question = given[-1]
            states[person.id] = (last + _pause(person, question), len(given))
        else:
            late = random.Random(seed_from("arrive", seed, person.id, round_id)).randrange(600_000)
            states[person.id] = (start + timedelta(milliseconds=late), 0)
    return wanted, states


def _milliseconds(facts: Mapping[str, Any], shown: Shown, draw: random.Random) -> int:
    """Time at the question: reading it at 238 words a minute and three seconds to decide, at one's own pace."""
    words = shown.prompt_words + sum(text.words for text in shown.texts)
    pace: float = facts["pace"] * math.exp(draw.gauss(0, 0.3))
    return max(300, round((60_000 * words / WORDS_A_MINUTE + 3_000) * pace))


def _pause(person: Annotator, question_id: str) -> timedelta:
    """Rest after a question: two seconds, and more of one's own habit."""
    draw = random.Random(seed_from("pause", person.id, question_id))
    return timedelta(milliseconds=round(2_000 + 1_000 * person.facts["rest_s"] * draw.expovariate(1)))


def _shown(session: Session, round_id: int | None) -> dict[str, Shown]:
    """Every pair question of the round, measured. Each sample is measured once."""
    rows = session.execute(
        select(Question.id, Prompt.text, Sample)
        .join(QuestionSample, QuestionSample.question_id == Question.id)
        .join(Sample, Sample.id == QuestionSample.sample_id)
        .join(Prompt, Prompt.id == Question.prompt_id)
        .where(_asked(round_id))
        .order_by(Question.position, Question.id, QuestionSample.position)
    ).all()
    texts: dict[str, Text] = {}
    found: dict[str, Shown] = {}
    for question, prompt, sample in rows:
        if sample.id not in texts:
            measured = features(prompt, sample.text, finished=sample.finished, base_logprob=_base_logprob(sample))
            texts[sample.id] = Text(measured, len(sample.text.split()))
        so_far = found.get(question, Shown(len(prompt.split()), ()))
        found[question] = so_far._replace(texts=(*so_far.texts, texts[sample.id]))
    return found


def _asked(round_id: int | None) -> ColumnElement[bool]:
    """The pair questions of a round; of all rounds and sets, for None."""
    pair = and_(Question.kind == Kind.PAIR, Question.set_id.is_not(None))
    return pair if round_id is None else and_(pair, Question.round_id == round_id)


def _base_logprob(sample: Sample) -> float:
    if sample.base_logprob is not None:
        return sample.base_logprob
    if sample.author == CHECK_AUTHOR:  # made after sampling, from half of another answer
        return CHECK_LOGPROB
    what = f"sample {sample.id} has no log-probability under the base model, which simulated annotators judge by"
    raise UserError(what, fix="draw the samples with `truing sample`")
