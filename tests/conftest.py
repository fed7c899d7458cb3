"""Fixtures: a fresh project, and a tiny random language model that exercises the same code as a real one."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRUING_CACHE", str(Path.home() / ".cache" / "truing"))

from truing.store.project import Project, create_project, open_project

MOST_SKIPS = 4  # a test that is skipped everywhere tests nothing: see the reasons in the summary


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that skipped more than it may."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    skipped = len(reporter.stats.get("skipped", []))
    if skipped > MOST_SKIPS and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"{skipped} tests were skipped; {MOST_SKIPS} may be", red=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with default settings."""
    return open_project(create_project(tmp_path / "project", settings=""))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers and a byte-level tokenizer with a chat template."""
    from tiny import make_tiny_model  # torch loads here, for the tests that need it

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
