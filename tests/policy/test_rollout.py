"""What is kept of the answers: the right numbers under policy and reference, scores by the rules, parts that don't change anything."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate, groupby
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adapters import stir
from truing.models.generate import generate
from truing.models.logprobs import response_logprobs
from truing.models.packed import Packed
from truing.models.sequences import collate
from truing.models.trunk import Rows, Trunk
from truing.policy.rollout import Rollout, deal, draw_rollout, top_layers, widen
from truing.policy.settings import OnlineSettings
from tuning import settings_for

PROMPTS = [[5, 6, 7], [5, 6, 7], [9], [9], [10] * 9, [10] * 9, [16, 17], [16, 17]]
SEEDS = list(range(8))


def by_length(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    return [float(len(response)) for response in responses]


@pytest.fixture
def tuned(trunk: Trunk) -> Trunk:
    """A policy that is not the base, whose answers end at all lengths."""
    trunk.eos_ids = frozenset(range(0, 259, 8))
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1)
    stir(trunk, "policy", seed=2, size=0.05)
    return trunk


def rollout_of(trunk: Trunk, head: nn.Linear | None = None, *, beta: float = 0.1, **changes: Any) -> Rollout:
    settings = settings_for("ppo", **changes)
    return draw_rollout(trunk, head, PROMPTS, SEEDS, by_length, settings, beta=beta, temperature=0.9, max_new_tokens=10)


def test_log_probabilities_are_the_policys_and_the_bases(tuned: Trunk) -> None:
    torch.manual_seed(0)
    head = nn.Linear(tuned.hidden_size, 1)
    rollout = rollout_of(tuned, head, microbatch=3)
    lengths = [len(response.token_ids) for response in rollout.responses]
    assert len(set(lengths)) >= 4
    assert rollout.mask.sum(1).tolist() == lengths
    batch = collate(PROMPTS, [response.token_ids for response in rollout.responses], tuned.pad_id)
    with torch.no_grad():
        base = response_logprobs(tuned, batch, 0.9)
        with tuned.using("policy"):
            hidden = tuned.hidden(batch)
            policy = response_logprobs(tuned, batch, 0.9)
        values = batch.rectangle(head(batch.predicting(hidden))[:, 0])
    assert rollout.values is not None
    for found, expected in (
        (rollout.logprobs, policy.logprobs),
        (rollout.entropy, policy.entropy),
        (rollout.ref_logprobs, base.logprobs),
        (rollout.values, values),
    ):
        assert (found - expected).abs().max() < 1e-5
        assert not found.requires_grad
        assert not found[~rollout.mask].any()
    assert (rollout.logprobs - rollout.ref_logprobs).abs().max() > 0.05
    for row, response in enumerate(rollout.responses):
        assert rollout.logprobs[row, : lengths[row]].tolist() == pytest.approx(response.logprobs, abs=1e-4), "what sampling said of the same tokens"


def test_answers_come_from_the_policy_at_its_temperature(tuned: Trunk) -> None:
    with tuned.merged("policy"):
        expected = generate(tuned, PROMPTS, SEEDS, max_new_tokens=10, temperature=0.9)
    assert [response.token_ids for response in rollout_of(tuned).responses] == [response.token_ids for response in expected]


def test_an_answer_earns_its_score_less_the_price_of_its_kl(tuned: Trunk) -> None:
    rollout = rollout_of(tuned, beta=0.5)
    lengths = rollout.mask.sum(1)
    assert rollout.raw_scores.tolist() == [float(length) for length in lengths]
    assert torch.allclose(rollout.kl[rollout.mask], (rollout.logprobs - rollout.ref_logprobs)[rollout.mask])
    kl = (rollout.kl * rollout.mask).sum(1)
    assert torch.allclose(rollout.rewards.sum(1), rollout.scores - 0.5 * kl, atol=1e-5)
    last = rollout.rewards.gather(1, lengths[:, None] - 1)[:, 0]
    assert torch.allclose(last, rollout.scores - 0.5 * rollout.kl.gather(1, lengths[:, None] - 1)[:, 0], atol=1e-5), "the score stands on the last real token"


def test_the_size_of_a_part_changes_nothing(tuned: Trunk) -> None:
    expected = rollout_of(tuned, microbatch=8)
    for microbatch in (1, 3):
        found = rollout_of(tuned, microbatch=microbatch)
        assert [response.token_ids for response in found.responses] == [response.token_ids for response in expected.responses]
        for name in ("logprobs", "ref_logprobs", "entropy", "rewards", "kl"):
            assert (getattr(found, name) - getattr(expected, name)).abs().max() < 1e-5


def test_a_part_is_its_answers(tuned: Trunk) -> None:
    rollout = rollout_of(tuned, microbatch=3)
    for number, part in enumerate(rollout.parts):
        rows = rollout.part(number, tuned)
        assert isinstance(rows, Packed)
        said = iter(rows.targets.split(rows.lengths))
        read = iter([rows.input_ids[end - sum(tree) : end].tolist() for end, tree in zip(accumulate(map(sum, rows.trees)), rows.trees, strict=True)])
        for prompt, members in groupby(part, key=lambda index: PROMPTS[index]):
            assert next(read)[: len(prompt)] == prompt, "read once for all of them"
            for index in members:
                assert next(said).tolist() == list(rollout.responses[index].token_ids)


def test_layers_below_the_adapter_are_run_once(trunk: Trunk) -> None:
    """Going on from their states gives what a run from the tokens gives."""
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1, top_layers=1)
    stir(trunk, "policy", seed=2)
    rollout = rollout_of(trunk, layers="top-half", microbatch=3)
    assert [None if lower is None else lower.layers for lower in rollout.lower] == [1] * len(rollout.parts)
    batch = collate(PROMPTS, [response.token_ids for response in rollout.responses], trunk.pad_id)
    with torch.no_grad():
        assert (rollout.ref_logprobs - response_logprobs(trunk, batch, 0.9).logprobs).abs().max() < 1e-5
        with trunk.using("policy"):
            assert (rollout.logprobs - response_logprobs(trunk, batch, 0.9).logprobs).abs().max() < 1e-5


def test_widen_adds_zeros_to_the_right() -> None:
    assert widen(torch.tensor([[1.0, 2.0]]), 4).tolist() == [[1, 2, 0, 0]]


@given(st.lists(st.integers(2, 40), min_size=2, max_size=24), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
def test_dealing_uses_every_answer_once_and_minibatches_ignore_the_size_of_parts(lengths: list[int], minibatches: int, microbatch: int, other: int) -> None:
    minibatches = min(minibatches, len(lengths))
    samples = {"samples": len(lengths), "group_size": 1, "minibatches": minibatches}
    parts, steps = deal(lengths, OnlineSettings.model_validate(samples | {"microbatch": microbatch}))
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    assert [number for step in steps for number in step] == list(range(len(parts)))
    assert all(1 <= len(part) <= microbatch for part in parts)
    sizes = [sum(len(parts[number]) for number in step) for step in steps]
    assert len(steps) == minibatches
    assert max(sizes) - min(sizes) <= 1
    other_parts, other_steps = deal(lengths, OnlineSettings.model_validate(samples | {"microbatch": other}))
    assert [[index for number in step for index in parts[number]] for step in steps] == [
        [index for number in step for index in other_parts[number]] for step in other_steps
    ]


class LastState:
    """A reward that reads hidden states: the sum of the last token's state at two layers."""

    longest = 64

    def __init__(self, trunk: Trunk) -> None:
        self.trunk, self.feature_layers = trunk, (1, trunk.layers)

    def score_hidden(self, hidden: Mapping[int, torch.Tensor], rows: Rows) -> tuple[list[float], list[float]]:
        each = zip(*(rows.response_states(hidden[layer]) for layer in self.feature_layers), strict=True)
        last = [sum(float(states[-1].sum()) for states in layers) for layers in each]
        return last, [value / 2 for value in last]

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        found = []
        for prompt, response in zip(prompts, responses, strict=True):
            batch = collate([prompt], [response], self.trunk.pad_id)
            with torch.no_grad(), self.trunk.using(None):
                found += self.score_hidden(self.trunk.hidden_layers(batch, self.feature_layers), batch)[0]
        return found


@pytest.mark.parametrize("layers", ["all", "top-half"])
def test_a_reward_that_reads_hidden_states_is_served_by_the_references_pass(trunk: Trunk, layers: str) -> None:
    """The same scores, in the order of the answers, as by a pass of its own."""
    settings = settings_for("ppo", samples=4, group_size=1, microbatch=2, truncation="keep", layers=layers)
    prompts = [[5, 6, 7], [8, 9], [10, 11, 12, 13], [14]]
    reward = LastState(trunk)
    trunk.add_adapter("policy", rank=2, alpha=4, seed=1, top_layers=top_layers(trunk, settings))
    draw = partial(draw_rollout, trunk, None, prompts, [1, 2, 3, 4], settings=settings, beta=0.1, temperature=1.0, max_new_tokens=5)
    shared, apart = draw(score=reward), draw(score=lambda p, r: reward(p, r))
    assert len(set(shared.raw_scores.tolist())) == 4
    assert torch.allclose(shared.raw_scores, apart.raw_scores, rtol=0, atol=1e-4)
    assert torch.equal(shared.ref_logprobs, apart.ref_logprobs)
    assert shared.doubts is not None
    assert torch.equal(shared.doubts, shared.raw_scores / 2)
    assert apart.doubts is None  # a plain function knows none


@pytest.mark.parametrize(("longest", "calls"), [(64, 0), (8, 1), (0, 1)])  # all fit, some don't, never
def test_answers_longer_than_such_a_reward_can_read_are_scored_by_itself(trunk: Trunk, longest: int, calls: int) -> None:
    made = 0

    class Short(LastState):
        def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
            nonlocal made
            made += 1
            return super().__call__(prompts, responses)

    reward = Short(trunk)
    reward.longest = longest
    trunk.add_adapter("policy", rank=2, alpha=4, seed=1)
    settings = settings_for("rloo", samples=4, group_size=2, microbatch=3)
    draw_rollout(trunk, None, [[5, 6, 7], [8, 9], [10] * 9, [14]], [1, 2, 3, 4], reward, settings, beta=0.1, temperature=1.0, max_new_tokens=5)
    assert made == calls


def test_objectives_come_from_a_reward_that_is_made_of_several(trunk: Trunk) -> None:
    class Several:
        def __init__(self) -> None:
            self.parts = {"kind": None, "brief": None}

        def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
            return self.score_objectives(prompts, responses)[0]

        def score_objectives(
            self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
        ) -> tuple[list[float], list[float], dict[str, list[float]]]:
            lengths = [float(len(response)) for response in responses]
            return lengths, [0.25] * len(prompts), {"brief": [-length for length in lengths]}

    trunk.add_adapter("policy", rank=2, alpha=4, seed=1)
    settings = settings_for("rloo", samples=4, group_size=2, microbatch=3)
    rollout = draw_rollout(trunk, None, [[5, 6, 7], [8, 9], [10] * 9, [14]], [1, 2, 3, 4], Several(), settings, beta=0.1, temperature=1.0, max_new_tokens=5)
    assert rollout.doubts is not None
    assert rollout.doubts.tolist() == [0.25] * 4
    assert rollout.raw_scores.tolist() == [float(len(response.token_ids)) for response in rollout.responses]
    assert torch.equal(rollout.objectives["brief"], -rollout.raw_scores)
