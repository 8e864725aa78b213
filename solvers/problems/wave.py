"""The wave equation on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.random_inputs.parameters import Scalar, Uniform
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class Wave(AbstractSemilinear):
    """The wave equation u_tt = c² Δu on a periodic box in one to three dimensions; exact in time for the grid's waves.

    Points lie at i length / resolution. Inputs and outputs are the displacement u and its rate u_t; the parameter is
    c. At time 0 the medium is at rest.

    Good values: resolution 32 to 256, at least 10 points to the correlation length of u; waves cross the box in
    length / c. Levels: `slow` and `fast` change c, `rough` halves the correlation length of u.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        speed: speed c of the waves, a number, or drawn from a range; positive.
        start: how u is drawn at time 0, in lengths of the box.
    """

    numbers: ClassVar[tuple[str, ...]] = ("speed",)
    positive: ClassVar[tuple[str, ...]] = numbers

    kind: Literal["wave"] = "wave"
    speed: Scalar = Uniform(low=0.5, high=2.0)
    start: Gaussian = Gaussian(length_scale=0.1, smoothness=2.5)

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`u` and `u_t`."""
        return (FieldSpec(name="u"), FieldSpec(name="u_t"))

    @property
    def default_step(self) -> float:
        """The horizon: every step is exact."""
        return self.horizon

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`slow`, `fast` and `rough`."""
        return {
            "slow": {"speed": {"low": 0.1, "high": 0.5}},
            "fast": {"speed": {"low": 2.0, "high": 5.0}},
            "rough": {"start": {"length_scale": self.start.length_scale / 2.0}},
        }

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "1 *grid"]]:
        """Draw u; the rate is 0."""
        u = self.start.draw(rng, self.resolution, points="periodic", ndim=self.dim)[np.newaxis]
        return {"u": u, "u_t": np.zeros_like(u)}

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = ±iω with ω = c |k|, of the waves u_t ± iω u that travel one way each.

        At k = 0 there are no such waves: u and u_t stay as they are, as their mean rate is 0.
        """
        frequency = scalars["speed"] * (-box.laplacian).sqrt()
        is_mean = box.laplacian == 0.0
        turn = 1j * frequency
        # Where ω = 0 the encoding is the identity.
        halved = 0.5 / (turn + is_mean) * ~is_mean

        def encode(spectra: "Tensor") -> "Tensor":
            u, rate = spectra.split(1, dim=1)
            return box.stack_components([rate * ~is_mean + turn * u + is_mean * u, rate - turn * u])

        def decode(waves: "Tensor") -> "Tensor":
            plus, minus = waves.split(1, dim=1)
            u = halved * (plus - minus) + is_mean * plus
            return box.stack_components([u, 0.5 * (plus + minus) * ~is_mean + is_mean * minus])

        return Semilinear(symbol=box.stack_components([turn, -turn]), encode=encode, decode=decode)
