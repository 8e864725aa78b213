"""The shallow water equations on a flat bottom."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.conservation import AbstractConservationLaw
from headrace.solvers.evolution.semilinear import Side
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, drawn, require_between
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.riemann import WaterRiemann


class ShallowWater(AbstractConservationLaw):
    """The shallow water equations on a flat bottom without friction, in one or two dimensions: depth h and velocity u.

    h_t + ∇·(h u) = 0,  (h u)_t + ∇·(h u ⊗ u) + g h ∇h = 0

    Cell i has its centre at (i + ½) length / resolution. Inputs and outputs are `depth` and `velocity`, which has as
    many components as there are axes; the parameter is g. The depth must stay positive: there are no dry shores.

    At time 0 the depth is that of calm water times e^s, with a random field s, `surface`; or, for `start: dam_break`,
    the calm depth where s is above 0, and less behind the dams, `tailwater` of it. The velocity is a random field too,
    `current`.

    Good values: length 10 m, depth 1 m, horizon 1 to 3 s with 64 to 256 cells; waves travel √(g h), about 3 m/s.
    Levels: `gentle` waves break late, `steep` ones soon, and `dam_break` starts with jumps of the depth, at rest.

    Attributes:
        resolution: cells of the output grid along each axis.
        length: side of the box, the same along all axes [m].
        dim: number of axes.
        boundary: `periodic`, `wall` or `outflow`, on all sides.
        limiter: of the slopes within cells: `minmod` smears the most, `mc` the least.
        cfl: the part of a cell that the fastest waves may cross in a step; above 1 no step is stable.
        horizon: the last output time, from 0 on [s].
        snapshots: output times [s]: how many, evenly up to the horizon, or the times themselves.
        gravity: acceleration g of gravity, a number, or drawn from a range; positive [m/s²].
        depth: of the water when it is calm [m].
        start: what is drawn at time 0: a `smooth` surface, or a `dam_break`.
        surface: how the field s of the smooth surface is drawn, in lengths of the box.
        current: how every component of the velocity is drawn [m/s], in lengths of the box.
        tailwater: of a dam break, the depth of the shallow side over that of the deep one; above 0 and at most 1.
    """

    positive: ClassVar[tuple[str, ...]] = ("depth",)

    kind: Literal["shallow_water"] = "shallow_water"
    resolution: Side = 64
    length: PositiveFloat = 10.0
    dim: Literal[1, 2] = 2
    horizon: PositiveFloat = 2.0
    gravity: Scalar = Uniform(low=9.81, high=9.81, unit="m/s²")
    depth: PositiveFloat = 1.0
    start: Literal["smooth", "dam_break"] = "smooth"
    surface: Gaussian = Gaussian(std=0.2, smoothness=2.5)
    current: Gaussian = Gaussian(std=0.3, smoothness=2.5)
    tailwater: Scalar = Uniform(low=0.1, high=0.8)

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        require_between(self.scalars, ["gravity"], 0.0)
        require_between({"tailwater": self.tailwater}, ["tailwater"], 0.0, 1.0)
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`depth` and `velocity`."""
        return (FieldSpec(name="depth", unit="m"), FieldSpec(name="velocity", components=self.dim, unit="m/s"))

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The acceleration of gravity."""
        return {"gravity": self.gravity}

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`gentle`, `steep` and `dam_break`."""
        return {
            "gentle": {"start": "smooth", "surface": {"std": 0.1}, "current": {"std": 0.1}},
            "steep": {"start": "smooth", "surface": {"std": 0.4}, "current": {"std": 1.0}},
            "dam_break": {"start": "dam_break", "current": {"std": 0.0}},
        }

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw the ratio of the depths, the surface and the components of the velocity."""
        ratio = drawn({"tailwater": self.tailwater}, rng)["tailwater"]
        surface = self.random_field(rng, self.surface)
        with np.errstate(over="ignore", under="ignore"):  # what leaves the range of numbers is refused below
            shape = np.exp(surface) if self.start == "smooth" else np.where(surface > 0.0, 1.0, ratio)
            fields = {
                "depth": (self.depth * shape)[np.newaxis],
                "velocity": np.stack([self.random_field(rng, self.current) for _ in range(self.dim)]),
            }
        self.require_physical(fields, "lower surface.std")
        return fields

    def riemann(self, scalars: "Mapping[str, Tensor]") -> "WaterRiemann":
        """Of depth and velocity."""
        from headrace.solvers.evolution.riemann import WaterRiemann

        return WaterRiemann(gravity=scalars["gravity"])
