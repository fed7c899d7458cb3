"""Where a reward model from outside comes from: what the user names → files on this disk, with the hash of each."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from truing.errors import UserError

HUB = "hub:"
READ = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # what a model and its tokenizer are read from: no pickle, no code


class Function(NamedTuple):
    """A Python function in a file."""

    file: Path
    name: str


class Folder(NamedTuple):
    """A model in transformers' format on this disk.

    Attributes:
        name: as the user named it: a Hub name, or a whole path.
        revision: the Hub's commit, None for a folder of the user's.
        path: where it lies.
    """

    name: str
    revision: str | None
    path: Path

    def hashes(self) -> dict[str, str]:
        """File → sha256, of everything that is read."""
        files = sorted({file for pattern in READ for file in self.path.glob(pattern)})
        return {file.name: _sha256(file) for file in files}


def parse(words: str) -> Function | Folder:
    """What a user names: `hub:NAME_OR_FOLDER`, a folder, or `FILE.py:FUNCTION`.

    Raises:
        UserError: it is none of these, it isn't there, or the Hub can't be asked.
    """
    file, colon, function = words.rpartition(":")
    if colon and file.endswith(".py"):
        if not Path(file).is_file():
            raise UserError(f"there is no file {file}", fix="name a Python file and a function in it, such as rewards.py:brevity")
        return Function(Path(file), function)
    name = words.removeprefix(HUB)
    if Path(name).expanduser().is_dir():
        return local(Path(name).expanduser().absolute())
    if words.startswith(HUB) and name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return from_hub(name)
    raise UserError(
        f"{words} names no reward model", fix="name hub:OWNER/NAME or hub:FOLDER (a sequence-classification model), or FILE.py:FUNCTION (a Python function)"
    )


def local(path: Path) -> Folder:
    """A folder of the user's.

    Raises:
        UserError: it holds no whole model, or one that only a pickle holds.
    """
    found = Folder(str(path), None, path)
    require_model(found)
    return found


def from_hub(name: str, revision: str | None = None) -> Folder:
    """A model of the Hub, fetched unless it is on this disk; of its files, only those that are read.

    Args:
        revision: the commit that is wanted: where it is on this disk, nothing is asked of the network. None: the newest.

    Raises:
        UserError: it can't be had, holds no whole model, or one that only a pickle holds.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        path = _snapshot(name, revision)
    except (OSError, HFValidationError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"the model {name} can't be had: {reason}", fix="check the name and the network, or name a folder that holds it") from error
    found = Folder(name, path.name, path)
    require_model(found)
    return found


def opened_again(facts: Mapping[str, Any]) -> Folder:
    """The model that an artifact was made from, once it proves to be the same.

    Args:
        facts: name, revision and files of the artifact.

    Raises:
        UserError: it isn't there any more, or its files have changed.
    """
    name, revision = facts["name"], facts["revision"]
    if revision is None and not Path(name).is_dir():
        raise UserError(f"the model at {name} isn't there any more", fix="put it back, or bring it in from where it is with `truing reward use`")
    found = local(Path(name)) if revision is None else from_hub(name, revision)
    hashes, then = found.hashes(), facts["files"]
    if hashes != then:
        changed = ", ".join(sorted(file for file in {*hashes, *then} if hashes.get(file) != then.get(file)))
        raise UserError(f"the model at {name} isn't what it was: {changed}", fix="put it back as it was, or bring the new one in with `truing reward use`")
    return found


def require_model(folder: Folder) -> None:
    """Stop where a folder can't be opened without a pickle, or not by itself.

    Raises:
        UserError: it is an adapter, or has no config.json or no safetensors.
    """
    if (folder.path / "adapter_config.json").exists() and not (folder.path / "config.json").exists():
        raise UserError(f"{folder.name} is an adapter without the model it belongs to", fix="merge the two (PEFT's merge_and_unload), save that and name it")
    if not (folder.path / "config.json").exists():
        raise UserError(f"{folder.name} holds no model: it has no config.json", fix="name a folder written by save_pretrained, or a Hub name")
    if not any(folder.path.glob("*.safetensors")):
        raise UserError(
            f"{folder.name} has no safetensors; Truing opens no pickles, which can run any code",
            fix="open it where you trust it and save it with save_pretrained, which writes safetensors; or look for a conversion on the Hub",
        )


def _snapshot(name: str, revision: str | None) -> Path:
    """The folder of the cache that holds a commit; its name is the commit's."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if revision is not None:
        with suppress(LocalEntryNotFoundError):
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(READ), local_files_only=True))
    return Path(snapshot_download(name, revision=revision, allow_patterns=list(READ)))


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
