"""What a ledger learns from the shards after a crash."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from headrace.platform.dataset.log import SampleLog
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.ledger.recovery import Recovered, recover
from headrace.platform.sample import SampleBatch
from headrace.platform.stream.coordinator import Coordinator
from headrace.platform.stream.plan import StreamPlan

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(4,), extent=(1.0,), periodic=(False,)),
)


def batch(*indices: int) -> SampleBatch:
    values = np.array(indices, dtype=np.float32)[:, None, None] * np.ones((1, 1, 4), np.float32)
    return SampleBatch(
        indices=np.array(indices, dtype=np.int64),
        inputs=values,
        outputs=values[:, None],
        parameters=np.zeros((len(indices), 0), np.float32),
    )


def log(folder: Path, name: str) -> SampleLog:
    return SampleLog(name, {"train": SCHEMA, "test": SCHEMA}, lambda split: folder / split, {"train": 4, "test": 4})


def dirs(folder: Path) -> dict[str, Path]:
    return {split: folder / split for split in ("train", "test")}


def test_samples_that_were_synced_and_not_committed_are_committed_and_leases_taken_back(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 20, "test": 2}) as ledger:
        lease = ledger.lease("solver-0", "train", 8, 60.0)
        assert lease is not None
        ledger.lease("solver-1", "train", 4, 60.0)
        writer = log(tmp_path, "shard-0")
        writer.append("train", batch(0, 1, 2))
        ledger.commit("train", "shard-0", lease.id, [0, 1, 2])
        writer.append("train", batch(3, 4))  # the crash comes here
        writer.close()
    assert recover(tmp_path / "ledger.sqlite", dirs(tmp_path)) == Recovered(found=2, missing=0, released=9)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        counts = ledger.counts("train")
        assert (counts.stored, counts.leased, counts.waiting, counts.duplicates) == (5, 0, 15, 0)
        again = ledger.lease("solver-2", "train", 20, 60.0)
        assert again is not None and sorted(again.indices) == list(range(5, 20))


def test_what_two_shards_hold_is_found_once(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger.sqlite", {"train": 20, "test": 2}).close()
    for name in ("shard-0", "shard-1"):
        writer = log(tmp_path, name)
        writer.append("train", batch(7))
        writer.close()
    assert recover(tmp_path / "ledger.sqlite", dirs(tmp_path)).found == 1
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.counts("train").duplicates == 0


def test_samples_whose_shard_is_gone_are_planned_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 20, "test": 2}) as ledger:
        for number in (0, 1):
            writer = log(tmp_path, f"shard-{number}")
            writer.append("train", batch(2 * number, 2 * number + 1))
            writer.close()
            ledger.commit("train", writer.name, None, [2 * number, 2 * number + 1])
    shutil.rmtree(tmp_path / "train" / "shard-1.zarr")
    assert recover(tmp_path / "ledger.sqlite", dirs(tmp_path)) == Recovered(found=0, missing=2, released=0)
    assert "2 samples of train were stored once" in caplog.text
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        assert (ledger.counts("train").stored, ledger.counts("train").waiting) == (2, 18)


def test_a_run_that_somebody_works_on_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.platform.ledger.file._LOCK_SECONDS", 0.2)
    with (
        Ledger.create(tmp_path / "ledger.sqlite", {"train": 20, "test": 2}),
        pytest.raises(InputError, match="in the hands of process"),
    ):
        recover(tmp_path / "ledger.sqlite", dirs(tmp_path))


def test_a_log_that_is_come_back_to_knows_what_it_holds(tmp_path: Path) -> None:
    first = log(tmp_path, "shard-0")
    assert first.append("train", batch(1, 2)) == [0, 1]
    first.close()
    second = log(tmp_path, "shard-0")
    assert second.indices("train") == [1, 2] and second.indices("test") == []
    assert second.append("train", batch(2, 3)) == [1]
    second.close()
    assert log(tmp_path, "shard-0").indices("train") == [1, 2, 3]


class Source:
    def schema(self) -> SampleSchema:
        return SCHEMA


def plan(folder: Path) -> StreamPlan:
    return StreamPlan(
        run_dir=folder,
        checkpoint_dir=folder,
        sources={"train": Source()},  # type: ignore[dict-item]
        sequence_length=4,
        message_bytes=1024,
        message_seconds=1.0,
        credits=1,
        lease_seconds=60.0,
        reservoir=None,
        seed=0,
    )


def test_a_coordinator_that_stood_still_takes_work_from_nobody(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {"train": 20}).close()
    now = [1000.0]
    coordinator = Coordinator(path, plan(tmp_path), lambda: now[0])
    assert asyncio.run(coordinator.lease("solver-0", 1, 0)) is not None
    # The machine slept for an hour, and its clock began anew: nobody could give a sign of life.
    for now[0] in (4600.0, 5.0):
        assert asyncio.run(coordinator.silent()) == []
    # One that hangs while the coordinator looks every few seconds is found.
    found: list[str] = []
    while not found and now[0] < 80.0:
        now[0] += 5.0
        found = asyncio.run(coordinator.silent())
    assert found == ["solver-0"] and 60.0 < now[0] < 75.0


def test_a_lease_that_a_coordinator_granted_and_did_not_say_is_granted_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {"train": 20}) as ledger:
        received = ledger.lease("solver-0", "train", 4, 60.0)
        lost = ledger.lease("solver-0", "train", 4, 60.0)
        others = ledger.lease("solver-1", "train", 4, 60.0)
    assert received is not None and lost is not None and others is not None
    restarted = Coordinator(path, plan(tmp_path))
    assert asyncio.run(restarted.lease("solver-0", 1, received.id)) == lost
    # From then on it gets new work.
    new = asyncio.run(restarted.lease("solver-0", 1, lost.id))
    assert new is not None and new.indices == (12, 13, 14, 15)
