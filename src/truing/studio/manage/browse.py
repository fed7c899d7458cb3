"""The browser: prompts, samples and judgements with filters, and whole histories of a prompt and of a question."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from truing.feedback.answers import FLAGS
from truing.feedback.sets import Rules, rules_of
from truing.store.overview import browse, loop
from truing.store.overview.people import names
from truing.store.tables import Judgement, Kind, Prompt, Sample, Split
from truing.studio.manage.answers import CHOICES, shown_order, told, told_gold
from truing.studio.manage.desk import Manager, project_of, said
from truing.studio.refusals import Refusal
from truing.studio.render import page
from truing.studio.screen import LETTERS

router = APIRouter()

Asked = Annotated[str, Query(max_length=200)]


def next_page(request: Request, key: str, value: str | None) -> str | None:
    """The address of the next page of a list, with the same filters; None on the last."""
    if value is None:
        return None
    kept = [(name, said) for name, said in request.query_params.multi_items() if name not in (key, "said") and said]
    return f"{request.url.path}?{urlencode([*kept, (key, value)])}"


def searchable(words: str) -> str:
    """What is searched for: without the NUL that databases refuse."""
    return words.replace("\0", "").strip()


@router.get("/manage/prompts")
def prompts_page(request: Request, person: Manager, words: Asked = "", split: Asked = "", source: Asked = "", after: Asked = "") -> Response:
    """Prompts in the order of their import."""
    with project_of(request).database.read() as session:
        found = browse.prompts_page(session, words=searchable(words), split=split, source=source, after=after)
        view: dict[str, Any] = {"total": loop.total(session, Prompt), "sources": browse.sources(session)}
    return page(
        request, "manage/prompts.html", person=person, found=found, words=words, split=split, source=source, after=after, splits=list(Split),
        next_page=next_page(request, "after", found.next), **view,
    )  # fmt: skip


@router.get("/manage/samples")
def samples_page(request: Request, person: Manager, words: Asked = "", policy: Asked = "", split: Asked = "", batch: Asked = "", after: Asked = "") -> Response:
    """Samples, those of one prompt beside each other, with who wrote them."""
    with project_of(request).database.read() as session:
        found = browse.samples_page(session, words=searchable(words), policy=policy, split=split, batch=batch, after=after)
        view: dict[str, Any] = {"total": loop.total(session, Sample), "policies": [*browse.policies(session), browse.PEOPLE]}
    return page(
        request, "manage/samples.html", person=person, found=found, words=words, split=split, policy=policy, batch=batch, after=after, splits=list(Split),
        next_page=next_page(request, "after", found.next), **view,
    )  # fmt: skip


@router.get("/manage/judgements")
def judgements_page(
    request: Request,
    person: Manager,
    words: Asked = "",
    annotator: Asked = "",
    set: Asked = "",
    kind: Asked = "",
    answer: Asked = "",
    flag: Asked = "",
    since: Asked = "",
    until: Asked = "",
    before: Asked = "",
) -> Response:
    """Judgements, the newest first; changed ones shown as such."""
    wanted = browse.Wanted(searchable(words), annotator, set, kind, answer, flag, _day(since), _day(until, after=True))
    with project_of(request).database.read() as session:
        found = browse.judgements_page(session, wanted, before=before)
        view: dict[str, Any] = {"total": loop.total(session, Judgement), "people": names(session), "sets": browse.sets_by_name(session)}
        flags = sorted({*FLAGS, *browse.flags(session)})
    filters = {
        "words": words, "annotator": annotator, "set": set, "kind": kind, "answer": answer, "flag": flag,
        "since": since if wanted.since else "", "until": until if wanted.until else "",
    }  # fmt: skip
    return page(
        request, "manage/judgements.html", person=person, found=found, filters=filters, kinds=list(Kind), answers=ANSWERS, flags=flags, told=told,
        before=before, shown_order=shown_order, next_page=next_page(request, "before", found.next), **view,
    )  # fmt: skip


ANSWERS = {"tie": "ties", "both_bad": "both bad", "skip": "skipped", "flag": "flagged", "comment": "with a comment", "gold": "to check questions"}


@router.get("/manage/prompts/{prompt_id}")
def prompt_page(request: Request, person: Manager, prompt_id: str) -> Response:
    """A prompt with its samples and the questions about them."""
    with project_of(request).database.read() as session:
        whole = browse.whole_prompt(session, prompt_id)
    if whole is None:
        raise Refusal(404, "there is no such prompt", fix="choose one of the list")
    facts = {name: fact for name, fact in whole.prompt.facts.items() if isinstance(fact, (str, int, float, bool))}
    return page(request, "manage/prompt.html", person=person, whole=whole, facts=facts)


@router.get("/manage/questions/{question_id}")
def question_page(request: Request, person: Manager, question_id: str) -> Response:
    """A question's whole history: who said what, when, in which order shown; changed answers shown as such."""
    with project_of(request).database.read() as session:
        whole = browse.whole_question(session, question_id)
    if whole is None:
        raise Refusal(404, "there is no such question", fix="choose one of a set's questions")
    rules = rules_of(whole.set) if whole.set else Rules()
    view: dict[str, Any] = {"order": list(range(len(whole.samples))), "choices": CHOICES, "letters": LETTERS}
    return page(
        request, "manage/question.html", person=person, whole=whole, rules=rules, told=told, told_gold=told_gold, shown_order=shown_order,
        said=said(request), **view,
    )  # fmt: skip


def _day(said: str, *, after: bool = False) -> datetime | None:
    """The beginning (or the end) of a day, UTC; None where none is named."""
    try:
        day = datetime.strptime(said, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1) if after else day
    except (ValueError, OverflowError):
        return None
