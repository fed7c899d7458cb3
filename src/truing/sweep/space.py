"""What a sweep tries: settings of tuning with the values that each may take, every combination of them checked before the first is tried."""

import itertools
import math
import shlex
from collections.abc import Sequence
from typing import NamedTuple

from truing.config import read_value
from truing.errors import SettingError
from truing.policy.settings import TuneSettings
from truing.policy.train import tune_settings
from truing.store.ids import canonical
from truing.store.project import Project

MOST = 10_000  # combinations: each is checked
Value = str | int | float | bool | None
Choice = dict[str, Value]  # key of [tune] → the value it has in a trial


class Space(NamedTuple):
    """What there is to choose from.

    Attributes:
        values: key of [tune] → what it may be, in the order given.
        settings: all settings of every combination; the last key moves fastest.
    """

    values: dict[str, tuple[Value, ...]]
    settings: list[TuneSettings]

    def choices(self) -> list[Choice]:
        """The swept keys of every combination."""
        return [self.choice(settings) for settings in self.settings]

    def choice(self, settings: TuneSettings) -> Choice:
        """The swept keys of some settings."""
        return {key: getattr(settings, key) for key in self.values}


def parse_space(project: Project, algorithm: str | None, options: Sequence[str]) -> Space:
    """The space that `tune.KEY=A,B,C` options span; what they leave out is as in truing.toml.

    Args:
        algorithm: in place of the one in truing.toml.

    Raises:
        SettingError: an option isn't of that form, has no value, or names a key twice; a key is unknown, or a combination isn't allowed.
    """
    if not options:
        raise SettingError("there is nothing to sweep", fix="name settings with their values, for example --sweep tune.beta=0.02,0.05")
    named: dict[str, list[object]] = {}
    for text in options:
        key, values = _read(text)
        if key in named:
            raise SettingError(f"--sweep names tune.{key} twice", fix=f"give all its values at once: --sweep tune.{key}=A,B,C")
        named[key] = values
    if (size := math.prod(map(len, named.values()))) > MOST:
        raise SettingError(f"--sweep spans {size:,} combinations; {MOST:,} is the most", fix="give fewer values, or fewer keys")
    found: dict[bytes, TuneSettings] = {}
    for chosen in itertools.product(*named.values()):
        settings = tune_settings(project, algorithm, dict(zip(named, chosen, strict=True)))
        own = {key: getattr(settings, key) for key in named}  # as the settings hold them: 1 and 1.0 are one value
        _require_single_values(settings, own)
        found.setdefault(canonical(own), settings)
    every = list(found.values())
    return Space({key: tuple(dict.fromkeys(getattr(settings, key) for settings in every)) for key in named}, every)


def in_words(choice: Choice) -> str:
    """`tune.lr=0.0003 tune.beta=0.05`."""
    return " ".join(f"tune.{key}={worded(value)}" for key, value in choice.items())


def command(choice: Choice, algorithm: str | None, overrides: Sequence[str]) -> str:
    """What to type to have a combination's policy as the round's; it answers from its artifact.

    Args:
        algorithm, overrides: `--algorithm` and `--set` of the sweep.
    """
    given = [] if algorithm is None or "algorithm" in choice else [f"--algorithm {algorithm}"]
    return " ".join(["truing tune", *given, *(f"--set {shlex.quote(word)}" for word in (*overrides, *in_words(choice).split(" ")))])


def worded(value: Value) -> str:
    """A value as `--set` takes it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _read(text: str) -> tuple[str, list[object]]:
    """Key and values of an option."""
    path, equals, raw = text.partition("=")
    section, dot, key = path.strip().partition(".")
    if not (equals and dot and key):
        raise SettingError(f"--sweep {text!r} is not of the form tune.KEY=A,B,C", fix="for example --sweep tune.beta=0.02,0.05")
    if section != "tune":
        raise SettingError(f"--sweep {text!r} isn't about tuning, and the reward model may rest on it", fix="sweep settings of [tune]; --set changes others")
    words = raw.split(",")
    if not all(word.strip() for word in words):
        raise SettingError(f"--sweep {text!r} has an empty value", fix=f"for example --sweep tune.{key}=A,B,C")
    return key.strip(), [read_value(word) for word in words]


def _require_single_values(settings: TuneSettings, chosen: Choice) -> None:
    for key, value in chosen.items():
        if type(settings).model_fields[key].exclude:
            raise SettingError(f"tune.{key} shapes no policy: every trial would be the same", fix=f"--set tune.{key}=... changes it for all of them")
        if not isinstance(value, Value):
            raise SettingError(f"tune.{key} can't be swept: its values are tables or lists", fix=f"--set tune.{key}=... changes it for all trials")
