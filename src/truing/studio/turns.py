"""Doors at which many people knock in the same second: who asks, what they sent and the answer are one thread's work, and the threads are few.

More threads don't answer faster: at every statement they take the interpreter's lock from one another. And however many people judge, the
other pages keep the other threads. See docs/decisions/0011.
"""

from collections.abc import Awaitable, Callable
from typing import get_type_hints

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError

from truing.store.tables import Role
from truing.studio.auth import require

AT_ONCE = 4


def provide_turns(app: FastAPI) -> None:
    """Give an application the few threads."""
    app.state.turns = CapacityLimiter(AT_ONCE)


class InTurn(APIRoute):
    """The route of a door `(request, sent, person)`: JSON in, of the model that `sent` is; JSON out. Annotators and everybody above them may knock."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # what FastAPI awaits needs be no coroutine
        """What answers a request."""
        door, model, allowed = self.endpoint, get_type_hints(self.endpoint)["sent"], require(Role.ANNOTATOR)

        def answer(request: Request, body: bytes) -> Response:
            person = allowed(request)
            return JSONResponse(door(request, _read(request, body, model), person))

        async def handle(request: Request) -> Response:
            return await to_thread.run_sync(answer, request, await request.body(), limiter=request.app.state.turns)

        return handle


def _read(request: Request, body: bytes, model: type[BaseModel]) -> BaseModel:
    """What was sent.

    Raises:
        RequestValidationError: it is no JSON, or none of this form.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RequestValidationError([{"loc": ("body",), "msg": "this door takes application/json", "type": "content_type"}])
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in error.errors(include_url=False, include_input=False)]) from error
