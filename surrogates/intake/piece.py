"""Piece: a field, and how its array becomes channels of samples."""

import math
from dataclasses import dataclass

import numpy as np

from headrace.surrogates.intake.arrays import SourceArray, readable
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, TIME, FieldLayout

NBYTES = 32 * 1024**2  # of a field's values that are read at a time


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A field, and how its array becomes (sample, time, channel, *grid).

    Attributes:
        field: what it is called and what it is for.
        array: its values.
        where: the file, and the array's path in it.
        axes: of the array.
        shape: of the array, without the axes of length 1 that `axes` lacks.
        grid: the grid axes of a sample.
        grid_shape: their lengths.
        unit: of the values.
    """

    field: FieldLayout
    array: SourceArray
    where: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    grid: tuple[str, ...]
    grid_shape: tuple[int, ...]
    unit: str

    @property
    def num_components(self) -> int:
        """Entries along the channel axes, or those chosen; of a parameter its times, too."""
        if self.field.channels is not None:
            return len(self.field.channels)
        counted = (CHANNEL, TIME) if self.field.role == "parameter" else (CHANNEL,)
        return math.prod(length for axis, length in zip(self.axes, self.shape, strict=True) if axis in counted)

    @property
    def shape_in_words(self) -> str:
        """`sample 100, time 20, x 64`."""
        return ", ".join(f"{axis} {length}" for axis, length in zip(self.axes, self.shape, strict=True)) or "a number"

    @property
    def rows_at_a_time(self) -> int:
        """How many samples to read at a time."""
        if SAMPLE not in self.axes:
            return 2**31
        one = math.prod(self.shape) // self.shape[self.axes.index(SAMPLE)] * max(4, self.array.values.dtype.itemsize)
        return rows_in_memory(one)

    def raw(self, start: int, stop: int) -> np.ndarray:
        """The values of some samples as they stand in the file, of all where the array has no sample axis.

        Raises:
            InputError: they cannot be read.
        """
        axes = iter(self.axes)
        sizes = list(self.shape)
        selection = []
        for length in self.array.values.shape:
            if sizes and length == sizes[0]:
                sizes.pop(0)
                selection.append(slice(start, stop) if next(axes) == SAMPLE else slice(0, length))
            else:
                selection.append(slice(0, length))
        with readable(self.where):
            values = self.array.values[tuple(selection)]
        if isinstance(values, np.ma.MaskedArray):
            if np.ma.getmaskarray(values).any():
                # As a missing number: where it stands is told with all that are not finite.
                return np.ma.filled(values.astype(np.float64), np.nan).reshape(self._lengths(start, stop))
            values = values.data
        return np.asarray(values).reshape(self._lengths(start, stop))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Some samples: float32 (sample, time, channel, *grid), of a parameter (sample, component)."""
        values = as_float32(self.raw(start, stop))
        if self.field.role == "parameter":
            order = [axis for name in (SAMPLE, TIME, CHANNEL) for axis in self._where(name)]
            values = values.transpose(order).reshape(-1 if SAMPLE in self.axes else 1, *self._components())
            values = values.reshape(len(values), -1)
            values = values if self.field.channels is None else values[:, list(self.field.channels)]
            return np.broadcast_to(values, (stop - start, values.shape[1]))
        names = (SAMPLE, TIME, CHANNEL, *self.grid)
        values = values.transpose([axis for name in names for axis in self._where(name)])
        sizes = [values.shape[0] if SAMPLE in self.axes else 1]
        sizes.append(self._length(TIME))
        sizes.append(math.prod(self._components()))
        sizes += [self._length(axis) for axis in self.grid]
        values = values.reshape(sizes)
        if self.field.channels is not None:
            values = values[:, :, list(self.field.channels)]
        return np.broadcast_to(values, (stop - start, *values.shape[1:3], *self.grid_shape))

    def _where(self, name: str) -> list[int]:
        return [number for number, axis in enumerate(self.axes) if axis == name]

    def _length(self, name: str) -> int:
        return self.shape[self.axes.index(name)] if name in self.axes else 1

    def _components(self) -> tuple[int, ...]:
        counted = (TIME, CHANNEL) if self.field.role == "parameter" else (CHANNEL,)
        return tuple(self.shape[axis] for name in counted for axis in self._where(name))

    def _lengths(self, start: int, stop: int) -> tuple[int, ...]:
        return tuple(
            min(stop, length) - start if axis == SAMPLE else length
            for axis, length in zip(self.axes, self.shape, strict=True)
        )


def rows_in_memory(nbytes: int) -> int:
    """How many samples of so many bytes to read at a time."""
    return max(1, NBYTES // max(1, nbytes))


def as_float32(values: np.ndarray) -> np.ndarray:
    """Values as they are stored."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite and is reported as such
        return np.asarray(values).astype(np.float32)
