"""Ledger: which samples are planned, leased, stored or failed, so that each is stored exactly once."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from headrace.platform.ledger.commits import Commit, end_leases, record
from headrace.platform.ledger.file import create_file
from headrace.platform.ledger.lease import Lease
from headrace.platform.ledger.states import FAILED, LEASED, STORED
from headrace.platform.ledger.view import LedgerView, require_planned
from headrace.platform.sample import Request

MAX_LOSSES = 8  # workers that a sample may lose before it is given up


def seconds_since_boot() -> float:
    """A clock that nobody sets and that goes on while the machine sleeps, where there is one [s]."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux has it
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Ledger(LedgerView):
    """The record of every sample of a run, in one SQLite file.

    One process writes (the coordinator, held to it by a file lock); others may open it read-only at any time. The
    methods may be called from several threads. Samples that nobody touched take neither memory nor disk.

    A sample goes waiting -> leased -> stored or failed. A lease ends by delivery, by `release` of its worker or by
    `expire`; what it still held then waits again. `commit` decides who was first: it may be repeated, and late
    deliveries of a released lease are welcome while nobody else delivered, because sample i is the same whoever
    solves it; after that they count as duplicates. So a worker of an older epoch cannot change what is stored.

    A sample whose worker was lost `MAX_LOSSES` times is recorded as failed: it may be what kills them. Such samples
    are handed out again in ever shorter leases, so that the culprit ends up alone.

    Commits, failures and decisions are on the disk when the call returns; a lease that a power cut forgets is granted
    again. What a sampler decided on a sample (`decide`) is never changed: however often it is leased, it is the same.

    Make it with `create`, come back to it with `open`.
    """

    def __init__(
        self, path: Path, *, read_only: bool, clock: Callable[[], float], wait_seconds: float | None = None
    ) -> None:
        super().__init__(path, read_only=read_only, clock=clock, wait_seconds=wait_seconds)
        if not read_only:
            # What was noted by another start of the machine, or on another one, means nothing to this clock; and
            # nobody could give a sign of life while nobody listened.
            self.renew_all()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        planned: Mapping[str, int],
        *,
        orders: Mapping[str, Sequence[int] | Int64[np.ndarray, " samples"]] | None = None,
        clock: Callable[[], float] = seconds_since_boot,
    ) -> "Ledger":
        """Start a ledger.

        Args:
            path: a file that does not exist yet.
            planned: number of samples per split, for example `{"train": 3000, "validation": 60, "test": 150}`.
            orders: for splits whose samples are leased in another order than that of their numbers, all of its numbers
                in that order; it is kept in the file.
            clock: seconds now, on a clock that nobody sets.

        Raises:
            InputError: the file exists.
            ValueError: nothing is planned, or a negative number, or an order is not one of the planned samples.
        """
        if not planned or min(planned.values()) < 0:
            raise ValueError(f"planned must name a non-negative number of samples per split, got {dict(planned)}")
        blobs = {}
        for split, numbers in (orders or {}).items():
            order = np.asarray(numbers, dtype="<i8")
            if not np.array_equal(np.sort(order), np.arange(planned.get(split, 0))):
                raise ValueError(
                    f"the order of {split} must hold each number from 0 to {planned.get(split, 0) - 1} once, "
                    f"got {order.size} numbers"
                )
            blobs[split] = order.tobytes()
        create_file(Path(path), planned, blobs)
        return cls(Path(path), read_only=False, clock=clock)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        clock: Callable[[], float] = seconds_since_boot,
        wait_seconds: float | None = None,
    ) -> "Ledger":
        """Come back to a ledger: to go on (call `release_all` first, if the old workers are gone) or only to read.

        The leases that are out start their time anew.

        Args:
            path: the file.
            read_only: change nothing; another process may write meanwhile.
            clock: as in `create`.
            wait_seconds: how long to wait for another process that writes it, and may be out of reach [s];
                default: as long as one that was killed takes to go.

        Raises:
            InputError: there is no such file, it is not a ledger, comes from another version, or another process
                writes it.
        """
        return cls(Path(path), read_only=read_only, clock=clock, wait_seconds=wait_seconds)

    def lease(self, worker: str, split: str, count: int, ttl_seconds: float, *, together: int = 1) -> Lease | None:
        """Hand up to `count` samples to a worker; those that came back first, then new ones, both in the split's order.

        Args:
            worker: name of the worker.
            split: which split to work on.
            count: how many samples it wants; it may get fewer.
            ttl_seconds: how long it may stay silent; each delivery and `renew` starts the time anew.
            together: new samples come in groups of so many, from a multiple of it on, and are not torn apart: the parts
                of a trajectory. `count` is a multiple of it.

        Returns:
            The lease, or None when no sample is waiting (others may still be out: see `is_complete`).
        """
        if count < 1 or count % together:
            raise ValueError(f"a lease needs a count of at least {together}, and a multiple of it, got {count}")
        with self._file.transaction(durable=False) as db:
            planned, start = self._split(split)[:2]
            returned = self._file.rows(
                "SELECT number, losses FROM samples INDEXED BY free WHERE split = ? AND state = 0 "
                "ORDER BY number LIMIT ?",
                split,
                count,
            )
            if any(losses for _, losses in returned):
                # A sample that lost its worker goes out in a lease of count / 2^losses: after a few losses, alone.
                worst = max(losses for _, losses in returned)
                least = max(together, (count >> worst) // together * together)
                returned = [row for row in returned if row[1] == worst][:least]
                fresh: list[int] = []
            else:
                room = (count - len(returned)) // together * together
                fresh, start = self._untouched(split, start, planned, room, together)
            indices = [number for number, _ in returned] + fresh
            _, places = self._orders.get(split, (None, None))
            indices.sort(key=None if places is None else lambda number: int(places[number]))
            if not indices:
                return None
            epoch = self.epoch
            row = (epoch, worker, split, ttl_seconds, self._clock() + ttl_seconds)
            cursor = db.execute(
                "INSERT INTO leases (epoch, worker, split, ttl_seconds, expires) VALUES (?, ?, ?, ?, ?)", row
            )
            lease = int(cursor.lastrowid or 0)
            db.executemany(
                "INSERT INTO samples (split, number, state, lease) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET state = excluded.state, lease = excluded.lease",
                [(split, number, LEASED, lease) for number in indices],
            )
            db.execute("UPDATE splits SET next = ?, leased = leased + ? WHERE name = ?", (start, len(indices), split))
        return Lease(id=lease, epoch=epoch, worker=worker, split=split, indices=tuple(indices))

    def decide(self, split: str, requests: Sequence[Request]) -> None:
        """Record what samples shall be, before anyone solves them; durable on return. The first decision stands.

        Args:
            split: the split that the requests count in.
            requests: for whole samples: a trajectory is one, in how many parts it may come.
        """
        rows = [
            (split, one.index, one.level, None if one.parameters is None else json.dumps(dict(one.parameters)))
            for one in requests
        ]
        with self._file.transaction(durable=True) as db:
            self._check(split, [one.index for one in requests])
            db.executemany("INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, ?)", rows)

    def commit(
        self, split: str, shard: str, lease_id: int | None, indices: Sequence[int], levels: Sequence[str] = ()
    ) -> list[bool]:
        """Record samples as stored; durable on return. Call it after the shard's own sync, before acknowledging.

        May be repeated. The first commit of an index wins, under whatever lease, also one that was released; every
        further one counts as a duplicate. A sample that failed before is stored after all.

        Args:
            split: the split that the indices count in.
            shard: name of the shard that holds them.
            lease_id: the lease that they were solved under, which lives on for another `ttl_seconds`; None when
                unknown (samples found on the disk).
            indices: the samples.
            levels: the difficulty level of each; may be left out.

        Returns:
            For each index whether it is newly stored; False is a duplicate.

        Raises:
            ValueError: an index is not planned, or `levels` has another length.
        """
        (found,) = self.commit_all(
            [Commit(split=split, shard=shard, lease_id=lease_id, indices=indices, levels=levels)]
        )
        if isinstance(found, ValueError):
            raise found
        return found

    def commit_all(self, commits: Sequence[Commit]) -> list[list[bool] | ValueError]:
        """Record the samples of many messages, in one transaction and with one sync; durable on return.

        This is a group commit (DeWitt et al., "Implementation techniques for main memory database systems", 1984, Sec.
        5.2): see `commit` for each of them, in their order.

        Returns:
            For each what `commit` returns, or the error that it raises; one that is wrong does not concern the others.
        """
        results: list[list[bool] | ValueError] = [[] for _ in commits]
        with self._file.transaction(durable=True) as db:
            for split in dict.fromkeys(commit.split for commit in commits):
                right: list[tuple[int, list[int]]] = []
                planned: int | None = None
                for place, commit in enumerate(commits):
                    if commit.split != split:
                        continue
                    numbers = [int(index) for index in commit.indices]
                    try:
                        if commit.levels and len(commit.levels) != len(numbers):
                            raise ValueError(f"{len(numbers)} indices came with {len(commit.levels)} levels")
                        planned = self._split(split)[0] if planned is None else planned
                        require_planned(split, planned, numbers)
                    except ValueError as error:
                        results[place] = error
                        continue
                    right.append((place, numbers))
                if not right:
                    continue
                touched = self._states(split, sorted({number for _, numbers in right for number in numbers}))
                accepted = record(db, split, [(commits[place], numbers) for place, numbers in right], touched)
                for (place, _), fresh in zip(right, accepted, strict=True):
                    results[place] = fresh
                end_leases(db, [commits[place] for place, _ in right], self._clock())
        return results

    def fail(self, split: str, index: int, level: str, reason: str, wall_seconds: float, cpu_seconds: float) -> bool:
        """Record that a sample cannot be had, with its reason and what the attempt cost; durable on return.

        Returns:
            False when the sample is stored or failed already: nothing changes.
        """
        with self._file.transaction(durable=True) as db:
            self._check(split, [index])
            state = self._states(split, [index]).get(index)
            if state in (STORED, FAILED):
                return False
            db.execute(
                "INSERT INTO samples (split, number, state, level, reason, wall_seconds, cpu_seconds) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, lease = NULL, "
                "level = excluded.level, reason = excluded.reason, wall_seconds = excluded.wall_seconds, "
                "cpu_seconds = excluded.cpu_seconds",
                (split, index, FAILED, level, reason, wall_seconds, cpu_seconds),
            )
            db.execute(
                "UPDATE splits SET failed = failed + 1, leased = leased - ? WHERE name = ?",
                (int(state == LEASED), split),
            )
        return True

    def reopen(self, split: str, indices: Sequence[int]) -> None:
        """Let stored samples wait again whose data are gone; durable on return.

        Raises:
            ValueError: an index is not planned.
        """
        numbers = [int(index) for index in indices]
        with self._file.transaction(durable=True) as db:
            self._check(split, numbers)
            changed = db.executemany(
                "UPDATE samples SET state = 0, shard = NULL, level = NULL, lease = NULL "
                "WHERE split = ? AND number = ? AND state = 2",
                [(split, number) for number in numbers],
            ).rowcount
            db.execute("UPDATE splits SET stored = stored - ? WHERE name = ?", (changed, split))

    def renew(self, worker: str) -> None:
        """Note a sign of life: the worker's leases start their time anew."""
        with self._file.transaction(durable=False) as db:
            self._touch(db, "worker = ?", worker)

    def renew_all(self) -> None:
        """Let all leases start their time anew: the clock, or who watches over them, had stood still."""
        with self._file.transaction(durable=False, counts=False) as db:
            self._touch(db, "? = 1", 1)

    def release(self, worker: str, *, lost: bool = True) -> tuple[Lease, ...]:
        """Take back what a worker still holds and begin a new epoch.

        Args:
            worker: name of the worker.
            lost: whether it died, which counts against the samples; not when it was sent home.

        Returns:
            Its leases with the indices that were outstanding; they wait for the next `lease`.
        """
        return self._take_back("worker = ?", worker, lost=lost)

    def release_all(self) -> tuple[Lease, ...]:
        """Take back every lease, on resuming a run whose workers are gone; not counted as losses of workers."""
        return self._take_back("? = 1", 1, lost=False)

    def expire(self, now: float | None = None) -> tuple[Lease, ...]:
        """Take back the leases whose time is over at `now` (the clock's time when left out)."""
        return self._take_back("expires <= ?", self._clock() if now is None else now, lost=True)

    def _untouched(self, split: str, start: int, planned: int, count: int, together: int) -> tuple[list[int], int]:
        """The next samples from `start` that nobody touched, and where to look next time."""
        found: list[int] = []
        while len(found) < count and start < planned:
            stop = min(-(-(start + count - len(found)) // together) * together, planned)
            order, _ = self._orders.get(split, (None, None))
            numbers = list(range(start, stop)) if order is None else [int(number) for number in order[start:stop]]
            # Samples beyond the cursor may have been committed without a lease: found on the disk after a crash.
            taken = self._states(split, numbers)
            found += [number for number in numbers if number not in taken]
            start = stop
        return found, start

    def _touch(self, db: sqlite3.Connection, where: str, value: object) -> None:
        db.execute(f"UPDATE leases SET expires = ttl_seconds + ? WHERE {where}", (self._clock(), value))

    def _take_back(self, where: str, value: object, *, lost: bool) -> tuple[Lease, ...]:
        """Let the outstanding samples of some leases wait again, and begin a new epoch if there were any."""
        taken = []
        with self._file.transaction(durable=False) as db:
            rows = self._file.rows(f"SELECT id, epoch, worker, split FROM leases WHERE {where} ORDER BY id", value)
            for id_, epoch, worker, split in rows:
                indices = self._outstanding(id_)
                db.execute(
                    "UPDATE samples SET losses = losses + ?, lease = NULL, state = 0 WHERE lease = ? AND state = 1",
                    (int(lost), id_),
                )
                db.execute("UPDATE splits SET leased = leased - ? WHERE name = ?", (len(indices), split))
                db.execute("DELETE FROM leases WHERE id = ?", (id_,))
                if indices:
                    taken.append(Lease(id=id_, epoch=epoch, worker=worker, split=split, indices=indices))
            if taken:
                db.execute("UPDATE meta SET epoch = epoch + 1")
            for split in {lease.split for lease in taken} if lost else ():
                self._give_up(db, split)
        return tuple(taken)

    def _give_up(self, db: sqlite3.Connection, split: str) -> None:
        """Record as failed what lost too many workers."""
        reason = f"given up: {MAX_LOSSES} workers were lost or fell silent while they had it"
        number = db.execute(
            "UPDATE samples INDEXED BY free SET state = 3, level = 'unknown', reason = ?, wall_seconds = 0, "
            "cpu_seconds = 0 WHERE split = ? AND state = 0 AND losses >= ?",
            (reason, split, MAX_LOSSES),
        ).rowcount
        db.execute("UPDATE splits SET failed = failed + ? WHERE name = ?", (number, split))
