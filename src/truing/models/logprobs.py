"""Log-probabilities of response tokens: logits only where they are needed, a few rows at a time.

The (tokens x vocabulary) matrix never exists whole, forward or backward: the gradient with respect to the hidden states
is taken chunk by chunk in the forward pass (the output matrix is frozen, so that it needs none).
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
        wants_gradient = ctx.needs_input_grad[0]
        precision = torch.promote_types(rows.dtype, torch.float32)
        logprobs, entropy = (torch.empty(len(rows), dtype=precision, device=rows.device) for _ in range(2))
        slope = torch.empty_like(rows) if wants_gradient else None
        entropy_slope = torch.empty_like(rows) if wants_gradient and entropy_gradient else None
        for start in range(0, len(rows), CHUNK):
            here = slice(start, start + CHUNK)
            scaled = product(rows[here], weight, bias).to(precision)
            bend = None
            if softcap is not None:
                bend = torch.tanh(scaled / softcap)
                scaled = bend * softcap
            scaled.div_(temperature)
            chosen = targets[here, None]
            top = scaled.amax(1, keepdim=True)
            picked = scaled.gather(1, chosen)[:, 0]
            weights = (scaled - top).exp_()
            total = weights.sum(1)
            log_total = top[:, 0] + total.log()
            logprobs[here] = picked - log_total
            expected = torch.linalg.vecdot(weights, scaled) / total
            entropy[here] = log_total - expected
            if slope is not None:
                # d logprob / d row = (W[target] - sum_v p_v W[v]) / temperature, each term bent where the logits are capped
                pull = weight[chosen[:, 0]].to(precision)
                if bend is not None:
                    pull = pull * (1 - bend.gather(1, chosen) ** 2)
                    weights *= 1 - bend**2
                mean = (weights.to(rows.dtype) @ weight).to(precision) / total[:, None]
                slope[here] = ((pull - mean) / temperature).to(rows.dtype)
            if entropy_slope is not None:
                # d entropy / d row = -sum_v p_v (z_v - E z) W[v] / temperature, z the scaled logits
                weights *= scaled.sub_(expected[:, None])
                entropy_slope[here] = ((weights.to(rows.dtype) @ weight).to(precision) / (-temperature * total[:, None])).to(rows.dtype)
        if slope is not None:
            ctx.save_for_backward(slope, entropy_slope)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        slope, entropy_slope = ctx.saved_tensors
        grad_rows = slope * grad_logprobs[:, None]
        if entropy_slope is not None:
            grad_rows = grad_rows + entropy_slope * grad_entropy[:, None]
        return grad_rows.to(slope.dtype), None, None, None, None, None, None
