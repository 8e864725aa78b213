"""The shallow water equations over a bottom that water runs onto and off."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.cells import AbstractCells, Boundary
from headrace.solvers.evolution.evolution import Draw, Snapshot
from headrace.solvers.evolution.semilinear import Side
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, require_between
from headrace.solvers.random_inputs.random_fields import Gaussian

# Of the calm depth: a film that is no deeper does not flow.
_FILM = 1e-6


class Flooding(AbstractCells):
    """The shallow water equations over a bottom b without friction: depth h ≥ 0 and velocity u, in 1-D or 2-D.

    h_t + ∇·(h u) = 0,  (h u)_t + ∇·(h u ⊗ u) + g h ∇(h + b) = 0

    Cell i has its centre at (i + ½) length / resolution. Inputs are `depth`, `velocity` and `bottom`, outputs depth and
    velocity; the parameter is g. Where the depth is 0 the bottom is dry and the velocity is 0: shores move, islands are
    flooded and fall dry.

    Finite volumes with hydrostatic reconstruction (Audusse et al. 2004, second order, Sec. 4) and the limiter of van
    Leer: no depth comes out negative, the mass is kept to rounding, and a lake at rest stays at rest, dry islands
    included. Of second order where the solution is smooth and wet, less at moving shores and at shocks.

    At time 0 the surface stands at the calm `depth` above height 0, times 1 + s with a random field s, `surface`; or,
    for `start: dam_break`, at the calm depth where s is above 0, and at `tailwater` of it elsewhere. The bottom is a
    random field, `bottom`, in units of the calm depth and about the height 0; where it rises above the surface it is
    dry. All water is at rest.

    Good values: length 10 m, depth 1 m, horizon 1 to 3 s with 64 to 256 cells; waves travel √(g h), about 3 m/s.
    Levels: `submerged` has no shore, `islands` have many, and `flood` is a dam that breaks over dry land.

    Attributes:
        resolution: cells of the output grid along each axis.
        length: side of the box, the same along all axes [m].
        dim: number of axes.
        boundary: `periodic`, `wall` or `outflow`, on all sides.
        cfl: the part of a cell that the fastest waves may cross in a step; above ½ depths may come out negative.
        horizon: the last output time, from 0 on [s].
        snapshots: output times [s]: how many, evenly up to the horizon, or the times themselves.
        gravity: acceleration g of gravity, a number, or drawn from a range; positive [m/s²].
        depth: of the water over height 0 when it is calm [m].
        start: what is drawn at time 0: a `smooth` surface, or a `dam_break`.
        surface: how the field s is drawn, in lengths of the box.
        bottom: how the height of the bottom is drawn, in units of the calm depth and lengths of the box.
        tailwater: of a dam break, the height of the lower surface over that of the higher one, 0 to 1.
    """

    kind: Literal["flooding"] = "flooding"
    resolution: Side = 64
    length: PositiveFloat = 10.0
    dim: Literal[1, 2] = 2
    boundary: Boundary = "wall"
    cfl: Annotated[float, Field(gt=0.0, le=0.5)] = 0.4
    horizon: PositiveFloat = 2.0
    gravity: Scalar = Uniform(low=9.81, high=9.81, unit="m/s²")
    depth: PositiveFloat = 1.0
    start: Literal["smooth", "dam_break"] = "smooth"
    surface: Gaussian = Gaussian(std=0.1, smoothness=2.5)
    bottom: Gaussian = Gaussian(std=0.5, smoothness=2.5)
    tailwater: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        require_between(self.scalars, ["gravity"], 0.0)
        if self.tailwater > 1.0:
            raise ValueError(f"a tailwater of at most 1, got {self.tailwater:g}")
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`depth` and `velocity`."""
        return (FieldSpec(name="depth", unit="m"), FieldSpec(name="velocity", components=self.dim, unit="m/s"))

    @property
    def constants(self) -> tuple[FieldSpec, ...]:
        """`bottom`."""
        return (FieldSpec(name="bottom", unit="m"),)

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The acceleration of gravity."""
        return {"gravity": self.gravity}

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`submerged`, `islands` and `flood`."""
        return {
            "submerged": {"start": "smooth", "bottom": {"std": 0.15}},
            "islands": {"start": "smooth", "bottom": {"std": 0.7}},
            "flood": {"start": "dam_break", "bottom": {"std": 0.2}, "tailwater": 0.0},
        }

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw the bottom and the surface."""
        bottom = self.depth * self.random_field(rng, self.bottom)
        s = self.random_field(rng, self.surface)
        if self.start == "smooth":
            surface = self.depth * (1.0 + s)
        else:
            surface = self.depth * np.where(s > 0.0, 1.0, self.tailwater)
        depth = np.maximum(surface - bottom, 0.0)
        if not (np.isfinite(bottom).all() and np.isfinite(depth).all()):
            raise ValueError("fields that are finite; lower bottom.std or surface.std")
        if not depth.any():
            raise ValueError("some water: all of the bottom is dry; lower bottom.std or raise the tailwater")
        velocity = np.zeros((self.dim, *depth.shape))
        return {"depth": depth[np.newaxis], "velocity": velocity, "bottom": bottom[np.newaxis]}

    def follow(self, draws: Sequence[Draw], step: float) -> Iterator[Snapshot]:
        """The states at the output times; see `topography.follow_over_bottom`."""
        # Numba takes a second to import: those who solve nothing do not wait for it.
        from headrace.solvers.evolution.topography import Basin, follow_over_bottom

        basin = Basin(
            shape=self.grid.shape,
            spacing=self.length / self.resolution,
            boundary=self.boundary,
            cfl=self.cfl,
            dry=_FILM * self.depth,
            times=self.times,
        )
        return follow_over_bottom(basin, draws, step)
