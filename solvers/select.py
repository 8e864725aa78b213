"""Which method for which system, when the user leaves it open."""

from headrace.solvers.problem import AbstractProblem
from headrace.solvers.solver import AbstractSolver
from headrace.solvers.system import System


def choose(target: AbstractProblem | System) -> AbstractSolver:
    """Multigrid where it fits, a direct method otherwise.

    The rule looks at structure, not at numbers: on diffusion operators multigrid is the fastest method on every grid
    from 32 to 256 points a side (see docs/benchmarks), and a direct method solves whatever is regular.
    """
    from headrace.solvers.methods.direct import Direct
    from headrace.solvers.methods.multigrid import Multigrid

    multigrid = Multigrid()
    return multigrid if multigrid.mismatch(target) is None else Direct()
