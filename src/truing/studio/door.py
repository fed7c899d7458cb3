"""What every route of the API has in common: where it is, which statuses its refusals carry, and how its description says so."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from truing.store.project import Project
from truing.studio import wire

METHODS: dict[str, set[str]] = {}  # path → the methods of all its routes


class Door(APIRoute):
    """A route that knows which methods its path takes."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        METHODS.setdefault(path, set()).update(self.methods or ())

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; a method that no route of this path has is refused with all that there are, not only with this route's own."""
        if scope["method"] not in (self.methods or ()):
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(METHODS[self.path]))})
        await super().handle(scope, receive, send)


NO = {
    400: "what was sent can't be used", 401: "no token, or one that isn't known", 403: "the token may not do this", 404: "there is no such thing",
    409: "it can't be done as things stand", 413: "too large", 422: "what was sent has another form", 429: "too many requests; see Retry-After",
    503: "too much to do at once, or the store is busy; see Retry-After",
}  # fmt: skip
ALWAYS = (400, 401, 403, 422, 429, 503)


def refusals(*more: int) -> dict[int | str, dict[str, Any]]:
    """The refusals that a route may give, for its description: those that any route may, and these."""
    return {status: {"model": wire.Problem, "description": NO[status]} for status in sorted({*ALWAYS, *more})}


def _project(request: Request) -> Project:
    project: Project = request.app.state.project
    return project


Here = Annotated[Project, Depends(_project)]
PREFIX = "/api/v1"


def door() -> APIRouter:
    """A router for some of its routes."""
    return APIRouter(prefix=PREFIX, route_class=Door, tags=["v1"])
