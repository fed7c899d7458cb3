"""Prompts and responses in one row: each token sees what it would see alone, and no more."""

from pathlib import Path

import pytest
import torch

from truing.models.packed import LEAST_ROWS, ROW_STEP, Span, Tree, attend, pack, packs, trees_of
from truing.models.registry import ModelSettings
from truing.models.sequences import collate
from truing.models.trunk import Trunk, open_trunk

TREES = [Tree((5, 6, 7), ((8, 9), (10,))), Tree((11,), ()), Tree((12, 13), ((), (14, 15, 16)))]


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


def test_a_row_by_hand() -> None:
    packed = pack(TREES, pad_id=0)
    assert packed.input_ids[:12].tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    assert packed.positions[:12].tolist() == [0, 1, 2, 3, 4, 3, 0, 0, 1, 2, 3, 4]  # a response goes on where its prompt ends
    assert packed.trees == [(3, 2, 1), (1,), (2, 0, 3)]
    assert packed.spans == [Span(3, 5), Span(5, 6), Span(8, 9), Span(9, 12)]  # of one without tokens, the prompt's last
    assert len(packed.input_ids) == LEAST_ROWS
    assert len(pack([Tree((1,) * (LEAST_ROWS + 1), ())], 0).input_ids) == LEAST_ROWS + ROW_STEP
    with pytest.raises(ValueError, match="without tokens"):
        pack([Tree((), ((1,),))], 0)


def test_the_state_before_a_token_predicts_it() -> None:
    """The first token of every response is predicted by the last of its prompt, however far away that stands."""
    packed = pack(TREES, pad_id=0)
    places = torch.arange(len(packed.input_ids))[:, None]
    assert packed.targets.tolist() == [8, 9, 10, 14, 15, 16]
    assert packed.predicting(places)[:, 0].tolist() == [2, 3, 2, 8, 9, 10]
    assert packed.reading(places)[:, 0].tolist() == [3, 4, 5, 9, 10, 11]
    assert [states[:, 0].tolist() for states in packed.response_states(places)] == [[3, 4], [5], [8], [9, 10, 11]]
    assert packed.rectangle(packed.targets).tolist() == [[8, 9, 0], [10, 0, 0], [0, 0, 0], [14, 15, 16]]
    assert packed.longest == 5


def test_neighbours_with_one_prompt_are_one_tree() -> None:
    assert trees_of([[1], [1], [2], [1]], [[3], [4], [5], [6]]) == [Tree((1,), ((3,), (4,))), Tree((2,), ((5,),)), Tree((1,), ((6,),))]


def test_packs_hold_no_more_than_they_may_and_all_there_is() -> None:
    assert packs([3, 9, 1, 4, 4, 20], 10) == [[5], [1], [3, 4], [0, 2]]
    assert packs([], 10) == []


def test_a_response_in_a_row_reads_what_it_reads_alone(trunk: Trunk) -> None:
    packed = pack(TREES, trunk.pad_id)
    with torch.no_grad():
        found = trunk.hidden_layers(packed, (1, 2))
        spans = iter(packed.spans)
        for prompt, responses in TREES:
            for response in responses:
                batch = collate([prompt], [response], trunk.pad_id)
                alone = trunk.hidden_layers(batch, (1, 2))
                start, end = next(spans)
                for layer in (1, 2):
                    own = alone[layer][0, len(prompt) if response else len(prompt) - 1 :]
                    torch.testing.assert_close(found[layer][start:end], own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("whole", [False, True])
def test_short_attention_of_bf16_is_rounded_once_at_its_end(whole: bool) -> None:
    packed = pack(TREES, 0, whole=whole, fill=False)
    draw = torch.Generator().manual_seed(0)
    states = [torch.randn(12, heads, 8, generator=draw).bfloat16().requires_grad_() for heads in (4, 2, 2)]
    fine = [one.detach().float().requires_grad_() for one in states]
    coarse, exact = (attend(query, key, value, 0.3, packed) for query, key, value in (states, fine))
    assert torch.equal(coarse, exact.bfloat16())
    coarse.sum().backward()
    exact.sum().backward()
    asked = states[0].grad, fine[0].grad
    assert asked[0] is not None
    assert asked[1] is not None
    assert torch.equal(asked[0], asked[1].bfloat16())  # of keys and values, sums of what was rounded
    for one, other in zip(states[1:], fine[1:], strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert (one.grad - other.grad).abs().max() < 2**-7 * other.grad.abs().max()


def test_gradients_of_a_row_are_those_of_its_parts(tiny_model: Path) -> None:
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    trunk.add_adapter("reward", rank=2, alpha=4, seed=0)
    parameters = trunk.adapter_parameters("reward")
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    pull = torch.randn(trunk.hidden_size, generator=torch.Generator().manual_seed(2))

    def gradients(row: bool) -> list[torch.Tensor]:
        for parameter in parameters:
            parameter.grad = None
        with trunk.using("reward"):
            if row:
                packed = pack(TREES, trunk.pad_id)
                hidden = trunk.hidden_layers(packed, (trunk.layers,))[trunk.layers]
                loss = sum((hidden[start:end] @ pull).sum() for start, end in packed.spans)
            else:
                pairs = [(prompt, response) for prompt, responses in TREES for response in responses]
                states = [(trunk.hidden(collate([p], [r], trunk.pad_id))[0], len(p) - (not r)) for p, r in pairs]
                loss = sum((own[start:] @ pull).sum() for own, start in states)
            assert isinstance(loss, torch.Tensor)
            loss.backward()
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    together, apart = gradients(True), gradients(False)
    assert len(together) == len(parameters)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
