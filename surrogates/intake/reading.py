"""Reading: the arrays of a file as samples, a few at a time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.sample import Provenance, SampleBatch
from headrace.surrogates.intake.arrays import Container, SourceArray, whole
from headrace.surrogates.intake.axes import axes_of, grid_of, lengths, listing, squeezed
from headrace.surrogates.intake.coordinates import axes_of_grid
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, TIME, FieldLayout, Layout
from headrace.surrogates.intake.sources import source_hash

NBYTES = 32 * 1024**2  # of a field's values that are read at a time
_SORTS = {
    "c": ("complex numbers", "Give real and imaginary parts as two channels."),
    "M": ("dates", "Give numbers, in a unit that --unit names."),
    "m": ("durations", "Give numbers, in a unit that --unit names."),
    "O": ("Python objects", "Save plain arrays of numbers."),
    "V": ("records", "Give each column as an array of its own."),
}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A field, and how its array becomes (sample, time, channel, *grid).

    Attributes:
        field: what it is called and what it is for.
        array: its values.
        axes: of the array.
        shape: of the array, without the axes of length 1 that `axes` lacks.
        grid: the grid axes of a sample.
        grid_shape: their lengths.
        unit: of the values.
    """

    field: FieldLayout
    array: SourceArray
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
        return max(1, NBYTES // max(1, one))

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
        return min(len(self), *(piece.rows_at_a_time for piece in self.pieces))

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


def as_float32(values: np.ndarray) -> np.ndarray:
    """Values as they are stored."""
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite and is reported as such
        return np.asarray(values).astype(np.float32)


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
            axes=axes,
            shape=shape,
            grid=grid,
            grid_shape=grid_shape,
            unit=units.get(field.name) or field.unit or arrays[field.source].unit or "1",
        )
        for field, axes, shape in named
    )
    schema = _schema(container, layout, pieces, length)
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


def _schema(container: Container, layout: Layout, pieces: Sequence[Piece], length: Mapping[str, int]) -> SampleSchema:
    """What the samples look like.

    Raises:
        InputError: the file and the user leave something open.
    """
    if not any(piece.field.role in ("output", "state") for piece in pieces):
        raise InputError.single(
            str(container.path),
            "without an output",
            "something to learn",
            "Give --output NAME=ARRAY, or --state NAME=ARRAY.",
        )
    times = _times(container, layout, pieces, length)
    domain = _domain(container, layout, pieces[0].grid, pieces[0].grid_shape)

    def specs(*roles: str) -> tuple[FieldSpec, ...]:
        return tuple(
            FieldSpec(name=piece.field.name, components=piece.num_components, unit=piece.unit)
            for piece in pieces
            if piece.field.role in roles
        )

    return SampleSchema(
        inputs=specs("input", "state"),
        outputs=specs("output", "state"),
        parameters=specs("parameter"),
        domain=domain,
        times=times,
    )


def _domain(container: Container, layout: Layout, grid: tuple[str, ...], shape: tuple[int, ...]) -> Grid:
    """The grid.

    Raises:
        InputError: the file and the user leave something open.
    """
    faults: list[Fault] = []
    names = ",".join(grid)

    def say(what: str, value: str, expected: str, advice: str = "") -> None:
        faults.append(Fault(where=f"{container.path}: {what}", value=value, expected=expected, advice=advice))

    extent, location = layout.extent, layout.location
    periodic = grid if layout.periodic == ("all",) else layout.periodic
    if periodic is None:
        advice = f"Give --periodic {names}, or --periodic none."
        say("periodic", "not said in the file", f"which of the grid axes ({names}) wrap around", advice)
    for axis in sorted(set(periodic or ()) - set(grid)):
        say("periodic", axis, f"grid axes ({names})")
    wraps = tuple(axis in (periodic or ()) for axis in grid)
    is_open = periodic is None or not all(wraps)
    axes = None
    if extent is None or (location is None and is_open):
        axes = axes_of_grid(container, layout, grid, shape)
    if location is None and is_open:
        found = {axis.location for axis, round_ in zip(axes or (), wraps, strict=False) if not round_}
        location = found.pop() if len(found) == 1 else None
        if location is None:
            value = "not said in the file" if axes is None else "not told by the coordinates, which do not begin at 0"
            say(
                "location", value, "nodes (both ends of an axis are points) or cells", "Give --location nodes or cells."
            )
    if extent is None and axes is not None:
        extent = tuple(axis.extent(round_, location) for axis, round_ in zip(axes, wraps, strict=True))
    elif extent is None:
        advice = f"Give --extent {','.join('1' * len(grid))}."
        say("extent", "not said in the file", f"the length of each grid axis ({names})", advice)
    elif len(extent) != len(grid):
        say("extent", f"{len(extent)} numbers", f"one for each grid axis ({names})")
    if faults:
        raise InputError(faults)
    assert extent is not None
    return Grid(shape=shape, extent=extent, periodic=wraps, location=location or "nodes")


def _times(
    container: Container, layout: Layout, pieces: Sequence[Piece], length: Mapping[str, int]
) -> tuple[float, ...]:
    """The output times.

    Raises:
        InputError: they are not said, or are no times.
    """
    path = str(container.path)
    states = [piece.field for piece in pieces if piece.field.role == "state"]
    for piece in pieces:
        if piece.field.role == "state" and (TIME not in piece.axes or length[TIME] < 2):
            raise InputError.single(
                f"{path}: {piece.field.source}",
                f"a state with {piece.shape_in_words}",
                "a time axis of at least two entries: the first is the input, the later ones are the output",
            )
    count = length.get(TIME)
    given: tuple[float, ...] | None
    if isinstance(layout.times, str):
        given = _times_of(container, layout.times)
    elif layout.times is None and layout.dt is None and count is not None and _is_along(container, TIME):
        given = _times_of(container, TIME)
    elif layout.dt is not None:
        first = 0 if states else 1
        given = tuple(layout.dt * number for number in range(first, first + (count or 1)))
    else:
        given = layout.times
    if given is None:
        if count in (None, 1):
            return (0.0,)
        raise InputError.single(
            f"{path}: times",
            "not said in the file",
            f"the {count} times along the time axis",
            "Give --dt STEP, --times T0,T1,... or --times NAME of the array that holds them.",
        )
    if len(given) != (count or 1):
        raise InputError.single(f"{path}: times", f"{len(given)} numbers", f"{count or 1}, one for each time")
    if any(not math.isfinite(one) for one in given) or any(a >= b for a, b in zip(given, given[1:], strict=False)):
        raise InputError.single(f"{path}: times", ", ".join(f"{one:g}" for one in given[:5]), "ascending numbers")
    return tuple(one - given[0] if given[0] else one for one in given[1:]) if states else given


def _is_along(container: Container, axis: str) -> bool:
    """Whether the file has an array that is called like an axis and is given along it: its coordinates."""
    return axis in container.arrays and container.arrays[axis].axes == (axis,)


def _times_of(container: Container, name: str) -> tuple[float, ...]:
    array = container.arrays.get(name.strip("/"))
    if array is None or array.values.dtype.kind not in "biuf":
        value = "not there" if array is None else f"of type {array.values.dtype}"
        there = f"an array of numbers, of {listing(container)}"
        raise InputError.single(f"{container.path}: {name}", value, there, nearest(name, container.arrays))
    values = whole(array.values).astype(np.float64)
    rows = values.reshape(-1, values.shape[-1]) if values.ndim > 1 and values.shape[-1] > 1 else values.reshape(1, -1)
    if (rows != rows[0]).any():
        raise InputError.single(
            f"{container.path}: {name}", "different from sample to sample", "times that all samples share"
        )
    return tuple(rows[0].tolist())


def _indices(container: Container, layout: Layout, arrays: Mapping[str, SourceArray], count: int) -> np.ndarray:
    if layout.index is None:
        return np.arange(count, dtype=np.int64)
    array = container.arrays.get(layout.index.strip("/"))
    if array is None or array.values.shape != (count,) or array.values.dtype.kind not in "iu":
        value = "not there" if array is None else str(array)
        raise InputError.single(f"{container.path}: {layout.index}", value, f"{count} integers, one for each sample")
    indices = whole(array.values).astype(np.int64)
    if indices.min() < 0 or len(np.unique(indices)) < count:
        raise InputError.single(f"{container.path}: {layout.index}", "negative or repeated", "distinct indices from 0")
    return indices
