"""A bandit: answers of one token to one prompt, so that everything can be worked out from the logits."""

import torch
from torch import Tensor

from truing.models.sequences import collate
from truing.models.trunk import Trunk

PROMPT, OTHER, BETA, TEMPERATURE = [5, 6, 7], [100], 0.5, 0.9


def distribution(trunk: Trunk, role: str | None, prompt: list[int] = PROMPT) -> Tensor:
    """(V,) of the answer's one token."""
    with torch.no_grad(), trunk.using(role):
        hidden = trunk.hidden(collate([prompt], [[0]], trunk.pad_id))
        return torch.softmax(trunk.logits(hidden[:, len(prompt) - 1]).double()[0] / TEMPERATURE, 0)
