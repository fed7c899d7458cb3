"""Tokens for scripts: made with scopes and an end, shown once, taken back."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from truing.errors import UserError
from truing.store.clock import now
from truing.studio.auth import SCOPES, Person, make_token, revoke_token, tokens_of
from truing.studio.manage.desk import Manager, Sent, back, project_of, said, text, texts, whole
from truing.studio.render import page

router = APIRouter()

WORDS = {
    "prompts:write": "bring prompts",
    "samples:write": "bring samples",
    "questions:write": "set up questions",
    "judgements:write": "ask for questions and answer them",
    "read": "read everything",
}


@router.get("/manage/tokens")
def tokens_page(request: Request, person: Manager) -> Response:
    """The tokens there are, and the form for another."""
    return _page(request, person)


@router.post("/manage/tokens")
def new_token(request: Request, person: Manager, form: Sent) -> Response:
    """A new token; its secret is shown once, on the page that answers."""
    typed: dict[str, Any] = {"name": text(form, "name"), "days": text(form, "days"), "scopes": texts(form, "scopes")}
    try:
        days = None if not typed["days"] else whole(form, "days", 1, 3650)
        secret = make_token(project_of(request), typed["name"], typed["scopes"], days, at=now())
    except UserError as problem:
        return _page(request, person, problem=problem, typed=typed)
    return _page(request, person, secret=secret)


@router.post("/manage/tokens/{token_id}/revoke")
def revoke(request: Request, person: Manager, token_id: str) -> Response:
    """A token opens nothing any more."""
    revoke_token(project_of(request), token_id)
    return back("/manage/tokens", "revoked")


def _page(request: Request, person: Person, *, secret: str | None = None, problem: UserError | None = None, typed: Mapping[str, Any] | None = None) -> Response:
    with project_of(request).database.read() as session:
        tokens = tokens_of(session)
    filled = {"name": "", "days": "90", "scopes": ["read"]} | dict(typed or {})
    scopes = {scope: WORDS.get(scope, scope) for scope in SCOPES}
    return page(
        request, "manage/tokens.html", status=400 if problem else 200, person=person, tokens=tokens, secret=secret, problem=problem, typed=filled,
        scopes=scopes, said=said(request), at=now(),
    )  # fmt: skip
