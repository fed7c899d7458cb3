"""Time of every manager's page, at the server, in a project of 200,000 judgements: the median of 20 requests over HTTP.

    python benchmarks/studio/pages.py [--judgements 200000] [--project DIR] [--out benchmarks/results]

The project is made by bulk inserts, with the measurement that its pages show, which takes minutes; --project keeps it for another time. The
server runs in a process of its own, on loopback. The last line of stdout is one JSON object.
"""

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from truing.feedback.disputes import measure_disputes
from truing.feedback.quality import QualitySettings, measure_quality
from truing.store.clock import now
from truing.store.ids import content_id, uuid7
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Assignment, Guideline, Judgement, Policy, Prompt, Question, QuestionSample, QuestionSet, Sample
from truing.studio.auth import COOKIE, begin_session

PROMPTS, SAMPLES_EACH, PAIRS_EACH, PEOPLE, SETS, OVERLAP = 2000, 20, 20, 100, 4, 5
WORDS = ("garden", "kettle", "letter", "window", "winter", "reply", "soup", "teacher", "bicycle", "quiet", "warm", "morning", "answer", "river", "friend")
LIMIT_MS = 300.0
TIMES = 20
CHUNK = 10_000


def main() -> None:
    """Make the project, serve it, time its pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--judgements", type=int, default=200_000)
    parser.add_argument("--project", type=Path, help="where the project is made, or found if it is there")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.project or Path(scratch) / "large"
        there = (root / "truing.toml").exists()
        project = open_project(root) if there else open_project(create_project(root, settings=""))
        spent = {} if there else build(project, arguments.judgements)
        secret, pages = open_session(project), pages_of(project)
        counted = counts(project)
        project.database.close()
        with_server = timed(root, secret, pages)
    found = {
        "what": f"median of {TIMES} requests for each manager's page, over HTTP on loopback, at the client", "date": datetime.date.today().isoformat(),
        "machine": machine(), "rows": counted, "built_s": spent, "limit_ms": LIMIT_MS, "pages": with_server,
        "slowest_median_ms": max(row["median_ms"] for row in with_server.values()), "within": all(row["median_ms"] <= LIMIT_MS for row in with_server.values()),
    }  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / f"studio-pages-{found['date']}.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


# ---- a large project ----


def build(project: Project, n: int) -> dict[str, float]:
    """Fill the project; gives the seconds that each step took."""
    draw, at, spent = random.Random(1), now() - datetime.timedelta(days=20), {}
    began = time.perf_counter()
    questions = _questions(project, draw, at, n)
    spent["prompts, samples, questions"] = round(time.perf_counter() - began, 1)
    began = time.perf_counter()
    _judgements(project, questions, draw, at, n)
    spent["judgements"] = round(time.perf_counter() - began, 1)
    began = time.perf_counter()
    measure_disputes(project)
    spent["disputes, in the background"] = round(time.perf_counter() - began, 1)
    began = time.perf_counter()
    measure_quality(project, project.settings(QualitySettings), round_ids=None)
    spent["quality, in the background"] = round(time.perf_counter() - began, 1)
    print(f"built: {spent}", file=sys.stderr)
    return spent


def _text(draw: random.Random, words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(words)).capitalize() + "."


def _questions(project: Project, draw: random.Random, at: datetime.datetime, n: int) -> list[str]:
    """Prompts with samples as heavy as drawn ones (token ids, log-probabilities), people, sets, and pair questions; gives the questions."""
    ids: list[str] = []
    wanted = n // OVERLAP
    with project.database.write() as session:
        session.execute(insert(Policy), [{"id": name, "model": "m", "artifact_id": None, "parent_id": None, "created_at": at} for name in ("base", "tuned")])
        session.execute(insert(Annotator), [_person(number, at) for number in range(PEOPLE)])
        for number in range(SETS):
            row: dict[str, Any] = {"name": f"set {number + 1}", "kind": "pair", "round_id": None, "state": "open", "rules": {"overlap": OVERLAP}}
            session.execute(insert(QuestionSet), [{"id": f"set{number}", "position": number, "created_at": at, **row}])
            session.execute(insert(Guideline), [{"set_id": f"set{number}", "version": 1, "text": "Prefer the warmer one.", "created_at": at}])
        for number in range(PROMPTS):
            text = f"{_text(draw, 12)} Number {number}?"
            turns = [{"role": "user", "content": text}]
            prompt = content_id(turns)
            row = {
                "turns": turns,
                "text": text,
                "split": "held-out" if number % 5 == 0 else "train",
                "source": f"file-{number % 3}.jsonl",
                "facts": {"topic": "t"},
            }
            session.execute(insert(Prompt), [{"id": prompt, "position": number, "created_at": at, **row}])
            samples = [content_id("sample", prompt, place) for place in range(SAMPLES_EACH)]
            session.execute(insert(Sample), [_sample(sample, prompt, place, draw, at) for place, sample in enumerate(samples)])
            pairs = [(samples[place], samples[(place + 1) % SAMPLES_EACH]) for place in range(PAIRS_EACH)][: max(0, wanted - len(ids))]
            made = [content_id("question", prompt, pair) for pair in pairs]
            if not made:
                continue
            session.execute(insert(Question), [_question(question, prompt, len(ids) + place, at) for place, question in enumerate(made)])
            rows = [{"question_id": q, "position": place, "sample_id": one} for q, pair in zip(made, pairs, strict=True) for place, one in enumerate(pair)]
            session.execute(insert(QuestionSample), rows)
            ids += made
    return ids


def _person(number: int, at: datetime.datetime) -> dict[str, Any]:
    row = {"id": f"person-{number:03d}", "name": f"Person {number:03d}", "kind": "human", "role": "annotator", "password_hash": None, "active": True}
    return row | {"facts": {}, "created_at": at}


def _sample(sample: str, prompt: str, place: int, draw: random.Random, at: datetime.datetime) -> dict[str, Any]:
    tuned = place % 2
    row = {"id": sample, "prompt_id": prompt, "policy_id": "tuned" if tuned else "base", "author": None, "batch": f"batch-{tuned}", "position": place}
    body = {"text": _text(draw, 40), "token_ids": list(range(1000, 1056)), "logprobs": bytes(224), "finished": True, "temperature": 0.7, "seed": 1}
    return row | body | {"base_logprob": -1.5, "created_at": at}


def _question(question: str, prompt: str, position: int, at: datetime.datetime) -> dict[str, Any]:
    gold = {"better": position % 2} if position % 40 == 0 else None
    row = {"id": question, "round_id": None, "set_id": f"set{position % SETS}", "kind": "pair", "prompt_id": prompt, "gold": gold, "repeat_of": None}
    return row | {"only_for": None, "overlap": OVERLAP, "answers": OVERLAP, "open": False, "position": position, "facts": {"why": "set"}, "created_at": at}


def _judgements(project: Project, questions: Sequence[str], draw: random.Random, at: datetime.datetime, n: int) -> None:
    """Each question answered by five people, a few seconds apart, the last an instant ago; one answer in 50 superseded by another."""
    step = datetime.timedelta(days=20) / n
    made: list[dict[str, Any]] = []
    for number in range(n):
        question, who = questions[number // OVERLAP], f"person-{(number // OVERLAP * 7 + number % OVERLAP * 13) % PEOPLE:03d}"
        moment, order = at + number * step, [0, 1] if draw.random() < 0.5 else [1, 0]
        answer: dict[str, Any] = {"strength": draw.choice((-3, -2, -1, 0, 1, 2, 2, 3))}
        if draw.random() < 0.02:
            answer = {"skip": "no idea"}
        elif draw.random() < 0.02:
            answer |= {"flags": ["off-topic"], "comment": "Neither says what was asked."}
        made.append({"question_id": question, "annotator_id": who, "order_shown": order, "answer": answer, "submitted_at": moment})
    with project.database.write() as session:
        for rows in (made[start : start + CHUNK] for start in range(0, len(made), CHUNK)):
            session.execute(insert(Assignment), [_assignment(row) for row in rows])
            session.execute(insert(Judgement), list(_log(rows, draw)))


def _assignment(row: dict[str, Any]) -> dict[str, Any]:
    at = row["submitted_at"]
    kept = {name: row[name] for name in ("question_id", "annotator_id", "order_shown")}
    return kept | {"id": uuid7(at), "set_id": "set0", "number": 1, "claimed_at": at, "expires_at": at + datetime.timedelta(minutes=30), "draft": None}


def _log(rows: Sequence[dict[str, Any]], draw: random.Random) -> Iterator[dict[str, Any]]:
    for row in rows:
        spent = int(1000 * draw.lognormvariate(2.2, 0.5))
        began = row["submitted_at"] - datetime.timedelta(milliseconds=spent)
        one = row | {"id": uuid7(row["submitted_at"]), "started_at": began, "active_ms": spent, "guideline_version": 1, "supersedes": None, "extra": False}
        yield one | {"idempotency_key": one["id"]}
        if draw.random() < 0.02:
            later = row["submitted_at"] + datetime.timedelta(seconds=5)
            again = uuid7(later)
            yield one | {"id": again, "submitted_at": later, "answer": {"strength": 1}, "supersedes": one["id"], "idempotency_key": again}


# ---- its pages ----


def open_session(project: Project) -> str:
    """The secret of a session of the project's owner, who is made if there is none."""
    with project.database.write() as session:
        owner = session.scalars(select(Annotator.id).where(Annotator.role == "owner")).first()
        if owner is None:
            owner = uuid7()
            facts: dict[str, Any] = {"kind": "human", "role": "owner", "password_hash": "none", "active": True, "facts": {}, "created_at": now()}
            session.add(Annotator(id=owner, name="Owner", **facts))
            session.flush()
        return begin_session(session, owner, now())


def pages_of(project: Project) -> dict[str, str]:
    """Every manager's page by a name, the lists also with filters and far from their beginning."""
    with project.database.read() as session:
        question = session.scalars(select(Question.id).where(Question.gold.is_(None)).order_by(Question.position).offset(500).limit(1)).one()
        prompt = session.get_one(Question, question).prompt_id
        middle = session.scalars(select(Judgement.id).order_by(Judgement.id).offset(1000).limit(1)).one()
    return {
        "the loop": "/", "its cards, every two seconds": "/manage/live", "sets": "/manage/sets", "new set": "/manage/sets/new", "a set": "/manage/sets/set0",
        "a set, filtered": "/manage/sets/set0?words=kettle&which=gold", "people": "/manage/people", "a person": "/manage/people/person-007",
        "quality": "/manage/quality", "disputed questions": "/manage/adjudicate", "prompts": "/manage/prompts",
        "prompts, filtered": "/manage/prompts?words=kettle&split=held-out", "a prompt": f"/manage/prompts/{prompt}", "samples": "/manage/samples",
        "samples, filtered": "/manage/samples?words=kettle&policy=tuned", "judgements": "/manage/judgements",
        "judgements, far back": f"/manage/judgements?before={middle}", "judgements of a person": "/manage/judgements?annotator=person-007",
        "judgements of a set": "/manage/judgements?set=set1", "judgements with a flag": "/manage/judgements?flag=off-topic",
        "judgements with a flag that nobody raised": "/manage/judgements?flag=unsafe",
        "judgements by words": "/manage/judgements?words=kettle", "judgements by rare words": "/manage/judgements?words=Number+77%3F",
        "a question": f"/manage/questions/{question}", "import": "/manage/import", "tokens": "/manage/tokens", "rounds": "/manage/rounds",
    }  # fmt: skip


SERVER = """
import sys
from pathlib import Path
import uvicorn
from truing.store.project import open_project
from truing.studio import manage
from truing.studio.app import ROUTERS, create_app
app = create_app(open_project(Path(sys.argv[1])))
if manage.router not in ROUTERS:
    app.include_router(manage.router)
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error", lifespan="off")
"""


def timed(root: Path, secret: str, pages: dict[str, str]) -> dict[str, dict[str, float]]:
    """Milliseconds of each page: median, slowest and first."""
    port = 18_000 + os.getpid() % 10_000
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(root), str(port)])
    try:
        _wait(f"http://127.0.0.1:{port}/healthz", server)
        found = {}
        for name, path in pages.items():
            spent = [_get(f"http://127.0.0.1:{port}{path}", secret) for _ in range(TIMES + 1)]
            found[name] = {"median_ms": round(statistics.median(spent[1:]), 1), "slowest_ms": round(max(spent[1:]), 1), "first_ms": round(spent[0], 1)}
            print(f"{name:44} {found[name]}", file=sys.stderr)
        return found
    finally:
        server.terminate()
        server.wait(20)


def _get(address: str, secret: str) -> float:
    request = urllib.request.Request(address, headers={"cookie": f"{COOKIE}={secret}", "accept": "text/html"})
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
        assert answer.status == 200, (address, answer.status)
        assert b"/sign-in" not in answer.geturl().encode(), "the session was not taken"
        assert body
    return 1000 * (time.perf_counter() - began)


def _wait(address: str, server: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(address).read()
        except urllib.error.URLError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(address)


def counts(project: Project) -> dict[str, int]:
    """How many rows of each kind there are."""
    with project.database.read() as session:
        tables = {"prompts": Prompt, "samples": Sample, "questions": Question, "judgements": Judgement, "assignments": Assignment, "people": Annotator}
        return {name: session.scalar(select(func.count()).select_from(table)) or 0 for name, table in tables.items()}


def machine() -> str:
    """What it ran on."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.partition(":")[2].strip() for line in cpu.splitlines() if line.startswith("model name")), platform.processor())
    load = os.getloadavg()[0]
    return f"{name} ({platform.machine()}), {os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}, SQLite"


if __name__ == "__main__":
    main()
