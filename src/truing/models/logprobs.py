"""Log-probabilities of response tokens: logits only where they are needed, a few rows at a time.

The (tokens x vocabulary) matrix never exists whole, forward or backward: the gradient with respect to the hidden states
is taken chunk by chunk in the forward pass where the output matrix is frozen; where it is learned too, the backward pass
works the logits out again.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from truing.models.products import product
from truing.models.trunk import Rows, Trunk

CHUNK = 128  # rows of logits at a time: 128 x 49,152 in fp32 is 25 MB


class TokenLogprobs(NamedTuple):
    """On the CPU, 0 where `rows.mask` is False.

    Attributes:
        logprobs: (B, T) nats, carries the gradient.
        entropy: (B, T) nats, a constant unless its gradient was asked for.
    """

    logprobs: Tensor
    entropy: Tensor


def response_logprobs(trunk: Trunk, rows: Rows, temperature: float, *, hidden: Tensor | None = None, entropy_gradient: bool = False) -> TokenLogprobs:
    """Log-probabilities of response tokens under the adapter that is on.

    Args:
        temperature: of the distribution they were drawn from; > 0.
        hidden: states after the last layer where the caller has run the trunk already.
        entropy_gradient: whether the entropy carries one, too: a product more.
    """
    before = rows.predicting(trunk.hidden(rows) if hidden is None else hidden)
    logprobs, entropy = _SelectedLogprobs.apply(before, trunk.head.weight, trunk.head.bias, rows.targets, temperature, trunk.softcap, entropy_gradient)  # type: ignore[no-untyped-call]
    return TokenLogprobs(rows.rectangle(logprobs), rows.rectangle(entropy))


class _SelectedLogprobs(torch.autograd.Function):
    """(N,) log softmax(rows W' / temperature)[target] and the entropy of that distribution."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, temperature: float, softcap: float | None, entropy_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        learns_matrix = any(ctx.needs_input_grad[1:3])
        precision = torch.promote_types(rows.dtype, torch.float32)
        logprobs, entropy = (torch.empty(len(rows), dtype=precision, device=rows.device) for _ in range(2))
        slope = torch.empty_like(rows) if ctx.needs_input_grad[0] and not learns_matrix else None
        entropy_slope = torch.empty_like(rows) if slope is not None and entropy_gradient else None
        space = _space(rows, weight)
        for start in range(0, len(rows), CHUNK):
            here = slice(start, start + CHUNK)
            chosen = targets[here, None]
            found = _softmax(rows[here], weight, bias, temperature, softcap, space)
            logprobs[here] = found.below.gather(1, chosen)[:, 0] - found.log_total
            entropy[here] = found.log_total - found.expected
            if slope is not None:
                # d logprob / d row = (W[target] - sum_v p_v W[v]) / temperature, each term bent where the logits are capped
                pull, weights = weight[chosen[:, 0]].to(precision), found.weights
                if found.bend is not None:
                    pull = pull * (1 - found.bend.gather(1, chosen) ** 2)
                    weights *= 1 - found.bend**2
                mean = (weights.to(rows.dtype) @ weight).to(precision) / found.total[:, None]
                slope[here] = ((pull - mean) / temperature).to(rows.dtype)
            if entropy_slope is not None:
                # d entropy / d row = -sum_v p_v (z_v - E z) W[v] / temperature, z the scaled logits
                weights *= found.below.sub_(found.expected[:, None])
                entropy_slope[here] = ((weights.to(rows.dtype) @ weight).to(precision) / (-temperature * found.total[:, None])).to(rows.dtype)
        ctx.how = (temperature, softcap, entropy_gradient)
        if learns_matrix:
            ctx.save_for_backward(rows, weight, bias, targets)
        elif slope is not None:
            ctx.save_for_backward(slope, entropy_slope)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        if any(ctx.needs_input_grad[1:3]):
            found = _all_gradients(ctx.saved_tensors, grad_logprobs, grad_entropy, *ctx.how)
            return *found, None, None, None, None
        slope, entropy_slope = ctx.saved_tensors
        grad_rows = slope * grad_logprobs[:, None]
        if entropy_slope is not None:
            grad_rows = grad_rows + entropy_slope * grad_entropy[:, None]
        return grad_rows.to(slope.dtype), None, None, None, None, None, None


class _Softmax(NamedTuple):
    """Of some rows of logits z over the vocabulary, z / temperature, capped before where the model caps its logits.

    Attributes:
        below: (n, V) z - max z.
        bend: (n, V) tanh of the logits in units of the cap, or None.
        weights: (n, V) exp(z - max z).
        total: (n,) their sum.
        log_total: (n,) its logarithm.
        expected: (n,) E z - max z.
    """

    below: Tensor
    bend: Tensor | None
    weights: Tensor
    total: Tensor
    log_total: Tensor
    expected: Tensor


def _space(rows: Tensor, weight: Tensor) -> Tensor:
    """(2, n, V) for a chunk's logits and weights, used again by each: memory that is new takes longer to have than to fill."""
    return torch.empty(2, min(len(rows), CHUNK), len(weight), dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device)


def _softmax(rows: Tensor, weight: Tensor, bias: Tensor | None, temperature: float, softcap: float | None, space: Tensor) -> _Softmax:
    below, weights = space[:, : len(rows)]
    below.copy_(product(rows, weight, bias))
    bend = None
    if softcap is not None:
        bend = torch.tanh(below / softcap)
        torch.mul(bend, softcap, out=below)
    below.div_(temperature)
    below.sub_(below.amax(1, keepdim=True))
    torch.exp(below, out=weights)
    total = weights.sum(1)
    expected = torch.bmm(weights[:, None], below[:, :, None])[:, 0, 0] / total  # a product of rows, which needs no memory of its own
    return _Softmax(below, bend, weights, total, total.log(), expected)


def _all_gradients(
    saved: tuple[Tensor, Tensor, Tensor | None, Tensor], grad_logprobs: Tensor, grad_entropy: Tensor, temperature: float, softcap: float | None,
    entropy_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """Where the output matrix is learned too: of rows, matrix and bias. The logits are worked out again, a chunk at a time, for they were not kept."""
    rows, weight, bias, targets = saved
    grad_rows, grad_weight, grad_bias = torch.empty_like(rows), torch.zeros_like(weight), None if bias is None else torch.zeros_like(bias)
    space = _space(rows, weight)
    for start in range(0, len(rows), CHUNK):
        here = slice(start, start + CHUNK)
        found = _softmax(rows[here], weight, bias, temperature, softcap, space)
        probabilities = found.weights.div_(found.total[:, None])
        # d logprob / d logit = [v = target] - p_v, and d entropy / d logit = -p_v (z_v - E z), both over the temperature, and bent where the logits are capped
        grad = probabilities * -grad_logprobs[here, None]
        grad.scatter_add_(1, targets[here, None], grad_logprobs[here, None])
        if entropy_gradient:
            grad -= probabilities * found.below.sub_(found.expected[:, None]) * grad_entropy[here, None]
        if found.bend is not None:
            grad *= 1 - found.bend**2
        grad = grad.div_(temperature).to(rows.dtype)
        grad_rows[here] = grad @ weight
        grad_weight.addmm_(grad.T, rows[here])
        if grad_bias is not None:
            grad_bias += grad.sum(0)
    return grad_rows, grad_weight, grad_bias
