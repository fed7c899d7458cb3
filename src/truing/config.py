"""Settings: one declaration each, beside the stage that uses it; here is how they are read.

A stage declares `class SampleSettings(Settings)`; `truing.toml` holds a table for each stage, and `--set
samples.temperature=0.8` changes one value. `SECTIONS` names every table and where it is declared, as text, so that
reading one stage's settings imports that stage alone.
"""

import difflib
import errno
import importlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from safetensors import SafetensorError

from truing.errors import SettingError, UserError

SECTIONS: dict[str, str] = {
    "round": "truing.rounds:RoundSettings",
    "model": "truing.models.registry:ModelSettings",
    "prompts": "truing.prompts:PromptSettings",
    "samples": "truing.samples:SampleSettings",
    "feedback": "truing.feedback.questions:FeedbackSettings",
    "crowd": "truing.feedback.simulated:CrowdSettings",
    "quality": "truing.feedback.quality:QualitySettings",
    "preferences": "truing.preferences:PreferenceSettings",
    "reward": "truing.reward.train:RewardSettings",
    "probe": "truing.reward.probe.stage:ProbeSettings",
    "tune": "truing.policy.algorithms.ppo:PPOSettings",
    "evaluation": "truing.evaluation.winrate:EvaluationSettings",
}


class Settings(BaseModel):
    """Base of every stage's settings: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: Any) -> Any:
        """TOML has no null: the word "none" stands for it."""
        return None if value == "none" else value


S = TypeVar("S", bound=Settings)


def section_class(section: str) -> type[Settings]:
    """The settings class of a section; imports its module.

    Raises:
        SettingError: no such section.
    """
    if section not in SECTIONS:
        raise SettingError(f"there is no settings section [{section}]", fix=_nearest(section, SECTIONS))
    module, _, name = SECTIONS[section].partition(":")
    found: type[Settings] = getattr(importlib.import_module(module), name)
    return found


def read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a settings file, unchecked but for the names of its sections.

    Raises:
        UserError: the file can't be read as TOML.
        SettingError: a section is unknown, or a key stands outside every section.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}", fix=f"mend that line of {path.name}") from error
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise SettingError(f"{path}: `{section}` stands outside every section", fix=f"put it under one of {', '.join(SECTIONS)}")
        if section not in SECTIONS:
            raise SettingError(f"{path}: there is no settings section [{section}]", fix=_nearest(section, SECTIONS))
    return tables


def with_overrides(tables: Mapping[str, Mapping[str, Any]], overrides: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`tables` with each `section.key=value` of `--set` applied; `read_value` says how a value is read.

    Raises:
        SettingError: the text isn't of that form, or names no section.
    """
    merged = {section: dict(table) for section, table in tables.items()}
    for text in overrides:
        path, equals, raw = text.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise SettingError(f"--set {text!r} is not of the form section.key=value", fix="for example --set samples.temperature=0.8")
        if section not in SECTIONS:
            raise SettingError(f"--set {text!r}: there is no settings section [{section}]", fix=_nearest(section, SECTIONS))
        merged.setdefault(section, {})[key.strip()] = read_value(raw)
    return merged


def read_value(text: str) -> Any:
    """A setting's value as TOML where it is TOML (3, 0.1, true, [1, 2]), and as plain text otherwise."""
    try:
        return tomllib.loads(f"x = {text.strip()}")["x"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def build(kind: type[S], section: str, values: Mapping[str, Any]) -> S:
    """Validated settings of one section.

    Raises:
        SettingError: a key is unknown (the nearest known one is named) or a value out of its bounds.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        if not key:  # of several settings together
            raise SettingError(f"[{section}]: {said}", fix=f"change it under [{section}] in truing.toml, or with --set {section}.KEY=VALUE") from error
        if first["type"] == "extra_forbidden":
            raise SettingError(f"there is no setting {section}.{key}", fix=_nearest(key, kind.model_fields)) from error
        field = kind.model_fields.get(key)
        meaning = f" ({field.description})" if field and field.description else ""
        raise SettingError(f"{section}.{key} = {first['input']!r}: {said}", fix=f"change {section}.{key}{meaning}") from error


def commented_toml(values: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The text of a fresh truing.toml: every setting with its meaning and default, commented out but for those that
    `values` sets."""
    lines = ["# Truing's settings. A line that is commented out shows a default: uncomment it to change it.", ""]
    for section in SECTIONS:
        kind = section_class(section)
        lines += [f"[{section}]", f"# {(kind.__doc__ or '').strip().splitlines()[0]}"]
        for name, field in kind.model_fields.items():
            chosen = (values or {}).get(section, {})
            value = chosen.get(name, field.get_default(call_default_factory=True))
            line = f"{name} = {_toml_value(value)}  # {' '.join((field.description or '').split())}"
            lines.append(line if name in chosen else f"# {line}")
        lines.append("")
    return "\n".join(lines)


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a file so that a reader or a crash sees the old content or the new, never a part."""
    data = text.encode("utf-8") if isinstance(text, str) else text
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def plain_files(folder: Path) -> Iterator[None]:
    """What is written meanwhile into a folder that is being made is as other files are. safetensors, and mkdtemp, would leave it to its maker alone; and
    safetensors has an error of its own for what the disk says.

    Raises:
        OSError: as any writing does.
    """
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(folder)) from error
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@contextmanager
def full_disk_said(what: str, *, fix: str) -> Iterator[None]:
    """Where a disk, or a user's share of it, has no room for what is written meanwhile.

    Raises:
        UserError: it has none.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(what, fix=fix) from error
        raise


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return '"none"'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's texts are TOML's, but for that one
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml_value(item)}" for key, item in value.items()) + "}"
    return str(value)


def _nearest(word: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean `{near[0]}`?" if near else f"known ones: {', '.join(names)}"
