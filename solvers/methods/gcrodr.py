"""GCRO-DR: restarted GMRES that carries a deflation subspace from cycle to cycle and from system to system."""

import time
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float, Float64
from pydantic import Field, model_validator

from headrace.solvers.methods.preconditioner import PreconditionerName, compressed_rows, make_preconditioner
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

# Directions of A U below this fraction of the largest say nothing that rounding does not say too.
_DEPENDENT = 1e-6
# The recurrence aims a little below the tolerance, so that the recomputed residual does not miss it by rounding.
_MARGIN = 0.9
# A residual so much larger than the recurrence says means that A U = C has been lost to rounding.
_DRIFT = 2.0

type _Basis = Float[np.ndarray, "directions unknowns"]


class GCRODR(AbstractSolver):
    """GCRO-DR(m, k), right-preconditioned: restarted GMRES with a recycled subspace.

    The method of Parks, de Sturler, Mackey, Johnson & Maiti, SIAM J. Sci. Comput. 28 (2006), Appendix.

    Takes any real matrix. Every cycle searches k recycled directions and m - k new ones; the recycled ones approximate
    the invariant subspace that slows GMRES down (harmonic Ritz vectors of A M⁻¹ of smallest magnitude) and stay for the
    next system of the sequence. It is the method for sequences of alike matrices without a good preconditioner; where
    multigrid or a factorisation applies, those are faster.

    We differ from the paper in four points: the subspace is kept in the space of x, so that it survives a change of
    the preconditioner; the k products that renew it for each system count as iterations; cycles that end early, on
    convergence, do not replace it; and bases are stored in single precision, as in the compressed-basis GMRES of
    Aliaga, Anzt, Grützmacher, Quintana-Ortí & Tomás (2022). That halves the memory an iteration moves. The residual is
    recomputed in double precision after every cycle, so that it limits what one cycle can gain, not what the solve
    reaches.

    Good values: subspace 40, recycled 10 (as few iterations as with 20, and cheaper ones); recycled 0 is
    GMRES(subspace). A sequence of nearly the same system gains from basis `double`: in `single` a cycle reduces the
    residual by 1e-6 at most.

    Attributes:
        subspace: m, how many directions a cycle has, the recycled ones included.
        recycled: k, how many directions are kept from cycle to cycle and system to system.
        preconditioner: `ilu0` (incomplete LU without fill), `ssor`, `jacobi` (the diagonal) or `none`.
        omega: the relaxation factor of `ssor`, between 0 and 2.
        basis: the precision in which bases are stored.
        max_iterations: products with A after which to give up.
    """

    recycles: ClassVar[bool] = True

    kind: Literal["gcrodr"] = "gcrodr"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.drifting_nonsymmetric, cost=1.0),
        Candidacy(family=Family.indefinite, cost=10.0),
        Candidacy(family=Family.nonsymmetric, cost=10.0),
    )
    subspace: Annotated[int, Field(ge=2, le=500)] = 40
    recycled: Annotated[int, Field(ge=0, le=250)] = 10
    preconditioner: PreconditionerName = "ilu0"
    omega: Annotated[float, Field(gt=0.0, lt=2.0)] = 1.0
    basis: Literal["single", "double"] = "single"
    max_iterations: Annotated[int, Field(ge=1, le=1_000_000)] = 5000

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if self.recycled >= self.subspace:
            raise ValueError(f"recycled is {self.recycled}; expected less than subspace, which is {self.subspace}")
        return self

    def build(self) -> "RunningGCRODR":
        """Start a sequence with nothing recycled."""
        return RunningGCRODR(self)

    def mismatch(self, target: Structured) -> str | None:
        """Fits every real system."""
        if isinstance(target, LinearSystem) and is_complex(target):
            return "GCRO-DR computes in real numbers, this system is complex; use auto or direct."
        return None


def is_complex(system: LinearSystem) -> bool:
    """Whether the right-hand side or the matrix has complex numbers; builds no matrix."""
    return bool(np.iscomplexobj(system.rhs)) or (
        system.assembled is not None and bool(np.iscomplexobj(system.assembled.data))
    )


class RunningGCRODR(RunningSolver):
    """Keeps the directions U of the system solved last, and the memory for bases."""

    def __init__(self, spec: GCRODR) -> None:
        self._spec = spec
        self._directions: _Basis | None = None
        self._memory: _Basis = np.empty((0, 0))

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system, beginning with the directions of the one before if it had as many unknowns."""
        started = time.perf_counter()
        spec, n = self._spec, system.num_unknowns
        dtype = np.float32 if spec.basis == "single" else np.float64
        if self._memory.shape != (spec.subspace + 1, n):
            self._memory = np.empty((spec.subspace + 1, n), dtype=dtype)
            self._directions = None
        value, num_iterations, detail = np.zeros(n), 0, ""
        status = SolveStatus.breakdown
        try:
            solve = _Solve(spec, system, self._memory, self._directions)
            status = solve.run(rtol)
            value, num_iterations = solve.x, solve.num_iterations
            self._directions = solve.directions()
        except (ArithmeticError, np.linalg.LinAlgError) as error:
            # A subspace that took part in a breakdown is not worth keeping.
            self._directions, detail = None, str(error)
        return Solution(
            value=system.without_mean(value),
            status=status,
            relative_residual=float("nan"),
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="gcrodr",
            detail=detail,
        )


class _Solve:
    """The solution of one system.

    The recycled space is held as Y and C = A M⁻¹ Y with orthonormal rows C, which are the first rows of `_basis`; those
    of the cycle, V, follow. With A M⁻¹ V = C B + V₊ H, all that a cycle knows is A M⁻¹ [Y V] = [C V₊] [I B; 0 H].
    """

    def __init__(self, spec: GCRODR, system: LinearSystem, basis: _Basis, directions: _Basis | None) -> None:
        # Numba takes seconds to import: those who do not solve do not wait for it.
        from headrace.solvers.methods import krylov_kernels

        self._kernels = krylov_kernels
        self._spec, self._rhs = spec, np.asarray(system.rhs, dtype=np.float64)
        self._matrix = compressed_rows(system.matrix)
        # The factors of a singular matrix would be singular too.
        self._preconditioner = make_preconditioner(spec.preconditioner, system.regular_matrix, spec.omega).arrays
        self._basis = basis
        self._y: _Basis = np.empty((0, system.num_unknowns), dtype=basis.dtype)
        self.x = np.zeros(system.num_unknowns)
        self.num_iterations = 0
        if directions is not None:
            self._renew(directions)

    def run(self, rtol: float) -> SolveStatus:
        """Iterate, and say how it ended.

        Raises:
            ArithmeticError: numbers are not finite any more.
        """
        spec, kernels = self._spec, self._kernels
        r = self._rhs.copy()
        target = _MARGIN * rtol * float(np.linalg.norm(r))
        norm = float(np.linalg.norm(r))
        if not np.isfinite(norm):
            raise ArithmeticError("the right-hand side has values that are not finite")
        h = np.zeros((spec.subspace + 1, spec.subspace))
        first, num_stalled = norm, 0
        while norm > target:
            if self.num_iterations >= spec.max_iterations:
                return SolveStatus.max_iterations
            k, before = len(self._y), norm
            along = np.zeros(k)
            if k:
                kernels.products(self._basis, k, r, along)
                norm = float(np.sqrt(kernels.subtract(self._basis, k, along, r)))
            self._basis[k] = r / norm if norm > 0.0 else 0.0
            steps, expected = 0, norm
            if norm > target:
                room = min(spec.subspace - k, len(r), spec.max_iterations - self.num_iterations)
                steps, expected = kernels.arnoldi(
                    *self._matrix, *self._preconditioner, self._basis, k, room, norm, target,
                    10.0 * float(np.finfo(self._basis.dtype).eps), h,
                )  # fmt: skip
                self.num_iterations += steps
            self._advance(norm, along, h[: k + steps + 1, :steps])
            kernels.apply_matrix(*self._matrix, self.x, r)
            np.subtract(self._rhs, r, out=r)
            norm = float(np.linalg.norm(r))
            if not np.isfinite(norm):
                raise ArithmeticError("the residual is not finite")
            stagnates = norm > target and not norm < before * (1.0 - 1e-12)
            if stagnates and not k:
                return SolveStatus.breakdown
            num_stalled = num_stalled + 1 if stagnates else 0
            if norm > first:
                # The least residual cannot grow: what is left of x is rounding.
                self.x[:] = 0.0
                r[:], norm = self._rhs, first
            if num_stalled > 1:
                # New ones did not help either: go on without any.
                self._y = self._y[:0]
            elif stagnates or (norm > target and norm > _DRIFT * max(expected, target)):
                # Rounding has parted C from A U: make it anew.
                self._renew(self.directions())
            elif spec.recycled and steps >= min(spec.subspace - k, len(r)):
                self._deflate(h[: k + steps + 1, :steps])
        return SolveStatus.converged

    def directions(self) -> _Basis | None:
        """U = M⁻¹ Y, in the space of x."""
        if not len(self._y):
            return None
        u = np.empty_like(self._y)
        self._kernels.directions_of(*self._preconditioner, self._y, u)
        return u

    def _advance(self, norm: float, along: np.ndarray, h: Float64[np.ndarray, "directions+1 steps"]) -> None:
        """Add to x what minimises the residual over the recycled directions and those of the cycle."""
        k, steps = len(along), h.shape[1]
        change = np.zeros_like(self._rhs)
        if steps:
            start = np.zeros(steps + 1)
            start[0] = norm
            weights, *_ = np.linalg.lstsq(h[k:], start, rcond=None)
            self._kernels.subtract(self._basis[k:], steps, -weights, change)
            along = along - h[:k] @ weights
        if k:
            self._kernels.subtract(self._y, k, -along, change)
        self._kernels.precondition(*self._preconditioner, change, change)
        self.x += change

    def _renew(self, directions: _Basis | None) -> None:
        """The directions of the last system for this one: Y = M U, C = A U, made orthonormal; what depends is dropped.

        With A Uᵀ = Q Λ Qᵀ-weighted columns: G = (A U)ᵀ (A U) = Q Λ Qᵀ gives C = A U Q Λ^-½. The images of neighbours'
        directions are nearly orthonormal, so that squaring the condition does no harm; a second pass removes what is
        left of it.
        """
        if directions is None:
            self._y = self._y[:0]
            return
        by_a, by_m = np.empty(directions.shape), np.empty(directions.shape)
        self._kernels.images(*self._matrix, *self._preconditioner, directions, by_a, by_m)
        self.num_iterations += len(directions)
        for _ in range(2):
            gram = by_a @ by_a.T
            if not np.isfinite(gram).all():
                raise ArithmeticError("the matrix has values that are not finite")
            values, vectors = np.linalg.eigh(gram)
            kept = values > max(_DEPENDENT**2 * values[-1], 0.0)
            change = (vectors[:, kept] / np.sqrt(values[kept])).T
            by_a, by_m = change @ by_a, change @ by_m
            if len(by_a) == 0 or values[kept][0] > 1e-4 * values[-1]:
                break
        self._basis[: len(by_a)] = by_a
        self._y = by_m.astype(self._basis.dtype)

    def _deflate(self, h: Float64[np.ndarray, "directions+1 steps"]) -> None:
        """Replace the recycled space by the harmonic Ritz vectors of smallest magnitude of all that was searched.

        With A M⁻¹ [Ŷ V] = [C V₊] G the Ritz values solve Gᵀ G p = θ Gᵀ [C V₊]ᵀ [Ŷ V] p; θ⁻¹ are the eigenvalues of
        G⁺ [C V₊]ᵀ [Ŷ V], of which the largest are wanted. Ŷ has columns of unit length, for the condition of G.
        """
        k, steps = len(self._y), h.shape[1]
        outer, v = self._basis[: k + steps + 1], self._basis[k : k + steps]
        # [C V₊] is orthonormal: its products with V are known.
        inner = np.zeros((k + steps + 1, k + steps))
        inner[k : k + steps, k:] = np.eye(steps)
        g = np.zeros_like(inner)
        g[:, k:] = h
        scale = 1.0 / np.linalg.norm(self._y, axis=1)
        inner[:, :k] = (outer @ self._y.T) * scale
        g[:k, :k] = np.diag(scale)
        q, triangle = np.linalg.qr(g)
        if not np.isfinite(triangle).all() or np.abs(np.diag(triangle)).min() == 0.0:
            return
        basis = _real_basis(*np.linalg.eig(np.linalg.solve(triangle, q.T @ inner)), self._spec.recycled)
        if basis.shape[1] == 0:
            return
        q, triangle = np.linalg.qr(g @ basis)
        diagonal = np.abs(np.diag(triangle))
        if not diagonal.min() > _DEPENDENT * diagonal.max():
            return
        change = np.linalg.solve(triangle.T, basis.T)
        change[:, :k] *= scale
        change = change.astype(self._basis.dtype)
        c = q.T.astype(self._basis.dtype) @ outer
        self._y = change[:, :k] @ self._y + change[:, k:] @ v
        self._basis[: len(c)] = c


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
