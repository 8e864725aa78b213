"""Heat that spreads between walls, each at a temperature of its own."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.solvers.evolution.evolution import AbstractEvolution, Draw, Snapshot
from headrace.solvers.evolution.semilinear import Side
from headrace.solvers.evolution.sine_box import SineBox
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, require_between
from headrace.solvers.random_inputs.random_fields import Gaussian
from headrace.solvers.systems.arrays import representable

_WALLS = ("west", "east", "south", "north", "bottom", "top")
_ANY_TEMPERATURE = Uniform(low=100.0, high=500.0, unit="K")


class HeatWithWalls(AbstractEvolution):
    """The heat equation T_t = κ ΔT in a box, every wall of which keeps its own temperature; one to three dimensions.

    The grid has `resolution` points along each axis, those between the walls: point i = 1, 2, ... at
    i length / (resolution + 1), and the walls at i = 0 and resolution + 1 are not among them. So the grid's extent is
    that from its first to its last point, and coordinates count from the first one. The Laplacian is of second order,
    with 2, 4 or 6 neighbours; a sine transform diagonalises it.

    The outputs are the temperature at the output times; the parameters the temperature at time 0, those of the walls
    and κ. They say all there is to know, so there are no input fields. With `variation` the start varies in space by a
    random field, and is an input, `temperature`.

    Integrators. With `exponential`, the default, every sine decays as e^{-κ λ t}: the solution of the equations at the
    points, without an error in time, and as stable as they are. Since the transform is at hand a step of any implicit
    scheme costs as much, so one of higher order would gain nothing. `implicit_euler` divides by 1 + κ λ h instead, in
    steps of h at most (of `data.numerics`; default: one from output to output). It is of first order, and there to
    repeat experiments that were made with it: its steps are as they were asked for, and nobody looks at half steps
    (`data.accuracy` would choose shorter ones). Both keep within the temperatures of start and walls.

    Case A of Meyer et al. (ICML 2023, "Training Deep Surrogate Models with Large Scale Online Learning"), scaled down,
    is `integrator: implicit_euler, snapshots: 100`, and all else as it stands: κ = 1, 32 x 32 points, steps of 0.01.

    Good values: 16 to 128 points a side; κ horizon / length² about 0.2 until little is left of the start. Levels:
    `mild` has temperatures of 250 to 350 K, `contrast` cold and hot ones on opposite walls, `slow` and `fast` draw κ
    from 0.03 to 0.3 and from 0.3 to 3 m²/s.

    Attributes:
        resolution: points of the output grid along each axis, walls left out.
        length: distance of opposite walls [m].
        dim: number of axes.
        horizon: the last output time, from 0 on [s].
        snapshots: output times [s]: how many, evenly up to the horizon, or the times themselves.
        integrator: `exponential` or `implicit_euler`.
        diffusivity: κ, a number, or drawn from a range; positive [m²/s].
        start: the temperature at time 0 [K].
        west: temperature of the wall at the low end of the first axis [K].
        east: temperature of the wall at the high end of the first axis [K].
        south: temperature of the wall at the low end of the second axis, if there is one [K].
        north: temperature of the wall at the high end of the second axis [K].
        bottom: temperature of the wall at the low end of the third axis, if there is one [K].
        top: temperature of the wall at the high end of the third axis [K].
        variation: what is added to `start` at every point, in lengths of the box [K]; none by default.
    """

    kind: Literal["heat_with_walls"] = "heat_with_walls"
    resolution: Side = 32
    length: PositiveFloat = 1.0
    dim: Literal[1, 2, 3] = 2
    integrator: Literal["exponential", "implicit_euler"] = "exponential"  # type: ignore[misc]  # here it is chosen
    diffusivity: Scalar = Uniform(low=1.0, high=1.0, unit="m²/s")
    start: Scalar = _ANY_TEMPERATURE
    west: Scalar = _ANY_TEMPERATURE
    east: Scalar = _ANY_TEMPERATURE
    south: Scalar = _ANY_TEMPERATURE
    north: Scalar = _ANY_TEMPERATURE
    bottom: Scalar = _ANY_TEMPERATURE
    top: Scalar = _ANY_TEMPERATURE
    variation: Gaussian | None = None

    @model_validator(mode="after")
    def _positive_diffusivity(self) -> Self:
        require_between({"diffusivity": self.diffusivity}, ["diffusivity"], 0.0)
        return self

    @property
    def grid(self) -> Grid:
        """The points between the walls."""
        n, axes = self.resolution, self.dim
        between = self.length * ((n - 1) / (n + 1))
        return Grid(shape=(n,) * axes, extent=(between,) * axes, periodic=(False,) * axes)

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`temperature`."""
        return (FieldSpec(name="temperature", unit="K"),)

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The temperatures of the start and of the walls that there are, and the diffusivity."""
        temperatures = {name: _in_unit(getattr(self, name), "K") for name in ("start", *_WALLS[: 2 * self.dim])}
        return {**temperatures, "diffusivity": _in_unit(self.diffusivity, "m²/s")}

    def schema(self) -> SampleSchema:  # type: ignore[override]  # as in AbstractSampled
        """The temperature at the output times out; at time 0 it is an input only where it varies in space."""
        whole = super().schema()
        return whole if self.variation is not None else dataclasses.replace(whole, inputs=())

    @property
    def default_step(self) -> float:
        """The shortest interval between outputs."""
        return self.shortest_interval

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`mild`, `contrast`, `slow` and `fast`."""
        names = ("start", *_WALLS)
        cold, hot = {"low": 100.0, "high": 200.0, "unit": "K"}, {"low": 400.0, "high": 500.0, "unit": "K"}
        return {
            "mild": {name: {"low": 250.0, "high": 350.0, "unit": "K"} for name in names},
            "contrast": {name: cold if number % 2 else hot for number, name in enumerate(_WALLS)},
            "slow": {"diffusivity": {"low": 0.03, "high": 0.3, "scale": "log", "unit": "m²/s"}},
            "fast": {"diffusivity": {"low": 0.3, "high": 3.0, "scale": "log", "unit": "m²/s"}},
        }

    def refined(self, refinement: int) -> Self:
        """The same equation at points so many times as near: those of this grid are among them."""
        return self if refinement == 1 else self.overridden({"resolution": refinement * (self.resolution + 1) - 1})

    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """The values at the points that both grids share."""
        every = slice(refinement - 1, None, refinement)
        return fields[{1: np.s_[..., every], 2: np.s_[..., every, every], 3: np.s_[..., every, every, every]}[self.dim]]

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """The temperature at time 0: the same everywhere, or that and a random field."""
        field = np.full(self.grid.shape, scalars["start"])
        if self.variation is not None:
            inside = (slice(1, -1),) * self.dim
            field += self.variation.draw(rng, self.resolution + 2, points="nodes", ndim=self.dim)[inside]
        return {"temperature": representable(field)[np.newaxis]}

    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times.

        In the space of sines every mode goes from where it starts to where the walls hold it: what is left of the
        difference is a number for each mode and time, and nothing has to be stepped.
        """
        box = SineBox(self.grid.shape, (self.length,) * self.dim)
        steady, distance = [], []
        for draw in draws:
            walls = [draw.scalars[name] for name in _WALLS[: 2 * self.dim]]
            held = (
                sum((value * wall for value, wall in zip(walls, box.walls, strict=True)), start=0.0) / box.eigenvalues
            )
            steady.append(held)
            distance.append(box.forward(draw.fields["temperature"][0]) - held)
        rates = [draw.scalars["diffusivity"] * box.eigenvalues for draw in draws]
        time, num_steps = 0.0, 0
        for later in self.times:
            interval = later - time
            # Evenly spaced times differ in their last bits, which must not cost a step.
            divisions = 1 if self.integrator == "exponential" else max(1, math.ceil(interval / step - 1e-9))
            state = np.empty((len(draws), 1, *box.shape))
            for row, rate in enumerate(rates):
                if self.integrator == "exponential":
                    distance[row] *= np.exp(-interval * rate)
                else:
                    distance[row] *= (1.0 + (interval / divisions) * rate) ** -divisions
                state[row, 0] = box.backward(steady[row] + distance[row])
            time, num_steps = later, num_steps + divisions
            yield Snapshot(state=state, defect=np.full(len(draws), np.nan), num_steps=np.full(len(draws), num_steps))


def _in_unit(scalar: Scalar, unit: str) -> Uniform:
    """Bounds in a unit, where none was named: levels that fix a scalar and levels that draw it share a schema."""
    if not isinstance(scalar, Uniform):
        return Uniform(low=scalar, high=scalar, unit=unit)
    return scalar if scalar.unit != "1" else scalar.model_copy(update={"unit": unit})
