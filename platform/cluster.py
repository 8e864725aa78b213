"""The Ray cluster: connect to one or start one, fit the run into it, run the training ranks."""

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import ray
import ray.exceptions
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from ray.actor import ActorHandle

from headrace.platform.errors import Fault, HeadraceError, InputError, RunFailed, is_disk_full
from headrace.platform.spec import Spec

log = logging.getLogger(__name__)

START_ATTEMPTS = 3
MAX_RESTARTS = 3  # of a part of a run that dies
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class SolverResources(Spec):
    """What the solver actors may use."""

    actors: PositiveInt | None = Field(default=None, description="How many; default: what the trainers leave free.")
    cpus: PositiveFloat | None = Field(default=None, description="CPUs of each; default: an even share, at most 1.")
    threads: PositiveInt = Field(default=1, description="Threads of each.")
    gpus: NonNegativeFloat = Field(default=0.0, description="GPUs of each; may be a fraction.")


class TrainerResources(Spec):
    """What the training ranks may use."""

    ranks: PositiveInt = Field(default=1, description="Data-parallel training processes.")
    cpus: PositiveFloat | None = Field(default=None, description="CPUs of each; default: an even share.")
    threads: PositiveInt | None = Field(
        default=None, description="Threads of each; default: the node's cores, at most 8."
    )
    gpus: NonNegativeFloat | None = Field(
        default=None, description="GPUs of each; default: 1 if every rank can have one."
    )


class ResourcesSpec(Spec):
    """What each part may use, and where it stands. The defaults fit the machine that is found."""

    address: str | None = Field(
        default=None, description='Ray cluster ("auto" or HOST:6379); default: RAY_ADDRESS, else an embedded one.'
    )
    solvers: SolverResources = SolverResources()
    trainers: TrainerResources = TrainerResources()
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
    def shard_strategy(self) -> str:
        """Ray's scheduling strategy for reservoir shards: as the ranks they stand beside."""
        return self.solver_strategy

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


@contextmanager
def connected(spec: ResourcesSpec) -> Iterator[Capacity]:
    """A connection to the cluster that the recipe names, or an embedded one, for as long as the block runs.

    Raises:
        InputError: no cluster answers at the address.
    """
    address = spec.address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield _capacity()
        return
    if address:
        try:
            _set_defaults()
            host, colon, port = address.rpartition(":")
            if colon and port.isdigit() and "//" not in address:
                # Ray itself would try for a minute.
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address=address, **QUIET)
        except (OSError, RuntimeError, ray.exceptions.AuthenticationError) as error:
            raise InputError.single(
                "resources.address",
                str(address),
                "the address of a running Ray cluster, and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token",
                f"Start one with `ray start --head`, or leave the address out. ({_first_line(error)})",
            ) from error
    else:
        start_embedded()
    try:
        yield _capacity()
    finally:
        ray.shutdown()


def _set_defaults() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def start_embedded(num_cpus: int | None = None) -> None:
    """Start a cluster in this process's care, on loopback; `ray.shutdown()` ends it.

    Args:
        num_cpus: CPUs that it counts; default: those of the machine.

    Raises:
        RunFailed: it did not start.
    """
    _set_defaults()
    # Ray's node gives its agents half a minute. On a cold disk importing them takes longer, and the next try finds
    # them in the page cache.
    os.environ.setdefault("RAY_agent_register_timeout_ms", "120000")
    # Ray starts workers with niceness 15: whatever else the user does would starve the run on their own machine.
    os.environ.setdefault("RAY_worker_niceness", "0")
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # Loopback: an embedded cluster is nobody else's business.
            ray.init(num_cpus=num_cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **QUIET)
            return
        except Exception as error:
            # Ray raises a plain Exception here.
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise RunFailed(
                    f"the embedded Ray cluster did not start in {attempt} attempts: {_first_line(error)} "
                    "Is the machine overloaded, or /tmp full? `headrace doctor` looks."
                ) from error
            log.warning("the embedded Ray cluster did not start (%s); trying again", _first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _capacity() -> Capacity:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Capacity(
        cpus=tuple(float(node.get("CPU", 0.0)) for node in nodes),
        gpus=tuple(float(node.get("GPU", 0.0)) for node in nodes),
    )


class Inbox:
    """An actor that takes the metrics of the training ranks until the driver fetches them. Waits for nobody."""

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._failure: str | None = None

    def put(self, report: "Report") -> None:
        """Take one report."""
        self._reports.append(report)

    def fail(self, reason: str) -> None:
        """Take the reason why training cannot go on, in this group of ranks or in any other."""
        self._failure = self._failure or reason

    def failure(self) -> str | None:
        """The first such reason."""
        return self._failure

    def drain(self) -> tuple[list["Report"], str | None]:
        """Hand over what has come since the last call, and the failure, if there is one."""
        reports, self._reports = self._reports, []
        return reports, self._failure


@dataclass(frozen=True, kw_only=True)
class Report:
    """Metrics of the trainer at a step (None: of no step), with the Unix time of their making [s]."""

    time: float
    step: int | None
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """Where a training rank stands in its group, and what Lightning needs to join it."""

    rank: int
    world_size: int
    node: str
    accelerator: Literal["cpu", "gpu"]
    strategy: Any
    plugins: list[Any]
    inbox: ActorHandle

    def report(self, step: int | None, metrics: Mapping[str, float]) -> None:
        """Send metrics to the driver without waiting for it."""
        self.inbox.put.remote(Report(time=time.time(), step=step, metrics=dict(metrics)))


def _rank_context(inbox: ActorHandle) -> RankContext:
    import ray.train.lightning
    import ray.train.torch

    context = ray.train.get_context()
    gpu = ray.train.torch.get_device().type == "cuda"
    return RankContext(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        node=str(ray.get_runtime_context().get_node_id()),
        accelerator="gpu" if gpu else "cpu",
        strategy=ray.train.lightning.RayDDPStrategy(),
        plugins=[ray.train.lightning.RayLightningEnvironment()],
        inbox=inbox,
    )


def _on_rank(parts: dict[str, Any]) -> None:
    """Run the loop. What Headrace itself finds wrong, a new group of ranks would find again: the driver is told."""
    inbox = parts["inbox"]
    if (reason := ray.get(inbox.failure.remote())) is not None:
        raise RunFailed(reason)
    context = _rank_context(inbox)
    try:
        parts["loop"](context, parts["job"])
    except Exception as error:
        if isinstance(error, HeadraceError) or is_disk_full(error):
            ray.get(inbox.fail.remote(f"rank {context.rank}: {error}"))
        raise


class TrainingRanks:
    """A group of training ranks under Ray Train, seen from the driver.

    Ray Train blocks its caller, so it runs in a thread of its own, and the main thread keeps the signals.
    """

    def __init__(
        self, loop: Callable[[RankContext, Any], None], job: object, plan: ResourcePlan, run_dir: Path
    ) -> None:
        """Start `loop(context, job)` on every rank."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        self._inbox = ray.remote(Inbox).options(num_cpus=0).remote()
        resources = {"CPU": plan.rank_cpus}
        if plan.rank_gpus:
            resources["GPU"] = plan.rank_gpus
        trainer = TorchTrainer(
            _on_rank,
            train_loop_config={"loop": loop, "job": job, "inbox": self._inbox},
            torch_config=TorchConfig(backend="nccl" if plan.rank_gpus else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=plan.num_ranks,
                use_gpu=plan.rank_gpus > 0,
                resources_per_worker=resources,
                placement_strategy=plan.placement.upper(),
            ),
            run_config=RunConfig(
                name="ray_train",
                storage_path=str(run_dir.resolve()),
                # A rank that dies takes the group down; the next group goes on from the newest checkpoint.
                failure_config=FailureConfig(max_failures=MAX_RESTARTS),
                worker_runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, str(plan.rank_threads))},
            ),
        )
        self._future: Future[None] = Future()

        def work() -> None:
            try:
                trainer.fit()
                self._future.set_result(None)
            except BaseException as error:
                # The future carries it to the main thread.
                self._future.set_exception(error)

        Thread(target=work, name="ray-train", daemon=True).start()

    def drain(self) -> list[Report]:
        """The reports since the last call.

        Raises:
            RunFailed: a rank found that training cannot go on.
        """
        reports, failure = ray.get(self._inbox.drain.remote(), timeout=60)
        if failure is not None:
            raise RunFailed(f"training failed: {failure}")
        return list(reports)

    def wait(self, seconds: float) -> bool:
        """Wait for the group to end, at most for a while; return whether it has ended.

        Raises:
            RunFailed: a rank failed; the message holds the rank's own error.
        """
        try:
            self._future.result(timeout=seconds)
        except TimeoutError:
            return False
        except ray.train.TrainingFailedError as error:
            raise RunFailed(f"training failed: {_root_cause(error)}") from error
        return True


def _root_cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", None) or {}
    return "; ".join(f"rank {rank}: {failure}" for rank, failure in failures.items()) or str(error)
