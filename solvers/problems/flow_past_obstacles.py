"""Incompressible flow past obstacles in a channel."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, PositiveFloat, model_validator

from headrace.solvers.evolution.enclosure import Coefficients, Enclosure
from headrace.solvers.problems.obstacles import Block, Counts, Disk, Obstacle, SquareLattice, require_free
from headrace.solvers.problems.walled_flow import AbstractWalledFlow
from headrace.solvers.random_inputs.parameters import Uniform

_REYNOLDS = {"low": (100.0, 500.0), "medium": (500.0, 1000.0), "high": (1000.0, 2000.0)}
_OBSTACLES: Mapping[str, int | dict[str, int]] = {"none": 0, "one": 1, "several": {"low": 2, "high": 10}}


class FlowPastObstacles(AbstractWalledFlow):
    """Flow past obstacles in a channel.

    u_t + ∇·(u ⊗ u) = -∇p + Δu / (Re / height), ∇·u = 0

    Velocities are in units of the mean velocity of the inflow, which is 1; its profile is a parabola. With the height
    of the channel, Re = 1 · height / ν. The flow comes in on the left and leaves on the right, where the traction is 0
    (where it comes back in, ½ (u · n) u: the directional do-nothing condition of Braack and Mucha 2014, J. Comput.
    Math. 32); above and below are walls. Walls and obstacles let nothing pass and nothing slip.

    Inputs are `velocity` and `pressure` at time 0 (the pressure is given as 0), `mask`, 1 in the fluid and 0 in
    obstacles, and `signed_distance`: from the nearest wall or obstacle, negative inside of obstacles. Outputs are
    `velocity` and `pressure`, both 0 inside of obstacles; the parameter is Re. At time 0 the inflow is led around the
    obstacles by a stream function, which blends the inflow's with a constant for every obstacle.

    Obstacles are squares on a lattice of half their side, so that they are the same on every grid whose cells it holds,
    and stand at least one side apart; or those that are listed in `obstacles`. The wall of a disk is round: what cells
    it cuts through, `mask` shows by their centres, but the flow knows better.

    Good values: horizon 4 (twice through the box) and 64 to 256 cells a side; an accuracy in the recipe finds out how
    many. The kinds of difficulty are those of Choudhary et al. (2025), arXiv 2512.00564: how many obstacles, how large
    Re is.
    Levels: `none`, `one` or `several` (2 to 10) obstacles with `low`, `medium` or `high` Re, as in `one_high`. Theirs
    reach Re 10 000; ours are 100 to 500, 500 to 1000 and 1000 to 2000, which grids of up to 256 cells a side resolve.

    Attributes:
        resolution: cells of the output grid along the height.
        length: of the channel, dimensionless.
        height: of the channel, dimensionless; Re is taken with it.
        cfl: the part of the longest stable step that is taken.
        horizon: the last time, in heights over 1 of the mean velocity.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        reynolds: Reynolds number Re, a number, or drawn from a range; positive.
        num_obstacles: how many are drawn: a number, or a range (`low`, `high`).
        obstacle_side: of the squares that are drawn; half of it a whole number of cells.
        obstacles: those of all samples: `block` (left, bottom, width, height) on the lines between cells, or `disk` (x,
            y, radius) anywhere; none are drawn then.
    """

    kind: Literal["flow_past_obstacles"] = "flow_past_obstacles"
    resolution: Annotated[int, Field(ge=8, le=4096)] = 128
    length: PositiveFloat = 2.0
    height: PositiveFloat = 2.0
    horizon: PositiveFloat = 4.0
    snapshots: Annotated[int, Field(ge=1, le=10_000)] | tuple[PositiveFloat, ...] = 20
    num_obstacles: Annotated[int, Field(ge=0, le=1000)] | Counts = Counts(low=1, high=5)
    obstacle_side: PositiveFloat = 0.125
    obstacles: tuple[Obstacle, ...] | None = None

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        spacing = self.height / self.resolution
        across = self.length / spacing
        if round(across) < 8 or abs(across - round(across)) > 1e-6 * across:
            raise ValueError(
                f"a length of at least 8 whole cells of height / resolution = {spacing:g}, got {self.length:g}, which "
                f"is {across:g} cells; change the length or the resolution"
            )
        if self.obstacles is not None:
            require_free(self.obstacles, self.length, self.height, spacing)
        elif self._most_obstacles:
            half = 0.5 * self.obstacle_side / spacing
            if round(half) < 1 or abs(half - round(half)) > 1e-6:
                raise ValueError(
                    f"an obstacle_side of 2, 4, 6, ... cells of height / resolution = {spacing:g}, got "
                    f"{self.obstacle_side:g}, which is {2.0 * half:g} cells; "
                    f"resolutions that fit are multiples of 2 height / obstacle_side = "
                    f"{2.0 * self.height / self.obstacle_side:g}"
                )
            most = SquareLattice(self.length, self.height, self.obstacle_side).most
            if self._most_obstacles > most:
                raise ValueError(
                    f"at most {most} obstacles: no more of side {self.obstacle_side:g} are sure to fit, one side apart,"
                    f" got num_obstacles {self._most_obstacles}; make them smaller, or list them in obstacles"
                )
        return self

    @property
    def _most_obstacles(self) -> int:
        return self.num_obstacles.high if isinstance(self.num_obstacles, Counts) else self.num_obstacles

    @property
    def axes(self) -> tuple[str, ...]:
        """Those of the levels, and the size of the obstacles."""
        return (*super().axes, "obstacle_side")

    @property
    def enclosure(self) -> Enclosure:
        """The channel."""
        spacing = self.height / self.resolution
        edges = np.arange(self.resolution + 1) * spacing
        return Enclosure(
            shape=(round(self.length / spacing), self.resolution),
            spacing=spacing,
            sides="through",
            inflow=np.diff(self._inflow(edges)) / spacing,
            surfaces=tuple(one for one in self.obstacles or () if isinstance(one, Disk)),
        )

    def coefficients(self, scalars: Mapping[str, float]) -> Coefficients:
        """ν = height / Re."""
        return Coefficients(viscosity=self.height / scalars["reynolds"])

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`none_low`, `none_medium`, ..., `several_high`."""
        return {
            f"{how_many}_{speed}": {
                "num_obstacles": count,
                "reynolds": Uniform(low=low, high=high, scale="log").model_dump(),
            }
            for how_many, count in _OBSTACLES.items()
            for speed, (low, high) in _REYNOLDS.items()
        }

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw the obstacles."""
        obstacles: Sequence[Block | Disk]
        if self.obstacles is not None:
            obstacles = self.obstacles
        else:
            count = self.num_obstacles
            if isinstance(count, Counts):
                count = int(rng.integers(count.low, count.high + 1))
            obstacles = SquareLattice(self.length, self.height, self.obstacle_side).draw(rng, count)
        return self.around(obstacles)

    def around(self, obstacles: Sequence[Block | Disk]) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """The fields at time 0 with these obstacles.

        Raises:
            ValueError: among them is a disk that is none of `obstacles`: the flow would not know where its wall is.
        """
        box = self.enclosure
        for one in obstacles:
            if isinstance(one, Disk) and one not in box.surfaces:
                raise ValueError(f"disks that the problem lists in obstacles, got another one: {one!r}; list it there")
        x, y = np.meshgrid(*self.grid.coordinates(), indexing="ij")
        distance = np.minimum(y, self.height - y)
        mask = np.ones_like(x)
        for one in obstacles:
            away = one.distance(x, y)
            distance = np.minimum(distance, away)
            mask[away < 0.0] = 0.0
        stream = self._stream(obstacles)
        u, v = np.diff(stream, axis=1) / box.spacing, -np.diff(stream, axis=0) / box.spacing
        velocity = 0.5 * mask * np.stack([u[:-1] + u[1:], v[:, :-1] + v[:, 1:]])
        return {
            "velocity": velocity,
            "pressure": np.zeros((1, *box.shape)),
            "mask": mask[np.newaxis],
            "signed_distance": distance[np.newaxis],
        }

    def _inflow(self, y: Float64[np.ndarray, "*points"]) -> Float64[np.ndarray, "*points"]:
        """The stream function of the inflow: the flow below y."""
        return y**2 * (3.0 * self.height - 2.0 * y) / self.height**2

    def _stream(self, obstacles: Sequence[Block | Disk]) -> Float64[np.ndarray, "nx_plus_1 ny_plus_1"]:
        """A stream function at the corners of the cells, constant on every obstacle and the inflow's on the boundary.

        A mean, weighted by the inverse squares of the distances (Shepard 1968): its gradient is 0 on obstacles.
        """
        nx, ny = self.enclosure.shape
        x, y = np.meshgrid(
            np.arange(nx + 1) * (self.length / nx), np.arange(ny + 1) * (self.height / ny), indexing="ij"
        )
        inflow = self._inflow(y)
        if not obstacles:
            return inflow
        floor = (1e-9 * self.height) ** 2  # so that weights stay finite
        reach = max(min(one.box[1] - one.box[0], one.box[3] - one.box[2]) for one in obstacles)
        weight = 1.0 / reach**2 + sum(1.0 / (away**2 + floor) for away in (x, y, self.height - y))
        total, blend = weight, weight * inflow
        for one in obstacles:
            weight = 1.0 / (np.maximum(one.distance(x, y), 0.0) ** 2 + floor)
            _, _, bottom, top = one.box
            middle = np.array(0.5 * (bottom + top))
            if bottom <= 0.0:
                middle = np.array(0.0)
            elif top >= self.height:
                middle = np.array(self.height)
            total, blend = total + weight, blend + weight * self._inflow(middle)
        return np.asarray(blend / total)
