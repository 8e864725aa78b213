"""Rayleigh-Bénard convection: a fluid heated from below."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.enclosure import Coefficients, Enclosure
from headrace.solvers.evolution.incompressible import AbstractIncompressible
from headrace.solvers.evolution.semilinear import log_levels
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, require_between
from headrace.solvers.random_inputs.random_fields import Gaussian


class RayleighBenard(AbstractIncompressible):
    """Rayleigh-Bénard convection of a Boussinesq fluid between two plates, periodic along them.

    u_t + ∇·(u ⊗ u) = -∇p + √(Pr / Ra) Δu + T e_y,  T_t + ∇·(u T) = ΔT / √(Ra Pr),  ∇·u = 0

    The unit of length is the distance of the plates, that of temperature their difference, and that of velocity the
    one of free fall, √(g α ΔT H): times are in H over it. The plates hold T = ½, below, and -½, above; nothing slips
    there. Inputs and outputs are `velocity`, `temperature` and `pressure`, whose mean is 0; the parameters are Ra and
    Pr. At time 0 the fluid is at rest and conducts, T = ½ - y, but for a random perturbation that vanishes on the
    plates. Below Ra = 1707.76 it goes back to that.

    Good values: 32 cells between the plates up to Ra 10⁵, 64 up to 10⁶, 128 up to 10⁷; horizon 50 to 100 with a
    perturbation of 0.05: convection sets in within some 10 to 20. Levels: Ra `low` 3·10³ to 3·10⁴, `medium` up to
    3·10⁵, `high` up to 3·10⁶.

    Attributes:
        resolution: cells of the output grid between the plates.
        length: of the plates, over their distance; a whole number of cells.
        cfl: the part of the longest stable step that is taken.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        rayleigh: Rayleigh number Ra, a number, or drawn from a range; positive.
        prandtl: Prandtl number Pr, a number, or drawn from a range; positive.
        start: the perturbation of the temperature, in lengths of the longer side.
    """

    kind: Literal["rayleigh_benard"] = "rayleigh_benard"
    resolution: Annotated[int, Field(ge=8, le=4096)] = 64
    length: PositiveFloat = 2.0
    horizon: PositiveFloat = 50.0
    snapshots: Annotated[int, Field(ge=1, le=10_000)] | tuple[PositiveFloat, ...] = 50
    rayleigh: Scalar = Uniform(low=1e4, high=1e6, scale="log")
    prandtl: Scalar = 0.71
    start: Gaussian = Gaussian(std=0.05, smoothness=2.5)

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        require_between(self.scalars, ["rayleigh", "prandtl"], 0.0)
        across = self.length * self.resolution
        if round(across) < 8 or abs(across - round(across)) > 1e-6 * across:
            raise ValueError(
                f"a length of at least 8 whole cells of 1 / resolution = {1.0 / self.resolution:g}, got "
                f"{self.length:g}, which is {across:g} cells; change the length or the resolution"
            )
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`velocity`, `temperature` and `pressure`."""
        return (
            FieldSpec(name="velocity", components=2),
            FieldSpec(name="temperature"),
            FieldSpec(name="pressure"),
        )

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The numbers of Rayleigh and Prandtl."""
        return {"rayleigh": self.rayleigh, "prandtl": self.prandtl}

    @property
    def enclosure(self) -> Enclosure:
        """The layer between the plates."""
        return Enclosure(
            shape=(round(self.length * self.resolution), self.resolution),
            spacing=1.0 / self.resolution,
            sides="periodic",
            temperatures=(0.5, -0.5),
        )

    def coefficients(self, scalars: Mapping[str, float]) -> Coefficients:
        """ν = √(Pr / Ra), κ = 1 / √(Ra Pr), β = 1."""
        rayleigh, prandtl = scalars["rayleigh"], scalars["prandtl"]
        return Coefficients(
            viscosity=math.sqrt(prandtl / rayleigh), diffusivity=1.0 / math.sqrt(rayleigh * prandtl), buoyancy=1.0
        )

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`low`, `medium` and `high`."""
        return log_levels("rayleigh", {"low": (3e3, 3e4), "medium": (3e4, 3e5), "high": (3e5, 3e6)})

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Conduction, and a random field times sin π y, so that it fits the plates."""
        nx, ny = self.enclosure.shape
        longer = max(nx, ny)
        # Points of a periodic field lie at i / n: every other one of twice as many is a cell's centre.
        field = self.start.draw(rng, 2 * longer, points="periodic")[1 : 2 * nx : 2, 1 : 2 * ny : 2]
        y = self.grid.coordinates()[1]
        temperature = 0.5 - y + field * np.sin(np.pi * y)
        return {
            "velocity": np.zeros((2, nx, ny)),
            "temperature": temperature[np.newaxis],
            "pressure": np.zeros((1, nx, ny)),
        }
