"""The API: what programs ask of a project and send to it, under /api/v1, with a scoped token or a manager's own session.

Every answer that says no is {"what", "fix"}. What is recorded here goes through the same functions as what people do on the pages.
"""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from sqlalchemy.orm import Session

from truing.errors import Unknown
from truing.feedback.app_users import Told, answer, known_user, thumb
from truing.feedback.desk import question_shown
from truing.feedback.posted import SentPrompt, SentSample, ask, keep_prompts, keep_samples
from truing.feedback.sets import SetSummary, sets_of
from truing.prompts import PromptSettings
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.log_pages import judgements_after, samples_of
from truing.store.project import Project
from truing.store.salt import project_salt
from truing.store.tables import Judgement, Kind, Prompt, Question
from truing.studio import api_files, wire
from truing.studio.auth import Caller, require_scope
from truing.studio.door import Here, door, refusals

EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)  # what has a day before and after it in every time zone
router = door()


# ---- prompts and samples ----


@router.post("/prompts", dependencies=[Depends(require_scope("prompts:write"))], responses=refusals(413))
def post_prompts(project: Here, body: wire.NewPrompts) -> wire.KeptPrompts:
    """Keep one prompt or many (scope prompts:write), all of them or none."""
    with project.database.write() as session:
        return wire.KeptPrompts(prompts=_keep_prompts(session, project, body.prompts))


def _keep_prompts(session: Session, project: Project, prompts: list[wire.NewPrompt]) -> list[wire.KeptPrompt]:
    settings = project.settings(PromptSettings)
    sent = [SentPrompt([turn.model_dump() for turn in prompt.turns], prompt.source, prompt.metadata) for prompt in prompts]
    kept = keep_prompts(session, sent, share=settings.held_out_share, max_characters=settings.max_characters, at=now())
    return [wire.KeptPrompt.model_validate({"id": one.id, "split": session.get_one(Prompt, one.id).split, "new": one.new}) for one in kept]


@router.post("/samples", dependencies=[Depends(require_scope("samples:write"))], responses=refusals(404, 413))
def post_samples(project: Here, body: wire.NewSamples) -> wire.KeptSamples:
    """Keep responses by a model or a person (scope samples:write), all of them or none; prompts that come as turns are kept as well."""
    with project.database.write() as session:
        turns = [wire.NewPrompt(turns=sample.prompt) for sample in body.samples if not isinstance(sample.prompt, str)]
        by_turns = iter(_keep_prompts(session, project, turns) if turns else ())
        ids = [sample.prompt if isinstance(sample.prompt, str) else next(by_turns).id for sample in body.samples]
        sent = [SentSample(p, s.text, s.by, s.human, s.finished, s.batch) for p, s in zip(ids, body.samples, strict=True)]
        kept = keep_samples(session, sent, at=now())
    return wire.KeptSamples(samples=[wire.KeptSample(id=one.id, prompt_id=p, new=one.new) for p, one in zip(ids, kept, strict=True)])


# ---- questions ----


@router.post("/comparisons", dependencies=[Depends(require_scope("questions:write"))], responses=refusals(404, 409, 413))
def post_comparison(project: Here, body: wire.NewComparison) -> wire.QuestionView:
    """Ask a question about samples (scope questions:write). The same question asked twice in one set is there once."""
    with project.database.write() as session:
        kept = ask(session, body.set, Kind(body.kind), body.samples, overlap=body.overlap, guideline=body.guideline, at=now())
        return _question(session, kept.id)


@router.get("/questions/{question_id}", dependencies=[Depends(require_scope("read"))], responses=refusals(404))
def get_question(project: Here, question_id: wire.Id) -> wire.QuestionView:
    """A question with its prompt and samples (scope read)."""
    with project.database.read() as session:
        return _question(session, question_id)


def _question(session: Session, question_id: str) -> wire.QuestionView:
    row = session.get(Question, question_id)
    if row is None:
        raise Unknown(f"there is no question {question_id}", fix="use an id that the API gave")
    samples = samples_of(session, question_id)
    shown = question_shown(session, question_id, range(len(samples)))
    views = [{"id": s.id, "text": s.text, "by": s.policy_id or s.author or "", "human": s.policy_id is None} for s in samples]
    return wire.QuestionView.model_validate(
        {
            "id": row.id, "set_id": row.set_id, "set": shown.set_name or None, "kind": row.kind, "prompt_id": row.prompt_id, "turns": shown.turns,
            "samples": views, "overlap": row.overlap, "answers": row.answers, "open": row.open, "guideline": shown.guideline or None,
            "guideline_version": max(1, shown.guideline_version), "aspects": [aspect.name for aspect in shown.aspects], "scale": shown.scale,
            "flags": shown.flags,
        }
    )  # fmt: skip


@router.get("/sets", dependencies=[Depends(require_scope("read"))], responses=refusals())
def get_sets(project: Here) -> wire.SetViews:
    """All sets of questions and how far they are (scope read)."""
    with project.database.read() as session:
        return wire.SetViews(sets=[_set(one) for one in sets_of(session)])


@router.get("/sets/{set_id}/progress", dependencies=[Depends(require_scope("read"))], responses=refusals(404))
def get_progress(project: Here, set_id: wire.EventId) -> wire.SetView:
    """How far one set is (scope read)."""
    with project.database.read() as session:
        found = next((one for one in sets_of(session) if one.id == set_id), None)
    if found is None:
        raise Unknown(f"there is no set of questions {set_id}", fix="GET /api/v1/sets lists them")
    return _set(found)


def _set(one: SetSummary) -> wire.SetView:
    return wire.SetView.model_validate({name: value for name, value in one._asdict().items() if name in wire.SetView.model_fields})


# ---- judgements ----

Writer = Annotated[Caller, Depends(require_scope("judgements:write"))]


@router.post("/judgements", responses=refusals(404, 409, 413))
def post_judgement(project: Here, caller: Writer, body: wire.NewJudgement) -> wire.Receipt:
    """Keep an answer of somebody who uses your application (scope judgements:write). A second answer by them supersedes the first."""
    told = Told(_said(body.answer), body.order_shown, _key(caller, body.idempotency_key), body.started_at, body.active_ms, body.guideline_version)
    at, salt = now(), project_salt(project.root)
    with project.database.write() as session:
        user = known_user(session, salt, body.user, at)
        got = answer(session, body.question_id, user, told, at=at)
    return wire.Receipt(judgement_id=got.judgement_id, question_id=body.question_id, annotator_id=user, extra=got.extra, replay=got.replay)


@router.post("/thumbs", responses=refusals(404, 409, 413))
def post_thumb(project: Here, caller: Writer, body: wire.NewThumb) -> wire.Receipt:
    """Keep a thumbs-up or -down on a sample in one call (scope judgements:write); the question is made if there is none yet."""
    said = {"up": body.up} | ({} if body.comment is None else {"comment": body.comment})
    told = Told(said, [0], _key(caller, body.idempotency_key), body.started_at, body.active_ms)
    at, salt = now(), project_salt(project.root)
    with project.database.write() as session:
        user = known_user(session, salt, body.user, at)
        question, got = thumb(session, body.sample_id, user, told, set_name=body.set, at=at)
    return wire.Receipt(judgement_id=got.judgement_id, question_id=question, annotator_id=user, extra=got.extra, replay=got.replay)


def _said(given: wire.Remarks) -> dict[str, Any]:
    """The answer as the log holds it: without flags and comment where there are none."""
    return {key: value for key, value in given.model_dump().items() if value is not None and (key != "flags" or value)}


def _key(caller: Caller, key: str) -> str:
    """Keys of one caller never meet those of another, nor those of the pages."""
    who = caller.token_id or (caller.person.id if caller.person else "")
    return f"api-{content_id(who, key)}"


@router.get("/judgements", dependencies=[Depends(require_scope("read"))], responses=refusals())
def get_judgements(
    project: Here,
    after: Annotated[wire.EventId | None, Query(description="the `next` of the page before, within one reading")] = None,
    since: Annotated[wire.Moment | None, Query(description="only what was submitted then or later")] = None,
    limit: Annotated[int, Query(ge=1, le=wire.MOST_IN_A_PAGE, description="at most so many")] = 100,
) -> wire.JudgementPage:
    """The log of judgements a page at a time (scope read): superseded ones, skips and answers to check questions are in it as well.

    Pages follow the ids, and ids the time of submission, not that of arrival: what is imported later, or was kept a moment late, may lie before a page that was
    read already, under `after` and `since` alike. To learn of everything new, read from the beginning and pass over the ids you have.
    """
    since = None if since is None else max(EARLIEST, min(since, LATEST))
    with project.database.read() as session:
        rows = judgements_after(session, after or "", limit + 1, since=since)
    page = [_judgement(row) for row in rows[:limit]]
    return wire.JudgementPage(judgements=page, next=page[-1].id if len(rows) > limit else None)


def _judgement(row: Judgement) -> wire.JudgementView:
    return wire.JudgementView.model_validate({name: getattr(row, name) for name in wire.JudgementView.model_fields})


# ---- its description ----


router.routes.extend(api_files.router.routes)


def document() -> dict[str, Any]:
    """The OpenAPI document of this API. docs/openapi.json holds it, and a test holds the two together."""
    app = FastAPI(title="Truing", version="1", description=(__doc__ or "").strip(), openapi_url=None)
    app.include_router(router)
    return app.openapi()
