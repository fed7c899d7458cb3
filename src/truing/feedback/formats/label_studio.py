"""Label Studio's JSON: tasks with the annotations of several people, each a list of results (pairwise, rating, ranker, choices, textarea).

Its control tags hold which of two was selected; a tie, both bad and how much better are results of their own beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from truing.errors import BadRow, UserError
from truing.feedback.formats import sheet
from truing.feedback.formats.names import LISTS, layout
from truing.feedback.formats.record import Format, Numbered, Record, Response, Source, dense, each, milliseconds, moment, obj, person, whole, words
from truing.feedback.formats.scales import Scale, leaning
from truing.feedback.formats.unpaired import yes_or_no
from truing.store.ids import content_id
from truing.store.tables import Kind


def _read(source: Source) -> Iterator[Numbered | BadRow]:
    scale = sheet.head(source, _chosen).get("choice")
    return each(lambda value: _records(value, scale))(source)


def _records(value: Any, scale: Scale | None) -> Iterator[Record]:
    task = obj(value)
    data = obj(task.get("data"))
    turns = sheet.prompt_of(data)
    annotations = _annotations(task)
    if not isinstance(annotations, list) or not annotations:
        raise UserError("has no annotations", fix="export the tasks with their annotations, as JSON")
    places, responses = sheet.responses_of(data)
    marked = [annotation for annotation in map(obj, annotations) if annotation.get("ground_truth")]
    gold = next((answer for annotation in marked for kind, answer in [_answer(annotation, places, responses, data, scale)]), None)
    for place, annotation in enumerate(map(obj, annotations)):
        kind, answer = _answer(annotation, places, responses, data, scale)
        submitted = moment(annotation.get("created_at"))
        yield Record(
            kind, turns, tuple(responses), answer, annotator=_who(annotation.get("completed_by")), vote=place, submitted_at=submitted,
            started_at=submitted, active_ms=milliseconds(annotation.get("lead_time")), gold=gold,
        )  # fmt: skip


def _annotations(task: Mapping[str, Any]) -> Any:
    return task.get("annotations", task.get("completions"))


def _chosen(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was chosen in a task, as cells: they tell the scale, where those are numbers."""
    annotations = _annotations(task)
    for annotation in annotations if isinstance(annotations, list) else []:
        results = annotation.get("result") if isinstance(annotation, dict) else None
        for found in results if isinstance(results, list) else []:
            value = found.get("value") if isinstance(found, dict) else None
            yield from ({"choice": choice} for choice in _choices(value) if found.get("from_name") != "flags")


def _who(found: Any) -> str | None:
    return person(found.get("id", found.get("email"))) if isinstance(found, dict) else person(found)


def _answer(
    annotation: Mapping[str, Any], places: Sequence[str], responses: Sequence[Response], data: Mapping[str, Any], scale: Scale | None
) -> tuple[Kind, dict[str, Any]]:
    """The kind of question and the answer in an annotation's results."""
    results = [obj(result) for result in _listed(annotation.get("result"), "result")]
    said = {(str(result.get("type")), str(result.get("from_name"))): result.get("value") for result in results}
    values = {key: value for key, value in said.items() if isinstance(value, dict)}
    texts = {name: _joined(value.get("text")) for (kind, name), value in values.items() if kind == "textarea"}
    beside = {"comment": texts.get("comment"), "flags": _choices(values.get(("choices", "flags")))}
    if annotation.get("was_cancelled"):
        return _kind(data, responses), words({"skip": texts.get("skip") or "cancelled"}, **beside)
    verdicts = [choice for (kind, name), value in values.items() if kind == "choices" and name != "flags" for choice in _choices(value)]
    for (kind, _), value in values.items():
        if kind == "ranker":
            return Kind.RANKING, words({"ranks": _ranks(value.get("ranker"), places, data)}, **beside)
        if kind == "pairwise" and len(responses) == 2:
            return Kind.PAIR, words(_pairwise(value.get("selected"), responses, sheet.named(places, data), values), **beside)
    ratings = {name: whole(value.get("rating"), 1, 7, name) for (kind, name), value in values.items() if kind == "rating" and name != "strength"}
    if ratings:
        return Kind.RATING, words({"aspects": ratings}, **beside)
    if verdicts and len(responses) == 2:
        return Kind.PAIR, words(leaning(verdicts[0], responses, scale, sheet.named(places, data)), **beside)
    if verdicts:
        return Kind.THUMBS, words({"up": yes_or_no(verdicts[0], "choice")}, **beside)
    edits = [said for name, said in texts.items() if name not in ("comment", "skip") and said]
    if edits:
        return Kind.EDIT, words(sheet.edited(edits[0], responses[0].text), **beside)
    raise UserError("an annotation has no result that is known", fix="use pairwise, ranker, rating, choices or textarea; or leave the task out")


def _listed(found: Any, name: str) -> list[Any]:
    if found is not None and not isinstance(found, list):
        raise UserError(f"the {name} of an annotation is {str(found)[:40]!r}", fix="give it as a list, as Label Studio exports it, or leave the task out")
    return found or []


def _pairwise(selected: Any, responses: Sequence[Response], names: Sequence[str], values: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, Any]:
    answer = leaning(selected, responses, None, names)
    size = values.get(("rating", "strength"), {}).get("rating")
    if size is not None and answer.get("strength"):
        answer["strength"] = whole(size, 1, 3, "strength") * (1 if answer["strength"] > 0 else -1)
    return answer


def _ranks(found: Any, places: Sequence[str], data: Mapping[str, Any]) -> list[int]:
    """Ranks from a ranker's list of the items' ids, best first; a list inside it is a tie."""
    items = sheet.in_a_list(data, layout(data))
    if items is None:
        raise UserError("a ranking is of no list of items", fix=f"give the task's data a list `items` (or {', '.join(LISTS[:3])}), or leave the task out")
    ids = [str(item.get("id", place)) if isinstance(item, dict) else str(place) for place, item in enumerate(items)]
    order = next((value for value in found.values() if isinstance(value, list) and value), None) if isinstance(found, dict) else found
    groups = [[str(name) for name in (group if isinstance(group, list) else [group])] for group in _listed(order, "ranker")]
    ranks = {name: rank for rank, group in enumerate(groups, start=1) for name in group}
    if any(name not in ranks for name in ids):
        raise UserError("a ranking leaves out some of the items", fix="rank every item, or leave the task out")
    return dense([ranks[name] for name in ids])


def _choices(value: Any) -> list[str]:
    found = value.get("choices") if isinstance(value, dict) else None
    return [str(choice) for choice in found] if isinstance(found, list) else []


def _joined(found: Any) -> str:
    return "\n".join(map(str, found)) if isinstance(found, list) else str(found or "")


def _kind(data: Mapping[str, Any], responses: Sequence[Response]) -> Kind:
    if data.get("kind") in list(Kind):
        return Kind(data["kind"])
    return {1: Kind.RATING, 2: Kind.PAIR}.get(len(responses), Kind.RANKING)


def _write(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """A task with the annotations of everyone whom it was asked."""
    first = records[0]
    data: dict[str, Any] = {**sheet.fields(first), "kind": str(first.kind)}
    if first.kind == Kind.RANKING:
        data = {
            "prompt": data["prompt"],
            "kind": data["kind"],
            "items": [{"id": str(place), "text": response.text, "model": response.model} for place, response in enumerate(first.responses)],
        }
    annotations = [_annotation(record) for record in records]
    yield {"id": int(content_id("task", data, length=8), 16), "data": data, "annotations": annotations}


def _annotation(record: Record) -> dict[str, Any]:
    return {
        "completed_by": record.annotator,
        "result": [{"type": kind, "from_name": name, "value": value} for kind, name, value in _results(record)],
        "was_cancelled": "skip" in record.answer,
        "ground_truth": False,
        "created_at": record.submitted_at.isoformat() if record.submitted_at else None,
        "lead_time": None if record.active_ms is None else record.active_ms / 1000,
    }


def _results(record: Record) -> Iterator[tuple[str, str, dict[str, Any]]]:
    answer = record.answer
    if "both_bad" in answer or answer.get("strength") == 0:
        yield "choices", "verdict", {"choices": ["both bad" if "both_bad" in answer else "tie"]}
    elif "strength" in answer:
        yield "pairwise", "pairwise", {"selected": "left" if answer["strength"] > 0 else "right"}
        yield "rating", "strength", {"rating": abs(answer["strength"])}
    if "ranks" in answer:
        order: dict[int, list[str]] = {}
        for place, rank in sorted(enumerate(answer["ranks"]), key=lambda item: item[1]):
            order.setdefault(rank, []).append(str(place))
        yield "ranker", "ranking", {"ranker": {"ranked": [group if len(group) > 1 else group[0] for group in order.values()]}}
    for name, rating in answer.get("aspects", {}).items():
        yield "rating", name, {"rating": rating}
    if "up" in answer:
        yield "choices", "thumbs", {"choices": ["up" if answer["up"] else "down"]}
    if record.kind == Kind.EDIT and "skip" not in answer:
        yield "textarea", "edit", {"text": [answer.get("text", record.responses[0].text)]}
    for name in ("skip", "comment"):
        if name in answer:
            yield "textarea", name, {"text": [answer[name]]}
    if answer.get("flags"):
        yield "choices", "flags", {"choices": answer["flags"]}


def _why_not(record: Record) -> str | None:
    if record.gold is not None:
        return "check question"
    if "strength" in record.answer.get("aspects", {}):
        return "an aspect called strength"
    return sheet.why_not(record) if record.kind != Kind.RANKING else None


LABEL_STUDIO = Format(
    "Label Studio's JSON: tasks with `data` named as in `table` and annotations of pairwise, rating, ranker, choices and textarea",
    "json", _read, lambda row: "data" in row and ("annotations" in row or "completions" in row),
    "in which order shown; when begun; check questions; whether a model judged; an aspect called `strength`", _why_not, _write, together=True,
)  # fmt: skip
