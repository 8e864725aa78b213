"""Arrays that come without a schema: checked, described and cut into batches."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch

ROWS = 256  # samples read at a time
_SPLITS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}
_NAME = re.compile(rf"(?:.*_)?({'|'.join(_SPLITS)})(?:_(\d+(?:x\d+)*))?")


@runtime_checkable
class ArrayLike(Protocol):
    """An array in memory or in a file: read by slices."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Kind of the values."""
        ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class PlainData:
    """Inputs and outputs of a file that says no more.

    Axes are (sample, *grid) with up to two grid axes, or (sample, channel, *grid) with four axes or more; a three-axis
    array is a stack of images without channels. Numbers and booleans become float32.

    Attributes:
        path: the file.
        inputs: named as in the file, with the array.
        outputs: the same.
    """

    path: Path
    inputs: tuple[str, ArrayLike]
    outputs: tuple[str, ArrayLike]

    def check(self) -> list[Fault]:
        """All that is wrong with the arrays."""
        faults = []
        for name, array in (self.inputs, self.outputs):
            if array.dtype.kind not in "biuf":
                faults.append(self._fault(name, f"of type {array.dtype}", "real numbers or booleans"))
            if not 2 <= len(array.shape) <= 5 or 0 in array.shape:
                expected = "(samples, points), (samples, height, width) or (samples, channels, *grid), none of them 0"
                faults.append(self._fault(name, f"of shape {array.shape}", expected))
        if faults:
            return faults
        (first, x), (second, y) = self.inputs, self.outputs
        if x.shape[0] != y.shape[0]:
            faults.append(self._fault(second, f"{y.shape[0]} samples", f"{x.shape[0]}, as {first} has"))
        if _grid(x.shape) != _grid(y.shape):
            faults.append(self._fault(second, f"on a grid of {_grid(y.shape)}", f"{_grid(x.shape)}, as {first} has"))
        return faults or self.finite()

    def finite(self) -> list[Fault]:
        """The arrays that hold infinities or not-a-numbers, with how many and where the first one is."""
        return [fault for name, array in (self.inputs, self.outputs) for fault in self._finite(name, array)]

    def schema(self, input_name: str, output_name: str) -> SampleSchema:
        """A schema as far as one can tell: a box of extent 1, values at cell centres, no units."""
        (_, x), (_, y) = self.inputs, self.outputs
        grid = _grid(x.shape)
        return SampleSchema(
            inputs=(FieldSpec(name=input_name, components=_channels(x.shape)),),
            outputs=(FieldSpec(name=output_name, components=_channels(y.shape)),),
            domain=Grid(shape=grid, extent=(1.0,) * len(grid), periodic=(False,) * len(grid), location="cells"),
        )

    def batches(self) -> Iterator[SampleBatch]:
        """The samples in the order of the file, numbered from 0."""
        (_, x), (_, y) = self.inputs, self.outputs
        origin, release, grid = file_hash(self.path), version("headrace"), _grid(x.shape)
        for start in range(0, x.shape[0], ROWS):
            rows = slice(start, min(start + ROWS, x.shape[0]))
            indices = np.arange(rows.start, rows.stop, dtype=np.int64)
            yield SampleBatch(
                indices=indices,
                inputs=_float32(x[rows]).reshape(len(indices), _channels(x.shape), *grid),
                outputs=_float32(y[rows]).reshape(len(indices), 1, _channels(y.shape), *grid),
                parameters=np.empty((len(indices), 0), dtype=np.float32),
                provenance=tuple(_imported(origin, int(index), release) for index in indices),
            )

    def _finite(self, name: str, array: ArrayLike) -> list[Fault]:
        count, first = 0, -1
        for start in range(0, array.shape[0], ROWS):
            values = _float32(array[start : start + ROWS])
            bad = ~np.isfinite(values).reshape(len(values), -1)
            if first < 0 and bad.any():
                first = start + int(np.argmax(bad.any(axis=1)))
            count += int(bad.sum())
        if not count:
            return []
        value = f"not finite in float32 at {count} places, first in sample {first}"
        return [self._fault(name, value, "finite numbers", "Leave such samples out.")]

    def _fault(self, name: str, value: str, expected: str, advice: str = "") -> Fault:
        return Fault(where=f"{self.path}: {name}", value=value, expected=expected, advice=advice)


def find_files(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The file, or the files of a folder with these endings, by name.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [path]
    endings = " or ".join(suffixes)
    if not path.is_dir():
        raise InputError.single(str(path), "not there", f"a {endings} file, or a folder with some")
    files = sorted(file for file in path.iterdir() if file.suffix in suffixes and file.is_file())
    if not files:
        raise InputError.single(str(path), "a folder with nothing to import", f"files that end in {endings}")
    return files


def dataset_names(files: Sequence[Path]) -> list[str]:
    """What to call the data set of each file: `train`, `test_16`, or the file's own name when it tells no split.

    The only training file becomes `train`, as does the only validation file `validation`; others keep the resolution.

    Raises:
        InputError: two files would get the same name.
    """
    parts = [_NAME.fullmatch(file.stem) for file in files]
    splits = [_SPLITS[match[1]] if match else "" for match in parts]
    names = []
    for file, match, split in zip(files, parts, splits, strict=True):
        alone = split in ("train", "validation") and splits.count(split) == 1
        names.append(file.stem if not match else split if alone or not match[2] else f"{split}_{match[2]}")
    for position, name in enumerate(names):
        if name in names[:position]:
            other = files[names.index(name)]
            expected = f"another name: {other.name} takes it"
            advice = "Import the files one by one."
            raise InputError.single(str(files[position]), f'to become the data set "{name}"', expected, advice)
    return names


def require_new(directory: Path) -> None:
    """Make sure that nothing would be mixed into existing files.

    Raises:
        InputError: the directory holds something, or is a file.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError.single(str(directory), "not empty", "a new or empty directory")


def file_hash(path: Path) -> str:
    """The first 16 hex digits of the SHA-256 of a file: stands for the spec that its samples came from."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _imported(origin: str, index: int, release: str) -> Provenance:
    return Provenance(
        spec_hash=origin,
        seed=0,
        index=index,
        level="imported",
        solver="imported",
        status="imported",
        relative_residual=float("nan"),
        num_iterations=0,
        wall_seconds=0.0,
        cpu_seconds=0.0,
        version=release,
    )


def _grid(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if len(shape) > 3 else shape[1:]


def _channels(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 3 else 1


def _float32(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is reported as such
        return np.asarray(values).astype(np.float32)
