"""Scalar heads: features → scores. A head is an ensemble of members of one shape; its score is their mean and its doubt their spread.

Shapes: N responses, D features, K members, W hidden units.
"""

import json
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from truing.errors import UserError

WEIGHTS = "weights.safetensors"  # of a trunk of its own


By = Literal["mean", "lower", "worst"]  # what an ensemble says in one number


class Scores(NamedTuple):
    """Of an ensemble, in the unit of normalised scores.

    Attributes:
        mean: (N,) of the members.
        std: (N,) their spread, population form; 0 with one member.
        worst: (N,) what the member says that likes the response least.
    """

    mean: Tensor
    std: Tensor
    worst: Tensor

    def by(self, rule: By) -> Tensor:
        """(N,) the mean, the lower bound (the mean less one standard deviation), or the worst member's score: pessimism about what the members disagree on
        keeps an optimiser from what only some of them like (Coste et al. 2023, arXiv:2310.02743)."""
        return {"mean": self.mean, "lower": self.mean - self.std, "worst": self.worst}[rule]


class Head(nn.Module):
    """What is common to heads: inputs are standardised, outputs normalised on reference responses.

    Attributes:
        shift, scale: (D,) mean and standard deviation of each feature on the training responses.
        member_mean: (K,) mean raw score of each member on the reference responses.
        std: () standard deviation, on the same, of the members' mean.
    """

    shift: Tensor
    scale: Tensor
    member_mean: Tensor
    std: Tensor

    def __init__(self, width: int, members: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("member_mean", torch.zeros(members))
        self.register_buffer("std", torch.ones(()))

    def standardise_on(self, features: Tensor) -> None:
        """Take mean and standard deviation of each feature from (N, D) training responses; a feature that never varies stays as it is."""
        self.shift = features.double().mean(0).to(features.dtype)
        spread = features.double().std(0, correction=0).to(features.dtype)
        self.scale = torch.where(spread > 1e-6 * self.shift.abs().clamp(min=1e-6), spread, torch.ones_like(spread))

    def standardised(self, features: Tensor) -> Tensor:
        """(N, D) each feature with mean 0 and standard deviation 1 on the training responses."""
        return (features - self.shift) / self.scale

    def raw(self, standardised: Tensor) -> Tensor:
        """(N, K) each member's score in the unit of the loss: a difference of d means odds of exp(d) : 1."""
        raise NotImplementedError

    def stretch(self, factor: Tensor) -> None:
        """Multiply each member's raw score by its own factor, (K,)."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """(N, K) from (N, D) features as the trunk gave them."""
        return self.raw(self.standardised(features))

    @torch.no_grad()
    def normalise_on(self, features: Tensor) -> None:
        """Choose offset and unit so that the scores of (N, D) reference responses have mean 0 and standard deviation 1.

        Raises:
            UserError: all of them have the same score.
        """
        self.member_mean, self.std = normalisation(self(features))

    @torch.no_grad()
    def scores(self, features: Tensor) -> Scores:
        """Normalised scores of (N, D) features."""
        centred = (self(features).double() - self.member_mean.double()) / self.std.double()
        spread = centred.std(1, correction=0) if len(centred) else centred.new_zeros(0)  # torch warns of a spread of nothing
        return Scores(centred.mean(1), spread, centred.amin(1))


def normalisation(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(K,) each member's mean and () the population standard deviation of the members' mean, from (N, K) raw scores of reference responses.

    Raises:
        UserError: fewer than two responses, or all of them have the same score.
    """
    mean = raw.double().mean(1)
    std = mean.std(correction=0) if len(mean) else torch.zeros(())
    if not std > 1e-8:
        raise UserError(
            f"the reward model gives all {len(mean)} reference responses the same score: it has learned nothing",
            fix="collect judgements on answers that differ, or try another reward.head",
        )
    return raw.double().mean(0).to(raw.dtype), std.to(raw.dtype)


class LinearHead(Head):
    """K weight vectors."""

    def __init__(self, width: int, members: int) -> None:
        super().__init__(width, members)
        self.weight = nn.Parameter(torch.zeros(members, width))

    def raw(self, standardised: Tensor) -> Tensor:
        """(N, K)."""
        return standardised @ self.weight.T

    @torch.no_grad()
    def stretch(self, factor: Tensor) -> None:
        """Multiply each member's raw score by its own factor, (K,)."""
        self.weight.mul_(factor[:, None])

    @torch.no_grad()
    def direction(self) -> tuple[Tensor, float]:
        """(D,) fp32 and a constant: the members' mean and both normalisations in one linear form of what is read; their sum is the score."""
        slope = self.weight.double().mean(0) / self.scale.double()
        constant = -(slope * self.shift.double()).sum() - self.member_mean.double().mean()
        return (slope / self.std.double()).float(), float(constant / self.std.double())


class MLPHead(Head):
    """K small networks with one hidden layer of GELU units each, evaluated together."""

    def __init__(self, width: int, members: int, units: int, *, seed: int = 0) -> None:
        super().__init__(width, members)
        generator = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(members, width, units, generator=generator) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, units))
        self.outer = nn.Parameter(torch.randn(members, units, generator=generator) / (units + 1) ** 0.5)

    def raw(self, standardised: Tensor) -> Tensor:
        """(N, K)."""
        hidden = nn.functional.gelu(standardised @ self.inner + self.bias)  # (K, N, W)
        return torch.einsum("knw,kw->nk", hidden, self.outer)

    @torch.no_grad()
    def stretch(self, factor: Tensor) -> None:
        """Multiply each member's raw score by its own factor, (K,)."""
        self.outer.mul_(factor[:, None])


def save_head(head: Head, file: Path) -> None:
    """Write a head as safetensors; its kind and sizes stand in the file's header."""
    sizes = {"head": type(head).__name__, "width": head.shift.shape[0], "members": head.member_mean.shape[0]}
    if isinstance(head, MLPHead):
        sizes["units"] = head.outer.shape[1]
    weights = {key: value.detach().contiguous() for key, value in sorted(head.state_dict().items())}
    save_file(weights, file, metadata={"sizes": json.dumps(sizes, sort_keys=True)})


def load_head(file: Path) -> Head:
    """Read a head that `save_head` wrote."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        sizes = json.loads(opened.metadata()["sizes"])
    head: Head = MLPHead(sizes["width"], sizes["members"], sizes["units"]) if sizes["head"] == "MLPHead" else LinearHead(sizes["width"], sizes["members"])
    head.load_state_dict(load_file(file))
    return head.eval()
