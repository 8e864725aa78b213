"""LedgerView: what a ledger says, to whoever may only read it and to its writer."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Int64

from headrace.platform.ledger.file import LedgerFile
from headrace.platform.ledger.lease import Counts, Lease
from headrace.platform.ledger.states import FAILED, STORED
from headrace.platform.sample import Failure, Request


class LedgerView:
    """The record of every sample of a run, as far as it can be asked; see `Ledger`.

    The methods may be called from several threads, and while another process writes.
    """

    def __init__(
        self, path: Path, *, read_only: bool, clock: Callable[[], float], wait_seconds: float | None = None
    ) -> None:
        self.path = path
        self._clock = clock
        self._file = LedgerFile(path, read_only=read_only, wait_seconds=wait_seconds)
        # For each split that has an order: the samples in it, and where in it each sample stands.
        self._orders: dict[str, tuple[Int64[np.ndarray, " samples"], Int64[np.ndarray, " samples"]]] = {}
        for split, numbers in self._file.rows("SELECT split, numbers FROM orders"):
            order = np.frombuffer(numbers, dtype="<i8")
            self._orders[str(split)] = (order, np.argsort(order))

    def close(self) -> None:
        """Close the file and let another process write."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def epoch(self) -> int:
        """How many times leases were taken back."""
        return int(self._file.row("SELECT epoch FROM meta")[0])

    @property
    def version(self) -> int:
        """Number of changes so far: what a checkpoint names to say which ledger it belongs to."""
        return int(self._file.row("SELECT version FROM meta")[0])

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(str(name) for (name,) in self._file.rows("SELECT name FROM splits ORDER BY name"))

    def decided(self, split: str, indices: Sequence[int] | None = None) -> dict[int, Request]:
        """What was decided on some whole samples, or on all of a split, by index; those that nobody decided on lack."""
        if not self._file.has_table("decisions"):
            return {}
        query = "SELECT number, level, parameters FROM decisions WHERE split = ?"
        if indices is None:
            rows = self._file.rows(query, split)
        else:
            rows = self._file.rows_of(f"{query} AND number", split, numbers=[int(index) for index in indices])
        return {
            number: Request(
                index=number, level=level, parameters=None if parameters is None else json.loads(parameters)
            )
            for number, level, parameters in rows
        }

    def leases(self, worker: str | None = None) -> tuple[Lease, ...]:
        """What is out now, of one worker or of all, oldest first, with the indices still outstanding, ascending."""
        where, values = ("", ()) if worker is None else ("WHERE worker = ?", (worker,))
        found = []
        for id_, epoch, holder, split in self._file.rows(
            f"SELECT id, epoch, worker, split FROM leases {where}", *values
        ):
            if numbers := self._outstanding(id_):
                found.append(Lease(id=id_, epoch=epoch, worker=holder, split=split, indices=numbers))
        return tuple(found)

    def counts(self, split: str) -> Counts:
        """How far a split is."""
        planned, _, leased, stored, failed, duplicates = self._split(split)
        return Counts(planned=planned, leased=leased, stored=stored, failed=failed, duplicates=duplicates)

    def is_complete(self, split: str) -> bool:
        """Whether every planned sample is stored or failed."""
        counts = self.counts(split)
        return counts.stored + counts.failed == counts.planned

    def settled(self, split: str, indices: Sequence[int]) -> list[int] | None:
        """Those of some samples that are stored, in the order given, once each is stored or failed; until then None.

        Raises:
            ValueError: an index is not planned.
        """
        numbers = [int(index) for index in indices]
        self._check(split, numbers)
        states = self._states(split, numbers)
        if any(states.get(number) not in (STORED, FAILED) for number in numbers):
            return None
        return [number for number in numbers if states[number] == STORED]

    def order(self, split: str) -> Int64[np.ndarray, " samples"]:
        """The numbers of all planned samples, in the order in which they are leased."""
        order, _ = self._orders.get(split, (np.arange(self.counts(split).planned), None))
        return order.astype(np.int64)

    def failures(self, split: str, limit: int | None = None) -> tuple[Failure, ...]:
        """The failed samples by index, at most `limit` of them."""
        rows = self._file.rows(
            "SELECT number, level, reason, wall_seconds, cpu_seconds FROM samples WHERE split = ? AND state = 3 "
            "ORDER BY number LIMIT ?",
            split,
            -1 if limit is None else limit,
        )
        return tuple(
            Failure(index=number, level=level, reason=reason, wall_seconds=wall, cpu_seconds=cpu)
            for number, level, reason, wall, cpu in rows
        )

    def committed(self, split: str) -> dict[str, Int64[np.ndarray, " samples"]]:
        """The stored indices of each shard, ascending."""
        query = "SELECT shard, number FROM samples WHERE split = ? AND state = ? ORDER BY number"
        found: dict[str, list[int]] = {}
        for shard, number in self._file.rows(query, split, STORED):
            found.setdefault(shard, []).append(number)
        return {shard: np.array(numbers, dtype=np.int64) for shard, numbers in found.items()}

    def _split(self, split: str) -> tuple[int, ...]:
        """The planned, next, leased, stored, failed, duplicates of a split."""
        row = self._file.row(
            "SELECT planned, next, leased, stored, failed, duplicates FROM splits WHERE name = ?", split
        )
        if not row:
            raise ValueError(f"the ledger {self.path} has no split {split!r}, only {', '.join(self.splits)}")
        return row

    def _check(self, split: str, numbers: Sequence[int]) -> None:
        require_planned(split, self._split(split)[0], numbers)

    def _states(self, split: str, numbers: Sequence[int]) -> dict[int, int]:
        """The state of those samples that were touched."""
        query = "SELECT number, state FROM samples WHERE split = ? AND number"
        return dict(self._file.rows_of(query, split, numbers=numbers))

    def _outstanding(self, lease_id: int) -> tuple[int, ...]:
        """The samples that a lease still holds, ascending."""
        query = "SELECT number FROM samples WHERE lease = ? AND state = 1 ORDER BY number"
        return tuple(number for (number,) in self._file.rows(query, lease_id))


def require_planned(split: str, planned: int, numbers: Sequence[int]) -> None:
    """Raise `ValueError` unless the split has samples of these numbers."""
    if numbers and not 0 <= min(numbers) <= max(numbers) < planned:
        raise ValueError(f"{split} plans the samples 0 to {planned - 1}, got {min(numbers)} to {max(numbers)}")
