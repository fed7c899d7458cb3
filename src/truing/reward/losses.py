"""What people said, as losses of a reward model: functions of scores; no model, no settings, no logging.

    pair      bradley_terry (graded, with a margin where strength asks for one), or davidson, to which a tie is an answer of its own
    ranking   plackett_luce, with ties; of two responses it is davidson
    rating    cumulative_logit
    thumbs    logistic

Each is a mean over judgements of minus their log-likelihood, in nats, weighted by how much each is trusted. Scores are in nats too: under all of them a
difference of d means odds of exp(d) : 1 that people prefer the first. Where kinds are learned together each has a scale of its own: multiply the scores first.

Shapes: N judgements, R responses in a ranking, L levels of a scale.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_RANKED = 9  # responses in a ranking: all their subsets are summed over


def bradley_terry(
    chosen: Tensor,
    rejected: Tensor,
    *,
    target: Tensor | None = None,
    weight: Tensor | None = None,
    margin: Tensor | None = None,
    centre: float = 0.0,
) -> Tensor:
    """Cross-entropy of graded preferences under Bradley and Terry's model: (N,), (N,) -> ().

        L = sum_i w_i [-p_i log s(d_i - m_i) - (1 - p_i) log s(-d_i - m_i)] / sum_i w_i  +  centre mean_i (chosen_i + rejected_i)^2

    where d = chosen - rejected and s is the logistic function. Bradley and Terry 1952, doi:10.2307/2334029; for reward
    models Stiennon et al. 2020, arXiv:2009.01325. The last term holds the free constant of the scores near 0
    (Eisenstein et al. 2023, arXiv:2312.09244); labels play no part in it, so neither do their weights.

    A margin asks for more than the right sign where people were sure (Touvron et al. 2023, arXiv:2307.09288). The *scaled*
    form (Wang et al. 2024, arXiv:2410.01257) is this one with weights that are multiplied by the strength.

    Args:
        chosen:   (N,) scores of the responses that were preferred (or of the first of each pair, with `target`).
        rejected: (N,) scores of the others.
        target:   (N,) p, probability in [0, 1] that `chosen` is preferred; None is 1, a tie 1/2. A constant.
        weight:   (N,) w >= 0, how much each label is trusted, on any scale; None is 1. A constant.
        margin:   (N,) m >= 0, nats; None is 0. A constant.
        centre:   price of a squared sum of scores, >= 0; TRL recommends 0.01.

    Raises:
        ValueError: no pair, shapes that differ, a target outside [0, 1], a negative or infinite weight or margin, all weights 0.
    """
    target = torch.ones_like(chosen) if target is None else target.detach().to(chosen.dtype)
    weight = _weights(weight, chosen)
    _same_shape(chosen=chosen, rejected=rejected, target=target, weight=weight)
    _within_0_and_1("target", target)
    lead = chosen - rejected
    if margin is None:
        surprise = F.binary_cross_entropy_with_logits(lead, target, reduction="none")  # (N,) nats
    else:
        margin = margin.detach().to(chosen.dtype)
        _same_shape(chosen=chosen, margin=margin)
        _finite_and_not_negative("margin", margin)
        surprise = target * F.softplus(margin - lead) + (1 - target) * F.softplus(margin + lead)
    return _mean(surprise, weight) + centre * (chosen + rejected).square().mean()


def davidson(first: Tensor, second: Tensor, share: Tensor, *, log_tie: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of pairs in which a tie is an answer of its own: (N,), (N,), (N, 3) -> ().

        P(first) : P(tie) : P(second) = exp(d / 2) : exp(t) : exp(-d / 2),   d = first - second

    Davidson 1970, doi:10.1080/01621459.1970.10481082. Without ties this is Bradley and Terry's model.

    Args:
        share:   (N, 3) of the votes for the first, a tie, the second; each row sums to 1. A constant.
        log_tie: () t, to be learned with the scores: how readily people call it a tie. Of equal responses they do so in e^t / (2 + e^t).
        weight:  (N,) >= 0; None is 1. A constant.

    Raises:
        ValueError: no pair, shapes that differ, rows that are no distribution, a negative or infinite weight, all weights 0.
    """
    weight = _weights(weight, first)
    _same_shape(first=first, second=second, weight=weight)
    share = share.detach().to(first.dtype)
    if share.shape != (len(first), 3) or not (share >= 0).all() or not torch.allclose(share.sum(1), torch.ones_like(first), atol=1e-5):
        raise ValueError(f"share must be {len(first)} rows of three shares that sum to 1, found {tuple(share.shape)}")
    half = (first - second) / 2
    log_p = torch.log_softmax(torch.stack([half, log_tie.expand_as(half), -half], 1), 1)
    said = torch.where(share > 0, share * log_p, torch.zeros_like(share))  # without ties their log_p is -inf
    return _mean(-said.sum(1), weight)


def plackett_luce(scores: Tensor, ranks: Tensor, *, log_ties: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
    """Minus the log-likelihood of rankings with ties: (N, R), (N, R) -> ().

    The best are chosen, then the best of the rest, and so on. Of those that are left a set T is chosen with odds

        exp(t_|T| + mean of the scores of T),   t_1 = 0

    so that ties are answers of their own: Davidson-Luce (Firth, Kosmidis & Turner 2019, arXiv:1909.07123). Without ties this is Plackett and Luce's model
    (Plackett 1975, doi:10.2307/2346567); of two responses it is Davidson's, and of two without ties Bradley and Terry's.

    Args:
        scores:   (N, R) of each response, R <= 9.
        ranks:    (N, R) whole numbers, 1 is best, equal ones are tied; 0 where a ranking has fewer responses. A constant.
        log_ties: (K - 1,) t_2, ..., t_K, to be learned with the scores: how readily people call 2, ..., K alike. None: nobody ever ties.
        weight:   (N,) >= 0; None is 1. A constant.

    Raises:
        ValueError: no ranking, shapes that differ, R > 9, a negative rank, a tie of more than K, a negative or infinite weight, all weights 0.
    """
    if scores.dim() != 2 or not len(scores) or scores.shape != ranks.shape or not 1 <= scores.shape[1] <= MOST_RANKED:
        raise ValueError(f"expected scores and ranks of one shape (rankings, 1 to {MOST_RANKED} responses), found {tuple(scores.shape)}, {tuple(ranks.shape)}")
    if (ranks < 0).any():
        raise ValueError("a rank is 1 or more, or 0 for no response")
    weight = _weights(weight, scores[:, 0])
    subsets = _subsets(scores.shape[1]).to(scores.device)  # (S, R) bool: the place of a set is its members' powers of two, less 1
    size = subsets.sum(1)
    widths = torch.cat([scores.new_zeros(1), scores.new_zeros(0) if log_ties is None else log_ties.to(scores.dtype)])
    odds = scores @ (subsets / size[:, None]).T.to(scores.dtype) + widths[size.clamp(max=len(widths)) - 1]  # (N, S)
    odds = odds.masked_fill(size > len(widths), -torch.inf)
    powers = 2 ** torch.arange(scores.shape[1], device=scores.device)
    total = scores.new_zeros(len(scores))
    for place in range(1, scores.shape[1] + 1):
        level = _nth_rank(ranks, place)  # (N, 1); 0 where there are fewer levels
        group = (ranks == level) & (ranks > 0)
        if (group.sum(1) > len(widths)).any():
            raise ValueError(f"{int(group.sum(1).max())} responses are tied, and ties of at most {len(widths)} have a width")
        left = (ranks >= level) & (ranks > 0) & (level > 0)
        among = ~(subsets[None] & ~left[:, None]).any(2)  # (N, S) sets of responses that are left
        there = level[:, 0] > 0
        among = among | ~there[:, None]  # keeps the sum finite where nothing is chosen any more
        chosen = odds.gather(1, ((group * powers).sum(1, keepdim=True) - 1).clamp(min=0))[:, 0]
        gone = torch.logsumexp(odds.masked_fill(~among, -torch.inf), 1) - chosen
        total = total + torch.where(there, gone, torch.zeros_like(gone))
    return _mean(total, weight)


def cumulative_logit(scores: Tensor, level: Tensor, cuts: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Minus the log-likelihood of ratings: (N,), (N,), (L - 1,) -> ().

        P(level <= k) = s(c_k - score)

    McCullagh 1980 (doi:10.1111/j.2517-6161.1980.tb01109.x), the model of proportional odds.

    Args:
        level:  (N,) whole numbers from 0, the lowest, to L - 1.
        cuts:   (L - 1,) c, rising; see `rising`. (N, L - 1) where each judgement has its own, such as its aspect's.
        weight: (N,) >= 0; None is 1. A constant.

    Raises:
        ValueError: no rating, shapes that differ, cuts that don't rise, a level off the scale, a negative or infinite weight, all weights 0.
    """
    weight = _weights(weight, scores)
    _same_shape(scores=scores, level=level, weight=weight)
    table = cuts.expand(len(scores), cuts.shape[-1])
    if not (table.diff(dim=1) > 0).all():
        raise ValueError("cuts must rise")
    if not ((level >= 0) & (level <= table.shape[1])).all():
        raise ValueError(f"levels go from 0 to {table.shape[1]}, found {int(level.min())} to {int(level.max())}")
    edge = table.new_full((len(scores), 1), torch.inf)
    edges = torch.cat([-edge, table, edge], 1)
    low, high = (edges.gather(1, level[:, None] + step)[:, 0] for step in (0, 1))
    up, down = high - scores, scores - low  # s(up) - s(-down) = s(up) s(down) (1 - exp(low - high)), which loses no digits
    log_p = F.logsigmoid(up) + F.logsigmoid(down) + torch.log1p(-torch.exp(low - high))
    return _mean(-log_p, weight)


def rising(raw: Tensor) -> Tensor:
    """(..., L - 1) cut-points from as many free numbers: the lowest, then the logs of the gaps to the next. No gap is less than exp(-12)."""
    return torch.cat([raw[..., :1], raw[..., :1] + raw[..., 1:].clamp(min=-12).exp().cumsum(-1)], -1)


def logistic(scores: Tensor, up: Tensor, *, offset: Tensor | float = 0.0, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of thumbs: (N,), (N,) -> ().

        P(up) = s(score + offset)

    Args:
        up:     (N,) share of thumbs up, in [0, 1]. A constant.
        offset: () to be learned with the scores: how readily people say yes.
        weight: (N,) >= 0; None is 1. A constant.

    Raises:
        ValueError: no thumb, shapes that differ, a share outside [0, 1], a negative or infinite weight, all weights 0.
    """
    weight, up = _weights(weight, scores), up.detach().to(scores.dtype)
    _same_shape(scores=scores, up=up, weight=weight)
    _within_0_and_1("up", up)
    return _mean(F.binary_cross_entropy_with_logits(scores + offset, up, reduction="none"), weight)


def mean_zero(scores: Tensor) -> Tensor:
    """The squared mean of some scores: (N,) -> (). Comparisons leave the constant free; this holds it."""
    return scores.mean().square()


def score_l2(scores: Tensor) -> Tensor:
    """The mean square of some scores: (N,) -> (). Holds the constant, and certainty as well."""
    return scores.square().mean()


# ---- what they share ----


@cache
def _subsets(n: int) -> Tensor:
    """(2^n - 1, n) bool: all sets of n but the empty one, that with bits b in row b - 1."""
    bits = torch.arange(1, 2**n)[:, None] >> torch.arange(n) & 1
    return bits.bool()


def _nth_rank(ranks: Tensor, place: int) -> Tensor:
    """(N, 1) the place-th of the different ranks of each row, in rising order; 0 where there are fewer."""
    ordered = ranks.sort(1).values
    new = (ordered > 0) & (ordered != torch.cat([torch.zeros_like(ordered[:, :1]), ordered[:, :-1]], 1))
    here = new & (new.cumsum(1) == place)
    return (ordered * here).sum(1, keepdim=True)


def _mean(surprise: Tensor, weight: Tensor) -> Tensor:
    return (weight * surprise).sum() / weight.sum()


def _weights(weight: Tensor | None, like: Tensor) -> Tensor:
    """Weights, of ones where there are none; they must be of use."""
    found = torch.ones_like(like) if weight is None else weight.detach().to(like.dtype)
    _finite_and_not_negative("weight", found)
    if found.numel() and not found.any():
        raise ValueError("weight must not be 0 for every judgement: there is nothing to learn from")
    return found


def _same_shape(**named: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in named.items()}
    first = next(iter(named.values()))
    if first.dim() != 1 or first.numel() == 0 or len(set(shapes.values())) > 1:
        raise ValueError(f"expected tensors of one shape (judgements,), at least one judgement, found {shapes}")


def _within_0_and_1(name: str, tensor: Tensor) -> None:
    if not ((tensor >= 0) & (tensor <= 1)).all():
        raise ValueError(f"{name} must lie in [0, 1], found {tensor.min().item()} to {tensor.max().item()}")


def _finite_and_not_negative(name: str, tensor: Tensor) -> None:
    if not ((tensor >= 0) & tensor.isfinite()).all():
        raise ValueError(f"{name} must be finite and not negative, found {tensor.min().item()} at least")
