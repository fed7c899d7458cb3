"""Quality control: how far annotators agree, and whose word counts how much.

A judgement weighs trust = 2p - 1, with p how often its annotator names the better of two typical responses (a tie is half right), at its posterior mean
under the joint model of everything said (joint.py). If a true label is flipped with probability 1 - p, its expected pull on a loss that is odd in the label
is 2p - 1 of the true label's: so a coin weighs (almost) nothing, someone who sides with the left or ties come what may hardly more, a certain annotator 1,
and nobody's word is reversed.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import Field

from truing.config import Settings
from truing.feedback.answers import gold_of, is_right
from truing.feedback.joint import Skill, fit
from truing.feedback.joint_model import Priors
from truing.feedback.said import Log, Said, Vote, Who, by_annotator, evidence_of, left_of, ratings_of, read_log, votes_of
from truing.feedback.second_opinion import second_opinion as ask_others
from truing.stats import Interval, alpha_interval, bootstrap_mean, wilson
from truing.store.ids import content_id
from truing.store.project import Project
from truing.store.runs import stage_run
from truing.store.tables import Kind

INTERVALS = ("alpha", "alpha_trusted", "raw_agreement")


class QualitySettings(Settings):
    """How annotators' answers become trust."""

    prior_accuracy: float = Field(
        0.8, gt=0.5, lt=1, description="how often an annotator is expected to name the better of two typical responses before any answer is seen"
    )
    skill_spread: float = Field(0.6, gt=0, description="how unlike annotators may be: standard deviation of the log of their skill")
    guessers: float = Field(0.1, gt=0, lt=1, description="share of annotators expected to answer without looking")
    least_trust: float = Field(0.02, gt=0, le=1, description="weight of an annotator who is no better than a coin")
    trusted: float = Field(0.3, ge=0, le=1, description="trust from which an annotator counts for `alpha_trusted`")


@dataclass(frozen=True)
class AnnotatorQuality:
    """What is known of one annotator; shares lie in [0, 1], nan where there is nothing to go by."""

    id: str
    name: str
    kind: str
    n: int  # judgements that still stand, check questions and repeats included
    trust: float  # weight of their judgements, in (0, 1]
    trust_low: float  # 95 % credible bounds
    trust_high: float
    agreement: float  # with the weighted majority of the others, where there is one; a tie agrees by half. Of pairs, rankings' pairs and thumbs
    agreement_low: float
    agreement_high: float
    agreement_n: int
    gold_right: int
    gold_n: int
    repeat_same: int  # questions asked again and answered alike
    repeat_n: int
    side_bias: float  # share of the left among the judgements of pairs that prefer a side; 0.5 is none
    side_bias_low: float
    side_bias_high: float
    tie_rate: float  # of pairs
    median_active_s: float
    median_reading_s: float


@dataclass(frozen=True)
class Quality:
    """What quality control found. Agreement leaves out check questions and repeats.

    `alpha` is over pairs, its answers A, B and tie; where nobody compared pairs, over the kind with most judgements, as in `alpha_by_kind`: rankings by their
    pairs, ratings by their aspects with ordinal distances, thumbs.
    """

    alpha: Interval  # everyone
    alpha_trusted: Interval  # only annotators at or above `QualitySettings.trusted`
    raw_agreement: Interval  # two annotators gave the same answer; over questions (pairs of a ranking) but ratings
    annotators: tuple[AnnotatorQuality, ...]  # least trusted first
    n_judgements: int
    n_questions: int
    n_skipped: int
    n_both_bad: int
    alpha_by_kind: Mapping[str, Interval] = field(default_factory=dict)
    second_opinion: Mapping[str, Any] | None = None  # see second_opinion.py
    notes: tuple[str, ...] = field(default=())  # what to know before believing the numbers

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: intervals as {"value", "low", "high", "n"}, nan as null."""
        intervals = {name: getattr(self, name)._asdict() for name in INTERVALS}
        rest = {name: getattr(self, name) for name in ("n_judgements", "n_questions", "n_skipped", "n_both_bad", "second_opinion")}
        by_kind = {"alpha_by_kind": {kind: found._asdict() for kind, found in self.alpha_by_kind.items()}}
        plain: dict[str, Any] = _no_nan({**intervals, **rest, **by_kind, "annotators": [asdict(one) for one in self.annotators], "notes": list(self.notes)})
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Quality":
        """The inverse of `as_dict`."""
        full = _nan_back({**plain, "second_opinion": None})
        intervals = {name: Interval(**full[name]) for name in INTERVALS}
        by_kind = {kind: Interval(**found) for kind, found in full["alpha_by_kind"].items()}
        annotators = tuple(AnnotatorQuality(**one) for one in full["annotators"])
        rest = {"alpha_by_kind": by_kind, "annotators": annotators, "notes": tuple(full["notes"]), "second_opinion": plain["second_opinion"]}
        return cls(**(full | intervals | rest))


def measure_quality(
    project: Project, settings: QualitySettings, *, round_ids: Sequence[int] | None, round_id: int | None = None, second_opinion: bool = False
) -> Quality:
    """Judge the judgements.

    Args:
        round_ids:      of these rounds; None: of all, imported ones included.
        round_id:       the round that asks for it.
        second_opinion: ask Dawid-Skene and MACE, too; takes some seconds.
    """
    with project.database.read() as session:
        log = read_log(session, round_ids)
    inputs = {
        "rounds": None if round_ids is None else list(round_ids),
        "settings": settings.model_dump(),
        "second_opinion": second_opinion,
        "log": content_id(*(_no_nan(part) for part in log)),
    }
    with stage_run(project, "quality", inputs, round_id=round_id) as run:
        if not run.answered:
            run.result = assess(log, settings, second_opinion=second_opinion).as_dict()
    return Quality.from_dict(run.result)


def assess(log: Log, settings: QualitySettings, *, second_opinion: bool = False) -> Quality:
    """The same from what was read; the order of judgements doesn't matter. Everyone who judged must be among the people."""
    said, gold = sorted(log.said, key=lambda row: (row.question, row.annotator)), log.gold
    fresh = [row for row in said if row.repeat_of is None]
    plain = [row for row in fresh if row.question not in gold]
    skills = _skills(log, settings)
    trust = {who: max(settings.least_trust, skill.trust) for who, skill in skills.items()}
    votes = [vote for row in plain for vote in votes_of(row)]
    mine, cast, leaning = by_annotator(said), by_annotator(votes), _leaning(votes, trust)
    rows = [_annotator(who, skills[who.id], trust[who.id], mine.get(who.id, []), cast.get(who.id, []), leaning, gold, settings) for who in log.people]
    alphas = _alphas(plain)
    trusted = _alphas([row for row in plain if trust[row.annotator] >= settings.trusted])
    kind = next(iter(alphas), Kind.PAIR.value)
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    return Quality(
        alpha=alphas.get(kind, nothing),
        alpha_trusted=trusted.get(kind, nothing),
        raw_agreement=_raw_agreement(votes),
        annotators=tuple(sorted(rows, key=lambda row: (row.trust, row.id))),
        n_judgements=len(said),
        n_questions=len({row.question for row in said}),
        n_skipped=log.n_skipped,
        n_both_bad=log.n_both_bad,
        alpha_by_kind=alphas,
        second_opinion=ask_others(votes, sorted(trust), trust) if second_opinion else None,
        notes=_notes(said, plain, gold),
    )


def _skills(log: Log, settings: QualitySettings) -> dict[str, Skill]:
    people = [who.id for who in log.people]
    priors = Priors(accuracy=settings.prior_accuracy, skill_sd=settings.skill_spread, guessers=settings.guessers)
    found = fit(evidence_of(log.said, log.gold, people), priors)
    return {who: found.skill_of(who) for who in people}


def _alphas(plain: Sequence[Said]) -> dict[str, Interval]:
    """Kind → Krippendorff's alpha; pairs first, then the others by their number of judgements."""
    by_kind: dict[str, list[Said]] = defaultdict(list)
    for row in plain:
        if row.kind != Kind.EDIT:
            by_kind[row.kind].append(row)
    order = sorted(by_kind, key=lambda kind: (kind != Kind.PAIR, -len(by_kind[kind]), kind))
    return {
        str(kind): alpha_interval([one for row in by_kind[kind] for one in ratings_of(row)], level="ordinal" if kind == Kind.RATING else "nominal", seed=0)
        for kind in order
    }


# ---- what is said of each annotator ----


def _annotator(
    who: Who, skill: Skill, trust: float, mine: Sequence[Said], cast: Sequence[Vote], leaning: Mapping[str, float], gold: Mapping[str, Any],
    settings: QualitySettings,
) -> AnnotatorQuality:  # fmt: skip
    """`mine` and `cast` are this annotator's; `leaning` is everybody's, as `_leaning` has it."""
    right = [is_right(row.kind, gold[row.question], row.answer) for row in mine if row.question in gold]
    again = _again(mine)
    lefts = [left for row in mine if (left := left_of(row)) is not None]
    pairs = [row for row in mine if row.kind == Kind.PAIR]
    agreed, n_agreed = _agreement(cast, trust, leaning)
    agreement, side = wilson(agreed, n_agreed), wilson(sum(lefts), len(lefts))
    return AnnotatorQuality(
        id=who.id, name=who.name, kind=who.kind, n=len(mine),
        trust=trust, trust_low=max(settings.least_trust, skill.low), trust_high=max(settings.least_trust, skill.high),
        agreement=agreement.value, agreement_low=agreement.low, agreement_high=agreement.high, agreement_n=n_agreed,
        gold_right=sum(right), gold_n=len(right), repeat_same=sum(again), repeat_n=len(again),
        side_bias=side.value, side_bias_low=side.low, side_bias_high=side.high,
        tie_rate=sum(row.answer["strength"] == 0 for row in pairs) / len(pairs) if pairs else math.nan,
        median_active_s=_median(row.active_s for row in mine), median_reading_s=_median(row.reading_s for row in mine),
    )  # fmt: skip


def _again(mine: Sequence[Said]) -> list[bool]:
    """Of each question that this annotator was asked again: whether they said the same, by the rules of a check question. Edits are never the same."""
    before = {row.question: row for row in mine}
    asked = [(before[row.repeat_of], row) for row in mine if row.repeat_of in before and row.kind != Kind.EDIT]
    return [is_right(row.kind, gold_of(row.kind, first.answer), row.answer) for first, row in asked]


def _leaning(votes: Iterable[Vote], trust: Mapping[str, float]) -> dict[str, float]:
    """Unit → the votes on it, each times the trust in who cast it, added up."""
    found: dict[str, float] = defaultdict(float)
    for vote in votes:
        found[vote.unit] += vote.choice * trust[vote.annotator]
    return found


def _agreement(cast: Sequence[Vote], trust: float, leaning: Mapping[str, float]) -> tuple[float, int]:
    """How often somebody with these votes sides with the trust-weighted majority of the others, and on how much that has a side.

    The others' majority is everybody's less their own: to add it up anew for each annotator takes annotators times votes.
    """
    own = _leaning(cast, defaultdict(lambda: trust))
    sided = [(vote.choice, others) for vote in cast if abs(others := leaning[vote.unit] - own[vote.unit]) > 1e-9]
    return sum(0.5 if choice == 0 else float(choice * others > 0) for choice, others in sided), len(sided)


def _raw_agreement(votes: Sequence[Vote]) -> Interval:
    """Share of pairs of annotators of one question that answered alike, with a bootstrap over questions."""
    by_unit: dict[str, list[int]] = defaultdict(list)
    for vote in votes:
        by_unit[vote.unit].append(vote.choice)
    alike, pairs = [], []
    for choices in by_unit.values():
        n = len(choices) * (len(choices) - 1) // 2
        if n:
            same = sum(choices.count(choice) * (choices.count(choice) - 1) // 2 for choice in (-1, 0, 1))
            alike.append(same / n)
            pairs.append(float(n))
    return bootstrap_mean(alike, weights=pairs, seed=0)


def _notes(said: Sequence[Said], plain: Sequence[Said], gold: Mapping[str, Any]) -> tuple[str, ...]:
    answered: dict[str, int] = defaultdict(int)
    for row in plain:
        answered[row.question] += 1
    checked = any(row.question in gold for row in said)
    notes = []
    if not said:
        notes.append("There are no judgements yet.")
    elif max(answered.values(), default=0) < 2:
        rest = "." if checked else ", and trust is little more than the prior."
        notes.append("No question was answered by two people, so agreement can't be measured" + rest)
    if said and not checked:
        notes.append("Nobody was asked a check question.")
    return tuple(notes)


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def _no_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _no_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_no_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _nan_back(value: Any) -> Any:
    """Nulls are nans again: in what `from_dict` passes here nothing else is null."""
    if isinstance(value, Mapping):
        return {key: _nan_back(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_nan_back(inner) for inner in value]
    return math.nan if value is None else value
