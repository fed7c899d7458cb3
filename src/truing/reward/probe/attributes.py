"""Named, measurable attributes of a response to a prompt: what the probe's student sees of a text, and how an edit proves that it took.

Every attribute is a plain function of words and punctuation, so that a person can check it by eye. `ATTRIBUTES` is the list; docs/probe.md shows how to
add one.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from truing.reward.probe.phrases import (
    AS_MODEL,
    CERTAIN,
    EMOJI,
    EMPTY_WORDS,
    FIRST,
    FLATTERY,
    FORMULA,
    HEDGE,
    LIST_LINE,
    MARKS,
    NEGATION,
    NUMBER,
    REFUSAL,
    SECOND,
)
from truing.reward.score import Answer, Turns


class Case(NamedTuple):
    """A response to a prompt, as the probe sees it.

    Attributes:
        prompt_id: which prompt; what is drawn again and again in a bootstrap.
        turns: the conversation that it answers.
        text: the response.
        finished: it ended by itself rather than being cut off.
        base_logprob: mean log-probability of a token under the base at temperature 1, nats; None where nobody knows it.
    """

    prompt_id: str
    turns: Turns
    text: str
    finished: bool = True
    base_logprob: float | None = None

    @property
    def prompt(self) -> str:
        """The last user turn."""
        return self.turns[-1]["content"]

    @property
    def answer(self) -> Answer:
        """As a scorer is asked about it."""
        return Answer(self.turns, self.text, finished=self.finished)


class Attribute(NamedTuple):
    """What is measured: `said` as a table says it, `measure` a finite number for any text, the empty one too."""

    said: str
    measure: Callable[[Case], float]


# ---- words and sentences ----

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
BREAK = re.compile(r"(?:(?<=[!?…])|(?<=[^\d\s]\.)|(?<=\d\d\d\.)|(?<=[.!?…][\"'”’)*]))\s+|\s*\n\s*")  # "1. First" is no end of a sentence, "in 1990." is
END = re.compile(r"[.!?…][\"'”’)*]*$")
CONTENT = 4  # letters from which on a word is taken to carry meaning
STEM = 5  # letters in which two words must be alike to be one: "bake" is not "baker", "baking" is "bakin"


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, with straight apostrophes."""
    return [word.replace("’", "'") for word in WORD.findall(text.lower())]


def sentences_of(text: str) -> list[str]:
    """The sentences and lines of a text that have a word in them; the last one may be broken off."""
    return [part for part in BREAK.split(text.strip()) if part and WORD.search(part)]


def ends_whole(text: str) -> bool:
    """Whether a text ends as a sentence does."""
    return bool(END.search(text.strip()))


def content_of(text: str) -> set[str]:
    """The beginnings of the words that carry meaning."""
    return {word[:STEM] for word in words_of(text) if len(word) >= CONTENT and word not in EMPTY_WORDS}


# ---- measures ----


def _count(pattern: re.Pattern[str]) -> Callable[[Case], float]:
    """How often a phrase is said."""
    return lambda case: float(len(pattern.findall(_plain(case.text))))


def _says(pattern: re.Pattern[str]) -> Callable[[Case], float]:
    """1 where a phrase is said, 0 where not."""
    return lambda case: float(bool(pattern.search(_plain(case.text))))


def _plain(text: str) -> str:
    return text.lower().replace("’", "'")


def number_of_words(case: Case) -> float:
    """Words of the response."""
    return float(len(words_of(case.text)))


def warmth(case: Case) -> float:
    """Mean feeling of the sentences, in [-1, 1]: the compound of VADER's lexicon, where ten people rated each word (Hutto and Gilbert 2014, ICWSM)."""
    felt = [_analyser().polarity_scores(sentence)["compound"] for sentence in sentences_of(case.text)]
    return sum(felt) / len(felt) if felt else 0.0


def overlap(case: Case) -> float:
    """Share of the prompt's content words that the response takes up, in [0, 1]; 0 where the prompt has none."""
    asked = content_of(case.prompt)
    return len(asked & content_of(case.text)) / len(asked) if asked else 0.0


def parroting(case: Case) -> float:
    """Share of the response's 3-grams of words that stand in the prompt, in [0, 1]."""
    grams, asked = _grams(words_of(case.text), 3), set(_grams(words_of(case.prompt), 3))
    return sum(gram in asked for gram in grams) / len(grams) if grams else 0.0


def repetition(case: Case) -> float:
    """Share of word pairs that were said before, in [0, 1): 1 - distinct-2 (Li et al. 2016, arXiv:1510.03055)."""
    pairs = _grams(words_of(case.text), 2)
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def letters_a_word(case: Case) -> float:
    """Mean length of the words, in letters; 0 without any."""
    words = words_of(case.text)
    return sum(map(len, words)) / len(words) if words else 0.0


def _person(words: frozenset[str]) -> Callable[[Case], float]:
    def share(case: Case) -> float:
        said = words_of(case.text)
        return sum(word in words for word in said) / len(said) if said else 0.0

    return share


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]


@cache
def _analyser() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


ATTRIBUTES: dict[str, Attribute] = {
    "words": Attribute("words", number_of_words),
    "finished": Attribute("ended by itself", lambda case: float(case.finished)),
    "whole_ending": Attribute("ends like a sentence", lambda case: float(ends_whole(case.text))),
    "list_lines": Attribute("list lines", lambda case: float(len(LIST_LINE.findall(case.text)))),
    "warmth": Attribute("warmth of its sentences", warmth),
    "hedges": Attribute("hedges", _count(HEDGE)),
    "certainty": Attribute("words of certainty", _count(CERTAIN)),
    "refusal": Attribute("a refusal", _says(REFUSAL)),
    "flattery": Attribute("flattery", _count(FLATTERY)),
    "formulas": Attribute("polite formulas", _count(FORMULA)),
    "as_model": Attribute("speaks as a model", _says(AS_MODEL)),
    "overlap": Attribute("takes up the prompt’s words", overlap),
    "parroting": Attribute("copies the prompt’s phrases", parroting),
    "repetition": Attribute("repeats itself", repetition),
    "exclamations": Attribute("exclamation marks", lambda case: float(case.text.count("!"))),
    "questions": Attribute("question marks", lambda case: float(case.text.count("?"))),
    "markdown": Attribute("markdown signs", lambda case: float(len(MARKS.findall(case.text)))),
    "emoji": Attribute("emoji", lambda case: float(len(EMOJI.findall(case.text)))),
    "numbers": Attribute("numbers", _count(NUMBER)),
    "negations": Attribute("negations", _count(NEGATION)),
    "first_person": Attribute("share of I and we", _person(FIRST)),
    "second_person": Attribute("share of you", _person(SECOND)),
    "letters": Attribute("letters a word", letters_a_word),
}
"""Attributes by name, in the order of a table."""

BASE_LOGPROB = "base_logprob"


def measured(cases: Sequence[Case]) -> tuple[list[str], list[list[float]]]:
    """Every attribute of every case.

    Returns:
        names, A of them; an (N, A) table. The base's log-probability is among them where it is known of every case.
    """
    names = list(ATTRIBUTES)
    rows = [[ATTRIBUTES[name].measure(case) for name in names] for case in cases]
    likelihoods = [case.base_logprob for case in cases]
    known = [value for value in likelihoods if value is not None]
    if cases and len(known) == len(cases):
        names.append(BASE_LOGPROB)
        rows = [[*row, value] for row, value in zip(rows, known, strict=True)]
    return names, rows


def said(name: str) -> str:
    """An attribute in the words of a table."""
    return "likelihood under the base" if name == BASE_LOGPROB else ATTRIBUTES[name].said
