"""What tests do to adapters."""

import torch

from truing.models.trunk import Trunk


def stir(trunk: Trunk, name: str, *, seed: int, size: float = 0.1) -> None:
    """Move an adapter away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trunk.adapter_parameters(name):
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
