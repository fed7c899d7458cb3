"""The pair questions of a round: which responses people are asked to compare, and check questions whose answer is known."""

import random
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.errors import UserError
from truing.feedback.checks import check_questions
from truing.feedback.pairs import Ask, Pair, interleave, pairs_of, round_robin
from truing.feedback.sets import Rules, add_questions, new_set_row, set_guideline
from truing.store.clock import now
from truing.store.ids import content_id, seed_from
from truing.store.judgements import batches, count_answers
from truing.store.project import Project
from truing.store.runs import stage_run
from truing.store.tables import Kind, Prompt, Question, QuestionSample, QuestionSet, Round, Sample, Split


class FeedbackSettings(Settings):
    """What people are asked, and how often each question is asked."""

    pairs: int = Field(360, ge=1, description="pairs of responses to ask about in a round, check questions not counted")
    held_out_share: float = Field(0.28, ge=0, lt=1, description="share of the pairs on held-out prompts, which test the reward model and train nothing")
    random_share: float = Field(0.2, ge=0, le=1, description="least share of the pairs on prompts drawn at random, when a round says which prompts come first")
    overlap: int = Field(2, ge=1, description="annotators who answer each question")
    overlap_share: float = Field(0.15, ge=0, le=1, description="share of the questions that one more annotator answers")
    gold_rate: float = Field(0.08, ge=0, le=0.5, description="check questions with a known answer, as a share of what an annotator is asked; 0 asks none")
    gold_each: int = Field(10, ge=0, description="least number of check questions for each annotator, when gold_rate is above 0")
    gold_overlap: int = Field(12, ge=1, description="annotators who answer each check question: the size of your crowd")
    lease_minutes: float = Field(30.0, gt=0, description="minutes for which a question is lent to an annotator")
    guideline: str = Field(
        "Which of the two would you rather get? Prefer a warm, complete answer of a sentence or two that speaks of what was asked.",
        description="what annotators are told; each judgement remembers the version it was made under",
    )


def ask_pairs(
    project: Project,
    settings: FeedbackSettings,
    *,
    batch: str,
    round_id: int | None,
    seed: int,
    prompt_order: Sequence[str] | None = None,
    limit: int | None = None,
    gold: Literal["scheduled", "interleaved"] = "interleaved",
) -> dict[str, Any]:
    """Make a set of pair questions about the samples of a sampling batch, check questions among them; the same call twice adds nothing.

    Each prompt is asked about once before any is asked about twice. Identical texts, and pairs that another round asked
    about, are passed over.

    Args:
        batch:        the sampling run whose samples are compared.
        round_id:     the round that asks.
        seed:         draws the pairs, which of two is A, the order, and who gets a third annotator.
        prompt_order: ids of the prompts that come first (train prompts only; the others are drawn at random).
        limit:        at most this many pairs, if that is fewer than `settings.pairs`.
        gold:         check questions come to each annotator at a rate ("scheduled", for people) or in the order of the set.

    Returns:
        {"n": questions in all, of which "train", "held_out" and "gold"; "judgements": how many answers are wanted; "set": the set's id}.

    Raises:
        UserError: the batch holds no two different responses to one prompt.
    """
    inputs = {
        "batch": batch,
        "round": round_id,
        "seed": seed,
        "order": list(prompt_order or ()),
        "limit": limit,
        "settings": settings.model_dump(),
        "gold": gold,
    }
    with project.database.read() as session:
        inputs["samples"] = content_id(*session.scalars(select(Sample.id).where(Sample.batch == batch).order_by(Sample.id)))
    with stage_run(project, "ask", inputs, round_id=round_id) as run:
        if not run.answered or _asked_otherwise_since(project, settings, run.result["set"]):
            with project.database.write() as session:
                order, told = _choose(session, settings, batch, round_id, seed, prompt_order or (), limit)
                row = _round_set(session, settings, batch, round_id, gold)
                overlaps = _insert(session, settings, order, row, seed)
            run.result = {**told, "judgements": sum(overlaps), "set": row.id}
    return run.result


def _asked_otherwise_since(project: Project, settings: FeedbackSettings, set_id: str) -> bool:
    """Whether another call has changed how many people each question waits for, and this one goes back to what it was."""
    plain = (Question.set_id == set_id, Question.gold.is_(None), Question.repeat_of.is_(None))
    with project.database.read() as session:
        n, wanted = session.execute(select(func.count(), func.coalesce(func.sum(Question.overlap), 0)).where(*plain)).one()
    return bool(wanted != n * settings.overlap + round(settings.overlap_share * n))


def _choose(
    session: Session, settings: FeedbackSettings, batch: str, round_id: int | None, seed: int, prompt_order: Sequence[str], limit: int | None
) -> tuple[list[Ask], dict[str, int]]:
    """What is asked, in order; and how many of which sort."""
    candidates, splits = _candidates(session, batch, round_id, seed)
    if not candidates:
        raise UserError(f"batch {batch!r} holds no two different responses to one prompt that are still to be compared", fix="draw more with `truing sample`")
    wanted = min(settings.pairs, limit or settings.pairs)
    train, held_out = ({p: pairs for p, pairs in candidates.items() if splits[p] == split} for split in (Split.TRAIN, Split.HELD_OUT))
    n_held_out = min(round(wanted * settings.held_out_share), sum(map(len, held_out.values())))
    first = [prompt for prompt in prompt_order if prompt in train]
    n_first = round((wanted - n_held_out) * (1 - settings.random_share)) if first else 0
    chosen_first = round_robin({p: train[p] for p in first}, min(n_first, len(first)), "weak")
    taken = {ask.prompt_id for ask in chosen_first}
    rest = {p: pairs for p, pairs in train.items() if p not in taken} | {p: train[p][1:] for p in first if p in taken}
    chosen = chosen_first + round_robin(rest, max(wanted - n_held_out - len(chosen_first), 0), "random")
    tests = round_robin(held_out, n_held_out, "random")
    per_annotator = (len(chosen) + len(tests)) * (settings.overlap + settings.overlap_share) / settings.gold_overlap
    n_gold = max(settings.gold_each, round(settings.gold_rate * per_annotator)) if settings.gold_rate else 0
    gold = check_questions(session, batch, round_id, seed, min(n_gold, len(chosen) + len(tests)))
    order = interleave([chosen, tests, gold], random.Random(seed_from("order", batch, seed)))
    return order, {"n": len(order), "train": len(chosen), "held_out": len(tests), "gold": len(gold)}


def _candidates(session: Session, batch: str, round_id: int | None, seed: int) -> tuple[dict[str, list[Pair]], dict[str, str]]:
    """Prompt → its pairs in the order they may be asked; prompts in an order drawn by the seed. And each prompt's split."""
    rows = session.execute(select(Sample, Prompt.split).join(Prompt).where(Sample.batch == batch).order_by(Prompt.id, Sample.position)).all()
    by_prompt: dict[str, list[Sample]] = {}
    splits: dict[str, str] = {}
    for sample, split in rows:
        by_prompt.setdefault(sample.prompt_id, []).append(sample)
        splits[sample.prompt_id] = split
    asked = _asked_elsewhere(session, [sample.id for sample, _ in rows], round_id)
    prompts = sorted(by_prompt)
    random.Random(seed_from("prompts", batch, seed)).shuffle(prompts)
    found = {}
    for prompt in prompts:
        pairs = [pair for pair in pairs_of(by_prompt[prompt], seed_from("pairs", batch, seed, prompt)) if frozenset(s.id for s in pair) not in asked]
        if pairs:
            found[prompt] = pairs
    return found, splits


def _asked_elsewhere(session: Session, sample_ids: Sequence[str], round_id: int | None) -> set[frozenset[str]]:
    """Pairs of these samples that a question of another round is about."""
    other = Question.round_id.is_not(None) if round_id is None else Question.round_id.is_distinct_from(round_id)
    members: dict[str, set[str]] = {}
    for ids in batches(sorted(sample_ids)):
        query = select(QuestionSample.question_id, QuestionSample.sample_id).join(Question)
        for question, sample in session.execute(query.where(QuestionSample.sample_id.in_(ids), other, Question.kind == Kind.PAIR)):
            members.setdefault(question, set()).add(sample)
    return {frozenset(pair) for pair in members.values()}


def _round_set(session: Session, settings: FeedbackSettings, batch: str, round_id: int | None, gold: Literal["scheduled", "interleaved"]) -> QuestionSet:
    """The set of the round's questions about this batch, under the present rules and guideline."""
    rules = Rules(overlap=settings.overlap, lease_minutes=settings.lease_minutes, gold=gold, repeat_rate=0.03 if gold == "scheduled" else 0.0)
    set_id = content_id("question set", round_id, batch)
    row = session.get(QuestionSet, set_id)
    if row is None:
        number = session.scalar(select(Round.number).where(Round.id == round_id))
        name = f"Round {number}" if number else f"Pairs of {batch[:8]}"
        row = new_set_row(session, set_id, name, Kind.PAIR, rules, round_id, now())
        session.add(row)
    row.rules = rules.model_dump(mode="json")
    session.flush()
    set_guideline(session, set_id, settings.guideline, now())
    return row


def _insert(session: Session, settings: FeedbackSettings, order: Sequence[Ask], row: QuestionSet, seed: int) -> list[int]:
    """Add the questions that aren't there yet, after those of other rounds, and let those that are there wait for as many people as is asked for now;
    returns the overlap of each."""
    draw = random.Random(seed_from("overlap", row.round_id, seed))
    ids = [ask.id(Kind.PAIR.value) for ask in order]
    plain = [question for question, ask in zip(ids, order, strict=True) if ask.gold is None]
    with_more = set(draw.sample(plain, round(settings.overlap_share * len(plain))))
    overlaps = [settings.gold_overlap if ask.gold else settings.overlap + (question in with_more) for question, ask in zip(ids, order, strict=True)]
    known = {found.id: found for some in batches(ids) for found in session.scalars(select(Question).where(Question.id.in_(some)))}
    wanted = dict(zip(ids, overlaps, strict=True))
    for question in known.values():
        question.set_id = question.set_id or row.id  # asked before there were sets
        if question.set_id == row.id and question.gold is None:
            question.overlap = wanted[question.id]
    count_answers(session, known)
    fresh = [place for place, question in enumerate(ids) if question not in known]
    add_questions(session, row, [(ids[place], order[place]) for place in fresh], [overlaps[place] for place in fresh], now())
    return overlaps
