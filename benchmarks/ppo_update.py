"""Time and memory of one update on this machine, where they go, how near that is to what the machine could do, and the same of TRL.

The work is the same on both sides: random prompts of 64 tokens, 24 new tokens and no end token, LoRA of rank 16, 4 epochs over 16 answers. PPO stands beside
TRL 1.12, the last release that had it; RLOO and GRPO, four answers to a prompt, beside TRL 1.16. A second counts from prompts to the last optimiser step.

    python benchmarks/ppo_update.py --json                                                       ours alone
    python benchmarks/ppo_update.py --json --layers top-half                                     with the upper half of the layers adapted
    python benchmarks/ppo_update.py --json --peer PYTHON --peer-script peer_trl_ppo.py           beside TRL 1.12
    python benchmarks/ppo_update.py --json --algorithm grpo --peer PYTHON --peer-script benchmarks/peers/trl_online.py        beside TRL 1.16

Both run in turn, each in a process of its own, for some rounds; medians over the rounds count, so that both see the same machine. The peer runs in the faster
of its number types, found by a trial before or told by --peer-dtype; where this machine multiplies bf16 more slowly than fp32, in fp32. Nothing
else should run meanwhile.

`roofline_ratio` is seconds over the fewest that the machine allows: products counted (two operations a weight and token forward, as many for the gradient of
the states, LoRA's own three times; attention left out) over the rate that it multiplies such matrices at, and in sampling no step faster than the weights can
be read once. Both rates are measured in the same run.

With --json the last line of stdout is one JSON object; the same is written to ALGORITHM-update-LAYERS-DATE.json.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from truing.config import write_atomically
from truing.console import say
from truing.models.generate import generate
from truing.models.precision import bf16_speedup, machine
from truing.models.products import product
from truing.models.registry import ModelSettings, resolve
from truing.models.trunk import Trunk, open_trunk
from truing.policy import rollout
from truing.policy.algorithms import ONLINE
from truing.policy.online import OnlineLearner
from truing.policy.settings import OnlineSettings
from truing.store.runs import peak_gb

TEMPERATURE = 0.7
PARTS = ("sampling_s", "scoring_s", "training_s")
NOWHERE = Path("no-artifacts-are-read-when-the-parent-is-the-base")


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    if arguments.arm:
        print(json.dumps(measured(arguments)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch) / "prompts.json"
        prompts.write_text(json.dumps(texts(arguments)))
        peer = faster_peer(arguments, prompts) if arguments.peer else None
        rounds = []
        for number in range(arguments.rounds):
            row = {"ours": said([sys.executable, *sys.argv, "--arm"])}
            if peer is not None:
                row["peer"] = said(peer)
            rounds.append(row)
            say(f"round {number + 1}: {json.dumps(row)}")
    found = compared(rounds) | {"machine": machine(), "date": datetime.date.today().isoformat(), "rounds": rounds}
    work = {
        name: value for name, value in vars(arguments).items() if name in ("algorithm", "layers", "batch", "prompt", "response", "epochs", "rank", "updates")
    }
    found["work"] = work
    write_atomically(arguments.out / f"{arguments.algorithm}-update-{arguments.layers}-{found['date']}.json", json.dumps(found, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(found))


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--algorithm", choices=("ppo", "rloo", "grpo"), default="ppo")
    parser.add_argument("--layers", choices=("all", "top-half"), default="all")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--batch", type=int, default=16, help="answers in an update")
    parser.add_argument("--microbatch", type=int, help="answers in memory at a time; all, if it isn't said")
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--response", type=int, default=24, help="tokens")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--updates", type=int, default=4, help="of a round; the first warms up and isn't counted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--peer", help="python of an environment with trl==1.12.0 (ppo) or 1.16.0 (rloo, grpo)")
    parser.add_argument("--peer-script", help="its half")
    parser.add_argument("--peer-dtype", choices=("auto", "bf16", "fp32"), default="auto", help="auto: the faster of a trial; else as an earlier trial found")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--json", action="store_true", help="print the result as the last line")
    parser.add_argument("--arm", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# ---- ours ----


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an update and of its parts, medians without the first; memory; the fewest seconds that this machine allows each part."""
    trunk = open_trunk(ModelSettings(name=arguments.model, dtype=arguments.dtype))
    trunk.eos_ids = frozenset()  # every run does the same work
    group = 1 if arguments.algorithm == "ppo" else 4
    kind: type[OnlineSettings] = ONLINE[arguments.algorithm].Settings
    settings = kind.model_validate(
        {"algorithm": arguments.algorithm, "updates": arguments.updates, "samples": arguments.batch, "group_size": group, "epochs": arguments.epochs,
         "rank": arguments.rank, "lr": 1e-5, "microbatch": arguments.microbatch or arguments.batch, "truncation": "keep", "max_kl_old": 100.0,
         "layers": arguments.layers}
    )  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    top = min(49_000, trunk.model.config.vocab_size)
    needed = arguments.batch // group * arguments.updates
    prompts = {str(number): torch.randint(5, top, (arguments.prompt,), generator=draw).tolist() for number in range(needed)}
    learner = OnlineLearner(trunk, settings, prompts, Score(trunk), temperature=TEMPERATURE, max_new_tokens=arguments.response, seed=0)
    learner.start(NOWHERE, "base")
    rows: list[dict[str, float]] = []
    for _ in range(arguments.updates):
        with timed(learner) as row:
            learner.update()
        rows.append(row)
    peak = peak_gb() if trunk.device.type == "cpu" else torch.cuda.max_memory_allocated() / 1e9
    counted = rows[1:] or rows
    found = {name: round(statistics.median(row[name] for row in counted), 3) for name in ("seconds", *PARTS)}
    least = fewest_seconds(trunk, settings, arguments)
    return found | {"peak_gb": round(peak, 2), "fewest": least, "dtype": str(trunk.dtype)}


class Score:
    """A reward model's work, as the demo's: the base's states of every answer, which the reference's pass has already, and a linear head on them."""

    def __init__(self, trunk: Trunk) -> None:
        self.feature_layers: tuple[int, ...] = (trunk.layers,)
        self.longest = 1 << 30
        self.weight = (torch.randn(trunk.hidden_size, generator=torch.Generator().manual_seed(1)) / trunk.hidden_size**0.5).to(trunk.device)

    def __call__(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[float]:
        """Never asked: hidden states are enough."""
        raise AssertionError("the reward reads hidden states")

    def score_hidden(self, hidden: Any, rows: Any) -> tuple[list[float], list[float]]:
        """Of the last token's state."""
        found = [float(own[-1] @ self.weight) for own in rows.response_states(hidden[self.feature_layers[0]].float())]
        return found, [0.0] * len(found)


@contextmanager
def timed(learner: OnlineLearner) -> Iterator[dict[str, float]]:
    """Where the seconds of an update go: drawing answers, all else before learning, learning."""
    spent = {"sampling_s": 0.0, "training_s": 0.0}
    row: dict[str, float] = {}
    drawing = patch.object(rollout, "generate", clock(generate, spent, "sampling_s"))
    learning = patch.object(learner, "learn", clock(learner.learn, spent, "training_s"))
    began = now()
    with drawing, learning:
        yield row
    seconds = now() - began
    row |= {"seconds": seconds, **spent, "scoring_s": seconds - sum(spent.values())}


def clock(function: Callable[..., Any], spent: dict[str, float], name: str) -> Callable[..., Any]:
    """The function, with its time added to an account."""

    def call(*given: Any, **named: Any) -> Any:
        began = now()
        try:
            return function(*given, **named)
        finally:
            spent[name] += now() - began

    return call


def now() -> float:
    """Seconds on a clock, all that was asked of a GPU done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---- what the machine allows ----


def fewest_seconds(trunk: Trunk, settings: OnlineSettings, arguments: argparse.Namespace) -> dict[str, float]:
    """Of each part, from the products that it can't do without, and the rates that go into it."""
    body = sum(module.weight.numel() for module in linears(trunk))
    sides = sum(sum(module.weight.shape) for module in linears(trunk))
    head = trunk.head.weight.numel()
    adapted = 0.5 if settings.layers == "top-half" else 1.0
    answers, asked = arguments.batch, arguments.batch // settings.group_size
    read, drawn = asked * arguments.prompt, answers * arguments.response  # a prompt is read once for all its answers
    lora = 2 * sides * settings.rank * adapted
    forward = 2 * body * (read + drawn) + 2 * head * drawn
    rate, bytes_a_second = product_rate(trunk), reading_rate(trunk.device)
    step = max(2 * (body + head) * answers / rate, (body + head) * trunk.dtype.itemsize / bytes_a_second)
    scoring = forward + 2 * body * adapted * (read + drawn) + lora * (read + drawn) + 2 * head * drawn  # the reference, then the policy above the border
    backward = 2 * body * adapted * (read + drawn) + 2 * head * drawn + 2 * lora * (read + drawn)
    again = 2 * body * adapted * (read + drawn) + 2 * head * drawn + lora * (read + drawn)
    return {
        "sampling_s": 2 * body * read / rate + arguments.response * step,
        "scoring_s": scoring / rate,
        "training_s": settings.epochs * (again + backward) / rate,
        "product_gflops": round(rate / 1e9, 1),
        "reading_gb_s": round(bytes_a_second / 1e9, 1),
    }


def linears(trunk: Trunk) -> list[torch.nn.Linear]:
    """The model's own linear layers, the output matrix left out."""
    named = trunk.model.named_modules()
    return [module for name, module in named if isinstance(module, torch.nn.Linear) and "layers." in name and "lora_" not in name]


def product_rate(trunk: Trunk, looks: int = 9, each: int = 10) -> float:
    """Operations a second of the products of this model, in its number type: of each shape that it has, with 1,024 tokens, on a
    GPU 8,192, of which a product is more than the asking for it.

    Args:
        looks: at every shape; the median counts.
        each:  products in a look.
    """
    seconds, operations, tokens = 0.0, 0.0, 8192 if trunk.device.type == "cuda" else 1024
    for out, width in sorted({tuple(module.weight.shape) for module in linears(trunk)}):
        a, b = (torch.randn(rows, width, dtype=trunk.dtype, device=trunk.device) for rows in (tokens, out))
        times = []
        for _ in range(looks):
            start = now()
            for _ in range(each):
                product(a, b, None)
            times.append(now() - start)
        seconds += statistics.median(times)
        operations += 2 * each * tokens * width * out
    return operations / seconds


def reading_rate(device: torch.device) -> float:
    """Bytes a second at which memory far larger than any cache is read."""
    numbers = torch.ones(1 << 27, device=device)
    times, each = [], 50 if device.type == "cuda" else 1
    for _ in range(5):
        start = now()
        for _ in range(each):
            numbers.sum()
        times.append(now() - start)
    return each * numbers.numel() * 4 / statistics.median(times)


# ---- the peer ----


def texts(arguments: argparse.Namespace) -> list[str]:
    """Prompts for a peer that takes text: words of one token each, as many as there are tokens in ours."""
    words = ["time", "people", "water", "house", "light", "music", "green", "river", "story", "paper", "table", "world"]
    draw = torch.Generator().manual_seed(0)
    needed = arguments.batch * (arguments.updates + 1)
    return [" ".join(words[place] for place in torch.randint(len(words), (arguments.prompt,), generator=draw).tolist()) for _ in range(needed)]


def faster_peer(arguments: argparse.Namespace, prompts: Path) -> list[str]:
    """The peer's command in the number type that was asked for, or that a trial of two updates found faster."""
    command = [
        arguments.peer, arguments.peer_script, "--model", resolve(arguments.model), "--batch", str(arguments.batch), "--response", str(arguments.response),
        "--epochs", str(arguments.epochs), "--rank", str(arguments.rank),
    ]  # fmt: skip
    if arguments.algorithm == "ppo":
        command += ["--prompt", str(arguments.prompt)]
    else:
        command += ["--algorithm", arguments.algorithm, "--prompts", str(prompts), "--microbatch", str(arguments.microbatch or arguments.batch)]
    if arguments.peer_dtype != "auto":
        return [*command, "--updates", str(arguments.updates), *(["--bf16"] if arguments.peer_dtype == "bf16" else [])]
    if not torch.cuda.is_available() and bf16_speedup() < 1:
        say("the peer runs in fp32: this machine multiplies bf16 more slowly")
        return [*command, "--updates", str(arguments.updates)]
    ways: list[tuple[str, ...]] = [(), ("--bf16",)]
    if torch.cuda.is_available() and arguments.algorithm != "ppo":
        ways.append(("--bf16", "--bf16-base"))  # weights in bf16 too, as ours are there
    trials = {way: said([*command, "--updates", "2", *way])["seconds_per_update"] for way in ways}
    say(f"the peer's trials, seconds of an update: { ({' '.join(way) or 'fp32': seconds for way, seconds in trials.items()}) }")
    return [*command, "--updates", str(arguments.updates), *min(trials, key=lambda way: trials[way])]


def said(command: Sequence[str]) -> dict[str, Any]:
    """What a process says in its last line."""
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(finished.stdout.strip().splitlines()[-1]))


def compared(rounds: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and how they compare."""
    ours = [row["ours"] for row in rounds]
    found: dict[str, Any] = {name: round(statistics.median(row[name] for row in ours), 3) for name in ("seconds", "peak_gb", *PARTS)}
    fewest = {name: statistics.median(row["fewest"][name] for row in ours) for name in (*PARTS, "product_gflops", "reading_gb_s")}
    found["roofline_ratio"] = round(found["seconds"] / sum(fewest[name] for name in PARTS), 2)
    found["roofline_ratios"] = {name: round(found[name] / fewest[name], 2) for name in PARTS}
    found["fewest"] = fewest
    if "peer" in rounds[0]:
        its = [row["peer"] for row in rounds]
        found["peer_seconds"] = statistics.median(row["seconds_per_update"] for row in its)
        found["peer_peak_gb"] = statistics.median(row["peak_gb"] for row in its)
        found["speedup"] = round(found["peer_seconds"] / found["seconds"], 2)
        found["memory_ratio"] = round(found["peak_gb"] / found["peer_peak_gb"], 3)
    return found


if __name__ == "__main__":
    main()
