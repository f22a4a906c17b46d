"""From 0 to 1 over a range; `low` may be the larger end, for a way down."""
from __future__ import annotations

import numpy as np


def ramp(x, low, high):
    """0 up to `low`, 1 from `high` on, straight between."""
    return np.clip((x - low) / (high - low), 0, 1)


def smoothstep(x, low, high):
    """Likewise, without corners."""
    y = ramp(x, low, high)
    return y * y * (3 - 2 * y)
