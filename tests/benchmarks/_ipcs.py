"""Flow past blocks by DOLFINx with a splitting scheme: velocities first, then the pressure that corrects them."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from _fitted_channel import OPTIONS, Channel, FittedChannel
from jaxtyping import Float64, Int32
from scipy.sparse import csr_array, csr_matrix, eye_array

type Scheme = Literal["explicit, factored", "explicit, CG", "semi-implicit"]
# How convection is taken, and how the velocities are solved for.
SCHEMES: tuple[Scheme, ...] = ("explicit, factored", "explicit, CG", "semi-implicit")
# Of the right-hand side, for conjugate gradients and BiCGStab: a tenth of it changes errors by 1 % at most.
_RTOL = 1e-5

type Velocities = Float64[np.ndarray, "nodes 2"]


def ipcs(
    channel: Channel,
    cells: int,
    step: float,
    times: Sequence[float],
    at: Float64[np.ndarray, "points 2"],
    scheme: Scheme = "explicit, CG",
) -> tuple[Float64[np.ndarray, "times points 2"], float]:
    """Velocities at points and times, by P2-P1 elements, BDF2 and incremental pressure correction in rotational form.

    The scheme of Timmermans, Minev and Van De Vosse (1996), as in Sec. 3 of Guermond, Minev and Shen (2006), Comput.
    Methods Appl. Mech. Engrg. 195, with the velocity that the pressure has corrected eliminated, so that no mass matrix
    of velocities is solved with. The momentum equation sees

        p^k + (4 φ^k - φ^(k-1)) / 3,  where  Δφ^k = 3 / (2 dt) ∇·u^k,  p^k = p^(k-1) + φ^k - ν ∇·u^k

    Where the flow leaves, φ is 0, and the traction is that of `taylor_hood`. Both components have one matrix. With
    explicit convection, extrapolated (SBDF2), it is constant: factored by PETSc's own Cholesky decomposition, here
    faster than MUMPS', or left to conjugate gradients with Jacobi's preconditioner. With semi-implicit convection, by
    an extrapolated velocity, it is assembled anew in every step, for BiCGStab with Jacobi's.

    Args:
        channel: the flow.
        cells: squares along the height.
        step: divides all times.
        times: increasing.
        at: points in the fluid.
        scheme: one of `SCHEMES`.

    Returns:
        The velocities, and the CPU seconds that constant matrices, their factors and the steps took; mesh and forms
        are not counted, nor is looking up the points.
    """
    fitted = FittedChannel(channel, cells)
    import basix.ufl
    import ufl
    from dolfinx import fem

    quadratic = basix.ufl.element("Lagrange", "triangle", 2)
    vectors = fem.functionspace(fitted.mesh, basix.ufl.element("Lagrange", "triangle", 2, shape=(2,)))
    components, pressures = (
        fem.functionspace(fitted.mesh, one) for one in (quadratic, basix.ufl.element("Lagrange", "triangle", 1))
    )
    # So that a vector's values are those of its components, in turns.
    assert np.array_equal(vectors.dofmap.list, components.dofmap.list)
    carrier, held = fem.Function(vectors), fem.Function(vectors)
    carrier.interpolate(lambda x: channel.start(x[:2].T).T)
    held.interpolate(channel.inflow)
    held_at = fem.locate_dofs_topological(components, 1, fitted.held)
    leaving_at = fem.locate_dofs_topological(pressures, 1, fitted.leaving)

    u, v = ufl.TrialFunction(components), ufl.TestFunction(components)
    p, q = ufl.TrialFunction(pressures), ufl.TestFunction(pressures)
    w, n = ufl.TestFunction(vectors), ufl.FacetNormal(fitted.mesh)
    back = 0.5 * (ufl.dot(carrier, n) - abs(ufl.dot(carrier, n)))
    if scheme == "semi-implicit":
        carried = ufl.dot(carrier, ufl.grad(u)) * v * ufl.dx - 0.5 * back * u * v * fitted.ds(1)
    else:
        carried = ufl.inner(ufl.dot(ufl.grad(carrier), carrier), w) * ufl.dx
        carried -= 0.5 * back * ufl.inner(carrier, w) * fitted.ds(1)
    convection = fem.form(carried, jit_options=OPTIONS)
    constant = (
        u * v * ufl.dx,
        ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx,
        p * v.dx(0) * ufl.dx,
        p * v.dx(1) * ufl.dx,
        p * q * ufl.dx,
        ufl.inner(ufl.grad(p), ufl.grad(q)) * ufl.dx,
    )
    forms = [fem.form(form, jit_options=OPTIONS) for form in constant]

    began = time.process_time()
    mass, stiffness, *gradient, overlaps, laplacian = (fem.assemble_matrix(form).to_scipy() for form in forms)
    divergence = [part.T.tocsr() for part in gradient]
    project, poisson = _Solver("cholesky"), _Solver("cholesky")
    project.set(overlaps)
    poisson.set(_held(laplacian, leaving_at))
    now, boundary = carrier.x.array.reshape(-1, 2).copy(), held.x.array.reshape(-1, 2)
    momentum: _Explicit | _SemiImplicit
    if scheme == "semi-implicit":
        momentum = _SemiImplicit(convection, carrier, boundary, held_at)
    else:
        momentum = _Explicit(convection, carrier, boundary, held_at, "cg" if scheme == "explicit, CG" else "cholesky")
    before = now
    pressure, phi, phi_before = np.zeros((3, laplacian.shape[0]))
    outputs, num_steps, leads = [], 0, (1.0, 1.0)
    for end in times:
        while num_steps < round(end / step):
            # The first step is of first order: there is no earlier state.
            lead, old, older, extrapolate = ((1.0, 1.0, 0.0, 0.0), (1.5, 2.0, -0.5, 1.0))[min(num_steps, 1)]
            if num_steps < 2:
                momentum.implicit(lead / step * mass + channel.viscosity * stiffness)
            seen = pressure + old / leads[0] * phi + older / leads[1] * phi_before
            right = mass @ (old / step * now + older / step * before)
            right += np.stack([part @ seen for part in gradient], axis=1)
            before, now = now, momentum(right, now, now + extrapolate * (now - before), extrapolate)
            sources = divergence[0] @ now[:, 0] + divergence[1] @ now[:, 1]
            wanted = -lead / step * sources
            wanted[leaving_at] = 0.0
            phi_before, phi = phi, poisson(wanted, phi)
            pressure = pressure + phi - channel.viscosity * project(sources, phi)
            leads = (lead, leads[0])
            num_steps += 1
        outputs.append(now.ravel())
    seconds = time.process_time() - began
    return fitted.look_up(carrier, outputs, at), seconds


class _Explicit:
    """Velocities of the next step with convection as it was, extrapolated."""

    def __init__(
        self,
        convection: Any,  # a `dolfinx.fem.Form`, a vector
        carrier: Any,  # its `dolfinx.fem.Function`
        boundary: Velocities,
        held: Int32[np.ndarray, " held"],
        kind: Literal["cg", "cholesky"],
    ) -> None:
        self._convection, self._carrier, self._boundary, self._held = convection, carrier, boundary, held
        self._solver = _Solver(kind)
        self._pushed = np.zeros_like(boundary)

    def implicit(self, matrix: csr_matrix) -> None:
        """Take the constant part of the matrix."""
        self._lifted = matrix @ self._boundary
        self._solver.set(_held(matrix, self._held))

    def __call__(self, right: Velocities, now: Velocities, guess: Velocities, extrapolate: float) -> Velocities:
        from dolfinx import fem

        self._carrier.x.array[:] = now.ravel()
        before, self._pushed = self._pushed, fem.assemble_vector(self._convection).array.reshape(-1, 2)
        right = right - self._lifted - (1.0 + extrapolate) * self._pushed + extrapolate * before
        right[self._held] = 0.0
        return self._solver(right, guess - self._boundary) + self._boundary


class _SemiImplicit:
    """Velocities of the next step, carried by the extrapolated one."""

    def __init__(
        self,
        convection: Any,  # a `dolfinx.fem.Form`, a matrix
        carrier: Any,
        boundary: Velocities,
        held: Int32[np.ndarray, " held"],
    ) -> None:
        from dolfinx import fem

        self._convection, self._carrier, self._boundary, self._held = convection, carrier, boundary, held
        self._matrix = fem.create_matrix(convection)
        self._solver = _Solver("bcgs")
        pattern = self._matrix.to_scipy()
        rows = np.repeat(np.arange(len(boundary)), np.diff(pattern.indptr))
        in_held = np.isin(rows, held)
        self._rows, self._diagonal = in_held, in_held & (pattern.indices == rows)

    def implicit(self, matrix: csr_matrix) -> None:
        """Take the constant part of the matrix."""
        assert np.array_equal(matrix.indices, self._matrix.indices)
        self._constant = matrix.data

    def __call__(self, right: Velocities, now: Velocities, guess: Velocities, extrapolate: float) -> Velocities:
        from dolfinx import fem

        self._carrier.x.array[:] = guess.ravel()
        self._matrix.set_value(0.0)
        fem.assemble_matrix(self._matrix, self._convection)
        matrix = self._matrix.to_scipy()
        matrix.data += self._constant
        matrix.data[self._rows] = 0.0
        matrix.data[self._diagonal] = 1.0
        self._solver.set(matrix)
        right = right.copy()
        right[self._held] = self._boundary[self._held]
        return self._solver(right, guess)


class _Solver:
    """PETSc's, for some columns one after the other."""

    def __init__(self, kind: Literal["cholesky", "cg", "bcgs"]) -> None:
        from mpi4py import MPI
        from petsc4py import PETSc

        self._petsc = PETSc
        self._solver = PETSc.KSP().create(MPI.COMM_SELF)
        self._solver.setType("preonly" if kind == "cholesky" else kind)
        preconditioner = self._solver.getPC()
        if kind == "cholesky":
            preconditioner.setType("cholesky")
            preconditioner.setFactorSolverType("petsc")
            preconditioner.setFactorOrdering("nd")
        else:
            preconditioner.setType("jacobi")
            self._solver.setTolerances(rtol=_RTOL)
            self._solver.setInitialGuessNonzero(True)

    def set(self, matrix: csr_matrix | csr_array) -> None:
        """Take a matrix, and factor it where that is to be done."""
        # PETSc works on these arrays themselves, and says nothing for their life.
        self._arrays = (matrix.indptr, matrix.indices, matrix.data)
        kept = self._petsc.Mat().createAIJWithArrays(matrix.shape, self._arrays, comm=self._solver.comm)
        self._solver.setOperators(kept)
        self._solver.setUp()

    def __call__(
        self, right: Float64[np.ndarray, "rows *columns"], guess: Float64[np.ndarray, "rows *columns"]
    ) -> Float64[np.ndarray, "rows *columns"]:
        found = np.array(guess.T, order="C")
        for column, start in zip(np.atleast_2d(right.T), np.atleast_2d(found), strict=True):
            b, x = (self._petsc.Vec().createWithArray(part, comm=self._solver.comm) for part in (column.copy(), start))
            self._solver.solve(b, x)
        return found.T


def _held(matrix: csr_matrix, rows: Int32[np.ndarray, " held"]) -> csr_array:
    """The matrix with rows and columns of the identity there."""
    is_free = np.ones(matrix.shape[0])
    is_free[rows] = 0.0
    free = eye_array(matrix.shape[0], format="csr") * is_free
    return csr_array(free @ matrix @ free + (eye_array(matrix.shape[0], format="csr") - free))
