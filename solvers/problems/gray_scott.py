"""The Gray-Scott model of two reacting substances on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import PositiveFloat

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear, Side
from headrace.solvers.random_inputs.parameters import Scalar, Uniform
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class GrayScott(AbstractSemilinear):
    """The Gray-Scott model on a periodic box in one to three dimensions: spots and stripes that grow and divide.

    u_t = D_u Δu - u v² + F (1 - u),  v_t = D_v Δv + u v² - (F + κ) v

    Points lie at i length / resolution. Inputs and outputs are the concentrations u and v; the parameters are F and κ.
    At time 0 the box is full of u, but for patches of v where a smooth random field is large.

    Good values: D_u = 2·10⁻⁵, D_v = 10⁻⁵, a hundred points to a unit of length (on fewer, spots are pinned to the
    grid), horizon 1000 to 5000. Outside a narrow band of F and κ (Pearson 1993) the patches die out. Levels fix F and
    κ: `spots` 0.0367 and 0.0649, `coral` 0.0545 and 0.062, `maze` 0.029 and 0.057.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the box, the same along all axes.
        dim: number of axes.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        feed: rate F at which u is fed, a number, or drawn from a range; positive.
        kill: rate κ at which v is removed, a number, or drawn from a range; positive.
        diffusivity_u: D_u, the diffusivity of u in all samples; positive.
        diffusivity_v: D_v, the diffusivity of v in all samples; positive.
        start: the random field of which patches are made, in lengths of the box.
    """

    degree: ClassVar[int] = 3
    numbers: ClassVar[tuple[str, ...]] = ("feed", "kill")
    positive: ClassVar[tuple[str, ...]] = numbers

    kind: Literal["gray_scott"] = "gray_scott"
    resolution: Side = 128
    length: PositiveFloat = 1.25
    dim: Literal[1, 2, 3] = 2
    horizon: PositiveFloat = 2000.0
    feed: Scalar = Uniform(low=0.036, high=0.05)
    kill: Scalar = Uniform(low=0.06, high=0.063)
    diffusivity_u: PositiveFloat = 2e-5
    diffusivity_v: PositiveFloat = 1e-5
    start: Gaussian = Gaussian(length_scale=0.1, smoothness=2.5)

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`u` and `v`."""
        return (FieldSpec(name="u"), FieldSpec(name="v"))

    @property
    def default_step(self) -> float:
        """The reaction's fastest rate is below 1."""
        return 1.0

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`spots`, `coral` and `maze`."""
        rates = {"spots": (0.0367, 0.0649), "coral": (0.0545, 0.062), "maze": (0.029, 0.057)}
        return {name: {"feed": feed, "kill": kill} for name, (feed, kill) in rates.items()}

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "1 *grid"]]:
        """Patches of v where a random field is above about one standard deviation, with soft edges."""
        field = self.start.draw(rng, self.resolution, points="periodic", ndim=self.dim)
        patches = 0.5 * (1.0 + np.tanh(4.0 * (field - self.start.std) / max(self.start.std, 1e-12)))
        return {"u": (1.0 - 0.5 * patches)[np.newaxis], "v": (0.25 * patches)[np.newaxis]}

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = -D |k|² - F and -D |k|² - F - κ; N = (F - u v², u v²)."""
        feed, kill = scalars["feed"], scalars["kill"]
        diffusion = [d * box.laplacian for d in (self.diffusivity_u, self.diffusivity_v)]
        symbol = box.stack_components([diffusion[0] - feed, diffusion[1] - feed - kill])
        # Of a constant 1 the spectrum is the number of points at k = 0.
        supply = feed * (box.laplacian == 0.0) * box.num_points

        def nonlinear(w: "Tensor") -> "Tensor":
            u, v = box.backward(w).split(1, dim=1)
            reaction = box.forward(u * v.square())
            return box.stack_components([supply - reaction, reaction])

        return Semilinear(symbol=symbol, nonlinear=nonlinear)
