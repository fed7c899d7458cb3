"""How a studio page is made: a template filled in, its files named by their content, and markdown from outside made harmless.

Responses come from models and people whom nobody vouches for. Markdown is read with HTML off, what comes out is cleaned by an allow-list
all the same, and the Content-Security-Policy lets neither scripts nor anything from elsewhere in: three doors, each of which would do.
Pictures are never fetched (they would tell somebody's server who reads, and when): the words and the address stand in their place.
"""

import hashlib
import html
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import nh3
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererProtocol
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound
from starlette.staticfiles import StaticFiles

from truing.pages.words import between, count, decimal, duration, opening, percent, signed, typeset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from truing.studio.auth import Person

STATIC_PACKAGES = (("truing.studio", "static"), ("truing", "data/style"))
THEMES = ("auto", "light", "dark", "contrast")
THEME_COOKIE = "truing_theme"
LONGEST_MARKDOWN = 40_000  # characters; a longer text is shown as it stands
TAGS = {
    "p", "br", "hr", "em", "strong", "s", "del", "code", "pre", "blockquote", "ul", "ol", "li", "h1", "h2", "h3", "h4", "h5", "h6",
    "table", "thead", "tbody", "tr", "th", "td", "a", "span",
}  # fmt: skip


# ---- pages ----


def page(request: Request, template: str, *, person: "Person | None" = None, status: int = 200, **view: Any) -> HTMLResponse:
    """The page that a template makes of a view.

    Every template also gets `person` (None before sign-in), `path` (of the address), `theme` and `project` (its folder's name).
    """
    chosen = request.cookies.get(THEME_COOKIE, "auto")
    surroundings = {
        "person": person,
        "path": request.url.path,
        "theme": chosen if chosen in THEMES else "auto",
        "project": request.app.state.project.root.absolute().name,
    }
    return HTMLResponse(_environment().get_template(template).render(surroundings | view), status_code=status)


def fragment(template: str, **view: Any) -> str:
    """A piece of a page, for a script that puts it in place."""
    return _environment().get_template(template).render(view)


def static_files() -> StaticFiles:
    """What stands under /static: the studio's own styles and scripts, and the tokens it shares with the reports."""
    return StaticFiles(packages=list(STATIC_PACKAGES))


@cache
def asset(name: str) -> str:
    """Address of a file under /static, with a hash of its content: it may be kept for ever.

    Raises:
        FileNotFoundError: there is no such file.
    """
    for package, folder in STATIC_PACKAGES:
        place = files(package).joinpath(folder, name)
        if place.is_file():
            return f"/static/{name}?v={hashlib.sha256(place.read_bytes()).hexdigest()[:12]}"
    raise FileNotFoundError(name)


@cache
def _environment() -> Environment:
    environment = Environment(loader=PackageLoader("truing.studio"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"asset": asset}
    environment.filters |= {
        "percent": percent, "decimal": decimal, "signed": signed, "count": count, "between": between, "duration": duration, "markdown": markdown,
        "opening": opening, "typeset": typeset,
    }  # fmt: skip
    return environment


# ---- markdown ----


@lru_cache(maxsize=2048)
def markdown(text: str) -> Markup:
    """Markdown as HTML that can do nothing but be read: at most 40,000 characters of it; a longer text stays as it was written."""
    if len(text) > LONGEST_MARKDOWN:
        return Markup(f'<p class="plain">{html.escape(text)}</p>')
    return Markup(
        nh3.clean(_markdown().render(text), tags=TAGS, attributes=_ATTRIBUTES, url_schemes={"http", "https", "mailto"}, link_rel="noopener noreferrer nofollow")
    )


_ATTRIBUTES: dict[str, set[str]] = {"a": {"href", "target"}, "span": {"class"}, "code": {"class"}, "pre": {"tabindex"}, "ol": {"start"}}


@cache
def _markdown() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "linkify": False, "highlight": _highlighted, "breaks": True}).enable(["table", "strikethrough"])
    reader.add_render_rule("image", _picture_in_words)
    reader.add_render_rule("link_open", _link_elsewhere)
    return reader


def _picture_in_words(self: RendererProtocol, tokens: "Sequence[Token]", at: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[at]
    return f'<span class="picture">picture: {html.escape(token.content or "no words")} ({html.escape(str(token.attrs.get("src", "")))})</span>'


def _link_elsewhere(self: RendererProtocol, tokens: "Sequence[Token]", at: int, options: OptionsDict, env: EnvType) -> str:
    return f'<a href="{html.escape(str(tokens[at].attrs.get("href", "")))}" target="_blank">'


def _highlighted(code: str, language: str, attributes: str) -> str:
    """Code with a span around each word of a kind; the colours are the page's."""
    try:
        lexer = get_lexer_by_name(language) if language else None
    except ClassNotFound:  # a language nobody has heard of is shown plain
        lexer = None
    return html.escape(code) if lexer is None else str(highlight(code, lexer, HtmlFormatter(nowrap=True)))
