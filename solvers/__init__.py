"""Equations and how they are solved.

Example:
    >>> from headrace.solvers import Darcy, solve
    >>> problem = Darcy(resolution=65)
    >>> system = problem.discretize(problem.draw(0))
    >>> solve(system, rtol=1e-8).status
    <SolveStatus.converged: 'converged'>
"""

from headrace.solvers.evolution.evolution import AbstractEvolution, Numerics
from headrace.solvers.evolution.source import EvolutionSource
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
    EVOLUTIONS,
    PROBLEMS,
    AbstractFiniteElementProblem,
    Advection,
    AllenCahn,
    AnyEvolution,
    AnyProblem,
    Burgers,
    CompressibleEuler,
    ConvectionDiffusion,
    Darcy,
    Darcy3D,
    Diffusion,
    Elasticity,
    FlowPastObstacles,
    GrayScott,
    HeatConduction,
    HeatInMedia,
    HeatWithWalls,
    Helmholtz,
    KortewegDeVries,
    KuramotoSivashinsky,
    LidDrivenCavity,
    NavierStokes,
    NonlinearDiffusion,
    Poisson,
    RayleighBenard,
    ShallowWater,
    Wave,
)
from headrace.solvers.sequence import solve_sequence
from headrace.solvers.solver import AbstractSolver, RunningSolver, Solution, SolveStatus, solve
from headrace.solvers.source import SolverSource
from headrace.solvers.system import LinearSystem, NonlinearSystem, Structure, System

__all__ = [
    "AMG",
    "AbstractEvolution",
    "AbstractFiniteElementProblem",
    "AbstractProblem",
    "AbstractSolver",
    "Advection",
    "AllenCahn",
    "AnyEvolution",
    "AnyMethod",
    "AnyProblem",
    "Auto",
    "BatchedMultigrid",
    "BiCGStab",
    "Burgers",
    "CG",
    "CompressibleEuler",
    "ConvectionDiffusion",
    "DCDM",
    "Darcy",
    "Darcy3D",
    "Diffusion",
    "DiffusionOperator",
    "Direct",
    "EVOLUTIONS",
    "Elasticity",
    "EvolutionSource",
    "External",
    "ExternalSource",
    "FlowPastObstacles",
    "GCRODR",
    "GMRES",
    "GrayScott",
    "HeatConduction",
    "HeatInMedia",
    "HeatWithWalls",
    "Helmholtz",
    "KortewegDeVries",
    "KuramotoSivashinsky",
    "LidDrivenCavity",
    "LinearSystem",
    "METHODS",
    "MINRES",
    "Multigrid",
    "NavierStokes",
    "NonlinearDiffusion",
    "NonlinearSystem",
    "Numerics",
    "PROBLEMS",
    "Poisson",
    "RayleighBenard",
    "RecycledCG",
    "RunningSolver",
    "ShallowWater",
    "Solution",
    "SolveStatus",
    "SolverSource",
    "Structure",
    "System",
    "Transform",
    "Wave",
    "solve",
    "solve_sequence",
]
