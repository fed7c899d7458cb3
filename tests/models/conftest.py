"""The tiny model as a trunk, in fp32."""

from pathlib import Path

import pytest

from adapters import stir
from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk


@pytest.fixture
def trunk(tiny_model: Path) -> Trunk:
    """A fresh trunk without adapters."""
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))


@pytest.fixture
def tuned(trunk: Trunk) -> Trunk:
    """A trunk with an adapter "policy" that changes something, turned off."""
    trunk.add_adapter("policy", rank=4, alpha=8, seed=1)
    stir(trunk, "policy", seed=2)
    return trunk
