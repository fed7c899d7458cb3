"""How the studio says no: one kind of error, and one answer to it, as a page for people and as JSON for programs."""

import math
from collections.abc import Mapping
from urllib.parse import quote

from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.requests import Request

from truing.errors import UserError
from truing.studio.render import page

TITLES = {
    401: "Who are you?",
    403: "Not for you",
    404: "Nothing here",
    405: "That can't be done here",
    413: "Too large",
    429: "Too fast",
    500: "Something broke",
    503: "Not at this moment",
    507: "The disk is full",
}


class Refusal(UserError):
    """Something the studio won't do, with the status that HTTP has for it.

    Args:
        status: 401 (who are you?), 403 (not you), 404 (there is no such thing), 409 (too late), 413, 421, 429 or 503.
        what: one sentence that says what was found and what was needed.
        fix: what to do about it.
        retry_after: seconds after which the same request may succeed.
    """

    def __init__(self, status: int, what: str, *, fix: str, retry_after: float | None = None) -> None:
        super().__init__(what, fix=fix)
        self.status = status
        self.headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"


def wants_json(request: Request) -> bool:
    """Whether a program asks: the API, or a script that says it takes JSON and not HTML."""
    accepted = request.headers.get("accept", "")
    return request.url.path.startswith("/api/") or ("application/json" in accepted and "text/html" not in accepted)


def refuse(request: Request, status: int, what: str, fix: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that says what is wrong and how to mend it: `{"what", "fix"}`, or a page."""
    if wants_json(request):
        return JSONResponse({"what": what, "fix": fix}, status_code=status, headers=dict(headers or {}))
    person = getattr(request.state, "person", None)
    title = TITLES.get(status, "That can't be done")
    answer = page(request, "trouble.html", person=person, status=status, title=title, what=_sentence(what), fix=_sentence(fix))
    answer.headers.update(headers or {})
    return answer


def lead_to_sign_in(request: Request) -> Response:
    """To the sign-in, and from there back to where they wanted to look."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    back = f"?next={quote(wanted, safe='/')}" if request.method in ("GET", "HEAD") and wanted != "/" else ""
    return RedirectResponse(f"/sign-in{back}", status_code=303)


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")
