"""The channel of `headrace.solvers.FlowPastObstacles` on triangles that fit its blocks, for DOLFINx."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from headrace.solvers.finite_elements.dolfinx import load_dolfinx
from headrace.solvers.problems.obstacles import Block

# What a user who wants speed has forms compiled with.
OPTIONS = {"cffi_extra_compile_args": ["-O3", "-march=native", "-ffast-math"]}

type Velocity = Callable[[Float64[np.ndarray, "points 2"]], Float64[np.ndarray, "points 2"]]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """What `headrace.solvers.FlowPastObstacles` solves.

    Attributes:
        length: of the box.
        height: of the box.
        blocks: on lines of the mesh.
        viscosity: ν.
        start: the velocity at time 0.
    """

    length: float
    height: float
    blocks: Sequence[Block]
    viscosity: float
    start: Velocity

    def inflow(self, x: Float64[np.ndarray, "3 points"]) -> Float64[np.ndarray, "2 points"]:
        """The velocity that is held on the boundary: a parabola on the left, 0 elsewhere."""
        y = x[1]
        profile = 6.0 * y * (self.height - y) / self.height**2
        return np.stack([np.where(x[0] < 1e-9, profile, 0.0), np.zeros_like(y)])


def triangles(channel: Channel, cells: int) -> tuple[Float64[np.ndarray, "points 2"], Int64[np.ndarray, "triangles 3"]]:
    """So many squares along the height, cut along diagonals that take turns, less those in the blocks."""
    h = channel.height / cells
    nx = round(channel.length / h)
    i, j = (index.ravel() for index in np.meshgrid(np.arange(nx), np.arange(cells), indexing="ij"))
    x, y = (i + 0.5) * h, (j + 0.5) * h
    is_fluid = np.ones(len(i), dtype=bool)
    for one in channel.blocks:
        is_fluid &= one.distance(x, y) > 0.0
    i, j = i[is_fluid], j[is_fluid]
    a, b, c, d = ((i + di) * (cells + 1) + (j + dj) for di, dj in ((0, 0), (1, 0), (1, 1), (0, 1)))  # counter-clockwise
    rises = ((i + j) % 2 == 0)[:, None]
    first = np.where(rises, np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    second = np.where(rises, np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    corners = np.concatenate([first, second])
    used, renumbered = np.unique(corners, return_inverse=True)
    points = np.stack([used // (cells + 1), used % (cells + 1)], axis=1) * h
    return points, renumbered.reshape(corners.shape)


class FittedChannel:
    """The mesh as DOLFINx has it.

    Attributes:
        mesh: a `dolfinx.mesh.Mesh`.
        held: facets where the velocity is known.
        leaving: facets where the flow leaves.
        ds: a measure on the boundary; `ds(1)` is where the flow leaves.
    """

    def __init__(self, channel: Channel, cells: int) -> None:
        load_dolfinx()
        import basix.ufl
        import ufl
        from dolfinx import mesh
        from mpi4py import MPI

        points, corners = triangles(channel, cells)
        element = ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,)))
        self.mesh = mesh.create_mesh(MPI.COMM_SELF, corners.astype(np.int64), element, points)
        self.mesh.topology.create_connectivity(1, 2)
        outside = mesh.exterior_facet_indices(self.mesh.topology)
        self.leaving = np.sort(mesh.locate_entities_boundary(self.mesh, 1, lambda x: np.isclose(x[0], channel.length)))
        self.held = np.setdiff1d(outside, self.leaving)
        tags = mesh.meshtags(self.mesh, 1, self.leaving, np.ones(len(self.leaving), dtype=np.int32))
        self.ds = ufl.Measure("ds", domain=self.mesh, subdomain_data=tags)

    def look_up(
        self,
        function: Any,  # a `dolfinx.fem.Function`, which is overwritten
        states: Sequence[Float64[np.ndarray, " values"]],
        at: Float64[np.ndarray, "points 2"],
    ) -> Float64[np.ndarray, "states points 2"]:
        """What the function is at the points with these coefficients, one set after the other."""
        from dolfinx import geometry

        places = np.concatenate([at, np.zeros((len(at), 1))], axis=1)
        near = geometry.compute_collisions_points(geometry.bb_tree(self.mesh, 2), places)
        holding = geometry.compute_colliding_cells(self.mesh, near, places)
        first = np.array([holding.links(row)[0] for row in range(len(at))], dtype=np.int32)
        found = []
        for state in states:
            function.x.array[:] = state
            found.append(function.eval(places, first))
        return np.stack(found)
