"""Tuning runs by as many processes as torchrun starts: `python -m torch.distributed.run --nproc-per-node 2 teamed.py PROJECT MODEL ALGORITHM...`."""

import sys
from pathlib import Path

import torch

from policy.test_offline import examples_for
from policy.test_offline import settings_for as offline_settings
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk
from truing.policy.algorithms import OFFLINE, REPLAY
from truing.policy.team import joined
from truing.policy.train import follow, imitate
from truing.store.project import Project, open_project
from tuning import settings_for, share_of_third_tokens, tune


def run(project: Project, trunk: Trunk, algorithm: str) -> str:
    """Tune, and say which policy it came to."""
    if algorithm in OFFLINE:
        settings = offline_settings(algorithm, epochs=1, row_tokens=128)
        return imitate(project, settings, examples_for(project, trunk, algorithm), trunk=trunk, dataset_id=None, parent="base", seed=0).id
    changes = {"microbatch": 2, "updates": 3, "lr": 3e-4, "epochs": 2}
    if algorithm in REPLAY:
        own = REPLAY[algorithm].Settings.model_validate({"algorithm": algorithm, "samples": 8, "group_size": 2, "rank": 2, "truncation": "keep", **changes})
        return tune(project, trunk, own).id
    return tune(project, trunk, settings_for(algorithm, layers="top-half", minibatches=2, **changes)).id


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined() as team:
        project, trunk = open_project(Path(sys.argv[1])), open_trunk(ModelSettings(name=sys.argv[2], dtype="fp32"))
        if team.rank == 0:
            for algorithm in sys.argv[3:]:
                print(run(project, trunk, algorithm))
        else:
            follow(project, trunk, lambda call: share_of_third_tokens)
