"""Plane polygons and triangulations: edges, areas, distances."""

import numpy as np
from jaxtyping import Float64, Int64

Points = Float64[np.ndarray, "points 2"]


def bars_of(cells: Int64[np.ndarray, "cells 3"]) -> Int64[np.ndarray, "edges 2"]:
    """The edges of triangles, each once."""
    return _edges(cells)[0]


def outer_edges(cells: Int64[np.ndarray, "cells 3"]) -> Int64[np.ndarray, "edges 2"]:
    """The edges that belong to one triangle only."""
    edges, counts = _edges(cells)
    return edges[counts == 1]


def _edges(cells: Int64[np.ndarray, "cells 3"]) -> tuple[Int64[np.ndarray, "edges 2"], Int64[np.ndarray, " edges"]]:
    """The edges, lower point first, and how many triangles each belongs to."""
    pairs = np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), axis=1)
    # One number for a pair: sorting rows takes ten times as long.
    base = int(cells.max(initial=0)) + 1
    keys, counts = np.unique(pairs[:, 0] * base + pairs[:, 1], return_counts=True)
    return np.stack([keys // base, keys % base], axis=1), counts


def sorted_rows(rows: Int64[np.ndarray, "rows columns"]) -> Int64[np.ndarray, "rows columns"]:
    """The rows in lexicographic order."""
    return rows[np.lexsort(rows.T[::-1])]


def lengths_of(edges: Float64[np.ndarray, "edges 2 2"]) -> Float64[np.ndarray, " edges"]:
    """The distance between the two ends of each."""
    return np.sqrt(np.sum((edges[:, 1] - edges[:, 0]) ** 2, axis=1))


def cross(a: Points, b: Points) -> Float64[np.ndarray, " points"]:
    """The third component of a × b."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def signed_area(corners: Points) -> float:
    """The area of a polygon, positive when its corners go round counter-clockwise."""
    return 0.5 * float(np.sum(cross(corners, np.roll(corners, -1, axis=0))))


def crosses_itself(starts: Points, ends: Points) -> bool:
    """Whether two sides that are not neighbours meet."""
    count = len(starts)
    side = np.array([cross(ends - starts, p - starts) for p in starts]).T  # of corner j as seen along side i
    scale = 1e-12 * np.ptp(starts, axis=0).max() ** 2
    side = np.where(np.abs(side) <= scale, 0.0, np.sign(side))
    apart = side * np.roll(side, -1, axis=1) <= 0.0  # the ends of side j are on both sides of line i
    for i in range(count):
        for j in range(i + 2, count):
            if (j + 1) % count != i and apart[i, j] and apart[j, i]:
                # Two sides on one line meet only if they overlap.
                boxes = np.array([[starts[k], ends[k]] for k in (i, j)])
                if (boxes.min(axis=1).max(axis=0) <= boxes.max(axis=1).min(axis=0)).all():
                    return True
    return False


def polygon_distance(points: Points, starts: Points, ends: Points) -> Float64[np.ndarray, " points"]:
    """The signed distance from a polygon, negative inside; side by side, so that memory stays that of the points."""
    nearest_squared = np.full(len(points), np.inf)
    inside = np.zeros(len(points), dtype=bool)
    for start, end in zip(starts, ends, strict=True):
        along = end - start
        x, y = points[:, 0] - start[0], points[:, 1] - start[1]
        t = np.clip((x * along[0] + y * along[1]) / (along[0] ** 2 + along[1] ** 2), 0.0, 1.0)
        nearest_squared = np.minimum(nearest_squared, (x - t * along[0]) ** 2 + (y - t * along[1]) ** 2)
        # A ray to the right crosses an odd number of sides if and only if it starts inside.
        straddles = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
        if start[1] != end[1]:
            inside ^= straddles & (x < along[0] * y / along[1])
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest_squared)
