"""The stream's actors: who leases, who solves, who stores, and who waits for whom.

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

import asyncio
import gc
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray
from ray.actor import ActorHandle

from headrace.platform.delivery import Delivery, ToDisk, ToShards
from headrace.platform.ledger import Counts, Lease, Ledger
from headrace.platform.manifest import newest, reservoir_name, write_arrays
from headrace.platform.reservoir import Reservoir, ReservoirSpec
from headrace.platform.sample import Failure, Sample, SampleBatch, SampleSource, SourceSpec
from headrace.platform.sample_log import SampleLog
from headrace.platform.stored import StoredSamples

log = logging.getLogger(__name__)

HELD_OUT = ("validation", "test")
ASK_AHEAD_SECONDS = 0.05  # many times a call; little enough that nothing waits idle at a busy solver
LEASE_SECONDS = 1.0  # solvers that are fast take several sequences at once, so that 1,000 of them can be served
SHARES = 4  # a lease is at most this part of what a solver may expect to be left for it
SECONDS_BETWEEN_REPORTS = 2.0
MAX_PREFETCH = 64  # batches that a rank may have been served and not have taken


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """What is streamed and how: everything that the actors need to know, and nothing that cannot be pickled.

    Attributes:
        run_dir: folder of the run; must be reachable from every node that holds a shard.
        checkpoint_dir: where joint checkpoints go.
        sources: the source of each split.
        sequence_length: samples in a sequence, neighbours in the ledger's order; a lease is one sequence, or several
            while they are solved in no time.
        message_bytes: size of a message between solver and shard at most, as far as one sample is not larger [B].
        message_seconds: age of its oldest sample at which a message is sent, full or not [s].
        credits: messages that a solver may have sent and not yet seen acknowledged.
        lease_seconds: how long a solver may be silent, that is: take for one sample, before others get its work [s].
        reservoir: the policy of each shard; None stores without a trainer.
        seed: seed of the reservoirs.
    """

    run_dir: Path
    checkpoint_dir: Path
    sources: dict[str, SourceSpec]
    sequence_length: int
    message_bytes: int
    message_seconds: float
    credits: int
    lease_seconds: float
    reservoir: ReservoirSpec | None
    seed: int

    def data_dir(self, split: str) -> Path:
        """The data set directory of a split."""
        return self.run_dir / "data" / split

    def message_rows(self, split: str) -> int:
        """Samples in a full message: the messages of a full lease are alike, none of them a small remainder."""
        most = max(1, self.message_bytes // self.sources[split].schema().sample_nbytes)
        num_messages = math.ceil(self.sequence_length / most)
        return math.ceil(self.sequence_length / num_messages)

    def sample_log(self, name: str) -> SampleLog:
        """The log of a process that stores samples in shards of this name."""
        rows = {split: self.message_rows(split) for split in self.sources}
        return SampleLog(name, self.sources["train"].schema(), self.data_dir, rows)


def solver_name(number: int) -> str:
    """What a solver is called in leases and messages."""
    return f"solver-{number}"


class Coordinator:
    """Keeps the ledger: leases sequences of indices, commits stored samples, records failures.

    Waits for nobody. Solvers ask it for leases, shards for commits, the driver for snapshots; the only call that
    blocks is `wait_held_out`, woken by the commit or the failure that completes the held-out splits.
    """

    def __init__(self, ledger_path: Path, plan: StreamPlan) -> None:
        self._ledger = Ledger.open(ledger_path)
        self._plan = plan
        self._stopped = False
        self._workers: set[str] = set()
        self._silent: set[str] = set()
        self._changed = asyncio.Condition()
        self._claims: dict[int, int] = {}
        self._reports: dict[tuple[str, str], Mapping[str, object]] = {}

    async def claim_shard(self, rank: int, node: str, shard_nodes: Sequence[str]) -> int:
        """The shard that a training rank reads from: one on its own node if one is free, else any free one."""
        if rank not in self._claims:
            free = [shard for shard in range(len(shard_nodes)) if shard not in self._claims.values()]
            self._claims[rank] = next((shard for shard in free if shard_nodes[shard] == node), free[0])
        return self._claims[rank]

    async def lease(self, worker: str, sequences: int, last: int) -> Lease | None:
        """The next work for a solver: held-out splits first, then training; None when there is nothing left.

        Args:
            worker: name of the solver.
            sequences: how many sequences it would like; it gets fewer where all would not have enough.
            last: id of the last lease that it received, 0 for none.
        """
        if self._stopped:
            return None
        if worker not in self._workers:
            self._workers.add(worker)
            # One that died may have granted a lease and not have said so: nobody else would ever solve it.
            for granted in self._ledger.leases():
                if granted.worker == worker and granted.id > last:
                    return granted
        self._expire()
        for split in (*HELD_OUT, "train"):
            if split in self._plan.sources:
                length = self._plan.sequence_length
                share = self._ledger.counts(split).waiting // (SHARES * len(self._workers) * length)
                count = length * max(1, min(sequences, share))
                lease = self._ledger.lease(worker, split, count, self._plan.lease_seconds)
                if lease is not None:
                    return lease
        return None

    async def renew(self, worker: str) -> None:
        """A solver is at work, though it has nothing to deliver yet."""
        self._ledger.renew(worker)

    async def silent(self) -> list[str]:
        """Solvers that have been silent for too long since the last call; others get what they had leased."""
        self._expire()
        silent, self._silent = sorted(self._silent), set()
        return silent

    def _expire(self) -> None:
        self._silent.update(lease.worker for lease in self._ledger.expire())

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

    async def release(self, worker: str) -> int:
        """Take back what a dead solver had leased; how many samples are stored."""
        self._workers.discard(worker)
        self._ledger.release(worker)
        return sum(self._ledger.counts(split).stored for split in self._plan.sources)

    async def take_back(self) -> dict[str, Counts]:
        """Take back what is still leased though no solver is left; how far each split is then."""
        self._ledger.release_all()
        return await self.counts()

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
            self._delivery = ToShards(shards, plan.credits, alive=self._renew, alive_seconds=self._alive_seconds)
        else:
            self._delivery = ToDisk(plan.sample_log(f"shard-{number}"), coordinator, plan.credits)

    def run(self) -> int:
        """Lease and solve until nothing is left; return the number of samples sent."""
        sources = {split: spec.build() for split, spec in self._plan.sources.items()}
        num_sent, told, alive_at = 0, 0.0, time.monotonic()
        asked = self._coordinator.lease.remote(self._name, 1, 0)
        while (lease := ray.get(asked)) is not None:
            log.debug("%s solves %d samples of %s", self._name, len(lease.indices), lease.split)
            asked = None
            rows = self._plan.message_rows(lease.split)
            ready: list[Sample] = []
            began = oldest = time.monotonic()
            for number, result in enumerate(sources[lease.split].solve(lease.indices), start=1):
                now = time.monotonic()
                pace = max(now - began, 1e-6) / number
                if isinstance(result, Failure):
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
                    sequences = math.ceil(LEASE_SECONDS / (pace * self._plan.sequence_length))
                    asked = self._coordinator.lease.remote(self._name, sequences, lease.id)
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


class ReservoirShard:
    """The store and the reservoir of one training rank.

    `ingest` waits, unacknowledged, while the reservoir is full of samples that nobody has seen; `next_batch` waits
    until the watermark is reached. Each wakes the other, and `end` wakes both.

    One that starts where another one died goes on with its log. The reservoir becomes what it was at the newest joint
    checkpoint, with the batches served again that training had not taken by then; samples that came later are offered
    to it from the log.
    """

    def __init__(self, number: int, plan: StreamPlan, coordinator: str) -> None:
        self._number = number
        self._plan = plan
        self._coordinator = ray.get_actor(coordinator)
        self._log = plan.sample_log(f"shard-{number}")
        self._log_lock = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._stopped = self._ending = False
        self._wait_seconds = 0.0
        self._reservoir: Reservoir | None = None
        # Indices that the reservoir has taken up, and those in the log that it has not, oldest first.
        self._taken_up: set[int] = set()
        self._backlog: list[int] = []
        self._replay: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        # Batches to be served again; how many the rank was served, and the indices of the latest.
        self._again: deque[SampleBatch] = deque()
        self._num_served = 0
        self._served: deque[np.ndarray] = deque(maxlen=MAX_PREFETCH)
        if plan.reservoir is not None:
            self._reservoir = plan.reservoir.build(plan.sources["train"].schema(), seed=plan.seed + number)
            self._come_back(self._reservoir)

    def _come_back(self, reservoir: Reservoir) -> None:
        """Take on what the log and the newest checkpoint say."""
        held = self._log.held("train")
        if not held:
            return
        checkpoint = newest(self._plan.checkpoint_dir)
        path = checkpoint.reservoir(self._number) if checkpoint else None
        if path is not None:
            stored = StoredSamples.open(self._plan.data_dir("train"))
            with np.load(path, allow_pickle=False) as file:
                state = dict(file)
            state["totals"][0] = False  # whether the stream had ended: the driver will say so again
            reservoir.restore(state, stored.batch(stored.positions(state["indices"])))
            self._taken_up.update(state["taken_up"].tolist())
            for indices in np.split(state["again"], np.cumsum(state["again_sizes"])[:-1]):
                if len(indices):
                    self._again.append(stored.batch(stored.positions(indices)))
        self._backlog = sorted(held - self._taken_up)

    def _start_replay(self) -> None:
        """Offer the backlog to the reservoir, in the background. An actor has no event loop before its first call."""
        if self._backlog and self._replay is None:
            self._replay = asyncio.create_task(self._offer_backlog())

    async def _offer_backlog(self) -> None:
        try:
            stored = await asyncio.to_thread(StoredSamples.open, self._plan.data_dir("train"))
            rows = self._plan.message_rows("train")
            for start in range(0, len(self._backlog), rows):
                positions = stored.positions(self._backlog[start : start + rows])
                await self._take_up(await asyncio.to_thread(stored.batch, positions))
        except Exception as error:
            # Nobody waits for this task: the rank, which waits for the samples, is told.
            self._failure = error
            async with self._changed:
                self._changed.notify_all()
            return
        self._backlog = []
        if self._ending:
            await self.end()

    async def save(self, folder: Path, step: int, num_taken: int) -> None:
        """Write, beside the model's checkpoint of a step, what the reservoir holds and what is to be served again.

        Args:
            folder: of the checkpoints.
            step: of the model.
            num_taken: batches that training has taken from its reader; what was served beyond is served again.
        """
        assert self._reservoir is not None
        # A shard that has just started anew has served nothing that it could serve again.
        ahead = min(self._num_served - num_taken, len(self._served))
        again = [*list(self._served)[len(self._served) - ahead :], *(batch.indices for batch in self._again)]
        state = self._reservoir.state(samples=False) | {
            "taken_up": np.array(sorted(self._taken_up), dtype=np.int64),
            "again": np.concatenate([np.zeros(0, np.int64), *again]),
            "again_sizes": np.array([len(indices) for indices in again], dtype=np.int64),
        }
        await asyncio.to_thread(write_arrays, folder / reservoir_name(step, self._number), state)

    async def ingest(self, split: str, lease_id: int, message: SampleBatch) -> None:
        """Store, commit and take up a message; returning is the acknowledgement."""
        self._start_replay()
        async with self._log_lock:
            rows = await asyncio.to_thread(self._log.append, split, message)
            accepted = await self._coordinator.commit.remote(split, self._log.name, lease_id, message.indices.tolist())
        if split == "train" and self._reservoir is not None:
            await self._take_up(message.take([row for row in rows if accepted[row]]))

    async def _take_up(self, batch: SampleBatch) -> None:
        assert self._reservoir is not None
        reservoir = self._reservoir
        taken = 0
        while taken < len(batch):
            async with self._changed:
                accepted = reservoir.try_put(batch, start=taken)
                self._taken_up.update(batch.indices[taken : taken + accepted].tolist())
                taken += accepted
                if accepted:
                    self._changed.notify_all()
                elif self._stopped:
                    return
                else:
                    await self._changed.wait()

    async def next_batch(self, size: int, number: int) -> SampleBatch | None:
        """The rank's next batch; None once the stream has ended and the reservoir has no use left to give.

        Args:
            size: samples in it.
            number: batches that its reader has had before.
        """
        assert self._reservoir is not None, "this stream stores only"
        reservoir = self._reservoir
        self._start_replay()
        started = time.monotonic()
        async with self._changed:
            if self._again and not self._stopped:
                return self._note_served(self._again.popleft(), number)
            await self._changed.wait_for(
                lambda: self._stopped or self._failure or reservoir.exhausted or reservoir.ready(size)
            )
            self._wait_seconds += time.monotonic() - started
            if self._failure is not None:
                raise self._failure
            if self._stopped or not reservoir.ready(size):
                return None
            batch = reservoir.take(size)
            self._changed.notify_all()
            return self._note_served(batch, number)

    def _note_served(self, batch: SampleBatch, number: int) -> SampleBatch:
        self._num_served = number + 1
        self._served.append(batch.indices)
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
        """No more samples will come: serve what there is, the log's backlog included."""
        self._ending = True
        if self._backlog:
            self._start_replay()
            return
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
            await asyncio.to_thread(self._log.close)

    async def stats(self) -> dict[str, float]:
        """Fill, reuse and age of the reservoir, what was served, and how long the rank waited for batches [s]."""
        if self._reservoir is None:
            return {}
        kept = self._reservoir.stats()
        return {
            "fill": kept["fill"],
            "mean_uses": kept["mean_uses"],
            "mean_age_seconds": kept["mean_age_seconds"],
            "distinct": float(kept["distinct"]),
            "spent": kept["spent"] / max(1, kept["size"]),
            "wait_seconds": self._wait_seconds,
        }
