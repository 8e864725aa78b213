"""SampleLog: the shards that one process writes, one for each split."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch

if TYPE_CHECKING:
    from headrace.platform.dataset.writer import SampleStore


class SampleLog:
    """Appends samples to this process's shard of their split, each sample once.

    A shard that is there already, of a process that died, is gone on with; a new one is made with its first sample. One
    thread at a time may use it.
    """

    def __init__(
        self,
        name: str,
        schemas: Mapping[str, SampleSchema],
        data_dir: Callable[[str], Path],
        rows_per_chunk: Mapping[str, int],
        *,
        wait_seconds: float = 0.0,
    ) -> None:
        """Open the shards that are there; write nothing yet.

        Args:
            name: name of the shard, `shard-3`.
            schemas: what the samples of each split look like.
            data_dir: the data set directory of a split.
            rows_per_chunk: for each split, the samples of a full message: a message then is one chunk.
            wait_seconds: how long to wait for one who appends to them and may be out of reach [s].

        Raises:
            InputError: another process appends to a shard of this name, or it is damaged.
        """
        self.name = name
        self._schemas = schemas
        self._data_dir = data_dir
        self._rows_per_chunk = rows_per_chunk
        self._stores: dict[str, SampleStore] = {}
        # Dictionaries without values: sets that remember the order.
        self._held: dict[str, dict[int, None]] = {split: {} for split in rows_per_chunk}
        for split in rows_per_chunk:
            if self._path(split).exists():
                # Zarr takes half a second to import: who only plans a stream, or has nothing to store, does not wait.
                from headrace.platform.dataset import reader, writer

                self._stores[split] = writer.SampleStore.open_append(self._path(split), wait_seconds=wait_seconds)
                self._held[split].update(dict.fromkeys(reader.shard_indices(self._path(split)).tolist()))

    def indices(self, split: str) -> list[int]:
        """The indices of the samples in the shard of a split, in the order in which they came."""
        return list(self._held[split])

    def append(self, split: str, batch: SampleBatch) -> list[int]:
        """Append the samples that are not held yet; on return they are on the disk.

        Returns:
            The rows of the batch that were appended.

        Raises:
            OSError: the disk failed or is full.
        """
        rows = [row for row, index in enumerate(batch.indices) if int(index) not in self._held[split]]
        if rows:
            if split not in self._stores:
                from headrace.platform.dataset import writer

                rows_per_chunk = self._rows_per_chunk[split]
                self._stores[split] = writer.SampleStore.create(
                    self._path(split), self._schemas[split], {"split": split}, rows_per_chunk=rows_per_chunk
                )
            self._stores[split].append(batch.take(rows))
            self._held[split].update(dict.fromkeys(int(batch.indices[row]) for row in rows))
        return rows

    def close(self) -> None:
        """Close the shards."""
        for store in self._stores.values():
            store.close()

    def _path(self, split: str) -> Path:
        return self._data_dir(split) / f"{self.name}.zarr"
