"""Everything that a model computes can be computed on another device than the CPU: a stage there comes to the same as here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from models.test_families import FAMILIES

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_stages_come_to_the_same_elsewhere(tmp_path: Path, tiny_model: Path) -> None:
    padded = Path(f"{tmp_path / 'model'}-gpt2")
    FAMILIES["gpt2"]().save_pretrained(padded)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(padded)
    (tmp_path / "model").symlink_to(tiny_model)
    command = [sys.executable, "-W", "ignore", str(TESTS / "models" / "elsewhere.py"), str(tmp_path), str(tmp_path / "model")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
    found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert len(found) == 11
    for row in found:
        assert max(abs(here - there) for here, there in zip(row["cpu"], row["elsewhere"], strict=True)) < 1e-3, row["stage"]
