"""Viscous Burgers' equation on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear, log_levels
from headrace.solvers.random_inputs.parameters import Scalar, Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class Burgers(AbstractSemilinear):
    """Burgers' equation u_t + (u·∇)u = ν Δu on a periodic box, with as many components of u as the box has axes.

    Points lie at i length / resolution. Input and outputs are `velocity`; the parameter is ν. A shock is about
    4 ν / |u| thick, and needs three points: a Fourier series cannot hold a thinner one.

    Good values: in one dimension resolution 64 to 1024, ν from 10⁻³ to 10⁻¹. Levels by ν: `viscous` 0.02 to 0.1,
    `medium` 0.005 to 0.02, `shock` 0.002 to 0.005.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        viscosity: ν, a number, or drawn from a range; positive.
        start: how every component is drawn at time 0, in lengths of the box.
    """

    numbers: ClassVar[tuple[str, ...]] = ("viscosity",)
    positive: ClassVar[tuple[str, ...]] = numbers

    points_needed: ClassVar[Mapping[str, int]] = {"medium": 128, "shock": 256}

    kind: Literal["burgers"] = "burgers"
    viscosity: Scalar = Uniform(low=2e-3, high=1e-1, scale="log")

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`velocity`."""
        return (FieldSpec(name="velocity", components=self.dim),)

    @property
    def default_step(self) -> float:
        """A fast wave, of four standard deviations, passes half a point a step."""
        return 0.5 * self.length / self.resolution / max(4.0 * self.start.std, 1e-12)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`viscous`, `medium` and `shock`."""
        return log_levels("viscosity", {"viscous": (2e-2, 1e-1), "medium": (5e-3, 2e-2), "shock": (2e-3, 5e-3)})

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = -ν |k|²; N = -½ (u²)_x in one dimension, -(u·∇)u in more."""
        symbol = scalars["viscosity"] * box.laplacian
        if box.dim == 1:
            flux = -0.5 * box.derivatives[0]
            return Semilinear(
                symbol=symbol,
                nonlinear=lambda v: flux * box.forward(box.backward(v).square()),
                square_flux=-0.5,
            )

        def nonlinear(v: "Tensor") -> "Tensor":
            velocity = box.backward(v)
            total = -velocity[:, :1] * box.backward(box.derivatives[0] * v)
            for axis in range(1, box.dim):
                total -= velocity[:, axis : axis + 1] * box.backward(box.derivatives[axis] * v)
            return box.forward(total)

        return Semilinear(symbol=symbol, nonlinear=nonlinear)
