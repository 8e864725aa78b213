"""GCRO-DR: restarted GMRES that carries a deflation subspace from cycle to cycle and from system to system."""

import time
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from headrace.solvers.methods.preconditioner import Preconditioner, PreconditionerName, make_preconditioner
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.system import LinearSystem, System

# Directions of A U below this fraction of the largest say nothing that rounding does not say too.
_DEPENDENT = 1e-10
# The recurrence aims a little below the tolerance, so that the recomputed residual does not miss it by rounding.
_MARGIN = 0.9


class GCRODR(AbstractSolver):
    """GCRO-DR(m, k), right-preconditioned: restarted GMRES with a recycled subspace.

    The method of Parks, de Sturler, Mackey, Johnson & Maiti, SIAM J. Sci. Comput. 28 (2006), Appendix.

    Takes any real matrix. Every cycle searches k recycled directions and m - k new ones; the recycled ones approximate
    the invariant subspace that slows GMRES down (harmonic Ritz vectors of A M⁻¹ of smallest magnitude) and stay for the
    next system of the sequence. It is the method for sequences of alike matrices without a good preconditioner; where
    multigrid or a factorisation applies, those are faster.

    We differ from the paper in three points: the subspace is kept in the space of x, so that it survives a change of
    the preconditioner; the k products that renew it for each system count as iterations; cycles that end early, on
    convergence, do not replace it.

    Good values: subspace 40, recycled 20; recycled 0 is GMRES(subspace).

    Attributes:
        subspace: m, the directions of a cycle.
        recycled: k, those of them that are kept.
        preconditioner: `ilu0` (incomplete LU without fill), `jacobi` (the diagonal) or `none`.
        max_iterations: products with A after which to give up.
    """

    recycles: ClassVar[bool] = True

    kind: Literal["gcrodr"] = "gcrodr"
    subspace: Annotated[int, Field(ge=2, le=500)] = 40
    recycled: Annotated[int, Field(ge=0, le=250)] = 20
    preconditioner: PreconditionerName = "ilu0"
    max_iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 5000

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.recycled >= self.subspace:
            raise ValueError(f"recycled is {self.recycled}; expected less than subspace, which is {self.subspace}")
        return self

    def build(self) -> "RunningGCRODR":
        """Start a sequence with nothing recycled."""
        return RunningGCRODR(self)

    def mismatch(self, target: AbstractProblem | System) -> str | None:
        """Fits every real system."""
        if isinstance(target, LinearSystem) and (np.iscomplexobj(target.rhs) or np.iscomplexobj(target.matrix.data)):
            return "GCRO-DR computes in real numbers, this system is complex; use auto or direct."
        return None


@dataclass
class _Recycled:
    """The subspace of one system: A U = C with orthonormal C, and Y = M U. All transposed: one row a direction."""

    u: Float64[np.ndarray, "k unknowns"]
    y: Float64[np.ndarray, "k unknowns"]
    c: Float64[np.ndarray, "k unknowns"]


@dataclass
class _Cycle:
    """The Arnoldi relation (I - C Cᵀ) A Z = V H with Z = M⁻¹ V (all but the last), and B = Cᵀ A Z."""

    v: Float64[np.ndarray, "steps+1 unknowns"]
    z: Float64[np.ndarray, "steps unknowns"]
    h: Float64[np.ndarray, "steps+1 steps"]
    b: Float64[np.ndarray, "k steps"]


class RunningGCRODR(RunningSolver):
    """Keeps the directions U of the system solved last."""

    def __init__(self, spec: GCRODR) -> None:
        self._spec = spec
        self._directions: Float64[np.ndarray, "k unknowns"] | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system, beginning with the directions of the one before if it had as many unknowns."""
        started = time.perf_counter()
        x = np.zeros(system.num_unknowns)
        num_iterations, detail = 0, ""
        status = SolveStatus.breakdown
        try:
            solve = _Solve(self._spec, system, self._directions)
            x, num_iterations, status = solve.run(rtol)
            if solve.recycled is not None:
                self._directions = solve.recycled.u
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            # A subspace that took part in a breakdown is not worth keeping.
            self._directions, detail = None, str(error)
        return Solution(
            value=x,
            status=status,
            relative_residual=float("nan"),
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="gcrodr",
            detail=detail,
        )


class _Solve:
    """The solution of one system."""

    def __init__(
        self, spec: GCRODR, system: LinearSystem, directions: Float64[np.ndarray, "k unknowns"] | None
    ) -> None:
        self._spec, self._matrix, self._rhs = spec, system.matrix, system.rhs
        self._preconditioner: Preconditioner = make_preconditioner(spec.preconditioner, system.matrix)
        self._count = 0
        self.recycled: _Recycled | None = None
        if directions is not None and directions.shape[1] == system.num_unknowns:
            self.recycled = self._renewed(directions)

    def run(self, rtol: float) -> tuple[Float64[np.ndarray, " unknowns"], int, SolveStatus]:
        """The solution, products with A, and how it ended.

        Raises:
            ArithmeticError: numbers are not finite any more.
        """
        x, r = np.zeros_like(self._rhs), self._rhs.copy()
        target = _MARGIN * rtol * float(np.linalg.norm(self._rhs))
        if self.recycled is not None:
            self._project(x, r, self.recycled)
        norm = float(np.linalg.norm(r))
        while norm > target and self._count < self._spec.max_iterations:
            recycled = self.recycled
            cycle = self._arnoldi(r, norm, target, recycled)
            steps = cycle.z.shape[0]
            start = np.zeros(steps + 1)
            start[0] = norm
            y, *_ = np.linalg.lstsq(cycle.h, start, rcond=None)
            x += y @ cycle.z
            if recycled is not None:
                x -= (cycle.b @ y) @ recycled.u
            before, r = norm, self._rhs - self._matrix @ x
            if recycled is not None:
                # Rounding brings back what was projected out.
                self._project(x, r, recycled)
            norm = float(np.linalg.norm(r))
            if not np.isfinite(norm):
                raise ArithmeticError("the residual is not finite")
            if self._spec.recycled and steps >= self._new_directions(recycled):
                self.recycled = self._deflated(cycle, recycled)
            if norm > target and not norm < before * (1.0 - 1e-12):
                return x, self._count, SolveStatus.breakdown
        return x, self._count, SolveStatus.converged if norm <= target else SolveStatus.max_iterations

    def _new_directions(self, recycled: _Recycled | None) -> int:
        return min(self._spec.subspace - (0 if recycled is None else len(recycled.u)), self._rhs.size)

    def _project(
        self, x: Float64[np.ndarray, " unknowns"], r: Float64[np.ndarray, " unknowns"], space: _Recycled
    ) -> None:
        """Minimise the residual over the recycled directions, in place."""
        along = space.c @ r
        x += along @ space.u
        r -= along @ space.c

    def _renewed(self, directions: Float64[np.ndarray, "k unknowns"]) -> _Recycled | None:
        """The directions of the last system for this one: A U = C R, U ← U R⁻¹, dropping what is dependent."""
        from scipy.linalg import qr, solve_triangular

        self._count += len(directions)
        image = self._matrix @ directions.T
        if not np.isfinite(image).all():
            raise ArithmeticError("the matrix has values that are not finite")
        c, triangle, pivots = qr(image, mode="economic", pivoting=True, check_finite=False)
        diagonal = np.abs(np.diag(triangle))
        rank = int(np.count_nonzero(diagonal > _DEPENDENT * diagonal[0])) if diagonal[0] > 0.0 else 0
        if rank == 0:
            return None
        u = solve_triangular(triangle[:rank, :rank], directions[pivots[:rank]], trans="T", check_finite=False)
        y = np.stack([self._preconditioner.multiply(row) for row in u])
        return _Recycled(u=u, y=y, c=np.ascontiguousarray(c[:, :rank].T))

    def _arnoldi(
        self, r: Float64[np.ndarray, " unknowns"], norm: float, target: float, recycled: _Recycled | None
    ) -> _Cycle:
        """Steps until the cycle is full, the residual is small enough, or the Krylov space is exhausted."""
        steps = min(self._new_directions(recycled), max(self._spec.max_iterations - self._count, 1))
        c = np.zeros((0, r.size)) if recycled is None else recycled.c
        v, z = np.empty((steps + 1, r.size)), np.empty((steps, r.size))
        h, b = np.zeros((steps + 1, steps)), np.zeros((len(c), steps))
        v[0] = r / norm
        # What is left of norm · e₁ after least squares with H is its part along the left null vector of H: with ω₀ = 1
        # the residual is norm / ||ω||, and ω grows by one entry a step. That needs no rotations.
        null = np.zeros(steps + 1)
        null[0] = 1.0
        done = steps
        for j in range(steps):
            z[j] = self._preconditioner.solve(v[j])
            w = self._matrix @ z[j]
            self._count += 1
            size = float(np.linalg.norm(w))
            basis = v[: j + 1]
            for _ in range(2):
                along = c @ w
                w -= along @ c
                b[:, j] += along
                along = basis @ w
                w -= along @ basis
                h[: j + 1, j] += along
            h[j + 1, j] = np.linalg.norm(w)
            if not h[j + 1, j] > 1e-14 * size:
                h[j + 1, j] = 0.0
                v[j + 1] = 0.0
                done = j + 1
                break
            v[j + 1] = w / h[j + 1, j]
            null[j + 1] = -(null[: j + 1] @ h[: j + 1, j]) / h[j + 1, j]
            if norm <= target * float(np.linalg.norm(null[: j + 2])):
                done = j + 1
                break
        return _Cycle(v=v[: done + 1], z=z[:done], h=h[: done + 1, :done], b=b[:, :done])

    def _deflated(self, cycle: _Cycle, recycled: _Recycled | None) -> _Recycled | None:
        """The harmonic Ritz vectors of smallest magnitude of everything that the cycle searched.

        With A M⁻¹ [Ŷ V] = [C V₊] G the Ritz values solve Gᵀ G p = θ Gᵀ [C V₊]ᵀ [Ŷ V] p; θ⁻¹ are the eigenvalues of
        G⁺ [C V₊]ᵀ [Ŷ V], of which the largest are wanted. Ŷ has columns of unit length, for the condition of G.
        """
        if recycled is None:
            outer, y_space, x_space, g = cycle.v, cycle.v[:-1], cycle.z, cycle.h
        else:
            k, steps = len(recycled.u), cycle.z.shape[0]
            scale = 1.0 / np.linalg.norm(recycled.y, axis=1)
            outer = np.concatenate([recycled.c, cycle.v])
            y_space = np.concatenate([recycled.y * scale[:, None], cycle.v[:-1]])
            x_space = np.concatenate([recycled.u * scale[:, None], cycle.z])
            g = np.zeros((k + steps + 1, k + steps))
            g[:k, :k] = np.diag(scale)
            g[:k, k:] = cycle.b
            g[k:, k:] = cycle.h
        inverse_values, vectors = np.linalg.eig(np.linalg.lstsq(g, outer @ y_space.T, rcond=None)[0])
        basis = _real_basis(inverse_values, vectors, self._spec.recycled)
        if basis.shape[1] == 0:
            return recycled
        q, triangle = np.linalg.qr(g @ basis)
        diagonal = np.abs(np.diag(triangle))
        if not diagonal.min() > _DEPENDENT * diagonal.max():
            return recycled
        change = np.linalg.solve(triangle.T, basis.T)
        return _Recycled(u=change @ x_space, y=change @ y_space, c=q.T @ outer)


def _real_basis(values: np.ndarray, vectors: np.ndarray, count: int) -> Float64[np.ndarray, "directions kept"]:
    """A real basis of the eigenvectors of the `count` largest values; of a complex pair both or none are kept."""
    columns: list[Float64[np.ndarray, " directions"]] = []
    for index in np.argsort(-np.abs(values), kind="stable"):
        if values[index].imag < 0.0:
            continue  # stands for its conjugate, which comes with both parts
        pair = (
            [vectors[:, index].real, vectors[:, index].imag] if values[index].imag > 0.0 else [vectors[:, index].real]
        )
        if len(columns) + len(pair) > count:
            break
        columns += pair
    return np.stack(columns, axis=1) if columns else np.empty((len(vectors), 0))
