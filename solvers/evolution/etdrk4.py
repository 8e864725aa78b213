"""ETDRK4: an exponential integrator of fourth order for u' = L u + N(u) with a diagonal L, batched in torch.

Source: Cox and Matthews (2002), Journal of Computational Physics 176, Eqs. 26-29; its coefficients, which cancel badly
for small h L, by the contour integrals of Kassam and Trefethen (2005), SIAM Journal on Scientific Computing 26, Sec. 3.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from headrace.solvers.evolution import etdrk4_kernels as kernels

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
        first: weight of N(v) in the step.
        middle: weight of N(a) + N(b).
        last: weight of N(c).
    """

    step: float
    full: Spectrum
    half: Spectrum
    stage: Spectrum
    first: Spectrum
    middle: Spectrum
    last: Spectrum
    _room: list[tuple[Spectrum, kernels.Spectra]] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, symbol: Shaped[Tensor, "..."], step: float) -> Self:
        """The coefficients of a step.

        Args:
            symbol: L "batch components *spectrum", real, or complex where waves travel.
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
            first=first,
            middle=2.0 * middle,
            last=last,
        )

    def advance(self, v: Spectrum, nonlinear: Nonlinear | None) -> Spectrum:
        """V one step later; exact without a nonlinear term."""
        if nonlinear is None:
            return self.full * v
        is_compiled = v.device.type == "cpu" and self.full.shape[2:] == v.shape[2:]
        return self._compiled(v, nonlinear) if is_compiled else self._in_torch(v, nonlinear)

    def _in_torch(self, v: Spectrum, nonlinear: Nonlinear) -> Spectrum:
        n_v = nonlinear(v)
        base = self.half * v
        a = torch.addcmul(base, self.stage, n_v)
        n_a = nonlinear(a)
        n_b = nonlinear(base.addcmul_(self.stage, n_a))
        c = (self.half * a).addcmul_(self.stage, torch.sub(2.0 * n_b, n_v))
        n_c = nonlinear(c)
        later = torch.addcmul(self.full * v, self.first, n_v)
        return later.addcmul_(self.middle, n_a + n_b).addcmul_(self.last, n_c)

    def _compiled(self, v: Spectrum, nonlinear: Nonlinear) -> Spectrum:
        """The same on a CPU: each sum is one pass over memory, and no call for each of its terms."""
        full, half, stage, first, middle, last = self._factors
        (a, a_rows), (b, b_rows), (c, c_rows), (_, base) = self._stages(v)
        old = _rows(v)

        def rate(u: Spectrum) -> kernels.Spectra:
            found = nonlinear(u)
            return _rows(found if found.shape == v.shape else found.expand_as(v))

        n_v = rate(v)
        kernels.first_stage(old, n_v, half, stage, base, a_rows)
        n_a = rate(a)
        kernels.second_stage(base, n_a, stage, b_rows)
        n_b = rate(b)
        kernels.third_stage(a_rows, n_v, n_b, half, stage, c_rows)
        n_c = rate(c)
        later = torch.empty_like(v, memory_format=torch.contiguous_format)
        kernels.last_stage(old, n_v, n_a, n_b, n_c, full, first, middle, last, _rows(later))
        return later

    @cached_property
    def _factors(self) -> tuple[kernels.Coefficients, ...]:
        return tuple(map(_rows, (self.full, self.half, self.stage, self.first, self.middle, self.last)))

    def _stages(self, v: Spectrum) -> list[tuple[Spectrum, kernels.Spectra]]:
        """Room for a, b, c and e^{h L / 2} v, and the same as rows; good until the next step."""
        if self._room and self._room[0][0].shape == v.shape:
            return self._room
        self._room[:] = [
            (one, _rows(one)) for one in (torch.empty_like(v, memory_format=torch.contiguous_format) for _ in range(4))
        ]
        return self._room


def _rows(spectrum: Complex[Tensor, "batch components *spectrum"]) -> kernels.Spectra:
    rows: kernels.Spectra = spectrum.resolve_conj().numpy().reshape(*spectrum.shape[:2], -1)
    return rows
