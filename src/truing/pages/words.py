"""How a page's values become text, and a template a page that needs no other file. Everything is escaped unless it is a figure of `charts`."""

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeGuard

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

THIN = "\u202f"  # narrow no-break space, between a number and its sign or unit
MINUS = "−"


def render(room: str, template: str, view: Mapping[str, Any]) -> str:
    """The page that a template of a room makes of a view.

    Args:
        room: the package that has it among its templates, e.g. "truing.evaluation"; it extends `page.html` and finds its macros in `parts.html`.
    """
    return _environment(room).get_template(template).render(view)


@cache
def _environment(room: str) -> Environment:
    loader = ChoiceLoader([PackageLoader(room), PackageLoader("truing.pages"), PackageLoader("truing", "data/style")])  # the tokens are the studio's too
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "percent": percent,
        "decimal": decimal,
        "signed": signed,
        "count": count,
        "between": between,
        "duration": duration,
        "typeset": typeset,
        "opening": opening,
    }
    return environment


def percent(share: float | None) -> str:
    """0.783 → 78 %."""
    return typeset(whole_percent(share)) if _known(share) else "–"


def whole_percent(share: float | None) -> str:
    """A share as whole percents; a share short of all is never rounded up to all, nor one above none down to none."""
    if share is None:
        return "?"
    whole = round(100 * share)
    if whole == 100 and share < 1:
        return "> 99 %"
    if whole == 0 and share > 0:
        return "< 1 %"
    return f"{whole} %"


def decimal(value: float | None, digits: int = 2) -> str:
    """1.234 → 1.23, with a true minus."""
    if not _known(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS if float(text) else "")


def signed(value: float | None, digits: int = 2) -> str:
    """0.5 → +0.50."""
    if not _known(value):
        return "–"
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text[1:]


def count(value: float | None) -> str:
    """1680 → 1,680."""
    return f"{value:,.0f}" if _known(value) else "–"


def between(number: Mapping[str, Any], form: str = "decimal", digits: int = 2) -> str:
    """The bounds of a number, e.g. `0.67 to 0.87`; words where there are none."""
    if not _known(number["low"]):
        return "no interval"
    low, high = (percent(number[end]) if form == "percent" else decimal(number[end], digits) for end in ("low", "high"))
    return f"{low} to {high}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def duration(seconds: float) -> str:
    """75.2 → 1 min 15 s."""
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}{THIN}h {minutes}{THIN}min"
    return f"{minutes}{THIN}min {rest}{THIN}s" if minutes else f"{rest}{THIN}s"


def typeset(text: str) -> str:
    """Our own sentences as a typographer sets them: numbers keep their signs, apostrophes are round. Not for what others wrote."""
    text = re.sub(r"(?<=\w)'(?=\w)", "’", text.replace(" %", f"{THIN}%"))
    return re.sub(r"(?<![\w.])-(?=\d)", MINUS, text)


def opening(text: str) -> str:
    """The text as the opening of a sentence; capitals within it stay (KL, EOS)."""
    return text[:1].upper() + text[1:]
