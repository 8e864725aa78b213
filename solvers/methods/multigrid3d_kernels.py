"""The compiled part of multigrid in three dimensions: conjugate gradients around a V-cycle. Nothing but loops.

Layout. A level of nx * ny * nz points is stored with one layer of ghosts around it, the last axis fastest: the point
(i, j, k), counted from 1, has the index i sx + j sy + k with sy = nz + 2 and sx = (ny + 2) sy. `cx[p]` is the
conductance between point p and its neighbour p + sx, `cy[p]` that between p and p + sy, `cz[p]` that between p and
p + 1. Ghosts of vectors are 0 where the box ends and copies of the opposite side where it is periodic; `inverse`, one
over the diagonal, is 0 on ghosts: loops may run over whole planes at unit stride, which the compiler vectorises, and
what they compute on ghosts is multiplied by 0. All levels lie one after the other in the same arrays. Conjugate
gradients work on arrays without ghosts and on the operator's own conductances, so that nothing of the system is copied.

Indices are unsigned: Numba asks of every signed index whether it is negative, which costs more than the arithmetic.

The cycle.

* Smoother: two steps of the fourth-kind Chebyshev iteration (Lottes 2022, "Optimal polynomial smoothers for multigrid
  V-cycles", Algorithm 3) on D⁻¹A, before and after. It needs no lower bound of the spectrum; 2 bounds that of a
  seven-point operator from above (Gershgorin). With A = D - N two steps from a residual r amount to
      v = D⁻¹r,  x += (α - γ) v + γ D⁻¹N v,  α = 1.2 c + g,  γ = g c,  c = 4 / (3 λ),  g = 12 / (5 λ),  λ = 2.
* Transfer: one axis after the other. Along an axis every second point is a coarse one, and a point between two coarse
  ones takes the mean weighted by its two conductances, which keeps the flux continuous where the coefficient jumps
  (Alcouffe, Brandt, Dendy & Painter 1981); beyond a closed end the conductance is 0, so the same rule holds there. The
  weights of the second and third axis come from the operator that is coarse already along the axes before. Restriction
  is the transpose. Of an odd number of points around a periodic axis the last one is coarse, too.
* Coarse operators are seven-point again, see `headrace.solvers.methods.multigrid3d`, which sets them up.
* The coarsest level is one point.

Memory. A sweep over a level does several steps at once, each one plane behind the one before: what the first has
written is still in the cache when the next needs it, so that an array goes through memory once a sweep and not once a
step. Around a periodic first axis the steps must follow each other, because the first plane needs the last.

The cycle and the search direction are in single precision; the solution, the residual and all products with A are in
double precision, so that the residual is not spoilt by what the cycle rounds.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt64
from numba import njit

type Index = np.uint64
type Array = Float[np.ndarray, " points"]
type Shape = tuple[Index, Index, Index]
type Wraps = tuple[bool, bool, bool]
type Levels = UInt64[np.ndarray, "levels 8"]

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
# The parts are called from compiled code alone: without their Python entry points they compile faster.
_PART = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_U0, _U1, _U2, _U3 = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(3)
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

_LAMBDA = 2.0
_C, _G = 4.0 / (3.0 * _LAMBDA), 12.0 / (5.0 * _LAMBDA)
_ALPHA, _GAMMA = np.float32(1.2 * _C + _G), np.float32(_G * _C)
_REST = _ALPHA - _GAMMA

# Rounding lets the residual of the recurrence drift from the true one; conjugate gradients then start anew from it.
_STARTS = 4


@njit(**_PART)
def _neighbours(p: Index, sx: Index, sy: Index, cx: Array, cy: Array, cz: Array, u: Array) -> np.float32:
    """(N u) at point p: the neighbours times the conductances to them."""
    along_x = cx[p - sx] * u[p - sx] + cx[p] * u[p + sx]
    along_y = cy[p - sy] * u[p - sy] + cy[p] * u[p + sy]
    return along_x + along_y + cz[p - _U1] * u[p - _U1] + cz[p] * u[p + _U1]


@njit(**_PART)
def _wrap(u: Array, i: Index, shape: Shape, wraps: Wraps) -> None:
    """The ghosts that plane i fills: of itself, and, of the first and the last plane, those beyond the other end."""
    nx, ny, nz = shape
    sy = nz + _U2
    sx = (ny + _U2) * sy
    plane = i * sx
    if wraps[2]:
        for j in range(_U1, ny + _U1):
            row = plane + j * sy
            u[row] = u[row + nz]
            u[row + nz + _U1] = u[row + _U1]
    if wraps[1]:
        for k in range(sy):
            u[plane + k] = u[plane + ny * sy + k]
            u[plane + (ny + _U1) * sy + k] = u[plane + sy + k]
    if wraps[0]:
        if i == _U1:
            for p in range(sx):
                u[(nx + _U1) * sx + p] = u[sx + p]
        if i == nx:
            for p in range(sx):
                u[p] = u[nx * sx + p]


@njit(**_PART)
def _smooth(i: Index, sx: Index, sy: Index, cx: Array, cy: Array, cz: Array, inverse: Array, v: Array, x: Array,
            keep: bool) -> None:  # fmt: skip
    """Plane i: set x to (α - γ) v + γ D⁻¹N v, or add that to it."""
    for p in range(i * sx + sy, (i + _U1) * sx - sy):
        step = _REST * v[p] + _GAMMA * inverse[p] * _neighbours(p, sx, sy, cx, cy, cz, v)
        x[p] = (x[p] if keep else _ZERO) + step


@njit(**_PART)
def _down(
    shape: Shape, coarse: Shape, wraps: Wraps, coarsens: Wraps,
    cx: Array, cy: Array, cz: Array, inverse: Array, r: Array, x: Array, v: Array,
    wx: Array, wy: Array, wz: Array, coarse_r: Array, planes: Array,
) -> None:  # fmt: skip
    """Smooth from x = 0, and restrict the residual: coarse r = Pᵀ(r - A x)."""
    nx, ny, nz = shape
    sy = nz + _U2
    sx = (ny + _U2) * sy
    lag = nx if wraps[0] else _U1
    # In planes: two coarse planes that are being added up, what the first plane owes to the last coarse one, and one
    # for `_restrict_plane`.
    owed, spare = _U2 * sx, _U3 * sx
    last_is_coarse = wraps[0] or (nx & _U1) == _U0
    for t in range(_U1, nx + _U2 * lag + _U1):
        if t <= nx:
            for q in range(t * sx + sy, (t + _U1) * sx - sy):
                v[q] = inverse[q] * r[q]
            _wrap(v, t, shape, wraps)
        if t > lag and t - lag <= nx:
            i = t - lag
            _smooth(i, sx, sy, cx, cy, cz, inverse, v, x, False)
            _wrap(x, i, shape, wraps)
        if t > _U2 * lag:
            i = t - _U2 * lag
            between = coarsens[0] and (i & _U1) == _U1 and not (i == nx and last_is_coarse)
            if between:
                # To the coarse planes on both sides.
                before, after = ((i >> _U1) & _U1) * sx, (((i >> _U1) + _U1) & _U1) * sx
                if i == _U1:
                    before = owed
                    for q in range(sx):
                        planes[before + q] = _ZERO
                for j in range(_U1, ny + _U1):
                    row, weights = i * sx + j * sy, (i >> _U1) * sx + j * sy
                    for k in range(_U1, nz + _U1):
                        p = row + k
                        value = r[p] - x[p] / inverse[p] + _neighbours(p, sx, sy, cx, cy, cz, x)
                        share = wx[weights + k] * value
                        planes[before + j * sy + k] += share
                        planes[after + j * sy + k] = value - share
                if i > _U1:
                    _restrict_plane(i >> _U1, before, shape, coarse, wraps, coarsens, wy, wz, coarse_r, planes, spare)
            else:
                here = ((i + _U1) >> _U1) if coarsens[0] else i
                at = (here & _U1) * sx
                opened = coarsens[0] and (i & _U1) == _U0
                for j in range(_U1, ny + _U1):
                    row, to = i * sx + j * sy, at + j * sy
                    for k in range(_U1, nz + _U1):
                        p = row + k
                        value = r[p] - x[p] / inverse[p] + _neighbours(p, sx, sy, cx, cy, cz, x)
                        planes[to + k] = (planes[to + k] if opened else _ZERO) + value
                if wraps[0] and coarsens[0] and i == nx:
                    for q in range(sx):
                        planes[at + q] += planes[owed + q]
                # Otherwise the plane after it has something to add.
                if not coarsens[0] or i == nx or (i + _U1 == nx and last_is_coarse and (nx & _U1) == _U1):
                    _restrict_plane(here, at, shape, coarse, wraps, coarsens, wy, wz, coarse_r, planes, spare)


@njit(**_PART)
def _restrict_plane(
    plane: Index, at: Index, shape: Shape, coarse: Shape, wraps: Wraps, coarsens: Wraps,
    wy: Array, wz: Array, coarse_r: Array, planes: Array, row: Index,
) -> None:  # fmt: skip
    """One plane of coarse r from the sum that lies at `at` in `planes`, along y and then z; `row` is spare."""
    ny, nz = shape[1], shape[2]
    my, mz = coarse[1], coarse[2]
    sy = nz + _U2
    first_row = plane * (my + _U2) * (mz + _U2)
    between = ny - my
    for j in range(_U1, my + _U1):
        to = first_row + j * (mz + _U2)
        weights = (plane - _U1) * between * sy
        if not coarsens[1]:
            here = at + j * sy
            for k in range(sy):
                planes[row + k] = planes[here + k]
        else:
            here = at + (_U2 * j if _U2 * j <= ny else ny) * sy
            for k in range(sy):
                planes[row + k] = planes[here + k]
            if j <= between:
                w = weights + (j - _U1) * sy
                for k in range(sy):
                    planes[row + k] += (_ONE - wy[w + k]) * planes[here - sy + k]
            if j < between:
                w = weights + j * sy
                for k in range(sy):
                    planes[row + k] += wy[w + k] * planes[here + sy + k]
            if wraps[1] and j == my:
                for k in range(sy):
                    planes[row + k] += wy[weights + k] * planes[at + sy + k]
        _restrict_row(((plane - _U1) * my + j - _U1) * (nz - mz), to, nz, mz, wraps[2], coarsens[2], wz, coarse_r,
                      planes, row)  # fmt: skip


@njit(**_PART)
def _restrict_row(
    w: Index, to: Index, nz: Index, mz: Index, wraps: bool, coarsens: bool, wz: Array, coarse_r: Array, planes: Array,
    row: Index,
) -> None:  # fmt: skip
    """One row of coarse r from a row that is coarse along the other axes."""
    if not coarsens:
        for k in range(_U1, nz + _U1):
            coarse_r[to + k] = planes[row + k]
        return
    between = nz - mz
    for k in range(_U1, between):
        p = row + _U2 * k
        before, after = (_ONE - wz[w + k - _U1]) * planes[p - _U1], wz[w + k] * planes[p + _U1]
        coarse_r[to + k] = planes[p] + before + after
    if between <= mz:
        p = row + _U2 * between
        coarse_r[to + between] = planes[p] + (_ONE - wz[w + between - _U1]) * planes[p - _U1]
    if between < mz:
        coarse_r[to + mz] = planes[row + nz]
    if wraps:
        coarse_r[to + mz] += wz[w] * planes[row + _U1]


@njit(**_PART)
def _expand_plane(
    plane: Index, at: Index, shape: Shape, coarse: Shape, wraps: Wraps, coarsens: Wraps, wy: Array, wz: Array,
    coarse_x: Array, planes: Array,
) -> None:  # fmt: skip
    """A plane of the coarse x, interpolated along z and y, to `at` in `planes`."""
    ny, nz = shape[1], shape[2]
    my, mz = coarse[1], coarse[2]
    sy = nz + _U2
    between_y, between_z = ny - my, nz - mz
    for j in range(_U1, my + _U1):
        to = at + (j if not coarsens[1] else (_U2 * j if _U2 * j <= ny else ny)) * sy
        row = (plane * (my + _U2) + j) * (mz + _U2)
        if not coarsens[2]:
            for k in range(sy):
                planes[to + k] = coarse_x[row + k]
        else:
            w = ((plane - _U1) * my + j - _U1) * between_z
            for k in range(between_z):
                left, right = coarse_x[row + k], coarse_x[row + k + _U1]
                planes[to + _U2 * k + _U1] = right + wz[w + k] * (left - right)
                planes[to + _U2 * k + _U2] = right
            planes[to + nz] = planes[to + nz] if between_z > mz else coarse_x[row + mz]
    if coarsens[1]:
        last = ny * sy
        for k in range(sy):
            planes[at + k] = planes[at + last + k] if wraps[1] else _ZERO
            planes[at + last + sy + k] = _ZERO
        for j in range(between_y):
            to, w = at + (_U2 * j + _U1) * sy, ((plane - _U1) * between_y + j) * sy
            for k in range(sy):
                left, right = planes[to - sy + k], planes[to + sy + k]
                planes[to + k] = right + wy[w + k] * (left - right)


@njit(**_PART)
def _correct_plane(
    i: Index, shape: Shape, coarse: Shape, wraps: Wraps, coarsens: Wraps, wx: Array, wy: Array, wz: Array,
    coarse_x: Array, x: Array, planes: Array,
) -> None:  # fmt: skip
    """Add plane i of P (coarse x) to x; planes must come in turn, for they share what is in `planes`."""
    nx, ny, nz = shape
    sy = nz + _U2
    sx = (ny + _U2) * sy
    last_is_coarse = wraps[0] or (nx & _U1) == _U0
    if coarsens[0] and (i & _U1) == _U1 and not (i == nx and last_is_coarse):
        left = i >> _U1
        before, after = (left & _U1) * sx, ((left + _U1) & _U1) * sx
        if i == _U1:
            if wraps[0]:
                _expand_plane(coarse[0], before, shape, coarse, wraps, coarsens, wy, wz, coarse_x, planes)
            else:
                for p in range(sx):
                    planes[before + p] = _ZERO
        if left + _U1 <= coarse[0]:
            _expand_plane(left + _U1, after, shape, coarse, wraps, coarsens, wy, wz, coarse_x, planes)
        else:
            for p in range(sx):
                planes[after + p] = _ZERO
        for j in range(_U1, ny + _U1):
            row, weights = i * sx + j * sy, left * sx + j * sy
            for k in range(_U1, nz + _U1):
                a, b = planes[before + j * sy + k], planes[after + j * sy + k]
                x[row + k] += b + wx[weights + k] * (a - b)
        return
    here = ((i + _U1) >> _U1) if coarsens[0] else i
    at = (here & _U1) * sx
    if not coarsens[0] or (i & _U1) == _U1:
        _expand_plane(here, at, shape, coarse, wraps, coarsens, wy, wz, coarse_x, planes)
    for j in range(_U1, ny + _U1):
        row = i * sx + j * sy
        for k in range(_U1, nz + _U1):
            x[row + k] += planes[at + j * sy + k]


@njit(**_PART)
def _up(
    shape: Shape, coarse: Shape, wraps: Wraps, coarsens: Wraps,
    cx: Array, cy: Array, cz: Array, inverse: Array, r: Array, x: Array, v: Array,
    wx: Array, wy: Array, wz: Array, coarse_x: Array, planes: Array,
) -> None:  # fmt: skip
    """Add P (coarse x) to x, and smooth."""
    nx, ny, nz = shape
    sy = nz + _U2
    sx = (ny + _U2) * sy
    lag = nx if wraps[0] else _U1
    for t in range(_U1, nx + _U2 * lag + _U1):
        if t <= nx:
            _correct_plane(t, shape, coarse, wraps, coarsens, wx, wy, wz, coarse_x, x, planes)
            _wrap(x, t, shape, wraps)
        if t > lag and t - lag <= nx:
            i = t - lag
            for p in range(i * sx + sy, (i + _U1) * sx - sy):
                v[p] = inverse[p] * (r[p] + _neighbours(p, sx, sy, cx, cy, cz, x)) - x[p]
            _wrap(v, i, shape, wraps)
        if t > _U2 * lag:
            i = t - _U2 * lag
            _smooth(i, sx, sy, cx, cy, cz, inverse, v, x, True)
    for plane in range(_U1, nx + _U1):
        _wrap(x, plane, shape, wraps)


@njit(**_PART)
def _part(array: Array, levels: Levels, level: int, offset: Index) -> Array:
    """The part of an array that belongs to a level, if it begins `offset` points late."""
    nx, ny, nz, first = levels[level, 0], levels[level, 1], levels[level, 2], levels[level, 3]
    return array[first - offset : first - offset + (nx + _U2) * (ny + _U2) * (nz + _U2)]


@njit(**_PART, inline="always")
def _cycle(
    levels: Levels, wraps: Wraps, cx: Array, cy: Array, cz: Array, inverse: Array, weights: Array,
    finest_r: Array, coarse_r: Array, x: Array, v: Array, planes: Array,
) -> None:  # fmt: skip
    """One V-cycle: x ≈ A⁻¹ r on the finest level, in single precision throughout."""
    last = len(levels) - 1
    skipped = levels[1, 3] if last > 0 else _U0
    for level in range(last):
        shape, coarse, coarsens, wx, wy, wz = _transfer(levels, level, weights)
        a, b, c, d = (
            _part(cx, levels, level, _U0), _part(cy, levels, level, _U0),
            _part(cz, levels, level, _U0), _part(inverse, levels, level, _U0),
        )  # fmt: skip
        e, f = _part(x, levels, level, _U0), _part(v, levels, level, _U0)
        below = _part(coarse_r, levels, level + 1, skipped)
        if level == 0:
            _down(shape, coarse, wraps, coarsens, a, b, c, d, finest_r, e, f, wx, wy, wz, below, planes)
        else:
            r = _part(coarse_r, levels, level, skipped)
            _down(shape, coarse, wraps, coarsens, a, b, c, d, r, e, f, wx, wy, wz, below, planes)
    # The last level is one point, in the middle of its ghosts.
    shape = (levels[last, 0], levels[last, 1], levels[last, 2])
    middle = levels[last, 3] + np.uint64(13)
    x[middle] = inverse[middle] * (coarse_r[middle - skipped] if last > 0 else np.float32(finest_r[middle]))
    _wrap(_part(x, levels, last, _U0), _U1, shape, wraps)
    for level in range(last - 1, -1, -1):
        shape, coarse, coarsens, wx, wy, wz = _transfer(levels, level, weights)
        a, b, c, d = (
            _part(cx, levels, level, _U0), _part(cy, levels, level, _U0),
            _part(cz, levels, level, _U0), _part(inverse, levels, level, _U0),
        )  # fmt: skip
        e, f = _part(x, levels, level, _U0), _part(v, levels, level, _U0)
        below = _part(x, levels, level + 1, _U0)
        if level == 0:
            _up(shape, coarse, wraps, coarsens, a, b, c, d, finest_r, e, f, wx, wy, wz, below, planes)
        else:
            r = _part(coarse_r, levels, level, skipped)
            _up(shape, coarse, wraps, coarsens, a, b, c, d, r, e, f, wx, wy, wz, below, planes)


@njit(**_PART)
def _transfer(levels: Levels, level: int, weights: Array) -> tuple[Shape, Shape, Wraps, Array, Array, Array]:
    """Of a level: its shape and that of the next, the axes that are coarsened, and the weights of interpolation."""
    shape = (levels[level, 0], levels[level, 1], levels[level, 2])
    coarse = (levels[level + 1, 0], levels[level + 1, 1], levels[level + 1, 2])
    coarsens = (coarse[0] < shape[0], coarse[1] < shape[1], coarse[2] < shape[2])
    x, y, z, end = levels[level, 4], levels[level, 5], levels[level, 6], levels[level, 7]
    return shape, coarse, coarsens, weights[x:y], weights[y:z], weights[z:end]


@njit(**_PART)
def _outflow_row(
    i: Index, j: Index, shape: Shape, wraps: Wraps, cx: Array, cy: Array, cz: Array, reaction: Array, u: Array,
    out: Float64[np.ndarray, " row"],
) -> None:  # fmt: skip
    """Row (i, j) of A u, counted from 0, of arrays without ghosts."""
    nx, ny, nz = shape
    row = (i * ny + j) * nz
    # A neighbour beyond the end counts as 0.
    left_x, right_x, left_y, right_y = 1.0, 1.0, 1.0, 1.0
    a, b, c, d = row, row, row, row
    if i > _U0:
        a = row - ny * nz
    elif wraps[0]:
        a = row + (nx - _U1) * ny * nz
    else:
        left_x = 0.0
    if i + _U1 < nx:
        b = row + ny * nz
    elif wraps[0]:
        b = row - (nx - _U1) * ny * nz
    else:
        right_x = 0.0
    if j > _U0:
        c = row - nz
    elif wraps[1]:
        c = row + (ny - _U1) * nz
    else:
        left_y = 0.0
    if j + _U1 < ny:
        d = row + nz
    elif wraps[1]:
        d = row - (ny - _U1) * nz
    else:
        right_y = 0.0
    x_after = j * nz if wraps[0] and i + _U1 == nx else row + ny * nz
    faces_y = ny if wraps[1] else ny + _U1
    y_before = (i * faces_y + j) * nz
    y_after = i * faces_y * nz if wraps[1] and j + _U1 == ny else y_before + nz
    for k in range(nz):
        here = np.float64(u[row + k])
        along_x = cx[row + k] * (here - left_x * u[a + k]) + cx[x_after + k] * (here - right_x * u[b + k])
        along_y = cy[y_before + k] * (here - left_y * u[c + k]) + cy[y_after + k] * (here - right_y * u[d + k])
        out[k] = along_x + along_y
    z = (i * ny + j) * (nz if wraps[2] else nz + _U1)
    last = row + nz - _U1
    for k in range(_U1, nz):
        out[k] += cz[z + k] * (np.float64(u[row + k]) - u[row + k - _U1])
    for k in range(nz - _U1):
        out[k] += cz[z + k + _U1] * (np.float64(u[row + k]) - u[row + k + _U1])
    if wraps[2]:
        out[_U0] += cz[z] * (np.float64(u[row]) - u[last])
        out[nz - _U1] += cz[z] * (np.float64(u[last]) - u[row])
    else:
        out[_U0] += cz[z] * u[row]
        out[nz - _U1] += cz[z + nz] * u[last]
    if len(reaction) > 0:
        for k in range(nz):
            out[k] += reaction[row + k] * u[row + k]


@njit(**_OPTIONS, cache=True)
def conjugate_gradients(
    wraps: Wraps,
    conductances: tuple[Array, Array, Array],
    reaction: Float64[np.ndarray, " unknowns"],
    largest: float,
    singular: bool,
    rhs: Float64[np.ndarray, " unknowns"],
    x: Float64[np.ndarray, " unknowns"],
    levels: Levels,
    single: tuple[Array, Array, Array, Array, Array, Array],
    weights: Float32[np.ndarray, " weights"],
    coarse_r: Float32[np.ndarray, " coarse"],
    r: Float64[np.ndarray, " finest"],
    p: Float32[np.ndarray, " unknowns"],
    planes: Float32[np.ndarray, " planes"],
    rtol: float,
    max_iterations: int,
) -> tuple[int, float]:
    """Solve a seven-point system into `x`.

    Args:
        wraps: which axes are periodic.
        conductances: those of the operator, flat.
        reaction: flat; empty for none.
        largest: what the conductances of the levels were divided by.
        singular: A maps constants to 0.
        rhs: b.
        x: the solution, written.
        levels: of every level its points along the axes, where its points begin, and where its weights begin for each
            axis and end.
        single: of all levels the conductances along the axes, the inverse diagonal, the correction, and
            what the smoother needs.
        weights: of interpolation.
        coarse_r: the right-hand sides of all levels but the finest.
        r: the residual, with ghosts.
        p: the search direction.
        planes: four planes of the finest level.
        rtol: the relative residual to reach.
        max_iterations: when to give up.

    Returns:
        The number of iterations and the relative residual, recomputed from the solution. It exceeds `rtol` when the
        iterations ran out, or when they broke down because of values that are not finite or not positive.
    """
    shape = (levels[0, 0], levels[0, 1], levels[0, 2])
    nx, ny, nz = shape
    sy = nz + _U2
    sx = (ny + _U2) * sy
    cx, cy, cz = conductances
    cx32, cy32, cz32, inverse, z, v = single
    unit = 1.0 / largest
    row_of_ap = np.empty(nz)
    lag = nx if wraps[0] else _U1

    # Single precision ends at 1e-38: conductances are scaled to at most 1 and the right-hand side to norm 1.
    norm = 0.0
    mean = 0.0
    for k in range(len(rhs)):
        norm += rhs[k] * rhs[k]
        mean += rhs[k]
    norm = np.sqrt(norm)
    x[:] = 0.0
    if norm == 0.0:
        return 0, 0.0
    # What is left of the mean is rounding, and nothing that A could produce.
    mean = mean / len(rhs) if singular else 0.0
    for i in range(nx):
        for j in range(ny):
            row, to = (i * ny + j) * nz, (i + _U1) * sx + (j + _U1) * sy + _U1
            for k in range(nz):
                r[to + k] = (rhs[row + k] - mean) / norm
    num_iterations = 0
    residual = 1.0
    for _ in range(_STARTS):
        p[:] = _ZERO
        rz_before = np.inf
        while num_iterations < max_iterations:
            _cycle(levels, wraps, cx32, cy32, cz32, inverse, weights, r, coarse_r, z, v, planes)
            rz = 0.0
            for k in range(len(r)):
                rz += r[k] * z[k]
            beta = np.float32(rz / rz_before)
            rz_before = rz
            pq = 0.0
            for t in range(nx + lag):
                if t < nx:
                    for j in range(ny):
                        row, of = (t * ny + j) * nz, (t + _U1) * sx + (j + _U1) * sy + _U1
                        for k in range(nz):
                            p[row + k] = z[of + k] + beta * p[row + k]
                if t >= lag:
                    for j in range(ny):
                        _outflow_row(t - lag, j, shape, wraps, cx, cy, cz, reaction, p, row_of_ap)
                        row = ((t - lag) * ny + j) * nz
                        for k in range(nz):
                            pq += p[row + k] * row_of_ap[k]
            pq *= unit
            num_iterations += 1
            if not pq > 0.0:
                break
            step = rz / pq
            scaled = step * unit
            rr = 0.0
            for i in range(nx):
                for j in range(ny):
                    _outflow_row(i, j, shape, wraps, cx, cy, cz, reaction, p, row_of_ap)
                    row, of = (i * ny + j) * nz, (i + _U1) * sx + (j + _U1) * sy + _U1
                    for k in range(nz):
                        x[row + k] += step * p[row + k]
                        value = r[of + k] - scaled * row_of_ap[k]
                        r[of + k] = value
                        rr += value * value
            if not rr > 0.81 * rtol * rtol:
                break
        # The true residual of what will be handed out.
        before = residual
        residual = 0.0
        for i in range(nx):
            for j in range(ny):
                _outflow_row(i, j, shape, wraps, cx, cy, cz, reaction, x, row_of_ap)
                row, of = (i * ny + j) * nz, (i + _U1) * sx + (j + _U1) * sy + _U1
                for k in range(nz):
                    value = (rhs[row + k] - mean) / norm - unit * row_of_ap[k]
                    r[of + k] = value
                    residual += value * value
        residual = np.sqrt(residual)
        if residual <= rtol or num_iterations >= max_iterations or not residual < 0.5 * before:
            break
    scale = norm / largest
    for k in range(len(x)):
        x[k] *= scale
    return num_iterations, residual
