"""Flow past blocks by DOLFINx, on triangles that fit them: the peer of a benchmark, and the other side of a test."""

import time
from collections.abc import Sequence

import numpy as np
from _fitted_channel import OPTIONS, Channel, FittedChannel
from jaxtyping import Float64


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
        The velocities, and the CPU seconds that factorisation and steps took; mesh and forms are not counted, nor is
        looking up the points.
    """
    fitted = FittedChannel(channel, cells)
    import basix.ufl
    import ufl
    from dolfinx import fem
    from dolfinx.fem.petsc import apply_lifting, assemble_matrix, assemble_vector, set_bc
    from mpi4py import MPI
    from petsc4py import PETSc

    space = fem.functionspace(
        fitted.mesh,
        basix.ufl.mixed_element(
            [basix.ufl.element("Lagrange", "triangle", 2, shape=(2,)), basix.ufl.element("Lagrange", "triangle", 1)]
        ),
    )
    velocities, to_mixed = space.sub(0).collapse()
    held = fem.Function(velocities)
    held.interpolate(channel.inflow)
    dofs = fem.locate_dofs_topological((space.sub(0), velocities), 1, fitted.held)
    bcs = [fem.dirichletbc(held, dofs, space.sub(0))]
    (u, p), (v, q) = ufl.TrialFunctions(space), ufl.TestFunctions(space)
    now, before = fem.Function(velocities), fem.Function(velocities)
    now.interpolate(lambda x: channel.start(x[:2].T).T)
    before.x.array[:] = now.x.array
    lead, old, older, viscosity = (fem.Constant(fitted.mesh, PETSc.ScalarType(0.0)) for _ in range(4))
    viscosity.value = channel.viscosity
    n = ufl.FacetNormal(fitted.mesh)
    back = 0.5 * (ufl.dot(now, n) - abs(ufl.dot(now, n)))

    a = fem.form(
        lead * ufl.inner(u, v) * ufl.dx
        + viscosity * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
        - p * ufl.div(v) * ufl.dx
        - q * ufl.div(u) * ufl.dx,
        jit_options=OPTIONS,
    )
    history = fem.form(ufl.inner(old * now + older * before, v) * ufl.dx, jit_options=OPTIONS)
    convection = fem.form(
        ufl.inner(ufl.dot(ufl.grad(now), now), v) * ufl.dx - 0.5 * back * ufl.inner(now, v) * fitted.ds(1),
        jit_options=OPTIONS,
    )
    began = time.process_time()
    solver = PETSc.KSP().create(MPI.COMM_SELF)
    solver.setType("preonly")
    solver.getPC().setType("lu")
    solver.getPC().setFactorSolverType("mumps")
    found = fem.Function(space)
    pushed = np.zeros_like(found.x.array)
    outputs = []
    count = 0
    for end in times:
        while count < round(end / step):
            if count < 2:
                # The first step is of first order: there is no earlier state.
                *weights, extrapolate = ((1.0, 1.0, 0.0, 0.0), (1.5, 2.0, -0.5, 1.0))[count]
                lead.value, old.value, older.value = (weight / step for weight in weights)
                matrix = assemble_matrix(a, bcs=bcs)
                matrix.assemble()
                solver.setOperators(matrix)
            vector = assemble_vector(history)
            pushed_before, pushed = pushed, fem.assemble_vector(convection).array
            vector.array -= (1.0 + extrapolate) * pushed - extrapolate * pushed_before
            apply_lifting(vector, [a], [bcs])
            set_bc(vector, bcs)
            solver.solve(vector, found.x.petsc_vec)
            before.x.array[:] = now.x.array
            now.x.array[:] = found.x.array[to_mixed]
            count += 1
        outputs.append(now.x.array.copy())
    seconds = time.process_time() - began
    return fitted.look_up(now, outputs, at), seconds
