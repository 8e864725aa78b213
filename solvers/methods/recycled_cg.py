"""Recycled conjugate gradients: a deflation space that is improved from system to system."""

import time
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float64
from pydantic import Field

from headrace.solvers.methods.gcrodr import is_complex
from headrace.solvers.methods.preconditioner import PreconditionerName, compressed_rows, make_preconditioner
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

# The recurrence aims a little below the tolerance, so that the recomputed residual does not miss it by rounding.
_MARGIN = 0.9
# Directions of W whose part of WᵀAW is below this fraction say nothing that rounding does not say too.
_DEPENDENT = 1e-8

type _Basis = Float[np.ndarray, "directions unknowns"]


class RecycledCG(AbstractSolver):
    """Conjugate gradients, deflated by what earlier systems of the sequence taught.

    Deflated CG of Saad, Yeung, Erhel & Guyomarc'h, "A deflated version of the conjugate gradient algorithm", SIAM J.
    Sci. Comput. 21 (2000), Algorithm 3.6: conjugate gradients run in the A-orthogonal complement of a space W of small
    dimension, whose part of the solution is found directly. After every solve W becomes the span of the k harmonic Ritz
    vectors of smallest value of M⁻¹A over W and the first ℓ search directions (Sec. 5), and serves the next system.

    We differ from the paper in two points: W is dropped when WᵀAW is not positive definite, or when a system does not
    converge with it; and the search directions are stored in single precision, as they only choose the next W.

    Good values: recycled 10, window 25; `ssor` with omega 1.8 on fine grids.

    Attributes:
        recycled: k; 0 is plain conjugate gradients.
        window: ℓ, the search directions that W is improved by.
        preconditioner: `icc0` (incomplete Cholesky without fill), `ssor`, `jacobi` or `none`.
        omega: the relaxation factor of `ssor`, between 0 and 2.
        max_iterations: products with A after which to give up.
    """

    recycles: ClassVar[bool] = True

    kind: Literal["recycled_cg"] = "recycled_cg"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.positive_definite, cost=4.0),
        Candidacy(family=Family.drifting, cost=10.0),
    )
    recycled: Annotated[int, Field(ge=0, le=250)] = 10
    window: Annotated[int, Field(ge=1, le=500)] = 25
    preconditioner: Literal["icc0", "ssor", "jacobi", "none"] = "icc0"
    omega: Annotated[float, Field(gt=0.0, lt=2.0)] = 1.0
    max_iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000

    def build(self) -> "RunningRecycledCG":
        """Start a sequence with nothing recycled."""
        return RunningRecycledCG(self)

    def mismatch(self, target: Structured) -> str | None:
        """Needs a real positive definite matrix."""
        if isinstance(target, LinearSystem) and is_complex(target):
            return "Recycled CG computes in real numbers, this system is complex; use auto or direct."
        if not target.structure.positive_definite:
            return "Recycled CG needs a positive definite matrix, this one is not known to be; use gcrodr."
        return None


class RunningRecycledCG(RunningSolver):
    """Keeps W."""

    def __init__(self, spec: RecycledCG) -> None:
        self._spec = spec
        self._w: _Basis | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system, deflated by the W of those before if it had as many unknowns."""
        started = time.perf_counter()
        value, num_iterations, status, detail = np.zeros(system.num_unknowns), 0, SolveStatus.breakdown, ""
        try:
            solve = _Solve(self._spec, system, self._w)
            status = solve.run(rtol)
            value, num_iterations, self._w = solve.x, solve.num_iterations, solve.improved()
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            # A space that took part in a breakdown is not worth keeping.
            self._w, detail = None, str(error)
        return Solution(
            value=system.without_mean(value),
            status=status,
            relative_residual=float("nan"),
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="recycled_cg",
            detail=detail,
        )


class _Solve:
    """The solution of one system."""

    def __init__(self, spec: RecycledCG, system: LinearSystem, w: _Basis | None) -> None:
        # Numba takes seconds to import: those who do not solve do not wait for it.
        from headrace.solvers.methods import krylov_kernels

        self._kernels = krylov_kernels
        self._spec, self._rhs = spec, np.asarray(system.rhs, dtype=np.float64)
        n = system.num_unknowns
        self._matrix = compressed_rows(system.matrix)
        # The factors of a singular matrix would be singular too. Of a symmetric matrix, incomplete LU is L D Lᵀ.
        name: PreconditionerName = "ilu0" if spec.preconditioner == "icc0" else spec.preconditioner
        self._preconditioner = make_preconditioner(name, system.regular_matrix, spec.omega).arrays
        if not self._preconditioner[-1].min() > 0.0:
            raise ArithmeticError(f"the preconditioner {spec.preconditioner} is not positive definite; use jacobi")
        self._w: Float64[np.ndarray, "k unknowns"] = np.empty((0, n))
        self._a_w: Float64[np.ndarray, "k unknowns"] = np.empty((0, n))
        self._inner: Float64[np.ndarray, "k k"] = np.empty((0, 0))
        self._num_kept = 0
        num_kept = spec.window if spec.recycled else 0
        self._kept: _Basis = np.empty((num_kept, n), dtype=np.float32)
        self._steps = np.zeros((num_kept + 1, 3))
        self.x = np.zeros(n)
        self.num_iterations = 0
        if w is not None and w.shape[1] == n:
            self._deflate(w)
        self._images_of_z = np.zeros((num_kept + 1, len(self._w)))

    def _deflate(self, w: _Basis) -> None:
        """Deflate by W, made A-orthonormal; nothing is deflated if WᵀAW is not positive definite."""
        # In double precision: what A W is not the image of W, conjugate gradients cannot remove from the residual.
        w = w.astype(np.float64)
        a_w = np.empty(w.shape)
        for row, image in zip(w, a_w, strict=True):
            self._kernels.apply_matrix(*self._matrix, row, image)
        self.num_iterations += len(w)
        inner = w @ a_w.T
        if not np.isfinite(inner).all():
            raise ArithmeticError("the matrix has values that are not finite")
        values, vectors = np.linalg.eigh(0.5 * (inner + inner.T))
        if not values[0] > _DEPENDENT * values[-1]:
            return
        change = (vectors / np.sqrt(values)).T
        self._w, self._a_w = change @ w, change @ a_w
        inner = self._w @ self._a_w.T
        self._inner = np.linalg.inv(0.5 * (inner + inner.T))

    def run(self, rtol: float) -> SolveStatus:
        """Iterate, and say how it ended.

        Raises:
            ArithmeticError: numbers are not finite any more, or something is not positive definite.
        """
        target = _MARGIN * rtol * float(np.linalg.norm(self._rhs))
        r = self._rhs.copy()
        norm = float(np.linalg.norm(r))
        if not np.isfinite(norm):
            raise ArithmeticError("the right-hand side has values that are not finite")
        # Records are those of the first pass; later ones, seldom needed, only make up for rounding.
        kept, steps, images_of_z = self._kept, self._steps, self._images_of_z
        while norm > target:
            if self.num_iterations >= self._spec.max_iterations:
                return SolveStatus.max_iterations
            before = norm
            if len(self._w):
                weights = self._inner @ (self._w @ r)
                self.x += weights @ self._w
                self._kernels.apply_matrix(*self._matrix, self.x, r)
                np.subtract(self._rhs, r, out=r)
            used, count, norm = self._kernels.deflated_conjugate_gradients(
                *self._matrix, *self._preconditioner, self._w, self._a_w, self._inner, self.x, r, target,
                self._spec.max_iterations - self.num_iterations, kept, steps, images_of_z,
            )  # fmt: skip
            self.num_iterations += used
            if norm < 0.0:
                raise ArithmeticError("the matrix or the preconditioner is not positive definite")
            if not np.isfinite(norm):
                raise ArithmeticError("the residual is not finite")
            if kept is self._kept:
                self._num_kept = count
                kept, steps, images_of_z = kept[:0], np.zeros((0, 3)), np.zeros((0, len(self._w)))
            # The recurrence drifts away from the residual by rounding.
            self._kernels.apply_matrix(*self._matrix, self.x, r)
            np.subtract(self._rhs, r, out=r)
            norm = float(np.linalg.norm(r))
            if norm > target and self.num_iterations < self._spec.max_iterations and not norm < 0.5 * before:
                if not len(self._w):
                    return SolveStatus.breakdown
                self._forget()
        return SolveStatus.converged if norm <= target else SolveStatus.max_iterations

    def _forget(self) -> None:
        """Go on without W, from x = 0."""
        n = len(self.x)
        self._w, self._a_w, self._inner = np.empty((0, n)), np.empty((0, n)), np.empty((0, 0))
        self._num_kept = 0
        self.x[:] = 0.0

    def improved(self) -> _Basis | None:
        """W for the next system: of Z = [W P], with the p scaled to pᵀAp = 1, what (AZ)ᵀM⁻¹(AZ) y = θ ZᵀAZ y picks.

        Nothing but the first block asks for products of long vectors. Steps are A p = (r - r₊) / α, the z of different
        steps are orthogonal to the r, and W is A-orthogonal to P; so, with ρ = rᵀz, the second block has the diagonal
        (ρ + ρ₊) / α² and beside it -ρ₊ / (α α₊), and the block between is (AW)ᵀ(z - z₊) / α.
        """
        k, count = len(self._w), self._num_kept
        if not self._spec.recycled or count == 0:
            return self._w.astype(np.float32) if k else None
        from scipy.linalg import eigh

        alpha, curvature, rho = self._steps[:count, 0], self._steps[:count, 1], self._steps[: count + 1, 2]
        scale = 1.0 / np.sqrt(curvature)
        g, f = np.zeros((k + count, k + count)), np.eye(k + count)
        second = np.diag((rho[:-1] + rho[1:]) / alpha**2)
        beside = np.diag(-rho[1:-1] / (alpha[:-1] * alpha[1:]), 1)
        g[k:, k:] = (second + beside + beside.T) * np.outer(scale, scale)
        if k:
            solved = np.empty(self._a_w.shape)
            self._kernels.directions_of(*self._preconditioner, self._a_w, solved)
            g[:k, :k] = self._a_w @ solved.T
            images_of_z = self._images_of_z[: count + 1]
            g[:k, k:] = (images_of_z[:-1] - images_of_z[1:]).T * (scale / alpha)
            g[k:, :k] = g[:k, k:].T
            f[:k, :k] = np.linalg.inv(self._inner)
        if not (np.isfinite(g).all() and np.isfinite(f).all()):
            return None
        vectors = eigh(0.5 * (g + g.T), 0.5 * (f + f.T), check_finite=False)[1]
        change = vectors[:, : self._spec.recycled].T.astype(np.float32)
        return (
            change[:, :k] @ self._w.astype(np.float32) + (change[:, k:] * scale.astype(np.float32)) @ self._kept[:count]
        )
