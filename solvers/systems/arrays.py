"""What problems ask of the arrays they are given, and single precision."""

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float, Float64


def require_names(
    fields: Mapping[str, Float[np.ndarray, "..."]], required: Collection[str], optional: Collection[str] = ()
) -> None:
    """Refuse a set of arrays that is not the one expected.

    Raises:
        ValueError: an array is missing or unknown.
    """
    if not set(required) <= set(fields) <= {*required, *optional}:
        arrays = f"the array{'s' if len(required) > 1 else ''} {' and '.join(required)}"
        wanted = f" and, if wanted, {' and '.join(optional)}" if optional else ""
        raise ValueError(f"expected {arrays}{wanted}; got {sorted(fields)}")


def checked(
    name: str, array: Float[np.ndarray, "..."], shape: tuple[int, ...], where: str = "points a side, boundary included"
) -> Float64[np.ndarray, "..."]:
    """The array in double precision, rows contiguous.

    Raises:
        ValueError: it has another shape, or values that are not finite.
    """
    array = np.ascontiguousarray(array, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}: {where}")
    # A sum is finite when all values are: one pass and no temporary array.
    if not np.isfinite(array.sum()) and not np.isfinite(array).all():
        raise ValueError(f"{name} has {np.count_nonzero(~np.isfinite(array))} values that are not finite numbers")
    return array


def require_positive(name: str, array: Float64[np.ndarray, "..."]) -> None:
    """Refuse a coefficient that is zero or negative somewhere.

    Raises:
        ValueError: it is.
    """
    least = float(array.min())
    if not least > 0.0:
        raise ValueError(f"{name} has the value {least:g}, expected positive values everywhere")


def representable(field: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """The field rounded to values that single precision holds.

    Samples are stored in single precision. Rounding at the draw means that the stored field is the one whose equation
    was solved, and hides the last bits in which math libraries differ between machines.
    """
    return field.astype(np.float32).astype(np.float64)


def with_boundary(
    interior: Float[np.ndarray, " unknowns"], resolution: int, ndim: int = 2
) -> Float[np.ndarray, "1 1 ..."]:
    """Interior values among the zeros of the boundary, as the only output of a sample."""
    out = np.zeros((1, 1) + (resolution,) * ndim, dtype=np.float32)
    out[(0, 0) + (slice(1, -1),) * ndim] = interior.reshape((resolution - 2,) * ndim)
    return out


NO_PARAMETERS = np.zeros(0, dtype=np.float32)
"""The parameters of a sample that has none."""
NO_PARAMETERS.setflags(write=False)
