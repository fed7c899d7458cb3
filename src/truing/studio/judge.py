"""The annotators' pages: judge, change one of the last answers, see one's own pace. And the doors that the judging page's script uses.

What goes to the browser holds the id of the claim, the texts in the order shown and the set's words: nothing that tells who wrote what,
whether a question is a check or a repeat, or what others said.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from markupsafe import Markup
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session as Store

from truing.errors import UserError
from truing.feedback.assignment import (
    LONGEST_MS,
    MOST_BESIDES,
    Claim,
    Given,
    Progress,
    Receipt,
    Shown,
    Work,
    answer_to,
    answers_given,
    borrowed,
    claim_in,
    last_answers,
    progress,
    question_shown,
    release,
    save_draft,
    supersede_in,
)
from truing.feedback.own_work import completion_address, own_numbers, why_nothing
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.rows import require_clean
from truing.store.tables import Judgement, Kind, Question, Role
from truing.studio.auth import Person, require
from truing.studio.refusals import Refusal
from truing.studio.render import fragment, markdown, page
from truing.studio.screen import LETTERS, from_screen, in_words, to_screen
from truing.studio.turns import InTurn

router = APIRouter(include_in_schema=False)
doors = APIRouter(include_in_schema=False, route_class=InTurn)

EDITABLE = 20  # answers that can still be changed
OLDEST = timedelta(days=30)  # an answer may have waited so long in a browser
ASKS = {
    Kind.PAIR: "Which response is better?",
    Kind.RANKING: "Which are better than which?",
    Kind.RATING: "How good is this response?",
    Kind.THUMBS: "Is this a good response?",
    Kind.EDIT: "Make this response better",
}
SKIPS = (
    "I can't tell which is right",
    "I know too little about the subject",
    "the prompt makes no sense",
    "something is broken or can't be read",
    "I would rather not read this",
)

Somebody = Annotated[Person, Depends(require(Role.ANNOTATOR))]
Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{1,36}$")]


# ---- what the script sends ----


class Sent(BaseModel):
    """What a door takes: these keys and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Besides(Sent):
    """Asks for a question beside those on the screen or waiting to be sent."""

    besides: list[Id] = Field(max_length=MOST_BESIDES)


class Draft(Sent):
    """What has been entered so far; null: nothing any more."""

    claim: Id
    draft: dict[str, Any] | None


class Release(Sent):
    """A question that is given back."""

    claim: Id


class Answer(Sent):
    """An answer in the screen's words, and how it came about."""

    answer: dict[str, Any]
    started_at: AwareDatetime
    active_ms: int = Field(ge=0, le=LONGEST_MS)
    key: str = Field(pattern=r"^[0-9A-Za-z-]{8,80}$")
    guideline_version: int = Field(ge=0, le=1_000_000)

    def work(self, at: datetime) -> Work:
        """The same for the log. A browser's clock may be wrong by years: it is believed for a month."""
        return Work(max(self.started_at, at - OLDEST), at, self.active_ms, self.key, self.guideline_version)


class Submit(Answer):
    """An answer to a question that was lent. With `besides` another question is asked for in the same breath, beside those."""

    claim: Id
    besides: list[Id] | None = Field(default=None, max_length=MOST_BESIDES)


class Supersede(Answer):
    """Another answer in the place of an earlier one."""

    judgement: Id


# ---- pages ----


@router.get("/judge")
def judge_page(request: Request, person: Somebody) -> Response:
    """The judging page; its script asks for the questions."""
    return page(request, "judge/judge.html", person=person, me=browser_id(person), skips=SKIPS)


@router.get("/judge/last")
def last_page(request: Request, person: Somebody) -> Response:
    """The last 20 answers, each of which can be changed."""
    return page(request, "judge/last.html", person=person, answers=_last(request, person))


@router.get("/me")
def me_page(request: Request, person: Somebody) -> Response:
    """A person's own numbers, which only they see here."""
    with request.app.state.project.database.read() as store:
        numbers = own_numbers(store, person.id)
        far, total = progress(store, person.id, now()), answers_given(store, person.id)
    return page(request, "judge/me.html", person=person, numbers=numbers, far=far, total=total)


def browser_id(person: Person) -> str:
    """Under which name a browser keeps what it still has to send for this person: nobody else's page may send it."""
    return content_id("browser", person.id, length=16)


# ---- doors of the script ----


@doors.post("/judge/api/next")
def next_door(request: Request, sent: Besides, person: Somebody) -> dict[str, Any]:
    """Another question beside those that are on the screen; without one, why there is none."""
    with request.app.state.project.database.write_together() as store:
        following = _lend_next(store, person.id, sent.besides, now())
    return _on_the_way(following)


@doors.post("/judge/api/submit")
def submit_door(request: Request, sent: Submit, person: Somebody) -> dict[str, Any]:
    """Take in an answer; the same key again changes nothing. Then, where one is asked for, another question: one way for both."""
    moment = now()
    with request.app.state.project.database.write_together() as store:
        lent = borrowed(store, sent.claim, person.id)
        if lent is None:
            raise _not_theirs()
        receipt = answer_to(store, lent, from_screen(lent.kind, sent.answer, lent.order_shown), sent.work(moment))
        try:
            following = None if sent.besides is None else _lend_next(store, person.id, sent.besides, moment)
        except UserError:  # they were paused this moment: the answer is kept, and whoever asks for a question next is told why there is none
            following = None
    return _receipt(receipt) | ({} if following is None else {"next": _on_the_way(following)})


@doors.post("/judge/api/supersede")
def supersede_door(request: Request, sent: Supersede, person: Somebody) -> dict[str, Any]:
    """Change an answer. The page offers the last 20; one that was among them when it was changed offline is taken however late it comes."""
    with request.app.state.project.database.write_together() as store:
        old = store.get(Judgement, sent.judgement)
        if old is None or old.annotator_id != person.id:
            raise _not_theirs()
        answer = from_screen(store.get_one(Question, old.question_id).kind, sent.answer, old.order_shown)
        receipt = supersede_in(store, old.id, answer, sent.work(now()), annotator_id=person.id)
    return _receipt(receipt)


@doors.post("/judge/api/draft")
def draft_door(request: Request, sent: Draft, person: Somebody) -> dict[str, Any]:
    """Keep what has been entered so far."""
    require_clean(sent.draft)
    save_draft(request.app.state.project, sent.claim, sent.draft, annotator_id=person.id, at=now())
    return {"saved": True}


@doors.post("/judge/api/release")
def release_door(request: Request, sent: Release, person: Somebody) -> dict[str, Any]:
    """Give a question back unanswered."""
    release(request.app.state.project, sent.claim, annotator_id=person.id, at=now())
    return {"released": True}


@router.get("/judge/api/last")
def last_door(request: Request, person: Somebody) -> dict[str, Any]:
    """The last 20 answers, newest first."""
    return {"answers": _last(request, person)}


@router.get("/judge/api/last/{judgement_id}")
def given_door(request: Request, judgement_id: Id, person: Somebody) -> dict[str, Any]:
    """One of the last 20 answers with its question, to be changed."""
    with request.app.state.project.database.read() as store:
        given = _editable(store, judgement_id, person)
        shown = question_shown(store, given.question_id, given.order_shown)
    return on_screen(shown) | {"judgement": given.judgement_id, "answer": to_screen(given.answer, given.order_shown)}


# ---- another question ----


class Following(NamedTuple):
    """What an annotator gets next, as the store has it."""

    lent: Claim | None
    shown: Shown | None  # None: as `lent`
    far: Progress
    at: datetime
    nothing: dict[str, str | None] | None  # why no question is left


def _lend_next(store: Store, person_id: str, besides: Sequence[str], at: datetime) -> Following:
    lent = claim_in(store, person_id, at=at, besides=besides)
    shown = question_shown(store, lent.question_id, lent.order_shown) if lent else None
    nothing = None if lent else {"why": why_nothing(store, person_id), "leave_by": completion_address(store, person_id)}
    return Following(lent, shown, progress(store, person_id, at), at, nothing)


def _on_the_way(following: Following) -> dict[str, Any]:
    """The same for the page."""
    question, lent, far = None, following.lent, following.far
    if lent and following.shown:
        lease = {"claim": lent.id, "draft": lent.draft, "lease_seconds": int((lent.expires_at - following.at).total_seconds())}
        question = on_screen(following.shown) | lease
    return {"question": question, "nothing": following.nothing, "progress": {"today": far.today, "left": far.left, "seconds": far.median_seconds}}


# ---- what goes to the screen ----


def on_screen(shown: Shown) -> dict[str, Any]:
    """A question for the page: safe HTML in the order shown, and the set's words."""
    labels = ["Left", "Right"] if shown.kind == Kind.PAIR else list(LETTERS) if shown.kind == Kind.RANKING else ["Response"]
    responses = [{"label": label, "text": text, "html": markdown(text)} for label, text in zip(labels, shown.texts, strict=False)]
    turns = [{"role": turn["role"], "text": turn["content"], "html": markdown(turn["content"])} for turn in shown.turns]
    aspects = json.dumps([aspect.model_dump() for aspect in shown.aspects]) if shown.kind == Kind.RATING else "[]"
    parts = {"tools": _tools(shown.kind), "form": _form(shown.kind, aspects, shown.scale, tuple(shown.flags), shown.guideline_version)}
    html = fragment("judge/question.html", kind=shown.kind, ask=ASKS[Kind(shown.kind)], turns=turns, responses=responses, **parts)
    guideline = {"version": shown.guideline_version, "html": markdown(shown.guideline)}
    return {"kind": shown.kind, "set": shown.set_name, "html": html, "guideline": guideline}


@cache
def _tools(kind: str) -> Markup:
    return Markup(fragment("judge/tools.html", kind=kind))


@lru_cache(maxsize=256)
def _form(kind: str, aspects: str, scale: int, flags: tuple[str, ...], guideline_version: int) -> Markup:
    """What is answered by, which no question of a set has to itself. `aspects` is JSON."""
    return Markup(fragment("judge/form.html", kind=kind, aspects=json.loads(aspects), scale=scale, flags=flags, guideline_version=guideline_version))


def _last(request: Request, person: Person) -> list[dict[str, Any]]:
    """The last answers in words."""
    with request.app.state.project.database.read() as store:
        given = last_answers(store, person.id, EDITABLE)
        prompts = [question_shown(store, one.question_id, one.order_shown) for one in given]
    return [_in_a_line(one, shown) for one, shown in zip(given, prompts, strict=True)]


def _in_a_line(given: Given, shown: Shown) -> dict[str, Any]:
    prompt = " ".join(shown.turns[-1]["content"].split())
    return {
        "judgement": given.judgement_id,
        "kind": given.kind,
        "set": shown.set_name,
        "prompt": prompt if len(prompt) <= 140 else prompt[:139].rstrip() + "…",
        "words": in_words(to_screen(given.answer, given.order_shown)),
        "at": given.submitted_at.isoformat(),
    }


def _editable(store: Store, judgement_id: str, person: Person) -> Given:
    for given in last_answers(store, person.id, EDITABLE):
        if given.judgement_id == judgement_id:
            return given
    raise Refusal(404, f"this isn't one of your last {EDITABLE} answers", fix="open the list of your last answers: a newer one may stand in its place")


def _not_theirs() -> Refusal:
    return Refusal(404, "this question isn't yours to answer", fix="reload the page: it asks for one that is")


def _receipt(receipt: Receipt) -> dict[str, Any]:
    return {"judgement": receipt.judgement_id, "replay": receipt.replay}
