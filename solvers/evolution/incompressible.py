"""AbstractIncompressible: flow without compression on a staggered grid, projected in every stage of RK4."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.platform.fields import FieldSpec, Grid
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Snapshot

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


class AbstractIncompressible(AbstractEvolution):
    """u_t + ∇·(u ⊗ u) = -∇p + ν Δu, ∇·u = 0 on a box of square cells: an equation is its enclosure and its numbers.

    Velocities are stepped as means over the faces of the cells (Harlow and Welch 1965, Physics of Fluids 8), with
    central differences of second order that keep the kinetic energy, so that a coarse grid is inaccurate but stable.
    After every stage of the classical Runge-Kutta method the velocity is projected, so the order in time is 4
    (Sanderse and Koren 2012, J. Comput. Phys. 231) and the divergence that of rounding. No step is longer than `cfl`
    allows, whatever the `step` that is asked for.

    Fields are shown at the centres of the cells. The velocity there is the mean of the two faces; that of a start is
    brought to the faces by means again, and projected. The pressure follows from the velocity: the one at time 0 is
    given as 0 and not used.

    Attributes:
        resolution: cells along the second axis (the first one of a box that is longer has more).
        cfl: the part of the longest stable step that is taken.
    """

    integrator: ClassVar[str] = "RK4 with a projection in every stage"
    sets_its_steps: ClassVar[bool] = True

    resolution: Annotated[int, Field(ge=8, le=4096)] = 64
    cfl: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9

    @property
    @abstractmethod
    def enclosure(self) -> Enclosure:
        """The box and its boundary."""

    @abstractmethod
    def coefficients(self, scalars: Mapping[str, float]) -> Coefficients:
        """The numbers of the equation for a sample."""

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`velocity` and `pressure`."""
        return (FieldSpec(name="velocity", components=2), FieldSpec(name="pressure"))

    @property
    def grid(self) -> Grid:
        """The cells of the box."""
        box = self.enclosure
        return Grid(
            shape=box.shape,
            extent=(box.shape[0] * box.spacing, box.shape[1] * box.spacing),
            periodic=(box.sides == "periodic", box.lids == "periodic"),
            location="cells",
        )

    @property
    def default_step(self) -> float:
        """The shortest interval between outputs: the flow sets the steps, and needs no help."""
        return self.shortest_interval

    @property
    def batch_size(self) -> int:
        """One: a sample alone keeps a core busy, and its obstacles are its own."""
        return 1

    def cautious(self) -> Self:
        """The same with half the steps."""
        return self.overridden({"cfl": self.cfl / 2.0})

    def refined(self, refinement: int) -> Self:
        """The same equation with so many times the cells along each axis."""
        return self if refinement == 1 else self.overridden({"resolution": refinement * self.resolution})

    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """The means over the cells that make up a coarse one."""
        if refinement == 1:
            return fields
        nx, ny = (n // refinement for n in fields.shape[-2:])
        blocks = fields.reshape(*fields.shape[:-2], nx, refinement, ny, refinement)
        return np.asarray(blocks.mean(axis=(-3, -1)))

    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times; see `staggered.follow`."""
        # Numba takes a second to import: those who solve nothing do not wait for it.
        from headrace.solvers.evolution.staggered import follow

        return follow(self, draws, step)
