"""Speed, memory and accuracy of each head on one file of real pairs, and the same of TRL's RewardTrainer where its environment is given.

The file's pairs are split by a hash of the conversation: the first `--test` of that order are held out, of the others the first `--pairs` are learned from.
Every arm is a process of its own, one after the other: its memory is its own.

    python benchmarks/reward_speed.py FILE --json                                       ours alone
    python benchmarks/reward_speed.py FILE --peer PYTHON --peer-script FILE --json      the peer as well, in the faster of its number types

Speed is measured in rounds: every arm and the peer in turn, each on a few pairs, and again; medians count. A machine is faster at one hour than at another, and
what takes an hour would be compared with its neighbours' weather. A second counts from tokens to states, reading features or training LoRA; opening the model
doesn't count, on either side. What a head takes to be fitted to features of all pairs comes on top, from the whole run. Accuracy and memory are of whole runs,
all pairs, one after the other. Nothing else should run while the rounds do. Accuracy and memory don't mind, nor how many threads
whole runs have; the seconds of a fit do, and count as they were: beside other work that can only cost a head.

What has been measured isn't measured again with the same settings and code (--work, of one machine): a run that was killed goes on with the next.

The peer leaves out pairs with more than LENGTH tokens, of learning and of evaluation; Truing takes their last LENGTH. Its script counts them as learned, which
flatters its speed: `peer_keeps` says how many it learned from. `accuracy_within` is ours on the test pairs that the peer keeps, to stand beside its accuracy.

With --json the last line of stdout is one JSON object: the adapter's figures beside the peer's, and each other head's under its name. The same is written to
reward-speed-DATE.json.
"""

import argparse
import datetime
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import truing
from truing.config import write_atomically
from truing.console import say
from truing.feedback.chosen import read_chosen
from truing.models.precision import machine
from truing.models.registry import ModelSettings, resolve
from truing.models.trunk import Trunk, open_trunk
from truing.reward.features import FeatureCache, Item, by_prompt, shorten
from truing.reward.lessons import PairLesson
from truing.reward.train import FROZEN, RewardSettings, choose, fit_frozen, frozen_spec
from truing.reward.train_pairs import Pairs
from truing.reward.train_trunk import ROLE, fit_trunk, learned_states, trunk_spec
from truing.stats import wilson
from truing.store.ids import content_id
from truing.store.runs import peak_gb

SEED = 1
LENGTH = 384  # last tokens of a prompt and response, on both sides
ARMS: dict[str, dict[str, Any]] = {
    "adapter": {"head": "adapter", "rank": 16, "alpha": 32.0, "trunk_epochs": 1, "batch_pairs": 8, "members": 1, "check_every": 10_000, "folds": 20},
    "linear": {"head": "linear"},
    "linear, two fifths of the layers": {"head": "linear", "readings": ("last@0.4", "mean@0.4", "max@0.2", "max@0.4")},
    "linear, a third of the layers": {"head": "linear", "readings": ("last@0.33", "mean@0.33", "max@0.2", "max@0.33")},
    "linear, a fifth of the layers": {"head": "linear", "readings": ("last@0.2", "mean@0.2", "max@0.1", "max@0.2")},
    "linear, readings chosen": {"head": "linear", "readings": "choose"},
    "mlp": {"head": "mlp"},
    "full": {"head": "full", "trunk_epochs": 1, "batch_pairs": 8, "members": 1, "check_every": 10_000, "folds": 20},
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--pairs", type=int, default=1812)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--heads", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--peer", help="python of an environment with trl==1.16.0")
    parser.add_argument("--peer-script", help="peer_trl_reward.py")
    parser.add_argument("--peer-pairs", type=int, default=1812)
    parser.add_argument("--peer-test", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="in which speed is measured")
    parser.add_argument("--speed-pairs", type=int, default=160, help="of an arm in a round")
    parser.add_argument("--peer-speed-pairs", type=int, default=80, help="of the peer in a round; half of them where its number types are compared")
    parser.add_argument("--work", type=Path, default=Path(".cache/reward-speed"), help="where measured arms are kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--json", action="store_true", help="print the result as the last line")
    parser.add_argument("--arm", choices=sorted(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--asked", type=int, default=500, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(measured(arguments, ARMS[arguments.arm])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        other = Peer(arguments, Path(scratch)) if arguments.peer else None
        rounds = [one_round(arguments, number, other) for number in range(arguments.rounds)]
        heads = {name: kept(arguments, name, [sys.executable, *sys.argv, "--arm", name]) for name in arguments.heads}
        whole = other.run(arguments.peer_pairs, arguments.peer_test) if other else None
    found = compared(heads, whole, rounds) | {"machine": machine(), "date": datetime.date.today().isoformat(), "product_gflops": round(product_rate(), 1)}
    write_atomically(arguments.out / f"reward-speed-{found['date']}.json", json.dumps(found, indent=1).encode())
    if arguments.json:
        print(json.dumps(found))


def measured(arguments: argparse.Namespace, changes: dict[str, Any]) -> dict[str, Any]:
    """One head: fitted on the train pairs, asked about the test pairs."""
    trunk = open_trunk(ModelSettings(dtype=arguments.dtype))
    settings = RewardSettings(max_tokens=LENGTH, **changes)
    (train, test), facts = read(arguments), dict[str, Any]()
    lesson, tests = (PairLesson(tokens(part, trunk), settings.centre) for part in (train, test[: arguments.asked]))
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        if settings.head in FROZEN:
            spec = frozen_spec(trunk, settings)
            seen = FeatureCache(Path(scratch), trunk, spec).get(lesson.responses)
            read_seconds = time.perf_counter() - start
            if settings.readings == "choose":
                first, second = lesson.places()
                spec, columns, facts["readings"] = choose(lesson.pairs, seen[first], seen[second], spec, settings, SEED)
                seen = seen[:, columns]
            fit, _ = fit_frozen(lesson, seen, settings, SEED, lambda **_: None)
            seconds = time.perf_counter() - start
            states = FeatureCache(Path(scratch), trunk, spec).get(tests.responses)
        else:
            own = trunk if settings.head == "adapter" else open_trunk(ModelSettings(dtype="fp32"))
            fit, _ = fit_trunk(own, lesson, settings, SEED, Path(scratch) / "state", lambda **_: None)
            seconds = read_seconds = time.perf_counter() - start
            with torch.no_grad(), own.using(ROLE if settings.head == "adapter" else None):
                states = learned_states(own, tests.responses, trunk_spec(own, settings))
    with torch.no_grad():
        scores = fit.head(states).double().mean(1)
    first, second = tests.places()
    rights = (scores[first] > scores[second]).double() + (scores[first] == scores[second]).double() / 2
    right, within = (wilson(float(part.sum()), len(part)) for part in (rights, rights[fits(tests)]))
    return {
        "pairs_per_second": round(len(lesson.prompts) / seconds, 3), "fit_seconds": round(seconds - read_seconds, 1), "seconds": round(seconds, 1),
        "accuracy": round(right.value, 4), "accuracy_low": round(right.low, 4), "accuracy_high": round(right.high, 4), "test_pairs": right.n,
        "accuracy_within": round(within.value, 4), "test_pairs_within": within.n, "pairs": len(lesson.prompts), "peer_keeps": int(fits(lesson).sum()),
        "peak_gb": round(peak_gb(), 2), "dtype": str(trunk.dtype), "gflop_per_pair": round(gflop(lesson, settings, trunk), 1), **facts,
    }  # fmt: skip


def read(arguments: argparse.Namespace) -> tuple[list[Any], list[Any]]:
    """Train and test pairs: the file's in the order of a hash of the whole conversation."""
    chosen = read_chosen(arguments.file).chosen
    ordered = sorted(chosen, key=lambda row: hashlib.sha256(json.dumps([row.turns, row.chosen, row.rejected], sort_keys=True).encode()).hexdigest())
    return ordered[arguments.test : arguments.test + arguments.pairs], ordered[: arguments.test]


def tokens(rows: Sequence[Any], trunk: Trunk) -> Pairs:
    """Pairs with the chosen response first; conversations that begin alike are one prompt, so that they aren't parted by a fold."""
    sides: tuple[list[Item], list[Item]] = ([], [])
    for row in rows:
        asked = tuple(trunk.prompt_ids(row.turns))
        for side, text in zip(sides, (row.chosen, row.rejected[0]), strict=True):
            side.append((asked, tuple(trunk.response_ids(text))))
    return Pairs(*sides, torch.ones(len(rows)), torch.ones(len(rows)), [row.turns[0]["content"] for row in rows])


def fits(lesson: PairLesson) -> torch.Tensor:
    """(N,) bool: whether both sides of a pair have no more than LENGTH tokens, prompt and response."""
    sides = zip(lesson.pairs.a, lesson.pairs.b, strict=True)
    return torch.tensor([max(len(prompt) + len(response) for prompt, response in pair) <= LENGTH for pair in sides])


def gflop(lesson: PairLesson, settings: RewardSettings, trunk: Trunk) -> float:
    """Products that a pair needs, attention left out: two operations for each weight and token forward, as many for the gradient of the states, and as many
    again for a weight that learns. A prompt is read once."""
    trees, _ = by_prompt([shorten(*item, settings.max_tokens) for item in lesson.responses], 1 << 30)
    read_to = max((frozen_spec if settings.head in FROZEN else trunk_spec)(trunk, settings).layers)
    learns = {"adapter": read_to - read_to // 2 if settings.layers == "top-half" else read_to, "full": read_to}.get(settings.head, 0)
    weights = sum(module.weight.numel() for module in products(trunk)) / trunk.layers
    lora = sum(sum(module.weight.shape) * settings.rank for module in products(trunk)) / trunk.layers
    own = {"adapter": 6 * lora, "full": 2 * weights}.get(settings.head, 0)
    each = 2 * weights * read_to + (2 * weights + own) * learns
    return each * sum(tree.size for tree in trees) / len(lesson.prompts) / 1e9


def products(trunk: Trunk) -> list[torch.nn.Linear]:
    """The model's own linear layers, the output matrix left out."""
    named = trunk.model.named_modules()
    return [module for name, module in named if isinstance(module, torch.nn.Linear) and ".layers." in name and "lora_" not in name]


def product_rate() -> float:
    """GFLOP a second of the products of this model in the trunk's number type: the median over its shapes with a row of 1,024 tokens."""
    trunk = open_trunk(ModelSettings())
    rates = []
    for out, width in {
        tuple(module.weight.shape) for name, module in trunk.model.named_modules() if isinstance(module, torch.nn.Linear) and ".layers." in name
    }:
        a, b = torch.randn(1024, width, dtype=trunk.dtype), torch.randn(out, width, dtype=trunk.dtype)
        for _ in range(9):
            start = time.perf_counter()
            for _ in range(10):
                a @ b.T
            rates.append(20 * 1024 * width * out / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


class Peer:
    """The same pairs in the peer's own environment, in conversational form."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.arguments, self.scratch = arguments, scratch
        for name, rows in zip(("train", "test"), read(arguments), strict=True):
            lines = [{"prompt": list(row.turns), "chosen": [_said(row.chosen)], "rejected": [_said(row.rejected[0])]} for row in rows]
            (scratch / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.trials = [self._run("trial", arguments.peer_speed_pairs // 2, 16, bf16) for bf16 in (False, True)]
        self.bf16 = bool(max(self.trials, key=lambda row: float(row["pairs_per_second"]))["bf16"])

    def run(self, pairs: int, tests: int, part: str = "") -> dict[str, Any]:
        """A training in its faster number type."""
        return self._run(part, pairs, tests, self.bf16)

    def _run(self, part: str, pairs: int, tests: int, bf16: bool) -> dict[str, Any]:
        command = [
            self.arguments.peer, self.arguments.peer_script, "--model", resolve("smollm2-135m"), "--train", f"{self.scratch}/train.jsonl",
            "--test", f"{self.scratch}/test.jsonl", "--pairs", str(pairs), "--test-pairs", str(tests), "--max-length", str(LENGTH), *(["--bf16"] * bf16),
        ]  # fmt: skip
        return kept(self.arguments, f"peer {'bf16' if bf16 else 'fp32'} {pairs} {tests}", command, part)


def one_round(arguments: argparse.Namespace, number: int, other: Peer | None) -> dict[str, float]:
    """Pairs a second of every arm and of the peer ("peer"), one after the other."""
    few = ["--pairs", str(arguments.speed_pairs), "--asked", "16"]
    rates = {}
    for name in arguments.heads:
        row = kept(arguments, name, [sys.executable, *sys.argv, *few, "--arm", name], f"round {number}, {arguments.speed_pairs}")
        rates[name] = row["pairs"] / (row["seconds"] - row["fit_seconds"])
    if other is not None:
        rates["peer"] = other.run(arguments.peer_speed_pairs, 16, f"round {number}")["pairs_per_second"]
    return rates


def compared(heads: dict[str, dict[str, Any]], whole: dict[str, Any] | None, rounds: list[dict[str, float]]) -> dict[str, Any]:
    """The adapter's figures at the top, the others under their names, each beside the peer's."""
    for name, row in heads.items():
        rate = statistics.median(one[name] for one in rounds)
        row["seconds"] = round(row["pairs"] / rate + row["fit_seconds"], 1)
        row["pairs_per_second"] = round(row["pairs"] / row["seconds"], 3)
        if whole is not None:
            its = statistics.median(one["peer"] for one in rounds)
            row |= {"peer_pairs_per_second": its, "peer_accuracy": whole["accuracy"], "peer_peak_gb": whole["peak_gb"]}
            row["speedup"] = round(row["pairs_per_second"] / its, 2)
            row["speedup_by_pairs_learned"] = round(row["speedup"] * row["pairs"] / row["peer_keeps"], 2)
            row["memory_share"] = round(row["peak_gb"] / whole["peak_gb"], 2)
    others = {name: row for name, row in heads.items() if name != "adapter"}
    return {**heads.get("adapter", {}), **others, "peer": whole, "rounds": [{name: round(rate, 3) for name, rate in one.items()} for one in rounds]}


def kept(arguments: argparse.Namespace, name: str, command: Sequence[str], part: str = "") -> dict[str, Any]:
    """What a process says in its last line, or what an earlier one said of the same on this machine.

    Args:
        part: which of several runs of an arm it is; nothing: the whole.
    """
    ours = [file for room in ("models", "reward") for file in sorted((Path(truing.__file__).parent / room).rglob("*.py"))]
    code = content_id(ARMS.get(name), [file.read_text() for file in (ours if name in ARMS else [Path(arguments.peer_script)])])
    rows = hashlib.sha256(arguments.file.read_bytes()).hexdigest()
    place = machine() if part else ""
    file = arguments.work / f"{content_id(name, part, rows, arguments.pairs, arguments.test, arguments.dtype, place, code)}.json"
    if not file.exists():
        finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        said = json.loads(finished.stdout.strip().splitlines()[-1])
        write_atomically(file, json.dumps(said | {"date": datetime.date.today().isoformat()}))
    found = dict(json.loads(file.read_text()))
    say(f"{name} {part}: {json.dumps(found)}")
    return found


def _said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


if __name__ == "__main__":
    main()
