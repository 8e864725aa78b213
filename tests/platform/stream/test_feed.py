"""Feeds and the shard over them, without Ray: what stands in for the coordinator is a list of what it was told."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.joint_checkpoint import seal
from headrace.platform.ledger.commits import Commit
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Failure, Provenance, Sample, SampleBatch
from headrace.platform.stream.feed import LiveFeed
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.shard import ReservoirShard

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(4,), extent=(1.0,), periodic=(False,)),
)


@dataclass(frozen=True)
class Numbers:
    """Where sample i holds the number i."""

    parts: int = 1

    def schema(self) -> SampleSchema:
        return dataclasses.replace(SCHEMA, parts=self.parts)

    def build(self) -> "Numbers":
        return self

    def report(self) -> dict[str, object]:
        return {}

    def solve(self, indices: Sequence[int]) -> Iterator[Sample | Failure]:
        raise AssertionError("the tests make the samples")


def samples(*indices: int) -> SampleBatch:
    """The samples of these indices."""
    numbers = np.array(indices, dtype=np.float32)
    provenance = Provenance(
        spec_hash="", seed=0, index=0, level="easy", solver="none", status="converged", relative_residual=0.0,
        num_iterations=1, wall_seconds=0.0, cpu_seconds=0.0, version="0",
    )  # fmt: skip
    return SampleBatch(
        indices=np.array(indices, dtype=np.int64),
        inputs=np.broadcast_to(numbers[:, None, None], (len(indices), 1, 4)).copy(),
        outputs=np.broadcast_to(2 * numbers[:, None, None, None], (len(indices), 1, 1, 4)).copy(),
        parameters=np.zeros((len(indices), 0), dtype=np.float32),
        provenance=tuple(dataclasses.replace(provenance, index=index) for index in indices),
    )


@dataclass
class Books:
    """A coordinator that notes what it is told, and lets each index be committed once."""

    directory: Path
    planned: int = 32
    broken_ones: list[int] = field(default_factory=list)
    told: list[tuple[str, int, int, list[int]]] = field(default_factory=list)
    committed: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    stopped: bool = False

    def order(self, split: str) -> np.ndarray:
        return np.arange(self.planned)

    def broken(self, split: str) -> list[int]:
        return self.broken_ones

    def wait_settled(self, split: str, indices: Sequence[int]) -> list[int] | None:
        while not self.stopped and not set(indices) <= self.committed | self.failed:
            time.sleep(0.005)
        return None if self.stopped else [index for index in indices if index not in self.failed]

    async def commit_all(self, commits: Sequence[Commit]) -> list[list[bool]]:
        return [self._commit(one) for one in commits]

    def _commit(self, commit: Commit) -> list[bool]:
        on_disk = set(StoredSamples.open(self.directory / commit.split).indices.tolist())
        assert on_disk >= set(commit.indices), "what is counted must be on the disk already"
        self.told.append((commit.split, commit.shard, commit.lease_id or 0, list(commit.indices)))
        new = [index not in self.committed for index in commit.indices]
        self.committed.update(commit.indices)
        return new

    async def version(self) -> int:
        return len(self.told)

    async def wait_held_out(self) -> None:
        return None


def a_plan(folder: Path, reservoir: ReservoirSpec | None, *, parts: int = 1, paced: bool = False) -> StreamPlan:
    return StreamPlan(
        run_dir=folder,
        checkpoint_dir=folder / "checkpoints",
        sources={"train": Numbers(parts), "validation": Numbers(), "test": Numbers()},
        sequence_length=4,
        message_bytes=10**6,
        message_seconds=1.0,
        credits=2,
        lease_seconds=60.0,
        reservoir=reservoir,
        seed=0,
        num_batches=4,
        paced=paced,
    )


FIFO = ReservoirSpec(kind="fifo", capacity=8, watermark=4)


async def soon(awaitable: Awaitable[object]) -> object:
    return await asyncio.wait_for(awaitable, 20)


async def waits(task: "asyncio.Task[object]") -> bool:
    """Whether a task is still waiting after a moment."""
    await asyncio.sleep(0.1)
    return not task.done()


def test_a_message_is_stored_then_counted_then_served_and_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        books = Books(tmp_path / "data")
        shard = ReservoirShard(0, a_plan(tmp_path, FIFO), books)
        await soon(shard.ingest("train", 7, samples(0, 1, 2)))
        await soon(shard.ingest("train", 8, samples(2, 3)))
        await soon(shard.ingest("validation", 9, samples(0)))
        assert books.told[0] == ("train", "shard-0", 7, [0, 1, 2]) and books.told[2][0] == "validation"
        batch = await soon(shard.next_batch(4, 0))
        assert isinstance(batch, SampleBatch) and batch.indices.tolist() == [0, 1, 2, 3], "the second 2 was dropped"
        await soon(shard.end())
        assert await soon(shard.next_batch(4, 1)) is None
        await soon(shard.stop())

    asyncio.run(scenario())
    assert sorted(StoredSamples.open(tmp_path / "data" / "train").indices.tolist()) == [0, 1, 2, 3]


def test_a_full_reservoir_and_a_waiting_rank_wake_each_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        feed = LiveFeed(0, a_plan(tmp_path, FIFO), Books(tmp_path))
        rank = asyncio.create_task(feed.next_batch(4, 0))
        assert await waits(rank), "the watermark is not reached"
        solver = asyncio.create_task(feed.take_up(samples(*range(14))))
        assert (await soon(rank)).indices.tolist() == [0, 1, 2, 3]
        assert await waits(solver), "eight are held, and two have no room"
        assert (await soon(feed.next_batch(4, 1))).indices.tolist() == [4, 5, 6, 7]
        await soon(solver)
        await feed.end()
        assert (await soon(feed.next_batch(4, 2))).indices.tolist() == [8, 9, 10, 11]

    asyncio.run(scenario())


@pytest.mark.parametrize("paced", [False, True])
def test_stopping_wakes_who_waits(tmp_path: Path, paced: bool) -> None:
    async def scenario() -> None:
        books = Books(tmp_path / "data")
        shard = ReservoirShard(0, a_plan(tmp_path, FIFO, paced=paced), books)
        rank = asyncio.create_task(shard.next_batch(4, 0))
        assert await waits(rank)
        books.stopped = True
        await soon(shard.stop())
        assert await soon(rank) is None and await soon(shard.next_batch(4, 1)) is None

    asyncio.run(scenario())


def test_stopping_wakes_a_solver_that_waits_for_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        feed = LiveFeed(0, a_plan(tmp_path, FIFO), Books(tmp_path))
        solver = asyncio.create_task(feed.take_up(samples(*range(12))))
        assert await waits(solver)
        await feed.stop()
        await soon(solver)

    asyncio.run(scenario())


@pytest.mark.parametrize("kept", [False, True])
def test_the_parts_of_a_trajectory_that_broke_are_left_out(tmp_path: Path, kept: bool) -> None:
    async def scenario() -> None:
        plan = dataclasses.replace(a_plan(tmp_path, FIFO, parts=2), keeps_incomplete=kept)
        feed = LiveFeed(0, plan, Books(tmp_path, broken_ones=[3]))
        await soon(feed.take_up(samples(0, 1, 2)))
        await feed.discard(1)
        await soon(feed.take_up(samples(3, 4, 5, 6)))
        await feed.end()
        batch = await soon(feed.next_batch(3, 0))
        # Trajectory 1 (samples 2 and 3) was told of now; 3 (sample 6) before this feed began, where that matters.
        assert batch.indices.tolist() == [0, 1, 4]
        rest = await soon(feed.next_batch(2 if kept else 1, 1))
        assert rest.indices.tolist() == ([5, 6] if kept else [5])

    asyncio.run(scenario())


def begun(plan: StreamPlan, books: Books, *, num_samples: int, steps: int, saved_at: int) -> list[list[int]]:
    """A shard that dies after some steps, with a joint checkpoint on the way; the batches that it served."""

    async def scenario() -> list[list[int]]:
        shard = ReservoirShard(0, plan, books)
        await soon(shard.ingest("train", 1, samples(*range(num_samples))))
        served = []
        for step in range(steps):
            served.append((await soon(shard.next_batch(4, step))).indices.tolist())
        plan.checkpoint_dir.mkdir()
        facts = await soon(shard.save(plan.checkpoint_dir, saved_at))
        assert facts == {"ledger_version": 1}
        (plan.checkpoint_dir / f"step-{saved_at:06d}.pt").touch()
        seal(plan.checkpoint_dir, saved_at, facts)
        await soon(shard.stop())
        return served

    return asyncio.run(scenario())


@pytest.mark.parametrize("paced", [False, True])
def test_a_feed_goes_on_from_a_joint_checkpoint(tmp_path: Path, paced: bool) -> None:
    keeps = ReservoirSpec(kind="reservoir", capacity=16, watermark=8)
    plan, books = a_plan(tmp_path, keeps, paced=paced), Books(tmp_path / "data", planned=16)
    served = begun(plan, books, num_samples=16, steps=3, saved_at=1)

    async def scenario() -> None:
        shard = ReservoirShard(0, plan, books)
        for step in (1, 2):
            again = await soon(shard.next_batch(4, step))
            assert again.indices.tolist() == served[step], "what the checkpoint's training had not taken"
            assert np.array_equal(again.inputs[:, 0, 0], again.indices)
        assert len(await soon(shard.next_batch(4, 3))) == 4
        await soon(shard.stop())

    asyncio.run(scenario())


def test_what_the_log_holds_beyond_the_checkpoint_is_offered_before_the_end(tmp_path: Path) -> None:
    plan, books = a_plan(tmp_path, FIFO), Books(tmp_path / "data")

    async def first() -> None:
        shard = ReservoirShard(0, plan, books)
        await soon(shard.ingest("train", 1, samples(0, 1, 2, 3)))
        await soon(shard.ingest("train", 2, samples(4, 5)))
        await soon(shard.stop())

    async def second() -> None:
        shard = ReservoirShard(0, plan, books)
        await soon(shard.end())
        found = [(await soon(shard.next_batch(3, step))).indices.tolist() for step in range(2)]
        assert found == [[0, 1, 2], [3, 4, 5]] and await soon(shard.next_batch(3, 2)) is None
        await soon(shard.stop())

    asyncio.run(first())
    asyncio.run(second())


def test_a_paced_feed_takes_samples_in_their_order_and_passes_over_failed_ones(tmp_path: Path) -> None:
    async def scenario() -> None:
        books = Books(tmp_path / "data", planned=9, failed={1})
        shard = ReservoirShard(0, a_plan(tmp_path, FIFO, paced=True), books)
        await soon(shard.ingest("train", 1, samples(*range(8, 4, -1))))
        rank = asyncio.create_task(shard.next_batch(4, 0))
        assert await waits(rank), "the first ones are not there, though four others are"
        await soon(shard.ingest("train", 2, samples(4, 3, 2, 0)))
        assert (await soon(rank)).indices.tolist() == [0, 2, 3, 4]
        assert (await soon(shard.next_batch(4, 1))).indices.tolist() == [5, 6, 7, 8]
        assert await soon(shard.next_batch(4, 2)) is None
        await soon(shard.stop())

    asyncio.run(scenario())
