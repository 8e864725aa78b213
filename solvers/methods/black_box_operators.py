"""The levels of black-box multigrid: interpolation, Galerkin's product, and the factor of the coarsest, compiled.

What it is and where it comes from: `headrace.solvers.methods.black_box_kernels`. Numba keeps compiled
code by the date of the file whose function Python calls: who changes this one in a checkout touches that one.

Layout. A level of nx * ny points lies in (nx + 2) rows of ny + 2 values, with zeros all around; point (i, j) is
first + i (ny + 2) + j. `own` is the diagonal, and `east`, `south`, `south_east`, `south_west` are minus the entries
between a point and the one of that direction. The weights of a coarse point on the eight fine ones around it lie at the
coarse point.
"""

import numpy as np
from jaxtyping import Float64, UInt64
from numba import njit

type Index = np.uint64
type Arrays = Float64[np.ndarray, "arrays points"]
type Levels = UInt64[np.ndarray, "levels 3"]

OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
_PART = OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

_U0, _U1, _U2 = (np.uint64(k) for k in (0, 1, 2))
# The arrays of `stencil` and of `weights`.
OWN, EAST, SOUTH, SOUTH_EAST, SOUTH_WEST, INVERSE = range(6)
NW, N, NE, W, E, SW, S, SE = range(8)
BAND = 5
"""Values a point of the coarsest level that its factor takes: a diagonal and as many below as points may be across."""


# A look at the coefficients -------------------------------------------------------------------------------------------


@njit(**OPTIONS, cache=True)
def share_of_jumps(faces: Float64[np.ndarray, "points_x faces_y"], factor: float) -> float:
    """The share of inner faces that differ from the next one by more than a factor, in every eighth row."""
    n = faces.shape[1] - 3
    num_jumps = num_faces = 0
    for i in range(faces.shape[0] // 2 % 8, faces.shape[0], 8):
        row = faces[i]
        for j in range(1, n + 1):
            num_jumps += (row[j] > factor * row[j + 1]) | (row[j + 1] > factor * row[j])
        num_faces += n
    return num_jumps / num_faces if n > 0 else 0.0


# Set-up ---------------------------------------------------------------------------------------------------------------


@njit(**_PART)
def _interpolate_line(before: float, after: float, own: float, total: float) -> tuple[float, float]:
    """Weights of the coarse points before and after a fine one; `total` are all entries around it."""
    before, after = max(before, 0.0), max(after, 0.0)
    every = before + after + max(own - total, 0.0)
    return (before / every, after / every) if every > 0.0 else (0.0, 0.0)


@njit(**_PART)
def weigh(levels: Levels, level: int, stencil: Arrays, weights: Arrays) -> None:
    """The weights of the coarse points of the next level."""
    nx, ny, first = levels[level, 0], levels[level, 1], levels[level, 2]
    coarse_ny, coarse = levels[level + 1, 1], levels[level + 1, 2]
    st, cst = ny + _U2, coarse_ny + _U2
    own, e, s, se, sw = stencil[OWN], stencil[EAST], stencil[SOUTH], stencil[SOUTH_EAST], stencil[SOUTH_WEST]
    # Points between two along a row, and along a column. Coarse rows and columns begin at 0, which is the boundary.
    for i in range(_U2, nx + _U1, _U2):
        for j in range(_U1, ny + _U1, _U2):
            k, c = first + i * st + j, coarse + (i >> _U1) * cst + (j >> _U1)
            west, east = e[k - _U1] + se[k - st - _U1] + sw[k], e[k] + se[k] + sw[k - st + _U1]
            before, after = _interpolate_line(west, east, own[k], west + east + s[k] + s[k - st])
            weights[E, c], weights[W, c + _U1] = before, after
    for i in range(_U1, nx + _U1, _U2):
        for j in range(_U2, ny + _U1, _U2):
            k, c = first + i * st + j, coarse + (i >> _U1) * cst + (j >> _U1)
            north, south = s[k - st] + se[k - st - _U1] + sw[k - st + _U1], s[k] + se[k] + sw[k]
            before, after = _interpolate_line(north, south, own[k], north + south + e[k] + e[k - _U1])
            weights[S, c], weights[N, c + cst] = before, after
    for i in range(_U1, nx + _U1, _U2):
        for j in range(_U1, ny + _U1, _U2):
            k, c = first + i * st + j, coarse + (i >> _U1) * cst + (j >> _U1)
            d = 1.0 / own[k]
            north, south, west, east = s[k - st], s[k], e[k - _U1], e[k]
            weights[SE, c] = d * (se[k - st - _U1] + north * weights[E, c] + west * weights[S, c])
            weights[SW, c + _U1] = d * (sw[k - st + _U1] + north * weights[W, c + _U1] + east * weights[S, c + _U1])
            weights[NE, c + cst] = d * (sw[k] + south * weights[E, c + cst] + west * weights[N, c + cst])
            weights[NW, c + cst + _U1] = d * (
                se[k] + south * weights[W, c + cst + _U1] + east * weights[N, c + cst + _U1]
            )
    # Boundaries have no values to give.
    for array in range(8):
        for j in range(cst):
            weights[array, coarse + j] = 0.0
        for i in range((nx >> _U1) + _U2):
            weights[array, coarse + i * cst] = weights[array, coarse + i * cst + cst - _U1] = 0.0
        for j in range(cst):
            weights[array, coarse + ((nx >> _U1) + _U1) * cst + j] = 0.0


@njit(**_PART)
def coarsen(levels: Levels, level: int, stencil: Arrays, weights: Arrays) -> None:
    """Galerkin's product, point by point: A applied to what one coarse point interpolates to, tested by its neighbours.

    Of the points around, those in the middle of four have no residual.
    """
    ny, first = levels[level, 1], levels[level, 2]
    coarse_nx, coarse_ny, coarse = levels[level + 1, 0], levels[level + 1, 1], levels[level + 1, 2]
    st, cst = ny + _U2, coarse_ny + _U2
    own, e, s, se, sw = stencil[OWN], stencil[EAST], stencil[SOUTH], stencil[SOUTH_EAST], stencil[SOUTH_WEST]
    for i in range(_U1, coarse_nx + _U1):
        for j in range(_U1, coarse_ny + _U1):
            c, k = coarse + i * cst + j, first + _U2 * i * st + _U2 * j
            pnw, pn, pne, pw = weights[NW, c], weights[N, c], weights[NE, c], weights[W, c]
            pe, psw, ps, pse = weights[E, c], weights[SW, c], weights[S, c], weights[SE, c]
            at = own[k] - e[k] * pe - e[k - _U1] * pw - s[k] * ps - s[k - st] * pn
            at -= se[k] * pse + se[k - st - _U1] * pnw + sw[k] * psw + sw[k - st + _U1] * pne
            q = k + _U1
            to = own[q] * pe - e[q - _U1] - s[q - st] * pne - s[q] * pse - se[q - st - _U1] * pn - sw[q] * ps
            total, east = at + pe * to, 0.0
            if j < coarse_ny:
                east = to * weights[W, c + _U1]
            q = k - _U1
            total += pw * (own[q] * pw - e[q] - s[q - st] * pnw - s[q] * psw - sw[q - st + _U1] * pn - se[q] * ps)
            q = k - st
            total += pn * (own[q] * pn - s[q] - e[q - _U1] * pnw - e[q] * pne - sw[q] * pw - se[q] * pe)
            q = k + st
            to = own[q] * ps - s[q - st] - e[q - _U1] * psw - e[q] * pse - se[q - st - _U1] * pw - sw[q - st + _U1] * pe
            total += ps * to
            south, south_east, south_west = 0.0, 0.0, 0.0
            if j < coarse_ny:
                q = k + _U2
                east -= e[q - _U1] * pe + se[q - st - _U1] * pne + sw[q] * pse
                q = k - st + _U2
                east -= weights[N, c + _U1] * (e[q - _U1] * pne + sw[q] * pe)
                q = k + st + _U2
                to_east = e[q - _U1] * pse + se[q - st - _U1] * pe
                east -= weights[S, c + _U1] * to_east
                if i < coarse_nx:
                    south_east -= weights[N, c + cst + _U1] * to_east
            if i < coarse_nx:
                south = to * weights[N, c + cst]
                q = k + _U2 * st
                south -= s[q - st] * ps + se[q - st - _U1] * psw + sw[q - st + _U1] * pse
                q = k + _U2 * st - _U1
                to_west = s[q - st] * psw + sw[q - st + _U1] * ps
                south -= weights[W, c + cst] * to_west
                if j > _U1:
                    south_west -= weights[E, c + cst - _U1] * to_west
                    q = k + _U2 * st - _U2
                    south_west -= sw[q - st + _U1] * psw
                    q = k + st - _U2
                    south_west -= weights[N, c + cst - _U1] * (e[q] * psw + sw[q - st + _U1] * pw)
                q = k + _U2 * st + _U1
                to_east = s[q - st] * pse + se[q - st - _U1] * ps
                south -= weights[E, c + cst] * to_east
                if j < coarse_ny:
                    south_east -= weights[W, c + cst + _U1] * to_east
                    q = k + _U2 * st + _U2
                    south_east -= se[q - st - _U1] * pse
            own[c], e[c], s[c], se[c], sw[c] = total, -east, -south, -south_east, -south_west


@njit(**_PART)
def factor(levels: Levels, stencil: Arrays, factors: Arrays) -> bool:
    """Cholesky factors of the coarsest level, a band as wide as its points across; whether it is positive definite."""
    nx, ny, first = np.int64(levels[-1, 0]), np.int64(levels[-1, 1]), np.int64(levels[-1, 2])
    st, is_wide = ny + 2, nx < ny
    across, along = (nx, ny) if is_wide else (ny, nx)
    for row in range(along * across):
        a, b = row // across, row % across
        k = first + ((b + 1) * st + a + 1 if is_wide else (a + 1) * st + b + 1)
        for offset in range(BAND):
            factors[offset, row] = 0.0
        factors[0, row] = stencil[OWN, k]
        if b > 0:
            factors[1, row] -= stencil[SOUTH, k - st] if is_wide else stencil[EAST, k - 1]
        if a > 0:
            factors[across, row] -= stencil[EAST, k - 1] if is_wide else stencil[SOUTH, k - st]
            if b + 1 < across:
                factors[across - 1, row] -= stencil[SOUTH_WEST, k if is_wide else k - st + 1]
            if b > 0:
                factors[across + 1, row] -= stencil[SOUTH_EAST, k - st - 1]
    for row in range(along * across):
        reach = across + 1 if across < row else row
        for offset in range(reach, 0, -1):
            column = row - offset
            value = factors[offset, row]
            for further in range(offset + 1, reach + 1):
                value -= factors[further, row] * factors[further - offset, column]
            factors[offset, row] = value / factors[0, column]
        pivot = factors[0, row]
        for offset in range(1, reach + 1):
            pivot -= factors[offset, row] ** 2
        if not pivot > 0.0:
            return False
        factors[0, row] = np.sqrt(pivot)
    return True
