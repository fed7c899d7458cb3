"""Frozen features: independent of the company they are computed in, cut on the left, kept on disk."""

import random
from pathlib import Path

import pytest
import torch

from stored import small_disk
from truing.errors import UserError
from truing.models.registry import ModelSettings
from truing.models.sequences import collate
from truing.models.trunk import Trunk, open_trunk
from truing.reward import features as module
from truing.reward.features import FeatureCache, FeatureSpec, Item, by_prompt, features, pool, read, readings_at, shorten

SPEC = FeatureSpec((("last", 1), ("mean", 1), ("max", 2), ("last", 2)), 64)


@pytest.fixture(scope="module")
def trunk(tiny_model: Path) -> Trunk:
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


def items(count: int, seed: int = 0) -> list[Item]:
    rng = random.Random(seed)
    return [
        (tuple(rng.randrange(3, 200) for _ in range(rng.randint(1, 30))), tuple(rng.randrange(3, 200) for _ in range(rng.randint(1, 30)))) for _ in range(count)
    ]


def test_shorten_keeps_the_last_tokens() -> None:
    assert shorten([1, 2, 3], [4, 5], 9) == ((1, 2, 3), (4, 5))
    assert shorten([1, 2, 3], [4, 5], 3) == ((3,), (4, 5))
    assert shorten([1, 2, 3], [4, 5, 6, 7], 3) == ((5,), (6, 7))  # the first token stands for the prompt
    assert shorten([1], [], 4) == ((1,), ())


def test_pooling_by_hand() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [4.0], [9.0]], [[5.0], [7.0], [0.0], [0.0]]])  # (2, 4, 1)
    batch = collate([[1], [1]], [[2, 3, 4], [2]], 0)
    layers = {3: hidden}
    assert pool(layers, batch, FeatureSpec((("last", 3),), 9)).tolist() == [[9.0], [7.0]]
    assert pool(layers, batch, FeatureSpec((("mean", 3),), 9)).tolist() == [[5.0], [7.0]]
    down = {3: -hidden}
    assert pool(down, batch, FeatureSpec((("max", 3), ("last", 3)), 9)).tolist() == [[-2.0, -9.0], [-7.0, -7.0]]


def test_an_empty_response_is_read_at_the_prompts_end() -> None:
    batch = collate([[1, 2], [1]], [[], [3]], 0)
    hidden = {1: torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])}
    assert pool(hidden, batch, FeatureSpec((("mean", 1), ("max", 1)), 9)).tolist() == [[2.0, 2.0], [4.0, 4.0]]


def test_readings_are_poolings_at_shares_of_the_depth() -> None:
    assert readings_at(["last@1.0", "mean@0.6", "max@0.01", "last@1"], 30) == (("last", 30), ("mean", 18), ("max", 1))
    for wrong in ("last", "last@0", "last@1.5", "sum@0.5", "mean@-1", "@0.5", "mean@0.5@2"):
        with pytest.raises(ValueError, match=r"such as mean@0\.6"):
            readings_at([wrong], 30)


def test_features_match_a_lone_sequence_without_padding(trunk: Trunk) -> None:
    many = items(40)
    together = features(trunk, many, SPEC)
    for item, row in zip(many, together, strict=True):
        batch = collate([item[0]], [item[1]], trunk.pad_id)
        with torch.no_grad():
            alone = pool(trunk.hidden_layers(batch, SPEC.layers), batch, SPEC)
        torch.testing.assert_close(row, alone[0], atol=1e-5, rtol=1e-5)


def test_features_depend_on_neither_order_nor_company(trunk: Trunk) -> None:
    many = items(40)
    many += [(many[0][0], many[place][1]) for place in range(1, 9)]  # siblings of the first, who share its prompt
    first = features(trunk, many, SPEC)
    assert torch.equal(features(trunk, many[::-1], SPEC).flip(0), first)
    with torch.no_grad():
        torch.testing.assert_close(read(trunk, many, SPEC, row=40), first, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.cat([read(trunk, [item], SPEC) for item in many]), first, atol=1e-5, rtol=1e-5)


def test_many_responses_of_a_prompt_are_several_trees() -> None:
    items: list[Item] = [((1, 2), (3,) * length) for length in (4, 5, 6, 20, 0)] + [((7,), (8,))]
    trees, places = by_prompt(items, 14)
    assert places == [[0, 1], [2], [3, 4], [5]]  # 2 + 4 + 5 and 2 + 6 fit into 14, 20 never does, and nothing goes with it but what has no tokens
    assert [tree.size for tree in trees] == [11, 8, 22, 2]


def test_a_model_whose_layers_cannot_be_run_in_a_row_gives_the_same(trunk: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    many = items(40)
    first = features(trunk, many, SPEC)
    monkeypatch.setattr(trunk, "splits", False)
    padded = features(trunk, many, SPEC)
    torch.testing.assert_close(padded, first, atol=1e-5, rtol=1e-5)
    assert torch.equal(features(trunk, many[::-1], SPEC).flip(0), padded)


def test_an_adapter_that_is_on_changes_no_features(tiny_model: Path) -> None:
    trunk = open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
    before = features(trunk, items(3), SPEC)
    trunk.add_adapter("policy", rank=2, alpha=4, seed=0)
    for parameter in trunk.adapter_parameters("policy"):
        parameter.data.fill_(0.3)
    with trunk.using("policy"):
        assert torch.equal(features(trunk, items(3), SPEC), before)


def test_cache_answers_without_the_model(trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [*items(20), items(20)[3]]  # one twice
    first = FeatureCache(tmp_path, trunk, SPEC).get(many)
    assert torch.equal(first[3], first[20])
    monkeypatch.setattr(module, "features", lambda *args: pytest.fail("computed again"))
    assert torch.equal(FeatureCache(tmp_path, trunk, SPEC).get(many), first)
    assert FeatureCache(tmp_path, trunk, SPEC).get([]).shape == (0, 4 * 32)


def test_cache_goes_on_where_it_was_stopped(trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = items(20)
    whole = FeatureCache(tmp_path / "whole", trunk, SPEC).get(many)
    monkeypatch.setattr(module, "ROW", 100)
    monkeypatch.setattr(module, "SHARD", 8)
    calls = 0

    def stop(*args: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return features(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "features", stop)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path / "cut", trunk, SPEC).get(many)
    assert list((tmp_path / "cut").rglob("*.safetensors"))  # what was done is kept
    monkeypatch.setattr(module, "features", features)
    torch.testing.assert_close(FeatureCache(tmp_path / "cut", trunk, SPEC).get(many), whole, atol=1e-5, rtol=1e-5)


def test_another_reading_is_another_cache(trunk: Trunk, tmp_path: Path) -> None:
    last = FeatureCache(tmp_path, trunk, FeatureSpec((("last", 2),), 64)).get(items(2))
    mean = FeatureCache(tmp_path, trunk, FeatureSpec((("mean", 2),), 64)).get(items(2))
    assert not torch.equal(last, mean)


def test_a_damaged_cache_says_which_file(trunk: Trunk, tmp_path: Path) -> None:
    FeatureCache(tmp_path, trunk, SPEC).get(items(2))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(b"not a tensor")
    with pytest.raises(UserError, match=r"delete that file"):
        FeatureCache(tmp_path, trunk, SPEC).get(items(2))


def test_a_full_disk_says_what_to_do_and_leaves_nothing_half_written(trunk: Trunk, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk:
        with pytest.raises(UserError, match="the disk is full") as found:
            FeatureCache(disk, trunk, SPEC).get(items(200))
        assert "free some space" in found.value.fix
        assert not [path for path in disk.rglob("*") if path.is_file()]
