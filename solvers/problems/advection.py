"""Advection with a constant velocity on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.random_inputs.parameters import Scalar, Uniform

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox

_FULL = Uniform(low=-1.0, high=1.0)


class Advection(AbstractSemilinear):
    """Advection u_t + c·∇u = 0 on a periodic box in one to three dimensions; exact in time for the waves of the grid.

    Points lie at i length / resolution. Input and outputs are u; the parameters are the components of c.

    Good values: resolution 32 to 256, at least 10 points to the correlation length of u. Levels: `slow` and `fast`
    change how far u travels, `rough` halves its correlation length.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        velocity_x: velocity c along the first axis, a number, or drawn from a range.
        velocity_y: velocity c along the second axis, if there is one.
        velocity_z: velocity c along the third axis, if there is one.
        start: how u is drawn at time 0, in lengths of the box.
    """

    kind: Literal["advection"] = "advection"
    velocity_x: Scalar = _FULL
    velocity_y: Scalar = _FULL
    velocity_z: Scalar = _FULL

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The components of the velocity."""
        velocity = {"velocity_x": self.velocity_x, "velocity_y": self.velocity_y, "velocity_z": self.velocity_z}
        return dict(list(velocity.items())[: self.dim])

    @property
    def default_step(self) -> float:
        """The horizon: every step is exact."""
        return self.horizon

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`slow`, `fast` and `rough`."""
        slow, fast = {"low": -0.25, "high": 0.25}, {"low": -4.0, "high": 4.0}
        names = list(self.scalars)
        return {
            "slow": dict.fromkeys(names, slow),
            "fast": dict.fromkeys(names, fast),
            "rough": {"start": {"length_scale": self.start.length_scale / 2.0}},
        }

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = -c·ik."""
        symbol = 0.0 * box.laplacian
        for name, ik in zip(self.scalars, box.derivatives, strict=True):
            symbol = symbol - scalars[name] * ik
        return Semilinear(symbol=symbol)
