"""The form that sets up questions: what is asked, about which samples, of whom, how often, with which checks."""

import re
import secrets
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from truing.errors import UserError
from truing.feedback.questions import FeedbackSettings
from truing.feedback.sets import Rules, create_set
from truing.store.clock import now
from truing.store.overview import browse
from truing.store.overview.people import names
from truing.store.project import Project
from truing.store.tables import Kind, Sample, Split
from truing.studio.auth import Person
from truing.studio.manage.desk import Manager, Sent, back, project_of, text, texts
from truing.studio.render import page

router = APIRouter()

ASPECTS, MOST_POINTS = 6, 7
KIND_WORDS = {
    Kind.PAIR: ("Pair", "two responses side by side: which is better, and by how much?"),
    Kind.RANKING: ("Ranking", "2 to 9 responses put in order, ties allowed"),
    Kind.RATING: ("Rating", "one response, a number for each aspect"),
    Kind.THUMBS: ("Thumbs", "one response: good or not"),
    Kind.EDIT: ("Edit", "one response, which people rewrite until it is right"),
}
NUMBERS = {  # field of the form → its words, its bounds, and whether it may be left empty
    "limit": ("how many questions", 1, 1_000_000, True),
    "checks": ("check questions made by the studio", 0, 10_000, False),
    "overlap": ("people for each question", 1, 1000, False),
    "gold_first": ("check questions among the first, in percent", 0, 50, False),
    "gold_first_n": ("how many questions are the first ones", 0, 100_000, False),
    "gold_later": ("check questions later on, in percent", 0, 50, False),
    "repeat_rate": ("questions asked again, in percent", 0, 50, False),
    "lease_minutes": ("minutes for which a question is lent", 1, 10_080, False),
    "samples_per_question": ("responses in a ranking", 2, 9, False),
}


@dataclass
class Filled:
    """What stands in the form, and what is wrong with it: field → words."""

    values: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)
    problem: UserError | None = None

    def number(self, name: str) -> int | None:
        """A whole number within its bounds; notes an error and gives None otherwise."""
        words, low, high, optional = NUMBERS[name]
        typed = self.values[name]
        if not typed and optional:
            return None
        if re.fullmatch(r"[0-9]{1,7}", typed) and low <= int(typed) <= high:
            return int(typed)
        self.errors[name] = f"{words}: a whole number from {low:,} to {high:,}" + (", or nothing for all there are" if optional else "")
        return None


@router.get("/manage/sets/new")
def new_page(request: Request, person: Manager) -> Response:
    """The form as it is offered."""
    return _form(request, person, Filled(_offered(project_of(request))))


@router.post("/manage/sets/new")
def make_set(request: Request, person: Manager, form: Sent) -> Response:
    """Make the set, or show the form again with what was typed and what is wrong."""
    filled = Filled(_typed(form))
    rules = _rules(filled)
    limit, checks = filled.number("limit"), filled.number("checks")
    values = filled.values
    if not values["name"]:
        filled.errors["name"] = "give it a name: what annotators and you will call it"
    if not values["guideline"]:
        filled.errors["guideline"] = "say what makes one answer better than another"
    if not values["batches"]:
        filled.errors["batches"] = "choose the samples that are asked about"
    if filled.errors or rules is None:
        return _form(request, person, filled)
    project = project_of(request)
    try:
        about = _about(project, values["batches"])
        report = create_set(
            project, name=values["name"], kind=values["kind"], guideline=values["guideline"], rules=rules, split=values["split"] or None, limit=limit,
            checks=(checks or 0) if values["kind"] == Kind.PAIR and "batch" in about else 0, seed=secrets.randbits(40), at=now(), **about,
        )  # fmt: skip
    except UserError as problem:
        filled.problem = problem
        if "called" in problem.what or "name" in problem.what:
            filled.errors["name"] = f"{problem.what}: {problem.fix}"
        return _form(request, person, filled)
    return back(f"/manage/sets/{report.id}", "made")


def _about(project: Project, chosen: list[str]) -> dict[str, Any]:
    """One batch by its name; of several, the samples themselves."""
    if len(chosen) == 1:
        return {"batch": chosen[0]}
    with project.database.read() as session:
        query = select(Sample.id).where(Sample.batch.in_(chosen)).order_by(Sample.prompt_id, Sample.batch, Sample.position, Sample.id)
        return {"sample_ids": list(session.scalars(query))}


def _rules(filled: Filled) -> Rules | None:
    """The rules that the form asks for; None, with the errors noted, if there can be no such rules."""
    numbers = {
        name: filled.number(name) for name in ("overlap", "gold_first", "gold_first_n", "gold_later", "repeat_rate", "lease_minutes", "samples_per_question")
    }
    values = filled.values
    if values["kind"] not in list(Kind):
        filled.errors["kind"] = "choose what is asked"
    if values["split"] not in ("", *Split):
        filled.errors["split"] = "choose which prompts"
    if filled.errors:
        return None
    given = {name: number for name, number in numbers.items() if number is not None}
    shares = {name: given.pop(name) / 100 for name in ("gold_first", "gold_later", "repeat_rate")}
    try:
        return Rules(
            **given, **shares, order=values["order"], who=values["who"] if values["everyone"] == "no" else None,
            **({"aspects": values["aspects"], "scale": int(values["scale"])} if values["kind"] == Kind.RATING else {}),
            flags=[line for line in values["flags"].splitlines() if line.strip()], completion_url=values["completion_url"] or None,
        )  # fmt: skip
    except (ValidationError, ValueError) as problem:
        filled.errors |= _wrong(problem)
        return None


def _wrong(problem: ValueError) -> dict[str, str]:
    """Field → what is wrong with it, as the settings' own bounds say it."""
    if not isinstance(problem, ValidationError):
        return {"scale": "rate from 1 to 5, or from 1 to 7"}
    words = {
        "completion_url": "an address that begins with https://",
        "order": "choose an order",
        "aspects": "each needs a name of its own, of at most 80 characters",
    }
    return {str(one["loc"][0]): words.get(str(one["loc"][0]), one["msg"].removeprefix("Value error, ")) for one in problem.errors()}


def _offered(project: Project) -> dict[str, Any]:
    """The form's first contents: the rules' own defaults, and the guideline of the settings."""
    rules = Rules()
    with project.database.read() as session:
        newest = browse.sample_batches(session)[:1]
    return {
        "name": "", "kind": Kind.PAIR.value, "guideline": project.settings(FeedbackSettings).guideline, "batches": [one.name for one in newest], "split": "",
        "limit": "", "checks": "12", "overlap": str(rules.overlap), "gold_first": f"{100 * rules.gold_first:.0f}", "gold_first_n": str(rules.gold_first_n),
        "gold_later": f"{100 * rules.gold_later:.0f}", "repeat_rate": f"{100 * rules.repeat_rate:.0f}", "order": rules.order,
        "lease_minutes": f"{rules.lease_minutes:.0f}", "everyone": "yes", "who": [], "aspects": [one.model_dump() for one in rules.aspects],
        "scale": str(rules.scale), "flags": "\n".join(rules.flags), "samples_per_question": str(rules.samples_per_question), "completion_url": "",
    }  # fmt: skip


def _typed(form: FormData) -> dict[str, Any]:
    """What the form sent, field by field; rows of aspects without a name are left out."""
    single = (
        "name", "kind", "guideline", "split", "limit", "checks", "overlap", "gold_first", "gold_first_n", "gold_later", "repeat_rate", "order",
        "lease_minutes", "everyone", "scale", "flags", "samples_per_question", "completion_url",
    )  # fmt: skip
    aspects = []
    for row in range(ASPECTS):
        points = {str(point): text(form, f"aspect-{row}-{point}") for point in range(1, MOST_POINTS + 1)}
        aspect = {
            "name": text(form, f"aspect-{row}-name"),
            "ask": text(form, f"aspect-{row}-ask"),
            "points": {point: words for point, words in points.items() if words},
        }
        if any(aspect.values()):
            aspects.append(aspect)
    return {name: text(form, name) for name in single} | {"batches": texts(form, "batches"), "who": texts(form, "who"), "aspects": aspects}


def _form(request: Request, person: Person, filled: Filled) -> Response:
    with project_of(request).database.read() as session:
        batches, people = browse.sample_batches(session), _people(session)
    status = 400 if filled.errors or filled.problem else 200
    return page(
        request, "manage/set_new.html", status=status, person=person, values=filled.values, errors=defaultdict(str, filled.errors), problem=filled.problem,
        batches=batches, people=people, kinds=KIND_WORDS, rows=ASPECTS, points=range(1, MOST_POINTS + 1),
    )  # fmt: skip


def _people(session: Session) -> Mapping[str, str]:
    return dict(names(session))
