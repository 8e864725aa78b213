"""Coordinator: the actor that leases sequences of samples and keeps the ledger."""

import asyncio
import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from headrace.platform.ledger.commits import MOST_TOGETHER, Commit
from headrace.platform.ledger.lease import Counts, Lease
from headrace.platform.ledger.ledger import Ledger, seconds_since_boot
from headrace.platform.sample import Failure
from headrace.platform.samplers.sampler import Sampler
from headrace.platform.samplers.stratified import STRATIFIED
from headrace.platform.stream.decisions import Decisions
from headrace.platform.stream.gathered import Gathered
from headrace.platform.stream.plan import HELD_OUT, TAKE_OVER_SECONDS, StreamPlan

log = logging.getLogger(__name__)

STOOD_STILL_SECONDS = 60.0  # without a look at the leases, for which the driver asks every few seconds
SHARES = 4  # a lease is at most this part of what a solver may expect to be left for it


class Coordinator:
    """Keeps the ledger: leases sequences of samples, decided by its sampler, commits stored ones, records failures.

    Waits for nobody but the disk. Solvers ask it for leases, shards for commits, the driver for snapshots. Commits wait
    for the flusher, a thread that writes and syncs all that have come as one transaction, and then answers them; leases
    do not. `wait_held_out` and `wait_settled` wait for others, woken by the commit or the failure that they wait for.
    """

    def __init__(self, ledger_path: Path, plan: StreamPlan, clock: Callable[[], float] = seconds_since_boot) -> None:
        self._ledger = Ledger.open(ledger_path, clock=clock, wait_seconds=TAKE_OVER_SECONDS)
        self._clock, self._looked = clock, clock()
        self._plan = plan
        self._stopped = False
        self._workers: set[str] = set()
        self._silent: set[str] = set()
        self._dismissed: set[str] = set()
        self._changed, self._deciding = asyncio.Condition(), asyncio.Lock()
        self._flusher = ThreadPoolExecutor(1, "flusher")
        self._commits = Gathered[Commit, list[bool]](self._flush, most=MOST_TOGETHER)
        self._claims: dict[int, int] = {}
        self._reports: dict[tuple[str, str], Mapping[str, object]] = {}
        self._held_out: dict[str, Sampler] = {}
        self._decisions: Decisions | None = None
        if plan.sampler.decides_late and "train" in plan.sources and plan.solves:
            parts = plan.parts("train")
            context = plan.sources["train"].sampler_context(self._ledger.counts("train").planned // parts)
            self._decisions = Decisions(self._ledger, plan.sampler, context, parts)

    async def claim_shard(self, rank: int, node: str, shard_nodes: Sequence[str]) -> int:
        """The shard that a training rank reads from: one on its own node if one is free, else any free one."""
        if rank not in self._claims:
            free = [shard for shard in range(len(shard_nodes)) if shard not in self._claims.values()]
            self._claims[rank] = next((shard for shard in free if shard_nodes[shard] == node), free[0])
        return self._claims[rank]

    async def lease(
        self, worker: str, sequences: int, last: int, spent: Mapping[str, tuple[int, float]] | None = None
    ) -> Lease | None:
        """The next work for a solver: held-out splits first, then training; None when there is nothing left.

        Args:
            worker: name of the solver.
            sequences: how many sequences it would like; it gets fewer where all would not have enough, and one where
                a sampler decides late.
            last: id of the last lease that it received, 0 for none.
            spent: since it asked last, how many training samples of each level came to how many CPU seconds.
        """
        if self._decisions is not None:
            async with self._deciding:
                self._decisions.price(spent or {})
        if self._stopped or worker in self._dismissed:
            return None
        if worker not in self._workers:
            self._workers.add(worker)
            # One that died may have granted a lease and not have said so: nobody else would ever solve it.
            for granted in self._ledger.leases(worker):
                if granted.id > last:
                    return await self._decided(granted)
        self._expire()
        for split in (*HELD_OUT, "train"):
            if split in self._plan.sources:
                length = self._plan.lease_length(split)
                if self._decisions is not None and split == "train":
                    sequences = 1  # what is decided late is not decided long before it is solved
                share = self._ledger.counts(split).waiting // (SHARES * len(self._workers) * length)
                count = length * max(1, min(sequences, share))
                lease = self._ledger.lease(
                    worker, split, count, self._plan.lease_seconds, together=self._plan.parts(split)
                )
                if lease is not None:
                    return await self._decided(lease)
        return None

    async def _decided(self, lease: Lease) -> Lease:
        """A lease that says what its samples shall be, unless their indices do."""
        if lease.split in HELD_OUT:
            if lease.split not in self._held_out:
                context = self._plan.sources[lease.split].sampler_context(self._ledger.counts(lease.split).planned)
                self._held_out[lease.split] = STRATIFIED.build(context)
            return dataclasses.replace(lease, requests=tuple(self._held_out[lease.split].decide(lease.indices)))
        if self._decisions is None:
            return lease
        async with self._deciding:
            # What is decided is on the disk before anyone hears of it; others are answered meanwhile.
            requests = await asyncio.to_thread(self._decisions.requests, lease.indices)
        return dataclasses.replace(lease, requests=requests)

    async def observe(self, indices: Int64[np.ndarray, " batch"], losses: Float32[np.ndarray, " batch"]) -> None:
        """Take note of the losses of training samples; nobody waits for it."""
        if self._decisions is not None:
            async with self._deciding:
                self._decisions.observe(indices, losses)

    async def dismiss(self, worker: str) -> None:
        """Grant a solver no more leases: it goes home when it has done what it has."""
        self._dismissed.add(worker)
        self._workers.discard(worker)

    async def renew(self, worker: str) -> None:
        """A solver is at work, though it has nothing to deliver yet."""
        self._ledger.renew(worker)

    async def silent(self) -> list[str]:
        """Solvers that have been silent for too long since the last call; others get what they had leased."""
        self._expire()
        silent, self._silent = sorted(self._silent), set()
        return silent

    def _expire(self) -> None:
        before, self._looked = self._looked, self._clock()
        if not 0.0 <= self._looked - before < STOOD_STILL_SECONDS:
            # The machine slept, or this process did: so could nobody give a sign of life.
            self._ledger.renew_all()
            return
        self._silent.update(lease.worker for lease in self._ledger.expire())

    async def commit(self, split: str, shard: str, lease_id: int, indices: Sequence[int]) -> list[bool]:
        """Commit samples that are safe on disk; False marks those that were committed before."""
        return await self._commits(Commit(split=split, shard=shard, lease_id=lease_id, indices=indices))

    async def commit_all(self, commits: Sequence[Commit]) -> list[list[bool]]:
        """The same for several messages of a shard."""
        return await asyncio.gather(*map(self._commits, commits))

    async def _flush(self, commits: Sequence[Commit]) -> list[list[bool] | ValueError]:
        """One transaction and one sync for all that wait, in a thread: others are answered meanwhile."""
        results = await asyncio.get_running_loop().run_in_executor(self._flusher, self._ledger.commit_all, commits)
        await self._wake()
        return results

    async def fail(self, split: str, failure: Failure) -> None:
        """Record a sample that could not be solved."""
        log.warning("sample %d of %s failed: %s", failure.index, split, failure.reason)
        await asyncio.get_running_loop().run_in_executor(
            self._flusher,
            self._ledger.fail,
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
        """Return once every held-out sample is stored or recorded as failed, or nobody solves."""
        if not self._plan.solves:
            return
        splits = [split for split in HELD_OUT if split in self._plan.sources]
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._stopped or all(self._ledger.is_complete(split) for split in splits)
            )

    async def order(self, split: str) -> Int64[np.ndarray, " samples"]:
        """The planned order of a split."""
        return self._ledger.order(split)

    async def version(self) -> int:
        """How many changes the ledger has seen."""
        return self._ledger.version

    async def broken(self, split: str) -> list[int]:
        """The trajectories of a split of which some part could not be solved, ascending."""
        parts = self._plan.parts(split)
        return sorted({failure.index // parts for failure in self._ledger.failures(split)}) if parts > 1 else []

    async def wait_settled(self, split: str, indices: Sequence[int]) -> list[int] | None:
        """Those of some samples that are stored, once each is stored or failed; None if the stream stops before.

        Parts of a trajectory wait for all of it, and are left out when it broke, unless the plan keeps them.
        """
        parts = self._plan.parts(split)
        if parts == 1 or self._plan.keeps_incomplete:
            return await self._wait_settled(split, indices)
        trajectories = dict.fromkeys(index // parts for index in indices)
        stored = await self._wait_settled(split, [t * parts + part for t in trajectories for part in range(parts)])
        if stored is None:
            return None
        counts = Counter(index // parts for index in stored)
        return [index for index in indices if counts[index // parts] == parts]

    async def _wait_settled(self, split: str, indices: Sequence[int]) -> list[int] | None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._stopped or self._ledger.settled(split, indices) is not None,
            )
        return self._ledger.settled(split, indices)

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
