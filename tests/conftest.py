"""Fixtures: a fresh project, and a tiny random language model that exercises the same code as a real one."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRUING_CACHE", str(Path.home() / ".cache" / "truing"))

from truing.store.project import Project, create_project, open_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with default settings."""
    return open_project(create_project(tmp_path / "project", settings=""))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers and a byte-level tokenizer with a chat template."""
    from tiny import make_tiny_model  # torch loads here, for the tests that need it

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
