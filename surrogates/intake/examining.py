"""Examining: whether all numbers of a file can be used, and what it was understood to be, in words."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from headrace.platform.errors import Fault, InputError
from headrace.platform.fields import Grid, SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.intake.arrays import Container
from headrace.surrogates.intake.layout import Layout, grid_axes
from headrace.surrogates.intake.piece import Piece, as_float32
from headrace.surrogates.intake.reading import Reading


@dataclass(frozen=True, kw_only=True)
class FieldLine:
    """What a field was understood to be: one line of the table that `headrace import` prints.

    Attributes:
        name: of the field.
        role: input, output, state (both) or parameter.
        array: where it stands in the file.
        shape: by axis: `sample 100, time 20, x 64`.
        components: how many numbers a point has, or a sample's parameter.
        unit: of the values.
        smallest: of all values.
        largest: of all values.
    """

    name: str
    role: str
    array: str
    shape: str
    components: int
    unit: str
    smallest: float
    largest: float


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What one file, or several that make one data set, were understood to be.

    Attributes:
        files: their names.
        fields: one line each.
        grid: each axis in words.
        times: in words.
        sets: the number of samples of each data set that they become.
        notes: what else a user should know.
    """

    files: tuple[str, ...]
    fields: tuple[FieldLine, ...]
    grid: str
    times: str
    sets: dict[str, int]
    notes: tuple[str, ...]


@dataclass
class _Found:
    count: int = 0
    first: str = ""
    smallest: float = np.inf
    largest: float = -np.inf
    largest_in_file: float = 0.0

    def add(self, axes: Sequence[str], values: np.ndarray, start: int) -> None:
        stored = as_float32(values)
        finite = np.isfinite(stored)
        if not finite.all():
            if not self.count:
                self.first = _place(axes, values, finite, start)
            self.count += int((~finite).sum())
            stored = stored[finite]
        if stored.size:
            self.smallest = min(self.smallest, float(stored.min()))
            self.largest = max(self.largest, float(stored.max()))
        if values.dtype == np.float64 and not self.count:
            self.largest_in_file = max(self.largest_in_file, float(np.abs(values).max(initial=0.0)))


@runtime_checkable
class Intake(Protocol):
    """A file that is understood: its samples can be counted, looked at and read."""

    @property
    def container(self) -> Container:
        """The file."""
        ...

    @property
    def layout(self) -> Layout:
        """How it is read."""
        ...

    @property
    def schema(self) -> SampleSchema:
        """What the samples look like."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...

    def batches(self) -> Iterator[SampleBatch]:
        """All samples, a few at a time."""
        ...


def examine(readings: Sequence[Intake], sets: dict[str, int], notes: Sequence[str] = ()) -> Understood:
    """Look at all values once.

    Args:
        readings: of one or several files of one schema.
        sets: the number of samples of each data set that they become.
        notes: what else a user should know.

    Raises:
        InputError: numbers are not finite as float32, or the files differ in their schema.
    """
    faults: list[Fault] = []
    first = readings[0]
    for reading in readings[1:]:
        faults += _differences(first, reading)
    if faults:
        raise InputError(faults)
    lines: list[FieldLine] = []
    for reading in readings:
        found, wrong = _lines(reading) if isinstance(reading, Reading) else _complete_lines(reading)
        faults += wrong
        lines = [_joined(a, b) for a, b in zip(lines, found, strict=True)] if lines else found
    if faults:
        raise InputError(faults)
    states = isinstance(first, Reading) and any(piece.field.role == "state" for piece in first.pieces)
    return Understood(
        files=tuple(reading.container.path.name for reading in readings),
        fields=tuple(lines),
        grid=_grid(first),
        times=_times(first.schema.times, states),
        sets=sets,
        notes=(*dict.fromkeys(note for reading in readings for note in reading.container.notes), *notes),
    )


def _lines(reading: Reading) -> tuple[list[FieldLine], list[Fault]]:
    lines, faults = [], []
    for piece in reading.pieces:
        found = _examined(piece, len(reading))
        faults += _faults(piece.where, found)
        lines.append(
            FieldLine(
                name=piece.field.name,
                role=piece.field.role,
                array=piece.field.source,
                shape=piece.shape_in_words,
                components=piece.num_components,
                unit=piece.unit,
                smallest=found.smallest,
                largest=found.largest,
            )
        )
    return lines, faults


def _complete_lines(reading: Intake) -> tuple[list[FieldLine], list[Fault]]:
    """The lines of a file that holds samples as they are stored."""
    schema, grid = reading.schema, reading.schema.domain.shape
    axes = [f"{axis} {n}" for axis, n in zip(grid_axes(len(grid)), grid, strict=True)]
    axes = axes if isinstance(schema.domain, Grid) else [f"points {grid[0]}"]
    rows = [f"sample {len(reading)}"]
    parts = {
        "input": ("inputs", schema.inputs, [*rows, *axes], 1),
        "output": ("outputs", schema.outputs, [*rows, f"time {len(schema.times)}", *axes], 2),
        "parameter": ("parameters", schema.parameters, rows, 1),
    }
    found = {(role, spec.name): _Found() for role, (_, specs, _, _) in parts.items() for spec in specs}
    first = 0
    for batch in reading.batches():
        for role, (array, specs, _, axis) in parts.items():
            values, start = getattr(batch, array), 0
            for spec in specs:
                own = np.take(values, range(start, start + spec.components), axis=axis)
                names = ("sample", *(["time"] if role == "output" else []), "channel", *grid_axes(len(grid)))
                found[role, spec.name].add(names[: own.ndim], own, first)
                start += spec.components
        first += len(batch)
    lines, faults = [], []
    for role, (array, specs, shape, _) in parts.items():
        for spec in specs:
            one = found[role, spec.name]
            faults += _faults(f"{reading.container.path}: {array} ({spec.name})", one)
            lines.append(
                FieldLine(
                    name=spec.name,
                    role=role,
                    array=array,
                    shape=", ".join(shape),
                    components=spec.components,
                    unit=spec.unit,
                    smallest=one.smallest,
                    largest=one.largest,
                )
            )
    return lines, faults


def _faults(where: str, found: _Found) -> list[Fault]:
    if found.count:
        value = f"not finite in float32 at {found.count} places, first in {found.first}"
        return [Fault(where=where, value=value, expected="finite numbers", advice="Leave such samples out.")]
    if found.largest_in_file and found.largest == found.smallest == 0.0:
        value = f"at most {found.largest_in_file:.3g}, which is 0 in float32"
        return [Fault(where=where, value=value, expected="numbers of 1e-38 or more", advice="Give it in another unit.")]
    return []


def _joined(one: FieldLine, other: FieldLine) -> FieldLine:
    smallest, largest = min(one.smallest, other.smallest), max(one.largest, other.largest)
    return dataclasses.replace(one, smallest=smallest, largest=largest)


def _examined(piece: Piece, count: int) -> _Found:
    found = _Found()
    step = piece.rows_at_a_time
    for start in range(0, count, step):
        values = piece.raw(start, min(start + step, count))
        found.add(piece.axes, _chosen(piece, values), start)
    return found


def _chosen(piece: Piece, values: np.ndarray) -> np.ndarray:
    """The values of the field's own channels; the others are nobody's concern."""
    if piece.field.channels is None or piece.axes.count("channel") != 1:
        return values
    return np.take(values, piece.field.channels, axis=piece.axes.index("channel"))


def _place(axes: Sequence[str], values: np.ndarray, finite: np.ndarray, start: int) -> str:
    """Where the first value stands that is not finite, and what it is: `sample 5, x 2, y 2 (nan)`."""
    where = np.unravel_index(int(np.argmin(finite)), finite.shape)
    value = values[where]
    numbers = [int(number) + (start if axis == "sample" else 0) for axis, number in zip(axes, where, strict=True)]
    words = ", ".join(f"{axis} {number}" for axis, number in zip(axes, numbers, strict=True)) or "it"
    return f"{words} ({value:g})"


def _differences(first: Intake, other: Intake) -> list[Fault]:
    if first.schema == other.schema:
        return []
    a, b = first.schema.to_json(), other.schema.to_json()
    key = next(key for key in a if a[key] != b[key])
    return [
        Fault(
            where=f"{other.container.path}: {key}",
            value=str(b[key]),
            expected=f"{a[key]}, as in {first.container.path.name}, since both become one data set",
        )
    ]


def _grid(reading: Intake) -> str:
    domain = reading.schema.domain
    if not isinstance(domain, Grid):
        return str(domain)
    names = reading.pieces[0].grid if isinstance(reading, Reading) else grid_axes(len(domain.shape))
    axes = zip(names, domain.shape, domain.extent, domain.periodic, strict=True)
    words = [f"{axis} {n} over {length:g}{', periodic' if wraps else ''}" for axis, n, length, wraps in axes]
    place = "" if all(domain.periodic) else f"; values {'in cells' if domain.location == 'cells' else 'at nodes'}"
    return "; ".join(words) + place


def _times(times: tuple[float, ...], follow: bool) -> str:
    if len(times) == 1:
        return f"one output, at time {times[0]:g}" if follow or times[0] else "steady"
    return f"{len(times)} outputs, at times {times[0]:g} to {times[-1]:g}"
