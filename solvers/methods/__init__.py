"""One method a file; a new method is one file and one entry of this tuple."""

from headrace.platform.spec import one_of
from headrace.solvers.methods.amg import AMG
from headrace.solvers.methods.auto import Auto
from headrace.solvers.methods.batched_multigrid import BatchedMultigrid
from headrace.solvers.methods.dcdm import DCDM
from headrace.solvers.methods.direct import Direct
from headrace.solvers.methods.gcrodr import GCRODR
from headrace.solvers.methods.krylov import CG, GMRES, MINRES, BiCGStab
from headrace.solvers.methods.multigrid import Multigrid
from headrace.solvers.methods.recycled_cg import RecycledCG
from headrace.solvers.methods.transform import Transform
from headrace.solvers.solver import AbstractSolver

METHODS: tuple[type[AbstractSolver], ...] = (
    Auto,
    Multigrid,
    Direct,
    GCRODR,
    AMG,
    Transform,
    RecycledCG,
    CG,
    MINRES,
    GMRES,
    BiCGStab,
    BatchedMultigrid,
    DCDM,
)
AnyMethod = one_of("headrace.methods", METHODS)

__all__ = [
    "AMG",
    "CG",
    "DCDM",
    "GCRODR",
    "GMRES",
    "METHODS",
    "MINRES",
    "AnyMethod",
    "Auto",
    "BatchedMultigrid",
    "BiCGStab",
    "Direct",
    "Multigrid",
    "RecycledCG",
    "Transform",
]
