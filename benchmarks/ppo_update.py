"""Time of one PPO update on this machine's CPU, and the same of TRL 1.12, the last release that had PPO, where its
environment is given.

The work is the same on both sides: random prompts of 64 tokens, 24 new tokens and no end token, LoRA rank 16 on all
linear layers, 4 PPO epochs over 16 prompts.

    python benchmarks/ppo_update.py                                    ours alone
    python benchmarks/ppo_update.py --peer PYTHON --peer-script FILE   both in turn, and the ratio

The last line of stdout is one JSON object.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from truing.models.precision import machine
from truing.models.registry import ModelSettings, resolve
from truing.models.sequences import length_buckets
from truing.models.trunk import Trunk, open_trunk
from truing.policy.algorithms.ppo import PPOSettings
from truing.policy.online import OnlineLearner
from truing.store.runs import peak_gb


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--response", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--updates", type=int, default=4, help="the first warms up and isn't counted")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--peer", help="python of an environment with trl==1.12.0")
    parser.add_argument("--peer-script", help="peer_trl_ppo.py")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "date": datetime.date.today().isoformat(), "ours": measure(arguments)}
    if arguments.peer:
        found["peer"] = measure_peer(arguments)
        found["times_faster"] = round(found["peer"]["seconds_per_update"] / found["ours"]["seconds_per_update"], 2)
        found["memory_ratio"] = round(found["peer"]["peak_gb"] / found["ours"]["peak_gb"], 2)
    print(json.dumps(found))


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Seconds of an update (median without the first) and the parts they go into."""
    trunk = open_trunk(ModelSettings(dtype=arguments.dtype))
    trunk.eos_ids = frozenset()  # every run does the same work
    generator = torch.Generator().manual_seed(0)
    prompts = {
        str(number): torch.randint(5, 49_000, (arguments.prompt,), generator=generator).tolist() for number in range(arguments.batch * arguments.updates)
    }
    settings = PPOSettings(
        updates=arguments.updates, samples=arguments.batch, group_size=1, epochs=arguments.epochs, rank=arguments.rank, lr=1e-5,
        microbatch=arguments.batch, truncation="keep", max_kl_old=100.0,
    )  # fmt: skip
    learner = OnlineLearner(trunk, settings, prompts, lambda p, r: score(trunk, p, r), temperature=0.7, max_new_tokens=arguments.response, seed=0)
    learner.start(artifacts=None, parent="base")  # type: ignore[arg-type]  # the base needs no artifact
    seconds = []
    for _ in range(arguments.updates):
        start = time.perf_counter()
        learner.update()
        seconds.append(time.perf_counter() - start)
        print(f"update {seconds[-1]:.1f} s", file=sys.stderr)
    work = {name: value for name, value in vars(arguments).items() if not name.startswith("peer")}
    return {"seconds_per_update": round(statistics.median(seconds[1:]), 2), "peak_gb": round(peak_gb(), 2), **work, "dtype": str(trunk.dtype)}


def score(trunk: Trunk, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
    """A reward model's work: the base over every answer, and a linear head on its last hidden state."""
    weight = torch.randn(trunk.hidden_size, generator=torch.Generator().manual_seed(1)) / trunk.hidden_size**0.5
    found = [0.0] * len(prompts)
    for bucket in length_buckets([len(prompt) for prompt in prompts], 16):
        rows = trunk.rows([prompts[index] for index in bucket], [responses[index] for index in bucket])
        with torch.no_grad(), trunk.using(None):
            states = rows.response_states(trunk.hidden(rows).float())
        for own, index in zip(states, bucket, strict=True):
            found[index] = float(own[-1] @ weight)
    return found


def measure_peer(arguments: argparse.Namespace) -> dict[str, float]:
    """The same work in the peer's own environment."""
    command = [
        arguments.peer, arguments.peer_script, "--model", resolve("smollm2-135m"), "--batch", str(arguments.batch), "--prompt", str(arguments.prompt),
        "--response", str(arguments.response), "--epochs", str(arguments.epochs), "--rank", str(arguments.rank), "--updates", str(arguments.updates),
    ]  # fmt: skip
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(finished.stdout.strip().splitlines()[-1]))


if __name__ == "__main__":
    main()
