"""Equations and how they are solved.

Example:
    >>> from headrace.solvers import Darcy, solve
    >>> problem = Darcy(resolution=65)
    >>> system = problem.discretize(problem.draw(0))
    >>> solve(system, rtol=1e-8).status
    <SolveStatus.converged: 'converged'>
"""

from headrace.solvers.methods import GCRODR, METHODS, AnyMethod, Auto, Direct, Multigrid
from headrace.solvers.operators import DiffusionOperator
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems import PROBLEMS, AnyProblem, Darcy
from headrace.solvers.sequence import solve_sequence
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus, solve
from headrace.solvers.source import SolverSource
from headrace.solvers.system import LinearSystem, NonlinearSystem, Structure, System

__all__ = [
    "GCRODR",
    "METHODS",
    "PROBLEMS",
    "AbstractProblem",
    "AbstractSolver",
    "AnyMethod",
    "AnyProblem",
    "Auto",
    "Darcy",
    "Direct",
    "DiffusionOperator",
    "LinearSystem",
    "Multigrid",
    "NonlinearSystem",
    "RunningSolver",
    "Solution",
    "SolveStatus",
    "SolverSource",
    "Structure",
    "System",
    "solve",
    "solve_sequence",
]
