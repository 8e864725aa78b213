"""Two-dimensional incompressible flow on a periodic square, in vorticity."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import PositiveFloat, model_validator

from headrace.platform.fields import FieldSpec
from headrace.platform.spec import Count
from headrace.solvers.evolution.equation import Semilinear
from headrace.solvers.evolution.semilinear import AbstractSemilinear, log_levels
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, bounds
from headrace.solvers.random_inputs.random_fields import Gaussian

if TYPE_CHECKING:
    from torch import Tensor

    from headrace.solvers.evolution.periodic_box import PeriodicBox


class NavierStokes(AbstractSemilinear):
    """The Navier-Stokes equations in two dimensions, in vorticity, on a periodic square.

    ω_t + u·∇ω = ν Δω - α ω - A m cos(m y),  u = (ψ_y, -ψ_x),  -Δψ = ω,  m = 2π forcing_wave / length

    Flow that decays, or with A > 0 Kolmogorov flow, driven by the force A sin(m y) along x (forcing_wave 4 and α = 0.1
    are usual; Chandler and Kerswell 2013 have α = 0). Points lie at i length / resolution, x along the first axis.
    Input and outputs are the vorticity ω, and the curl of the force, where there is one, is an input too; the
    parameters are ν, α and A. The convective term is -(∂_xx - ∂_yy)(u v) - ∂_xy (v² - u²), which takes two transforms
    each way (Basdevant 1983).

    Good values: length 2π with 64 to 256 points, ν from 10⁻³ to 10⁻². Levels by ν: `viscous` 0.01 to 0.02, `medium`
    0.003 to 0.01, `turbulent` 0.001 to 0.003.

    Attributes:
        resolution: points of the output grid along each axis.
        length: side of the square.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        snapshots: output times: how many, evenly up to the horizon, or the times themselves.
        viscosity: ν, a number, or drawn from a range; positive.
        drag: α, by which friction slows the vorticity down; 0 for none.
        forcing: amplitude A of the steady force; 0 for none.
        forcing_wave: waves of the force along y.
        start: how ω is drawn at time 0, in lengths of the square; its mean is taken away.
    """

    numbers: ClassVar[tuple[str, ...]] = ("viscosity", "drag", "forcing")
    positive: ClassVar[tuple[str, ...]] = ("viscosity",)

    kind: Literal["navier_stokes"] = "navier_stokes"
    length: PositiveFloat = 2.0 * np.pi
    dim: Literal[2] = 2
    horizon: PositiveFloat = 5.0
    viscosity: Scalar = Uniform(low=1e-3, high=2e-2, scale="log")
    drag: Scalar = 0.0
    forcing: Scalar = 0.0
    forcing_wave: Count = 4
    start: Gaussian = Gaussian(std=3.0, length_scale=0.1, smoothness=2.5)

    @model_validator(mode="after")
    def _allowed(self) -> Self:
        if 3 * self.forcing_wave >= self.resolution:
            raise ValueError(
                f"a forcing_wave below a third of the resolution {self.resolution}, got {self.forcing_wave}"
            )
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`vorticity`."""
        return (FieldSpec(name="vorticity"),)

    @property
    def constants(self) -> tuple[FieldSpec, ...]:
        """`forcing`, the curl of the force, where there is one: a network cannot see otherwise where its waves lie."""
        return (FieldSpec(name="forcing"),) if self.forcing != 0.0 else ()

    @property
    def default_step(self) -> float:
        """A vortex's rim, of velocity about ω times the correlation length, passes half a point a step."""
        swirl = 2.0 * self.start.std * self.start.length_scale * self.length
        driven = abs(bounds(self.forcing)[1]) ** 0.5 * 3.0
        return 0.5 * self.length / self.resolution / max(swirl, driven, 1e-12)

    @property
    def _forcing_wave_number(self) -> float:
        return 2.0 * np.pi * self.forcing_wave / self.length

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`viscous`, `medium` and `turbulent`."""
        return log_levels("viscosity", {"viscous": (1e-2, 2e-2), "medium": (3e-3, 1e-2), "turbulent": (1e-3, 3e-3)})

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "1 points points"]]:
        """Draw ω; the curl of the force comes with it."""
        fields = super().initial(rng, scalars)
        fields["vorticity"] -= fields["vorticity"].mean()
        if self.constants:
            phase = 2.0 * np.pi * self.forcing_wave / self.resolution * np.arange(self.resolution)
            curl = -scalars["forcing"] * self._forcing_wave_number * np.cos(phase)
            fields["forcing"] = np.tile(curl, (1, self.resolution, 1))
        return fields

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = -ν |k|² - α; N = the convective term and the force."""
        symbol = scalars["viscosity"] * box.laplacian - scalars["drag"]
        inverse = -1.0 / (box.laplacian - 1.0 * (box.laplacian == 0.0)) * (box.laplacian != 0.0)
        i_kx, i_ky = box.derivatives
        velocity = box.stack_components([i_ky * inverse, -i_kx * inverse])
        shear, stretch = i_ky**2 - i_kx**2, -i_kx * i_ky
        wave = self._forcing_wave_number
        y = box.coordinates[1]
        force = box.forward((y.expand(box.shape) * wave).cos()) * (-wave * scalars["forcing"])

        def nonlinear(w: "Tensor") -> "Tensor":
            # In place: most of the time goes into passes over memory.
            fields = box.backward(velocity * w)
            u, v = fields.narrow(1, 0, 1), fields.narrow(1, 1, 1)
            total, difference = v + u, v - u
            u.mul_(v)
            v.copy_(total.mul_(difference))
            products = box.forward(fields)
            rate = shear * products.narrow(1, 0, 1)
            rate.addcmul_(stretch, products.narrow(1, 1, 1))
            return rate.add_(force) if self.constants else rate

        return Semilinear(symbol=symbol, nonlinear=nonlinear)
