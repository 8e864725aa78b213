"""Stream: the driver's hold on the stream's actors, and the feed that training ranks read from.

    Coordinator  <- lease / fail ---   SolverActor x N
         ^                                  |
         | commit                           | messages of a few MB, at most `credits` unacknowledged
         |                                  v
         +---------------------------  ReservoirShard x ranks  --- batches --->  training rank

A message is acknowledged after its samples are in the shard's log, synced, committed in the ledger, and taken up by
the reservoir. So a full reservoir holds back the acknowledgement, the missing acknowledgement holds back the solver,
and nothing grows without bound. When nobody trains there are no shards: each solver stores its samples by itself, in a
thread beside the solving (`delivery.py`). Specs and seeds travel to the solvers; matrices and factors are born and
stay there.
"""

import itertools
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from headrace.platform.cluster import MAX_RESTARTS
from headrace.platform.coordinator import Coordinator
from headrace.platform.errors import RunFailed
from headrace.platform.ledger import MAX_LOSSES, Counts
from headrace.platform.resources import ResourcePlan
from headrace.platform.sample import Failure, SampleBatch
from headrace.platform.shard import ReservoirShard
from headrace.platform.solver_actor import SolverActor
from headrace.platform.stored import shard_paths
from headrace.platform.stream_plan import StreamPlan, solver_name

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 5.0
MAX_DEATHS = MAX_LOSSES + 2  # of solvers in a row, while no sample is stored


@dataclass(frozen=True, kw_only=True)
class StreamFeed:
    """The trainer's end of a stream."""

    coordinator: ActorHandle
    shards: tuple[ActorHandle, ...]
    shard_nodes: tuple[str, ...]

    def claim(self, rank: int, node: str) -> "ShardReader":
        """The shard that a rank on a node reads from; the same one whenever it asks."""
        shard = ray.get(self.coordinator.claim_shard.remote(rank, node, self.shard_nodes))
        return ShardReader(self.shards[shard])

    def held_out(self, split: str) -> SampleBatch:
        """All samples of a held-out split; waits until they are solved."""
        batch: SampleBatch = ray.get(self.shards[0].held_out.remote(split))
        return batch


class ShardReader:
    """Reads batches from one shard, in the rank's process."""

    def __init__(self, shard: ActorHandle) -> None:
        self._shard = shard

    def pull(self, size: int, step: int) -> SampleBatch | None:
        """The batch of a step, its arrays read-only views; None at the end of the stream. Waits for the watermark."""
        batch: SampleBatch | None = ray.get(self._shard.next_batch.remote(size, step))
        return batch

    def save(self, folder: Path, step: int) -> dict[str, int]:
        """Have the reservoir's state written to a checkpoint; see `ReservoirShard.save`."""
        facts: dict[str, int] = ray.get(self._shard.save.remote(folder, step))
        return facts


@dataclass(frozen=True, kw_only=True)
class StreamSnapshot:
    """What the driver sees of a stream at one moment.

    Attributes:
        counts: how far each split is.
        shards: per shard: fill, reuse, age and the like; empty without a reservoir.
    """

    counts: dict[str, Counts]
    shards: list[dict[str, float]]


class Stream:
    """The driver's hold on a stream: starts the actors, replaces solvers that die, ends it.

    Waits in `poll` for the solvers, at most for the time that it is given.
    """

    def __init__(self, plan: StreamPlan, ledger_path: Path, resources: ResourcePlan) -> None:
        self._plan = plan
        self._resources = resources
        # Actors that mostly wait take no CPU of the cluster's count: they must start beside those that compute.
        # One that dies starts anew from its files. What it was asked meanwhile is asked again: all may be repeated.
        lasting = {"num_cpus": 0, "max_restarts": MAX_RESTARTS, "max_task_retries": -1}
        # Shards know it by name: Ray cannot make an actor anew whose arguments hold a handle.
        name = f"coordinator-{uuid.uuid4().hex}"
        self.coordinator = ray.remote(Coordinator).options(**lasting, name=name).remote(ledger_path, plan)
        shard_class = ray.remote(ReservoirShard).options(**lasting, scheduling_strategy=resources.shard_strategy)
        self.shards: list[ActorHandle] = [
            shard_class.remote(number, plan, name)
            for number in range(resources.num_ranks if plan.reservoir is not None else 0)
        ]
        # A shard has one writer, ever: the solvers of a resumed run go on behind those of the earlier one.
        used = [
            int(path.stem.removeprefix("shard-"))
            for split in plan.sources
            for path in shard_paths(plan.data_dir(split))
        ]
        self._numbers = itertools.count(1 + max(used, default=-1))
        self._deaths = self._stored = 0
        self._looked = time.monotonic()
        self._ended = self._stopped = False
        self._running: dict[ray.ObjectRef, tuple[str, ActorHandle]] = {}
        for _ in range(resources.num_solvers):
            self._start_solver()

    def _start_solver(self) -> None:
        number = next(self._numbers)
        options = {
            "num_cpus": self._resources.solver_cpus,
            "num_gpus": self._resources.solver_gpus,
            "scheduling_strategy": self._resources.solver_strategy,
            "runtime_env": {"env_vars": self._resources.solver_environment},
        }
        actor = ray.remote(SolverActor).options(**options).remote(number, self._plan, self.coordinator, self.shards)
        self._running[actor.run.remote()] = (solver_name(number), actor)

    def poll(self, seconds: float) -> bool:
        """Watch the solvers for a while; return whether any is still at work.

        Raises:
            RunFailed: a solver failed in a way that would meet the next one too, or too many died.
        """
        done, _ = ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        for ref in done:
            name, _ = self._running.pop(ref)
            try:
                ray.get(ref)
            except RayTaskError as error:
                raise RunFailed(f"{name} failed: {error.cause}") from error
            except RayActorError as error:
                [stored] = self._ask([self.coordinator.release.remote(name)])
                # A sample that kills its solvers is given up after some; what kills all of them has to end the run.
                self._deaths = 1 if stored > self._stored else self._deaths + 1
                self._stored = stored
                if self._deaths > MAX_DEATHS:
                    raise RunFailed(
                        f"{self._deaths} solver actors died and no sample was stored in between, {name} last: {error}"
                    ) from error
                log.warning("%s died (%s); another takes over its samples", name, error)
                self._start_solver()
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS and self._running:
            self._looked = time.monotonic()
            self._end_silent()
        if not self._running and not self._ended and self._plan.solves and self._is_work_left():
            # The others had left already when these samples came back from one that was lost.
            self._start_solver()
        if not self._running and not self._ended:
            self._ended = True
            self._ask([shard.end.remote() for shard in self.shards])
        return bool(self._running)

    def _end_silent(self) -> None:
        """End solvers that hang: their samples are other solvers' by now, and `poll` replaces them."""
        [silent] = self._ask([self.coordinator.silent.remote()])
        for name, actor in self._running.values():
            if name in silent:
                log.warning(
                    "%s took more than stream.lease_seconds = %g for a sample and is ended; raise it if samples do",
                    name,
                    self._plan.lease_seconds,
                )
                ray.kill(actor)

    def _is_work_left(self) -> bool:
        [counts] = self._ask([self.coordinator.take_back.remote()])
        return any(count.waiting for count in counts.values())

    def feed(self) -> "StreamFeed":
        """What training ranks need to read from this stream; travels to them.

        Raises:
            RunFailed: a shard died.
        """
        nodes = self._ask([shard.node.remote() for shard in self.shards])
        return StreamFeed(coordinator=self.coordinator, shards=tuple(self.shards), shard_nodes=tuple(nodes))

    def snapshot(self) -> StreamSnapshot:
        """Counts and reservoirs as of now.

        Raises:
            RunFailed: the coordinator or a shard died.
        """
        counts, *shards = self._ask(
            [self.coordinator.counts.remote(), *[shard.stats.remote() for shard in self.shards]]
        )
        return StreamSnapshot(counts=counts, shards=shards)

    def failures(self) -> dict[str, tuple[Failure, ...]]:
        """The samples of each split that could not be solved, with their reasons.

        Raises:
            RunFailed: the coordinator died.
        """
        [failures] = self._ask([self.coordinator.failures.remote()])
        return dict(failures)

    def reports(self) -> dict[str, list[Mapping[str, object]]]:
        """What the sources of each split told about their work.

        Raises:
            RunFailed: the coordinator died.
        """
        [reports] = self._ask([self.coordinator.reports.remote()])
        return dict(reports)

    def _ask(self, refs: list[ray.ObjectRef]) -> list[Any]:
        try:
            return list(ray.get(refs, timeout=120))
        except RayTaskError as error:
            raise RunFailed(f"the stream failed: {error.cause}") from error
        except (RayActorError, GetTimeoutError) as error:
            raise RunFailed(f"the coordinator or a reservoir shard died: {error}") from error

    def stop(self, grace_seconds: float = 5.0) -> None:
        """End the stream: no more leases, wake the trainer with the end, close the logs, end the solvers."""
        if self._stopped:
            return
        self._ended = self._stopped = True
        try:
            ray.get(self.coordinator.stop.remote(), timeout=grace_seconds)
            ray.get([shard.stop.remote() for shard in self.shards], timeout=grace_seconds)
        except (RayActorError, GetTimeoutError) as error:
            log.warning("a part of the stream did not answer while it was stopped: %s", error)
        if self._running:
            # A solver between two samples ends by itself; one in a long solve is ended.
            ray.wait(list(self._running), num_returns=len(self._running), timeout=2.0)
        for _, actor in self._running.values():
            ray.kill(actor)
        self._running.clear()
