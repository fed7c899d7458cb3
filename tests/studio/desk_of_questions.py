"""Questions of every kind as annotators meet them: prompts of one turn and of several, short and long responses, code, other scripts."""

from datetime import timedelta
from typing import Any

from stored import NOON
from truing.feedback.sets import Aspect, Rules, create_set
from truing.store.conversations import turns_of
from truing.store.ids import content_id
from truing.store.project import Project
from truing.store.tables import Annotator, Policy, Prompt, Sample

BATCH = "batch-that-nobody-may-see"
POLICY = "policy-that-nobody-may-see"
AUTHOR = "author-that-nobody-may-see"
FILE = "file-that-nobody-may-see.jsonl"
TELLING = (BATCH, POLICY, AUTHOR, FILE)

GUIDELINE = """Which of the two would you rather **get yourself**?

- Prefer a warm, complete answer that speaks of what was asked.
- A short answer can be the better one.
- If something in it is false, say so with the other side.

> When both are equally good, press `T`: a tie is an answer too.
"""

CHAT: list[dict[str, str]] = [
    {"role": "system", "content": "You are a patient cook. Answer in two sentences at most, and never recommend a brand."},
    {"role": "user", "content": "My lentil soup is always bland. What am I doing wrong?"},
    {"role": "assistant", "content": "Most likely it lacks salt and something sour. When do you salt it, and do you add anything at the end?"},
    {"role": "user", "content": "I salt at the table. And no, nothing at the end. What should I try first?"},
]
LETTER = "Could you help me word a reply to a friend who cancelled our weekend at the last minute? I'm disappointed, but I don't want to sound cross."
LETTER_ANSWERS = (
    "Of course! How about this:\n\n> Hi Sam, thanks for letting me know. I'm a bit sad, I was really looking forward to it! I hope everything is all right "
    "with you. Shall we find another weekend soon?\n\nIt says that you are disappointed **once**, without blame, and ends with a plan. If you know why they "
    "cancelled, add a line about it at the start.",
    "You could write: *“No worries at all, these things happen! Let's talk about a new date when things have calmed down.”*\n\nThis keeps things light. "
    "Some points to keep in mind:\n\n1. Don't answer while you are still cross.\n2. Leave the reason for cancelling to them.\n3. Offer a new date only if "
    "you would truly like one.\n\nA short reply is often the kindest.",
    "Say you understand, say that you are sad, and propose a date. Three sentences are plenty.",
    "Tell your friend that cancelling at the last minute is rude, and that they owe you a weekend.",
)
CODE = "How do I read a CSV file in Python and add up one column?"
CODE_ANSWERS = (
    "With the standard library:\n\n```python\nimport csv\n\nwith open('sales.csv', newline='') as file:\n    total = sum(float(row['amount']) "
    "for row in csv.DictReader(file))\nprint(f'{total:.2f}')  # two decimals\n```\n\n`DictReader` uses the first line as the names of the columns.",
    "Install pandas and use it:\n\n```python\nimport pandas as pd\n\ntotal = pd.read_csv('sales.csv')['amount'].sum()\n```\n\n| way | needs |\n|---|---|\n"
    "| `csv` | nothing |\n| `pandas` | a large library |\n",
)
ARABIC = "كيف أنظف نافذتي دون ترك خطوط؟"
ARABIC_ANSWERS = (
    "استخدم ماءً دافئًا مع قليل من الخل، ثم جفف الزجاج بقطعة قماش من الألياف الدقيقة.",
    "نظف النافذة في يوم غائم، لأن الشمس تجفف الماء بسرعة وتترك خطوطًا.",
)
SOUP_ANSWERS = (
    "Salt the lentils while they simmer, a teaspoon for a litre and a half, and taste. Just before serving, stir in a squeeze of lemon: it wakes the soup up.",
    "Try more spices, such as cumin and smoked paprika, and fry them in oil first.\n\nHere is why that matters. " + "Spices carry their scent in oil, and "
    "oil that is warm takes up far more of it than water ever does, so a minute in the pan is worth more than an hour in the pot. " * 9,
)
ASKED: list[tuple[Any, tuple[str, ...]]] = [(CHAT, SOUP_ANSWERS), (LETTER, LETTER_ANSWERS[:2]), (CODE, CODE_ANSWERS), (ARABIC, ARABIC_ANSWERS)]
ASPECTS = [
    Aspect(
        name="warmth", ask="How warm is it?",
        points={"1": "cold or rude", "2": "distant", "3": "polite", "4": "friendly", "5": "as a friend would say it"},
    ),
    Aspect(name="help", ask="Does it help with what was asked?", points={"1": "not at all", "3": "in part", "5": "fully"}),
    Aspect(name="truth", ask="Is what it says true?", points={"1": "mostly false", "5": "all true"}),
]  # fmt: skip


def add_batch(project: Project, asked: list[tuple[Any, tuple[str, ...]]], batch: str = BATCH) -> None:
    """Prompts (a text or turns) with their responses."""
    with project.database.write() as store:
        if store.get(Policy, POLICY) is None:
            store.add(Policy(id=POLICY, model="model", artifact_id=None, parent_id=None, created_at=NOON))
            store.flush()
        for position, (said, texts) in enumerate(asked):
            turns = turns_of(said) if isinstance(said, str) else said
            prompt_id = content_id(turns)
            if store.get(Prompt, prompt_id) is None:
                words = turns[-1]["content"]
                store.add(Prompt(id=prompt_id, turns=turns, text=words, split="train", source=FILE, facts={}, position=position, created_at=NOON))
                store.flush()
            for place, text in enumerate(texts):
                by = {"policy_id": POLICY, "author": None} if place % 2 else {"policy_id": None, "author": AUTHOR}
                sample_id = content_id("sample", prompt_id, batch, place)
                store.add(Sample(id=sample_id, prompt_id=prompt_id, batch=batch, position=place, text=text, finished=True, created_at=NOON, **by))


def many_pairs(project: Project, n: int, **rules: Any) -> str:
    """A set of n different pairs; gives its id."""
    add_batch(project, [(f"{LETTER} (Letter {number})", (f"{LETTER_ANSWERS[0]}\n\n{number}", f"{LETTER_ANSWERS[1]}\n\n{number}")) for number in range(n)])
    return ask(project, "warm replies", "pair", **rules)


def ask(project: Project, name: str, kind: str, *, batch: str = BATCH, guideline: str = GUIDELINE, limit: int | None = None, **rules: Any) -> str:
    """A set of questions about the batch, without checks and repeats; gives its id."""
    settings = Rules(**{"gold_first": 0.0, "gold_later": 0.0, "repeat_rate": 0.0, "overlap": 3} | rules)
    return create_set(project, name=name, kind=kind, guideline=guideline, rules=settings, batch=batch, limit=limit, seed=1, at=NOON).id


def rules_of_kind(kind: str) -> dict[str, Any]:
    """What a set of this kind needs beyond the usual rules."""
    return {"aspects": ASPECTS} if kind == "rating" else {}


def add_person(project: Project, name: str = "Ana") -> str:
    """Somebody who can be signed in; their id is their name in lower case."""
    with project.database.write() as store:
        store.add(Annotator(id=name.lower(), name=name, kind="human", role="annotator", active=True, facts={}, created_at=NOON + timedelta(seconds=1)))
    return name.lower()
