"""Settings: read strictly, changed from the command line, and every fault named with its remedy."""

import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from truing import config
from truing.config import SECTIONS, Settings, build, commented_toml, read_toml, section_class, with_overrides, write_atomically
from truing.errors import SettingError, UserError


class Colour(StrEnum):
    RED = "red"


class ToySettings(Settings):
    """A toy's settings."""

    temperature: float = Field(1.0, gt=0, le=2, description="how wild the toy is")
    limit: int | None = Field(None, gt=0, description="most toys; none = no limit")
    kind: Literal["small", "large"] = Field("small", description='which of "small" and "large"')
    layers: tuple[int, ...] = Field((1, 2), description="which layers")
    colour: Colour = Field(Colour.RED, description="its\n  colour")
    path: str = Field('a "b" \\ c\n', description="where it is")
    names: dict[str, float] = Field(default_factory=lambda: {"a b": 0.5}, description="weights by name")
    tiny: float = Field(1e-7, description="a small number")


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SECTIONS", {"toy": f"{__name__}:ToySettings"})
    monkeypatch.setattr("truing.config.importlib.import_module", lambda name: type("module", (), {"ToySettings": ToySettings}))


@pytest.mark.parametrize("value", [0, -1, 2.5, "warm", float("nan"), float("inf"), "1x"])
def test_a_value_out_of_bounds_is_refused_with_its_meaning(value: Any) -> None:
    with pytest.raises(SettingError, match=r"toy\.temperature = ") as caught:
        build(ToySettings, "toy", {"temperature": value})
    assert "how wild the toy is" in caught.value.fix


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_setting_is_a_finite_number(value: str) -> None:
    """Settings stand in manifests, and JSON has no infinity."""
    with pytest.raises(SettingError, match="finite"):
        build(ToySettings, "toy", {"tiny": float(value)})


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"there is no setting toy\.temprature") as caught:
        build(ToySettings, "toy", {"temprature": 1})
    assert caught.value.fix == "did you mean `temperature`?"
    with pytest.raises(SettingError) as caught:
        build(ToySettings, "toy", {"zzz": 1})
    assert "temperature, limit" in caught.value.fix


def test_none_is_a_word() -> None:
    assert build(ToySettings, "toy", {"limit": "none"}).limit is None
    with pytest.raises(SettingError):
        build(ToySettings, "toy", {"temperature": "none"})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        ToySettings().temperature = 0.5  # type: ignore[misc]


def test_overrides_are_toml_where_they_can_be_and_text_otherwise() -> None:
    given = ["samples.temperature=0.5", "samples.stop = [1, 2]", "tune.algorithm=rloo", "tune.full=true", 'model.name="a b"', "model.path=a=b", "tune.n=none"]
    assert with_overrides({"samples": {"top_p": 0.9}}, given) == {
        "samples": {"top_p": 0.9, "temperature": 0.5, "stop": [1, 2]},
        "tune": {"algorithm": "rloo", "full": True, "n": "none"},
        "model": {"name": "a b", "path": "a=b"},
    }


def test_an_override_leaves_the_file_s_tables_alone_and_the_last_one_wins() -> None:
    tables = {"samples": {"temperature": 1.0}}
    assert with_overrides(tables, ["samples.temperature=0.5", "samples.temperature=0.6"])["samples"]["temperature"] == 0.6
    assert tables == {"samples": {"temperature": 1.0}}


@pytest.mark.parametrize("text", ["", "samples", "samples=1", "samples.=1", "samples.temperature", "=1"])
def test_an_override_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"not of the form section\.key=value"):
        with_overrides({}, [text])


def test_an_unknown_section_names_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"no settings section \[sample\]") as caught:
        with_overrides({}, ["sample.temperature=1"])
    assert caught.value.fix == "did you mean `samples`?"
    with pytest.raises(SettingError):
        section_class("sample")


def test_a_file_is_read_section_by_section(tmp_path: Path) -> None:
    file = tmp_path / "truing.toml"
    file.write_text("[prompts]\nheld_out_share = 0.5\n[tune]\n", encoding="utf-8")
    assert read_toml(file) == {"prompts": {"held_out_share": 0.5}, "tune": {}}


@pytest.mark.parametrize(
    ("content", "kind", "what"),
    [
        (b"[prompts\n", UserError, "not valid TOML"),
        (b"[prompts]\na = 1\na = 2\n", UserError, "not valid TOML"),
        (b"\xff\xfe", UserError, "not valid TOML"),
        (b"seed = 1\n", SettingError, "stands outside every section"),
        (b"[promts]\n", SettingError, "no settings section"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, content: bytes, kind: type[UserError], what: str) -> None:
    file = tmp_path / "truing.toml"
    file.write_bytes(content)
    with pytest.raises(kind, match=what):
        read_toml(file)


def uncommented(text: str) -> dict[str, dict[str, Any]]:
    """The tables when every setting's line counts."""
    return tomllib.loads(re.sub(r"(?m)^# (\w+ = )", r"\1", text))


@pytest.mark.usefixtures("_toy")
def test_every_kind_of_default_can_be_written_and_read() -> None:
    tables = uncommented(commented_toml())
    assert set(tables["toy"]) == set(ToySettings.model_fields)
    assert build(ToySettings, "toy", tables["toy"]) == ToySettings()


def test_the_fresh_settings_file_is_every_setting_at_its_default(tmp_path: Path) -> None:
    """As it is it changes nothing; with every line uncommented it says what the defaults are."""
    file = tmp_path / "truing.toml"
    file.write_text(commented_toml(), encoding="utf-8")
    assert read_toml(file) == {section: {} for section in SECTIONS}
    tables = uncommented(commented_toml())
    for section in SECTIONS:
        kind = section_class(section)
        assert set(tables[section]) == set(kind.model_fields), section
        assert build(kind, section, tables[section]) == kind(), section


def test_chosen_values_stand_uncommented_in_the_fresh_file(tmp_path: Path) -> None:
    file = tmp_path / "truing.toml"
    file.write_text(commented_toml({"prompts": {"held_out_share": 0.5}}), encoding="utf-8")
    assert read_toml(file) == {section: {"held_out_share": 0.5} if section == "prompts" else {} for section in SECTIONS}


def test_every_setting_says_what_it_means() -> None:
    silent = [f"{section}.{name}" for section in SECTIONS for name, field in section_class(section).model_fields.items() if not field.description]
    assert silent == []


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_any_text_survives_the_file(text: str) -> None:
    assert tomllib.loads(f"x = {config._toml_value(text)}") == {"x": text}


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "truing.toml"
    write_atomically(file, "old\n")

    def fail(*names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("truing.config.os.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(file, "new\n")
    assert file.read_text() == "old\n"
    assert [entry.name for entry in file.parent.iterdir()] == ["truing.toml"]
    assert file.stat().st_mode & 0o777 == 0o644
