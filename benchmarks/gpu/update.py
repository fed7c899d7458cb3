"""An update of models as large as Qwen 2.5's on a CUDA machine: tokens a second, memory, the share of what the machine multiplies, and TRL beside it.

Weights are random, which changes no speed: nothing is fetched. 64 answers of 256 tokens to prompts of 256 (PPO: a prompt each; GRPO: four answers to a
prompt), LoRA of rank 16 on every layer, one pass over them. `benchmarks/ppo_update.py` does the work, each arm in a process of its own.

    python benchmarks/gpu/update.py --json
    python benchmarks/gpu/update.py --json --peer PYTHON        GRPO beside TRL 1.16 in that environment (see benchmarks/peers/trl_online.py)
    python benchmarks/gpu/update.py --json --shapes tiny --batch 8 --prompt 16 --response 8       a trial, on any machine

Sampling's tokens are those drawn; training's are all that are read and drawn. `share` is the fewest seconds that the machine's measured rates allow over the
seconds taken: the inverse of ppo_update.py's `roofline_ratio`. The last line is a JSON object, which is also written to gpu-update-DATE.json.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from truing.config import write_atomically
from truing.console import say
from truing.models.precision import fastest_dtype, machine

SHAPES = {  # of Qwen2.5's configurations
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    "1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1_000},
}
KEPT = ("seconds", "peak_gb", "sampling_s", "scoring_s", "training_s", "peer_seconds", "peer_peak_gb", "speedup", "memory_ratio")
HERE = Path(__file__).parents[1]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=["0.5b", "1.5b"])
    parser.add_argument("--algorithms", nargs="+", choices=("ppo", "grpo"), default=["ppo", "grpo"])
    parser.add_argument("--batch", type=int, default=64, help="answers in an update")
    parser.add_argument("--microbatch", type=int, default=16, help="of them in memory at a time")
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--response", type=int, default=256, help="tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="python of an environment with trl==1.16.0")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--json", action="store_true", help="print the result as the last line")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(), "date": datetime.date.today().isoformat(), "dtype": str(fastest_dtype()), "arms": []}
    with tempfile.TemporaryDirectory() as scratch:
        for shape in arguments.shapes:
            folder = made(shape, Path(scratch))
            for algorithm in arguments.algorithms:
                row = {"shape": shape, "algorithm": algorithm, **measured(folder, algorithm, arguments, Path(scratch))}
                found["arms"].append(row)
                say(json.dumps(row))
    found["work"] = {name: getattr(arguments, name) for name in ("batch", "microbatch", "prompt", "response", "rounds")}
    write_atomically(arguments.out / f"gpu-update-{found['date']}.json", json.dumps(found, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(found))


def made(shape: str, scratch: Path) -> Path:
    """A folder with a random model of that shape and a tokenizer to which every word is one token."""
    folder, sizes = scratch / shape, SHAPES[shape]
    words = {"<pad>": 0, "<end>": 1, "<unknown>": 2} | {f"w{number}": number for number in range(3, sizes["vocab_size"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", unk_token="<unknown>").save_pretrained(folder)
    config = Qwen2Config(**sizes, tie_word_embeddings=True, max_position_embeddings=4096, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    Qwen2ForCausalLM(config).to(fastest_dtype()).save_pretrained(folder)
    return folder


def measured(folder: Path, algorithm: str, arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """What ppo_update.py says, in tokens a second."""
    command = [
        sys.executable, str(HERE / "ppo_update.py"), "--json", "--algorithm", algorithm, "--model", str(folder), "--batch", str(arguments.batch),
        "--microbatch", str(arguments.microbatch), "--prompt", str(arguments.prompt), "--response", str(arguments.response), "--epochs", "1",
        "--rounds", str(arguments.rounds), "--out", str(scratch),
    ]  # fmt: skip
    if arguments.peer and algorithm == "grpo":
        command += ["--peer", arguments.peer, "--peer-script", str(HERE / "peers" / "trl_online.py")]
    said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[-1])
    drawn = arguments.batch * arguments.response
    read = arguments.batch // (1 if algorithm == "ppo" else 4) * arguments.prompt
    return {
        "sampling_tokens_per_second": round(drawn / said["sampling_s"]), "training_tokens_per_second": round((drawn + read) / said["training_s"]),
        "share": round(1 / said["roofline_ratio"], 3), "shares": {name: round(1 / ratio, 3) for name, ratio in said["roofline_ratios"].items()},
        **{name: said[name] for name in KEPT if name in said},
    }  # fmt: skip


if __name__ == "__main__":
    main()
