"""Texts that try to run a script, and a project in which every text is one of them.

A payload is a vector (what would run) after a context (what it breaks out of), in an encoding (how it hides). Each calls `hit(n)` or fetches
from another origin; a page that shows any of them as anything but text gives it away.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from html import escape
from typing import Any, NamedTuple

from sqlalchemy import select

from stored import NOON
from studio.filled import run_under_way
from truing.feedback.assignment import claim, submit
from truing.feedback.sets import Aspect, Rules, create_set
from truing.store.clock import now
from truing.store.ids import content_id, uuid7
from truing.store.project import Project
from truing.store.tables import Annotator, Invitation, Kind, Policy, Prompt, Question, QuestionSet, Run, RunState, Sample, Token
from truing.studio.app import ROUTERS

ELSEWHERE = "http://elsewhere.example"

VECTORS = (
    "<script>{run}</script>",
    "<img src=x onerror={run}>",
    "<svg/onload={run}>",
    "<svg><a><animate attributeName=href values=javascript:{run} /><text y=9>x</text></a></svg>",
    "<iframe srcdoc='<script>parent.{run}</script>'></iframe>",
    "<details open ontoggle={run}>x</details>",
    "<input autofocus onfocus={run}>",
    "<video><source onerror={run}></video>",
    "<a href=javascript:{run}>x</a>",
    "<form action=javascript:{run}><button>x</button></form>",
    "<object data={elsewhere}/{n}.svg></object>",
    "<base href={elsewhere}/{n}/>",
    "<meta http-equiv=refresh content='0;url={elsewhere}/{n}'>",
    "<link rel=stylesheet href={elsewhere}/{n}.css>",
    "<style>@import url({elsewhere}/{n}.css);*{{background:url({elsewhere}/{n}.png)}}</style>",
    "<p style=background:url({elsewhere}/{n}.png)>x</p>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--><img src=x onerror={run}>'></math>",
    "<noscript><p title='</noscript><img src=x onerror={run}>'>",
    "[x](javascript:{run})",
    "<javascript:{run}>",
    "![x]({elsewhere}/{n}.png)",
    "[x]: javascript:{run}\n\n[x]",
    '```html" onmouseover={run} x="\n<script>{run}</script>\n```',
    "{{{{ 7 * 7 }}}}{{% import os %}}${{{run}}}<%= {run} %>",
)
CONTEXTS = ("", '">', "'/>", "</textarea>", "</title></style></script>", "--><!-- ", "\n\n", "`x` | ")
ENCODINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: "".join(letter.upper() if place % 2 else letter for place, letter in enumerate(text)).replace("HIT", "hit").replace("hIt", "hit"),
    lambda text: text.replace("javascript", "java\tscript").replace("script>", "script\n>").replace("=", " = "),
    lambda text: escape(text, quote=True),
    lambda text: "".join(f"&#x{ord(letter):x};" if letter in "<>\"'" else letter for letter in text),
    lambda text: text.replace("<", "\\u003c").replace(">", "\\u003e"),
)


def payloads() -> list[str]:
    """All vectors in all contexts, the encodings in turn: 384 different texts, each with a number of its own."""
    made: list[str] = []
    for v, vector in enumerate(VECTORS):
        for c, context in enumerate(CONTEXTS):
            for e in {0, 1 + (v + c) % (len(ENCODINGS) - 1)}:
                n = len(made)
                made.append(context + ENCODINGS[e](vector.format(run=f"hit({n})", n=n, elsewhere=ELSEWHERE)))
    return made


class Planted(NamedTuple):
    """Where the payloads are."""

    person: str  # id of an annotator with such a name
    prompts: list[str]
    questions: list[str]
    sets: list[str]
    runs: list[str]


KINDS = (Kind.PAIR, Kind.RATING, Kind.THUMBS, Kind.EDIT, Kind.RANKING)


def plant(project: Project, texts: Sequence[str]) -> Planted:
    """Put every payload into every text that anybody can give: prompt, response, guideline, set, aspect, flag, person, comment, edit, skip, file
    name, policy, author, token and invitation, and into what a tuning run tells: sampled answers, and the error that ended it. A set holds one of them; its
    kind goes through all kinds.
    """
    person = _people(project, texts)
    sets, prompts = [], []
    for number, text in enumerate(texts):
        prompt_id, samples = _answers(project, number, text)
        kind = KINDS[number % len(KINDS)]
        made = create_set(
            project, name=f"{number} {text}"[:120], kind=kind, guideline=text, sample_ids=samples[: 2 if kind in (Kind.PAIR, Kind.RANKING) else 1],
            rules=Rules(aspects=[Aspect(name=text[:80], ask=text, points={"1": text, "5": text})], flags=[text[:80]], overlap=3, repeat_rate=0.0),
            seed=number, at=NOON,
        )  # fmt: skip
        sets.append(made.id)
        prompts.append(prompt_id)
    _judge_all(project, person, texts)
    runs = [_tuned(project, number, text) for number, text in enumerate(texts)]
    with project.database.read() as session:
        questions = list(session.scalars(select(Question.id).order_by(Question.position)))
    return Planted(person, prompts, questions, sets, runs)


def _tuned(project: Project, number: int, text: str) -> str:
    """A tuning run whose answers say it; every other one has ended by an error that says it too."""
    run_id = run_under_way(project, done=1, key=content_id("tune", number), says=text)
    if number % 2:
        with project.database.write() as session:
            run = session.get_one(Run, run_id)
            run.state, run.error = RunState.FAILED, text
    return run_id


def _people(project: Project, texts: Sequence[str]) -> str:
    """Everybody is called by a payload, however the pages would have refused that; gives the id of one who answers."""
    with project.database.write() as session:
        for number, text in enumerate(texts):
            person = Annotator(
                id=uuid7(), name=f"{text[:70]} {number}", kind="human", role="annotator", active=True, facts={"invitation": text}, created_at=NOON
            )
            session.add(person)
            session.add(Token(id=content_id("token", number, length=64), name=text[:80], scopes=["read"], created_at=NOON, expires_at=None))
            session.add(
                Invitation(
                    id=content_id("invitation", number, length=64), name=text[:80], role="annotator", uses_left=3, created_at=NOON,
                    expires_at=now() + timedelta(days=3),
                )
            )  # fmt: skip
        return person.id


def _answers(project: Project, number: int, text: str) -> tuple[str, list[str]]:
    """A prompt and its two samples, by a policy and a person; all called like the payload."""
    turns = [{"role": "system", "content": text}, {"role": "user", "content": f"{text}\n\n{text}"}]
    prompt_id = content_id(turns)
    with project.database.write() as session:
        policy = f"{number} {text}"[:80]
        session.add(Policy(id=policy, model=text, artifact_id=None, parent_id=None, created_at=NOON))
        session.add(
            Prompt(id=prompt_id, turns=turns, text=turns[-1]["content"], split="train", source=text, facts={"topic": text}, position=number, created_at=NOON)
        )
        session.flush()
        samples = []
        for place, by in enumerate(({"policy_id": policy}, {"author": text})):
            samples.append(content_id("sample", prompt_id, place))
            session.add(
                Sample(id=samples[-1], prompt_id=prompt_id, batch=text[:80], position=place, text=f"{text} {place}", finished=True, created_at=NOON, **by)
            )
    return prompt_id, samples


def _judge_all(project: Project, person: str, texts: Sequence[str]) -> None:
    """One person's answers to everything: the payload is what they wrote."""
    for number in range(len(texts)):
        at = now()
        lent = claim(project, person, at=at)
        assert lent is not None
        with project.database.read() as session:
            row = session.get_one(QuestionSet, lent.set_id)
        text = row.rules["flags"][0]
        answers: dict[Kind, dict[str, Any]] = {
            Kind.PAIR: {"strength": 2}, Kind.RATING: {"aspects": {text: 4}}, Kind.THUMBS: {"up": True}, Kind.RANKING: {"ranks": [1, 2]},
            Kind.EDIT: {"text": f"{row.name} edited"},
        }  # fmt: skip
        answer = {"skip": text} if number % 7 == 3 else {**answers[Kind(lent.kind)], "flags": [text], "comment": row.name}
        submit(
            project, lent.id, answer, annotator_id=person, started_at=at, at=at, active_ms=900, idempotency_key=f"xss-{number}-{uuid7()}", guideline_version=1
        )


# ---- looking at it ----

# What a browser is given before any page: every way to say "I ran" is noted.
WATCH = """
window.hits = [];
window.hit = n => { window.hits.push(n); };
"""
# Provokes what waits for a hand: focus, a pointer, a toggle; then names whatever stands in the page that no page of the studio has.
INSPECT = """
() => {
  for (const one of document.querySelectorAll('body *')) {
    for (const name of ['mouseover', 'focus', 'toggle', 'error', 'load']) one.dispatchEvent(new Event(name));
  }
  const never = ['iframe', 'object', 'embed', 'base', 'body meta', 'style', 'body link', 'math', 'template:not([id])', 'animate', 'set'];
  const strange = [...document.querySelectorAll(never.join(','))].map(one => one.outerHTML.slice(0, 200));
  for (const script of document.querySelectorAll('script')) {
    if (!script.src.startsWith(location.origin + '/static/')) strange.push(script.outerHTML.slice(0, 200));
  }
  for (const one of document.querySelectorAll('*')) {
    for (const {name, value} of one.attributes) {
      if (name.startsWith('on') || name === 'style' || name === 'srcdoc') strange.push(name + ' in ' + one.outerHTML.slice(0, 200));
      const leads = ['href', 'src', 'action', 'formaction', 'data', 'xlink:href', 'poster'].includes(name);
      if (leads && /^[\\s\\x00-\\x1f]*(java\\s*script|vbscript|data:text)/i.test(value)) {
        strange.push(name + ' = ' + value.slice(0, 200));
      }
    }
  }
  return {hits: window.hits, strange};
}
"""


def addresses(planted: Planted, *, each: int) -> tuple[list[str], list[str]]:
    """Paths of an annotator's and of a manager's pages; of those that are about one thing, the first `each`."""
    places = {
        "{prompt_id}": planted.prompts,
        "{question_id}": planted.questions,
        "{set_id}": planted.sets,
        "{annotator_id}": [planted.person],
        "{run_id}": planted.runs,
    }
    manager = ["/", "/sign-in"]
    for router in ROUTERS:
        for path in _pages(router):
            if "{" not in path and path.startswith("/manage") and path not in ("/manage/live", "/manage/quality/state"):
                manager.append(path)
            for name, ids in places.items():
                if path.count("{") == 1 and name in path:
                    manager += [path.replace(name, one) for one in ids[:each]]
    return ["/judge", "/judge/last", "/me"], list(dict.fromkeys(manager))


def _pages(router: object) -> list[str]:
    found: list[str] = []
    for route in getattr(router, "routes", ()):
        if "GET" in (getattr(route, "methods", None) or ()) and route.path.startswith(("/manage", "/judge")):
            found.append(route.path)
        found += _pages(getattr(route, "original_router", None))
    return found
