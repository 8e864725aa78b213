"""AbstractSemilinear: u_t = L u + N(u) on a periodic box, by Fourier series in space and ETDRK4 in time."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec, Grid
from headrace.solvers.evolution.batched import AbstractBatchedEvolution
from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.evolution import Draw, Snapshot
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, require_between
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox

Side = Annotated[int, Field(ge=8, le=8192)]


class AbstractSemilinear(AbstractBatchedEvolution):
    """u_t = L u + N(u) on a periodic box: an equation is the symbol of L and the nonlinear term N.

    The grid has `resolution` points along each axis, at i / resolution of the side `length`. Products are taken at the
    points; the waves that they falsify are left out (`degree`). Outputs are the values of the Fourier series at the
    points, whatever grid it was solved on.

    Attributes:
        resolution: points of the output grid along each axis.
        length: of the box, the same along all axes.
        dim: number of axes.
        start: how every component of the state is drawn at time 0, in lengths of the box.
        degree: how many fields N multiplies; 1 without products.
        numbers: the names of the scalars; each is a field of the spec.
        positive: those of them that have to stay above 0.
    """

    integrator: ClassVar[str] = "ETDRK4"
    degree: ClassVar[int] = 2
    numbers: ClassVar[tuple[str, ...]] = ()
    positive: ClassVar[tuple[str, ...]] = ()

    resolution: Side = 64
    length: PositiveFloat = 1.0
    dim: Literal[1, 2, 3] = 1
    start: Gaussian = Gaussian(smoothness=2.5)

    @model_validator(mode="after")
    def _positive_scalars(self) -> Self:
        require_between(self.scalars, self.positive, 0.0)
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`u`."""
        return (FieldSpec(name="u"),)

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """Those of `numbers`."""
        return {name: getattr(self, name) for name in self.numbers}

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw every component of the state, one after the other."""
        draw = self.start.draw
        return {
            spec.name: np.stack(
                [draw(rng, self.resolution, points="periodic", ndim=self.dim) for _ in range(spec.components)]
            )
            for spec in self.state
        }

    @abstractmethod
    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """The equation for a batch.

        Args:
            box: its wave numbers and transforms.
            scalars: the numbers by name, each shaped "batch 1 *ones" to broadcast with a spectrum.
        """

    @property
    def grid(self) -> Grid:
        """The points of the box."""
        axes = self.dim
        return Grid(shape=(self.resolution,) * axes, extent=(self.length,) * axes, periodic=(True,) * axes)

    def refined(self, refinement: int) -> Self:
        """The same equation with so many times the points along each axis."""
        return self if refinement == 1 else self.overridden({"resolution": refinement * self.resolution})

    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """The values at the points that both grids share."""
        every = slice(None, None, refinement)
        return fields[{1: np.s_[..., every], 2: np.s_[..., every, every], 3: np.s_[..., every, every, every]}[self.dim]]

    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times; see `exponential.follow_semilinear`."""
        # torch takes a second to import: those who solve nothing do not wait for it.
        from headrace.solvers.evolution.exponential import follow_semilinear

        return follow_semilinear(self, draws, step)


def log_levels(name: str, edges: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, Any]]:
    """Levels that draw a scalar between two edges each, with uniform logarithms."""
    return {
        level: {name: Uniform(low=low, high=high, scale="log").model_dump()} for level, (low, high) in edges.items()
    }
