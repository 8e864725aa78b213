"""Stationary Gaussian random fields on the unit square."""

import functools
import math

import numpy as np
from jaxtyping import Float64

_DISCARDED_VARIANCE = 1e-3
_MAX_WAVES = 96
# Fields are rounded to this: math libraries and instruction sets differ in the last bits of cos and of matrix products,
# and the same sample must come out on every machine.
_QUANTUM = 2.0**-20


def matern_field(
    rng: np.random.Generator, num_points: int, *, length_scale: float, smoothness: float
) -> Float64[np.ndarray, "num_points num_points"]:
    """Draw a Gaussian field of mean 0, variance 1 and Matérn correlation at the nodes of a uniform grid.

    The spectral density of the Matérn family in two dimensions is S(k) ∝ (κ² + |k|²)^-(ν + 1), κ = √(2ν) / ℓ
    (Whittle 1954; Lindgren, Rue & Lindström 2011, Sec. 2). The field is the Fourier series with that spectrum on a
    torus of edge 1 + 4 ℓ, which the unit square does not fill, so that opposite edges are (nearly) uncorrelated. The
    series stops where the discarded variance is 0.1 % (at most 96 waves per axis) and is normalised to unit variance.

    It is a fixed set of waves, evaluated by two matrix products: any grid will do, a finer grid shows the same field,
    and nothing is cheaper on the grids of a data set.

    Args:
        rng: where the coefficients come from; the number drawn depends on length scale and smoothness only.
        num_points: points a side, both ends included.
        length_scale: correlation length ℓ as a fraction of the side.
        smoothness: ν; the field is ⌈ν⌉ - 1 times differentiable.
    """
    amplitude = _amplitude(length_scale, smoothness)
    waves = _waves(num_points, amplitude.shape[0] // 2, _period(length_scale))
    field = waves @ (amplitude * rng.standard_normal(amplitude.shape)) @ waves.T
    return np.round(field / _QUANTUM) * _QUANTUM


def _period(length_scale: float) -> float:
    return 1.0 + 4.0 * length_scale


@functools.lru_cache(maxsize=32)
def _amplitude(length_scale: float, smoothness: float) -> Float64[np.ndarray, "waves waves"]:
    """Standard deviation of every coefficient; the waves of an axis are ordered 1, cos, sin, cos, sin, ..."""
    kappa = math.sqrt(2.0 * smoothness) / length_scale
    # The integral of S over |k| > c is (1 + (c/κ)²)^-ν of the whole.
    cutoff = kappa * math.sqrt(_DISCARDED_VARIANCE ** (-1.0 / smoothness) - 1.0)
    period = _period(length_scale)
    num_waves = min(max(math.ceil(cutoff * period / (2.0 * math.pi)), 2), _MAX_WAVES)
    k = 2.0 * math.pi / period * np.repeat(np.arange(num_waves + 1), 2)[1:]
    # A cosine and a sine stand for the waves k and -k together, and cos² + sin² = 1 at every point; k = 0 is alone.
    both = np.where(k == 0.0, 1.0, 2.0)
    density = both[:, None] * both[None, :] * (kappa**2 + k[:, None] ** 2 + k[None, :] ** 2) ** -(smoothness + 1.0)
    variance = np.sum(density / (both[:, None] * both[None, :]))
    amplitude = np.sqrt(density / variance)
    amplitude.setflags(write=False)
    return amplitude


@functools.lru_cache(maxsize=32)
def _waves(num_points: int, num_waves: int, period: float) -> Float64[np.ndarray, "points waves"]:
    phase = 2.0 * math.pi / period * np.outer(np.linspace(0.0, 1.0, num_points), np.arange(num_waves + 1))
    waves = np.empty((num_points, 2 * num_waves + 1))
    waves[:, 0] = 1.0
    waves[:, 1::2] = np.cos(phase[:, 1:])
    waves[:, 2::2] = np.sin(phase[:, 1:])
    waves.setflags(write=False)
    return waves
