"""Which axis of an array is which: its names, checked against its shape and the other arrays."""

import math
from collections.abc import Mapping, Sequence

from headrace.platform.errors import Fault, InputError
from headrace.surrogates.intake.arrays import Container, SourceArray
from headrace.surrogates.intake.layout import CHANNEL, SAMPLE, SPECIAL, TIME, FieldLayout, Layout

MEANING = "sample, time, channel, and one name for each grid axis"


def listing(container: Container) -> str:
    """The arrays of a file in words: `a float32 (100, 32, 32), ...`."""
    arrays = [f"{name} {array}" for name, array in list(container.arrays.items())[:20]]
    more = len(container.arrays) - len(arrays)
    return ", ".join(arrays) + (f" and {more} more" if more > 0 else "")


def axes_of(container: Container, layout: Layout, field: FieldLayout, array: SourceArray) -> tuple[str, ...]:
    """The axes of a field's array.

    Raises:
        InputError: they are not said, or do not fit its shape.
    """
    shape = array.values.shape
    where = f"{container.path}: {field.source}"
    if field.axes is not None:
        return _checked(where, field, field.axes, shape)
    said_for_all = _of_layout(layout.axes, field, len(shape))
    if said_for_all is not None:
        return _checked(where, field, said_for_all, shape)
    if layout.axes is None and array.axes is not None and (SAMPLE in array.axes or field.role == "parameter"):
        return _checked(where, field, array.axes, shape)
    if field.role == "parameter" and math.prod(shape) == 1:
        return ()
    named = f"; the file calls its axes {', '.join(array.axes)}" if array.axes else ""
    said = f", and --axes {','.join(layout.axes)} names {len(layout.axes)}" if layout.axes else ""
    raise InputError.single(
        where,
        f"of shape {shape}{named}{said}",
        f"what each axis is ({MEANING})",
        f"Give --axes {field.name}={_example(field, shape)}, in the order that is right.",
    )


def lengths(container: Container, pieces: Sequence[tuple[FieldLayout, tuple[str, ...], tuple[int, ...]]]) -> dict:
    """The length of each axis but the channels'.

    Args:
        container: the file.
        pieces: the fields with their axes and shapes.

    Raises:
        InputError: two arrays differ in one, or one is 0.
    """
    found: dict[str, int] = {}
    owner: dict[str, str] = {}
    faults = []
    for field, axes, shape in pieces:
        for axis, length in zip(axes, shape, strict=True):
            where = f"{container.path}: {field.source}"
            if length == 0:
                faults.append(
                    Fault(where=where, value=f"of length 0 along {axis}: {shape}", expected="at least one entry")
                )
            elif axis == CHANNEL or axis == TIME and field.role == "parameter":
                continue
            elif axis == TIME and field.role == "input":
                if length > 1:
                    advice = f"Is it --state {field.name}, whose later times are the output?"
                    value = f"given at {length} times"
                    faults.append(Fault(where=where, value=value, expected="an input at one time", advice=advice))
            elif found.setdefault(axis, length) != length:
                if axis == TIME and {length, found[axis]} == {max(length, found[axis]), max(length, found[axis]) - 1}:
                    # Outputs may lack the first time, which a state has.
                    found[axis] = max(length, found[axis])
                    continue
                value = f"of length {length} along {axis}"
                faults.append(Fault(where=where, value=value, expected=f"{found[axis]}, as {owner[axis]} has"))
            owner.setdefault(axis, field.source)
    if faults:
        raise InputError(faults)
    return found


def grid_of(
    container: Container, layout: Layout, pieces: Sequence[tuple[FieldLayout, tuple[str, ...], tuple[int, ...]]]
) -> tuple[str, ...]:
    """The grid axes in order.

    Raises:
        InputError: there is none, or a field has one that the layout lacks.
    """
    found = [tuple(axis for axis in axes if axis not in SPECIAL) for field, axes, _ in pieces]
    grid = layout.grid or max(found, key=len, default=())
    if not grid:
        value = f"without a grid axis: {', '.join(f'{field.source} {axes}' for field, axes, _ in pieces)}"
        raise InputError.single(str(container.path), value, "fields on a grid of one axis or more")
    for (field, _, _), axes in zip(pieces, found, strict=True):
        for axis in axes:
            if axis not in grid:
                raise InputError.single(
                    f"{container.path}: {field.source}",
                    f"given along an axis {axis}",
                    f"the grid axes {', '.join(grid)}, as the other fields have",
                )
    return grid


def _of_layout(axes: tuple[str, ...] | None, field: FieldLayout, ndim: int) -> tuple[str, ...] | None:
    """The layout's axes for an array; a parameter has neither time nor grid."""
    if axes is None:
        return None
    if field.role == "parameter":
        axes = tuple(axis for axis in axes if axis in (SAMPLE, CHANNEL))
        if len(axes) > ndim and SAMPLE in axes:
            axes = (SAMPLE,)
    return axes if len(axes) == ndim else None


def _checked(where: str, field: FieldLayout, axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    twice = sorted({axis for axis in axes if axes.count(axis) > 1 and axis != CHANNEL})
    if twice:
        raise InputError.single(where, f"with two axes {twice[0]}: {', '.join(axes)}", "each axis once")
    if field.role == "parameter" and len(axes) < len(shape) and math.prod(shape) == max(shape, default=1):
        return axes  # a vector with axes of length 1, as MATLAB writes them
    if len(axes) != len(shape):
        raise InputError.single(
            where,
            f"of shape {shape}",
            f"{len(axes)} axes ({', '.join(axes) or 'a number'})",
            f"Give --axes {field.name}={_example(field, shape)}, in the order that is right.",
        )
    if field.role == "parameter" and any(axis not in SPECIAL for axis in axes):
        raise InputError.single(
            where, f"a parameter along {', '.join(axes)}", "no grid axis", f"Is it --input {field.name}?"
        )
    return axes


def _example(field: FieldLayout, shape: tuple[int, ...]) -> str:
    """One way in which the axes could be named, to be put right by the user."""
    if field.role == "parameter":
        return ",".join((SAMPLE, CHANNEL)[: len(shape)])
    names = [SAMPLE]
    if field.role == "state":
        names.append(TIME)
    spare = len(shape) - len(names)
    if spare > 3:
        names.append(CHANNEL)
    return ",".join([*names, *("x", "y", "z", "w")[: len(shape) - len(names)]][: len(shape)])


def squeezed(shape: tuple[int, ...], axes: Mapping | Sequence) -> tuple[int, ...]:
    """A shape without axes of length 1, as many as its names lack."""
    kept = list(shape)
    while len(kept) > len(axes) and 1 in kept:
        kept.reverse()
        kept.remove(1)
        kept.reverse()
    return tuple(kept)
