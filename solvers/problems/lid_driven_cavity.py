"""Incompressible flow in a square cavity whose lid moves."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveFloat

from headrace.solvers.evolution.enclosure import Coefficients, Enclosure
from headrace.solvers.evolution.semilinear import log_levels
from headrace.solvers.problems.walled_flow import AbstractWalledFlow


class LidDrivenCavity(AbstractWalledFlow):
    """Flow in the unit square, driven by its lid.

    u_t + ∇·(u ⊗ u) = -∇p + Δu / Re, ∇·u = 0

    The upper wall moves to the right with velocity 1 from time 0 on, when the fluid is at rest; the others stand. With
    the side, 1, Re = 1 · 1 / ν. Inputs are `velocity` and `pressure` at time 0, both 0, `mask`, 1 everywhere, and
    `signed_distance`, from the nearest wall: the fields of `flow_past_obstacles`. Outputs are `velocity` and
    `pressure`, whose mean is 0; the parameter is Re.

    Good values: 64 cells a side up to Re 400, 128 up to 3200 (Ghia, Ghia and Shin 1982 took 128 there). The lid's
    velocity jumps in two corners, beside which no grid converges. Levels: Re `low` 100 to 400, `medium` 400 to 1000,
    `high` 1000 to 3200.

    Attributes:
        resolution: cells of the output grid along each axis.
        cfl: the part of the longest stable step that is taken.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        reynolds: Reynolds number Re, a number, or drawn from a range; positive.
    """

    kind: Literal["lid_driven_cavity"] = "lid_driven_cavity"
    horizon: PositiveFloat = 8.0
    snapshots: Annotated[int, Field(ge=1, le=10_000)] | tuple[PositiveFloat, ...] = 20

    @property
    def enclosure(self) -> Enclosure:
        """The cavity."""
        n = self.resolution
        return Enclosure(shape=(n, n), spacing=1.0 / n, sides="walls", lids="walls", lid_speed=1.0)

    def coefficients(self, scalars: Mapping[str, float]) -> Coefficients:
        """ν = 1 / Re."""
        return Coefficients(viscosity=1.0 / scalars["reynolds"])

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`low`, `medium` and `high`."""
        return log_levels("reynolds", {"low": (100.0, 400.0), "medium": (400.0, 1000.0), "high": (1000.0, 3200.0)})

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Rest."""
        x, y = np.meshgrid(*self.grid.coordinates(), indexing="ij")
        distance = np.minimum(np.minimum(x, 1.0 - x), np.minimum(y, 1.0 - y))
        return {
            "velocity": np.zeros((2, *x.shape)),
            "pressure": np.zeros((1, *x.shape)),
            "mask": np.ones((1, *x.shape)),
            "signed_distance": distance[np.newaxis],
        }
