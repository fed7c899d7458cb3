"""Fixtures: a fresh project, and a tiny random language model that exercises the same code as a real one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
if "TRUING_TEST_CUDA" not in os.environ:  # numbers to the bit are a CPU's; `TRUING_TEST_CUDA=1 pytest -k cuda` is for what a GPU does
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TRUING_CACHE", str(Path.home() / ".cache" / "truing"))
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch loads: the cores are shared by workers, and threads that wait for each other only get in their way

from stored import copied_if_new
from truing.store import database
from truing.store.project import Project, create_project, open_project

settings.register_profile("busy", parent=settings(), deadline=None)  # an example that waits for another worker is no slower for it
settings.register_profile("quick", parent=settings.get_profile("busy"), max_examples=10)  # `make quick`
settings.load_profile("busy")
UNMEASURED = {  # they go long ways through what other tests go through too, and take a quarter to over a half longer while lines are counted
    "test_api.py", "test_assignment.py", "test_assignment_machine.py", "test_constraint.py", "test_doors_in_chromium.py", "test_durability.py",
    "test_fuzz.py", "test_hostile_imports.py", "test_judge_browser.py", "test_known_optimum.py", "test_manage_in_chromium.py", "test_routes.py", "test_xss.py",
}  # fmt: skip
MOST_SKIPS = 4  # a test that is skipped everywhere tests nothing: see the reasons in the summary
REAL_DATA = Path(__file__).parents[2] / "shared" / "data"  # a user's clone doesn't have it: only there a test that says so isn't counted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a PostgreSQL server isn't quick; what searches for long isn't measured for coverage."""
    for item in items:
        if "postgresql" in item.name:
            item.add_marker(pytest.mark.slow)
        if item.path.name in UNMEASURED:
            item.add_marker(pytest.mark.no_cover)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run that skipped more than it may. Workers have no reporter: they tell the process that started them, which counts."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    excused = None if REAL_DATA.is_dir() else str(REAL_DATA)
    skipped = sum(excused is None or excused not in str(report.longrepr) for report in reporter.stats.get("skipped", []))
    if skipped > MOST_SKIPS and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line(f"{skipped} tests were skipped; {MOST_SKIPS} may be", red=True)


@pytest.fixture(autouse=True, scope="session")
def migrated_once() -> Iterator[None]:
    """The migrations run once, not once a test: new SQLite files are copies of what they made. Tests of the migrations put SHIPPED back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_bring_up_to_date", copied_if_new)
        yield


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project with default settings."""
    return open_project(create_project(tmp_path / "project", settings=""))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers and a byte-level tokenizer with a chat template."""
    from tiny import make_tiny_model  # torch loads here, for the tests that need it

    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
