"""Writing: readings become data sets, by shares if asked for."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headrace.platform.dataset.manifest import write_manifest
from headrace.platform.dataset.writer import SampleStore
from headrace.platform.errors import InputError
from headrace.platform.sample import SampleBatch
from headrace.surrogates.intake.examining import Intake


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Which data set each sample goes to.

    Attributes:
        names: of the data sets.
        labels: for each sample the number of its name.
    """

    names: tuple[str, ...]
    labels: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples of each data set."""
        return {name: int((self.labels == number).sum()) for number, name in enumerate(self.names)}


def shares(count: int, split: Mapping[str, float] | None, seed: int, name: str) -> Shares:
    """Draw which data set each sample goes to; the numbers are those of the shares, by the largest remainders.

    Args:
        count: how many samples, each of them a whole trajectory.
        split: shares by name; None: all go to one.
        seed: of the draw.
        name: of that one.

    Raises:
        InputError: one would be empty.
    """
    if split is None:
        return Shares(names=(name,), labels=np.zeros(count, dtype=np.int64))
    wanted = np.array(list(split.values())) * count
    sizes = np.floor(wanted + 1e-9).astype(int)
    for place in np.argsort(sizes - wanted, kind="stable")[: count - sizes.sum()]:
        sizes[place] += 1
    if not sizes.all():
        empty = list(split)[int(np.argmin(sizes))]
        given = ",".join(f"{share:g}" for share in split.values())
        raise InputError.single(
            "--split", f"{given} of {count} samples", f"at least one for each set; {empty} would be empty"
        )
    labels = np.empty(count, dtype=np.int64)
    labels[np.random.default_rng(seed).permutation(count)] = np.repeat(np.arange(len(sizes)), sizes)
    return Shares(names=tuple(split), labels=labels)


def write(readings: Sequence[Intake], to: Shares, out_dir: Path, kind: str) -> None:
    """Write data sets below `out_dir`, a few samples at a time.

    Args:
        readings: of one or several files of one schema, one after the other.
        to: which set each sample goes to.
        out_dir: where to make the folders.
        kind: of the files, for the metadata.
    """
    first = readings[0]
    metadata = {
        "imported_from": ", ".join(reading.container.path.name for reading in readings[:10]),
        "format": kind,
        "layout": json.loads(first.layout.to_json()),
    }
    with ExitStack() as stack:
        stores = [
            stack.enter_context(SampleStore.create(out_dir / name / "shard-0.zarr", first.schema, metadata))
            for name in to.names
        ]
        waiting: list[list[SampleBatch]] = [[] for _ in stores]
        for batch, labels in _batches(readings, to.labels):
            for number, store in enumerate(stores):
                rows = np.flatnonzero(labels == number)
                if len(rows):
                    waiting[number].append(batch.take(rows))
                waiting[number] = _append(store, waiting[number], last=False)
        for number, store in enumerate(stores):
            _append(store, waiting[number], last=True)
    for name in to.names:
        write_manifest(out_dir / name)


def _append(store: SampleStore, waiting: list[SampleBatch], *, last: bool) -> list[SampleBatch]:
    """Append whole chunks of what waits, so that none is padded in the middle; returns what still waits."""
    count = sum(len(batch) for batch in waiting)
    whole = count if last else count - count % store.rows_per_chunk
    if not whole:
        return waiting
    joined = SampleBatch(
        indices=np.concatenate([batch.indices for batch in waiting]),
        inputs=np.concatenate([batch.inputs for batch in waiting]),
        outputs=np.concatenate([batch.outputs for batch in waiting]),
        parameters=np.concatenate([batch.parameters for batch in waiting]),
        provenance=tuple(one for batch in waiting for one in batch.provenance),
    )
    store.append(joined.take(np.arange(whole)))
    return [joined.take(np.arange(whole, count))] if whole < count else []


def _batches(readings: Sequence[Intake], labels: np.ndarray) -> Iterator[tuple[SampleBatch, np.ndarray]]:
    """The samples of all files, and where each goes. Those of several files are numbered through."""
    before = 0
    for reading in readings:
        for batch in reading.batches():
            if len(readings) > 1:
                indices = np.arange(before, before + len(batch))
                numbered = zip(batch.provenance, indices, strict=True)
                provenance = tuple(dataclasses.replace(one, index=int(index)) for one, index in numbered)
                batch = dataclasses.replace(batch, indices=indices, provenance=provenance)
            yield batch, labels[before : before + len(batch)]
            before += len(batch)
