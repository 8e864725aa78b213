"""Convection and diffusion through the faces of a grid, of second order and without over- or undershoot."""

import functools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

from headrace.solvers.systems.system import LinearSystem, NonlinearSystem, Structure

type Interior = Float64[np.ndarray, "interior interior"]
type Faces = Float64[np.ndarray, "faces interior"]


@dataclass(frozen=True, kw_only=True)
class LimitedConvection:
    """∇·(v u) - ν Δu = f in the cells around the interior points of a square grid, u = 0 on the boundary.

    With the point P upstream of a face, D downstream, and W upstream of P, the face carries

        u_P + ½ [ψ₀ b + (1 - ψ₀) minmod(2 a, b)],   a = u_P - u_W,  b = u_D - u_P,  ψ₀ = min(1, 2 ν / |v h|).

    That is the mean of both sides wherever a is at least half of b: second order. Where it is less, and at extremes, it
    is as near to the mean as diffusion alone allows: every point then is a mean of its neighbours with positive weights
    that depend on u, as in Spekreijse (1987, Mathematics of Computation 49, Eq. 2.12), and u has no extremum without a
    source. Up to a Péclet number |v h| / ν of 2 the mean needs no limit: the scheme is linear there.

    Attributes:
        flow_x: v h through the faces across the first axis.
        flow_y: v h through the faces across the second axis.
        diffusivity: ν.
        source: f h² in the cells.
    """

    flow_x: Float64[np.ndarray, "faces interior"]
    flow_y: Float64[np.ndarray, "interior faces"]
    diffusivity: float
    source: Interior

    def system(self, feature: Float64[np.ndarray, "..."]) -> NonlinearSystem:
        """The equations, from u = 0: the first step of Newton's method then takes the limited faces as ψ₀ has them."""
        return NonlinearSystem(
            guess=np.zeros(self.source.size),
            residual=self.residual,
            linearize=self.linearize,
            structure=Structure(),
            scale=float(np.linalg.norm(self.source)),
            feature=feature,
        )

    def residual(self, x: Float64[np.ndarray, " unknowns"]) -> Float64[np.ndarray, " unknowns"]:
        """What flows out of the cells, less the source."""
        along_x, along_y = self._through(x)
        return np.asarray((np.diff(along_x.flux, axis=0) + np.diff(along_y.flux, axis=0).T - self.source).ravel())

    def linearize(self, x: Float64[np.ndarray, " unknowns"]) -> LinearSystem:
        """Newton's step."""
        m = len(self.source)
        entries = np.empty((9, m, m))
        along_x, along_y = self._through(x)
        far_before, before, middle_x, after, far_after = along_x.derivatives()
        entries[0], entries[1], entries[7], entries[8] = far_before, before, after, far_after
        far_before, before, middle_y, after, far_after = (part.T for part in along_y.derivatives())
        entries[2], entries[3], entries[5], entries[6] = far_before, before, after, far_after
        entries[4] = middle_x + middle_y
        from scipy.sparse import csr_array

        take, indices, indptr = _pattern(m)
        matrix = csr_array((entries.reshape(9, -1).T.ravel()[take], indices, indptr), shape=(m * m, m * m))
        return LinearSystem.from_matrix(matrix, -self.residual(x))

    def _through(self, x: Float64[np.ndarray, " unknowns"]) -> "tuple[_Axis, _Axis]":
        m = len(self.source)
        u = np.zeros((m + 2, m + 2))
        u[1:-1, 1:-1] = x.reshape(m, m)
        return _Axis(u[:, 1:-1], self.flow_x, self.diffusivity), _Axis(u.T[:, 1:-1], self.flow_y.T, self.diffusivity)


class _Axis:
    """What flows through the faces across the first axis.

    Attributes:
        flux: in the direction of growing coordinates.
    """

    def __init__(self, u: Float64[np.ndarray, "points interior"], flow: Faces, nu: float) -> None:
        self._flow, self._nu, self._is_forward = flow, nu, flow >= 0.0
        jump = np.diff(u, axis=0)
        # Beyond the boundary u goes on along a line.
        before, after = np.concatenate([jump[:1], jump[:-1]]), np.concatenate([jump[1:], jump[-1:]])
        twice = 2.0 * np.where(self._is_forward, before, after)
        self._is_limited = np.abs(twice) < np.abs(jump)
        self._is_monotone = twice * jump > 0.0
        speed = np.abs(flow)
        self._free = np.minimum(1.0, 2.0 * nu / np.maximum(speed, np.finfo(np.float64).tiny))
        self._half = 0.5 * speed
        slope = np.where(self._is_monotone, np.where(self._is_limited, twice, jump), 0.0)
        upstream = np.where(self._is_forward, u[:-1], u[1:])
        self.flux = flow * upstream + self._half * (self._free * jump + (1.0 - self._free) * slope) - nu * jump

    def derivatives(self) -> tuple[Interior, Interior, Interior, Interior, Interior]:
        """Of what flows out of a cell, by u two points before it, before it, in it, after it, and two after it."""
        by_jump = np.where(self._is_monotone & ~self._is_limited, 1.0, 0.0)
        across = self._half * (self._free + (1.0 - self._free) * by_jump) - self._nu
        other = np.where(self._is_monotone & self._is_limited, 2.0 * self._half * (1.0 - self._free), 0.0)
        by_before, by_after = np.where(self._is_forward, other, 0.0), np.where(self._is_forward, 0.0, other)
        left = np.maximum(self._flow, 0.0) - across + by_before
        right = np.minimum(self._flow, 0.0) + across - by_after
        west, east = slice(None, -1), slice(1, None)
        return (
            by_before[west],
            -by_before[east] - left[west],
            left[east] - right[west],
            right[east] - by_after[west],
            by_after[east],
        )


@functools.lru_cache(maxsize=8)
def _pattern(
    m: int,
) -> tuple[Int32[np.ndarray, " nonzeros"], Int32[np.ndarray, " nonzeros"], Int32[np.ndarray, " rows"]]:
    """Which entries of (row, neighbour) exist, their columns, and where rows begin."""
    i, j = np.divmod(np.arange(m * m), m)
    present = np.stack([i >= 2, i >= 1, j >= 2, j >= 1, i >= 0, j < m - 1, j < m - 2, i < m - 1, i < m - 2], axis=1)
    offsets = np.array([-2 * m, -m, -2, -1, 0, 1, 2, m, 2 * m])
    columns = np.arange(m * m)[:, np.newaxis] + offsets
    indptr = np.concatenate([[0], np.cumsum(present.sum(axis=1))])
    found = np.flatnonzero(present).astype(np.int32), columns[present].astype(np.int32), indptr.astype(np.int32)
    for array in found:
        array.setflags(write=False)
    return found
