"""The compiled part of sorting: greedy nearest neighbours. Nothing but loops."""

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
# Coordinates between two looks at whether a point can still be the nearest.
_BLOCK = 16


@njit(**_OPTIONS)
def greedy_walk(
    leading: Float32[np.ndarray, "points leading"],
    others: Float32[np.ndarray, "points others"],
    names: Int64[np.ndarray, " points"],
    start: Float32[np.ndarray, " leading+others"],
    order: Int64[np.ndarray, " points"],
) -> None:
    """Write into `order` the names of the points as one meets them who always goes on to the nearest that is left.

    Ties go to the smaller name. The points and `names` are shuffled on the way: what is left stands together.

    A distance is a sum of squares that only grows, so a point is given up in the middle of its sum when it exceeds the
    least so far. With the coordinates of largest variance first, few are looked at to the end; those that all points
    need lie apart, close together in memory.

    Args:
        leading: the first coordinates of each point.
        others: the rest of them.
        names: what `order` calls the points.
        start: where the walk begins; the first point is the nearest to it.
        order: the result.
    """
    num_left, num_leading = leading.shape
    num_others = others.shape[1]
    here, there = start[:num_leading].copy(), start[num_leading:].copy()
    for position in range(order.size):
        best, least = 0, np.float32(np.inf)
        for row in range(num_left):
            distance = np.float32(0.0)
            for k in range(num_leading):
                difference = leading[row, k] - here[k]
                distance += difference * difference
            first = 0
            while first < num_others and distance <= least:
                last = min(first + _BLOCK, num_others)
                for k in range(first, last):
                    difference = others[row, k] - there[k]
                    distance += difference * difference
                first = last
            if distance < least or (distance == least and names[row] < names[best]):
                best, least = row, distance
        order[position] = names[best]
        here[:], there[:] = leading[best], others[best]
        num_left -= 1
        leading[best], others[best] = leading[num_left], others[num_left]
        names[best] = names[num_left]
