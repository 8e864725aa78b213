"""Darcy flow: steady diffusion through a random permeability."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import AfterValidator, Field

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal
from headrace.solvers.systems.arrays import NO_PARAMETERS, checked, require_names, require_positive, with_boundary
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.system import LinearSystem, Structure

LEVELS: dict[str, dict[str, dict[str, Any]]] = {
    "log_normal": {
        "smooth": {"permeability": {"length_scale": 0.3, "smoothness": 2.5, "log_std": 0.5}},
        "medium": {"permeability": {"length_scale": 0.2, "smoothness": 1.5, "log_std": 1.0}},
        "rough": {"permeability": {"length_scale": 0.1, "smoothness": 1.5, "log_std": 1.5}},
        "two_phase": {"permeability": {"kind": "two_phase"}},
    },
    "two_phase": {
        "smooth": {"permeability": {"length_scale": 0.3, "smoothness": 2.5, "low": 3.0, "high": 12.0}},
        "medium": {"permeability": {"length_scale": 0.2, "smoothness": 1.5, "low": 3.0, "high": 12.0}},
        "rough": {"permeability": {"length_scale": 0.1, "smoothness": 1.5, "low": 1.0, "high": 100.0}},
    },
}


def not_zero(value: float) -> float:
    """Refuse a constant source whose solution is 0."""
    if value == 0.0:
        raise ValueError("a source of 0 with u = 0 on the boundary gives u = 0 everywhere; expected another number")
    return value


Source = Annotated[float, AfterValidator(not_zero)]


class Darcy(AbstractProblem):
    """Darcy flow -∇·(a ∇u) = f on the unit square, u = 0 on the boundary.

    The grid has `resolution` points a side, the boundary included; the unknowns are the (resolution - 2)² interior
    points. Permeability a and pressure u live at the points. The flux through the face between two points takes the
    harmonic mean of their permeabilities, and every interior point owns a cell of area h²: the scheme conserves mass to
    rounding, also across jumps of a, and is of second order where a is smooth.

    The stored input is the permeability itself (not its logarithm), the output the pressure; all is dimensionless.

    Good values: resolution 32 to 257; levels `smooth`, `medium`, `rough`. Of a log-normal permeability they raise the
    contrast (values spread over factors of about 10, 100, 1000) and shorten the correlation (0.3, 0.2, 0.1), and
    `two_phase` is a fourth; of a two-phase permeability they end at contrast 100. A level overrides these fields and
    leaves the others.

    Attributes:
        resolution: points of the grid along each axis, boundary included.
        permeability: how the permeability a is drawn.
        source: the source f, the same everywhere.

    Example:
        >>> problem = Darcy(resolution=65, permeability={"kind": "two_phase", "low": 1, "high": 50})
        >>> system = problem.discretize(problem.draw(0))
    """

    sorted_by: ClassVar[str | None] = "permeability"

    kind: Literal["darcy"] = "darcy"
    resolution: Annotated[int, Field(ge=5, le=8193)] = 65
    permeability: AnyPermeability = LogNormal()
    source: Source = 1.0

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """One input channel, `permeability`; one output channel, `pressure`."""
        n = self.resolution
        return SampleSchema(
            inputs=(FieldSpec(name="permeability"),),
            outputs=(FieldSpec(name="pressure"),),
            domain=Grid(shape=(n, n), extent=(1.0, 1.0), periodic=(False, False)),
        )

    @property
    def structure(self) -> Structure:
        """Symmetric positive definite."""
        return Structure(symmetric=True, positive_definite=True, diffusion=2)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `rough` of the configured kind of permeability, and `two_phase`."""
        return LEVELS[self.permeability.kind]

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "points points"]]:
        """Draw `permeability` at the points of the grid."""
        return {"permeability": self.permeability.draw(as_generator(seed), self.resolution)}

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "points points"]]) -> LinearSystem:
        """The finite-volume system of a permeability field.

        Args:
            fields: `permeability` at the points, positive; optionally `source`, f at the points, in place of the
                problem's own constant.

        Raises:
            ValueError: an array is missing, unknown, misshapen, not finite, or the permeability is not positive.
        """
        require_names(fields, ["permeability"], ["source"])
        n = self.resolution
        a = checked("permeability", fields["permeability"], (n, n))
        require_positive("permeability", a)
        # Numba takes seconds to import: those who discretise nothing do not wait for it.
        from headrace.solvers.systems.harmonic_kernels import harmonic_2d

        conductances = np.empty((n - 1, n - 2)), np.empty((n - 2, n - 1))
        harmonic_2d(a, *conductances)
        # Both sides are multiplied by h², the area of a cell: conductances are permeabilities, whatever the grid.
        area = (n - 1.0) ** -2
        if "source" in fields:
            rhs = area * checked("source", fields["source"], (n, n))[1:-1, 1:-1].ravel()
        else:
            rhs = np.full((n - 2) ** 2, area * self.source)
        return LinearSystem.from_operator(DiffusionOperator(conductances=conductances), rhs, feature=a)

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "points points"]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "1 points points"], Float32[np.ndarray, "1 1 points points"], Float32[np.ndarray, " 0"]
    ]:
        """Permeability and pressure, the latter with its zeros on the boundary."""
        inputs = fields["permeability"].astype(np.float32)[np.newaxis]
        return inputs, with_boundary(solution, self.resolution), NO_PARAMETERS
