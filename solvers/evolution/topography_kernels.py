"""The compiled part of shallow water over a bottom. Nothing but loops.

Layout. A field is an array of nx + 4 rows of ny + 4 values: two ghosts beyond every end. With cells counted from 0,
cell (i, j) stands at [i + 2, j + 2]. In one dimension ny is 1, and nothing happens along the second axis.

Source: hydrostatic reconstruction, Audusse, Bouchut, Bristeau, Klein and Perthame (2004), SIAM Journal on Scientific
Computing 25, Secs. 2 and 4.
"""

import math

import numpy as np
from jaxtyping import Float64
from numba import njit

type Field = Float64[np.ndarray, "rows columns"]
type Cells = Float64[np.ndarray, "3 rows columns"]
type Four = tuple[float, float, float, float]

PERIODIC, WALL, OUTFLOW = 0, 1, 2
ARRIVED, NEGATIVE, TOO_MANY, NOT_FINITE = 0, 1, 2, 3

_OPTIONS = {"nogil": True, "error_model": "numpy", "cache": True}
_INLINE = {"nogil": True, "error_model": "numpy", "inline": "always"}

# Below it, as a share of what a depth may come out negative by, nothing but rounding is seen.
_ROUNDING = 1e-12


@njit(**_INLINE)
def _half(a: float, b: float) -> float:
    """Half a slope limited by the harmonic mean (van Leer 1974): no more than the smaller jump."""
    product = a * b
    return product / (a + b) if product > 0.0 else 0.0


@njit(**_OPTIONS)
def _face(h: Four, e: Four, u: Four, v: Four, g: float) -> Four:
    """What crosses the face in the middle of four cells in a row.

    Args:
        h: depths.
        e: heights of the surface.
        u: velocities along the row.
        v: velocities across it.
        g: acceleration of gravity.

    Returns:
        Mass; momentum along the row as the cell before and as the one behind see it; momentum across it.
    """
    s = _half(h[1] - h[0], h[2] - h[1]), _half(h[2] - h[1], h[3] - h[2])
    t = _half(e[1] - e[0], e[2] - e[1]), _half(e[2] - e[1], e[3] - e[2])
    h_l, h_r, e_l, e_r = h[1] + s[0], h[2] - s[1], e[1] + t[0], e[2] - t[1]
    u_l = u[1] + _half(u[1] - u[0], u[2] - u[1])
    u_r = u[2] - _half(u[2] - u[1], u[3] - u[2])
    # Eq. 2.13 and 2.14: the higher of the two bottoms is the sill, and what stands above it meets.
    sill = max(e_l - h_l, e_r - h_r)
    above_l, above_r = max(e_l - sill, 0.0), max(e_r - sill, 0.0)
    c_l, c_r = math.sqrt(g * above_l), math.sqrt(g * above_r)
    mass = along = across = 0.0
    if above_l > 0.0 or above_r > 0.0:
        # The waves of Einfeldt (1988), and where one side is dry those of a rarefaction into it.
        if above_r == 0.0:
            slow, fast = u_l - c_l, u_l + 2.0 * c_l
        elif above_l == 0.0:
            slow, fast = u_r - 2.0 * c_r, u_r + c_r
        else:
            mean_u = (c_l * u_l + c_r * u_r) / (c_l + c_r)
            mean_c = math.sqrt(0.5 * g * (above_l + above_r))
            slow, fast = min(u_l - c_l, mean_u - mean_c), max(u_r + c_r, mean_u + mean_c)
        slow, fast = min(slow, 0.0), max(fast, 0.0)
        q_l, q_r = above_l * u_l, above_r * u_r
        if fast > slow:
            share_l, share_r, both = fast / (fast - slow), -slow / (fast - slow), fast * slow / (fast - slow)
            mass = share_l * q_l + share_r * q_r + both * (above_r - above_l)
            along = (
                share_l * (q_l * u_l + 0.5 * g * above_l * above_l)
                + share_r * (q_r * u_r + 0.5 * g * above_r * above_r)
                + both * (q_r - q_l)
            )
            if mass >= 0.0:
                across = mass * (v[1] + _half(v[1] - v[0], v[2] - v[1]))
            else:
                across = mass * (v[2] - _half(v[2] - v[1], v[3] - v[2]))
    # Eq. 2.15: the bottom pushes back what the sill holds.
    before = along + 0.5 * g * (h_l * h_l - above_l * above_l)
    behind = along + 0.5 * g * (h_r * h_r - above_r * above_r)
    return mass, before, behind, across


@njit(**_INLINE)
def _push(h: Four, e: Four, g: float) -> float:
    """What the bottom's slope within the second of these cells pushes (Eq. 4.4), times the spacing."""
    return -2.0 * g * h[1] * (_half(e[1] - e[0], e[2] - e[1]) - _half(h[1] - h[0], h[2] - h[1]))


@njit(**_OPTIONS)
def fill(field: Field, nx: int, ny: int, along: int, boundary: int, sign: float) -> None:
    """Fill the ghosts beyond the ends of an axis; `sign` is what a wall does to the field."""
    if along == 0:
        for k in range(2):
            for j in range(ny + 4):
                if boundary == PERIODIC:
                    field[k, j], field[nx + 2 + k, j] = field[nx + k, j], field[2 + k, j]
                elif boundary == WALL:
                    field[k, j], field[nx + 2 + k, j] = sign * field[3 - k, j], sign * field[nx + 1 - k, j]
                else:
                    field[k, j], field[nx + 2 + k, j] = field[2, j], field[nx + 1, j]
    else:
        for i in range(nx + 4):
            for k in range(2):
                if boundary == PERIODIC:
                    field[i, k], field[i, ny + 2 + k] = field[i, ny + k], field[i, 2 + k]
                elif boundary == WALL:
                    field[i, k], field[i, ny + 2 + k] = sign * field[i, 3 - k], sign * field[i, ny + 1 - k]
                else:
                    field[i, k], field[i, ny + 2 + k] = field[i, 2], field[i, ny + 1]


@njit(**_OPTIONS)
def _velocities(now: Cells, b: Field, e: Field, u: Field, v: Field, dry: float) -> None:
    """Surface and velocities; those of a thin film are damped to 0 (Kurganov and Petrova 2007, Eq. 2.17)."""
    for i in range(now.shape[1]):
        for j in range(now.shape[2]):
            h = now[0, i, j]
            e[i, j] = h + b[i, j]
            share = 2.0 * h / (h * h + max(h * h, dry * dry))
            u[i, j], v[i, j] = share * now[1, i, j], share * now[2, i, j]


@njit(**_OPTIONS)
def _change(
    now: Cells, b: Field, e: Field, u: Field, v: Field, dim: int, boundary: int, g: float, dry: float,
    per_length: float, out: Cells,
) -> None:  # fmt: skip
    """-∇·F and the push of the bottom, of depth and momenta."""
    nx, ny = now.shape[1] - 4, now.shape[2] - 4
    for along in range(dim):
        for k in range(3):
            fill(now[k], nx, ny, along, boundary, -1.0 if k == 1 + along else 1.0)
    _velocities(now, b, e, u, v, dry)
    h = now[0]
    out[:] = 0.0
    for i in range(1, nx + 2):
        for j in range(2, ny + 2):
            mass, before, behind, across = _face(
                (h[i - 1, j], h[i, j], h[i + 1, j], h[i + 2, j]),
                (e[i - 1, j], e[i, j], e[i + 1, j], e[i + 2, j]),
                (u[i - 1, j], u[i, j], u[i + 1, j], u[i + 2, j]),
                (v[i - 1, j], v[i, j], v[i + 1, j], v[i + 2, j]),
                g,
            )
            out[0, i, j] -= per_length * mass
            out[1, i, j] -= per_length * before
            out[2, i, j] -= per_length * across
            out[0, i + 1, j] = per_length * mass
            out[1, i + 1, j] = per_length * (
                behind + _push((h[i, j], h[i + 1, j], h[i + 2, j], 0.0), (e[i, j], e[i + 1, j], e[i + 2, j], 0.0), g)
            )
            out[2, i + 1, j] = per_length * across
    if dim == 1:
        return
    for i in range(2, nx + 2):
        for j in range(1, ny + 2):
            mass, before, behind, across = _face(
                (h[i, j - 1], h[i, j], h[i, j + 1], h[i, j + 2]),
                (e[i, j - 1], e[i, j], e[i, j + 1], e[i, j + 2]),
                (v[i, j - 1], v[i, j], v[i, j + 1], v[i, j + 2]),
                (u[i, j - 1], u[i, j], u[i, j + 1], u[i, j + 2]),
                g,
            )
            out[0, i, j] -= per_length * mass
            out[2, i, j] -= per_length * before
            out[1, i, j] -= per_length * across
            out[0, i, j + 1] += per_length * mass
            out[2, i, j + 1] += per_length * (
                behind + _push((h[i, j], h[i, j + 1], h[i, j + 2], 0.0), (e[i, j], e[i, j + 1], e[i, j + 2], 0.0), g)
            )
            out[1, i, j + 1] += per_length * across


@njit(**_OPTIONS)
def _mix(old: Cells, a: float, now: Cells, c: float, rate: Cells, size: float, dry: float, out: Cells) -> int:
    """Out = a old + c (now + size rate) in the cells; a film that is as good as dry comes to rest."""
    least = 0.0
    most = 0.0
    for i in range(2, old.shape[1] - 2):
        for j in range(2, old.shape[2] - 2):
            h = a * old[0, i, j] + c * (now[0, i, j] + size * rate[0, i, j])
            p = a * old[1, i, j] + c * (now[1, i, j] + size * rate[1, i, j])
            q = a * old[2, i, j] + c * (now[2, i, j] + size * rate[2, i, j])
            if not (math.isfinite(h) and math.isfinite(p) and math.isfinite(q)):
                return NOT_FINITE
            least, most = min(least, h), max(most, h)
            out[0, i, j] = max(h, 0.0)
            out[1, i, j] = p if h > dry else 0.0
            out[2, i, j] = q if h > dry else 0.0
    return NEGATIVE if least < -_ROUNDING * most else ARRIVED


@njit(**_OPTIONS)
def _rate(now: Cells, dim: int, g: float, dry: float, per_length: float) -> float:
    """The cells that the fastest waves of all axes together cross in a unit of time."""
    fastest = 0.0
    for i in range(2, now.shape[1] - 2):
        for j in range(2, now.shape[2] - 2):
            h = now[0, i, j]
            share = 2.0 * h / (h * h + max(h * h, dry * dry))
            speed = dim * math.sqrt(g * h) + share * abs(now[1, i, j])
            if dim == 2:
                speed += share * abs(now[2, i, j])
            fastest = max(fastest, speed)
    return per_length * fastest


@njit(**_OPTIONS)
def advance(
    state: Cells, b: Field, dim: int, boundary: int, g: float, dry: float, per_length: float, cfl: float,
    longest: float, duration: float, most_steps: int,
) -> tuple[int, int, float]:  # fmt: skip
    """Take a state, depth and momenta, through some time by SSPRK3 (Shu and Osher 1988, Eq. 2.18), in place.

    Returns:
        What it came to, how many steps it took, and the time that was left.
    """
    first, second, rate = np.zeros_like(state), np.zeros_like(state), np.zeros_like(state)
    e, u, v = np.zeros(b.shape), np.zeros(b.shape), np.zeros(b.shape)
    left, steps = duration, 0
    while left > 0.0:
        limit = longest
        speed = _rate(state, dim, g, dry, per_length)
        if speed > 0.0:
            limit = min(limit, cfl / speed)
        # What is left is divided evenly, so that no step is a tiny rest.
        count = math.ceil(left / limit - 1e-9)
        if count < 1:
            break
        if not count <= most_steps:
            return TOO_MANY, steps, left
        size = left / count
        _change(state, b, e, u, v, dim, boundary, g, dry, per_length, rate)
        came = _mix(state, 0.0, state, 1.0, rate, size, dry, first)
        if came == ARRIVED:
            _change(first, b, e, u, v, dim, boundary, g, dry, per_length, rate)
            came = _mix(state, 0.75, first, 0.25, rate, size, dry, second)
        if came == ARRIVED:
            _change(second, b, e, u, v, dim, boundary, g, dry, per_length, rate)
            came = _mix(state, 1.0 / 3.0, second, 2.0 / 3.0, rate, size, dry, state)
        if came != ARRIVED:
            return came, steps, left
        steps += 1
        left -= size
        if count == 1:
            break
    return ARRIVED, steps, left
