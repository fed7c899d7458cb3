"""A curve the height of a line, as inline SVG that takes its colour from the page."""

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT, ROOM = 120, 24, 2


def sparkline(values: Sequence[float], label: str) -> Markup | None:
    """The values from left to right between their least and their greatest; None for fewer than two.

    Args:
        values: what isn't finite is left out.
        label:  the same in words, for who can't see it.
    """
    known = [value for value in values if math.isfinite(value)]
    if len(known) < 2:
        return None
    low, high = min(known), max(known)
    across, up = WIDTH / (len(known) - 1), (HEIGHT - 2 * ROOM) / (high - low or 1)
    points = [f"{place * across:.1f},{HEIGHT - ROOM - (value - low) * up:.1f}" for place, value in enumerate(known)]
    frame = '<svg class="spark" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none"><path d="M{}"/></svg>'
    return Markup(frame).format(label, WIDTH, HEIGHT, " L".join(points))
