"""Norms that neither overflow nor underflow, and the powers of two that bring vectors near 1."""

import math

import numpy as np
from jaxtyping import Shaped

# Between these the squares of a vector's values, and their sum, are normal numbers; 1e-8 of them squared, too.
_SMALLEST, _LARGEST = 2.0**-400, 2.0**400


def norm(values: Shaped[np.ndarray, "..."]) -> float:
    """The Euclidean norm; not a number if a value is not, infinite if a value is."""
    largest = peak(values)
    if _SMALLEST < largest < _LARGEST:
        return float(np.linalg.norm(values))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    shift = exponent(largest)
    return math.ldexp(float(np.linalg.norm(scaled(values, -shift))), shift)


def peak(values: Shaped[np.ndarray, "..."]) -> float:
    """The largest absolute value; not a number if a value is not."""
    if not values.size:
        return 0.0
    if np.iscomplexobj(values):
        return max(peak(values.real), peak(values.imag))
    return max(float(values.max()), -float(values.min()))


def is_moderate(largest: float) -> bool:
    """Whether vectors of this size can be multiplied and squared without a thought; 0 and what is not finite too."""
    return _SMALLEST < largest < _LARGEST or largest == 0.0 or not math.isfinite(largest)


def exponent(largest: float) -> int:
    """The k for which 2ᵏ is the power of two next above a positive number."""
    return math.frexp(largest)[1]


def scaled(values: Shaped[np.ndarray, "..."], shift: int) -> Shaped[np.ndarray, "..."]:
    """Values times 2 to the power of `shift`: exact, unless a result is subnormal or infinite."""
    with np.errstate(over="ignore", under="ignore"):
        if np.iscomplexobj(values):
            return np.ldexp(values.real, shift) + 1j * np.ldexp(values.imag, shift)
        return np.asarray(np.ldexp(values, shift))


def described(array: object) -> str:
    """What an array is, to say what was expected instead."""
    if isinstance(array, np.ndarray):
        kind = "" if type(array) is np.ndarray else f"{type(array).__name__} of "
        return f"{kind}{array.dtype} of shape {array.shape}"
    return type(array).__name__
