"""The heat equation on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.random_inputs.parameters import Scalar, Uniform
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class Diffusion(AbstractSemilinear):
    """The heat equation u_t = κ Δu on a periodic box in one to three dimensions; exact in time for the grid's waves.

    Points lie at i length / resolution. Input and outputs are u; the parameter is κ.

    Good values: resolution 32 to 256; κ horizon / length² from 10⁻³ to 10⁻¹, beyond which u is flat. Levels: `slow`
    and `fast` change κ, `rough` halves the correlation length of u.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        diffusivity: κ, a number, or drawn from a range; positive.
        start: how u is drawn at time 0, in lengths of the box.
    """

    numbers: ClassVar[tuple[str, ...]] = ("diffusivity",)
    positive: ClassVar[tuple[str, ...]] = numbers

    kind: Literal["diffusion"] = "diffusion"
    diffusivity: Scalar = Uniform(low=1e-3, high=1e-1, scale="log")
    start: Gaussian = Gaussian()

    @property
    def default_step(self) -> float:
        """The horizon: every step is exact."""
        return self.horizon

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`slow`, `fast` and `rough`."""
        return {
            "slow": {"diffusivity": {"low": 1e-4, "high": 1e-3, "scale": "log"}},
            "fast": {"diffusivity": {"low": 1e-2, "high": 1e-1, "scale": "log"}},
            "rough": {"start": {"length_scale": self.start.length_scale / 2.0}},
        }

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = -κ |k|²."""
        return Semilinear(symbol=scalars["diffusivity"] * box.laplacian)
