"""Edits by the base model itself: it is told to rewrite a response, and what it writes counts only where a measure says that the response moved.

A small model often ignores the instruction or loses the subject; the share that took is told beside every effect.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from truing.console import track
from truing.models.generate import Response, generate_batches
from truing.models.trunk import Trunk
from truing.reward.probe.attributes import Case, content_of, number_of_words
from truing.reward.probe.edits import Edit, Took, lowers, raises, whole
from truing.reward.probe.interventions import Pair, Tried
from truing.store.ids import seed_from

KEPT = 0.3  # share of the content words of the shorter of two texts that the other must have, to be the same answer told otherwise
TEMPERATURE = 0.7
MOST_TOKENS = 64
BATCH = 48
ASK = "{how} Keep its meaning. Answer with the new text alone.\n\nQuestion: {prompt}\n\nText: {text}"


class Instruction(NamedTuple):
    """What the base is told, and the edit that it should come to."""

    how: str
    edit: Edit


def _rewritten(said: str, took: Took, *, about_length: bool = False) -> Edit:
    return Edit(said, lambda case, draw: None, took, group="rewritten", about_length=about_length)


INSTRUCTIONS: dict[str, Instruction] = {
    "rewritten_warmer": Instruction(
        "Rewrite this text so that it sounds warm, kind and loving.", _rewritten("being rewritten to be warmer", raises("warmth", 0.1))
    ),
    "rewritten_blunter": Instruction(
        "Rewrite this text so that it sounds cold, blunt and rude.", _rewritten("being rewritten to be blunter", lowers("warmth", 0.1))
    ),
    "rewritten_shorter": Instruction(
        "Rewrite this text in one short sentence.", _rewritten("being rewritten to be shorter", lowers("words", 5), about_length=True)
    ),
    "rewritten_longer": Instruction(
        "Rewrite this text so that it is longer, with more details.", _rewritten("being rewritten to be longer", raises("words", 5), about_length=True)
    ),
    "rewritten_hedged": Instruction(
        'Rewrite this text so that it sounds unsure, with words such as "maybe" and "I think".', _rewritten("being rewritten to be unsure", raises("hedges", 1))
    ),
    "rewritten_confident": Instruction(
        'Rewrite this text so that it sounds sure of itself, with words such as "certainly" and "of course".',
        _rewritten("being rewritten to be sure of itself", raises("certainty", 1)),
    ),
}
"""Edits by instruction, by name."""


def rewrite(trunk: Trunk, cases: Sequence[Case], *, seed: int, beat: Callable[..., None]) -> dict[str, Tried]:
    """Have the base rewrite every whole response under every instruction.

    Args:
        seed: every rewriting's own seed follows from this, its text and its instruction.
        beat: called with how far it is, after each batch.

    Returns:
        instruction → the pairs that took: up to the end of its last whole sentence, the attribute moved and the subject stayed.
    """
    starts = [one for one in map(whole, cases) if one is not None]
    jobs = [(name, case) for name in INSTRUCTIONS for case in starts]
    found = {name: Tried([], len(starts)) for name in INSTRUCTIONS}
    written: dict[int, Case] = {}
    for batch in track(_written(trunk, jobs, seed), "probe: rewriting", -(-len(jobs) // BATCH)):
        written.update(batch)
        beat(step="rewriting", done=len(written), total=len(jobs))
    for place, (name, before) in enumerate(jobs):
        pair = counted(INSTRUCTIONS[name].edit, before, written[place])
        if pair is not None:
            found[name].pairs.append(pair)
    return found


def counted(edit: Edit, before: Case, written: Case) -> Pair | None:
    """A rewriting up to the end of its last whole sentence, if the measure moved and the subject stayed."""
    after = whole(written)
    return Pair(before, after) if after is not None and same_subject(before, after) and edit.took(before, after) else None


def _written(trunk: Trunk, jobs: Sequence[tuple[str, Case]], seed: int) -> Iterator[dict[int, Case]]:
    """What the base made of the jobs, by place, a batch at a time; a job too long for it comes back empty, so that it doesn't count."""
    prompts = [trunk.prompt_ids([{"role": "user", "content": _ask(name, case)}]) for name, case in jobs]
    fits = [place for place, prompt in enumerate(prompts) if trunk.longest is None or len(prompt) + MOST_TOKENS <= trunk.longest]
    too_long = {place: case._replace(text="") for place, (_, case) in enumerate(jobs) if place not in set(fits)}
    seeds = [seed_from(seed, "rewrite", jobs[place][0], jobs[place][1].text) for place in fits]
    with trunk.using(None):
        for indices, responses in generate_batches(
            trunk, [prompts[place] for place in fits], seeds, max_new_tokens=MOST_TOKENS, temperature=TEMPERATURE, batch_size=BATCH
        ):
            places = [fits[index] for index in indices]
            yield {place: _after(trunk, jobs[place][1], response) for place, response in zip(places, responses, strict=True)}
    yield too_long


def _after(trunk: Trunk, case: Case, response: Response) -> Case:
    return case._replace(text=unwrapped(trunk.text(response.token_ids)), finished=response.finished, base_logprob=None)


def _ask(name: str, case: Case) -> str:
    return ASK.format(how=INSTRUCTIONS[name].how, prompt=case.prompt, text=case.text)


def unwrapped(text: str) -> str:
    """Without what a model likes to put around a text it was asked for: "Text:" in front, quotation marks."""
    text = text.strip().removeprefix("Text:").strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1] else text


def same_subject(before: Case, after: Case) -> bool:
    """Whether the two share enough content words to be one answer told in two ways; a text without words is of no subject."""
    one, other = content_of(before.text), content_of(after.text)
    least = min(len(one), len(other))
    return number_of_words(after) >= 3 and least > 0 and len(one & other) >= KEPT * least
