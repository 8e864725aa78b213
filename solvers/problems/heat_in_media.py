"""Heat that spreads in a porous solid: conduction that varies in space and grows with the temperature."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from headrace.platform.fields import FieldSpec, Grid
from headrace.platform.spec import FieldError
from headrace.solvers.evolution.evolution import Draw
from headrace.solvers.evolution.implicit import AbstractImplicit, Semidiscrete, Unknowns
from headrace.solvers.problems.conduction import Conduction, Interior
from headrace.solvers.random_inputs.parameters import Scalar, Uniform, bounds
from headrace.solvers.random_inputs.permeability import AnyPermeability, LogNormal
from headrace.solvers.random_inputs.random_fields import Gaussian
from headrace.solvers.systems.arrays import representable
from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, Structure


class HeatInMedia(AbstractImplicit):
    """Heat that spreads in a porous solid, T_t = ∇·((a(x) + β T²) ∇T) + f on the unit square, T = 0 on the boundary.

    Conduction a through the skeleton, which varies, and radiation through the pores, which grows with the temperature.
    In the long run T is the solution of `NonlinearDiffusion`.

    The grid has `resolution` points a side, the boundary included; the unknowns are the (resolution - 2)² interior
    points. `Conduction` says how they are coupled, in second order where a is smooth. Steps are implicit (see
    `AbstractImplicit`), as explicit ones of a fine grid would be thousands. A stage is a symmetric positive definite
    system, the same in all steps of one length, where β = 0; and else some of them: Newton's method with the medium
    frozen (`Conduction.frozen`) takes a few iterations more than with its Jacobian, each of which costs far less
    (docs/benchmarks); where it is slow, in long steps of hot samples, the Jacobian takes over.

    Inputs are `temperature` at time 0, a random field that falls to 0 at the boundary, and `conductivity` a; outputs
    the temperature at the output times; the parameters β and f. All is dimensionless.

    Good values: resolution 33 to 129 (of accuracies that need finer grids, n points become 2 n - 1); horizon 0.05, when
    little more than a third of the slowest mode is left at a = 1 and β = 0. Levels `linear` (β = 0 in smooth media),
    `medium` (β from 0.3 to 3) and `rough` (β from 10 to 100, in media whose a spreads over a factor 1000).

    Attributes:
        resolution: points of the grid along each axis, boundary included.
        horizon: the last output time, from 0 on; dimensionless, as all of this equation.
        coefficient: how the coefficient a is drawn.
        strength: β, by which the coefficient grows with the solution; 0 or more.
        source: the source f, the same everywhere.
        start: the logarithm of the temperature at time 0, before it is made to fall to 0 at the boundary.
    """

    kind: Literal["heat_in_media"] = "heat_in_media"
    resolution: Annotated[int, Field(ge=5, le=4097)] = 65
    horizon: Annotated[float, Field(gt=0.0, le=1e10)] = 0.05
    coefficient: AnyPermeability = LogNormal()
    strength: Scalar = Uniform(low=0.3, high=3.0, scale="log")
    source: Scalar = 0.0
    start: Gaussian = Gaussian(std=0.5, length_scale=0.2, smoothness=2.5)

    @model_validator(mode="after")
    def _no_negative_strength(self) -> Self:
        least = bounds(self.strength)[0]
        if least < 0.0:
            raise FieldError("strength", f"{least:g}", "0 or more, so that the conductivity a + β T² stays positive")
        return self

    @property
    def structure(self) -> Structure:
        """Positive definite operators in the plane."""
        return Structure(positive_definite=True, diffusion=2, drifts=True)

    @property
    def grid(self) -> Grid:
        """The points, boundary included."""
        return Grid(shape=(self.resolution,) * 2, extent=(1.0, 1.0), periodic=(False, False))

    @property
    def state(self) -> tuple[FieldSpec, ...]:
        """`temperature`."""
        return (FieldSpec(name="temperature"),)

    @property
    def constants(self) -> tuple[FieldSpec, ...]:
        """`conductivity`."""
        return (FieldSpec(name="conductivity"),)

    @property
    def scalars(self) -> Mapping[str, Scalar]:
        """`strength` and `source`."""
        return {"strength": self.strength, "source": self.source}

    @property
    def default_step(self) -> float:
        """The shortest interval between outputs, or half of it at β = 100: what is hot cools the faster at first."""
        return self.shortest_interval / max(1.0, math.log10(max(bounds(self.strength)[1], 1.0)))

    def levels(self) -> Mapping[str, Mapping[str, Any]]:
        """`linear`, `medium` and `rough`: stronger and stronger nonlinearity in rougher and rougher media."""
        log_normal = {"kind": "log_normal"}
        return {
            "linear": {
                "strength": 0.0,
                "coefficient": {**log_normal, "length_scale": 0.3, "smoothness": 2.5, "log_std": 0.5},
            },
            "medium": {
                "strength": {"low": 0.3, "high": 3.0, "scale": "log"},
                "coefficient": {**log_normal, "length_scale": 0.2, "smoothness": 1.5, "log_std": 1.0},
            },
            "rough": {
                "strength": {"low": 10.0, "high": 100.0, "scale": "log"},
                "coefficient": {**log_normal, "length_scale": 0.1, "smoothness": 1.5, "log_std": 1.5},
            },
        }

    def refined(self, refinement: int) -> Self:
        """The same equation at points so many times as near: those of this grid are among them."""
        return self if refinement == 1 else self.overridden({"resolution": refinement * (self.resolution - 1) + 1})

    def restrict(self, fields: Float64[np.ndarray, "..."], refinement: int) -> Float64[np.ndarray, "..."]:
        """The values at the points that both grids share."""
        return fields[..., ::refinement, ::refinement]

    def initial(
        self, rng: np.random.Generator, scalars: Mapping[str, float]
    ) -> dict[str, Float64[np.ndarray, "components *grid"]]:
        """Draw the conductivity and the temperature at time 0."""
        conductivity = self.coefficient.draw(rng, self.resolution)
        hump = np.sin(np.pi * np.arange(self.resolution) / (self.resolution - 1))
        hump[-1] = 0.0
        temperature = representable(np.exp(self.start.draw(rng, self.resolution)) * np.outer(hump, hump))
        return {"temperature": temperature[np.newaxis], "conductivity": conductivity[np.newaxis]}

    def semidiscrete(self, draw: Draw) -> "HeatAtPoints":
        """The temperatures of the interior points."""
        return HeatAtPoints(
            draw.fields["conductivity"][0],
            draw.fields["temperature"][0],
            draw.scalars["strength"],
            draw.scalars["source"],
        )


class HeatAtPoints(Semidiscrete):
    """h² u' = h² f - (A u + β L u³ / 3) at the interior points."""

    def __init__(
        self,
        conductivity: Float64[np.ndarray, "points points"],
        temperature: Float64[np.ndarray, "points points"],
        strength: float,
        source: "float | Interior",
    ) -> None:
        """Take a and T at time 0 at all points, β, and f, one number or at the interior points."""
        self.is_linear = strength == 0.0
        self._conduction, self._feature = Conduction(conductivity, strength), conductivity
        self._start = temperature[1:-1, 1:-1]
        self._area = (len(temperature) - 1.0) ** -2
        self._heating = self._area * source

    def start(self) -> Unknowns:
        """The interior temperatures."""
        return self._start.ravel()

    def state(self, u: Unknowns) -> Float64[np.ndarray, "1 points points"]:
        """Those among the zeros of the boundary."""
        return np.pad(u.reshape(self._start.shape), 1)[np.newaxis]

    def stage(self, size: float, known: Unknowns, guess: Unknowns) -> NonlinearSystem:
        """A u + β L u³ / 3 + (h² / size) (u - known) = h² f."""
        conduction, shape, reaction = self._conduction, self._start.shape, self._area / size
        rhs = reaction * known.reshape(shape) + self._heating

        def residual(u: Unknowns) -> Unknowns:
            inside = u.reshape(shape)
            out = conduction.outflow(inside)
            out += reaction * inside
            out -= rhs
            return out.ravel()

        def linearize(u: Unknowns) -> LinearSystem:
            operator = conduction.frozen(u.reshape(shape), reaction)
            return LinearSystem.from_operator(
                operator, -residual(u), positive_definite=True, drifts=True, feature=self._feature
            )

        def exactly(u: Unknowns) -> LinearSystem:
            matrix = conduction.jacobian(u.reshape(shape), reaction)
            return LinearSystem.from_matrix(matrix, -residual(u), drifts=True, feature=self._feature)

        # A residual is small if it is so beside the terms of the equation.
        terms = np.linalg.norm(rhs) + np.linalg.norm(conduction.outflow(guess.reshape(shape)))
        return NonlinearSystem(
            guess=guess,
            residual=residual,
            linearize=linearize,
            structure=Structure(positive_definite=True, diffusion=2, drifts=True),
            scale=max(float(terms), np.finfo(np.float64).tiny),
            feature=self._feature,
            exactly=None if self.is_linear else exactly,
        )
