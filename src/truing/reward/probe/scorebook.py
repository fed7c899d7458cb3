"""Scores that are kept: a probe asks for thousands, many of them twice, and one that was interrupted goes on from those it has."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from truing.console import track
from truing.errors import UserError
from truing.reward.features import keep
from truing.reward.probe.attributes import Case
from truing.reward.score import Answer, AnyRewardModel, Scorer
from truing.store.ids import content_id

CHUNK = 64  # texts scored at a time
SECONDS_BETWEEN_SAVES = 5.0


class ScoreBook:
    """Scores of cases under one scorer, each asked for once.

    The texts are scored in the same company whether or not the work was interrupted, so that the scores have the same bits.

    Args:
        scorer: a reward model made here reads a response that was cut off without an end token, as it did when it learned; any other scorer sees the
            texts alone.
        file: where scores are kept on the way; None keeps them in memory.
        beat: called with how far a scoring with a label is.

    Raises:
        UserError: the file can't be read.
    """

    def __init__(self, scorer: Scorer, file: Path | None = None, beat: Callable[..., None] = lambda **facts: None) -> None:
        self._scorer, self._file, self._beat = scorer, file, beat
        self._known: dict[str, float] = _read(file) if file is not None and file.exists() else {}
        self._saved = time.monotonic()

    def __call__(self, cases: Sequence[Case], label: str | None = None) -> list[float]:
        """The normalised score of each case; with a label, how far the scoring is is shown."""
        keys = [content_id([dict(turn) for turn in case.turns], case.text, case.finished) for case in cases]
        missing = {key: case for key, case in zip(keys, cases, strict=True) if key not in self._known}
        starts = range(0, len(missing), CHUNK)
        order = sorted(missing, key=lambda key: missing[key].prompt_id)  # a prompt is read once for all its responses
        for start in starts if label is None else track(starts, f"probe: {label}", len(starts)):
            chunk = order[start : start + CHUNK]
            self._known.update(zip(chunk, score_cases(self._scorer, [missing[key] for key in chunk]), strict=True))
            if label is not None:
                self._beat(step=label, done=min(start + CHUNK, len(missing)), total=len(missing))
            if time.monotonic() - self._saved >= SECONDS_BETWEEN_SAVES:
                self.save()
        return [self._known[key] for key in keys]

    def save(self) -> None:
        """Write down what is known."""
        if self._file is not None:
            keep(self._file, json.dumps(self._known).encode())
        self._saved = time.monotonic()


def _read(file: Path) -> dict[str, float]:
    try:
        known: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} can't be read: {error}", fix="delete that file: its scores are taken again") from error
    return known


def score_cases(scorer: Scorer, cases: Sequence[Case]) -> list[float]:
    """Normalised scores; see `ScoreBook` for what becomes of a response that was cut off."""
    if isinstance(scorer, AnyRewardModel):
        return scorer.score_answers([Answer(case.turns, case.text, finished=case.finished) for case in cases])[0]
    return scorer.score_texts([case.turns for case in cases], [case.text for case in cases])[0]
