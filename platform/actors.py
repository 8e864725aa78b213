"""The stream's actors: who leases, who solves, who stores, and who waits for whom.

    Coordinator  <- lease / fail ---   SolverActor x N
         ^                                  |
         | commit                           | messages of 0.25-1 MB, at most `credits` unacknowledged
         |                                  v
         +---------------------------  ReservoirShard x ranks  --- batches --->  training rank

A message is acknowledged after its samples are in the shard's log, synced, committed in the ledger, and taken up by
the reservoir. So a full reservoir holds back the acknowledgement, the missing acknowledgement holds back the solver,
and nothing grows without bound. Specs and seeds travel to the solvers; matrices and factors are born and stay there.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.actor import ActorHandle

from headrace.platform.fields import SampleSchema
from headrace.platform.ledger import Counts, Lease, Ledger
from headrace.platform.reservoir import Reservoir, ReservoirSpec
from headrace.platform.sample import Failure, Sample, SampleBatch, SourceSpec
from headrace.platform.store import SampleStore
from headrace.platform.stored import StoredSamples

log = logging.getLogger(__name__)

HELD_OUT = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """What is streamed and how: everything that the actors need to know, and nothing that cannot be pickled.

    Attributes:
        run_dir: folder of the run; must be reachable from every node that holds a shard.
        sources: the source of each split.
        sequence_length: samples in a lease, neighbours in the ledger's order.
        message_bytes: size of a message between solver and shard [B].
        credits: messages that a solver may have sent and not yet seen acknowledged.
        lease_seconds: how long a lease stays valid [s].
        reservoir: the policy of each shard; None stores without a trainer.
        seed: seed of the reservoirs.
    """

    run_dir: Path
    sources: dict[str, SourceSpec]
    sequence_length: int
    message_bytes: int
    credits: int
    lease_seconds: float
    reservoir: ReservoirSpec | None
    seed: int

    def data_dir(self, split: str) -> Path:
        """The data set directory of a split."""
        return self.run_dir / "data" / split


class Coordinator:
    """Keeps the ledger: leases sequences of indices, commits stored samples, records failures.

    Waits for nobody. Solvers ask it for leases, shards for commits, the driver for snapshots; the only call that
    blocks is `wait_held_out`, woken by the commit or the failure that completes the held-out splits.
    """

    def __init__(self, ledger_path: Path, plan: StreamPlan) -> None:
        self._ledger = Ledger.open(ledger_path)
        self._plan = plan
        self._stopped = False
        self._changed = asyncio.Condition()
        self._claims: dict[int, int] = {}
        self._reports: dict[tuple[str, str], Mapping[str, object]] = {}

    async def claim_shard(self, rank: int, node: str, shard_nodes: Sequence[str]) -> int:
        """The shard that a training rank reads from: one on its own node if one is free, else any free one."""
        if rank not in self._claims:
            free = [shard for shard in range(len(shard_nodes)) if shard not in self._claims.values()]
            self._claims[rank] = next((shard for shard in free if shard_nodes[shard] == node), free[0])
        return self._claims[rank]

    async def lease(self, worker: str) -> Lease | None:
        """The next sequence for a solver: held-out splits first, then training; None when there is nothing left."""
        if self._stopped:
            return None
        # A solver that has been silent for too long loses its lease to the next that asks.
        self._ledger.expire()
        for split in (*HELD_OUT, "train"):
            if split in self._plan.sources:
                lease = self._ledger.lease(worker, split, self._plan.sequence_length, self._plan.lease_seconds)
                if lease is not None:
                    return lease
        return None

    async def commit(self, split: str, shard: str, lease_id: int, indices: Sequence[int]) -> list[bool]:
        """Commit samples that are safe on disk; False marks those that were committed before."""
        fresh = self._ledger.commit(split, shard, lease_id, indices)
        await self._wake()
        return fresh

    async def fail(self, split: str, failure: Failure) -> None:
        """Record a sample that could not be solved."""
        log.warning("sample %d of %s failed: %s", failure.index, split, failure.reason)
        self._ledger.fail(
            split,
            failure.index,
            failure.level,
            failure.reason,
            failure.wall_seconds,
            failure.cpu_seconds,
        )
        await self._wake()

    async def report(self, worker: str, split: str, report: Mapping[str, object]) -> None:
        """Keep what a solver has to tell about a split, in place of what it told before."""
        self._reports[worker, split] = report

    async def reports(self) -> dict[str, list[Mapping[str, object]]]:
        """What the solvers told last, by split; also those that have died since."""
        return {
            split: [report for (_, about), report in self._reports.items() if about == split]
            for split in self._plan.sources
        }

    async def release(self, worker: str) -> None:
        """Take back what a dead solver had leased."""
        self._ledger.release(worker)

    async def wait_held_out(self) -> None:
        """Return once every held-out sample is stored or recorded as failed, or the stream is stopped."""
        splits = [split for split in HELD_OUT if split in self._plan.sources]
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._stopped or all(self._ledger.is_complete(split) for split in splits)
            )

    async def counts(self) -> dict[str, Counts]:
        """How far each split is."""
        return {split: self._ledger.counts(split) for split in self._plan.sources}

    async def failures(self) -> dict[str, tuple[Failure, ...]]:
        """The samples of each split that could not be solved."""
        return {split: self._ledger.failures(split) for split in self._plan.sources}

    async def stop(self) -> None:
        """Grant no more leases."""
        self._stopped = True
        await self._wake()

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class SolverActor:
    """Solves leased sequences and sends the samples on.

    Waits for a shard's acknowledgement when `credits` messages are under way; the shard wakes it by acknowledging.
    """

    def __init__(self, name: str, plan: StreamPlan, coordinator: ActorHandle, shards: Sequence[ActorHandle]) -> None:
        self._name = name
        self._plan = plan
        self._coordinator = coordinator
        self._shards = list(shards)
        self._unacknowledged: dict[ray.ObjectRef, int] = {}

    def run(self) -> int:
        """Lease and solve until nothing is left; return the number of samples sent."""
        sources = {split: spec.build() for split, spec in self._plan.sources.items()}
        num_sent, settled = 0, False
        while (lease := ray.get(self._coordinator.lease.remote(self._name))) is not None:
            log.debug("%s solves %d samples of %s", self._name, len(lease.indices), lease.split)
            message_size = max(1, self._plan.message_bytes // self._plan.sources[lease.split].schema().sample_nbytes)
            ready: list[Sample] = []
            for result in sources[lease.split].solve(lease.indices):
                if isinstance(result, Failure):
                    ray.get(self._coordinator.fail.remote(lease.split, result))
                    continue
                ready.append(result)
                if len(ready) == message_size:
                    self._send(lease, ready)
                    num_sent += len(ready)
                    ready = []
            if ready:
                self._send(lease, ready)
                num_sent += len(ready)
            if not settled:
                # What importing and compiling has left stays: the collector need not look at it again and again.
                gc.collect()
                gc.freeze()
                settled = True
            # Calls of one actor to another arrive in order: the last lease's report is there before the end is.
            self._coordinator.report.remote(self._name, lease.split, sources[lease.split].report())
        self._await_acknowledgements(0)
        return num_sent

    def _send(self, lease: Lease, samples: list[Sample]) -> None:
        self._await_acknowledgements(self._plan.credits - 1)
        shard = 0
        if lease.split == "train":
            under_way = list(self._unacknowledged.values())
            # The shard that lags least behind; ties go round by the index, so that ranks fill alike.
            first = samples[0].provenance.index % len(self._shards)
            order = [(first + k) % len(self._shards) for k in range(len(self._shards))]
            shard = min(order, key=under_way.count)
        message = SampleBatch.stack(samples)
        self._unacknowledged[self._shards[shard].ingest.remote(lease.split, lease.id, message)] = shard

    def _await_acknowledgements(self, most_left: int) -> None:
        while len(self._unacknowledged) > most_left:
            done, _ = ray.wait(list(self._unacknowledged), num_returns=1)
            ray.get(done)
            for ref in done:
                del self._unacknowledged[ref]


class ReservoirShard:
    """The store and the reservoir of one training rank.

    `ingest` waits, unacknowledged, while the reservoir is full of samples that nobody has seen; `next_batch` waits
    until the watermark is reached. Each wakes the other, and `end` wakes both.
    """

    def __init__(self, name: str, plan: StreamPlan, schema: SampleSchema, coordinator: ActorHandle) -> None:
        self._name = name
        self._plan = plan
        self._schema = schema
        self._coordinator = coordinator
        self._stores: dict[str, SampleStore] = {}
        self._held: set[tuple[str, int]] = set()
        self._log_lock = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._stopped = False
        self._wait_seconds = 0.0
        self._reservoir: Reservoir | None = None
        if plan.reservoir is not None:
            number = int(name.rsplit("-", 1)[-1])
            self._reservoir = plan.reservoir.build(schema, seed=plan.seed + number)

    async def ingest(self, split: str, lease_id: int, message: SampleBatch) -> None:
        """Store, commit and take up a message; returning is the acknowledgement."""
        async with self._log_lock:
            rows = [row for row, index in enumerate(message.indices) if (split, int(index)) not in self._held]
            if rows:
                fresh = message.take(rows)
                await asyncio.to_thread(self._append, split, fresh)
                self._held.update((split, int(index)) for index in fresh.indices)
            else:
                fresh = None
            accepted = await self._coordinator.commit.remote(
                split, self._name, lease_id, [int(index) for index in message.indices]
            )
        if fresh is None or split != "train" or self._reservoir is None:
            return
        kept = [position for position, row in enumerate(rows) if accepted[row]]
        await self._take_up(fresh.take(kept))

    def _append(self, split: str, batch: SampleBatch) -> None:
        if split not in self._stores:
            path = self._plan.data_dir(split) / f"{self._name}.zarr"
            self._stores[split] = SampleStore.create(path, self._schema, {"split": split})
        self._stores[split].append(batch)

    async def _take_up(self, batch: SampleBatch) -> None:
        assert self._reservoir is not None
        reservoir = self._reservoir
        taken = 0
        while taken < len(batch):
            async with self._changed:
                accepted = reservoir.try_put(batch, start=taken)
                taken += accepted
                if accepted:
                    self._changed.notify_all()
                elif self._stopped:
                    return
                else:
                    await self._changed.wait()

    async def next_batch(self, size: int) -> SampleBatch | None:
        """The rank's next batch; None once the stream has ended and the reservoir has no use left to give."""
        assert self._reservoir is not None, "this stream stores only"
        reservoir = self._reservoir
        started = time.monotonic()
        async with self._changed:
            await self._changed.wait_for(lambda: self._stopped or reservoir.exhausted or reservoir.ready(size))
            self._wait_seconds += time.monotonic() - started
            if self._stopped or not reservoir.ready(size):
                return None
            batch = reservoir.take(size)
            self._changed.notify_all()
            return batch

    async def node(self) -> str:
        """The id of the node that this shard runs on."""
        return str(ray.get_runtime_context().get_node_id())

    async def held_out(self, split: str) -> SampleBatch:
        """All samples of a held-out split, once they are complete."""
        await self._coordinator.wait_held_out.remote()
        stored = await asyncio.to_thread(StoredSamples.open, self._plan.data_dir(split))
        return await asyncio.to_thread(stored.read_all)

    async def end(self) -> None:
        """No more samples will come: serve what there is."""
        async with self._changed:
            if self._reservoir is not None:
                self._reservoir.end()
            self._changed.notify_all()

    async def stop(self) -> None:
        """Serve nothing more, wake everyone who waits, and close the logs."""
        self._stopped = True
        async with self._changed:
            self._changed.notify_all()
        async with self._log_lock:
            for store in self._stores.values():
                await asyncio.to_thread(store.close)

    async def stats(self) -> dict[str, float]:
        """Fill, reuse and age of the reservoir, and how long the rank has waited for batches [s]."""
        if self._reservoir is None:
            return {}
        kept = self._reservoir.stats()
        return {
            "fill": kept["fill"],
            "mean_uses": kept["mean_uses"],
            "mean_age_seconds": kept["mean_age_seconds"],
            "wait_seconds": self._wait_seconds,
        }
