"""kill -9 to a tuning run at moments of no one's choosing, then the same command again, until it ends.

    PYTHONPATH=tests python tests/policy/killed.py FOLDER MODEL ALGORITHM SECONDS ...

A run of its own in FOLDER/whole is left in peace; one in FOLDER/killed dies after each of SECONDS, and goes on. Prints the policy that each comes to.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
SOON, LATE = 0.02, 0.5  # seconds into a run of about two


def policies(folder: Path, model: Path, algorithm: str, kills: int) -> tuple[list[str], list[float]]:
    """The policies that runs ended with, of which there are at least two, and when they were killed."""
    moments = [random.SystemRandom().uniform(SOON, LATE) for _ in range(kills)]
    command = [sys.executable, "-W", "ignore", __file__, str(folder), str(model), algorithm, *map(str, moments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return [line for line in found.stdout.splitlines() if line.startswith("policy-")], moments


def main(folder: Path, model: str, algorithm: str, moments: list[float]) -> None:
    """Run it whole, then killed; a child for each run, so that the model is opened once."""
    import torch

    torch.set_num_threads(1)  # a fork takes no threads along
    from policy.test_offline import examples_for
    from policy.test_offline import settings_for as offline_settings
    from truing.models.registry import ModelSettings
    from truing.models.trunk import open_trunk
    from truing.policy.algorithms import OFFLINE
    from truing.policy.train import imitate
    from truing.store.project import create_project, open_project
    from tuning import settings_for, tune

    trunk = open_trunk(ModelSettings(name=model, dtype="fp32"))

    def run(root: Path, kill_after: float | None) -> None:
        child = os.fork()
        if child == 0:
            project = open_project(root)
            if algorithm in OFFLINE:
                examples = examples_for(project, trunk, algorithm)
                artifact = imitate(project, offline_settings(algorithm, epochs=3), examples, trunk=trunk, dataset_id=None, parent="base", seed=0)
            else:
                artifact = tune(project, trunk, settings_for(algorithm, updates=8))
            print(artifact.id, flush=True)
            os._exit(0)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    whole, killed = (create_project(folder / name, settings="") for name in ("whole", "killed"))
    run(whole, None)
    for moment in [*moments, None]:
        run(killed, moment)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], [float(one) for one in sys.argv[4:]])
