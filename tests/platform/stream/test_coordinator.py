"""The coordinator's commits: gathered, off its event loop, and answered when they are on the disk."""

import asyncio
import threading
from pathlib import Path

import pytest

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger import file as ledger_file
from headrace.platform.ledger.commits import Commit
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.sample import Failure
from headrace.platform.stream.coordinator import Coordinator
from headrace.platform.stream.plan import StreamPlan

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="b"),),
    domain=Grid(shape=(4,), extent=(1.0,), periodic=(False,)),
)


class Source:
    def schema(self) -> SampleSchema:
        return SCHEMA


class Disk:
    """A disk whose syncs are counted, and wait for the gate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate, self.num_syncs, self._sync = threading.Event(), 0, ledger_file.sync
        monkeypatch.setattr(ledger_file, "sync", self)

    def __call__(self, path: Path) -> None:
        assert self.gate.wait(10)
        self.num_syncs += 1
        self._sync(path)


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    Ledger.create(tmp_path / "ledger.sqlite", {"train": 400}).close()
    return Coordinator(
        tmp_path / "ledger.sqlite",
        StreamPlan(
            run_dir=tmp_path,
            checkpoint_dir=tmp_path,
            sources={"train": Source()},  # type: ignore[dict-item]
            sequence_length=4,
            message_bytes=1024,
            message_seconds=1.0,
            credits=1,
            lease_seconds=60.0,
            reservoir=None,
            seed=0,
        ),
    )


def test_solvers_are_served_while_commits_wait_for_the_disk(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    async def act() -> None:
        asked = [
            asyncio.create_task(coordinator.commit("train", f"shard-{k % 2}", 0, [4 * k + i for i in range(4)]))
            for k in range(50)
        ]
        many = asyncio.create_task(
            coordinator.commit_all(
                [Commit(split="train", shard="shard-0", lease_id=None, indices=[k]) for k in (0, 300)]
            )
        )
        lease = await asyncio.wait_for(coordinator.lease("solver-0", 1, 0), 10)
        assert lease is not None
        await asyncio.wait_for(coordinator.renew("solver-0"), 10)
        assert not any(task.done() for task in asked)
        disk.gate.set()
        assert await asyncio.gather(*asked) == [[True] * 4] * 50
        assert await many == [[False], [True]]

    asyncio.run(act())
    assert disk.num_syncs == 2  # the first, and all that came meanwhile
    assert asyncio.run(coordinator.counts())["train"].stored == 201


def test_a_wrong_commit_and_a_failure_beside_others(coordinator: Coordinator) -> None:
    async def act() -> None:
        right, wrong, failed = await asyncio.gather(
            coordinator.commit("train", "shard-0", 0, [1]),
            coordinator.commit("train", "shard-0", 0, [400]),
            coordinator.fail("train", Failure(index=2, level="easy", reason="no", wall_seconds=0.0, cpu_seconds=0.0)),
            return_exceptions=True,
        )
        assert right == [True] and isinstance(wrong, ValueError) and failed is None
        settled = await asyncio.wait_for(coordinator.wait_settled("train", [1, 2]), 10)
        assert settled == [1]

    asyncio.run(act())


def test_a_disk_that_fails_is_told_to_all_who_wait(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger_file, "sync", full)

    async def act() -> list[object]:
        return await asyncio.gather(
            *(coordinator.commit("train", "shard-0", 0, [k]) for k in range(3)), return_exceptions=True
        )

    assert all(isinstance(error, OSError) and error.errno == 28 for error in asyncio.run(act()))
