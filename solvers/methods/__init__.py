"""One method a file; a new method is one file and one entry of this tuple."""

from headrace.platform.spec import one_of
from headrace.solvers.methods.auto import Auto
from headrace.solvers.methods.direct import Direct
from headrace.solvers.methods.krylov import GCRODR
from headrace.solvers.methods.multigrid import Multigrid
from headrace.solvers.solver import AbstractSolver

METHODS: tuple[type[AbstractSolver], ...] = (Auto, Multigrid, Direct, GCRODR)
AnyMethod = one_of("headrace.methods", METHODS)

__all__ = ["GCRODR", "METHODS", "AnyMethod", "Auto", "Direct", "Multigrid"]
