"""The compiled part of multigrid: conjugate gradients around a V-cycle. Nothing but loops.

Layout. A level with `num_x * num_y` intervals stores a value for every one of its (num_x + 1)(num_y + 1) points, the
boundary included, row after row; `stride = num_y + 1` is the length of a row, and the point (i, j) of a level that
begins at `first` has the index first + i stride + j. All levels lie one after the other in the same arrays. `cx[k]` is
the conductance between point k and its neighbour k + stride, `cy[k]` between k and k + 1. Vectors are 0 on the
boundary, and so is `inverse`, 1 / diagonal: loops may then run over whole rows at unit stride, which the compiler
vectorises, and what they compute on the boundary is garbage times 0. For that, conductances along the boundary, which
mean nothing, are 1.

Indices are unsigned: Numba asks of every signed index whether it is negative, which costs more than the arithmetic.

The cycle.

* Smoother: two steps of the fourth-kind Chebyshev iteration (Lottes 2022, "Optimal polynomial smoothers for multigrid
  V-cycles", Algorithm 3) on D⁻¹A, before and after. It needs an upper bound of the spectrum and no lower one; for a
  five-point operator that bound is 2 (Gershgorin). Two steps from a residual r amount to
      x += α v - γ D⁻¹A v,  v = D⁻¹r,  α = 1.2 c + g, γ = g c,  c = 4 / (3 λ), g = 12 / (5 λ), λ = 2,
  and because both sides of the cycle apply the same polynomial, the cycle is symmetric.
* Interpolation: between two coarse points a fine one takes the mean weighted by its two conductances, and the middle of
  four the value at which its own five-point equation has no residual (Alcouffe, Brandt, Dendy & Painter 1981). Where
  permeability jumps this keeps the flux continuous, as the solution does. Restriction is the transpose.
* Coarse operators are five-point again. What lies between two coarse lines is shared between them as interpolation
  shares it; conductances side by side add up, those in series combine harmonically. On permeability that jumps by 100
  this costs about 3 iterations more than the nine-point Galerkin operator and saves its set-up and its traffic.
* An odd number of intervals leaves the last one as it is. The conductances know its length, so nothing else must.
* The coarsest level has one unknown across one axis and is solved exactly, by elimination along the other.

The cycle computes in single precision, which halves the memory it moves; conjugate gradients compute in double
precision, and the residual is recomputed before a solution is handed out.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt64
from numba import njit

type Index = np.uint64
type Number = np.floating
type Array = Float[np.ndarray, " points"]
type Levels = UInt64[np.ndarray, "levels 3"]

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
# The parts are called from compiled code alone: without their Python entry points they compile faster.
_PART = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_U0, _U1, _U2 = np.uint64(0), np.uint64(1), np.uint64(2)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

_LAMBDA = 2.0
_C, _G = 4.0 / (3.0 * _LAMBDA), 12.0 / (5.0 * _LAMBDA)
_ALPHA, _GAMMA = np.float32(1.2 * _C + _G), np.float32(_G * _C)

# Rounding lets the residual of the recurrence drift from the true one; conjugate gradients then start anew from it.
_STARTS = 4


@njit(**_PART)
def _outflow(k: Index, stride: Index, cx: Array, cy: Array, u: Array) -> Number:
    """(A u) at point k."""
    c = u[k]
    along_x = cx[k] * (c - u[k + stride]) + cx[k - stride] * (c - u[k - stride])
    return along_x + cy[k] * (c - u[k + _U1]) + cy[k - _U1] * (c - u[k - _U1])


@njit(**_PART)
def _set_up(levels: Levels, cx: Array, cy: Array, inverse: Array, rows: Array) -> None:
    """Coarse conductances and inverse diagonals of all levels from the finest conductances."""
    for level in range(len(levels)):
        num_x, num_y, first = levels[level, 0], levels[level, 1], levels[level, 2]
        stride = num_y + _U1
        for k in range(first + stride, first + num_x * stride):
            inverse[k] = _ONE / (cx[k] + cx[k - stride] + cy[k] + cy[k - _U1])
        for i in range(_U1, num_x):
            inverse[first + i * stride] = _ZERO
            inverse[first + i * stride + num_y] = _ZERO
        if level + 1 < len(levels):
            coarse_x, coarse_y, coarse_first = levels[level + 1, 0], levels[level + 1, 1], levels[level + 1, 2]
            for j in range(coarse_y):
                cy[coarse_first + j] = cy[coarse_first + coarse_x * (coarse_y + _U1) + j] = _ONE
            for i in range(coarse_x):
                row = coarse_first + i * (coarse_y + _U1)
                cx[row] = cx[row + coarse_y] = _ONE
                cy[row + coarse_y] = _ZERO
                fine = first + _U2 * i * stride
                _coarsen_x(fine, stride, _U2 * i + _U1 < num_x, row, coarse_y, cx, cy, rows)
                if i > _U0:
                    _coarsen_y(fine, stride, _U2 * i + _U1 < num_x, row, coarse_y, cx, cy, rows)


@njit(**_PART)
def _coarsen_x(
    fine: Index, stride: Index, has_pair: bool, row: Index, coarse_y: Index, cx: Array, cy: Array, rows: Array
) -> None:
    """One row of coarse cx: fine faces side by side added up, then the two rows of them in series."""
    num_y = stride - _U1
    for second in range(2 if has_pair else 1):
        for j in range(_U1, num_y):
            k = fine + j
            share = cy[k - _U1] / (cy[k - _U1] + cy[k])
            k += stride
            share += cy[k - _U1] / (cy[k - _U1] + cy[k])
            rows[j] = np.float32(0.5) * share * cx[k - stride]
        rows[num_y] = _ZERO
        for j in range(_U1, coarse_y):
            k = fine + _U2 * j
            b = cx[k] + rows[_U2 * j + _U1] + cx[k - _U1] - rows[_U2 * j - _U1]
            if second:
                a = cx[row + j]
                b = a * b / (a + b)
            cx[row + j] = b
        fine += stride


@njit(**_PART)
def _coarsen_y(
    fine: Index, stride: Index, has_pair: bool, row: Index, coarse_y: Index, cx: Array, cy: Array, rows: Array
) -> None:
    """One row of coarse cy, in the same way."""
    num_y = stride - _U1
    for j in range(num_y):
        k = fine - stride + j
        share = cx[k - stride] / (cx[k - stride] + cx[k])
        share += cx[k - stride + _U1] / (cx[k - stride + _U1] + cx[k + _U1])
        rows[j] = cy[k + stride] + (_ONE - np.float32(0.5) * share) * cy[k]
    if has_pair:
        for j in range(num_y):
            k = fine + stride + j
            share = cx[k - stride] / (cx[k - stride] + cx[k])
            share += cx[k - stride + _U1] / (cx[k - stride + _U1] + cx[k + _U1])
            rows[j] += np.float32(0.5) * share * cy[k]
    for j in range(num_y >> _U1):
        a, b = rows[_U2 * j], rows[_U2 * j + _U1]
        cy[row + j] = a * b / (a + b)
    if num_y & _U1:
        cy[row + coarse_y - _U1] = rows[num_y - _U1]


@njit(**_PART)
def _smooth(
    begin: Index, end: Index, stride: Index, cx: Array, cy: Array, inverse: Array, v: Array, x: Array, keep: bool
) -> None:
    """Set x to α v - γ D⁻¹A v, or add that to it."""
    for k in range(begin, end):
        x[k] = (x[k] if keep else _ZERO) + _ALPHA * v[k] - _GAMMA * inverse[k] * _outflow(k, stride, cx, cy, v)


@njit(**_PART)
def _restrict(
    levels: Levels, level: int, cx: Array, cy: Array, inverse: Array, r: Array, x: Array, rows: Array
) -> None:
    """Coarse r = Pᵀ(r - A x).

    Rows of the fine level with an odd number go, through the transpose of the interpolation, to the even rows on both
    sides of them; an even row is complete when the odd row after it has been added.
    """
    num_x, num_y, first = levels[level, 0], levels[level, 1], levels[level, 2]
    coarse_stride, coarse_first = levels[level + 1, 1] + _U1, levels[level + 1, 2]
    stride = num_y + _U1
    middle, even = stride, _U2 * stride  # in rows: residual, its middle points divided by the diagonal, the even row
    for j in range(even, even + stride):
        rows[j] = _ZERO
    for i in range(_U1, num_x):
        row = first + i * stride
        if i & _U1:
            for j in range(stride):
                rows[j] = r[row + j] - _outflow(row + j, stride, cx, cy, x)
            rows[_U0] = rows[num_y] = _ZERO
            for j in range(stride):
                rows[middle + j] = rows[j] * inverse[row + j] * np.float32(j & _U1)
            for j in range(_U1, num_y):
                k = row + j
                edge = rows[j] + cy[k] * rows[middle + j + _U1] + cy[k - _U1] * rows[middle + j - _U1]
                share = rows[middle + j] + edge * np.float32(_U1 - (j & _U1)) / (cx[k - stride] + cx[k])
                rows[even + j] += cx[k - stride] * share
                rows[j] = cx[k] * share
            if i > _U1:
                _restrict_row(i >> _U1, row - stride, coarse_first, coarse_stride, even, cy, r, rows)
            for j in range(_U1, num_y):
                rows[even + j] = rows[j]
        else:
            for j in range(_U1, num_y):
                rows[even + j] += r[row + j] - _outflow(row + j, stride, cx, cy, x)
            if i + _U1 == num_x:
                _restrict_row(i >> _U1, row, coarse_first, coarse_stride, even, cy, r, rows)


@njit(**_PART)
def _restrict_row(
    i: Index, row: Index, coarse_first: Index, coarse_stride: Index, even: Index, cy: Array, r: Array, rows: Array
) -> None:
    """Row i of the coarse r from a completed even row of the fine level."""
    for j in range(_U1, coarse_stride - _U1):
        k = row + _U2 * j
        b = even + _U2 * j
        left = rows[b - _U1] * cy[k - _U1] / (cy[k - _U2] + cy[k - _U1])
        r[coarse_first + i * coarse_stride + j] = left + rows[b] + rows[b + _U1] * cy[k] / (cy[k] + cy[k + _U1])


@njit(**_PART)
def _correct(levels: Levels, level: int, cx: Array, cy: Array, inverse: Array, x: Array, rows: Array) -> None:
    """Add P (coarse x) to x."""
    num_x, num_y, first = levels[level, 0], levels[level, 1], levels[level, 2]
    coarse_stride, coarse_first = levels[level + 1, 1] + _U1, levels[level + 1, 2]
    stride = num_y + _U1
    before, after, coarse = _U0, stride, _U2 * stride  # in rows: the even rows around an odd one, and a scattered row
    for j in range(_U2 * stride):
        rows[j] = _ZERO
    for i in range(_U1, ((num_x + _U1) >> _U1) + _U1):
        row = first + _U2 * i * stride
        if _U2 * i < num_x:
            for j in range(stride):
                rows[coarse + j] = _ZERO
            for j in range(_U1, coarse_stride - _U1):
                rows[coarse + _U2 * j] = x[coarse_first + i * coarse_stride + j]
            for j in range(_U1, num_y):
                k = row + j
                both = cy[k - _U1] * rows[coarse + j - _U1] + cy[k] * rows[coarse + j + _U1]
                rows[after + j] = rows[coarse + j] + both / (cy[k - _U1] + cy[k])
                x[k] += rows[after + j]
        else:
            for j in range(stride):
                rows[after + j] = _ZERO
        row -= stride
        if _U2 * i - _U1 < num_x:
            for j in range(_U1, num_y):
                k = row + j
                both = cx[k - stride] * rows[before + j] + cx[k] * rows[after + j]
                rows[coarse + j] = both * np.float32(_U1 - (j & _U1)) / (cx[k - stride] + cx[k])
            rows[coarse] = rows[coarse + num_y] = _ZERO
            for j in range(_U1, num_y):
                k = row + j
                four = cx[k - stride] * rows[before + j] + cx[k] * rows[after + j]
                four += cy[k - _U1] * rows[coarse + j - _U1] + cy[k] * rows[coarse + j + _U1]
                x[k] += rows[coarse + j] + np.float32(j & _U1) * inverse[k] * four
        before, after = after, before


@njit(**_PART)
def _solve_coarsest(levels: Levels, cx: Array, cy: Array, r: Array, x: Array, rows: Array) -> None:
    """Elimination along the axis that has more than one unknown (Thomas algorithm)."""
    last = len(levels) - 1
    num_x, num_y, first = levels[last, 0], levels[last, 1], levels[last, 2]
    stride = num_y + _U1
    lies_along_x = num_y == _U2
    n, step = (num_x - _U1, stride) if lies_along_x else (num_y - _U1, _U1)
    k = first + stride + _U1
    factor, value = _ZERO, _ZERO
    for i in range(n):
        before, after = (cx[k - stride], cx[k]) if lies_along_x else (cy[k - _U1], cy[k])
        diagonal = cx[k - stride] + cx[k] + cy[k - _U1] + cy[k]
        pivot = _ONE / (diagonal - before * factor)
        value = (r[k] + before * value) * pivot
        factor = after * pivot
        x[k] = value
        rows[i] = factor
        k += step
    k -= step
    for i in range(n - _U1):
        k -= step
        x[k] += rows[n - _U2 - i] * x[k + step]


@njit(**_PART, inline="always")
def _cycle(levels: Levels, cx: Array, cy: Array, inverse: Array, r: Array, x: Array, v: Array, rows: Array) -> None:
    """One V-cycle: x ≈ A⁻¹ r on the finest level, in single precision throughout."""
    last = len(levels) - 1
    for level in range(last):
        first, stride = levels[level, 2], levels[level, 1] + _U1
        end = first + levels[level, 0] * stride
        for k in range(first, end + stride):
            v[k] = inverse[k] * r[k]
        _smooth(first + stride, end, stride, cx, cy, inverse, v, x, False)
        _restrict(levels, level, cx, cy, inverse, r, x, rows)
    _solve_coarsest(levels, cx, cy, r, x, rows)
    for level in range(last - 1, -1, -1):
        first, stride = levels[level, 2], levels[level, 1] + _U1
        end = first + levels[level, 0] * stride
        _correct(levels, level, cx, cy, inverse, x, rows)
        for k in range(first + stride, end):
            v[k] = inverse[k] * (r[k] - _outflow(k, stride, cx, cy, x))
        _smooth(first + stride, end, stride, cx, cy, inverse, v, x, True)


@njit(**_OPTIONS, cache=True)
def conjugate_gradients(
    conductance_x: Float64[np.ndarray, "nx+1 ny"],
    conductance_y: Float64[np.ndarray, "nx ny+1"],
    rhs: Float64[np.ndarray, " unknowns"],
    solution: Float64[np.ndarray, " unknowns"],
    levels: Levels,
    single: Float32[np.ndarray, "6 points"],
    double: Float64[np.ndarray, "6 finest"],
    rows: Float32[np.ndarray, " rows"],
    rtol: float,
    max_iterations: int,
) -> tuple[int, float]:
    """Solve a five-point system into `solution`.

    Returns:
        The number of iterations and the relative residual, recomputed from the solution. It exceeds `rtol` when the
        iterations ran out, or when they broke down because of values that are not finite or not positive.
    """
    num_x, num_y = levels[0, 0], levels[0, 1]
    stride = num_y + _U1
    nx, ny = num_x - _U1, num_y - _U1
    begin, end = stride, num_x * stride
    cx32, cy32, inverse, r32, z, v = single[0], single[1], single[2], single[3], single[4], single[5]
    cx, cy, x, r, p, q = double[0], double[1], double[2], double[3], double[4], double[5]

    # Single precision ends at 1e-38: conductances are scaled to at most 1 and the right-hand side to norm 1.
    norm = 0.0
    for k in range(nx * ny):
        norm += rhs[k] * rhs[k]
    norm = np.sqrt(norm)
    if norm == 0.0:
        solution[:] = 0.0
        return 0, 0.0
    largest = 0.0
    for i in range(num_x):
        for j in range(ny):
            largest = max(largest, conductance_x[i, j])
    for i in range(nx):
        for j in range(num_y):
            largest = max(largest, conductance_y[i, j])

    for i in range(num_x):
        for j in range(ny):
            c = conductance_x[i, j] / largest
            cx[i * stride + j + _U1] = c
            cx32[i * stride + j + _U1] = c
        cx32[i * stride] = cx32[i * stride + num_y] = _ONE
    for i in range(nx):
        row = (i + _U1) * stride
        for j in range(num_y):
            c = conductance_y[i, j] / largest
            cy[row + j] = c
            cy32[row + j] = c
        for j in range(ny):
            r[row + j + _U1] = rhs[i * ny + j] / norm
    for j in range(num_y):
        cy32[j] = cy32[num_x * stride + j] = _ONE
    _set_up(levels, cx32, cy32, inverse, rows)

    for k in range(end + stride):
        x[k] = 0.0
    num_iterations = 0
    residual = 1.0
    for _ in range(_STARTS):
        for k in range(end + stride):
            p[k] = 0.0
            r32[k] = r[k]
        rz_before = np.inf
        while num_iterations < max_iterations:
            _cycle(levels, cx32, cy32, inverse, r32, z, v, rows)
            rz = 0.0
            for k in range(begin, end):
                rz += r[k] * z[k]
            beta = rz / rz_before
            rz_before = rz
            for k in range(begin, end):
                p[k] = z[k] + beta * p[k]
            pq = 0.0
            for k in range(begin, end):
                q[k] = _outflow(k, stride, cx, cy, p)
                pq += p[k] * q[k]
            num_iterations += 1
            if not pq > 0.0:
                break
            for i in range(_U1, num_x):
                q[i * stride] = q[i * stride + num_y] = 0.0
            step = rz / pq
            rr = 0.0
            for k in range(begin, end):
                x[k] += step * p[k]
                t = r[k] - step * q[k]
                r[k] = t
                r32[k] = t
                rr += t * t
            if not rr > 0.81 * rtol * rtol:
                break
        # The true residual of what will be handed out.
        before = residual
        residual = 0.0
        for i in range(nx):
            for j in range(ny):
                k = (i + _U1) * stride + j + _U1
                t = rhs[i * ny + j] / norm - _outflow(k, stride, cx, cy, x)
                r[k] = t
                residual += t * t
        residual = np.sqrt(residual)
        if residual <= rtol or num_iterations >= max_iterations or not residual < 0.5 * before:
            break
    for i in range(nx):
        for j in range(ny):
            solution[i * ny + j] = x[(i + _U1) * stride + j + _U1] * (norm / largest)
    return num_iterations, residual
