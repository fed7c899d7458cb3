"""Tokens a second of sampling on this machine's CPU, beside transformers' `generate` and llama.cpp, with the same weights in the same run.

Prompts of 64 random tokens, 64 new tokens each and no end token, temperature 0.7 over the whole vocabulary. A second counts from prompts to the last token;
ours also gives the log-probability of each token at two temperatures, which a policy is learned with. Each arm runs in a process of its own, in turn, for some
rounds; medians count. Nothing else should run meanwhile.

    python benchmarks/sampling.py --json                                                                   beside transformers
    python benchmarks/sampling.py --json --llama PYTHON --gguf smollm2-f32.gguf smollm2-bf16.gguf          and llama.cpp

Ours and transformers run in the number type that products are faster in here. llama.cpp wants `pip install llama-cpp-python`, and files made of the same
weights by its own convert_hf_to_gguf.py; the faster file of a trial stands for it.

`step_ms` is one more token of each row, what it takes to read the prompts left out. `fewest_ms` is its products alone, all of the model's matrices one after
the other, measured in the same run. With --json the last line of stdout is one JSON object; the same is written to sampling-DATE.json.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a comparison on the CPU, also beside a GPU; before torch looks

import torch

from truing.config import write_atomically
from truing.console import say
from truing.models.generate import generate
from truing.models.plain_layers import matrices
from truing.models.precision import machine
from truing.models.registry import ModelSettings, resolve
from truing.models.trunk import Trunk, open_trunk

Sample = Callable[[list[list[int]], int], None]  # prompts, new tokens of each
TEMPERATURE = 0.7
LLAMA = Path(__file__).parent / "peers" / "llama_sampling.py"


def main() -> None:
    """Measure, print, write."""
    arguments = parsed()
    if arguments.arm:
        print(json.dumps({"ours": of_ours, "transformers": of_transformers}[arguments.arm](arguments)))
        return
    own = [sys.executable, *sys.argv, "--arm"]
    arms = {"ours": [*own, "ours"], "transformers": [*own, "transformers"]}
    if arguments.llama:
        arms["llama.cpp"] = faster_llama(arguments)
    rounds = []
    for number in range(arguments.rounds):
        row = {name: said(command) for name, command in arms.items()}
        rounds.append(row)
        say(f"round {number + 1}: {json.dumps(row)}")
    found = compared(rounds, arguments) | {"machine": machine(), "date": datetime.date.today().isoformat(), "rounds": rounds}
    write_atomically(arguments.out / f"sampling-{found['date']}.json", json.dumps(found, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(found))


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--repeats", type=int, default=3, help="of each batch in a process, after one that warms up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama", help="python of an environment with llama-cpp-python")
    parser.add_argument("--gguf", nargs="+", default=[], help="the same weights for llama.cpp")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--json", action="store_true", help="print the result as the last line")
    parser.add_argument("--arm", choices=("ours", "transformers"), help=argparse.SUPPRESS)
    return parser.parse_args()


def of_ours(arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of each batch, and the fewest milliseconds of a step."""
    trunk = open_trunk(ModelSettings(name=arguments.model, dtype=arguments.dtype))
    trunk.eos_ids = frozenset()  # every run does the same work

    def sample(prompts: list[list[int]], new: int) -> None:
        drawn = generate(trunk, prompts, range(len(prompts)), max_new_tokens=new, temperature=TEMPERATURE, batch_size=len(prompts))
        assert all(len(one.token_ids) == new for one in drawn)

    least = {str(batch): round(1000 * fewest_seconds(trunk, batch), 2) for batch in arguments.batches}
    return rates(arguments, sample, trunk.model.config.vocab_size) | {"fewest_ms": least, "dtype": str(trunk.dtype)}


def of_transformers(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same by transformers' own `generate`."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    trunk = open_trunk(ModelSettings(name=arguments.model, dtype=arguments.dtype))  # for the number type alone
    model = AutoModelForCausalLM.from_pretrained(resolve(arguments.model), dtype=trunk.dtype).eval()
    model.generation_config = GenerationConfig()

    def sample(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        how = GenerationConfig(do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0, max_new_tokens=new, pad_token_id=trunk.pad_id)  # no end token
        with torch.no_grad():
            whole = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=how)
        assert whole.shape == (len(prompts), ids.shape[1] + new)

    return rates(arguments, sample, trunk.model.config.vocab_size) | {"dtype": str(trunk.dtype)}


def rates(arguments: argparse.Namespace, sample: Sample, vocabulary: int) -> dict[str, Any]:
    """Tokens a second of each batch, and milliseconds of a step, medians."""
    found: dict[str, Any] = {"tokens_per_second": {}, "step_ms": {}}
    for batch in arguments.batches:
        prompts = torch.randint(5, vocabulary - 100, (batch, arguments.prompt), generator=torch.Generator().manual_seed(batch)).tolist()
        whole, first = (statistics.median(seconds(sample, prompts, new, arguments.repeats)) for new in (arguments.new, 1))
        found["tokens_per_second"][str(batch)] = round(batch * arguments.new / whole, 2)
        found["step_ms"][str(batch)] = round(1000 * (whole - first) / (arguments.new - 1), 2)
    return found


def seconds(sample: Sample, prompts: list[list[int]], new: int, repeats: int) -> list[float]:
    """Of drawing `new` tokens after each prompt, without the first time."""
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        sample(prompts, new)
        found.append(time.perf_counter() - began)
    return found[1:]


def fewest_seconds(trunk: Trunk, batch: int) -> float:
    """Of a step: the products of one token of each row, each weight read from memory, at the best of a few tries, as they stand or laid out once."""
    groups: list[Any] = [(trunk.head,), *(group for layer in trunk.model.model.layers for group in matrices(layer))]
    rows = {width: torch.randn(batch, width, dtype=trunk.dtype) for width in {group[0].in_features for group in groups}}
    times = []
    with torch.no_grad():
        for products in (trunk.products(lay_out=False), trunk.products(lay_out=True)):
            for _ in range(5):
                began = time.perf_counter()
                for group in groups:
                    products(group, rows[group[0].in_features])
                times.append(time.perf_counter() - began)
    return min(times)


def faster_llama(arguments: argparse.Namespace) -> list[str]:
    """llama.cpp's command with the file that a trial found faster at the largest batch."""
    command = [
        arguments.llama, str(LLAMA), "--prompt", str(arguments.prompt), "--new", str(arguments.new), "--repeats", str(arguments.repeats),
        "--threads", str(torch.get_num_threads()), "--batches", *map(str, arguments.batches),
    ]  # fmt: skip
    trials = {file: said([*command, "--gguf", file])["tokens_per_second"] for file in arguments.gguf}
    say(f"llama.cpp's trials, tokens a second: {trials}")
    return [*command, "--gguf", max(trials, key=lambda file: trials[file][str(max(arguments.batches))])]


def said(command: Sequence[str]) -> dict[str, Any]:
    """What a process says in its last line."""
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(finished.stdout.strip().splitlines()[-1]))


def compared(rounds: Sequence[dict[str, dict[str, Any]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds, and how they compare."""
    found: dict[str, Any] = {}
    for batch in map(str, arguments.batches):
        rate = {name: statistics.median(row[name]["tokens_per_second"][batch] for row in rounds) for name in rounds[0]}
        step = {name: statistics.median(row[name]["step_ms"][batch] for row in rounds) for name in rounds[0]}
        fewest = statistics.median(row["ours"]["fewest_ms"][batch] for row in rounds)
        found[batch] = {"tokens_per_second": rate, "step_ms": step, "fewest_ms": fewest, "over_fewest": round(step["ours"] / fewest, 2)}
        found[batch] |= {f"times_{name}": round(rate["ours"] / rate[name], 2) for name in rate if name != "ours"}
    return {"batches": found, "prompt": arguments.prompt, "new": arguments.new}


if __name__ == "__main__":
    main()
