"""The Kuramoto-Sivashinsky equation on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import PositiveFloat

from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear, Side
from headrace.solvers.random_inputs.parameters import Scalar, Uniform
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class KuramotoSivashinsky(AbstractSemilinear):
    """The Kuramoto-Sivashinsky equation: chaos on a long box.

    In one dimension u_t = -u_xx - ν u_xxxx - u u_x; in two, for the height of a front, u_t = -Δu - ν Δ²u - ½ |∇u|²,
    without the drift of its mean. Points lie at i length / resolution. Input and outputs are u; the parameter is ν.

    Good values: length 20 to 200 with two points to its unit; horizon 10 to 50, as nearby states part by a factor of e
    in about ten units of time: longer trajectories are statistics. Levels by ν, which sets how long the box is in
    waves: `calm` 2 to 4, `medium` 0.8 to 1.25, `rough` 0.3 to 0.5.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        viscosity: ν, a number, or drawn from a range; positive.
        start: how u is drawn at time 0, in lengths of the box; its mean is taken away.
    """

    numbers: ClassVar[tuple[str, ...]] = ("viscosity",)
    positive: ClassVar[tuple[str, ...]] = numbers

    points_needed: ClassVar[Mapping[str, int]] = {"rough": 256}

    kind: Literal["kuramoto_sivashinsky"] = "kuramoto_sivashinsky"
    resolution: Side = 128
    length: PositiveFloat = 64.0
    dim: Literal[1, 2] = 1
    horizon: PositiveFloat = 20.0
    viscosity: Scalar = Uniform(low=0.8, high=1.25)
    start: Gaussian = Gaussian(length_scale=0.05, smoothness=2.5)

    @property
    def default_step(self) -> float:
        """A wave of the attractor's height, 4, passes a fifth of a point a step."""
        return 0.05 * self.length / self.resolution

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`calm`, `medium` and `rough`."""
        edges = {"calm": (2.0, 4.0), "medium": (0.8, 1.25), "rough": (0.3, 0.5)}
        return {name: {"viscosity": {"low": low, "high": high}} for name, (low, high) in edges.items()}

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "1 *grid"]]:
        """Draw u."""
        u = super().initial(rng, scalars)["u"]
        return {"u": u - u.mean()}

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = |k|² - ν |k|⁴; N = -½ (u²)_x, or -½ |∇u|² without its mean."""
        symbol = -box.laplacian - scalars["viscosity"] * box.laplacian.square()
        if box.dim == 1:
            flux = -0.5 * box.derivatives[0]
            return Semilinear(
                symbol=symbol,
                nonlinear=lambda v: flux * box.forward(box.backward(v).square()),
                square_flux=-0.5,
            )
        share = -0.5 * (box.laplacian != 0.0)

        def nonlinear(v: "Tensor") -> "Tensor":
            slope_x, slope_y = (box.backward(ik * v) for ik in box.derivatives)
            return share * box.forward(slope_x.square() + slope_y.square())

        return Semilinear(symbol=symbol, nonlinear=nonlinear)
