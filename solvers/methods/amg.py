"""Algebraic multigrid as a preconditioner: PETSc's GAMG or PyAMG, their hierarchies kept along a sequence."""

import functools
import importlib.util
import time
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.solvers.methods.factorizations import (
    abandon,
    first_line,
    has_pattern,
    load_petsc,
    petsc_is_installed,
    petsc_matrix,
)
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.norms import norm
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# The recurrence aims a little below the tolerance, so that the recomputed residual does not miss it by rounding.
_MARGIN = 0.9
# An old hierarchy is good for as long as it costs fewer additional iterations than a new one costs to set up.
_STALE_FACTOR, _STALE_ITERATIONS = 1.4, 2
_RESTART = 40
# Options stay in PETSc's database for good, and levels look them up whenever they are set up: one set for each method.
# One symmetric SOR sweep before and after was the fastest smoother on 3-D Darcy (docs/benchmarks, 2026-11-21).
_PETSC_OPTIONS = {
    "pc_type": "gamg",
    "pc_gamg_reuse_interpolation": 1,
    "mg_levels_ksp_type": "richardson",
    "mg_levels_ksp_max_it": 1,
    "mg_levels_pc_type": "sor",
}


class AMG(AbstractSolver):
    """Krylov iterations preconditioned by a V-cycle of smoothed aggregation.

    Smoothed aggregation: Vaněk, Mandel & Brezina, "Algebraic multigrid by smoothed aggregation for second and fourth
    order elliptic problems", Computing 56 (1996). Takes any real matrix; made for diffusion on any mesh. Positive
    definite systems are solved by conjugate gradients, all others by GMRES with the preconditioner on the right, so
    that the residual it watches is the true one. Constants are the near-nullspace.

    In a sequence of systems of one pattern the interpolation stays and only the coarse matrices are computed anew,
    until the iterations grow by 40 % over those that a new hierarchy needed: then the next system gets a new one.

    Attributes:
        package: `petsc` (GAMG), `pyamg`, or `auto`: PETSc where it is installed.
        max_iterations: iterations after which to give up.
    """

    kind: Literal["amg"] = "amg"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.structured, cost=60.0),
        Candidacy(family=Family.positive_definite, cost=4.0),
        Candidacy(family=Family.drifting, cost=15.0),
        Candidacy(family=Family.drifting_nonsymmetric, cost=2.0),
        Candidacy(family=Family.indefinite, cost=8.0),
        Candidacy(family=Family.nonsymmetric, cost=3.0),
    )
    seconds_an_entry: ClassVar[float | None] = 20e-9
    package: Literal["auto", "petsc", "pyamg"] = "auto"
    max_iterations: Annotated[int, Field(ge=1, le=100_000)] = 300

    def build(self) -> "RunningAMG":
        """Start a sequence."""
        return RunningAMG(self)

    def mismatch(self, target: Structured) -> str | None:
        """Fits every real system; a package must be installed."""
        if self.package == "petsc" and not petsc_is_installed():
            return "The package petsc comes with dolfinx-solver-real, which is not installed; use auto or pyamg."
        if self.package == "pyamg" and not pyamg_is_installed():
            return "PyAMG is not installed; pip install pyamg, or use auto or petsc."
        if not petsc_is_installed() and not pyamg_is_installed():
            return "AMG needs PETSc (dolfinx-solver-real) or PyAMG, neither is installed; use direct."
        if isinstance(target, LinearSystem) and (
            np.iscomplexobj(target.rhs) or (target.operator is None and np.iscomplexobj(target.matrix.data))
        ):
            return "AMG computes in real numbers, this system is complex; use auto or direct."
        return None


class RunningAMG(RunningSolver):
    """Keeps the hierarchy of the last pattern."""

    def __init__(self, spec: AMG) -> None:
        self._spec = spec
        self._hierarchy: _Hierarchy | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system with the interpolation of those before, if it is still good."""
        started = time.perf_counter()
        x, num_iterations, detail = np.zeros(system.num_unknowns), 0, ""
        status = SolveStatus.breakdown
        try:
            if not np.isfinite(system.matrix.data).all() or not np.isfinite(system.rhs).all():
                raise ArithmeticError("the system has values that are not finite")
            hierarchy = self._prepared(system)
            x, num_iterations, status = hierarchy.solve(system, rtol, self._spec.max_iterations)
            if status is SolveStatus.breakdown:
                detail = "the iteration broke down: the matrix is singular, or not what its structure says"
            if status is not SolveStatus.converged or hierarchy.is_stale(num_iterations):
                self._drop()
        except ArithmeticError as error:
            self._drop()
            detail = str(error)
        return Solution(
            value=system.without_mean(x),
            status=status,
            relative_residual=float("nan"),
            num_iterations=num_iterations,
            seconds=time.perf_counter() - started,
            method="amg",
            detail=detail,
        )

    def _prepared(self, system: LinearSystem) -> "_Hierarchy":
        if self._hierarchy is not None and self._hierarchy.fits(system):
            self._hierarchy.renew(system)
            return self._hierarchy
        self._drop()
        petsc = self._spec.package == "petsc" or (self._spec.package == "auto" and petsc_is_installed())
        self._hierarchy = _Gamg(system) if petsc else _Pyamg(system)
        return self._hierarchy

    def _drop(self) -> None:
        if self._hierarchy is not None:
            self._hierarchy.destroy()
        self._hierarchy = None


class _Hierarchy(ABC):
    """The levels of one matrix; `renew` keeps their interpolation."""

    def __init__(self, system: LinearSystem) -> None:
        matrix = system.matrix
        self._structure, self._pattern = system.structure, (matrix.indptr, matrix.indices)
        self._when_new: int | None = None

    def fits(self, system: LinearSystem) -> bool:
        """Whether the system has the pattern of this hierarchy."""
        return system.structure == self._structure and has_pattern(system.matrix, self._pattern)

    def is_stale(self, num_iterations: int) -> bool:
        """Whether the last solve took so many more iterations than the first that a new hierarchy is worth it."""
        if self._when_new is None:
            self._when_new = num_iterations
        return num_iterations > _STALE_FACTOR * self._when_new + _STALE_ITERATIONS

    @abstractmethod
    def renew(self, system: LinearSystem) -> None:
        """New coarse matrices, old interpolation."""

    @abstractmethod
    def solve(
        self, system: LinearSystem, rtol: float, max_iterations: int
    ) -> tuple[Float64[np.ndarray, " unknowns"], int, SolveStatus]:
        """The solution, products with A, and how it ended."""

    def destroy(self) -> None:  # noqa: B027  (PyAMG's levels are freed by Python)
        """Free what Python does not free by itself."""


class _Gamg(_Hierarchy):
    """PETSc's own aggregation."""

    def __init__(self, system: LinearSystem) -> None:
        super().__init__(system)
        petsc = load_petsc()
        known = system.structure
        self._matrix = petsc_matrix(system.matrix, known)
        if known.singular:
            self._matrix.setNullSpace(petsc.NullSpace().create(constant=True, comm=petsc.COMM_SELF))
        prefix = "headrace_amg_"
        database = petsc.Options(prefix)
        for key, value in _PETSC_OPTIONS.items():
            database[key] = value
        self._solver = petsc.KSP().create(petsc.COMM_SELF)
        self._solver.setOptionsPrefix(prefix)
        if known.positive_definite:
            self._solver.setType(petsc.KSP.Type.CG)
        else:
            self._solver.setType(petsc.KSP.Type.GMRES)
            self._solver.setGMRESRestart(_RESTART)
            self._solver.setPCSide(petsc.PC.Side.RIGHT)
        self._solver.setNormType(petsc.KSP.NormType.UNPRECONDITIONED)
        self._solver.setOperators(self._matrix)
        self._solver.setFromOptions()
        self._x, self._b = self._matrix.createVecs()
        self._has_failed = False

    def renew(self, system: LinearSystem) -> None:
        """Put the values into the matrix; PETSc renews the levels at the next solve."""
        matrix = system.matrix
        self._matrix.setValuesCSR(matrix.indptr, matrix.indices, matrix.data)
        self._matrix.assemble()

    def solve(
        self, system: LinearSystem, rtol: float, max_iterations: int
    ) -> tuple[Float64[np.ndarray, " unknowns"], int, SolveStatus]:
        """Set up what is due, and iterate.

        Raises:
            ArithmeticError: PETSc cannot build a hierarchy for this matrix.
        """
        petsc = load_petsc()
        self._solver.setTolerances(rtol=_MARGIN * rtol, atol=1e-300, divtol=1e10, max_it=max_iterations)
        self._b.setArray(system.rhs)
        try:
            self._solver.solve(self._b, self._x)
        except petsc.Error as error:
            self._has_failed = True
            raise ArithmeticError(f"PETSc could not set up algebraic multigrid ({first_line(error)})") from error
        num_iterations = self._solver.getIterationNumber()
        # What the iteration takes for its residual drifts away from it: go on from the true one, as long as that helps.
        scale, before = norm(system.rhs), np.inf
        while self._solver.getConvergedReason() > 0 and num_iterations < max_iterations:
            residual = system.relative_residual(self._x.getArray())
            if not rtol < residual < 0.5 * before:
                break
            before = residual
            self._solver.setTolerances(rtol=0.0, atol=0.5 * rtol * scale, max_it=max_iterations - num_iterations)
            self._solver.setInitialGuessNonzero(True)
            self._solver.solve(self._b, self._x)
            self._solver.setInitialGuessNonzero(False)
            num_iterations += self._solver.getIterationNumber()
        reason = self._solver.getConvergedReason()
        status = SolveStatus.converged if reason > 0 else SolveStatus.breakdown
        if reason == petsc.KSP.ConvergedReason.DIVERGED_MAX_IT:
            status = SolveStatus.max_iterations
        return self._x.getArray().copy(), num_iterations, status

    def destroy(self) -> None:
        """Free what PETSc holds."""
        things = (self._solver, self._matrix, self._x, self._b)
        if self._has_failed:
            abandon(things)
        else:
            for thing in things:
                thing.destroy()


class _Pyamg(_Hierarchy):
    """PyAMG's smoothed aggregation with symmetric Gauss-Seidel sweeps."""

    def __init__(self, system: LinearSystem) -> None:
        super().__init__(system)
        import pyamg

        try:
            with warnings.catch_warnings():
                # What it warns of shows in the status and in the residual.
                warnings.simplefilter("ignore")
                self._levels = pyamg.smoothed_aggregation_solver(
                    _general_csr(system),
                    symmetry="hermitian" if system.structure.symmetric else "nonsymmetric",
                    presmoother=("gauss_seidel", {"sweep": "symmetric"}),
                    postsmoother=("gauss_seidel", {"sweep": "symmetric"}),
                    # The coarsest matrix of a singular one is singular.
                    coarse_solver="pinv",
                    max_coarse=100,
                )
        except (ValueError, RuntimeError, np.linalg.LinAlgError, ZeroDivisionError) as error:
            raise ArithmeticError(f"PyAMG could not set up a hierarchy ({error})") from error

    def renew(self, system: LinearSystem) -> None:
        """The Galerkin products of the new matrix with the old interpolation."""
        import pyamg

        levels = self._levels.levels
        levels[0].A = _general_csr(system)
        for fine, coarse in zip(levels[:-1], levels[1:], strict=True):
            coarse.A = (fine.R @ fine.A @ fine.P).tocsr()
        # It keeps the pseudo-inverse of the matrix that it saw first.
        self._levels.coarse_solver = pyamg.multilevel.coarse_grid_solver("pinv")

    def solve(
        self, system: LinearSystem, rtol: float, max_iterations: int
    ) -> tuple[Float64[np.ndarray, " unknowns"], int, SolveStatus]:
        """Iterate."""
        from pyamg.krylov import cg, fgmres

        matrix, history = self._levels.levels[0].A, list[float]()
        x, info, before = np.zeros(system.num_unknowns), 0, np.inf
        while (left := max_iterations - len(history)) > 0:
            residual = system.relative_residual(x)
            # Go on from the true residual, as long as that helps: what an iteration takes for it drifts away.
            if not rtol < residual < 0.5 * before:
                break
            before = residual
            # PyAMG compares with ||b||.
            common = {"tol": _MARGIN * rtol, "M": self._levels.aspreconditioner(), "residuals": (seen := list[float]())}
            with warnings.catch_warnings():
                # What it warns of shows in the status and the residual.
                warnings.simplefilter("ignore")
                try:
                    if system.structure.positive_definite:
                        x, info = cg(matrix, system.rhs, x0=x, maxiter=left, **common)
                    else:
                        cycles, restart = -(-left // _RESTART), min(_RESTART, system.num_unknowns, left)
                        x, info = fgmres(matrix, system.rhs, x0=x, restart=restart, maxiter=cycles, **common)
                except (ValueError, np.linalg.LinAlgError, ZeroDivisionError) as error:
                    raise ArithmeticError(f"PyAMG broke down ({error})") from error
            history += seen[1:]
            if info != 0:
                break
        if info == 0:
            status = SolveStatus.converged
        else:
            status = SolveStatus.max_iterations if info > 0 else SolveStatus.breakdown
        return x, len(history), status


def _general_csr(system: LinearSystem) -> "csr_matrix":
    """PyAMG writes into what it is given, and knows SciPy's matrices better than its arrays."""
    from scipy.sparse import csr_matrix

    matrix = system.matrix
    indices, indptr = matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)
    return csr_matrix((matrix.data.astype(np.float64), indices, indptr), shape=matrix.shape)


@functools.cache
def pyamg_is_installed() -> bool:
    """Whether PyAMG is there; does not import it."""
    return importlib.util.find_spec("pyamg") is not None
