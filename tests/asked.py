"""Samples to ask about, made up from a seed: some complete and warm, some cut off, listed, parroted or polite about nothing."""

import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from stored import NOON, prompt
from truing.feedback.sets import Rules, set_guideline
from truing.store.ids import content_id, seed_from
from truing.store.project import Project
from truing.store.tables import Annotator, Question, QuestionSample, QuestionSet, Round, Sample

SUBJECTS = ("garden", "bicycle", "soup", "letter", "kitten", "window", "holiday", "piano", "market", "lamp", "river", "jacket")
WISHES = ("How do I look after my", "Write a line about a", "What is nice about a", "Tell a friend about my new", "Cheer me up about my old")
STARTS = ("A {0} needs a little time each week", "Keep the {0} dry and clean", "Your {0} is older than it looks", "Look at the {0} slowly first")
ENDS = (
    "and you will enjoy a lovely quiet hour",
    "and nobody will complain about the noise",
    "so bring a kind friend and a smile",
    "because dust and rain ruin it",
)
BATCH = "batch"


def made_up(seed: int, prompt_text: str, subject: str) -> tuple[str, bool, float]:
    """A response: its text, whether it finished, and its log-probability under a base model nobody ran."""
    draw = random.Random(seed)
    first, last = draw.choice(STARTS).format(subject if draw.random() < 0.8 else draw.choice(SUBJECTS)), draw.choice(ENDS)
    text = {
        0: f"{first}, {last}.",
        1: f"{first}, {last}. " * 3 + f"Then, if the {subject} allows it, one could also",
        2: f"Here are some steps:\n1. {first}\n2. {last}\n3.",
        3: f"Sure! I'd be happy to help you with that. {first}. Let me know if you have any questions.",
        4: f"{prompt_text} {first}.",
        5: f"{first}, {last}, which",
    }[draw.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 5))]
    return text, text.endswith("."), draw.gauss(-1.5, 0.3)


def add_samples(project: Project, *, prompts: int = 12, per_prompt: int = 3, seed: int = 0, round_id: int | None = 1) -> list[str]:
    """Prompts (every fourth held out), their samples in batch "batch", and a round to ask in; gives the prompts' ids."""
    ids = []
    with project.database.write() as session:
        if round_id is not None:
            session.add(Round(id=round_id, number=round_id, parent_id=None, seed=seed, made={}, created_at=NOON, sealed_at=None))
        for number in range(prompts):
            subject = SUBJECTS[number % len(SUBJECTS)]
            words = f"{WISHES[number // len(SUBJECTS) % len(WISHES)]} {subject}" + (f", number {number}?" if number >= 60 else "?")
            asked = prompt(words, split="train" if number % 4 else "held-out", position=number)
            session.add(asked)
            session.flush()
            ids.append(asked.id)
            for position in range(per_prompt):
                text, finished, base_logprob = made_up(seed_from(seed, number, position), words, subject)
                session.add(
                    Sample(
                        id=content_id("sample", asked.id, BATCH, position), prompt_id=asked.id, author="made up", batch=BATCH, position=position,
                        text=text, token_ids=[1, 2, 3], finished=finished, base_logprob=base_logprob, created_at=NOON,
                    )
                )  # fmt: skip
    return ids


def add_people(project: Project, *names: str) -> None:
    """Human annotators; each one's id is their name in lower case."""
    with project.database.write() as session:
        session.add_all(
            Annotator(id=name.lower(), name=name, kind="human", role="annotator", active=True, facts={}, created_at=NOON + timedelta(seconds=i))
            for i, name in enumerate(names)
        )


PLAIN = Rules(gold="interleaved", repeat_rate=0)  # questions come in their order, and nothing is drawn


def add_set(project: Project, overlaps: Sequence[int], *, kind: str = "pair", n_samples: int = 2, name: str = "A set", **rules: Any) -> list[str]:
    """A set of questions in the order asked, each about one prompt of its own; gives their ids. Its own id is its name."""
    with project.database.write() as session:
        position = session.query(QuestionSet).count()
        rules_of_it = (PLAIN.model_copy(update=rules)).model_dump(mode="json")
        session.add(QuestionSet(id=name, name=name, kind=kind, round_id=None, state="open", rules=rules_of_it, position=position, created_at=NOON))
        session.flush()
        set_guideline(session, name, f"How to answer {name}.", NOON)
        return [add_question_to(session, name, place, overlap, kind, n_samples) for place, overlap in enumerate(overlaps)]


def add_question_to(session: Session, set_id: str, place: int, overlap: int, kind: str, n_samples: int, **columns: Any) -> str:
    """One more question of a set, at this place in its order; gives its id."""
    asked = prompt(f"{set_id}: question {place} about {n_samples}?")
    session.add(asked)
    session.flush()
    question_id = content_id(set_id, kind, asked.id)
    given: dict[str, Any] = {"gold": None, "facts": {}} | columns
    session.add(Question(id=question_id, set_id=set_id, kind=kind, prompt_id=asked.id, overlap=overlap, position=place, created_at=NOON, **given))
    for position in range(n_samples):
        sample_id = content_id("sample", asked.id, "b", position)
        session.add(Sample(id=sample_id, prompt_id=asked.id, batch="b", position=position, text=f"answer {position}", finished=True, created_at=NOON))
        session.flush()
        session.add(QuestionSample(question_id=question_id, position=position, sample_id=sample_id))
    return question_id
