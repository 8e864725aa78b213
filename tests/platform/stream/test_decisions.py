"""The coordinator and its sampler without Ray: what was decided stays so, whoever dies."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from jaxtyping import Float32

from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.lease import Lease
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.ledger.recovery import recover
from headrace.platform.sample import Request
from headrace.platform.samplers.fixed_mix import MIXED
from headrace.platform.samplers.loss_weighted import LossWeighted
from headrace.platform.samplers.sampler import AbstractSampler, Axis, Sampler, SamplerContext
from headrace.platform.source import SampleSource
from headrace.platform.stream.coordinator import Coordinator
from headrace.platform.stream.plan import StreamPlan


class Source:
    """Two levels and a parameter; nobody builds it here."""

    def __init__(self, split: str, parts: int) -> None:
        self.split, self.parts = split, parts

    def schema(self) -> SampleSchema:
        return SampleSchema(
            inputs=(FieldSpec(name="a"),),
            outputs=(FieldSpec(name="u"),),
            domain=Grid(shape=(8,), extent=(1.0,), periodic=(False,)),
            parts=self.parts,
        )

    def sampler_context(self, count: int | None = None) -> SamplerContext:
        axes = {"easy": {}, "hard": {"k": Axis(low=1.0, high=2.0)}}
        return SamplerContext(mix={"easy": 1.0, "hard": 1.0}, axes=axes, seed=0, split=self.split, count=count)

    def build(self) -> SampleSource:
        raise AssertionError("decisions are taken before anything is built")


class Counting(AbstractSampler):
    """Chooses a parameter that no index knows: how often it was asked in this process."""

    kind: Literal["counting"] = "counting"
    level: str = "hard"
    name: str = "k"

    def build(self, context: SamplerContext) -> Sampler:
        return Counter(self, context)


class Counter:
    asked = 0

    def __init__(self, spec: Counting, context: SamplerContext) -> None:
        self.spec, self.context = spec, context
        self.observed: list[tuple[Request, float]] = []
        self.prices: list[tuple[str, int, float]] = []

    def decide(self, indices: Sequence[int]) -> list[Request]:
        Counter.asked += len(indices)
        value = 1.0 + Counter.asked / 1000
        return [Request(index=i, level=self.spec.level, parameters={self.spec.name: value}) for i in indices]

    def observe(self, requests: Sequence[Request], losses: Float32[np.ndarray, " batch"]) -> None:
        self.observed += zip(requests, losses.tolist(), strict=True)

    def price(self, level: str, count: int, cpu_seconds: float) -> None:
        self.prices.append((level, count, cpu_seconds))


def plan(folder: Path, sampler: AbstractSampler, *, parts: int = 1, samples: int = 40) -> StreamPlan:
    """A plan, with its ledger."""
    if not (folder / "ledger.sqlite").is_file():
        Ledger.create(folder / "ledger.sqlite", {"train": samples * parts, "test": 4}).close()
    return StreamPlan(
        run_dir=folder,
        checkpoint_dir=folder / "checkpoints",
        sources={"train": Source("train", parts), "test": Source("test", 1)},
        sequence_length=4,
        message_bytes=1 << 20,
        message_seconds=60.0,
        credits=2,
        lease_seconds=60.0,
        reservoir=None,
        seed=0,
        sampler=sampler,
    )


class Desk:
    """A coordinator as solvers meet it; `die` is what a killed process leaves behind, its ledger and nothing else."""

    def __init__(self, plan: StreamPlan) -> None:
        self.plan = plan
        self.coordinator = Coordinator(plan.run_dir / "ledger.sqlite", plan)

    def lease(self, worker: str, last: int = 0, spent: dict[str, tuple[int, float]] | None = None) -> Lease:
        lease = asyncio.run(self.coordinator.lease(worker, 1, last, spent))
        assert lease is not None
        return lease

    def train(self, worker: str, last: int = 0) -> Lease:
        """The next lease of training samples."""
        while (lease := self.lease(worker, last)).split != "train":
            asyncio.run(self.coordinator.commit(lease.split, "shard-0", lease.id, lease.indices))
            last = lease.id
        return lease

    def die(self) -> "Desk":
        self.coordinator._ledger.close()
        return Desk(self.plan)


def counter(desk: Desk) -> Counter:
    assert desk.coordinator._decisions is not None
    sampler = desk.coordinator._decisions._sampler
    assert isinstance(sampler, Counter)
    return sampler


def test_a_fixed_mix_leaves_the_ledger_alone_and_the_solver_derives_it(tmp_path: Path) -> None:
    desk = Desk(plan(tmp_path, MIXED))
    lease = desk.train("a")
    assert lease.requests == ()
    requests = desk.plan.requests("train")(lease.indices)
    assert [request.index for request in requests] == list(lease.indices)
    assert {request.level for request in desk.plan.requests("train")(range(40))} == {"easy", "hard"}
    assert all(request.parameters is None for request in requests)
    asyncio.run(desk.coordinator.observe(np.array([0, 1]), np.zeros(2, np.float32)))
    desk.die()
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert ledger.decided("train") == {}


@pytest.mark.parametrize(("sampler", "count"), [(MIXED, 40), (Counting(), 4)])
def test_what_is_decided_late_is_leased_a_sequence_at_a_time(
    tmp_path: Path, sampler: AbstractSampler, count: int
) -> None:
    desk = Desk(plan(tmp_path, sampler, samples=160))
    desk.train("a")
    lease = asyncio.run(desk.coordinator.lease("b", 10, 0))
    assert lease is not None and len(lease.indices) <= count
    assert (len(lease.indices) > 4) == (count > 4)


def plan_of_mix(folder: Path) -> tuple[Request, ...]:
    """What the held-out samples are where nothing but the mix decides."""
    folder.mkdir()
    return Desk(plan(folder, MIXED)).lease("a").requests


def test_held_out_samples_are_those_of_the_mix_whatever_the_sampler(tmp_path: Path) -> None:
    desk = Desk(plan(tmp_path, Counting()))
    lease = desk.lease("a")
    assert (lease.split, lease.indices) == ("test", (0, 1, 2, 3))
    assert sorted(request.level for request in lease.requests) == ["easy", "easy", "hard", "hard"]
    assert lease.requests == plan_of_mix(tmp_path / "mix")


def test_what_was_decided_is_in_the_ledger_before_anyone_solves_it(tmp_path: Path) -> None:
    desk = Desk(plan(tmp_path, Counting()))
    lease = desk.train("a")
    assert [request.index for request in lease.requests] == list(lease.indices)
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        assert tuple(ledger.decided("train", lease.indices).values()) == lease.requests


@pytest.mark.parametrize("parts", [1, 3])
def test_a_sample_is_what_was_decided_first_whatever_dies(tmp_path: Path, parts: int) -> None:
    desk = Desk(plan(tmp_path, Counting(), parts=parts))
    first = desk.train("a")
    known = {request.index: request for request in first.requests}
    assert len({request.parameters["k"] for request in first.requests if request.parameters}) == 1

    # The coordinator dies after it granted a lease and before it could say so: the solver asks again.
    desk = desk.die()
    again = desk.lease("a")
    assert again.id == first.id
    assert {request.index: request for request in again.requests} == known

    # The solver dies.
    asyncio.run(desk.coordinator.release("a"))
    other = desk.train("b")
    assert {request.index: request for request in other.requests} == {i: known[i] for i in other.indices}

    # It falls silent.
    desk.coordinator._ledger.expire(1e18)
    late = desk.train("c", last=other.id)
    for request in late.requests:
        known.setdefault(request.index, request)
    assert all(known[request.index] == request for request in late.requests)

    # The driver dies, and the run is gone on with.
    desk.coordinator._ledger.close()
    folders = {split: desk.plan.data_dir(split) for split in desk.plan.sources}
    recover(tmp_path / "ledger.sqlite", folders)
    desk = Desk(desk.plan)
    resumed = desk.train("d")
    assert {request.index for request in resumed.requests} & set(known)
    for request in resumed.requests:
        assert known.get(request.index, request) == request
    assert counter(desk).context.count == 40


def test_parts_of_a_trajectory_are_decided_on_together(tmp_path: Path) -> None:
    desk = Desk(plan(tmp_path, Counting(), parts=3))
    lease = desk.train("a")
    assert len(lease.requests) == 12
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        decided = ledger.decided("train")
    assert sorted(decided) == [0, 1, 2, 3]
    assert all(request.parameters == decided[request.index // 3].parameters for request in lease.requests)


def test_a_sampler_is_told_of_losses_and_costs_by_what_was_decided(tmp_path: Path) -> None:
    desk = Desk(plan(tmp_path, Counting(), parts=3))
    lease = desk.train("a")
    indices = np.array([lease.indices[4], lease.indices[4], lease.indices[0]])
    asyncio.run(desk.coordinator.observe(indices, np.array([0.5, 0.25, 1.0], np.float32)))
    assert counter(desk).observed == [(lease.requests[4], 0.5), (lease.requests[4], 0.25), (lease.requests[0], 1.0)]
    desk.lease("a", lease.id, {"hard": (2, 3.0)})
    assert counter(desk).prices == [("hard", 2, 9.0)], "two thirds of trajectories: one costs three times as much"


@pytest.mark.parametrize(
    ("sampler", "words"),
    [
        (Counting(level="hart"), 'level "hart"; expected one of easy, hard. Did you mean "hard"?'),
        (Counting(level="easy"), "expected no parameters: this problem draws no numbers that could be chosen instead"),
        (Counting(name="q"), "parameter q is unknown; expected one of k"),
    ],
)
def test_what_there_is_not_is_refused_and_not_recorded(tmp_path: Path, sampler: Counting, words: str) -> None:
    desk = Desk(plan(tmp_path, sampler))
    with pytest.raises(InputError) as raised:
        desk.train("a")
    assert words in str(raised.value)
    assert desk.coordinator._ledger.decided("train") == {}


def test_a_value_outside_its_bounds_is_refused(tmp_path: Path) -> None:
    context = Source("train", 1).sampler_context()
    with pytest.raises(InputError, match="sample 7 of train: parameter k is 2.5; expected a value from 1 to 2"):
        context.require(Request(index=7, level="hard", parameters={"k": 2.5}))
    with pytest.raises(InputError, match="parameter k is nan"):
        context.require(Request(index=7, level="hard", parameters={"k": float("nan")}))


def test_a_ledger_of_before_there_were_samplers_is_read_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {"train": 40, "test": 4}).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE decisions")
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.decided("train") == {}
    desk = Desk(plan(tmp_path, Counting()))
    lease = desk.train("a")
    assert desk.coordinator._ledger.decided("train") == {request.index: request for request in lease.requests}


def test_the_first_decision_stands_and_unplanned_samples_have_none(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 2000}) as ledger:
        ledger.decide("train", [Request(index=index, level="easy") for index in range(1500)])
        ledger.decide("train", [Request(index=3, level="hard", parameters={"k": 1.25})])
        ledger.decide("train", [Request(index=1500, level="hard", parameters={"k": 1.25})])
        assert ledger.decided("train", [3, 1500, 1700]) == {
            3: Request(index=3, level="easy"),
            1500: Request(index=1500, level="hard", parameters={"k": 1.25}),
        }
        assert len(ledger.decided("train", range(2000))) == len(ledger.decided("train")) == 1501
        with pytest.raises(ValueError, match="train plans the samples 0 to 1999, got 2000 to 2000"):
            ledger.decide("train", [Request(index=2000, level="easy")])


def test_loss_weighted_turns_to_the_level_that_is_lossy_for_its_cost(tmp_path: Path) -> None:
    desk = Desk(plan(tmp_path, LossWeighted(floor=0.2), samples=4000))
    first = desk.plan.sampler.build(Source("train", 1).sampler_context(4000)).decide(range(400))
    assert {request.level for request in first} == {"easy", "hard"}, "before anything is known: the mix"
    last, levels = 0, list[str]()
    for _ in range(200):
        lease = desk.train("a", last)
        levels += [request.level for request in lease.requests]
        # Ten times the loss at twice the cost: five times the worth.
        losses = [1.0 if request.level == "hard" else 0.1 for request in lease.requests]
        asyncio.run(desk.coordinator.observe(np.array(lease.indices), np.array(losses, np.float32)))
        last = lease.id
        desk.coordinator._decisions.price({"hard": (1, 2.0), "easy": (1, 1.0)})  # type: ignore[union-attr]
    share = levels[100:].count("hard") / len(levels[100:])
    assert share == pytest.approx(0.2 * 0.5 + 0.8 * 5.0 / 6.0, abs=0.06), "five sigma of 700 samples"
