"""AbstractCells: an equation on the cells of a box, by finite volumes whose waves set the steps."""

from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveFloat

from headrace.platform.fields import Grid
from headrace.solvers.evolution.evolution import AbstractEvolution
from headrace.solvers.evolution.semilinear import Side
from headrace.solvers.random_inputs.random_fields import Gaussian

Boundary = Literal["periodic", "wall", "outflow"]


Limiter = Literal["minmod", "van_leer", "mc"]


class AbstractCells(AbstractEvolution):
    """An equation on a box of cells; cell i has its centre at (i + ½) length / resolution.

    What is stepped are means over cells. No step is longer than `cfl` allows, whatever the `step` that is asked for.

    Attributes:
        resolution: cells of the output grid along each axis.
        length: of the box, the same along all axes.
        dim: number of axes.
        boundary: on all sides of the box.
        cfl: the part of a cell that the fastest waves of all axes together may cross in a step.
    """

    integrator: ClassVar[str] = "SSPRK3"
    sets_its_steps: ClassVar[bool] = True

    resolution: Side = 128
    length: PositiveFloat = 1.0
    dim: Literal[1, 2] = 1
    boundary: Boundary = "periodic"
    cfl: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5

    @property
    def grid(self) -> Grid:
        """The cells of the box."""
        axes, wraps = self.dim, self.boundary == "periodic"
        return Grid(
            shape=(self.resolution,) * axes, extent=(self.length,) * axes, periodic=(wraps,) * axes, location="cells"
        )

    @property
    def default_step(self) -> float:
        """The shortest interval between outputs: the waves set the steps, and need no help."""
        return self.shortest_interval

    def cautious(self) -> Self:
        """The same with half the CFL number."""
        return self.overridden({"cfl": self.cfl / 2.0})

    def refined(self, refinement: int) -> Self:
        """The same equation with so many times the cells along each axis."""
        return self if refinement == 1 else self.overridden({"resolution": refinement * self.resolution})

    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """The means over the cells that make up a coarse one.

        Of a density the mean keeps what there is of it. The mean of a velocity or a pressure is not the one that the
        mean momentum and energy amount to; where fields are smooth the two differ in second order.
        """
        if refinement == 1:
            return fields
        blocks = [part for n in fields.shape[-self.dim :] for part in (n // refinement, refinement)]
        within = (-1, -3)[: self.dim]
        return np.asarray(fields.reshape(*fields.shape[: -self.dim], *blocks).mean(axis=within))

    def random_field(self, rng: np.random.Generator, gaussian: Gaussian) -> Float64[np.ndarray, "*grid"]:
        """A Gaussian field at the centres of the cells, periodic where the box is."""
        if self.boundary != "periodic":
            return gaussian.draw(rng, self.resolution, points="cells", ndim=self.dim)
        # Points of a periodic field lie at i / n: every other one of twice as many is a cell's centre.
        field = gaussian.draw(rng, 2 * self.resolution, points="periodic", ndim=self.dim)
        return np.ascontiguousarray(field[(slice(1, None, 2),) * self.dim])
