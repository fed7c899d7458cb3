"""Several scores in one: a weighted sum, less a price on what falls under a threshold.

    score = sum_i weight_i s_i - sum_j price_j max(0, threshold_j - s_j)

The sum is the plain scalarisation of several objectives (Wu et al. 2023, arXiv:2306.01693, with one reward model for each). The second part is the hinge of a
constraint s_j >= threshold_j, response by response: a penalty with a price that is fixed, where Safe-RLHF (Dai et al. 2023, arXiv:2310.12773) lets a Lagrange
multiplier learn the price of a mean cost. Where the constraint doesn't hold after tuning, the price was too low.

The score rises with every s_i, so that bounds of the parts give a bound of the whole.

Shapes: N answers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from truing.errors import UserError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


class Objective(NamedTuple):
    """A reward model among several.

    Attributes:
        name: what people call it, such as harmless.
        reward: its artifact.
        weight: of its normalised score, >= 0; 0: it is only held to a threshold.
    """

    name: str
    reward: str
    weight: float


class Floor(NamedTuple):
    """What an objective's score shall not fall under.

    Attributes:
        name: of the objective.
        threshold: in standard deviations of its scores over ordinary answers.
        price: of falling under it by one of them, > 0, in the unit of the weighted sum.
    """

    name: str
    threshold: float
    price: float


def weighed(scores: Mapping[str, Tensor], objectives: Sequence[Objective], floors: Sequence[Floor]) -> Tensor:
    """(N,) from each objective's (N,) normalised scores."""
    total = torch.stack([objective.weight * scores[objective.name] for objective in objectives]).sum(0)
    for floor in floors:
        total = total - floor.price * (floor.threshold - scores[floor.name]).clamp(min=0)
    return total


def parse_objective(words: str) -> Objective:
    """`NAME=ARTIFACT` or `NAME=ARTIFACT:WEIGHT`; the weight is 1 where none is given.

    Raises:
        UserError: it isn't of that form, or the weight is negative.
    """
    name, equals, rest = words.partition("=")
    reward, colon, weight = rest.partition(":")
    number = _number(weight) if colon else 1.0
    if not (equals and NAME.fullmatch(name) and reward) or number is None or number < 0:
        raise UserError(
            f"{words} is not of the form NAME=ARTIFACT:WEIGHT with a small-letter name and a weight of 0 or more",
            fix="for example helpful=reward-3d776be62c14e004:1; for less of something, bring in a function that scores it the other way round",
        )
    return Objective(name, reward, number)


def parse_floor(words: str) -> Floor:
    """`NAME:THRESHOLD:PRICE`.

    Raises:
        UserError: it isn't of that form, or the price isn't above 0.
    """
    name, *numbers = words.split(":")
    threshold, price = [_number(number) for number in numbers] if len(numbers) == 2 else (None, None)
    if threshold is None or price is None or price <= 0:
        raise UserError(f"{words} is not of the form NAME:THRESHOLD:PRICE with a price above 0", fix="for example --at-least harmless:-0.5:4")
    return Floor(name, threshold, price)


def require_sound(objectives: Sequence[Objective], floors: Sequence[Floor]) -> None:
    """Stop where objectives and floors don't make a score.

    Raises:
        UserError: fewer than two of both together, a name twice, no weight above 0, or a floor under nothing.
    """
    names = [objective.name for objective in objectives]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"two objectives are called {twice}", fix="give each a name of its own")
    if lost := next((floor.name for floor in floors if floor.name not in names), None):
        raise UserError(f"--at-least is about {lost}, and no objective is called so", fix=f"name one of {', '.join(names)}, or add {lost}=ARTIFACT:0")
    if len(objectives) + len(floors) < 2:
        raise UserError("a single objective is what its reward model says already", fix="name two or more, or hold it to a threshold with --at-least")
    if not any(objective.weight > 0 for objective in objectives):
        raise UserError("no objective has a weight above 0, so that nothing would be maximised", fix="give one a weight, such as helpful=ARTIFACT:1")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number - number == 0 else None  # neither nan nor infinite
