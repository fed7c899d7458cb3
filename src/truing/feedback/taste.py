"""What the demo's simulated people like in a response: features of the text, and the population's weights over them.

The weighted sum is the demo's *gold* reward: published here and in docs/taste.md, used by the simulated annotators and by
evaluation, and never seen by a reward model, which learns from judgements alone. A response wins by being a complete, warm,
brief sentence or two that speak of what was asked. Every feature saturates, so that more of a good thing wins nothing.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from truing.feedback.words import ASKING, GREETINGS, LIST_LINE, LIST_OPENING, STOCK, STOP, WRONG_PARTY, content_stems, stem, trigrams, words_of

POPULATION: Mapping[str, float] = MappingProxyType(
    {
        "complete": 4.0,
        "brief": 1.5,
        "warm": 1.5,
        "to_the_point": 2.0,
        "fluent": 1.5,
        "substance": 1.0,
        "listing": -2.0,
        "parroting": -4.0,
        "repeating": -2.0,
        "pleasantries": -2.0,
        "wrong_party": -4.0,
        "gushing": -2.0,
    }
)
"""The population's taste: utility of one whole unit of each feature, positive for what it likes. docs/taste.md shows the same numbers."""

BRIEF_WORDS = (12, 42)  # fully brief between these; see `_brief`
TYPICAL_LOGPROB = -1.3  # nats per token: as likely as the likelier third of the base model's own answers; more wins nothing
UNLIKELY_LOGPROB = -2.5  # where fluency is worth nothing; below it costs. A person's own short answer lies between -2.5 and -4
STRANGE_LOGPROB = -4.0  # where it costs a whole unit, and each nat below two more: strings of words lie at -6 and below
WARM_ENOUGH = 0.5  # mean VADER compound of the sentences at which warmth is full
ENOUGH_NEW_STEMS = 4  # content words of the response's own at which it has said something
PARROT_FREE = 0.1  # share of 3-grams that anyone answering borrows from the question
REPEAT_FREE = 0.02  # share of 3-grams said twice that nobody minds
GUSH_FREE = 0.3  # share of words with a positive feeling that is still natural


def gold_reward(prompt_text: str, response_text: str, *, finished: bool, base_logprob: float) -> float:
    """The population's taste for a response, in utility units: about -8 (worst) to 11.5 (best); a difference of 1 is easily felt.

    Args:
        prompt_text:   the last user turn.
        response_text: the response without special tokens.
        finished:      it ended by itself rather than being cut off.
        base_logprob:  mean log-probability per token under the base model at temperature 1, nats.
    """
    return utility(features(prompt_text, response_text, finished=finished, base_logprob=base_logprob), POPULATION)


def utility(found: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The weighted sum of features, in utility units."""
    return sum(weights[name] * found[name] for name in POPULATION)


def features(prompt_text: str, response_text: str, *, finished: bool, base_logprob: float) -> dict[str, float]:
    """What the population looks at, by the names of `POPULATION`. All in [0, 1], but `warm` in [-1, 1] and `fluent` in [-6, 1].

    The arguments are those of `gold_reward`.
    """
    text = response_text.replace("’", "'").strip()
    prompt = prompt_text.replace("’", "'")
    words, asked_words = words_of(text), words_of(prompt)
    asked = frozenset(stem(word) for word in asked_words if word not in STOP and word not in ASKING) or frozenset(
        stem(word) for word in asked_words if word not in STOP
    )
    own = content_stems(words)
    relevance = _to_the_point(asked, set(own))
    substance = _substance(text, frozenset(stem(word) for word in asked_words))
    return {
        "complete": _complete(text, finished) * substance,
        "brief": _brief(len(words)),
        "warm": _warm(text, asked_words) * (0.25 + 0.75 * relevance) * substance,
        "to_the_point": relevance * substance,
        "fluent": _fluent(base_logprob),
        "substance": substance,
        "listing": _listing(text),
        "parroting": _parroting(words, asked_words),
        "repeating": _repeating(words),
        "pleasantries": _pleasantries(text, own),
        "wrong_party": float(bool(WRONG_PARTY.search(text))),
        "gushing": _gushing(text, words),
    }


def _complete(text: str, finished: bool) -> float:
    """1 when it ended by itself and like a sentence; 0.3 when it ended by itself in the air; 0 when cut off."""
    if not finished:
        return 0.0
    return 1.0 if re.search(r"[.!?…][\"'”’)*]*$", text) else 0.3


def _brief(n: int) -> float:
    """1 from 12 to 42 words, falling as a square below and as a bell above: 6 words 0.25, 47 words 0.84, 57 words 0.21."""
    low, high = BRIEF_WORDS
    if n < low:
        return (n / low) ** 2
    return 1.0 if n <= high else math.exp(-(((n - high) / 12) ** 2))


def _warm(text: str, asked_words: Sequence[str]) -> float:
    """VADER's compound feeling of the response's own words: the mean over its sentences, so that length wins nothing; full at 0.5.

    The question's words, sad or glad, are neutral: naming the friend's dead dog is no coldness, repeating "wonderful" no warmth.
    """
    borrowed = {stem(word) for word in asked_words}
    added = re.sub(r"[A-Za-z][A-Za-z'-]*", lambda found: "it" if stem(found.group().lower()) in borrowed else found.group(), text)
    sentences = [part for part in re.split(r"[.!?\n]+", added) if re.search(r"\w", part)]
    felt = [_analyser().polarity_scores(sentence)["compound"] for sentence in sentences]
    return max(-1.0, min(1.0, sum(felt) / len(felt) / WARM_ENOUGH)) if felt else 0.0


def _fluent(base_logprob: float) -> float:
    """1 from -1.3 nats per token upwards, 0 at -2.5, -1 at -4, and two less for each nat below."""
    if base_logprob >= UNLIKELY_LOGPROB:
        return min(1.0, (base_logprob - UNLIKELY_LOGPROB) / (TYPICAL_LOGPROB - UNLIKELY_LOGPROB))
    if base_logprob >= STRANGE_LOGPROB:
        return (base_logprob - UNLIKELY_LOGPROB) / (UNLIKELY_LOGPROB - STRANGE_LOGPROB)
    return max(-6.0, 2 * (base_logprob - STRANGE_LOGPROB) - 1.0)


def _to_the_point(asked: frozenset[str], own: set[str]) -> float:
    """Shared content: none 0, one stem 0.7, two 1. A question without content words is answered by anything."""
    needed = min(2, len(asked))
    return 1.0 if needed == 0 else min(1.0, len(asked & own) / needed) ** 0.5


def _substance(text: str, asked: frozenset[str]) -> float:
    """Whether it says something of its own: different content words that are neither the question's nor stock phrases."""
    new = set(content_stems(words_of(STOCK.sub(" ", text)))) - asked - {stem(word) for word in GREETINGS}
    return min(1.0, len(new) / ENOUGH_NEW_STEMS)


def _listing(text: str) -> float:
    """Numbered or bulleted lines, headings, "here are", and an ending on a colon."""
    return min(1.0, 0.5 * len(LIST_LINE.findall(text)) + 0.5 * bool(LIST_OPENING.search(text)) + 0.7 * text.endswith(":"))


def _parroting(words: Sequence[str], asked_words: Sequence[str]) -> float:
    """Share of the response's 3-grams that stand in the question: full at 0.4 of them."""
    grams, asked = trigrams(words), set(trigrams(asked_words))
    share = sum(gram in asked for gram in grams) / len(grams) if grams else 0.0
    return max(0.0, min(1.0, (share - PARROT_FREE) / (0.4 - PARROT_FREE)))


def _repeating(words: Sequence[str]) -> float:
    """Share of 3-grams that were said before, full at a fifth; and content words said over and over."""
    grams, own = trigrams(words), content_stems(words)
    again = 1 - len(set(grams)) / len(grams) if grams else 0.0
    poor = 1 - len(set(own)) / len(own) if own else 0.0
    return max(0.0, min(1.0, (again - REPEAT_FREE) / 0.2 + max(0.0, poor - 0.25) / 0.35))


def _pleasantries(text: str, own: Sequence[str]) -> float:
    """Stock phrases: the first weighs 0.6, two are full. A text of thanks and greetings alone is full too."""
    said = len(STOCK.findall(text))
    nothing_else = bool(own) and all(word in {stem(greeting) for greeting in GREETINGS} for word in own)
    return 1.0 if nothing_else else min(1.0, 0.6 * said)


def _gushing(text: str, words: Sequence[str]) -> float:
    """More than one exclamation mark, symbols of feeling, shouting, and words of praise packed too densely."""
    marks = max(0, text.count("!") - 1) * 0.4
    symbols = 0.4 * len(re.findall("[\U0001f000-\U0001faff\u2600-\u27bf]", text))
    shouting = 0.5 * bool(len(re.findall(r"\b[A-Z]{4,}\b", text)) > 1)
    lexicon = _analyser().lexicon
    glad = sum(lexicon.get(word, 0.0) > 1.0 for word in words) / len(words) if len(words) >= 4 else 0.0
    return min(1.0, marks + symbols + shouting + max(0.0, glad - GUSH_FREE) / 0.2)


@cache
def _analyser() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()
