"""What a person sees in the terminal: messages, tables and one progress bar. The only module that prints.

With `--json` everything for a person goes to stderr, and stdout's last line is one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")

_console = Console(highlight=False)
_json = False


def speak_json(on: bool) -> None:
    """Choose whether stdout is for a program (one JSON object last) or for a person."""
    global _console, _json
    _json = on
    _console = Console(highlight=False, stderr=on)


def hush() -> None:
    """Say nothing more, but for complaints: another process speaks for this one."""
    global _console
    _console = Console(quiet=True)


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


def track(items: Iterable[T], label: str, total: int, *, done: int = 0, stats: Callable[[], str] | None = None) -> Iterator[T]:
    """Yield `items` and show how far they are, with the time left.

    A bar on a terminal; elsewhere a plain line every ten seconds and at the end.

    Args:
        items: what to go through; only what is still to do.
        label: one or two words.
        total: how many there are, `done` included.
        done: how many were finished by an earlier, interrupted run.
        stats: called for the newest numbers whenever a line is drawn.
    """
    if _console.is_terminal:
        yield from _bar(items, label, total, done, stats)
    else:
        yield from _lines(items, label, total, done, stats)


def _bar(items: Iterable[T], label: str, total: int, done: int, stats: Callable[[], str] | None) -> Iterator[T]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[stats]}", style="dim"),
    )
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(label, total=total, completed=done, stats="")
        for item in items:
            yield item
            progress.update(task, advance=1, stats=stats() if stats else "")


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
