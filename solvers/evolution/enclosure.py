"""The box that an incompressible flow is in, its surfaces, and the numbers of its equation."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float64

Sides = Literal["periodic", "walls", "through"]
"""The first and the last cells of the first axis: joined, beside walls, or where the flow comes in and goes out."""


Lids = Literal["periodic", "walls"]
"""Those of the second axis."""


class Surface(Protocol):
    """The wall of an obstacle that does not fit the cells. It is smooth, and no sharper than two cells."""

    def distance(
        self, x: Float64[np.ndarray, "*points"], y: Float64[np.ndarray, "*points"]
    ) -> Float64[np.ndarray, "*points"]:
        """To it; negative inside of the obstacle."""
        ...


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """The box that a flow is in, and what holds on its boundary.

    Attributes:
        shape: cells along each axis.
        spacing: side of a cell, in the unit of length.
        sides: see `Sides`. With `through`, the velocity of `inflow` comes in at the left; at the right the traction
            ν ∂u/∂x - p n is 0, or ½ (u · n) u where the flow comes back in.
        lids: see `Lids`.
        lid_speed: of the upper wall, along the first axis.
        inflow: the means of the velocity over the faces on the left.
        temperatures: of the lower and the upper wall; None where there is no heat.
        surfaces: of the obstacles that cut through cells, two cells from each other and the boundary. Those that are in
            the mask alone fit the cells.
    """

    shape: tuple[int, int]
    spacing: float
    sides: Sides = "walls"
    lids: Lids = "walls"
    lid_speed: float = 0.0
    inflow: Float64[np.ndarray, " ny"] | None = None
    temperatures: tuple[float, float] | None = None
    surfaces: tuple[Surface, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """The numbers of u_t + ∇·(u ⊗ u) = -∇p + ν Δu + β T e_y, T_t + ∇·(u T) = κ ΔT.

    Attributes:
        viscosity: ν.
        diffusivity: κ.
        buoyancy: β.
    """

    viscosity: float
    diffusivity: float = 0.0
    buoyancy: float = 0.0
