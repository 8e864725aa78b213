"""What a finite-element problem is written with: functions of the plane, boundary values, and forms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64

from headrace.platform.errors import InputError
from headrace.solvers.finite_elements.planar import Points

if TYPE_CHECKING:
    import dolfinx
    import ufl

type OnPoints = Callable[[Points], Float[np.ndarray, "points ..."]]
"""A function of the plane: it takes points and returns a value, or a row of components, for each."""
type Values = Float64[np.ndarray, "..."] | OnPoints
type FieldValues = Mapping[str, Float[np.ndarray, "..."] | OnPoints]
type BoundaryValue = float | str | tuple[float | None, ...] | OnPoints
"""What is imposed on a boundary: a number, the name of an input, a number for each component (None leaves that one
free), or a function of the points."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Weak:
    """What a form is written with.

    Attributes:
        u: the trial function.
        v: the test function.
        inputs: the inputs by name, as functions of the unknown's degree.
        parameters: the parameters by name, as constants: scalars, or vectors if they have components.
        x: the coordinates.
        normal: the outward unit normal of the boundary.
        dx: the measure of the inside.
    """

    u: "ufl.Argument"
    v: "ufl.Argument"
    inputs: Mapping[str, "dolfinx.fem.Function"]
    parameters: Mapping[str, "dolfinx.fem.Constant"]
    x: "ufl.SpatialCoordinate"
    normal: "ufl.FacetNormal"
    dx: "ufl.Measure"
    _ds: "ufl.Measure"
    _tags: Mapping[str, int]
    _where: str

    def ds(self, *names: str) -> "ufl.Measure":
        """The measure of some boundaries together.

        Raises:
            InputError: there is no such boundary.
        """
        for name in names:
            if name not in self._tags:
                raise InputError.single(
                    "boundary", f'"{name}"', f"one of {', '.join(self._tags)}, those of {self._where}"
                )
        return self._ds(tuple(self._tags[name] for name in names))

    def constant(self, *values: float) -> "dolfinx.fem.Constant":
        """A number, or a vector, that belongs to the spec: as a constant it does not enter the compiled code."""
        from dolfinx import fem

        return fem.Constant(self.u.ufl_function_space().mesh, values[0] if len(values) == 1 else np.array(values))
