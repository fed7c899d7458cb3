"""Every test of the store runs on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from stored import new_database, small_disk
from truing.store.database import Database
from truing.store.project import Project, create_project, open_project


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without rows."""
    return new_database(request.param, tmp_path)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """A database with its tables and no rows."""
    opened = Database(url)
    yield opened
    opened.close()


@pytest.fixture
def project(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """An empty project."""
    monkeypatch.setenv("TRUING_DATABASE", url)
    opened = open_project(create_project(tmp_path / "project", settings=""))
    yield opened
    opened.database.close()


@pytest.fixture
def full_soon(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of a megabyte."""
    with small_disk(tmp_path / "disk") as folder:
        yield folder
