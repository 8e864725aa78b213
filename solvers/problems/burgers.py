"""Viscous Burgers' equation on a periodic box."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import model_validator

from headrace.platform.fields import FieldSpec
from headrace.solvers.evolution.semilinear import AbstractSemilinear, Semilinear
from headrace.solvers.parameters import Scalar, Uniform, require_between
from headrace.solvers.random_fields import Gaussian

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
        resolution: points a side.
        length: of the box.
        dim: number of axes.
        horizon: the last time.
        snapshots: output times.
        viscosity: ν, positive.
        start: how every component is drawn at time 0, in lengths of the box.
    """

    kind: Literal["burgers"] = "burgers"
    viscosity: Scalar = Uniform(low=2e-3, high=1e-1, scale="log")
    start: Gaussian = Gaussian(smoothness=2.5)

    @model_validator(mode="after")
    def _positive(self) -> Self:
        require_between(self.scalars, ["viscosity"], 0.0)
        return self

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`velocity`."""
        return (FieldSpec(name="velocity", components=self.dim),)

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """The viscosity."""
        return {"viscosity": self.viscosity}

    @property
    def default_step(self) -> float:
        """A fast wave, of four standard deviations, passes half a point a step."""
        return 0.5 * self.length / self.resolution / max(4.0 * self.start.std, 1e-12)

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`viscous`, `medium` and `shock`."""
        edges = {"viscous": (2e-2, 1e-1), "medium": (5e-3, 2e-2), "shock": (2e-3, 5e-3)}
        return {name: {"viscosity": {"low": a, "high": b, "scale": "log"}} for name, (a, b) in edges.items()}

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw the components, one after the other."""
        draw = self.start.draw
        return {
            "velocity": np.stack(
                [draw(rng, self.resolution, points="periodic", ndim=self.dim) for _ in range(self.dim)]
            )
        }

    def equation(self, box: "PeriodicBox", scalars: "Mapping[str, Tensor]") -> Semilinear:
        """L = -ν |k|²; N = -½ (u²)_x in one dimension, -(u·∇)u in more."""
        symbol = scalars["viscosity"] * box.laplacian
        if box.dim == 1:
            flux = -0.5 * box.derivatives[0]
            return Semilinear(symbol=symbol, nonlinear=lambda v: flux * box.forward(box.backward(v).square()))

        def nonlinear(v: "Tensor") -> "Tensor":
            velocity = box.backward(v)
            total = -velocity[:, :1] * box.backward(box.derivatives[0] * v)
            for axis in range(1, box.dim):
                total -= velocity[:, axis : axis + 1] * box.backward(box.derivatives[axis] * v)
            return box.forward(total)

        return Semilinear(symbol=symbol, nonlinear=nonlinear)
