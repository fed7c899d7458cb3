"""Losses of policies that learn from preferences without a reward model: functions of tensors, no model, no settings, no logging.

Shapes: N pairs. A log-probability here is a whole response's, the sum over its tokens, in nats. A loss is minimised; references are constants and are detached
here, so that a caller who forgets cannot train them.

What a policy says of a response beyond the reference, b (log p - log q), is its implicit reward (Rafailov et al. 2023, arXiv:2305.18290): its difference
between two responses is the log-odds that the first is preferred.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from truing.policy.losses import require_same_shape

PreferenceKind = Literal["sigmoid", "ipo"]


class PreferenceLoss(NamedTuple):
    """Only `loss` carries a gradient.

    Attributes:
        loss: ().
        margin: (N,) b times how far the policy moved the chosen response up against the rejected one, nats.
        right: (N,) 1 where it moved the way that the label says, 0 where not, 1/2 where either sees a tie.
    """

    loss: Tensor
    margin: Tensor
    right: Tensor


def preference_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    kind: PreferenceKind = "sigmoid",
    target: Tensor | None = None,
    weight: Tensor | None = None,
    denominator: Tensor | float | None = None,
) -> PreferenceLoss:
    """DPO and IPO with graded labels: (N,), (N,), (N,), (N,) -> ().

        m = b [(log p(chosen) - log q(chosen)) - (log p(rejected) - log q(rejected))]

        sigmoid   -t log s(m) - (1 - t) log s(-m)                              Rafailov et al. 2023, arXiv:2305.18290, eq. 7
        ipo       t (m / b - 1 / 2b)^2 + (1 - t) (m / b + 1 / 2b)^2            Azar et al. 2023, arXiv:2310.12036, eq. 17

    s is the logistic function. IPO doesn't run away where all labels agree: it wants m = 1/2, and no more. With t below 1 either is the expectation over a
    label that is the other way round with chance 1 - t.

    Args:
        chosen, rejected:         (N,) under the policy; carry the gradient.
        ref_chosen, ref_rejected: (N,) under the reference.
        beta:                     b, price of a nat, > 0.
        target:                   (N,) t, chance that `chosen` is preferred, in [0, 1]; None is 1.
        weight:                   (N,) >= 0, how much each label is trusted; None is 1.
        denominator:              what the weighted sum is divided by; None is the sum of the weights. A microbatch passes its minibatch's.

    Raises:
        ValueError: the shapes differ, or a target is outside [0, 1].
    """
    target = torch.ones_like(chosen) if target is None else target.detach().to(chosen.dtype)
    weight = torch.ones_like(chosen) if weight is None else weight.detach().to(chosen.dtype)
    require_same_shape(chosen=chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected, target=target, weight=weight)
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError(f"target must lie in [0, 1], found {float(target.min())} to {float(target.max())}")
    moved = (chosen - ref_chosen.detach()) - (rejected - ref_rejected.detach())
    if kind == "sigmoid":
        each = F.binary_cross_entropy_with_logits(beta * moved, target, reduction="none")
    else:
        wanted = 1 / (2 * beta)
        each = target * (moved - wanted).square() + (1 - target) * (moved + wanted).square()
    loss = (weight * each).sum() / (weight.sum() if denominator is None else denominator)
    margin = beta * moved.detach()
    return PreferenceLoss(loss, margin, (1 + margin.sign() * (target - 0.5).sign()) / 2)
