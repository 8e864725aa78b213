"""The compiled part of discretisation: conductances of faces from a coefficient at the points, in one pass."""

import numpy as np
from jaxtyping import Float64
from numba import njit

type Row = Float64[np.ndarray, " points"]
type Array = Float64[np.ndarray, "..."]

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def _harmonic_means(a: Row, b: Row, out: Row) -> None:
    for k in range(len(out)):
        out[k] = 2.0 * (a[k] * b[k] / (a[k] + b[k]))


@njit(**_OPTIONS)
def harmonic_2d(a: Array, cx: Array, cy: Array) -> None:
    """Harmonic means of neighbours: the faces around the interior points of a square.

    Args:
        a: the coefficient, n x n points.
        cx: out, (n - 1) x (n - 2) faces.
        cy: out, (n - 2) x (n - 1) faces.
    """
    n = len(a)
    for i in range(n - 1):
        _harmonic_means(a[i, 1 : n - 1], a[i + 1, 1 : n - 1], cx[i])
        if i > 0:
            _harmonic_means(a[i, : n - 1], a[i, 1:], cy[i - 1])


@njit(**_OPTIONS)
def harmonic_3d(a: Array, cx: Array, cy: Array, cz: Array) -> None:
    """The same around the interior points of a cube; n - 1 faces along the axis of an array, n - 2 along the others."""
    n = len(a)
    for i in range(n - 1):
        for j in range(n - 1):
            if j > 0:
                _harmonic_means(a[i, j, 1 : n - 1], a[i + 1, j, 1 : n - 1], cx[i, j - 1])
            if i > 0:
                _harmonic_means(a[i, j, 1 : n - 1], a[i, j + 1, 1 : n - 1], cy[i - 1, j])
            if i > 0 and j > 0:
                _harmonic_means(a[i, j, : n - 1], a[i, j, 1:], cz[i - 1, j - 1])
