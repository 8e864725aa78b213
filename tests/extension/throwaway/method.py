"""A method: Gaussian elimination on the dense matrix."""

from typing import ClassVar, Literal

import numpy as np

from headrace.solvers import AbstractSolver, Candidacy, Family, LinearSystem, RunningSolver, Solution, SolveStatus


class ThrowawayDense(AbstractSolver):
    """LAPACK's general solver, for small systems that are not singular."""

    kind: Literal["throwaway_dense"] = "throwaway_dense"
    candidacies: ClassVar[tuple[Candidacy, ...]] = (Candidacy(family=Family.repeating, cost=1000.0),)

    def build(self) -> "RunningThrowawayDense":
        return RunningThrowawayDense()

    def mismatch(self, target: object) -> str | None:
        if target.structure.singular:  # type: ignore[attr-defined]
            return "a dense factorisation needs a regular matrix"
        if isinstance(target, LinearSystem) and target.num_unknowns > 3000:
            return "a dense matrix of more than 3000 unknowns is too much"
        return None


class RunningThrowawayDense(RunningSolver):
    """Keeps nothing."""

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        try:
            value, status = np.linalg.solve(system.matrix.toarray(), system.rhs), SolveStatus.converged
        except np.linalg.LinAlgError:
            value, status = np.zeros_like(system.rhs), SolveStatus.breakdown
        return Solution(
            value=value, status=status, relative_residual=0.0, num_iterations=0, seconds=0.0, method="throwaway_dense"
        )
