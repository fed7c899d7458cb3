"""What stands between the network and the pages: headers, host names, cross-site writes, sizes, load, and errors nobody foresaw.

Pure ASGI: each class wraps an application and touches nothing but the start of a response or the count of a request's bytes,
so the framing of messages stays the server's. `chain` gives them in order, outermost first.
"""

import logging
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import ip_address
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truing.store.ids import uuid7
from truing.studio.refusals import refuse, wants_json

log = logging.getLogger("truing.studio")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SMALLER = "send it in parts"
API = "/api/v1/"
READY = "/healthz"  # answers also when the studio is full


class Limits(NamedTuple):
    """How much the studio takes at once."""

    body_bytes: int = 2 * 1024**2  # of a form or a JSON text
    upload_bytes: int = 512 * 1024**2  # of an import, which goes to a temporary file
    uploads: tuple[str, ...] = ("/manage/import", "/api/v1/import")  # where imports arrive: these paths and those below them
    at_once: int = 256  # requests being answered or waiting for it
    each_second: float = 50.0  # requests of one person or token, in the long run
    burst: int = 200  # requests of one person or token, in one go


class SafeHeaders:
    """The same protective headers on every response, whatever made it."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self._headers = HEADERS | ({"Strict-Transport-Security": "max-age=31536000"} if https else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers["Cache-Control"] = _caching(scope, message["status"])
            await send(message)

        await self.app(scope, receive, send_safely if scope["type"] == "http" else send)


def _caching(scope: Scope, status: int) -> str:
    """A static file whose address carries its hash never changes; everything else is kept nowhere."""
    lasting = scope["path"].startswith("/static/") and b"v=" in scope["query_string"] and status in (200, 304)
    return "public, max-age=31536000, immutable" if lasting else "no-store"


class Unexpected:
    """Turns an error nobody foresaw into a page with an id; the log keeps the rest under that id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception:
            trouble = uuid7()
            # the route's pattern and not the address, which may hold the secret of a link
            log.exception("trouble %s at %s %s", trouble, scope.get("method"), getattr(scope.get("route"), "path", "no route"))
            if started or scope["type"] != "http":
                raise
            what = f"something went wrong here, and it is not your doing (trouble {trouble})"
            answer = await run_in_threadpool(refuse, Request(scope), 500, what, "try again; if it stays, look for that number in the studio's terminal")
            await answer(scope, receive, send)


class KnownHosts:
    """Refuses a request to a name that isn't this studio's: a page elsewhere can't point its own name here (DNS rebinding).

    Args:
        names: host names and addresses without ports.
        addresses: whether any IP address is taken, which nobody can point elsewhere; for a studio that listens on all of them.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str], addresses: bool) -> None:
        self.app = app
        self._names = {_bare(name) for name in names}
        self._addresses = addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not self._known(_bare(without_port(hosts[0]))):
                fix = "use the address it printed when it started, or start it with --name NAME"
                return await _briefly(scope, 421, "this studio doesn't answer to that name", fix)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _known(self, name: str) -> bool:
        return name in self._names or (self._addresses and _is_address(name))


def without_port(host: str) -> str:
    """`localhost` of `localhost:8000`, `[::1]` of `[::1]:8000`; nothing of what is no host."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:[0-9]*)?", host)
    return found[1] if found else ""


def _bare(name: str) -> str:
    return name.strip("[]").rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class OneLength:
    """Refuses a request that gives its length in two ways, and ends the connection: a proxy may have read it the other way.

    Nothing that follows on the line is then taken for a request (RFC 9112, section 6.3).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if "transfer-encoding" in headers and "content-length" in headers:
                answer = _briefly(scope, 400, "a request has one length", "send Content-Length or Transfer-Encoding, not both", {"Connection": "close"})
                return await answer(scope, receive, send)
        return await self.app(scope, receive, send)


class SameOrigin:
    """Refuses writes that another site's page has a browser send.

    A request with a bearer token is let through: no browser adds one by itself, and its cookies are then not looked at.
    """

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self.app = app
        self._scheme = "https" if https else "http"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS:
            headers = Headers(scope=scope)
            if bearer(headers) is None and not from_here(headers, self._scheme):
                return await (await run_in_threadpool(_not_from_here, Request(scope)))(scope, receive, send)
        return await self.app(scope, receive, send)


def _not_from_here(request: Request) -> Response:
    """The refusal: a program that sent nothing to be known by is told that a token is missing."""
    if request.url.path.startswith(API) and "cookie" not in request.headers:
        return refuse(request, 401, "no token came with this request", "send one as Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
    what = "this was sent by a page of another site, or by a program without a token"
    return refuse(request, 403, what, "open the studio itself and try there; a program sends a token")


def from_here(headers: Headers, scheme: str) -> bool:
    """Whether a browser says that a page of this studio sent the request. Silence is a no.

    Sec-Fetch-Site decides where the browser sends it, and an Origin that it names must be ours as well. A form on a page with
    `no-referrer` names the Origin "null", which says nothing.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin", "null")
    if site not in (None, "same-origin", "none"):
        return False
    if origin == "null":
        return site == "same-origin"
    return origin.lower() == f"{scheme}://{headers.get('host', '')}".lower()


def bearer(headers: Headers) -> str | None:
    """The token of `Authorization: Bearer …`; None without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


class BoundedBody:
    """Refuses a body that is too large: at once when it says so, otherwise as soon as it has grown too far.

    Args:
        may_upload: whether who asks may send as much as an import has. It is asked first: a form is read before a route looks at who sent it.
    """

    def __init__(self, app: ASGIApp, *, limits: Limits, may_upload: Callable[[Request], bool]) -> None:
        self.app = app
        self._limits = limits
        self._may_upload = may_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = await self._most(scope)
        said = Headers(scope=scope).get("content-length", "0")
        if said.isdecimal() and int(said) > most:
            answer = await run_in_threadpool(refuse, Request(scope), 413, _too_large(most), SMALLER)
            return await answer(scope, receive, send)
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise HTTPException(413, _too_large(most))  # the one error that a parser of forms lets through
            return message

        return await self.app(scope, receive_counted, send)

    async def _most(self, scope: Scope) -> int:
        place = any(scope["path"] == path or scope["path"].startswith(f"{path}/") for path in self._limits.uploads)
        upload = place and scope["method"] not in SAFE_METHODS and await run_in_threadpool(self._may_upload, Request(scope))
        return self._limits.upload_bytes if upload else self._limits.body_bytes


def _too_large(most: int) -> str:
    size = f"{most / 1024**2:.0f} MB" if most >= 1024**2 else f"{most} bytes"
    return f"that is larger than the {size} which may be sent here"


class NotTooMany:
    """Answers 503 at once when more requests wait than can be served in good time."""

    def __init__(self, app: ASGIApp, *, at_once: int) -> None:
        self.app = app
        self._at_once = at_once
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == READY:
            return await self.app(scope, receive, send)
        if self._inside >= self._at_once:
            answer = _briefly(scope, 503, "too many requests wait already", "try again in a second", {"Retry-After": "1"})
            return await answer(scope, receive, send)
        self._inside += 1
        try:
            return await self.app(scope, receive, send)
        finally:
            self._inside -= 1


def _briefly(scope: Scope, status: int, what: str, fix: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal that costs nothing to make: JSON for programs, two lines for everybody else."""
    if wants_json(Request(scope)):
        return JSONResponse({"what": what, "fix": fix}, status_code=status, headers=headers)
    return PlainTextResponse(f"{what}\nfix: {fix}\n", status_code=status, headers=headers)


class Pace:
    """A bucket for each person or token that fills at a steady rate; every request takes one out. For many threads."""

    MOST = 10_000  # buckets kept; full ones are thrown away beyond that

    def __init__(self, each_second: float, burst: int) -> None:
        self._rate = each_second
        self._burst = float(burst)
        self._buckets: dict[str, tuple[float, float]] = {}  # who → what was in it, when (seconds)
        self._lock = threading.Lock()

    def take(self, who: str, now: float) -> float:
        """Seconds to wait until the bucket holds one; 0 when one was taken. `now` is a monotonic clock, in seconds."""
        with self._lock:
            held, then = self._buckets.get(who, (self._burst, now))
            held = min(self._burst, held + (now - then) * self._rate)
            if held < 1:
                return (1 - held) / self._rate
            if len(self._buckets) >= self.MOST:
                self._buckets = {name: (old, when) for name, (old, when) in self._buckets.items() if old + (now - when) * self._rate < self._burst}
            self._buckets[who] = (held - 1, now)
            return 0.0


def chain(limits: Limits, *, https: bool, names: Iterable[str], addresses: bool, may_upload: Callable[[Request], bool]) -> list[Middleware]:
    """All of the above, outermost first."""
    return [
        Middleware(SafeHeaders, https=https),
        Middleware(Unexpected),
        Middleware(OneLength),
        Middleware(KnownHosts, names=frozenset(names), addresses=addresses),
        Middleware(NotTooMany, at_once=limits.at_once),
        Middleware(SameOrigin, https=https),
        Middleware(BoundedBody, limits=limits, may_upload=may_upload),
    ]
