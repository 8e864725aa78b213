"""One HDF5 file a data set, with schema and provenance; files with any names are taken in with a layout.

Layout of a file, with N samples in order of their index:

    /                attribute headrace_schema: JSON, as `SampleSchema.to_json`; one with a mesh may outgrow what HDF5
                     allows an attribute (64 KiB) and is then a dataset of that name
    /index           int64 (N,): place of the sample in the planned data set
    /inputs          float32 (N, channels, *grid)
    /outputs         float32 (N, times, channels, *grid)
    /parameters      float32 (N, parameters)
    /provenance/...  one dataset (N,) for each field of `Provenance` but the index: strings, int64 or float64

A file without `headrace_schema` may have datasets of any names; what they are says a layout.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import Grid, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.hdf5_tree import Tree, exported, open_tree
from headrace.surrogates.intake.arrays import Container
from headrace.surrogates.intake.complete import Complete
from headrace.surrogates.intake.layout import ATTRIBUTE
from headrace.surrogates.outlet.filling import NBYTES, new_file
from headrace.surrogates.outlet.parts import whole_plan

if TYPE_CHECKING:
    import h5py

ROWS = 256  # samples read and written at a time
_STRINGS = ("spec_hash", "level", "solver", "status", "version")
_NUMBERS = {
    "seed": np.int64,
    "num_iterations": np.int64,
    "relative_residual": np.float64,
    "wall_seconds": np.float64,
    "cpu_seconds": np.float64,
}
_LONGEST_ATTRIBUTE = 60_000  # characters; HDF5 stops at 64 KiB, header included


class HDF5(AbstractFormat):
    """HDF5 files (.h5): one a data set, with schema and provenance; those with any names are taken in with a layout."""

    kind: Literal["hdf5"] = "hdf5"

    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")

    @contextmanager
    def open_file(self, path: Path) -> Iterator[Container]:
        """Open a file: samples when Headrace wrote it, else its datasets by their paths.

        Raises:
            InputError: it is no HDF5 file, or contradicts its own schema.
        """
        with open_tree(path) as tree:
            schema = _schema(tree)
            if schema is None:
                found = Container(path=path, arrays=tree.arrays(), layout=tree.layout(), refused=tree.refused)
                yield exported(tree) or found
                return
            if faults := _check(tree, schema):
                raise InputError(faults)
            file = tree.datasets
            samples = Complete(schema=schema, count=len(file["index"]), read=partial(_batches, file))
            yield Container(path=path, arrays={}, samples=samples)

    def export_dataset(
        self, stored: Samples, out_dir: str | os.PathLike[str], name: str, split: str = "train"
    ) -> tuple[Path, ...]:
        """Write a data set as `{name}_{split}.h5`.

        Args:
            stored: the samples.
            out_dir: the folder for the file.
            name: what to call the data.
            split: `train`, `test`, ...

        Raises:
            InputError: the file exists.
        """
        import h5py

        target = Path(out_dir) / f"{name}_{split}.h5"
        count, text, grid = len(stored), h5py.string_dtype(), stored.schema.domain
        rows_at_a_time = max(1, NBYTES // max(1, stored.schema.sample_nbytes))
        with new_file(target) as draft, h5py.File(draft, "w") as file:
            if isinstance(grid, Grid):
                # For who takes a part of it in, with a layout of his own.
                layout = whole_plan(stored.schema, grid, ("inputs", "outputs", "parameters")).layout
                file.attrs[ATTRIBUTE] = layout.model_copy(update={"index": "index"}).to_json()
            schema = json.dumps(stored.schema.to_json())
            if len(schema) < _LONGEST_ATTRIBUTE:
                file.attrs["headrace_schema"] = schema
            else:
                file.create_dataset("headrace_schema", data=schema, dtype=text)
            file.create_dataset("index", data=stored.indices)
            for key, shape in _shapes(stored.schema).items():
                file.create_dataset(key, shape=(count, *shape), dtype=np.float32)
            group = file.create_group("provenance")
            for key in _STRINGS:
                group.create_dataset(key, shape=(count,), dtype=text)
            for key, dtype in _NUMBERS.items():
                group.create_dataset(key, shape=(count,), dtype=dtype)
            for number, batch in enumerate(stored.batches(rows_at_a_time)):
                rows = slice(number * rows_at_a_time, number * rows_at_a_time + len(batch))
                for key in _shapes(stored.schema):
                    file[key][rows] = getattr(batch, key)
                for key in (*_STRINGS, *_NUMBERS):
                    group[key][rows] = [getattr(provenance, key) for provenance in batch.provenance]
        return (target,)


def _shapes(schema: SampleSchema) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each array."""
    grid = schema.domain.shape
    return {
        "inputs": (schema.num_input_channels, *grid),
        "outputs": (len(schema.times), schema.num_output_channels, *grid),
        "parameters": (schema.num_parameters,),
    }


def _schema(tree: Tree) -> SampleSchema | None:
    """The schema that the file brings.

    Raises:
        InputError: it is damaged.
    """
    text = tree.text("headrace_schema")
    if text is None:
        return None
    try:
        return SampleSchema.from_json(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError.single(
            f"{tree.path}: headrace_schema", f"not readable ({error})", "the JSON of a schema"
        ) from error


def _check(tree: Tree, schema: SampleSchema) -> list[Fault]:
    """What contradicts the schema."""
    index = tree.datasets.get("index")
    if index is None or index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        return [_fault(tree, "index", "integers, one for each sample")]
    count, faults = len(index), []
    indices = index[:].astype(np.int64)
    if indices.min() < 0 or len(np.unique(indices)) < count:
        where = f"{tree.path}: index"
        faults.append(Fault(where=where, value="negative or repeated", expected="distinct indices from 0"))
    for key, shape in _shapes(schema).items():
        array = tree.datasets.get(key)
        if array is None or array.shape != (count, *shape) or array.dtype != np.float32:
            faults.append(_fault(tree, key, f"float32 of shape {(count, *shape)}, as the schema says"))
    faults += [
        _fault(tree, f"provenance/{key}", f"{count} values")
        for key in (*_STRINGS, *_NUMBERS)
        if f"provenance/{key}" not in tree.datasets or tree.datasets[f"provenance/{key}"].shape != (count,)
    ]
    return faults


def _fault(tree: Tree, key: str, expected: str) -> Fault:
    array = tree.datasets.get(key)
    value = tree.refused.get(key, "missing") if array is None else f"{array.dtype} of shape {array.shape}"
    return Fault(where=f"{tree.path}: {key}", value=value, expected=expected)


def _batches(file: Mapping[str, "h5py.Dataset"]) -> Iterator[SampleBatch]:
    """The samples of a file that follows the layout."""
    for start in range(0, len(file["index"]), ROWS):
        rows = slice(start, start + ROWS)
        indices = file["index"][rows].astype(np.int64)
        columns: dict[str, Sequence] = {key: file[f"provenance/{key}"].asstr()[rows].tolist() for key in _STRINGS}
        columns |= {key: file[f"provenance/{key}"][rows].tolist() for key in _NUMBERS}
        yield SampleBatch(
            indices=indices,
            inputs=file["inputs"][rows],
            outputs=file["outputs"][rows],
            parameters=file["parameters"][rows],
            provenance=tuple(
                Provenance(index=int(index), **{key: values[row] for key, values in columns.items()})
                for row, index in enumerate(indices)
            ),
        )
