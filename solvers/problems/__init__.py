"""One equation a file; a new problem is one file and one entry of this tuple."""

from headrace.platform.spec import one_of
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems.darcy import Darcy

PROBLEMS: tuple[type[AbstractProblem], ...] = (Darcy,)
AnyProblem = one_of("headrace.problems", PROBLEMS)

__all__ = ["PROBLEMS", "AnyProblem", "Darcy"]
