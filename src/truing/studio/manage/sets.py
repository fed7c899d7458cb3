"""Sets of questions: the list with its progress, and a set's own page with its guideline, its check questions and its state."""

from datetime import datetime
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from truing.errors import UserError
from truing.feedback.sets import SetSummary, add_gold, new_guideline, newest_guideline, rules_of, set_state, sets_of
from truing.store.clock import now
from truing.store.overview import browse, loop
from truing.store.tables import Kind, Question, QuestionSet, Sample, SetState
from truing.studio.manage.answers import answer_of, told_gold
from truing.studio.manage.desk import Manager, Sent, back, project_of, said, text
from truing.studio.refusals import Refusal
from truing.studio.render import markdown, page

router = APIRouter()

KINDS = {Kind.PAIR: "pair", Kind.RANKING: "ranking", Kind.RATING: "rating", Kind.THUMBS: "thumbs up or down", Kind.EDIT: "edit"}
STATES = {SetState.OPEN: "opened", SetState.PAUSED: "paused", SetState.ARCHIVED: "archived"}
Asked = Annotated[str, Query(max_length=200)]


class SetLine(NamedTuple):
    """A set as the list shows it."""

    set: SetSummary
    each_hour: float | None  # answers; None when none came in the last hour
    hours_left: float | None

    @property
    def done(self) -> bool:
        """Whether all its answers are in."""
        return self.set.wanted > 0 and self.set.answered >= self.set.wanted


def lines(session: Session, at: datetime) -> list[SetLine]:
    """All sets with their pace."""
    paces = loop.pace(session, at)
    found = []
    for one in sets_of(session):
        each_hour = paces[one.id].each_hour if one.id in paces else None
        left = max(0, one.wanted - one.answered)
        found.append(SetLine(one, each_hour, left / each_hour if each_hour and left and one.state == SetState.OPEN else None))
    return found


@router.get("/manage/sets")
def list_page(request: Request, person: Manager) -> Response:
    """All sets, those that are asked first."""
    with project_of(request).database.read() as session:
        found = lines(session, now())
        has_samples = loop.total(session, Sample) > 0
    current = [line for line in found if line.set.state != SetState.ARCHIVED]
    archived = [line for line in found if line.set.state == SetState.ARCHIVED]
    return page(request, "manage/sets.html", person=person, current=current, archived=archived, has_samples=has_samples, kinds=KINDS)


@router.get("/manage/sets/{set_id}")
def set_page(request: Request, person: Manager, set_id: str, words: Asked = "", which: Asked = "", after: Asked = "") -> Response:
    """One set: how far it is, what its people are told, and its questions."""
    with project_of(request).database.read() as session:
        row = _set(session, set_id)
        line = next(line for line in lines(session, now()) if line.set.id == set_id)
        asked = browse.questions_page(session, set_id, words=words, which=which, after=after)
        versions = browse.guidelines(session, set_id)
        measured = loop.newest_result(session, "disputes")
        names = dict(browse_names(session, rules_of(row).who))
    found = next((one for one in (measured.result.get("sets", []) if measured else []) if one["id"] == set_id), None)
    return page(
        request, "manage/set.html", person=person, row=row, line=line, rules=rules_of(row), versions=versions, asked=asked, words=words, which=which,
        kinds=KINDS, said=said(request), measured=found, who=names, told_gold=told_gold, problem=None, typed=None,
    )  # fmt: skip


def browse_names(session: Session, ids: list[str] | None) -> list[tuple[str, str]]:
    """(id, name) of these people."""
    from truing.store.overview.people import names

    return [one for one in names(session) if ids is not None and one[0] in ids]


@router.post("/manage/sets/{set_id}/state")
def change_state(request: Request, person: Manager, set_id: str, form: Sent) -> Response:
    """Open, pause or archive it."""
    state = text(form, "state")
    if state not in list(SetState):
        raise Refusal(400, f"a set can't be {state!r}", fix="use the page's own buttons")
    with project_of(request).database.read() as session:
        _set(session, set_id)
    set_state(project_of(request), set_id, state)
    return back(f"/manage/sets/{set_id}", STATES[SetState(state)])


@router.post("/manage/sets/{set_id}/guideline")
def change_guideline(request: Request, person: Manager, set_id: str, form: Sent) -> Response:
    """Tell annotators something else: a new version, if the text is another."""
    project, words = project_of(request), text(form, "guideline")
    with project.database.read() as session:
        _set(session, set_id)
        newest = newest_guideline(session, set_id)
    try:
        version = new_guideline(project, set_id, words, now())
    except UserError as problem:
        return _guideline_again(request, person, set_id, words, problem)
    return back(f"/manage/sets/{set_id}", "guideline-same" if newest is not None and newest.version == version else "guideline")


def _guideline_again(request: Request, person: Manager, set_id: str, words: str, problem: UserError) -> Response:
    """The same page with what was typed, and what is wrong with it."""
    with project_of(request).database.read() as session:
        row = _set(session, set_id)
        view: dict[str, Any] = {
            "row": row, "line": next(line for line in lines(session, now()) if line.set.id == set_id), "rules": rules_of(row),
            "versions": browse.guidelines(session, set_id), "asked": browse.questions_page(session, set_id),
        }  # fmt: skip
    return page(
        request, "manage/set.html", status=400, person=person, words="", which="", kinds=KINDS, said=None, measured=None, who={}, told_gold=told_gold,
        problem=problem, typed=words, **view,
    )  # fmt: skip


@router.post("/manage/questions/{question_id}/gold")
def mark_gold(request: Request, person: Manager, question_id: str, form: Sent) -> Response:
    """Make a question a check question with the answer that the form gives, or a plain one again."""
    project = project_of(request)
    with project.database.read() as session:
        question = session.get(Question, question_id)
        if question is None:
            raise Refusal(404, "there is no such question", fix="choose one of a set's questions")
        if question.set_id is None:
            raise Refusal(400, "this question belongs to no set, and nobody is asked it", fix="choose one of a set's questions")
        rules, set_id, kind = rules_of(_set(session, question.set_id)), question.set_id, question.kind
        n = len(browse.whole_question(session, question_id).samples)  # type: ignore[union-attr]  # it was there a line ago
    plain = text(form, "plain") == "yes"
    add_gold(project, set_id, question_id, None if plain else answer_of(form, kind, rules, range(n)))
    return back(f"/manage/questions/{question_id}", "plain" if plain else "gold")


@router.post("/manage/preview")
def preview(request: Request, person: Manager, form: Sent) -> HTMLResponse:
    """A guideline as annotators will read it."""
    return HTMLResponse(str(markdown(text(form, "text"))))


def _set(session: Session, set_id: str) -> QuestionSet:
    row = session.get(QuestionSet, set_id)
    if row is None:
        raise Refusal(404, "there is no such set of questions", fix="choose one of the list")
    return row
