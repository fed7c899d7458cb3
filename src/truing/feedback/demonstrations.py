"""What people wrote that is worth imitating: edits, answers of their own, and imported ones that people preferred."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.feedback.assignment import EDITS
from truing.feedback.checks import CHECK_AUTHOR
from truing.feedback.imports import IMPORT
from truing.feedback.said import sign
from truing.store.judgements import batches, current_judgements
from truing.store.tables import Kind, Prompt, Question, QuestionSample, Sample


class Demonstration(NamedTuple):
    """A prompt and what a person answered, or would like to be answered."""

    prompt_id: str
    split: str
    turns: list[dict[str, str]]
    text: str


def demonstrations(session: Session) -> list[Demonstration]:
    """In order of prompt and text, each once.

    An edit counts as it stands now. An answer that a person wrote counts unless people liked it less than what it was compared with. An imported answer whose
    writer nobody named may be a model's: it counts only if people liked it more. The damaged answers of check questions never count.
    """
    found = {(prompt, text) for prompt, text in (*_edits(session), *_answers(session)) if text.strip()}
    asked: dict[str, tuple[str, list[dict[str, str]]]] = {}
    for ids in batches(sorted({prompt for prompt, _ in found})):
        asked |= {row.id: (row.split, row.turns) for row in session.execute(select(Prompt.id, Prompt.split, Prompt.turns).where(Prompt.id.in_(ids)))}
    return [Demonstration(prompt, *asked[prompt], text) for prompt, text in sorted(found)]


def _edits(session: Session) -> Iterator[tuple[str, str]]:
    """(prompt id, text) of edits that stand. One that left the answer as it was wrote nothing."""
    prompts = {row.id: row.prompt_id for row in session.execute(select(Question.id, Question.prompt_id).where(Question.kind == Kind.EDIT))}
    for row in current_judgements(session, prompts):
        if "text" in row.answer:
            yield prompts[row.question_id], row.answer["text"]


def _answers(session: Session) -> Iterator[tuple[str, str]]:
    """(prompt id, text) of answers without a model."""
    columns = (Sample.id, Sample.prompt_id, Sample.text, Sample.author)
    query = select(*columns).where(Sample.author.is_not(None), Sample.author != CHECK_AUTHOR, ~Sample.batch.startswith(EDITS))
    rows = session.execute(query).all()
    liked = _liked(session, sorted(row.id for row in rows))
    for row in rows:
        if liked[row.id] >= (1 if row.author.startswith(IMPORT) else 0):
            yield row.prompt_id, row.text


def _liked(session: Session, sample_ids: Sequence[str]) -> Counter[str]:
    """Sample → how often somebody liked it better than another, or at all, less how often the other way round."""
    kinds: dict[str, str] = {}
    for ids in batches(sample_ids):
        wanted = select(Question.id, Question.kind).join(QuestionSample, QuestionSample.question_id == Question.id).where(QuestionSample.sample_id.in_(ids))
        kinds.update((row.id, row.kind) for row in session.execute(wanted))
    shown: dict[str, list[str]] = {}
    for ids in batches(sorted(kinds)):
        places = select(QuestionSample.question_id, QuestionSample.sample_id).where(QuestionSample.question_id.in_(ids))
        for question, sample in session.execute(places.order_by(QuestionSample.question_id, QuestionSample.position)):
            shown.setdefault(question, []).append(sample)
    liked: Counter[str] = Counter()
    for row in current_judgements(session, kinds):
        for place, vote in _votes(kinds[row.question_id], row.answer, len(shown[row.question_id])):
            liked[shown[row.question_id][place]] += vote
    return liked


def _votes(kind: str, answer: Mapping[str, Any], n: int) -> Iterator[tuple[int, int]]:
    """(place, 1 for liked or -1) from a judgement of n samples; ratings and edits have none, for nobody says where liking begins."""
    if "both_bad" in answer:
        yield from ((place, -1) for place in range(n))
    elif "skip" in answer:
        return
    elif kind == Kind.THUMBS:
        yield 0, 1 if answer["up"] else -1
    elif kind in (Kind.PAIR, Kind.RANKING):
        for i, j in combinations(range(n), 2):
            better = sign(answer["strength"] if kind == Kind.PAIR else answer["ranks"][j] - answer["ranks"][i])
            yield i, better
            yield j, -better
