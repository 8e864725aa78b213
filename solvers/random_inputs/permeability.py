"""Random permeability fields: log-normal and two-phase."""

from abc import abstractmethod
from statistics import NormalDist
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.platform.spec import Spec
from headrace.solvers.random_inputs.random_fields import LengthScale, Smoothness, matern_field
from headrace.solvers.systems.arrays import representable

Positive = Annotated[float, Field(gt=1e-20, le=1e20)]


class AbstractPermeability(Spec):
    """A random field of positive permeabilities on the unit square or the unit cube."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, num_points: int, ndim: int = 2) -> Float64[np.ndarray, "..."]:
        """Draw the field at the nodes of a grid of `num_points` a side, in values that single precision holds."""


class LogNormal(AbstractPermeability):
    """Permeability a = median · exp(log_std · g), with g a Gaussian field of unit variance and Matérn correlation.

    Good values: length_scale 0.1 to 0.3, smoothness 1.5, log_std 0.5 (mild) to 1.5 (values spread over a factor 1000).

    Attributes:
        length_scale: correlation length as a fraction of the side.
        smoothness: Matérn ν of the logarithm, which is differentiable ⌈ν⌉ - 1 times.
        log_std: standard deviation of the logarithm.
        median: the value that half of the points exceed.
    """

    kind: Literal["log_normal"] = "log_normal"
    length_scale: LengthScale = 0.2
    smoothness: Smoothness = 1.5
    log_std: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    median: Positive = 1.0

    def draw(self, rng: np.random.Generator, num_points: int, ndim: int = 2) -> Float64[np.ndarray, "..."]:
        """Draw the field."""
        field = matern_field(rng, num_points, length_scale=self.length_scale, smoothness=self.smoothness, ndim=ndim)
        # One array for all steps: on the grids of a data set it stays in the cache.
        field *= self.log_std
        np.exp(field, out=field)
        if self.median != 1.0:
            field *= self.median
        return representable(field)


class TwoPhase(AbstractPermeability):
    """Permeability of two materials: `high` where a Gaussian field exceeds a threshold, `low` elsewhere.

    Good values: 3 and 12 (the usual benchmark), 1 and 100 (hard).

    Attributes:
        low: permeability of the first material.
        high: permeability of the second material.
        fraction: expected share of the second material.
        length_scale: correlation length of the field behind the threshold, as a fraction of the side.
        smoothness: its Matérn ν; the interfaces are rougher the smaller it is.
    """

    kind: Literal["two_phase"] = "two_phase"
    low: Positive = 3.0
    high: Positive = 12.0
    fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    length_scale: LengthScale = 0.2
    smoothness: Smoothness = 1.5

    def draw(self, rng: np.random.Generator, num_points: int, ndim: int = 2) -> Float64[np.ndarray, "..."]:
        """Draw the field."""
        gaussian = matern_field(rng, num_points, length_scale=self.length_scale, smoothness=self.smoothness, ndim=ndim)
        threshold = NormalDist().inv_cdf(1.0 - self.fraction)
        return representable(np.where(gaussian > threshold, self.high, self.low))


AnyPermeability = Annotated[LogNormal | TwoPhase, Field(discriminator="kind")]
