"""Semilinear: v_t = L v + N(v), as a stepper takes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Semilinear:
    """An equation in the space where its linear part is diagonal, for a batch of samples.

    Attributes:
        symbol: L "batch components *spectrum", real or complex; a batch of 1 when the samples share it.
        nonlinear: N of a batch of spectra; None when there is none.
        encode: from the spectra of the state to the space where L is diagonal; None when they are that.
        decode: back.
        square_flux: c where `nonlinear` is c (u²)_x of one component in one dimension: such steps are compiled as a
            whole.
    """

    symbol: "Tensor"
    nonlinear: "Callable[[Tensor], Tensor] | None" = None
    encode: "Callable[[Tensor], Tensor] | None" = None
    decode: "Callable[[Tensor], Tensor] | None" = None
    square_flux: float | None = None
