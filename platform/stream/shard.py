"""ReservoirShard: the actor beside a training rank that stores samples, and serves batches of them."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from jaxtyping import Int64

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.joint_checkpoint import reservoir_name, write_arrays
from headrace.platform.ledger.commits import MOST_TOGETHER, Commit
from headrace.platform.sample import SampleBatch
from headrace.platform.stream.feed import AbstractCoordinator, AbstractFeed, LiveFeed, PacedFeed
from headrace.platform.stream.gathered import Gathered
from headrace.platform.stream.plan import StreamPlan


class _CoordinatorActor:
    """The coordinator as a Ray actor; see `AbstractCoordinator`."""

    def __init__(self, name: str) -> None:
        self._actor = ray.get_actor(name)

    def order(self, split: str) -> Int64[np.ndarray, " samples"]:
        order: np.ndarray = ray.get(self._actor.order.remote(split))
        return order

    def broken(self, split: str) -> list[int]:
        broken: list[int] = ray.get(self._actor.broken.remote(split))
        return broken

    def wait_settled(self, split: str, indices: Sequence[int]) -> list[int] | None:
        found: list[int] | None = ray.get(self._actor.wait_settled.remote(split, indices))
        return found

    async def commit_all(self, commits: Sequence[Commit]) -> list[list[bool]]:
        accepted: list[list[bool]] = await self._actor.commit_all.remote(commits)
        return accepted

    async def version(self) -> int:
        version: int = await self._actor.version.remote()
        return version

    async def wait_held_out(self) -> None:
        await self._actor.wait_held_out.remote()


class ReservoirShard:
    """The store of one training rank, and the feed that makes its batches: live or paced, as the plan says.

    `ingest` stores first, then commits, then hands over to the feed, and returns, which is the acknowledgement. A
    sample that the coordinator knows already is not handed over. What waits for what stands in `feed.py`.

    One that starts where another one died goes on with its log.

    Args:
        number: which shard.
        plan: of the stream.
        coordinator: an actor's name, or what stands in for it.
    """

    def __init__(self, number: int, plan: StreamPlan, coordinator: str | AbstractCoordinator) -> None:
        self._number = number
        self._plan = plan
        self._coordinator = _CoordinatorActor(coordinator) if isinstance(coordinator, str) else coordinator
        self._log = plan.sample_log(f"shard-{number}")
        self._log_lock = asyncio.Lock()
        # One call is under way; what is stored meanwhile makes up the next.
        self._commits = Gathered[Commit, list[bool]](self._coordinator.commit_all, most=MOST_TOGETHER)
        self._wait_seconds = 0.0
        self._feed: AbstractFeed | None = None
        if plan.reservoir is not None and plan.paced:
            self._feed = PacedFeed(number, plan, self._coordinator)
        elif plan.reservoir is not None:
            self._feed = LiveFeed(number, plan, self._coordinator, self._log.indices("train"))

    async def save(self, folder: Path, step: int) -> dict[str, int]:
        """Write, beside the model's checkpoint of a step, what the reservoir holds and what is to be served again.

        Args:
            folder: of the checkpoints.
            step: finished optimiser steps; what was served beyond is served again.

        Returns:
            The `ledger_version`.
        """
        assert self._feed is not None, "this stream stores only"
        state = await self._feed.state(step)
        await asyncio.to_thread(write_arrays, folder / reservoir_name(step, self._number), state)
        return {"ledger_version": await self._coordinator.version()}

    async def ingest(self, split: str, lease_id: int, message: SampleBatch) -> None:
        """Store, commit and take up a message; returning is the acknowledgement."""
        if self._feed is not None:
            self._feed.begin()
        indices = message.indices.tolist()
        async with self._log_lock:
            rows = await asyncio.to_thread(self._log.append, split, message)
        accepted = await self._commits(Commit(split=split, shard=self._log.name, lease_id=lease_id, indices=indices))
        if split == "train" and self._feed is not None:
            await self._feed.take_up(message.take([row for row in rows if accepted[row]]))

    async def discard(self, split: str, trajectory: int) -> None:
        """Let go of a trajectory that broke, and take up none of its parts from here on. They stay in the log."""
        if self._feed is not None:
            await self._feed.discard(trajectory)

    async def next_batch(self, size: int, step: int) -> SampleBatch | None:
        """The rank's batch of a step; None once the stream has ended and the reservoir has no use left to give.

        Args:
            size: samples in it.
            step: which step; each is asked for once, in order, by one group of ranks.
        """
        assert self._feed is not None, "this stream stores only"
        started = time.monotonic()
        try:
            return await self._feed.next_batch(size, step)
        finally:
            self._wait_seconds += time.monotonic() - started

    async def node(self) -> str:
        """The id of the node that this shard runs on."""
        return str(ray.get_runtime_context().get_node_id())

    async def held_out(self, split: str) -> SampleBatch:
        """All samples of a held-out split, once they are complete."""
        await self._coordinator.wait_held_out()
        stored = await asyncio.to_thread(StoredSamples.open, self._plan.data_dir(split))
        return await asyncio.to_thread(stored.read_all)

    async def end(self) -> None:
        """No more samples will come: serve what there is, the log's backlog included."""
        if self._feed is not None:
            await self._feed.end()

    async def stop(self) -> None:
        """Serve nothing more, wake everyone who waits, and close the logs."""
        if self._feed is not None:
            await self._feed.stop()
        async with self._log_lock:
            await asyncio.to_thread(self._log.close)

    async def stats(self) -> dict[str, float]:
        """Fill, reuse and age of the reservoir, what was served, and how long the rank waited for batches [s].

        With a prefix: `drift/` by parameter, `came_in/` and `served/` by level (see `ReservoirStats`).
        """
        if self._feed is None:
            return {}
        kept = self._feed.stats()
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
