"""A project in the middle of its second round, as managers meet it: prompts, samples, sets of every state, people of every kind, a tuning run under way."""

import json
import random
import shutil
from datetime import datetime, timedelta
from typing import Any

from fastapi import FastAPI
from sqlalchemy import select

from evaluation.finished_round import make_round
from truing.feedback.assignment import claim, submit, supersede
from truing.feedback.disputes import measure_disputes
from truing.feedback.quality import QualitySettings, measure_quality
from truing.feedback.sets import Aspect, Rules, add_gold, create_set, new_guideline, set_state
from truing.policy.diagnosis import Finding
from truing.policy.record import STATE, checkpoints, run_folder
from truing.store.clock import now
from truing.store.ids import content_id, uuid7
from truing.store.project import Project
from truing.store.tables import Question, Run, RunState, Sample
from truing.studio import manage
from truing.studio.app import ROUTERS
from visitors import person_in, studio_of

PEOPLE = ("Ana", "Bilal", "Chiara", "Dmitri", "Esi", "Farid", "Goran", "Hana")
SPOILER = "Ivo"  # always takes the left
GUIDELINE = "Which of the two would you rather **get yourself**?\n\n- Prefer a warm, complete answer.\n- A short answer can be the better one."
SET, RATINGS = "warm replies", "warmth and clarity"


def studio_of_managers(project: Project, **choices: Any) -> FastAPI:
    """The studio of a project with the managers' rooms in it."""
    app = studio_of(project, **choices)
    if manage.router not in ROUTERS:
        app.include_router(manage.router)
    return app


def fill(project: Project, *, answers: int = 150) -> dict[str, str]:
    """Everything; gives the ids of the sets by name."""
    make_round(project, resamples=100)
    batches = sorted(_batches(project))
    at = now() - timedelta(minutes=50)
    with project.database.read() as session:
        samples = list(session.scalars(select(Sample.id).where(Sample.batch.in_(batches)).order_by(Sample.prompt_id, Sample.batch)))
    made = {}
    pair = create_set(
        project, name=SET, kind="pair", guideline=GUIDELINE, rules=Rules(overlap=4, repeat_rate=0.05), sample_ids=samples, limit=50, seed=1, at=at
    )
    aspects = [Aspect(name="warmth", ask="How warm is it?", points={"1": "cold", "5": "as a friend would say it"}), Aspect(name="clarity", ask="How clear?")]
    rating = create_set(
        project,
        name=RATINGS,
        kind="rating",
        guideline="Rate each by itself.",
        rules=Rules(overlap=2, aspects=aspects),
        batch=batches[0],
        limit=12,
        seed=2,
        at=at,
    )
    thumbs = create_set(project, name="quick look", kind="thumbs", guideline="Good or not?", rules=Rules(overlap=1), batch=batches[1], limit=20, seed=3, at=at)
    edits = create_set(project, name="make it better", kind="edit", guideline="Rewrite it.", rules=Rules(overlap=1), batch=batches[0], limit=8, seed=4, at=at)
    made = {SET: pair.id, RATINGS: rating.id, "quick look": thumbs.id, "make it better": edits.id}
    set_state(project, edits.id, "archived")
    _mark_gold(project, pair.id)
    people = [person_in(project, name, "annotator") for name in (*PEOPLE, SPOILER)]
    _answer(project, people, answers, at)
    new_guideline(project, pair.id, GUIDELINE + "\n- When both are equally good, say so.", at + timedelta(minutes=30))
    set_state(project, thumbs.id, "paused")
    measure(project)
    return made


def measure(project: Project, *, second_opinion: bool = False) -> None:
    """Measure quality and disputes, as the studio's button does."""
    measure_disputes(project)
    measure_quality(project, project.settings(QualitySettings), round_ids=None, second_opinion=second_opinion)


def run_under_way(project: Project, *, done: int = 12, at: datetime | None = None, key: str | None = None, says: str = "") -> str:
    """A tuning run that lives and keeps its checkpoint here; gives its id.

    Args:
        says: what every sampled answer ends with.
    """
    moment, key = at or now(), key or content_id("tune", done)
    keep_checkpoint(project, key, done, says=says)
    curve = [round(1.3 * (1 - 0.86**update), 3) for update in range(1, done + 1)]
    progress = {"done": done, "total": 20, "left_s": 63.0, "curves": {"objective/scores": curve, "objective/kl": [round(4 * value, 3) for value in curve]}}
    run_id = uuid7(moment)
    with project.database.write() as session:
        session.add(
            Run(
                id=run_id, stage="tune", key=key, round_id=None, state=RunState.RUNNING, started_at=moment, heartbeat_at=moment,
                finished_at=None, seconds=60.0, peak_gb=1.0, progress=progress, result={}, error=None,
            )
        )  # fmt: skip
    return run_id


def advance(project: Project, run_id: str, done: int) -> None:
    """Let the run get on."""
    with project.database.write() as session:
        run = session.get_one(Run, run_id)
        run.heartbeat_at, run.progress = now(), {**run.progress, "done": done}
        keep_checkpoint(project, run.key, done)


def finish(project: Project, run_id: str, policy_id: str) -> None:
    """Let the run end with a policy; its checkpoints go."""
    with project.database.write() as session:
        run = session.get_one(Run, run_id)
        run.state, run.result, run.finished_at = RunState.DONE, {"policy": policy_id}, now()
        shutil.rmtree(run_folder(project, run.key))


def keep_checkpoint(project: Project, key: str, done: int, *, says: str = "") -> None:
    """What of a run's newest checkpoint is read to tell how it goes; older ones go, as they do when a real one is kept.

    Args:
        says: what every sampled answer ends with.
    """
    rows = [
        {"update": float(update), "objective/scores": 1.3 * (1 - 0.86**update), "objective/kl": 5.2 * (1 - 0.86**update), "objective/kl_target": 4.0}
        | {"response/length": 38 - 1.4 * update, "objective/entropy": 1.61 - 0.022 * update}
        | _further_numbers(update)
        for update in range(1, done + 1)
    ]
    with project.database.read() as session:
        samples = list(session.scalars(select(Sample).where(Sample.policy_id.is_not(None)).order_by(Sample.id).limit(100)))
    shown = [
        {"update": update, "prompt_id": one.prompt_id, "text": one.text + says, "finished": one.finished, "score": round(0.1 * update - 0.4 + 0.15 * place, 4)}
        for update in range(1, done + 1)
        for place, one in enumerate(samples[5 * update % len(samples) :][:5])
    ]
    findings = [
        Finding(
            "length run-away", "mean length rose from 36.6 to 61.0 tokens while the share of answers that end fell from 0.46 to 0.20",
            'make a cut-off answer cost something (tune.truncation="set", a larger tune.truncation_penalty)', 9,
        )
    ]  # fmt: skip
    settings = {"algorithm": "ppo", "beta": 0.05, "grad_clip": 1.0, "updates": 20}
    state = {"update": done, "settings": settings, "updates": 20, "rows": rows, "shown": shown, "findings": findings if done >= 9 else []}
    folder = run_folder(project, key)
    older = checkpoints(folder)
    place = folder / f"update-{done:06d}"
    place.mkdir(parents=True, exist_ok=True)
    (place / STATE).write_text(json.dumps(state))
    for one in older:
        if one != place:
            shutil.rmtree(one)


def _further_numbers(update: int) -> dict[str, float]:
    """What else an update of PPO logs."""
    dice = random.Random(update)
    return {
        "response/eos_rate": min(1.0, round(32 * (0.42 + 0.027 * update + dice.gauss(0, 0.04))) / 32), "response/distinct2": 0.71 - 0.004 * update,
        "objective/beta": 0.05, "policy/clipfrac": 0.11 + dice.gauss(0, 0.02), "policy/grad_norm": 0.8 + abs(dice.gauss(0, 0.25)),
        "value/explained_variance": 0.35 - 0.6 * 0.8**update + dice.gauss(0, 0.08), "policy/first_ratio_error": 0.0,
    }  # fmt: skip


def _batches(project: Project) -> set[str]:
    with project.database.read() as session:
        return set(session.scalars(select(Sample.batch).distinct()))


def _mark_gold(project: Project, set_id: str) -> None:
    with project.database.read() as session:
        ids = list(session.scalars(select(Question.id).where(Question.set_id == set_id).order_by(Question.position).limit(4)))
    for question in ids:
        add_gold(project, set_id, question, {"strength": _better(project, question)})


def _better(project: Project, question_id: str) -> int:
    """2 if A was written by the tuned policy, -2 if it was written by the base."""
    from truing.store.overview.browse import whole_question

    with project.database.read() as session:
        whole = whole_question(session, question_id)
    assert whole is not None
    return -2 if whole.samples[0].policy_id == "base" else 2


def _answer(project: Project, people: list[str], n: int, start: datetime) -> None:
    """Answers through the one door, a few seconds apart: most people prefer the tuned policy's, one always takes the left."""
    draw = random.Random(5)
    done = set()
    for number in range(n):
        who = people[number % len(people)]
        at = start + timedelta(seconds=number * 2800 / n)
        lent = None if who in done else claim(project, who, at=at, random_bits=draw.getrandbits)
        if lent is None:
            done.add(who)
            continue
        spent = int(1000 * draw.lognormvariate(2.2, 0.5)) if who != people[-1] else 1800
        common: dict[str, Any] = {"annotator_id": who, "active_ms": spent, "guideline_version": 1}
        answer = _say(project, lent.question_id, lent.kind, lent.order_shown, who == people[-1], draw)
        until = at + timedelta(milliseconds=spent)
        receipt = submit(project, lent.id, answer, started_at=at, at=until, idempotency_key=f"filled-{number}", random_bits=draw.getrandbits, **common)
        if number % 25 == 7:
            other = {"skip": "I know too little about the subject"}
            later = until + timedelta(seconds=5)
            supersede(
                project, receipt.judgement_id, other, started_at=until, at=later, idempotency_key=f"filled-{number}-b", random_bits=draw.getrandbits, **common
            )


def _say(project: Project, question: str, kind: str, order: tuple[int, ...], left: bool, draw: random.Random) -> dict[str, Any]:
    if kind == "rating":
        return {"aspects": {"warmth": draw.randint(2, 5), "clarity": draw.randint(3, 5)}}
    if kind == "thumbs":
        return {"up": draw.random() < 0.7}
    if left:
        return {"strength": 2 if order[0] == 0 else -2}
    chance = draw.random()
    if chance < 0.08:
        return {"strength": 0}
    if chance < 0.11:
        return {"both_bad": True, "flags": ["off-topic"], "comment": "Neither says what was asked."}
    lean = _better(project, question) // 2 * draw.choice((1, 2, 2, 3))
    return {"strength": lean if draw.random() < 0.78 else -lean}
