"""The most disputed questions, and a manager's word on each: a judgement of their own through the same door as everyone's."""

from datetime import timedelta
from typing import Any, NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from truing.errors import UserError
from truing.feedback.assignment import submit
from truing.feedback.disputes import bits, lend_disputed, settled_by
from truing.feedback.sets import Rules, rules_of
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.overview import browse, loop
from truing.store.tables import Annotator, Assignment, Judgement, Kind, Prompt, Question, QuestionSet, Role
from truing.studio.auth import Person
from truing.studio.manage.answers import CHOICES, answer_of, split_in_words
from truing.studio.manage.desk import Manager, Sent, back, project_of, said, text
from truing.studio.manage.measuring import age, under_way
from truing.studio.refusals import Refusal
from truing.studio.render import page
from truing.studio.screen import LETTERS, in_words, to_screen

router = APIRouter()

SHOWN = 60  # disputes in the list
LONGEST = timedelta(hours=2)


class Dispute(NamedTuple):
    """A question that splits its people."""

    question: str
    prompt: str
    set_name: str
    kind: str
    votes: dict[str, int]
    n: int
    entropy: float  # bits a person
    settled: str  # who of the managers has judged it
    gold: bool


@router.get("/manage/adjudicate")
def queue(request: Request, person: Manager, all: str = "") -> Response:
    """The list, the largest dispute first; those that a manager has judged only when asked for."""
    with project_of(request).database.read() as session:
        measured = loop.newest_result(session, "disputes")
        rows = measured.result.get("disputes", []) if measured else []
        found = _disputes(session, rows)
        old, doing, judgements = age(session), under_way(session, now()), loop.total(session, Judgement)
    shown = [one for one in found if all or not (one.settled or one.gold)]
    return page(
        request, "manage/adjudicate.html", person=person, disputes=shown[:SHOWN], more=len(shown) - SHOWN, settled=len(found) - len(shown), all=bool(all),
        age=old, doing=doing, judgements=judgements, split=split_in_words, said=said(request), at=now(),
    )  # fmt: skip


def _disputes(session: Session, rows: list[dict[str, Any]]) -> list[Dispute]:
    ids = [row["question"] for row in rows]
    columns = (Question.id, Prompt.text, QuestionSet.name, Question.kind, Question.gold)
    query = select(*columns).join(Prompt, Prompt.id == Question.prompt_id).join(QuestionSet, QuestionSet.id == Question.set_id, isouter=True)
    asked = {row.id: row for row in session.execute(query.where(Question.id.in_(ids)))}
    managers = dict(session.execute(select(Annotator.id, Annotator.name).where(Annotator.role != Role.ANNOTATOR)).all())
    settled = settled_by(session, ids, list(managers))
    found = []
    for row in rows:
        if row["question"] in asked:
            question, n = asked[row["question"]], sum(row["votes"].values())
            by = managers.get(settled.get(question.id, ""), "")
            entropy = bits(row["votes"]) / n
            found.append(Dispute(question.id, question.text, question.name or "", question.kind, row["votes"], n, entropy, by, question.gold is not None))
    return found


@router.post("/manage/adjudicate/{question_id}/take")
def take(request: Request, person: Manager, question_id: str) -> Response:
    """Draw an order for this manager, and go to the question."""
    lend_disputed(project_of(request), question_id, person.id, at=now())
    return RedirectResponse(f"/manage/adjudicate/{question_id}", status_code=303)


@router.get("/manage/adjudicate/{question_id}")
def dispute_page(request: Request, person: Manager, question_id: str) -> Response:
    """The question as its people saw it, what each of them said, and the manager's own answer."""
    return _page(request, person, question_id)


def _page(request: Request, person: Person, question_id: str, problem: UserError | None = None) -> Response:
    with project_of(request).database.read() as session:
        whole, lent = _taken(session, question_id, person.id)
        if lent is None:
            return RedirectResponse("/manage/adjudicate", status_code=303)
        rules = rules_of(whole.set) if whole.set else Rules()
        mine = next((row for row in reversed(whole.judgements) if row.annotator_id == person.id and not row.superseded), None)
    order = lent.order_shown
    others = [row for row in whole.judgements if row.annotator_id != person.id and not row.superseded]
    said_here = [(row, in_words(to_screen(row.answer, order))) for row in others]
    texts = [whole.samples[place].text for place in order]
    return page(
        request, "manage/dispute.html", status=400 if problem else 200, person=person, whole=whole, order=order, texts=texts,
        rules=rules, said_here=said_here, mine=mine, mine_words=in_words(to_screen(mine.answer, order)) if mine else "", choices=CHOICES, letters=LETTERS,
        problem=problem, started=now().isoformat(), guideline=_version(request, whole),
    )  # fmt: skip


@router.post("/manage/adjudicate/{question_id}")
def judge(request: Request, person: Manager, question_id: str, form: Sent) -> Response:
    """Keep the manager's answer: their own judgement, which counts as theirs."""
    project, at = project_of(request), now()
    with project.database.read() as session:
        whole, lent = _taken(session, question_id, person.id)
        rules = rules_of(whole.set) if whole.set else Rules()
    if lent is None:
        raise Refusal(409, "this question was not opened by you", fix="open it from the list of disputed questions")
    try:
        answer = answer_of(form, whole.question.kind, rules, lent.order_shown)
    except UserError as problem:
        return _page(request, person, question_id, problem)
    started = max(at - LONGEST, min(at, _moment(text(form, "started")) or at))
    submit(
        project, lent.id, answer, annotator_id=person.id, started_at=started, at=at, active_ms=int((at - started).total_seconds() * 1000),
        idempotency_key=content_id("adjudication", lent.id, answer, text(form, "started")), guideline_version=_version(request, whole),
    )  # fmt: skip
    return back("/manage/adjudicate", "kept")


def _taken(session: Session, question_id: str, person_id: str) -> tuple[browse.Whole, Assignment | None]:
    whole = browse.whole_question(session, question_id)
    if whole is None or whole.question.kind == Kind.EDIT:
        raise Refusal(404, "there is no such disputed question", fix="choose one of the list")
    lent = session.scalars(select(Assignment).where(Assignment.question_id == question_id, Assignment.annotator_id == person_id)).first()
    return whole, lent


def _version(request: Request, whole: browse.Whole) -> int:
    """The newest version of the guideline; 0 outside sets."""
    if whole.set is None:
        return 0
    with project_of(request).database.read() as session:
        return max((one.version for one in browse.guidelines(session, whole.set.id)), default=0)


def _moment(said: str) -> Any:
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
