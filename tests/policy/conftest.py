"""The tiny model, ready to be tuned."""

from pathlib import Path

import pytest

from truing.models.registry import ModelSettings
from truing.models.trunk import Trunk, open_trunk


@pytest.fixture
def trunk(tiny_model: Path) -> Trunk:
    """A fresh trunk in fp32, without adapters."""
    return open_trunk(ModelSettings(name=str(tiny_model), dtype="fp32"))
