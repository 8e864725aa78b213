"""Darcy flow in three dimensions."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import Field

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.problems.darcy import LEVELS, Source
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal
from headrace.solvers.systems.arrays import NO_PARAMETERS, checked, require_names, require_positive, with_boundary
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.system import LinearSystem, Structure


class Darcy3D(AbstractProblem):
    """Darcy flow -∇·(a ∇u) = f on the unit cube, u = 0 on the boundary.

    The scheme of `Darcy` with one axis more: `resolution` points a side, the boundary included; the unknowns are the
    (resolution - 2)³ interior points; the flux through the face between two points takes the harmonic mean of their
    permeabilities. It conserves mass to rounding, and is of second order where a is smooth.

    The stored input is the permeability itself, the output the pressure; all is dimensionless.

    Good values: resolution 17 to 129; levels as those of `Darcy`. A sample at 129 points a side is 17 MB.

    Attributes:
        resolution: points of the grid along each axis, boundary included.
        permeability: how the permeability a is drawn.
        source: the source f, the same everywhere.

    Example:
        >>> problem = Darcy3D(resolution=33)
        >>> system = problem.discretize(problem.draw(0))
    """

    sorted_by: ClassVar[str | None] = "permeability"

    kind: Literal["darcy_3d"] = "darcy_3d"
    resolution: Annotated[int, Field(ge=5, le=513)] = 33
    permeability: AnyPermeability = LogNormal()
    source: Source = 1.0

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """One input channel, `permeability`; one output channel, `pressure`."""
        return SampleSchema(
            inputs=(FieldSpec(name="permeability"),),
            outputs=(FieldSpec(name="pressure"),),
            domain=Grid(shape=(self.resolution,) * 3, extent=(1.0,) * 3, periodic=(False,) * 3),
        )

    @property
    def structure(self) -> Structure:
        """Symmetric positive definite."""
        return Structure(symmetric=True, positive_definite=True, diffusion=3)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough` of the configured kind of permeability, and `two_phase`."""
        return LEVELS[self.permeability.kind]

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "points points points"]]:
        """Draw `permeability` at the points of the grid."""
        return {"permeability": self.permeability.draw(as_generator(seed), self.resolution, ndim=3)}

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "points points points"]]) -> LinearSystem:
        """The finite-volume system of a permeability field.

        Args:
            fields: `permeability` at the points, positive; optionally `source`, f at the points, in place of the
                problem's own constant.

        Raises:
            ValueError: an array is missing, unknown, misshapen, not finite, or the permeability is not positive.
        """
        require_names(fields, ["permeability"], ["source"])
        n = self.resolution
        a = checked("permeability", fields["permeability"], (n, n, n))
        require_positive("permeability", a)
        # Numba takes seconds to import: those who discretise nothing do not wait for it.
        from headrace.solvers.systems.harmonic_kernels import harmonic_3d

        conductances = tuple(np.empty(tuple(n - 2 + (k == axis) for k in range(3))) for axis in range(3))
        harmonic_3d(a, *conductances)
        # Both sides are multiplied by h², a cell's volume over h: conductances are permeabilities, whatever the grid.
        scale = (n - 1.0) ** -2
        if "source" in fields:
            rhs = scale * checked("source", fields["source"], (n, n, n))[1:-1, 1:-1, 1:-1].ravel()
        else:
            rhs = np.full((n - 2) ** 3, scale * self.source)
        return LinearSystem.from_operator(DiffusionOperator(conductances=conductances), rhs, feature=a)

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "points points points"]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "1 points points points"],
        Float32[np.ndarray, "1 1 points points points"],
        Float32[np.ndarray, " 0"],
    ]:
        """Permeability and pressure, the latter with its zeros on the boundary."""
        inputs = fields["permeability"].astype(np.float32)[np.newaxis]
        return inputs, with_boundary(solution, self.resolution, ndim=3), NO_PARAMETERS
