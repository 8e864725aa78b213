"""Plain Krylov methods, by PETSc: conjugate gradients, MINRES, GMRES, BiCGStab, and their preconditioners."""

import itertools
import time
from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.platform.spec import kind_of
from headrace.solvers.methods.factorizations import (
    abandon,
    first_line,
    has_pattern,
    load_petsc,
    petsc_is_installed,
    petsc_matrix,
)
from headrace.solvers.methods.gcrodr import is_complex
from headrace.solvers.systems.family import Candidacy, Family
from headrace.solvers.systems.solver import AbstractSolver, RunningSolver, Solution, SolveStatus
from headrace.solvers.systems.system import LinearSystem, Structure, Structured

# PETSc aims a little below the tolerance, so that the recomputed residual does not miss it by rounding.
_MARGIN = 0.9
# How often a method goes on whose own residual is small enough and whose true one is not, and by how much it then aims
# lower than what is missing.
_MAX_RESUMED, _RESUMED_MARGIN = 3, 0.5
# Growth of the residual at which to give up: BiCGStab's may rise by orders of magnitude before it falls.
_DIVERGED = 1e8
# PETSc keeps options for good: every solver has a prefix of its own.
_numbers = itertools.count()
_SHIFTED_ILU = "PETSc could not set up the preconditioner: a pivot is 0 or not finite; use jacobi, or a direct method"
_REASONS = {
    -3: "",
    -4: "the residual grew by 1e8",
    -5: "the method broke down: it cannot go on from this residual",
    -6: "the method broke down: it cannot go on from this residual",
    -8: "the preconditioner is not positive definite",
    -9: "numbers are not finite any more",
    -10: "the matrix is not positive definite",
    -11: _SHIFTED_ILU,
}

Levels = Annotated[int, Field(ge=0, le=20)]
Omega = Annotated[float, Field(gt=0.0, lt=2.0)]
MaxIterations = Annotated[int, Field(ge=1, le=1_000_000)]


class AbstractKrylov(AbstractSolver):
    """What the four methods share: a PETSc solver that stays for the whole sequence, with matrix and pattern.

    Residuals are those of A x = b itself, never preconditioned ones; where PETSc knows only the latter (MINRES), the
    residual is recomputed and the method goes on until it is small enough. Of a singular system the constants are
    projected out, and preconditioners are made of its regular matrix.

    Preconditioners: `none`; `jacobi`, the diagonal; `ssor`, one symmetric sweep with factor `omega`; `ilu` and `icc`,
    incomplete factors with `levels` of fill; `stale`, complete factors of an earlier system of the sequence, which are
    made anew after a system that took more than `refresh_above` iterations, or at once if it takes twice as many.

    Attributes:
        omega: the relaxation factor of `ssor`, between 0 and 2.
        levels: levels of fill that `ilu` and `icc` keep.
        refresh_above: iterations above which `stale` factors are made anew for the next system.
        max_iterations: iterations after which to give up.
    """

    # The order of a sequence matters to stale factors alone, and sorting costs little.
    recycles: ClassVar[bool] = False

    omega: Omega = 1.0
    levels: Levels = 0
    refresh_above: Annotated[int, Field(ge=1, le=1000)] = 15
    max_iterations: MaxIterations = 10_000

    @property
    @abstractmethod
    def petsc_options(self) -> dict[str, str | int]:
        """What PETSc must know about the method."""

    @property
    @abstractmethod
    def preconditioner_name(self) -> str:
        """The preconditioner; each method allows those that it can work with."""

    @property
    def products_per_iteration(self) -> int:
        """Products with A."""
        return 1

    def missing(self, known: Structure) -> str | None:
        """Why the method does not suit matrices of this structure."""
        return None

    def learns(self, target: Structured) -> bool:
        """Stale factors are those of an earlier system; all else is made anew."""
        return self.preconditioner_name == "stale"

    def build(self) -> "RunningKrylov":
        """Start a sequence."""
        return RunningKrylov(self)

    def mismatch(self, target: Structured) -> str | None:
        """Needs PETSc, real numbers, and what `missing` says."""
        if not petsc_is_installed():
            return "The Krylov methods come with PETSc (dolfinx-solver-real), which is not installed; use gcrodr."
        if isinstance(target, LinearSystem) and is_complex(target):
            return "PETSc is built for real numbers, this system is complex; use auto or direct."
        return self.missing(target.structure)


class CG(AbstractKrylov):
    """Conjugate gradients, for positive definite matrices.

    Good values: `icc` with 2 levels, or `ssor` with omega 1.8 to 1.9 on fine grids.

    Attributes:
        preconditioner: `icc`, `ssor`, `jacobi`, `none`, or `stale`, Cholesky factors of an earlier system.
    """

    kind: Literal["cg"] = "cg"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.positive_definite, cost=1.5, settings={"preconditioner": "icc"}),
        # A stage of an implicit step is better conditioned than a steady system, and the guess for it is good:
        # iterations are few, and whether factors that stay make up for their price depends on the number of steps.
        Candidacy(family=Family.drifting, cost=2.0, settings={"preconditioner": "stale"}, set_up=40.0),
    )
    preconditioner: Literal["icc", "ssor", "jacobi", "none", "stale"] = "icc"
    levels: Levels = 2

    @property
    def petsc_options(self) -> dict[str, str | int]:
        """Stops by the residual itself."""
        return {"ksp_type": "cg", "ksp_norm_type": "unpreconditioned"}

    @property
    def preconditioner_name(self) -> str:
        """The field."""
        return self.preconditioner

    def missing(self, known: Structure) -> str | None:
        """Positive definiteness."""
        if known.positive_definite:
            return None
        return "Conjugate gradients need a positive definite matrix, this one is not known to be; use minres or gmres."


class MINRES(AbstractKrylov):
    """Minimal residuals, for symmetric matrices, indefinite ones too.

    Attributes:
        preconditioner: `jacobi` (absolute values of the diagonal) or `none`: it must be positive definite.
    """

    kind: Literal["minres"] = "minres"
    preconditioner: Literal["jacobi", "none"] = "jacobi"

    @property
    def petsc_options(self) -> dict[str, str | int]:
        """PETSc's MINRES knows the preconditioned residual only."""
        return {"ksp_type": "minres"}

    @property
    def preconditioner_name(self) -> str:
        """The field."""
        return self.preconditioner

    def missing(self, known: Structure) -> str | None:
        """Symmetry."""
        return None if known.symmetric else "MINRES needs a symmetric matrix, this one is not known to be; use gmres."


class GMRES(AbstractKrylov):
    """Restarted GMRES, preconditioned from the right, for every real matrix.

    Attributes:
        restart: directions of a cycle, after which it starts anew.
        preconditioner: `ilu`, `ssor`, `jacobi`, `none`, or `stale`, LU or Cholesky factors of an earlier
            system.
    """

    kind: Literal["gmres"] = "gmres"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.drifting_nonsymmetric, cost=2.0, settings={"preconditioner": "stale"}, set_up=10.0),
        Candidacy(family=Family.nonsymmetric, cost=8.0, settings={"preconditioner": "ilu"}),
    )
    restart: Annotated[int, Field(ge=2, le=1000)] = 40
    preconditioner: Literal["ilu", "ssor", "jacobi", "none", "stale"] = "ilu"

    @property
    def petsc_options(self) -> dict[str, str | int]:
        """From the right: then its residual is the true one."""
        return {"ksp_type": "gmres", "ksp_gmres_restart": self.restart, "ksp_pc_side": "right"}

    @property
    def preconditioner_name(self) -> str:
        """The field."""
        return self.preconditioner


class BiCGStab(AbstractKrylov):
    """Stabilised biconjugate gradients, preconditioned from the right: short recurrences for every real matrix.

    Its `num_iterations` counts two products for each of PETSc's iterations.

    Attributes:
        preconditioner: `ilu`, `ssor`, `jacobi`, `none`, or `stale`, LU or Cholesky factors of an earlier
            system.
    """

    kind: Literal["bicgstab"] = "bicgstab"

    candidacies: ClassVar[tuple[Candidacy, ...]] = (
        Candidacy(family=Family.drifting_nonsymmetric, cost=1.0, settings={"preconditioner": "ilu", "levels": 2}),
        Candidacy(family=Family.nonsymmetric, cost=3.0, settings={"preconditioner": "ilu", "levels": 2}),
    )
    preconditioner: Literal["ilu", "ssor", "jacobi", "none", "stale"] = "ilu"

    @property
    def petsc_options(self) -> dict[str, str | int]:
        """From the right, as in `GMRES`."""
        return {"ksp_type": "bcgs", "ksp_pc_side": "right"}

    @property
    def preconditioner_name(self) -> str:
        """The field."""
        return self.preconditioner

    @property
    def products_per_iteration(self) -> int:
        """Two."""
        return 2


class RunningKrylov(RunningSolver):
    """Keeps the PETSc objects of the last pattern, and stale factors."""

    def __init__(self, spec: AbstractKrylov) -> None:
        self._spec = spec
        self._held: _Petsc | None = None

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system; the initial guess is 0."""
        started = time.perf_counter()
        value, num_iterations, reason, detail = np.zeros(system.num_unknowns), 0, -5, ""
        try:
            if self._held is None or not self._held.fits(system):
                self._drop()
                self._held = _Petsc(self._spec, system)
            else:
                self._held.update(system)
            value, num_iterations, reason = self._held.solve(system, rtol)
        except load_petsc().Error as error:
            detail = f"PETSc could not set up the preconditioner ({first_line(error)})"
            abandon([self._held])
            self._held = None
        if reason > 0:
            status = SolveStatus.converged
        else:
            detail = detail or _REASONS.get(reason, f"PETSc's reason {reason}")
            status = SolveStatus.max_iterations if reason == -3 else SolveStatus.breakdown
            # What is left of a failure, values that are not finite for example, must not meet the next system.
            self._drop()
        return Solution(
            value=system.without_mean(value),
            status=status,
            relative_residual=float("nan"),
            num_iterations=num_iterations * self._spec.products_per_iteration,
            seconds=time.perf_counter() - started,
            method=kind_of(type(self._spec)),
            detail=detail,
        )

    def _drop(self) -> None:
        if self._held is not None:
            self._held.destroy()
        self._held = None


class _Petsc:
    """Matrix, solver and vectors of one pattern."""

    def __init__(self, spec: AbstractKrylov, system: LinearSystem) -> None:
        petsc = load_petsc()
        self._spec, self._structure = spec, system.structure
        matrix = system.matrix
        self._pattern = matrix.indptr, matrix.indices
        self._matrix = petsc_matrix(matrix, system.structure)
        singular = system.structure.singular
        self._regular = petsc_matrix(system.regular_matrix, system.structure) if singular else self._matrix
        self._x, self._b = self._matrix.createVecs()
        self._constants = petsc.NullSpace().create(constant=True, comm=petsc.COMM_SELF)
        if system.structure.singular:
            self._matrix.setNullSpace(self._constants)
        self._solver = petsc.KSP().create(petsc.COMM_SELF)
        prefix = f"headrace_krylov{next(_numbers)}_"
        database = petsc.Options(prefix)
        options = {**spec.petsc_options, **self._preconditioner_options()}
        for key, value in options.items():
            database[key] = value
        self._solver.setOptionsPrefix(prefix)
        self._solver.setOperators(self._matrix, self._regular)
        self._solver.setFromOptions()
        for key in options:
            database.delValue(key)
        # Whether the next solve makes factors that may stay.
        self._factors_are_due = True

    def _preconditioner_options(self) -> dict[str, str | int | float | bool]:
        spec = self._spec
        match spec.preconditioner_name:
            case "jacobi":
                return {"pc_type": "jacobi", "pc_jacobi_abs": spec.petsc_options["ksp_type"] == "minres"}
            case "ssor":
                return {"pc_type": "sor", "pc_sor_symmetric": True, "pc_sor_omega": spec.omega}
            case "ilu" | "icc" as name:
                return {"pc_type": name, "pc_factor_levels": spec.levels}
            case "stale" if self._structure.positive_definite:
                return {"pc_type": "cholesky", "pc_factor_mat_ordering_type": "nd"}
            case "stale":
                # PETSc's own LU does not pivot.
                return {"pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}
            case _:
                return {"pc_type": "none"}

    def fits(self, system: LinearSystem) -> bool:
        """Whether the pattern is this system's."""
        return system.structure == self._structure and has_pattern(system.matrix, self._pattern)

    def update(self, system: LinearSystem) -> None:
        """Put the values of a new system in place."""
        pairs = [(self._matrix, system.matrix)]
        if self._regular is not self._matrix:
            pairs.append((self._regular, system.regular_matrix))
        for held, new in pairs:
            held.setValuesCSR(new.indptr, new.indices, new.data)
            held.assemble()
        self._solver.setOperators(self._matrix, self._regular)

    def solve(self, system: LinearSystem, rtol: float) -> tuple[Float64[np.ndarray, " unknowns"], int, int]:
        """The solution, PETSc's iterations, and its reason to stop (positive: converged)."""
        spec, stale = self._spec, self._spec.preconditioner_name == "stale"
        self._b.setArray(system.rhs)
        self._x.zeroEntries()
        scale = float(np.linalg.norm(system.rhs))
        aim, left, reason, resumed = _MARGIN * rtol * scale, spec.max_iterations, 0, 0
        while True:
            reused = stale and not self._factors_are_due
            self._solver.getPC().setReusePreconditioner(reused)
            limit = min(left, 2 * spec.refresh_above) if reused else left
            # The tolerance is an absolute one: a solve that goes on must not start from its own residual.
            self._solver.setTolerances(rtol=0.0, atol=max(aim, 1e-300), divtol=_DIVERGED, max_it=max(limit, 1))
            self._solver.setInitialGuessNonzero(left < spec.max_iterations)
            self._solver.solve(self._b, self._x)
            reason, used = int(self._solver.getConvergedReason()), self._solver.getIterationNumber()
            left -= used
            if stale:
                self._factors_are_due = reason <= 0 or used > spec.refresh_above
            if reason <= 0:
                if reused and left > 0:
                    if not np.isfinite(self._x.getArray()).all():
                        self._x.zeroEntries()
                    continue  # with factors of its own
                break
            residual = system.relative_residual(self._x.getArray())
            if residual <= rtol or resumed == _MAX_RESUMED or left <= 0 or not np.isfinite(residual):
                break
            resumed += 1
            aim *= _RESUMED_MARGIN * rtol / residual
        return self._x.getArray().copy(), spec.max_iterations - left, reason

    def destroy(self) -> None:
        """Free what PETSc holds."""
        for thing in (self._solver, self._matrix, self._regular, self._constants, self._x, self._b):
            thing.destroy()
