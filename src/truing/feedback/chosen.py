"""What a file of judgements prefers: chosen and rejected responses, in every format that can be imported, for who wants to measure and not to import.

Beside those formats: sets with a `subset` in each row, with several `rejected` to one `chosen` (RewardBench 2), and in parquet. A ranking gives each two of
its responses, ratings and thumbs each two responses to a prompt that one annotator judged, an edit its text over the original. Ties, skips, what
was asked again and whatever has nothing beside it to be compared with are counted by name.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Any, NamedTuple

from truing.errors import BadRow, UserError
from truing.feedback.exchange import FORMATS
from truing.feedback.exports import AGAIN
from truing.feedback.formats import RECORD_FORMATS
from truing.feedback.formats.pairs import read_trl, record_of, scored_alike
from truing.feedback.formats.record import MODERATE, Format, Numbered, Record, Response, checked
from truing.feedback.guess import AUTO, LOOKED_AT, find
from truing.feedback.native import HEADER, NATIVE, read_log
from truing.feedback.subset_source import SubsetSource
from truing.store.conversations import Turn
from truing.store.ids import canonical
from truing.store.rows import Row, bad_row
from truing.store.tables import Kind

PAIRS = "trl"
REFUSED_KEPT = 100  # rows; of more, the number alone is kept


class Chosen(NamedTuple):
    """A response that was preferred to another one, or to each of several."""

    turns: list[Turn]
    chosen: str
    rejected: tuple[str, ...]
    subset: str
    strength: float = MODERATE  # 1 slightly to 3 clearly; 2 where the file doesn't say


class LeftOut(NamedTuple):
    """A judgement that says nothing of its own."""

    why: str


class FileRead(NamedTuple):
    """A file, and what of it says which response is better."""

    name: str
    format: str
    chosen: list[Chosen]
    left_out: dict[str, int]  # why → how much says nothing: ties, skips, ratings with nothing beside them
    refused: list[BadRow]  # the first rows that can't be used, each with its remedy
    more_refused: int  # rows refused beyond those


def read_chosen(path: Path, format: str = AUTO) -> FileRead:
    """Read a file of judgements for the preferences in it.

    Args:
        path: a file, or a folder with one; may be packed (.gz, .zip) or parquet.
        format: one of `exchange.FORMATS`, or `auto`.

    Raises:
        UserError: the file can't be read, is of no format that is known, or no row of it says which response is better.
    """
    if format not in (AUTO, *FORMATS):
        raise UserError(f"there is no format {format!r}", fix=f"use one of {', '.join((AUTO, *FORMATS))}")
    source = SubsetSource(find(path, format).file if path.is_dir() else path)
    name = _guess(source) if format == AUTO else format
    intake = _Intake(source)
    for item in _items(source, name):
        if isinstance(item, BadRow):
            intake.refuse(item)
        elif isinstance(item, Numbered):
            intake.take(item)
        elif isinstance(item, LeftOut):
            intake.leave_out(item)
        else:
            intake.chosen.append(item)
    return intake.ended(source.path.name, name)


def _guess(source: SubsetSource) -> str:
    """The format that the first rows look like, as `guess` has it, of any source."""
    rows = [row.value for row in islice(source.rows(), LOOKED_AT) if isinstance(row, Row)]
    objects = [row for row in rows if isinstance(row, dict)]
    if objects and objects[0].get("event") == HEADER["event"] and "format" in objects[0]:
        return NATIVE
    formats: Iterator[tuple[str, Format]] = iter(RECORD_FORMATS.items())
    found = next((name for name, form in formats if objects and 2 * sum(map(form.fits, objects)) > len(rows)), None)
    if found is None:
        known = ", ".join((NATIVE, *RECORD_FORMATS))
        raise UserError(f"the first rows of {source.path.name} look like no format that is known", fix=f"say which with --format: {known}")
    return found


def _items(source: SubsetSource, format: str) -> Iterator[Numbered | BadRow | Chosen | LeftOut]:
    if format == NATIVE:
        return _of_log(source.path)
    return _of_pairs(source) if format == PAIRS else RECORD_FORMATS[format].read(source)


# ---- chosen and rejected, as the training libraries and the benchmarks keep them ----


def _of_pairs(source: SubsetSource) -> Iterator[BadRow | Chosen | Numbered]:
    for row in source.rows():
        if isinstance(row, BadRow):
            yield row
            continue
        try:
            found = [_scored_alike(row.line, one, row.value) for one in _of_row(row.value, source.subset(row.line))]
        except UserError as error:
            yield bad_row(source.path.name, row.line, error)
        else:
            yield from found


def _of_row(row: Any, subset: str) -> Iterator[Chosen]:
    """Each chosen response of a row against all its rejected ones."""
    if not isinstance(row, dict) or "chosen" not in row or "rejected" not in row:
        raise UserError("has no chosen and rejected", fix='write {"prompt": ..., "chosen": ..., "rejected": ...}')
    if not _sides(row["chosen"]) or not _sides(row["rejected"]):
        raise UserError("has nothing under chosen or under rejected", fix="give both a text, or leave the row out")
    for chosen in _sides(row["chosen"]):
        pairs = [read_trl(_apart(row.get("prompt"), chosen, rejected)) for rejected in _sides(row["rejected"])]
        if any(pair.turns != pairs[0].turns or pair.chosen != pairs[0].chosen for pair in pairs):
            raise UserError("the rejected responses part from the chosen one at different places", fix="give the prompt apart, under `prompt`")
        for pair in pairs:
            checked(record_of(pair))
        yield Chosen(pairs[0].turns, pairs[0].chosen, tuple(pair.rejected for pair in pairs), subset)


def _sides(value: Any) -> list[Any]:
    """The responses under `chosen` or `rejected`: one (a text, or turns), or a list of several."""
    several = isinstance(value, list) and not all(isinstance(part, dict) for part in value)
    return list(value) if several or value == [] else [value]


def _apart(prompt: Any, chosen: Any, rejected: Any) -> dict[str, Any]:
    """A row of TRL's, the turns of the prompt taken off where they stand in front of the responses as well."""
    sides = {"chosen": chosen, "rejected": rejected}
    if isinstance(prompt, list) and prompt:
        n = len(prompt)
        sides = {name: side[n:] if isinstance(side, list) and len(side) > n and side[:n] == prompt else side for name, side in sides.items()}
    return {"prompt": prompt, **sides}


def _scored_alike(line: int, one: Chosen, row: Mapping[str, Any]) -> Chosen | Numbered:
    """The preference; or a tie, where both sides have the same score."""
    if scored_alike(row):
        return Numbered(line, Record(Kind.PAIR, one.turns, (Response(one.chosen), Response(one.rejected[0])), {"strength": 0}))
    return one


# ---- records of every other format ----


class _Intake:
    """What was read so far."""

    def __init__(self, source: SubsetSource) -> None:
        self._source = source
        self.chosen: list[Chosen] = []
        self._left_out: Counter[str] = Counter()
        self._refused: list[BadRow] = []
        self._more_refused = 0
        self._single: dict[Any, list[tuple[int, Record]]] = {}  # annotator, kind and prompt → what was said of one response

    def refuse(self, row: BadRow) -> None:
        """Note a row that can't be used."""
        if len(self._refused) < REFUSED_KEPT:
            self._refused.append(row)
        else:
            self._more_refused += 1

    def leave_out(self, item: LeftOut) -> None:
        """Count what says nothing."""
        self._left_out[item.why] += 1

    def take(self, item: Numbered) -> None:
        """Note what a record prefers."""
        line, record = item
        if record.gold is not None:
            self._left_out["check question"] += 1
        elif {"skip", "both_bad"} & record.answer.keys():
            self._left_out["skip" if "skip" in record.answer else "both bad"] += 1
        elif record.kind in (Kind.RATING, Kind.THUMBS):
            key = (record.kind, canonical(record.turns), record.annotator, record.judge, record.vote)
            self._single.setdefault(key, []).append((line, record))
        elif record.kind == Kind.EDIT:
            self._edited(line, record, record.answer.get("text", record.responses[0].text), record.responses[0].text)
        elif record.kind == Kind.RANKING:
            ranks = record.answer["ranks"]
            for i, j in combinations(range(len(ranks)), 2):
                lead = (ranks[j] > ranks[i]) - (ranks[j] < ranks[i])
                self._prefer(line, record.turns, record.responses[i].text, record.responses[j].text, MODERATE * lead)
        else:
            one, other = record.responses
            self._prefer(line, record.turns, one.text, other.text, record.answer["strength"])

    def ended(self, name: str, format: str) -> FileRead:
        """All of it.

        Raises:
            UserError: there is no preference in it.
        """
        for said in self._single.values():
            self._compare(said)
        if not self.chosen:
            raise self._nothing(name, format)
        return FileRead(name, format, self.chosen, dict(sorted(self._left_out.items())), self._refused, self._more_refused)

    def _edited(self, line: int, record: Record, text: str, original: str) -> None:
        if text.strip() == original.strip():
            self._left_out["edit that changed nothing"] += 1
        else:
            self._prefer(line, record.turns, text, original, 1)

    def _compare(self, said: Sequence[tuple[int, Record]]) -> None:
        """Prefer, of each two responses that one annotator rated or gave a thumb, the better one."""
        kind = said[0][1].kind
        if len(said) == 1:
            self._left_out[f"a {kind} with nothing beside it" if kind == Kind.RATING else "a thumb with nothing beside it"] += 1
        for (_, one), (line, other) in combinations(said, 2):
            lead = _points(one, other) if kind == Kind.RATING else MODERATE * (int(one.answer["up"]) - int(other.answer["up"]))
            self._prefer(line, one.turns, one.responses[0].text, other.responses[0].text, lead)

    def _prefer(self, line: int, turns: list[Turn], one: str, other: str, strength: float | None) -> None:
        """`strength` > 0: for the first text. None: it can't be said."""
        if strength is None:
            self._left_out["ratings of different aspects"] += 1
        elif not strength or one == other:
            self._left_out["tie"] += 1
        else:
            ahead, behind = (one, other) if strength > 0 else (other, one)
            self.chosen.append(Chosen(turns, ahead, (behind,), self._source.subset(line), min(abs(strength), 3.0)))

    def _nothing(self, name: str, format: str) -> UserError:
        if self._refused:
            count = len(self._refused) + self._more_refused
            return UserError(f"{count} rows of {name} can't be used, and no other says which response is better. The first: {self._refused[0].what}",
                             fix=self._refused[0].fix)  # fmt: skip
        what = ", ".join(f"{why} {n}" for why, n in sorted(self._left_out.items())) or "no rows"
        return UserError(f"no row of {name}, read as {format}, says which of two responses is better ({what})", fix="name a file of preferences")


def _points(one: Record, other: Record) -> float | None:
    """By how many points the first is rated above the second: overall, or the mean over the aspects that both have; None if there is none."""
    mine, theirs = one.answer["aspects"], other.answer["aspects"]
    shared = ["overall"] if "overall" in mine and "overall" in theirs else sorted(mine.keys() & theirs.keys())
    return sum(mine[aspect] - theirs[aspect] for aspect in shared) / len(shared) if shared else None


# ---- Truing's own log ----


def _of_log(path: Path) -> Iterator[Numbered | LeftOut]:
    """The judgements of a log that still stand, as records; those to questions asked again are left out.

    Raises:
        BadRow: a line isn't one of a log: half a log is none.
    """
    prompts: dict[str, list[Turn]] = {}
    texts: dict[str, str] = {}
    questions: dict[str, Mapping[str, Any]] = {}
    standing: dict[str, Row] = {}
    for row in read_log(path):
        value = row.value
        match value["event"]:
            case "prompt":
                prompts[value["id"]] = value["turns"]
            case "sample":
                texts[value["id"]] = value["text"]
            case "question":
                questions[value["id"]] = value
            case "judgement":
                standing.pop(value["supersedes"], None)
                standing[value["id"]] = row
    for row in standing.values():
        question = questions[row.value["question_id"]]
        if question["repeat_of"] is not None:
            yield LeftOut(AGAIN)
            continue
        responses = tuple(Response(texts[sample]) for sample in question["samples"])
        yield Numbered(row.line, Record(Kind(question["kind"]), prompts[question["prompt_id"]], responses, row.value["answer"], row.value["annotator_id"],
                                        gold=question["gold"]))  # fmt: skip
