"""The ledger: exactly once under any interleaving, safe against crashes, clear about files that are not ledgers."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headrace.platform import files
from headrace.platform.errors import InputError, TakenOver
from headrace.platform.ledger import file as ledger_file
from headrace.platform.ledger.lease import Counts
from headrace.platform.ledger.ledger import MAX_LOSSES, Ledger, seconds_since_boot


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock):
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 100, "test": 5}, clock=clock) as ledger:
        yield ledger


def test_a_lease_counts_through_the_split_in_order(ledger: Ledger):
    first = ledger.lease("a", "train", 4, 60)
    second = ledger.lease("b", "train", 3, 60)
    test = ledger.lease("b", "test", 10, 60)
    assert (first.indices, second.indices, test.indices) == ((0, 1, 2, 3), (4, 5, 6), (0, 1, 2, 3, 4))
    assert (first.worker, first.split, test.split) == ("a", "train", "test")
    assert len({first.id, second.id, test.id}) == 3
    assert ledger.lease("c", "test", 1, 60) is None
    assert ledger.counts("train") == Counts(planned=100, leased=7, stored=0, failed=0, duplicates=0)
    assert ledger.counts("train").waiting == 93


def test_leases_follow_the_order_of_the_split_and_so_do_those_that_came_back(tmp_path: Path, clock: Clock):
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    path = tmp_path / "ordered.sqlite"
    with Ledger.create(path, {"train": 8, "test": 2}, orders={"train": order}, clock=clock) as ledger:
        assert ledger.lease("a", "train", 3, 60).indices == (5, 2, 7)
        ledger.commit("train", "shard-0", None, [2, 1])
        assert ledger.lease("a", "test", 3, 60).indices == (0, 1)
    with Ledger.open(path, clock=clock) as ledger:
        ledger.release_all()
        assert ledger.lease("b", "train", 4, 60).indices == (5, 7, 0, 6)
        assert ledger.lease("b", "train", 4, 60).indices == (4, 3)


def test_the_parts_of_a_trajectory_are_leased_together(tmp_path: Path):
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 24}) as ledger:
        ledger.commit("train", "shard-0", None, [1, 2])
        assert ledger.lease("a", "train", 4, 60, together=4).indices == (0, 3, 4, 5, 6, 7)
        first = ledger.lease("b", "train", 8, 60, together=4)
        assert first.indices == tuple(range(8, 16))
        ledger.commit("train", "shard-0", first.id, [8, 12, 13])
        ledger.release("b")
        # One that cost a worker goes out with fewer others, but never without the rest of its trajectory.
        assert ledger.lease("c", "train", 8, 60, together=4).indices == (9, 10, 11, 14)
        assert ledger.lease("c", "train", 8, 60, together=4).indices == (15,)
        assert ledger.lease("c", "train", 8, 60, together=4).indices == tuple(range(16, 24))
        with pytest.raises(ValueError, match="at least 4, and a multiple of it, got 6"):
            ledger.lease("c", "train", 6, 60, together=4)


@pytest.mark.parametrize("order", [[0, 1], [0, 0, 1], [0, 1, 3]])
def test_an_order_names_every_planned_sample_once(tmp_path: Path, order: list[int]):
    with pytest.raises(ValueError, match=r"the order of train must hold each number from 0 to 2 once, got \d numbers"):
        Ledger.create(tmp_path / "ledger.sqlite", {"train": 3}, orders={"train": order})


def test_a_split_is_complete_when_each_sample_is_stored_or_failed(ledger: Ledger):
    lease = ledger.lease("a", "test", 5, 60)
    assert ledger.commit("test", "shard-0", lease.id, [0, 2, 3, 4], ["easy"] * 4) == [True] * 4
    assert not ledger.is_complete("test")
    assert ledger.fail("test", 1, "hard", "the residual stalled at 1e-3", 2.0, 1.5)
    assert ledger.is_complete("test") and not ledger.is_complete("train")
    (failure,) = ledger.failures("test")
    assert (failure.index, failure.level, failure.reason) == (1, "hard", "the residual stalled at 1e-3")
    assert (failure.wall_seconds, failure.cpu_seconds) == (2.0, 1.5)
    assert ledger.counts("test") == Counts(planned=5, leased=0, stored=4, failed=1, duplicates=0)
    assert {shard: list(found) for shard, found in ledger.committed("test").items()} == {"shard-0": [0, 2, 3, 4]}
    assert ledger.committed("train") == {}


def test_commits_may_be_repeated_and_the_first_shard_keeps_the_sample(ledger: Ledger):
    lease = ledger.lease("a", "train", 4, 60)
    assert ledger.commit("train", "shard-0", lease.id, [0, 1, 1]) == [True, True, False]
    assert ledger.commit("train", "shard-1", lease.id, [1, 2]) == [False, True]
    assert ledger.counts("train") == Counts(planned=100, leased=1, stored=3, failed=0, duplicates=2)
    assert {shard: list(found) for shard, found in ledger.committed("train").items()} == {
        "shard-0": [0, 1],
        "shard-1": [2],
    }


def test_the_late_delivery_of_a_released_lease_is_welcome_once(ledger: Ledger):
    old = ledger.lease("slow", "train", 4, 60)
    (returned,) = ledger.release("slow")
    assert returned == old
    new = ledger.lease("fresh", "train", 2, 60)
    assert new.epoch > old.epoch and set(new.indices) <= set(old.indices)
    assert ledger.commit("train", "shard-0", old.id, new.indices) == [True] * len(new.indices)
    assert ledger.commit("train", "shard-1", new.id, new.indices) == [False] * len(new.indices)
    counts = ledger.counts("train")
    assert (counts.leased, counts.stored, counts.duplicates) == (0, len(new.indices), len(new.indices))


def test_a_failure_does_not_undo_a_sample_but_a_sample_undoes_a_failure(ledger: Ledger):
    ledger.lease("a", "train", 2, 60)
    ledger.commit("train", "shard-0", None, [0])
    assert not ledger.fail("train", 0, "easy", "late", 0.0, 0.0)
    assert ledger.fail("train", 1, "easy", "diverged", 0.0, 0.0)
    assert not ledger.fail("train", 1, "easy", "diverged again", 0.0, 0.0)
    assert [failure.reason for failure in ledger.failures("train")] == ["diverged"]
    assert ledger.commit("train", "shard-0", None, [1]) == [True]
    assert ledger.counts("train") == Counts(planned=100, leased=0, stored=2, failed=0, duplicates=0)
    assert ledger.failures("train") == ()


def test_failures_can_be_limited(ledger: Ledger):
    for index in (4, 2, 9):
        ledger.fail("train", index, "easy", "diverged", 0.0, 0.0)
    assert [failure.index for failure in ledger.failures("train", limit=2)] == [2, 4]


def test_release_gives_back_only_what_is_outstanding_and_begins_an_epoch(ledger: Ledger):
    lease = ledger.lease("a", "train", 4, 60)
    ledger.lease("b", "train", 2, 60)
    ledger.commit("train", "shard-0", lease.id, [0, 1])
    epoch = ledger.epoch
    (returned,) = ledger.release("a")
    assert returned.indices == (2, 3) and ledger.epoch == epoch + 1
    assert ledger.release("a") == () and ledger.epoch == epoch + 1
    assert ledger.counts("train") == Counts(planned=100, leased=2, stored=2, failed=0, duplicates=0)


def test_a_worker_sent_home_costs_its_samples_nothing(ledger: Ledger):
    ledger.lease("a", "train", 4, 60)
    ledger.release("a", lost=False)
    assert ledger.lease("b", "train", 6, 60).indices == (0, 1, 2, 3, 4, 5)


def test_leases_expire_unless_their_worker_gives_a_sign_of_life(ledger: Ledger, clock: Clock):
    silent = ledger.lease("silent", "train", 2, 60)
    delivering = ledger.lease("delivering", "train", 2, 60)
    renewing = ledger.lease("renewing", "train", 2, 60)
    clock.now += 50
    ledger.commit("train", "shard-0", delivering.id, delivering.indices[:1])
    ledger.renew("renewing")
    assert ledger.expire() == ()
    clock.now += 20
    assert [lease.worker for lease in ledger.expire()] == ["silent"]
    assert ledger.expire(clock.now + 1000) == (
        replace(delivering, indices=delivering.indices[1:]),
        renewing,
    )
    assert silent.indices == (0, 1) and ledger.counts("train").leased == 0


def test_a_lease_starts_its_time_anew_where_another_process_takes_the_ledger_over(tmp_path: Path, clock: Clock):
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {"train": 8}, clock=clock) as ledger:
        ledger.lease("a", "train", 4, 60)
    # Another start of the machine, whose clock begins at nothing; then one that has been up for longer.
    for now in (5.0, 1e9):
        clock.now = now
        with Ledger.open(path, clock=clock) as ledger:
            assert ledger.expire() == ()
            clock.now += 59
            assert ledger.expire() == ()
    with Ledger.open(path, clock=clock) as ledger:
        clock.now += 61
        assert [lease.worker for lease in ledger.expire()] == ["a"]


def test_leases_run_on_a_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 8}) as ledger:
        ledger.lease("a", "train", 4, 60)
        monkeypatch.setattr(time, "time", lambda: 4e9)
        assert ledger.expire() == ()
        monkeypatch.setattr(time, "time", lambda: 0.0)
        after = seconds_since_boot() + 61
        assert [lease.worker for lease in ledger.expire(after)] == ["a"]


def test_a_writer_that_another_one_has_taken_over_from_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {"train": 8}) as beyond:
        lease = beyond.lease("a", "train", 4, 60)
        # Locks that are local to each machine: the other one gets it, too.
        monkeypatch.setattr(files.fcntl, "flock", lambda *_: None)
        with Ledger.open(path) as ledger:
            ledger.release_all()
            with pytest.raises(TakenOver, match=rf"process {os.getpid()} on .* has taken over from process"):
                beyond.commit("train", "shard-0", lease.id, lease.indices)
            assert ledger.counts("train").stored == 0
            assert ledger.commit("train", "shard-0", None, [1]) == [True]


def test_finished_leases_do_not_expire(ledger: Ledger, clock: Clock):
    lease = ledger.lease("a", "train", 2, 60)
    ledger.commit("train", "shard-0", lease.id, lease.indices)
    epoch = ledger.epoch
    clock.now += 1000
    assert ledger.expire() == () and ledger.epoch == epoch


def test_a_sample_that_kills_its_workers_is_isolated_and_given_up(tmp_path: Path):
    """Every worker dies on sample 13: all others must be stored, and 13 must fail with a reason."""
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 64}) as ledger:
        deaths = 0
        while not ledger.is_complete("train"):
            lease = ledger.lease(f"worker-{deaths}", "train", 16, 60)
            for index in lease.indices:
                if index == 13:
                    deaths += 1
                    ledger.release(lease.worker)
                    break
                ledger.commit("train", "shard-0", lease.id, [index])
        assert deaths == MAX_LOSSES
        assert ledger.counts("train") == Counts(planned=64, leased=0, stored=63, failed=1, duplicates=0)
        (failure,) = ledger.failures("train")
        assert failure.index == 13 and f"{MAX_LOSSES} workers were lost" in failure.reason


def test_samples_found_on_the_disk_are_not_leased_again(ledger: Ledger):
    ledger.commit("train", "shard-0", None, [2, 3, 99])
    assert ledger.lease("a", "train", 4, 60).indices == (0, 1, 4, 5)
    rest = ledger.lease("a", "train", 1000, 60).indices
    assert rest == tuple(range(6, 99))
    assert ledger.lease("a", "train", 1, 60) is None


def test_a_million_planned_samples_cost_nothing(tmp_path: Path):
    started = time.perf_counter()
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 10**6}) as ledger:
        assert ledger.lease("a", "train", 32, 60).indices == tuple(range(32))
        assert ledger.counts("train").waiting == 10**6 - 32
    assert time.perf_counter() - started < 5
    assert (tmp_path / "ledger.sqlite").stat().st_size < 200_000


def test_a_large_commit(tmp_path: Path):
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 5000}) as ledger:
        assert all(ledger.commit("train", "shard-0", None, np.arange(3000)))
        assert ledger.commit("train", "shard-1", None, np.arange(2000, 5000)) == [False] * 1000 + [True] * 2000
        assert ledger.is_complete("train") and ledger.counts("train").duplicates == 1000


def test_changes_are_counted_and_survive_reopening(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {"train": 10}) as ledger:
        version = ledger.version
        lease = ledger.lease("a", "train", 4, 60)
        ledger.commit("train", "shard-0", lease.id, lease.indices[:2])
        assert ledger.version == version + 2
        ledger.release("nobody")
        assert ledger.version == version + 2
    with Ledger.open(path) as ledger:
        assert ledger.version == version + 2
        (returned,) = ledger.release_all()
        assert returned.indices == (2, 3)
        assert ledger.lease("b", "train", 3, 60).indices == (2, 3, 4)


def test_a_reader_follows_the_writer(ledger: Ledger):
    with Ledger.open(ledger.path, read_only=True) as reader:
        ledger.commit("train", "shard-0", None, [7])
        assert reader.counts("train").stored == 1 and reader.splits == ("test", "train")
        with pytest.raises(sqlite3.OperationalError):
            reader.commit("train", "shard-0", None, [8])


def test_a_failed_change_leaves_nothing_behind(ledger: Ledger):
    before = ledger.counts("train"), ledger.version
    with pytest.raises(ValueError, match="plans the samples 0 to 99, got 3 to 100"):
        ledger.commit("train", "shard-0", None, [3, 100])
    with pytest.raises(ValueError, match="2 indices came with 1 levels"):
        ledger.commit("train", "shard-0", None, [3, 4], ["easy"])
    assert (ledger.counts("train"), ledger.version) == before


def test_wrong_calls_are_told(ledger: Ledger, tmp_path: Path):
    with pytest.raises(ValueError, match="no split 'valid', only test, train"):
        ledger.counts("valid")
    with pytest.raises(ValueError, match="at least 1, and a multiple of it, got 0"):
        ledger.lease("a", "train", 0, 60)
    with pytest.raises(ValueError, match="non-negative number of samples per split"):
        Ledger.create(tmp_path / "other.sqlite", {"train": -1})


def test_a_missing_ledger(tmp_path: Path):
    with pytest.raises(InputError, match=r"ledger.sqlite is not there; expected the ledger of a run"):
        Ledger.open(tmp_path / "ledger.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("index,level\n" * 100)
    with pytest.raises(InputError, match="not readable as SQLite"):
        Ledger.open(path)


def test_the_database_of_another_program(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    sqlite3.connect(path).execute("CREATE TABLE runs (id INTEGER)").connection.close()
    with pytest.raises(InputError, match="a SQLite file of something else"):
        Ledger.open(path)


def test_a_ledger_of_another_version(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {"train": 1}).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=7")
    connection.close()
    with pytest.raises(InputError, match="is a ledger of format 7; expected a ledger of format 2"):
        Ledger.open(path)


def test_creating_over_a_ledger(ledger: Ledger):
    with pytest.raises(InputError, match="there already; expected a new file. Resume the run"):
        Ledger.create(ledger.path, {"train": 1})


def test_a_second_writer_is_refused_and_told_who_writes(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledger_file, "_LOCK_SECONDS", 0.0)
    with pytest.raises(InputError, match=f"in the hands of process {os.getpid()}"):
        Ledger.open(ledger.path)
    ledger.close()
    Ledger.open(ledger.path).close()


@pytest.mark.parametrize("seed", range(8))
def test_exactly_once_under_random_interleavings(tmp_path: Path, seed: int):
    """Against a model: workers lease, deliver in pieces, twice, late, to two shards, fail, die, expire; restarts."""
    rng = random.Random(seed)
    clock = Clock()
    path = tmp_path / "ledger.sqlite"
    planned = 60
    ledger = Ledger.create(path, {"train": planned}, clock=clock)
    leases: list = []  # every lease ever granted: late deliveries may come under any of them
    stored: dict[int, str] = {}
    failed: set[int] = set()
    duplicates = 0
    for step in range(3000):
        action = rng.choices(
            ["lease", "commit", "fail", "release", "expire", "restart"], weights=[4, 8, 0.3, 0.5, 0.3, 0.1]
        )[0]
        if action == "lease":
            lease = ledger.lease(f"worker-{rng.randrange(4)}", "train", rng.randint(1, 9), 60)
            if lease is not None:
                assert not set(lease.indices) & (set(stored) | failed), "leased what is done"
                leases.append(lease)
        elif action == "commit" and leases:
            lease = rng.choice(leases[-6:] if rng.random() < 0.8 else leases)
            indices = rng.sample(lease.indices, rng.randint(1, len(lease.indices)))
            shard = f"shard-{rng.randrange(2)}"
            accepted = ledger.commit("train", shard, lease.id, indices)
            assert accepted == [index not in stored for index in indices]
            duplicates += accepted.count(False)
            stored |= {index: shard for index, new in zip(indices, accepted, strict=True) if new}
            failed -= set(indices)
        elif action == "fail" and leases:
            index = rng.choice(rng.choice(leases).indices)
            assert ledger.fail("train", index, "easy", "diverged", 0.0, 0.0) == (
                index not in stored and index not in failed
            )
            failed |= {index} - set(stored)
        elif action == "release":
            ledger.release(f"worker-{rng.randrange(4)}", lost=False)
        elif action == "expire":
            clock.now += rng.uniform(0, 90)
            ledger.expire()
            failed = {failure.index for failure in ledger.failures("train")}  # some may have lost too many workers
            assert not failed & set(stored)
        elif action == "restart":
            ledger.close()
            ledger = Ledger.open(path, clock=clock)
            ledger.release_all()
        counts = ledger.counts("train")
        assert (counts.stored, counts.failed, counts.duplicates) == (len(stored), len(failed), duplicates)
        assert 0 <= counts.leased <= planned - len(stored) - len(failed)
        if ledger.is_complete("train") and step > 1000:
            break
    assert ledger.is_complete("train") and set(stored) | failed == set(range(planned))
    found = {int(index): shard for shard, indices in ledger.committed("train").items() for index in indices}
    assert found == stored
    ledger.close()


def test_threads_share_a_ledger(tmp_path: Path):
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 200}) as ledger:
        granted: list[int] = []

        def work(worker: str) -> None:
            while (lease := ledger.lease(worker, "train", 7, 60)) is not None:
                granted.extend(lease.indices)
                ledger.commit("train", worker, lease.id, lease.indices)

        threads = [threading.Thread(target=work, args=(f"worker-{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(granted) == list(range(200)) and ledger.is_complete("train")


_WRITER = """
import sys
from headrace.platform.ledger.ledger import Ledger
ledger = Ledger.open(sys.argv[1])
ledger.release_all()
while (lease := ledger.lease("worker", "train", 5, 60)) is not None:
    ledger.commit("train", "shard-0", lease.id, lease.indices)
    print(*lease.indices, flush=True)
"""


def test_what_was_committed_survives_sigkill(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {"train": 10**6}).close()
    acknowledged: set[int] = set()
    for round_ in range(2):
        with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(20 + 13 * round_):
                acknowledged |= {int(word) for word in writer.stdout.readline().split()}
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split("\n")[:-1]  # a last line without its end may be torn
            acknowledged |= {int(word) for line in rest for word in line.split()}
    with Ledger.open(path) as ledger:
        stored = set(ledger.committed("train")["shard-0"].tolist())
        assert len(acknowledged) >= 33 * 5 and acknowledged <= stored
        assert ledger.counts("train").stored == len(stored)
        ledger.release_all()
        lost = min(set(range(10**6)) - stored)
        assert ledger.lease("next", "train", 5, 60).indices[0] == lost
