"""Sampling: batches of like length, a key-value cache that is written in place, one seed for each sample.

A sample's tokens depend on its prompt, its seed and the policy alone, not on its neighbours or their order (in fp32; in
bf16 up to rounding). Shapes: B rows, P unique prompts, S cached tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from truing.errors import UserError
from truing.models.packed import Tree, pack
from truing.models.products import FEWEST_STEPS, Products
from truing.models.replay import record, records
from truing.models.sequences import length_buckets
from truing.models.trunk import Trunk

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
    trunk: Trunk, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_new_tokens: int, temperature: float, batch_size: int = 64
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
    trunk: Trunk, prompts: Sequence[Sequence[int]], seeds: Sequence[int], *, max_new_tokens: int, temperature: float, batch_size: int = 64
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
    decoding = PaddedDecoding(trunk, unique, steps) if products is None else Decoding(trunk, products, unique, steps)
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


def draw(logits: Tensor, uniform: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """A token for each row by inverting the distribution function at one uniform number.

    The vocabulary is added up in blocks: first the block is found, then the token in it. That is both faster than one
    long running sum and free of its rounding.

    Args:
        logits: (B, V) fp32.
        uniform: (B,) float64 in [0, 1).
        temperature: > 0.

    Returns:
        tokens (B,); their log-probabilities (B,) at that temperature and (B,) at temperature 1, nats.
    """
    if len(logits) > DRAWN_AT_ONCE and logits.device.type == "cpu":
        some = [draw(*part, temperature) for part in zip(logits.split(DRAWN_AT_ONCE), uniform.split(DRAWN_AT_ONCE), strict=True)]
        tokens, first, second = (torch.cat(parts) for parts in zip(*some, strict=True))
        return tokens, first, second
    rows, vocabulary = logits.shape
    scaled = logits / temperature
    top = scaled.amax(1, keepdim=True)
    weights = (scaled - top).exp_()
    blocks = -(-vocabulary // BLOCK)
    if vocabulary % BLOCK:
        weights = torch.nn.functional.pad(weights, (0, blocks * BLOCK - vocabulary))
    by_block = weights.view(rows, blocks, BLOCK)
    up_to = by_block.sum(2, dtype=torch.float64).cumsum(1)  # (B, blocks)
    total = up_to[:, -1:]
    goal = uniform[:, None] * total
    block = torch.searchsorted(up_to, goal, right=True).clamp_(max=blocks - 1)  # (B, 1)
    before = torch.where(block > 0, up_to.gather(1, (block - 1).clamp_(min=0)), 0.0)
    inside = by_block[torch.arange(rows, device=logits.device), block[:, 0]].double().cumsum(1)  # (B, BLOCK)
    place = torch.searchsorted(inside, goal - before, right=True)
    # Rounding may carry the goal past the block's last possible token: then that one is meant.
    last = (inside < inside[:, -1:]).sum(1, keepdim=True)
    token = (block * BLOCK + torch.minimum(place, last))[:, 0]
    logprobs = scaled.gather(1, token[:, None])[:, 0] - top[:, 0] - total[:, 0].log().float()
    plain = logprobs if temperature == 1 else logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)
    return token, logprobs, plain


class Decoding:
    """Sequences that grow by a token at a time, in a model whose layers can be run on rows of tokens: prompts are read without padding, and then stand in
    buffers that end where answers begin.

    Attributes:
        hidden: (B, H) states that predict the next token.
        recorded: whether a step is the same work every time, recorded once: on a GPU.
    """

    def __init__(self, trunk: Trunk, products: Products, prompts: Sequence[tuple[int, ...]], steps: int) -> None:
        self.trunk, self.products, self.recorded = trunk, products, records(trunk.device)
        self._place = torch.zeros(1, dtype=torch.long, device=trunk.device)
        self._given: tuple[Tensor, ...] = ()  # where a recorded step reads: states, cos, sin, and where it may look
        self._work: Callable[[], Tensor] | None = None
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=trunk.device)
        self.length, ends = int(lengths.max()), lengths.cumsum(0)
        capacity = self.length + steps
        padding = self.length - lengths  # of each, on the left
        from_row = (torch.arange(self.length, device=trunk.device) - padding[:, None]).clamp(min=0) + (ends - lengths)[
            :, None
        ]  # (P, length); a pad is like the first token
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

        def keep(key: Tensor, value: Tensor) -> None:
            for kept, states in ((self.keys, key), (self.values, value)):
                kept.append(states.new_zeros(len(prompts), states.shape[1], capacity, states.shape[2]))
                kept[-1][:, :, : self.length] = states[from_row].transpose(1, 2)

        packed = pack([Tree(prompt, ()) for prompt in prompts], trunk.pad_id, device=trunk.device, fill=False)
        self.hidden = trunk.hidden_layers(packed, [trunk.layers], keep=keep)[trunk.layers][ends - 1]
        self.positions = lengths
        self.looks = torch.arange(capacity, device=trunk.device) >= padding[:, None]  # (P, capacity)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        self._work = None  # what was recorded reads the old rows
        self.keys, self.values = ([states[rows] for states in kept] for kept in (self.keys, self.values))
        self.hidden, self.positions, self.looks = self.hidden[rows], self.positions[rows], self.looks[rows]

    def logits(self) -> Tensor:
        """(B, V) of the next token."""
        return self.trunk.logits(self.hidden, self.products)

    def step(self, tokens: Tensor) -> None:
        """One more token of each, (B,)."""
        read = self.trunk.read_tokens(tokens, self.positions)
        if self.recorded:
            self.hidden = self._again(*read)
        else:
            self.hidden = self.trunk.plain_step(*read, self.keys, self.values, self.length, self.looks[:, : self.length + 1], self.products)
        self.length += 1
        self.positions = self.positions + 1

    def _again(self, *read: Tensor) -> Tensor:
        """A step as it was recorded; recorded first, where rows have changed since. The states are overwritten by the next."""
        reached = torch.arange(self.looks.shape[1], device=self.looks.device) <= self.length
        given = (*read, self.looks & reached)
        self._place.fill_(self.length)
        if self._work is None:
            states, cos, sin, looks = self._given = tuple(tensor.clone() for tensor in given)
            self._work = record(lambda: self.trunk.plain_step(states, cos, sin, self.keys, self.values, self._place, looks, self.products))
        for kept, new in zip(self._given, given, strict=True):
            kept.copy_(new)
        return self._work()


class PaddedDecoding:
    """The same in any other model, by transformers' own layers; prompts are padded on the left."""

    recorded = False

    def __init__(self, trunk: Trunk, prompts: Sequence[tuple[int, ...]], steps: int) -> None:
        self.trunk = trunk
        longest = max(len(prompt) for prompt in prompts)
        padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=trunk.device)
        input_ids = torch.tensor([[*[trunk.pad_id] * (longest - len(prompt)), *prompt] for prompt in prompts], device=trunk.device)
        places = torch.arange(longest, device=trunk.device)
        real = places >= padding[:, None]  # (P, S)
        causal = places[:, None] >= places
        # A pad sees itself, so that its row of attention isn't empty (softmax over nothing is NaN); nothing real sees a pad.
        mask = (causal & real[:, None, :]) | torch.eye(longest, dtype=torch.bool, device=trunk.device)
        self.cache = _Cache(trunk.layers, longest + steps)
        self.hidden = trunk.step(input_ids, mask[:, None], (places - padding[:, None]).clamp(min=0), self.cache)[:, -1]
        self.positions = longest - padding
        self.looks = torch.nn.functional.pad(real, (0, steps), value=True)

    def logits(self) -> Tensor:
        """(B, V) of the next token."""
        return self.trunk.logits(self.hidden)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        self.cache.select(rows)
        self.hidden, self.positions, self.looks = self.hidden[rows], self.positions[rows], self.looks[rows]

    def step(self, tokens: Tensor) -> None:
        """One more token of each, (B,)."""
        seen = self.cache.get_seq_length() + 1
        self.hidden = self.trunk.step(tokens[:, None], self.looks[:, None, None, :seen], self.positions[:, None], self.cache)[:, -1]
        self.positions = self.positions + 1


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer in a buffer as long as they will ever be: new ones are written in place, and what is
    read is a view."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_zeros(rows, heads, self.capacity, width)
        self.values = value_states.new_zeros(rows, heads, self.capacity, value_states.shape[3])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.capacity


class _Cache(Cache):  # type: ignore[misc]
    """A `_Layer` for each transformer layer."""

    def __init__(self, layers: int, capacity: int) -> None:
        super().__init__(layers=[_Layer(capacity) for _ in range(layers)])

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may be taken more than once."""
        for layer in self.layers:
            layer.select(rows)
