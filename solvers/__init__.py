"""Equations and how they are solved.

Example:
    >>> from headrace.solvers import Darcy, solve
    >>> problem = Darcy(resolution=65)
    >>> system = problem.discretize(problem.draw(0))
    >>> solve(system, rtol=1e-8).status
    <SolveStatus.converged: 'converged'>
"""

from headrace.solvers.external import External, ExternalSource
from headrace.solvers.methods import (
    AMG,
    CG,
    DCDM,
    GCRODR,
    GMRES,
    METHODS,
    MINRES,
    AnyMethod,
    Auto,
    BatchedMultigrid,
    BiCGStab,
    Direct,
    Multigrid,
    RecycledCG,
    Transform,
)
from headrace.solvers.operators import DiffusionOperator
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems import (
    PROBLEMS,
    AbstractFiniteElementProblem,
    AnyProblem,
    ConvectionDiffusion,
    Darcy,
    Darcy3D,
    Elasticity,
    HeatConduction,
    Helmholtz,
    NonlinearDiffusion,
    Poisson,
)
from headrace.solvers.sequence import solve_sequence
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus, solve
from headrace.solvers.source import SolverSource
from headrace.solvers.system import LinearSystem, NonlinearSystem, Structure, System

__all__ = [
    "AMG",
    "CG",
    "DCDM",
    "GCRODR",
    "GMRES",
    "METHODS",
    "MINRES",
    "PROBLEMS",
    "AbstractFiniteElementProblem",
    "AbstractProblem",
    "AbstractSolver",
    "AnyMethod",
    "AnyProblem",
    "Auto",
    "BatchedMultigrid",
    "BiCGStab",
    "ConvectionDiffusion",
    "Darcy",
    "Darcy3D",
    "DiffusionOperator",
    "Direct",
    "Elasticity",
    "External",
    "ExternalSource",
    "HeatConduction",
    "Helmholtz",
    "LinearSystem",
    "Multigrid",
    "NonlinearDiffusion",
    "NonlinearSystem",
    "Poisson",
    "RecycledCG",
    "RunningSolver",
    "Solution",
    "SolveStatus",
    "SolverSource",
    "Structure",
    "System",
    "Transform",
    "solve",
    "solve_sequence",
]
