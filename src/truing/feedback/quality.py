"""Quality control: how far annotators agree, and whose word counts how much.

A judgement weighs trust = 2p - 1, with p how often its annotator names the better response (trust.py), at its posterior mean. If a true
label is flipped with probability 1 - p, its expected pull on a loss that is odd in the label is 2p - 1 of the true label's: so a coin
weighs (almost) nothing, a certain annotator 1, and nobody's word is reversed.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.feedback.trust import Posterior, Vote, infer_accuracy
from truing.stats import Interval, alpha_interval, bootstrap_mean, wilson
from truing.store.ids import content_id
from truing.store.judgements import batches, current_judgements
from truing.store.project import Project
from truing.store.runs import stage_run
from truing.store.tables import Annotator, Kind, Prompt, Question, QuestionSample, Sample

WORDS_A_MINUTE = 238  # silent reading of non-fiction (Brysbaert 2019, doi:10.1016/j.jml.2019.104047)


class QualitySettings(Settings):
    """How annotators' answers become trust."""

    prior_accuracy: float = Field(0.8, gt=0.5, lt=1, description="how often an annotator is expected to be right before any answer is seen")
    prior_strength: float = Field(8.0, gt=0, description="how many answers that expectation weighs")
    least_trust: float = Field(0.02, gt=0, le=1, description="weight of an annotator who is no better than a coin")
    trusted: float = Field(0.3, ge=0, le=1, description="trust from which an annotator counts for `alpha_trusted`")


class Who(NamedTuple):
    """An annotator, by name."""

    id: str
    name: str
    kind: str


@dataclass(frozen=True)
class AnnotatorQuality:
    """What is known of one annotator; shares lie in [0, 1], nan where there is nothing to go by."""

    id: str
    name: str
    kind: str
    n: int  # judgements that still stand, check questions included
    trust: float  # weight of their judgements, in (0, 1]
    trust_low: float  # 95 % credible bounds
    trust_high: float
    agreement: float  # with the weighted majority of the others, on the questions where there is one; a tie agrees by half
    agreement_low: float
    agreement_high: float
    agreement_n: int
    gold_right: int
    gold_n: int
    side_bias: float  # share of the left among the judgements that prefer a side; 0.5 is none
    side_bias_low: float
    side_bias_high: float
    tie_rate: float
    median_active_s: float
    median_reading_s: float


@dataclass(frozen=True)
class Quality:
    """What quality control found. `alpha` is over the questions that are no checks, its answers A, B and tie."""

    alpha: Interval  # everyone
    alpha_trusted: Interval  # only annotators at or above `QualitySettings.trusted`
    raw_agreement: Interval  # two annotators of one question gave the same answer; over questions
    annotators: tuple[AnnotatorQuality, ...]  # least trusted first
    n_judgements: int
    n_questions: int
    n_skipped: int
    n_both_bad: int
    notes: tuple[str, ...] = field(default=())  # what to know before believing the numbers

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: intervals as {"value", "low", "high", "n"}, nan as null."""
        intervals = {name: getattr(self, name)._asdict() for name in ("alpha", "alpha_trusted", "raw_agreement")}
        rest = {name: getattr(self, name) for name in ("n_judgements", "n_questions", "n_skipped", "n_both_bad")}
        plain: dict[str, Any] = _no_nan({**intervals, **rest, "annotators": [asdict(one) for one in self.annotators], "notes": list(self.notes)})
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Quality":
        """The inverse of `as_dict`."""
        full = _nan_back(plain)
        intervals = {name: Interval(**full[name]) for name in ("alpha", "alpha_trusted", "raw_agreement")}
        return cls(**(full | intervals | {"annotators": tuple(AnnotatorQuality(**one) for one in full["annotators"]), "notes": tuple(full["notes"])}))


def measure_quality(project: Project, settings: QualitySettings, *, round_ids: Sequence[int] | None, round_id: int | None = None) -> Quality:
    """Judge the judgements to pair questions.

    Args:
        round_ids: of these rounds; None: of all, imported ones included.
        round_id:  the round that asks for it.
    """
    with project.database.read() as session:
        votes, gold, people, counts = _read(session, round_ids)
    log = content_id(_no_nan(votes), gold, counts, _no_nan(people))
    inputs = {"rounds": None if round_ids is None else list(round_ids), "settings": settings.model_dump(), "log": log}
    with stage_run(project, "quality", inputs, round_id=round_id) as run:
        if not run.answered:
            run.result = assess(votes, gold, people, settings, n_skipped=counts["skip"], n_both_bad=counts["both_bad"]).as_dict()
    return Quality.from_dict(run.result)


def assess(
    votes: Sequence[Vote], gold: Mapping[str, int], people: Sequence[Who], settings: QualitySettings, *, n_skipped: int = 0, n_both_bad: int = 0
) -> Quality:
    """The same from plain votes; their order doesn't matter.

    Args:
        votes:  at most one for each annotator and question.
        gold:   check question → its right choice, 1 (A) or -1 (B).
        people: everyone to speak of; those who vote must be among them.
    """
    votes = sorted(votes, key=lambda vote: (vote.question, vote.annotator))
    posteriors = infer_accuracy(votes, gold, [who.id for who in people], prior_accuracy=settings.prior_accuracy, prior_strength=settings.prior_strength)
    trust = {who: _trust(posterior.mean, settings) for who, posterior in posteriors.items()}
    plain = [vote for vote in votes if vote.question not in gold]
    everyone = [(vote.question, vote.annotator, vote.choice) for vote in plain]
    trusted = [rating for rating in everyone if trust[rating[1]] >= settings.trusted]
    rows = [_annotator(who, posteriors[who.id], trust, votes, gold, settings) for who in people]
    return Quality(
        alpha=alpha_interval(everyone, seed=0),
        alpha_trusted=alpha_interval(trusted, seed=0),
        raw_agreement=_raw_agreement(plain),
        annotators=tuple(sorted(rows, key=lambda row: (row.trust, row.id))),
        n_judgements=len(votes),
        n_questions=len({vote.question for vote in votes}),
        n_skipped=n_skipped,
        n_both_bad=n_both_bad,
        notes=_notes(votes, gold),
    )


def _trust(p: float, settings: QualitySettings) -> float:
    return max(settings.least_trust, 2 * p - 1)


# ---- what is said of each annotator ----


def _annotator(
    who: Who, posterior: Posterior, trust: Mapping[str, float], votes: Sequence[Vote], gold: Mapping[str, int], settings: QualitySettings
) -> AnnotatorQuality:
    mine = [vote for vote in votes if vote.annotator == who.id]
    checks = [vote for vote in mine if vote.question in gold]
    sided = [vote for vote in mine if vote.left is not None]
    agreed, n_agreed = _agreement(who.id, trust, votes, gold)
    agreement, side = wilson(agreed, n_agreed), wilson(sum(bool(vote.left) for vote in sided), len(sided))
    low, high = (_trust(bound, settings) for bound in (posterior.low, posterior.high))
    return AnnotatorQuality(
        id=who.id, name=who.name, kind=who.kind, n=len(mine), trust=trust[who.id], trust_low=low, trust_high=high,
        agreement=agreement.value, agreement_low=agreement.low, agreement_high=agreement.high, agreement_n=n_agreed,
        gold_right=sum(vote.choice == gold[vote.question] for vote in checks), gold_n=len(checks),
        side_bias=side.value, side_bias_low=side.low, side_bias_high=side.high,
        tie_rate=sum(vote.choice == 0 for vote in mine) / len(mine) if mine else math.nan,
        median_active_s=_median([vote.active_s for vote in mine]), median_reading_s=_median([vote.reading_s for vote in mine]),
    )  # fmt: skip


def _agreement(who: str, trust: Mapping[str, float], votes: Sequence[Vote], gold: Mapping[str, int]) -> tuple[float, int]:
    """How often they side with the trust-weighted majority of the others, and on how many questions that has a side."""
    others: dict[str, float] = defaultdict(float)
    for vote in votes:
        if vote.annotator != who and vote.question not in gold:
            others[vote.question] += vote.choice * trust[vote.annotator]
    mine = [(vote.choice, others[vote.question]) for vote in votes if vote.annotator == who and abs(others.get(vote.question, 0.0)) > 1e-9]
    return sum(0.5 if choice == 0 else float(choice * majority > 0) for choice, majority in mine), len(mine)


def _raw_agreement(votes: Sequence[Vote]) -> Interval:
    """Share of pairs of annotators of one question that answered alike, with a bootstrap over questions."""
    by_question: dict[str, list[int]] = defaultdict(list)
    for vote in votes:
        by_question[vote.question].append(vote.choice)
    alike, pairs = [], []
    for choices in by_question.values():
        n = len(choices) * (len(choices) - 1) // 2
        if n:
            same = sum(choices.count(choice) * (choices.count(choice) - 1) // 2 for choice in (-1, 0, 1))
            alike.append(same / n)
            pairs.append(float(n))
    return bootstrap_mean(alike, weights=pairs, seed=0)


def _notes(votes: Sequence[Vote], gold: Mapping[str, int]) -> tuple[str, ...]:
    answered: dict[str, int] = defaultdict(int)
    for vote in votes:
        answered[vote.question] += vote.question not in gold
    checked = any(vote.question in gold for vote in votes)
    said = []
    if not votes:
        said.append("There are no judgements of pairs yet.")
    elif max(answered.values(), default=0) < 2:
        said.append(
            "No question was answered by two people, so agreement can't be measured" + ("." if checked else ", and everyone has the trust of the prior.")
        )
    if votes and not checked:
        said.append("Nobody was asked a check question.")
    return tuple(said)


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


# ---- from the store ----


def _read(session: Session, round_ids: Sequence[int] | None) -> tuple[list[Vote], dict[str, int], list[Who], dict[str, int]]:
    """Votes, right answers, the people, and how many skips and both-bads there were."""
    query = select(Question).where(Question.kind == Kind.PAIR).order_by(Question.id)
    questions = {row.id: row for row in session.scalars(query if round_ids is None else query.where(Question.round_id.in_(round_ids)))}
    words = _words(session, list(questions))
    votes, counts, seen = [], {"skip": 0, "both_bad": 0}, set()
    for row in current_judgements(session, questions):
        seen.add(row.annotator_id)
        if "strength" not in row.answer:
            counts["skip" if "skip" in row.answer else "both_bad"] += 1
            continue
        choice = (row.answer["strength"] > 0) - (row.answer["strength"] < 0)
        left = None if choice == 0 else (choice > 0) == (row.order_shown[0] == 0)
        votes.append(Vote(row.question_id, row.annotator_id, choice, left, row.active_ms / 1000, 60 * words[row.question_id] / WORDS_A_MINUTE))
    gold = {row.id: 1 if row.gold["better"] == 0 else -1 for row in questions.values() if row.gold is not None}
    people = [Who(row.id, row.name, row.kind) for row in session.scalars(select(Annotator).order_by(Annotator.id)) if row.id in seen]
    return votes, gold, people, counts


def _words(session: Session, question_ids: Sequence[str]) -> dict[str, int]:
    """Words to read before answering each question."""
    found: dict[str, int] = {}
    for ids in batches(question_ids):
        rows = session.execute(
            select(Question.id, Prompt.text, Sample.text)
            .join(QuestionSample, QuestionSample.question_id == Question.id)
            .join(Sample, Sample.id == QuestionSample.sample_id)
            .join(Prompt, Prompt.id == Question.prompt_id)
            .where(Question.id.in_(ids))
        )
        for question, prompt, response in rows:
            found[question] = found.get(question, len(prompt.split())) + len(response.split())
    return found


def _no_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _no_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _nan_back(value: Any) -> Any:
    """Nulls are nans again; nothing else in a `Quality` is ever null."""
    if isinstance(value, Mapping):
        return {key: _nan_back(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nan_back(inner) for inner in value]
    return math.nan if value is None else value
