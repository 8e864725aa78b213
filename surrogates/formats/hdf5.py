"""One HDF5 file a data set, with schema and provenance; plain HDF5 files are taken in too.

Layout of a file, with N samples in order of their index:

    /                attribute headrace_schema: JSON, as `SampleSchema.to_json`; one with a mesh may outgrow what HDF5
                     allows an attribute (64 KiB) and is then a dataset of that name
    /index           int64 (N,): place of the sample in the planned data set
    /inputs          float32 (N, channels, *grid)
    /outputs         float32 (N, times, channels, *grid)
    /parameters      float32 (N, parameters)
    /provenance/...  one dataset (N,) for each field of `Provenance` but the index: strings, int64 or float64

A file without `headrace_schema` needs two datasets called inputs and outputs, or x and y, of (N, C, *grid), or of
(N, H, W) without channels: see `PlainData` for what is assumed.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from headrace.platform.dataset.samples import Samples
from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.surrogates.format import AbstractFormat
from headrace.surrogates.formats.plain import ROWS, PlainData, dataset_names, find_files, require_new

if TYPE_CHECKING:
    import h5py

_PAIRS = (("inputs", "outputs"), ("x", "y"))
_STRINGS = ("spec_hash", "level", "solver", "status", "version")
_NUMBERS = {
    "seed": np.int64,
    "num_iterations": np.int64,
    "relative_residual": np.float64,
    "wall_seconds": np.float64,
    "cpu_seconds": np.float64,
}
_LONGEST_ATTRIBUTE = 60_000  # characters; HDF5 stops at 64 KiB, header included
_EXPECTED = "an HDF5 file with datasets inputs and outputs, or x and y"


class HDF5(AbstractFormat):
    """One HDF5 file a data set, with schema and provenance; plain HDF5 files are taken in too."""

    kind: Literal["hdf5"] = "hdf5"

    suffixes: ClassVar[tuple[str, ...]] = (".h5", ".hdf5")

    def import_files(
        self,
        path: str | os.PathLike[str],
        out_dir: str | os.PathLike[str],
        *,
        input_name: str = "x",
        output_name: str = "y",
    ) -> dict[str, int]:
        """Take in one HDF5 file, or all of a folder; a file `..._train.h5` becomes the data set `train`.

        Everything is checked before the first data set is written.

        Args:
            path: the file or folder.
            out_dir: where to put the data sets; new or empty.
            input_name: what to call the input field of files without schema.
            output_name: what to call the output field of files without schema.

        Returns:
            The number of samples of each data set by name.

        Raises:
            InputError: nothing to import, a file is not of this format, or its numbers cannot be used.
        """
        from headrace.platform.dataset.writer import write_dataset

        files = find_files(Path(path), self.suffixes)
        names = dataset_names(files)
        require_new(Path(out_dir))
        faults: list[Fault] = []
        for file in files:
            try:
                with _open(file) as content:
                    faults += _check(file, content)
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(faults)
        counts = {}
        for name, file in zip(names, files, strict=True):
            metadata = {"imported_from": file.name, "format": "hdf5"}
            with _open(file) as content:
                schema = _schema(file, content)
                if schema is not None:
                    batches = _batches(content)
                else:
                    plain = _plain(file, content)
                    schema, batches = plain.schema(input_name, output_name), plain.batches()
                counts[name] = write_dataset(Path(out_dir) / name, schema, batches, metadata).count
        return counts

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
        if target.exists():
            raise InputError.single(str(target), "there already", "a new file")
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.new")
        count, text = len(stored), h5py.string_dtype()
        with h5py.File(scratch, "w") as file:
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
            for number, batch in enumerate(stored.batches(ROWS)):
                rows = slice(number * ROWS, number * ROWS + len(batch))
                for key in _shapes(stored.schema):
                    file[key][rows] = getattr(batch, key)
                for key in (*_STRINGS, *_NUMBERS):
                    group[key][rows] = [getattr(provenance, key) for provenance in batch.provenance]
        scratch.replace(target)
        return (target,)


def _shapes(schema: SampleSchema) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each array."""
    grid = schema.domain.shape
    return {
        "inputs": (schema.num_input_channels, *grid),
        "outputs": (len(schema.times), schema.num_output_channels, *grid),
        "parameters": (schema.num_parameters,),
    }


def _open(path: Path) -> "h5py.File":
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise InputError.single(str(path), f"not readable as HDF5 ({reason})", _EXPECTED, "Is it cut off?") from error


def _schema(path: Path, file: "h5py.File") -> SampleSchema | None:
    """The schema that the file brings.

    Raises:
        InputError: it is damaged.
    """
    import h5py

    text = file.attrs.get("headrace_schema")
    if text is None and isinstance(file.get("headrace_schema"), h5py.Dataset):
        text = file["headrace_schema"].asstr()[()]
    if text is None:
        return None
    try:
        return SampleSchema.from_json(json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError.single(
            f"{path}: headrace_schema", f"not readable ({error})", "the JSON of a schema"
        ) from error


def _check(path: Path, file: "h5py.File") -> list[Fault]:
    """All that is wrong with a file."""
    import h5py

    schema = _schema(path, file)
    if schema is None:
        return _plain(path, file).check()
    index = file.get("index")
    if not isinstance(index, h5py.Dataset) or index.ndim != 1 or index.dtype.kind not in "iu" or not len(index):
        return [_fault(path, "index", file, "integers, one for each sample")]
    count, faults = len(index), []
    indices = index[:].astype(np.int64)
    if indices.min() < 0 or len(np.unique(indices)) < count:
        faults.append(Fault(where=f"{path}: index", value="negative or repeated", expected="distinct indices from 0"))
    for key, shape in _shapes(schema).items():
        array = file.get(key)
        if not isinstance(array, h5py.Dataset) or array.shape != (count, *shape) or array.dtype != np.float32:
            faults.append(_fault(path, key, file, f"float32 of shape {(count, *shape)}, as the schema says"))
    columns = file.get("provenance", {})
    faults += [
        _fault(path, f"provenance/{key}", file, f"{count} values")
        for key in (*_STRINGS, *_NUMBERS)
        if key not in columns or columns[key].shape != (count,)
    ]
    if not faults:
        faults = PlainData(path=path, inputs=("inputs", file["inputs"]), outputs=("outputs", file["outputs"])).finite()
    return faults


def _fault(path: Path, key: str, file: "h5py.File", expected: str) -> Fault:
    import h5py

    array = file.get(key)
    value = f"{array.dtype} of shape {array.shape}" if isinstance(array, h5py.Dataset) else "missing"
    return Fault(where=f"{path}: {key}", value=value, expected=expected)


def _plain(path: Path, file: "h5py.File") -> PlainData:
    """The arrays of a file without schema.

    Raises:
        InputError: one cannot tell which.
    """
    import h5py

    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, node: found.update({name: node}) if isinstance(node, h5py.Dataset) else None)
    for x, y in _PAIRS:
        if x in found and y in found:
            return PlainData(path=path, inputs=(x, found[x]), outputs=(y, found[y]))
    names = ", ".join(f"{name} {array.shape}" for name, array in found.items())
    raise InputError.single(str(path), f"a file with {f'the datasets {names}' if names else 'no dataset'}", _EXPECTED)


def _batches(file: "h5py.File") -> Iterator[SampleBatch]:
    """The samples of a file that follows the layout."""
    group = file["provenance"]
    for start in range(0, len(file["index"]), ROWS):
        rows = slice(start, start + ROWS)
        indices = file["index"][rows].astype(np.int64)
        columns: dict[str, Sequence] = {key: group[key].asstr()[rows].tolist() for key in _STRINGS}
        columns |= {key: group[key][rows].tolist() for key in _NUMBERS}
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
