"""NamedMesh: a mesh of triangles whose boundaries have names."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from headrace.platform.fields import Mesh
from headrace.solvers.finite_elements.planar import lengths_of


@dataclass(frozen=True, kw_only=True, eq=False)
class NamedMesh:
    """A mesh of triangles and the edges of its named boundaries.

    Attributes:
        mesh: points and triangles, counter-clockwise.
        boundaries: for each name its edges as pairs of points; every edge belongs to one triangle only.
    """

    mesh: Mesh
    boundaries: Mapping[str, Int64[np.ndarray, "edges 2"]]

    @functools.cached_property
    def quality(self) -> Float64[np.ndarray, " cells"]:
        """Twice the inscribed over the circumscribed radius of each triangle: 1 when equilateral, 0 when degenerate."""
        a, b, c = (lengths_of(self.mesh.points[self.mesh.cells[:, [i, (i + 1) % 3]]]) for i in range(3))
        return (b + c - a) * (c + a - b) * (a + b - c) / (a * b * c)
