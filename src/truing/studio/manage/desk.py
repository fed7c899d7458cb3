"""What every manager's page needs: who asks, what a form sent, and words for what was just done."""

from collections.abc import AsyncIterator
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import FormData, UploadFile

from truing.store.project import Project
from truing.store.tables import Role
from truing.studio.auth import Person, require
from truing.studio.refusals import Refusal

Manager = Annotated[Person, Depends(require(Role.MANAGER))]
MOST_FIELDS = 400  # of one form


async def _sent(request: Request) -> AsyncIterator[FormData]:
    async with request.form(max_files=1, max_fields=MOST_FIELDS) as form:
        yield form


Sent = Annotated[FormData, Depends(_sent)]


def project_of(request: Request) -> Project:
    """The project that this studio serves."""
    project: Project = request.app.state.project
    return project


def text(form: FormData, name: str) -> str:
    """A field's text, its line ends as the store keeps them; empty if it wasn't sent, or is a file."""
    value = form.get(name, "")
    return "" if isinstance(value, UploadFile) else value.replace("\r\n", "\n").strip()


def texts(form: FormData, name: str) -> list[str]:
    """The texts of a field that is sent several times."""
    return [value.replace("\r\n", "\n").strip() for value in form.getlist(name) if isinstance(value, str)]


def whole(form: FormData, name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number between two others.

    Raises:
        Refusal: it is none, or lies outside.
    """
    said = text(form, name)
    if not said and default is not None:
        return default
    if not (said.isascii() and said.isdecimal() and len(said) < 12 and low <= int(said) <= high):
        raise Refusal(400, f"{name} must be a whole number from {low:,} to {high:,}", fix="type one")
    return int(said)


def back(address: str, said: str = "") -> RedirectResponse:
    """Go to a page after something was done; `said` names the sentence it opens with."""
    return RedirectResponse(f"{address}?{urlencode({'said': said})}" if said else address, status_code=303)


SAID = {
    "made": "The questions are set up, and open to be answered.",
    "paused": "Paused. Nobody is asked its questions until you open it again; what is on screens may still be answered.",
    "opened": "Open. Its questions are asked again.",
    "archived": "Archived. Its answers stay and count.",
    "guideline": "The guideline has a new version. Answers from now on remember it.",
    "guideline-same": "That is the text of the newest version already.",
    "gold": "Marked. It is a check question now.",
    "plain": "It is a plain question again.",
    "role": "The role was changed.",
    "rests": "Paused. They are signed out of nothing they hold, and are asked nothing new.",
    "returns": "They are asked questions again.",
    "revoked": "Taken back. It opens nothing any more.",
    "kept": "Your answer is kept.",
    "measuring": "Measuring in the background. This page shows the result when it is there.",
    "forgotten": "The upload was thrown away.",
}


def said(request: Request) -> str | None:
    """The sentence that a page opens with after something was done."""
    return SAID.get(request.query_params.get("said", ""))
