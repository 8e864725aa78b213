"""The compiled part of a periodic box in two dimensions: what lies between the transforms along its two axes.

Layout. A transform along the first axis has that axis last in memory, "fields kept_y points_x"; one along the second,
of which half is there, "fields points_x half_y". A spectrum of kept waves is "fields kept_x row", its rows filled up
with zeros. Of the first axis the waves 0 to m and -m to -1 are kept, of the second 0 to m.
"""

import numpy as np
from jaxtyping import Complex
from numba import njit

type Turned = Complex[np.ndarray, "fields kept_y points_x"]
type Halves = Complex[np.ndarray, "fields points_x half_y"]
type Spectra = Complex[np.ndarray, "fields kept_x row"]

_OPTIONS = {"nogil": True, "error_model": "numpy", "cache": True}


@njit(**_OPTIONS)
def turn(halves: Halves, turned: Turned) -> None:
    """After the transform along the second axis: take its kept waves, for that along the first."""
    for field in range(len(halves)):
        for k in range(turned.shape[1]):
            for i in range(turned.shape[2]):
                turned[field, k, i] = halves[field, i, k]


@njit(**_OPTIONS)
def turn_back(turned: Turned, halves: Halves) -> None:
    """Before the transform along the second axis: put its kept waves before zeros."""
    num_y = turned.shape[1]
    for field in range(len(halves)):
        for i in range(halves.shape[1]):
            for k in range(num_y):
                halves[field, i, k] = turned[field, k, i]
            halves[field, i, num_y:] = 0.0


@njit(**_OPTIONS)
def keep(turned: Turned, kept: Spectra) -> None:
    """After the transform along the first axis: take its kept waves."""
    _, num_y, n = turned.shape
    m = kept.shape[1] // 2
    for field in range(len(turned)):
        for i in range(2 * m + 1):
            j = i if i <= m else n - 2 * m - 1 + i
            for k in range(num_y):
                kept[field, i, k] = turned[field, k, j]
            kept[field, i, num_y:] = 0.0


@njit(**_OPTIONS)
def pad(kept: Spectra, scale: float, turned: Turned) -> None:
    """Before the transform along the first axis: put its kept waves, times a scale, among zeros."""
    _, num_y, n = turned.shape
    m = kept.shape[1] // 2
    for field in range(len(kept)):
        for k in range(num_y):
            for i in range(m + 1):
                turned[field, k, i] = scale * kept[field, i, k]
            turned[field, k, m + 1 : n - m] = 0.0
            for i in range(m):
                turned[field, k, n - m + i] = scale * kept[field, m + 1 + i, k]
