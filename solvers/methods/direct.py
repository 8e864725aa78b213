"""Direct methods: SuperLU everywhere, PETSc and MUMPS where DOLFINx is installed, CHOLMOD with scikit-sparse."""

import time
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Shaped

from headrace.solvers.methods.factorizations import (
    Factorization,
    MatrixKey,
    Package,
    cholmod_is_installed,
    load_petsc,
    make_factorization,
    petsc_is_installed,
)
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structured

__all__ = ["Direct", "RunningDirect", "cholmod_is_installed", "load_petsc", "petsc_is_installed"]

# From here on MUMPS's fronts outrun PETSc's own factorisation (docs/benchmarks): about 257 x 257 points.
_MUMPS_PAYS = 65_000
# Right-hand sides that are solved together: more do not run faster, and every one is a vector to hold.
_BLOCK = 32
_MAX_REFINEMENTS = 5


class Direct(AbstractSolver):
    """A sparse factorisation: Cholesky or LDLᵀ where the matrix is known to be symmetric, LU otherwise.

    Solves every regular system, indefinite ones too, to about 1e-13. The pattern's ordering is computed once in a
    sequence of systems of one pattern (PETSc, MUMPS, CHOLMOD). A matrix that comes again is not factored again, and
    right-hand sides that belong to it are solved together; that a matrix is the same is found by looking at its values.
    Of a system that is singular by its `structure` the solution of mean 0 is found; a singular matrix that does not say
    so ends as `breakdown`.

    Attributes:
        package: `petsc` (nested dissection, no pivoting), `mumps`, `cholmod` (positive definite matrices only), or
            `scipy` (SuperLU, everywhere); `auto` takes PETSc for small positive definite systems and MUMPS for all
            others where they are installed, SciPy elsewhere.
    """

    kind: Literal["direct"] = "direct"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.repeating, cost=1.0, set_up=40.0),
        Candidacy(family=Family.structured, cost=60.0),
        Candidacy(family=Family.positive_definite, cost=1.0),
        Candidacy(family=Family.positive_definite, cost=1.0, settings={"package": "cholmod"}),
        Candidacy(family=Family.positive_definite, cost=2.0, settings={"package": "mumps"}),
        Candidacy(family=Family.drifting, cost=2.0, set_up=40.0),
        Candidacy(family=Family.drifting_nonsymmetric, cost=2.0, settings={"package": "petsc"}),
        Candidacy(family=Family.drifting_nonsymmetric, cost=3.0),
        # PETSc's factors have no pivots: where that goes wrong the residual tells, and MUMPS does it again.
        Candidacy(family=Family.indefinite, cost=1.0, settings={"package": "petsc"}),
        Candidacy(family=Family.indefinite, cost=2.0),
        Candidacy(family=Family.nonsymmetric, cost=1.0, settings={"package": "petsc"}),
        Candidacy(family=Family.nonsymmetric, cost=2.0),
    )
    package: Literal["auto", "petsc", "mumps", "cholmod", "scipy"] = "auto"

    def build(self) -> "RunningDirect":
        """Start a sequence."""
        return RunningDirect(self.package)

    def batch_size(self, target: Structured) -> int:
        """A block of right-hand sides where all systems have one matrix."""
        return _BLOCK if target.structure.repeats else 1

    def learns(self, target: Structured) -> bool:
        """Only the ordering is kept, which is one of the pattern; but blocks of right-hand sides round otherwise."""
        return self.batch_size(target) > 1

    def mismatch(self, target: Structured) -> str | None:
        """Fits every system, CHOLMOD only positive definite ones; the package must be installed."""
        if self.package in ("petsc", "mumps") and not petsc_is_installed():
            return (
                f"The package {self.package} comes with dolfinx-solver-real, which is not installed; use auto or scipy."
            )
        if self.package == "cholmod":
            if not cholmod_is_installed():
                return "The package cholmod comes with scikit-sparse, which is not installed; use auto or scipy."
            if not target.structure.positive_definite:
                return "CHOLMOD needs a positive definite matrix, this one is not known to be; use auto or scipy."
        if self.package not in ("auto", "scipy") and isinstance(target, LinearSystem) and _is_complex(target):
            return f"The package {self.package} computes in real numbers, this system is complex; use auto or scipy."
        return None


class RunningDirect(RunningSolver):
    """Keeps one factorisation per package: the factors of the last matrix, with the ordering of its pattern."""

    def __init__(self, package: Literal["auto"] | Package) -> None:
        self._package: Literal["auto"] | Package = package
        self._held: dict[Package, Factorization] = {}
        # Whose factors are held; None after a failure.
        self._factored: dict[Package, MatrixKey | None] = {}

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system; factor its matrix unless it is the one that was factored last."""
        return self._solve_block(MatrixKey(system), [system], rtol)[0]

    def solve_batch(self, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        """Solve systems of equal matrices together: one factorisation, one block of right-hand sides."""
        groups: dict[MatrixKey, list[int]] = {}
        for index, system in enumerate(systems):
            groups.setdefault(MatrixKey(system), []).append(index)
        solutions: dict[int, Solution] = {}
        for key, indices in groups.items():
            for first in range(0, len(indices), _BLOCK):
                part = indices[first : first + _BLOCK]
                solutions |= dict(zip(part, self._solve_block(key, [systems[i] for i in part], rtol), strict=True))
        return [solutions[index] for index in range(len(systems))]

    def _solve_block(self, key: MatrixKey, systems: Sequence[LinearSystem], rtol: float) -> list[Solution]:
        started = time.perf_counter()
        rhs = np.stack([system.rhs for system in systems], axis=1)
        package = self._package_for(systems[0], complex_numbers=np.iscomplexobj(rhs))
        value, detail = np.zeros_like(rhs), ""
        try:
            factors = self._factors(key, systems[0], package)
            value = factors.solve(rhs)
            for column, system in enumerate(systems):
                _refine(factors, system, value[:, column], rtol)
        except ArithmeticError as error:
            self._factored[package] = None
            detail = str(error)
        seconds = (time.perf_counter() - started) / len(systems)
        return [_solution(system, value[:, column], detail, seconds) for column, system in enumerate(systems)]

    def _factors(self, key: MatrixKey, system: LinearSystem, package: Package) -> Factorization:
        """The factors of this matrix, new or held.

        Raises:
            ArithmeticError: it cannot be factored.
        """
        held = self._held.get(package)
        if held is not None and self._factored.get(package) == key:
            return held
        self._factored[package] = None
        if held is None or not held.fits(system):
            if held is not None:
                held.destroy()
            held = self._held[package] = make_factorization(system, package)
        held.factor(system)
        # A diffusion operator knows by itself whether it is singular, for any other matrix it has to be found out.
        if not (system.structure.diffusion and system.structure.positive_definite):
            held.require_regular(system)
        self._factored[package] = key
        return held

    def _package_for(self, system: LinearSystem, *, complex_numbers: bool) -> Package:
        if self._package != "auto":
            return self._package
        # The wheel's PETSc is built for real numbers.
        if not petsc_is_installed() or complex_numbers or _is_complex(system):
            return "scipy"
        # PETSc's own factorisations do not pivot, MUMPS does.
        safe = system.structure.positive_definite and system.num_unknowns < _MUMPS_PAYS
        return "petsc" if safe else "mumps"


def _refine(factors: Factorization, system: LinearSystem, x: Shaped[np.ndarray, " unknowns"], rtol: float) -> None:
    """Correct x, in place, by what its residual is solved to, as long as that halves the residual and is needed.

    Iterative refinement in one precision (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Ch. 12): a
    step or two make the backward error that of rounding, where pivots were not chosen, too.
    """
    if not np.isfinite(x).all():
        return
    residual = system.relative_residual(x)
    for _ in range(_MAX_REFINEMENTS):
        if not residual > rtol:
            return
        # Of a singular system the factors are those of a regular one with the same solutions.
        better = x + factors.solve((system.rhs - system.apply(x))[:, np.newaxis])[:, 0]
        after = system.relative_residual(better)
        if not after < residual:
            return
        is_slow = after > 0.5 * residual
        x[:], residual = better, after
        if is_slow:
            return


def _solution(system: LinearSystem, value: Shaped[np.ndarray, " unknowns"], detail: str, seconds: float) -> Solution:
    finite = bool(np.isfinite(value).all())
    return Solution(
        value=system.without_mean(np.ascontiguousarray(value)),
        status=SolveStatus.converged if finite and not detail else SolveStatus.breakdown,
        relative_residual=float("nan"),
        num_iterations=0,
        seconds=seconds,
        method="direct",
        detail=detail if detail or finite else "the solution is not finite: look for values that are not in the system",
    )


def _is_complex(system: LinearSystem) -> bool:
    if np.iscomplexobj(system.rhs):
        return True
    return system.operator is None and np.iscomplexobj(system.matrix.data)
