"""The Helmholtz equation with a random wave number: symmetric and indefinite."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float, Float32, Float64
from pydantic import Field, model_validator

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.problem import AbstractProblem, as_generator
from headrace.solvers.random_inputs.random_fields import Gaussian, LengthScale, Smoothness
from headrace.solvers.systems.arrays import NO_PARAMETERS, checked, representable, require_names, with_boundary
from headrace.solvers.systems.operators import DiffusionOperator
from headrace.solvers.systems.system import LinearSystem, Structure

_LEAST_POINTS_PER_WAVELENGTH = 6.0


class Helmholtz(AbstractProblem):
    """The Helmholtz equation -Δu - k(x)² u = f on the unit square, u = 0 or ∂u/∂n = 0 on the boundary.

    * `dirichlet`: u = 0. The grid has `resolution` nodes a side, the boundary included; the unknowns are the
      (resolution - 2)² interior ones.
    * `neumann`: ∂u/∂n = 0. The grid has `resolution` cells a side, all of them unknowns.

    Both are five-point schemes of second order. The wave number is k = k₀ (1 + c g / √(1 + g²)) with a Gaussian field
    g: it stays within k₀ (1 ± c), so that the points per wavelength 2π / (k h) are known beforehand. Fewer than 6 are
    refused: the numerical wave would have another length. The phase error also adds up over the domain, so that many
    wavelengths need 10 or more each. Of a constant k, the matrix has a negative eigenvalue for every Laplace eigenvalue
    below k², and is singular only if k hits a resonance exactly.

    The stored inputs are wave number and source, the output is the pressure u; all is dimensionless.

    Good values: levels `low`, `medium`, `high` set k₀ to 4, 12 and 40 (0.6, 2 and 6 wavelengths a side). With the
    default contrast the last needs at least 47 points a side; 65 to 129 are good.

    Attributes:
        boundary: which condition holds on all of the boundary.
        resolution: nodes or cells of the grid along each axis.
        wave_number: k₀, around which the wave number varies; 2π is one wave a side.
        contrast: c; the wave number stays within k₀ (1 ± c).
        length_scale: correlation length of g as a fraction of the side.
        smoothness: the Matérn ν of g, which is differentiable ⌈ν⌉ - 1 times.
        source: how the source f is drawn.

    Example:
        >>> problem = Helmholtz(resolution=129).at_level("high")
        >>> system = problem.discretize(problem.draw(0))
    """

    sorted_by: ClassVar[str | None] = "wave_number"

    kind: Literal["helmholtz"] = "helmholtz"
    boundary: Literal["dirichlet", "neumann"] = "dirichlet"
    resolution: Annotated[int, Field(ge=5, le=8193)] = 65
    wave_number: Annotated[float, Field(ge=0.0, le=1e4)] = 12.0
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    length_scale: LengthScale = 0.2
    smoothness: Smoothness = 1.5
    source: Gaussian = Gaussian(length_scale=0.1, smoothness=2.5)

    @model_validator(mode="after")
    def _has_a_solution(self) -> Self:
        if self.source.std == 0.0:
            raise ValueError("the source has the standard deviation 0: u = 0 in all samples; expected a positive std")
        if self.boundary == "neumann" and self.wave_number == 0.0:
            raise ValueError(_NO_WAVE)
        self._require_points(self.wave_number * (1.0 + self.contrast))
        return self

    @property
    def _spacing(self) -> float:
        return 1.0 / (self.resolution if self.boundary == "neumann" else self.resolution - 1)

    def _require_points(self, largest: float) -> None:
        """Refuse a wave that the grid does not resolve."""
        # Single precision may have rounded the largest value up.
        if largest * self._spacing * _LEAST_POINTS_PER_WAVELENGTH <= 2.0 * math.pi * (1.0 + 1e-6):
            return
        points = 2.0 * math.pi / (largest * self._spacing)
        needed = math.ceil(largest * _LEAST_POINTS_PER_WAVELENGTH / (2.0 * math.pi)) + (self.boundary == "dirichlet")
        raise ValueError(
            f"a wave number of {largest:g} has {points:.1f} points a wavelength at resolution {self.resolution}, "
            f"expected at least {_LEAST_POINTS_PER_WAVELENGTH:g}. Take a resolution of {needed} or more, or a smaller "
            f"wave number"
        )

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractProblem
        """Input channels `wave_number` and `source`; one output channel, `pressure`."""
        return SampleSchema(
            inputs=(FieldSpec(name="wave_number"), FieldSpec(name="source")),
            outputs=(FieldSpec(name="pressure"),),
            domain=Grid(
                shape=(self.resolution,) * 2,
                extent=(1.0, 1.0),
                periodic=(False, False),
                location="cells" if self.boundary == "neumann" else "nodes",
            ),
        )

    @property
    def structure(self) -> Structure:
        """Symmetric, not definite."""
        return Structure(symmetric=True, diffusion=2)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`low`, `medium` and `high` wave number."""
        return {"low": {"wave_number": 4.0}, "medium": {"wave_number": 12.0}, "high": {"wave_number": 40.0}}

    def draw(self, seed: int | np.random.Generator) -> dict[str, Float64[np.ndarray, "points points"]]:
        """Draw `wave_number` and `source` at the points of the grid."""
        rng, n = as_generator(seed), self.resolution
        points: Literal["nodes", "cells"] = "cells" if self.boundary == "neumann" else "nodes"
        g = Gaussian(length_scale=self.length_scale, smoothness=self.smoothness).draw(rng, n, points=points)
        wave_number = self.wave_number * (1.0 + self.contrast * (g / np.sqrt(1.0 + g * g)))
        source = self.source.draw(rng, n, points=points)
        return {"wave_number": representable(wave_number), "source": representable(source)}

    def discretize(self, fields: Mapping[str, Float[np.ndarray, "points points"]]) -> LinearSystem:
        """The five-point system of a wave-number field and a source.

        Args:
            fields: `wave_number`, k at the points, not negative; `source`, f at the points.

        Raises:
            ValueError: an array is missing, unknown, misshapen or not finite, a wave number is negative or not resolved
                by the grid, or all are 0 and the boundary is Neumann's.
        """
        require_names(fields, ["wave_number", "source"])
        n, h = self.resolution, self._spacing
        cells = self.boundary == "neumann"
        where = "cells a side" if cells else "nodes a side, boundary included"
        k = checked("wave_number", fields["wave_number"], (n, n), where)
        f = checked("source", fields["source"], (n, n), where)
        if k.min() < 0.0:
            raise ValueError(f"wave_number has the value {k.min():g}, expected values of 0 or more")
        if cells and k.max() == 0.0:
            raise ValueError(_NO_WAVE)
        self._require_points(float(k.max()))
        if cells:
            faces_x, faces_y = np.ones((n + 1, n)), np.ones((n, n + 1))
            faces_x[[0, -1]] = 0.0
            faces_y[:, [0, -1]] = 0.0
        else:
            faces_x, faces_y = np.ones((n - 1, n - 2)), np.ones((n - 2, n - 1))
            k, f = k[1:-1, 1:-1], f[1:-1, 1:-1]
        # Both sides are multiplied by h², the area of a cell: all conductances are 1.
        operator = DiffusionOperator(conductances=(faces_x, faces_y), reaction=-((h * k) ** 2))
        return LinearSystem.from_operator(operator, (h * h * f).ravel(), positive_definite=False, feature=k)

    def sample_arrays(
        self, fields: Mapping[str, Float[np.ndarray, "points points"]], solution: Float[np.ndarray, " unknowns"]
    ) -> tuple[
        Float32[np.ndarray, "2 points points"], Float32[np.ndarray, "1 1 points points"], Float32[np.ndarray, " 0"]
    ]:
        """Wave number, source and pressure, the latter with its zeros on a Dirichlet boundary."""
        n = self.resolution
        inputs = np.stack([fields["wave_number"], fields["source"]], dtype=np.float32, casting="same_kind")
        if self.boundary == "neumann":
            return inputs, solution.astype(np.float32).reshape(1, 1, n, n), NO_PARAMETERS
        return inputs, with_boundary(solution, n), NO_PARAMETERS


_NO_WAVE = (
    "a wave number of 0 with ∂u/∂n = 0 on the boundary leaves -Δu = f, whose solution is not unique and exists only "
    "for balanced sources; expected a positive wave number, or boundary dirichlet. The problem poisson solves that "
    "equation"
)
