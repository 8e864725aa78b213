"""The Allen-Cahn equation on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import PositiveFloat

from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear, log_levels
from headrace.solvers.random_inputs.parameters import Scalar, Uniform
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class AllenCahn(AbstractSemilinear):
    """The Allen-Cahn equation u_t = ε² Δu + u - u³ on a periodic box in one to three dimensions: phases that coarsen.

    Points lie at i length / resolution. Input and outputs are u, which tends to -1 or 1; the parameter is ε. Between
    the phases u is tanh(x / (√2 ε)): a wall about 4 ε thick, which needs four points.

    Good values: resolution 64 to 256 on a length of 1 and ε from 0.01 to 0.05; horizon 5 to 20. Levels by ε: `thick`
    0.03 to 0.05, `medium` 0.02 to 0.03, `thin` 0.012 to 0.02.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        interface: width ε of the layer between two phases, a number, or drawn from a range; positive.
        start: how u is drawn at time 0, in lengths of the box.
    """

    degree: ClassVar[int] = 3
    numbers: ClassVar[tuple[str, ...]] = ("interface",)
    positive: ClassVar[tuple[str, ...]] = numbers

    kind: Literal["allen_cahn"] = "allen_cahn"
    horizon: PositiveFloat = 10.0
    interface: Scalar = Uniform(low=0.015, high=0.05, scale="log")
    start: Gaussian = Gaussian(std=0.5, length_scale=0.1, smoothness=2.5)

    @property
    def default_step(self) -> float:
        """A tenth of the time in which the phases part."""
        return 0.1

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`thick`, `medium` and `thin`."""
        return log_levels("interface", {"thick": (0.03, 0.05), "medium": (0.02, 0.03), "thin": (0.012, 0.02)})

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = 1 - ε² |k|²; N = -u³."""
        return Semilinear(
            symbol=1.0 + scalars["interface"].square() * box.laplacian,
            nonlinear=lambda v: -box.forward(box.backward(v) ** 3),
        )
