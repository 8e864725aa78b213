"""PacedReservoir: a reservoir filled in a fixed order at a fixed pace, so that a batch depends on its step alone."""

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from headrace.platform.reservoir.reservoir import Reservoir
from headrace.platform.reservoir.stats import ReservoirStats
from headrace.platform.sample import SampleBatch

MAX_PREFETCH = 64  # batches that a rank may have been served and not have taken


def packed(batches: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Batches that are to be served again, as a checkpoint holds them: the indices of all, and the size of each."""
    return {
        "again": np.concatenate([np.zeros(0, dtype=np.int64), *batches]),
        "again_sizes": np.array([len(indices) for indices in batches], dtype=np.int64),
    }


def unpacked(state: Mapping[str, np.ndarray]) -> list[Int64[np.ndarray, " batch"]]:
    """What `packed` was given."""
    sizes = state["again_sizes"]
    return np.split(state["again"], np.cumsum(sizes)[:-1])[: len(sizes)]


class StreamStopped(Exception):
    """The samples that were waited for will not come: the stream was stopped."""


class PacedReservoir:
    """A reservoir whose batch of a step is the same whenever, and however fast, its samples came.

    Before the batch of step k it has been given the first w + (n - w) k / m of its n samples, as far as there was room
    (w: the watermark, m: the planned batches), and further ones until the batch can be served. Samples that could not
    be solved are passed over. So the solvers' pace decides when a batch is there, and never what is in it.

    It waits in `batch` for the samples that come next, as long as `read` does. The methods may be called from several
    threads.

    Args:
        build: makes the empty reservoir.
        order: the indices of all samples in the order in which they enter.
        num_batches: planned batches.
        read: the samples of some indices, in this order, without those that failed; waits until each is the one or the
            other; raises `StreamStopped` when they will not come.
        rows: how many to read at a time.
        checkpoint: the newest state that was saved, and its step; None when there is none.
    """

    def __init__(
        self,
        build: Callable[[], Reservoir],
        order: Int64[np.ndarray, " samples"],
        *,
        num_batches: int,
        read: Callable[[Int64[np.ndarray, " some"]], SampleBatch],
        rows: int,
        checkpoint: Callable[[], tuple[int, Mapping[str, np.ndarray]] | None] = lambda: None,
    ) -> None:
        self._build, self._order, self._num_batches = build, order, num_batches
        self._read, self._rows, self._checkpoint = read, rows, checkpoint
        self._lock = threading.Lock()
        self._restart(None)
        self._stats = self._reservoir.stats()

    def batch(self, step: int, size: int) -> SampleBatch | None:
        """The batch of a step, of `size` samples; None after the last one.

        Steps come one after the other. One that lies behind, after a rank's death, or far ahead, after a shard's, is
        reached from the newest checkpoint before it.

        Raises:
            StreamStopped: the stream was stopped while its samples were waited for.
        """
        with self._lock:
            if step != self._next and step not in self._again:
                saved = self._checkpoint()
                if step < self._next or (saved is not None and saved[0] > self._next):
                    self._restart(saved if saved is not None and saved[0] <= step else None)
            if step in self._again:
                indices = self._again.pop(step)
                self._served[step] = indices
                return self._read(indices) if len(indices) else None
            batch = None
            while self._next <= step:
                batch = self._make(size)
            return batch

    def state(self, step: int) -> dict[str, np.ndarray]:
        """All that a checkpoint of a step needs to go on with the very same batches; see `Reservoir.state`."""
        with self._lock:
            ahead = {**self._again, **{k: indices for k, indices in self._served.items() if k >= step}}
            return self._reservoir.state(samples=False) | {
                "cursor": np.array([self._cursor, self._next], dtype=np.int64),
                **packed([ahead[k] for k in sorted(ahead)]),
            }

    def stats(self) -> ReservoirStats:
        """What the reservoir holds and has done; waits for nothing, so it is what it was while a batch is made."""
        if self._lock.acquire(blocking=False):
            try:
                self._stats = self._reservoir.stats()
            finally:
                self._lock.release()
        return self._stats

    def _restart(self, saved: tuple[int, Mapping[str, np.ndarray]] | None) -> None:
        """Go back to a saved state, or to the start."""
        self._reservoir = self._build()
        self._cursor = self._next = 0
        self._ahead: SampleBatch | None = None
        self._ahead_stop = 0
        # By step: batches to be served again, and the latest that were served.
        self._again: dict[int, np.ndarray] = {}
        self._served: dict[int, np.ndarray] = {}
        if saved is None:
            return
        step, state = saved
        self._reservoir.restore(state, self._read(state["indices"]))
        self._cursor, self._next = (int(number) for number in state["cursor"])
        self._again = dict(enumerate(unpacked(state), start=step))

    def _make(self, size: int) -> SampleBatch | None:
        """The next batch; nothing has changed when it raises but that samples were taken in."""
        reservoir = self._reservoir
        self._admit(size)
        batch = reservoir.take(size) if reservoir.ready(size) else None
        self._served[self._next] = batch.indices if batch is not None else np.zeros(0, np.int64)
        self._served.pop(self._next - MAX_PREFETCH, None)
        self._next += 1
        return batch

    def _admit(self, size: int) -> None:
        reservoir = self._reservoir
        first = min(reservoir.watermark, len(self._order))
        wanted = min(len(self._order), first - (-(len(self._order) - first) * self._next // self._num_batches))
        while not reservoir.ended and (self._cursor < wanted or not reservoir.ready(size)):
            if self._cursor == len(self._order):
                reservoir.end()
                return
            # How samples are grouped decides what they push out: the groups are a function of the step, too.
            piece = self._order[self._cursor : self._cursor + max(1, min(wanted - self._cursor, size))]
            batch = self._get(piece)
            taken = reservoir.try_put(batch) if len(batch) else 0
            if taken < len(batch):
                # Full of samples that nobody has seen: this step's batch makes room.
                self._cursor += int(np.flatnonzero(piece == batch.indices[taken])[0])
                return
            self._cursor += len(piece)

    def _get(self, piece: Int64[np.ndarray, " some"]) -> SampleBatch:
        """Samples from the cursor on, read some at a time."""
        if self._ahead is None or self._cursor + len(piece) > self._ahead_stop:
            stop = self._cursor + max(len(piece), self._rows)
            self._ahead = self._read(self._order[self._cursor : stop])
            self._ahead_stop = stop
        return self._ahead.take(np.flatnonzero(np.isin(self._ahead.indices, piece)))
