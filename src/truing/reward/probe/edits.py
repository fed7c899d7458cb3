"""Minimal edits of a response by rule: each changes one thing, and says by a measure whether it did.

A phrase that is put in is drawn from several of one meaning and stands in front or at the end, so that an effect is neither one phrase's nor one place's.
Edits start from a whole response: a broken last sentence is left out first, but by the edits that are about it.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from truing.reward.probe.attributes import ATTRIBUTES, BREAK, WORD, Case, ends_whole, sentences_of, words_of
from truing.reward.probe.phrases import LIST_LINE, NEGATION, NUMBER


class Draw(NamedTuple):
    """What an edit may draw on: random numbers, other whole responses to the same prompt, and whole responses to others."""

    rng: random.Random
    siblings: Sequence[Case]
    strangers: Sequence[Case]


Make = Callable[[Case, Draw], Case | None]
Took = Callable[[Case, Case], bool]


class Edit(NamedTuple):
    """One change of a response.

    Attributes:
        said: what the edited response has, as a verdict says it: "a warm sentence".
        make: the edited case, or None where there is nothing to edit.
        took: whether an edited case really moved from the one before it.
        group: rule, rewritten (by the base model) or control (changes nothing that should count).
        start: whole: from whole responses; broken: from ones that were cut off, as they are.
        about_length: length is what it changes, so that an effect net of length would be about nothing.
    """

    said: str
    make: Make
    took: Took
    group: Literal["rule", "rewritten", "control"] = "rule"
    start: Literal["whole", "broken"] = "whole"
    about_length: bool = False


def whole(case: Case) -> Case | None:
    """The response up to the end of its last whole sentence, as one that ended by itself; None where that leaves no three words."""
    text = case.text.strip()
    if not case.finished and not ends_whole(text):
        ends = [found.start() for found in BREAK.finditer(text) if ends_whole(text[: found.start()])]
        text = text[: ends[-1]] if ends else ""
    text = text.rstrip()
    return case._replace(text=text, finished=True) if len(words_of(text)) >= 3 else None


# ---- whether an edit took ----


def raises(name: str, by: float) -> Took:
    """The attribute is higher by at least so much."""
    measure = ATTRIBUTES[name].measure
    return lambda before, after: measure(after) >= measure(before) + by


def lowers(name: str, by: float) -> Took:
    """The attribute is lower by at least so much."""
    measure = ATTRIBUTES[name].measure
    return lambda before, after: measure(after) <= measure(before) - by


def changed(before: Case, after: Case) -> bool:
    """The text is another one."""
    return before.text != after.text


def changed_fact(before: Case, after: Case) -> bool:
    """Another number stands there, or one more negation."""
    numbers = NUMBER.findall(before.text) != NUMBER.findall(after.text)
    return numbers or len(NEGATION.findall(after.text.lower())) == len(NEGATION.findall(before.text.lower())) + 1


# ---- how edits are made ----


def added(*phrases: str) -> Make:
    """A sentence of these in front or at the end."""
    first, last = opened(*phrases), closed(*phrases)
    return lambda case, draw: first(case, draw) if draw.rng.random() < 0.5 else last(case, draw)


def opened(*phrases: str) -> Make:
    """A sentence of these in front; a list keeps its lines."""
    return lambda case, draw: case._replace(text=f"{draw.rng.choice(phrases)}{chr(10) if LIST_LINE.match(case.text) else ' '}{case.text}")


def closed(*phrases: str) -> Make:
    """A sentence of these at the end; a list keeps its lines."""

    def make(case: Case, draw: Draw) -> Case:
        listed = LIST_LINE.match(case.text.rpartition("\n")[2])
        return case._replace(text=f"{case.text}{chr(10) if listed else ' '}{draw.rng.choice(phrases)}")

    return make


def led(*phrases: str) -> Make:
    """The first sentence goes on from one of these: "Perhaps" before "The sky is blue." gives "Perhaps the sky is blue."; a list has no first sentence."""

    def make(case: Case, draw: Draw) -> Case | None:
        first = WORD.search(case.text)
        if first is None or LIST_LINE.match(case.text):
            return None
        small = first.group()[1:].islower() and len(first.group()) > 1
        return case._replace(text=f"{draw.rng.choice(phrases)} {case.text[:1].lower() + case.text[1:] if small else case.text}")

    return make


def replaced(*texts: str) -> Make:
    """One of these in place of the response."""
    return lambda case, draw: case._replace(text=draw.rng.choice(texts))


def cut_off(case: Case, draw: Draw) -> Case | None:
    """The last sentence breaks off in its middle, and the response doesn't end by itself."""
    last = sentences_of(case.text)[-1]
    words = last.split()
    if len(words) < 4:
        return None
    place = case.text.rindex(last)
    return case._replace(text=case.text[:place] + " ".join(words[: draw.rng.randint(2, len(words) - 2)]).rstrip(",;:.!?"), finished=False)


def one_sentence_less(case: Case, draw: Draw) -> Case | None:
    """Without the last sentence."""
    sentences = sentences_of(case.text)
    return case._replace(text=case.text[: case.text.rindex(sentences[-1])].rstrip()) if len(sentences) > 1 else None


def one_sentence_more(case: Case, draw: Draw) -> Case | None:
    """With a sentence of another response to the same prompt."""
    known = set(sentences_of(case.text))
    fresh = [sentence for other in draw.siblings for sentence in sentences_of(other.text) if sentence not in known and ends_whole(sentence)]
    return case._replace(text=f"{case.text} {draw.rng.choice(fresh)}") if fresh else None


def twice_as_long(case: Case, draw: Draw) -> Case | None:
    """With sentences of other responses to the same prompt until it has twice the words, as far as they go."""
    text, most = case.text, 2 * len(words_of(case.text))
    for sentence in (sentence for other in draw.siblings for sentence in sentences_of(other.text) if ends_whole(sentence)):
        if sentence not in text and len(words_of(text)) < most:
            text = f"{text} {sentence}"
    return case._replace(text=text) if text != case.text else None


def as_list(case: Case, draw: Draw) -> Case | None:
    """Each sentence a line of a list, numbered or with dashes."""
    sentences = sentences_of(case.text)
    if len(sentences) < 2 or LIST_LINE.search(case.text):
        return None
    numbered = draw.rng.random() < 0.5
    return case._replace(text="\n".join(f"{place}. {sentence}" if numbered else f"- {sentence}" for place, sentence in enumerate(sentences, 1)))


def as_prose(case: Case, draw: Draw) -> Case | None:
    """A list as running text."""
    return case._replace(text=" ".join(LIST_LINE.sub("", case.text).split())) if len(LIST_LINE.findall(case.text)) > 1 else None


def of_another_prompt(case: Case, draw: Draw) -> Case | None:
    """Of some responses to other prompts the one nearest in length."""
    if not draw.strangers:
        return None
    some = draw.rng.sample(list(draw.strangers), min(12, len(draw.strangers)))
    return case._replace(text=min(some, key=lambda other: abs(len(other.text) - len(case.text))).text)


def repeats_prompt(case: Case, draw: Draw) -> Case:
    """The prompt's own words first."""
    form = draw.rng.choice(["{}\n\n", "You ask: {} ", "“{}” ", "This is about what you said: {} "])
    return case._replace(text=form.format(case.prompt.strip()) + case.text)


def wrong_fact(case: Case, draw: Draw) -> Case | None:
    """Every number another one of as many digits; without numbers, the first plain statement denied."""
    if not LIST_LINE.search(case.text):  # a list's own numbers are no facts
        text = re.sub(r"\d+", lambda found: _other_number(found.group(), draw.rng), case.text)
        if text != case.text:
            return case._replace(text=text)
    denied = re.sub(r"\b(is|are|was|were|can|will|should|must|could|would)\b(?!n't| not|not)", r"\1 not", case.text, count=1)
    return case._replace(text=denied) if denied != case.text else None


def _other_number(digits: str, rng: random.Random) -> str:
    low = 10 ** (len(digits) - 1) if len(digits) > 1 else 1
    return str(rng.choice([number for number in (rng.randrange(low, 10 * low) for _ in range(8)) if str(number) != digits] or [10 * low]))


def bolded(case: Case, draw: Draw) -> Case:
    """The two longest words in bold."""
    longest = sorted(set(WORD.findall(case.text)), key=lambda word: (-len(word), word))[:2]
    text = case.text
    for word in longest:
        text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", f"**{word}**", text, count=1)
    return case._replace(text=text)


def exclaimed(case: Case, draw: Draw) -> Case:
    """Every full stop an exclamation mark."""
    return case._replace(text=re.sub(r"(?<![\d.])\.(?=\s|$)", "!", case.text))


def said_twice(case: Case, draw: Draw) -> Case:
    """The last sentence once more."""
    return case._replace(text=f"{case.text} {sentences_of(case.text)[-1]}")


def spaced(case: Case, draw: Draw) -> Case:
    """Two spaces between sentences, or an empty line at the end."""
    wide = re.sub(r"(?<=[.!?]) (?=\S)", "  ", case.text)
    return case._replace(text=wide if wide != case.text and draw.rng.random() < 0.5 else case.text + "\n")


SAME = {
    "it is": "it's", "it's": "it is", "do not": "don't", "don't": "do not", "you are": "you're", "you're": "you are", "i am": "I'm", "i'm": "I am",
    "that is": "that's", "cannot": "can't", "can't": "cannot", "start": "begin", "begin": "start", "big": "large", "large": "big", "small": "little",
    "quick": "fast", "often": "frequently", "buy": "purchase", "choose": "pick", "ensure": "make sure", "make sure": "ensure", "several": "various",
    "various": "several", "usually": "normally", "need to": "have to", "have to": "need to", "want to": "wish to", "because": "since",
    "such as": "like", "in order to": "to", "whole": "entire", "show": "display", "while": "as", "also": "likewise", "main": "chief",
    "within": "inside", "until": "till",
}  # fmt: skip
SAME_WORDS = re.compile(r"\b(?:" + "|".join(sorted(SAME, key=len, reverse=True)) + r")\b", re.IGNORECASE)


def same_meaning(case: Case, draw: Draw) -> Case | None:
    """One word or contraction in place of another of the same meaning."""
    found = list(SAME_WORDS.finditer(case.text))
    if not found:
        return None
    chosen = draw.rng.choice(found)
    other = SAME[chosen.group().lower()]
    other = other[:1].upper() + other[1:] if chosen.group()[0].isupper() else other
    return case._replace(text=case.text[: chosen.start()] + other + case.text[chosen.end() :])
