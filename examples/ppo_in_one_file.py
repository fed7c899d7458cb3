"""PPO for a language model in one file: torch, transformers and peft, nothing of Truing. To read, to change, to teach with.

    python examples/ppo_in_one_file.py MODEL        a folder or a Hub name, such as HuggingFaceTB/SmolLM2-135M-Instruct

The same algorithm as `truing tune` with tune.algorithm = "ppo": a LoRA adapter is the policy, the model without it the reference, a linear head on the
policy's states the critic. A test holds every number of an update to the package's (tests/test_examples.py). What is left out is what makes the package fast,
resumable and able to say what goes wrong.

Shapes: B answers, T tokens of the longest answer, L of the longest prompt and answer together, V vocabulary.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

Reward = Callable[[list[list[int]], list[list[int]]], list[float]]  # prompts, answers → a score each


class Settings(NamedTuple):
    """What can be tried."""

    updates: int = 20
    answers: int = 16  # an update
    epochs: int = 4
    lr: float = 3e-4  # falls linearly to 0
    rank: int = 16
    max_new_tokens: int = 32
    temperature: float = 0.7
    beta: float = 0.05  # price of a nat of KL
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_weight: float = 0.1
    grad_clip: float = 1.0
    cut_off: float = -1.0  # score of an answer that didn't end


def main(name: str) -> None:
    """Tune a model to answer in many different words, and to come to an end."""
    settings = Settings()
    tokenizer = AutoTokenizer.from_pretrained(name)
    model, head = policy_of(AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), settings.rank)
    optimizer = optimizer_of(model, head, settings)
    questions = ["What is a good breakfast?", "Why is the sky blue?", "How do I learn to draw?", "What should I pack for a walk?"]
    asked = [prompt_ids(tokenizer, question) for question in questions]
    ends = {tokenizer.eos_token_id}

    def different_words(prompts: list[list[int]], answers: list[list[int]]) -> list[float]:
        return [len(set(tokenizer.decode(answer, skip_special_tokens=True).lower().split())) / 10 - 1 for answer in answers]

    for number in range(settings.updates):
        prompts = [asked[place % len(asked)] for place in range(settings.answers)]
        seeds = [number * settings.answers + place for place in range(settings.answers)]
        row, answers = update(model, head, optimizer, prompts, seeds, different_words, ends, settings, done=number)
        print(" ".join(f"{key} {value:.3f}" for key, value in row.items()), repr(tokenizer.decode(answers[0])))


def prompt_ids(tokenizer: Any, question: str) -> list[int]:
    """Tokens of a question, up to where the answer begins."""
    text = tokenizer.apply_chat_template([{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def policy_of(model: Any, rank: int) -> tuple[Any, nn.Linear]:
    """The model with an adapter that changes nothing yet, and a critic that promises nothing. No dropout: the first ratio must be 1."""
    model.requires_grad_(False)
    policy = get_peft_model(model.eval(), LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    head = nn.Linear(model.config.hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return policy, head


def optimizer_of(model: Any, head: nn.Linear, settings: Settings) -> torch.optim.AdamW:
    """Adam with lm-human-preferences' epsilon: PyTorch's own, 1e-8, starts more aggressively."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW([*trained, *head.parameters()], lr=settings.lr, betas=(0.9, 0.95), eps=1e-5, weight_decay=0.0)


def update(
    model: Any, head: nn.Linear, optimizer: torch.optim.AdamW, prompts: list[list[int]], seeds: list[int], reward: Reward, ends: set[int], settings: Settings,
    *, done: int,
) -> tuple[dict[str, float], list[list[int]]]:  # fmt: skip
    """Draw an answer to each prompt, score them, take `epochs` steps; what there is to say of it, and the answers."""
    answers = sample(model, prompts, seeds, ends, settings)
    mask = torch.arange(max(map(len, answers))) < torch.tensor([len(answer) for answer in answers])[:, None]  # (B, T)
    scores = torch.tensor(reward(prompts, answers))
    scores = torch.where(torch.tensor([answer[-1] in ends for answer in answers]), scores, settings.cut_off)
    with torch.no_grad():
        old, old_values = read(model, head, prompts, answers, settings.temperature)
        with model.disable_adapter():
            reference, _ = read(model, head, prompts, answers, settings.temperature)
    kl = (old - reference) * mask
    rewards = -settings.beta * kl
    rewards[torch.arange(len(answers)), mask.sum(1) - 1] += scores  # on the last real token, which is the end token where there is one
    advantages, returns = gae(rewards, old_values * mask, settings)
    mean = advantages[mask].mean()
    advantages = (advantages - mean) / (advantages[mask].var(correction=0) + 1e-8).sqrt()
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * (1 - done / settings.updates)
    losses = []
    for _ in range(settings.epochs):
        new, values = read(model, head, prompts, answers, settings.temperature)
        ratio = (new - old).exp()
        policy_loss = -torch.minimum(ratio * advantages, ratio.clamp(1 - settings.clip, 1 + settings.clip) * advantages)[mask].mean()
        held = old_values + (values - old_values).clamp(-settings.value_clip, settings.value_clip)
        value_loss = torch.maximum((values - returns) ** 2, (held - returns) ** 2)[mask].mean() / 2
        optimizer.zero_grad()
        (policy_loss + settings.value_weight * value_loss).backward()
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], settings.grad_clip)
        optimizer.step()
        losses.append((float(policy_loss.detach()), float(value_loss.detach())))
    policy_losses, value_losses = zip(*losses, strict=True)
    row = {"score": float(scores.mean()), "kl": float(kl.sum(1).mean()), "policy loss": sum(policy_losses) / len(losses)}
    return row | {"value loss": sum(value_losses) / len(losses), "length": float(mask.sum(1).float().mean())}, answers


def gae(rewards: Tensor, values: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
    """Advantages and returns, (B, T), from rewards and values that are 0 beyond the end (Schulman et al. 2015, arXiv:1506.02438, eq. 16)."""
    advantages = torch.zeros_like(rewards)
    after, next_value = torch.zeros(len(rewards)), torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        after = rewards[:, t] + settings.gamma * next_value - values[:, t] + settings.gamma * settings.lam * after
        advantages[:, t], next_value = after, values[:, t]
    return advantages, advantages + values


def read(model: Any, head: nn.Linear, prompts: list[list[int]], answers: list[list[int]], temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the answers' tokens, nats at the sampling temperature, and the critic's values before each: (B, T) both, 0 beyond the end."""
    longest, width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)), max(map(len, answers))
    rows = [[*prompt, *answer, *[0] * (longest - len(prompt) - len(answer))] for prompt, answer in zip(prompts, answers, strict=True)]
    states = model(input_ids=torch.tensor(rows), output_hidden_states=True).hidden_states[-1]  # (B, L, H); padding stands on the right: nothing looks at it
    logprobs, values = [], []
    for row, prompt, answer in zip(states, prompts, answers, strict=True):
        before = row[len(prompt) - 1 : len(prompt) + len(answer) - 1]  # the state just before each token predicts it
        logits = model.get_output_embeddings()(before) / temperature
        found = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])[:, 0]
        logprobs.append(nn.functional.pad(found, (0, width - len(answer))))
        values.append(nn.functional.pad(head(before)[:, 0], (0, width - len(answer))))
    return torch.stack(logprobs), torch.stack(values)


@torch.no_grad()
def sample(model: Any, prompts: list[list[int]], seeds: list[int], ends: set[int], settings: Settings) -> list[list[int]]:
    """An answer to each prompt, drawn at the temperature from the whole distribution, by a seed of its own."""
    steps = settings.max_new_tokens
    uniform = torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds])  # (B, T)
    longest = max(map(len, prompts))
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])  # padded on the left: answers begin together
    looks = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    answers: list[list[int]] = [[] for _ in prompts]
    cache = None
    for step in range(steps):
        positions = (looks.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        out = model(input_ids=tokens, attention_mask=looks, position_ids=positions, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        up_to = (out.logits[:, -1] / settings.temperature).double().softmax(-1).cumsum(-1)
        tokens = torch.searchsorted(up_to, uniform[:, step, None] * up_to[:, -1:], right=True)
        looks = torch.cat([looks, torch.ones(len(prompts), 1, dtype=looks.dtype)], 1)
        for answer, token in zip(answers, tokens[:, 0].tolist(), strict=True):
            if not answer or answer[-1] not in ends:
                answer.append(token)
        if all(answer[-1] in ends for answer in answers):
            break
    return answers


if __name__ == "__main__":
    main(sys.argv[1])
