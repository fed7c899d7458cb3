"""A studio for each test, and people who visit it."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from truing.store.project import Project
from visitors import signed_in, stranger, studio_of


@pytest.fixture
def app(project: Project) -> Iterator[FastAPI]:
    """The studio of an empty project."""
    yield studio_of(project)
    project.database.close()


@pytest.fixture
def nobody(app: FastAPI) -> TestClient:
    """A browser that nobody signed in with."""
    return stranger(app)


@pytest.fixture
def annotator(app: FastAPI) -> TestClient:
    """An annotator's browser."""
    return signed_in(app, "annotator")


@pytest.fixture
def manager(app: FastAPI) -> TestClient:
    """A manager's browser."""
    return signed_in(app, "manager")


@pytest.fixture
def owner(app: FastAPI) -> TestClient:
    """The owner's browser."""
    return signed_in(app, "owner")
