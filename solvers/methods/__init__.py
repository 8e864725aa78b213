"""One method a file; a new method is one file and one entry of this tuple."""

from headrace.solvers.methods.amg import AMG
from headrace.solvers.methods.batched_multigrid import BatchedMultigrid
from headrace.solvers.methods.dcdm import DCDM
from headrace.solvers.methods.direct import Direct
from headrace.solvers.methods.gcrodr import GCRODR
from headrace.solvers.methods.krylov import CG, GMRES, MINRES, BiCGStab
from headrace.solvers.methods.multigrid import Multigrid
from headrace.solvers.methods.recycled_cg import RecycledCG
from headrace.solvers.methods.transform import Transform
from headrace.solvers.systems.solver import AbstractSolver

# Those that say the same cost of themselves are tried in this order.
METHODS: tuple[type[AbstractSolver], ...] = (
    Transform,
    Multigrid,
    BatchedMultigrid,
    GMRES,
    Direct,
    CG,
    AMG,
    RecycledCG,
    BiCGStab,
    GCRODR,
    MINRES,
    DCDM,
)
