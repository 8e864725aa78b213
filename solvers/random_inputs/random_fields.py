"""Stationary Gaussian random fields on the unit square and the unit cube."""

import functools
import math
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import Field

from headrace.platform.spec import Spec

Points = Literal["nodes", "cells", "periodic"]
"""Where the n points of an axis lie: at i / (n - 1), at (i + ½) / n, or at i / n of a periodic field."""

LengthScale = Annotated[float, Field(ge=0.02, le=1.0)]
Smoothness = Annotated[float, Field(ge=1.0, le=10.0)]

_DISCARDED_VARIANCE = 1e-3
# In three dimensions the number of coefficients is its cube: 97³ are drawn in a tenth of a second.
_MAX_WAVES = {1: 1024, 2: 96, 3: 48}
# Fields are rounded to this: math libraries and instruction sets differ in the last bits of cos and of matrix products,
# and the same sample must come out on every machine.
_QUANTUM = 2.0**-20


class Gaussian(Spec):
    """A Gaussian random field: mean 0, standard deviation `std`, Matérn correlation.

    Good values: length_scale 0.1 to 0.4, smoothness 1.5 to 2.5.

    Attributes:
        std: standard deviation, in the unit of the field that it describes.
        length_scale: correlation length as a fraction of the side.
        smoothness: Matérn ν; the field is ⌈ν⌉ - 1 times differentiable.
    """

    std: Annotated[float, Field(ge=0.0, le=1e10)] = 1.0
    length_scale: LengthScale = 0.2
    smoothness: Smoothness = 1.5

    def draw(
        self, rng: np.random.Generator, num_points: int, *, points: Points = "nodes", ndim: int = 2
    ) -> Float64[np.ndarray, "..."]:
        """Draw the field on the unit interval, square or cube; see `matern_field`."""
        field = matern_field(
            rng,
            num_points,
            length_scale=self.length_scale,
            smoothness=self.smoothness,
            ndim=ndim,
            points=points,
        )
        field *= self.std
        return field


def matern_field(
    rng: np.random.Generator,
    num_points: int,
    *,
    length_scale: float,
    smoothness: float,
    ndim: int = 2,
    points: Points = "nodes",
) -> Float64[np.ndarray, "..."]:
    """Draw a Gaussian field of mean 0, variance 1 and Matérn correlation on a uniform grid.

    The spectral density of the Matérn family in d dimensions is S(k) ∝ (κ² + |k|²)^-(ν + d/2), κ = √(2ν) / ℓ
    (Whittle 1954; Lindgren, Rue & Lindström 2011, Sec. 2). The field is the Fourier series with that spectrum on a
    torus of edge 1 + 4 ℓ, which the unit square does not fill, so that opposite edges are (nearly) uncorrelated; the
    torus of a periodic field has edge 1. The series stops where the discarded variance is 0.1 % (at most 96 waves per
    axis in two dimensions, 48 in three) and is normalised to unit variance.

    It is a fixed set of waves, evaluated by one matrix product an axis: any grid will do, a finer grid shows the same
    field, and nothing is cheaper on the grids of a data set.

    Args:
        rng: where the coefficients come from; the number drawn depends on all arguments but `num_points`.
        num_points: points a side.
        length_scale: correlation length ℓ as a fraction of the side.
        smoothness: ν; the field is ⌈ν⌉ - 1 times differentiable.
        ndim: d, from 1 to 3.
        points: where on an axis the points lie, and whether the field is periodic.

    Returns:
        The field with `ndim` axes of `num_points` each, rounded to 2⁻²⁰, in an array of its own.
    """
    period = 1.0 if points == "periodic" else 1.0 + 4.0 * length_scale
    amplitude = _amplitude(length_scale, smoothness, ndim, period)
    waves = _waves(num_points, amplitude.shape[0] // 2, period, points)
    field = rng.standard_normal(amplitude.shape)
    field *= amplitude
    if ndim == 2:
        field = waves.T @ field @ waves
    else:
        # Each product turns the first axis into points and puts it last: after all of them the order is the first one.
        for _ in range(ndim):
            field = np.tensordot(field, waves, axes=(0, 0))
    np.rint(field, out=field)
    field *= _QUANTUM
    return field


@functools.lru_cache(maxsize=32)
def _amplitude(length_scale: float, smoothness: float, ndim: int, period: float) -> Float64[np.ndarray, "..."]:
    """Standard deviation of every coefficient, in quanta; along an axis the waves are 1, cos, sin, cos, sin, ..."""
    kappa = math.sqrt(2.0 * smoothness) / length_scale
    # The integral of S over |k| > c is I_x(ν, d/2) of the whole, x = 1 / (1 + (c/κ)²), with the incomplete beta
    # function I: x^ν in two dimensions, and x^ν / (ν B(ν, d/2)) to leading order in others.
    lead = 1.0
    if ndim != 2:
        d = 0.5 * ndim
        lead = smoothness * math.gamma(smoothness) * math.gamma(d) / math.gamma(smoothness + d)
    cutoff = kappa * math.sqrt((_DISCARDED_VARIANCE * lead) ** (-1.0 / smoothness) - 1.0)
    num_waves = min(max(math.ceil(cutoff * period / (2.0 * math.pi)), 2), _MAX_WAVES[ndim])
    k = 2.0 * math.pi / period * np.repeat(np.arange(num_waves + 1), 2)[1:]
    square, both = np.full((1,) * ndim, kappa**2), np.ones((1,) * ndim)
    for axis in range(ndim):
        shape = [1] * ndim
        shape[axis] = -1
        square = square + k.reshape(shape) ** 2
        # A cosine and a sine stand for the waves k and -k together, and cos² + sin² = 1 at every point; k = 0 is alone.
        both = both * np.where(k == 0.0, 1.0, 2.0).reshape(shape)
    density = both * square ** -(smoothness + 0.5 * ndim)
    variance = np.sum(density / both)
    amplitude = np.sqrt(density / variance) / _QUANTUM
    amplitude.setflags(write=False)
    return amplitude


@functools.lru_cache(maxsize=32)
def _waves(num_points: int, num_waves: int, period: float, points: Points) -> Float64[np.ndarray, "waves points"]:
    if points == "nodes":
        positions = np.linspace(0.0, 1.0, num_points)
    else:
        positions = (np.arange(num_points) + (0.5 if points == "cells" else 0.0)) / num_points
    phase = 2.0 * math.pi / period * np.outer(positions, np.arange(num_waves + 1))
    waves = np.empty((2 * num_waves + 1, num_points))
    waves[0] = 1.0
    waves[1::2] = np.cos(phase[:, 1:]).T
    waves[2::2] = np.sin(phase[:, 1:]).T
    waves.setflags(write=False)
    return waves


def matern_field_at(
    rng: np.random.Generator,
    positions: Float64[np.ndarray, "num_points 2"],
    *,
    length_scale: float,
    smoothness: float,
) -> Float64[np.ndarray, " num_points"]:
    """Draw the field of `matern_field` at scattered points: equal generators give the same field as on a grid there.

    Args:
        rng: where the coefficients come from.
        positions: points of the unit square.
        length_scale: correlation length ℓ as a fraction of the side.
        smoothness: ν.
    """
    period = 1.0 + 4.0 * length_scale
    amplitude = _amplitude(length_scale, smoothness, 2, period)
    key = np.ascontiguousarray(positions, dtype=np.float64).tobytes()
    x, y = _waves_at(key, amplitude.shape[0] // 2, period)
    field = rng.standard_normal(amplitude.shape)
    field *= amplitude
    # Σ over i, j of x_i(p) f_ij y_j(p): one matrix product, then a sum for each point.
    values = np.einsum("jp,jp->p", field.T @ x, y)
    # As there, amplitudes are in quanta.
    return np.rint(values) * _QUANTUM


@functools.lru_cache(maxsize=8)
def _waves_at(
    positions: bytes, num_waves: int, period: float
) -> tuple[Float64[np.ndarray, "waves points"], Float64[np.ndarray, "waves points"]]:
    """The waves of both axes at points given by their bytes, as problems have the same points for every sample."""
    found = []
    for along in np.frombuffer(positions).reshape(-1, 2).T:
        phase = 2.0 * math.pi / period * np.outer(np.arange(1, num_waves + 1), along)
        waves = np.ones((2 * num_waves + 1, len(along)))
        waves[1::2] = np.cos(phase)
        waves[2::2] = np.sin(phase)
        found.append(waves)
    return found[0], found[1]
