"""UltraFeedback (Cui et al. 2023, arXiv:2310.01377): an instruction, several completions, and a judge's ratings of each, by aspect and overall."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.errors import UserError
from truing.feedback.formats.record import Format, Record, Response, as_number, each, obj, only, person, text, whole, words
from truing.store.conversations import checked_prompt
from truing.store.tables import Kind

JUDGE = "gpt-4"  # who rated, where the file doesn't tell
LOWEST, HIGHEST = 1.0, 10.0  # of an overall score
POINTS = 7  # of ours


def _read(value: Any) -> Iterator[Record]:
    row = obj(value)
    turns = checked_prompt(text(row, "instruction"))
    completions = row.get("completions")
    if not isinstance(completions, list) or not completions:
        raise UserError("has no completions", fix='write {"instruction": ..., "completions": [{"response": ..., "overall_score": ...}]}')
    names = row.get("models") if isinstance(row.get("models"), list) else []
    for place, completion in enumerate(map(obj, completions)):
        model = person(completion.get("model")) or (person(names[place]) if names and place < len(names) else None)
        aspects, comment = _aspects(completion), completion.get("critique")
        if aspects:
            annotator = person(row["annotator"]) if "annotator" in row else JUDGE
            judge = bool(row["judge"]) if "judge" in row else "annotator" not in row
            answer = words({"aspects": aspects}, comment=comment if isinstance(comment, str) else None)
            yield Record(Kind.RATING, turns, (Response(text(completion, "response"), model),), answer, annotator=annotator, judge=judge)


def _aspects(completion: Mapping[str, Any]) -> dict[str, int]:
    """Aspect → 1 to 7: the ratings from 1 to 5 as they are, the overall score from 1 to 10 on seven points."""
    found = {}
    annotations = completion.get("annotations")
    for name, said in (annotations if isinstance(annotations, dict) else {}).items():
        rating = said.get("Rating") if isinstance(said, dict) else said
        if as_number(rating) is not None:  # "N/A" is no rating
            found[str(name)[:80]] = whole(rating, 1, POINTS, name)
    overall = as_number(completion.get("overall_score"))
    if overall is not None:
        if not LOWEST <= overall <= HIGHEST:
            raise UserError(f"an overall score is {overall:g}", fix="write a number from 1 to 10, or leave the row out")
        found["overall"] = 1 + round((overall - LOWEST) * (POINTS - 1) / (HIGHEST - LOWEST))
    return found


def _write(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """A row for each annotator of the prompt."""
    by_person: dict[tuple[str | None, bool], list[Record]] = {}
    for record in records:
        by_person.setdefault((record.annotator, record.judge), []).append(record)
    for (annotator, judge), mine in by_person.items():
        yield {
            "instruction": mine[0].turns[0]["content"],
            "models": [record.responses[0].model for record in mine],
            "completions": [_completion(record) for record in mine],
            "annotator": annotator,
            "judge": judge,
        }


def _completion(record: Record) -> dict[str, Any]:
    aspects = dict(record.answer["aspects"])
    overall = aspects.pop("overall", None)
    score = None if overall is None else LOWEST + (overall - 1) * (HIGHEST - LOWEST) / (POINTS - 1)
    response = record.responses[0]
    annotations = {name: {"Rating": str(value)} for name, value in aspects.items()}
    return {"model": response.model, "response": response.text, "annotations": annotations, "overall_score": score, "critique": record.answer.get("comment")}


def _why_not(record: Record) -> str | None:
    return only(record, Kind.RATING) or (None if len(record.turns) == 1 else "a conversation of several turns")


ULTRAFEEDBACK = Format(
    "UltraFeedback: `instruction`, `completions` with `annotations` of 1 to 5 and an `overall_score` of 1 to 10 (kept on seven points)",
    "jsonl", each(_read), lambda row: "instruction" in row and "completions" in row,
    "skips; flags; when and how long; check questions; conversations of several turns; every kind but `rating`",
    _why_not, _write, together=True, by_prompt=True,
)  # fmt: skip
