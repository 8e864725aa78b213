"""Commits: samples that are recorded as stored, many messages in one transaction."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.platform.ledger.states import FAILED, LEASED, STORED

MOST_TOGETHER = 128
"""Commits in one transaction: beyond, nothing is gained, and who waits, waits longer."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """Samples of one message that are safe on the disk.

    Attributes:
        split: the split that the indices count in.
        shard: name of the shard that holds them.
        lease_id: the lease that they were solved under, which lives on for another `ttl_seconds`; None when unknown
            (samples found on the disk).
        indices: the samples.
        levels: the difficulty level of each; may be left out.
    """

    split: str
    shard: str
    lease_id: int | None
    indices: Sequence[int]
    levels: Sequence[str] = ()


type Numbers = list[int]
type Accepted = list[bool]


def record(
    db: sqlite3.Connection,
    split: str,
    commits: Sequence[tuple[Commit, Numbers]],
    states: dict[int, int],
) -> list[Accepted]:
    """Record commits of one split, within a transaction; the first commit of a sample wins.

    Args:
        db: the ledger.
        split: of all of them.
        commits: each with its samples, which are planned.
        states: of those samples of theirs that were touched before; those that become stored are noted in it.

    Returns:
        For each commit, for each of its samples whether it is newly stored; False is a duplicate.
    """
    accepted: list[Accepted] = []
    rows: list[tuple[str, int, int, str, str | None]] = []
    num_leased = num_failed = num_stored = 0
    for commit, numbers in commits:
        fresh = []
        for position, number in enumerate(numbers):
            before = states.get(number)
            fresh.append(before != STORED)
            if before == STORED:
                continue
            states[number] = STORED
            rows.append((split, number, STORED, commit.shard, commit.levels[position] if commit.levels else None))
            num_leased += before == LEASED
            num_failed += before == FAILED
        num_stored += sum(fresh)
        accepted.append(fresh)
    # In the table's own order, each page of it is written once.
    rows.sort(key=lambda row: row[1])
    db.executemany(
        "INSERT INTO samples (split, number, state, shard, level) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
        "SET state = excluded.state, shard = excluded.shard, level = excluded.level, lease = NULL, reason = NULL",
        rows,
    )
    num_duplicates = sum(len(numbers) for _, numbers in commits) - num_stored
    db.execute(
        "UPDATE splits SET stored = stored + ?, duplicates = duplicates + ?, leased = leased - ?, failed = failed - ? "
        "WHERE name = ?",
        (num_stored, num_duplicates, num_leased, num_failed, split),
    )
    return accepted


def end_leases(db: sqlite3.Connection, commits: Sequence[Commit], now: float) -> None:
    """Let the leases of commits start their time anew, or end those of which nothing is outstanding."""
    ids = dict.fromkeys(commit.lease_id for commit in commits if commit.lease_id is not None)
    db.executemany("UPDATE leases SET expires = ttl_seconds + ? WHERE id = ?", [(now, id_) for id_ in ids])
    db.executemany(
        "DELETE FROM leases WHERE id = ? AND NOT EXISTS (SELECT 1 FROM samples WHERE lease = leases.id AND state = 1)",
        [(id_,) for id_ in ids],
    )
