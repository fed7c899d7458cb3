"""What an application sends by the API: prompts, responses to them, and questions about those. What its users said is in app_users.py.

Ids are hashes of what a thing is made from, so what is sent twice is there once. Every function works inside a caller's transaction.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.errors import Conflict, Unknown, UserError
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.pairs import Ask
from truing.feedback.sets import Rules, add_questions, new_set_row, rules_of, set_guideline
from truing.store.conversations import Turn, checked_prompt
from truing.store.database import hold
from truing.store.ids import content_id
from truing.store.splits import split_of_turns
from truing.store.tables import Kind, Policy, Prompt, Question, QuestionSet, Sample, SetState

BATCH = "api:"  # how the names of the batches begin that an application's responses are in
GUIDELINES: Mapping[Kind, str] = {
    Kind.PAIR: "Which of the two answers would you rather get?",
    Kind.RANKING: "Put the answers in order: the one you would most like to get comes first.",
    Kind.RATING: "How good is this answer?",
    Kind.THUMBS: "Is this a good answer?",
    Kind.EDIT: "Change the answer until it is as you would like to get it.",
}
SAMPLES_NEEDED: Mapping[Kind, tuple[int, int]] = {Kind.PAIR: (2, 2), Kind.RANKING: (2, 9)}  # at least, at most; of other kinds one


class SentPrompt(NamedTuple):
    """A prompt as it was sent."""

    turns: Sequence[Turn]
    source: str
    facts: Mapping[str, Any]


class SentSample(NamedTuple):
    """A response as it was sent; `by` is a model's name or a policy's id, or who wrote it if that was a human."""

    prompt_id: str
    text: str
    by: str
    human: bool
    finished: bool
    batch: str


class Kept(NamedTuple):
    """What became of something that was sent."""

    id: str
    new: bool  # False: it was there already


# ---- prompts and responses ----


def keep_prompts(session: Session, sent: Sequence[SentPrompt], *, share: float, max_characters: int, at: datetime) -> list[Kept]:
    """Keep prompts that aren't there yet; gives one result for each, in their order.

    Args:
        share: of all prompts, how many are held out.
        max_characters: the longest conversation taken in.

    Raises:
        UserError: one is no prompt, or too long.
    """
    hold(session, Prompt)
    ready = [(_trimmed(prompt.turns, max_characters), prompt) for prompt in sent]
    ids = [content_id(turns) for turns, _ in ready]
    known = set(session.scalars(select(Prompt.id).where(Prompt.id.in_(ids))))
    position = (session.scalar(select(func.coalesce(func.max(Prompt.position), -1))) or 0) + 1
    kept = []
    for prompt_id, (turns, prompt) in zip(ids, ready, strict=True):
        kept.append(Kept(prompt_id, prompt_id not in known))
        if prompt_id not in known:
            session.add(
                Prompt(
                    id=prompt_id, turns=turns, text=turns[-1]["content"], split=str(split_of_turns(turns, share)), source=prompt.source,
                    facts=dict(prompt.facts), position=position, created_at=at,
                )
            )  # fmt: skip
            known.add(prompt_id)
            position += 1
    session.flush()
    return kept


def _trimmed(turns: Sequence[Turn], max_characters: int) -> list[Turn]:
    checked = checked_prompt([dict(turn) for turn in turns], max_characters=max_characters)
    return [{"role": turn["role"], "content": turn["content"].strip()} for turn in checked]


def keep_samples(session: Session, sent: Sequence[SentSample], *, at: datetime) -> list[Kept]:
    """Keep responses; the same text by the same author to the same prompt in the same batch is one sample.

    Raises:
        Unknown: there is no such prompt.
        UserError: an author's name that Truing keeps for itself.
    """
    hold(session, Sample)
    _require_all(session, "prompt", Prompt, [sample.prompt_id for sample in sent])
    _know_policies(session, {sample.by for sample in sent if not sample.human}, at)
    known, taken = _samples_there(session, sent)
    kept = []
    for sample in sent:
        key = _sameness(sample)
        new = key not in known
        if new:
            place = (sample.prompt_id, BATCH + sample.batch)
            position = taken.get(place, 0)
            taken[place] = position + 1
            known[key] = content_id("sample", *place, position)
            session.add(_sample(known[key], sample, position, at))
        kept.append(Kept(known[key], new))
    session.flush()
    return kept


def _samples_there(session: Session, sent: Sequence[SentSample]) -> tuple[dict[tuple[str, ...], str], dict[tuple[str, str], int]]:
    """What each known sample is → its id; and the next free position of each prompt and batch."""
    where = Sample.prompt_id.in_({sample.prompt_id for sample in sent}) & Sample.batch.in_({BATCH + sample.batch for sample in sent})
    known: dict[tuple[str, ...], str] = {}
    taken: dict[tuple[str, str], int] = {}
    for row in session.scalars(select(Sample).where(where).order_by(Sample.position)):
        known[row.prompt_id, row.batch, row.text, row.policy_id or "", row.author or ""] = row.id
        taken[row.prompt_id, row.batch] = row.position + 1
    return known, taken


def _sameness(sample: SentSample) -> tuple[str, ...]:
    return sample.prompt_id, BATCH + sample.batch, sample.text, "" if sample.human else sample.by, sample.by if sample.human else ""


def _sample(sample_id: str, sent: SentSample, position: int, at: datetime) -> Sample:
    if sent.human and sent.by == CHECK_AUTHOR:
        raise UserError(f"nobody is called {CHECK_AUTHOR!r} here: that is who damages responses for check questions", fix="name the author otherwise")
    return Sample(
        id=sample_id, prompt_id=sent.prompt_id, policy_id=None if sent.human else sent.by, author=sent.by if sent.human else None, batch=BATCH + sent.batch,
        position=position, text=sent.text, token_ids=None, logprobs=None, finished=sent.finished, temperature=None, seed=None, base_logprob=None, created_at=at,
    )  # fmt: skip


def _know_policies(session: Session, names: set[str], at: datetime) -> None:
    known = set(session.scalars(select(Policy.id).where(Policy.id.in_(names))))
    session.add_all(Policy(id=name, model=name, artifact_id=None, parent_id=None, created_at=at) for name in sorted(names - known))
    session.flush()


def _require_all(session: Session, word: str, table: type[Prompt] | type[Sample], ids: Iterable[str]) -> None:
    wanted = set(ids)
    missing = wanted - set(session.scalars(select(table.id).where(table.id.in_(wanted))))
    if missing:
        raise Unknown(f"there is no {word} {min(missing)}", fix=f"post the {word} first and use the id that comes back")


# ---- questions ----


def ask(session: Session, set_name: str, kind: Kind, sample_ids: Sequence[str], *, overlap: int | None, guideline: str | None, at: datetime) -> Kept:
    """Ask about these samples, A first, in the set of this name; the set is made if there is none.

    Args:
        overlap:   how many people are wanted; None: as the set has it, in a new set one.
        guideline: what people are told, in a set that is made now; None: a sentence.

    Raises:
        Unknown: there is no such sample.
        Conflict: the set asks questions of another kind, or is archived.
        UserError: the samples make no question of this kind.
    """
    hold(session, QuestionSet)
    samples = _samples_of_one_prompt(session, kind, sample_ids)
    row = _set_called(session, set_name, kind, overlap, guideline, at)
    made = Ask(samples, "api")
    question_id = made.id(row.id, row.kind)
    if session.get(Question, question_id) is not None:
        return Kept(question_id, False)
    add_questions(session, row, [(question_id, made)], [overlap or rules_of(row).overlap], at)
    return Kept(question_id, True)


def _samples_of_one_prompt(session: Session, kind: Kind, sample_ids: Sequence[str]) -> tuple[Sample, ...]:
    _require_all(session, "sample", Sample, sample_ids)
    least, most = SAMPLES_NEEDED.get(kind, (1, 1))
    if not least <= len(sample_ids) <= most:
        needed = {Kind.PAIR: "two samples", Kind.RANKING: "two to nine samples"}.get(kind, "one sample")
        raise UserError(f"a {kind} question is about {needed}, not {len(sample_ids)}", fix="name as many, or ask a question of another kind")
    samples = tuple(session.get_one(Sample, sample_id) for sample_id in sample_ids)
    if len({sample.prompt_id for sample in samples}) > 1:
        raise UserError("these samples answer different prompts", fix="compare responses to one prompt")
    if len({sample.text.strip() for sample in samples}) < len(samples):
        raise UserError("two of these samples are the same text", fix="compare responses that differ")
    return samples


def _set_called(session: Session, name: str, kind: Kind, overlap: int | None, guideline: str | None, at: datetime) -> QuestionSet:
    name = name.strip()
    row = session.scalars(select(QuestionSet).where(QuestionSet.name == name)).first()
    if row is None:
        row = new_set_row(session, content_id("question set", name, "api"), name, kind, Rules(overlap=overlap or 1), None, at)
        session.add(row)
        session.flush()
        set_guideline(session, row.id, guideline or GUIDELINES[kind], at)
    if row.kind != kind:
        raise Conflict(f"the set {name!r} asks {row.kind} questions, not {kind}", fix="name another set; one that isn't there yet is made")
    if row.state == SetState.ARCHIVED:
        raise Conflict(f"the set {name!r} is archived", fix="open it again in the studio, or name another set")
    return row
