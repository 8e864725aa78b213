"""Delivery: how a solver gets its samples stored while it goes on solving, and who waits for whom.

    with a trainer:     SolverActor --- messages ---> ReservoirShard --- commit ---> Coordinator
    without a trainer:  SolverActor's thread, own log ----------------- commit ---> Coordinator

Samples that nobody trains on need no second process: the solver's own thread compresses, writes and syncs them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import ray
from ray.actor import ActorHandle

from headrace.platform.dataset.log import SampleLog
from headrace.platform.ledger.lease import Lease
from headrace.platform.sample import Sample, SampleBatch


class Delivery(Protocol):
    """Takes messages, as many at a time as it has credits, and waits when it has none left."""

    def send(self, lease: Lease, samples: list[Sample]) -> None:
        """Hand over samples of a lease; waits for a credit."""
        ...

    def discard(self, split: str, trajectory: int) -> None:
        """Have the reservoirs let go of the parts of a trajectory that broke; what is stored stays."""
        ...

    def finish(self) -> None:
        """Wait until all that was sent is stored and committed."""
        ...


class ToShards:
    """Sends messages to the shards of the training ranks; a shard gives a credit back by acknowledging."""

    def __init__(
        self,
        shards: Sequence[ActorHandle],
        credits: int,
        *,
        by_index: bool,
        alive: Callable[[], None],
        alive_seconds: float,
    ) -> None:
        """Send nothing yet.

        Args:
            shards: one a rank.
            credits: messages that may be unacknowledged.
            by_index: sample i goes to shard i modulo their number, whatever that costs.
            alive: says that the solver waits and does not hang, however long the trainer takes.
            alive_seconds: how often, while it waits [s].
        """
        self._shards = list(shards)
        self._credits = credits
        self._by_index = by_index
        self._alive, self._alive_seconds = alive, alive_seconds
        self._unacknowledged: dict[ray.ObjectRef, int] = {}

    def send(self, lease: Lease, samples: list[Sample]) -> None:
        """Send to the shard that lags least behind, or to each its own; held-out samples go to the first."""
        if self._by_index and lease.split == "train":
            for shard in range(len(self._shards)):
                part = [sample for sample in samples if sample.provenance.index % len(self._shards) == shard]
                if part:
                    self._send(lease, part, shard)
            return
        self._await_acknowledgements(self._credits - 1)
        shard = 0
        if lease.split == "train":
            under_way = list(self._unacknowledged.values())
            # Ties go round by the index, so that ranks fill alike.
            first = samples[0].provenance.index % len(self._shards)
            order = [(first + k) % len(self._shards) for k in range(len(self._shards))]
            shard = min(order, key=under_way.count)
        self._send(lease, samples, shard)

    def _send(self, lease: Lease, samples: list[Sample], shard: int) -> None:
        self._await_acknowledgements(self._credits - 1)
        message = SampleBatch.stack(samples)
        self._unacknowledged[self._shards[shard].ingest.remote(lease.split, lease.id, message)] = shard

    def discard(self, split: str, trajectory: int) -> None:
        """Tell all shards; returns when they know."""
        ray.get([shard.discard.remote(split, trajectory) for shard in self._shards])

    def finish(self) -> None:
        """Wait for every acknowledgement."""
        self._await_acknowledgements(0)

    def _await_acknowledgements(self, most_left: int) -> None:
        while len(self._unacknowledged) > most_left:
            done, _ = ray.wait(list(self._unacknowledged), num_returns=1, timeout=self._alive_seconds)
            if not done:
                self._alive()
            ray.get(done)
            for ref in done:
                del self._unacknowledged[ref]


class ToDisk:
    """Stores messages in this process's own log, in one thread; it gives a credit back after the commit."""

    def __init__(self, log: SampleLog, coordinator: ActorHandle, credits: int) -> None:
        self._log = log
        self._coordinator = coordinator
        self._credits = credits
        self._thread = ThreadPoolExecutor(1, "store")
        self._under_way: deque[Future[None]] = deque()

    def send(self, lease: Lease, samples: list[Sample]) -> None:
        """Leave the samples to the thread.

        Raises:
            OSError: an earlier message could not be stored: the disk failed or is full.
        """
        self._await(self._credits - 1)
        self._under_way.append(self._thread.submit(self._store, lease, samples))

    def discard(self, split: str, trajectory: int) -> None:
        """Nothing: there are no reservoirs."""

    def finish(self) -> None:
        """Wait for the thread and close the log."""
        self._await(0)
        self._thread.shutdown()
        self._log.close()

    def _store(self, lease: Lease, samples: list[Sample]) -> None:
        batch = SampleBatch.stack(samples)
        self._log.append(lease.split, batch)
        ray.get(self._coordinator.commit.remote(lease.split, self._log.name, lease.id, batch.indices.tolist()))

    def _await(self, most_left: int) -> None:
        while len(self._under_way) > most_left:
            self._under_way.popleft().result()
