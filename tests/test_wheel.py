"""What is installed is all that runs: the wheel holds every template, style, script and data file of the package."""

import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    built = next(iter(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])))
    packed = {name for name in zipfile.ZipFile(built).namelist() if name.startswith("truing/")}
    files = (path for path in (ROOT / "src/truing").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {path.relative_to(ROOT / "src").as_posix() for path in files}
    assert packed == wanted
    assert {"truing/studio/templates/base.html", "truing/studio/static/shell.js", "truing/data/style/tokens.css", "truing/data/everyday.jsonl"} <= packed
