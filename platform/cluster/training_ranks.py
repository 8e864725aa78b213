"""TrainingRanks: a group of training processes under Ray Train, and what they tell the driver."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import ray
from ray.actor import ActorHandle

from headrace.platform.cluster.cluster import MAX_RESTARTS
from headrace.platform.cluster.resources import THREAD_VARIABLES, ResourcePlan
from headrace.platform.errors import HeadraceError, RunFailed, is_disk_full


class Inbox:
    """An actor that takes the metrics of the training ranks until the driver fetches them. Waits for nobody."""

    def __init__(self) -> None:
        self._reports: list[MetricsReport] = []
        self._failure: str | None = None
        self._num_started = 0

    def start(self) -> None:
        """Count a rank that has found its place."""
        self._num_started += 1

    def put(self, report: "MetricsReport") -> None:
        """Take one report."""
        self._reports.append(report)

    def fail(self, reason: str) -> None:
        """Take the reason why training cannot go on, in this group of ranks or in any other."""
        self._failure = self._failure or reason

    def failure(self) -> str | None:
        """The first such reason."""
        return self._failure

    def drain(self) -> tuple[list["MetricsReport"], int, str | None]:
        """Hand over what has come since the last call, how many ranks ever started, and the failure if there is one."""
        reports, self._reports = self._reports, []
        return reports, self._num_started, self._failure


@dataclass(frozen=True, kw_only=True)
class MetricsReport:
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
        self.inbox.put.remote(MetricsReport(time=time.time(), step=step, metrics=dict(metrics)))


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
    inbox.start.remote()
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

    Attributes:
        needs: what the group asks of the cluster, in words.
        num_started: how many ranks had found their place by the last `drain`, those of earlier groups included.
    """

    def __init__(
        self, loop: Callable[[RankContext, Any], None], job: object, plan: ResourcePlan, run_dir: Path
    ) -> None:
        """Start `loop(context, job)` on every rank."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        self.num_started = 0
        self._inbox = ray.remote(Inbox).options(num_cpus=0).remote()
        gpus = f" and {plan.rank_gpus:g} GPUs" if plan.rank_gpus else ""
        self.needs = f"{plan.num_ranks} rank(s) of {plan.rank_cpus:g} CPUs{gpus}"
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

    def drain(self) -> list[MetricsReport]:
        """The reports since the last call.

        Raises:
            RunFailed: a rank found that training cannot go on.
        """
        reports, self.num_started, failure = ray.get(self._inbox.drain.remote(), timeout=60)
        if failure is not None:
            raise RunFailed(f"training failed: {failure}")
        return list(reports)

    def give_up(self, reason: str) -> None:
        """Let no further group take the place of this one when it fails."""
        self._inbox.fail.remote(reason)

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
