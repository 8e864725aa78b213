"""The compiled part of flow on a staggered grid. Nothing but loops.

Layout. A field is an array of nx + 3 rows of ny + 3 values, whatever it lives on. With cells counted from 0, cell
(i, j) stands at [i + 1, j + 1]; u on its left face and v on its lower one stand there too. Row and column 0 and those
after the last cell are ghosts. A state is three such fields: u, v and temperature (idle where there is none).

The spacing h enters as 1 / h, `per_h`; the viscosity ν as ν / h², `nu`, and the diffusivity κ as κ / h², `kappa`.
"""

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit

from headrace.solvers.disjoint import Disjoint

type Index = np.uint64
type Row = Float64[np.ndarray, " columns"]
type Field = Float64[np.ndarray, "rows columns"]
type State = Float64[np.ndarray, "fields rows columns"]
type Places = Int64[np.ndarray, " places"]
type Ends = Int64[np.ndarray, "3 faces"]

# Products and sums may be fused; nothing is reordered, so that mirrored flows stay mirrored nearly to the last bit.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "nsz"}}
_LOOP = _OPTIONS | {
    "pipeline_class": Disjoint, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip

PERIODIC, WALLS, THROUGH = 0, 1, 2
_1, _2 = np.uint64(1), np.uint64(2)


# One stage of a step --------------------------------------------------------------------------------------------------


@njit(**_LOOP)
def _u_row(
    n: Index, west: Row, here: Row, east: Row, v_west: Row, v_east: Row, per_h: float, nu: float,
    base: Row, a: float, out: Row,
) -> None:  # fmt: skip
    """Rows of faces between two columns of cells: convection in the form of Harlow and Welch (1965), and viscosity."""
    for k in range(n):
        c = here[k + _1]
        e, w = 0.5 * (c + east[k + _1]), 0.5 * (west[k + _1] + c)
        up = 0.25 * (v_west[k + _2] + v_east[k + _2]) * (c + here[k + _2])
        down = 0.25 * (v_west[k + _1] + v_east[k + _1]) * (here[k] + c)
        f = nu * ((east[k + _1] + west[k + _1]) + (here[k + _2] + here[k]) - 4.0 * c)
        f -= per_h * ((e * e - w * w) + (up - down))
        out[k + _1] = base[k + _1] + a * f


@njit(**_LOOP)
def _u_row_at_the_outflow(
    n: Index, west: Row, here: Row, v_west: Row, per_h: float, nu: float,
    base: Row, a: float, out: Row,
) -> None:  # fmt: skip
    """The last faces: half a cell wide, with the traction ν ∂u/∂x - p = ½ min(u, 0) u on the boundary."""
    for k in range(n):
        c = here[k + _1]
        w = 0.5 * (west[k + _1] + c)
        e = c * c if c > 0.0 else 0.5 * c * c
        up = 0.5 * v_west[k + _2] * (c + here[k + _2])
        down = 0.5 * v_west[k + _1] * (here[k] + c)
        f = nu * (2.0 * (west[k + _1] - c) + (here[k + _2] + here[k] - 2.0 * c))
        f -= per_h * (2.0 * (e - w * w) + (up - down))
        out[k + _1] = base[k + _1] + a * f


@njit(**_LOOP)
def _v_row(
    first: Index, n: Index, west: Row, here: Row, east: Row, u_west: Row, u_east: Row, per_h: float, nu: float,
    lift: float, heat: Row, base: Row, a: float, out: Row,
) -> None:  # fmt: skip
    for j in range(n):
        k = first + j
        c = here[k]
        up, down = 0.5 * (c + here[k + _1]), 0.5 * (here[k - _1] + c)
        e = 0.25 * (u_east[k - _1] + u_east[k]) * (c + east[k])
        w = 0.25 * (u_west[k - _1] + u_west[k]) * (west[k] + c)
        f = nu * ((east[k] + west[k]) + (here[k + _1] + here[k - _1]) - 4.0 * c)
        f -= per_h * ((e - w) + (up * up - down * down))
        f += lift * (heat[k - _1] + heat[k])
        out[k] = base[k] + a * f


@njit(**_LOOP)
def _v_row_backflow(first: Index, n: Index, here: Row, u_east: Row, per_h: float, a: float, out: Row) -> None:
    """What flows in at the outflow brings half of the momentum: the same traction for v."""
    for j in range(n):
        k = first + j
        u = 0.5 * (u_east[k - _1] + u_east[k])
        f = 0.5 * per_h * u * here[k] if u < 0.0 else 0.0
        out[k] += a * f


@njit(**_LOOP)
def _heat_row(
    n: Index, west: Row, here: Row, east: Row, u_west: Row, u_east: Row, v: Row, per_h: float, kappa: float,
    base: Row, a: float, out: Row,
) -> None:  # fmt: skip
    for k in range(n):
        c = here[k + _1]
        e, w = u_east[k + _1] * (c + east[k + _1]), u_west[k + _1] * (west[k + _1] + c)
        up, down = v[k + _2] * (c + here[k + _2]), v[k + _1] * (here[k] + c)
        f = kappa * ((east[k + _1] + west[k + _1]) + (here[k + _2] + here[k]) - 4.0 * c)
        f -= 0.5 * per_h * ((e - w) + (up - down))
        out[k + _1] = base[k + _1] + a * f


@njit(**_OPTIONS, cache=True)
def stage(
    state: State, base: State, out: State, a: float,
    per_h: float, nu: float, kappa: float, lift: float, sides: int, lids: int,
    blocked: Places, dragged: Places, drag: Row, has_heat: bool,
) -> None:  # fmt: skip
    """With f, the change of `state` in a unit of time but for the pressure: out = base + a f.

    Faces in `blocked` are set to 0; those in `dragged` lie half a cell from as many walls as `drag` says. Places count
    through u and v as one.
    """
    nx, ny = state.shape[1] - 3, state.shape[2] - 3
    u, v, t = state[0], state[1], state[2]
    first, end = (1, nx + 1) if sides == PERIODIC else (2, nx + 1)
    for i in range(first, end):
        _u_row(
            np.uint64(ny), u[i - 1], u[i], u[i + 1], v[i - 1], v[i], per_h, nu,
            base[0, i], a, out[0, i],
        )  # fmt: skip
    if sides == THROUGH:
        i = nx + 1
        _u_row_at_the_outflow(np.uint64(ny), u[i - 1], u[i], v[i - 1], per_h, nu, base[0, i], a, out[0, i])
    low, n = (_1, np.uint64(ny)) if lids == PERIODIC else (_2, np.uint64(ny - 1))
    for i in range(1, nx + 1):
        _v_row(
            low, n, v[i - 1], v[i], v[i + 1], u[i], u[i + 1], per_h, nu, 0.5 * lift, t[i],
            base[1, i], a, out[1, i],
        )  # fmt: skip
    if sides == THROUGH:
        _v_row_backflow(low, n, v[nx], u[nx + 1], per_h, a, out[1, nx])
    if has_heat:
        for i in range(1, nx + 1):
            _heat_row(
                np.uint64(ny), t[i - 1], t[i], t[i + 1], u[i], u[i + 1], v[i], per_h, kappa,
                base[2, i], a, out[2, i],
            )  # fmt: skip
    flat, flat_out = state.reshape(-1), out.reshape(-1)
    for k in range(len(dragged)):
        flat_out[dragged[k]] -= a * nu * drag[k] * flat[dragged[k]]
    for k in range(len(blocked)):
        flat_out[blocked[k]] = 0.0


@njit(**_LOOP)
def _sum_row(n: Index, start: Row, first: Row, second: Row, third: Row) -> None:
    for k in range(n):
        third[k] = (first[k] - start[k] + 2.0 * second[k] + third[k]) / 3.0


@njit(**_OPTIONS, cache=True)
def sum_of_stages(start: State, first: State, second: State, third: State, has_heat: bool) -> None:
    """(first - start + 2 second + third) / 3, into the third: what the last stage of a step starts from."""
    for f in range(3 if has_heat else 2):
        for i in range(start.shape[1]):
            _sum_row(np.uint64(start.shape[2]), start[f, i], first[f, i], second[f, i], third[f, i])


@njit(**_OPTIONS, cache=True)
def fill_ghosts(state: State, sides: int, lids: int, lid_speed: float, bottom: float, top: float) -> None:
    """Set what lies beyond the boundary, and on it, from what is inside. The inflow stays as it is."""
    nx, ny = state.shape[1] - 3, state.shape[2] - 3
    for f in range(3):
        field = state[f]
        if sides == PERIODIC:
            field[0], field[nx + 1], field[nx + 2] = field[nx], field[1], field[2]
        elif f > 0:
            # Nothing is let through the walls but what the outflow takes along; heat only knows periodic sides.
            field[0] = -field[1]
            if sides == THROUGH:
                field[nx + 1] = field[nx]
            else:
                field[nx + 1] = -field[nx]
        elif sides == WALLS:
            field[1], field[nx + 1] = 0.0, 0.0
    u, v, t = state[0], state[1], state[2]
    for i in range(nx + 3):
        if lids == PERIODIC:
            for f in range(3):
                row = state[f, i]
                row[0], row[ny + 1], row[ny + 2] = row[ny], row[1], row[2]
        else:
            u[i, 0], u[i, ny + 1] = -u[i, 1], 2.0 * lid_speed - u[i, ny]
            v[i, 1], v[i, ny + 1] = 0.0, 0.0
            t[i, 0], t[i, ny + 1] = 2.0 * bottom - t[i, 1], 2.0 * top - t[i, ny]


@njit(**_OPTIONS, cache=True)
def fastest(state: State) -> float:
    """The largest |u| + |v| of a cell; NaN or infinity when something is not finite."""
    nx, ny = state.shape[1] - 3, state.shape[2] - 3
    u, v = state[0], state[1]
    largest, sums = np.zeros(ny), np.zeros(ny)
    for i in range(1, nx + 1):
        _largest_row(np.uint64(ny), u[i], u[i + 1], v[i], largest, sums)
    total, found = 0.0, 0.0
    for j in range(ny):
        total += sums[j]
        found = max(found, largest[j])
    return found if np.isfinite(total) else total


@njit(**_LOOP)
def _largest_row(n: Index, u_west: Row, u_east: Row, v: Row, largest: Row, sums: Row) -> None:
    for k in range(n):
        west, east, down, up = abs(u_west[k + _1]), abs(u_east[k + _1]), abs(v[k + _1]), abs(v[k + _2])
        size = (west if west > east else east) + (down if down > up else up)
        sums[k] += size
        largest[k] = size if size > largest[k] else largest[k]


# Round walls ----------------------------------------------------------------------------------------------------------


@njit(**_OPTIONS, cache=True)
def coupled_faces(
    values: Row, sources: Places, starts: Places, columns: Places, weights: Row, body: Places, sign: Row, out: Row
) -> None:
    """Sums of values with the weights of a sparse matrix, for as many rows as `out` has.

    The first ones flow through the rim, into a body where `sign` is 1 and out of it where it is -1. What flows into a
    body is taken off all of its faces alike.
    """
    for row in range(len(out)):
        total = 0.0
        for k in range(starts[row], starts[row + 1]):
            total += weights[k] * values[sources[columns[k]]]
        out[row] = total
    if len(body):
        surplus, count = np.zeros(body.max() + 1), np.zeros(body.max() + 1)
        for row in range(len(body)):
            surplus[body[row]] += sign[row] * out[row]
            count[body[row]] += 1.0
        for row in range(len(body)):
            out[row] -= sign[row] * surplus[body[row]] / count[body[row]]


# The pressure ---------------------------------------------------------------------------------------------------------


@njit(**_LOOP)
def _fold_row(n: Index, values: Row, even: Row, odd: Row) -> None:
    last = _2 * n - _1
    for k in range(n):
        a, b = values[k], values[last - k]
        even[k] = a + b
        odd[k] = a - b


@njit(**_LOOP)
def _divergence_row(n: Index, u_west: Row, u_east: Row, v: Row, out: Row) -> None:
    for k in range(n):
        out[k] = (u_east[k + _1] - u_west[k + _1]) + (v[k + _2] - v[k + _1])


@njit(**_OPTIONS, cache=True)
def divergence(state: State, out: Field) -> None:
    """What flows out of every cell."""
    nx, ny = state.shape[1] - 3, state.shape[2] - 3
    for i in range(nx):
        _divergence_row(np.uint64(ny), state[0, i + 1], state[0, i + 2], state[1, i + 1], out[i])


@njit(**_OPTIONS, cache=True)
def divergence_folded(state: State, out: Float64[np.ndarray, "2 rows columns"]) -> None:
    """The same, as sums and differences of what mirrors itself in the middle of a row."""
    nx, ny = state.shape[1] - 3, state.shape[2] - 3
    row = np.empty(ny)
    for i in range(nx):
        _divergence_row(np.uint64(ny), state[0, i + 1], state[0, i + 2], state[1, i + 1], row)
        _fold_row(np.uint64(ny // 2), row, out[0, i], out[1, i])


@njit(**_LOOP)
def _unfold_row(n: Index, even: Row, odd: Row, out: Row) -> None:
    last = _2 * n - _1
    for k in range(n):
        out[k] = even[k] + odd[k]
        out[last - k] = even[k] - odd[k]


@njit(**_OPTIONS, cache=True)
def unfold(parts: Float64[np.ndarray, "2 rows columns"], out: Field) -> None:
    """Back."""
    for i in range(out.shape[0]):
        _unfold_row(np.uint64(out.shape[1] // 2), parts[0, i], parts[1, i], out[i])


@njit(**_OPTIONS, cache=True)
def jumps(parts: Float64[np.ndarray, "parts rows columns"], before: Ends, after: Ends, out: Row) -> None:
    """The difference of the values on both sides of every face, from their even and odd parts."""
    for k in range(len(out)):
        a, b = parts[0, before[0, k], before[1, k]], parts[0, after[0, k], after[1, k]]
        if len(parts) > 1:
            a += before[2, k] * parts[1, before[0, k], before[1, k]]
            b += after[2, k] * parts[1, after[0, k], after[1, k]]
        out[k] = b - a


@njit(**_OPTIONS, cache=True)
def spread(given: Row, before: Ends, after: Ends, parts: Float64[np.ndarray, "parts rows columns"]) -> None:
    """Even and odd parts of what flows out of every cell, when so much flows through the faces."""
    parts[:] = 0.0
    for k in range(len(given)):
        for p in range(len(parts)):
            parts[p, before[0, k], before[1, k]] += given[k] * (before[2, k] if p else 1)
            parts[p, after[0, k], after[1, k]] -= given[k] * (after[2, k] if p else 1)


@njit(**_OPTIONS, cache=True)
def add_rows(
    given: Float64[np.ndarray, "parts rows columns"], rows: Places, out: Float64[np.ndarray, "parts all columns"]
) -> None:
    """Add to some of the rows."""
    for p in range(len(given)):
        for i in range(len(rows)):
            out[p, rows[i]] += given[p, i]


@njit(**_LOOP)
def _forward(n: Index, before: Row, ratio: Row, given: Row, out: Row) -> None:
    for k in range(n):
        out[k] = given[k] - ratio[k] * before[k]


@njit(**_LOOP)
def _backward(n: Index, after: Row, ratio: Row, out: Row) -> None:
    for k in range(n):
        out[k] = (out[k] - after[k]) * ratio[k]


@njit(**_LOOP)
def _close_row(n: Index, ring: Row, factor: Row, out: Row) -> None:
    for k in range(n):
        out[k] -= factor[k] * ring[k]


@njit(**_OPTIONS, cache=True)
def solve_rows(
    ratio: Float64[np.ndarray, "parts rows columns"], ring: Float64[np.ndarray, "parts rows columns"],
    given: Float64[np.ndarray, "parts rows columns"], out: Float64[np.ndarray, "parts rows columns"],
) -> None:  # fmt: skip
    """Tridiagonal systems along the rows, one for every column: off the diagonal 1, pivots 1 / `ratio`.

    A `ring` that is not empty joins the last row to the first: it is the solution for the column that does so,
    divided as the formula of Sherman and Morrison has it.
    """
    parts, rows, n = given.shape
    for p in range(parts):
        out[p, 0] = given[p, 0]
        for i in range(1, rows):
            _forward(np.uint64(n), out[p, i - 1], ratio[p, i - 1], given[p, i], out[p, i])
        out[p, rows - 1] *= ratio[p, rows - 1]
        for i in range(rows - 2, -1, -1):
            _backward(np.uint64(n), out[p, i + 1], ratio[p, i], out[p, i])
        if ring.size:
            factor = out[p, 0] + out[p, rows - 1]
            for i in range(rows):
                _close_row(np.uint64(n), ring[p, i], factor, out[p, i])


@njit(**_LOOP)
def _less_the_slope(n: Index, west: Row, here: Row, u: Row, v: Row) -> None:
    for k in range(n):
        u[k + _1] -= here[k] - west[k]
    for k in range(n - _1):
        v[k + _2] -= here[k + _1] - here[k]


@njit(**_OPTIONS, cache=True)
def less_the_gradient(state: State, phi: Field, sides: int, lids: int, blocked: Places) -> None:
    """Take the gradient of a potential from the velocity, where this is free."""
    nx, ny = phi.shape
    u, v = state[0], state[1]
    nothing = np.zeros(ny + 3)
    # The first faces see the last cells, where the box is periodic; else they are given.
    _less_the_slope(np.uint64(ny), phi[nx - 1], phi[0], u[1] if sides == PERIODIC else nothing, v[1])
    for i in range(1, nx):
        _less_the_slope(np.uint64(ny), phi[i - 1], phi[i], u[i + 1], v[i + 1])
    if sides == THROUGH:
        # The pressure is 0 on the outflow, half a cell away.
        for j in range(ny):
            u[nx + 1, j + 1] += 2.0 * phi[nx - 1, j]
    if lids == PERIODIC:
        for i in range(nx):
            v[i + 1, 1] -= phi[i, 0] - phi[i, ny - 1]
    flat = state.reshape(-1)
    for k in range(len(blocked)):
        flat[blocked[k]] = 0.0
