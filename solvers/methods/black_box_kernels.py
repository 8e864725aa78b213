"""Conjugate gradients around a cycle for coefficients that jump by orders of magnitude from point to point, compiled.

The cycle of `headrace.solvers.methods.multigrid_kernels` has coarse operators of five points and works in single
precision, which is what makes it fast and what permeability that jumps by more than about 1,000 within a few points
does not forgive. This one is for that: all in double precision, and

* Interpolation that depends on the operator, and coarse operators of nine points by Galerkin's product (black-box
  multigrid: Dendy 1982, "Black box multigrid", J. Comput. Phys. 48, Eq. 3 to 7; Alcouffe, Brandt, Dendy & Painter 1981,
  SIAM J. Sci. Stat. Comput. 2). Coarse points are every second one along both axes. Between two of them along an axis
  a fine point takes their mean weighted by the entries on either side, each summed across the axis, and by what is left
  of the row's sum (a reaction, or a boundary, beyond which there is 0); the middle of four takes the value at which its
  own equation has no residual. So the residual of an interpolated function is 0 there, which leaves 5 of 9 points to
  Galerkin's product.
* Columns are relaxed as a whole, first the odd ones and then the even ones, and in the reverse order after the coarse
  correction, so that the cycle is symmetric (zebra: Dendy 1982, Sect. 3). Pieces of high permeability too small for the
  coarse grid to see lose their constants that way: beside Gauss-Seidel it saves a third of the iterations. Elimination
  runs along the columns, so its loops run across them, have no stride and vectorise: all columns are computed, and a
  mask takes every other one.
* The coarsest level has at most 3 points across one axis and is factored (Cholesky of a band).

The layout, and how levels are made: `headrace.solvers.methods.black_box_operators`.
"""

import numpy as np
from jaxtyping import Float64
from numba import njit

from headrace.solvers.disjoint import Disjoint
from headrace.solvers.methods.black_box_operators import (
    EAST,
    INVERSE,
    NE,
    NW,
    OPTIONS,
    OWN,
    SE,
    SOUTH,
    SOUTH_EAST,
    SOUTH_WEST,
    SW,
    Arrays,
    E,
    Index,
    Levels,
    N,
    S,
    W,
    coarsen,
    factor,
    weigh,
)

type Array = Float64[np.ndarray, " points"]

_PART = OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_LOOP = _PART | {"pipeline_class": Disjoint, "forceinline": True}

_U0, _U1, _U2 = (np.uint64(k) for k in (0, 1, 2))
# Once the true residual has missed the tolerance, it is computed again after so many iterations at most.
_RECHECK = 8


# The cycle ------------------------------------------------------------------------------------------------------------


@njit(**_PART)
def _solve_coarsest(levels: Levels, factors: Arrays, y: Array, b: Array, x: Array) -> None:
    nx, ny, first = np.int64(levels[-1, 0]), np.int64(levels[-1, 1]), np.int64(levels[-1, 2])
    st, is_wide = ny + 2, nx < ny
    across, n = nx if is_wide else ny, nx * ny
    for row in range(n):
        i, j = (row % across, row // across) if is_wide else (row // across, row % across)
        value = b[first + (i + 1) * st + j + 1]
        for offset in range(1, (across + 1 if across < row else row) + 1):
            value -= factors[offset, row] * y[row - offset]
        y[row] = value / factors[0, row]
    for row in range(n - 1, -1, -1):
        value = y[row]
        for offset in range(1, (across + 1 if across < n - 1 - row else n - 1 - row) + 1):
            value -= factors[offset, row + offset] * y[row + offset]
        y[row] = value / factors[0, row]
        i, j = (row % across, row // across) if is_wide else (row // across, row % across)
        x[first + (i + 1) * st + j + 1] = y[row]


@njit(**_LOOP)
def _eliminate_first(k: Index, n: Index, st: Index, s: Array, inverse: Array, b: Array, y: Array) -> None:
    """Forward along the columns, where all is 0 still."""
    for j in range(n):
        p = k + j
        y[p] = b[p] + s[p - st] * inverse[p - st] * y[p - st]


@njit(**_LOOP)
def _eliminate(
    k: Index, n: Index, st: Index, nine: bool, e: Array, s: Array, se: Array, sw: Array, inverse: Array, b: Array,
    x: Array, y: Array,
) -> None:  # fmt: skip
    """Forward along the columns, with what comes from those beside."""
    for j in range(n):
        p = k + j
        t = b[p] + e[p - _U1] * x[p - _U1] + e[p] * x[p + _U1]
        if nine:
            t += se[p - st - _U1] * x[p - st - _U1] + sw[p - st + _U1] * x[p - st + _U1]
            t += se[p] * x[p + st + _U1] + sw[p] * x[p + st - _U1]
        y[p] = t + s[p - st] * inverse[p - st] * y[p - st]


@njit(**_LOOP)
def _substitute(k: Index, n: Index, st: Index, s: Array, inverse: Array, mask: Array, y: Array, x: Array) -> None:
    """Back along the columns that the mask takes."""
    for j in range(n):
        p = k + j
        x[p] += mask[j] * (inverse[p] * (y[p] + s[p] * x[p + st]) - x[p])


@njit(**_PART)
def _relax_columns(
    nx: Index, ny: Index, first: Index, nine: bool, stencil: Arrays, mask: Array, b: Array, x: Array, y: Array
) -> None:
    """Solve for every other column."""
    e, s, se, sw, inverse = stencil[EAST], stencil[SOUTH], stencil[SOUTH_EAST], stencil[SOUTH_WEST], stencil[INVERSE]
    st = ny + _U2
    for i in range(_U1, nx + _U1):
        k = first + i * st + _U1
        if nine:
            _eliminate(k, ny, st, True, e, s, se, sw, inverse, b, x, y)
        else:
            _eliminate(k, ny, st, False, e, s, se, sw, inverse, b, x, y)
    for i in range(nx, _U0, -1):
        _substitute(first + np.uint64(i) * st + _U1, ny, st, s, inverse, mask, y, x)


@njit(**_LOOP)
def _residual(
    k: Index, n: Index, st: Index, nine: bool, own: Array, e: Array, s: Array, se: Array, sw: Array, b: Array,
    x: Array, r: Array,
) -> None:  # fmt: skip
    for j in range(n):
        p = k + j
        t = (
            b[p]
            - own[p] * x[p]
            + e[p - _U1] * x[p - _U1]
            + e[p] * x[p + _U1]
            + s[p - st] * x[p - st]
            + s[p] * x[p + st]
        )
        if nine:
            t += se[p - st - _U1] * x[p - st - _U1] + sw[p - st + _U1] * x[p - st + _U1]
            t += se[p] * x[p + st + _U1] + sw[p] * x[p + st - _U1]
        r[p] = t


@njit(**_LOOP)
def _restrict(
    c: Index, n: Index, k: Index, st: Index, nw: Array, no: Array, ne: Array, we: Array, ea: Array, sw: Array,
    so: Array, se: Array, r: Array, b: Array,
) -> None:  # fmt: skip
    for j in range(n):
        p, q = k + _U2 * j, c + j
        t = r[p] + we[q] * r[p - _U1] + ea[q] * r[p + _U1] + no[q] * r[p - st] + so[q] * r[p + st]
        t += nw[q] * r[p - st - _U1] + ne[q] * r[p - st + _U1]
        b[q] = t + sw[q] * r[p + st - _U1] + se[q] * r[p + st + _U1]


@njit(**_LOOP)
def _correct_even(c: Index, n: Index, k: Index, we: Array, ea: Array, u: Array, x: Array) -> None:
    """The points 0 and 1, 2 and 3, ... of a row that has coarse points."""
    for j in range(n):
        p, q = k + _U2 * j, c + j
        x[p] += u[q]
        x[p + _U1] += ea[q] * u[q] + we[q + _U1] * u[q + _U1]


@njit(**_LOOP)
def _correct_odd(
    c: Index, n: Index, k: Index, cst: Index, nw: Array, no: Array, ne: Array, sw: Array, so: Array, se: Array,
    u: Array, x: Array,
) -> None:  # fmt: skip
    for j in range(n):
        p, q = k + _U2 * j, c + j
        d = q + cst
        x[p] += so[q] * u[q] + no[d] * u[d]
        t = se[q] * u[q] + sw[q + _U1] * u[q + _U1]
        x[p + _U1] += t + ne[d] * u[d] + nw[d + _U1] * u[d + _U1]


@njit(**_PART)
def _cycle(
    levels: Levels, stencil: Arrays, weights: Arrays, factors: Arrays, masks: Arrays, b: Array, x: Array, r: Array
) -> None:
    """One V-cycle from zero: x ≈ A⁻¹ b on the finest level."""
    last = len(levels) - 1
    w, odd, even, inverse = weights, masks[0], masks[1], stencil[INVERSE]
    own, e, s, se, sw = stencil[OWN], stencil[EAST], stencil[SOUTH], stencil[SOUTH_EAST], stencil[SOUTH_WEST]
    for level in range(last):
        nx, ny, first = levels[level, 0], levels[level, 1], levels[level, 2]
        st, row = ny + _U2, first + _U1
        for i in range(_U1, nx + _U1):
            x[row + i * st : row + i * st + ny] = 0.0
            _eliminate_first(row + i * st, ny, st, s, inverse, b, r)
        for i in range(nx, _U0, -1):
            _substitute(row + np.uint64(i) * st, ny, st, s, inverse, odd, r, x)
        _relax_columns(nx, ny, first, level > 0, stencil, even, b, x, r)
        for i in range(_U1, nx + _U1):
            if level > 0:
                _residual(row + i * st, ny, st, True, own, e, s, se, sw, b, x, r)
            else:
                _residual(row + i * st, ny, st, False, own, e, s, se, sw, b, x, r)
        coarse_nx, coarse_ny, coarse = levels[level + 1, 0], levels[level + 1, 1], levels[level + 1, 2]
        cst = coarse_ny + _U2
        for i in range(_U1, coarse_nx + _U1):
            _restrict(
                coarse + i * cst + _U1, coarse_ny, first + _U2 * i * st + _U2, st,
                w[NW], w[N], w[NE], w[W], w[E], w[SW], w[S], w[SE], r, b,
            )  # fmt: skip
    _solve_coarsest(levels, factors, masks[2], b, x)
    for level in range(last - 1, -1, -1):
        nx, ny, first = levels[level, 0], levels[level, 1], levels[level, 2]
        coarse_nx, coarse_ny, coarse = levels[level + 1, 0], levels[level + 1, 1], levels[level + 1, 2]
        st, cst = ny + _U2, coarse_ny + _U2
        # With the point on the boundary at which a row begins, and of an odd number the one behind the last coarse one.
        half = (ny + _U1) >> _U1
        for i in range(_U1, nx + _U1):
            c, k = coarse + (i >> _U1) * cst, first + i * st
            if i & _U1:
                _correct_odd(c, half, k, cst, w[NW], w[N], w[NE], w[SW], w[S], w[SE], x, x)
                if not ny & _U1:
                    x[k + ny] += (
                        w[S, c + coarse_ny] * x[c + coarse_ny] + w[N, c + cst + coarse_ny] * x[c + cst + coarse_ny]
                    )
            else:
                _correct_even(c, half, k, w[W], w[E], x, x)
                if not ny & _U1:
                    x[k + ny] += x[c + coarse_ny]
        _relax_columns(nx, ny, first, level > 0, stencil, even, b, x, r)
        _relax_columns(nx, ny, first, level > 0, stencil, odd, b, x, r)


# Conjugate gradients --------------------------------------------------------------------------------------------------


@njit(**_LOOP)
def _apply(k: Index, n: Index, st: Index, e: Array, s: Array, excess: Array, p: Array, q: Array) -> float:
    """The image of a row as a sum of differences, which loses nothing where p is flat, and its product with the row."""
    total = 0.0
    for j in range(n):
        m = k + j
        c = p[m]
        t = e[m] * (c - p[m + _U1]) + e[m - _U1] * (c - p[m - _U1]) + excess[m] * c
        t += s[m] * (c - p[m + st]) + s[m - st] * (c - p[m - st])
        q[m] = t
        total += c * t
    return total


@njit(**_LOOP)
def _direction(begin: Index, end: Index, beta: float, z: Array, p: Array) -> None:
    for k in range(begin, end):
        p[k] = z[k] + beta * p[k]


@njit(**_LOOP)
def _step(begin: Index, end: Index, alpha: float, p: Array, q: Array, x: Array, r: Array) -> float:
    total = 0.0
    for k in range(begin, end):
        x[k] += alpha * p[k]
        t = r[k] - alpha * q[k]
        r[k] = t
        total += t * t
    return total


@njit(**_LOOP)
def _dot(begin: Index, end: Index, a: Array, b: Array) -> float:
    total = 0.0
    for k in range(begin, end):
        total += a[k] * b[k]
    return total


@njit(**OPTIONS, cache=True)
def conjugate_gradients(
    conductance_x: Float64[np.ndarray, "faces_x points_y"],
    conductance_y: Float64[np.ndarray, "points_x faces_y"],
    reaction: Float64[np.ndarray, "points_x points_y"],
    rhs: Float64[np.ndarray, "points_x points_y"],
    solution: Float64[np.ndarray, "points_x points_y"],
    levels: Levels,
    stencil: Float64[np.ndarray, "6 points"],
    weights: Float64[np.ndarray, "8 points"],
    factors: Float64[np.ndarray, "5 coarsest"],
    masks: Float64[np.ndarray, "3 row"],
    vectors: Float64[np.ndarray, "3 points"],
    finest: Float64[np.ndarray, "4 finest"],
    rtol: float,
    max_iterations: int,
) -> tuple[int, float]:
    """Solve a positive definite five-point system into `solution`; without a reaction `reaction` is empty.

    Returns:
        The number of iterations and the relative residual, recomputed from the solution. It exceeds `rtol` when the
        iterations ran out, or when they broke down because of values that are not finite or not positive.
    """
    nx, ny = levels[0, 0], levels[0, 1]
    st, reacts = ny + _U2, len(reaction) > 0
    own, e, s, inverse = stencil[OWN], stencil[EAST], stencil[SOUTH], stencil[INVERSE]
    r, z, v = vectors[0], vectors[1], vectors[2]
    x, p, q, excess = finest[0], finest[1], finest[2], finest[3]
    norm = 0.0
    for i in range(nx):
        for j in range(ny):
            k = (i + _U1) * st + j + _U1
            before, after = conductance_y[i, j], conductance_y[i, j + _U1]
            own[k] = before + after + conductance_x[i, j] + conductance_x[i + _U1, j]
            # What ties a point to a boundary, or down.
            tie = 0.0
            if j == _U0:
                tie += before
            if j + _U1 == ny:
                tie += after
                after = 0.0
            e[k] = after
            if i == _U0:
                tie += conductance_x[i, j]
            s[k] = conductance_x[i + _U1, j]
            if i + _U1 == nx:
                tie += s[k]
                s[k] = 0.0
            if reacts:
                tie += reaction[i, j]
                own[k] += reaction[i, j]
            excess[k] = tie
            r[k] = rhs[i, j]
            x[k] = p[k] = 0.0
            norm += rhs[i, j] ** 2
    norm = np.sqrt(norm)
    solution[:] = 0.0
    if norm == 0.0:
        return 0, 0.0
    for level in range(len(levels)):
        if level > 0:
            coarsen(levels, level - 1, stencil, weights)
        if level + 1 < len(levels):
            weigh(levels, level, stencil, weights)
        width = levels[level, 1] + _U2
        for i in range(_U1, levels[level, 0] + _U1):
            k = levels[level, 2] + i * width + _U1
            for j in range(levels[level, 1]):
                above = k + j - width
                inverse[k + j] = 1.0 / (own[k + j] - s[above] * (s[above] * inverse[above]))
    if not (norm < np.inf and factor(levels, stencil, factors)):
        return 0, np.nan
    begin, end = st, (nx + _U1) * st
    num_iterations, residual, rz, num_unchecked = 0, 1.0, np.inf, 0
    while num_iterations < max_iterations:
        _cycle(levels, stencil, weights, factors, masks, r, z, v)
        rz, rz_before = _dot(begin, end, r, z), rz
        _direction(begin, end, rz / rz_before, z, p)
        pq = 0.0
        for i in range(_U1, nx + _U1):
            pq += _apply(i * st + _U1, ny, st, e, s, excess, p, q)
        if not (pq > 0.0 and rz > 0.0):
            break
        num_iterations += 1
        num_unchecked += 1
        rr = np.sqrt(_step(begin, end, rz / pq, p, q, x, r)) / norm
        # After a miss what is left may be rounding, which no iteration takes away.
        is_due = residual < 1.0 and num_unchecked >= _RECHECK
        if rr > 0.9 * rtol and not is_due and num_iterations < max_iterations:
            continue
        before, num_unchecked, total = residual, 0, 0.0
        for i in range(_U1, nx + _U1):
            _apply(i * st + _U1, ny, st, e, s, excess, x, q)
        for i in range(nx):
            for j in range(ny):
                k = (i + _U1) * st + j + _U1
                r[k] = rhs[i, j] - q[k]
                total += r[k] ** 2
        residual = np.sqrt(total) / norm
        if residual <= rtol or not residual < 0.75 * before:
            break
    for i in range(nx):
        for j in range(ny):
            solution[i, j] = x[(i + _U1) * st + j + _U1]
    return num_iterations, residual
