"""The method that chooses the method."""

from typing import Literal

from headrace.solvers.problem import AbstractProblem
from headrace.solvers.select import choose
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution
from headrace.solvers.system import LinearSystem, System


class Auto(AbstractSolver):
    """Multigrid for positive definite diffusion operators, a direct method for everything else.

    A solution names the method that did the work.
    """

    kind: Literal["auto"] = "auto"

    def build(self) -> "RunningAuto":
        """Start a sequence; each chosen method keeps its own state."""
        return RunningAuto()

    def mismatch(self, target: AbstractProblem | System) -> str | None:
        """Whatever the chosen method says."""
        return choose(target).mismatch(target)


class RunningAuto(RunningSolver):
    """Hands each system to the running solver of the method chosen for it."""

    def __init__(self) -> None:
        self._running: dict[AbstractSolver, RunningSolver] = {}

    def solve(self, system: LinearSystem, rtol: float) -> Solution:
        """Solve one system by the method that fits."""
        spec = choose(system)
        if spec not in self._running:
            self._running[spec] = spec.build()
        return self._running[spec].solve(system, rtol)
