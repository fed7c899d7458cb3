"""The reward model's loss: a function of scores, no model, no settings, no logging.

Shape: N pairs. Scores have no unit of their own: a difference of d means odds of exp(d) : 1 that people prefer the
first of the pair.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    centre: float = 0.0,
) -> Tensor:
    """Cross-entropy of graded preferences under Bradley and Terry's model: (N,), (N,) -> ().

        L = sum_i w_i [-p_i log s(d_i) - (1 - p_i) log s(-d_i)] / sum_i w_i  +  centre mean_i (chosen_i + rejected_i)^2

    where d = chosen - rejected and s is the logistic function. Bradley and Terry 1952, doi:10.2307/2334029; for reward
    models Stiennon et al. 2020, arXiv:2009.01325. The second term holds the free constant of the scores near 0
    (Eisenstein et al. 2023, arXiv:2312.09244); labels play no part in it, so neither do their weights.

    Args:
        chosen:   (N,) scores of the responses that were preferred (or of the first of each pair, with `target`).
        rejected: (N,) scores of the others.
        target:   (N,) p, probability in [0, 1] that `chosen` is preferred; None is 1, a tie 1/2. A constant.
        weight:   (N,) w >= 0, how much each label is trusted, on any scale; None is 1. A constant.
        centre:   price of a squared sum of scores, >= 0; TRL recommends 0.01.

    Raises:
        ValueError: no pair, shapes that differ, a target outside [0, 1], a negative or infinite weight, all weights 0.
    """
    target = torch.ones_like(chosen) if target is None else target.detach().to(chosen.dtype)
    weight = torch.ones_like(chosen) if weight is None else weight.detach().to(chosen.dtype)
    _check(chosen, rejected, target, weight)
    margin = chosen - rejected
    surprise = F.binary_cross_entropy_with_logits(margin, target, reduction="none")  # (N,) nats
    loss = (weight * surprise).sum() / weight.sum()
    return loss + centre * (chosen + rejected).square().mean()


def _check(chosen: Tensor, rejected: Tensor, target: Tensor, weight: Tensor) -> None:
    named = {"chosen": chosen, "rejected": rejected, "target": target, "weight": weight}
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    if chosen.dim() != 1 or chosen.numel() == 0 or len(set(shapes.values())) > 1:
        raise ValueError(f"expected four tensors of one shape (pairs,), at least one pair, found {shapes}")
    if not ((target >= 0) & (target <= 1)).all():
        raise ValueError(f"target must lie in [0, 1], found {target.min().item()} to {target.max().item()}")
    if not ((weight >= 0) & weight.isfinite()).all():
        raise ValueError(f"weight must be finite and not negative, found {weight.min().item()} at least")
    if not weight.any():
        raise ValueError("weight must not be 0 for every pair: there is nothing to learn from")
