"""Direct methods: SciPy's SuperLU everywhere, PETSc and MUMPS where DOLFINx is installed."""

import functools
import importlib.util
import time
import warnings
from types import ModuleType
from typing import Literal

import numpy as np
from jaxtyping import Shaped

from headrace.solvers.problem import AbstractProblem
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.system import LinearSystem, System

# From here on MUMPS's fronts outrun PETSc's own factorisation (docs/benchmarks): about 257 x 257 points.
_MUMPS_PAYS = 65_000


class Direct(AbstractSolver):
    """A sparse factorisation: Cholesky or LDLᵀ where the matrix is known to be symmetric, LU otherwise.

    Solves every regular system, indefinite ones too, to about 1e-13. The pattern's ordering is computed once in a
    sequence of systems of one pattern (PETSc and MUMPS).

    Attributes:
        package: `petsc` (nested dissection, no pivoting), `mumps`, or `scipy` (SuperLU, everywhere); `auto` takes PETSc
            for small positive definite systems and MUMPS for all others where they are installed, SciPy elsewhere.
    """

    kind: Literal["direct"] = "direct"
    package: Literal["auto", "petsc", "mumps", "scipy"] = "auto"

    def build(self) -> RunningSolver:
        """Start a sequence."""
        return RunningDirect(self.package)

    def mismatch(self, target: AbstractProblem | System) -> str | None:
        """Fits every system; the package must be installed."""
        if self.package in ("petsc", "mumps") and not petsc_is_installed():
            return (
                f"The package {self.package} comes with dolfinx-solver-real, which is not installed; use auto or scipy."
            )
        return None


class RunningDirect(RunningSolver):
    """Keeps one PETSc factorisation per package, with the ordering of the last pattern."""

    def __init__(self, package: Literal["auto", "petsc", "mumps", "scipy"]) -> None:
        self._package = package
        self._factorizations: dict[str, PetscFactorization] = {}

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Factor and solve one system."""
        started = time.perf_counter()
        package = self._package_for(system)
        detail = ""
        try:
            value = _solve_scipy(system) if package == "scipy" else self._solve_petsc(system, package)
        except ArithmeticError as error:
            value, detail = np.zeros_like(system.rhs), str(error)
        status = SolveStatus.converged if not detail and np.isfinite(value).all() else SolveStatus.breakdown
        return Solution(
            value=value,
            status=status,
            relative_residual=float("nan"),
            num_iterations=0,
            seconds=time.perf_counter() - started,
            method="direct",
            detail=detail,
        )

    def _package_for(self, system: LinearSystem) -> str:
        if self._package != "auto":
            return self._package
        # The wheel's PETSc is built for real numbers.
        if not petsc_is_installed() or np.iscomplexobj(system.rhs) or np.iscomplexobj(system.matrix.data):
            return "scipy"
        # PETSc's own factorisations do not pivot, MUMPS does.
        safe = system.structure.positive_definite and system.num_unknowns < _MUMPS_PAYS
        return "petsc" if safe else "mumps"

    def _solve_petsc(self, system: LinearSystem, package: str) -> Shaped[np.ndarray, " unknowns"]:
        held = self._factorizations.get(package)
        if held is None or not held.fits(system):
            if held is not None:
                held.destroy()
            held = self._factorizations[package] = PetscFactorization(system, package)
        return held.solve(system)


def _solve_scipy(system: LinearSystem) -> Shaped[np.ndarray, " unknowns"]:
    from scipy.sparse.linalg import MatrixRankWarning, splu

    # Symmetric mode prefers diagonal pivots, which is right for positive definite matrices and wrong for others.
    options = {"SymmetricMode": True} if system.structure.positive_definite else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MatrixRankWarning)
        try:
            factors = splu(
                system.matrix.tocsc(),
                permc_spec="MMD_AT_PLUS_A" if system.structure.symmetric else "COLAMD",
                diag_pivot_thresh=0.0 if options else 1.0,
                options=options,
            )
        except RuntimeError as error:
            raise ArithmeticError(f"SuperLU: {error}") from error
    return factors.solve(system.rhs)


class PetscFactorization:
    """A PETSc matrix of one pattern, factored anew for every system with the ordering it computed first."""

    def __init__(self, system: LinearSystem, package: str) -> None:
        petsc = load_petsc()
        self._structure = system.structure
        matrix = system.matrix
        self._pattern = (matrix.indptr, matrix.indices)
        n = system.num_unknowns
        self._matrix = petsc.Mat().createAIJ(
            (n, n), csr=(matrix.indptr, matrix.indices, matrix.data), comm=petsc.COMM_SELF
        )
        known = system.structure
        self._matrix.setOption(petsc.Mat.Option.SYMMETRIC, known.symmetric)
        # Positive definite: Cholesky. PETSc's own LDLᵀ does not pivot, so indefinite matrices go to LU or MUMPS.
        cholesky = known.positive_definite or (known.symmetric and package == "mumps")
        if known.positive_definite:
            self._matrix.setOption(petsc.Mat.Option.SPD, True)
        self._solver = petsc.KSP().create(petsc.COMM_SELF)
        self._solver.setType(petsc.KSP.Type.PREONLY)
        preconditioner = self._solver.getPC()
        preconditioner.setType(petsc.PC.Type.CHOLESKY if cholesky else petsc.PC.Type.LU)
        if package == "mumps":
            preconditioner.setFactorSolverType("mumps")
        else:
            preconditioner.setFactorOrdering(petsc.Mat.OrderingType.ND)
        self._solver.setOperators(self._matrix)
        self._x, self._b = self._matrix.createVecs()
        self._fresh = True

    def fits(self, system: LinearSystem) -> bool:
        """Whether the ordering serves this system's pattern."""
        indptr, indices = self._pattern
        matrix = system.matrix
        if system.structure != self._structure or matrix.indptr.size != indptr.size or matrix.nnz != indices.size:
            return False
        return np.array_equal(matrix.indptr, indptr) and np.array_equal(matrix.indices, indices)

    def solve(self, system: LinearSystem) -> Shaped[np.ndarray, " unknowns"]:
        """Factor and solve.

        Raises:
            ArithmeticError: the matrix is singular to working precision.
        """
        if not self._fresh:
            matrix = system.matrix
            self._matrix.setValuesCSR(matrix.indptr, matrix.indices, matrix.data)
            self._matrix.assemble()
        self._fresh = False
        self._b.setArray(system.rhs)
        try:
            self._solver.solve(self._b, self._x)
        except load_petsc().Error as error:
            # Raised, not reported, for a pattern that lacks a diagonal entry.
            raise ArithmeticError(f"PETSc could not factor the matrix ({error})") from error
        reason = self._solver.getConvergedReason()
        if reason < 0:
            raise ArithmeticError(f"PETSc could not factor the matrix (reason {int(reason)})")
        return self._x.getArray().copy()

    def destroy(self) -> None:
        """Free what PETSc holds."""
        for thing in (self._solver, self._matrix, self._x, self._b):
            thing.destroy()


@functools.cache
def petsc_is_installed() -> bool:
    """Whether the DOLFINx wheel, or petsc4py by itself, is there; imports neither."""
    return any(importlib.util.find_spec(name) is not None for name in ("dolfinx_solver", "petsc4py"))


@functools.cache
def load_petsc() -> ModuleType:
    """Import PETSc in the order that the DOLFINx wheel needs, without its signal handlers."""
    if importlib.util.find_spec("dolfinx_solver") is not None:
        # The wheel makes its own petsc4py importable, so that it comes first.
        import dolfinx_solver  # noqa: F401
    import petsc4py

    petsc4py.init(["headrace", "-no_signal_handler"])
    from petsc4py import PETSc

    return PETSc
