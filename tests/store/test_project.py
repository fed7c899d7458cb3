"""A project: a folder that is made once and opened many times."""

from pathlib import Path

import pytest

from stored import NOON
from truing.errors import SettingError, UserError
from truing.prompts import PromptSettings
from truing.store.project import Project, create_project, newest_artifact, open_project, record_artifact, round_by_number
from truing.store.tables import Round


def test_a_project_is_made_once(tmp_path: Path) -> None:
    root = create_project(tmp_path / "mine", settings="")
    assert {entry.name for entry in root.iterdir()} >= {"truing.toml", "artifacts", "reports", "truing.db"}
    with pytest.raises(UserError, match="is a project already"):
        create_project(root, settings="")


def test_a_team_database_leaves_no_file(project: Project) -> None:
    assert not (project.root / "truing.db").exists()  # the fixture names another place by TRUING_DATABASE


def test_a_folder_that_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a Truing project") as caught:
        open_project(tmp_path)
    assert "truing init" in caught.value.fix


def test_settings_come_from_the_file_and_the_overrides(project: Project) -> None:
    project.settings_file().write_text("[prompts]\nmax_characters = 500\nheld_out_share = 0.5\n", encoding="utf-8")
    opened = open_project(project.root, ["prompts.held_out_share=0.125"])
    settings = opened.settings(PromptSettings)
    opened.database.close()
    assert (settings.max_characters, settings.held_out_share, settings.strict) == (500, 0.125, False)
    assert opened.raw_settings("prompts") == {"max_characters": 500, "held_out_share": 0.125}


def test_a_wrong_override_is_found_at_once(project: Project) -> None:
    with pytest.raises(SettingError, match=r"no setting prompts\.held_out"):
        open_project(project.root, ["prompts.held_out=0.5"])


def test_artifacts_are_known_by_kind_and_age(project: Project) -> None:
    with pytest.raises(UserError, match="no dataset yet") as caught:
        newest_artifact(project, "dataset")
    assert "truing preferences" in caught.value.fix
    for name in ("dataset-1", "dataset-2", "reward-1", "dataset-1"):  # the last says nothing new
        record_artifact(project, name, {"kind": name.partition("-")[0]})
    assert newest_artifact(project, "dataset") == "dataset-2"


def test_rounds_by_number(project: Project) -> None:
    with pytest.raises(UserError, match="no round yet"):
        round_by_number(project, None)
    with project.database.write() as session:
        session.add_all(Round(number=number, parent_id=None, seed=0, made={}, created_at=NOON, sealed_at=None) for number in (1, 2))
    assert round_by_number(project, None).number == 2
    assert round_by_number(project, 1).number == 1
    with pytest.raises(UserError, match="no round 7"):
        round_by_number(project, 7)
