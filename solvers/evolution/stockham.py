"""Compiled Fourier transforms of 2^k values: of one row, or of eight rows side by side.

Stockham's transform (Cochran et al. 1967, "What is the fast Fourier transform?", Proceedings of the IEEE 55) by
decimation in time: each pass reads four values (in the first one eight, where k is odd) and writes them a quarter of
the array apart, so that nothing has to be sorted. Real and imaginary parts are arrays of their own.

A tile holds eight rows, "values 8": every butterfly is then one instruction for eight of them. A row is as quick as it
gets alone. Neither reorders a sum or fuses it with a product: a row comes to the same last bits in both.

With its parts exchanged, in and out, the transform is the inverse one, times its length.
"""

import numpy as np
from jaxtyping import Float64
from numba import njit

from headrace.solvers.disjoint import Disjoint

type Row = Float64[np.ndarray, " values"]
type Tile = Float64[np.ndarray, "values 8"]
type Roots = Float64[np.ndarray, "six roots"]

LANES = 8
"""Rows of a tile: as many numbers as the widest registers hold. A constant, so that no loop over them is left."""

_OPTIONS = {"nogil": True, "error_model": "numpy"}
LOOP = _OPTIONS | {"pipeline_class": Disjoint, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For functions that compiled ones call, with arrays that do not overlap where they are written."""

_HALF_ROOT = np.sqrt(0.5)


def roots_of(length: int) -> Roots:
    """The roots of 1 for each pass but the first, in the order of its butterflies: w, w² and w³, both parts of each."""
    parts, n = [np.zeros((6, 0))], first_radix(length)
    while n < length:
        n *= 4
        angles = -2.0 * np.pi * np.outer((1.0, 2.0, 3.0), np.arange(n // 4)) / n
        parts.append(np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(6, -1))
    return np.concatenate(parts, axis=1)


def first_radix(length: int) -> int:
    """4, or 8 where powers of 4 do not do."""
    return 8 if length.bit_length() % 2 == 0 else 4


@njit(**LOOP)
def _row_first_4(
    x: Row, y: Row, u0: Row, u1: Row, u2: Row, u3: Row,
    v0: Row, v1: Row, v2: Row, v3: Row,
) -> None:  # fmt: skip
    """The first pass, of radix 4: to parts of u + i v."""
    s = len(u0)
    for k in range(s):
        a, e = x[k], y[k]
        b, f = x[k + s], y[k + s]
        c, g = x[k + 2 * s], y[k + 2 * s]
        d, h = x[k + 3 * s], y[k + 3 * s]
        ac, bd, eg, fh = a + c, b + d, e + g, f + h
        a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
        u0[k], v0[k] = ac + bd, eg + fh
        u1[k], v1[k] = a_c + f_h, e_g - b_d
        u2[k], v2[k] = ac - bd, eg - fh
        u3[k], v3[k] = a_c - f_h, e_g + b_d


@njit(**LOOP)
def _row_first_8(
    x: Row, y: Row, u0: Row, u1: Row, u2: Row, u3: Row, u4: Row, u5: Row, u6: Row, u7: Row,
    v0: Row, v1: Row, v2: Row, v3: Row, v4: Row, v5: Row, v6: Row, v7: Row,
) -> None:  # fmt: skip
    """The first pass, of radix 8: to parts of u + i v."""
    s = len(u0)
    for k in range(s):
        a, e = x[k], y[k]
        b, f = x[k + 2 * s], y[k + 2 * s]
        c, g = x[k + 4 * s], y[k + 4 * s]
        d, h = x[k + 6 * s], y[k + 6 * s]
        ac, bd, eg, fh = a + c, b + d, e + g, f + h
        a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
        p0, q0, p1, q1 = ac + bd, eg + fh, a_c + f_h, e_g - b_d
        p2, q2, p3, q3 = ac - bd, eg - fh, a_c - f_h, e_g + b_d
        a, e = x[k + s], y[k + s]
        b, f = x[k + 3 * s], y[k + 3 * s]
        c, g = x[k + 5 * s], y[k + 5 * s]
        d, h = x[k + 7 * s], y[k + 7 * s]
        ac, bd, eg, fh = a + c, b + d, e + g, f + h
        a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
        o0, j0, o1, j1 = ac + bd, eg + fh, a_c + f_h, e_g - b_d
        o2, j2, o3, j3 = ac - bd, eg - fh, a_c - f_h, e_g + b_d
        # The odd ones times the eighth roots of 1.
        o1, j1 = _HALF_ROOT * (o1 + j1), _HALF_ROOT * (j1 - o1)
        o2, j2 = j2, -o2
        o3, j3 = _HALF_ROOT * (j3 - o3), -_HALF_ROOT * (j3 + o3)
        u0[k], v0[k], u4[k], v4[k] = p0 + o0, q0 + j0, p0 - o0, q0 - j0
        u1[k], v1[k], u5[k], v5[k] = p1 + o1, q1 + j1, p1 - o1, q1 - j1
        u2[k], v2[k], u6[k], v6[k] = p2 + o2, q2 + j2, p2 - o2, q2 - j2
        u3[k], v3[k], u7[k], v7[k] = p3 + o3, q3 + j3, p3 - o3, q3 - j3


@njit(**LOOP)
def _row_pass(
    x: Row, y: Row, u0: Row, u1: Row, u2: Row, u3: Row,
    v0: Row, v1: Row, v2: Row, v3: Row, roots: Roots, at: int, m: int, s: int,
) -> None:  # fmt: skip
    """A pass of radix 4: m times s butterflies, of which s share their roots, from `at` on."""
    if s == 1:
        for k in range(m):
            w1, z1, w2, z2 = roots[0, at + k], roots[1, at + k], roots[2, at + k], roots[3, at + k]
            w3, z3 = roots[4, at + k], roots[5, at + k]
            a, e = x[4 * k], y[4 * k]
            b, f = x[4 * k + 1], y[4 * k + 1]
            c, g = x[4 * k + 2], y[4 * k + 2]
            d, h = x[4 * k + 3], y[4 * k + 3]
            b, f = b * w1 - f * z1, b * z1 + f * w1
            c, g = c * w2 - g * z2, c * z2 + g * w2
            d, h = d * w3 - h * z3, d * z3 + h * w3
            ac, bd, eg, fh = a + c, b + d, e + g, f + h
            a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
            u0[k], v0[k] = ac + bd, eg + fh
            u1[k], v1[k] = a_c + f_h, e_g - b_d
            u2[k], v2[k] = ac - bd, eg - fh
            u3[k], v3[k] = a_c - f_h, e_g + b_d
        return
    for p in range(m):
        w1, z1, w2, z2 = roots[0, at + p], roots[1, at + p], roots[2, at + p], roots[3, at + p]
        w3, z3 = roots[4, at + p], roots[5, at + p]
        for q in range(s):
            k, n = p * s + q, 4 * p * s + q
            a, e = x[n], y[n]
            b, f = x[n + s], y[n + s]
            c, g = x[n + 2 * s], y[n + 2 * s]
            d, h = x[n + 3 * s], y[n + 3 * s]
            b, f = b * w1 - f * z1, b * z1 + f * w1
            c, g = c * w2 - g * z2, c * z2 + g * w2
            d, h = d * w3 - h * z3, d * z3 + h * w3
            ac, bd, eg, fh = a + c, b + d, e + g, f + h
            a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
            u0[k], v0[k] = ac + bd, eg + fh
            u1[k], v1[k] = a_c + f_h, e_g - b_d
            u2[k], v2[k] = ac - bd, eg - fh
            u3[k], v3[k] = a_c - f_h, e_g + b_d


@njit(**LOOP)
def transform_row(x: Row, y: Row, u: Row, v: Row, roots: Roots) -> tuple[Row, Row, Row, Row]:
    """The transform of x + i y, in one pair of the four arrays; then the other pair."""
    length = len(x)
    n = length // 4
    if n & 0x55555555:  # a power of 4
        _row_first_4(
            x, y, u[: n], u[n : 2 * n], u[2 * n : 3 * n], u[3 * n : 4 * n],
            v[: n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n : 4 * n],
        )  # fmt: skip
        m = 4
    else:
        n = length // 8
        _row_first_8(
            x, y, u[: n], u[n : 2 * n], u[2 * n : 3 * n], u[3 * n : 4 * n],
            u[4 * n : 5 * n], u[5 * n : 6 * n], u[6 * n : 7 * n], u[7 * n : 8 * n],
            v[: n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n : 4 * n],
            v[4 * n : 5 * n], v[5 * n : 6 * n], v[6 * n : 7 * n], v[7 * n : 8 * n],
        )  # fmt: skip
        m = 8
    n, at = length // 4, 0
    x, y, u, v = u, v, x, y
    while m < length:
        _row_pass(
            x, y, u[: n], u[n : 2 * n], u[2 * n : 3 * n], u[3 * n : 4 * n],
            v[: n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n : 4 * n], roots, at, m, n // m,
        )  # fmt: skip
        at += m
        m *= 4
        x, y, u, v = u, v, x, y
    return x, y, u, v


@njit(**LOOP)
def _tile_first_4(
    x: Tile, y: Tile, u0: Tile, u1: Tile, u2: Tile, u3: Tile,
    v0: Tile, v1: Tile, v2: Tile, v3: Tile,
) -> None:  # fmt: skip
    """The first pass, of radix 4: to parts of u + i v."""
    s = len(u0)
    for k in range(s):
        for lane in range(LANES):
            a, e = x[k, lane], y[k, lane]
            b, f = x[k + s, lane], y[k + s, lane]
            c, g = x[k + 2 * s, lane], y[k + 2 * s, lane]
            d, h = x[k + 3 * s, lane], y[k + 3 * s, lane]
            ac, bd, eg, fh = a + c, b + d, e + g, f + h
            a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
            u0[k, lane], v0[k, lane] = ac + bd, eg + fh
            u1[k, lane], v1[k, lane] = a_c + f_h, e_g - b_d
            u2[k, lane], v2[k, lane] = ac - bd, eg - fh
            u3[k, lane], v3[k, lane] = a_c - f_h, e_g + b_d


@njit(**LOOP)
def _tile_first_8(
    x: Tile, y: Tile, u0: Tile, u1: Tile, u2: Tile, u3: Tile, u4: Tile, u5: Tile, u6: Tile, u7: Tile,
    v0: Tile, v1: Tile, v2: Tile, v3: Tile, v4: Tile, v5: Tile, v6: Tile, v7: Tile,
) -> None:  # fmt: skip
    """The first pass, of radix 8: to parts of u + i v."""
    s = len(u0)
    for k in range(s):
        for lane in range(LANES):
            a, e = x[k, lane], y[k, lane]
            b, f = x[k + 2 * s, lane], y[k + 2 * s, lane]
            c, g = x[k + 4 * s, lane], y[k + 4 * s, lane]
            d, h = x[k + 6 * s, lane], y[k + 6 * s, lane]
            ac, bd, eg, fh = a + c, b + d, e + g, f + h
            a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
            p0, q0, p1, q1 = ac + bd, eg + fh, a_c + f_h, e_g - b_d
            p2, q2, p3, q3 = ac - bd, eg - fh, a_c - f_h, e_g + b_d
            a, e = x[k + s, lane], y[k + s, lane]
            b, f = x[k + 3 * s, lane], y[k + 3 * s, lane]
            c, g = x[k + 5 * s, lane], y[k + 5 * s, lane]
            d, h = x[k + 7 * s, lane], y[k + 7 * s, lane]
            ac, bd, eg, fh = a + c, b + d, e + g, f + h
            a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
            o0, j0, o1, j1 = ac + bd, eg + fh, a_c + f_h, e_g - b_d
            o2, j2, o3, j3 = ac - bd, eg - fh, a_c - f_h, e_g + b_d
            # The odd ones times the eighth roots of 1.
            o1, j1 = _HALF_ROOT * (o1 + j1), _HALF_ROOT * (j1 - o1)
            o2, j2 = j2, -o2
            o3, j3 = _HALF_ROOT * (j3 - o3), -_HALF_ROOT * (j3 + o3)
            u0[k, lane], v0[k, lane], u4[k, lane], v4[k, lane] = p0 + o0, q0 + j0, p0 - o0, q0 - j0
            u1[k, lane], v1[k, lane], u5[k, lane], v5[k, lane] = p1 + o1, q1 + j1, p1 - o1, q1 - j1
            u2[k, lane], v2[k, lane], u6[k, lane], v6[k, lane] = p2 + o2, q2 + j2, p2 - o2, q2 - j2
            u3[k, lane], v3[k, lane], u7[k, lane], v7[k, lane] = p3 + o3, q3 + j3, p3 - o3, q3 - j3


@njit(**LOOP)
def _tile_pass(
    x: Tile, y: Tile, u0: Tile, u1: Tile, u2: Tile, u3: Tile,
    v0: Tile, v1: Tile, v2: Tile, v3: Tile, roots: Roots, at: int, m: int, s: int,
) -> None:  # fmt: skip
    """A pass of radix 4: m times s butterflies, of which s share their roots, from `at` on."""
    for p in range(m):
        w1, z1, w2, z2 = roots[0, at + p], roots[1, at + p], roots[2, at + p], roots[3, at + p]
        w3, z3 = roots[4, at + p], roots[5, at + p]
        for q in range(s):
            k, n = p * s + q, 4 * p * s + q
            for lane in range(LANES):
                a, e = x[n, lane], y[n, lane]
                b, f = x[n + s, lane], y[n + s, lane]
                c, g = x[n + 2 * s, lane], y[n + 2 * s, lane]
                d, h = x[n + 3 * s, lane], y[n + 3 * s, lane]
                b, f = b * w1 - f * z1, b * z1 + f * w1
                c, g = c * w2 - g * z2, c * z2 + g * w2
                d, h = d * w3 - h * z3, d * z3 + h * w3
                ac, bd, eg, fh = a + c, b + d, e + g, f + h
                a_c, b_d, e_g, f_h = a - c, b - d, e - g, f - h
                u0[k, lane], v0[k, lane] = ac + bd, eg + fh
                u1[k, lane], v1[k, lane] = a_c + f_h, e_g - b_d
                u2[k, lane], v2[k, lane] = ac - bd, eg - fh
                u3[k, lane], v3[k, lane] = a_c - f_h, e_g + b_d


@njit(**LOOP)
def transform_tile(x: Tile, y: Tile, u: Tile, v: Tile, roots: Roots) -> tuple[Tile, Tile, Tile, Tile]:
    """The transform of the rows of x + i y, in one pair of the four arrays; then the other pair."""
    length = len(x)
    n = length // 4
    if n & 0x55555555:  # a power of 4
        _tile_first_4(
            x, y, u[: n], u[n : 2 * n], u[2 * n : 3 * n], u[3 * n : 4 * n],
            v[: n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n : 4 * n],
        )  # fmt: skip
        m = 4
    else:
        n = length // 8
        _tile_first_8(
            x, y, u[: n], u[n : 2 * n], u[2 * n : 3 * n], u[3 * n : 4 * n],
            u[4 * n : 5 * n], u[5 * n : 6 * n], u[6 * n : 7 * n], u[7 * n : 8 * n],
            v[: n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n : 4 * n],
            v[4 * n : 5 * n], v[5 * n : 6 * n], v[6 * n : 7 * n], v[7 * n : 8 * n],
        )  # fmt: skip
        m = 8
    n, at = length // 4, 0
    x, y, u, v = u, v, x, y
    while m < length:
        _tile_pass(
            x, y, u[: n], u[n : 2 * n], u[2 * n : 3 * n], u[3 * n : 4 * n],
            v[: n], v[n : 2 * n], v[2 * n : 3 * n], v[3 * n : 4 * n], roots, at, m, n // m,
        )  # fmt: skip
        at += m
        m *= 4
        x, y, u, v = u, v, x, y
    return x, y, u, v
