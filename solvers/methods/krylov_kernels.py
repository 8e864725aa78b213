"""The compiled part of GCRO-DR and of recycled conjugate gradients: everything that is done once an iteration.

Matrices come as the three arrays of compressed rows, preconditioners as those of `ilu_kernels`; a preconditioner
whose `indptr` is empty is the diagonal one, x ↦ inverse x. Bases are stored one row a vector, in single or in double
precision; all arithmetic is in double precision.

Bases of 20 to 40 vectors do not fit into a core's own cache, so that orthogonalisation is bound by the memory it moves.
Hence single-precision storage, four vectors a pass, and the second pass of Gram-Schmidt from the end backwards, which
finds the end still in the cache.
"""

import numpy as np
from jaxtyping import Float, Float64, Int32
from numba import njit

from headrace.solvers.methods import ilu_kernels

type Ints = Int32[np.ndarray, " entries"]
type Numbers = Float64[np.ndarray, " entries"]
type Vector = Float64[np.ndarray, " unknowns"]
type Basis = Float[np.ndarray, "vectors unknowns"]

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
# Sums over unknowns may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_SUMS = {**_OPTIONS, "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
_U0, _U1, _U2, _U3, _U4 = (np.uint64(i) for i in range(5))
# 8 KB of a double-precision vector: a quarter of the innermost cache.
_CHUNK = np.uint64(1024)
# Below this fraction of its length a vector that was orthogonalised once is orthogonalised again (Daniel, Gragg,
# Kaufman & Stewart 1976 ask for 0.7; storage in single precision leaves 1e-7 in any case, which this brings to 1e-6).
_AGAIN = 0.1
# Growth of the residual at which conjugate gradients give up.
_HOPELESS = 1e6


@njit(**_OPTIONS, fastmath={"contract"})
def apply_matrix(indptr: Ints, indices: Ints, data: Numbers, x: Vector, out: Vector) -> None:
    """Out = A x."""
    for i in range(np.uint64(len(out))):
        total = 0.0
        for a in range(np.uint64(indptr[i]), np.uint64(indptr[i + _U1])):
            total += data[a] * x[np.uint64(indices[a])]
        out[i] = total


@njit(**_OPTIONS)
def precondition(
    indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, inverse: Numbers, x: Vector, out: Vector
) -> None:
    """Out = M⁻¹ x."""
    if len(indptr) > 0:
        ilu_kernels.solve(indptr, indices, values, diagonal, inverse, x, out)
    else:
        for i in range(len(x)):
            out[i] = x[i] * inverse[i]


@njit(**_OPTIONS)
def multiply(
    indptr: Ints, indices: Ints, values: Numbers, diagonal: Ints, inverse: Numbers, x: Vector, out: Vector
) -> None:
    """Out = M x."""
    if len(indptr) > 0:
        ilu_kernels.multiply(indptr, indices, values, diagonal, inverse, x, out)
    else:
        for i in range(len(x)):
            out[i] = x[i] / inverse[i]


@njit(**_SUMS)
def products(basis: Basis, count: int, w: Vector, out: Numbers) -> None:
    """Out[r] = basis[r] · w for the first `count` rows."""
    n, rows = np.uint64(len(w)), np.uint64(count)
    out[:rows] = 0.0
    first = _U0
    while first < n:
        last = min(first + _CHUNK, n)
        r = _U0
        while r + _U4 <= rows:
            b0, b1, b2, b3 = basis[r], basis[r + _U1], basis[r + _U2], basis[r + _U3]
            s0 = s1 = s2 = s3 = 0.0
            for i in range(first, last):
                s0 += b0[i] * w[i]
                s1 += b1[i] * w[i]
                s2 += b2[i] * w[i]
                s3 += b3[i] * w[i]
            out[r] += s0
            out[r + _U1] += s1
            out[r + _U2] += s2
            out[r + _U3] += s3
            r += _U4
        while r < rows:
            b0 = basis[r]
            s0 = 0.0
            for i in range(first, last):
                s0 += b0[i] * w[i]
            out[r] += s0
            r += _U1
        first = last


@njit(**_SUMS)
def subtract(basis: Basis, count: int, along: Numbers, w: Vector) -> float:
    """Subtract Σ along[r] basis[r] from w, over the first `count` rows; return w · w."""
    n, rows = np.uint64(len(w)), np.uint64(count)
    chunk = (n + _CHUNK - _U1) // _CHUNK
    square = 0.0
    while chunk > _U0:
        chunk -= _U1
        first = chunk * _CHUNK
        last = min(first + _CHUNK, n)
        r = _U0
        while r + _U4 <= rows:
            b0, b1, b2, b3 = basis[r], basis[r + _U1], basis[r + _U2], basis[r + _U3]
            a0, a1, a2, a3 = along[r], along[r + _U1], along[r + _U2], along[r + _U3]
            for i in range(first, last):
                w[i] -= a0 * b0[i] + a1 * b1[i] + a2 * b2[i] + a3 * b3[i]
            r += _U4
        while r < rows:
            b0, a0 = basis[r], along[r]
            for i in range(first, last):
                w[i] -= a0 * b0[i]
            r += _U1
        for i in range(first, last):
            square += w[i] * w[i]
    return square


@njit(**_SUMS)
def _square(w: Vector) -> float:
    total = 0.0
    for i in range(len(w)):
        total += w[i] * w[i]
    return total


@njit(**_OPTIONS)
def arnoldi(
    a_indptr: Ints, a_indices: Ints, a_data: Numbers,
    m_indptr: Ints, m_indices: Ints, m_values: Numbers, m_diagonal: Ints, m_inverse: Numbers,
    basis: Basis, num_recycled: int, steps: int, norm: float, target: float, resolution: float,
    h: Float64[np.ndarray, "directions+1 directions"],
) -> tuple[int, float]:  # fmt: skip
    """Arnoldi's method for (I - C Cᵀ) A M⁻¹, by classical Gram-Schmidt, repeated where much cancels.

    Args:
        a_indptr: with `a_indices` and `a_data`, A.
        a_indices: see `a_indptr`.
        a_data: see `a_indptr`.
        m_indptr: with the following four, M.
        m_indices: see `m_indptr`.
        m_values: see `m_indptr`.
        m_diagonal: see `m_indptr`.
        m_inverse: see `m_indptr`.
        basis: C in the first rows, then the first vector of V; the other vectors are added.
        num_recycled: rows of C.
        steps: how many vectors to add at most.
        norm: norm of the residual that belongs to the first vector.
        target: norm of the residual at which to stop.
        resolution: a new vector that is shorter than this fraction of its length before orthogonalisation is rounding.
        h: becomes, in its first columns, A M⁻¹ V = [C V₊] h.

    Returns:
        The number of steps, and the norm of the residual that the smallest combination leaves.
    """
    n = basis.shape[1]
    w, z = np.empty(n), np.empty(n)
    along, more = np.zeros(basis.shape[0]), np.zeros(basis.shape[0])
    # What is left of norm · e₁ after least squares with H (h below C) is its part along the left null vector of H: with
    # ω₀ = 1 the residual is norm / ||ω||, and ω grows by one entry a step. That needs no rotations.
    null = np.zeros(steps + 1)
    null[0] = 1.0
    size = 1.0
    for j in range(steps):
        count = num_recycled + j + 1
        vector = basis[count - 1]
        for i in range(n):
            w[i] = vector[i]
        precondition(m_indptr, m_indices, m_values, m_diagonal, m_inverse, w, z)
        apply_matrix(a_indptr, a_indices, a_data, z, w)
        before = np.sqrt(_square(w))
        products(basis, count, w, along)
        after = np.sqrt(subtract(basis, count, along, w))
        if after < _AGAIN * before:
            products(basis, count, w, more)
            after = np.sqrt(subtract(basis, count, more, w))
            for i in range(count):
                along[i] += more[i]
        for i in range(count):
            h[i, j] = along[i]
        for i in range(count, h.shape[0]):
            h[i, j] = 0.0
        vector = basis[count]
        if not after > resolution * before:
            for i in range(n):
                vector[i] = 0.0
            return j + 1, 0.0
        h[count, j] = after
        inverse = 1.0 / after
        total = 0.0
        for i in range(n):
            vector[i] = w[i] * inverse
        for i in range(j + 1):
            total += null[i] * h[num_recycled + i, j]
        null[j + 1] = -total * inverse
        size += null[j + 1] ** 2
        if norm <= target * np.sqrt(size):
            return j + 1, norm / np.sqrt(size)
    return steps, norm / np.sqrt(size)


@njit(**_OPTIONS)
def images(
    a_indptr: Ints, a_indices: Ints, a_data: Numbers,
    m_indptr: Ints, m_indices: Ints, m_values: Numbers, m_diagonal: Ints, m_inverse: Numbers,
    directions: Basis, by_a: Float64[np.ndarray, "k unknowns"], by_m: Float64[np.ndarray, "k unknowns"],
) -> None:  # fmt: skip
    """A and M applied to every direction."""
    u = np.empty(directions.shape[1])
    for r in range(directions.shape[0]):
        for i in range(len(u)):
            u[i] = directions[r, i]
        apply_matrix(a_indptr, a_indices, a_data, u, by_a[r])
        multiply(m_indptr, m_indices, m_values, m_diagonal, m_inverse, u, by_m[r])


@njit(**_OPTIONS)
def directions_of(
    m_indptr: Ints, m_indices: Ints, m_values: Numbers, m_diagonal: Ints, m_inverse: Numbers, y: Basis, out: Basis
) -> None:
    """Out = M⁻¹ y, row by row."""
    x, z = np.empty(y.shape[1]), np.empty(y.shape[1])
    for r in range(y.shape[0]):
        for i in range(len(x)):
            x[i] = y[r, i]
        precondition(m_indptr, m_indices, m_values, m_diagonal, m_inverse, x, z)
        for i in range(len(x)):
            out[r, i] = z[i]


@njit(**_SUMS)
def deflated_conjugate_gradients(
    a_indptr: Ints, a_indices: Ints, a_data: Numbers,
    m_indptr: Ints, m_indices: Ints, m_values: Numbers, m_diagonal: Ints, m_inverse: Numbers,
    w: Basis, a_w: Basis, inner: Float64[np.ndarray, "k k"],
    x: Vector, r: Vector, target: float, max_iterations: int,
    kept: Basis, steps: Float64[np.ndarray, "kept+1 3"], images_of_z: Float64[np.ndarray, "kept+1 k"],
) -> tuple[int, int, float]:  # fmt: skip
    """Conjugate gradients in the A-orthogonal complement of W; r starts orthogonal to W and ends as the residual.

    Args:
        a_indptr: with `a_indices` and `a_data`, A.
        a_indices: see `a_indptr`.
        a_data: see `a_indptr`.
        m_indptr: with the following four, M.
        m_indices: see `m_indptr`.
        m_values: see `m_indptr`.
        m_diagonal: see `m_indptr`.
        m_inverse: see `m_indptr`.
        w: W, one row a vector.
        a_w: A W.
        inner: (Wᵀ A W)⁻¹.
        x: what the solution is added to.
        r: the residual.
        target: its norm at which to stop.
        max_iterations: products with A after which to stop.
        kept: becomes the first directions p.
        steps: becomes, for each of them, the step α, pᵀ A p, and rᵀ z before the step; the row after the last has rᵀ z.
        images_of_z: becomes, likewise, (A W)ᵀ z before the step.

    Returns:
        Products with A, directions kept, and the norm of the residual; a negative norm means that A or M turned out not
        to be positive definite.
    """
    n, k = len(x), w.shape[0]
    p, q, z = np.empty(n), np.empty(n), np.empty(n)
    along, weights = np.zeros(k), np.zeros(k)
    rz, count, norm = 0.0, 0, np.sqrt(_square(r))
    hopeless = _HOPELESS * norm
    for iteration in range(max_iterations + 1):
        precondition(m_indptr, m_indices, m_values, m_diagonal, m_inverse, r, z)
        before, rz = rz, 0.0
        for i in range(n):
            rz += r[i] * z[i]
        if norm > target and not rz > 0.0:
            return iteration, count, -1.0
        beta = rz / before if iteration > 0 else 0.0
        if iteration > 0:
            for i in range(n):
                p[i] = z[i] + beta * p[i]
        else:
            p[:] = z
        if k > 0:
            products(a_w, k, z, along)
            for i in range(k):
                weights[i] = 0.0
                for j in range(k):
                    weights[i] += inner[i, j] * along[j]
            subtract(w, k, weights, p)
        if iteration < steps.shape[0]:
            steps[iteration, 2] = rz
            for i in range(k):
                images_of_z[iteration, i] = along[i]
        if not target < norm < hopeless or iteration == max_iterations:
            return iteration, count, norm
        apply_matrix(a_indptr, a_indices, a_data, p, q)
        curvature = 0.0
        for i in range(n):
            curvature += p[i] * q[i]
        if not curvature > 0.0:
            return iteration + 1, count, -1.0
        alpha = rz / curvature
        if iteration < kept.shape[0]:
            direction = kept[iteration]
            for i in range(n):
                direction[i] = p[i]
            steps[iteration, 0], steps[iteration, 1] = alpha, curvature
            count += 1
        square = 0.0
        for i in range(n):
            x[i] += alpha * p[i]
            r[i] -= alpha * q[i]
            square += r[i] * r[i]
        norm = np.sqrt(square)
    return max_iterations, count, norm
