"""Resources: what the parts of a run may use, and how that fits into a cluster."""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from headrace.platform.errors import Fault, InputError
from headrace.platform.spec import Count, Spec

MAX_RESTARTS = 3  # of a part of a run that dies
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class SolverResources(Spec):
    """What the solver actors may use."""

    actors: Count | None = Field(default=None, description="How many; default: what the trainers leave free.")
    cpus: PositiveFloat | None = Field(default=None, description="CPUs of each; default: an even share, at most 1.")
    threads: Count = Field(default=1, description="Threads of each.")
    gpus: NonNegativeFloat = Field(default=0.0, description="GPUs of each; may be a fraction.")


class TrainerResources(Spec):
    """What the training ranks may use."""

    ranks: Count = Field(default=1, description="Data-parallel training processes.")
    cpus: PositiveFloat | None = Field(default=None, description="CPUs of each; default: an even share.")
    threads: Count | None = Field(default=None, description="Threads of each; default: the node's cores, at most 8.")
    gpus: NonNegativeFloat | None = Field(
        default=None, description="GPUs of each; default: 1 if every rank can have one."
    )


class ResourcesSpec(Spec):
    """What each part may use, and where it stands. The defaults fit the machine that is found."""

    address: str | None = Field(
        default=None, description='Ray cluster ("auto" or HOST:6379); default: RAY_ADDRESS, else an embedded one.'
    )
    wait_seconds: NonNegativeFloat = Field(
        default=0.0, description="How long to wait for nodes to join a cluster that has too little for the run [s]."
    )
    solvers: SolverResources = Field(default=SolverResources(), description="What the solver actors may use.")
    trainers: TrainerResources = Field(default=TrainerResources(), description="What the training ranks may use.")
    placement: Literal["pack", "spread"] = Field(
        default="pack", description="Keep the parts on few nodes, or spread them over many."
    )


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What a cluster has: CPUs and GPUs of each node."""

    cpus: tuple[float, ...]
    gpus: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ResourcePlan:
    """A run fitted into a cluster."""

    num_solvers: int
    solver_cpus: float
    solver_gpus: float
    solver_threads: int
    num_ranks: int
    rank_cpus: float
    rank_gpus: float
    rank_threads: int
    placement: Literal["pack", "spread"]

    @property
    def solver_strategy(self) -> str:
        """Ray's scheduling strategy for solver actors."""
        return "SPREAD" if self.placement == "spread" else "DEFAULT"

    @property
    def spreads_shards(self) -> bool:
        """Whether the shards stand on several nodes, as the ranks that read them do; else beside the driver."""
        return self.placement == "spread" and self.num_ranks > 1

    @property
    def solver_environment(self) -> dict[str, str]:
        """Thread counts for a solver process; must be set before its libraries load."""
        return dict.fromkeys(THREAD_VARIABLES, str(self.solver_threads))


def _slots(node_sizes: tuple[float, ...], need: float) -> int:
    """How many pieces of a size fit, each whole on one node."""
    return sum(math.floor(size / need + 1e-9) for size in node_sizes) if need > 0 else 10**9


def fit_resources(spec: ResourcesSpec, capacity: Capacity, *, solves: bool = True, trains: bool = True) -> ResourcePlan:
    """Fit a run into a cluster, or say what it asks for too much.

    CPU shares that the recipe leaves open are sized so that all parts run at once: on a laptop, solvers and trainer
    share the cores; threads say how much of a core each really uses.

    Raises:
        InputError: more solver actors, ranks, CPUs or GPUs are asked for than the cluster has.
    """
    total_cpus, total_gpus = sum(capacity.cpus), sum(capacity.gpus)
    ranks = spec.trainers.ranks if trains else 0
    actors = 0
    if solves:
        actors = spec.solvers.actors or max(1, math.floor(total_cpus - ranks * (spec.trainers.cpus or 1.0)))
    gpus_of_rank = spec.trainers.gpus
    if gpus_of_rank is None:
        gpus_of_rank = 1.0 if total_gpus - actors * spec.solvers.gpus >= ranks else 0.0
    fixed = (spec.solvers.cpus or 0.0) * actors + (spec.trainers.cpus or 0.0) * ranks
    shared = actors * (spec.solvers.cpus is None) + ranks * (spec.trainers.cpus is None)
    # The hundredth that is kept back saves a sum of shares from exceeding the total by a rounding error.
    share = min(1.0, math.floor(100 * (total_cpus - fixed) / shared) / 100) if shared else 1.0
    solver_cpus, rank_cpus = spec.solvers.cpus or share, spec.trainers.cpus or share

    faults = []
    has = f"the cluster has {total_cpus:g} CPUs and {total_gpus:g} GPUs on {len(capacity.cpus)} node(s)"
    if share < 0.05 or fixed > total_cpus + 1e-9:
        faults.append(
            Fault(
                where="resources",
                value=f"{actors} solver actors and {ranks} training ranks that need "
                f"{fixed if fixed > total_cpus else fixed + 0.05 * shared:g} CPUs",
                expected=f"at most {total_cpus:g} CPUs: {has}",
                advice="Lower solvers.actors, trainers.ranks or their cpus, or connect to a larger cluster.",
            )
        )
    elif _slots(capacity.cpus, rank_cpus) < ranks or _slots(capacity.cpus, solver_cpus) < actors:
        faults.append(
            Fault(
                where="resources",
                value=f"{solver_cpus:g} CPUs a solver actor and {rank_cpus:g} a rank",
                expected=f"each actor and rank to fit on one node: the largest has {max(capacity.cpus):g} CPUs",
                advice="Lower cpus, or the number of actors.",
            )
        )
    wanted_gpus = actors * spec.solvers.gpus + ranks * gpus_of_rank
    if wanted_gpus > total_gpus + 1e-9:
        faults.append(
            Fault(
                where="resources",
                value=f"{wanted_gpus:g} GPUs for solvers and trainers",
                expected=f"at most {total_gpus:g}: {has}",
                advice="Lower solvers.gpus or trainers.gpus, or connect to a cluster with more GPUs.",
            )
        )
    if faults:
        raise InputError(faults)
    ranks_a_node = max(1, math.ceil(ranks / len(capacity.cpus)))
    threads = spec.trainers.threads or max(1, min(8, int(max(capacity.cpus)) // ranks_a_node))
    return ResourcePlan(
        num_solvers=actors,
        solver_cpus=solver_cpus,
        solver_gpus=spec.solvers.gpus,
        solver_threads=spec.solvers.threads,
        num_ranks=ranks,
        rank_cpus=rank_cpus,
        rank_gpus=gpus_of_rank,
        rank_threads=threads,
        placement=spec.placement,
    )
