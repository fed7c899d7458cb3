"""Prompts: taken in from files, checked, de-duplicated and split.

Formats, by the name's ending (all but parquet also with .gz):

    .jsonl     a row is a text, or an object with `prompt`, `messages`, `turns` or `text`
    .csv       with a column `prompt` or `text`
    .txt       a prompt a line
    .parquet   columns as the keys of jsonl

`hub:owner/name` is the train split of a dataset on the Hugging Face Hub. The other keys of a row become the prompt's facts.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from truing.config import Settings
from truing.errors import BadRow, UserError
from truing.store.clock import now
from truing.store.conversations import Turn, checked_prompt, turns_of
from truing.store.database import hold
from truing.store.ids import content_id
from truing.store.project import Project
from truing.store.rows import Row, bad_row, chunks, csv_rows, json_rows, parquet_values, require_clean, text_rows
from truing.store.splits import HELD_OUT_SHARE, normal_text, split_of, split_of_turns
from truing.store.tables import Prompt, Split

__all__ = ["ImportReport", "PromptPreview", "PromptSettings", "everyday_prompts", "import_prompts", "preview_prompts", "split_of", "turns_of"]

HUB = "hub:"
PROMPT_KEYS = ("prompt", "messages", "turns", "text")  # the first of these that a row has is its prompt
REFUSED_KEPT = 1000  # of more, the number alone is kept
CHUNK = 1000
PREVIEWED = 20_000  # rows; a preview answers while somebody waits

Rows = Iterator[Row | BadRow]


class PromptSettings(Settings):
    """Prompts: which are taken in, and how many are kept for honest evaluation."""

    held_out_share: float = Field(HELD_OUT_SHARE, ge=0, lt=1, description="share of prompts kept for evaluation; a prompt's split never changes")
    max_characters: int = Field(20_000, gt=0, le=100_000, description="longest conversation taken in, in characters")
    strict: bool = Field(False, description="refuse all the files if one row of them can't be used")


class ImportReport(NamedTuple):
    """What an import did."""

    added: int
    duplicates: int  # rows that say what an earlier row or a stored prompt says
    refused: list[BadRow]  # the first thousand rows that can't be used, each with its remedy
    held_out: int  # of the added ones
    more_refused: int = 0  # rows refused beyond those


class PromptPreview(NamedTuple):
    """What an import would do, from the beginning of the file."""

    first: list[tuple[list[Turn], Split]]  # the first prompts it would add
    report: ImportReport  # of the rows that were looked at
    whole: bool  # all of the file was seen


class _Tally:
    """The report in the making."""

    def __init__(self) -> None:
        self.added = self.duplicates = self.held_out = self.more_refused = 0
        self.refused: list[BadRow] = []

    def refuse(self, row: BadRow) -> None:
        if len(self.refused) < REFUSED_KEPT:
            self.refused.append(row)
        else:
            self.more_refused += 1

    def report(self) -> ImportReport:
        return ImportReport(self.added, self.duplicates, self.refused, self.held_out, self.more_refused)


def everyday_prompts() -> Path:
    """The prompts that come with Truing: small things people ask, with a topic."""
    return Path(__file__).parent / "data" / "everyday.jsonl"


def import_prompts(project: Project, settings: PromptSettings, files: list[Path | str]) -> ImportReport:
    """Take in prompts from files, all in one transaction.

    Importing a file twice is no harm: what the store has is counted as a duplicate. So this needs no run of its own.
    Outer white space of a text is taken off.

    Raises:
        UserError: a file can't be read at all, or, with `settings.strict`, one of its rows can't be used. Nothing is
            imported then.
    """
    sources = [_source(file) for file in files]
    tally = _Tally()
    with project.database.write() as session:
        hold(session, Prompt)
        seen = {_sameness(turns) for turns in session.scalars(select(Prompt.turns).execution_options(yield_per=CHUNK))}
        start = session.scalar(select(func.coalesce(func.max(Prompt.position), -1))) or 0
        fresh = (prompt for source, rows in sources for prompt in _fresh(source, rows, settings, seen, tally))
        for chunk in chunks(fresh, CHUNK):
            _insert(session, chunk, start + 1 + tally.added, settings, tally)
        if settings.strict and tally.refused:
            raise _refusal(tally)
    return tally.report()


def preview_prompts(project: Project, settings: PromptSettings, file: Path, *, rows: int = 20) -> PromptPreview:
    """Look at the beginning of a file of prompts; nothing is written.

    Args:
        rows: prompts to show.

    Raises:
        UserError: the file can't be read at all.
    """
    source, found = _source(file)
    tally, looked = _Tally(), 0
    first: list[tuple[list[Turn], Split]] = []

    def counted() -> Rows:
        nonlocal looked
        for row in islice(found, PREVIEWED):
            looked += 1
            yield row

    with project.database.read() as session:
        seen = {_sameness(turns) for turns in session.scalars(select(Prompt.turns).execution_options(yield_per=CHUNK))}
    for prompt in _fresh(source, counted(), settings, seen, tally):
        split = split_of_turns(prompt.turns, settings.held_out_share)
        tally.added, tally.held_out = tally.added + 1, tally.held_out + (split == Split.HELD_OUT)
        first += [(prompt.turns, split)] * (len(first) < rows)
    return PromptPreview(first, tally.report(), looked < PREVIEWED)


class _New(NamedTuple):
    turns: list[Turn]
    facts: dict[str, Any]
    source: str


def _fresh(source: str, rows: Rows, settings: PromptSettings, seen: set[int], tally: _Tally) -> Iterator[_New]:
    """The usable prompts of a file that weren't met before."""
    for row in rows:
        if isinstance(row, BadRow):
            tally.refuse(row)
            continue
        try:
            turns, facts = _read(row.value, settings.max_characters)
        except UserError as error:
            tally.refuse(bad_row(source, row.line, error))
            continue
        key = _sameness(turns)
        if key in seen:
            tally.duplicates += 1
        else:
            seen.add(key)
            yield _New(turns, facts, source)


def _read(value: Any, max_characters: int) -> tuple[list[Turn], dict[str, Any]]:
    """Turns and facts of a row."""
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise UserError("is neither a text nor an object", fix='write {"prompt": "text"}')
    key = next((key for key in PROMPT_KEYS if key in value), None)
    if key is None:
        raise UserError("has no prompt", fix=f"give it one of the keys {', '.join(PROMPT_KEYS)}")
    turns = checked_prompt(value[key], max_characters=max_characters)
    trimmed = [{"role": turn["role"], "content": turn["content"].strip()} for turn in turns]
    return trimmed, {name: fact for name, fact in value.items() if name != key}


def _sameness(turns: list[Turn]) -> int:
    """64 bits that are equal for prompts that say the same: an int is the lightest thing to hold a million of."""
    text = "\x00".join(f"{turn['role']}\x00{normal_text(turn['content'])}" for turn in turns)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def _insert(session: Session, new: list[_New], position: int, settings: PromptSettings, tally: _Tally) -> None:
    moment = now()
    rows = [
        {
            "id": content_id(prompt.turns),
            "turns": prompt.turns,
            "text": prompt.turns[-1]["content"],
            "split": str(split_of_turns(prompt.turns, settings.held_out_share)),
            "source": prompt.source,
            "facts": prompt.facts,
            "position": position + number,
            "created_at": moment,
        }
        for number, prompt in enumerate(new)
    ]
    session.execute(insert(Prompt), rows)
    tally.added += len(rows)
    tally.held_out += sum(row["split"] == Split.HELD_OUT for row in rows)


def _refusal(tally: _Tally) -> UserError:
    first = "".join(f"\n  {row.what} ({row.fix})" for row in tally.refused[:5])
    count = len(tally.refused) + tally.more_refused
    return UserError(f"{count} rows can't be used, so nothing was imported:{first}", fix="mend them, or leave them out with --set prompts.strict=false")


def _source(file: Path | str) -> tuple[str, Rows]:
    """A file's name and its rows. What comes over the network is fetched here, before the store is locked."""
    if str(file).startswith(HUB):
        return str(file), _hub_rows(str(file).removeprefix(HUB))
    path = Path(file)
    require_clean(path.name)
    ending = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if ending not in READERS or path.name.lower().endswith(".parquet.gz"):
        raise UserError(f"{path.name} is of no kind that can be imported", fix=f"use one of .{', .'.join(READERS)}, or {HUB}owner/name")
    return path.name, READERS[ending](path)


def _prompt_lines(path: Path) -> Rows:
    for row in text_rows(path):
        if isinstance(row, Row):
            try:
                require_clean(row.value)
            except UserError as error:
                yield bad_row(path.name, row.line, error)
                continue
        yield row


def _parquet_rows(path: Path) -> Rows:
    return (_table_row(path.name, number, value) for number, value in enumerate(parquet_values(path), start=1))


def _hub_rows(name: str) -> Rows:
    import datasets  # two seconds, for those who need it

    if name.count("/") != 1:
        raise UserError(f"`{HUB}{name}` doesn't name a dataset", fix=f"write {HUB}owner/name")
    try:
        found = datasets.load_dataset(name, split="train")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the dataset {name} can't be fetched from the Hub: {reason}", fix="check its name and the network, or import a file") from error
    return (_table_row(f"{HUB}{name}", number, value) for number, value in enumerate(found, start=1))


def _table_row(source: str, number: int, value: dict[str, Any]) -> Row | BadRow:
    plain = {key: str(cell) if isinstance(cell, (date, datetime, Decimal)) else cell for key, cell in value.items()}
    try:
        require_clean(plain)
    except UserError as error:
        return bad_row(source, number, error)
    return Row(number, plain)


READERS: dict[str, Callable[[Path], Rows]] = {
    "jsonl": json_rows,
    "ndjson": json_rows,
    "csv": csv_rows,
    "txt": _prompt_lines,
    "parquet": _parquet_rows,
}
