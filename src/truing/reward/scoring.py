"""Many texts through a scorer's door: each once, those of a conversation together, with the time left."""

from collections.abc import Callable, Sequence

from truing.console import track
from truing.reward.score import Answer, Scorer, Turns
from truing.store.ids import content_id

CHUNK = 64  # texts scored at a time


def score_all(scorer: Scorer, prompts: Sequence[Turns], responses: Sequence[str], label: str) -> list[float]:
    """The normalised score of each response; the same conversation and response are scored once.

    Args:
        scorer: whatever scores text.
        prompts: (N,) conversations.
        responses: (N,) texts.
        label: one or two words, shown beside the progress.
    """
    answers = [Answer(turns, text) for turns, text in zip(prompts, responses, strict=True)]
    return in_chunks(lambda some: scorer.score_texts([one.turns for one in some], [one.text for one in some])[0], answers, label)


def in_chunks(score: Callable[[Sequence[Answer]], Sequence[float]], answers: Sequence[Answer], label: str) -> list[float]:
    """(N,) scores of answers; the same answer is scored once.

    Args:
        score: what is asked, `CHUNK` answers at a time.
        label: one or two words, shown beside the progress.
    """
    keys = [content_id([dict(turn) for turn in one.turns], one.text, None if one.token_ids is None else list(one.token_ids), one.finished) for one in answers]
    asked = dict(zip(keys, answers, strict=True))
    order = sorted(asked, key=lambda key: (*_place(asked[key].turns, asked[key].text), key))
    scores: dict[str, float] = {}
    starts = range(0, len(order), CHUNK)
    for start in track(starts, label, len(starts)):
        chunk = order[start : start + CHUNK]
        scores.update(zip(chunk, score([asked[key] for key in chunk]), strict=True))
    return [scores[key] for key in keys]


def _place(turns: Turns, text: str) -> tuple[int, str, int, str]:
    """Where a text stands: the responses to one conversation side by side, so that a model may read it once, and the longest first."""
    return -sum(len(turn["content"]) for turn in turns), content_id([dict(turn) for turn in turns]), -len(text), text
