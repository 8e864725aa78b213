"""One equation a file; a new problem is one file and one entry of a tuple."""

from headrace.platform.spec import one_of
from headrace.solvers.evolution.evolution import AbstractEvolution
from headrace.solvers.problem import AbstractProblem
from headrace.solvers.problems.advection import Advection
from headrace.solvers.problems.allen_cahn import AllenCahn
from headrace.solvers.problems.burgers import Burgers
from headrace.solvers.problems.compressible_euler import CompressibleEuler
from headrace.solvers.problems.convection_diffusion import ConvectionDiffusion
from headrace.solvers.problems.darcy import Darcy
from headrace.solvers.problems.darcy_3d import Darcy3D
from headrace.solvers.problems.diffusion import Diffusion
from headrace.solvers.problems.elasticity import Elasticity
from headrace.solvers.problems.flooding import Flooding
from headrace.solvers.problems.flow_past_obstacles import FlowPastObstacles
from headrace.solvers.problems.gray_scott import GrayScott
from headrace.solvers.problems.heat import HeatConduction
from headrace.solvers.problems.heat_in_media import HeatInMedia
from headrace.solvers.problems.heat_with_walls import HeatWithWalls
from headrace.solvers.problems.helmholtz import Helmholtz
from headrace.solvers.problems.korteweg_de_vries import KortewegDeVries
from headrace.solvers.problems.kuramoto_sivashinsky import KuramotoSivashinsky
from headrace.solvers.problems.lid_driven_cavity import LidDrivenCavity
from headrace.solvers.problems.navier_stokes import NavierStokes
from headrace.solvers.problems.nonlinear_diffusion import NonlinearDiffusion
from headrace.solvers.problems.poisson import Poisson
from headrace.solvers.problems.rayleigh_benard import RayleighBenard
from headrace.solvers.problems.scattering import Scattering
from headrace.solvers.problems.shallow_water import ShallowWater
from headrace.solvers.problems.wave import Wave

PROBLEMS: tuple[type[AbstractProblem], ...] = (
    Darcy,
    Darcy3D,
    Poisson,
    Helmholtz,
    Scattering,
    ConvectionDiffusion,
    NonlinearDiffusion,
    HeatConduction,
    Elasticity,
)
AnyProblem = one_of("headrace.problems", PROBLEMS)

EVOLUTIONS: tuple[type[AbstractEvolution], ...] = (
    Advection,
    Diffusion,
    HeatWithWalls,
    HeatInMedia,
    Wave,
    Burgers,
    KortewegDeVries,
    KuramotoSivashinsky,
    AllenCahn,
    GrayScott,
    NavierStokes,
    ShallowWater,
    Flooding,
    CompressibleEuler,
    FlowPastObstacles,
    LidDrivenCavity,
    RayleighBenard,
)
AnyEvolution = one_of("headrace.problems", EVOLUTIONS)
