"""A project: a folder with `truing.toml`, `truing.db`, `artifacts/` and `reports/`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import select

from truing.config import SECTIONS, S, build, commented_toml, read_toml, section_class, with_overrides, write_atomically
from truing.errors import SettingError, UserError
from truing.store.database import Database, sqlite_url
from truing.store.tables import Artifact, Round

SETTINGS_FILE = "truing.toml"


class Project:
    """An open project.

    Attributes:
        root: its folder.
        database: its store.
        artifacts: the folder of its artifacts.
        force: redo a stage even if a finished run with the same inputs answers.
    """

    def __init__(self, root: Path, overrides: Iterable[str] = (), *, force: bool = False) -> None:
        self.root = root
        self.force = force
        self.artifacts = root / "artifacts"
        self._written = read_toml(root / SETTINGS_FILE)
        self._typed = with_overrides({}, overrides)
        self._tables = with_overrides(self._written, overrides)
        self.database = Database(_database_url(root))

    def settings(self, kind: type[S]) -> S:
        """The settings of the section that this class declares, checked."""
        place = f"{kind.__module__}:{kind.__qualname__}"
        section = next(name for name, where in SECTIONS.items() if where == place)
        return build(kind, section, self._tables.get(section, {}))

    def raw_settings(self, section: str) -> Mapping[str, Any]:
        """A section as written, for a stage that chooses its settings class by one of the values."""
        return self._tables.get(section, {})

    def in_file(self, section: str) -> Mapping[str, Any]:
        """A section as truing.toml has it, whatever `--set` says."""
        return self._written.get(section, {})

    def typed(self, section: str) -> Mapping[str, Any]:
        """What `--set` says of a section."""
        return self._typed.get(section, {})

    def go_by(self, typed: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up what `--set` said another time; what it says now counts more."""
        self._typed = {section: {**typed.get(section, {}), **self._typed.get(section, {})} for section in {**typed, **self._typed}}
        self._tables = {section: {**self._written.get(section, {}), **self._typed.get(section, {})} for section in {**self._written, **self._typed}}

    def settings_file(self) -> Path:
        """Where the settings stand."""
        return self.root / SETTINGS_FILE


def create_project(root: Path, *, settings: str | None = None) -> Path:
    """Make a project folder with a commented settings file and an empty store.

    Args:
        root: the folder; made if absent.
        settings: text of truing.toml; default every setting at its default, commented out.

    Raises:
        UserError: a project is there already.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file", fix="name a folder, which is made if there is none")
    if (root / SETTINGS_FILE).exists():
        raise UserError(f"{root} is a project already", fix="choose another folder, or work in this one")
    root.mkdir(parents=True, exist_ok=True)
    for folder in ("artifacts", "reports"):
        (root / folder).mkdir(exist_ok=True)
    Database(_database_url(root)).close()
    write_atomically(root / SETTINGS_FILE, commented_toml() if settings is None else settings)
    return root


def _database_url(root: Path) -> str:
    return os.environ.get("TRUING_DATABASE") or sqlite_url(root / "truing.db")


def open_project(root: Path, overrides: Iterable[str] = (), *, force: bool = False) -> Project:
    """Open a project folder.

    Raises:
        UserError: there is no project there.
        SettingError: truing.toml or an override names an unknown section.
    """
    if not (root / SETTINGS_FILE).exists():
        raise UserError(
            f"{root.absolute()} is not a Truing project (it has no {SETTINGS_FILE})", fix=f"make one with `truing init {root}`, or name one with --project"
        )
    project = Project(root, overrides, force=force)
    try:
        for text in overrides:
            section = text.partition(".")[0]
            if section != "tune":
                project.settings(section_class(section))
    except SettingError:
        project.database.close()
        raise
    return project


def record_artifact(project: Project, artifact_id: str, manifest: Mapping[str, Any]) -> None:
    """Make the store know an artifact folder; knowing it twice is no harm."""
    from truing.store.clock import now

    with project.database.write() as session:
        if session.get(Artifact, artifact_id) is None:
            session.add(Artifact(id=artifact_id, kind=str(manifest["kind"]), manifest=dict(manifest), created_at=now()))


def newest_artifact(project: Project, kind: str) -> str:
    """The id of the newest artifact of a kind.

    Raises:
        UserError: there is none.
    """
    with project.database.read() as session:
        found = session.scalars(select(Artifact.id).where(Artifact.kind == kind).order_by(Artifact.created_at.desc(), Artifact.id).limit(1)).first()
    if found is None:
        raise UserError(f"this project has no {kind} yet", fix=MADE_BY.get(kind, "run the stage that makes it"))
    return found


MADE_BY = {
    "dataset": "make one from judgements with `truing preferences`",
    "reward": "fit one with `truing reward train`",
    "policy": "tune one with `truing tune`",
    "evaluation": "make one with `truing evaluate`",
    "round": "finish one with `truing round run`",
}


def round_by_number(project: Project, number: int | None) -> Round:
    """A round of the project; None means the newest.

    Raises:
        UserError: there is no such round.
    """
    with project.database.read() as session:
        query = select(Round).order_by(Round.number.desc())
        found = session.scalars(query if number is None else query.where(Round.number == number)).first()
    if found is None:
        raise UserError("this project has no round yet" if number is None else f"there is no round {number}", fix="start one with `truing round run`")
    return found


def rounds_of(project: Project) -> list[Round]:
    """All rounds, first to last."""
    with project.database.read() as session:
        return list(session.scalars(select(Round).order_by(Round.number)))
