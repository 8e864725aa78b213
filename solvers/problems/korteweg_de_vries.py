"""The Korteweg-de Vries equation on a periodic interval."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveFloat

from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear, Side, log_levels
from headrace.solvers.random_inputs.parameters import Scalar, Uniform
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class KortewegDeVries(AbstractSemilinear):
    """The Korteweg-de Vries equation u_t + 6 u u_x + δ² u_xxx = 0 on a periodic interval: waves part into solitons.

    Points lie at i length / resolution. Input and outputs are u; the parameter is δ. With δ = 1 a soliton of speed c is
    u = (c / 2) sech²(√c (x - c t) / 2).

    Good values: resolution 128 to 512 on a length of 1 and δ from 0.01 to 0.05; a soliton of height a is about
    3 δ / √a wide, and needs six points. Levels by δ: `smooth` 0.05 to 0.1, `medium` 0.03 to 0.05, `solitons` 0.02 to
    0.03.

    Attributes:
        resolution: points of the output grid.
        length: of the interval, dimensionless.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        dispersion: δ, the strength of dispersion, a number, or drawn from a range; positive.
        start: how u is drawn at time 0, in lengths of the box.
    """

    numbers: ClassVar[tuple[str, ...]] = ("dispersion",)
    positive: ClassVar[tuple[str, ...]] = numbers

    kind: Literal["korteweg_de_vries"] = "korteweg_de_vries"
    resolution: Side = 256
    dim: Literal[1] = 1
    horizon: PositiveFloat = 0.25
    dispersion: Scalar = Uniform(low=0.02, high=0.1, scale="log")
    start: Gaussian = Gaussian(std=0.5, length_scale=0.25, smoothness=2.5)

    @property
    def default_step(self) -> float:
        """A wave of four standard deviations, of speed 6 u, passes a quarter of a point a step."""
        return 0.25 * self.length / self.resolution / max(24.0 * self.start.std, 1e-12)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`smooth`, `medium` and `solitons`."""
        return log_levels("dispersion", {"smooth": (0.05, 0.1), "medium": (0.03, 0.05), "solitons": (0.02, 0.03)})

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = i δ² k³; N = -3 (u²)_x."""
        ik = box.derivatives[0]
        flux = -3.0 * ik
        return Semilinear(
            symbol=-(scalars["dispersion"].square() * ik**3),
            nonlinear=lambda v: flux * box.forward(box.backward(v).square()),
            square_flux=-3.0,
        )
