"""Many answers through a scorer's door: each once, those of a conversation together, with the time left. An interrupted call goes on from what it has."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from truing.console import track
from truing.errors import UserError
from truing.reward.features import keep
from truing.reward.score import Answer, AnyRewardModel, Scorer, Turns
from truing.store.ids import content_id

CHUNK = 64  # answers scored at a time
SECONDS_BETWEEN_SAVES = 5.0

Ask = Callable[[Sequence[Answer]], Sequence[float]]


class ScoreBook:
    """Scores of answers, each asked for once.

    The answers are scored in the same company whether or not the work was interrupted, so that the scores have the same bits.

    Args:
        ask: answers → their scores.
        file: where scores are kept on the way; None keeps them in memory.
        beat: called with how far a scoring with a label is.

    Raises:
        UserError: the file can't be read.
    """

    def __init__(self, ask: Ask, file: Path | None = None, beat: Callable[..., None] = lambda **facts: None) -> None:
        self._ask, self._file, self._beat = ask, file, beat
        self._known: dict[str, float] = _read(file) if file is not None and file.exists() else {}
        self._saved = time.monotonic()

    def __call__(self, answers: Sequence[Answer], label: str | None = None) -> list[float]:
        """(N,) the score of each answer; with a label, one or two words, how far the scoring is is shown. What ends it early, ends it with what it had kept."""
        keys = [_key(one) for one in answers]
        missing = {key: one for key, one in zip(keys, answers, strict=True) if key not in self._known}
        order = sorted(missing, key=lambda key: (*_place(missing[key]), key))
        starts = range(0, len(order), CHUNK)
        try:
            for start in starts if label is None else track(starts, label, len(starts)):
                chunk = order[start : start + CHUNK]
                self._known.update(zip(chunk, self._ask([missing[key] for key in chunk]), strict=True))
                if label is not None:
                    self._beat(step=label, done=min(start + CHUNK, len(order)), total=len(order))
                if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
                    self.save()
        except BaseException:
            self.save()
            raise
        return [self._known[key] for key in keys]

    def save(self) -> None:
        """Write down what is known."""
        if self._file is not None:
            keep(self._file, json.dumps(self._known).encode())
        self._saved = time.monotonic()

    def done(self) -> None:
        """Forget the file: what it was kept for is finished."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def asks(scorer: Scorer) -> Ask:
    """A scorer as a function of answers: a reward model of the project knows which tokens an answer has and whether it was cut off, any other scorer sees the
    texts alone."""
    if isinstance(scorer, AnyRewardModel):
        return lambda answers: scorer.score_answers(answers)[0]
    return lambda answers: scorer.score_texts([one.turns for one in answers], [one.text for one in answers])[0]


def score_all(scorer: Scorer, prompts: Sequence[Turns], responses: Sequence[str], label: str) -> list[float]:
    """The normalised score of each response; the same conversation and response are scored once.

    Args:
        scorer: whatever scores text.
        prompts: (N,) conversations.
        responses: (N,) texts.
        label: one or two words, shown beside the progress.
    """
    return ScoreBook(asks(scorer))([Answer(turns, text) for turns, text in zip(prompts, responses, strict=True)], label)


def _read(file: Path) -> dict[str, float]:
    try:
        known: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} can't be read: {error}", fix="delete that file: its scores are taken again") from error
    return known


def _key(answer: Answer) -> str:
    return content_id(_plain(answer.turns), answer.text, None if answer.token_ids is None else list(answer.token_ids), answer.finished)


def _place(answer: Answer) -> tuple[int, str, int, str]:
    """Where an answer stands: those to one conversation side by side, so that a model may read it once, and the longest first."""
    return -sum(len(turn["content"]) for turn in answer.turns), content_id(_plain(answer.turns)), -len(answer.text), answer.text


def _plain(turns: Turns) -> list[dict[str, str]]:
    return [dict(turn) for turn in turns]
