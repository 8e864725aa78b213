"""Recovery: what a run that was cut off has on the disk, and what its ledger has to learn from it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.platform.dataset.reader import shard_indices, shard_paths
from headrace.platform.ledger.ledger import Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What was found.

    Attributes:
        found: samples that lay on the disk and were not committed yet; they are now.
        missing: committed samples that are not on the disk any more; they are to be solved again.
        released: samples that were leased to workers which are gone.
    """

    found: int
    missing: int
    released: int


def recover(ledger_path: Path, data_dirs: Mapping[str, Path]) -> Recovered:
    """Bring a ledger in line with the shards, and take back every lease. Nobody else may work on the run.

    A shard is synced before the ledger learns of it, so a crash in between leaves samples that only the shard knows.

    Args:
        ledger_path: the ledger.
        data_dirs: the data set directory of each split; it need not be there.

    Raises:
        InputError: the ledger is missing or damaged, another process works on the run, or a shard is damaged.
    """
    found = missing = 0
    with Ledger.open(ledger_path) as ledger:
        released = sum(len(lease.indices) for lease in ledger.release_all())
        for split in ledger.splits:
            held = {path.stem: shard_indices(path) for path in shard_paths(data_dirs[split])}
            committed = set(np.concatenate([[], *ledger.committed(split).values()]).astype(np.int64).tolist())
            everything: set[int] = set()
            for shard, indices in held.items():
                new = sorted(set(indices.tolist()) - committed - everything)
                if new:
                    found += sum(ledger.commit(split, shard, None, new))
                everything.update(indices.tolist())
            lost = sorted(committed - everything)
            if lost:
                log.warning(
                    "%d samples of %s were stored once and are not in %s any more; they are solved again: %s ...",
                    len(lost),
                    split,
                    data_dirs[split],
                    ", ".join(map(str, lost[:5])),
                )
                ledger.reopen(split, lost)
                missing += len(lost)
    return Recovered(found=found, missing=missing, released=released)
