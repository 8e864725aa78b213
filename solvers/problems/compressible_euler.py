"""The compressible Euler equations of an ideal gas."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.conservation import AbstractConservationLaw
from headrace.solvers.evolution.semilinear import Side
from headrace.solvers.random_inputs.parameters import Scalar, require_between
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.riemann import GasRiemann


class CompressibleEuler(AbstractConservationLaw):
    """The compressible Euler equations of an ideal gas, in one or two dimensions: density, velocity, pressure; shocks.

    ρ_t + ∇·(ρ u) = 0,  (ρ u)_t + ∇·(ρ u ⊗ u) + ∇p = 0,  E_t + ∇·((E + p) u) = 0,  E = p / (γ - 1) + ½ ρ |u|²

    Cell i has its centre at (i + ½) length / resolution. Inputs and outputs are `density`, `velocity`, which has as
    many components as there are axes, and `pressure`, all dimensionless; the parameter is γ. Density and pressure must
    stay positive: there is no vacuum.

    At time 0 density and pressure are the typical ones times e^s, each with a random field s, `variation`, and the
    velocity is a random field, `flow`. For `start: two_states` the box falls into two parts, where a field s is above
    0 and where it is not, and density, velocity and pressure are constant in each: a Riemann problem at every border.
    Densities and pressures are then up to `contrast` times more or less than the typical ones, with uniform logarithms,
    and velocities have the standard deviation of `flow`.

    Good values: density, pressure and length 1, horizon 0.2 to 0.5 with 128 to 1024 cells in one dimension, 64 to 256
    in two; sound travels √(γ p / ρ), about 1.2. Levels: `smooth`, `steep` with waves that soon break, and `riemann`,
    which starts from two states.

    Attributes:
        resolution: cells of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        boundary: `periodic`, `wall` or `outflow`, on all sides.
        limiter: of the slopes within cells: `minmod` smears the most, `mc` the least.
        cfl: the part of a cell that the fastest waves may cross in a step; above 1 no step is stable.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        gamma: γ, the ratio of specific heats; above 1 and at most 10.
        density: the typical density, dimensionless.
        pressure: the typical pressure, dimensionless.
        start: what is drawn at time 0: `smooth` fields, or `two_states` with a jump between them.
        variation: how the field s of the smooth start is drawn, in lengths of the box.
        flow: how every component of the velocity is drawn, in lengths of the box.
        contrast: how many times more or less than the typical ones the two densities and pressures may be; at least 1.
    """

    positive: ClassVar[tuple[str, ...]] = ("density", "pressure")

    kind: Literal["compressible_euler"] = "compressible_euler"
    resolution: Side = 256
    horizon: PositiveFloat = 0.4
    gamma: Scalar = 1.4
    density: PositiveFloat = 1.0
    pressure: PositiveFloat = 1.0
    start: Literal["smooth", "two_states"] = "smooth"
    variation: Gaussian = Gaussian(std=0.2, smoothness=2.5)
    flow: Gaussian = Gaussian(std=0.3, smoothness=2.5)
    contrast: Annotated[float, Field(ge=1.0, le=1e6)] = 4.0

    @model_validator(mode="after")
    def _above_one(self) -> Self:
        require_between(self.scalars, ["gamma"], 1.0, 10.0)
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`density`, `velocity` and `pressure`."""
        return (FieldSpec(name="density"), FieldSpec(name="velocity", components=self.dim), FieldSpec(name="pressure"))

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The ratio of specific heats."""
        return {"gamma": self.gamma}

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `steep` and `riemann`."""
        return {
            "smooth": {"start": "smooth", "variation": {"std": 0.1}, "flow": {"std": 0.1}},
            "steep": {"start": "smooth", "variation": {"std": 0.4}, "flow": {"std": 0.6}},
            "riemann": {"start": "two_states"},
        }

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw density, velocity and pressure."""
        fields = self._smooth(rng) if self.start == "smooth" else self._two_states(rng)
        self.require_physical(fields, "lower variation.std or contrast")
        return fields

    def riemann(self, scalars: "Mapping[str, Tensor]") -> "GasRiemann":
        """Of density, velocity and pressure."""
        from headrace.solvers.evolution.riemann import GasRiemann

        return GasRiemann(gamma=scalars["gamma"])

    def _smooth(self, rng: np.random.Generator) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        log_density, log_pressure = (self.random_field(rng, self.variation)[np.newaxis] for _ in range(2))
        with np.errstate(over="ignore", under="ignore"):  # what leaves the range of numbers is refused by the caller
            return {
                "density": self.density * np.exp(log_density),
                "velocity": np.stack([self.random_field(rng, self.flow) for _ in range(self.dim)]),
                "pressure": self.pressure * np.exp(log_pressure),
            }

    def _two_states(self, rng: np.random.Generator) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        is_first = self.random_field(rng, self.variation) > 0.0
        widest = math.log(self.contrast)

        def spread(*sides: float) -> Float64[np.ndarray, "*grid"]:
            return np.where(is_first, *sides)

        densities = self.density * np.exp(rng.uniform(-widest, widest, size=2))
        pressures = self.pressure * np.exp(rng.uniform(-widest, widest, size=2))
        velocities = self.flow.std * rng.standard_normal((self.dim, 2))
        return {
            "density": spread(*densities)[np.newaxis],
            "velocity": np.stack([spread(*sides) for sides in velocities]),
            "pressure": spread(*pressures)[np.newaxis],
        }
