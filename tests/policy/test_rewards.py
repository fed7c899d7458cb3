"""What a reward says of answers: doubts where it knows them, and the rule for answers that were cut off."""

from collections.abc import Sequence

import pytest
import torch

from truing.policy.rewards import final_scores, scores_of
from truing.policy.settings import OnlineSettings


@pytest.mark.parametrize(
    ("truncation", "expected"),
    [("set", [3.0, -1.5, -10.0]), ("subtract", [3.0, 0.5, -10.0]), ("keep", [3.0, 2.0, -10.0])],
)
def test_the_rule_for_answers_that_were_cut_off(truncation: str, expected: list[float]) -> None:
    """A finished 3, a cut-off 2 and a finished -40, with a penalty of 1.5 and a clip of 10."""
    settings = OnlineSettings.model_validate({"truncation": truncation, "truncation_penalty": 1.5, "score_clip": 10.0})
    assert final_scores(torch.tensor([3.0, 2.0, -40.0]), torch.tensor([True, False, True]), settings).tolist() == expected


def test_the_clip_comes_after_the_rule() -> None:
    settings = OnlineSettings.model_validate({"truncation": "subtract", "truncation_penalty": 1.5, "score_clip": 2.0})
    assert final_scores(torch.tensor([9.0, 3.0]), torch.tensor([True, False]), settings).tolist() == [2.0, 1.5]


def test_doubts_come_from_a_reward_that_knows_them() -> None:
    class Ensemble:
        def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
            return self.score_with_std(prompts, responses)[0]

        def score_with_std(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[list[float], list[float]]:
            return [float(len(response)) for response in responses], [0.25] * len(prompts)

    scores, doubts, objectives = scores_of(Ensemble(), [[1], [2]], [[3], [4, 5]])
    assert scores.tolist() == [1.0, 2.0]
    assert doubts is not None
    assert doubts.tolist() == [0.25, 0.25]
    assert objectives == {}
