"""SolverActor: the actor that solves what it has leased, and delivers it."""

import gc
import logging
import math
import time
from collections.abc import Mapping, Sequence

import ray
from ray.actor import ActorHandle

from headrace.platform.allocator import keep_freed_memory
from headrace.platform.sample import Failure, Sample
from headrace.platform.source import SampleSource
from headrace.platform.stream.delivery import Delivery, ToDisk, ToShards
from headrace.platform.stream.plan import HELD_OUT, StreamPlan, solver_name

log = logging.getLogger(__name__)

ASK_AHEAD_SECONDS = 0.05  # many times a call; little enough that nothing waits idle at a busy solver
LEASE_SECONDS = 1.0  # solvers that are fast take several sequences at once, so that 1,000 of them can be served
SECONDS_BETWEEN_REPORTS = 2.0


class Spent:
    """What training samples of each level took since it was asked last."""

    def __init__(self) -> None:
        self._by_level: dict[str, tuple[int, float]] = {}

    def add(self, result: Sample | Failure) -> None:
        """Count a sample, or one that failed."""
        made = result if isinstance(result, Failure) else result.provenance
        count, seconds = self._by_level.get(made.level, (0, 0.0))
        self._by_level[made.level] = (count + 1, seconds + made.cpu_seconds)

    def taken(self) -> dict[str, tuple[int, float]]:
        """By level how many there were, and their CPU time [s]; begins anew."""
        taken, self._by_level = self._by_level, {}
        return taken


class SolverActor:
    """Solves leased sequences and has the samples stored.

    Waits for the coordinator's lease, asked for shortly before the last one ends, and for a credit of its `Delivery`
    when too many messages are under way.
    """

    def __init__(self, number: int, plan: StreamPlan, coordinator: ActorHandle, shards: Sequence[ActorHandle]) -> None:
        """Start.

        Args:
            number: makes the name of the solver, and of its shard when it stores by itself.
            plan: what is solved.
            coordinator: who leases.
            shards: where samples go; none when the solver stores them by itself.
        """
        self._name = solver_name(number)
        self._plan = plan
        self._coordinator = coordinator
        self._alive_seconds = plan.lease_seconds / 10
        self._delivery: Delivery
        if shards:
            self._delivery = ToShards(
                shards, plan.credits, by_index=plan.paced, alive=self._renew, alive_seconds=self._alive_seconds
            )
        else:
            self._delivery = ToDisk(plan.sample_log(f"shard-{number}"), coordinator, plan.credits)

    def start(self) -> None:
        """Nothing: the answer says that the cluster has found a place for this actor."""

    def run(self) -> int:
        """Lease and solve until nothing is left; return the number of samples sent."""
        keep_freed_memory()
        sources = {split: spec.build() for split, spec in self._plan.sources.items()}
        requests = {split: self._plan.requests(split) for split in self._plan.sources if split not in HELD_OUT}
        spent = Spent()
        num_sent, told, alive_at = 0, 0.0, time.monotonic()
        asked = self._coordinator.lease.remote(self._name, 1, 0)
        while (lease := ray.get(asked)) is not None:
            log.debug("%s solves %d samples of %s", self._name, len(lease.indices), lease.split)
            asked = None
            rows = self._plan.message_rows(lease.split)
            ready: list[Sample] = []
            began = oldest = time.monotonic()
            wanted = lease.requests or requests[lease.split](lease.indices)
            for number, result in enumerate(sources[lease.split].solve(wanted), start=1):
                now = time.monotonic()
                if lease.split == "train":
                    spent.add(result)
                pace = max(now - began, 1e-6) / number
                if isinstance(result, Failure):
                    if lease.split == "train" and self._plan.parts("train") > 1 and not self._plan.keeps_incomplete:
                        # First: a solver that dies in between has it happen again.
                        self._delivery.discard(lease.split, result.index // self._plan.parts("train"))
                    ray.get(self._coordinator.fail.remote(lease.split, result))
                else:
                    oldest = oldest if ready else now
                    ready.append(result)
                # The next sample may take longer than the oldest one can wait.
                if len(ready) == rows or (ready and now + pace - oldest > self._plan.message_seconds):
                    self._delivery.send(lease, ready)
                    num_sent += len(ready)
                    ready = []
                if now - alive_at > self._alive_seconds:
                    alive_at = now
                    self._renew()
                if asked is None and (len(lease.indices) - number) * pace < ASK_AHEAD_SECONDS:
                    sequences = math.ceil(LEASE_SECONDS / (pace * self._plan.lease_length(lease.split)))
                    asked = self._coordinator.lease.remote(self._name, sequences, lease.id, spent.taken())
            if ready:
                self._delivery.send(lease, ready)
                num_sent += len(ready)
            if not told:
                # What importing and compiling has left stays: the collector need not look at it again and again.
                gc.collect()
                gc.freeze()
            if time.monotonic() - told > SECONDS_BETWEEN_REPORTS:
                told = time.monotonic()
                self._tell(sources)
        self._tell(sources)
        self._delivery.finish()
        return num_sent

    def _renew(self) -> None:
        self._coordinator.renew.remote(self._name)

    def _tell(self, sources: Mapping[str, SampleSource]) -> None:
        # Calls of one actor to another arrive in order: the last report is there before the end is.
        for split, source in sources.items():
            self._coordinator.report.remote(self._name, split, source.report())
