"""The compiled part of `DiffusionOperator`: A u, row by row.

All arrays are flat, the last axis fastest. With fewer than three dimensions the first axes are missing: of two, `cx` is
empty and nx = 1.
Indices are unsigned: Numba asks of every signed index whether it is negative, which keeps loops from vectorising.
"""

import numpy as np
from jaxtyping import Float64
from numba import njit

type Array = Float64[np.ndarray, " points"]
type Index = np.uint64

# Products and sums may fuse; NaN and infinity keep their meaning.
_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

_U0, _U1 = np.uint64(0), np.uint64(1)


@njit(**_OPTIONS)
def outflow(
    cx: Array,
    cy: Array,
    cz: Array,
    reaction: Array,
    shape: tuple[Index, Index, Index],
    wraps: tuple[bool, bool, bool],
    u: Array,
    out: Array,
) -> None:
    """Out = A u; an empty `reaction` is none."""
    nx, ny, nz = shape
    for i in range(nx):
        for j in range(ny):
            row = (i * ny + j) * nz
            _row(cx, cy, cz, reaction, shape, wraps, i, j, u, out[row : row + nz])


@njit(**_OPTIONS)
def _row(
    cx: Array,
    cy: Array,
    cz: Array,
    reaction: Array,
    shape: tuple[Index, Index, Index],
    wraps: tuple[bool, bool, bool],
    i: Index,
    j: Index,
    u: Array,
    out: Array,
) -> None:
    """Out = the row of A u at the positions i and j along the other axes."""
    nx, ny, nz = shape
    plane = ny * nz
    faces_y = plane if wraps[1] else plane + nz
    faces_z = nz if wraps[2] else nz + _U1
    row = (i * ny + j) * nz
    _axis_z(cz, (i * ny + j) * faces_z, nz, wraps[2], row, u, out)
    first = i * plane
    if len(cy) > 0:
        _other_axis(cy, i * faces_y, j, ny, nz, wraps[1], row, first, nz, u, out)
    if len(cx) > 0:
        _other_axis(cx, j * nz, i, nx, plane, wraps[0], row, j * nz, nz, u, out)
    if len(reaction) > 0:
        for k in range(nz):
            out[k] += reaction[row + k] * u[row + k]


@njit(**_OPTIONS)
def _other_axis(
    c: Array,
    first_face: Index,
    position: Index,
    count: Index,
    stride: Index,
    wraps: bool,
    row: Index,
    first: Index,
    nz: Index,
    u: Array,
    out: Array,
) -> None:
    """Add what flows between a row and its neighbours along another axis than its own.

    Args:
        c: conductances of that axis.
        first_face: where those of the row at position 0 begin.
        position: of this row along the axis.
        count: rows along the axis.
        stride: from one row to the next along the axis.
        wraps: whether the axis is periodic.
        row: where this row begins.
        first: where the row at position 0 begins.
        nz: points of a row.
        u: the vector.
        out: this row, which is added to.
    """
    last = count - _U1
    # Beyond an end that does not wrap around u is 0: any row will do, times 0.
    before_counts = 1.0 if position > _U0 or wraps else 0.0
    after_counts = 1.0 if position < last or wraps else 0.0
    before = row - stride if position > _U0 else (first + last * stride if wraps else row)
    after = row + stride if position < last else (first if wraps else row)
    face_before = first_face + position * stride
    face_after = first_face if wraps and position == last else face_before + stride
    for k in range(nz):
        value = u[row + k]
        out[k] += c[face_before + k] * (value - before_counts * u[before + k]) + c[face_after + k] * (
            value - after_counts * u[after + k]
        )


@njit(**_OPTIONS)
def _axis_z(c: Array, face: Index, nz: Index, wraps: bool, row: Index, u: Array, out: Array) -> None:
    """Set a row to what flows through the faces inside it and at its ends."""
    for k in range(_U1, nz - _U1 if nz > _U1 else _U1):
        value = u[row + k]
        out[k] = c[face + k] * (value - u[row + k - _U1]) + c[face + k + _U1] * (value - u[row + k + _U1])
    end = row + nz - _U1
    first, last = u[row], u[end]
    left, right = (last, first) if wraps else (0.0, 0.0)
    end_face = face if wraps else face + nz
    if nz == _U1:
        out[_U0] = c[face] * (first - left) + c[end_face] * (first - right)
    else:
        out[_U0] = c[face] * (first - left) + c[face + _U1] * (first - u[row + _U1])
        out[nz - _U1] = c[face + nz - _U1] * (last - u[end - _U1]) + c[end_face] * (last - right)


@njit(**_OPTIONS | {"fastmath": {"contract", "reassoc"}})
def _squares(b: Array, first: Index, a_u: Array) -> tuple[float, float]:
    """||b - A u||² and ||b||² of a row in one pass; sums may be reordered, so that they vectorise."""
    missed = scale = 0.0
    for k in range(_U0, np.uint64(len(a_u))):
        missed += (b[first + k] - a_u[k]) * (b[first + k] - a_u[k])
        scale += b[first + k] * b[first + k]
    return missed, scale


@njit(**_OPTIONS)
def misses(
    cx: Array,
    cy: Array,
    cz: Array,
    reaction: Array,
    shape: tuple[Index, Index, Index],
    wraps: tuple[bool, bool, bool],
    u: Array,
    b: Array,
) -> tuple[float, float]:
    """||b - A u||² and ||b||², row by row: A u is never held."""
    nx, ny, nz = shape
    missed = scale = 0.0
    out = np.empty(nz)
    for i in range(nx):
        for j in range(ny):
            _row(cx, cy, cz, reaction, shape, wraps, i, j, u, out)
            of_row, size = _squares(b, (i * ny + j) * nz, out)
            missed += of_row
            scale += size
    return missed, scale
