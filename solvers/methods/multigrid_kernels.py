"""The compiled part of multigrid in two dimensions: conjugate gradients around a V-cycle. Nothing but loops.

It takes Dirichlet and Neumann boundaries, a reaction that is nowhere negative, and operators that map constants to 0.

Scaling. With D the diagonal of A, the cycle works with x̃ = D^1/2 x, r̃ = D^-1/2 r and Ã = D^-1/2 A D^-1/2. Ã has a unit
diagonal, so a point costs four products; `ax[k]` is minus the entry of Ã between point k and the next point along the
first axis, `ay[k]` along the second. D^-1/2 is 0 on the boundary and on padding: links to them vanish, and what is
computed there stays 0 without a branch.

Layout. A level with `num_x * num_y` intervals stores its points with the boundary in num_x + 1 rows of `stride` values,
the points of a row without the last and padding up to a multiple of 16: no loop ends in a vector that is not full. The
last point of a row is the first of the next one; both are on the boundary. Point (i, j) of a level that begins at
`first` is first + i stride + j. All levels lie one after the other in the same arrays. `cx[k]` is the conductance
between point k and the next one along the first axis, `cy[k]` along the second; those along the boundary mean nothing.
Weights of interpolation have an entry for every point of a coarse level. Half rows, the even or the odd points of a
row, are indexed by k / 2.

What the compiler needs in order to vectorise: indices are unsigned (Numba asks of a signed one whether it is negative);
loops with a stride of two touch both of every pair; the arrays of a loop are declared not to overlap (`Disjoint`),
since nine of them are more than LLVM cares to compare when it runs. Where an array is read and written in one loop,
these are separate parts of it, or the same entry in the same turn.

The cycle.

* Smoother: two steps of the fourth-kind Chebyshev iteration (Lottes 2022, "Optimal polynomial smoothers for multigrid
  V-cycles", Algorithm 3) on Ã, before and after. It needs an upper bound of the spectrum and no lower one; for a
  five-point operator that bound is 2 (Gershgorin). Two steps from a residual v amount to
      x̃ += α v - γ Ã v,  α = 1.2 c + g, γ = g c,  c = 4 / (3 λ), g = 12 / (5 λ), λ = 2,
  and because both sides of the cycle apply the same polynomial, the cycle is symmetric.
* Interpolation: between two coarse points a fine one takes the mean weighted by its two conductances, and the middle of
  four the value at which its own five-point equation has no residual (Alcouffe, Brandt, Dendy & Painter 1981). Where
  permeability jumps this keeps the flux continuous, as the solution does. Restriction is the transpose.
* Coarse operators are five-point again. What lies between two coarse lines is shared between them as interpolation
  shares it; conductances side by side add up, those in series combine harmonically. On permeability that jumps by 100
  this costs about 3 iterations more than the nine-point Galerkin operator and saves its set-up and its traffic.
* An odd number of intervals leaves the last one as it is. The conductances know its length, so nothing else must.
* A closed end has conductances of 0 to the boundary. A point between it and a coarse one then takes the value of the
  coarse one, and in series the end stays closed: no loop knows of it.
* A reaction s is part of the diagonal, so the scaled cycle does not know of it either. The coarse one is Pᵀ s, and with
  it the coarse operator has the row sums of the Galerkin product: interpolation between two points keeps constants, and
  the middle of four hands on to the points around it exactly what eliminating it would.
* The coarsest level has one unknown across one axis and is solved exactly, by elimination along the other.
* A level is worked on in blocks of rows that fit into the first cache: all of a block's steps, then the next block.

Conjugate gradients. Directions p, their images D^-1/2 A p and the residual r̃ are single, the sum x of all steps is
double. Four things keep single precision from costing iterations:

* p is not scaled and A p a sum of c (p - p_neighbour): where p is smooth the differences are exact, and what is rounded
  is a conductance by 1e-7. In the scaled form the sums cancel, which costs 1e-7 times the condition number. (On 257
  points a side that made 26 iterations of 7.)
* The image is that of p as it was rounded. Recurrences for it that save a pass (Chronopoulos & Gear 1989) lose as much.
* Whenever the residual has fallen by 1e-4, and at the end, it is recomputed in double precision from x and from the
  conductances and the right-hand side as they were given, and the iteration goes on from there with the direction that
  it has (reliable updates: Sleijpen & van der Vorst 1996, "Reliable updated residuals in hybrid Bi-CG methods"; van der
  Vorst & Ye 2000; for mixed precision Clark et al. 2010, Comput. Phys. Commun. 181). So tolerances down to what double
  precision allows are reached, and the residual that is reported is the true one.
* Steps are added to x when their direction is read for the next one. Nothing else is double.

What is left of it: the cycle itself is single, and in the scaled form. Above a contrast of about 1e5 in pieces of a few
points its rounding costs iterations; at 1e6 there are small grids that do not converge, and say so. Neither do most
systems in which constants are tied down by nearly nothing, but not nothing, as a tiny reaction between closed ends: the
constant is then many orders of magnitude larger than what else is to be found.

Where constants are mapped to 0 the coarsest level sets its last unknown to 0. What comes out differs from the solution
of mean 0 by a constant.
"""

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt64
from numba import njit

from headrace.solvers.disjoint import Disjoint

type Index = np.uint64
type Number = np.floating
type Array = Float[np.ndarray, " points"]
type Arrays = Float32[np.ndarray, "arrays points"]
type Levels = UInt64[np.ndarray, "levels 4"]

# Sums may be reordered, so that they vectorise; NaN and infinity keep their meaning.
_OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
# The parts are called from compiled code alone: without their Python entry points they compile faster.
_PART = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
# An array is seven arguments, and these take up to a dozen arrays: a call would cost more than a short row.
_LOOP = _PART | {"pipeline_class": Disjoint, "forceinline": True}

_U0, _U1, _U2, _U8, _U16 = (np.uint64(k) for k in (0, 1, 2, 8, 16))
# Before the first entry of rows and weights, for those who look one point back. Half rows have a row before the first.
_PAD = np.uint64(16)
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

_LAMBDA = 2.0
_C, _G = 4.0 / (3.0 * _LAMBDA), 12.0 / (5.0 * _LAMBDA)
# α v - γ Ã v = (α - γ) v + γ Σ a v
_OWN, _NEAR = np.float32(1.2 * _C + _G - _G * _C), np.float32(_G * _C)

# Points of a block: five arrays of it are 40 KB.
_BLOCK = np.uint64(2048)

# The residual is recomputed when it has fallen by this factor. Fluxes are off by 1e-7 because conductances are single,
# what they leave behind by some 1e-5 on a grid of 257 points a side.
_UPDATE = 1e-4


# Set-up ---------------------------------------------------------------------------------------------------------------


@njit(**_LOOP)
def _scale_row(
    first: Index, n: Index, stride: Index, num_y: Index, cx: Array, cy: Array, reacts: bool, reaction: Array,
    root: Array, scale: Array,
) -> None:  # fmt: skip
    """Root of the diagonal, and its inverse."""
    for j in range(n):
        k = first + j
        d = cx[k] + cx[k - stride] + cy[k] + cy[k - _U1]
        if reacts:
            d += reaction[k]
        d = np.sqrt(d)
        root[k] = d
        scale[k] = _ONE / d
    root[first] = scale[first] = _ZERO
    for j in range(num_y, n):
        root[first + j] = scale[first + j] = _ZERO


@njit(**_LOOP)
def _link(begin: Index, end: Index, stride: Index, cx: Array, cy: Array, scale: Array, ax: Array, ay: Array) -> None:
    for k in range(begin, end):
        s = scale[k]
        ax[k] = cx[k] * s * scale[k + stride]
        ay[k] = cy[k] * s * scale[k + _U1]


@njit(**_LOOP)
def _halve(begin: Index, end: Index, to: Index, source: Array, even: Array, odd: Array) -> None:
    """The even and the odd points of rows that begin at an even index."""
    for k in range((end - begin) >> _U1):
        even[to + k] = source[begin + _U2 * k]
        odd[to + k] = source[begin + _U2 * k + _U1]


@njit(**_LOOP)
def _share_y(half: Index, even: Array, odd: Array, share: Array) -> None:
    """Between two coarse points along y: the share of the one before."""
    for j in range(_PAD, _PAD + half):
        share[j] = even[j] / (even[j] + odd[j])


@njit(**_LOOP)
def _weights_y(
    w: Index, half: Index, even: Array, odd: Array, share: Array, centre: Array, west: Array, east: Array
) -> None:
    """Weights of an even row from the root of its diagonal."""
    for j in range(half):
        centre[w + j] = even[_PAD + j]
        s = odd[_PAD + j] * share[_PAD + j]
        west[w + j] = s
        east[w + j] = odd[_PAD + j] - s


@njit(**_LOOP)
def _share_x(
    first: Index, n: Index, stride: Index, cx: Array, root: Array, share: Array, north: Array, south: Array
) -> None:
    """Between two coarse points along x: the share of the one before, and both weights."""
    for j in range(n):
        k, p = first + j, _PAD + j
        s = cx[k - stride] / (cx[k - stride] + cx[k])
        share[p] = s
        north[p] = s * root[k]
        south[p] = root[k] - s * root[k]


@njit(**_LOOP)
def _weights_x(w: Index, half: Index, source: Array, target: Array, unused: Array) -> None:
    for j in range(half):
        target[w + j] = source[_PAD + _U2 * j]
        unused[_PAD + j] = source[_PAD + _U2 * j + _U1]


@njit(**_LOOP)
def _give_x(half: Index, odd: Array, before: Array, after: Array, given: Array) -> None:
    """What odd faces along x give to the coarse line before them: the mean of the shares at both of their ends."""
    for j in range(_PAD, _PAD + half):
        given[j] = _HALF * (before[j] + after[j]) * odd[j]


@njit(**_LOOP)
def _collect_x(k: Index, half: Index, even: Array, odd: Array, given: Array, coarse: Array) -> None:
    for j in range(half):
        p = _PAD + j
        coarse[k + j] = even[p] + given[p] + (odd[p - _U1] - given[p - _U1])


@njit(**_LOOP)
def _collect_x_in_series(k: Index, half: Index, even: Array, odd: Array, given: Array, coarse: Array) -> None:
    for j in range(half):
        p = _PAD + j
        a, b = coarse[k + j], even[p] + given[p] + (odd[p - _U1] - given[p - _U1])
        coarse[k + j] = a * b / (a + b)


@njit(**_LOOP)
def _give_y(first: Index, n: Index, cy: Array, share: Array, above: Array, below: Array) -> None:
    """What the faces along y of an odd row add to those of the even row above, and begin for the one below."""
    for j in range(n):
        p = _PAD + j
        c = cy[first + j]
        g = _HALF * (share[p] + share[p + _U1]) * c
        above[p] += g
        below[p] = c - g


@njit(**_LOOP)
def _add(first: Index, n: Index, cy: Array, total: Array) -> None:
    for j in range(n):
        total[_PAD + j] += cy[first + j]


@njit(**_LOOP)
def _in_series(k: Index, half: Index, total: Array, coarse: Array) -> None:
    for j in range(half):
        a, b = total[_PAD + _U2 * j], total[_PAD + _U2 * j + _U1]
        coarse[k + j] = a * b / (a + b)


@njit(**_PART)
def _set_up(
    levels: Levels, level: int, cx: Array, cy: Array, reaction: Array, root: Array, scale: Array, ax: Array, ay: Array,
    weights: Arrays, links: Arrays, rows: Arrays,
) -> None:  # fmt: skip
    """Scaling, links and weights of a level, and the conductances of the next one."""
    num_x, num_y, first, stride = levels[level, 0], levels[level, 1], levels[level, 2], levels[level, 3]
    for i in range(_U1, num_x):
        row = first + i * stride
        if len(reaction) > 0:
            _scale_row(row, stride, stride, num_y, cx, cy, True, reaction, root, scale)
        else:
            _scale_row(row, stride, stride, num_y, cx, cy, False, cx, root, scale)
    end = first + num_x * stride
    if level + 1 == len(levels):
        # Nobody needs the links of the coarsest level.
        return
    _link(first, end, stride, cx, cy, scale, ax, ay)
    to = (levels[0, 3] + first) >> _U1
    # Where links along x of even points go, nobody reads.
    _halve(first, end, to, ax, links[3], links[0])
    _halve(first, end, to, ay, links[1], links[2])

    coarse_y, coarse, coarse_stride = levels[level + 1, 1], levels[level + 1, 2], levels[level + 1, 3]
    shift = _PAD + coarse - levels[1, 2]
    half = stride >> _U1
    even, odd, given, before, after = rows[0], rows[1], rows[2], rows[3], rows[4]
    share, north, south, above, below = rows[5], rows[6], rows[7], rows[8], rows[9]
    _halve(first, first + stride, _PAD, cy, even, odd)
    _share_y(half, even, odd, before)
    for j in range(_PAD, _PAD + stride):
        above[j] = _ZERO
    for i in range(num_x):
        row = first + i * stride
        w = shift + (i >> _U1) * coarse_stride
        coarse_row = coarse + (i >> _U1) * coarse_stride
        is_odd, is_last = i & _U1, i + _U1 == num_x
        if is_odd:
            _share_x(row, stride, stride, cx, root, share, north, south)
            share[_PAD + num_y] = _HALF
            _weights_x(w, half, north, weights[3], odd)
            _weights_x(w, half, south, weights[4], odd)
            _give_y(row, stride, cy, share, above, below)
        elif i > _U0:
            _halve(row, row + stride, _PAD, root, even, odd)
            _weights_y(w, half, even, odd, before, weights[0], weights[1], weights[2])
            _add(row, stride, cy, above)
        if i > _U1 and (is_odd or is_last):
            _in_series(coarse_row, half, above, cy)
            if num_y & _U1:
                cy[coarse_row + coarse_y - _U1] = above[_PAD + num_y - _U1]
        if is_odd:
            above, below = below, above
        # Faces along x, between this row and the next.
        _halve(row + stride, row + _U2 * stride, _PAD, cy, even, odd)
        _share_y(half, even, odd, after)
        _halve(row, row + stride, _PAD, cx, even, odd)
        _give_x(half, odd, before, after, given)
        if num_y & _U1:
            # The boundary itself is an odd point.
            odd[_PAD + (num_y >> _U1)] = given[_PAD + (num_y >> _U1)] = _ZERO
        if is_odd:
            _collect_x_in_series(coarse_row, half, even, odd, given, cx)
        else:
            _collect_x(coarse_row, half, even, odd, given, cx)
        if is_odd or is_last:
            cx[coarse_row] = cx[coarse_row + coarse_y] = _ONE
        before, after = after, before


@njit(**_PART)
def _factor_coarsest(
    levels: Levels, cx: Array, cy: Array, reaction: Array, root: Array, scale: Array, rows: Arrays
) -> None:
    """Elimination along the axis that has more than one unknown, without a difference.

    `left` is what is left of a row's sum when all unknowns before it are eliminated: its own conductances to the
    boundary, its reaction, and in series with the link before it what was left there. A pivot is that and the link
    after it. All terms are positive, so a small reaction between closed ends is not lost in rounding; without one what
    is left at the end is exactly 0, and the last unknown is 0.
    """
    last = len(levels) - 1
    num_x, num_y, first, stride = levels[last, 0], levels[last, 1], levels[last, 2], levels[last, 3]
    lies_along_x = num_y == _U2
    n = num_x - _U1 if lies_along_x else num_y - _U1
    own, before, after = rows[0], rows[1], rows[2]
    k = first + stride + _U1
    link, left, inverse, root_before = _ZERO, _ZERO, _ZERO, _ONE
    for i in range(n):
        # Only the links along the line differ from conductances to the boundary.
        if lies_along_x:
            to_boundary = cy[k - _U1] + cy[k] + (cx[k - stride] if i == _U0 else _ZERO)
            next_link, step = cx[k], stride
        else:
            to_boundary = cx[k - stride] + cx[k] + (cy[k - _U1] if i == _U0 else _ZERO)
            next_link, step = cy[k], _U1
        if len(reaction) > 0:
            to_boundary += reaction[k]
        left = to_boundary + link * (left * inverse)
        if i + _U1 == n:
            left += next_link
            next_link = _ZERO
        pivot = left + next_link
        inverse = _ONE / pivot if pivot != _ZERO else _ZERO
        if root[k] == _ZERO:
            # The only point of a singular operator.
            scale[k] = _ZERO
        own[i] = root[k] * inverse * root[k]
        before[i] = root[k] * (link * inverse) / root_before
        after[i] = (next_link * inverse) * root[k]
        if i > _U0:
            after[i - _U1] /= root[k]
        link, root_before = next_link, root[k]
        k += step


@njit(**_PART)
def _restrict_reaction(
    levels: Levels, level: int, scale: Array, reaction: Array, v: Array,
    weights: Arrays, links: Arrays, halves: Arrays, edges: Arrays,
) -> None:  # fmt: skip
    """The reaction of the next level: coarse s = Pᵀ s."""
    num_x, first, stride = levels[level, 0], levels[level, 2], levels[level, 3]
    coarse_x, coarse, coarse_stride = levels[level + 1, 0], levels[level + 1, 2], levels[level + 1, 3]
    shift = _PAD + coarse - levels[1, 2]
    half, to = stride >> _U1, (levels[0, 3] + first) >> _U1
    even, odd, north_edge, edge = halves[0], halves[1], edges[0], edges[1]
    _unscale(first + stride, first + num_x * stride, scale, reaction, v)
    _halve(first + stride, first + num_x * stride, to + half, v, even, odd)
    for i in range(coarse_x):
        _gather_row(
            shift + i * coarse_stride, to + i * stride, half, even, odd, links[0], links[1], links[2], north_edge, edge
        )
    # The scale of the next level comes from what is found here.
    for k in range(coarse + coarse_stride, coarse + coarse_x * coarse_stride):
        scale[k] = _ONE
    for i in range(_U1, coarse_x):
        _restrict_row(
            shift + i * coarse_stride, coarse + i * coarse_stride, to + i * stride, half, coarse_stride,
            even, north_edge, edge, weights[0], weights[1], weights[2], weights[3], weights[4], scale, reaction,
        )  # fmt: skip


# The cycle ------------------------------------------------------------------------------------------------------------


@njit(**_LOOP)
def _pre_smooth(begin: Index, end: Index, stride: Index, ax: Array, ay: Array, r: Array, x: Array) -> None:
    for k in range(begin, end):
        near = ax[k] * r[k + stride] + ax[k - stride] * r[k - stride] + ay[k] * r[k + _U1] + ay[k - _U1] * r[k - _U1]
        x[k] = _OWN * r[k] + _NEAR * near


@njit(**_LOOP)
def _residual(begin: Index, end: Index, stride: Index, ax: Array, ay: Array, r: Array, x: Array, v: Array) -> None:
    """The residual v = r - Ã x."""
    for k in range(begin, end):
        near = ax[k] * x[k + stride] + ax[k - stride] * x[k - stride] + ay[k] * x[k + _U1] + ay[k - _U1] * x[k - _U1]
        v[k] = r[k] - x[k] + near


@njit(**_LOOP)
def _post_smooth(begin: Index, end: Index, stride: Index, ax: Array, ay: Array, v: Array, x: Array) -> None:
    for k in range(begin, end):
        near = ax[k] * v[k + stride] + ax[k - stride] * v[k - stride] + ay[k] * v[k + _U1] + ay[k - _U1] * v[k - _U1]
        x[k] += _OWN * v[k] + _NEAR * near


@njit(**_LOOP)
def _gather_row(
    w: Index, h: Index, half: Index, even: Array, odd: Array, ax: Array, west: Array, east: Array,
    north_edge: Array, edge: Array,
) -> None:  # fmt: skip
    """The middles of four give their residual to the points around them: odd ones of row h, even ones of the next."""
    for j in range(half):
        q, e = w + j, h + j
        o = odd[e + half]
        north_edge[q] = odd[e] + ax[e] * o + ax[e - half] * odd[e - half]
        edge[q] = even[e + half] + west[e + half] * o + east[e + half - _U1] * odd[e + half - _U1]


@njit(**_LOOP)
def _restrict_row(
    w: Index, k: Index, h: Index, half: Index, coarse_stride: Index, even: Array, north_edge: Array, edge: Array,
    centre: Array, west: Array, east: Array, north: Array, south: Array, scale: Array, r: Array,
) -> None:  # fmt: skip
    for j in range(half):
        q = w + j
        t = centre[q] * even[h + j] + west[q] * north_edge[q] + east[q - _U1] * north_edge[q - _U1]
        r[k + j] = scale[k + j] * (t + north[q] * edge[q] + south[q - coarse_stride] * edge[q - coarse_stride])


@njit(**_PART)
def _down(
    levels: Levels, level: int, ax: Array, ay: Array, scale: Array, r: Array, x: Array, v: Array,
    weights: Arrays, links: Arrays, halves: Arrays, edges: Arrays,
) -> None:  # fmt: skip
    """Smooth from zero and restrict the residual: coarse r = P̃ᵀ(r - Ã x)."""
    num_x, first, stride = levels[level, 0], levels[level, 2], levels[level, 3]
    coarse_x, coarse, coarse_stride = levels[level + 1, 0], levels[level + 1, 2], levels[level + 1, 3]
    shift = _PAD + coarse - levels[1, 2]
    half, to = stride >> _U1, (levels[0, 3] + first) >> _U1
    even, odd, north_edge, edge = halves[0], halves[1], edges[0], edges[1]
    rows = max(_U2, _BLOCK // stride)
    # The rows that are next in turn.
    smooth, residual, gather, restrict = _U1, _U1, _U0, _U1
    while residual < num_x:
        until = min(smooth + rows, num_x)
        _pre_smooth(first + smooth * stride, first + until * stride, stride, ax, ay, r, x)
        smooth = until
        until = smooth if smooth == num_x else smooth - _U1
        begin, end = residual * stride, until * stride
        _residual(first + begin, first + end, stride, ax, ay, r, x, v)
        _halve(first + begin, first + end, to + (begin >> _U1), v, even, odd)
        residual = until
        # Coarse row i needs the fine rows 2i - 1 to 2i + 1.
        until = coarse_x if residual == num_x else residual >> _U1
        for i in range(gather, until):
            _gather_row(
                shift + i * coarse_stride, to + i * stride, half, even, odd, links[0], links[1], links[2],
                north_edge, edge,
            )  # fmt: skip
        for i in range(restrict, until):
            _restrict_row(
                shift + i * coarse_stride, coarse + i * coarse_stride, to + i * stride, half, coarse_stride,
                even, north_edge, edge, weights[0], weights[1], weights[2], weights[3], weights[4], scale, r,
            )  # fmt: skip
        gather, restrict = until, max(until, _U1)


@njit(**_LOOP)
def _unscale(begin: Index, end: Index, scale: Array, x: Array, u: Array) -> None:
    for k in range(begin, end):
        u[k] = scale[k] * x[k]


@njit(**_LOOP)
def _north_edge_row(w: Index, half: Index, k: Index, u: Array, west: Array, east: Array, north_edge: Array) -> None:
    for j in range(half):
        north_edge[w + j] = west[w + j] * u[k + j] + east[w + j] * u[k + j + _U1]


@njit(**_LOOP)
def _edge_row(
    w: Index, half: Index, k: Index, coarse_stride: Index, u: Array, north: Array, south: Array, edge: Array
) -> None:
    for j in range(half):
        edge[w + j] = north[w + j] * u[k + j] + south[w + j] * u[k + j + coarse_stride]


@njit(**_LOOP)
def _correct_even_row(
    row: Index, w: Index, half: Index, k: Index, u: Array, centre: Array, north_edge: Array, x: Array
) -> None:
    for j in range(half):
        x[row + _U2 * j] += centre[w + j] * u[k + j]
        x[row + _U2 * j + _U1] += north_edge[w + j]


@njit(**_LOOP)
def _correct_odd_row(
    row: Index, w: Index, h: Index, half: Index, coarse_stride: Index, ax: Array, west: Array, east: Array,
    north_edge: Array, edge: Array, x: Array,
) -> None:  # fmt: skip
    for j in range(half):
        q, e = w + j, h + j
        along_x = ax[e - half] * north_edge[q] + ax[e] * north_edge[q + coarse_stride]
        x[row + _U2 * j] += edge[q]
        x[row + _U2 * j + _U1] += along_x + west[e] * edge[q] + east[e] * edge[q + _U1]


@njit(**_LOOP)
def _dot(begin: Index, end: Index, r: Array, z: Array) -> Number:
    total = _ZERO
    for k in range(begin, end):
        total += r[k] * z[k]
    return total


@njit(**_PART)
def _up(
    levels: Levels, level: int, ax: Array, ay: Array, scale: Array, r: Array, x: Array, v: Array,
    weights: Arrays, links: Arrays, edges: Arrays,
) -> Number:  # fmt: skip
    """Add P̃ (coarse x) to x and smooth; on the finest level return (r, x)."""
    num_x, first, stride = levels[level, 0], levels[level, 2], levels[level, 3]
    coarse_x, coarse, coarse_stride = levels[level + 1, 0], levels[level + 1, 2], levels[level + 1, 3]
    shift = _PAD + coarse - levels[1, 2]
    half, to = stride >> _U1, (levels[0, 3] + first) >> _U1
    north_edge, edge = edges[0], edges[1]
    rows = max(_U2, _BLOCK // stride)
    _unscale(coarse + coarse_stride, coarse + coarse_x * coarse_stride, scale, x, v)
    # The rows that are next in turn.
    correct, residual, smooth, next_even, next_odd = _U1, _U1, _U1, _U1, _U0
    rx = _ZERO
    while smooth < num_x:
        until = min(correct + rows, num_x)
        for i in range(next_even, (until >> _U1) + _U1):
            w = shift + i * coarse_stride
            _north_edge_row(w, half, coarse + i * coarse_stride, v, weights[1], weights[2], north_edge)
        for i in range(next_odd, until >> _U1):
            w = shift + i * coarse_stride
            _edge_row(w, half, coarse + i * coarse_stride, coarse_stride, v, weights[3], weights[4], edge)
        next_even, next_odd = (until >> _U1) + _U1, until >> _U1
        for i in range(correct, until):
            row, w = first + i * stride, shift + (i >> _U1) * coarse_stride
            if i & _U1:
                _correct_odd_row(
                    row, w, to + i * half, half, coarse_stride, links[0], links[1], links[2], north_edge, edge, x
                )
            else:
                _correct_even_row(row, w, half, coarse + (i >> _U1) * coarse_stride, v, weights[0], north_edge, x)
        correct = until
        until = correct if correct == num_x else correct - _U1
        _residual(first + residual * stride, first + until * stride, stride, ax, ay, r, x, v)
        residual = until
        until = residual if residual == num_x else residual - _U1
        _post_smooth(first + smooth * stride, first + until * stride, stride, ax, ay, v, x)
        if level == 0:
            rx += _dot(smooth * stride, until * stride, r, x)
        smooth = until
    return rx


@njit(**_PART)
def _solve_coarsest(levels: Levels, r: Array, x: Array, rows: Arrays) -> None:
    """Forth and back along the axis that has more than one unknown."""
    last = len(levels) - 1
    num_x, num_y, first, stride = levels[last, 0], levels[last, 1], levels[last, 2], levels[last, 3]
    n, step = (num_x - _U1, stride) if num_y == _U2 else (num_y - _U1, _U1)
    own, before, after = rows[0], rows[1], rows[2]
    k = first + stride + _U1
    value = _ZERO
    for i in range(n):
        value = own[i] * r[k] + before[i] * value
        x[k] = value
        k += step
    k -= step
    for i in range(n - _U1):
        k -= step
        x[k] += after[n - _U2 - i] * x[k + step]


@njit(**_PART)
def _cycle(
    levels: Levels, ax: Array, ay: Array, scale: Array, r: Array, x: Array, v: Array,
    weights: Arrays, links: Arrays, halves: Arrays, edges: Arrays, rows: Arrays,
) -> Number:  # fmt: skip
    """One V-cycle: x ≈ Ã⁻¹ r on the finest level; returns (r, x)."""
    last = len(levels) - 1
    for level in range(last):
        _down(levels, level, ax, ay, scale, r, x, v, weights, links, halves, edges)
    _solve_coarsest(levels, r, x, rows)
    rx = _ZERO
    for level in range(last - 1, -1, -1):
        rx = _up(levels, level, ax, ay, scale, r, x, v, weights, links, edges)
    return rx if last > 0 else _dot(_U0, (levels[0, 0] + _U1) * levels[0, 3], r, x)


# Conjugate gradients --------------------------------------------------------------------------------------------------


@njit(**_LOOP)
def _accumulate(begin: Index, end: Index, keep: float, step: float, p: Array, x: Array) -> None:
    for k in range(begin, end):
        x[k] = keep * x[k] + step * p[k]


@njit(**_LOOP)
def _direction(begin: Index, end: Index, beta: Number, scale: Array, z: Array, p: Array) -> None:
    for k in range(begin, end):
        p[k] = scale[k] * z[k] + beta * p[k]


@njit(**_LOOP)
def _apply(
    begin: Index, end: Index, stride: Index, cx: Array, cy: Array, reacts: bool, reaction: Array, scale: Array,
    p: Array, q: Array,
) -> Number:  # fmt: skip
    """The image q = D^-1/2 A p and the product (p, A p)."""
    total = _ZERO
    for k in range(begin, end):
        c = p[k]
        along_x = cx[k] * (c - p[k + stride]) + cx[k - stride] * (c - p[k - stride])
        t = along_x + (cy[k] * (c - p[k + _U1]) + cy[k - _U1] * (c - p[k - _U1]))
        if reacts:
            t += reaction[k] * c
        total += c * t
        q[k] = scale[k] * t
    return total


@njit(**_PART)
def _search(
    num_x: Index, stride: Index, keep: float, step: float, beta: Number, cx: Array, cy: Array, reaction: Array,
    scale: Array, z: Array, p: Array, q: Array, x: Array,
) -> Number:  # fmt: skip
    """Take the last step, x += step p, and find the next direction, p = D^-1/2 z + beta p, q = D^-1/2 A p; (p, A p)."""
    rows = max(_U2, _BLOCK // stride)
    pq = _ZERO
    turn, apply = _U1, _U1
    while apply < num_x:
        until = min(turn + rows, num_x)
        if step != 0.0:
            _accumulate(turn * stride, until * stride, keep, step, p, x)
        _direction(turn * stride, until * stride, beta, scale, z, p)
        turn = until
        until = turn if turn == num_x else turn - _U1
        if len(reaction) > 0:
            pq += _apply(apply * stride, until * stride, stride, cx, cy, True, reaction, scale, p, q)
        else:
            pq += _apply(apply * stride, until * stride, stride, cx, cy, False, cx, scale, p, q)
        apply = until
    return pq


@njit(**_LOOP)
def _reduce(begin: Index, end: Index, step: Number, root: Array, q: Array, r: Array) -> Number:
    """The next residual, r -= step q, and its squared norm before scaling."""
    total = _ZERO
    for k in range(begin, end):
        t = r[k] - step * q[k]
        r[k] = t
        t *= root[k]
        total += t * t
    return total


@njit(**_LOOP)
def _true_row(
    m: Index, k: Index, f: Index, ny: Index, stride: Index, cx: Array, cy: Array, reacts: bool, reaction: Array,
    rhs: Array, x: Array, of_cx: float, of_rhs: float, scale: Array, r: Array,
) -> float:  # fmt: skip
    """The residual of a row of unknowns that begins at m, k where there is a boundary."""
    total = 0.0
    for j in range(ny):
        c = x[k + j]
        t = cx[m + j] * (c - x[k + j - stride]) + cx[m + ny + j] * (c - x[k + j + stride])
        t += cy[f + j] * (c - x[k + j - _U1]) + cy[f + j + _U1] * (c - x[k + j + _U1])
        if reacts:
            t += reaction[m + j] * c
        t = rhs[m + j] * of_rhs - t * of_cx
        total += t * t
        r[k + j] = scale[k + j] * t
    return total


@njit(**_PART)
def _true_residual(
    nx: Index, ny: Index, stride: Index, cx: Array, cy: Array, reaction: Array, rhs: Array, x: Array,
    of_cx: float, of_rhs: float, scale: Array, r: Array,
) -> float:  # fmt: skip
    """Compute the residual in double precision from what was given."""
    total = 0.0
    for i in range(nx):
        m, k = i * ny, (i + _U1) * stride + _U1
        if len(reaction) > 0:
            total += _true_row(m, k, m + i, ny, stride, cx, cy, True, reaction, rhs, x, of_cx, of_rhs, scale, r)
        else:
            total += _true_row(m, k, m + i, ny, stride, cx, cy, False, cx, rhs, x, of_cx, of_rhs, scale, r)
    return np.sqrt(total)


@njit(**_LOOP)
def _start_row(m: Index, k: Index, ny: Index, rhs: Array, of_rhs: float, scale: Array, r: Array) -> None:
    for j in range(ny):
        r[k + j] = scale[k + j] * (rhs[m + j] * of_rhs)


@njit(**_LOOP)
def _finish_row(m: Index, k: Index, ny: Index, factor: float, x: Array, solution: Array) -> None:
    for j in range(ny):
        solution[m + j] = x[k + j] * factor


@njit(**_LOOP)
def _convert(m: Index, k: Index, n: Index, factor: float, source: Array, target: Array) -> None:
    for j in range(n):
        target[k + j] = source[m + j] * factor


@njit(**_LOOP)
def _typical(begin: Index, row: Index, step: Index, end: Index, faces: Array) -> float:
    """The mean of some rows: the size of conductances, in less time than a pass over all of them."""
    total, num_rows = 0.0, 0.0
    for first in range(begin, end, step):
        for k in range(first, first + row):
            total += faces[k]
        num_rows += 1.0
    return total / (num_rows * row)


@njit(**_OPTIONS, cache=True)
def conjugate_gradients(
    conductance_x: Float64[np.ndarray, "faces_x points_y"],
    conductance_y: Float64[np.ndarray, "points_x faces_y"],
    reaction: Float64[np.ndarray, "points_x points_y"],
    rhs: Float64[np.ndarray, " unknowns"],
    solution: Float64[np.ndarray, " unknowns"],
    levels: Levels,
    levelled: Float32[np.ndarray, "9 points"],
    levelled_reaction: Float32[np.ndarray, " points"],
    finest: Float32[np.ndarray, "2 finest"],
    double: Float64[np.ndarray, " finest"],
    weights: Float32[np.ndarray, "5 coarse"],
    links: Float32[np.ndarray, "4 halves"],
    halves: Float32[np.ndarray, "2 halves"],
    edges: Float32[np.ndarray, "2 coarse"],
    rows: Float32[np.ndarray, "10 row"],
    rtol: float,
    max_iterations: int,
) -> tuple[int, float]:
    """Solve a five-point system into `solution`.

    Without a reaction `reaction` and `levelled_reaction` are empty. If constants are mapped to 0, the right-hand side
    must sum to 0, and a constant may be left to subtract from the solution.

    Returns:
        The number of iterations and the relative residual, recomputed from the solution. It exceeds `rtol` when the
        iterations ran out, or when they broke down because of values that are not finite or not positive.
    """
    given_x, given_y, given_s = conductance_x.ravel(), conductance_y.ravel(), reaction.ravel()
    reacts = len(given_s) > 0
    num_x, num_y, stride = levels[0, 0], levels[0, 1], levels[0, 3]
    nx, ny = num_x - _U1, num_y - _U1
    begin, end = stride, num_x * stride
    cx, cy, s, scale, root = levelled[0], levelled[1], levelled_reaction, levelled[2], levelled[3]
    ax, ay, r, z, v = levelled[4], levelled[5], levelled[6], levelled[7], levelled[8]
    p, q, x = finest[0], finest[1], double

    norm = 0.0
    for k in range(nx * ny):
        norm += rhs[k] * rhs[k]
    norm = np.sqrt(norm)
    if norm == 0.0:
        solution[:] = 0.0
        return 0, 0.0
    # Single precision ends at 1e-38: conductances are scaled to a mean of about 1 and the right-hand side to norm 1.
    # The first row of faces may be closed, the second of so few that there is no other.
    typical = _typical(min(_U8, num_x >> _U1) * ny, ny, _U16 * ny, num_x * ny, given_x)
    typical += _typical(min(_U8, nx >> _U1) * num_y, num_y, _U16 * num_y, nx * num_y, given_y)
    if reacts:
        typical += _typical(min(_U8, nx >> _U1) * ny, ny, _U16 * ny, nx * ny, given_s)
    if not (norm < np.inf and 0.0 < typical < np.inf):
        solution[:] = 0.0
        return 0, np.nan
    for i in range(num_x):
        _convert(i * ny, i * stride + _U1, ny, 1.0 / typical, given_x, cx)
    for i in range(nx):
        _convert(i * num_y, (i + _U1) * stride, num_y, 1.0 / typical, given_y, cy)
    if reacts:
        for i in range(nx):
            _convert(i * ny, (i + _U1) * stride + _U1, ny, 1.0 / typical, given_s, s)
    for level in range(len(levels)):
        _set_up(levels, level, cx, cy, s, root, scale, ax, ay, weights, links, rows)
        if reacts and level + 1 < len(levels):
            _restrict_reaction(levels, level, scale, s, v, weights, links, halves, edges)
    _factor_coarsest(levels, cx, cy, s, root, scale, rows)
    for i in range(nx):
        _start_row(i * ny, (i + _U1) * stride + _U1, ny, rhs, 1.0 / norm, scale, r)

    num_iterations = 0
    residual = 1.0
    rz_before = np.float32(np.inf)
    keep = step = 0.0
    while num_iterations < max_iterations:
        rz = _cycle(levels, ax, ay, scale, r, z, v, weights, links, halves, edges, rows)
        pq = _search(num_x, stride, keep, step, rz / rz_before, cx, cy, s, scale, z, p, q, x)
        if step != 0.0:
            keep = 1.0
        rz_before = rz
        num_iterations += 1
        broken = not pq > _ZERO
        if not broken:
            step = np.float64(rz / pq)
            rr = _reduce(begin, end, rz / pq, root, q, r)
            if np.sqrt(np.float64(rr)) > max(_UPDATE * residual, 0.9 * rtol) and num_iterations < max_iterations:
                continue
            _accumulate(begin, end, keep, step, p, x)
            keep, step = 1.0, 0.0
        elif keep == 0.0:
            x[:] = 0.0
        before = residual
        residual = _true_residual(
            nx, ny, stride, given_x, given_y, given_s, rhs, x, 1.0 / typical, 1.0 / norm, scale, r
        )
        if broken or residual <= rtol or not residual < 0.75 * before:
            break
    for i in range(nx):
        _finish_row(i * ny, (i + _U1) * stride + _U1, ny, norm / typical, x, solution)
    return num_iterations, residual
