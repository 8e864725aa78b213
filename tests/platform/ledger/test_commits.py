"""Group commits: many messages, one transaction, one sync, an answer for each; nothing that was answered is lost."""

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from headrace.platform.ledger import file as ledger_file
from headrace.platform.ledger.commits import Commit
from headrace.platform.ledger.lease import Counts
from headrace.platform.ledger.ledger import Ledger


def commit(*indices: int, split: str = "train", shard: str = "shard-0", lease_id: int | None = None) -> Commit:
    return Commit(split=split, shard=shard, lease_id=lease_id, indices=indices)


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.create(tmp_path / "ledger.sqlite", {"train": 100, "test": 10}) as ledger:
        yield ledger


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    paths: list[Path] = []
    original = ledger_file.sync

    def sync(path: Path) -> None:
        paths.append(path)
        original(path)

    monkeypatch.setattr(ledger_file, "sync", sync)
    return paths


def test_many_messages_take_one_transaction_and_one_sync(ledger: Ledger, synced: list[Path]) -> None:
    lease = ledger.lease("solver-0", "train", 8, 60.0)
    assert lease is not None
    version = ledger.version
    answers = ledger.commit_all(
        [
            commit(0, 1, 2, lease_id=lease.id),
            commit(0, split="test"),
            commit(2, 3, shard="shard-1", lease_id=lease.id),
            commit(3, 3, 4, lease_id=lease.id),
        ]
    )
    assert answers == [[True] * 3, [True], [False, True], [False, False, True]]
    assert synced == [ledger.path.with_name("ledger.sqlite-wal")] and ledger.version == version + 1
    assert ledger.counts("train") == Counts(planned=100, leased=3, stored=5, failed=0, duplicates=3)
    assert {shard: list(found) for shard, found in ledger.committed("train").items()} == {
        "shard-0": [0, 1, 2, 4],
        "shard-1": [3],
    }
    ledger.commit_all([commit(5, 6, lease_id=lease.id), commit(7, lease_id=lease.id)])
    assert ledger.leases() == () and ledger.counts("train").leased == 0


def test_a_wrong_message_does_not_concern_the_others(ledger: Ledger) -> None:
    first, beyond, elsewhere, last = ledger.commit_all([commit(1), commit(100), commit(0, split="nowhere"), commit(2)])
    assert (first, last) == ([True], [True])
    assert isinstance(beyond, ValueError) and "plans the samples 0 to 99, got 100 to 100" in str(beyond)
    assert isinstance(elsewhere, ValueError) and "has no split 'nowhere'" in str(elsewhere)
    assert ledger.counts("train").stored == 2


def test_together_or_one_by_one_comes_to_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    commits = [commit(*rng.integers(0, 100, 5).tolist(), shard=f"shard-{k % 3}") for k in range(40)]
    found = []
    for name, size in (("one", 1), ("seven", 7), ("all", 40)):
        with Ledger.create(tmp_path / name, {"train": 100}) as ledger:
            for k in range(20):
                ledger.fail("train", k, "easy", "no", 0.0, 0.0)
            answers = [answer for k in range(0, 40, size) for answer in ledger.commit_all(commits[k : k + size])]
            committed = {shard: list(numbers) for shard, numbers in ledger.committed("train").items()}
            found.append((answers, ledger.counts("train"), committed))
    assert found[0] == found[1] == found[2]


def test_others_are_answered_while_a_commit_waits_for_the_disk(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, gate, original = threading.Event(), threading.Event(), ledger_file.sync

    def slow(path: Path) -> None:
        begun.set()
        assert gate.wait(10)
        original(path)

    monkeypatch.setattr(ledger_file, "sync", slow)
    thread = threading.Thread(target=ledger.commit_all, args=([commit(0)],))
    thread.start()
    assert begun.wait(10)
    lease = ledger.lease("solver-0", "train", 4, 60.0)
    assert lease is not None and lease.indices == (1, 2, 3, 4)
    ledger.renew("solver-0")
    assert thread.is_alive()  # not answered: it is not on the disk yet
    gate.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_disk_that_failed_once_is_not_believed_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ledger_file, "sync", full)
        with pytest.raises(OSError, match="No space left on device"):
            ledger.commit_all([commit(0)])
    # The next sync would succeed: the kernel has forgotten what it could not write.
    with pytest.raises(OSError, match="could not be synced before: No space left on device") as error:
        ledger.commit_all([commit(1)])
    assert error.value.errno == 28
    with pytest.raises(OSError, match="could not be synced before"):
        ledger.lease("solver-0", "train", 4, 60.0)


def test_whatever_is_left_of_the_log_what_was_answered_is_there_once(tmp_path: Path) -> None:
    """A power cut keeps what was synced, and any part of what was written after."""
    folder = tmp_path / "before"
    folder.mkdir()
    ledger = Ledger.create(folder / "ledger.sqlite", {"train": 200})
    log = folder / "ledger.sqlite-wal"
    answered: list[tuple[int, int]] = []  # length of the log when a group was answered, and how many samples by then
    for group in range(5):
        ledger.commit_all(
            [commit(*range(8 * k, 8 * k + 8), shard=f"shard-{k % 2}") for k in (2 * group, 2 * group + 1)]
        )
        answered.append((log.stat().st_size, 16 * (group + 1)))
    content = log.read_bytes()
    base = (folder / "ledger.sqlite").read_bytes()
    ledger.close()
    cuts = sorted({*np.linspace(0, len(content), 60).astype(int).tolist(), *(size for size, _ in answered)})
    for cut in cuts:
        after = tmp_path / "after"
        after.mkdir()
        (after / "ledger.sqlite").write_bytes(base)
        # What the disk had not written yet may be anything: here it is noise.
        (after / "ledger.sqlite-wal").write_bytes(content[:cut] + os.urandom(len(content) - cut))
        promised = max([count for size, count in answered if size <= cut], default=0)
        with Ledger.open(after / "ledger.sqlite") as found:
            stored = sorted(int(n) for numbers in found.committed("train").values() for n in numbers)
            assert stored == list(range(len(stored))) and len(stored) % 16 == 0, cut
            assert len(stored) >= promised, cut
            assert found.counts("train").stored == len(stored)
        shutil.rmtree(after)
