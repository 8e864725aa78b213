"""Reading: the arrays of a file as samples, a few at a time."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.fields import SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.surrogates.intake.arrays import Container, SourceArray, whole
from headrace.surrogates.intake.axes import axes_of, grid_of, lengths, listing, squeezed
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, FieldLayout, Layout
from headrace.surrogates.intake.piece import Piece, rows_in_memory
from headrace.surrogates.intake.schema import schema_of
from headrace.surrogates.intake.sources import source_hash

_SORTS = {
    "c": ("complex numbers", "Give real and imaginary parts as two channels."),
    "M": ("dates", "Give numbers, in a unit that --unit names."),
    "m": ("durations", "Give numbers, in a unit that --unit names."),
    "O": ("Python objects", "Save plain arrays of numbers."),
    "V": ("records", "Give each column as an array of its own."),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A file as samples.

    Attributes:
        container: the file.
        layout: how it is read, with all that the file says itself.
        schema: of the samples.
        pieces: its fields.
        indices: of the samples.
    """

    container: Container
    layout: Layout
    schema: SampleSchema
    pieces: tuple[Piece, ...]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def rows_at_a_time(self) -> int:
        """How many samples to read at a time."""
        most = rows_in_memory(self.schema.sample_nbytes)  # what is constant is repeated for each sample
        return min(len(self), most, *(piece.rows_at_a_time for piece in self.pieces))

    def arrays(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, outputs and parameters of some samples, as `SampleBatch` has them."""
        inputs, outputs, parameters = [], [], []
        num_times = len(self.schema.times)
        for piece in self.pieces:
            values = piece.rows(start, stop)
            if piece.field.role == "parameter":
                parameters.append(values)
            if piece.field.role in ("input", "state"):
                inputs.append(values[:, 0])
            if piece.field.role in ("output", "state"):
                later = values[:, values.shape[1] - num_times :] if values.shape[1] > 1 else values
                shape = (later.shape[0], num_times, *later.shape[2:])
                outputs.append(np.broadcast_to(later, shape))
        count, grid = stop - start, self.schema.domain.shape
        return (
            np.concatenate(inputs, axis=1) if inputs else np.empty((count, 0, *grid), dtype=np.float32),
            np.ascontiguousarray(np.concatenate(outputs, axis=2)),
            np.concatenate(parameters, axis=1) if parameters else np.empty((count, 0), dtype=np.float32),
        )

    def batches(self) -> Iterator[SampleBatch]:
        """All samples, a few at a time."""
        release, origin, step = version("headrace"), source_hash(self.container.path), self.rows_at_a_time
        for start in range(0, len(self), step):
            stop = min(start + step, len(self))
            inputs, outputs, parameters = self.arrays(start, stop)
            yield SampleBatch(
                indices=self.indices[start:stop],
                inputs=inputs,
                outputs=outputs,
                parameters=parameters,
                provenance=tuple(imported(origin, int(index), release) for index in self.indices[start:stop]),
            )


def imported(origin: str, index: int, release: str) -> Provenance:
    """Where a sample came from that others made."""
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


def read(container: Container, given: Layout) -> Reading:
    """Understand a file.

    Args:
        container: the file.
        given: what the user says of it; what is left out there is taken from the file.

    Raises:
        InputError: something is not said, or does not fit.
    """
    layout = given.over(container.layout)
    if not layout.fields:
        raise InputError.single(
            str(container.path),
            f"a file with {f'the arrays {listing(container)}' if container.arrays else 'no array of numbers'}",
            "to be told which are which",
            "Give --input NAME=ARRAY and --output NAME=ARRAY, or --state NAME=ARRAY for a field at all its times, and "
            "--parameter NAME=ARRAY.",
        )
    arrays = _arrays(container, layout)
    faults: list[Fault] = []
    named = []
    for field in layout.fields:
        try:
            array = arrays[field.source]
            axes = axes_of(container, layout, field, array)
            shape = squeezed(array.values.shape, axes)
            named.append((field, axes, shape))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    length = lengths(container, named)
    grid = grid_of(container, layout, [one for one in named if one[0].role != "parameter"])
    grid_shape = tuple(length.get(axis, 0) for axis in grid)
    if 0 in grid_shape:
        value = f"without a field along {grid[grid_shape.index(0)]}"
        raise InputError.single(str(container.path), value, f"fields on a grid of {', '.join(grid)}")
    units = layout.units or {}
    pieces = tuple(
        Piece(
            field=field,
            array=arrays[field.source],
            where=f"{container.path}: {field.source}",
            axes=axes,
            shape=shape,
            grid=grid,
            grid_shape=grid_shape,
            unit=units.get(field.name) or field.unit or arrays[field.source].unit or "1",
        )
        for field, axes, shape in named
    )
    schema = schema_of(container, layout, pieces, length)
    count = length.get(SAMPLE, 1)
    return Reading(
        container=container,
        layout=layout,
        schema=schema,
        pieces=pieces,
        indices=_indices(container, layout, arrays, count),
    )


def _arrays(container: Container, layout: Layout) -> dict[str, SourceArray]:
    """The arrays that the fields need.

    Raises:
        InputError: one is missing, or is not of numbers.
    """
    faults, found = [], {}
    for field in layout.fields:
        where = f"{container.path}: {field.source}"
        array = container.arrays.get(field.source)
        if field.source in container.refused:
            faults.append(
                Fault(where=where, value=container.refused[field.source], expected="an array in the file itself")
            )
        elif array is None:
            near = nearest(field.source, container.arrays)
            there = listing(container) or "no array"
            faults.append(Fault(where=where, value="not there", expected=f"one of its arrays: {there}", advice=near))
        elif array.values.dtype.kind not in "biuf":
            sort, advice = _SORTS.get(array.values.dtype.kind, ("text", ""))
            value = f"{sort} (type {array.values.dtype})"
            faults.append(Fault(where=where, value=value, expected="real numbers or booleans", advice=advice))
        else:
            found[field.source] = array
        if array is not None and field.channels is not None and array is found.get(field.source):
            faults += _channel_faults(where, field, layout, array)
    for option, name in [("--unit", one) for one in layout.units or {}] + [
        ("--axes", one) for one in layout.axes_of or {}
    ]:
        if name not in {field.name for field in layout.fields}:
            names = [field.name for field in layout.fields]
            faults.append(
                Fault(
                    where=option,
                    value=f'for a field "{name}"',
                    expected=f"one of {', '.join(names)}",
                    advice=nearest(name, names),
                )
            )
    if faults:
        raise InputError(faults)
    return found


def _channel_faults(where: str, field: FieldLayout, layout: Layout, array: SourceArray) -> list[Fault]:
    axes = field.axes or layout.axes or array.axes or ()
    shape = array.values.shape
    if CHANNEL not in axes or len(axes) != len(shape):
        return [Fault(where=where, value=f"along {', '.join(axes)}", expected="a channel axis, as --channels says")] * (
            len(axes) == len(shape)
        )
    count = math.prod(length for axis, length in zip(axes, shape, strict=True) if axis == CHANNEL)
    outside = [str(number) for number in field.channels or () if not 0 <= number < count]
    return (
        [Fault(where=where, value=f"asked for channel {outside[0]}", expected=f"0 to {count - 1}")] if outside else []
    )


def _indices(container: Container, layout: Layout, arrays: Mapping[str, SourceArray], count: int) -> np.ndarray:
    if layout.index is None:
        return np.arange(count, dtype=np.int64)
    array = container.arrays.get(layout.index.strip("/"))
    if array is None or array.values.shape != (count,) or array.values.dtype.kind not in "iu":
        value = "not there" if array is None else str(array)
        raise InputError.single(f"{container.path}: {layout.index}", value, f"{count} integers, one for each sample")
    indices = whole(array.values, f"{container.path}: {layout.index}").astype(np.int64)
    if indices.min() < 0 or len(np.unique(indices)) < count:
        raise InputError.single(f"{container.path}: {layout.index}", "negative or repeated", "distinct indices from 0")
    return indices
