"""StoredSamples: reads a data set, whole or while it is being written, and its manifest."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from headrace.platform.dataset.layout import COLUMNS, array_of, decode_provenance, index_chunks, open_shard
from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Provenance, SampleBatch

_RUN_CHUNKS = 64  # chunks that `read_all` decodes at a time


class StoredSamples:
    """The samples of a data set directory, sorted by index, each once.

    A data set is a directory of shards `shard-*.zarr`. It can be read while it is written and after a crash: only
    samples that are complete are seen. When two shards hold the same index, the first shard's is taken.

    Make it with `open`. Positions count the samples from 0 in order of their index; `refresh` may shift them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._shards: list[_Shard] = []
        self._indices = np.empty(0, dtype=np.int64)
        self._shard_of = np.empty(0, dtype=np.int64)
        self._row_of = np.empty(0, dtype=np.int64)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, allow_empty: bool = False) -> "StoredSamples":
        """Open a data set.

        Args:
            directory: holds `shard-*.zarr`.
            allow_empty: accept one that has a shard but no sample yet.

        Raises:
            InputError: it is missing, not a data set, empty, or its shards have different schemas.
        """
        stored = cls(Path(directory))
        stored.refresh()
        if not len(stored) and not allow_empty:
            raise InputError.single(str(directory), "without a single sample", "a data set with samples")
        return stored

    def refresh(self) -> int:
        """Look for samples that were written since.

        Returns:
            How many samples are new.
        """
        known = {shard.path: shard for shard in self._shards}
        self._shards = [known.get(path) or _Shard(path) for path in _required_shard_paths(self.directory)]
        for shard in self._shards[1:]:
            _compare(self._shards[0], shard)
        before = len(self)
        for shard in self._shards:
            shard.refresh()
        # In order of the shards' names, then of the rows; `unique` keeps the first of each index.
        indices = np.concatenate([shard.indices for shard in self._shards])
        shard_of = np.repeat(np.arange(len(self._shards)), [len(shard.rows) for shard in self._shards])
        row_of = np.concatenate([shard.rows for shard in self._shards])
        self._indices, first = np.unique(indices, return_index=True)
        self._shard_of, self._row_of = shard_of[first], row_of[first]
        return len(self) - before

    def __len__(self) -> int:
        return len(self._indices)

    @property
    def schema(self) -> SampleSchema:
        """What the samples look like."""
        return self._shards[0].header.schema

    @property
    def metadata(self) -> dict[str, object]:
        """What the writer of the first shard was given to keep."""
        return dict(self._shards[0].header.metadata)

    @property
    def indices(self) -> Int64[np.ndarray, " samples"]:
        """The samples' indices in the planned data set, ascending."""
        return self._indices

    @property
    def is_whole(self) -> Bool[np.ndarray, " samples"]:
        """Of each sample whether all parts of its trajectory are there; those of one that broke are not."""
        return is_whole(self._indices, self.schema.parts)

    @property
    def levels(self) -> tuple[str, ...]:
        """The difficulty level of each sample; "unknown" where it came without provenance."""
        found = np.empty(len(self), dtype=object)
        for number, shard in enumerate(self._shards):
            here = self._shard_of == number
            found[here] = shard.levels(self._row_of[here])
        return tuple(found)

    def positions(self, indices: Sequence[int] | Int64[np.ndarray, " batch"]) -> Int64[np.ndarray, " batch"]:
        """Where samples stand.

        Raises:
            ValueError: one is not there.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        found = np.searchsorted(self._indices, wanted)
        absent = wanted[self._indices[np.minimum(found, len(self) - 1)] != wanted] if len(self) else wanted
        if len(absent):
            raise ValueError(f"{self.directory} holds no sample {absent[0]}, nor {len(absent) - 1} others asked for")
        return found.astype(np.int64)

    def batch(self, positions: Sequence[int] | Int64[np.ndarray, " batch"]) -> SampleBatch:
        """Read the samples at these positions, in this order, with their provenance.

        Raises:
            IndexError: a position is out of range.
        """
        positions = np.asarray(positions, dtype=np.int64)
        batch = self._empty(self._indices[positions])
        provenance = np.empty(len(positions), dtype=object)
        for number, shard in enumerate(self._shards):
            here = np.flatnonzero(self._shard_of[positions] == number)
            if len(here):
                rows, where = np.unique(self._row_of[positions[here]], return_inverse=True)
                for name in shard.fields:
                    getattr(batch, name)[here] = shard.read(name, rows)[where]
                provenance[here] = shard.provenance(rows[where], batch.indices[here])
        return dataclasses.replace(batch, provenance=tuple(provenance))

    def batches(self, size: int) -> Iterator[SampleBatch]:
        """Read all samples in order of their index, `size` at a time; the last batch may be shorter."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))

    def read_all(self) -> SampleBatch:
        """Read everything into memory, in order of the index; faster than `batch`, as each chunk is decoded once."""
        batch = self._empty(self._indices)
        provenance = np.empty(len(self), dtype=object)
        for number, shard in enumerate(self._shards):
            here = np.flatnonzero(self._shard_of == number)
            here = here[np.argsort(self._row_of[here])]
            rows = self._row_of[here]
            for part in shard.runs(rows):
                for name in shard.fields:
                    getattr(batch, name)[here[part]] = shard.read_run(name, rows[part])
            provenance[here] = shard.provenance(rows, self._indices[here])
        return dataclasses.replace(batch, provenance=tuple(provenance))

    def provenance(self) -> tuple[Provenance, ...]:
        """Where each sample came from, in order of the index; reads no fields."""
        found = np.empty(len(self), dtype=object)
        for number, shard in enumerate(self._shards):
            here = np.flatnonzero(self._shard_of == number)
            found[here] = shard.provenance(self._row_of[here], self._indices[here])
        return tuple(found)

    def content_hash(self) -> str:
        """SHA-256 over the samples in order of their index: index (little-endian), inputs, outputs, parameters."""
        digest = hashlib.sha256()
        for batch in self.batches(256):
            for row, index in enumerate(batch.indices):
                digest.update(int(index).to_bytes(8, "little"))
                for values in (batch.inputs[row], batch.outputs[row], batch.parameters[row]):
                    digest.update(np.ascontiguousarray(values, dtype="<f4"))
        return digest.hexdigest()

    def _empty(self, indices: np.ndarray) -> SampleBatch:
        schema, count = self.schema, len(indices)
        grid = schema.domain.shape
        return SampleBatch(
            indices=indices.copy(),
            inputs=np.empty((count, schema.num_input_channels, *grid), dtype=np.float32),
            outputs=np.empty((count, len(schema.times), schema.num_output_channels, *grid), dtype=np.float32),
            parameters=np.empty((count, schema.num_parameters), dtype=np.float32),
        )


class _Shard:
    """One shard as far as it is read: its rows that hold a sample, and their indices."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = np.empty(0, dtype=np.int64)
        self.indices = np.empty(0, dtype=np.int64)
        self._next = 0  # first chunk whose index was not read yet
        self._table = np.empty((0, len(COLUMNS)))
        self._open()

    def _open(self) -> None:
        group, self.header = open_shard(self.path, "r")
        schema = self.header.schema
        sizes = {"inputs": schema.num_input_channels, "outputs": 1, "parameters": schema.num_parameters}
        self.fields = tuple(name for name, size in sizes.items() if size)
        self._arrays = {name: array_of(group, name) for name in (*self.fields, "provenance")}

    def refresh(self) -> None:
        """Read the index of new chunks."""
        length = self.header.rows_per_chunk
        new = [chunk for chunk in index_chunks(self.path, length) if chunk >= self._next]
        if not new:
            return
        self._open()  # longer arrays, and names that were not there before
        # Straight from the files: a chunk is its bare int64 values, which Zarr takes four times as long to read.
        read = [np.fromfile(self.path / "index" / f"c.{chunk}", dtype="<i8") for chunk in new]
        rows = (np.array(new)[:, None] * length + np.arange(length)).ravel()
        indices = np.concatenate(read)
        self.rows = np.concatenate([self.rows, rows[indices >= 0]])
        self.indices = np.concatenate([self.indices, indices[indices >= 0]])
        self._next = new[-1] + 1

    def read(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of an array; `rows` ascend."""
        with self._named(name):
            return np.asarray(self._arrays[name].oindex[rows])

    def read_run(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of one of the `runs`: faster than `read`."""
        with self._named(name):
            return np.asarray(self._arrays[name][int(rows[0]) : int(rows[-1]) + 1])[rows - rows[0]]

    def runs(self, rows: np.ndarray) -> Iterator[slice]:
        """Cut ascending rows where chunks without samples lie between, which may be torn, and after some megabytes."""
        chunks = rows // self.header.rows_per_chunk
        start = 0
        for stop in (*(np.flatnonzero(np.diff(chunks) > 1) + 1), len(rows)):
            while start < stop:
                end = int(np.searchsorted(chunks[:stop], chunks[start] + _RUN_CHUNKS))
                yield slice(start, end)
                start = end

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Say which shard it is when a chunk cannot be decoded."""
        try:
            yield
        except (RuntimeError, ValueError, OSError) as error:
            where = f"{self.path}: {name}"
            advice = "Was the disk damaged or the file copied in part?"
            raise InputError.single(where, f"not readable ({error})", "whole chunks", advice) from error

    def provenance(self, rows: np.ndarray, indices: np.ndarray) -> tuple[Provenance, ...]:
        """Where the samples of some rows came from."""
        return decode_provenance(self._read_table()[rows], indices, self.header.names)

    def levels(self, rows: np.ndarray) -> np.ndarray:
        """The level of the samples of some rows."""
        codes = self._read_table()[rows, COLUMNS.index("level")].astype(np.int64)
        names = np.array([*self.header.names["level"], "unknown"], dtype=object)  # the code -1 picks the last
        return names[codes]

    def _read_table(self) -> Float64[np.ndarray, "rows columns"]:
        """The provenance table up to the last known row: 80 bytes a sample, kept once read."""
        have, want = len(self._table), self._next * self.header.rows_per_chunk
        if have < want:
            self._table = np.concatenate([self._table, np.zeros((want - have, len(COLUMNS)))])
            rows = self.rows[np.searchsorted(self.rows, have) :]
            for part in self.runs(rows):
                self._table[rows[part]] = self.read_run("provenance", rows[part])
        return self._table


def shard_paths(directory: Path) -> list[Path]:
    """The shards in a folder, shard-2 before shard-10; none when it is not there."""
    paths = [path for path in directory.glob("shard-*.zarr") if path.is_dir()]
    return sorted(paths, key=lambda path: (len(path.name), path.name))


def shard_indices(path: Path) -> Int64[np.ndarray, " samples"]:
    """The indices of the samples that a shard holds, in the order in which they came.

    Raises:
        InputError: it is not a shard.
    """
    shard = _Shard(path)
    shard.refresh()
    return shard.indices


def is_whole(indices: Int64[np.ndarray, " samples"], parts: int) -> Bool[np.ndarray, " samples"]:
    """Of each sample whether all parts of its trajectory are among some distinct indices."""
    _, which, counts = np.unique(indices // parts, return_inverse=True, return_counts=True)
    whole: np.ndarray = counts[which] == parts
    return whole


def recorded_order(directory: Path, *, without: Collection[str] = ()) -> Int64[np.ndarray, " samples"]:
    """The indices in a data set, each once, about in the order in which they came: the shards row by row.

    Args:
        directory: the data set; it need not be there.
        without: names of shards to leave out.

    Raises:
        InputError: a shard is damaged.
    """
    shards = [shard_indices(path) for path in shard_paths(directory) if path.stem not in without]
    indices = np.concatenate([np.empty(0, np.int64), *shards])
    rows = np.concatenate([np.empty(0, np.int64), *(np.arange(len(shard)) for shard in shards)])
    indices = indices[np.argsort(rows, kind="stable")]
    _, first = np.unique(indices, return_index=True)
    return indices[np.sort(first)]


def _required_shard_paths(directory: Path) -> list[Path]:
    """The shards of a data set, shard-2 before shard-10.

    Raises:
        InputError: there are none.
    """
    expected = "a data set: a directory that holds shard-*.zarr"
    if not directory.is_dir():
        fault = "a file" if directory.exists() else "not there"
        raise InputError.single(str(directory), fault, expected)
    paths = shard_paths(directory)
    if not paths:
        inside = sorted({path.parent.name for path in directory.glob("*/shard-*.zarr")})
        advice = f"It holds data sets: {', '.join(inside)}; name one of them." if inside else ""
        if directory.suffix == ".zarr":
            advice = f"This is one shard; name {directory.parent}."
        raise InputError.single(str(directory), "a directory without shards", expected, advice)
    return paths


def _compare(first: "_Shard", other: "_Shard") -> None:
    """Make sure that two shards belong together.

    Raises:
        InputError: their schemas differ.
    """
    ours, theirs = first.header.schema, other.header.schema
    for key in (field.name for field in dataclasses.fields(SampleSchema)):
        expected, found = getattr(ours, key), getattr(theirs, key)
        if found != expected:
            raise InputError.single(
                f"{other.path}: {key}", str(found), f"{expected}, as in {first.path.name}", "Keep them apart."
            )
