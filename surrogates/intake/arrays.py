"""Arrays of a file, read by slices: what every format yields, whatever its files look like."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from headrace.platform.errors import InputError
from headrace.surrogates.intake.complete import Complete
from headrace.surrogates.intake.layout import Layout

type Selection = tuple[slice, ...]
"""One slice an axis, of step 1."""


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

    def __getitem__(self, selection: Selection, /) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class SourceArray:
    """An array of a file.

    Attributes:
        values: read when they are asked for.
        axes: what the file calls its axes; None where it does not.
        unit: of its values, as the file says.
    """

    values: ArrayLike
    axes: tuple[str, ...] | None = None
    unit: str | None = None

    def __str__(self) -> str:
        return f"{self.values.dtype} {self.values.shape}"


@dataclass(frozen=True, kw_only=True)
class Container:
    """A file, or a folder that is one.

    Attributes:
        path: where it lies.
        arrays: by their path in it.
        layout: what it says of itself; None when it says nothing.
        refused: arrays that stand there and are not read, with the reason.
        notes: what a user should know of how it was read.
        samples: the samples themselves, where the file says all that is to say of them.
    """

    path: Path
    arrays: Mapping[str, SourceArray]
    layout: Layout | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    samples: Complete | None = None


@dataclass(frozen=True)
class Reversed:
    """An array with its axes in the opposite order: what column-major programs wrote, as they show it."""

    base: ArrayLike

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return tuple(reversed(self.base.shape))

    @property
    def dtype(self) -> np.dtype:
        """Kind of the values."""
        return self.base.dtype

    def __getitem__(self, selection: Selection) -> np.ndarray:
        return np.asarray(self.base[tuple(reversed(selection))]).T


@dataclass(frozen=True)
class Stacked:
    """Arrays of one shape, one for each sample, along a new first axis."""

    parts: Sequence[ArrayLike]

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> np.dtype:
        """Kind of the values."""
        return self.parts[0].dtype

    def __getitem__(self, selection: Selection) -> np.ndarray:
        return np.stack([np.asarray(part[selection[1:]]) for part in self.parts[selection[0]]])


@dataclass(frozen=True)
class Mapped:
    """An array whose values are computed from those of another one, of the same shape."""

    base: ArrayLike
    function: Callable[[np.ndarray], np.ndarray]
    dtype: np.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.base.shape

    def __getitem__(self, selection: Selection) -> np.ndarray:
        return self.function(np.asarray(self.base[selection]))


class Kept:
    """An array that is read whole when it is first asked for: of files that cannot be read in part."""

    def __init__(self, shape: tuple[int, ...], read: Callable[[], np.ndarray]) -> None:
        self.shape = shape
        self._read = read
        self._values: np.ndarray | None = None

    @property
    def dtype(self) -> np.dtype:
        """Kind of the values; reads them."""
        return self._all().dtype

    def __getitem__(self, selection: Selection) -> np.ndarray:
        return self._all()[selection]

    def _all(self) -> np.ndarray:
        if self._values is None:
            self._values = self._read()
        return self._values


def whole(array: ArrayLike, where: str) -> np.ndarray:
    """All values of an array.

    Raises:
        InputError: they cannot be read; `where` says which.
    """
    with readable(where):
        return np.asarray(array[tuple(slice(None) for _ in array.shape)])


@contextmanager
def readable(where: str) -> Iterator[None]:
    """Say which array it is when its values cannot be read.

    Raises:
        InputError: its file is damaged, or was packed by a filter that is not here.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = "Was the file damaged, or is a filter missing that packed it?"
        raise InputError.single(where, f"not readable ({reason})", "whole values", advice) from error
