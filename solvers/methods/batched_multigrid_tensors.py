"""The tensors of batched multigrid: conjugate gradients around a V-cycle, a whole batch of systems an operation.

The mathematics is that of `multigrid_kernels`, whose header describes it: two steps of the fourth-kind Chebyshev
iteration before and after, interpolation and coarse conductances from the operator, an exact coarsest level; the cycle
in single and conjugate gradients in double precision. Here it is written for machines that like few, large operations.

Layout. A tensor is "batch nx ny" and holds the unknowns alone. `cx` has the nx + 1 faces normal to the first axis, `cy`
the ny + 1 normal to the second. Row 0 is an odd point of the grid (point 0 is the boundary before it), so `0::2` are
the points between coarse ones and `1::2` the coarse ones, whatever the parity of nx.

Inside the cycle all levels are scaled to a unit diagonal: with D the diagonal, Ã = D^-1/2 A D^-1/2, x̃ = D^1/2 x,
r̃ = D^-1/2 r. Then Ã is the identity minus four shifted products, the smoother is a polynomial in Ã, and a point in the
middle of four coarse ones takes Σ c̃ x̃ over its neighbours. That leaves two thirds of the operations.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

# As in `multigrid_kernels`: two steps from r̃ are x̃ = α r̃ - γ Ã r̃ for a spectrum below λ = 2.
_LAMBDA = 2.0
_C, _G = 4.0 / (3.0 * _LAMBDA), 12.0 / (5.0 * _LAMBDA)
_ALPHA, _GAMMA = 1.2 * _C + _G, _G * _C

# Rounding lets the residual of the recurrence drift from the true one; conjugate gradients then start anew from it.
_STARTS = 4


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Systems of one shape: A from conductances and reaction, b, and whether constants are mapped to 0."""

    cx: Float64[Tensor, "batch nx+1 ny"]
    cy: Float64[Tensor, "batch nx ny+1"]
    reaction: Float64[Tensor, "batch nx ny"] | None
    rhs: Float64[Tensor, "batch nx ny"]
    singular: Bool[Tensor, " batch"]


def solve(
    batch: Batch, rtol: float, max_iterations: int
) -> tuple[Float64[Tensor, "batch nx ny"], Int64[Tensor, " batch"], Float64[Tensor, " batch"]]:
    """Solve all systems of a batch; what converged, or broke down, is left alone while the others go on.

    Returns:
        The solutions, the number of iterations of each, and the relative residuals, recomputed from the solutions. A
        residual exceeds `rtol` when the iterations ran out or broke down on values that are not finite or not positive.
    """
    norm = torch.linalg.vector_norm(batch.rhs, dim=(1, 2))
    zero = norm == 0.0
    largest = torch.maximum(batch.cx.amax(dim=(1, 2)), batch.cy.amax(dim=(1, 2)))
    # Single precision ends at 1e-38: conductances are scaled to at most 1 and right-hand sides to norm 1.
    scaled_norm = torch.where(zero, 1.0, norm)
    cx, cy = batch.cx / _over(largest), batch.cy / _over(largest)
    reaction = None if batch.reaction is None else batch.reaction / _over(largest)
    rhs = batch.rhs / _over(scaled_norm)
    cycle = Cycle(cx.float(), cy.float(), None if reaction is None else reaction.float(), batch.singular)

    x, r = torch.zeros_like(rhs), rhs.clone()
    count = torch.zeros_like(norm, dtype=torch.int64)
    residual = torch.where(zero, 0.0, torch.ones_like(norm))
    active = ~zero
    for _ in range(_STARTS):
        _conjugate_gradients(cycle, cx, cy, reaction, x, r, active, count, rtol, max_iterations)
        before = residual
        r = rhs - apply(cx, cy, reaction, x)
        residual = torch.where(zero, 0.0, torch.linalg.vector_norm(r, dim=(1, 2)))
        active = active & (residual > rtol) & (count < max_iterations) & (residual < 0.5 * before)
        if not bool(active.any()):
            break
    x *= _over(scaled_norm / largest)
    # Constants may be added to the solution of a singular system: of all solutions, the one of mean 0.
    x -= torch.where(_over(batch.singular), x.mean(dim=(1, 2), keepdim=True), 0.0)
    x[zero] = 0.0
    return x, count, residual


def _conjugate_gradients(
    cycle: "Cycle",
    cx: Float64[Tensor, "batch nx+1 ny"],
    cy: Float64[Tensor, "batch nx ny+1"],
    reaction: Float64[Tensor, "batch nx ny"] | None,
    x: Float64[Tensor, "batch nx ny"],
    r: Float64[Tensor, "batch nx ny"],
    active: Bool[Tensor, " batch"],
    count: Int64[Tensor, " batch"],
    rtol: float,
    max_iterations: int,
) -> None:
    """Iterate on the active systems, in place, until their recurrence ends below the tolerance."""
    p = torch.zeros_like(r)
    rz_before = torch.full_like(r[:, 0, 0], torch.inf)
    active = active.clone()
    while True:
        z = cycle(r)
        rz = (r * z).sum(dim=(1, 2))
        beta = torch.where(active, rz / rz_before, 0.0)
        rz_before = torch.where(active, rz, rz_before)
        p.mul_(_over(beta)).add_(z)
        q = apply(cx, cy, reaction, p)
        pq = (p * q).sum(dim=(1, 2))
        count += active
        active &= pq > 0.0  # false where it is not a number
        step = torch.where(active, rz / pq, 0.0)
        # A system that is not finite must not touch what was found before it broke down: 0 times infinity is not 0.
        x.add_(torch.where(_over(active), _over(step) * p, 0.0))
        r.sub_(torch.where(_over(active), _over(step) * q, 0.0))
        active &= ((r * r).sum(dim=(1, 2)) > 0.81 * rtol * rtol) & (count < max_iterations)
        if not bool(active.any()):
            return


def apply(
    cx: Float[Tensor, "batch nx+1 ny"],
    cy: Float[Tensor, "batch nx ny+1"],
    reaction: Float[Tensor, "batch nx ny"] | None,
    u: Float[Tensor, "batch nx ny"],
) -> Float[Tensor, "batch nx ny"]:
    """A u as the difference of the fluxes through the faces of every point."""
    through = torch.nn.functional.pad(u, (0, 0, 1, 1)).diff(dim=1).mul_(cx)
    out = through[:, :-1] - through[:, 1:]
    through = torch.nn.functional.pad(u, (1, 1)).diff(dim=2).mul_(cy)
    out.add_(through[:, :, :-1]).sub_(through[:, :, 1:])
    return out if reaction is None else out.addcmul_(reaction, u)


class Cycle:
    """z ≈ A⁻¹ r by one V-cycle: symmetric and positive definite, so that it may precondition conjugate gradients."""

    def __init__(
        self,
        cx: Float32[Tensor, "batch nx+1 ny"],
        cy: Float32[Tensor, "batch nx ny+1"],
        reaction: Float32[Tensor, "batch nx ny"] | None,
        singular: Bool[Tensor, " batch"],
    ) -> None:
        self._levels: list[_Level] = []
        scale, inner_x, inner_y = _scaled(cx, cy, reaction)
        self._scale = scale
        while min(scale.shape[1:]) > 1:
            level = _Level(cx, cy, scale, inner_x, inner_y)
            if reaction is not None:
                # The coarse reaction is what the coarse points' shares of the fine points add up to.
                reaction = level.unscaled_restriction(reaction * scale)
            cx, cy = _coarse_conductances(cx, cy)
            scale, inner_x, inner_y = _scaled(cx, cy, reaction)
            level.coarse_scale = scale
            self._levels.append(level)
        self._coarsest = _Coarsest(inner_x if inner_x.shape[1] else inner_y, singular)

    def __call__(self, r: Float64[Tensor, "batch nx ny"]) -> Float64[Tensor, "batch nx ny"]:
        """One cycle on a residual in double precision."""
        rights: list[Tensor] = []
        guesses: list[Tensor] = []
        right = r.float().mul_(self._scale)
        for level in self._levels:
            guess = level.smoothed(right)
            rights.append(right)
            guesses.append(guess)
            right = level.restricted(level.residual(right, guess))
        x = self._coarsest.solve(right)
        for level, right, guess in zip(reversed(self._levels), reversed(rights), reversed(guesses), strict=True):
            level.add_interpolated(x, guess)
            x = level.smooth(guess, level.residual(right, guess))
        return x.mul_(self._scale).double()


class _Level:
    """One grid of the cycle, scaled to a unit diagonal, and the way to the next coarser one."""

    coarse_scale: Tensor

    def __init__(self, cx: Tensor, cy: Tensor, scale: Tensor, inner_x: Tensor, inner_y: Tensor) -> None:
        self._inner_x, self._inner_y = inner_x, inner_y
        root = torch.where(scale > 0.0, 1.0 / scale, 0.0)
        # Weights of what lies between two coarse points on a coarse line, and of the coarse points themselves.
        self._before_x, self._after_x = _weights(cx[:, :, 1::2], root[:, 0::2, 1::2], dim=1)
        self._before_y, self._after_y = _weights(cy[:, 1::2, :], root[:, 1::2, 0::2], dim=2)
        self._self = root[:, 1::2, 1::2].contiguous()
        # The faces between a middle point and its neighbours; a face with an even number follows the middle point.
        self._to_x = inner_x[:, 0::2, 0::2].contiguous(), inner_x[:, 1::2, 0::2].contiguous()
        self._to_y = inner_y[:, 0::2, 0::2].contiguous(), inner_y[:, 0::2, 1::2].contiguous()

    def smoothed(self, v: Tensor) -> Tensor:
        """Two steps of the Chebyshev iteration from 0: α v - γ Ã v."""
        return self._add_neighbours(v * (_ALPHA - _GAMMA), v, _GAMMA)

    def smooth(self, x: Tensor, v: Tensor) -> Tensor:
        """The same two steps from x, whose residual is v, in place."""
        return self._add_neighbours(x.add_(v, alpha=_ALPHA - _GAMMA), v, _GAMMA)

    def residual(self, right: Tensor, x: Tensor) -> Tensor:
        """The right-hand side minus Ã x."""
        return self._add_neighbours(right - x, x, 1.0)

    def _add_neighbours(self, out: Tensor, u: Tensor, factor: float) -> Tensor:
        out[:, 1:].addcmul_(self._inner_x, u[:, :-1], value=factor)
        out[:, :-1].addcmul_(self._inner_x, u[:, 1:], value=factor)
        out[:, :, 1:].addcmul_(self._inner_y, u[:, :, :-1], value=factor)
        out[:, :, :-1].addcmul_(self._inner_y, u[:, :, 1:], value=factor)
        return out

    def restricted(self, r: Tensor) -> Tensor:
        """The coarse right-hand side, scaled: the transpose of the interpolation."""
        return self.unscaled_restriction(r).mul_(self.coarse_scale)

    def unscaled_restriction(self, r: Tensor) -> Tensor:
        """Pᵀ D^1/2 r̃."""
        middle = r[:, 0::2, 0::2]
        between_x, between_y = r[:, 0::2, 1::2].clone(), r[:, 1::2, 0::2].clone()
        after, before = self._to_y
        between_x.addcmul_(after, middle[:, :, : after.shape[2]])
        between_x[:, :, : before.shape[2]].addcmul_(before, middle[:, :, 1:])
        after, before = self._to_x
        between_y.addcmul_(after, middle[:, : after.shape[1]])
        between_y[:, : before.shape[1]].addcmul_(before, middle[:, 1:])
        out = r[:, 1::2, 1::2] * self._self
        out.addcmul_(self._after_x, between_x[:, : out.shape[1]])
        out[:, : self._before_x.shape[1]].addcmul_(self._before_x, between_x[:, 1:])
        out.addcmul_(self._after_y, between_y[:, :, : out.shape[2]])
        out[:, :, : self._before_y.shape[2]].addcmul_(self._before_y, between_y[:, :, 1:])
        return out

    def add_interpolated(self, coarse: Tensor, x: Tensor) -> None:
        """Add the interpolation of a coarse solution, scaled, to x."""
        values = coarse * self.coarse_scale
        middle, between_x, between_y = x[:, 0::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 0::2]
        add_x, add_y = torch.zeros_like(between_x), torch.zeros_like(between_y)
        add_x[:, : values.shape[1]].addcmul_(self._after_x, values)
        add_x[:, 1:].addcmul_(self._before_x, values[:, : self._before_x.shape[1]])
        add_y[:, :, : values.shape[2]].addcmul_(self._after_y, values)
        add_y[:, :, 1:].addcmul_(self._before_y, values[:, :, : self._before_y.shape[2]])
        after, before = self._to_y
        middle[:, :, : after.shape[2]].addcmul_(after, add_x)
        middle[:, :, 1:].addcmul_(before, add_x[:, :, : before.shape[2]])
        after, before = self._to_x
        middle[:, : after.shape[1]].addcmul_(after, add_y)
        middle[:, 1:].addcmul_(before, add_y[:, : before.shape[1]])
        x[:, 1::2, 1::2].addcmul_(self._self, values)
        between_x += add_x
        between_y += add_y


class _Coarsest:
    """The coarsest level, one unknown across one axis: elimination along the other (Thomas algorithm)."""

    def __init__(self, inner: Tensor, singular: Bool[Tensor, " batch"]) -> None:
        faces = inner.flatten(1)
        self._faces = faces
        pivots = [faces.new_ones(len(faces), 1)]
        for k in range(faces.shape[1]):
            pivots.append(1.0 - faces[:, k : k + 1] ** 2 * pivots[-1].reciprocal())
        self._inverse = torch.cat(pivots, dim=1).reciprocal_()
        # Of a singular system the last equation says nothing that the others do not; its unknown is 0.
        self._inverse[:, -1].masked_fill_(singular, 0.0)

    def solve(self, right: Tensor) -> Tensor:
        """Eliminate forwards, substitute backwards."""
        x = right.flatten(1).clone()
        for k in range(self._faces.shape[1]):
            x[:, k + 1].addcmul_(self._faces[:, k] * self._inverse[:, k], x[:, k])
        x *= self._inverse
        for k in range(self._faces.shape[1] - 1, -1, -1):
            x[:, k].addcmul_(self._faces[:, k] * self._inverse[:, k], x[:, k + 1])
        return x.reshape(right.shape)


def _over(values: Tensor) -> Tensor:
    """One value a system, as a factor of its fields."""
    return values[:, None, None]


def _scaled(cx: Tensor, cy: Tensor, reaction: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """D^-1/2, and the inner faces of both axes, scaled on either side by it."""
    diagonal = cx[:, 1:] + cx[:, :-1] + cy[:, :, 1:] + cy[:, :, :-1]
    if reaction is not None:
        diagonal += reaction
    scale = torch.where(diagonal > 0.0, diagonal.rsqrt(), 0.0)
    inner_x = cx[:, 1:-1] * scale[:, 1:] * scale[:, :-1]
    inner_y = cy[:, :, 1:-1] * scale[:, :, 1:] * scale[:, :, :-1]
    return scale, inner_x, inner_y


def _weights(faces: Tensor, root: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """For the points between two coarse ones along an axis: the weights of the coarse point before and of that after.

    Of the first point the one before, and of a last point without a partner the one after, lie on the boundary: they
    are left out.
    """
    num_points = root.shape[dim]
    before = faces.narrow(dim, 0, faces.shape[dim] - 1)[_every_other(dim)]
    after = faces.narrow(dim, 1, faces.shape[dim] - 1)[_every_other(dim)]
    both = root / (before + after)
    num_coarse = (faces.shape[dim] - 1) // 2
    return (
        (before * both).narrow(dim, 1, num_points - 1).contiguous(),
        (after * both).narrow(dim, 0, num_coarse).contiguous(),
    )


def _every_other(dim: int) -> tuple[slice, ...]:
    return (slice(None),) * dim + (slice(None, None, 2),)


def _coarse_conductances(cx: Tensor, cy: Tensor) -> tuple[Tensor, Tensor]:
    across = _coarse_x(cy.transpose(1, 2), cx.transpose(1, 2)).transpose(1, 2)
    return _coarse_x(cx, cy), across.contiguous()


def _coarse_x(cx: Tensor, cy: Tensor) -> Tensor:
    """Coarse conductances normal to the first axis: faces side by side added up, then two rows of them in series.

    What flows along a line between two coarse lines is shared between them as interpolation shares it.
    """
    ny = cx.shape[2]
    num_coarse = ny // 2
    before, after = cy[:, :, 0:ny:2], cy[:, :, 1 : ny + 1 : 2]
    share = before / (before + after)
    # Along the boundary nothing is known; both sides get half.
    half = torch.full_like(share[:, :1], 0.5)
    share = torch.cat([half, share, half], dim=1)
    between = cx[:, :, 0::2]
    to_before = (0.5 * (share[:, 1:] + share[:, :-1])) * between
    faces = cx[:, :, 1::2] + (between - to_before)[:, :, :num_coarse]
    faces[:, :, : to_before.shape[2] - 1] += to_before[:, :, 1:]
    pairs = faces.shape[1] // 2
    a, b = faces[:, 0 : 2 * pairs : 2], faces[:, 1 : 2 * pairs : 2]
    return torch.cat([a * b / (a + b), faces[:, 2 * pairs :]], dim=1)
