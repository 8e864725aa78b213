"""The stream's actors on a real Ray cluster, fed by a source that needs no solver."""

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import ray

from headrace.platform.cluster.resources import ResourcePlan
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError, RunFailed
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.joint_checkpoint import newest, seal
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.ledger.recovery import recover
from headrace.platform.reservoir.spec import ReservoirSpec
from headrace.platform.sample import Failure, Provenance, Request, Sample, SampleBatch
from headrace.platform.samplers.loss_weighted import LossWeighted
from headrace.platform.samplers.sampler import Axis, SamplerContext
from headrace.platform.stream.plan import StreamPlan
from headrace.platform.stream.stream import Stream, StreamFeed

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("ray_cluster")

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(8, 8), extent=(1.0, 1.0), periodic=(False, False)),
)


@dataclass(frozen=True)
class Toy:
    """Sample i holds the number i, a hard one half more; named indices fail; one may kill its process, one hang, once.
    Nothing is solved before the door is there, if there shall be one.

    The samples of a lease are solved from the last to the first; those of trajectories in parts in their order.
    """

    seconds: float = 0.0
    failing: frozenset[int] = frozenset()
    deadly: int | None = None
    hanging: int | None = None
    mark: Path | None = field(default=None)
    broken: bool = False
    parts: int = 1
    levels: tuple[str, ...] = ("easy",)
    door: Path | None = None

    def schema(self) -> SampleSchema:
        return dataclasses.replace(SCHEMA, parts=self.parts)

    def build(self) -> "Toy":
        return self

    def sampler_context(self, count: int | None = None) -> SamplerContext:
        axes: dict[str, dict[str, Axis]] = {level: {} for level in self.levels}
        return SamplerContext(mix=dict.fromkeys(axes, 1.0), axes=axes, seed=0, split="train", count=count)

    def report(self) -> dict[str, object]:
        return {"toy": True}

    def solve(self, requests: Sequence[Request]) -> Iterator[Sample | Failure]:
        while self.door is not None and not self.door.exists():
            time.sleep(0.02)
        for request in reversed(requests) if self.parts == 1 else requests:
            index = request.index
            time.sleep(self.seconds)
            if self.broken:
                raise ZeroDivisionError("the source is broken")
            if index == self.deadly and self.mark is not None and not self.mark.exists():
                self.mark.touch()
                # Give the samples before it the time to be delivered: they must not be stored twice.
                time.sleep(0.5)
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
            if index == self.hanging and self.mark is not None and not self.mark.exists():
                self.mark.touch()
                time.sleep(600)
            if index in self.failing:
                yield Failure(index=index, level="hard", reason="told to", wall_seconds=1.0, cpu_seconds=1.0)
                continue
            yield Sample(
                inputs=np.full((1, 8, 8), index + (0.5 if request.level == "hard" else 0.0), np.float32),
                outputs=np.full((1, 1, 8, 8), 2 * index, np.float32),
                parameters=np.zeros(0, np.float32),
                provenance=Provenance(
                    spec_hash="toy",
                    seed=0,
                    index=index,
                    level=request.level,
                    solver="toy",
                    status="converged",
                    relative_residual=0.0,
                    num_iterations=1,
                    wall_seconds=0.0,
                    cpu_seconds=0.0,
                    version="0",
                ),
            )


class Rank:
    """A training rank that reads a batch for every step."""

    def __init__(self, feed: StreamFeed, *, number: int = 0, step: int = 0) -> None:
        self._reader, self._step = feed.claim(number, ray.get_runtime_context().get_node_id()), step
        self.save, self.observe = self._reader.save, self._reader.observe

    def pull(self, size: int) -> SampleBatch | None:
        self._step += 1
        return self._reader.pull(size, self._step - 1)


def plan(run_dir: Path, toy: Toy, reservoir: ReservoirSpec | None, **splits: int) -> tuple[StreamPlan, Path]:
    planned = splits or {"train": 100, "validation": 10, "test": 10}
    Ledger.create(run_dir / "ledger.sqlite", planned).close()
    held_out = Toy()
    return StreamPlan(
        run_dir=run_dir,
        checkpoint_dir=run_dir / "checkpoints",
        sources={split: toy if split == "train" else held_out for split in planned},
        sequence_length=8,
        message_bytes=5 * SCHEMA.sample_nbytes,
        message_seconds=60.0,
        credits=2,
        lease_seconds=60.0,
        reservoir=reservoir,
        seed=0,
    ), run_dir / "ledger.sqlite"


def resources(solvers: int = 2, ranks: int = 1) -> ResourcePlan:
    return ResourcePlan(
        num_solvers=solvers,
        solver_cpus=0.1,
        solver_gpus=0.0,
        solver_threads=1,
        num_ranks=ranks,
        rank_cpus=0.1,
        rank_gpus=0.0,
        rank_threads=1,
        placement="pack",
    )


@pytest.fixture
def streams() -> Iterator[list[Stream]]:
    started: list[Stream] = []
    yield started
    for stream in started:
        stream.stop()


def solve_all(stream: Stream, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while stream.poll(0.2):
        assert time.monotonic() < deadline, stream.snapshot()


def settled(stream: Stream, at_least: int) -> int:
    """The number of stored samples once it is large enough and has stopped growing for two seconds."""
    deadline = time.monotonic() + 60
    before = -1
    while time.monotonic() < deadline:
        stored = stream.snapshot().counts["train"].stored
        if stored == before and stored >= at_least:
            return stored
        before = stored
        stream.poll(2.0)
    raise AssertionError(f"{before} samples are stored after a minute")


def test_every_planned_sample_is_stored_once_and_is_itself(tmp_path: Path, streams: list[Stream]) -> None:
    stream = Stream(*plan(tmp_path, Toy(), None), resources())
    streams.append(stream)
    solve_all(stream)
    counts = stream.snapshot().counts
    assert {split: count.stored for split, count in counts.items()} == {"train": 100, "validation": 10, "test": 10}
    stream.stop()
    stored = StoredSamples.open(tmp_path / "data" / "train").read_all()
    assert stored.indices.tolist() == list(range(100))
    assert np.array_equal(stored.inputs[:, 0, 0, 0], np.arange(100))
    assert np.array_equal(stored.outputs[:, 0, 0, 3, 3], 2 * np.arange(100))


def test_a_sample_does_not_wait_for_a_slow_one_after_it(tmp_path: Path, streams: list[Stream]) -> None:
    stream_plan, ledger = plan(tmp_path, Toy(seconds=3.0), None, train=4)
    stream = Stream(dataclasses.replace(stream_plan, message_seconds=1.0), ledger, resources(solvers=1))
    streams.append(stream)
    deadline = time.monotonic() + 60
    while not (counts := stream.snapshot().counts["train"]).stored:
        assert time.monotonic() < deadline
        stream.poll(0.2)
    assert counts.stored == 1


def test_failures_are_recorded_and_never_become_samples(tmp_path: Path, streams: list[Stream]) -> None:
    stream = Stream(*plan(tmp_path, Toy(failing=frozenset({3, 50})), None), resources(solvers=1))
    streams.append(stream)
    solve_all(stream)
    assert stream.snapshot().counts["train"].failed == 2
    assert [(failure.index, failure.reason) for failure in stream.failures()["train"]] == [
        (3, "told to"),
        (50, "told to"),
    ]
    stream.stop()
    assert set(range(100)) - set(StoredSamples.open(tmp_path / "data" / "train").indices.tolist()) == {3, 50}


# Of 25 trajectories in four parts each three break, one in its first part; parts that come later fail with them.
BROKEN = {3: 2, 11: 0, 20: 3}
FAILING = frozenset(4 * trajectory + part for trajectory, first in BROKEN.items() for part in range(first, 4))


@pytest.mark.parametrize("paced", [False, True])
def test_a_trajectory_that_broke_is_left_out_of_batches(paced: bool, tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=100, watermark=22, max_uses=1)
    stream_plan, ledger = plan(tmp_path, Toy(parts=4, failing=FAILING), reservoir, train=100, validation=2)
    stream_plan = dataclasses.replace(stream_plan, paced=paced, num_batches=11, sequence_length=2)
    stream = Stream(stream_plan, ledger, resources())
    streams.append(stream)
    solve_all(stream)
    rank = Rank(stream.feed())
    served = [index for _ in range(11) for index in pulled(rank)]
    assert sorted(served) == [index for index in range(100) if index // 4 not in BROKEN]
    assert rank.pull(8) is None
    counts = stream.snapshot().counts["train"]
    assert (counts.stored, counts.failed) == (93, 7)
    stream.stop()
    stored = StoredSamples.open(tmp_path / "data" / "train")
    assert len(stored) == 93 and stored.schema.parts == 4
    assert set((stored.indices[~stored.is_whole] // 4).tolist()) == {3, 20}, "of 11 there is no part"


def test_a_broken_trajectory_stays_out_after_a_crash(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=100, watermark=22, max_uses=1)
    stream = Stream(
        *plan(tmp_path, Toy(parts=4, failing=FAILING), reservoir, train=100, validation=2), resources(solvers=1)
    )
    streams.append(stream)
    solve_all(stream)
    kill(stream.shards[0])
    wait_for_another(stream.shards[0])
    rank = Rank(stream.feed())
    # It has to learn again that nothing more will come: the last batches are below the watermark.
    stream.poll(0.0)
    served = [index for _ in range(11) for index in pulled(rank)]
    assert sorted(served) == [index for index in range(100) if index // 4 not in BROKEN]
    assert rank.pull(8) is None


def test_the_parts_of_a_broken_trajectory_are_kept_where_that_is_asked(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="fifo", capacity=100, watermark=1)
    stream_plan, ledger = plan(tmp_path, Toy(parts=4, failing=FAILING), reservoir, train=100, validation=2)
    stream = Stream(dataclasses.replace(stream_plan, keeps_incomplete=True), ledger, resources(solvers=1))
    streams.append(stream)
    solve_all(stream)
    rank = Rank(stream.feed())
    served = [index for _ in range(11) for index in pulled(rank)]
    batch = rank.pull(8)
    assert batch is not None
    assert sorted([*served, *batch.indices.tolist()]) == [index for index in range(100) if index not in FAILING]


def test_a_killed_solver_costs_no_sample_and_doubles_none(tmp_path: Path, streams: list[Stream]) -> None:
    toy = Toy(deadly=20, mark=tmp_path / "killed")
    stream = Stream(*plan(tmp_path, toy, None), resources())
    streams.append(stream)
    solve_all(stream)
    assert (tmp_path / "killed").exists()
    stream.stop()
    assert StoredSamples.open(tmp_path / "data" / "train").indices.tolist() == list(range(100))


# The processes that actors had when they were killed.
killed: dict["ray.actor.ActorHandle", int] = {}


def kill(actor: "ray.actor.ActorHandle") -> None:
    """SIGKILL for the process of an actor that Ray may start anew."""
    killed[actor] = process_of(actor)
    ray.kill(actor, no_restart=False)


def process_of(actor: "ray.actor.ActorHandle") -> int:
    return int(ray.get(actor.__ray_call__.remote(lambda _: os.getpid()), timeout=60))


def wait_for_another(actor: "ray.actor.ActorHandle") -> None:
    """Until the process that was killed is gone and another one answers: what is said once must not go to the first."""
    while process_of(actor) == killed[actor]:
        time.sleep(0.05)


def test_a_killed_shard_goes_on_with_its_log(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=200, watermark=8)
    stream = Stream(*plan(tmp_path, Toy(seconds=0.01), reservoir), resources())
    streams.append(stream)
    reader = Rank(stream.feed())
    for _ in range(5):
        assert reader.pull(8) is not None
    kill(stream.shards[0])
    solve_all(stream)
    counts = stream.snapshot().counts
    assert {split: count.stored for split, count in counts.items()} == {"train": 100, "validation": 10, "test": 10}
    drawn: set[int] = set()
    for _ in range(100):
        batch = reader.pull(8)
        assert batch is not None
        drawn |= set(batch.indices.tolist())
    assert drawn == set(range(100))
    stream.stop()
    assert StoredSamples.open(tmp_path / "data" / "train").indices.tolist() == list(range(100))


def test_a_killed_coordinator_goes_on_with_its_ledger(tmp_path: Path, streams: list[Stream]) -> None:
    stream = Stream(*plan(tmp_path, Toy(seconds=0.01), None), resources())
    streams.append(stream)
    while stream.snapshot().counts["train"].stored < 10:
        stream.poll(0.05)
    kill(stream.coordinator)
    solve_all(stream)
    stream.stop()
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.counts("train").stored == 100
    assert StoredSamples.open(tmp_path / "data" / "train").indices.tolist() == list(range(100))


def test_a_solver_that_hangs_is_ended_and_its_samples_are_solved(
    tmp_path: Path, streams: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.platform.stream.solver_team.SECONDS_BETWEEN_LOOKS", 0.2)
    toy = Toy(hanging=20, mark=tmp_path / "hung")
    stream_plan, ledger = plan(tmp_path, toy, None)
    stream = Stream(dataclasses.replace(stream_plan, lease_seconds=2.0), ledger, resources())
    streams.append(stream)
    solve_all(stream)
    assert (tmp_path / "hung").exists()
    stream.stop()
    assert StoredSamples.open(tmp_path / "data" / "train").indices.tolist() == list(range(100))


def test_a_stream_is_resumed_with_its_reservoir_as_the_checkpoint_left_it(
    tmp_path: Path, streams: list[Stream]
) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=200, watermark=8)
    stream_plan, ledger = plan(tmp_path, Toy(), reservoir)
    first = Stream(stream_plan, ledger, resources())
    streams.append(first)
    solve_all(first)
    reader = Rank(first.feed())
    for _ in range(4):
        assert reader.pull(8) is not None
    # Training had taken three of the four: the last is to be served again.
    seal(stream_plan.checkpoint_dir, 3, reader.save(stream_plan.checkpoint_dir, 3))
    kept = newest(stream_plan.checkpoint_dir)
    assert kept is not None
    path = kept.reservoir(0)
    assert path is not None
    state = np.load(path)
    expected = [state["again"].tolist(), *(pulled(reader) for _ in range(6))]
    first.stop()
    for actor in (*first.shards, first.coordinator):
        ray.kill(actor)
    recover(ledger, {split: stream_plan.data_dir(split) for split in stream_plan.sources})
    second = Stream(stream_plan, ledger, resources())
    streams.append(second)
    solve_all(second)
    again = Rank(second.feed(), step=3)
    assert [pulled(again) for _ in range(7)] == expected


def test_a_paced_stream_gives_the_same_batches_whoever_was_fast(tmp_path: Path, streams: list[Stream]) -> None:
    found = []
    for name, seconds, solvers in (("fast", 0.0, 2), ("slow", 0.01, 1)):
        # The first that are read have all failed.
        toy = Toy(seconds=seconds, failing=frozenset([0, 1, 2, 3, 4, 17]))
        (tmp_path / name).mkdir()
        stream_plan, ledger = plan(tmp_path / name, toy, ReservoirSpec(kind="reservoir", capacity=40, watermark=8))
        stream_plan = dataclasses.replace(stream_plan, paced=True, num_batches=12)
        stream = Stream(stream_plan, ledger, resources(solvers=solvers))
        streams.append(stream)
        feed = stream.feed()
        rank = Rank(feed)
        batches = [pulled(rank) for _ in range(6)]
        # The shard dies; the next one has no checkpoint and catches up.
        kill(stream.shards[0])
        batches += [pulled(rank) for _ in range(6)]
        solve_all(stream)
        stream.stop()
        assert rank.pull(8) is None, "a stopped stream serves nothing, though there is enough"
        found.append(batches)
    assert found[0] == found[1] and len({index for batch in found[0] for index in batch}) > 50


def test_a_backlog_that_cannot_be_read_is_told_to_the_rank(tmp_path: Path, streams: list[Stream]) -> None:
    stream_plan, ledger = plan(tmp_path, Toy(), ReservoirSpec(kind="reservoir", capacity=200, watermark=8))
    first = Stream(stream_plan, ledger, resources())
    streams.append(first)
    solve_all(first)
    first.stop()
    first.close()
    recover(ledger, {split: stream_plan.data_dir(split) for split in stream_plan.sources})
    for chunk in (stream_plan.data_dir("train") / "shard-0.zarr" / "inputs").glob("c*"):
        chunk.write_bytes(b"not a chunk")
    second = Stream(stream_plan, ledger, resources())
    streams.append(second)
    with pytest.raises(InputError, match="not readable"):
        Rank(second.feed()).pull(8)


def pulled(reader: "Rank") -> list[int]:
    batch = reader.pull(8)
    assert batch is not None
    assert np.array_equal(batch.inputs[:, 0, 0, 0], batch.indices)
    return batch.indices.tolist()


def leased_by(ledger: Path) -> set[str]:
    with Ledger.open(ledger, read_only=True) as seen:
        return {lease.worker for lease in seen.leases()}


def test_solvers_come_and_go_while_the_stream_runs(tmp_path: Path, streams: list[Stream]) -> None:
    stream_plan, ledger = plan(tmp_path, Toy(seconds=0.02), None, train=2000)
    stream = Stream(stream_plan, ledger, dataclasses.replace(resources(solvers=1), solver_cpus=1.0))
    streams.append(stream)

    def poll_until(workers: set[str]) -> None:
        deadline = time.monotonic() + 60
        while leased_by(ledger) != workers:
            assert stream.poll(0.1) and time.monotonic() < deadline, leased_by(ledger)

    poll_until({"solver-0"})
    stream.solvers.scale(3)
    poll_until({"solver-0", "solver-1", "solver-2"})
    stream.solvers.scale(1)
    poll_until({"solver-0"})
    while len(stream.solvers) > 1:
        assert stream.poll(0.1)
    # One that is too many for the cluster waits for a place; the run ends without it.
    stream.solvers.scale(5)
    deadline = time.monotonic() + 30
    while stream.snapshot().waiting != 1:
        assert stream.poll(0.2) and time.monotonic() < deadline
    solve_all(stream)
    counts = stream.snapshot().counts["train"]
    assert (counts.stored, counts.failed, counts.duplicates) == (2000, 0, 0)
    assert len(StoredSamples.open(stream_plan.data_dir("train"))) == 2000


def test_a_broken_source_ends_the_run_with_its_reason(tmp_path: Path, streams: list[Stream]) -> None:
    stream = Stream(*plan(tmp_path, Toy(broken=True), None), resources(solvers=1))
    streams.append(stream)
    with pytest.raises(RunFailed, match="solver-0 failed: .*the source is broken"):
        solve_all(stream)


def test_a_rank_reads_batches_until_the_uses_are_spent(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="fifo", capacity=16, watermark=8)
    stream = Stream(*plan(tmp_path, Toy(), reservoir), resources())
    streams.append(stream)
    feed = stream.feed()
    assert sorted(feed.held_out("validation").indices.tolist()) == list(range(10))
    reader = Rank(feed)
    seen: list[int] = []
    deadline = time.monotonic() + 60
    while len(seen) < 100 and time.monotonic() < deadline:
        stream.poll(0.0)
        batch = reader.pull(4)
        assert batch is not None
        seen += batch.indices.tolist()
    solve_all(stream)
    assert sorted(seen) == list(range(100))
    assert reader.pull(4) is None


def test_a_full_reservoir_holds_the_solvers_back(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=16, watermark=8)
    stream = Stream(*plan(tmp_path, Toy(), reservoir, train=400), resources())
    streams.append(stream)
    stored = settled(stream, at_least=16)
    # Two solvers may each have two messages of five samples under way beyond what the reservoir holds.
    assert 16 <= stored <= 16 + 2 * 2 * 5
    reader = Rank(stream.feed())
    for _ in range(30):
        assert reader.pull(8) is not None
    assert settled(stream, at_least=stored + 1) > stored


def test_a_solver_that_waits_for_the_trainer_does_not_hang(
    tmp_path: Path, streams: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.platform.stream.solver_team.SECONDS_BETWEEN_LOOKS", 0.2)
    reservoir = ReservoirSpec(kind="reservoir", capacity=16, watermark=8)
    stream_plan, ledger = plan(tmp_path, Toy(), reservoir, train=400)
    stream = Stream(dataclasses.replace(stream_plan, lease_seconds=1.0), ledger, resources())
    streams.append(stream)
    stored = settled(stream, at_least=16)
    for _ in range(15):
        stream.poll(0.2)
    with Ledger.open(ledger, read_only=True) as opened:
        assert {lease.worker for lease in opened.leases()} == {"solver-0", "solver-1"}
    assert stream.snapshot().counts["train"].stored == stored


def test_a_sampler_that_decides_late_learns_from_the_trainer(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="fifo", capacity=24, watermark=8)
    stream_plan, ledger = plan(tmp_path, Toy(levels=("easy", "hard")), reservoir, train=3000, validation=2)
    sampler = LossWeighted(floor=0.1, by_cost=False)
    stream = Stream(dataclasses.replace(stream_plan, sampler=sampler), ledger, resources())
    streams.append(stream)
    feed = stream.feed()
    reader = Rank(feed)
    assert feed.is_observed
    deadline = time.monotonic() + 90
    for step in range(10_000):
        batch = reader.pull(8)
        assert batch is not None and time.monotonic() < deadline
        is_hard = batch.inputs[:, 0, 0, 0] % 1.0 > 0.0
        reader.observe(batch.indices, np.where(is_hard, 9.0, 1.0).astype(np.float32))
        if step == 100:
            kill(stream.coordinator)  # what it has observed is gone, what it has decided is not
        if step > 200 and batch.indices.min() > 2900:
            break
    stream.stop()
    with Ledger.open(ledger, read_only=True) as opened:
        decided = opened.decided("train")
    stored = StoredSamples.open(tmp_path / "data" / "train")
    assert len(stored) > 2900
    assert [decided[index].level for index in stored.indices.tolist()] == list(stored.levels)
    mixed = stream_plan.requests("train")(range(8))
    assert tuple(decided[index] for index in range(8)) == mixed, "the first lease is decided before anything is known"
    assert list(stored.levels[-500:]).count("hard") > 375, "half of them by the mix, nine tenths by the losses"


def test_two_ranks_read_disjoint_samples(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=200, watermark=8)
    door = tmp_path / "door"
    stream = Stream(*plan(tmp_path, Toy(door=door), reservoir), resources(ranks=2))
    streams.append(stream)
    # One that starts late, as on a loaded machine, would get what is left.
    ray.get([shard.node.remote() for shard in stream.shards])
    door.touch()
    solve_all(stream)
    feed = stream.feed()
    first, second = Rank(feed), Rank(feed, number=1)
    indices = []
    for reader in (first, second):
        drawn: set[int] = set()
        for _ in range(60):
            batch = reader.pull(8)
            assert batch is not None
            drawn |= set(batch.indices.tolist())
        indices.append(drawn)
    assert not indices[0] & indices[1]
    assert min(len(indices[0]), len(indices[1])) >= 25


def test_stopping_wakes_a_waiting_rank_and_leaves_readable_data(tmp_path: Path, streams: list[Stream]) -> None:
    reservoir = ReservoirSpec(kind="reservoir", capacity=1000, watermark=1000)
    stream = Stream(*plan(tmp_path, Toy(seconds=0.02), reservoir, train=100_000), resources())
    streams.append(stream)
    waiting = stream.shards[0].next_batch.remote(4, 0)
    while stream.snapshot().counts["train"].stored < 20:
        stream.poll(0.1)
    started = time.monotonic()
    stream.stop()
    assert ray.get(waiting, timeout=5) is None
    assert time.monotonic() - started < 8
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.leases() == () and ledger.counts("train").leased == 0, "nothing is under way any more"
    stored = StoredSamples.open(tmp_path / "data" / "train").read_all()
    assert len(stored) >= 20
    assert np.array_equal(stored.inputs[:, 0, 0, 0], stored.indices)
