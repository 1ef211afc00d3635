"""Shares of whole numbers, without the rounding of their products."""

from __future__ import annotations

import math


def least_count(level: float, total: int) -> int:
    """Return the least number of items that is at least a share `level` of `total`: 55 of 100 for 0.55.

    The product of the two may be rounded up: 0.55 x 100 is 55.00000000000001.
    """
    count = math.ceil(level * total)
    return count + int(count / total < level) - int((count - 1) / total >= level)
