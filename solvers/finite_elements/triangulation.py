"""Triangulating a region by springs, after Persson and Strang (2004)."""

import math
from typing import Any

import numpy as np
from jaxtyping import Int64

from headrace.solvers.finite_elements.planar import Points, bars_of, cross, lengths_of, sorted_rows

# The springs of Persson & Strang are longer than their bars by this, so that most of them push. They advise 1.2 where
# points may move along the boundary; ours may not, and the others would be squeezed against them.
_SPRING = 1.05


_STEP = 0.2


_MAX_ROUNDS = 80


# Points inside keep this distance from the boundary, in edges: a triangle on it is 0.87 high when equilateral.
_CLEARANCE = 0.6


def relaxed(boundary: Points, distance: Any, size: float) -> tuple[Points, Int64[np.ndarray, "cells 3"]]:
    """Fill the inside of a boundary with points and triangles."""
    low, high = boundary.min(axis=0), boundary.max(axis=0)
    height = size * math.sqrt(3.0) / 2.0
    columns, rows = math.ceil((high[0] - low[0]) / size) + 1, math.ceil((high[1] - low[1]) / height) + 1
    y, x = np.meshgrid(np.arange(rows) * height, np.arange(columns) * size, indexing="ij")
    x[1::2] += size / 2.0
    inner = np.stack([low[0] + x.ravel(), low[1] + y.ravel()], axis=1)
    inner = inner[distance(inner) < -_CLEARANCE * size]
    fixed = len(boundary)
    points = np.concatenate([boundary, inner])
    placed = np.full_like(points, np.inf)
    cells = _triangles(points, distance, size)
    bars = bars_of(cells)
    for _ in range(_MAX_ROUNDS if len(inner) else 0):
        if not lengths_of(np.stack([points, placed], axis=1)).max() < 0.1 * size:
            placed = points.copy()
            cells = _triangles(points, distance, size)
            bars = bars_of(cells)
        ends = points[bars[:, 0]] - points[bars[:, 1]]
        length = np.sqrt(ends[:, 0] ** 2 + ends[:, 1] ** 2)
        wanted = _SPRING * np.sqrt(np.mean(length**2))
        push = np.maximum(wanted - length, 0.0)[:, None] * ends / length[:, None]
        move = np.stack(
            [
                np.bincount(bars[:, 0], push[:, k], len(points)) - np.bincount(bars[:, 1], push[:, k], len(points))
                for k in range(2)
            ],
            axis=1,
        )
        move[:fixed] = 0.0
        points = points + _STEP * move
        _keep_away(points[fixed:], distance, _CLEARANCE * size)
        if _STEP * np.abs(move).max() < 2e-3 * size:
            break
    points[fixed:] = np.round(points[fixed:] / size, 9) * size
    return points, _triangles(points, distance, size)


def _keep_away(points: Points, distance: Any, clearance: float) -> None:
    """Move points that are too near to the boundary, or outside, back along the gradient of the distance."""
    d = distance(points)
    near = np.flatnonzero(d > -clearance)
    if not len(near):
        return
    p, h = points[near], 1e-6 * clearance
    gradient = np.stack(
        [(distance(p + np.array(step)) - distance(p - np.array(step))) / (2.0 * h) for step in ((h, 0.0), (0.0, h))],
        axis=1,
    )
    norm = np.maximum(np.sum(gradient**2, axis=1), 0.1)
    points[near] -= ((d[near] + clearance) / norm)[:, None] * gradient


def _triangles(points: Points, distance: Any, size: float) -> Int64[np.ndarray, "cells 3"]:
    """The Delaunay triangles inside, counter-clockwise and in an order of their own."""
    from scipy.spatial import Delaunay

    cells = Delaunay(points).simplices.astype(np.int64)
    corners = points[cells]
    area = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    cells = np.where(area[:, None] < 0.0, cells[:, [0, 2, 1]], cells)
    # Between collinear points of a side Qhull leaves slivers, the centre of which lies on the boundary.
    kept = (distance(corners.mean(axis=1)) < -1e-6 * size) & (np.abs(area) > 1e-6 * size**2)
    # Each triangle starts at its lowest point, and they are sorted: Qhull's order is its own affair.
    cells = cells[kept]
    first = np.argmin(cells, axis=1)
    cells = np.take_along_axis(cells, (first[:, None] + np.arange(3)) % 3, axis=1)
    return sorted_rows(cells)
