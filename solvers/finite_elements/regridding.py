"""From the points of a mesh to those of a grid over its bounding box."""

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from headrace.platform.fields import Mesh
from headrace.solvers.finite_elements.geometries import AnyGeometry, named_mesh
from headrace.solvers.finite_elements.location import Location, locate_grid, locate_points
from headrace.solvers.finite_elements.planar import Points

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Systems are sorted by their coefficient, looked up at this many points a side of the bounding box.
_FEATURE_POINTS = 32


def in_unit_square(points: Points) -> Points:
    """Shift and scale points so that the longer side of their bounding box is that of the unit square."""
    # Axis by axis: NumPy's reductions along the short axis of a table are ten times as slow.
    low = np.array([points[:, 0].min(), points[:, 1].min()])
    longest = max(points[:, 0].max() - low[0], points[:, 1].max() - low[1])
    return (points - low) / longest


@dataclass(frozen=True, kw_only=True, eq=False)
class Regridding:
    """From the points of a mesh to other points that lie inside it."""

    location: Location
    from_points: "csr_array"


@functools.lru_cache(maxsize=8)
def regridding(geometry: AnyGeometry, grid_points: int) -> Regridding:
    """From the mesh of a geometry to a grid of so many points a side over its bounding box."""
    mesh = named_mesh(geometry).mesh
    low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
    x, y = (np.linspace(low[k], high[k], grid_points) for k in range(2))
    return _between(mesh, locate_grid(mesh, x, y))


@functools.lru_cache(maxsize=8)
def meeting(fine: AnyGeometry, coarse: AnyGeometry) -> Regridding:
    """From the points of one mesh to those of another of the same outline."""
    mesh = named_mesh(fine).mesh
    return _between(mesh, locate_points(mesh, named_mesh(coarse).mesh.points))


def _between(mesh: Mesh, location: Location) -> Regridding:
    """The matrix that interpolates linearly in the triangles of a mesh."""
    from scipy.sparse import csr_array

    corners = mesh.cells[location.cell]
    indptr = np.arange(0, 3 * len(corners) + 1, 3)
    shape = (len(corners), len(mesh.points))
    return Regridding(
        location=location, from_points=csr_array((location.weights.ravel(), corners.ravel(), indptr), shape=shape)
    )


@functools.lru_cache(maxsize=8)
def feature_points(geometry: AnyGeometry) -> Int64[np.ndarray, "x y"]:
    """The points of the mesh that are nearest to those of a coarse grid over the bounding box."""
    from scipy.spatial import cKDTree

    unit = in_unit_square(named_mesh(geometry).mesh.points)
    along = [(np.arange(_FEATURE_POINTS) + 0.5) / _FEATURE_POINTS * length for length in unit.max(axis=0)]
    x, y = np.meshgrid(*along, indexing="ij")
    _, nearest = cKDTree(unit).query(np.stack([x.ravel(), y.ravel()], axis=1))
    return nearest.reshape(x.shape).astype(np.int64)
