"""Where people disagree: the most disputed questions and prompts, and what each set's answers are like.

A dispute is as large as its votes are split and as they are many: entropy in bits times the number of people. Two against two weigh
4 bits, five against five 10, nine against one 4.7. Check questions and repeats are left out, and so are edits, where everybody differs.
"""

import math
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from truing.errors import UserError
from truing.stats import Interval, alpha_interval, bootstrap_mean, wilson
from truing.store.database import hold
from truing.store.ids import uuid7
from truing.store.judgements import batches
from truing.store.project import Project
from truing.store.runs import StageRun, stage_run
from truing.store.tables import Assignment, Judgement, Kind, Question, QuestionSample, QuestionSet

DISPUTES_KEPT, PROMPTS_KEPT = 300, 60
CHUNK = 5000  # rows of the log read at a time
EDGES = tuple(range(0, 64, 4))  # seconds; bins of the time that answers took
RESAMPLES = 300
COUNTED = 2  # a number for what is counted and how: raised with every change, or a run from before it would answer


class Said(NamedTuple):
    """One standing judgement, in the little that is counted of it."""

    question: str
    annotator: str
    prompt: str
    set_id: str
    kind: str
    vote: str | None  # what it says, in a word; None for a skip
    left: bool | None  # whether a pair's judgement prefers the response on the left; None without a side, and where nobody knows the order
    seconds: float


def vote_of(kind: str, answer: Mapping[str, Any]) -> str | None:
    """An answer in a word, such that two people who agree say the same; None for a skip and for an edit."""
    if "skip" in answer or kind == Kind.EDIT:
        return None
    if "both_bad" in answer:
        return "both bad"
    if "strength" in answer:
        return "A" if answer["strength"] > 0 else "B" if answer["strength"] < 0 else "tie"
    if "up" in answer:
        return "up" if answer["up"] else "down"
    if "ranks" in answer:
        return " = ".join(chr(ord("A") + place) for place, rank in enumerate(answer["ranks"]) if rank == 1)
    return str(round(sum(answer["aspects"].values()) / len(answer["aspects"])))


def bits(votes: Mapping[str, int]) -> float:
    """How large a dispute is: entropy of the votes in bits, times their number; 0 when all agree."""
    n = sum(votes.values())
    return -sum(count * math.log2(count / n) for count in votes.values() if count) + 0.0 if n else 0.0


def disagreement(votes: Mapping[str, int]) -> float:
    """Share of pairs of people who differ, in [0, 1]; nan for fewer than two."""
    n = sum(votes.values())
    return 1 - sum(count * (count - 1) for count in votes.values()) / (n * (n - 1)) if n > 1 else math.nan


def measure_disputes(project: Project, *, round_id: int | None = None) -> dict[str, Any]:
    """Go through the log once; the same log answers from the run that went through it before.

    Returns:
        {"judgements": standing ones that were read, "newest": id of the last, "disputes", "prompts", "sets", "side", "ties", "agreement",
        "self": how often people agree with themselves, "time"}; intervals as {"value", "low", "high", "n"}, None where nothing is known.
    """
    with project.database.read() as session:
        n, newest = session.execute(select(func.count(), func.max(Judgement.id)).select_from(Judgement)).one()
        asked = session.scalar(select(func.count()).where(Question.gold.is_(None))) or 0
    with stage_run(project, "disputes", {"judgements": n, "newest": newest, "asked": asked, "counted": COUNTED}, round_id=round_id) as run:
        if not run.answered:
            with project.database.read() as session:
                said = list(_read(session, run, n))
                names = dict(session.execute(select(QuestionSet.id, QuestionSet.name)).all())
                own = _with_themselves(session)
            run.result = summary(said, names) | {"judgements": len(said), "log": n, "newest": newest, "self": own}
    return run.result


def summary(said: Sequence[Said], names: Mapping[str, str]) -> dict[str, Any]:
    """What there is to say of standing judgements, those to check questions and repeats not among them."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    prompt_of: dict[str, str] = {}
    for one in said:
        prompt_of[one.question] = one.prompt
        if one.vote is not None:
            votes[one.question][one.vote] += 1
    disputes = sorted(((bits(found), question) for question, found in votes.items()), key=lambda row: (-row[0], row[1]))
    sets = sorted({one.set_id for one in said}, key=lambda set_id: names.get(set_id, ""))
    seconds = [one.seconds for one in said]
    return {
        "disputes": [
            {"question": question, "bits": round(size, 3), "votes": dict(votes[question].most_common())}
            for size, question in disputes[:DISPUTES_KEPT]
            if size > 0
        ],
        "prompts": _by_prompt(votes, prompt_of),
        "sets": [_set(set_id, names.get(set_id, "asked outside sets"), [one for one in said if one.set_id == set_id], votes) for set_id in sets],
        **_shares(said),
        "agreement": _agreement(votes.values()),
        "time": {"edges": list(EDGES), "counts": _histogram(seconds), "median": median(seconds) if seconds else None},
    }


def _set(set_id: str, name: str, said: Sequence[Said], votes: Mapping[str, Counter[str]]) -> dict[str, Any]:
    questions = {one.question for one in said}
    ratings = [(one.question, one.annotator, one.vote) for one in said if one.vote is not None]
    return {
        "id": set_id, "name": name, "kind": said[0].kind, "judgements": len(said), "questions": len(questions),
        "alpha": _plain(alpha_interval(ratings, seed=0, resamples=RESAMPLES)), "agreement": _agreement([votes[question] for question in questions]),
        "seconds": median(one.seconds for one in said), **_shares(said),
    }  # fmt: skip


def _shares(said: Sequence[Said]) -> dict[str, Any]:
    """Side bias, ties, both-bads and skips, each as a share with its interval."""
    pairs = [one for one in said if one.kind == Kind.PAIR]
    sided = [one for one in pairs if one.left is not None]
    return {
        "side": _plain(wilson(sum(bool(one.left) for one in sided), len(sided))),
        "ties": _plain(wilson(sum(one.vote == "tie" for one in pairs), len(pairs))),
        "both_bad": _plain(wilson(sum(one.vote == "both bad" for one in pairs), len(pairs))),
        "skips": _plain(wilson(sum(one.vote is None and one.kind != Kind.EDIT for one in said), len(said))),
    }


def _agreement(votes: Any) -> dict[str, Any]:
    """Share of pairs of people of one question who said the same, with a bootstrap over questions."""
    several = [found for found in votes if sum(found.values()) > 1]
    alike = [1 - disagreement(found) for found in several]
    pairs = [float(math.comb(sum(found.values()), 2)) for found in several]
    return _plain(bootstrap_mean(alike, weights=pairs, seed=0, resamples=RESAMPLES))


def _by_prompt(votes: Mapping[str, Counter[str]], prompt_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """The prompts whose questions split people most, by all their bits."""
    found: dict[str, list[Counter[str]]] = defaultdict(list)
    for question, counted in votes.items():
        if sum(counted.values()) > 1:
            found[prompt_of[question]].append(counted)
    sizes = sorted(((sum(map(bits, counted)), prompt) for prompt, counted in found.items()), key=lambda row: (-row[0], row[1]))
    return [
        {
            "prompt": prompt, "bits": round(size, 3), "questions": len(found[prompt]), "votes": sum(sum(one.values()) for one in found[prompt]),
            "disagreement": sum(map(disagreement, found[prompt])) / len(found[prompt]),
        }
        for size, prompt in sizes[:PROMPTS_KEPT] if size > 0
    ]  # fmt: skip


def _histogram(seconds: Sequence[float]) -> list[int]:
    """How many answers took so long; what took longer than the last edge is in the last bin."""
    counts = [0] * (len(EDGES) - 1)
    for value in seconds:
        counts[next((place - 1 for place, edge in enumerate(EDGES) if value < edge), len(counts) - 1)] += 1
    return counts


def _plain(interval: Interval) -> dict[str, Any]:
    value, low, high = (part if math.isfinite(part) else None for part in interval[:3])
    return {"value": value, "low": low, "high": high, "n": interval.n}


# ---- from the store ----


def _read(session: Session, run: StageRun, total: int) -> Iterator[Said]:
    """The standing judgements of plain questions; of several of one person to one question the last."""
    newer = aliased(Judgement)
    asked = (Question.prompt_id, Question.set_id, Question.kind, Question.facts)
    columns = (Judgement.question_id, Judgement.annotator_id, *asked, Judgement.answer, Judgement.order_shown, Judgement.active_ms)
    query = (
        select(*columns)
        .join(Question, Question.id == Judgement.question_id)
        .where(Question.gold.is_(None), Question.repeat_of.is_(None), ~select(newer.id).where(newer.supersedes == Judgement.id).exists())
        .order_by(Judgement.id)
        .execution_options(yield_per=CHUNK)
    )  # fmt: skip
    last: dict[tuple[str, str], Said] = {}
    for number, (question, annotator, prompt, set_id, kind, facts, answer, order, active_ms) in enumerate(session.execute(query)):
        if number % CHUNK == 0:
            run.progress(done=number, total=total)
        vote = vote_of(kind, answer)
        sided = kind == Kind.PAIR and vote in ("A", "B") and facts.get("order_shown") != "unknown"
        left = (vote == "A") == (order[0] == 0) if sided else None
        last[question, annotator] = Said(question, annotator, prompt, set_id or "", kind, vote, left, active_ms / 1000)
    yield from last.values()


def _with_themselves(session: Session) -> dict[str, Any]:
    """How often people who were asked a question twice said the same both times."""
    first, second = aliased(Judgement), aliased(Judgement)
    newer_first, newer_second = aliased(Judgement), aliased(Judgement)
    rows = session.execute(
        select(Question.kind, first.answer, second.answer)
        .join(second, second.question_id == Question.id)
        .join(first, (first.question_id == Question.repeat_of) & (first.annotator_id == second.annotator_id))
        .where(
            Question.repeat_of.is_not(None),
            ~select(newer_first.id).where(newer_first.supersedes == first.id).exists(),
            ~select(newer_second.id).where(newer_second.supersedes == second.id).exists(),
        )
    )
    both = [(vote_of(kind, one), vote_of(kind, other)) for kind, one, other in rows]
    both = [(one, other) for one, other in both if one is not None and other is not None]
    return _plain(wilson(sum(one == other for one, other in both), len(both)))


# ---- settling one ----


def lend_disputed(project: Project, question_id: str, annotator_id: str, *, at: datetime) -> str:
    """Lend a question that isn't theirs by turn, for a judgement of their own; gives the claim's id.

    The lease ends as it begins: it keeps nobody else from the question, and the answer, finished after its lease, counts or is kept
    as an extra like any other's. Who has held the question before keeps the order in which it was shown.

    Raises:
        UserError: there is no such question.
    """
    with project.database.write() as session:
        hold(session, Assignment)
        question = session.get(Question, question_id)
        if question is None:
            raise UserError(f"there is no question {question_id}", fix="choose one of the list")
        lent = session.scalars(select(Assignment).where(Assignment.question_id == question_id, Assignment.annotator_id == annotator_id)).first()
        if lent is None:
            n = session.scalar(select(func.count()).where(QuestionSample.question_id == question_id)) or 0
            order = secrets.SystemRandom().sample(range(n), n)
            lent = Assignment(
                id=uuid7(at), question_id=question_id, annotator_id=annotator_id, set_id=question.set_id, number=0, order_shown=order,
                claimed_at=at, expires_at=at, draft=None,
            )  # fmt: skip
            session.add(lent)
        return lent.id


def settled_by(session: Session, question_ids: Sequence[str], annotator_ids: Sequence[str]) -> dict[str, str]:
    """Question → who of these people has judged it."""
    rows = (
        row
        for ids in batches(question_ids)
        for row in session.execute(
            select(Judgement.question_id, Judgement.annotator_id).where(Judgement.question_id.in_(ids), Judgement.annotator_id.in_(annotator_ids))
        )
    )
    return {question: annotator for question, annotator in rows}  # noqa: C416 (rows are no pairs to a type checker)
