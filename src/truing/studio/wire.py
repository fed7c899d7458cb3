"""What goes over the wire: the requests and answers of the API, shared by the server and `truing.client`.

Strict: a key that isn't known, a number written as text, NUL, a lone surrogate, NaN or a number beyond ±2⁵³ is refused. Ids of
prompts, samples, questions and sets are hashes of what they are made from, so the same thing posted twice is there once.

An answer speaks of samples by their place in the question (0 is A, 1 is B), never of the sides of a screen; see feedback/answers.py.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from truing.errors import UserError
from truing.store.conversations import checked_prompt

LONGEST_TURN = 100_000  # characters
LONGEST_RESPONSE = 100_000
LONGEST_NAME = 80
LONGEST_FACT = 2000
MOST_AT_ONCE = 200  # prompts or samples in one request
MOST_IN_A_PAGE = 1000
MOST_SAMPLES = 9  # in one question
LONGEST_WORK_MS = 24 * 60 * 60 * 1000
EXACT = 2**53  # every reader of JSON keeps whole numbers up to here as they are
SAYS_SOMETHING = r"[\p{L}\p{N}\p{P}\p{S}]"  # at least one letter, digit or sign that can be seen
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE)

KindName = Literal["pair", "ranking", "rating", "thumbs", "edit"]


# ---- texts, ids, times ----


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character: remove it")
    return text


def _moment(value: Any) -> Any:
    """The moment of an RFC 3339 text; a moment stays what it is."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not RFC_3339.fullmatch(value):
        raise ValueError("write a time as 2026-01-31T12:00:00Z")
    seconds, dot, rest = value.upper().partition(".")
    return datetime.fromisoformat(seconds + dot + rest)


def _conversation(turns: "list[Turn]") -> "list[Turn]":
    try:
        checked_prompt([turn.model_dump() for turn in turns])
    except UserError as error:
        raise ValueError(f"{error.what}: {error.fix}") from None
    return turns


def _fact_kind(value: Any) -> str | None:
    kinds = {str: "text", bool: "truth", int: "whole", float: "number", type(None): "nothing"}
    return kinds.get(type(value))


def _prompt_kind(value: Any) -> str:
    return "id" if isinstance(value, str) else "turns"


def _each_once(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("names one thing twice")
    return values


Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="32 hexadecimal digits")]
EventId = Annotated[str, Field(pattern=r"^[!-~]{1,36}$", description="the id of a judgement or of an annotator")]
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=SAYS_SOMETHING), AfterValidator(_no_nul)]
Words = Annotated[str, Field(min_length=1, max_length=LONGEST_RESPONSE, pattern=SAYS_SOMETHING), AfterValidator(_no_nul)]
Key = Annotated[str, Field(pattern=r"^[!-~]{8,200}$", description="the same for every attempt to send the same answer; never used for another")]
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
Fact = Annotated[
    Annotated[str, Field(max_length=LONGEST_FACT), AfterValidator(_no_nul), Tag("text")]
    | Annotated[int, Field(ge=-EXACT, le=EXACT), Tag("whole")]
    | Annotated[float, Field(ge=-EXACT, le=EXACT), Tag("number")]
    | Annotated[bool, Tag("truth")]
    | Annotated[None, Tag("nothing")],
    Discriminator(_fact_kind, custom_error_type="fact", custom_error_message="write a text, a number, true, false or null"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": LONGEST_FACT},
                {"type": "number", "minimum": -EXACT, "maximum": EXACT},
                {"type": "boolean"},
                {"type": "null"},
            ]
        }
    ),
]
Metadata = Annotated[
    dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,80}$")], Fact],
    Field(max_length=50, json_schema_extra={"additionalProperties": False}, description="whatever you want to find again: texts, numbers, true, false, null"),
]
Flags = Annotated[list[Name], Field(max_length=20, json_schema_extra={"uniqueItems": True}), AfterValidator(_each_once)]
Order = Annotated[
    list[Annotated[int, Field(ge=0, lt=MOST_SAMPLES)]],
    Field(min_length=1, max_length=MOST_SAMPLES, json_schema_extra={"uniqueItems": True}, description="places of the samples as they stood, left to right"),
    AfterValidator(_each_once),
]


class Wire(BaseModel):
    """A message: unknown keys are refused and nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Problem(Wire):
    """Every answer that says no."""

    what: str = Field(description="what was found and what was needed")
    fix: str = Field(description="what to do about it")


# ---- prompts and samples ----


class Turn(Wire):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1, max_length=LONGEST_TURN, pattern=SAYS_SOMETHING), AfterValidator(_no_nul)]


Turns = Annotated[
    list[Turn],
    Field(min_length=1, max_length=200, description="a conversation that ends with the user; a system turn, if any, comes first"),
    AfterValidator(_conversation),
]


PromptOrId = Annotated[Annotated[Id, Tag("id")] | Annotated[Turns, Tag("turns")], Discriminator(_prompt_kind)]


class NewPrompt(Wire):
    """A prompt to keep."""

    turns: Turns
    source: Name = Field("api", description="where it comes from")
    metadata: Metadata = Field(default_factory=dict)


class NewPrompts(Wire):
    """Prompts to keep, all of them or none."""

    prompts: list[NewPrompt] = Field(min_length=1, max_length=MOST_AT_ONCE)


class KeptPrompt(Wire):
    """A prompt as it is kept."""

    id: Id
    split: Literal["train", "held-out"] = Field(description="held-out prompts test the models and train nothing; a hash of the text decides, for ever")
    new: bool = Field(description="false: it was there already")


class KeptPrompts(Wire):
    """The prompts of a request, in its order."""

    prompts: list[KeptPrompt]


class NewSample(Wire):
    """A response to keep."""

    prompt: PromptOrId = Field(description="the id of a prompt, or its turns: then the prompt is kept as well")
    text: Words = Field(description="the response")
    by: Name = Field(description="the model or the person who wrote it; annotators never see it")
    human: bool = Field(False, description="whether a person wrote it")
    finished: bool = Field(True, description="ended by itself rather than cut off")
    batch: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")] = Field("app", description="samples of one batch can be asked about in one set")


class NewSamples(Wire):
    """Responses to keep, all of them or none."""

    samples: list[NewSample] = Field(min_length=1, max_length=MOST_AT_ONCE)


class KeptSample(Wire):
    """A sample as it is kept: the same text by the same author in the same batch is one sample."""

    id: Id
    prompt_id: Id
    new: bool = Field(description="false: it was there already")


class KeptSamples(Wire):
    """The samples of a request, in its order."""

    samples: list[KeptSample]


# ---- questions ----


class NewComparison(Wire):
    """A question to ask: a pair of two samples, a ranking of two to nine, or a rating, thumbs or edit of one. All answer one prompt."""

    set: Name = Field(description="the set of questions it belongs to; made if there is none of that name")
    kind: KindName = "pair"
    samples: Annotated[list[Id], Field(min_length=1, max_length=MOST_SAMPLES, json_schema_extra={"uniqueItems": True}), AfterValidator(_each_once)]
    overlap: int | None = Field(None, ge=1, le=1000, description="how many people are wanted; null: as the set has it")
    guideline: Words | None = Field(None, description="what people are told, for a set that is made now; null: a sentence of Truing's")


class ShownSample(Wire):
    """A sample of a question, for programs: an annotator's page never holds its id or who wrote it."""

    id: Id
    text: str
    by: str
    human: bool


class QuestionView(Wire):
    """A question with all that is needed to ask it. `samples` stand in the order A, B, ...: draw another for the screen and send it back."""

    id: Id
    set_id: str | None
    set: str | None
    kind: KindName
    prompt_id: Id
    turns: list[dict[str, Any]]
    samples: list[ShownSample]
    overlap: int
    answers: int = Field(description="people who have answered; a skip is no answer")
    open: bool
    guideline: str | None
    guideline_version: int
    aspects: list[str] = Field(description="what a rating is of")
    scale: int = Field(description="the highest rating")
    flags: list[str] = Field(description="the flags that may be raised")


class SetView(Wire):
    """A set of questions and how far it is; check questions and repeats are not counted."""

    id: str
    name: str
    kind: KindName
    state: Literal["open", "paused", "archived"]
    questions: int
    answered: int = Field(description="answers in, of those wanted")
    wanted: int
    judgements: int
    people: int


class SetViews(Wire):
    """All sets, in the order in which they are asked."""

    sets: list[SetView]


# ---- answers ----


class Remarks(Wire):
    """What may stand beside any answer."""

    flags: Flags = Field(default_factory=list)
    comment: Words | None = None


class Preference(Remarks):
    """To a pair: above 0 the first sample (A) is preferred, below 0 the second; 0 is a tie."""

    strength: int = Field(ge=-3, le=3)


class BothBad(Remarks):
    """To a pair: neither will do."""

    both_bad: Literal[True]


class Ranks(Remarks):
    """To a ranking: a rank for each sample, 1 is best, ties allowed."""

    ranks: list[Annotated[int, Field(ge=1, le=MOST_SAMPLES)]] = Field(min_length=2, max_length=MOST_SAMPLES)


class Ratings(Remarks):
    """To a rating: a point for each aspect."""

    aspects: dict[Name, Annotated[int, Field(ge=1, le=7)]] = Field(min_length=1, max_length=12, json_schema_extra={"additionalProperties": False})


class Thumb(Remarks):
    """To a thumbs question."""

    up: bool


class Edited(Remarks):
    """To an edit: the person's own version."""

    text: Words


class Unchanged(Remarks):
    """To an edit: nothing to change."""

    unchanged: Literal[True]


class Skip(Remarks):
    """To any question: no answer, and why."""

    skip: Words


ANSWERS: dict[str, type[Remarks]] = {
    "strength": Preference, "both_bad": BothBad, "ranks": Ranks, "aspects": Ratings, "up": Thumb, "text": Edited, "unchanged": Unchanged, "skip": Skip,
}  # fmt: skip


def _form_of(value: Any) -> str | None:
    keys = value.keys() if isinstance(value, Mapping) else type(value).model_fields if isinstance(value, Remarks) else ()
    return next((key for key in ANSWERS if key in keys), None)


Answer = Annotated[
    Annotated[Preference, Tag("strength")]
    | Annotated[BothBad, Tag("both_bad")]
    | Annotated[Ranks, Tag("ranks")]
    | Annotated[Ratings, Tag("aspects")]
    | Annotated[Thumb, Tag("up")]
    | Annotated[Edited, Tag("text")]
    | Annotated[Unchanged, Tag("unchanged")]
    | Annotated[Skip, Tag("skip")],
    Discriminator(
        _form_of, custom_error_type="answer_form", custom_error_message=f"an answer has exactly one of {', '.join(ANSWERS)}, and beside it flags and a comment"
    ),
]


class NewJudgement(Wire):
    """An answer of somebody who uses your application."""

    question_id: Id
    user: Name = Field(description="your id of the person; a keyed hash of it is kept, never the id itself")
    answer: Answer
    order_shown: Order
    idempotency_key: Key
    started_at: Moment | None = Field(None, description="when they first saw it; null: unknown, taken as now")
    active_ms: int = Field(0, ge=0, le=LONGEST_WORK_MS, description="milliseconds they were at it")
    guideline_version: int | None = Field(None, ge=1, le=2**31 - 1, description="the guideline they saw; null: the newest")


class NewThumb(Wire):
    """A thumbs-up or -down on a sample in one call; the question is made if nobody was asked it yet."""

    sample_id: Id
    up: bool
    user: Name = Field(description="your id of the person; a keyed hash of it is kept, never the id itself")
    idempotency_key: Key
    set: Name = Field("thumbs", description="the set of questions it belongs to; made if there is none of that name")
    comment: Words | None = None
    started_at: Moment | None = None
    active_ms: int = Field(0, ge=0, le=LONGEST_WORK_MS)


class Receipt(Wire):
    """An answer that is kept for ever: the promise is given when this arrives."""

    judgement_id: EventId
    question_id: Id
    annotator_id: EventId
    extra: bool = Field(description="the question had enough answers already; it is kept all the same")
    replay: bool = Field(description="this key had brought the same answer before")


class JudgementView(Wire):
    """A row of the log of judgements. A later one that supersedes it stands in its place."""

    id: str
    question_id: str
    annotator_id: str
    answer: dict[str, Any]
    order_shown: list[int]
    started_at: datetime
    submitted_at: datetime
    active_ms: int
    guideline_version: int
    supersedes: str | None
    extra: bool


class JudgementPage(Wire):
    """Some rows of the log, in the order of their ids; `next` is the `after` of the next page, null at the end, and no mark to go on from another day."""

    judgements: list[JudgementView]
    next: str | None


# ---- files, rounds, state ----


class RefusedRow(Wire):
    """A row of a file that can't be used."""

    line: int
    what: str
    fix: str


class ImportView(Wire):
    """What an import did."""

    added: int = Field(description="judgements")
    duplicates: int
    prompts: int
    samples: int
    questions: int
    refused: list[RefusedRow] = Field(description="the first hundred")
    refused_in_all: int


class RoundView(Wire):
    """One turn of the loop."""

    number: int
    parent: int | None
    made: dict[str, Any] = Field(description="stage → what it made")
    created_at: datetime
    sealed_at: datetime | None


class RoundViews(Wire):
    """All rounds, first to last."""

    rounds: list[RoundView]


class RunView(Wire):
    """A stage that is being executed."""

    stage: str
    started_at: datetime
    heartbeat_at: datetime
    progress: dict[str, Any]


class StatusView(Wire):
    """What the project holds and what it is doing."""

    project: str
    version: str = Field(description="of Truing")
    prompts: int
    held_out: int
    samples: int
    sets: int
    questions: int = Field(description="check questions and repeats not counted")
    answered: int = Field(description="answers in, of those wanted")
    wanted: int
    judgements: int
    rounds: int
    running: list[RunView]
