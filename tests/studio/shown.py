"""The projects that the pictures of the studio show: one in its second round, one with a question of every kind, one that is empty.

The prompts are the package's own everyday ones, the answers are written for this purpose, and the people are invented.
"""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select, update

from evaluation.finished_round import TEXTS, make_round
from studio.desk_of_questions import ASKED, ASPECTS, CHAT, CODE, CODE_ANSWERS, GUIDELINE, LETTER, LETTER_ANSWERS, SOUP_ANSWERS, add_batch, ask
from studio.filled import measure
from truing.feedback.assignment import claim, submit, supersede
from truing.feedback.people import remove_person, set_active
from truing.feedback.sets import Rules, add_gold, create_set, new_guideline, set_state
from truing.prompts import PromptSettings, everyday_prompts, import_prompts
from truing.store.clock import now
from truing.store.ids import content_id
from truing.store.project import Project, create_project, open_project
from truing.store.tables import Annotator, Policy, Prompt, Question, QuestionSample, Role, Round, Sample
from truing.studio.auth import make_token
from truing.studio.invitations import make_invitation
from visitors import PASSWORD, person_in, quick_passwords

PEOPLE = ("Ana", "Bilal", "Chiara", "Dmitri", "Esi", "Farid", "Greta")
HASTY = "Jonas"  # always takes the left
MORE = {  # further answers to the prompts of a finished round, the better one first
    0: (
        "“Sixteen years of muddy paws and a warm spot by your feet. Biscuit had the best of lives with you, and I am so sorry he is gone.”",
        "Write that you are sorry, name the dog, and keep it to two lines.",
    ),
    1: (
        "“Thank you so much for asking me. I can't be there on the day, and I'm sad to miss it. I'll be raising a glass to you both!”",
        "You can simply tick “no” on the card.",
    ),
    2: (
        "Three things are enough:\n\n1. Read the advert once more and mark what they ask for twice.\n2. Have two short stories ready: one that went well, "
        "one you learned from.\n3. Charge the phone, and put a glass of water beside it.\n\nThen stop, and have an early night.",
        "Research the company and practise answers to common questions.",
    ),
    3: (
        "Open the windows first. Then simmer half a lemon and a few cloves in a small pan for ten minutes, and wash the board and the pan while it does its "
        "work. A saucer of vinegar left out overnight takes away the rest.",
        "Use an air freshener.",
    ),
    4: (
        "Soup and stories: one person picks the soup, another the music, and everybody brings one thing from the week that made them laugh.",
        "You could watch a film together every Sunday.",
    ),
    5: (
        "“You have carried so much this month, and you have done it kindly. Please let somebody bring you a meal tonight. You don't have to earn the rest.”",
        "Being a carer is hard. Stay strong!",
    ),
    6: (
        "Two small anchors help most: a walk at the same hour each day, so that you see the same faces, and one call with a colleague that isn't about work.",
        "Try working from a café.",
    ),
    7: (
        "He ties a lace without stopping the story, and nobody notices that the shy one has been laughing for a minute.",
        "A kind teacher is patient, caring and supportive of every student.",
    ),
    8: (
        "Hearing is what your ears do by themselves. Listening is what you do on purpose: you stop, and let somebody's words change what you think.",
        "Hearing is passive and listening is active.",
    ),
    9: (
        "“You have made my evening! He told us none of it, so thank you for seeing it. We'll be celebrating with pancakes.”",
        "“Thank you for letting me know.”",
    ),
    11: (
        "Water the plants, then stand at the window until the kettle boils. Ten minutes of nothing is a good use of ten minutes.",
        "You could read, stretch, or tidy a drawer.",
    ),
    12: (
        "The boring half is the half that counts, and you're past it. Ten more pages, then tea: I'll put the kettle on in spirit.",
        "Keep going, you can do it!",
    ),
}
ROWS_WITH_ERRORS = (
    '{"prompt": "Suggest a small present for a neighbour who watered my plants.", "topic": "suggest"}',
    '{"prompt": "How do I keep basil alive on a windowsill?", "topic": "practical"}',
    '{"prompt": "", "topic": "advise"}',
    '{"question": "What should I cook for six people?"}',
    '{"prompt": "Word a short note to thank the night nurse.", "topic": "write"}',
    '{"prompt": "Help me word a sympathy card for a friend whose old dog died.", "topic": "write"}',
    '{"prompt": "Say something kind to somebody who failed a driving test.", "topic": "encourage"',
    '{"prompt": 12}',
    '{"prompt": "What is the politest way to leave a party early?", "topic": "social"}',
)
PREFERENCES = (
    '{"prompt": "How might I prepare for a phone interview tonight?", "chosen": "Find a quiet room and practise two good stories about your work.", '
    '"rejected": "Research the company."}',
    '{"prompt": "Describe a kind teacher in a single sentence.", "chosen": "She notices the quiet child at the back.", "rejected": "A kind teacher is kind."}',
    '{"prompt": "Can I freeze leftover vegetable soup?", "chosen": "Yes, for up to three months."}',
    '{"prompt": "I\'d love a warm line for a new baby card.", "chosen": "Welcome, little one.", "rejected": "Welcome, little one."}',
)


# ---- a project in its second round ----


def second_round(root: Path) -> Project:
    """Round 1 finished, round 2 under way: people answer, a few leave, a policy is being tuned."""
    project = open_project(create_project(root, settings=""))
    import_prompts(project, project.settings(PromptSettings), [everyday_prompts()])
    first = make_round(project, prompts=80, resamples=200)
    with project.database.write() as session:
        session.execute(update(Prompt).where(Prompt.source == "t").values(source="variations.jsonl", position=Prompt.position + 1000))
        session.execute(delete(Annotator).where(Annotator.kind == "simulated"))  # those of round 1 have no judgements here
        session.add(Round(number=2, parent_id=first.id, seed=2, made={"judgements": {"n": 0}}, created_at=now() - timedelta(hours=5), sealed_at=None))
    _people(project)
    _samples(project, str(first.made["policy"]))
    sets = _sets(project)
    _answers(project, sets)
    set_state(project, sets["a second opinion"], "paused")
    set_state(project, sets["quick look"], "archived")
    new_guideline(project, sets["warm replies"], f"{GUIDELINE}\nIf neither helps, say *both bad*.\n", now() - timedelta(minutes=20))
    with project.database.read() as session:
        gone = session.scalars(select(Annotator.id).where(Annotator.name == "Hanno")).one()
        rests = session.scalars(select(Annotator.id).where(Annotator.name == "Greta")).one()
    remove_person(project, gone, at=now())
    set_active(project, rests, False)
    measure(project, second_opinion=True)
    make_invitation(project, "evening class, group 2", Role.ANNOTATOR, 24, 14, at=now())
    make_invitation(project, "co-organiser", Role.MANAGER, 1, 3, at=now())
    make_token(project, "nightly import", ["prompts:write", "samples:write"], None, at=now())
    make_token(project, "dashboard", ["read"], 90, at=now())
    return project


def _people(project: Project) -> None:
    kept = quick_passwords().hash(PASSWORD)
    for name, role in (("Olga", Role.OWNER), ("Milan", Role.MANAGER), *((name, Role.ANNOTATOR) for name in (*PEOPLE, HASTY, "Hanno"))):
        person_in(project, name, role, password_hash=kept)


def _samples(project: Project, policy: str) -> None:
    """Four answers to each of a dozen prompts: of the base model, the tuned one twice, and a person."""
    at = now() - timedelta(hours=4)
    with project.database.write() as session:
        if session.get(Policy, policy) is None:
            raise ValueError(policy)
        for place, (row, more) in enumerate(MORE.items()):
            prompt = content_id([{"role": "user", "content": TEXTS[row][1]}])
            texts = ((TEXTS[row][3], policy, None), (more[0], None, "Chiara"), (more[1], policy, None), (TEXTS[row][2], "base", None))
            for position, (text, by, author) in enumerate(texts):
                batch = content_id("batch of round 2", author or by)
                session.add(
                    Sample(
                        id=content_id("shown", prompt, position), prompt_id=prompt, policy_id=by, author=author, batch=batch, position=position, text=text,
                        finished=text.strip()[-1] in ".!?”", created_at=at + timedelta(seconds=place),
                    )
                )  # fmt: skip


def _sets(project: Project) -> dict[str, str]:
    at = now() - timedelta(minutes=55)
    with project.database.read() as session:
        ids = session.scalars(select(Sample.id).where(Sample.created_at > now() - timedelta(hours=5)).order_by(Sample.created_at, Sample.position)).all()
    common: dict[str, Any] = {"sample_ids": ids, "at": at}
    wanted: tuple[tuple[str, str, str, int | None, Rules], ...] = (
        ("quick look", "thumbs", "Would you be content with this answer?", 20, Rules(overlap=1)),
        ("best to worst", "ranking", "Put them in the order in which you would like to get them yourself.", 12, Rules(overlap=2)),
        ("warmth and help", "rating", "Rate each answer by itself, as if it were the only one.", 32, Rules(overlap=2, aspects=ASPECTS)),
        ("in your own words", "edit", "Make it an answer that you would be glad to get. Change as little as that needs.", 10, Rules(overlap=1)),
        ("warm replies", "pair", GUIDELINE, None, Rules(overlap=3, repeat_rate=0.06)),
        ("a second opinion", "pair", "Which is truer?", 12, Rules(overlap=2)),
    )
    made = {
        name: create_set(project, name=name, kind=kind, guideline=guideline, rules=rules, limit=limit, seed=3, **common).id
        for name, kind, guideline, limit, rules in wanted
    }
    with project.database.read() as session:
        asked = session.scalars(select(Question.id).where(Question.set_id == made["warm replies"]).order_by(Question.position).limit(5)).all()
    for question in asked[::2]:
        add_gold(project, made["warm replies"], question, {"strength": 2 if _better(project, question) > 0 else -2})
    return made


def _qualities(project: Project, question: str) -> list[float]:
    """How good each sample of a question is, by the place at which it was written."""
    with project.database.read() as session:
        rows = session.scalars(
            select(Sample)
            .join(QuestionSample, QuestionSample.sample_id == Sample.id)
            .where(QuestionSample.question_id == question)
            .order_by(QuestionSample.position)
        ).all()
    return [3.0 - row.position if row.position != 1 else 2.6 for row in rows]


def _better(project: Project, question: str) -> float:
    a, b = _qualities(project, question)
    return a - b


def _answers(project: Project, sets: dict[str, str]) -> None:
    """Answers through the one door, within the last three quarters of an hour."""
    draw, began = random.Random(7), now() - timedelta(minutes=50)
    with project.database.read() as session:
        people = {name: session.scalars(select(Annotator.id).where(Annotator.name == name)).one() for name in (*PEOPLE, HASTY, "Hanno")}
    for number in range(260):
        name = list(people)[number % len(people)] if number < 225 else ("Ana", "Bilal", "Esi")[number % 3]
        at = began + timedelta(seconds=number * 11.3)
        lent = claim(project, people[name], at=at, random_bits=draw.getrandbits)
        if lent is None:
            continue
        spent = int(1000 * draw.lognormvariate(2.3, 0.45)) if name != HASTY else 1900
        until = at + timedelta(milliseconds=spent)
        said = _say(_qualities(project, lent.question_id), lent.kind, lent.order_shown, name == HASTY, draw)
        common: dict[str, Any] = {"annotator_id": people[name], "active_ms": spent, "guideline_version": 1, "random_bits": draw.getrandbits}
        receipt = submit(project, lent.id, said, started_at=at, at=until, idempotency_key=f"shown-{number}", **common)
        if number % 40 == 11 and lent.kind == "pair":
            later = until + timedelta(seconds=6)
            supersede(
                project, receipt.judgement_id, {"skip": "I know too little about the subject"}, started_at=until, at=later, idempotency_key=f"again-{number}",
                **common,
            )  # fmt: skip


def _say(qualities: list[float], kind: str, order: tuple[int, ...], hasty: bool, draw: random.Random) -> dict[str, Any]:
    felt = [one + draw.gauss(0, 0.6) for one in qualities]
    if kind == "ranking":
        ranks = sorted(range(len(felt)), key=lambda place: -felt[place])
        return {"ranks": [1 + ranks.index(place) for place in range(len(felt))]}
    if kind == "rating":
        return {"aspects": {aspect.name: max(1, min(5, round(1.6 + felt[0] + draw.gauss(0, 0.3)))) for aspect in ASPECTS}}
    if kind == "thumbs":
        return {"up": felt[0] > 1.2}
    if kind == "edit":
        return {"unchanged": True} if felt[0] > 2 else {"text": "Thank them, say what you can do instead, and wish them well. Two lines are enough."}
    if hasty:
        return {"strength": 2 if order[0] == 0 else -2}
    gap = felt[0] - felt[1]
    if max(felt) < 0.1:
        return {"both_bad": True, "flags": ["off-topic"], "comment": "Neither says what was asked."}
    if abs(gap) < 0.25:
        return {"strength": 0}
    strength = min(3, 1 + int(abs(gap)))
    comment = {"comment": "Sounds like a friend and not like a form."} if draw.random() < 0.06 and gap > 0 else {}
    return {"strength": strength if gap > 0 else -strength} | comment


def places_of(project: Project) -> dict[str, str]:
    """Ids that addresses of the second round's project need."""
    with project.database.read() as session:
        rated = select(Question.id).where(Question.answers > 0)
        pair = session.scalars(rated.where(Question.kind == "pair", Question.gold.is_(None), Question.answers > 2).order_by(Question.position)).first()
        return {
            "pair": str(pair),
            "rating": str(session.scalars(rated.where(Question.kind == "rating").order_by(Question.position)).first()),
            "ranking": str(session.scalars(rated.where(Question.kind == "ranking").order_by(Question.position)).first()),
            "set": str(session.scalars(select(Question.set_id).where(Question.id == pair)).one()),
            "Ana": str(session.scalars(select(Annotator.id).where(Annotator.name == "Ana")).one()),
            "prompt": content_id([{"role": "user", "content": TEXTS[2][1]}]),
        }


# ---- a question of every kind ----


def every_kind(root: Path) -> Project:
    """One person for each kind of question; each has answered a few and has one before them."""
    project = open_project(create_project(root, settings=""))
    letter: tuple[Any, tuple[str, ...]] = (LETTER, LETTER_ANSWERS)
    asked: dict[str, tuple[str, list[tuple[Any, tuple[str, ...]]]]] = {
        "pair": ("pair", [(LETTER, LETTER_ANSWERS[:2])]), "turns": ("pair", [(CHAT, SOUP_ANSWERS)]), "code": ("pair", [(CODE, CODE_ANSWERS)]),
        "ranking": ("ranking", [letter]), "rating": ("rating", [letter]), "thumbs": ("thumbs", [letter]), "edit": ("edit", [letter]),
    }  # fmt: skip
    for name, (kind, texts) in asked.items():
        person = person_in(project, name.capitalize(), "annotator")
        add_batch(project, texts, batch=f"batch {name}")
        more: dict[str, Any] = {"aspects": ASPECTS} if kind == "rating" else {}
        ask(project, f"warm replies, {name}" if name != "turns" else "soup, in turns", kind, batch=f"batch {name}", who=[person], limit=1, **more)
    done, rests = person_in(project, "Done", "annotator"), person_in(project, "Resting", "annotator")
    person_in(project, "Waiting", "annotator")
    add_batch(project, ASKED, batch="batch done")
    ask(project, "a short set", "pair", batch="batch done", who=[done])
    _answer_all(project, done)
    add_batch(project, ASKED[:1], batch="batch rests")
    set_state(project, ask(project, "resting set", "pair", batch="batch rests", who=[rests]), "paused")
    return project


def _answer_all(project: Project, person: str) -> None:
    at, draw = now() - timedelta(minutes=20), random.Random(2)
    answers: list[dict[str, Any]] = [
        {"strength": 2},
        {"strength": -1},
        {"both_bad": True, "flags": ["off-topic"]},
        {"skip": "I know too little about the subject"},
    ]
    for number in range(40):
        lent = claim(project, person, at=at, random_bits=draw.getrandbits)
        if lent is None:
            return
        until = at + timedelta(seconds=11 + 3 * number)
        submit(
            project, lent.id, answers[number % len(answers)], annotator_id=person, started_at=at, at=until, active_ms=9000 + 700 * number,
            idempotency_key=f"done-key-{number}", guideline_version=1, random_bits=draw.getrandbits,
        )  # fmt: skip
        at = until + timedelta(seconds=2)


# ---- nothing yet ----


def nothing_yet(root: Path) -> Project:
    """An owner and nothing else."""
    project = open_project(create_project(root, settings=""))
    person_in(project, "Olga", Role.OWNER, password_hash=quick_passwords().hash(PASSWORD))
    return project
