"""Two processes tune the policy that one does, but for the order in which gradients are added up; and only the first of them writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from policy.teamed import run
from truing.artifacts import Artifact, load_artifact
from truing.errors import UserError
from truing.models.trunk import Trunk
from truing.policy.team import Team, joined, team
from truing.store.project import create_project, open_project
from truing.store.tables import Run

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
ALGORITHMS = ("ppo", "q-learning", "dpo")
TEAMED = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def teamed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, list[str]]:
    """A project, and the policies that two processes tuned in it, by each of ALGORITHMS."""
    folder = create_project(tmp_path_factory.mktemp("teamed") / "p", settings="")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]), "OMP_NUM_THREADS": "1"}
    script = [str(TESTS / "policy" / "teamed.py"), str(folder), str(tiny_model), *ALGORITHMS]
    found = subprocess.run([*TEAMED, *script], capture_output=True, text=True, env=environment, timeout=480, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return folder, [line for line in found.stdout.splitlines() if line.startswith("policy-")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_processes_come_to_the_policy_of_one(tmp_path: Path, trunk: Trunk, teamed: tuple[Path, list[str]], algorithm: str) -> None:
    alone = open_project(create_project(tmp_path / "alone", settings=""))
    expected = load_artifact(alone.artifacts, run(alone, trunk, algorithm))
    project = open_project(teamed[0])
    policy = load_artifact(project.artifacts, teamed[1][ALGORITHMS.index(algorithm)])
    rows, others = (metrics(one) for one in (expected, policy))
    assert len(rows) == len(others) > 1
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-5)
    weights, own = (load_file(one.path / "adapter" / "adapter_model.safetensors") for one in (expected, policy))
    assert all((own[name] - value).abs().max() < 1e-5 for name, value in weights.items())
    assert max(value.abs().max() for name, value in weights.items() if "lora_B" in name) > 1e-4, "it learned"
    with project.database.read() as session:
        assert session.query(Run).count() == len(ALGORITHMS), "one of them wrote"


def metrics(policy: Artifact) -> list[dict[str, float]]:
    return [json.loads(line) for line in (policy.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_by_itself_a_process_is_a_team_of_one() -> None:
    own = team()
    assert (own.rank, own.size) == (0, 1)
    assert own.owns(7)
    assert own.together({2: "b", 0: "a"}) == ["a", "b"]
    assert own.added({"x": 1.5}) == {"x": 1.5}
    assert [number for number in range(7) if Team(1, 3).owns(number)] == [1, 4]


def test_gradients_of_one_stay(trunk: Trunk) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    team().add_gradients([parameter])
    assert parameter.grad is None


def test_more_processes_than_devices_are_told_before_any_waits_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="2 processes are to share 1 GPU") as caught, joined():
        pass
    assert "CUDA_VISIBLE_DEVICES" in caught.value.fix
