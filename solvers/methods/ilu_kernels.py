"""The compiled part of incomplete LU: factor, solve, multiply, on compressed rows with ascending columns.

`values` holds both factors: the strictly lower part is L, whose diagonal is 1, the rest is U; `diagonal` says where in
`values` the diagonal of each row stands.
"""

import numpy as np
from jaxtyping import Float64, Int32
from numba import njit

type Ints = Int32[np.ndarray, " entries"]
type Numbers = Float64[np.ndarray, " entries"]

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}


@njit(**_OPTIONS)
def factor(indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints) -> int:
    """Factor `values` in place; return the first row without a usable pivot, or -1."""
    n = len(indptr) - 1
    for i in range(n):
        diagonal[i] = -1
        for a in range(indptr[i], indptr[i + 1]):
            k = indices[a]
            if k >= i:
                if k == i:
                    diagonal[i] = a
                break
            values[a] /= values[diagonal[k]]
            # Row i minus l_ik times row k, where row i has entries: both rows ascend.
            b, end = a + 1, indptr[i + 1]
            for c in range(diagonal[k] + 1, indptr[k + 1]):
                while b < end and indices[b] < indices[c]:
                    b += 1
                if b == end:
                    break
                if indices[b] == indices[c]:
                    values[b] -= values[a] * values[c]
        if diagonal[i] < 0 or values[diagonal[i]] == 0.0:
            return i
    return -1


@njit(**_OPTIONS)
def solve(indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, x: Numbers, out: Numbers) -> None:
    """Out = U⁻¹ L⁻¹ x."""
    n = len(indptr) - 1
    for i in range(n):
        total = x[i]
        for a in range(indptr[i], diagonal[i]):
            total -= values[a] * out[indices[a]]
        out[i] = total
    for i in range(n - 1, -1, -1):
        total = out[i]
        for a in range(diagonal[i] + 1, indptr[i + 1]):
            total -= values[a] * out[indices[a]]
        out[i] = total / values[diagonal[i]]


@njit(**_OPTIONS)
def multiply(indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, x: Numbers, out: Numbers) -> None:
    """Out = L U x."""
    n = len(indptr) - 1
    for i in range(n):
        total = 0.0
        for a in range(diagonal[i], indptr[i + 1]):
            total += values[a] * x[indices[a]]
        out[i] = total
    # From the last row up: row i of L needs the values of U x before it, which are still untouched.
    for i in range(n - 1, -1, -1):
        total = out[i]
        for a in range(indptr[i], diagonal[i]):
            total += values[a] * out[indices[a]]
        out[i] = total
