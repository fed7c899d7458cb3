"""Going downhill: L-BFGS for functions of some hundred variables whose scales are known.

SciPy's own does the same, but hands each vector of some hundred numbers to a threaded BLAS: on a busy machine most of a fit went into waiting for its threads.
"""

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MEMORY, HALVINGS = 8, 20
ENOUGH = 1e-4  # share of the promised decrease that a step must bring (Armijo)
FLAT = 1e-6  # largest slope that counts as none


def descend(function: Callable[[Floats], tuple[float, Floats]], start: Floats, steps: int, longest: Floats) -> Floats:
    """At most so many steps of L-BFGS with backtracking (Nocedal & Wright 2006, algorithms 7.4 and 3.1).

    Args:
        function: x (n,) → value and gradient (n,). Its curvature should be about 1 in each direction: scale the variables.
        start:    (n,)
        longest:  (n,) by how much each variable may move in a step.

    Returns:
        x with no higher a value than at the start.
    """
    x, (value, gradient) = start, function(start)
    memory: deque[tuple[Floats, Floats]] = deque(maxlen=MEMORY)
    for _ in range(steps):
        if np.abs(gradient).max(initial=0.0) < FLAT:
            break
        way = -_newton_like(gradient, memory)
        way /= max(1.0, float(np.abs(way / longest).max(initial=0.0)))
        promised, stride = float(gradient @ way), 1.0
        for _ in range(HALVINGS):
            there = x + stride * way
            new_value, new_gradient = function(there)
            if new_value <= value + ENOUGH * stride * promised:
                break
            stride /= 2
        else:
            break
        if (new_gradient - gradient) @ way > 0:
            memory.append((stride * way, new_gradient - gradient))
        x, value, gradient = there, new_value, new_gradient
    return x


def _newton_like(gradient: Floats, memory: deque[tuple[Floats, Floats]]) -> Floats:
    """The inverse of the curvature seen so far, times the gradient."""
    found, shares = gradient.copy(), []
    for moved, bent in reversed(memory):
        shares.append((moved @ found) / (moved @ bent))
        found -= shares[-1] * bent
    if memory:
        moved, bent = memory[-1]
        found *= (moved @ bent) / (bent @ bent)
    for (moved, bent), share in zip(memory, reversed(shares), strict=True):
        found += (share - (bent @ found) / (moved @ bent)) * moved
    return found
