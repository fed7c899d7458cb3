"""Doors at which many people knock in the same second are answered by a few threads.

More threads than that don't answer faster: at every statement they take the interpreter's lock from one another. And however many people
judge, the other pages keep the other threads. See docs/decisions/0011.
"""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response

AT_ONCE = 4


def provide_turns(app: FastAPI) -> None:
    """Give an application the few threads."""
    app.state.turns = CapacityLimiter(AT_ONCE)


def in_turn(door: Callable[..., Response]) -> Callable[..., Awaitable[Response]]:
    """The same door, answered by one of the few threads. It must take the `request`."""

    @wraps(door)
    async def answer(request: Request, **given: Any) -> Response:
        return await to_thread.run_sync(partial(door, request, **given), limiter=request.app.state.turns)

    return answer
