"""Arrays from outside, at the door: real numbers that single precision holds, or a sentence that says which are not."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Shaped

from headrace.platform.errors import InputError

NBYTES_AT_A_TIME = 2**26
"""Of a large array so much is cast and looked at, at a time [B]."""

REFUSED = {
    "c": ("complex numbers", "Give real and imaginary parts, each as a field."),
    "m": ("lengths of time", "Divide by a unit first, as in values / numpy.timedelta64(1, 's')."),
    "M": ("dates", "Give times since a start, as numbers."),
    "O": ("Python objects", "Rows of different lengths end so; all must have the same shape."),
}


def real_numbers(values: object, where: str) -> Shaped[np.ndarray, "..."]:
    """The values as an array, as they are; nothing that a cast to float32 would change in silence.

    Args:
        values: an array, or what NumPy makes one of.
        where: what they are, for the error.

    Raises:
        InputError: they are no real numbers, or some of them are masked.
    """
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        if hidden.any():
            first = tuple(int(axis[0]) for axis in hidden.nonzero())
            raise InputError.single(
                where,
                f"masked in {int(hidden.sum())} places, first at {first}",
                "values everywhere",
                "A network needs a number at every point: fill them, as in values.filled(0).",
            )
        values = values.data
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError.single(where, "", "numbers in an array", str(error)) from error
    if array.dtype.kind not in "biuf":
        what, advice = REFUSED.get(array.dtype.kind, (f"of type {array.dtype}", ""))
        raise InputError.single(where, what, "real numbers", advice)
    return array


def require_finite(
    array: Shaped[np.ndarray, "..."],
    where: str,
    place: Callable[[tuple[int, ...]], str] = lambda index: f"at {index}",
) -> None:
    """See that an array of real numbers is finite once it is float32, a part of it at a time.

    Args:
        array: the numbers.
        where: what they are, for the error.
        place: says in words where an index is.

    Raises:
        InputError: some are not; it names the first, and how many there are.
    """
    if not array.ndim:
        _require_finite(array.reshape(1), 0, where, lambda index: "")
        return
    row = max(array.nbytes // max(len(array), 1), 1)
    rows = max(NBYTES_AT_A_TIME // row, 1)
    for start in range(0, len(array), rows):
        _require_finite(array[start : start + rows], start, where, place)


def _require_finite(
    part: Shaped[np.ndarray, "..."], start: int, where: str, place: Callable[[tuple[int, ...]], str]
) -> None:
    bad = ~np.isfinite(as_float32(part))
    if not bad.any():
        return
    index = tuple(int(axis[0]) for axis in bad.nonzero())
    value = part[index]
    found = f"{value:g}" if np.isfinite(value) else str(float(value))
    advice = "It is beyond single precision (3.4e38), which networks calculate in." if np.isfinite(value) else ""
    there = place((index[0] + start, *index[1:]))
    raise InputError.single(where, f"{found} {there}".strip(), "finite values", advice)


def as_float32(array: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """The numbers in single precision; those beyond it become infinite without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(array).astype(np.float32, copy=False)
