"""ReservoirShard: the actor beside a training rank that stores samples, and serves batches of them."""

import asyncio
import time
from collections import deque
from pathlib import Path

import numpy as np
import ray
from jaxtyping import Int64

from headrace.platform.dataset.reader import StoredSamples, is_whole, recorded_order
from headrace.platform.joint_checkpoint import newest, read_arrays, reservoir_name, write_arrays
from headrace.platform.reservoir.paced import MAX_PREFETCH, PacedReservoir, StreamStopped, packed, unpacked
from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator
from headrace.platform.stream.plan import StreamPlan


class ReservoirShard:
    """The store and the reservoir of one training rank.

    `ingest` waits, unacknowledged, while the reservoir is full of samples that nobody has seen; `next_batch` waits
    until the watermark is reached. Each wakes the other, and `end` wakes both.

    One that starts where another one died goes on with its log. The reservoir becomes what it was at the newest joint
    checkpoint, with the batches served again that training had not taken by then; samples that came later are offered
    to it from the log, and so are stored samples that came from elsewhere: this shard's part of them.

    When the plan is `paced`, solvers do not wait: what they send is stored and acknowledged, and the reservoir reads it
    from the disk when its turn comes.
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
        self._stored: StoredSamples | None = None
        self._paced: PacedReservoir | None = None
        if plan.reservoir is not None and plan.paced:
            self._paced = PacedReservoir(
                self._build_reservoir,
                self._planned_order() if plan.solves else self._replayed(),
                num_batches=plan.num_batches,
                read=self._read,
                rows=plan.message_rows("train"),
                checkpoint=self._newest_state,
            )
        elif plan.reservoir is not None:
            self._reservoir = self._build_reservoir()
            self._come_back(self._reservoir)

    def _build_reservoir(self) -> Reservoir:
        assert self._plan.reservoir is not None
        return self._plan.reservoir.build(self._plan.schemas["train"], seed=self._plan.seed + self._number)

    def _planned_order(self) -> Int64[np.ndarray, " samples"]:
        order: np.ndarray = ray.get(self._coordinator.order.remote("train"))
        return order[order % self._plan.num_ranks == self._number]

    def _replayed(self) -> Int64[np.ndarray, " samples"]:
        """This shard's part of the samples that no rank's shard has stored, in the order in which they are to enter."""
        own = {f"shard-{rank}" for rank in range(self._plan.num_ranks)}
        order = recorded_order(self._plan.data_dir("train"), without=own)
        if not (self._plan.solves or self._plan.keeps_incomplete):
            order = order[is_whole(order, self._plan.parts("train"))]
        if self._plan.replay == "shuffled":
            order = generator(self._plan.seed, "replay").permutation(order)
        return order[self._number :: self._plan.num_ranks]

    def _newest_state(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """What the newest joint checkpoint says of this shard's reservoir, and of which step it is."""
        checkpoint = newest(self._plan.checkpoint_dir)
        path = checkpoint.reservoir(self._number) if checkpoint else None
        if checkpoint is None or path is None:
            return None
        return checkpoint.step, read_arrays(path)

    def _read(self, indices: Int64[np.ndarray, " some"]) -> SampleBatch:
        """Samples from the disk, once each is stored or failed, without the failed ones; called in a thread."""
        found = ray.get(self._coordinator.wait_settled.remote("train", indices.tolist()))
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

    def _come_back(self, reservoir: Reservoir) -> None:
        """Take on what the log and the newest checkpoint say."""
        if not self._plan.keeps_incomplete:
            self._broken.update(ray.get(self._coordinator.broken.remote("train")))
        held = [*self._log.indices("train"), *self._replayed().tolist()]
        if not held:
            return
        saved = self._newest_state()
        if saved is not None:
            stored = StoredSamples.open(self._plan.data_dir("train"))
            _, state = saved
            state["totals"][0] = False  # whether the stream had ended: the driver will say so again
            reservoir.restore(state, stored.batch(stored.positions(state["indices"])))
            for trajectory in self._broken:
                reservoir.discard(trajectory)
            self._taken_up.update(state["taken_up"].tolist())
            self._again.extend(stored.batch(stored.positions(indices)) for indices in unpacked(state))
        self._backlog = [index for index in held if index not in self._taken_up]

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

    async def save(self, folder: Path, step: int) -> dict[str, int]:
        """Write, beside the model's checkpoint of a step, what the reservoir holds and what is to be served again.

        Args:
            folder: of the checkpoints.
            step: finished optimiser steps; what was served beyond is served again.

        Returns:
            The `ledger_version`.
        """
        if self._paced is not None:
            state = await asyncio.to_thread(self._paced.state, step)
        else:
            state = self._state(step)
        await asyncio.to_thread(write_arrays, folder / reservoir_name(step, self._number), state)
        return {"ledger_version": await self._coordinator.version.remote()}

    def _state(self, step: int) -> dict[str, np.ndarray]:
        assert self._reservoir is not None
        # A shard that has just started anew has served nothing that it could serve again.
        ahead = max(0, min(self._num_served - step, len(self._served)))
        again = [*list(self._served)[len(self._served) - ahead :], *(batch.indices for batch in self._again)]
        return self._reservoir.state(samples=False) | {
            "taken_up": np.array(sorted(self._taken_up), dtype=np.int64),
            **packed(again),
        }

    async def ingest(self, split: str, lease_id: int, message: SampleBatch) -> None:
        """Store, commit and take up a message; returning is the acknowledgement."""
        self._start_replay()
        async with self._log_lock:
            rows = await asyncio.to_thread(self._log.append, split, message)
            accepted = await self._coordinator.commit.remote(split, self._log.name, lease_id, message.indices.tolist())
        if split == "train" and self._reservoir is not None:
            await self._take_up(message.take([row for row in rows if accepted[row]]))

    async def discard(self, split: str, trajectory: int) -> None:
        """Let go of a trajectory that broke, and take up none of its parts from here on. They stay in the log."""
        self._broken.add(trajectory)
        async with self._changed:
            if self._reservoir is not None and self._reservoir.discard(trajectory):
                self._changed.notify_all()

    async def _take_up(self, batch: SampleBatch) -> None:
        assert self._reservoir is not None
        reservoir, parts = self._reservoir, self._plan.parts("train")
        taken = 0
        while taken < len(batch):
            async with self._changed:
                is_broken = np.isin(batch.indices // parts, list(self._broken))
                if is_broken.any():
                    self._taken_up.update(batch.indices[is_broken].tolist())
                    batch, taken = batch.take(taken + np.flatnonzero(~is_broken[taken:])), 0
                    continue
                accepted = reservoir.try_put(batch, start=taken)
                self._taken_up.update(batch.indices[taken : taken + accepted].tolist())
                taken += accepted
                if accepted:
                    self._changed.notify_all()
                elif self._stopped:
                    return
                else:
                    await self._changed.wait()

    async def next_batch(self, size: int, step: int) -> SampleBatch | None:
        """The rank's batch of a step; None once the stream has ended and the reservoir has no use left to give.

        Args:
            size: samples in it.
            step: which step; each is asked for once, in order, by one group of ranks.
        """
        started = time.monotonic()
        if self._paced is not None:
            if self._stopped:
                return None
            try:
                return await asyncio.to_thread(self._paced.batch, step, size)
            except StreamStopped:
                return None
            finally:
                self._wait_seconds += time.monotonic() - started
        assert self._reservoir is not None, "this stream stores only"
        reservoir = self._reservoir
        self._start_replay()
        async with self._changed:
            if self._again and not self._stopped:
                return self._note_served(self._again.popleft(), step)
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
            return self._note_served(batch, step)

    def _note_served(self, batch: SampleBatch, step: int) -> SampleBatch:
        self._num_served = step + 1
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
        """Fill, reuse and age of the reservoir, what was served, and how long the rank waited for batches [s].

        With a prefix: `drift/` by parameter, `came_in/` and `served/` by level (see `ReservoirStats`).
        """
        reservoir = self._paced or self._reservoir
        if reservoir is None:
            return {}
        kept = reservoir.stats()
        return {
            "fill": kept["fill"],
            "mean_uses": kept["mean_uses"],
            "mean_age_seconds": kept["mean_age_seconds"],
            "distinct": float(kept["distinct"]),
            "distinct_held": float(kept["distinct_held"]),
            **{f"drift/{name}": value for name, value in kept["drift"].items()},
            **{f"came_in/{level}": share for level, share in kept["shares_in"].items()},
            **{f"served/{level}": share for level, share in kept["shares_served"].items()},
            "spent": kept["spent"] / max(1, kept["size"]),
            "wait_seconds": self._wait_seconds,
        }
