"""The compiled part of triangular preconditioners: factor, scale, solve, multiply.

Matrices are compressed rows with ascending columns. `values` holds both factors of M = L D U, whose triangles have 1 on
their diagonals: the strictly lower part of a row is L's, the strictly upper part U's, and at `diagonal` stands D, whose
reciprocals are `inverse`. Dividing U's rows by D beforehand takes the division, and one multiplication, out of the
chain of dependences that bounds the speed of a solve.
"""

import numpy as np
from jaxtyping import Float64, Int32
from numba import njit

type Ints = Int32[np.ndarray, " entries"]
type Numbers = Float64[np.ndarray, " entries"]

# Sums stay in their order: rows are short, and reordered sums become vector code that costs more than it saves.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_U0, _U1 = np.uint64(0), np.uint64(1)


@njit(**_OPTIONS)
def factor(indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, inverse: Numbers) -> int:
    """Factor `values` in place, M = L (D U) with the pattern of A; return the first row without a usable pivot, or -1.

    ILU(0), Algorithm 10.4 of Saad, "Iterative methods for sparse linear systems", second edition (2003).
    """
    n = len(indptr) - 1
    for i in range(n):
        diagonal[i] = -1
        for a in range(indptr[i], indptr[i + 1]):
            k = indices[a]
            if k >= i:
                if k == i:
                    diagonal[i] = a
                break
            values[a] *= inverse[k]
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
        inverse[i] = 1.0 / values[diagonal[i]]
    for i in range(n):
        for a in range(diagonal[i] + 1, indptr[i + 1]):
            values[a] *= inverse[i]
    return -1


@njit(**_OPTIONS)
def relax(indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, inverse: Numbers, omega: float) -> int:
    """Make `values`, which hold A, those of SSOR; return the first row whose diagonal is 0 or missing, or -1.

    M = ω/(2 - ω) (D/ω + L) D⁻¹ (D/ω + U) (Saad 2003, Sec. 10.2) = (I + ω L D⁻¹) [D / (ω (2 - ω))] (I + ω D⁻¹ U).
    """
    n = len(indptr) - 1
    for i in range(n):
        diagonal[i] = -1
        for a in range(indptr[i], indptr[i + 1]):
            if indices[a] == i:
                diagonal[i] = a
        if diagonal[i] < 0 or values[diagonal[i]] == 0.0:
            return i
        inverse[i] = 1.0 / values[diagonal[i]]
    for i in range(n):
        for a in range(indptr[i], indptr[i + 1]):
            if a != diagonal[i]:
                values[a] *= omega * inverse[indices[a] if a < diagonal[i] else i]
    for i in range(n):
        values[diagonal[i]] /= omega * (2.0 - omega)
        inverse[i] *= omega * (2.0 - omega)
    return -1


@njit(**_OPTIONS)
def solve(
    indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, inverse: Numbers, x: Numbers, out: Numbers
) -> None:
    """Out = U⁻¹ D⁻¹ L⁻¹ x; `out` may be `x`."""
    # Indices are unsigned, because Numba asks of every signed one whether it is negative.
    n = np.uint64(len(x))
    for i in range(n):
        total = np.float64(x[i])
        for a in range(np.uint64(indptr[i]), np.uint64(diagonal[i])):
            total -= values[a] * out[np.uint64(indices[a])]
        out[i] = total
    row = n
    while row > _U0:
        row -= _U1
        total = out[row] * inverse[row]
        # From the last column down: the neighbour that has just been computed comes last.
        first, entry = np.uint64(diagonal[row]), np.uint64(indptr[row + _U1]) - _U1
        while entry > first:
            total -= values[entry] * out[np.uint64(indices[entry])]
            entry -= _U1
        out[row] = total


@njit(**_OPTIONS)
def multiply(
    indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, inverse: Numbers, x: Numbers, out: Numbers
) -> None:
    """Out = L D U x; `out` must not be `x`."""
    n = np.uint64(len(x))
    for i in range(n):
        total = np.float64(x[i])
        for a in range(np.uint64(diagonal[i]) + _U1, np.uint64(indptr[i + _U1])):
            total += values[a] * x[np.uint64(indices[a])]
        out[i] = total * values[np.uint64(diagonal[i])]
    # From the last row up: row i of L needs the values of D U x before it, which are still untouched.
    row = n
    while row > _U0:
        row -= _U1
        total = out[row]
        for a in range(np.uint64(indptr[row]), np.uint64(diagonal[row])):
            total += values[a] * out[np.uint64(indices[a])]
        out[row] = total
