"""AbstractEvolution: a time-dependent equation, drawn at random and followed to its output times."""

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Self

import numpy as np
from jaxtyping import Float64, Int64
from pydantic import Field, PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.samplers.sampler import Axis
from headrace.solvers.random_inputs.parameters import Scalar, as_fields, axes, drawn
from headrace.solvers.sampled import AbstractSampled

# Values of a state that are worth solving together: beyond it a batch leaves the cache, and loses.
_BATCH_VALUES = 2**16
# Before so many of the output times a step is done again as two halves.
_LOOKS = 4


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What one sample starts from.

    Attributes:
        scalars: the numbers of its equation, by name.
        fields: its fields at time 0, by name: those of the state, then those that do not change.
    """

    scalars: Mapping[str, float]
    fields: Mapping[str, Float64[np.ndarray, "components *grid"]]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A batch at one output time.

    Attributes:
        state: on the solver's own grid; of a sample that blew up not finite.
        defect: for each sample, by how much a step changes when it is done again as two half steps, relative to the
            state; NaN where that was not looked at.
        num_steps: time steps of each sample since the start.
        reasons: by row, why a sample is not finite, where the equation knows.
    """

    state: Float64[np.ndarray, "batch components *grid"]
    defect: Float64[np.ndarray, " batch"]
    num_steps: Int64[np.ndarray, " batch"]
    reasons: Mapping[int, str] = field(default_factory=dict)


class AbstractEvolution(AbstractSampled):
    """A time-dependent equation on a grid: what is drawn, how it is stepped, and which times are wanted.

    A sample's inputs are its fields at time 0, those that change (`state`) and those that do not (`constants`); its
    outputs are the state at `times`; its parameters are the scalars of the equation. Equal generators draw the same
    fields on every grid.

    A concrete equation carries `kind: Literal["name"] = "name"`.

    Attributes:
        horizon: the last time that is followed, from 0.
        snapshots: how many output times there are, evenly up to the horizon; or the times themselves.
        integrator: the name of the time integrator.
        sets_its_steps: whether the solution decides how long a step is, as by a CFL number; the `step` that is asked
            for is then an upper bound that rarely matters.
        restarts_within: by how much, relative to the state, an interval comes out otherwise when it starts from a
            stored state: rounding, where the state is all that the solver holds; more where that lives elsewhere on
            the grid, or on a finer one.
    """

    made_by: ClassVar[str] = "trajectories"
    heeds: ClassVar[frozenset[str]] = frozenset(
        {"data.accuracy", "data.numerics", "data.numerics.step", "data.times_per_part"}
    )
    solves_by_itself: ClassVar[tuple[str, str]] = (
        "an equation in time is followed by its own integrator",
        "Grid and step are in data.numerics.",
    )

    integrator: ClassVar[str]
    sets_its_steps: ClassVar[bool] = False
    restarts_within: ClassVar[float] = 1e-5

    horizon: PositiveFloat = 1.0
    snapshots: Annotated[int, Field(ge=1, le=10_000)] | tuple[PositiveFloat, ...] = 10

    @model_validator(mode="after")
    def _times_within_the_horizon(self) -> Self:
        times = self.times
        if not times:
            raise ValueError("at least one output time in snapshots")
        for earlier, later in itertools.pairwise((0.0, *times)):
            if later <= earlier:
                raise ValueError(f"output times that increase in snapshots, got {later:g} after {earlier:g}")
        if times[-1] > self.horizon:
            raise ValueError(
                f"output times up to the horizon, {self.horizon:g}, in snapshots, got {times[-1]:g}; raise the horizon"
            )
        return self

    @property
    def times(self) -> tuple[float, ...]:
        """The output times, increasing; the start is not among them."""
        if isinstance(self.snapshots, tuple):
            return self.snapshots
        return tuple(self.horizon * (number / self.snapshots) for number in range(1, self.snapshots + 1))

    @property
    def shortest_interval(self) -> float:
        """Between two output times, or time 0 and the first."""
        return min(later - earlier for earlier, later in itertools.pairwise((0.0, *self.times)))

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """Where the outputs live."""

    @property
    @abstractmethod
    def state(self) -> tuple[FieldSpec, ...]:
        """The fields that change in time."""

    @property
    def constants(self) -> tuple[FieldSpec, ...]:
        """The fields that are given and do not change."""
        return ()

    @property
    @abstractmethod
    def scalars(self) -> Mapping[str, Scalar]:
        """The numbers of the equation by name, in the order of a sample's parameters."""

    @property
    @abstractmethod
    def default_step(self) -> float:
        """A time step that works on the configured grid, when no accuracy is asked for."""

    def cautious(self) -> Self:
        """The same with half the time step, where it sets its steps itself; else as it is."""
        return self

    @property
    def batch_size(self) -> int:
        """How many samples are best solved together."""
        values = int(np.prod(self.grid.shape)) * sum(spec.components for spec in self.state)
        return max(1, min(256, _BATCH_VALUES // values))

    def unrefinable(self) -> str | None:
        """Every equation in time can be followed on a finer grid."""
        return None

    @abstractmethod
    def refined(self, refinement: int) -> Self:
        """The same equation with so many times the points along each axis."""

    @abstractmethod
    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """What fields on the grid of `refined(refinement)` are on this one's."""

    @abstractmethod
    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw the fields of `state` and `constants` at time 0.

        Raises:
            ValueError: what was drawn is outside what the equation allows.
        """

    @abstractmethod
    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times, one after the other. What a sample comes to does not depend on the others.

        Args:
            draws: at least one.
            step: the largest time step; every interval between outputs is divided evenly, or as the waves allow.
        """

    @property
    def choosable(self) -> Mapping[str, Axis]:
        """The scalars that are drawn between bounds."""
        return axes(self.scalars)

    def draw(self, rng: np.random.Generator, chosen: Mapping[str, float] | None = None) -> Draw:
        """Draw the scalars and the fields at time 0 of one sample.

        Args:
            rng: draws.
            chosen: scalars that are given, of those that are `choosable`.

        Raises:
            ValueError: what was drawn is outside what the equation allows.
        """
        scalars = drawn(self.scalars, rng, chosen)
        return Draw(scalars=scalars, fields=self.initial(rng, scalars))

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractSampled
        """State and constants in, the state at the output times out."""
        return SampleSchema(
            inputs=(*self.state, *self.constants),
            outputs=self.state,
            parameters=as_fields(self.scalars),
            domain=self.grid,
            times=self.times,
        )


def looked_at(num_times: int) -> frozenset[int]:
    """Before which output times a step is done again as two halves: a few, evenly spread, the last one among them."""
    return frozenset(max(0, round((number + 1) * num_times / _LOOKS) - 1) for number in range(_LOOKS))
