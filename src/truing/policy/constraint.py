"""Objectives that must be kept, at a price that is learned while the policy is tuned: PPO-Lagrangian (Ray et al. 2019, "Benchmarking safe exploration in deep
reinforcement learning", section 5.1; for language Dai et al. 2023, "Safe RLHF", arXiv:2310.12773, section 3.2).

    the most of E[score] - beta KL     with     E[s_c] >= d_c     for each constrained objective c

is where no policy gains and no price l_c >= 0 moves in

    E[score + sum_c l_c (s_c - d_c)] - beta KL

A price rises while its objective is short of its threshold and falls to nothing where it is kept without one. Everything is divided by 1 + sum_c l_c, the
price of KL included: the best policy stays what it was, and the reward keeps its size however dear a constraint becomes.

Shapes: B answers.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class Constraint:
    """Thresholds and their prices.

    Attributes:
        at_least: objective → d, the mean that it must keep, in its own normalised unit.
        prices: objective → l, what a unit of it is worth in units of the score.

    Raises:
        ValueError: a threshold isn't finite, the rate isn't positive or the first price is negative.
    """

    def __init__(self, at_least: Mapping[str, float], *, lr: float, start: float) -> None:
        if not all(map(math.isfinite, at_least.values())) or not 0 < lr < math.inf or not 0 <= start < math.inf:
            raise ValueError(f"a constraint needs finite thresholds, a rate above 0 and a first price of at least 0, found {dict(at_least)}, {lr}, {start}")
        self.at_least, self.lr = dict(at_least), lr
        self.prices = dict.fromkeys(at_least, start)

    @property
    def share(self) -> float:
        """1 / (1 + the sum of the prices), in (0, 1]: what everything is multiplied by, the price of KL too."""
        return 1 / (1 + sum(self.prices.values()))

    def blended(self, scores: Tensor, objectives: Mapping[str, Tensor]) -> Tensor:
        """(B,) scores with what each objective is above its threshold, at its price, times `share`.

        Args:
            scores: (B,).
            objectives: name → (B,), of each that is constrained at least.

        Raises:
            KeyError: an objective is missing.
        """
        dear = [price * (objectives[name].to(scores.dtype) - self.at_least[name]) for name, price in self.prices.items()]
        return torch.stack([scores, *dear]).sum(0) * self.share

    def update(self, objectives: Mapping[str, Tensor]) -> None:
        """A step of each price by how far the mean of its objective is short: l <- max(0, l + lr (d - mean s))."""
        for name, least in self.at_least.items():
            self.prices[name] = max(0.0, self.prices[name] + self.lr * (least - float(objectives[name].double().mean())))

    def state(self) -> dict[str, float]:
        """What a resumed run needs; JSON keeps it to the bit."""
        return dict(self.prices)

    def load(self, state: Mapping[str, float]) -> None:
        """Continue from `state()`."""
        self.prices = dict(state)
