"""A rollout: answers drawn from the policy, with everything that stays constant while it is learned from.

Shapes: B responses in the batch (groups of siblings stand together), T response tokens, right-padded, H hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from truing.models.generate import Response, generate
from truing.models.logprobs import response_logprobs
from truing.models.sequences import Batch, collate, length_buckets
from truing.models.trunk import Trunk
from truing.policy.kl import k1, token_rewards
from truing.policy.settings import TuneSettings

ROLE = "policy"
Score = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], Sequence[float]]  # prompts, responses → normalised scores


class Forward(NamedTuple):
    """One pass of the policy over some answers. All (B, T); values is None without a value head."""

    logprobs: Tensor
    entropy: Tensor
    values: Tensor | None


@dataclass(frozen=True)
class Rollout:
    """Attributes:
    prompts, responses: token ids.
    parts: indices of the answers that go through the model together; the same in every pass, so that the first-epoch ratio is exactly 1.
    mask: (B, T) bool, True on generated tokens.
    logprobs, ref_logprobs, entropy: (B, T) nats at the sampling temperature, when the answers were drawn.
    values: (B, T) or None.
    raw_scores: (B,) of the reward model.
    scores: (B,) after the rule for cut-off answers and the clip.
    rewards: (B, T) the score on the last token, and the price of KL on every token.
    kl: (B, T) k1 estimates, nats.
    """

    prompts: list[list[int]]
    responses: list[Response]
    parts: list[list[int]]
    mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    entropy: Tensor
    values: Tensor | None
    raw_scores: Tensor
    scores: Tensor
    rewards: Tensor
    kl: Tensor

    def part(self, indices: Sequence[int], pad_id: int) -> Batch:
        """Some of the answers as a batch for the model."""
        return collate([self.prompts[index] for index in indices], [self.responses[index].token_ids for index in indices], pad_id)


def draw_rollout(
    trunk: Trunk,
    head: nn.Linear | None,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    score: Score,
    settings: TuneSettings,
    *,
    beta: float,
    temperature: float,
    max_new_tokens: int,
) -> Rollout:
    """Draw an answer to each prompt and work out what its tokens earned.

    Args:
        head: value head on the policy's hidden states, or None.
        prompts: token ids; each as often as it has answers.
        seeds: one for each answer.
        score: the reward, normalised to standard deviation 1 on reference samples.
        beta: price of a nat.
    """
    with trunk.merged(ROLE):
        responses = generate(trunk, prompts, seeds, max_new_tokens=max_new_tokens, temperature=temperature, batch_size=max(len(prompts), 1))
    tokens = [response.token_ids for response in responses]
    raw_scores = torch.tensor(list(score(prompts, tokens)), dtype=torch.float32)
    scores = final_scores(raw_scores, torch.tensor([response.finished for response in responses]), settings)
    rows = [list(prompt) for prompt in prompts]
    parts = length_buckets([len(prompt) + len(response) for prompt, response in zip(rows, tokens, strict=True)], settings.microbatch)
    with torch.no_grad():
        with trunk.using(ROLE):
            policy = _whole(trunk, head, rows, tokens, parts, temperature)
        with trunk.using(None):
            reference = _whole(trunk, None, rows, tokens, parts, temperature)
    longest = policy.logprobs.shape[1]
    mask = torch.arange(longest) < torch.tensor([len(response) for response in tokens])[:, None]
    kl = k1(policy.logprobs, reference.logprobs)
    rewards = token_rewards(scores, kl, mask, beta=beta)
    return Rollout(rows, responses, parts, mask, policy.logprobs, reference.logprobs, policy.entropy, policy.values, raw_scores, scores, rewards, kl)


def forward(trunk: Trunk, head: nn.Linear | None, batch: Batch, temperature: float) -> Forward:
    """The policy's view of a batch under the adapter that is on; carries gradients when they are enabled."""
    hidden = trunk.hidden(batch)
    found = response_logprobs(trunk, batch, temperature, hidden=hidden)
    values = None if head is None else batch.rectangle(head(batch.predicting(hidden).to(head.weight.dtype))[:, 0])
    return Forward(found.logprobs, found.entropy, values)


def final_scores(raw: Tensor, finished: Tensor, settings: TuneSettings) -> Tensor:
    """(B,) scores after the rule for answers that were cut off, held within the clip."""
    if settings.truncation == "set":
        raw = torch.where(finished, raw, -settings.truncation_penalty)
    elif settings.truncation == "subtract":
        raw = torch.where(finished, raw, raw - settings.truncation_penalty)
    return raw.clamp(-settings.score_clip, settings.score_clip)


def widen(values: Tensor, longest: int) -> Tensor:
    """(B, longest) from (B, T <= longest): zeros to the right."""
    return nn.functional.pad(values, (0, longest - values.shape[1]))


def _whole(
    trunk: Trunk, head: nn.Linear | None, prompts: list[list[int]], responses: list[list[int]], parts: list[list[int]], temperature: float
) -> Forward:
    """`forward` over all parts, put back in the order of the answers."""
    longest = max(len(response) for response in responses)
    passes = []
    for part in parts:
        batch = collate([prompts[index] for index in part], [responses[index] for index in part], trunk.pad_id)
        passes.append(forward(trunk, head, batch, temperature))
    back = torch.tensor([index for part in parts for index in part]).argsort()
    logprobs = torch.cat([widen(found.logprobs, longest) for found in passes])[back]
    entropy = torch.cat([widen(found.entropy, longest) for found in passes])[back]
    values = None if head is None else torch.cat([widen(found.values, longest) for found in passes if found.values is not None])[back]
    return Forward(logprobs, entropy, values)
