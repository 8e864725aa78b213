"""One equation a file; a new problem is one file and one entry of this tuple."""

from headrace.platform.spec import one_of
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems.convection_diffusion import ConvectionDiffusion
from headrace.solvers.problems.darcy import Darcy
from headrace.solvers.problems.darcy_3d import Darcy3D
from headrace.solvers.problems.elasticity import Elasticity
from headrace.solvers.problems.finite_elements import AbstractFiniteElementProblem
from headrace.solvers.problems.heat import HeatConduction
from headrace.solvers.problems.helmholtz import Helmholtz
from headrace.solvers.problems.nonlinear_diffusion import NonlinearDiffusion
from headrace.solvers.problems.poisson import Poisson

PROBLEMS: tuple[type[AbstractProblem], ...] = (
    Darcy,
    Darcy3D,
    Poisson,
    Helmholtz,
    ConvectionDiffusion,
    NonlinearDiffusion,
    HeatConduction,
    Elasticity,
)
AnyProblem = one_of("headrace.problems", PROBLEMS)

__all__ = [
    "PROBLEMS",
    "AbstractFiniteElementProblem",
    "AnyProblem",
    "ConvectionDiffusion",
    "Darcy",
    "Darcy3D",
    "Elasticity",
    "HeatConduction",
    "Helmholtz",
    "NonlinearDiffusion",
    "Poisson",
]
