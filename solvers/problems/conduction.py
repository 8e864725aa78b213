"""Conduction that grows with the temperature, on the interior points of a square: its scheme and its linearisation."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from headrace.solvers.systems.operators import DiffusionOperator, stencil_csr

if TYPE_CHECKING:
    from scipy.sparse import csr_array

type Interior = Float64[np.ndarray, "interior interior"]


class Conduction:
    """A u + β L u³ / 3: what leaves each cell of a square by the flux -(a(x) + β u²) ∇u, u = 0 on the boundary.

    Through the face between points p and q flows c (u_p - u_q) + β (u_p³ - u_q³) / 3, with the harmonic mean c of a:
    the mean of β u² over the values in between is exact. The scheme conserves to rounding and is of second order where
    a is smooth.

    The Jacobian, A + β L diag(u²), is exact. It is not symmetric where β > 0, but an M-matrix at every u: its columns
    sum to 0 or more, and off the diagonal it is negative.

    Attributes:
        operator: A, that of a.
    """

    def __init__(self, coefficient: Float64[np.ndarray, "points points"], strength: float) -> None:
        """Take a at the points, boundary included, positive; and β ≥ 0."""
        # Numba takes seconds to import: those who discretise nothing do not wait for it.
        from headrace.solvers.systems.harmonic_kernels import harmonic_2d

        n = len(coefficient)
        conductances = np.empty((n - 1, n - 2)), np.empty((n - 2, n - 1))
        harmonic_2d(coefficient, *conductances)
        self.operator = DiffusionOperator(conductances=conductances)
        self._strength = strength
        self._laplacian = DiffusionOperator(conductances=tuple(np.ones_like(c) for c in conductances))

    def outflow(self, u: Interior) -> Interior:
        """A u + β L u³ / 3."""
        out = self.operator.apply(u)
        if self._strength:
            out += self._laplacian.apply((self._strength / 3.0) * u**3)
        return out

    def frozen(self, u: Interior, reaction: float) -> DiffusionOperator:
        """The conduction of a medium that stays as it is at u, and a reaction, the same everywhere.

        Since u_p³ - u_q³ = (u_p² + u_p u_q + u_q²) (u_p - u_q), its outflow at u is the true one. From the Jacobian it
        differs by a term of lower order, -∇·(d ∇(β u²)), so that it is symmetric, and nearly as good a linearisation.
        """
        conductances = self.operator.conductances
        if self._strength:
            padded = np.pad(u, 1)
            pairs = ((padded[:-1, 1:-1], padded[1:, 1:-1]), (padded[1:-1, :-1], padded[1:-1, 1:]))
            share = self._strength / 3.0
            conductances = tuple(
                c + share * (p * p + p * q + q * q) for c, (p, q) in zip(conductances, pairs, strict=True)
            )
        return DiffusionOperator(conductances=conductances, reaction=np.full(u.shape, reaction))

    def jacobian(self, u: Interior, reaction: float = 0.0) -> "csr_array":
        """A + β L diag(u²), with a number added along the diagonal."""
        # A column of the diffusion of radiation is multiplied by β u² at its own point.
        radiation = np.zeros((u.shape[0] + 2, u.shape[1] + 2))
        radiation[1:-1, 1:-1] = self._strength * u**2
        cx, cy = self.operator.conductances
        return stencil_csr(
            self.operator.diagonal() + (4.0 * radiation[1:-1, 1:-1] + reaction),
            (-cx[:-1] - radiation[:-2, 1:-1], -cy[:, :-1] - radiation[1:-1, :-2]),
            (-cx[1:] - radiation[2:, 1:-1], -cy[:, 1:] - radiation[1:-1, 2:]),
        )
