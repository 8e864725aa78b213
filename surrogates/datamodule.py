"""Where training batches come from: a stream, or stored samples. Both reach the trainer through one prefetch thread."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from pytorch_lightning import LightningDataModule

from headrace.platform.sample import SampleBatch
from headrace.platform.seeding import generator
from headrace.surrogates import ranks
from headrace.surrogates.batch import Batch
from headrace.surrogates.prefetch import Prefetcher


@runtime_checkable
class Rows(Protocol):
    """A sequence of samples that rows can be taken from: a `SampleBatch`, or a store."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def take(self, rows: np.ndarray) -> SampleBatch:
        """Some rows as a batch, in this order; a row may occur more than once."""
        ...


class Batches:
    """Yields the batch of every step, or of fewer when the data end.

    Every step, all ranks first tell each other whether they have a batch and how much it weighs (a sum over three
    numbers): they stop at the same step when any of them has none, and fail together when one fails. A rank waits here
    for its prefetch thread, then for the slowest rank. No more batches are pulled than there are steps.

    Attributes:
        samples: rows handed to this rank so far.
        wait_seconds: time that this rank waited for its own data [s].
        ended_after: the step after which the data ended, or None.
    """

    def __init__(self, produce: Callable[[int], SampleBatch | None], *, steps: range, depth: int) -> None:
        """Start prefetching.

        Args:
            produce: the batch of a step, or None when there are no more; runs in the prefetch thread.
            steps: the steps to make batches for.
            depth: batches to keep waiting.
        """
        self._steps = steps
        self._to_come = iter(steps)
        self._produce = produce
        self._prefetcher = Prefetcher(self._make, depth=depth, name="prefetch-batches")
        self.samples = 0
        self.wait_seconds = 0.0
        self.ended_after: int | None = None

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[Batch]:
        for step in self._steps:
            began = time.perf_counter()
            batch, error = None, None
            try:
                batch = self._prefetcher.get()
            except Exception as raised:  # noqa: BLE001  (raised below, once the other ranks know)
                error = raised
            self.wait_seconds += time.perf_counter() - began
            weight = 0.0 if batch is None else batch.rank_weight
            without, failed, weight = _sum_over_ranks(batch is None, error is not None, weight)
            if error is not None:
                raise error
            if failed:
                # No failure of the run: that rank may have lost its shard, and a new group goes on.
                raise RuntimeError(f"another rank failed to get its batch of step {step}; its log says why")
            if without or batch is None:
                self.ended_after = step
                return
            self.samples += len(batch.inputs)
            yield batch._replace(rank_weight=weight / ranks.world_size())

    def close(self) -> None:
        """End the prefetch thread."""
        self._prefetcher.close()

    def _make(self) -> Batch | None:
        step = next(self._to_come, None)
        if step is None:
            return None
        batch = self._produce(step)
        return None if batch is None or len(batch) == 0 else Batch.of(batch)


class AbstractDataModule(LightningDataModule):
    """Training batches step by step, and validation samples held in memory."""

    def __init__(self, *, validation: SampleBatch | None = None, prefetch: int = 2) -> None:
        """Hold the validation samples.

        Args:
            validation: held-out samples, with provenance where errors by level are wanted; the same on every rank.
            prefetch: batches to keep waiting.
        """
        super().__init__()
        self.validation = validation
        self._prefetch = prefetch
        self._plan = range(0)
        self.batches: Batches | None = None

    def plan(self, steps: range) -> None:
        """Say which steps come: called by `fit` before training."""
        self._plan = steps

    def train_dataloader(self) -> Batches:
        """The planned batches of this rank."""
        self.batches = Batches(self._produce, steps=self._plan, depth=self._prefetch)
        return self.batches

    def close(self) -> None:
        """End the prefetch thread."""
        if self.batches is not None:
            self.batches.close()

    def save(self, folder: Path, step: int) -> Mapping[str, int]:
        """Write, beside the model's checkpoint of a step, what this rank needs to go on with the same data.

        By default nothing: the batches are a function of the step.

        Returns:
            What the checkpoint's manifest has to tell about the data.
        """
        return {}

    def observe(self, indices: Int64[np.ndarray, " observed"], losses: Float32[np.ndarray, " observed"]) -> None:
        """Take note of the losses of samples that this rank trained on; by default nobody does.

        Args:
            indices: places of the samples in the planned data set; one that was used again comes again.
            losses: of each.
        """

    @abstractmethod
    def _produce(self, step: int) -> SampleBatch | None:
        """This rank's batch of a step, or None when there are no more; called in the prefetch thread, in order."""


class StreamDataModule(AbstractDataModule):
    """Batches from a stream: whatever `pull` returns next."""

    def __init__(
        self,
        *,
        pull: Callable[[int, int], SampleBatch | None],
        batch_size: int,
        validation: SampleBatch | None = None,
        prefetch: int = 2,
        save: Callable[[Path, int], Mapping[str, int]] | None = None,
        observe: Callable[[np.ndarray, np.ndarray], None] | None = None,
    ) -> None:
        """Hold the stream; nothing is pulled before training starts.

        Args:
            pull: the batch of at most so many samples for a step, or None when the stream is exhausted; it may block,
                and is called by one thread only, step after step.
            batch_size: samples per step of this rank.
            validation: held-out samples, the same on every rank.
            prefetch: batches to keep waiting.
            save: has the stream's state of a step written to a folder.
            observe: is told the losses of samples, see `AbstractDataModule.observe`; it should return at once.
        """
        super().__init__(validation=validation, prefetch=prefetch)
        self._pull, self._batch_size, self._save, self._observe = pull, batch_size, save, observe

    def save(self, folder: Path, step: int) -> Mapping[str, int]:
        """Have the stream's state written."""
        return self._save(folder, step) if self._save is not None else {}

    def observe(self, indices: Int64[np.ndarray, " observed"], losses: Float32[np.ndarray, " observed"]) -> None:
        """Pass them on."""
        if self._observe is not None:
            self._observe(indices, losses)

    def _produce(self, step: int) -> SampleBatch | None:
        return self._pull(self._batch_size, step)


class StoredDataModule(AbstractDataModule):
    """Batches from stored samples: epoch after epoch, each in a new order.

    The epochs' orders are laid end to end and dealt out: step s of rank r takes the next `batch_size` places. So every
    batch is full, no sample is left out of an epoch, ranks never share a place, and a resumed run goes on where it was.
    """

    def __init__(
        self,
        *,
        samples: Rows,
        batch_size: int,
        validation: SampleBatch | None = None,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        prefetch: int = 2,
    ) -> None:
        """Hold the samples.

        Args:
            samples: the rows to train on, the same on every rank.
            batch_size: samples per step of this rank.
            validation: held-out samples, the same on every rank.
            rank: which rank this is.
            world_size: how many there are.
            seed: fixes the orders; the same on every rank.
            prefetch: batches to keep waiting.

        Raises:
            ValueError: there are no samples.
        """
        super().__init__(validation=validation, prefetch=prefetch)
        if not len(samples):
            raise ValueError("there are no stored samples to train on")
        self._samples, self._batch_size = samples, batch_size
        self._rank, self._world_size, self._seed = rank, world_size, seed
        self._orders: dict[int, np.ndarray] = {}

    def rows(self, step: int) -> Int64[np.ndarray, " batch"]:
        """The rows that a step of this rank takes."""
        n = len(self._samples)
        first = (step * self._world_size + self._rank) * self._batch_size
        epoch, place = np.divmod(np.arange(first, first + self._batch_size), n)
        # A step takes from one epoch, or from the end of one and the start of the next: those orders are kept.
        kept = self._orders
        orders = {
            e: kept[e] if e in kept else generator(self._seed, "shuffle", e).permutation(n)
            for e in np.unique(epoch).tolist()
        }
        self._orders = orders
        return np.array([orders[e][p] for e, p in zip(epoch.tolist(), place.tolist(), strict=True)], dtype=np.int64)

    def _produce(self, step: int) -> SampleBatch | None:
        return self._samples.take(self.rows(step))


def _sum_over_ranks(*numbers: bool | float) -> list[float]:
    if ranks.world_size() == 1:
        return [float(number) for number in numbers]
    return ranks.total(torch.tensor(numbers, dtype=torch.float64, device=ranks.device())).tolist()
