"""Which method: candidates, racing, bandits, and `auto`, which stands above the methods."""

from headrace.platform.spec import one_of
from headrace.solvers.methods import METHODS
from headrace.solvers.selection.auto import Auto
from headrace.solvers.systems.solver import AbstractSolver

ALL_METHODS: tuple[type[AbstractSolver], ...] = (Auto, *METHODS)
"""The methods, and the one that chooses among them."""

AnyMethod = one_of("headrace.methods", ALL_METHODS)

__all__ = ["ALL_METHODS", "AnyMethod", "Auto"]
