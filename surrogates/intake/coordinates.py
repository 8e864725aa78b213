"""What the coordinates of a file say of its grid: lengths, and whether values stand at nodes or in cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headrace.platform.errors import InputError, nearest
from headrace.surrogates.intake.arrays import Container, whole
from headrace.surrogates.intake.layout import Layout

_EVEN = 1e-3  # of a spacing: coordinates are often stored in single precision


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Evenly spaced coordinates: `num_points` from `first` on, or the edges of as many cells."""

    num_points: int
    first: float
    spacing: float
    digits: int
    is_edges: bool

    @property
    def location(self) -> Literal["nodes", "cells"] | None:
        """Where values stand if an axis that does not wrap begins at 0; None when it begins elsewhere."""
        if self.is_edges or abs(self.first - self.spacing / 2) < _EVEN * self.spacing:
            return "cells"
        return "nodes" if abs(self.first) < _EVEN * self.spacing else None

    def extent(self, wraps: bool, location: Literal["nodes", "cells"] | None) -> float:
        """The length of the axis."""
        count = self.num_points if wraps or location == "cells" else self.num_points - 1
        return float(f"{count * self.spacing:.{self.digits}g}")


def axes_of_grid(container: Container, layout: Layout, grid: Sequence[str], shape: Sequence[int]) -> list[Axis] | None:
    """The coordinates along each grid axis; None when the file has none.

    They are those that the layout names, or arrays that are called like the axes and are given along them.

    Raises:
        InputError: one is not there, or they are not evenly spaced.
    """
    names = layout.coordinates
    if names is None:
        own = [container.arrays.get(axis) for axis in grid]
        if not all(array is not None and array.axes == (axis,) for axis, array in zip(grid, own, strict=True)):
            return None
        names = tuple(grid)
    if len(names) != len(grid):
        raise InputError.single(
            f"{container.path}: coordinates", ", ".join(names), f"one array for each grid axis ({', '.join(grid)})"
        )
    return [_axis(container, name, count) for name, count in zip(names, shape, strict=True)]


def _axis(container: Container, name: str, count: int) -> Axis:
    array = container.arrays.get(name.strip("/"))
    where = f"{container.path}: {name}"
    if array is None or array.values.dtype.kind not in "iuf":
        value = "not there" if array is None else f"of type {array.values.dtype}"
        raise InputError.single(where, value, "coordinates along a grid axis", nearest(name, container.arrays))
    values = whole(array.values, where).astype(np.float64)
    rows = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(1, -1)
    advice = "Give --extent and --location in their place."
    if (rows != rows[0]).any():
        raise InputError.single(where, "different from sample to sample", "coordinates that all share", advice)
    row = rows[0]
    if len(row) not in (count, count + 1) or count < 2:
        raise InputError.single(where, f"{len(row)} numbers", f"{count}, as the axis is long", advice)
    spacing = (row[-1] - row[0]) / (len(row) - 1)
    if not np.isfinite(row).all() or spacing <= 0 or np.abs(np.diff(row) - spacing).max() > _EVEN * spacing:
        raise InputError.single(where, "not evenly spaced and ascending", "the coordinates of a uniform grid", advice)
    return Axis(
        num_points=count,
        first=float(row[0]),
        spacing=float(spacing),
        digits=6 if array.values.dtype.itemsize <= 4 else 12,
        is_edges=len(row) == count + 1,
    )
