"""The schema of a file's samples: fields, grid and times, of what the file and the user say."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from headrace.platform.errors import Fault, InputError, nearest
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.surrogates.intake.arrays import Container, whole
from headrace.surrogates.intake.axes import listing
from headrace.surrogates.intake.coordinates import axes_of_grid
from headrace.surrogates.intake.layout import TIME, Layout
from headrace.surrogates.intake.piece import Piece


def schema_of(container: Container, layout: Layout, pieces: Sequence[Piece], length: Mapping[str, int]) -> SampleSchema:
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
    values = whole(array.values, f"{container.path}: {name}").astype(np.float64)
    rows = values.reshape(-1, values.shape[-1]) if values.ndim > 1 and values.shape[-1] > 1 else values.reshape(1, -1)
    if (rows != rows[0]).any():
        raise InputError.single(
            f"{container.path}: {name}", "different from sample to sample", "times that all samples share"
        )
    return tuple(rows[0].tolist())
