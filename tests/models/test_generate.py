"""Sampling: the exact distribution, and answers that depend on their prompt, their seed and the policy alone."""

import pytest
import torch
from torch import Tensor

from truing.errors import UserError
from truing.models import generate as module
from truing.models.generate import BLOCK, Response, draw, generate, generate_batches
from truing.models.logprobs import response_logprobs
from truing.models.sequences import collate
from truing.models.trunk import Trunk

ALMOST_ONE = 1 - 2**-53  # the largest number that torch.rand gives in float64
PROMPTS = [[5, 6, 7], [9], [10] * 14, [16, 17, 18, 19, 20, 21]]
STEPS = 12


def many(prompts: list[list[int]], copies: int) -> tuple[list[list[int]], list[int]]:
    """Each prompt `copies` times, and a seed for each."""
    repeated = [prompt for prompt in prompts for _ in range(copies)]
    return repeated, list(range(100, 100 + len(repeated)))


def sampled(trunk: Trunk, prompts: list[list[int]], seeds: list[int], *, batch_size: int = 64, steps: int = STEPS, temperature: float = 0.9) -> list[Response]:
    return generate(trunk, prompts, seeds, max_new_tokens=steps, temperature=temperature, batch_size=batch_size)


def assert_same(found: list[Response], expected: list[Response]) -> None:
    """The same tokens; log-probabilities to fp32's rounding."""
    assert [response.token_ids for response in found] == [response.token_ids for response in expected]
    assert [response.finished for response in found] == [response.finished for response in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
        assert one.plain_logprobs == pytest.approx(other.plain_logprobs, abs=1e-5)


@pytest.fixture
def soon(trunk: Trunk) -> Trunk:
    """The tiny model, with so many end tokens that its answers end at all lengths."""
    trunk.eos_ids = frozenset(range(0, 259, 8))
    return trunk


# draw --------------------------------------------------------------------------------------------------------------


def logits_of(vocabulary: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("vocabulary", [1, 5, BLOCK, 259, 2 * BLOCK + 100])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_each_token_gets_its_share_of_the_unit_interval(vocabulary: int, temperature: float) -> None:
    """Of n uniforms on an even grid, an interval of length p holds n p, give or take one at its ends: exact, nothing statistical about it."""
    n = 4096
    logits = logits_of(vocabulary)
    logits[::7] = -torch.inf  # impossible tokens
    if vocabulary == 1:
        logits[0] = 0.0
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens, logprobs, plain = draw(logits.expand(n, -1), uniform, temperature)
    probabilities = (logits.double() / temperature).softmax(0)
    counts = tokens.bincount(minlength=vocabulary)
    assert ((counts - n * probabilities).abs() <= 1 + n * 1e-5).all()
    assert counts[probabilities == 0].sum() == 0
    assert torch.equal(tokens, tokens.sort().values), "the distribution function is walked upwards"
    assert torch.allclose(logprobs, probabilities.log().float()[tokens], atol=1e-5)
    assert torch.allclose(plain, logits.log_softmax(0)[tokens], atol=1e-5)


@pytest.mark.parametrize("vocabulary", [7, 259, 3 * BLOCK])
def test_the_ends_of_the_interval_give_possible_tokens(vocabulary: int) -> None:
    """Impossible tokens at both ends, whole blocks of them included."""
    for first in (0, 1, vocabulary // 2):
        for last in {first, vocabulary // 2, vocabulary - 2}:
            logits = torch.full((vocabulary,), -torch.inf)
            logits[first : last + 1] = logits_of(vocabulary)[first : last + 1]
            tokens, _, _ = draw(logits.expand(2, -1), torch.tensor([0.0, ALMOST_ONE], dtype=torch.float64), 1.0)
            assert tokens.tolist() == [first, last]


def test_only_the_possible_token_is_ever_drawn() -> None:
    """Also where its block's sum and its own weight are rounded differently."""
    for seed in range(50):
        logits = logits_of(600, seed)
        possible = torch.rand(600, generator=torch.Generator().manual_seed(seed)) < 0.05
        logits[~possible] = -torch.inf
        edges = logits.double().softmax(0).cumsum(0)[possible]
        uniform = torch.cat([edges - 1e-16, edges, edges + 1e-16]).clamp(0, ALMOST_ONE)
        tokens, logprobs, _ = draw(logits.expand(len(uniform), -1), uniform, 1.0)
        assert possible[tokens].all()
        assert logprobs.isfinite().all()


def test_rounding_at_the_border_of_a_block_stays_inside_it() -> None:
    """A block's sum and the running sum inside it are rounded differently where weights span magnitudes; the next block begins with an impossible token."""
    for seed in range(40):
        logits = 2.5 * logits_of(3 * BLOCK, seed)
        logits[::BLOCK] = -torch.inf
        up_to = (logits - logits.max()).exp().view(3, BLOCK).sum(1, dtype=torch.float64).cumsum(0)
        uniform = torch.cat([up_to[:2] / up_to[2] + step * 2**-54 for step in range(-4, 5)])
        tokens, logprobs, _ = draw(logits.expand(len(uniform), -1), uniform, 1.0)
        assert (tokens % BLOCK != 0).all()
        assert logprobs.isfinite().all()


def test_rows_are_drawn_from_their_own_distributions() -> None:
    logits = torch.full((3, 300), -torch.inf)
    logits[0, 4], logits[1, 299], logits[2, 256] = 1.0, -50.0, 90.0
    tokens, logprobs, plain = draw(logits, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), 0.5)
    assert tokens.tolist() == [4, 299, 256]
    assert logprobs.tolist() == plain.tolist() == [0.0, 0.0, 0.0]


# generate ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampled_log_probabilities_are_those_of_a_plain_forward_pass(soon: Trunk, temperature: float) -> None:
    prompts, seeds = many(PROMPTS, 4)
    responses = sampled(soon, prompts, seeds, temperature=temperature)
    batch = collate(prompts, [response.token_ids for response in responses], soon.pad_id)
    warm, plain = (response_logprobs(soon, batch, each).logprobs for each in (temperature, 1.0))
    for row, response in enumerate(responses):
        assert response.logprobs == pytest.approx(warm[row, : len(response.token_ids)].tolist(), abs=1e-4)
        assert response.plain_logprobs == pytest.approx(plain[row, : len(response.token_ids)].tolist(), abs=1e-4)


def test_batch_size_order_and_neighbours_do_not_matter(soon: Trunk) -> None:
    prompts, seeds = many(PROMPTS, 4)
    together = sampled(soon, prompts, seeds)
    assert len({tuple(response.token_ids) for response in together}) >= 12, "seeds differ, so answers do"
    assert len({len(response.token_ids) for response in together}) >= 5, "answers of many lengths, so that rows are dropped at many steps"
    assert_same(sampled(soon, prompts, seeds, batch_size=1), together)
    assert_same(sampled(soon, prompts, seeds, batch_size=5), together)
    assert_same(sampled(soon, prompts[::-1], seeds[::-1])[::-1], together)
    assert_same(sampled(soon, prompts[3:9], seeds[3:9]), together[3:9])


def test_a_prompt_and_a_seed_give_one_answer_however_often_they_are_asked(soon: Trunk) -> None:
    first, *others = sampled(soon, [PROMPTS[0]] * 3 + [PROMPTS[2]], [7, 7, 7, 7])
    assert_same(others[:2], [first, first])  # the same tokens; the last bit of a log-probability depends on the row's place among the threads
    assert others[2].token_ids != first.token_ids
    assert_same(sampled(soon, [PROMPTS[0]], [7]), [first])


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])  # never, rarely, at once
def test_dropping_rows_that_have_ended_changes_nothing(soon: Trunk, monkeypatch: pytest.MonkeyPatch, keep: float) -> None:
    prompts, seeds = many(PROMPTS, 4)
    expected = sampled(soon, prompts, seeds)
    monkeypatch.setattr(module, "KEEP", keep)
    assert_same(sampled(soon, prompts, seeds), expected)


def test_an_end_token_cuts_the_same_answer_short(soon: Trunk) -> None:
    prompts, seeds = many(PROMPTS, 4)
    ending, ends = sampled(soon, prompts, seeds), soon.eos_ids
    soon.eos_ids = frozenset()
    endless = sampled(soon, prompts, seeds)
    for short, long in zip(ending, endless, strict=True):
        assert len(long.token_ids) == STEPS
        assert not long.finished
        where = next((step for step, token in enumerate(long.token_ids) if token in ends), None)
        assert short.token_ids == (long.token_ids if where is None else long.token_ids[: where + 1])
        assert short.finished == (where is not None)
        assert len(short.logprobs) == len(short.plain_logprobs) == len(short.token_ids)


def test_every_end_token_of_the_generation_settings_ends_an_answer(trunk: Trunk) -> None:
    assert trunk.eos_ids == {0, 2}
    for end in (0, 2):
        with torch.no_grad():
            trunk.head.weight[end] *= 30  # now likely after about half of all states
        responses = sampled(trunk, *many(PROMPTS, 4))
        assert any(response.finished and response.token_ids[-1] == end for response in responses)
        assert all(token not in trunk.eos_ids for response in responses for token in response.token_ids[:-1])


def test_a_limit_cuts_the_same_answer_off(soon: Trunk) -> None:
    prompts, seeds = many(PROMPTS, 2)
    long, short = sampled(soon, prompts, seeds, steps=STEPS), sampled(soon, prompts, seeds, steps=3)
    for one, other in zip(short, long, strict=True):
        assert one.token_ids == other.token_ids[:3]
        assert one.finished == (one.token_ids[-1] in soon.eos_ids)
    assert [len(response.token_ids) for response in sampled(soon, prompts, seeds, steps=1)] == [1] * len(prompts)


def test_more_tokens_than_the_model_reads_are_refused(trunk: Trunk) -> None:
    assert trunk.longest == 512
    sampled(trunk, [[9] * 510], [1], steps=2)
    with pytest.raises(UserError, match="511 tokens and 2 new ones are more than the 512"):
        sampled(trunk, [[9], [9] * 511], [1, 2], steps=2)


def test_batches_hold_every_sample_once(soon: Trunk) -> None:
    prompts, seeds = many(PROMPTS, 3)
    batches = list(generate_batches(soon, prompts, seeds, max_new_tokens=2, temperature=1.0, batch_size=5))
    assert sorted(index for indices, _ in batches for index in indices) == list(range(12))
    assert [len(indices) for indices, _ in batches] == [len(drawn) for _, drawn in batches] == [5, 5, 2]
    assert sampled(soon, [], []) == []


def test_the_global_random_state_is_neither_read_nor_moved(soon: Trunk) -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = sampled(soon, PROMPTS, [1, 2, 3, 4])
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert sampled(soon, PROMPTS, [1, 2, 3, 4]) == first


def test_a_merged_adapter_draws_from_the_tuned_policy(tuned: Trunk) -> None:
    prompts, seeds = many(PROMPTS, 2)
    with tuned.using("policy"):
        expected = sampled(tuned, prompts, seeds)
    with tuned.merged("policy"):
        assert_same(sampled(tuned, prompts, seeds), expected)
    assert [response.token_ids for response in sampled(tuned, prompts, seeds)] != [response.token_ids for response in expected]
