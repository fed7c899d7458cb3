"""Small figures as inline SVG, drawn by hand: no script, no fixed colours, no picture of text.

Every figure is as wide as its column: x is in percent of the plot, y in pixels, so that text keeps its size on a phone and lines their
width. Colours come from the page's CSS variables through classes, and follow dark mode.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

PLOT = 160  # height of a plot in pixels, its axis labels not counted
GRID = 1000  # units of the stretched coordinate system in which curves are drawn

Point = tuple[float, float]


class Line(NamedTuple):
    """A curve.

    Attributes:
        name: of it.
        points: in order of x.
        main: whether it is one to look at; the others lie below it and carry no mark.
        marked: which of its points to mark.
        style: further classes, for a page that tells several curves apart.
        band: (x, low, high) in order of x, to be shaded around it.
    """

    name: str
    points: Sequence[Point]
    main: bool = True
    marked: int = -1
    style: str = ""
    band: Sequence[tuple[float, float, float]] = ()


def line_chart(lines: Sequence[Line], *, label: str, x_name: str = "update", from_zero: bool = False, log_x: bool = False, height: int = PLOT) -> Markup:
    """Curves over a count such as updates or epochs, or over the logarithm of a strength.

    Args:
        lines:     at least one with a point; values finite.
        label:     what it shows, for who can't see it.
        x_name:    the unit of x.
        from_zero: whether the y axis starts at 0, for quantities where 0 means none.
        log_x:     whether x, then above 0, is drawn in powers of ten.
        height:    of the plot in pixels, its axis labels not counted.
    """
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for y in (*(y for _, y in line.points), *(y for _, *ends in line.band for y in ends))]
    across = math.log10 if log_x else float
    left, right = across(min(xs)), across(max(xs))
    ticks = nice_ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    x_at, y_at = _scale(left, right, 100), _scale(ticks[-1], ticks[0], height)

    def place(points: Sequence[Point]) -> list[Point]:
        return [(x_at(across(x)) * GRID / 100, y_at(y)) for x, y in points]

    marks = [(left, min(xs)), (right, max(xs))] if log_x else [(tick, tick) for tick in _whole_ticks(left, right)]
    parts = [*_grid(ticks, y_at), *_x_ticks(marks, x_at, x_name, height=height)]
    for line in lines:
        if line.band:
            around = [*((x, high) for x, _, high in line.band), *((x, low) for x, low, _ in reversed(line.band))]
            parts.append(_curve(place(around), f"band {line.style}".strip(), height))
    for line in sorted(lines, key=lambda line: line.main):  # the one to look at lies on top
        kind = f"{'main' if line.main else 'quiet'} {line.style}".strip()
        parts.append(_curve(place(line.points), kind, height))
        if line.main:
            x, y = line.points[line.marked]
            parts.append(_dot(x_at(across(x)), y_at(y), 4, kind, f"{line.name} {_plain(y)} at {x_name} {_plain(x)}"))
    return _figure(parts, label + ": " + "; ".join(_in_words(line, x_name) for line in lines if line.points), height)


class Estimate(NamedTuple):
    """A point with its interval; None for a bound that nobody knows."""

    x: float
    value: float
    low: float | None
    high: float | None


def estimates_chart(rows: Sequence[Estimate], *, label: str, x_name: str, curve: Sequence[Point] = (), log_x: bool = True, percent: bool = False) -> Markup:
    """Measured points with their intervals, and a curve through them where one was fitted; it may go on beyond the last.

    Args:
        rows:    at least one.
        curve:   in order of x.
        label:   what it shows, for who can't see it.
        x_name:  the unit of x, which is above 0 where `log_x`.
        percent: whether y is a share.
    """
    across = math.log10 if log_x else float
    xs = [row.x for row in rows] + [x for x, _ in curve]
    ys = [y for row in rows for y in (row.value, row.low, row.high) if y is not None] + [y for _, y in curve]
    ticks = nice_ticks(min(ys), max(ys))
    x_at, y_at = _scale(across(min(xs)), across(max(xs)), 100), _scale(ticks[-1], ticks[0], PLOT)
    parts = [*_grid(ticks, y_at, percent=percent), *_x_ticks([(across(x), x) for x in sorted({min(xs), rows[-1].x, max(xs)})], x_at, x_name)]
    if curve:
        parts.append(_curve([(x_at(across(x)) * GRID / 100, y_at(y)) for x, y in curve], "quiet"))
    words = _percent if percent else _plain
    said = []
    for row in rows:
        x, bounds = _short(x_at(across(row.x))), ""
        if row.low is not None and row.high is not None:
            bounds = f", {words(row.low)} to {words(row.high)}"
            parts.append(Markup('<line class="whisker" x1="{0}%" x2="{0}%" y1="{1}" y2="{2}"/>').format(x, _short(y_at(row.high)), _short(y_at(row.low))))
        said.append(f"{words(row.value)}{bounds} at {_plain(row.x)} {x_name}")
        parts.append(_dot(x_at(across(row.x)), y_at(row.value), 4, "main", said[-1]))
    return _figure(parts, f"{label}: {'; '.join(said)}")


class Mark(NamedTuple):
    """A point in a plane.

    Attributes:
        name: a word that stands beside it.
        bounds: of y, or None where nobody knows.
        style: main, hollow, or quiet.
    """

    name: str
    x: float
    y: float
    bounds: Point | None = None
    style: str = "main"


def scatter_chart(marks: Sequence[Mark], *, label: str, x_name: str, curve: Sequence[Point] = (), height: int = 2 * PLOT) -> Markup:
    """Points of which two numbers are known, and a line through some of them.

    Args:
        marks:  at least one; values finite.
        curve:  in order of x.
        label:  what it shows, for who can't see it.
        x_name: the unit of x.
        height: of the plot in pixels, its axis labels not counted.
    """
    xs, ys = [mark.x for mark in marks], [y for mark in marks for y in (mark.y, *(mark.bounds or ()))]
    across, up = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    x_at, y_at = _scale(across[0], across[-1], 100), _scale(up[-1], up[0], height)
    parts = [*_grid(up, y_at), *_x_ticks([(tick, tick) for tick in across], x_at, x_name, height=height)]
    if len(curve) > 1:
        parts.append(_curve([(x_at(x) * GRID / 100, y_at(y)) for x, y in curve], "quiet", height))
    said = []
    for mark in marks:
        x, y = _short(x_at(mark.x)), y_at(mark.y)
        if mark.bounds is not None:
            low, high = (_short(y_at(end)) for end in mark.bounds)
            parts.append(Markup('<line class="whisker thin {3}" x1="{0}%" x2="{0}%" y1="{1}" y2="{2}"/>').format(x, high, low, mark.style))
        said.append(f"{mark.name}: {_plain(mark.y)} at {x_name} {_plain(mark.x)}")
        parts.append(_dot(x_at(mark.x), y, 5, mark.style, said[-1]))
        away, anchor = (10, "start") if x_at(mark.x) < 90 else (-10, "end")  # a name stays within the plot
        parts.append(Markup('<text x="{}%" y="{}" dx="{}" dy="0.35em" text-anchor="{}">{}</text>').format(x, _short(y), away, anchor, mark.name))
    return _figure(parts, f"{label}: {'; '.join(said)}", height)


def reliability_chart(rows: Sequence[tuple[float, float, int]], *, label: str) -> Markup:
    """Predicted against observed shares; the diagonal is perfect, a dot's area is its number of pairs.

    Args:
        rows: (predicted, observed, n), shares in [0, 1].
    """
    ticks = [0.0, 0.5, 1.0]
    x_at, y_at = _scale(0, 1, 100), _scale(1, 0, PLOT)
    parts = [*_grid(ticks, y_at, percent=True), *_x_ticks([(tick, tick) for tick in ticks], x_at, "", percent=True)]
    parts.append(_curve([(0, PLOT), (GRID, 0)], "diagonal"))
    largest = max(n for _, _, n in rows)
    said = [f"{_percent(predicted)} predicted, {_percent(observed)} observed, n = {n}" for predicted, observed, n in rows]
    for (predicted, observed, n), words in zip(rows, said, strict=True):
        parts.append(_dot(x_at(predicted), y_at(observed), 3 + 6 * math.sqrt(n / largest), "soft", words))
    return _figure(parts, f"{label}: {'; '.join(said)}")


def histogram(edges: Sequence[float], counts: Sequence[int], *, label: str) -> Markup:
    """Counts in bins.

    Args:
        edges:  (n + 1,) ascending.
        counts: (n,).
    """
    ticks = nice_ticks(0, max(counts))
    x_at, y_at = _scale(edges[0], edges[-1], 100), _scale(ticks[-1], ticks[0], PLOT)
    below = [(tick, tick) for tick in nice_ticks(edges[0], edges[-1], 7) if edges[0] <= tick <= edges[-1]]
    parts = [*_grid(ticks, y_at), *_x_ticks(below, x_at, "")]
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        x, width, top = x_at(low), x_at(high) - x_at(low), y_at(count)
        title = f"{_plain(low)} to {_plain(high)}: {count}"
        bar = '<rect class="bar" x="{}%" y="{}" width="{}%" height="{}"><title>{}</title></rect>'
        parts.append(Markup(bar).format(_short(x + width * 0.06), _short(top), _short(width * 0.88), _short(PLOT - top), title))
    most = max(range(len(counts)), key=counts.__getitem__)
    spoken = f"{label}: {sum(counts)} in all, from {_plain(edges[0])} to {_plain(edges[-1])}, most between {_plain(edges[most])} and {_plain(edges[most + 1])}"
    return _figure(parts, spoken)


def interval_bar(value: float, low: float | None, high: float | None, *, bounds: Point = (0, 1), mark: float | None = None, label: str) -> Markup:
    """A value with its interval on a line, and where no difference would lie.

    Args:
        bounds: of the line.
        mark:   e.g. 0.5; None draws none.
        label:  the same in words.
    """
    at = _scale(*bounds, 100)
    parts = [Markup('<line class="track" x1="0" x2="100%" y1="8" y2="8"/>')]
    if mark is not None:
        parts.append(Markup('<line class="mark" x1="{0}%" x2="{0}%" y1="1" y2="15"/>').format(_short(at(mark))))
    if low is not None and high is not None:
        parts.append(Markup('<line class="span" x1="{}%" x2="{}%" y1="8" y2="8"/>').format(_short(_held(at(low))), _short(_held(at(high)))))
    parts.append(Markup('<circle class="value" cx="{}%" cy="8" r="4.5"/>').format(_short(_held(at(value)))))
    return Markup('<svg class="interval" role="img" aria-label="{}" width="100%" height="16">{}</svg>').format(label, Markup("").join(parts))


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """About `wanted` round numbers, 1, 2 or 5 times a power of ten apart, that enclose [low, high]."""
    if high <= low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = (high - low) / max(wanted - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _whole_ticks(left: float, right: float) -> list[float]:
    """The ends of a count, and what round numbers lie well between."""
    between = [tick for tick in nice_ticks(left, right) if left + (right - left) * 0.18 < tick < right - (right - left) * 0.18 and tick == int(tick)]
    return [left, *between, right] if right > left else [left]


def _scale(start: float, end: float, size: float) -> "_Scale":
    return _Scale(start, end, size)


class _Scale(NamedTuple):
    start: float
    end: float
    size: float

    def __call__(self, value: float) -> float:
        return self.size * (value - self.start) / (self.end - self.start) if self.end != self.start else self.size / 2


def _held(percent: float) -> float:
    return min(max(percent, 0.0), 100.0)


def _grid(ticks: Sequence[float], y_at: _Scale, *, percent: bool = False) -> list[Markup]:
    line = Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/><text x="-8" y="{0}" dy="0.35em" text-anchor="end">{1}</text>')
    return [line.format(_short(y_at(tick)), _percent(tick) if percent else _plain(tick)) for tick in ticks]


def _x_ticks(ticks: Sequence[Point], x_at: _Scale, name: str, *, percent: bool = False, height: int = PLOT) -> list[Markup]:
    """Labels under the plot, each a (place, value); those at the ends stay within it."""
    parts = []
    for number, (place, value) in enumerate(ticks):
        x = x_at(place)
        anchor = "start" if x <= 2 else "end" if x >= 98 else "middle"
        word = _percent(value) if percent else _plain(value)
        text = f"{name} {word}" if number == 0 and name else word
        parts.append(Markup('<text x="{}%" y="{}" text-anchor="{}">{}</text>').format(_short(x), height + 20, anchor, text))
    return parts


def _curve(points: Sequence[Point], kind: str, height: int = PLOT) -> Markup:
    path = "M" + " L".join(f"{_short(x)},{_short(y)}" for x, y in points)
    frame = '<svg width="100%" height="{0}" viewBox="0 0 {1} {0}" preserveAspectRatio="none" overflow="visible"><path class="curve {2}" d="{3}"/></svg>'
    return Markup(frame).format(height, GRID, kind, path)


def _dot(x: float, y: float, radius: float, kind: str, title: str) -> Markup:
    circle = '<circle class="dot {}" cx="{}%" cy="{}" r="{}"><title>{}</title></circle>'
    return Markup(circle).format(kind, _short(x), _short(y), _short(radius), title)


def _figure(parts: Sequence[Markup], label: str, height: int = PLOT) -> Markup:
    frame = '<div class="plot"><svg role="img" aria-label="{}" width="100%" height="{}" overflow="visible">{}</svg></div>'
    return Markup(frame).format(label, height + 26, Markup("").join(parts))


def _in_words(line: Line, x_name: str) -> str:
    (x0, y0), (x1, y1) = line.points[0], line.points[-1]
    return f"{line.name} from {_plain(y0)} at {x_name} {_plain(x0)} to {_plain(y1)} at {x_name} {_plain(x1)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u202f%"


def _plain(value: float) -> str:
    """A number for a reader: three significant digits, a true minus, no trailing zeros."""
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return text.replace("-", "−")


def _short(value: float) -> str:
    """A coordinate: two decimals are finer than a screen."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")  # + 0.0 turns -0.0 into 0.0
