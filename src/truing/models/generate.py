"""Sampling: batches of like length, a key-value cache that is written in place, one seed for each sample.

A sample's tokens depend on its prompt, its seed and the policy alone, not on its neighbours or their order (in fp32; in
bf16 up to rounding). Shapes: B rows, P unique prompts, S cached tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from truing.errors import UserError
from truing.models.decoding import Decoding
from truing.models.products import FEWEST_STEPS, Products
from truing.models.sequences import length_buckets
from truing.models.trunk import Trunk

if TYPE_CHECKING:
    from truing.models.padded_decoding import PaddedDecoding

BLOCK = 256  # columns of the vocabulary added up at a time
DRAWN_AT_ONCE = 16  # rows of logits, on a CPU: what its caches hold, which are gone over a dozen times
KEEP = 0.75  # rows that have ended are dropped from the batch once fewer than this share is left
KEEP_RECORDED = 0.25  # the same where a step is recorded, which has to be done anew for other rows


class Response(NamedTuple):
    """What was drawn.

    Attributes:
        token_ids: the answer, its end token included when it has one.
        logprobs: of each token at the sampling temperature, nats.
        plain_logprobs: of each token at temperature 1, nats.
        finished: ended by itself rather than cut off.
    """

    token_ids: list[int]
    logprobs: list[float]
    plain_logprobs: list[float]
    finished: bool


def generate(
    trunk: Trunk, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_new_tokens: int, temperature: float, batch_size: int = 128
) -> list[Response]:
    """One response for each prompt (repeat a prompt to draw several), under the adapter that is on or merged.

    Args:
        prompts: token ids.
        seeds: one for each, in [0, 2^63).
        max_new_tokens: an answer that has not ended by then is cut off.
        temperature: > 0.
        batch_size: rows at a time; changes speed and memory only.

    Raises:
        UserError: a prompt and its answer would be longer than the model reads.
    """
    responses: dict[int, Response] = {}
    for indices, drawn in generate_batches(trunk, prompts, seeds, max_new_tokens=max_new_tokens, temperature=temperature, batch_size=batch_size):
        responses.update(zip(indices, drawn, strict=True))
    return [responses[index] for index in range(len(prompts))]


def generate_batches(
    trunk: Trunk, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_new_tokens: int, temperature: float, batch_size: int = 128
) -> Iterator[tuple[list[int], list[Response]]]:
    """As `generate`, a batch at a time: the indices it holds and their responses."""
    _check_length(trunk, max(map(len, prompts), default=0), max_new_tokens)
    products = trunk.products(lay_out=max_new_tokens >= FEWEST_STEPS) if trunk.splits else None
    for bucket in length_buckets([len(prompt) for prompt in prompts], batch_size):
        chosen = [prompts[index] for index in bucket]
        yield bucket, _generate_bucket(trunk, products, chosen, [seeds[index] for index in bucket], max_new_tokens, temperature)


def _check_length(trunk: Trunk, longest_prompt: int, max_new_tokens: int) -> None:
    if trunk.longest is not None and longest_prompt + max_new_tokens > trunk.longest:
        raise UserError(
            f"a prompt of {longest_prompt} tokens and {max_new_tokens} new ones are more than the {trunk.longest} that {trunk.name} reads",
            fix="leave the longest prompts out, or lower samples.max_new_tokens",
        )


@torch.no_grad()
def _generate_bucket(
    trunk: Trunk, products: Products | None, prompts: Sequence[Sequence[int]], seeds: Sequence[int], steps: int, temperature: float
) -> list[Response]:
    # (B, steps), drawn on the CPU, so that a seed means the same everywhere.
    noise = torch.stack([torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]).to(trunk.device)
    unique = sorted({tuple(prompt) for prompt in prompts})
    row_of = {prompt: row for row, prompt in enumerate(unique)}
    decoding = _padded(trunk, unique, steps) if products is None else Decoding(trunk, products, unique, steps)
    decoding.select(torch.tensor([row_of[tuple(prompt)] for prompt in prompts], device=trunk.device))
    tokens: list[list[int]] = [[] for _ in prompts]
    logprobs: list[list[float]] = [[] for _ in prompts]
    plain: list[list[float]] = [[] for _ in prompts]
    alive = torch.arange(len(prompts), device=trunk.device)  # which sample each row of the batch is
    for step in range(steps):
        logits = decoding.logits()
        chosen, *found = draw(logits, noise[alive, step], temperature)
        going = []
        for row, (sample, token, logprob, plain_logprob) in enumerate(zip(alive.tolist(), chosen.tolist(), *(part.tolist() for part in found), strict=True)):
            if tokens[sample] and tokens[sample][-1] in trunk.eos_ids:
                continue  # ended earlier; its row hasn't been dropped yet
            tokens[sample].append(token)
            logprobs[sample].append(logprob)
            plain[sample].append(plain_logprob)
            if token not in trunk.eos_ids:
                going.append(row)
        if not going or step == steps - 1:
            break
        if len(going) <= (KEEP_RECORDED if decoding.recorded else KEEP) * len(alive):
            rows = torch.tensor(going, device=trunk.device)
            decoding.select(rows)
            alive, chosen = alive[rows], chosen[rows]
        decoding.step(chosen)
    return [Response(*found, found[0][-1] in trunk.eos_ids) for found in zip(tokens, logprobs, plain, strict=True)]


def _padded(trunk: Trunk, prompts: Sequence[tuple[int, ...]], steps: int) -> "PaddedDecoding":
    from truing.models.padded_decoding import PaddedDecoding  # here, for it loads transformers

    return PaddedDecoding(trunk, prompts, steps)


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each row by inverting the distribution function at one uniform number.

    The vocabulary is added up in blocks: first the block is found, then the token in it. That is both faster than one
    long running sum and free of its rounding.

    Args:
        logits: (B, V), looked at in fp32.
        uniform: (B,) float64 in [0, 1).
        temperature: > 0.

    Returns:
        tokens (B,); their log-probabilities (B,) at that temperature and (B,) at temperature 1, nats.
    """
    at_once = DRAWN_AT_ONCE if logits.device.type == "cpu" else len(logits)
    space = torch.empty(2, min(at_once, len(logits)), logits.shape[1], device=logits.device)
    some = [_draw(*part, temperature, space[:, : len(part[0])]) for part in zip(logits.split(at_once), uniform.split(at_once), strict=True)]
    tokens, first, second = (torch.cat(parts) for parts in zip(*some, strict=True))
    return tokens, first, second


def _draw(logits: Tensor, uniform: Tensor, temperature: float, space: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `draw`, in space (2, B, V) fp32 that is overwritten: memory that is new each time takes longer to have than to fill."""
    rows, vocabulary = logits.shape
    below, weights = space
    below.copy_(logits)
    below.sub_(below.amax(1, keepdim=True))
    plain_total = None if temperature == 1 else torch.exp(below, out=weights).sum(1)
    torch.div(below, temperature, out=weights).exp_()
    blocks = -(-vocabulary // BLOCK)
    if vocabulary % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, blocks * BLOCK - vocabulary))
    by_block = weights.view(rows, blocks, BLOCK)
    up_to = by_block.sum(2).double().cumsum(1)  # (B, blocks); a sum in fp32 is as exact as its weights, and needs no copy of them
    total = up_to[:, -1:]
    goal = uniform[:, None] * total
    block = torch.searchsorted(up_to, goal, right=True).clamp_(max=blocks - 1)  # (B, 1)
    before = torch.where(block > 0, up_to.gather(1, (block - 1).clamp_(min=0)), 0.0)
    inside = by_block[torch.arange(rows, device=logits.device), block[:, 0]].double().cumsum(1)  # (B, BLOCK)
    place = torch.searchsorted(inside, goal - before, right=True)
    # Rounding may carry the goal past the block's last possible token: then that one is meant.
    last = (inside < inside[:, -1:]).sum(1, keepdim=True)
    token = (block * BLOCK + torch.minimum(place, last))[:, 0]
    own = below.gather(1, token[:, None])[:, 0]
    logprobs = own / temperature - total[:, 0].log().float()
    plain = logprobs if plain_total is None else own - plain_total.log()
    return token, logprobs, plain
