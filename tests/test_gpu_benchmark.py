"""The benchmark for CUDA machines runs on any machine, with a tiny model; its speeds are not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu" / "update.py"


@pytest.mark.slow
def test_it_says_tokens_a_second_memory_and_a_share(tmp_path: Path) -> None:
    small = ["--shapes", "tiny", "--algorithms", "grpo", "--batch", "8", "--microbatch", "4", "--prompt", "16", "--response", "8", "--rounds", "1"]
    said = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), "--json", *small, "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(said.stdout.splitlines()[-1])
    assert [(arm["shape"], arm["algorithm"]) for arm in found["arms"]] == [("tiny", "grpo")]
    for arm in found["arms"]:
        assert arm["sampling_tokens_per_second"] > 0
        assert arm["training_tokens_per_second"] > 0
        assert 0 < arm["share"] < 1
        assert arm["seconds"] >= arm["sampling_s"] + arm["training_s"]
    assert json.loads(next(tmp_path.glob("gpu-update-*.json")).read_text()) == found
