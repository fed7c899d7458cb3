"""Scorers that are plain functions of text, and made-up responses for them to score."""

import random
import re
from collections.abc import Callable, Sequence

from truing.reward.probe.attributes import Case, ends_whole, number_of_words
from truing.reward.probe.phrases import EMOJI, LIST_LINE, REFUSAL
from truing.reward.score import Turns

THINGS = ["bread", "a garden", "the guitar", "a letter", "your desk", "chess", "a bicycle", "the harbour", "soup", "a shelf", "running", "paint"]
PLAIN = [
    "Put the {} on the table by the window first.",
    "It takes about 20 minutes to get the {} in order.",
    "Most people keep a note of each step for later.",
    "The second part is longer than the first one.",
    "You are going to need a clean cloth and some water.",
    "There were 3 ways to do this when I last looked.",
    "After that the {} is where it should be.",
    "It is usually done in the morning before work.",
    "A small box holds everything that belongs to {}.",
]
FEELING = ["It is a lovely and happy thing to do.", "Your friends will love the joy of it.", "That was an awful and sad mess.", "People hate this boring part."]


def turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def made_up(prompts: int, *, each: int = 2, seed: int = 0) -> list[Case]:
    """Responses of one to five sentences, some warm, some cold, some as lists, some cut off."""
    rng = random.Random(seed)
    cases = []
    for number in range(prompts):
        thing = THINGS[number % len(THINGS)]
        asked = f"How do I look after {thing} in week {number}?"
        for _ in range(each):
            sentences = [rng.choice(PLAIN).format(thing) for _ in range(rng.randint(1, 4))]
            if rng.random() < 0.6:
                sentences.insert(rng.randint(0, len(sentences)), rng.choice(FEELING))
            text = "\n".join(f"- {one}" for one in sentences) if rng.random() < 0.25 else " ".join(sentences)
            finished = rng.random() < 0.6
            if not finished:
                text = f"{text} {' '.join(rng.choice(PLAIN).format(thing).split()[:5])}"
            cases.append(Case(f"p{number}", turns(asked), text, finished))
    return cases


class Taste:
    """A Scorer of known composition; counts what it is asked."""

    def __init__(self, value: Callable[[Case], float]) -> None:
        self.value, self.asked = value, 0

    def score_texts(self, prompts: Sequence[Turns], responses: Sequence[str]) -> tuple[list[float], list[float]]:
        self.asked += len(responses)
        return [self.value(Case("", prompt, text)) for prompt, text in zip(prompts, responses, strict=True)], [0.0] * len(responses)


WARM = re.compile(r"\b(?:joy|wonderful|kind|happy|love|lovely|warms|warmest)\b")
COLD = re.compile(r"\b(?:bad|stupid|complaining|fault|hate|waste|awful|sad|take it or leave it)\b")


def composed(case: Case) -> float:
    """+3 for a whole ending, +1.5 for a list, +1 for a warm word and -1 for a cold one, -4 for a refusal, -0.03 a word; nothing for anything else."""
    text = case.text.lower()
    return (
        3.0 * ends_whole(EMOJI.sub("", text))
        + 1.5 * bool(LIST_LINE.search(text))
        + 1.0 * bool(WARM.search(text))
        - 1.0 * bool(COLD.search(text))
        - 4.0 * bool(REFUSAL.search(text))
        - 0.03 * number_of_words(case)
    )
