"""How fast a run was while it worked, whatever came after."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def solving_rate(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Samples a second from the first to the last that was stored; None where too few looks at the stream tell.

    From the last look before the first one came to the look that found the last one there.

    Args:
        rows: a run's metrics, each with `seconds`.
    """
    counts = [(row["seconds"], row["stream/stored"]) for row in rows if row.get("stream/stored") is not None]
    points = sorted((seconds, stored) for seconds, stored in counts if math.isfinite(stored))
    if not points or points[-1][1] <= points[0][1]:
        return None
    begin = next(k for k, (_, stored) in enumerate(points) if stored > points[0][1]) - 1
    end = next(k for k, (_, stored) in enumerate(points) if stored == points[-1][1])
    seconds = points[end][0] - points[begin][0]
    return (points[end][1] - points[begin][1]) / seconds if seconds > 0.0 else None
