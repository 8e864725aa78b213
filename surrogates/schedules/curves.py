"""Curves that schedules are put together from."""

import math


def half_cosine(start: float, end: float, share: float) -> float:
    """From `start` at share 0 to `end` at share 1 along half a period of a cosine, and no further."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2
