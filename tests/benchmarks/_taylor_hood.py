"""Flow past blocks by DOLFINx, on triangles that fit them: the peer of a benchmark, and the other side of a test."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from headrace.solvers.problems.finite_elements import load_dolfinx
from headrace.solvers.problems.obstacles import Block

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


def taylor_hood(
    channel: Channel, cells: int, step: float, times: Sequence[float], at: Float64[np.ndarray, "points 2"]
) -> tuple[Float64[np.ndarray, "times points 2"], float]:
    """Velocities at points and times, by P2-P1 elements.

    Steps are of SBDF2 (Ascher, Ruuth and Wetton 1995): convection is extrapolated, the rest implicit, so that the
    coupled matrix of velocity and pressure is factored once and no splitting is in the error.

    Args:
        channel: the flow.
        cells: squares along the height.
        step: divides all times.
        times: increasing.
        at: points in the fluid.

    Returns:
        The velocities, and the CPU seconds that mesh, factorisation and steps took, without compiling forms.
    """
    load_dolfinx()
    import basix.ufl
    import ufl
    from dolfinx import fem, geometry, mesh
    from dolfinx.fem.petsc import apply_lifting, assemble_matrix, assemble_vector, set_bc
    from mpi4py import MPI
    from petsc4py import PETSc

    points, corners = triangles(channel, cells)
    domain = mesh.create_mesh(
        MPI.COMM_SELF,
        corners.astype(np.int64),
        ufl.Mesh(basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))),
        points,
    )
    space = fem.functionspace(
        domain,
        basix.ufl.mixed_element(
            [basix.ufl.element("Lagrange", "triangle", 2, shape=(2,)), basix.ufl.element("Lagrange", "triangle", 1)]
        ),
    )
    velocities, to_mixed = space.sub(0).collapse()
    domain.topology.create_connectivity(1, 2)
    outside = mesh.exterior_facet_indices(domain.topology)
    leaving = mesh.locate_entities_boundary(domain, 1, lambda x: np.isclose(x[0], channel.length))
    held = fem.Function(velocities)

    def inflow(x: np.ndarray) -> np.ndarray:
        y = x[1]
        profile = 6.0 * y * (channel.height - y) / channel.height**2
        return np.stack([np.where(x[0] < 1e-9, profile, 0.0), np.zeros_like(y)])

    held.interpolate(inflow)
    dofs = fem.locate_dofs_topological((space.sub(0), velocities), 1, np.setdiff1d(outside, leaving))
    bcs = [fem.dirichletbc(held, dofs, space.sub(0))]
    (u, p), (v, q) = ufl.TrialFunctions(space), ufl.TestFunctions(space)
    now, before = fem.Function(velocities), fem.Function(velocities)
    now.interpolate(lambda x: channel.start(x[:2].T).T)
    before.x.array[:] = now.x.array
    lead, old, older, extrapolate, viscosity = (fem.Constant(domain, PETSc.ScalarType(0.0)) for _ in range(5))
    viscosity.value = channel.viscosity
    tags = mesh.meshtags(domain, 1, np.sort(leaving), np.ones(len(leaving), dtype=np.int32))
    ds, n = ufl.Measure("ds", domain=domain, subdomain_data=tags), ufl.FacetNormal(domain)

    def convection(w: fem.Function) -> ufl.Form:
        back = 0.5 * (ufl.dot(w, n) - abs(ufl.dot(w, n)))
        return ufl.inner(ufl.dot(ufl.grad(w), w), v) * ufl.dx - 0.5 * back * ufl.inner(w, v) * ds(1)

    a = fem.form(
        lead * ufl.inner(u, v) * ufl.dx
        + viscosity * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
        - p * ufl.div(v) * ufl.dx
        - q * ufl.div(u) * ufl.dx
    )
    right = fem.form(
        ufl.inner(old * now + older * before, v) * ufl.dx
        - (1.0 + extrapolate) * convection(now)
        + extrapolate * convection(before)
    )
    began = time.process_time()
    solver = PETSc.KSP().create(MPI.COMM_SELF)
    solver.setType("preonly")
    solver.getPC().setType("lu")
    solver.getPC().setFactorSolverType("mumps")
    found = fem.Function(space)
    inside = np.zeros((len(at), 3))
    inside[:, :2] = at
    candidates = geometry.compute_collisions_points(geometry.bb_tree(domain, 2), inside)
    cells_of = geometry.compute_colliding_cells(domain, candidates, inside)
    first_cells = np.array([cells_of.links(row)[0] for row in range(len(at))], dtype=np.int32)
    outputs = []
    count = 0
    for end in times:
        while count < round(end / step):
            if count < 2:
                # The first step is of first order: there is no earlier state.
                values = ((1.0, 1.0, 0.0, 0.0), (1.5, 2.0, -0.5, 1.0))[count]
                lead.value, old.value, older.value = (value / step for value in values[:3])
                extrapolate.value = values[3]
                matrix = assemble_matrix(a, bcs=bcs)
                matrix.assemble()
                solver.setOperators(matrix)
            vector = assemble_vector(right)
            apply_lifting(vector, [a], [bcs])
            set_bc(vector, bcs)
            solver.solve(vector, found.x.petsc_vec)
            before.x.array[:] = now.x.array
            now.x.array[:] = found.x.array[to_mixed]
            count += 1
        outputs.append(now.eval(inside, first_cells))
    return np.stack(outputs), time.process_time() - began
