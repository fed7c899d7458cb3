"""Questions: which responses people are asked to compare, what an answer may say, and check questions whose answer is known.

An answer speaks of samples (A is position 0, B position 1), never of the sides of a screen:

    pair     {"strength": -3..3} (> 0: A is preferred, 0: a tie) or {"both_bad": true}
    ranking  {"ranks": [1, 2, 2]}             one for each sample, 1 is best
    rating   {"aspects": {"overall": 4}}      1..7
    thumbs   {"up": true}
    edit     {"text": "..."}
    any      {"skip": "reason"};              beside any of them "flags": [...] and "comment": "..."
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.errors import UserError
from truing.store.clock import now
from truing.store.ids import content_id, seed_from
from truing.store.judgements import batches
from truing.store.project import Project
from truing.store.runs import stage_run
from truing.store.tables import Kind, Prompt, Question, QuestionSample, Sample, Split

CHECK_AUTHOR = "check"  # who wrote the damaged response of a gold question
STRONGEST = 3
HIGHEST_RATING = 7
LONGEST_TEXT = 100_000  # characters of a comment or an edit
LEAST_CHECK_WORDS = 8  # a shorter response is too little for a check question


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
        description="what annotators are told",
    )
    guideline_version: int = Field(1, ge=1, description="raise it when you change the guideline: each judgement remembers its version")


# ---- answers ----


def check_answer(kind: str, answer: Any, n_samples: int) -> dict[str, Any]:
    """The answer, if it is one to a question of this kind about this many samples.

    Raises:
        UserError: it is not; the message says what was found and what an answer looks like.
    """
    form = FORMS[Kind(kind)]
    if not isinstance(answer, Mapping):
        raise _not_an_answer(kind, f"found {answer!r}")
    said = {key: value for key, value in answer.items() if key not in ("flags", "comment")}
    if len(said) != 1 or not set(said) <= {*form, "skip"}:
        raise _not_an_answer(kind, f"found the keys {', '.join(map(repr, answer)) or 'none'}")
    ((key, value),) = said.items()
    if not _CHECKS[key](value, n_samples):
        raise _not_an_answer(kind, f"found {key} = {value!r}")
    flags = answer.get("flags", [])
    if not (isinstance(flags, list) and all(_is_text(flag, 80) for flag in flags) and len(set(flags)) == len(flags)):
        raise _not_an_answer(kind, f"found flags = {flags!r}; flags are a list of different words")
    if "comment" in answer and not _is_text(answer["comment"]):
        raise _not_an_answer(kind, "its comment is no text, or too long")
    return dict(answer)


def answer_from_screen(leaning: int, order_shown: Sequence[int]) -> dict[str, Any]:
    """The answer to a pair that was given by sides.

    Args:
        leaning:     -3..3, > 0: the response on the left was preferred, 0: a tie.
        order_shown: [0, 1] when A stood on the left, [1, 0] when B did.
    """
    return {"strength": leaning if order_shown[0] == 0 else -leaning}


FORMS: Mapping[Kind, Mapping[str, str]] = {
    Kind.PAIR: {"strength": '{"strength": -3..3}', "both_bad": '{"both_bad": true}'},
    Kind.RANKING: {"ranks": '{"ranks": [...]} with a rank from 1 for each response'},
    Kind.RATING: {"aspects": '{"aspects": {"overall": 1..7}}'},
    Kind.THUMBS: {"up": '{"up": true} or {"up": false}'},
    Kind.EDIT: {"text": '{"text": "..."}'},
}
_CHECKS: Mapping[str, Callable[[Any, int], bool]] = {
    "skip": lambda value, n: _is_text(value),
    "strength": lambda value, n: _is_whole(value, -STRONGEST, STRONGEST) and n == 2,
    "both_bad": lambda value, n: value is True and n == 2,
    "ranks": lambda value, n: isinstance(value, list) and len(value) == n and all(_is_whole(rank, 1, n) for rank in value) and 1 in value,
    "aspects": lambda value, n: isinstance(value, dict) and bool(value) and all(_is_text(k, 80) and _is_whole(v, 1, HIGHEST_RATING) for k, v in value.items()),
    "up": lambda value, n: isinstance(value, bool),
    "text": lambda value, n: _is_text(value),
}


def _is_whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_text(value: Any, longest: int = LONGEST_TEXT) -> bool:
    """Some words that every database can hold."""
    return isinstance(value, str) and bool(value.strip()) and len(value) <= longest and "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def _not_an_answer(kind: str, found: str) -> UserError:
    forms = ", ".join([*FORMS[Kind(kind)].values(), '{"skip": "reason"}'])
    return UserError(f"this is no answer to a {kind} question: {found}", fix=f"answer with one of {forms}")


# ---- pairs to ask about ----


class Ask(NamedTuple):
    """A question to be: A, B, and why it was chosen."""

    a: Sample
    b: Sample
    why: str
    gold: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """The question's id: what is asked about which samples."""
        return content_id("question", Kind.PAIR.value, [self.a.id, self.b.id])


def ask_pairs(
    project: Project,
    settings: FeedbackSettings,
    *,
    batch: str,
    round_id: int | None,
    seed: int,
    prompt_order: Sequence[str] | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """Make pair questions about the samples of a sampling batch, check questions among them; the same call twice adds nothing.

    Each prompt is asked about once before any is asked about twice. Identical texts, and pairs that another round asked
    about, are passed over.

    Args:
        batch:        the sampling run whose samples are compared.
        round_id:     the round that asks.
        seed:         draws the pairs, which of two is A, the order, and who gets a third annotator.
        prompt_order: ids of the prompts that come first (train prompts only; the others are drawn at random).
        limit:        at most this many pairs, if that is fewer than `settings.pairs`.

    Returns:
        {"n": questions in all, of which "train", "held_out" and "gold"; "judgements": how many answers are wanted}.

    Raises:
        UserError: the batch holds no two different responses to one prompt.
    """
    inputs = {"batch": batch, "round": round_id, "seed": seed, "order": list(prompt_order or ()), "limit": limit, "settings": settings.model_dump()}
    with project.database.read() as session:
        inputs["samples"] = content_id(*session.scalars(select(Sample.id).where(Sample.batch == batch).order_by(Sample.id)))
    with stage_run(project, "ask", inputs, round_id=round_id) as run:
        if not run.answered:
            with project.database.write() as session:
                run.result = _ask(session, settings, batch, round_id, seed, prompt_order or (), limit)
    return run.result


def _ask(
    session: Session, settings: FeedbackSettings, batch: str, round_id: int | None, seed: int, prompt_order: Sequence[str], limit: int | None
) -> dict[str, Any]:
    candidates, splits = _candidates(session, batch, round_id, seed)
    if not candidates:
        raise UserError(f"batch {batch!r} holds no two different responses to one prompt that are still to be compared", fix="draw more with `truing sample`")
    wanted = min(settings.pairs, limit or settings.pairs)
    train, held_out = ({p: pairs for p, pairs in candidates.items() if splits[p] == split} for split in (Split.TRAIN, Split.HELD_OUT))
    n_held_out = min(round(wanted * settings.held_out_share), sum(map(len, held_out.values())))
    first = [prompt for prompt in prompt_order if prompt in train]
    n_first = round((wanted - n_held_out) * (1 - settings.random_share)) if first else 0
    chosen_first = _round_robin({p: train[p] for p in first}, min(n_first, len(first)), "weak")
    taken = {ask.a.prompt_id for ask in chosen_first}
    rest = {p: pairs for p, pairs in train.items() if p not in taken} | {p: train[p][1:] for p in first if p in taken}
    chosen = chosen_first + _round_robin(rest, wanted - n_held_out - len(chosen_first), "random")
    tests = _round_robin(held_out, n_held_out, "random")
    per_annotator = (len(chosen) + len(tests)) * (settings.overlap + settings.overlap_share) / settings.gold_overlap
    n_gold = max(settings.gold_each, round(settings.gold_rate * per_annotator)) if settings.gold_rate else 0
    gold = _gold(session, batch, round_id, seed, min(n_gold, len(chosen) + len(tests)))
    order = _interleave([chosen, tests, gold], random.Random(seed_from("order", batch, seed)))
    overlaps = _insert(session, settings, order, round_id, seed)
    return {"n": len(order), "train": len(chosen), "held_out": len(tests), "gold": len(gold), "judgements": sum(overlaps)}


def _candidates(session: Session, batch: str, round_id: int | None, seed: int) -> tuple[dict[str, list[tuple[Sample, Sample]]], dict[str, str]]:
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
        pairs = [pair for pair in _pairs(by_prompt[prompt], seed_from("pairs", batch, seed, prompt)) if frozenset(s.id for s in pair) not in asked]
        if pairs:
            found[prompt] = pairs
    return found, splits


def _pairs(samples: Sequence[Sample], seed: int) -> list[tuple[Sample, Sample]]:
    """All pairs of different texts, those of fresh samples first; which of the two is A is drawn."""
    draw = random.Random(seed)
    order = draw.sample(list(samples), len(samples))
    places = sorted(combinations(range(len(order)), 2), key=lambda place: (place[1] - place[0] != 1 or place[0] % 2 == 1, place))
    pairs = [(order[i], order[j]) if draw.getrandbits(1) else (order[j], order[i]) for i, j in places]
    return [(a, b) for a, b in pairs if a.text.strip() != b.text.strip()]


def _asked_elsewhere(session: Session, sample_ids: Sequence[str], round_id: int | None) -> set[frozenset[str]]:
    """Pairs of these samples that a question of another round is about."""
    other = Question.round_id.is_not(None) if round_id is None else Question.round_id.is_distinct_from(round_id)
    members: dict[str, set[str]] = {}
    for ids in batches(sorted(sample_ids)):
        query = select(QuestionSample.question_id, QuestionSample.sample_id).join(Question)
        for question, sample in session.execute(query.where(QuestionSample.sample_id.in_(ids), other, Question.kind == Kind.PAIR)):
            members.setdefault(question, set()).add(sample)
    return {frozenset(pair) for pair in members.values()}


def _round_robin(pairs: Mapping[str, Sequence[tuple[Sample, Sample]]], n: int, why: str) -> list[Ask]:
    """The first pair of every prompt, then the second of every prompt, ..., until there are n."""
    rounds = max(map(len, pairs.values()), default=0)
    return [Ask(*of_prompt[turn], why) for turn in range(rounds) for of_prompt in pairs.values() if turn < len(of_prompt)][: max(n, 0)]


def _interleave(lists: Iterable[Sequence[Ask]], draw: random.Random) -> list[Ask]:
    """One list in which each given one keeps its order and is spread evenly."""
    placed = [((i + draw.random()) / len(asks), kind, i, ask) for kind, asks in enumerate(lists) for i, ask in enumerate(asks)]
    return [ask for *_, ask in sorted(placed, key=lambda row: row[:3])]


def _gold(session: Session, batch: str, round_id: int | None, seed: int, n: int) -> list[Ask]:
    """Check questions: a whole response to the prompt against half a response to another prompt.

    Which of the two is better is known by construction, whatever one's taste. The damaged half is a sample of its own,
    by author "check", in a batch of its own.
    """
    draw = random.Random(seed_from("gold", batch, seed))
    check_batch = f"{CHECK_AUTHOR}:{content_id(batch, round_id, seed)}"
    found = session.execute(select(Sample, Prompt.text).join(Prompt).where(Sample.batch == batch).order_by(Prompt.id, Sample.position)).all()
    rows = draw.sample(found, len(found))
    long_enough = [sample for sample, _ in rows if len(sample.text.split()) >= LEAST_CHECK_WORDS]
    soundness = {sample.id: _soundness(sample, prompt) for sample, prompt in rows}
    whole: dict[str, Sample] = {}
    for sample in sorted(long_enough, key=lambda sample: -soundness[sample.id]):  # stable: the order is drawn but for soundness
        whole.setdefault(sample.prompt_id, sample)
    asks = []
    for good in list(whole.values())[:n]:
        others = [sample for sample in long_enough if sample.prompt_id != good.prompt_id]
        if not others:
            break
        bad = _half(draw.choice(others), good.prompt_id, check_batch)
        better = draw.getrandbits(1)
        asks.append(Ask(bad if better else good, good if better else bad, "gold", {"better": better}))
    return asks


def _soundness(sample: Sample, prompt_text: str) -> int:
    """0 to 4: how plainly a response is a whole answer to its prompt. Check questions are built on the soundest, so that nobody honest fails them."""
    asked, said = (set(re.findall(r"\w{4,}", text.lower())) for text in (prompt_text, sample.text))
    ends_well = re.search(r"[.!?][\"'”’]?$", sample.text.strip()) is not None
    answers = not re.search(r"\b(?:ai|smollm|chatbot|assist|help|here for you|i'm sorry)\b|\n", sample.text.strip().lower())
    return 2 * (sample.finished and ends_well) + bool(asked & said and len(said - asked) >= 4) + answers


def _half(sample: Sample, prompt_id: str, batch: str) -> Sample:
    """The first half of a response, put under another prompt."""
    words = sample.text.split()
    return Sample(
        id=content_id("sample", prompt_id, batch, 0), prompt_id=prompt_id, policy_id=None, author=CHECK_AUTHOR, batch=batch, position=0,
        text=" ".join(words[: len(words) // 2]), token_ids=None, logprobs=None, finished=False, temperature=None, seed=None, base_logprob=None,
        created_at=now(),
    )  # fmt: skip


def _insert(session: Session, settings: FeedbackSettings, order: Sequence[Ask], round_id: int | None, seed: int) -> list[int]:
    """Add the questions that aren't there yet, after those of other rounds; returns the overlap of each."""
    draw = random.Random(seed_from("overlap", round_id, seed))
    plain = [ask.id for ask in order if ask.gold is None]
    with_more = set(draw.sample(plain, round(settings.overlap_share * len(plain))))
    overlaps = [settings.gold_overlap if ask.gold else settings.overlap + (ask.id in with_more) for ask in order]
    other = Question.round_id.is_not(None) if round_id is None else Question.round_id.is_distinct_from(round_id)
    start = session.scalar(select(func.coalesce(func.max(Question.position), -1)).where(other)) or 0
    known = {found for ids in batches([ask.id for ask in order]) for found in session.scalars(select(Question.id).where(Question.id.in_(ids)))}
    moment = now()
    for position, (ask, overlap) in enumerate(zip(order, overlaps, strict=True)):
        if ask.id in known:
            continue
        for sample in (ask.a, ask.b):
            if sample.author == CHECK_AUTHOR and session.get(Sample, sample.id) is None:
                session.add(sample)
        session.add(
            Question(
                id=ask.id, round_id=round_id, kind=Kind.PAIR, prompt_id=ask.a.prompt_id, gold=ask.gold, overlap=overlap,
                position=start + 1 + position, facts={"why": ask.why}, created_at=moment,
            )
        )  # fmt: skip
        session.flush()
        session.add_all(QuestionSample(question_id=ask.id, position=i, sample_id=sample.id) for i, sample in enumerate((ask.a, ask.b)))
    return overlaps
