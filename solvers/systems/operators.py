"""Diffusion operators on a box: conductances through the faces between its points, applied without a matrix."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float64, Int32

from headrace.solvers.systems.norms import described, exponent, norm, peak, scaled

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Sums of squares between these have lost nothing: neither they nor 1e-16 of them are near the ends of the range.
_LEAST_SQUARE, _LARGEST_SQUARE = 2.0**-800, 2.0**800


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionOperator:
    """(A u)ₚ = Σ over the faces of p of c_face (uₚ - u_neighbour) + sₚ uₚ, on a box of points in 1, 2 or 3 dimensions.

    Every face carries one conductance, so the operator is symmetric, and what leaves one cell enters the next.

    * Along an axis that is not periodic, n points have n + 1 faces; face i lies between the points i - 1 and i. Beyond
      the first and the last face u = 0: their conductance is positive on a Dirichlet boundary and 0 on a Neumann one.
    * Along a periodic axis n points have n faces; face 0 lies between the points n - 1 and 0.

    Attributes:
        conductances: one array for each axis, with the faces normal to it; inner faces are positive.
        periodic: for each axis, whether it wraps around.
        reaction: s at the points, or None for s = 0. Positive for an implicit time step, negative for Helmholtz.

    Raises:
        ValueError: the shapes do not belong to one grid.
    """

    conductances: tuple[Float64[np.ndarray, "..."], ...]
    periodic: tuple[bool, ...] = ()
    reaction: Float64[np.ndarray, "*points"] | None = None

    def __post_init__(self) -> None:
        ndim = len(self.conductances)
        if not self.periodic:
            object.__setattr__(self, "periodic", (False,) * ndim)
        shapes = [c.shape for c in self.conductances]
        alike = 1 <= ndim <= 3 and len(self.periodic) == ndim and all(len(shape) == ndim for shape in shapes)
        points = tuple(shapes[axis][axis] - (not wraps) for axis, wraps in enumerate(self.periodic)) if alike else ()
        if not alike or min(points) < 1 or shapes != [self._faces(points, axis) for axis in range(ndim)]:
            raise ValueError(
                f"expected one array of conductances for each of 1 to 3 axes, with one face more than points along its "
                f"own axis (as many where periodic), got the shapes {shapes} and periodic = {self.periodic}"
            )
        for name, array in (
            *((f"conductances of axis {axis}", c) for axis, c in enumerate(self.conductances)),
            *((("reaction", self.reaction),) if self.reaction is not None else ()),
        ):
            if type(array) is not np.ndarray or array.dtype != np.float64:
                raise ValueError(f"expected {name} as an array of float64, got {described(array)}")
        if self.reaction is not None and self.reaction.shape != points:
            raise ValueError(f"the operator has {points} points, got a reaction of shape {self.reaction.shape}")

    def _faces(self, points: tuple[int, ...], axis: int) -> tuple[int, ...]:
        return tuple(n + (k == axis and not self.periodic[axis]) for k, n in enumerate(points))

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Unknowns per axis, the last axis fastest."""
        return tuple(c.shape[k] - (not self.periodic[k]) for k, c in enumerate(self.conductances))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.conductances)

    @property
    def num_unknowns(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    @functools.cached_property
    def singular(self) -> bool:
        """Whether constants are mapped to 0: no Dirichlet face anywhere and no reaction."""
        if self.reaction is not None and self.reaction.any():
            return False
        for axis, (c, wraps) in enumerate(zip(self.conductances, self.periodic, strict=True)):
            # The first face of a Dirichlet boundary usually ends the search; counting is NumPy's fastest way to look.
            if not wraps and (
                np.count_nonzero(_along(c, axis, slice(0, 1))) or np.count_nonzero(_along(c, axis, slice(-1, None)))
            ):
                return False
        return True

    @property
    def has_open_ends(self) -> bool:
        """Whether every face at an end of an axis is a Dirichlet one; periodic axes have no ends."""
        for axis, (c, wraps) in enumerate(zip(self.conductances, self.periodic, strict=True)):
            if not wraps and not min(_along(c, axis, slice(0, 1)).min(), _along(c, axis, slice(-1, None)).min()) > 0.0:
                return False
        return True

    def fluxes(self, u: Float64[np.ndarray, "*points"]) -> tuple[Float64[np.ndarray, "..."], ...]:
        """What flows through each face in the direction of growing coordinates, axis by axis."""
        out = []
        for axis, (c, wraps) in enumerate(zip(self.conductances, self.periodic, strict=True)):
            flux = np.empty_like(c)
            before, after = _along(u, axis, slice(None, -1)), _along(u, axis, slice(1, None))
            first, last = _along(u, axis, slice(0, 1)), _along(u, axis, slice(-1, None))
            if wraps:
                np.subtract(before, after, out=_along(flux, axis, slice(1, None)))
                np.subtract(last, first, out=_along(flux, axis, slice(0, 1)))
            else:
                np.subtract(before, after, out=_along(flux, axis, slice(1, -1)))
                np.negative(first, out=_along(flux, axis, slice(0, 1)))
                _along(flux, axis, slice(-1, None))[...] = last
            flux *= c
            out.append(flux)
        return tuple(out)

    def apply(self, u: Float64[np.ndarray, "*points"]) -> Float64[np.ndarray, "*points"]:
        """The net outflow A u of every cell.

        Raises:
            ValueError: u is not real.
        """
        if np.iscomplexobj(u):
            raise ValueError("a diffusion operator acts on real numbers, got complex ones: apply it to both parts")
        # Numba takes seconds to import: those who apply nothing do not wait for it.
        from headrace.solvers.systems.operator_kernels import outflow

        out = np.empty(self.num_unknowns)
        none = np.zeros(0)
        missing = 3 - self.ndim
        outflow(
            *[none] * missing,
            *(np.ascontiguousarray(c).ravel() for c in self.conductances),
            none if self.reaction is None else np.ascontiguousarray(self.reaction).ravel(),
            _unsigned((1,) * missing + self.shape),
            (False,) * missing + self.periodic,
            np.ascontiguousarray(u, dtype=np.float64).ravel(),
            out,
        )
        return out.reshape(self.shape)

    def relative_residual(self, u: Float64[np.ndarray, " unknowns"], rhs: Float64[np.ndarray, " unknowns"]) -> float:
        """||b - A u|| / ||b||, whatever the size of b; if b = 0, it is 0 for u = 0 and infinite otherwise.

        Raises:
            ValueError: u is not real.
        """
        from headrace.solvers.systems.operator_kernels import squares

        missed, scale = squares(np.ascontiguousarray(rhs, dtype=np.float64), self.apply(u.reshape(self.shape)).ravel())
        if _LEAST_SQUARE < scale < _LARGEST_SQUARE and missed < _LARGEST_SQUARE:
            return math.sqrt(missed / scale)
        if not (largest := peak(rhs)):
            return 0.0 if not u.any() else math.inf
        shift = exponent(largest) if math.isfinite(largest) else 0
        rest = scaled(rhs, -shift) - self.apply(scaled(u, -shift).reshape(self.shape)).ravel()
        return norm(rest) / norm(scaled(rhs, -shift))

    def diagonal(self) -> Float64[np.ndarray, "*points"]:
        """The diagonal of A."""
        out = np.zeros(self.shape) if self.reaction is None else self.reaction.copy()
        for axis, c in enumerate(self.conductances):
            before, after = self._sides(c, axis)
            out += before
            out += after
        return out

    def _sides(
        self, c: Float[np.ndarray, "..."], axis: int
    ) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
        """Of every point, the faces before and after it along an axis."""
        if self.periodic[axis]:
            return c, np.roll(c, -1, axis=axis)
        return _along(c, axis, slice(None, -1)), _along(c, axis, slice(1, None))

    def to_csr(self) -> "csr_array":
        """The matrix A in compressed rows, columns ascending."""
        sides = [self._sides(c, axis) for axis, c in enumerate(self.conductances)]
        return stencil_csr(
            self.diagonal(), [-before for before, _ in sides], [-after for _, after in sides], self.periodic
        )


def stencil_csr(
    diagonal: Float[np.ndarray, "*points"],
    before: Sequence[Float[np.ndarray, "*points"]],
    after: Sequence[Float[np.ndarray, "*points"]],
    periodic: tuple[bool, ...] = (),
) -> "csr_array":
    """The matrix of any stencil that reaches the next points along the axes; its pattern is computed once a grid.

    Args:
        diagonal: the entry of every point with itself.
        before: for each axis, the entry of every point with the one before it; what would lie outside is left out.
        after: the same with the one after it.
        periodic: for each axis, whether it wraps around; none does by default.

    Returns:
        Compressed rows, columns ascending. Index arrays are shared between matrices and read-only.
    """
    from scipy.sparse import csr_array

    ndim, n = diagonal.ndim, diagonal.size
    pattern = _pattern(diagonal.shape, periodic or (False,) * ndim)
    entries = np.empty((n, 2 * ndim + 1))
    entries[:, ndim] = diagonal.ravel()
    for axis in range(ndim):
        entries[:, axis] = before[axis].ravel()
        entries[:, 2 * ndim - axis] = after[axis].ravel()
    matrix = csr_array((entries.ravel()[pattern.take], pattern.indices, pattern.indptr), shape=(n, n))
    if pattern.repeats:
        # Two points around a periodic axis are neighbours twice.
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


@dataclass(frozen=True, kw_only=True)
class _Pattern:
    """Where the entries of `to_csr` go: `take` picks those that exist, row by row with ascending columns."""

    take: Int32[np.ndarray, " nonzeros"]
    indices: Int32[np.ndarray, " nonzeros"]
    indptr: Int32[np.ndarray, " rows"]
    repeats: bool


@functools.lru_cache(maxsize=8)
def _pattern(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> _Pattern:
    ndim, n = len(shape), math.prod(shape)
    point = np.arange(n, dtype=np.int32).reshape(shape)
    columns = np.empty((n, 2 * ndim + 1), dtype=np.int32)
    present = np.ones((n, 2 * ndim + 1), dtype=bool)
    columns[:, ndim] = point.ravel()
    for axis, wraps in enumerate(periodic):
        for entry, shift in ((axis, 1), (2 * ndim - axis, -1)):
            columns[:, entry] = np.roll(point, shift, axis=axis).ravel()
            if not wraps:
                outside = np.zeros(shape, dtype=bool)
                _along(outside, axis, slice(0, 1) if shift == 1 else slice(-1, None))[...] = True
                present[:, entry] = ~outside.ravel()
    order = np.argsort(np.where(present, columns, n), axis=1, kind="stable")
    rows = np.arange(n)[:, None]
    take = (order + (2 * ndim + 1) * rows)[present[rows, order]].astype(np.int32)
    indices = columns.ravel()[take]
    indptr = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(present.sum(axis=1), out=indptr[1:])
    for array in (take, indices, indptr):
        array.setflags(write=False)
    repeats = any(wraps and count <= 2 for wraps, count in zip(periodic, shape, strict=True))
    return _Pattern(take=take, indices=indices, indptr=indptr, repeats=repeats)


@functools.lru_cache(maxsize=8)
def _unsigned(shape: tuple[int, ...]) -> tuple[np.uint64, ...]:
    """The counts as the kernels want them."""
    return tuple(map(np.uint64, shape))


def _along(array: np.ndarray, axis: int, part: slice) -> np.ndarray:
    """A view of a part of one axis."""
    return array[(slice(None),) * axis + (part,)]
