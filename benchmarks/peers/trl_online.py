"""Times updates of TRL 1.16's RLOOTrainer and GRPOTrainer, on a GPU where there is one: the peers' half of `benchmarks/ppo_update.py --algorithm rloo|grpo`.

In an environment of its own, so that its pins touch nothing else:

    python3 -m venv peer116 && peer116/bin/pip install torch==2.13.0 transformers peft accelerate datasets gguf trl==1.16.0
    peer116/bin/python benchmarks/peers/trl_online.py --algorithm grpo --model FOLDER_WITH_SMOLLM2_IN_HF_FORMAT --prompts FILE

FILE holds a JSON list of texts, the prompts of each update after those of the one before. Every answer is as long as it may be, so that every run does the same
work; the reward is the length of the text, which takes no time. `num_iterations` is TRL's name for passes over the same answers.

The last line of stdout is one JSON object: seconds of an update (median without the first) and peak memory in GB.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

parser = argparse.ArgumentParser()
parser.add_argument("--algorithm", choices=("rloo", "grpo"), required=True)
parser.add_argument("--model", required=True)
parser.add_argument("--prompts", type=Path, required=True)
parser.add_argument("--batch", type=int, default=16, help="answers in an update")
parser.add_argument("--microbatch", type=int, help="of them in memory at a time; all, if it isn't said")
parser.add_argument("--group", type=int, default=4, help="answers to a prompt")
parser.add_argument("--response", type=int, default=24)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--updates", type=int, default=3)
parser.add_argument("--rank", type=int, default=16)
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--bf16-base", action="store_true", help="the frozen weights too")
arguments = parser.parse_args()

texts = json.loads(arguments.prompts.read_text())
micro = arguments.microbatch or arguments.batch
stamps: list[float] = []


class Clock(TrainerCallback):
    """Notes when each optimiser step ends."""

    def on_step_end(self, *_: object, **__: object) -> None:
        stamps.append(time.perf_counter())


kind, settings = (RLOOTrainer, RLOOConfig) if arguments.algorithm == "rloo" else (GRPOTrainer, GRPOConfig)
tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left")
trainer = kind(
    model=AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16 if arguments.bf16_base else torch.float32),
    reward_funcs=lambda completions, **_: [float(len(text)) for text in completions],
    args=settings(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=micro, gradient_accumulation_steps=arguments.batch // micro, num_generations=arguments.group,
        num_iterations=arguments.epochs, max_steps=arguments.epochs * arguments.updates, max_completion_length=arguments.response, temperature=0.7,
        beta=0.05, bf16=arguments.bf16, use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False, report_to="none", save_strategy="no",
        learning_rate=1e-5, generation_kwargs={"min_new_tokens": arguments.response}, logging_steps=1000,
    ),
    train_dataset=Dataset.from_dict({"prompt": texts}),
    processing_class=tokenizer,
    callbacks=[Clock()],
    peft_config=LoraConfig(r=arguments.rank, lora_alpha=2 * arguments.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
)  # fmt: skip
trainer.train()
ends = stamps[arguments.epochs - 1 :: arguments.epochs]
seconds = [after - before for before, after in pairwise(ends)]
peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({
    "peer": f"trl 1.16 {kind.__name__}", "seconds_per_update": round(statistics.median(seconds), 2), "bf16": arguments.bf16,
    "peak_gb": round(peak, 2),
}))  # fmt: skip
