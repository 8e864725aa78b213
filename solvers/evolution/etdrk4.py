"""ETDRK4: an exponential integrator of fourth order for u' = L u + N(u) with a diagonal L, batched in torch.

Source: Cox and Matthews (2002), Journal of Computational Physics 176, Eqs. 26-29; its coefficients, which cancel badly
for small h L, by the contour integrals of Kassam and Trefethen (2005), SIAM Journal on Scientific Computing 26, Sec. 3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

# Points on the circle of radius 1 around each h L: the trapezoid rule is exact to rounding from 32 points on.
_CONTOUR_POINTS = 32

Spectrum = Complex[Tensor, "..."]
Nonlinear = Callable[[Spectrum], Spectrum]
"""N(v) in the space where L is diagonal; it depends on nothing but v."""


@dataclass(frozen=True, kw_only=True)
class ETDRK4:
    """The coefficients of one step size, complex: a real factor of a complex array would be converted at each use.

    Attributes:
        step: h [s or 1].
        full: e^{h L}, shaped as the symbol.
        half: e^{h L / 2}.
        stage: (e^{h L / 2} - 1) / L, in all three stages.
        twice_stage: twice that.
        first: weight of N(v) in the step.
        middle: weight of N(a) + N(b).
        last: weight of N(c).
    """

    step: float
    full: Spectrum
    half: Spectrum
    stage: Spectrum
    twice_stage: Spectrum
    first: Spectrum
    middle: Spectrum
    last: Spectrum

    @classmethod
    def of(cls, symbol: Shaped[Tensor, "..."], step: float) -> Self:
        """The coefficients of a step.

        Args:
            symbol: L, real, or complex where waves travel; any shape.
            step: h > 0.
        """
        scaled = step * symbol
        # Of a real L the lower half of the circle is the conjugate of the upper half.
        count = _CONTOUR_POINTS if symbol.is_complex() else _CONTOUR_POINTS // 2
        turns = (torch.arange(count, dtype=torch.float64) + 0.5) / _CONTOUR_POINTS
        sums = [torch.zeros_like(scaled, dtype=torch.promote_types(scaled.dtype, torch.complex64)) for _ in range(4)]
        for point in torch.exp(2j * torch.pi * turns).tolist():
            z = scaled + point
            inverse, half = z.reciprocal(), torch.exp(z / 2.0)
            exponential, cubed = half * half, inverse**3
            sums[0] += (half - 1.0) * inverse
            sums[1] += (exponential * (4.0 - 3.0 * z + z * z) - 4.0 - z) * cubed
            sums[2] += (exponential * (z - 2.0) + 2.0 + z) * cubed
            sums[3] += (exponential * (4.0 - z) - 4.0 - 3.0 * z - z * z) * cubed
        means = [total * (step / count) for total in sums]
        if not symbol.is_complex():
            means = [torch.complex(mean.real, torch.zeros_like(mean.real)) for mean in means]
        stage, first, middle, last = means
        scaled = scaled.to(stage.dtype)
        return cls(
            step=step,
            full=torch.exp(scaled),
            half=torch.exp(scaled / 2.0),
            stage=stage,
            twice_stage=2.0 * stage,
            first=first,
            middle=2.0 * middle,
            last=last,
        )

    def advance(self, v: Spectrum, nonlinear: Nonlinear | None) -> Spectrum:
        """V one step later; exact without a nonlinear term."""
        if nonlinear is None:
            return self.full * v
        n_v = nonlinear(v)
        base = self.half * v
        a = torch.addcmul(base, self.stage, n_v)
        n_a = nonlinear(a)
        n_b = nonlinear(base.addcmul_(self.stage, n_a))
        c = (self.half * a).addcmul_(self.twice_stage, torch.sub(n_b, n_v, alpha=0.5))
        n_c = nonlinear(c)
        later = torch.addcmul(self.full * v, self.first, n_v)
        return later.addcmul_(self.middle, n_a.add_(n_b)).addcmul_(self.last, n_c)
