"""A Python function of the user's as a scorer.

    def reward(prompt: list[dict], responses: list[str]) -> list[float]:

`prompt` is a conversation, each turn with its `role` and `content`, that ends with a user turn; `responses` are texts that answer it; the scores come in their
order, the higher the better, in any unit. One conversation is asked about at a time, with all its responses that are wanted then.

Running it is running the user's code, with the user's rights: nothing here fences it in.
"""

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import CodeType
from typing import Any

from truing.errors import UserError
from truing.reward.score import Answer
from truing.store.ids import content_id

RewardFunction = Callable[[list[dict[str, str]], list[str]], Sequence[float]]


class FunctionScorer:
    """Scores by a function, checked.

    Attributes:
        name: how errors call it, such as rewards.py:brevity.
    """

    def __init__(self, name: str, function: RewardFunction) -> None:
        self.name, self._function = name, function

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """The raw score of each answer. What the function raises goes on up with its traceback.

        Raises:
            UserError: the function gave something else than a finite number for each response.
        """
        together: dict[str, list[int]] = {}
        for place, answer in enumerate(answers):
            together.setdefault(content_id([dict(turn) for turn in answer.turns]), []).append(place)
        scores = [0.0] * len(answers)
        for places in together.values():
            asked = [answers[place].text for place in places]
            for place, score in zip(places, self._ask([dict(turn) for turn in answers[places[0]].turns], asked), strict=True):
                scores[place] = score
        return scores

    def _ask(self, prompt: list[dict[str, str]], responses: list[str]) -> list[float]:
        wanted = len(responses)
        try:
            given: Any = self._function(prompt, list(responses))
        except Exception as error:
            error.add_note(f"raised by the reward function {self.name}")
            raise
        try:
            found = [float(score) for score in given]
        except (TypeError, ValueError) as error:
            raise self._wrong(f"gave {_shown(given)}, where {wanted} numbers were wanted") from error
        if len(found) != wanted:
            raise self._wrong(f"gave {len(found)} scores for {wanted} responses")
        if bad := [place for place, score in enumerate(found) if not math.isfinite(score)]:
            raise self._wrong(f"gave {found[bad[0]]} as a score, for the response {_shown(responses[bad[0]])}")
        return found

    def _wrong(self, what: str) -> UserError:
        return UserError(f"the reward function {self.name} {what}", fix="let it return a list with one finite number for each response, in their order")


class _SourceOnly(SourceFileLoader):
    """Reads source and writes no compiled copy of it beside: an artifact's folder stays as it is."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def open_function(file: Path, name: str) -> FunctionScorer:
    """Run a file and take a function out of it. What the file raises goes on up with its traceback.

    Args:
        file: Python source; it stands alone, so that it can import what is installed and nothing that lies beside it.

    Raises:
        UserError: it has no such function, or one that can't be called with a conversation and its responses.
    """
    shown = f"{file.name}:{name}"
    module_name = f"truing_reward_{content_id(str(file.absolute()), file.read_text(encoding='utf-8'), length=16)}"
    spec = spec_from_loader(module_name, _SourceOnly(module_name, str(file)))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module_name]
        raise UserError(f"{file.name} has no function {name!r}", fix=f"name one that it has: {', '.join(own)}" if own else "write one: docs/reward-outside.md")
    _require_signature(shown, function)
    return FunctionScorer(shown, function)


def _require_signature(shown: str, function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind([], [])
    except TypeError as error:
        raise UserError(
            f"{shown} can't be called with a conversation and its responses: {error}",
            fix="write it as `def reward(prompt: list[dict], responses: list[str]) -> list[float]`",
        ) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
