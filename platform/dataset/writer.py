"""SampleStore: the durable, append-only log of samples that is the data set, in Zarr v3; `StoredSamples` reads it."""

import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc  # type: ignore[import-untyped]
from zarr.codecs import BloscCodec

from headrace.platform.dataset.layout import (
    COLUMNS,
    NAMED,
    ShardHeader,
    array_of,
    chunk_number,
    encode_provenance,
    index_chunks,
    open_shard,
)
from headrace.platform.dataset.manifest import Manifest, read_manifest, write_manifest
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError, TakenOver
from headrace.platform.fields import SampleSchema
from headrace.platform.files import Lock, lock, sync
from headrace.platform.sample import SampleBatch

__all__ = ["Manifest", "SampleStore", "StoredSamples", "read_manifest", "write_dataset", "write_manifest"]

log = logging.getLogger(__name__)

CHUNK_NBYTES = 512 * 1024  # where nobody says how many samples come at a time; the stream says
MAX_CHUNK_ROWS = 64  # a short message pads the rest of its chunk: do not let tiny samples ask for very long ones
GROW_CHUNKS = 256  # chunks by which the arrays grow at a time
# Shuffled LZ4 saves a seventh of Darcy fields, and nearly all of the padding, for about a millisecond of CPU time a
# chunk; Zstandard saves a little more for twice that (docs/benchmarks).
_CODEC = BloscCodec(cname="lz4", clevel=3, shuffle="shuffle")
_COMPRESSOR = Blosc(cname="lz4", clevel=3, shuffle=Blosc.SHUFFLE)


class SampleStore:
    """One shard of a data set: a Zarr group to which one process appends whole chunks.

    Arrays of the group, all with the same leading axis of rows:
    - `inputs`, `outputs`, `parameters`: float32, as in `SampleBatch` (`parameters` only when there are some);
    - `provenance`: float64 (rows, columns); the attribute `columns` names them; a named column (level, solver, ...)
      holds positions in the list of that name in the group's attribute `headrace.names`;
    - `index`: int64, the sample's index in the planned data set, or -1: no sample in this row.

    A chunk is written once and never again: a message that does not fill its last chunk leaves the rest as padding
    (index -1; compression makes it nearly free). `append` syncs the fields' chunks before it writes and syncs those of
    the index. So a row whose index can be read is complete, and what a crash tore cannot be seen.

    Make it with `create`, come back to it with `open_append`; read it with `StoredSamples`.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 0.0) -> None:
        self.path = path
        self._lock: Lock | None = lock(path, "a shard", seconds=wait_seconds)
        try:
            self._group, self._header = open_shard(path, "r+")
            names = [
                *(["inputs"] if self.schema.num_input_channels else []),
                "outputs",
                *(["parameters"] if self.schema.num_parameters else []),
                "provenance",
                "index",
            ]
            self._arrays = {name: array_of(self._group, name) for name in names}
            self._next = 1 + max(index_chunks(path, self.rows_per_chunk), default=-1)
            self._sweep()
        except BaseException:
            self._lock.close()
            raise
        self._threads = ThreadPoolExecutor(len(names), thread_name_prefix="shard")

    @property
    def schema(self) -> SampleSchema:
        """What the samples look like."""
        return self._header.schema

    @property
    def rows_per_chunk(self) -> int:
        """Samples per chunk."""
        return self._header.rows_per_chunk

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        schema: SampleSchema,
        metadata: Mapping[str, Any],
        *,
        rows_per_chunk: int | None = None,
    ) -> "SampleStore":
        """Start a shard.

        Args:
            path: a directory that does not exist, by custom `.../shard-0.zarr`.
            schema: what the samples look like.
            metadata: JSON-ready description that is kept with the shard.
            rows_per_chunk: samples per chunk; when left out, as many as make about half a megabyte.

        Raises:
            InputError: the path exists.
        """
        path = Path(path)
        if path.exists():
            raise InputError.single(str(path), "there already", "a new shard", "Open it to append, or name another.")
        rows = rows_per_chunk or min(MAX_CHUNK_ROWS, max(1, CHUNK_NBYTES // max(1, schema.sample_nbytes)))
        # Made aside and renamed: nobody ever meets a shard with half its arrays.
        scratch = path.with_name(f".{path.name}.new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        header = ShardHeader(
            schema=schema, metadata=metadata, rows_per_chunk=rows, names={column: [] for column in NAMED}
        )
        group = zarr.create_group(scratch, zarr_format=3, attributes={"headrace": header.to_json()})
        grid = schema.domain.shape
        shapes: dict[str, tuple[int, ...]] = {
            "outputs": (len(schema.times), schema.num_output_channels, *grid),
            "provenance": (len(COLUMNS),),
            "index": (),
        }
        # Zarr has no empty chunks.
        if schema.num_input_channels:
            shapes["inputs"] = (schema.num_input_channels, *grid)
        if schema.num_parameters:
            shapes["parameters"] = (schema.num_parameters,)
        for name, shape in shapes.items():
            group.create_array(
                name,
                shape=(0, *shape),
                chunks=(rows, *shape),
                dtype={"index": "int64", "provenance": "float64"}.get(name, "float32"),
                fill_value=-1 if name == "index" else 0,
                compressors=None if name == "index" else _CODEC,
                # "." keeps the chunks of an array in one directory: one directory to sync.
                chunk_key_encoding={"name": "default", "separator": "."},
                attributes={"columns": list(COLUMNS)} if name == "provenance" else {},
            )
        for file in scratch.rglob("*"):
            sync(file)
        sync(scratch)
        scratch.rename(path)
        sync(path.parent)
        return cls(path)

    @classmethod
    def open_append(cls, path: str | os.PathLike[str], *, wait_seconds: float = 0.0) -> "SampleStore":
        """Come back to a shard to append to it.

        Args:
            path: of the shard.
            wait_seconds: how long to wait for one who appends to it and may be out of reach [s].

        Raises:
            InputError: it is not there, not a shard, or another process appends to it.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError.single(str(path), "not there", "a shard of samples")
        return cls(path, wait_seconds=wait_seconds)

    def append(self, batch: SampleBatch) -> None:
        """Append samples; on return they are on the disk.

        Args:
            batch: the samples; with provenance for each, or for none.

        Raises:
            ValueError: the arrays do not fit the schema.
            TakenOver: another process appends to the shard by now.
            OSError: the disk failed or is full. Append the batch again later: what got through is dropped as duplicate.
        """
        count = len(batch)
        if count == 0:
            return
        lock = self._check(batch)
        lock.check()
        known = sum(map(len, self._header.names.values()))
        table = encode_provenance(batch, self._header.names)
        if sum(map(len, self._header.names.values())) > known:
            self._group.attrs["headrace"] = self._header.to_json()
            self._sync_metadata(self.path)
        chunks = range(self._next, self._next + math.ceil(count / self.rows_per_chunk))
        self._next = chunks.stop  # also when this append fails: no chunk is written twice
        if chunks.stop * self.rows_per_chunk > self._arrays["index"].shape[0]:
            self._resize((chunks.stop + GROW_CHUNKS) * self.rows_per_chunk)
        fields = {"outputs": batch.outputs, "provenance": table}
        fields |= {name: getattr(batch, name) for name in ("inputs", "parameters") if name in self._arrays}
        pieces = [
            (name, chunk, values[start : start + self.rows_per_chunk])
            for name, values in fields.items()
            for chunk, start in zip(chunks, range(0, count, self.rows_per_chunk), strict=True)
        ]
        # In parallel: the file system's journal takes the syncs together.
        list(self._threads.map(lambda piece: self._write(*piece), pieces))
        for name in fields:
            sync(self.path / name)
        # Nothing of what has been written counts before its index does: one who was out of reach meanwhile stops here.
        lock.check()
        # One after the other: a reader that sees a chunk's index need never look before it again.
        for chunk, start in zip(chunks, range(0, count, self.rows_per_chunk), strict=True):
            self._write("index", chunk, batch.indices[start : start + self.rows_per_chunk])
        sync(self.path / "index")

    def close(self) -> None:
        """Trim the arrays to what was written and let go of the shard."""
        if self._lock is None:
            return
        try:
            self._lock.check()
            self._resize(self._next * self.rows_per_chunk)
        except TakenOver as error:
            log.warning("%s", error)
        finally:
            self._threads.shutdown()
            self._lock.close()
            self._lock = None

    def __enter__(self) -> "SampleStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, batch: SampleBatch) -> Lock:
        if self._lock is None:
            raise ValueError(f"the shard {self.path} is closed")
        for name in ("inputs", "outputs", "parameters"):
            given = getattr(batch, name)
            empty = (0, *self.schema.domain.shape) if name == "inputs" else (0,)
            expected = self._arrays[name].shape[1:] if name in self._arrays else empty
            if given.shape != (len(batch), *expected) or given.dtype != np.float32:
                raise ValueError(
                    f"{name} are {given.dtype} of shape {given.shape}, the schema has float32 {(len(batch), *expected)}"
                )
        if batch.indices.min() < 0:
            raise ValueError(f"an index is negative: {batch.indices.min()}")
        if len(batch.provenance) not in (0, len(batch)):
            raise ValueError(f"{len(batch)} samples came with {len(batch.provenance)} provenances")
        return self._lock

    def _resize(self, rows: int) -> None:
        """Change the length of all arrays, the index last: whoever sees its new rows finds them in the others."""
        for name, array in self._arrays.items():
            array.resize((rows, *array.shape[1:]))
            self._sync_metadata(self.path / name)

    def _sync_metadata(self, node: Path) -> None:
        sync(node / "zarr.json")
        sync(node)

    def _write(self, name: str, chunk: int, values: np.ndarray) -> None:
        """Write and sync one chunk as Zarr would; through Zarr an append takes three times the CPU time."""
        array = self._arrays[name]
        dtype = array.dtype.newbyteorder("<")
        if len(values) == self.rows_per_chunk:
            whole = np.ascontiguousarray(values, dtype=dtype)
        else:
            whole = np.full(array.chunks, array.fill_value, dtype=dtype)
            whole[: len(values)] = values
        path = self.path / name / array.metadata.encode_chunk_key((chunk, *(0 for _ in array.shape[1:])))
        scratch = path.with_name(f"{path.name}.partial")
        with scratch.open("xb") as file:
            file.write(whole.tobytes() if name == "index" else _COMPRESSOR.encode(whole))
            file.flush()
            sync(scratch)
        scratch.rename(path)

    def _sweep(self) -> None:
        """Remove what a torn append left behind: chunks after the last whole index, files never renamed."""
        for name in self._arrays:
            for file in (self.path / name).iterdir():
                number = chunk_number(file.name)
                if file.name.endswith(".partial") or (number is not None and number >= self._next):
                    file.unlink()


def write_dataset(
    directory: str | os.PathLike[str],
    schema: SampleSchema,
    batches: Iterable[SampleBatch],
    metadata: Mapping[str, Any],
) -> Manifest:
    """Write a whole data set: one shard and its manifest.

    Raises:
        InputError: the directory holds something already, or no sample came.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError.single(str(directory), "not empty", "a new or empty directory")
    with SampleStore.create(directory / "shard-0.zarr", schema, metadata) as store:
        for batch in batches:
            store.append(batch)
    return write_manifest(directory)
