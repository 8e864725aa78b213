"""AbstractConservationLaw: u_t + ∇·F(u) = 0 on cells, by limited finite volumes and SSPRK3."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.solvers.evolution.batched import AbstractBatchedEvolution
from headrace.solvers.evolution.cells import AbstractCells, Limiter
from headrace.solvers.evolution.evolution import Draw, Snapshot

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.riemann import AbstractRiemann


class AbstractConservationLaw(AbstractCells, AbstractBatchedEvolution):
    """u_t + ∇·F(u) = 0 on a box of cells: an equation is its primitive fields and a Riemann solver.

    The grid has `resolution` cells along each axis; cell i has its centre at (i + ½) length / resolution. What is
    stepped are the means over cells of the conserved quantities; fields are given and shown as the primitive ones that
    those means amount to, as depth and velocity. The first field of `state` is a density of mass, the second the
    velocity.

    The slopes within cells are limited: where the solution is smooth the scheme is of second order in space, at shocks
    and contacts of first order. No step is longer than `cfl` allows, whatever the `step` that is asked for.

    At a `wall` flow is reflected; through an `outflow` boundary waves leave, nearly without an echo.

    Attributes:
        resolution: cells of the output grid along each axis.
        length: of the box, the same along all axes.
        dim: number of axes.
        boundary: on all sides of the box.
        limiter: of the slopes: `minmod` smears the most, `mc` the least.
        cfl: the part of a cell that the fastest waves of all axes together may cross in a step. Strong waves need ½ or
            less to stay physical; above 1 no step is stable.
    """

    integrator: ClassVar[str] = "SSPRK3"
    sets_its_steps: ClassVar[bool] = True
    positive: ClassVar[tuple[str, ...]]
    """The fields that have to stay above 0."""

    limiter: Limiter = "van_leer"
    cfl: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5

    @abstractmethod
    def riemann(self, scalars: "Mapping[str, Tensor]") -> "AbstractRiemann":
        """The equation for a batch.

        Args:
            scalars: the numbers by name, each shaped "batch *ones" to broadcast with one component.
        """

    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times; see `finite_volume.follow_conservation_law`."""
        # torch takes a second to import: those who solve nothing do not wait for it.
        from headrace.solvers.evolution.finite_volume import follow_conservation_law

        return follow_conservation_law(self, draws, step)

    def require_physical(self, fields: Mapping[str, Float64[np.ndarray, "components *grid"]], remedy: str) -> None:
        """Raise `ValueError`, with the remedy, unless the fields are finite and those of `positive` above 0."""
        for name, field in fields.items():
            low, high = float(field.min()), float(field.max())
            least = 0.0 if name in self.positive else -np.inf
            if not (low > least and high < np.inf):
                expected = "finite and above 0" if name in self.positive else "finite"
                raise ValueError(f"a {name} that is {expected}, got {low:g} to {high:g}; {remedy}")
