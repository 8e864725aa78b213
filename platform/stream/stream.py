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

import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from jaxtyping import Float32, Int64
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from headrace.platform.cluster.cluster import actors_answer, silent_gcs
from headrace.platform.cluster.resources import MAX_RESTARTS, ResourcePlan
from headrace.platform.dataset.reader import shard_paths
from headrace.platform.files import read_holder
from headrace.platform.ledger.lease import Counts
from headrace.platform.sample import Failure, SampleBatch
from headrace.platform.stream.coordinator import Coordinator
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.shard import ReservoirShard
from headrace.platform.stream.solver_team import SolverTeam, answers

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0  # with an actor, before what it said last has to do
SECONDS_TO_START = 30.0  # that an actor may take to answer for the first time, before that is said
SILENT_SECONDS = 5.0  # after which it is said that an actor does not answer


class _Answer[T]:
    """What an actor answers to one question, which is asked again when it has answered; waits no longer than told."""

    def __init__(self, ask: Callable[[], ray.ObjectRef]) -> None:
        self._ask = ask
        self._asked: ray.ObjectRef | None = None
        self._since = 0.0
        self._last: T | None = None

    @property
    def seconds(self) -> float:
        """How long the answer has been waited for [s]; 0 when it came."""
        return 0.0 if self._asked is None else time.monotonic() - self._since

    @property
    def is_silent(self) -> bool:
        """Whether that is long; one that has not answered yet may be starting."""
        return self.seconds > (SECONDS_TO_START if self._last is None else SILENT_SECONDS)

    def within(self, seconds: float) -> T | None:
        """The answer as of now, or if that does not come in time the last one; None while there was none.

        Raises:
            RunFailed: the actor died for good, or its work failed.
        """
        if self._asked is None:
            self._asked, self._since = self._ask(), time.monotonic()
        # One that has been silent is not waited for again.
        patience = seconds if self.seconds < seconds else 0.0
        if ray.wait([self._asked], timeout=patience)[0]:
            asked, self._asked = self._asked, None
            [self._last] = answers([asked])
        return self._last


@dataclass(frozen=True, kw_only=True)
class StreamFeed:
    """The trainer's end of a stream.

    Attributes:
        coordinator: who leases.
        shards: one a rank.
        is_observed: whether the sampler wants to know of losses; `ShardReader.observe` is of no use otherwise.
    """

    coordinator: ActorHandle
    shards: tuple[ActorHandle, ...]
    is_observed: bool = False

    def claim(self, rank: int, node: str) -> "ShardReader":
        """The shard that a rank on a node reads from; the same one whenever it asks."""
        nodes = ray.get([shard.node.remote() for shard in self.shards])
        shard = ray.get(self.coordinator.claim_shard.remote(rank, node, nodes))
        return ShardReader(self.shards[shard], self.coordinator)

    def held_out(self, split: str) -> SampleBatch:
        """All samples of a held-out split; waits until they are solved."""
        batch: SampleBatch = ray.get(self.shards[0].held_out.remote(split))
        return batch


class ShardReader:
    """Reads batches from one shard, and tells the coordinator what was observed, in the rank's process."""

    def __init__(self, shard: ActorHandle, coordinator: ActorHandle) -> None:
        self._shard, self._coordinator = shard, coordinator

    def pull(self, size: int, step: int) -> SampleBatch | None:
        """The batch of a step, its arrays read-only views; None at the end of the stream. Waits for the watermark."""
        batch: SampleBatch | None = ray.get(self._shard.next_batch.remote(size, step))
        return batch

    def save(self, folder: Path, step: int) -> dict[str, int]:
        """Have the reservoir's state written to a checkpoint; see `ReservoirShard.save`."""
        facts: dict[str, int] = ray.get(self._shard.save.remote(folder, step))
        return facts

    def observe(self, indices: Int64[np.ndarray, " batch"], losses: Float32[np.ndarray, " batch"]) -> None:
        """Have the sampler told of the losses of training samples; returns at once.

        Better several steps together than one by one. What is under way when a process dies is lost.

        Raises:
            ValueError: there are not as many losses as indices.
        """
        if len(indices) != len(losses):
            raise ValueError(f"one loss for each of {len(indices)} samples, got {len(losses)}")
        self._coordinator.observe.remote(indices, losses)


@dataclass(frozen=True, kw_only=True)
class StreamSnapshot:
    """What the driver sees of a stream at one moment.

    Attributes:
        counts: how far each split is.
        solvers: how many solvers there are, those that wait included.
        waiting: how many of them have not found a place in the cluster yet.
        shards: per shard: fill, reuse, age and the like; empty without a reservoir.
    """

    counts: dict[str, Counts]
    solvers: int
    waiting: int
    shards: list[dict[str, float]]


class Stream:
    """The driver's hold on a stream: starts the actors, looks after the solvers, ends it.

    Waits in `poll` for the solvers, at most for the time that it is given.
    """

    def __init__(self, plan: StreamPlan, ledger_path: Path, resources: ResourcePlan) -> None:
        self._plan = plan
        # Actors that mostly wait take no CPU of the cluster's count: they must start beside those that compute.
        # One that dies starts anew from its files. What it was asked meanwhile is asked again: all may be repeated.
        lasting = {"num_cpus": 0, "max_restarts": MAX_RESTARTS, "max_task_retries": -1}
        # Shards know it by name: Ray cannot make an actor anew whose arguments hold a handle.
        name = f"coordinator-{uuid.uuid4().hex}"
        # Beside the driver: no link can be cut between those that a run cannot go on without.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.coordinator = (
            ray.remote(Coordinator).options(**lasting, name=name, scheduling_strategy=here).remote(ledger_path, plan)
        )
        shard_class = ray.remote(ReservoirShard).options(
            **lasting, scheduling_strategy="SPREAD" if resources.spreads_shards else here
        )
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
        self.solvers = SolverTeam(plan, resources, self.coordinator, self.shards, 1 + max(used, default=-1))
        self._ended = self._stopped = False
        self._ending: list[ray.ObjectRef] = []
        self._counts: _Answer[dict[str, Counts]] = _Answer(self.coordinator.counts.remote)
        self._stats: list[_Answer[dict[str, float]]] = [_Answer(shard.stats.remote) for shard in self.shards]
        self._ledger_path = ledger_path

    def poll(self, seconds: float) -> bool:
        """Watch the solvers for a while; return whether any is still at work.

        Raises:
            RunFailed: a solver failed in a way that would meet the next one too, or too many died.
        """
        self.solvers.poll(seconds)
        if self.solvers and self.solvers.waiting == len(self.solvers) and self._is_all_done():
            # The others did all of it, while these waited for a place in the cluster.
            self.solvers.stop(0.0)
        if not self.solvers and not self._ended and self._plan.solves and self._is_work_left():
            # The others had left already when these samples came back from one that was lost.
            self.solvers.start_one()
        if not self.solvers and not self._stopped:
            self._ended = True
            # Every time: a shard that has died since does not know. One that is starting anew may take long.
            self._ending = self._ending or [shard.end.remote() for shard in self.shards]
            if self._ending:
                told, self._ending = ray.wait(self._ending, num_returns=len(self._ending), timeout=PATIENCE_SECONDS)
                answers(told)
        return bool(self.solvers)

    def _is_all_done(self) -> bool:
        [counts] = answers([self.coordinator.counts.remote()])
        return all(count.stored + count.failed == count.planned for count in counts.values())

    def _is_work_left(self) -> bool:
        """Whether samples wait to be solved; only when no solver is left, whose leases would be taken from it."""
        [counts] = answers([self.coordinator.take_back.remote()])
        return any(count.waiting for count in counts.values())

    def feed(self) -> "StreamFeed":
        """What training ranks need to read from this stream; travels to them, and waits for nobody here."""
        return StreamFeed(
            coordinator=self.coordinator,
            shards=tuple(self.shards),
            is_observed=self._plan.solves and self._plan.sampler.decides_late,
        )

    def snapshot(self) -> StreamSnapshot:
        """Counts and reservoirs as of now.

        Raises:
            RunFailed: the coordinator or a shard died.
        """
        counts, *shards = answers([self.coordinator.counts.remote(), *[shard.stats.remote() for shard in self.shards]])
        return StreamSnapshot(counts=counts, solvers=len(self.solvers), waiting=self.solvers.waiting, shards=shards)

    def glance(self) -> StreamSnapshot | None:
        """The same, with what was heard last of those that do not answer soon; None before the coordinator has.

        Raises:
            RunFailed: the coordinator or a shard died for good.
        """
        counts = self._counts.within(PATIENCE_SECONDS)
        shards = [asked.within(PATIENCE_SECONDS) or {} for asked in self._stats]
        if counts is None:
            return None
        return StreamSnapshot(counts=counts, solvers=len(self.solvers), waiting=self.solvers.waiting, shards=shards)

    def silent(self) -> dict[str, str]:
        """Which parts of the stream have not answered for a while, and who has their files meanwhile."""
        parts = {"the coordinator": (self._counts, Path(f"{self._ledger_path}.lock"))} | {
            f"shard {number}": (asked, self._plan.data_dir("train") / f"shard-{number}.zarr")
            for number, asked in enumerate(self._stats)
        }
        found = {}
        for who, (asked, path) in parts.items():
            if asked.is_silent:
                holder = read_holder(path)
                by = f"; {path} is in the hands of {holder}" if holder is not None else ""
                found[who] = f"has not answered for {asked.seconds:.0f} s{by}"
        return found

    def failures(self) -> dict[str, tuple[Failure, ...]]:
        """The samples of each split that could not be solved, with their reasons.

        Raises:
            RunFailed: the coordinator died.
        """
        [failures] = answers([self.coordinator.failures.remote()])
        return dict(failures)

    def reports(self) -> dict[str, list[Mapping[str, object]]]:
        """What the sources of each split told about their work.

        Raises:
            RunFailed: the coordinator died.
        """
        [reports] = answers([self.coordinator.reports.remote()])
        return dict(reports)

    def stop(self, grace_seconds: float = 5.0) -> None:
        """End the stream: no more leases, wake the trainer with the end, close the logs, end the solvers.

        What these had leased then waits again: nobody is under way any more.
        """
        if self._stopped:
            return
        self._ended = self._stopped = True
        if not actors_answer():
            return
        try:
            ray.get(self.coordinator.stop.remote(), timeout=grace_seconds)
            ray.get([shard.stop.remote() for shard in self.shards], timeout=grace_seconds)
        except (RayActorError, GetTimeoutError) as error:
            log.warning("a part of the stream did not answer while it was stopped: %s", error)
        self.solvers.stop(2.0)
        try:
            # What they had not delivered is under way no more.
            ray.get(self.coordinator.take_back.remote(), timeout=grace_seconds)
        except (RayActorError, GetTimeoutError) as error:
            log.warning("the ledger still counts samples as under way: %s", error)

    def close(self) -> None:
        """End the coordinator and the shards of a stream that was stopped; their files are free then."""
        if actors_answer() and silent_gcs() is None:
            for actor in (*self.shards, self.coordinator):
                ray.kill(actor)
