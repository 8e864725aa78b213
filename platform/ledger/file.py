"""The file behind the ledger: its tables, how it is opened, and the lock that keeps it to one writer."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from headrace.platform.errors import InputError
from headrace.platform.files import Lock, lock, sync

_APPLICATION_ID = 0x48445243  # "HDRC" in the header of the SQLite file
_VERSION = 2
_VARIABLES = 500  # numbers named in one statement, below the limit of every SQLite build
_LOCK_SECONDS = 5.0  # a coordinator that was just killed may take a moment to go

# States of a sample: 0 came back, 1 leased, 2 stored, 3 failed. A sample that nobody touched has no row.
_TABLES = """
CREATE TABLE meta (epoch INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE splits (
    name TEXT PRIMARY KEY, planned INTEGER NOT NULL, next INTEGER NOT NULL DEFAULT 0, leased INTEGER NOT NULL DEFAULT 0,
    stored INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, duplicates INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE orders (split TEXT PRIMARY KEY, numbers BLOB NOT NULL);
CREATE TABLE leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL, worker TEXT NOT NULL, split TEXT NOT NULL,
    ttl_seconds REAL NOT NULL, expires REAL NOT NULL
);
CREATE TABLE samples (
    split TEXT NOT NULL, number INTEGER NOT NULL, state INTEGER NOT NULL, lease INTEGER,
    losses INTEGER NOT NULL DEFAULT 0, shard TEXT, level TEXT, reason TEXT, wall_seconds REAL, cpu_seconds REAL,
    PRIMARY KEY (split, number)
) WITHOUT ROWID;
CREATE INDEX free ON samples (split, number) WHERE state = 0;
CREATE INDEX outstanding ON samples (lease, number) WHERE state = 1;
CREATE INDEX failures ON samples (split, number) WHERE state = 3;
"""
# What a sampler decided late: `number` counts whole samples, `parameters` is a JSON mapping or NULL. A ledger of before
# there were samplers has no such table; it gets one when it is opened to go on with. So does a new one.
_DECISIONS = """
CREATE TABLE IF NOT EXISTS decisions (
    split TEXT NOT NULL, number INTEGER NOT NULL, level TEXT NOT NULL, parameters TEXT, PRIMARY KEY (split, number)
) WITHOUT ROWID
"""


class LedgerFile:
    """An open ledger: its connection, shared by the threads of this process, and its lock when it may be written.

    Raises:
        InputError: the file is missing, not a ledger, from another version, or another process writes it.
    """

    def __init__(self, path: Path, *, read_only: bool, wait_seconds: float | None = None) -> None:
        self._mutex, self._syncing = threading.RLock(), threading.Lock()
        self._log = path.with_name(f"{path.name}-wal")
        self._failed: OSError | None = None
        self._lock: Lock | None = None
        if not read_only:
            _require(path)
            seconds = _LOCK_SECONDS if wait_seconds is None else wait_seconds
            self._lock = lock(Path(f"{path}.lock"), "the ledger of a run", seconds=seconds)
        try:
            self._db = _connect(path, read_only=read_only)
            if not read_only:
                # A commit leaves the write-ahead log in the page cache until `_sync` brings it to the disk: safe
                # against the death of the process, and many times faster.
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_DECISIONS)
        except BaseException:
            self._unlock()
            raise

    def close(self) -> None:
        """Close the file and let another process write."""
        with self._mutex:
            self._db.close()
            self._unlock()

    def rows(self, query: str, *values: object) -> list[tuple]:
        """All rows of a query."""
        with self._mutex:
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> tuple:
        """The first row of a query; empty when there is none."""
        with self._mutex:
            return self._db.execute(query, values).fetchone() or ()

    def rows_of(self, query: str, *values: object, numbers: Sequence[int]) -> list[tuple]:
        """All rows of a query whose last condition is left open, that a number is one of these."""
        found: list[tuple] = []
        for start in range(0, len(numbers), _VARIABLES):
            part = numbers[start : start + _VARIABLES]
            found += self.rows(f"{query} IN ({', '.join('?' * len(part))})", *values, *part)
        return found

    def has_table(self, name: str) -> bool:
        """Whether there is such a table: read-only, an old ledger stays as it is."""
        return bool(self.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", name))

    @contextlib.contextmanager
    def transaction(self, *, durable: bool, counts: bool = True) -> Iterator[sqlite3.Connection]:
        """One change of the ledger, all of it or nothing; when `durable`, on the disk at the end.

        It `counts` as a change of the version, if it changes anything.

        Others may read and write while it is brought to the disk.

        Raises:
            TakenOver: another process writes the ledger by now.
            OSError: the disk failed, now or before: what is on it is not known any more, and nothing is changed.
        """
        with self._mutex:
            if self._lock is not None:
                self._lock.check()
            if self._failed is not None:
                raise OSError(self._failed.errno, f"the ledger could not be synced before: {self._failed.strerror}")
            self._db.execute("BEGIN IMMEDIATE")
            changes = self._db.total_changes
            try:
                yield self._db
                is_changed = self._db.total_changes > changes
                if counts and is_changed:
                    self._db.execute("UPDATE meta SET version = version + 1")
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        if durable and is_changed:
            self._sync()

    def _sync(self) -> None:
        """Bring the write-ahead log to the disk: all transactions that were committed before."""
        with self._syncing:
            try:
                sync(self._log)
            except OSError as error:
                # The kernel may have dropped the pages that it could not write, and would not say so again.
                self._failed = error
                raise

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def create_file(path: Path, planned: Mapping[str, int], orders: Mapping[str, bytes]) -> None:
    """Make a ledger's file with everything still to do; `orders` are 64-bit little-endian numbers.

    Raises:
        InputError: the file exists.
    """
    if path.exists():
        raise InputError.single(str(path), "there already", "a new file", "Resume the run, or name another.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed: a crash leaves no half-made ledger.
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("BEGIN IMMEDIATE")
        for statement in _TABLES.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={_VERSION}")
        db.execute("INSERT INTO meta VALUES (0, 0)")
        db.executemany("INSERT INTO splits (name, planned) VALUES (?, ?)", planned.items())
        db.executemany("INSERT INTO orders VALUES (?, ?)", orders.items())
        db.execute("COMMIT")
    draft.rename(path)
    sync(path.parent)


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open a ledger's file and make sure that it is one.

    Raises:
        InputError: it is not.
    """
    _require(path)
    mode = "ro" if read_only else "rw"
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=30
    )
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        db.close()
        raise InputError.single(str(path), f"not readable as SQLite ({error})", "the ledger of a run") from error
    fault = ""
    if application != _APPLICATION_ID:
        fault = "a SQLite file of something else, or a ledger whose creation was cut off"
    elif version != _VERSION:
        fault = f"a ledger of format {version}"
    if fault:
        db.close()
        raise InputError.single(str(path), fault, f"a ledger of format {_VERSION}")
    return db


def _require(path: Path) -> None:
    if not path.is_file():
        raise InputError.single(str(path), "not there", "the ledger of a run", "Is this the run's directory?")
