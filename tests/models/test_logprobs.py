"""Log-probabilities of response tokens: right numbers, right gradients, the right token, and no influence of neighbours."""

import pytest
import torch
from torch import Tensor

from truing.models import logprobs as module
from truing.models.logprobs import _SelectedLogprobs, response_logprobs
from truing.models.sequences import collate
from truing.models.trunk import Trunk

PROMPTS = [[5, 6, 7], [9], [10, 11, 12, 13, 14, 15], [16, 17]]
RESPONSES = [[8, 9, 10, 11], [12, 2], [20], [30, 31, 32, 33, 34, 35, 36]]


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def naive(rows: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, softcap: float | None) -> torch.distributions.Categorical:
    logits = torch.nn.functional.linear(rows, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return torch.distributions.Categorical(logits=logits / temperature)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("chunk", [3, 7, 512])  # 7 rows: two boundaries, one exact fit, all at once
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_log_softmax(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None, temperature: float, chunk: int, biased: bool
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    rows, weight, bias = random(7, 4).requires_grad_(True), random(11, 4), random(11) if biased else None
    targets = torch.tensor([0, 10, 3, 3, 7, 1, 9])
    logprobs, entropy = _SelectedLogprobs.apply(rows, weight, bias, targets, temperature, softcap, False)
    expected = naive(rows, weight, bias, temperature, softcap)
    assert torch.allclose(logprobs, expected.log_prob(targets), rtol=0, atol=1e-12)
    assert torch.allclose(entropy, expected.entropy(), rtol=0, atol=1e-12)
    assert not entropy.requires_grad
    assert torch.autograd.gradcheck(lambda rows: _SelectedLogprobs.apply(rows, weight, bias, targets, temperature, softcap, False)[0], (rows,))
    assert torch.autograd.gradcheck(lambda rows: _SelectedLogprobs.apply(rows, weight, bias, targets, temperature, softcap, True), (rows,))
    learned = [weight.requires_grad_(True), *([] if bias is None else [bias.requires_grad_(True)])]

    def found(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _SelectedLogprobs.apply(rows, weight, bias, targets, temperature, softcap, True)  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(found, (rows, *learned))
    assert torch.autograd.gradcheck(found, (rows.detach(), *learned))  # nothing below is learned


def test_bf16_rows_give_fp32_log_probabilities() -> None:
    rows, weight = random(5, 32).bfloat16().requires_grad_(True), random(50, 32).bfloat16()
    targets = torch.arange(5)
    logprobs, entropy = _SelectedLogprobs.apply(rows, weight, None, targets, 1.0, None, False)
    exact = naive(rows.detach().double(), weight.double(), None, 1.0, None)
    assert logprobs.dtype == entropy.dtype == torch.float32
    assert torch.allclose(logprobs.double(), exact.log_prob(targets), rtol=0.01, atol=0.01)
    logprobs.sum().backward()
    assert rows.grad is not None
    assert rows.grad.dtype == torch.bfloat16


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_each_token_is_predicted_by_the_state_just_before_it(trunk: Trunk, temperature: float) -> None:
    """Against the model's own logits, one sequence and one token at a time."""
    batch = collate(PROMPTS, RESPONSES, trunk.pad_id)
    found = response_logprobs(trunk, batch, temperature)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        for step, token in enumerate(response):
            logits = trunk.model(input_ids=torch.tensor([prompt + response[:step]])).logits[0, -1] / temperature
            expected = torch.distributions.Categorical(logits=logits)
            assert float(found.logprobs[row, step]) == pytest.approx(float(expected.log_prob(torch.tensor(token))), abs=1e-4)
            assert float(found.entropy[row, step]) == pytest.approx(float(expected.entropy()), abs=1e-4)
    assert not found.logprobs[~batch.mask].any()
    assert not found.entropy[~batch.mask].any()


@torch.no_grad()
def test_padding_and_order_do_not_matter(trunk: Trunk) -> None:
    together = response_logprobs(trunk, collate(PROMPTS, RESPONSES, trunk.pad_id), 0.9).logprobs
    other_pad = response_logprobs(trunk, collate(PROMPTS, RESPONSES, 77), 0.9).logprobs
    backwards = response_logprobs(trunk, collate(PROMPTS[::-1], RESPONSES[::-1], trunk.pad_id), 0.9).logprobs.flip(0)
    assert torch.equal(together, other_pad)
    assert (together - backwards).abs().max() <= 1e-5
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        alone = response_logprobs(trunk, collate([prompt], [response], trunk.pad_id), 0.9).logprobs[0]
        assert (together[row, : len(response)] - alone).abs().max() <= 1e-5


@torch.no_grad()
def test_states_that_the_caller_has_are_used(trunk: Trunk) -> None:
    batch = collate(PROMPTS, RESPONSES, trunk.pad_id)
    assert torch.equal(response_logprobs(trunk, batch, 1.0, hidden=trunk.hidden(batch)).logprobs, response_logprobs(trunk, batch, 1.0).logprobs)


def test_gradients_reach_every_part_of_the_adapter(tuned: Trunk) -> None:
    """Against autograd through the model's own logits."""
    batch = collate(PROMPTS, RESPONSES, tuned.pad_id)
    parameters = tuned.adapter_parameters("policy")
    with tuned.using("policy"):
        ours = torch.autograd.grad(response_logprobs(tuned, batch, 0.7).logprobs.sum(), parameters)
        logits = tuned.model(input_ids=batch.input_ids).logits / 0.7
        theirs = torch.autograd.grad(batch.predicting(logits).log_softmax(1).gather(1, batch.targets[:, None]).sum(), parameters)
    for our, their in zip(ours, theirs, strict=True):
        assert our.abs().max() > 0
        assert (our - their).abs().max() <= 1e-4 * float(their.abs().max())
