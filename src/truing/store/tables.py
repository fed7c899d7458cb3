"""The tables, in the order of the data: prompt → sample → question → judgement → dataset → round.

Ids of what is made from other things (prompt, sample, question) are hashes of what they are made from, so that the same inputs
give the same ids; ids of events (assignment, judgement) are time-ordered uuid7.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, LargeBinary, String, Text, TypeDecorator, false, text, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Utc(TypeDecorator[datetime]):
    """A moment in UTC. SQLite forgets time zones; this puts UTC back and refuses naive times."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive time {value!r}: say which time zone")
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Split(StrEnum):
    """Which prompts are learned from and which are kept for honest evaluation."""

    TRAIN = "train"
    HELD_OUT = "held-out"


class Kind(StrEnum):
    """What is asked of an annotator."""

    PAIR = "pair"
    RANKING = "ranking"
    RATING = "rating"
    THUMBS = "thumbs"
    EDIT = "edit"


class AnnotatorKind(StrEnum):
    """Who answers."""

    HUMAN = "human"
    MODEL = "model"
    SIMULATED = "simulated"


class Role(StrEnum):
    """What someone may do in the studio; each may do what those after it may."""

    OWNER = "owner"
    MANAGER = "manager"
    ANNOTATOR = "annotator"


class SetState(StrEnum):
    """Whether the questions of a set are asked."""

    OPEN = "open"
    PAUSED = "paused"
    ARCHIVED = "archived"


class RunState(StrEnum):
    """Where the execution of a stage stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Base(DeclarativeBase):
    """All tables of a project."""

    # None is SQL's NULL, not JSON's null: `gold.is_(None)` must find it
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON(none_as_null=True), list[Any]: JSON(none_as_null=True)}  # noqa: RUF012 (SQLAlchemy's own spelling)


class Prompt(Base):
    """A conversation that ends with a user turn. Its id is a hash of the turns."""

    __tablename__ = "prompt"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    turns: Mapped[list[Any]]  # [{"role": "user", "content": "..."}, ...]
    text: Mapped[str] = mapped_column(Text)  # the last user turn
    split: Mapped[str] = mapped_column(String(16), index=True)
    source: Mapped[str] = mapped_column(Text)  # the file it came from
    facts: Mapped[dict[str, Any]]  # topic, tags: whatever the file said of it
    position: Mapped[int] = mapped_column(index=True)  # order of import
    created_at: Mapped[datetime]


class Artifact(Base):
    """An immutable folder under artifacts/, named by the hash of its content."""

    __tablename__ = "artifact"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)  # kind-hash
    kind: Mapped[str] = mapped_column(String(32), index=True)
    manifest: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Policy(Base):
    """A version of the language model: the base, or what a tuning run made of it."""

    __tablename__ = "policy"
    id: Mapped[str] = mapped_column(String(80), primary_key=True)  # "base" or the artifact's id
    model: Mapped[str] = mapped_column(Text)  # a name the registry resolves
    artifact_id: Mapped[str | None] = mapped_column(ForeignKey("artifact.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("policy.id"))
    created_at: Mapped[datetime]


class Sample(Base):
    """One response to one prompt, by a policy or by a person (then policy_id is null and author says who)."""

    __tablename__ = "sample"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompt.id"), index=True)
    policy_id: Mapped[str | None] = mapped_column(ForeignKey("policy.id"), index=True)
    author: Mapped[str | None] = mapped_column(Text)
    batch: Mapped[str] = mapped_column(String(80), index=True)  # the sampling run, or the import, that it belongs to
    position: Mapped[int]  # 0, 1, ... among the samples of this prompt in this batch
    text: Mapped[str] = mapped_column(Text)
    token_ids: Mapped[list[Any] | None]  # the response's tokens, its end token included when it has one
    logprobs: Mapped[bytes | None] = mapped_column(LargeBinary)  # float32, one for each token, nats, at `temperature`
    finished: Mapped[bool]  # ended by itself rather than cut off
    temperature: Mapped[float | None]
    seed: Mapped[int | None] = mapped_column(BigInteger)
    base_logprob: Mapped[float | None]  # mean log-probability per token under the base model at temperature 1, nats; null until computed
    created_at: Mapped[datetime]


class QuestionSet(Base):
    """Questions that were set up together: of one kind, under one guideline, by the same rules."""

    __tablename__ = "question_set"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    round_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"), index=True)
    state: Mapped[str] = mapped_column(String(16))
    rules: Mapped[dict[str, Any]]  # feedback/sets.py: Rules
    position: Mapped[int]  # order in which sets are asked
    created_at: Mapped[datetime]


class Guideline(Base):
    """What annotators are told, version by version; a judgement remembers the version it was made under."""

    __tablename__ = "guideline"
    set_id: Mapped[str] = mapped_column(ForeignKey("question_set.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)  # 1, 2, ...
    text: Mapped[str] = mapped_column(Text)  # markdown
    created_at: Mapped[datetime]


class Question(Base):
    """What is asked about one prompt's samples. `gold` is the known answer of a check question; it is never shown.

    `answers` and `open` follow from the log of judgements and are kept beside it so that the next question is found by an index:
    store/judgements.py counts them afresh with every answer.
    """

    __tablename__ = "question"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"), index=True)
    set_id: Mapped[str | None] = mapped_column(ForeignKey("question_set.id"))  # null: imported, asked of nobody
    kind: Mapped[str] = mapped_column(String(16))
    prompt_id: Mapped[str] = mapped_column(ForeignKey("prompt.id"), index=True)
    gold: Mapped[dict[str, Any] | None]
    repeat_of: Mapped[str | None] = mapped_column(ForeignKey("question.id"))  # asked again of the same annotator, to see whether they agree with themselves
    only_for: Mapped[str | None] = mapped_column(ForeignKey("annotator.id"))
    overlap: Mapped[int]  # how many annotators are wanted
    answers: Mapped[int] = mapped_column(server_default=text("0"), default=0)  # people who have answered; a skip is no answer
    open: Mapped[bool] = mapped_column(server_default=true(), default=True)  # answers < overlap
    position: Mapped[int]  # order in which it is asked
    facts: Mapped[dict[str, Any]]  # why it was chosen, where it was imported from
    created_at: Mapped[datetime]
    __table_args__ = (
        Index("question_next", "set_id", "position", "id", sqlite_where=text("open"), postgresql_where=text("open")),
        Index("question_fewest", "set_id", "answers", "position", "id", sqlite_where=text("open"), postgresql_where=text("open")),
        Index("question_order", "position"),
    )


class QuestionSample(Base):
    """The samples of a question. Position 0 is A, 1 is B, ...: never where they stood on the screen."""

    __tablename__ = "question_sample"
    question_id: Mapped[str] = mapped_column(ForeignKey("question.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    sample_id: Mapped[str] = mapped_column(ForeignKey("sample.id"), index=True)


class Annotator(Base):
    """Who answers. `facts` of a simulated one is its taste, noise and vices."""

    __tablename__ = "annotator"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    role: Mapped[str] = mapped_column(String(16))  # owner, manager, annotator
    password_hash: Mapped[str | None] = mapped_column(Text)
    active: Mapped[bool]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class SignInFailure(Base):
    """A password that was wrong: too many in a short time close the door for a while."""

    __tablename__ = "sign_in_failure"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # uuid7
    account: Mapped[str] = mapped_column(Text, index=True)  # a known name; anything else hashed, for people type their password there
    address: Mapped[str] = mapped_column(Text, index=True)
    at: Mapped[datetime]


class Session(Base):
    """A signed-in browser. The secret is stored hashed."""

    __tablename__ = "session"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # sha256 of the cookie
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotator.id"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Invitation(Base):
    """A link that lets someone in. The secret is stored hashed."""

    __tablename__ = "invitation"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # sha256 of the link's secret
    name: Mapped[str] = mapped_column(Text, server_default=text("''"))  # what it is for: a class, a team
    role: Mapped[str] = mapped_column(String(16))
    uses_left: Mapped[int]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Token(Base):
    """A scoped key for scripts. The secret is stored hashed."""

    __tablename__ = "token"
    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # sha256 of the token
    name: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]


class Assignment(Base):
    """A question lent to an annotator until a time, with the order in which its samples are shown."""

    __tablename__ = "assignment"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # uuid7
    question_id: Mapped[str] = mapped_column(ForeignKey("question.id"))
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotator.id"))
    set_id: Mapped[str | None] = mapped_column(ForeignKey("question_set.id"))  # the question's
    number: Mapped[int] = mapped_column(server_default=text("0"), default=0)  # 1 for the annotator's first question of the set, 2, ...
    order_shown: Mapped[list[Any]]  # positions of the question's samples from left to right, e.g. [1, 0]
    claimed_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    draft: Mapped[dict[str, Any] | None]  # what the annotator has entered so far, as the page keeps it
    answered: Mapped[bool] = mapped_column(server_default=false(), default=False)  # so that leases that still matter are found by an index
    __table_args__ = (
        Index("assignment_once", "question_id", "annotator_id", unique=True),
        Index("assignment_lease", "annotator_id", "expires_at", sqlite_where=text("NOT answered"), postgresql_where=text("NOT answered")),
        Index("assignment_number", "annotator_id", "set_id", "number"),
    )


class Judgement(Base):
    """One answer by one annotator. Append-only: a change of mind is a new row that supersedes the old."""

    __tablename__ = "judgement"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # uuid7
    question_id: Mapped[str] = mapped_column(ForeignKey("question.id"))
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotator.id"))
    answer: Mapped[dict[str, Any]]  # see feedback/answers.py; speaks of samples, never of sides
    order_shown: Mapped[list[Any]]
    started_at: Mapped[datetime]
    submitted_at: Mapped[datetime]
    active_ms: Mapped[int]
    guideline_version: Mapped[int]
    idempotency_key: Mapped[str] = mapped_column(String(80), unique=True)
    supersedes: Mapped[str | None] = mapped_column(ForeignKey("judgement.id"), unique=True)
    extra: Mapped[bool] = mapped_column(
        server_default=false(), default=False
    )  # the question had enough answers already, for instance since its lease had run out
    __table_args__ = (Index("judgement_of", "question_id", "annotator_id"), Index("judgement_latest", "annotator_id", "submitted_at"))


class Dataset(Base):
    """What judgements said after quality control, frozen as an artifact."""

    __tablename__ = "dataset"
    artifact_id: Mapped[str] = mapped_column(ForeignKey("artifact.id"), primary_key=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"))
    version: Mapped[int] = mapped_column(unique=True)  # 1, 2, ... in order of making
    created_at: Mapped[datetime]


class Run(Base):
    """One execution of a stage. A finished run with the same key answers in its place."""

    __tablename__ = "run"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # uuid7
    stage: Mapped[str] = mapped_column(String(32), index=True)
    key: Mapped[str] = mapped_column(String(64), index=True)  # hash of stage, inputs, settings and seed
    round_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"))
    state: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    seconds: Mapped[float]  # time spent in this and earlier, interrupted runs of the same key
    peak_gb: Mapped[float]  # the most memory a process held that worked on this key
    progress: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any]]
    error: Mapped[str | None] = mapped_column(Text)


class Round(Base):
    """One turn of the loop."""

    __tablename__ = "round"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("round.id"))
    seed: Mapped[int] = mapped_column(BigInteger)
    made: Mapped[dict[str, Any]]  # stage → what it made: artifact ids and counts
    created_at: Mapped[datetime]
    sealed_at: Mapped[datetime | None]
