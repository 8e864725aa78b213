"""The compiled steps of u_t = L u + c (u²)_x in one dimension: transforms, product and stages of ETDRK4 in one call.

Layout. Eight samples are taken together as a tile: what belongs to a wave or a point of all of them lies side by side
(index 8 * wave + lane), real and imaginary parts in arrays of their own, so that every loop below runs along memory. A
sample that is alone runs along its waves instead. No sum is reordered and no product is fused with a sum: a sample
comes to the same last bits in whatever tile it is, or alone.

The real transform of n values is a complex one of h = n / 2, of the even values and i times the odd ones.
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numba import njit

from headrace.solvers.evolution import stockham
from headrace.solvers.evolution.stockham import LANES, LOOP, Roots, Row, Tile, transform_row, transform_tile

type Turns = Float64[np.ndarray, "two waves"]
type Tiles = Float64[np.ndarray, "tiles waves_lanes"]
type Factors = Float64[np.ndarray, "factors tiles waves_lanes"]


@njit(**LOOP)
def _pack_row(x: Row, y: Row, z_re: Row, z_im: Row, turns: Turns) -> None:
    """From the kept waves of one sample to what is transformed to its even values and i times the odd ones."""
    num_waves, length = len(x), len(z_re)
    z_re[0], z_im[0] = x[0], x[0]
    # Of wave h - k the conjugate stands at k; where both are kept, both are added.
    low = length - num_waves + 1
    for k in range(1, low):
        p, q = x[k] * turns[0, k] - y[k] * turns[1, k], x[k] * turns[1, k] + y[k] * turns[0, k]
        z_re[k], z_im[k] = x[k] - q, y[k] + p
    for k in range(low, num_waves):
        j = length - k
        r, s = x[k] - x[j], y[k] + y[j]
        p, q = r * turns[0, k] - s * turns[1, k], r * turns[1, k] + s * turns[0, k]
        z_re[k], z_im[k] = (x[k] + x[j]) - q, (y[k] - y[j]) + p
    for k in range(num_waves, length):
        j = length - k
        r, s = -x[j], y[j]
        p, q = r * turns[0, k] - s * turns[1, k], r * turns[1, k] + s * turns[0, k]
        z_re[k], z_im[k] = x[j] - q, -y[j] + p


@njit(**LOOP)
def _pack_tile(x: Tile, y: Tile, z_re: Tile, z_im: Tile, turns: Turns) -> None:
    """The same of a tile."""
    num_waves, length = len(x), len(z_re)
    low = length - num_waves + 1
    for lane in range(LANES):
        z_re[0, lane], z_im[0, lane] = x[0, lane], x[0, lane]
    for k in range(1, low):
        w, z = turns[0, k], turns[1, k]
        for lane in range(LANES):
            p, q = x[k, lane] * w - y[k, lane] * z, x[k, lane] * z + y[k, lane] * w
            z_re[k, lane], z_im[k, lane] = x[k, lane] - q, y[k, lane] + p
    for k in range(low, num_waves):
        w, z, j = turns[0, k], turns[1, k], length - k
        for lane in range(LANES):
            r, s = x[k, lane] - x[j, lane], y[k, lane] + y[j, lane]
            p, q = r * w - s * z, r * z + s * w
            z_re[k, lane], z_im[k, lane] = (x[k, lane] + x[j, lane]) - q, (y[k, lane] - y[j, lane]) + p
    for k in range(num_waves, length):
        w, z, j = turns[0, k], turns[1, k], length - k
        for lane in range(LANES):
            r, s = -x[j, lane], y[j, lane]
            p, q = r * w - s * z, r * z + s * w
            z_re[k, lane], z_im[k, lane] = x[j, lane] - q, -y[j, lane] + p


@njit(**LOOP)
def _unpack_row(z_re: Row, z_im: Row, x: Row, y: Row, turns: Turns, flux: Row) -> None:
    """From the transform of packed values of one sample to i times flux times its kept waves."""
    length = len(z_re)
    x[0], y[0] = 0.0, 0.0
    for k in range(1, len(x)):
        j = length - k
        # ½ (C + conj C') - ½ i w̄ (C - conj C'), of which the ½ is in the flux
        r, s = z_re[k] - z_re[j], z_im[k] + z_im[j]
        p, q = r * turns[0, k] + s * turns[1, k], s * turns[0, k] - r * turns[1, k]
        re, im = (z_re[k] + z_re[j]) + q, (z_im[k] - z_im[j]) - p
        x[k], y[k] = -flux[k] * im, flux[k] * re


@njit(**LOOP)
def _unpack_tile(z_re: Tile, z_im: Tile, x: Tile, y: Tile, turns: Turns, flux: Row) -> None:
    """The same of a tile."""
    length = len(z_re)
    for lane in range(LANES):
        x[0, lane], y[0, lane] = 0.0, 0.0
    for k in range(1, len(x)):
        w, z, c, j = turns[0, k], turns[1, k], flux[k], length - k
        for lane in range(LANES):
            r, s = z_re[k, lane] - z_re[j, lane], z_im[k, lane] + z_im[j, lane]
            p, q = r * w + s * z, s * w - r * z
            re, im = (z_re[k, lane] + z_re[j, lane]) + q, (z_im[k, lane] - z_im[j, lane]) - p
            x[k, lane], y[k, lane] = -c * im, c * re


@njit(**LOOP)
def _square(x: Row, y: Row) -> None:
    for k in range(len(x)):
        x[k], y[k] = x[k] * x[k], y[k] * y[k]


@njit(**LOOP)
def _rate_row(
    x: Row, y: Row, n_re: Row, n_im: Row, a: Row, b: Row, c: Row, d: Row, roots: Roots, turns: Turns, flux: Row
) -> None:  # fmt: skip
    """N of one sample: to the points, squared, back, and the derivative."""
    _pack_row(x, y, a, b, turns)
    # With its parts exchanged the transform is the inverse one.
    z_im, z_re, o_im, o_re = transform_row(b, a, d, c, roots)
    _square(z_re, z_im)
    z_re, z_im, _, _ = transform_row(z_re, z_im, o_re, o_im, roots)
    _unpack_row(z_re, z_im, n_re, n_im, turns, flux)


@njit(**LOOP)
def _rate_tile(
    x: Row, y: Row, n_re: Row, n_im: Row, a: Tile, b: Tile, c: Tile, d: Tile, roots: Roots, turns: Turns, flux: Row
) -> None:  # fmt: skip
    """N of a tile."""
    waves = (len(flux), LANES)
    _pack_tile(x.reshape(waves), y.reshape(waves), a, b, turns)
    z_im, z_re, o_im, o_re = transform_tile(b, a, d, c, roots)
    _square(z_re.reshape(z_re.size), z_im.reshape(z_im.size))
    z_re, z_im, _, _ = transform_tile(z_re, z_im, o_re, o_im, roots)
    _unpack_tile(z_re, z_im, n_re.reshape(waves), n_im.reshape(waves), turns, flux)


@njit(**LOOP)
def _rate(
    x: Row, y: Row, n_re: Row, n_im: Row, room: Float64[np.ndarray, "four values_lanes"], roots: Roots, turns: Turns,
    flux: Row,
) -> None:  # fmt: skip
    if len(x) == len(flux):
        _rate_row(x, y, n_re, n_im, room[0], room[1], room[2], room[3], roots, turns, flux)
        return
    values = (room.shape[1] // LANES, LANES)
    a, b, c, d = room[0].reshape(values), room[1].reshape(values), room[2].reshape(values), room[3].reshape(values)
    _rate_tile(x, y, n_re, n_im, a, b, c, d, roots, turns, flux)


@njit(**LOOP)
def _stage_real(
    x: Row, y: Row, n_re: Row, n_im: Row, decay: Row, weight: Row, o_re: Row, o_im: Row
) -> None:  # fmt: skip
    """Decay x + weight N, of real factors."""
    for k in range(len(x)):
        o_re[k], o_im[k] = decay[k] * x[k] + weight[k] * n_re[k], decay[k] * y[k] + weight[k] * n_im[k]


@njit(**LOOP)
def _stage(
    x: Row, y: Row, n_re: Row, n_im: Row, decay: Row, turn: Row, weight: Row, angle: Row,
    o_re: Row, o_im: Row,
) -> None:  # fmt: skip
    """The same of complex ones."""
    for k in range(len(x)):
        o_re[k] = (decay[k] * x[k] - turn[k] * y[k]) + (weight[k] * n_re[k] - angle[k] * n_im[k])
        o_im[k] = (decay[k] * y[k] + turn[k] * x[k]) + (weight[k] * n_im[k] + angle[k] * n_re[k])


@njit(**LOOP)
def _twice_less(x: Row, y: Row, o: Row) -> None:
    for k in range(len(x)):
        o[k] = 2.0 * x[k] - y[k]


@njit(**LOOP)
def _last_real(
    x: Row, n_v: Row, n_a: Row, n_b: Row, n_c: Row, full: Row, first: Row, middle: Row,
    last: Row,
) -> None:  # fmt: skip
    """The step, in place; of real factors, so that both parts are the same."""
    for k in range(len(n_v)):
        x[k] = (full[k] * x[k] + first[k] * n_v[k]) + (middle[k] * (n_a[k] + n_b[k]) + last[k] * n_c[k])


@njit(**LOOP)
def _last_complex(
    x: Row, y: Row, n: Row, n_im: Row, s: Row, s_im: Row, c: Row, c_im: Row,
    full: Row, full_im: Row, first: Row, first_im: Row, middle: Row, middle_im: Row,
    last: Row, last_im: Row,
) -> None:  # fmt: skip
    """The same of complex ones; s is n_a, and becomes n_a + n_b before."""
    for k in range(len(n)):
        re = (full[k] * x[k] - full_im[k] * y[k]) + (first[k] * n[k] - first_im[k] * n_im[k])
        im = (full[k] * y[k] + full_im[k] * x[k]) + (first[k] * n_im[k] + first_im[k] * n[k])
        x[k] = re + ((middle[k] * s[k] - middle_im[k] * s_im[k]) + (last[k] * c[k] - last_im[k] * c_im[k]))
        y[k] = im + ((middle[k] * s_im[k] + middle_im[k] * s[k]) + (last[k] * c_im[k] + last_im[k] * c[k]))


@njit(**LOOP)
def _add(x: Row, y: Row) -> None:
    for k in range(len(x)):
        x[k] += y[k]


def _compiled(made_with: int) -> Callable[..., None]:
    """`advance`, which Numba's cache tells from one that was compiled with other transforms.

    Numba looks whether the file of a function has changed since it was compiled, not whether those that it calls have;
    what a function closes over it does look at.
    """

    @njit(nogil=True, error_model="numpy", cache=True)
    def advance(
        v_re: Tiles, v_im: Tiles, re: Factors, im: Factors, flux: Row, roots: Roots, turns: Turns, num_steps: int
    ) -> None:  # fmt: skip
        """So many steps of all tiles, in place.

        Args:
            v_re: the kept waves of one sample or of eight a tile, real parts.
            v_im: imaginary parts.
            re: `full`, `half`, `stage`, `first`, `middle` and `last` of ETDRK4; one tile where all share them.
            im: their imaginary parts; no tiles where all are real.
            flux: of each wave, with what transforms forth and back and their ½ are to be scaled by.
            roots: of the transforms, see `stockham.roots_of`.
            turns: e^{2πik/n} of the real transforms.
            num_steps: how many.
        """
        _ = made_with
        size = v_re.shape[1]
        room = np.empty((4, turns.shape[1] * (size // len(flux))))
        waves = np.empty((14, size))
        a_re, a_im, b_re, b_im = waves[0], waves[1], waves[2], waves[3]
        n_re, n_im, na_re, na_im, nb_re, nb_im = waves[4], waves[5], waves[6], waves[7], waves[8], waves[9]
        nc_re, nc_im, t_re, t_im = waves[10], waves[11], waves[12], waves[13]
        for tile in range(len(v_re)):
            x, y = v_re[tile], v_im[tile]
            at = min(tile, re.shape[1] - 1)
            for _ in range(num_steps):
                _rate(x, y, n_re, n_im, room, roots, turns, flux)
                if im.shape[1] == 0:
                    _stage_real(x, y, n_re, n_im, re[1, at], re[2, at], a_re, a_im)
                    _rate(a_re, a_im, na_re, na_im, room, roots, turns, flux)
                    _stage_real(x, y, na_re, na_im, re[1, at], re[2, at], b_re, b_im)
                    _rate(b_re, b_im, nb_re, nb_im, room, roots, turns, flux)
                    _twice_less(nb_re, n_re, t_re)
                    _twice_less(nb_im, n_im, t_im)
                    _stage_real(a_re, a_im, t_re, t_im, re[1, at], re[2, at], b_re, b_im)
                    _rate(b_re, b_im, nc_re, nc_im, room, roots, turns, flux)
                    _last_real(x, n_re, na_re, nb_re, nc_re, re[0, at], re[3, at], re[4, at], re[5, at])
                    _last_real(y, n_im, na_im, nb_im, nc_im, re[0, at], re[3, at], re[4, at], re[5, at])
                else:
                    _stage(x, y, n_re, n_im, re[1, at], im[1, at], re[2, at], im[2, at], a_re, a_im)
                    _rate(a_re, a_im, na_re, na_im, room, roots, turns, flux)
                    _stage(x, y, na_re, na_im, re[1, at], im[1, at], re[2, at], im[2, at], b_re, b_im)
                    _rate(b_re, b_im, nb_re, nb_im, room, roots, turns, flux)
                    _twice_less(nb_re, n_re, t_re)
                    _twice_less(nb_im, n_im, t_im)
                    _stage(a_re, a_im, t_re, t_im, re[1, at], im[1, at], re[2, at], im[2, at], b_re, b_im)
                    _rate(b_re, b_im, nc_re, nc_im, room, roots, turns, flux)
                    _add(na_re, nb_re)
                    _add(na_im, nb_im)
                    _last_complex(
                        x, y, n_re, n_im, na_re, na_im, nc_re, nc_im, re[0, at], im[0, at], re[3, at], im[3, at],
                        re[4, at], im[4, at], re[5, at], im[5, at],
                    )  # fmt: skip

    compiled: Callable[..., None] = advance
    return compiled


advance = _compiled(zlib.crc32(Path(stockham.__file__).read_bytes()))
"""So many steps of all tiles, in place; see above."""
