"""Where the points of a grid lie in a mesh."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from headrace.platform.fields import Mesh
from headrace.solvers.finite_elements.planar import cross


@dataclass(frozen=True, kw_only=True, eq=False)
class Location:
    """Where points lie in a mesh.

    Attributes:
        inside: whether a point lies in some triangle.
        cell: of each point that does, its triangle.
        weights: the barycentric coordinates in that triangle: the weights of its corners.
    """

    inside: Bool[np.ndarray, " points"]
    cell: Int64[np.ndarray, " inside"]
    weights: Float64[np.ndarray, "inside 3"]


def locate_grid(mesh: Mesh, x: Float64[np.ndarray, " nx"], y: Float64[np.ndarray, " ny"]) -> Location:
    """Find the points of a grid in a triangle mesh; they are ordered with y fastest.

    Args:
        mesh: triangles.
        x: ascending.
        y: ascending.
    """
    triangles = mesh.points[mesh.cells]
    slack = 1e-9 * np.ptp(mesh.points, axis=0).max()
    low, high = triangles.min(axis=1) - slack, triangles.max(axis=1) + slack
    # All pairs of a triangle and a grid point in its bounding box, row by row.
    i0, i1 = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0], side="right")
    j0, j1 = np.searchsorted(y, low[:, 1]), np.searchsorted(y, high[:, 1], side="right")
    columns = j1 - j0
    counts = (i1 - i0) * columns
    cell = np.repeat(np.arange(len(triangles)), counts)
    offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    i, j = i0[cell] + offset // columns[cell], j0[cell] + offset % columns[cell]
    a, b, c = (triangles[cell, k] for k in range(3))
    p = np.stack([x[i], y[j]], axis=1)
    area = cross(b - a, c - a)
    weights = np.stack([cross(b - p, c - p), cross(c - p, a - p), cross(a - p, b - p)], axis=1) / area[:, None]
    within = weights.min(axis=1) >= -1e-9
    number = i[within] * len(y) + j[within]
    # A point on an edge lies in two triangles: the first is taken.
    points, first = np.unique(number, return_index=True)
    inside = np.zeros(len(x) * len(y), dtype=bool)
    inside[points] = True
    return Location(inside=inside, cell=cell[within][first], weights=weights[within][first])


# Triangles whose centres are nearest are looked at; in a mesh of good triangles a point's own is among the first few.
_CANDIDATES = 16


def locate_points(mesh: Mesh, points: Float64[np.ndarray, "points 2"]) -> Location:
    """Find scattered points, all in a triangle mesh or next to it: those outside are moved to the nearest edge."""
    from scipy.spatial import cKDTree

    triangles = mesh.points[mesh.cells]
    count = min(_CANDIDATES, len(triangles))
    _, near = cKDTree(triangles.mean(axis=1)).query(points, k=count)
    near = near.reshape(len(points), count)
    a, b, c = (triangles[near, k] for k in range(3))
    p = points[:, None]
    area = cross(b - a, c - a)
    weights = np.stack([cross(b - p, c - p), cross(c - p, a - p), cross(a - p, b - p)], axis=2) / area[..., None]
    best = weights.min(axis=2).argmax(axis=1)
    rows = np.arange(len(points))
    chosen = np.maximum(weights[rows, best], 0.0)
    chosen /= chosen.sum(axis=1, keepdims=True)
    return Location(inside=np.ones(len(points), dtype=bool), cell=near[rows, best].astype(np.int64), weights=chosen)
