"""Prompt and response token ids → rectangles for the model, with the bookkeeping to find the response again.

Shapes: B sequences, L tokens of prompt and response together, T response tokens. Right-padded: in a causal model
nothing to the left of a pad can see it, so no attention mask is needed and the numbers of a sequence don't depend on
its neighbours' lengths. Lengths say what is real; no pad token is ever searched for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Attributes:
    input_ids: (B, L) prompt then response, right-padded.
    prompt_lengths: (B,) tokens of the prompt.
    response_lengths: (B,) tokens of the response, its end token included.
    """

    input_ids: Tensor
    prompt_lengths: Tensor
    response_lengths: Tensor

    @property
    def lengths(self) -> Tensor:
        """(B,) real tokens of each sequence."""
        return self.prompt_lengths + self.response_lengths

    @property
    def longest(self) -> int:
        """Most tokens of a prompt and its response together."""
        return int(self.lengths.max())

    @property
    def mask(self) -> Tensor:
        """(B, T) True on response tokens."""
        longest = int(self.response_lengths.max())
        return torch.arange(longest) < self.response_lengths[:, None]

    @property
    def targets(self) -> Tensor:
        """(N,) the response tokens themselves, row by row."""
        return self.input_ids.flatten()[self._flat(shift=0)]

    def predicting(self, hidden: Tensor) -> Tensor:
        """(N, H) from (B, L, H): the hidden state just before each response token, which predicts it."""
        return hidden.flatten(0, 1)[self._flat(shift=-1)]

    def reading(self, hidden: Tensor) -> Tensor:
        """(N, H) from (B, L, H): the hidden state at each response token, which has read it."""
        return hidden.flatten(0, 1)[self._flat(shift=0)]

    def rectangle(self, values: Tensor) -> Tensor:
        """(B, T) from (N,): a value for each response token put where `mask` is True, 0 elsewhere."""
        mask = self.mask
        return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter(mask, values.cpu())

    def response_states(self, hidden: Tensor) -> list[Tensor]:
        """(T, H) from (B, L, H) for each response: its tokens' states; of a response without tokens the prompt's last."""
        ends = zip(self.lengths.tolist(), self.response_lengths.tolist(), strict=True)
        return [row[end - max(length, 1) : end] for row, (end, length) in zip(hidden, ends, strict=True)]

    def _flat(self, shift: int) -> Tensor:
        """(N,) places of the response tokens in the flattened (B * L) batch."""
        rows, steps = self.mask.nonzero(as_tuple=True)
        return (rows * self.input_ids.shape[1] + self.prompt_lengths[rows] + steps + shift).to(self.input_ids.device)


def collate(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int, *, device: torch.device | None = None) -> Batch:
    """Token ids → a batch.

    Args:
        device: where the model is; None: the CPU.

    Raises:
        ValueError: a prompt is empty, so that nothing predicts the first response token.
    """
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt without tokens")
    longest = max(len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True))
    rows = [[*prompt, *response, *[pad_id] * (longest - len(prompt) - len(response))] for prompt, response in zip(prompts, responses, strict=True)]
    return Batch(torch.tensor(rows, device=device), torch.tensor([len(prompt) for prompt in prompts]), torch.tensor([len(response) for response in responses]))


def length_buckets(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in groups of at most `size`, alike in length, longest first (a batch too large for memory fails at once,
    not at the end)."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + size] for start in range(0, len(order), size)]
