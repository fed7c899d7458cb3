"""TRL 1.16's RLOOTrainer on the task of benchmarks/policy_learning.py, which calls this in an environment of its own (see trl_online.py).

The reward is a process that reads a line of JSON, [[prompt, token ids of a completion], …], and answers with one, the scores. At the start and after every
part of the way (--looks) the adapter is saved; `made.json` in --out names each with the seconds of training that it took, saving left out.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

GROUP, EACH, MINIBATCHES, EPOCHS = 4, 32, 4, 2
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--prompts", type=Path, required=True)
parser.add_argument("--reward", type=json.loads, required=True)
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--updates", type=int, required=True)
parser.add_argument("--looks", type=int, required=True)
parser.add_argument("--seed", type=int, required=True)
parser.add_argument("--tokens", type=int, required=True)
parser.add_argument("--temperature", type=float, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--beta", type=float, required=True)
arguments = parser.parse_args()

reward = subprocess.Popen(arguments.reward, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
made: list[tuple[str, float]] = []


def scores(prompts: list[list[dict[str, str]]], completion_ids: list[list[int]], **_: object) -> list[float]:
    """Ask the process."""
    reward.stdin.write(json.dumps([[prompt[-1]["content"], ids] for prompt, ids in zip(prompts, completion_ids, strict=True)]) + "\n")
    reward.stdin.flush()
    return json.loads(reward.stdout.readline())


class Keeper(TrainerCallback):
    """Saves the adapter now and then, and stops its clock meanwhile."""

    steps = EPOCHS * MINIBATCHES * arguments.updates // arguments.looks

    def __init__(self) -> None:
        self.spent, self.began = 0.0, 0.0

    def on_train_begin(self, args: object, state: object, control: object, model: torch.nn.Module, **_: object) -> None:
        self.keep(0, model)

    def on_step_end(self, args: object, state: object, control: object, model: torch.nn.Module, **_: object) -> None:
        if state.global_step % self.steps == 0:
            self.spent += time.perf_counter() - self.began
            self.keep(state.global_step, model)

    def keep(self, step: int, model: torch.nn.Module) -> None:
        """Save it; the clock runs on from here."""
        place = arguments.out / f"step-{step}"
        model.save_pretrained(place)
        made.append((str(place), self.spent))
        self.began = time.perf_counter()


model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
upper = list(range(model.config.num_hidden_layers // 2, model.config.num_hidden_layers))
trainer = RLOOTrainer(
    model=model,
    reward_funcs=scores,
    args=RLOOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=EACH // MINIBATCHES, steps_per_generation=MINIBATCHES, gradient_accumulation_steps=1,
        num_generations=GROUP, num_iterations=EPOCHS, max_steps=EPOCHS * MINIBATCHES * arguments.updates, max_completion_length=arguments.tokens,
        temperature=arguments.temperature, beta=arguments.beta, learning_rate=arguments.lr, seed=arguments.seed, use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False, report_to="none", save_strategy="no", logging_steps=1000, bf16=False,
    ),
    train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in json.loads(arguments.prompts.read_text())]),
    processing_class=AutoTokenizer.from_pretrained(arguments.model, padding_side="left"),
    callbacks=[Keeper()],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR, layers_to_transform=upper, task_type="CAUSAL_LM"),
)  # fmt: skip
trainer.train()
reward.stdin.close()
reward.wait()
(arguments.out / "made.json").write_text(json.dumps(made))
