"""Feeds: how the samples that a shard stores become the batches of its training rank. Plain classes, without Ray.

A feed is the shard's half that waits. Who waits for whom:

    take_up     waits while the reservoir is full of samples that nobody has seen      (live)
    next_batch  waits until the watermark is reached                                   (live)
                waits for the samples whose turn it is, in the coordinator             (paced)

In a live feed each wakes the other; `end`, `stop` and `discard` wake all that wait. A feed is used by one event loop;
what takes long (the disk, the paced feed's waiting) happens in threads.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from headrace.platform.dataset.reader import StoredSamples, is_whole, recorded_order
from headrace.platform.joint_checkpoint import newest, read_arrays
from headrace.platform.ledger.commits import Commit
from headrace.platform.reservoir.paced import MAX_PREFETCH, PacedReservoir, StreamStopped, packed, unpacked
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.reservoir.stats import ReservoirStats
from headrace.platform.sample import SampleBatch
from headrace.platform.scouts import scouts_of
from headrace.platform.seeding import generator
from headrace.platform.stream.plan import StreamPlan


class AbstractCoordinator(Protocol):
    """What shards and feeds ask of the coordinator; see the methods of `Coordinator` of the same names.

    The first three block the thread that asks.
    """

    def order(self, split: str) -> Int64[np.ndarray, " samples"]:
        """The indices of a split, in the order in which they are leased."""

    def broken(self, split: str) -> list[int]:
        """The trajectories that broke."""

    def wait_settled(self, split: str, indices: Sequence[int]) -> list[int] | None:
        """The indices that are stored, once each is stored or failed; None when the stream was stopped."""

    async def commit_all(self, commits: Sequence[Commit]) -> Sequence[list[bool]]:
        """Count stored samples, message by message; which of them are new."""

    async def version(self) -> int:
        """Of the ledger."""

    async def wait_held_out(self) -> None:
        """Until every held-out sample is stored or failed."""


class AbstractFeed(ABC):
    """Batches of a rank, made from what its shard stores.

    Args:
        number: of the shard.
        plan: of the stream.
        coordinator: knows which samples there are.
    """

    def __init__(self, number: int, plan: StreamPlan, coordinator: AbstractCoordinator) -> None:
        self._number, self._plan, self._coordinator = number, plan, coordinator

    @abstractmethod
    async def take_up(self, batch: SampleBatch) -> None:
        """Take samples that are stored and committed; returning is what lets the solver send more."""

    @abstractmethod
    async def discard(self, trajectory: int) -> None:
        """Let go of a trajectory that broke, and take up none of its parts from here on."""

    @abstractmethod
    async def next_batch(self, size: int, step: int) -> SampleBatch | None:
        """The batch of a step; None once the stream has ended and has no use left to give, or was stopped."""

    @abstractmethod
    async def state(self, step: int) -> dict[str, np.ndarray]:
        """What the checkpoint of a step keeps of the feed: the reservoir, and what is to be served again."""

    @abstractmethod
    async def end(self) -> None:
        """No more samples will come."""

    @abstractmethod
    async def stop(self) -> None:
        """Serve nothing more, and wake everyone who waits."""

    @abstractmethod
    def stats(self) -> ReservoirStats:
        """What the reservoir holds and has done."""

    @abstractmethod
    def begin(self) -> None:
        """Start what goes on in the background; called, any number of times, once the event loop runs."""

    def _build_reservoir(self) -> Reservoir:
        assert self._plan.reservoir is not None
        return self._plan.reservoir.build(self._plan.schemas["train"], seed=self._plan.seed + self._number)

    def _replayed(self) -> Int64[np.ndarray, " samples"]:
        """This shard's part of the samples that no rank's shard has stored, in the order in which they are to enter."""
        own = {f"shard-{rank}" for rank in range(self._plan.num_ranks)}
        order = recorded_order(self._plan.data_dir("train"), without=own)
        if not (self._plan.solves or self._plan.keeps_incomplete):
            order = order[is_whole(order, self._plan.parts("train"))]
        if self._plan.replay == "shuffled":
            order = generator(self._plan.seed, "replay").permutation(order)
        else:
            order = np.concatenate(scouts_of(order, self._plan.scouts, generator(self._plan.seed, "scouts")))
        return order[self._number :: self._plan.num_ranks]

    def _newest_state(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """What the newest joint checkpoint says of this shard's reservoir, and of which step it is."""
        checkpoint = newest(self._plan.checkpoint_dir)
        path = checkpoint.reservoir(self._number) if checkpoint else None
        if checkpoint is None or path is None:
            return None
        return checkpoint.step, read_arrays(path)


class PacedFeed(AbstractFeed):
    """Solvers do not wait: what they send is on the disk, and the reservoir reads it from there when its turn comes."""

    def __init__(self, number: int, plan: StreamPlan, coordinator: AbstractCoordinator) -> None:
        super().__init__(number, plan, coordinator)
        self._stopped = False
        self._stored: StoredSamples | None = None
        self._reservoir = PacedReservoir(
            self._build_reservoir,
            self._planned_order() if plan.solves else self._replayed(),
            num_batches=plan.num_batches,
            read=self._read,
            rows=plan.message_rows("train"),
            checkpoint=self._newest_state,
        )

    def _planned_order(self) -> Int64[np.ndarray, " samples"]:
        order = self._coordinator.order("train")
        return order[order % self._plan.num_ranks == self._number]

    def _read(self, indices: Int64[np.ndarray, " some"]) -> SampleBatch:
        """Samples from the disk, once each is stored or failed, without the failed ones; called in a thread."""
        found = self._coordinator.wait_settled("train", indices.tolist())
        if found is None:
            raise StreamStopped
        if not found:
            # Nothing may be on the disk yet: there is no data set to open.
            nothing = np.zeros(0, dtype=np.float32)
            return SampleBatch(indices=np.zeros(0, dtype=np.int64), inputs=nothing, outputs=nothing, parameters=nothing)
        if self._stored is None:
            self._stored = StoredSamples.open(self._plan.data_dir("train"))
        if not np.isin(found, self._stored.indices).all():
            self._stored.refresh()
        return self._stored.batch(self._stored.positions(found))

    def begin(self) -> None:
        """Nothing: threads do what takes long."""

    async def take_up(self, batch: SampleBatch) -> None:
        """Nothing: the reservoir reads it from the disk when its turn comes."""

    async def discard(self, trajectory: int) -> None:
        """Nothing: the coordinator leaves its parts out when it is asked for what has settled."""

    async def next_batch(self, size: int, step: int) -> SampleBatch | None:
        """The batch of a step; None after the last one, or when the stream was stopped."""
        if self._stopped:
            return None
        try:
            return await asyncio.to_thread(self._reservoir.batch, step, size)
        except StreamStopped:
            return None

    async def state(self, step: int) -> dict[str, np.ndarray]:
        """See `PacedReservoir.state`."""
        return await asyncio.to_thread(self._reservoir.state, step)

    async def end(self) -> None:
        """Nothing: how many samples there will be is planned."""

    async def stop(self) -> None:
        """Serve nothing more; the coordinator wakes who waits in it."""
        self._stopped = True

    def stats(self) -> ReservoirStats:
        """What the reservoir holds and has done."""
        return self._reservoir.stats()


class LiveFeed(AbstractFeed):
    """Solvers and trainer hold each other's pace: batches are made from what has come by then.

    One that starts where another one died goes on with what its log holds. The reservoir becomes what it was at the
    newest joint checkpoint, with the batches served again that training had not taken by then; samples that came later
    are offered to it from the disk, and so are stored samples that came from elsewhere: this shard's part of them.

    Args:
        number: of the shard.
        plan: of the stream.
        coordinator: knows which trajectories broke.
        logged: the training samples in the shard's log, oldest first.
    """

    def __init__(
        self, number: int, plan: StreamPlan, coordinator: AbstractCoordinator, logged: Sequence[int] = ()
    ) -> None:
        super().__init__(number, plan, coordinator)
        self._changed = asyncio.Condition()
        self._stopped = self._ending = False
        self._reservoir = self._build_reservoir()
        # Trajectories that broke: none of their parts is taken up any more.
        self._broken: set[int] = set()
        # Indices that the reservoir has taken up, and those in the log that it has not, oldest first.
        self._taken_up: set[int] = set()
        self._backlog: list[int] = []
        self._replay: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        # Batches to be served again; how many the rank was served, and the indices of the latest.
        self._again: deque[SampleBatch] = deque()
        self._num_served = 0
        self._served: deque[np.ndarray] = deque(maxlen=MAX_PREFETCH)
        self._come_back(logged)

    def _come_back(self, logged: Sequence[int]) -> None:
        """Take on what the log and the newest checkpoint say."""
        if not self._plan.keeps_incomplete:
            self._broken.update(self._coordinator.broken("train"))
        held = [*logged, *self._replayed().tolist()]
        if not held:
            return
        saved = self._newest_state()
        if saved is not None:
            stored = StoredSamples.open(self._plan.data_dir("train"))
            _, state = saved
            state["totals"][0] = False  # whether the stream had ended: the driver will say so again
            self._reservoir.restore(state, stored.batch(stored.positions(state["indices"])))
            for trajectory in self._broken:
                self._reservoir.discard(trajectory)
            self._taken_up.update(state["taken_up"].tolist())
            self._again.extend(stored.batch(stored.positions(indices)) for indices in unpacked(state))
        self._backlog = [index for index in held if index not in self._taken_up]

    def begin(self) -> None:
        """Offer the backlog to the reservoir, in the background. An actor has no event loop before its first call."""
        if self._backlog and self._replay is None:
            self._replay = asyncio.create_task(self._offer_backlog())

    async def _offer_backlog(self) -> None:
        try:
            stored = await asyncio.to_thread(StoredSamples.open, self._plan.data_dir("train"))
            rows = self._plan.message_rows("train")
            for start in range(0, len(self._backlog), rows):
                positions = stored.positions(self._backlog[start : start + rows])
                await self.take_up(await asyncio.to_thread(stored.batch, positions))
        except Exception as error:
            # Nobody waits for this task: the rank, which waits for the samples, is told.
            self._failure = error
            async with self._changed:
                self._changed.notify_all()
            return
        self._backlog = []
        if self._ending:
            await self.end()

    async def take_up(self, batch: SampleBatch) -> None:
        """Put samples into the reservoir; waits while it is full of samples that nobody has seen."""
        parts, taken = self._plan.parts("train"), 0
        while taken < len(batch):
            async with self._changed:
                is_broken = np.isin(batch.indices // parts, list(self._broken))
                if is_broken.any():
                    self._taken_up.update(batch.indices[is_broken].tolist())
                    batch, taken = batch.take(taken + np.flatnonzero(~is_broken[taken:])), 0
                    continue
                accepted = self._reservoir.try_put(batch, start=taken)
                self._taken_up.update(batch.indices[taken : taken + accepted].tolist())
                taken += accepted
                if accepted:
                    self._changed.notify_all()
                elif self._stopped:
                    return
                else:
                    await self._changed.wait()

    async def discard(self, trajectory: int) -> None:
        """Let go of a trajectory that broke, and take up none of its parts from here on."""
        self._broken.add(trajectory)
        async with self._changed:
            if self._reservoir.discard(trajectory):
                self._changed.notify_all()

    async def next_batch(self, size: int, step: int) -> SampleBatch | None:
        """The batch of a step: one that is served again, or what the reservoir draws once it is ready."""
        self.begin()
        async with self._changed:
            if self._again and not self._stopped:
                return self._note_served(self._again.popleft(), step)
            await self._changed.wait_for(
                lambda: self._stopped or self._failure or self._reservoir.exhausted or self._reservoir.ready(size)
            )
            if self._failure is not None:
                raise self._failure
            if self._stopped or not self._reservoir.ready(size):
                return None
            batch = self._reservoir.take(size)
            self._changed.notify_all()
            return self._note_served(batch, step)

    def _note_served(self, batch: SampleBatch, step: int) -> SampleBatch:
        self._num_served = step + 1
        self._served.append(batch.indices)
        return batch

    async def state(self, step: int) -> dict[str, np.ndarray]:
        """The reservoir's indices and counts, what it has taken up, and what was served beyond the step."""
        # A shard that has just started anew has served nothing that it could serve again.
        ahead = max(0, min(self._num_served - step, len(self._served)))
        again = [*list(self._served)[len(self._served) - ahead :], *(batch.indices for batch in self._again)]
        return self._reservoir.state(samples=False) | {
            "taken_up": np.array(sorted(self._taken_up), dtype=np.int64),
            **packed(again),
        }

    async def end(self) -> None:
        """No more samples will come: serve what there is, the log's backlog included."""
        self._ending = True
        if self._backlog:
            self.begin()
            return
        async with self._changed:
            self._reservoir.end()
            self._changed.notify_all()

    async def stop(self) -> None:
        """Serve nothing more, and wake everyone who waits."""
        self._stopped = True
        async with self._changed:
            self._changed.notify_all()

    def stats(self) -> ReservoirStats:
        """What the reservoir holds and has done."""
        return self._reservoir.stats()
