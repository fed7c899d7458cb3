"""What a person sees in the terminal: messages, tables, one progress bar and one view of a run. The only module that prints.

With `--json` everything for a person goes to stderr, and stdout's last line is one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0
BARS = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 24  # characters of a curve
LINES_OF_ANSWER = 3

T = TypeVar("T")

_console = Console(highlight=False)
_json = False
_views = False


class Curve(NamedTuple):
    """A number over time: its values from the first to the newest, that one in words, and what is normal."""

    name: str
    values: Sequence[float]
    now: str
    normal: str


class View(NamedTuple):
    """A run to be looked at: its numbers, what is wrong as (name, sentence), and what it made lately as (heading, text)."""

    curves: Sequence[Curve]
    findings: Sequence[tuple[str, str]]
    made: Sequence[tuple[str, str]]


def speak_json(on: bool) -> None:
    """Choose whether stdout is for a program (one JSON object last) or for a person."""
    global _console, _json
    _json = on
    _console = Console(highlight=False, stderr=on)


def hush() -> None:
    """Say nothing more, but for complaints: another process speaks for this one."""
    global _console
    _console = Console(quiet=True)


def show_views(on: bool) -> None:
    """Choose whether `track` shows the view that a run offers; where it can't be drawn a line says so, and runs show their progress as usual."""
    global _views
    _views = on and not _json and _console.is_terminal and not _console.is_dumb_terminal and _console.encoding.startswith("utf")
    if on and not _views:
        say("the view needs a terminal that can be drawn on, in UTF-8: going on without it")


def say(text: str, *, then: str | None = None) -> None:
    """Print a line for a person; `then` is the command to type next."""
    _console.print(text, markup=False, soft_wrap=True)
    if then is not None:
        _console.print(f"next: {then}", markup=False, style="dim", soft_wrap=True)


def complain(text: str) -> None:
    """Print an error or a warning to stderr."""
    Console(stderr=True, highlight=False).print(text, markup=False, style="red", soft_wrap=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a small table; numbers are the caller's to format."""
    table = Table(*columns, box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    _console.print(table)


def result(values: Mapping[str, Any]) -> None:
    """With `--json`, print the command's result as stdout's last line; otherwise nothing."""
    if _json:
        sys.stdout.write(json.dumps(values, sort_keys=True, allow_nan=False) + "\n")
        sys.stdout.flush()


def track(
    items: Iterable[T], label: str, total: int, *, done: int = 0, stats: Callable[[], str] | None = None, view: Callable[[], View] | None = None
) -> Iterator[T]:
    """Yield `items` and show how far they are, with the time left.

    A bar on a terminal; elsewhere a plain line every ten seconds and at the end. After `show_views(True)`, the view under the bar.

    Args:
        items: what to go through; only what is still to do.
        label: one or two words.
        total: how many there are, `done` included.
        done: how many were finished by an earlier, interrupted run.
        stats: called for the newest numbers whenever a line is drawn.
        view: called for all there is to see after every item, where views are shown.
    """
    if _views and view is not None:
        yield from _viewed(items, label, total, done, view)
    elif _console.is_terminal:
        yield from _bar(items, label, total, done, stats)
    else:
        yield from _lines(items, label, total, done, stats)


def _bar(items: Iterable[T], label: str, total: int, done: int, stats: Callable[[], str] | None) -> Iterator[T]:
    with _progress(TextColumn("{task.fields[stats]}", style="dim")) as progress:
        task = progress.add_task(label, total=total, completed=done, stats="")
        for item in items:
            yield item
            progress.update(task, advance=1, stats=stats() if stats else "")


def _progress(*more: TextColumn) -> Progress:
    counted = TextColumn("{task.completed}/{task.total}")
    return Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), counted, TaskProgressColumn(), TimeRemainingColumn(), *more, console=_console)


def _viewed(items: Iterable[T], label: str, total: int, done: int, view: Callable[[], View]) -> Iterator[T]:
    progress = _progress()
    task = progress.add_task(label, total=total, completed=done)
    with Live(_Screen(progress, view()), console=_console, refresh_per_second=2) as live:
        for item in items:
            yield item
            progress.update(task, advance=1)
            live.update(_Screen(progress, view()), refresh=True)


class _Screen:
    """The view under its progress, as high as the terminal allows: of what was made, as much as there is room for."""

    def __init__(self, progress: Progress, view: View) -> None:
        self.progress, self.view = progress, view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        above: list[RenderableType] = [self.progress, _curves(self.view.curves)]
        above += [Text.assemble((f"{name}: ", "bold red"), said) for name, said in self.view.findings]
        used = sum(len(console.render_lines(part, options)) for part in above)
        yield from above
        for heading, text in self.view.made:
            answer = [Text(_plain(heading), style="dim", no_wrap=True, overflow="ellipsis"), _first_lines(text, console, options)]
            used += sum(len(console.render_lines(part, options)) for part in answer)
            if used > max(console.height - 1, 1):
                return
            yield from answer


def _curves(curves: Sequence[Curve]) -> Table:
    rows = [(curve.name, curve.now, spark(curve.values)) for curve in curves]
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    for place, style in enumerate(("", "bold", "cyan")):
        table.add_column(no_wrap=True, width=max((len(row[place]) for row in rows), default=1), justify="right" if place == 1 else "left", style=style)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1, style="dim")
    for row, curve in zip(rows, curves, strict=True):
        table.add_row(*(Text(part) for part in (*row, curve.normal)))
    return table


def _first_lines(text: str, console: Console, options: ConsoleOptions) -> Text:
    """A text's first few lines, as the terminal breaks them, and what stands for the rest."""
    lines = Text(_plain(text)).wrap(console, options.max_width - 2)
    kept = Text("\n").join(lines[:LINES_OF_ANSWER])
    return kept + Text(" …") if len(lines) > LINES_OF_ANSWER else kept


def _plain(text: str) -> str:
    """A text on one line, without the control characters that would reach the terminal."""
    return " ".join("".join(character if character >= " " and not "\x7f" <= character <= "\x9f" else " " for character in text).split())


def spark(values: Sequence[float], width: int = SPARK_WIDTH) -> str:
    """A curve as a line of bars between the least and the greatest value, at most `width` characters: the newest value of each stretch."""
    step = -(-len(values) // width) or 1
    kept = values[::-1][::step][::-1]
    low, high = min(kept, default=0.0), max(kept, default=0.0)
    return "".join(BARS[round((value - low) / (high - low or 1) * (len(BARS) - 1))] for value in kept)


def _lines(items: Iterable[T], label: str, total: int, done: int, stats: Callable[[], str] | None) -> Iterator[T]:
    start = last = time.monotonic()
    finished = done
    for item in items:
        yield item
        finished += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES or (finished == total and now - start >= SECONDS_BETWEEN_LINES):
            last = now
            left = (now - start) / (finished - done) * (total - finished)
            share = 100 * finished // max(total, 1)
            say(f"{label} {finished}/{total} {share} % {_clock(left)} left{'  ' + stats() if stats else ''}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
